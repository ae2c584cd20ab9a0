"""Damage that FFmpeg hides: found by a scan, refused when it is read, or concealed always the same."""

from pathlib import Path

import av
import numpy as np
import pytest

from cinefeed import Manifest, open_video, probe
from cinefeed.core.errors import DecodeError, SettingError
from cinefeed.data.quality import check_manifest
from cinefeed.testing import numbered_frames, write_video
from cinefeed.testing.sources import stored_metadata
from cinefeed.video.ffmpeg import source as encoded
from cinefeed.video.ffmpeg.damage import damaged_ranges
from cinefeed.video.ffmpeg.fast_decoder import FastDecoder
from cinefeed.video.metadata import VideoMetadata
from cinefeed.video.read_options import ReadOptions

COUNT, GOP = 36, 12
CONCEAL = ReadOptions(on_damage="conceal")


def textured_frames() -> np.ndarray:
    """Return frames of noise that moves: a slice of a single shade has no bytes to be damaged."""
    noise = np.random.default_rng(1).integers(0, 128, (64, 64, 1), dtype=np.uint8)
    moving = np.stack([np.roll(noise, 3 * n, axis=1) for n in range(COUNT)])
    return np.repeat(moving, 3, axis=3) + numbered_frames(COUNT, height=64, width=64) // 2


