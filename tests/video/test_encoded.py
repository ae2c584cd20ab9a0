"""Synthetic videos, whose pixels say which frame they are: every codec, GOP and time base, and the ladder."""

from pathlib import Path

import av
import numpy as np
import pytest

from cinefeed import open_video, probe
from cinefeed.core.errors import DecodeError, SourceError
from cinefeed.testing import check_source, numbered_frames, read_number, write_video
from cinefeed.video.ffmpeg.source import EncodedSource
from cinefeed.video.metadata import VideoMetadata
from cinefeed.video.timestamps import Timestamps

pytestmark = pytest.mark.usefixtures("way")
COUNT = 60
UNEVEN = np.cumsum(np.random.Generator(np.random.Philox(key=3)).integers(5, 90, COUNT)).tolist()
KINDS = {
    "plain.mp4": {},
    "one_key.mp4": {"gop": 250, "b_frames": 2},
    "b_frames.mp4": {"gop": 20, "b_frames": 3},
    "pyramid.mkv": {"gop": 30, "b_frames": 3, "options": {"x264-params": "b-pyramid=normal:open-gop=1"}},
    "intra_refresh.mp4": {"gop": 15, "options": {"x264-params": "intra-refresh=1"}},
    "uneven.mp4": {"stamps": UNEVEN, "b_frames": 2},
    "uneven.mkv": {"stamps": UNEVEN},
    "hevc.mp4": {"codec": "hevc", "b_frames": 2},
    "vp9.webm": {"codec": "vp9"},
    "mpeg4.mp4": {"codec": "mpeg4"},
    "mpeg4_b.mp4": {"codec": "mpeg4", "b_frames": 2},
    "mpeg4_b.avi": {"codec": "mpeg4", "b_frames": 2},
    "h264_b.avi": {"b_frames": 2},
    "programme.mpg": {"codec": "mpeg2video", "b_frames": 2},
    "transport.ts": {"b_frames": 2},
    "no_stamps.h264": {"b_frames": 2},
    "gif.gif": {"codec": "gif", "pixel_format": "rgb8", "rate_hz": 20},
}
FORMATS = {
    "yuvj422p": ("mjpeg", 8, 3),
    "yuv422p10le": ("ffv1", 10, 3),
    "gray": ("ffv1", 8, 1),
    "gray10le": ("ffv1", 10, 1),
    "gray16le": ("ffv1", 16, 1),
    "bgra": ("ffv1", 8, 3),
    "nv12": ("rawvideo", 8, 3),
    "bgr24": ("rawvideo", 8, 3),
    "rgb24": ("libx264rgb", 8, 3),  # decodes as gbrp
    "yuyv422": ("rawvideo", 8, 3),  # goes by swscale
}


def write(folder: Path, name: str, **settings) -> Path:
    return write_video(folder / name, numbered_frames(COUNT, height=96, width=128), **settings)


def numbers_read(source, numbers) -> list[int]:
    return [read_number(frame) for frame in source.read(numbers)]


@pytest.mark.parametrize("name", KINDS)
def test_every_frame_is_the_requested_one(tmp_path, name):
    path = write(tmp_path, name, **KINDS[name])
    metadata = probe(path)
    assert metadata.times.count == COUNT
    for stored in (metadata, None):
        with open_video(path, metadata=stored) as source:
            assert numbers_read(source, range(COUNT)) == list(range(COUNT))
            check_source(source, reopen=lambda stored=stored: open_video(path, metadata=stored))


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_pixel_formats(tmp_path, pixel_format):
    codec, bits, channels = FORMATS[pixel_format]
    path = write(tmp_path, "any.mkv" if codec != "rawvideo" else "any.nut", codec=codec, pixel_format=pixel_format)
    for requested in (None, 1, 3):
        with open_video(path, channels=requested) as source:
            assert (source.metadata.bits, source.metadata.channels) == (bits, channels)
            frames = source.read([59, 3])
            assert frames.shape == (2, 96, 128, requested or channels)
            assert frames.dtype == (np.uint8 if bits == 8 else np.uint16)
            assert [read_number(frame) for frame in frames] == [59, 3]
            grey = np.abs(frames.astype(int) - frames[..., :1])
            assert grey.max() <= 2 * (257 if bits > 8 else 1)
            check_source(source)


