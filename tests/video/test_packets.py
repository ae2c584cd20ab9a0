"""Files of which packets and frames are not the same: they are decoded, and every way to open them gives one answer."""

from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import pytest

from cinefeed import open_video, probe
from cinefeed.core.errors import DecodeError, SourceError
from cinefeed.testing import numbered_frames, read_number, write_video
from cinefeed.video.metadata import VideoMetadata

COUNT = 48
Edit = Callable[[list[bytes], list[bool]], Sequence[bytes | None]]
OPEN_GOP = "log-level=none:scenecut=0:pools=1:frame-threads=1:keyint=12:min-keyint=12:bframes=3:b-adapt=0:open-gop=1"
HEVC = {"codec": "hevc", "options": {"preset": "ultrafast", "x265-params": OPEN_GOP}}


def write(path: Path, **settings) -> Path:
    return write_video(path, numbered_frames(COUNT, height=48, width=64), **settings)


def edited(source: Path, target: Path, edit: Edit) -> Path:
    """Copy a file with other bytes in its packets; None leaves one out. `edit` gets them and their key flags."""
    with av.open(str(source)) as container, av.open(str(target), "w") as out:
        stream = container.streams.video[0]
        copy = out.add_stream_from_template(stream)
        packets = [packet for packet in container.demux(stream) if packet.size]
        changed = edit([bytes(packet) for packet in packets], [packet.is_keyframe for packet in packets])
        for packet, data in zip(packets, changed, strict=True):
            if data is None:
                continue
            new = av.Packet(data)
            new.pts, new.dts, new.time_base = packet.pts, packet.dts, packet.time_base
            new.is_keyframe, new.stream = packet.is_keyframe, copy
            out.mux(new)
    return target


def packets_and_frames(path: Path) -> tuple[int, list[int]]:
    """Return how many packets a file has, and the numbers that the frames of a full decode show."""
    with av.open(str(path)) as container:
        packets = sum(1 for packet in container.demux(video=0) if packet.size)
    with av.open(str(path)) as container:
        return packets, [read_number(frame.to_ndarray(format="gray")) for frame in container.decode(video=0)]


def assert_one_answer(path: Path, expected: list[int]) -> None:
    """A file holds these frames, whether it is scanned by decoding, by packets, or opened by its path alone."""
    for metadata in (probe(path), probe(path, verify="packets"), None):
        with open_video(path, metadata=metadata) as source:
            assert source.metadata.error is None
            assert [read_number(frame) for frame in source.read(range(len(source)))] == expected
        for number in (0, 11, 12, 13, len(expected) - 1):
            with open_video(path, metadata=metadata) as source:
                assert read_number(source.read([number])[0]) == expected[number]


def lengths_and_units(data: bytes) -> list[bytes]:
    units, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4])
        units.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return units


def with_end_of_sequence(packets: list[bytes], keys: list[bool]) -> list[bytes]:
    second = [place for place, key in enumerate(keys) if key][1]
    packets[second - 1] += b"\0\0\0\2\x48\1"
    return packets


def with_broken_link(packets: list[bytes], keys: list[bool]) -> list[bytes]:
    """Call the second key frame one that follows a splice: BLA_W_LP in place of CRA_NUT."""
    second = [place for place, key in enumerate(keys) if key][1]
    units = lengths_and_units(packets[second])
    assert any(unit[0] >> 1 == 21 for unit in units)
    spliced = [bytes([16 << 1]) + unit[1:] if unit[0] >> 1 == 21 else unit for unit in units]
    packets[second] = b"".join(len(unit).to_bytes(4) + unit for unit in spliced)
    return packets


@pytest.mark.parametrize("splice", [with_end_of_sequence, with_broken_link])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_leading_frames_after_a_splice_are_left_out(tmp_path, suffix, splice):
    whole = write(tmp_path / "whole.mp4", **HEVC)
    path = edited(whole, tmp_path / f"spliced.{suffix}", splice)
    packets, frames = packets_and_frames(path)
    assert packets == COUNT > len(frames)
    assert_one_answer(path, frames)


