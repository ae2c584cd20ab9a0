"""Encoded video within DICOM: MPEG-2, H.264 and HEVC, in one fragment and several, exact to the frame."""

from pathlib import Path

import numpy as np
import pydicom.uid
import pytest
from made_dicom import write_dicom

from cinefeed import Clip, Feed, Frame, open_video, probe
from cinefeed.core.errors import DecodeError, SourceError
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.testing import check_source, numbered_frames, read_number, stored_metadata, write_video
from cinefeed.video.embedded import PiecesReader

COUNT = 40
SYNTAXES = [
    ("MPEG2MPML", "m2v", "mpeg2video"),
    ("MPEG2MPMLF", "m2v", "mpeg2video"),
    ("MPEG2MPHL", "mpg", "mpeg2video"),
    ("MPEG2MPHLF", "ts", "mpeg2video"),
    ("MPEG4HP41", "h264", "h264"),
    ("MPEG4HP41F", "mp4", "h264"),
    ("MPEG4HP41BD", "ts", "h264"),
    ("MPEG4HP41BDF", "mp4", "h264"),
    ("MPEG4HP422D", "mp4", "h264"),
    ("MPEG4HP422DF", "ts", "h264"),
    ("MPEG4HP423D", "h264", "h264"),
    ("MPEG4HP423DF", "mp4", "h264"),
    ("MPEG4HP42STEREO", "h264", "h264"),
    ("MPEG4HP42STEREOF", "mp4", "h264"),
    ("HEVCMP51", "hevc", "hevc"),
    ("HEVCM10P51", "mp4", "hevc"),
]


def stream(folder: Path, suffix: str, codec: str) -> Path:
    options = {"x265-params": "log-level=none:pools=1:frame-threads=1"} if codec == "hevc" else {}
    frames = numbered_frames(COUNT, height=96, width=128)
    return write_video(folder / f"stream.{suffix}", frames, codec=codec, gop=10, b_frames=2, options=options)


def write_dicom_video(path: Path, video: Path, *, syntax: str, fragment: int = 0, cut: int = 0, **elements) -> Path:
    """Write a DICOM file around a video; `fragment` is the bytes in one, `cut` those that the end lacks."""
    data = video.read_bytes()
    data += bytes(len(data) % 2)
    pieces = [data[i : i + fragment] for i in range(0, len(data), fragment)] if fragment else [data]
    frames = np.zeros((COUNT, 96, 128, 3), np.uint8)
    values = {"PhotometricInterpretation": "YBR_PARTIAL_420", "Modality": "ES", "FrameTime": "50.0"} | elements
    write_dicom(path, frames, syntax=getattr(pydicom.uid, syntax), encoded=[pieces], table=False, **values)
    if cut:
        path.write_bytes(path.read_bytes()[:-cut])
    return path


@pytest.mark.parametrize(("syntax", "suffix", "codec"), SYNTAXES, ids=[each[0] for each in SYNTAXES])
@pytest.mark.parametrize("fragment", [0, 1000])
def test_every_kind_of_video_is_exact_to_the_frame(tmp_path, syntax, suffix, codec, fragment):
    path = write_dicom_video(tmp_path / "IM0001", stream(tmp_path, suffix, codec), syntax=syntax, fragment=fragment)
    metadata = probe(path)
    assert (metadata.times.count, metadata.header_frames, metadata.error, metadata.codec) == (COUNT, COUNT, None, codec)
    assert metadata.container.startswith("dicom/") and (metadata.height, metadata.width, metadata.channels) == (
        96,
        128,
        3,
    )
    step = 0.05 if metadata.ticks is None else 0.04  # a bare stream has no times, those of the header hold
    assert metadata.times.step_seconds == pytest.approx(step) and metadata.rate_hz == pytest.approx(1 / step)
    for stored in (metadata, stored_metadata(metadata), None):
        with open_video(path, metadata=stored, channels=1) as source:
            for numbers in (range(COUNT), [39, 0, 20, 20, 7], [5], [13, 14, 31]):
                assert [read_number(frame) for frame in source.read(numbers)] == list(numbers)


@pytest.mark.parametrize("suffix", ["mp4", "h264"])
def test_pixels_are_those_of_the_video(tmp_path, suffix):
    video = stream(tmp_path, suffix, "h264")
    path = write_dicom_video(tmp_path / "a.dcm", video, syntax="MPEG4HP41F", fragment=700)
    metadata = probe(path)
    with open_video(video) as bare, open_video(path, metadata=metadata) as source:
        np.testing.assert_array_equal(source.read([3, 30]), bare.read([3, 30]))
    manifest_facts = stored_metadata(metadata)
    check_source(open_video(path, metadata=metadata), reopen=lambda: open_video(path, metadata=manifest_facts))