def test_uneven_times_are_listed_and_even_ones_are_not(tmp_path):
    uneven = probe(write(tmp_path, "uneven.mp4", stamps=UNEVEN, b_frames=2))
    assert uneven.ticks is not None
    np.testing.assert_allclose(
        uneven.times.seconds() - uneven.times.first_seconds, np.array(UNEVEN) / 1e3 - 0.001 * UNEVEN[0]
    )
    even = probe(write(tmp_path, "even.mp4"))
    assert even.ticks is not None
    assert even.ticks.listed is None
    assert even.times.step_seconds == pytest.approx(0.04)
    assert even.key_frames.tolist() == [0, 12, 24, 36, 48]


def test_packets_and_decoding_give_the_same_facts(tmp_path):
    for name in ("b_frames.mp4", "uneven.mkv", "h264_b.avi", "programme.mpg"):
        path = write(tmp_path, name, **KINDS[name])
        packets, decoded = probe(path, verify="packets"), probe(path)
        assert packets.ticks is not None
        assert decoded.ticks is not None
        np.testing.assert_array_equal(packets.ticks.stamps(), decoded.ticks.stamps())
        np.testing.assert_array_equal(packets.key_frames, decoded.key_frames)


def test_grey_is_luma_at_full_range(tmp_path):
    path = write_video(tmp_path / "flat.mp4", np.full((3, 32, 32, 3), 255, np.uint8))
    with open_video(path, channels=1) as source:
        planes = source.planes([1])
        assert planes.colour.model == "grey"
        assert len(planes.frames[0]) == 1
        assert int(planes.frames[0][0].max()) == 235
        assert source.read([1]).min() >= 254