def not_coded(packet: bytes) -> bytes:
    """Return the VOP of MPEG-4 that says that nothing has changed: the header of this one, with vop_coded 0."""
    assert packet[:4] == b"\0\0\1\xb6"
    bits = "".join(f"{byte:08b}" for byte in packet[4:])
    at = 2 + bits[2:].index("0") + 1 + 1 + 5 + 1  # type, seconds, marker, 25ths of a second, marker
    text = bits[:at] + "0"
    text += "0" + "1" * (-(len(text) + 1) % 8)
    return packet[:4] + int(text, 2).to_bytes(len(text) // 8)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_frames_of_mpeg_4_that_are_not_coded(tmp_path, suffix):
    whole = write(tmp_path / "whole.mp4", codec="mpeg4")

    def edit(packets: list[bytes], keys: list[bool]) -> list[bytes]:
        return [not_coded(packet) if place in (20, 31) else packet for place, packet in enumerate(packets)]

    path = edited(whole, tmp_path / f"still.{suffix}", edit)
    packets, frames = packets_and_frames(path)
    assert packets == COUNT
    assert COUNT - len(frames) in (2, 3)  # FFmpeg 8.1.1 keeps back the last frame of MP4
    assert_one_answer(path, frames)


@pytest.mark.parametrize("suffix", ["webm", "mkv", "avi"])
def test_frames_of_vp8_that_are_not_shown(tmp_path, suffix):
    options = {"deadline": "realtime", "cpu-used": "8", "threads": "1"}
    whole = write(tmp_path / "whole.mkv", codec="libvpx", gop=24, options=options)

    def edit(packets: list[bytes], keys: list[bool]) -> list[bytes]:
        return [
            bytes([data[0] & ~0x10]) + data[1:] if place in (20, 31) else data for place, data in enumerate(packets)
        ]

    path = edited(whole, tmp_path / f"hidden.{suffix}", edit)
    packets, frames = packets_and_frames(path)
    assert (packets, len(frames)) == (COUNT, COUNT - 2)
    assert_one_answer(path, frames)


@pytest.mark.parametrize("suffix", ["mkv", "ts", "mp4", "avi", "flv"])
@pytest.mark.parametrize("codec", ["h264", "hevc", "mpeg2video"])
def test_a_stream_that_begins_in_mid_gop(tmp_path, codec, suffix):
    if (codec, suffix) in {("mpeg2video", "flv"), ("hevc", "avi"), ("h264", "avi")}:
        pytest.skip("this container does not take this codec as MP4 keeps it")
    whole = write(tmp_path / "whole.mp4", codec=codec, b_frames=2)
    path = edited(whole, tmp_path / f"cut.{suffix}", lambda packets, keys: [None] * 5 + packets[5:])
    packets, frames = packets_and_frames(path)
    assert packets == COUNT - 5 > len(frames)
    assert_one_answer(path, frames)


@pytest.mark.parametrize("verify", ["decode", "packets"])
def test_an_index_without_an_entry_for_a_frame(tmp_path, verify):
    """After a seek FFmpeg counts the frames of AVI by the index: frame 30 would be taken for 29."""
    path = write(tmp_path / "v.avi", codec="mpeg4", gop=12)
    data = bytearray(path.read_bytes())
    entry = data.index(b"idx1") + 8 + 16 * 20
    assert data[entry : entry + 4] == b"00dc"
    data[entry : entry + 4] = b"zzzz"
    path.write_bytes(data)
    metadata = probe(path, verify=verify)
    assert (metadata.times.count, metadata.ticks) == (COUNT, None)
    for number in (5, 19, 20, 25, 30, COUNT - 1):
        with open_video(path, metadata=metadata) as source:
            assert read_number(source.read([number])[0]) == number


def with_another_order(packets: list[bytes], keys: list[bool]) -> list[bytes]:
    """Change the place in the order of display that the last slice of a GOP states."""
    last = [place for place, key in enumerate(keys) if key][1] - 1
    packets[last] = packets[last][:6] + bytes([packets[last][6] ^ 0xFF]) + packets[last][7:]
    return packets


@pytest.mark.parametrize("b_frames", [0, 2])
def test_h264_pictures_out_of_order_are_not_counted(tmp_path, monkeypatch, b_frames):
    from cinefeed.video.ffmpeg import probe as index

    whole = write(tmp_path / "whole.mp4", b_frames=b_frames)
    path = edited(whole, tmp_path / "v.mp4", with_another_order)
    decode, passes = index._pass_over_frames, []

    def count_passes(*arguments, **options):
        passes.append(arguments)
        return decode(*arguments, **options)

    monkeypatch.setattr(index, "_pass_over_frames", count_passes)
    packets = probe(path, verify="packets")
    assert passes, "the packets were counted"
    assert packets.times.count == probe(path).times.count


def test_packets_of_a_clean_file_are_counted(tmp_path, monkeypatch):
    """Else every test here would pass by decoding alone."""
    from cinefeed.video.ffmpeg import probe as index

    def decoded(*arguments, **options):
        raise AssertionError("the file was decoded")

    monkeypatch.setattr(index, "_pass_over_frames", decoded)
    for name, settings in {
        "h264.mp4": {"b_frames": 2},
        "h264.mkv": {"b_frames": 2},
        "mpeg4.avi": {"codec": "mpeg4"},
        "vp8.webm": {"codec": "libvpx", "options": {"deadline": "realtime", "cpu-used": "8"}},
        "ffv1.mkv": {"codec": "ffv1"},
    }.items():
        assert probe(write(tmp_path / name, **settings), verify="packets").times.count == COUNT


def test_numbers_of_another_count_are_refused(tmp_path):
    """Frames are counted if seeking by timestamps fails, but not if their number differs from the metadata."""
    path = write(tmp_path / "whole.mp4", b_frames=2)
    metadata = probe(path)
    assert metadata.ticks is not None
    for more in (-1, 1):
        ticks = metadata.ticks._replace(first=7, count=COUNT + more)
        other = VideoMetadata(**{**vars(metadata), "ticks": ticks, "times": ticks.times(start_seconds=0.0)})
        with (
            open_video(path, metadata=other) as source,
            pytest.raises(DecodeError, match=f"after 48 of {COUNT + more}"),
        ):
            source.read([5])


@pytest.mark.parametrize("name", ["h264.avi", "mpeg4.avi", "h264.asf", "mpeg4.asf"])
def test_stamps_that_ffmpeg_guesses_do_not_tell_frames(tmp_path, name):
    """AVI and ASF keep decoding times alone; FFmpeg's guess of presentation times is another one after a seek."""
    options = {"x264-params": "open-gop=1:b-adapt=0:b-pyramid=normal"} if name.startswith("h264") else {}
    path = write(tmp_path / name, codec=name.split(".")[0], b_frames=2 + bool(options), options=options)
    metadata = probe(path)
    assert metadata.ticks is not None
    assert len(np.unique(metadata.ticks.stamps())) == COUNT
    assert (np.diff(metadata.times.seconds()) > 0).all()
    with av.open(str(path)) as container:
        base = container.streams.video[0].time_base
        stamps = sorted(packet.pts * base for packet in container.demux(video=0) if packet.size)
    np.testing.assert_allclose(metadata.times.seconds(), np.array(stamps, np.float64))
    for number in range(COUNT):
        with open_video(path, metadata=metadata) as source:
            assert [read_number(frame) for frame in source.read([number, (number + 7) % COUNT])] == [
                number,
                (number + 7) % COUNT,
            ]


def test_a_renamed_copy_is_read_as_the_format_that_was_scanned(tmp_path):
    for name in ("h264.ts", "h264.h264", "mjpeg.mjpeg", "h264.mkv"):
        codec = {"codec": "mjpeg", "pixel_format": "yuvj420p"} if name.startswith("mjpeg") else {"b_frames": 2}
        path = write(tmp_path / name, **codec)
        metadata = probe(path)
        copy = tmp_path / f"{name}.bin"
        copy.write_bytes(path.read_bytes())
        with open_video(copy, metadata=metadata) as source:
            assert [read_number(frame) for frame in source.read([31, 2])] == [31, 2]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "flv"])