def damage_packet(path: Path, number: int, to: Path) -> Path:
    """Write a copy of a video in which one packet, by its place in the file, is zero in its second half."""
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    start, size = packets[number]
    data = bytearray(path.read_bytes())
    data[start + size // 2 : start + size] = bytes(size - size // 2)
    to.write_bytes(data)
    return to


@pytest.fixture(scope="module")
def healthy(tmp_path_factory) -> Path:
    return write_video(tmp_path_factory.mktemp("healthy") / "v.mp4", textured_frames(), gop=GOP)


@pytest.fixture
def damaged(healthy, tmp_path) -> Path:
    return damage_packet(healthy, 20, tmp_path / "damaged.mp4")


@pytest.fixture(params=["compiled", "by PyAV"])
def decoder(request, monkeypatch) -> str:
    if request.param == "by PyAV":
        monkeypatch.setattr(encoded, "open_fast_decoder", lambda *arguments, **settings: None)
    return str(request.param)


def read(path: Path, metadata: VideoMetadata | None, numbers: list[int]) -> np.ndarray:
    with open_video(path, channels=1, metadata=metadata) as source:
        return source.read(numbers)


def test_a_scan_reports_damaged_frames(healthy, damaged):
    assert probe(healthy).damaged.tolist() == []
    metadata = probe(damaged)
    assert (metadata.damaged.tolist(), metadata.error, metadata.times.count) == ([[20, 24]], None, COUNT)
    assert stored_metadata(metadata).damaged.tolist() == [[20, 24]]


@pytest.mark.parametrize("verify", ["decode", "packets", None])
def test_a_damaged_frame_is_refused_and_the_others_are_read(healthy, damaged, decoder, verify):
    metadata = None if verify is None else stored_metadata(probe(damaged, verify=verify))
    whole = read(healthy, None, list(range(COUNT)))
    for number in range(COUNT):
        if 20 <= number < 24:
            with pytest.raises(DecodeError, match=rf"damaged\.mp4: asked for frame {number}, which is damaged"):
                read(damaged, metadata, [number])
        else:
            assert np.array_equal(read(damaged, metadata, [number])[0], whole[number]), number
    with pytest.raises(DecodeError, match="frame 21, which is damaged"):
        read(damaged, metadata, [2, 21, 30])


@pytest.mark.parametrize("verify", ["decode", "packets"])
@pytest.mark.parametrize("number", [20, 24])  # the second is a key frame, concealed by the frame before it
def test_concealed_frames_are_always_the_same(healthy, tmp_path, decoder, number, verify):
    path = damage_packet(healthy, number, tmp_path / "damaged.mp4")
    metadata = stored_metadata(probe(path, verify=verify, reading=CONCEAL))
    assert metadata.conceals_damage
    assert metadata.damaged.tolist() == [[number, number // GOP * GOP + GOP]]
    together, whole = read(path, metadata, list(range(COUNT))), read(healthy, None, list(range(COUNT)))
    assert [n for n in range(COUNT) if not np.array_equal(together[n], whole[n])][:1] == [number]
    assert all(np.array_equal(read(path, metadata, [n])[0], together[n]) for n in range(COUNT))
    some = [30, 21, 5, 25, 21]
    assert np.array_equal(read(path, metadata, some), together[some])


def test_frames_displayed_before_and_decoded_after_are_damaged_too(tmp_path, decoder):
    path = write_video(tmp_path / "v.mp4", textured_frames(), gop=GOP, b_frames=2)
    with av.open(str(path)) as container:
        stamps = [packet.pts for packet in container.demux(video=0) if packet.size]
    order = sorted(stamps)
    place = next(i for i in range(15, len(stamps)) if stamps[i] > stamps[i + 1])  # a P frame, before its B frames
    broken, anchor = damage_packet(path, place, tmp_path / "damaged.mp4"), order.index(stamps[place])
    ((first, end),) = probe(broken).damaged.tolist()
    assert first == min(order.index(stamp) for stamp in stamps[place : place + 3]) < anchor
    assert end == 24
    metadata = probe(broken, verify="packets")
    for number in range(first, end):
        with pytest.raises(DecodeError, match=f"frame {number}, which is damaged"):
            read(broken, metadata, [number])
    assert np.array_equal(read(broken, metadata, [first - 1]), read(path, None, [first - 1]))


def test_the_compiled_decoder_detects_hidden_damage(damaged):
    """Not by the flag of a corrupt frame, which FFmpeg does not set here, but by a field that lies after it."""
    metadata = probe(damaged, verify="packets")
    with open_video(damaged, channels=1, metadata=metadata) as source:
        native = source._fast_decoder
        assert isinstance(native, FastDecoder)
        assert native.find(np.array([19]), grey=True) is not None
        assert native.find(np.array([20]), grey=True) is None


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("v.avi", {"codec": "mjpeg", "pixel_format": "yuvj420p"}),
        ("v.mkv", {"codec": "ffv1", "pixel_format": "yuv420p"}),
    ],
)
def test_decoders_that_leave_pixels_unwritten(tmp_path, decoder, name, settings):
    """FFmpeg marks nothing, and the pixels are those of an earlier frame in the same memory."""
    path = write_video(tmp_path / name, textured_frames(), gop=GOP, **settings)
    assert probe(path).damaged.tolist() == []
    broken = damage_packet(path, 20, tmp_path / f"damaged_{name}")
    (first, *_), *_ = probe(broken).damaged.tolist()
    assert first == 20
    with pytest.raises(DecodeError, match="frame 20, which is damaged"):
        read(broken, probe(broken), [20])


def test_changed_data_that_a_decoder_accepts_are_not_found(tmp_path):
    """VP8 has no checksum, and any bits are a picture: this is why formats.md and SECURITY.md do not promise more."""
    options = {"deadline": "realtime", "cpu-used": "8", "threads": "1"}
    path = write_video(tmp_path / "v.webm", textured_frames(), gop=GOP, codec="libvpx", options=options)
    broken = damage_packet(path, 20, tmp_path / "damaged.webm")
    metadata = probe(broken)
    assert (metadata.error, metadata.damaged.tolist()) == (None, [])
    assert not np.array_equal(read(broken, metadata, [20]), read(path, None, [20]))


def test_ranges_of_damage():
    orders = [0, 3, 1, 2, 6, 4, 5]
    assert damaged_ranges({2}, {0, 3}, orders).tolist() == [[1, 3]], "frame 1 was decoded after it"
    assert damaged_ranges({5}, {0}, orders).tolist() == [[4, 7]]
    assert damaged_ranges({0, 3}, {1, 4}, [None] * 7).tolist() == [[0, 1], [3, 4]]
    assert damaged_ranges({1}, {0, 2}, [0, 2, 1, 3, 4]).tolist() == [[1, 2], [3, 5]], "it leads the next key frame"
    assert damaged_ranges({1, 2}, {0}, [0, 1, 2]).tolist() == [[1, 3]]


def test_a_manifest_stores_damage_and_a_check_reports_it(damaged):
    manifest = Manifest.scan(damaged.parent, progress=False)
    assert manifest.column("damaged").to_pylist() == [[20, 24]]
    (finding,) = [each for each in check_manifest(manifest, progress=False).findings if each.code == "damaged_frames"]
    assert (finding.severity, finding.remarks) == ("error", ("frames 20 to 23",))
    assert "frames 20 to 23 are damaged" in str(manifest)
    concealed = Manifest.scan(damaged.parent, progress=False, reading=CONCEAL)
    assert concealed.fingerprint != manifest.fingerprint  # another choice feeds other frames
    assert concealed.metadata(0).conceals_damage


def test_packets_do_not_tell_of_damage(damaged):
    manifest = Manifest.scan(damaged.parent, progress=False, verify="packets")
    assert manifest.verified == "packets"
    assert "damaged    not checked: frames were not decoded" in str(manifest)


def test_another_policy_is_refused():
    with pytest.raises(SettingError, match=r"on_damage='hide' is not a choice"):
        ReadOptions(on_damage="hide")  # type: ignore[arg-type]