def test_a_scan_stores_the_values_of_the_header(tmp_path):
    video = stream(tmp_path, "mp4", "h264")
    region = {
        "RegionSpatialFormat": 1,
        "RegionDataType": 1,
        "RegionLocationMinX0": 0,
        "RegionLocationMinY0": 0,
        "RegionLocationMaxX1": 63,
        "RegionLocationMaxY1": 47,
        "PhysicalUnitsXDirection": 3,
        "PhysicalUnitsYDirection": 3,
        "PhysicalDeltaX": 0.05,
        "PhysicalDeltaY": 0.05,
    }
    for i in range(3):  # of one series, and yet three videos
        write_dicom_video(
            tmp_path / "data" / f"IM{i}",
            video,
            syntax="MPEG4HP41",
            SOPInstanceUID=f"1.2.{i}",
            NumberOfFrames=1 if i == 2 else COUNT,
            BurnedInAnnotation="YES",
            HeartRate=60,
            SequenceOfUltrasoundRegions=region,
        )
    manifest = Manifest.scan(tmp_path / "data", out=tmp_path / "m.parquet", progress=False)
    table = manifest.table.to_pydict()
    assert table["path"] == ["IM0", "IM1", "IM2"] and table["num_frames"] == [COUNT] * 3
    assert len({*table["patient"]}) == 1 and table["patient"][0] != "P7" and table["modality"] == ["ES"] * 3
    assert table["burned_in"] == ["YES"] * 3 and table["heart_rate_bpm"] == [60] * 3
    metadata = manifest.metadata(0)
    assert metadata.spacing_mm == (0.5, 0.5) and metadata.regions[0].kind == "2d"
    frame = Frame(height=48, width=64, channels=1)
    feed = Feed(manifest, target="clip", clip=Clip(frames=8), frame=frame, batch_size=3)
    assert feed.batch(0, epoch=0).clips.shape == (3, 8, 48, 64, 1)
    feed.close()


@pytest.mark.parametrize("suffix", ["ts", "h264"])
def test_a_file_that_is_cut_off_keeps_the_frames_before(tmp_path, suffix):
    video = stream(tmp_path, suffix, "h264")
    path = write_dicom_video(tmp_path / "a.dcm", video, syntax="MPEG4HP41", cut=video.stat().st_size // 2)
    metadata = probe(path)
    assert 0 < metadata.times.count < COUNT and f"of {COUNT} frames" in metadata.error
    with open_video(path, metadata=metadata) as source, pytest.raises(SourceError):
        source.read([COUNT - 1])


def test_a_file_without_a_video_raises(tmp_path):
    (tmp_path / "noise").write_bytes(np.random.default_rng(0).bytes(3000))
    path = write_dicom_video(tmp_path / "a.dcm", tmp_path / "noise", syntax="MPEG4HP41")
    with pytest.raises(SourceError, match=r"a\.dcm: (holds an encoded video that FFmpeg cannot open|no frame can be)"):
        probe(path)
    with pytest.raises(SourceError, match="holds an encoded video"):
        probe(path, part="plane-01")


def test_a_video_that_changed_is_refused(tmp_path):
    video = stream(tmp_path, "mp4", "h264")
    path = write_dicom_video(tmp_path / "a.dcm", video, syntax="MPEG4HP41")
    metadata = probe(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises((SourceError, DecodeError), match=r"a\.dcm"), open_video(path, metadata=metadata) as source:
        source.read([0])


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_no_file_is_left_open(tmp_path):
    path = write_dicom_video(tmp_path / "a.dcm", stream(tmp_path, "h264", "h264"), syntax="MPEG4HP41")
    with open_video(path) as source:
        source.read([30, 3])
    open_files = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.exists()]
    assert path not in open_files


def test_pieces_are_read_as_one_file(tmp_path):
    (tmp_path / "a").write_bytes(bytes(range(100)))
    pieces = [(10, 5), (40, 1), (90, 20)]
    expected = bytes([*range(10, 15), 40, *range(90, 100)])
    with PiecesReader(tmp_path / "a", pieces) as reader:
        assert reader.read() == expected
        for begin in range(18):
            for size in (1, 4, 7, 40):
                reader.seek(begin)
                assert reader.read(size) == expected[begin : begin + size]
        assert reader.seek(0, 2) == 26 and reader.read(5) == b""