def test_a_file_that_breaks_early_does_so_in_every_way(tmp_path, suffix):
    whole = write(tmp_path / "whole.mp4")

    def edit(packets: list[bytes], keys: list[bool]) -> list[bytes]:
        return [b"\xff" * len(data) if place >= 8 else data for place, data in enumerate(packets)]

    path = edited(whole, tmp_path / f"broken.{suffix}", edit)
    scanned = probe(path)
    assert scanned.times.count == 8
    assert "breaks after 8" in str(scanned.error)
    with open_video(path) as source:
        for metadata in (probe(path, verify="packets"), source.metadata):
            assert (metadata.times.count, metadata.error) == (8, scanned.error)
        assert [read_number(frame) for frame in source.read(range(8))] == list(range(8))


@pytest.mark.parametrize(("lost", "damaged"), [(15, [[15, 23]]), (16, [[16, 23]])])
def test_a_picture_that_is_missing_from_h264_damages_its_gop(tmp_path, lost, damaged):
    whole = write(tmp_path / "whole.mp4")
    assert probe(whole).damaged.tolist() == []
    edit = lambda packets, keys: [None if place == lost else data for place, data in enumerate(packets)]  # noqa: E731
    path = edited(whole, tmp_path / "gap.mp4", edit)
    metadata = probe(path)
    assert (metadata.times.count, metadata.damaged.tolist()) == (COUNT - 1, damaged)


def test_a_lost_key_frame_of_hevc_at_the_start_is_reported(tmp_path):
    whole = write(tmp_path / "whole.mp4", codec="hevc")

    def edit(packets: list[bytes], keys: list[bool]) -> list[bytes]:
        return [b"\xff" * len(data) if place == 0 else data for place, data in enumerate(packets)]

    with pytest.raises(SourceError, match="no frame can be decoded"):
        probe(edited(whole, tmp_path / "broken.mp4", edit))