def test_planes_outlive_the_file_and_repeats_are_alike(tmp_path):
    with open_video(write(tmp_path, "plain.mp4")) as source:
        first, again = source.planes([5, 5]).frames
    assert all((one == other).all() for one, other in zip(first, again, strict=True))
    assert [plane.shape for plane in first] == [(96, 128), (48, 64), (48, 64)]
    assert read_number(first[0]) == 5  # the file is closed, its planes live on


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_turns_frames_upright(tmp_path, degrees):
    stored = np.rot90(numbered_frames(3, height=96, width=128), -degrees // 90, axes=(1, 2))
    path = write_video(tmp_path / "turned.mp4", stored, rotation=degrees)
    metadata = probe(path)
    assert (metadata.rotation, metadata.height, metadata.width) == (degrees, 96, 128)
    with open_video(path) as source:
        assert numbers_read(source, [2, 1, 0]) == [2, 1, 0]
        assert source.planes([0]).colour.rotation == degrees
        check_source(source)


def decoded(source: EncodedSource) -> int:
    """Return how many frames left the decoder so far."""
    return (source._fast_decoder or source._seek_decoder).decoded_count


def test_a_seek_spares_decoding_and_unwanted_frames_are_skipped(tmp_path, way):
    path = write(tmp_path, "b_frames.mp4", gop=20, b_frames=3, options={"x264-params": "b-pyramid=none:b-adapt=0"})
    with open_video(path, metadata=probe(path)) as source:
        source.planes([41])
        assert (source.decoder == "PyAV") == (way == "pyav")
        from_the_key_frame = decoded(source)
        assert from_the_key_frame <= 5
        source.planes([0, 59])
        assert decoded(source) - from_the_key_frame < 20  # two runs: frames 1 to 39 are not decoded


def wrong_keys(metadata: VideoMetadata, keys: list[int]) -> VideoMetadata:
    return VideoMetadata(**{**vars(metadata), "key_frames": np.array(keys, np.int32)})


@pytest.mark.parametrize("keys", [[], [0], [5, 31], [0, 11, 13, 59], list(range(60))])
@pytest.mark.parametrize("name", ["b_frames.mp4", "mpeg4_b.avi", "transport.ts", "vp9.webm"])
def test_wrong_key_flags_cost_time_and_never_a_frame(tmp_path, name, keys):
    path = write(tmp_path, name, **KINDS[name])
    with open_video(path, metadata=wrong_keys(probe(path), keys)) as source:
        for numbers in ([59], [33, 34, 35], [0, 58, 7], [13]):
            assert numbers_read(source, numbers) == numbers


def test_wrong_timestamps_lead_to_counting(tmp_path):
    path = write(tmp_path, "plain.mp4")
    metadata = probe(path)
    assert metadata.ticks is not None
    shifted = VideoMetadata(**{**vars(metadata), "ticks": metadata.ticks._replace(first=7)})
    with open_video(path, metadata=shifted) as source:
        assert numbers_read(source, [40, 0]) == [40, 0]


def test_a_seek_that_fails_falls_back_to_the_start(tmp_path):
    path = write(tmp_path, "gif.gif", codec="gif", pixel_format="rgb8", rate_hz=20)
    with open_video(path) as source:
        assert [numbers_read(source, [n])[0] for n in (50, 3, 59)] == [50, 3, 59]


def test_a_truncated_file_returns_its_frames_and_reports_missing_ones(tmp_path):
    whole = write(tmp_path, "whole.mp4", gop=250)
    metadata = probe(whole)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.7)])
    damaged = probe(cut)
    assert 0 < damaged.times.count < COUNT
    with open_video(cut, metadata=damaged) as source:
        last = damaged.times.count - 1
        assert numbers_read(source, [last, 0]) == [last, 0]
    with open_video(cut, metadata=metadata) as source:
        with pytest.raises(DecodeError, match=r"cut\.mp4: asked for frames 59, .* of 60 frames"):
            source.planes([0, 59])
        assert numbers_read(source, [1]) == [1]  # the source lives on


def test_a_frame_whose_size_changes_ends_the_video(tmp_path):
    small = write_video(tmp_path / "small.ts", numbered_frames(12))
    large = write_video(tmp_path / "large.ts", numbered_frames(12, height=128, width=128, first=12))
    joined = tmp_path / "joined.h264"
    with av.open(str(joined), "w", format="h264") as out:
        for path in (small, large):
            with av.open(str(path)) as container:
                stream = container.streams.video[0]
                target = out.streams.video[0] if out.streams.video else out.add_stream_from_template(stream)
                for packet in container.demux(stream):
                    if packet.size:
                        packet.stream = target
                        out.mux(packet)
    with open_video(joined) as source:
        assert "breaks after 12 frames: the next is 128 x 128, the first 64 x 64" in source.metadata.error
        assert len(source) == 12
        assert numbers_read(source, range(12)) == list(range(12))


def test_only_irregular_timestamps_are_listed():
    assert Timestamps.of(np.array([10, 20, 30]), base=(1, 100)).times(
        start_seconds=0.0
    ).seconds().tolist() == pytest.approx([0.1, 0.2, 0.3])
    swapped = Timestamps.of(np.array([0, 20, 10]), base=(1, 10))
    assert swapped.stamps().tolist() == [0, 20, 10]
    assert swapped.times(start_seconds=0.0).seconds().tolist() == [0.0, 1.0, 2.0]
    assert Timestamps.of(np.array([4]), base=(1, 1)).stamps().tolist() == [4]


def test_closing_twice_is_allowed_and_a_closed_source_raises(tmp_path):
    source = open_video(write(tmp_path, "plain.mp4"))
    source.close()
    source.close()
    with pytest.raises(SourceError, match="is closed"):
        source.planes([0])
