"""Video of every kind that users have, written by the bundled encoders: what comes back is what plain PyAV decodes."""

import hashlib
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from av.video.reformatter import Colorspace

from cinefeed.core.errors import SourceError
from cinefeed.core.rng import Stage, rng_for
from cinefeed.testing import check_source, numbered_frames, read_number, write_video
from cinefeed.testing.videos import join_streams
from cinefeed.video.clips import Clip
from cinefeed.video.ffmpeg.pixel_formats import plane_layout, planes_of
from cinefeed.video.ffmpeg.probe import probe_encoded
from cinefeed.video.ffmpeg.source import EncodedSource
from cinefeed.video.metadata import VideoMetadata
from cinefeed.video.read_options import ReadOptions

pytestmark = pytest.mark.usefixtures("way")
COUNT = 48
UNEVEN = (8333 + np.cumsum(rng_for(3, stage=Stage.CLIP, epoch=0).integers(5, 90, COUNT))).tolist()
OPEN_GOP = {"x264-params": "open-gop=1:b-adapt=0:b-pyramid=normal"}
REFRESH = {"x264-params": "intra-refresh=1"}
KINDS = {
    "uneven.mp4": {"stamps": UNEVEN, "b_frames": 2},
    "uneven.mkv": {"stamps": UNEVEN, "b_frames": 2},
    "uneven.ts": {"stamps": UNEVEN},
    "starts_late.mp4": {"stamps": [8333 + 40 * i for i in range(COUNT)]},
    "edit_list.mp4": {"b_frames": 3, "gop": 20},
    "open_gop.mp4": {"b_frames": 3, "gop": 10, "options": OPEN_GOP},
    "open_gop.mkv": {"b_frames": 3, "gop": 10, "options": OPEN_GOP},
    "open_gop.ts": {"b_frames": 3, "gop": 10, "options": OPEN_GOP},
    "open_gop.h264": {"b_frames": 3, "gop": 10, "options": OPEN_GOP},
    "hevc_open_gop.mp4": {
        "codec": "hevc",
        "b_frames": 3,
        "gop": 10,
        "options": {"x265-params": "log-level=none:open-gop=1:pools=1:frame-threads=1"},
    },
    "intra_refresh.mp4": {"gop": 15, "options": REFRESH},
    "intra_refresh.ts": {"gop": 15, "options": REFRESH},
    "intra_refresh.mkv": {"gop": 15, "options": REFRESH},
    "b_frames.avi": {"b_frames": 2},
    "mpeg4_b.avi": {"codec": "mpeg4", "b_frames": 2},
    "mpeg4_b.mkv": {"codec": "mpeg4", "b_frames": 2},
    "transport.ts": {"b_frames": 2},
    "transport.m2ts": {"codec": "mpeg2video", "b_frames": 2},
    "mpeg1.mpg": {"codec": "mpeg1video", "b_frames": 2},
    "mpeg2.mpg": {"codec": "mpeg2video", "b_frames": 2},
    "mpeg2.vob": {"codec": "mpeg2video", "b_frames": 2},
    "no_count.mkv": {},
    "flash.flv": {"b_frames": 2},
    "windows.wmv": {"codec": "wmv2"},
    "windows.asf": {"codec": "msmpeg4"},
    "vp8.webm": {"codec": "libvpx", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "av1.mp4": {"codec": "libsvtav1", "options": {"preset": "12"}},
    "odd_sizes.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}, "size": (95, 127)},
    "odd_sizes.mpg": {"codec": "mpeg2video", "b_frames": 2, "size": (95, 127)},
    "odd_sizes.mp4": {"pixel_format": "yuv444p", "size": (95, 127)},
    "motion.avi": {"codec": "mjpeg", "pixel_format": "yuvj420p"},
    "prores.mov": {"codec": "prores_ks", "pixel_format": "yuv422p10le"},
    "lossless.avi": {"codec": "huffyuv", "pixel_format": "yuv422p"},
    "raw.avi": {"codec": "rawvideo", "pixel_format": "bgr24"},
    "raw.nut": {"codec": "rawvideo", "pixel_format": "yuv420p"},
    "v210.mov": {"codec": "v210", "pixel_format": "yuv422p10le"},
    "jpeg2000.mov": {"codec": "jpeg2000", "pixel_format": "yuv444p"},
    "alpha.webm": {"codec": "libvpx-vp9", "pixel_format": "yuva420p", "alpha": True},
    "alpha_argb.mov": {"codec": "qtrle", "pixel_format": "argb", "alpha": True},
    "alpha_rgba.mov": {"codec": "png", "pixel_format": "rgba", "alpha": True},
    "alpha_prores.mov": {"codec": "prores_ks", "pixel_format": "yuva444p10le", "alpha": True},
    "alpha_yuv.mkv": {"codec": "ffv1", "pixel_format": "yuva420p", "alpha": True},
    "alpha.apng": {"codec": "apng", "pixel_format": "rgba", "alpha": True},
    "grey_and_alpha.mkv": {"codec": "ffv1", "pixel_format": "ya8"},
}


def frames_of(count: int, *, size: tuple[int, int] = (96, 128), alpha: bool = False, first: int = 0) -> np.ndarray:
    """Return frames that carry their number, in colours that move."""
    frames = numbered_frames(count, height=size[0], width=size[1], first=first)
    numbers = np.arange(first, first + count)[:, None, None]
    wave = numbers * 17 + np.arange(size[0])[:, None] * 3 + np.arange(size[1]) * 6
    for channel in range(3):
        frames[..., channel] += (wave * (channel + 1) % 32).astype(np.uint8)
    if alpha:
        frames = np.concatenate([frames, (wave[..., None] % 256).astype(np.uint8)], axis=-1)
    return frames


def write(path: Path, *, size=(96, 128), alpha=False, codec="h264", **settings) -> Path:
    try:
        av.Codec(codec, "w")
    except av.codec.codec.UnknownCodecError:
        pytest.skip(f"this FFmpeg has no encoder {codec}")
    return write_video(path, frames_of(COUNT, size=size, alpha=alpha), codec=codec, **settings)


def digest(planes) -> bytes:
    return hashlib.blake2b(b"".join(np.ascontiguousarray(plane) for plane in planes), digest_size=16).digest()


def full_decode(path: Path, *, stream: int = 0) -> list[bytes]:
    with av.open(str(path)) as container:
        video = container.streams.video[stream]
        return [
            digest(planes_of(frame, plane_layout(frame.format.name), grey=False)) for frame in container.decode(video)
        ]


def requests(count: int, *, address: int, rounds: int = 5) -> list[list[int]]:
    """Return calls of every kind, in any order: scattered, strided, reversed, repeated, one after the other."""
    rng = rng_for(11, stage=Stage.CLIP, epoch=0, position=address)
    indices = [[count - 1], [0], [count // 2] * 3, list(range(count))[::-5]]
    for _ in range(rounds):
        start = int(rng.integers(0, count))
        indices += [rng.integers(0, count, 4).tolist(), list(range(start, count, 3))[:6]]
        indices += [[start], [min(start + 1, count - 1)], list(range(min(start + 2, count - 1), min(start + 6, count)))]
    return indices


def assert_frames_are_those_of_a_full_decode(path: Path, *, reading: ReadOptions | None = None) -> VideoMetadata:
    reading = reading or ReadOptions()
    metadata = probe_encoded(path, reading=reading)
    assert metadata.error is None
    expected = full_decode(path, stream=metadata.stream)
    assert metadata.times.count == len(expected) > 0
    packets = probe_encoded(path, verify="packets", reading=reading)
    assert packets.times.count == len(expected)
    np.testing.assert_array_equal(packets.times.seconds(), metadata.times.seconds())
    for stored in (metadata, packets):
        with EncodedSource(path, channels=metadata.channels, metadata=stored) as source:
            for numbers in requests(len(expected), address=len(path.name)):
                digests = [digest(planes) for planes in source.planes(numbers).frames]
                assert digests == [expected[number] for number in numbers], numbers
    check_source(EncodedSource(path, metadata=stored), reopen=lambda: EncodedSource(path, metadata=stored))
    return metadata


@pytest.mark.parametrize("name", KINDS)
def test_frames_equal_a_full_decode(tmp_path, name):
    path = write(tmp_path / name, **KINDS[name])
    metadata = assert_frames_are_those_of_a_full_decode(path)
    assert metadata.times.count == COUNT
    with EncodedSource(path, metadata=metadata) as source:
        assert [read_number(frame) for frame in source.read([COUNT - 1, 0, 17])] == [COUNT - 1, 0, 17]


def test_another_order_of_frames_would_be_found(tmp_path, monkeypatch):
    path = write(tmp_path / "open_gop.mp4", **KINDS["open_gop.mp4"])
    honest = full_decode
    monkeypatch.setitem(globals(), "full_decode", lambda path, **options: honest(path, **options)[::-1])
    with pytest.raises(AssertionError):
        assert_frames_are_those_of_a_full_decode(path)


def test_the_kinds_have_their_features(tmp_path):
    """The writers did what their options say: key flags that lie, counts that are missing, frames out of order."""
    with av.open(str(write(tmp_path / "open_gop.mp4", **KINDS["open_gop.mp4"]))) as container:
        packets = [(packet.pts, packet.is_keyframe) for packet in container.demux(video=0) if packet.size]
    keys = [stamp for stamp, is_key in packets if is_key]
    after_second = [stamp for stamp, _ in packets[packets.index((keys[1], True)) :]]
    assert min(after_second) < keys[1]  # shown before the key frame, and stored after it
    refresh = probe_encoded(write(tmp_path / "refresh.mp4", **KINDS["intra_refresh.mp4"]))
    assert len(refresh.key_frames) < 3
    assert probe_encoded(write(tmp_path / "no_count.mkv")).header_frames == 0
    late = probe_encoded(write(tmp_path / "late.mp4", **KINDS["starts_late.mp4"]))
    assert late.start_time_seconds == pytest.approx(8.333, abs=1e-3)
    assert late.times.first_seconds == pytest.approx(0, abs=1e-6)
    with av.open(str(write(tmp_path / "b.avi", **KINDS["b_frames.avi"]))) as container:
        stamps = [packet.dts for packet in container.demux(video=0) if packet.size]
        assert container.streams.video[0].codec_context.has_b_frames
        assert stamps == sorted(stamps)


def flag_every_frame(path: Path) -> Path:
    """Make the container call every frame a key frame, as careless writers do."""
    data = bytearray(path.read_bytes())
    if path.suffix == ".mp4":
        place = data.index(b"stss")
        data[place : place + 4] = b"free"  # without a table of sync samples, all are
    else:
        place = data.index(b"idx1")
        for entry in range(place + 8, place + 8 + struct.unpack_from("<I", data, place + 4)[0], 16):
            data[entry + 4] |= 0x10
    path.write_bytes(data)
    with av.open(str(path)) as container:
        assert all(packet.is_keyframe for packet in container.demux(video=0) if packet.size)
    return path


@pytest.mark.parametrize("name", ["mpeg4.mp4", "msmpeg4.avi"])
def test_a_container_that_flags_every_frame(tmp_path, name):
    """The decoders of MPEG-4 begin anywhere, with grey in place of what they lack, and do not say so."""
    whole = write(tmp_path / name, codec=name.split(".")[0], gop=20)
    metadata = assert_frames_are_those_of_a_full_decode(flag_every_frame(whole))
    assert len(metadata.key_frames) < 5
    packets = probe_encoded(whole, verify="packets")
    flagged = name == "mpeg4.mp4"  # MSMPEG-4 is decoded all the same, for its decoder may leave out frames
    assert len(packets.key_frames) == (COUNT if flagged else len(metadata.key_frames))


@pytest.mark.parametrize("name", ["noise.mpg", "noise.vob", "noise.ts"])
@pytest.mark.parametrize("gop", [1, 4])
def test_frames_that_share_a_pes_packet(tmp_path, name, gop):
    """A stamp belongs to the first frame that begins in a packet, and after a seek FFmpeg gives it to another."""
    spots = rng_for(2, stage=Stage.CLIP, epoch=0).integers(0, 120, (COUNT, 6, 8, 3)).repeat(16, 1).repeat(16, 2)
    frames = (frames_of(COUNT) // 2 + spots).astype(np.uint8)
    for b_frames, quality in ((0, "20"), (2, "20"), (2, "2")):
        options = {"qscale": quality}
        path = tmp_path / f"{b_frames}{quality}{name}"
        write_video(path, frames, codec="mpeg2video", gop=gop, b_frames=b_frames, options=options)
        assert_frames_are_those_of_a_full_decode(path)


@pytest.mark.parametrize("cut", [1, 7, 20, 25])
def test_an_edit_list_that_begins_within_a_gop(tmp_path, cut):
    """Frames before the edit are decoded and never shown: frame 0 is the first that a full decode puts out."""
    whole = write(tmp_path / "whole.mp4", b_frames=2, gop=20)
    data = bytearray(whole.read_bytes())
    place = data.index(b"elst") + 16  # of the edit's first time, in ticks of 1/12800 s
    begin = struct.unpack_from(">i", data, place)[0]
    struct.pack_into(">i", data, place, begin + cut * 512)
    path = tmp_path / "cut.mp4"
    path.write_bytes(data)
    metadata = assert_frames_are_those_of_a_full_decode(path)
    assert (metadata.times.count, metadata.header_frames, metadata.times.first_seconds) == (COUNT - cut, COUNT, 0.0)
    with EncodedSource(path, metadata=metadata) as source:
        assert read_number(source.read([0])[0]) == cut


def write_gif(path: Path) -> Path:
    """Write a palette GIF: parts that are transparent, delays of 20 to 110 ms."""
    palette = np.zeros((256, 4), np.uint8)
    palette[:, 0] = np.r_[0, [255] * 255]  # alpha; colour 0 is transparent
    palette[:, 1:] = rng_for(5, stage=Stage.CLIP, epoch=0).integers(0, 256, (256, 3))
    palette[1, 1:], palette[2, 1:] = 20, 235
    with av.open(str(path), "w") as container:
        stream = container.add_stream("gif", rate=100, options={"gifflags": "-transdiff-offsetting"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "pal8"
        for i, pixels in enumerate(numbered_frames(20, height=48, width=64)[..., 0]):
            indices = np.where(pixels > 128, 2, 1).astype(np.uint8)
            indices[:2] = i % 3  # a line that comes and goes
            frame = av.VideoFrame.from_ndarray((indices, palette), format="pal8")
            frame.pts, frame.time_base = sum(range(2, 2 + i)), Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_a_palette_with_transparency_and_uneven_delays(tmp_path):
    path = write_gif(tmp_path / "palette.gif")
    metadata = assert_frames_are_those_of_a_full_decode(path)
    assert (metadata.times.count, metadata.channels, metadata.bits) == (20, 3, 8)
    np.testing.assert_allclose(np.diff(metadata.times.seconds()), np.arange(2, 21) / 100)
    with EncodedSource(path, metadata=metadata) as source:
        assert [read_number(frame) for frame in source.read([19, 4, 0])] == [19, 4, 0]


FORMATS = [f"yuv{sampling}p{depth}" for sampling in (420, 422, 444) for depth in ("", "10le", "12le")]


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", ["bt601", "bt709", "bt2020"])
@pytest.mark.parametrize("pixel_format", FORMATS)
def test_depth_range_and_matrix_are_read_from_the_tags(tmp_path, pixel_format, matrix, full_range):
    if matrix == "bt2020" and "BT2020" not in Colorspace.__members__:
        pytest.skip("PyAV 17.1 does not convert to bt2020")
    pixels = np.zeros((3, 32, 48, 3), np.uint8)
    pixels[:, :16, :, 0] = pixels[:, 8:24, :, 1] = pixels[:, 16:, :, 2] = 230
    codec = "ffv1" if pixel_format.endswith("12le") else "h264"
    options = {} if codec == "ffv1" else {"qp": "0"}
    tags = {"matrix": matrix, "full_range": full_range}
    path = tmp_path / "any.mkv"
    write_video(path, pixels, codec=codec, options=options, pixel_format=pixel_format, **tags)
    metadata = probe_encoded(path)
    bits = int(pixel_format.removesuffix("le").split("p")[1] or 8)
    assert metadata.bits == bits
    with EncodedSource(path, channels=3, metadata=metadata, dtype="float32") as source:
        colour = source.planes([1]).colour
        assert (colour.bits, colour.full_range, colour.matrix) == (bits, full_range, matrix)
        middle = source.read([2])[0, 4::8, 8]  # of each stripe, away from the others' chroma
        assert np.abs(middle - pixels[0, 4::8, 8]).max() <= 3


@pytest.mark.parametrize("codec", ["hevc", "ffv1"])
@pytest.mark.parametrize("pixel_format", ["gray", "gray12le", "gbrp12le", "yuv422p12le", "yuv444p10le"])
def test_deep_formats_equal_a_full_decode(tmp_path, pixel_format, codec):
    path = write(tmp_path / "deep.mkv", codec=codec, pixel_format=pixel_format)
    metadata = assert_frames_are_those_of_a_full_decode(path)
    assert metadata.channels == (1 if pixel_format.startswith("gray") else 3)


def test_more_than_eight_bits_can_be_requested(tmp_path):
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8) * 4, (3, 32, 64))
    deep = write_video(tmp_path / "deep.mkv", ramp, codec="ffv1", pixel_format="yuv420p12le")
    flat = write_video(tmp_path / "flat.mkv", ramp, codec="ffv1", pixel_format="gray")
    for path, stored in ((deep, "uint16"), (flat, "uint8")):
        read = {}
        for dtype in (None, "uint8", "uint16", "float32"):
            with EncodedSource(path, dtype=dtype) as source:
                read[dtype] = source.read([2])
                assert read[dtype].dtype == (dtype or stored)
        np.testing.assert_array_equal(read[None], read[stored])
        assert np.abs(read["uint16"] / 257 - read["float32"]).max() < 0.002
        assert np.abs(read["uint8"] - read["float32"]).max() <= 0.501
        assert np.abs(read["float32"][0, 0, :, 0] - ramp[0, 0]).max() < 1


@pytest.mark.parametrize("name", ["both.mp4", "both.mkv", "both.ts", "both.mpg"])
def test_several_video_streams_are_distinguished(tmp_path, name):
    codec = "mpeg2video" if name == "both.mpg" else "h264"
    parts = [
        write_video(tmp_path / "a.mp4", frames_of(20), codec=codec, b_frames=2),
        write_video(tmp_path / "b.mp4", frames_of(30, size=(64, 80), first=100), codec="mpeg2video"),
    ]
    both = join_streams(tmp_path / name, parts)
    for number, (first, count, width) in enumerate([(0, 20, 128), (100, 30, 80)]):
        metadata = assert_frames_are_those_of_a_full_decode(both, reading=ReadOptions(stream=number))
        assert (metadata.stream, metadata.times.count, metadata.width) == (number, count, width)
        with EncodedSource(both, metadata=metadata) as source:
            assert [read_number(frame) for frame in source.read([7, 0])] == [first + 7, first]
    assert probe_encoded(both).stream == 0
    message = rf"stream 2 was asked for.*0 \({codec} 128 x 96\), 1 \(mpeg2video 80 x 64\)"
    with pytest.raises(SourceError, match=message):
        probe_encoded(both, reading=ReadOptions(stream=2))


def test_a_cover_picture_is_not_a_video(tmp_path):
    video = write_video(tmp_path / "video.mp4", frames_of(10))
    cover = write_video(tmp_path / "cover.mov", frames_of(1, first=900), codec="png", pixel_format="rgb24")
    path = tmp_path / "covered.mp4"
    with av.open(str(path), "w") as out, av.open(str(cover)) as first, av.open(str(video)) as second:
        targets = [out.add_stream_from_template(each.streams.video[0]) for each in (first, second)]
        targets[0].disposition = Disposition.attached_pic
        for container, target in zip((first, second), targets, strict=True):
            for packet in container.demux(video=0):
                if packet.size:
                    packet.stream = target
                    out.mux(packet)
    metadata = probe_encoded(path)
    with av.open(str(path)) as container:
        pictures = [bool(each.disposition & Disposition.attached_pic) for each in container.streams.video]
    assert sorted(pictures) == [False, True]
    assert metadata.stream == pictures.index(False)
    assert_frames_are_those_of_a_full_decode(path)
    with EncodedSource(path, metadata=probe_encoded(path, reading=ReadOptions(stream=pictures.index(True)))) as source:
        assert (len(source), read_number(source.read([0])[0])) == (1, 900)


def write_sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        for i in range(8):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.rate, frame.pts, frame.time_base = 8000, i * 1024, Fraction(1, 8000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_sound_is_skipped_and_a_file_with_only_sound_is_refused(tmp_path):
    sound = write_sound(tmp_path / "sound.mp4")
    with pytest.raises(SourceError, match=r"sound\.mp4: holds no video that can be decoded, only audio"):
        probe_encoded(sound)
    for name in ("both.mp4", "both.mkv", "both.ts"):
        parts = [sound, write_video(tmp_path / "video.mp4", frames_of(20), b_frames=2)]
        assert_frames_are_those_of_a_full_decode(join_streams(tmp_path / name, parts))


KEYS = {
    "encryption_scheme": "cenc-aes-ctr",
    "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb",
    "encryption_kid": "a7e61c373e219033c21091fa607bf3b8",
}


@pytest.mark.parametrize("verify", ["decode", "packets"])
@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_an_encrypted_file_raises(tmp_path, codec, verify):
    path = write_video(tmp_path / "secret.mp4", frames_of(10), codec=codec, container_options=KEYS)
    with pytest.raises(SourceError, match=r"secret\.mp4: .*is encrypted"):
        probe_encoded(path, verify=verify)


def test_a_part_is_refused(tmp_path):
    path = write_video(tmp_path / "plain.mp4", frames_of(3))
    for attempt in (probe_encoded, EncodedSource):
        with pytest.raises(SourceError, match=r"plain\.mp4: part '/a' was asked for.*ReadOptions\(stream=...\)"):
            attempt(path, part="/a")


@pytest.mark.parametrize("join", ["mjpeg", "ts"])
def test_a_size_that_changes_in_mid_stream(tmp_path, join):
    codec = {"codec": "mjpeg", "pixel_format": "yuvj420p"} if join == "mjpeg" else {"codec": "mpeg2video"}
    small = write_video(tmp_path / f"small.{join}", frames_of(12), **codec)
    large = write_video(tmp_path / f"large.{join}", frames_of(12, size=(128, 160), first=12), **codec)
    path = tmp_path / f"joined.{join}"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    with av.open(str(path)) as container:  # TS loses a frame where its clock jumps back
        expected = [read_number(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    assert expected[0] == 0
    assert expected[-1] == 23
    metadata = probe_encoded(path)
    before = sum(number < 12 for number in expected)
    assert (metadata.height, metadata.width, metadata.times.count) == (96, 128, before)
    assert f"breaks after {before} frames: the next is 160 x 128, the first 128 x 96" in metadata.error
    with EncodedSource(path, metadata=metadata) as source:
        assert [read_number(frame) for frame in source.read(range(before))] == expected[:before]
        check_source(source)


def test_frames_of_a_variable_rate_are_picked_by_time(tmp_path):
    path = write(tmp_path / "uneven.mp4", **KINDS["uneven.mp4"])
    metadata = probe_encoded(path)
    display_times = (np.array(UNEVEN) - UNEVEN[0]) / 1000
    np.testing.assert_allclose(metadata.times.seconds(), display_times, atol=1e-3)
    for rate_hz in (7.0, 23.0, 60.0):
        clip = Clip(frames=10, rate_hz=rate_hz, position="start")
        numbers, valid = clip.select(metadata.times)
        assert valid.all()
        ticks = metadata.times.seconds()[0] + np.arange(10) / rate_hz
        on_show = [max(np.flatnonzero(metadata.times.seconds() <= tick + 1e-6)) for tick in ticks]
        assert numbers.tolist() == on_show
        with EncodedSource(path, metadata=metadata) as source:
            assert [read_number(frame) for frame in source.read(numbers)] == on_show
    assert len(set(on_show)) < 10  # at 60 Hz one frame is on show for several ticks
    by_count = Clip(frames=10, stride=1, position="start").select(metadata.times)[0]
    assert by_count.tolist() != on_show


def test_a_real_file_of_a_variable_rate_is_picked_by_time(data):
    path = data / "formats" / "opencv" / "box.mp4"
    with av.open(str(path)) as container:
        base = container.streams.video[0].time_base
        display_times = np.sort([float(frame.pts * base) for frame in container.decode(video=0)])
    assert np.ptp(np.diff(display_times)) > 0.001
    metadata = probe_encoded(path)
    np.testing.assert_allclose(metadata.times.seconds(), display_times, atol=1e-6)
    for rate_hz in (2.0, 11.0, 100.0):
        clip = Clip(frames=16, rate_hz=rate_hz, position="start")
        numbers, valid = clip.select(metadata.times, start_seconds=float(display_times[20]))
        ticks = display_times[20] + np.arange(16) / rate_hz
        assert valid.all()
        assert numbers.tolist() == [max(np.flatnonzero(display_times <= tick + 1e-6)) for tick in ticks]


def test_reading_on_equals_a_full_decode_and_spares_frames(tmp_path):
    path = write(tmp_path / "one_key.mp4", gop=250)
    expected, metadata = full_decode(path), probe_encoded(path)
    with EncodedSource(path, channels=3, metadata=metadata) as source:
        for first in range(0, COUNT, 6):
            numbers = list(range(first, first + 6, 2))
            assert [digest(planes) for planes in source.planes(numbers).frames] == [expected[n] for n in numbers]
        way = source._fast_decoder or source._seek_decoder
        assert way.decoded_count <= COUNT  # each call from the key frame would decode 191
        source.planes([5])
        assert COUNT < way.decoded_count <= COUNT + 6


@pytest.mark.parametrize("name", ["uneven.ts", "mpeg2.mpg", "mpeg4_b.avi", "vp9.webm", "open_gop.mp4", "motion.avi"])
def test_any_sequence_of_calls_equals_a_full_decode(tmp_path, name):
    path = write(tmp_path / name, **KINDS[name])
    expected, metadata = full_decode(path), probe_encoded(path)
    rng = rng_for(4, stage=Stage.CLIP, epoch=0, position=len(name))
    with EncodedSource(path, channels=3, metadata=metadata) as source:
        at = 0
        for _ in range(60):  # mostly a little further on, at times anywhere
            at = int(rng.integers(0, COUNT)) if rng.random() < 0.2 else (at + int(rng.integers(0, 5))) % COUNT
            numbers = [min(at + step, COUNT - 1) for step in range(0, int(rng.integers(1, 6)), int(rng.integers(1, 3)))]
            assert [digest(planes) for planes in source.planes(numbers).frames] == [expected[n] for n in numbers]
            at = numbers[-1]
