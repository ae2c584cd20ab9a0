"""What a file is, by the bytes that it begins with."""

import re
import wave
from itertools import combinations

import av
import cv2
import numpy as np
import pytest
from made_dicom import numbered, write_dicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage

from cinefeed import open_video, probe
from cinefeed.core.errors import SourceError
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.testing import check_source, numbered_frames, read_number, stored_metadata, write_video
from cinefeed.video.kinds import _MAGIC, EXTENSIONS, is_video, kind_by_content, kind_by_suffix, read_start

CODECS = {
    **dict.fromkeys(["mp4", "mov", "mkv", "avi", "ts", "nut", "flv", "264", "avc", "h264", "m2ts"], "h264"),
    **dict.fromkeys(["h265", "265", "hevc"], "hevc"),
    **dict.fromkeys(["mpg", "m2v", "mxf", "vob"], "mpeg2video"),
    "m4v": "mpeg4",
    "webm": "vp8",
    "ivf": "vp8",
    "wmv": "wmv2",
    "asf": "wmv2",
}
RAW = {"y4m": ("yuv4mpegpipe", "wrapped_avframe"), "gif": ("gif", "gif"), "apng": ("apng", "apng")}
FORMATS = {"264": "h264", "avc": "h264", "265": "hevc", "h265": "hevc", "m2ts": "ts"}  # a suffix that FFmpeg writes


def made(folder, suffix):
    """Write 6 numbered frames in the format of a suffix."""
    path = folder / f"a.{suffix}"
    if suffix in FORMATS:
        options = {"mpegts_m2ts_mode": "1"} if suffix == "m2ts" else {}
        video = write_video(
            folder / f"b.{FORMATS[suffix]}", numbered_frames(6), codec=CODECS[suffix], container_options=options
        )
        return video.rename(path)
    if suffix in CODECS:
        return write_video(path, numbered_frames(6), codec=CODECS[suffix])
    if suffix in RAW:
        kind, codec = RAW[suffix]
        with av.open(str(path), "w", format=kind) as file:
            stream = file.add_stream(codec, rate=25)
            stream.width = stream.height = 64
            stream.pix_fmt = {"gif": "rgb8", "apng": "rgb24", "y4m": "yuv420p"}[suffix]
            for image in numbered_frames(6):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                file.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
            file.mux(stream.encode(None))
        return path
    if suffix == "webp":
        return animated_webp(path)
    frames = numbered_frames(6)[..., 0]
    if suffix == "npy":
        np.save(path, frames)
    elif suffix == "npz":
        np.savez(path, x=frames)
    elif suffix == "h5":
        with pytest.importorskip("h5py").File(path, "w") as file:
            file["x"] = frames
    elif suffix == "nii":
        nibabel = pytest.importorskip("nibabel")
        nibabel.save(nibabel.Nifti1Image(frames.T[:, :, None], np.eye(4)), path)
    elif suffix == "dcm":
        write_dicom(path, frames)
    else:
        assert suffix == "tif" and cv2.imwritemulti(str(path), list(frames))
    return path


def animated_webp(path, *, count=6):
    if not hasattr(cv2, "imwriteanimation"):
        pytest.skip("this OpenCV writes no animations")
    animation = cv2.Animation()
    animation.frames, animation.durations = list(numbered_frames(count)), [40, 40, 80, *[40] * (count - 3)]
    assert cv2.imwriteanimation(str(path), animation)
    return path


SUFFIXES = [*CODECS, *RAW, "webp", "npy", "npz", "h5", "nii", "dcm", "tif"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_video_is_found_with_its_suffix_and_without(tmp_path, suffix):
    path = made(tmp_path, suffix)
    assert kind_by_suffix(path) is not None
    (tmp_path / "bare").mkdir()
    bare = path.rename(tmp_path / "bare" / "recording0007")
    manifest = Manifest.scan(tmp_path, progress=False)
    assert manifest.column("path").to_pylist() == ["bare/recording0007"] and manifest.not_read == {}
    assert manifest.column("error").to_pylist() == [None]
    with manifest.open(0) as source:
        assert [read_number(frame) for frame in source.read([5, 0, 3])] == [5, 0, 3]
    named = bare.rename(path)
    assert Manifest.scan(tmp_path, progress=False).column("path").to_pylist() == [named.name]


def test_an_animated_webp_is_read_frame_by_frame(tmp_path):
    metadata = probe(animated_webp(tmp_path / "a.webp"))
    assert (metadata.times.count, metadata.container, metadata.channels) == (6, "webp", 3)
    np.testing.assert_allclose(metadata.times.seconds(), [0, 0.04, 0.08, 0.16, 0.2, 0.24])
    with open_video(tmp_path / "a.webp", metadata=metadata) as source:
        assert [read_number(frame) for frame in source.read([4, 4, 1, 5])] == [4, 4, 1, 5]
    data = (tmp_path / "a.webp").read_bytes()
    (tmp_path / "cut.webp").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(SourceError, match=r"cut\.webp: no frame can be decoded"):
        probe(tmp_path / "cut.webp")


@pytest.mark.parametrize("channels", [1, 3])
def test_an_animated_webp_conforms(tmp_path, channels):
    path = animated_webp(tmp_path / "a.webp", count=40)
    metadata = probe(path)
    manifest_facts = stored_metadata(metadata)
    check_source(
        open_video(path, channels=channels, metadata=metadata),
        reopen=lambda: open_video(path, channels=channels, metadata=manifest_facts),
    )


def test_other_files_are_not_treated_as_video(tmp_path):
    with wave.open(str(tmp_path / "sound"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(4000))
    others = {
        "text": b"the free encyclopedia, that anyone can edit\n" * 30,
        "moov": b"free moov mdat ftyp " * 60,
        "table": b"G,1\n" * 300,
        "zeros": bytes(2000),
        "ones": b"\xff" * 2000,
        "icon": b"\0\0\1\0\1\0\x10\x10" + bytes(1000),
        "zip": b"PK\3\4" + bytes(26) + b"word/document.xml" + bytes(1000),
        "gzip": b"\x1f\x8b\x08" + bytes(1000),
        "pdf": b"%PDF-1.7\n",
        "m4a": b"\0\0\0\x20ftypM4A \0\0\0\0" + bytes(1000),
        "heic": b"\0\0\0\x20ftypheic\0\0\0\0" + bytes(1000),
        "matlab": b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n" + bytes(500),
        "short": b"II*",
        "nothing": b"",
    }
    for name, content in others.items():
        (tmp_path / name).write_bytes(content)
    for suffix in (".jpg", ".png", ".webp"):
        assert cv2.imwrite(str(tmp_path / f"x{suffix}"), np.zeros((40, 40), np.uint8))
        (tmp_path / f"x{suffix}").rename(tmp_path / suffix.removeprefix("."))
    np.save(tmp_path / "video.npy", np.zeros((3, 8, 8), np.uint8))
    manifest = Manifest.scan(tmp_path, progress=False)
    assert manifest.column("path").to_pylist() == ["video.npy"]
    assert sum(files["files"] for files in manifest.not_read.values()) == len(others) + 4


def test_any_preamble_of_a_dicom_file_is_passed_over(tmp_path):
    """Every magic number stands once in the 128 free bytes, and once more with the mark of DICOM that follows."""
    path = write_dicom(tmp_path / "a.dcm", numbered(3))
    whole = path.read_bytes()
    starts = {suffix: read_start(made(tmp_path, suffix)) for suffix in SUFFIXES}
    for suffix, start in starts.items():
        path.write_bytes(start[:128].ljust(128, b"\0") + whole[128:])
        assert kind_by_content(read_start(path)) == "dicom", suffix
        assert probe(path).container == "dicom", suffix


def test_pixels_that_spell_the_mark_of_dicom_make_no_dicom(tmp_path):
    frames = np.zeros((3, 8, 8), np.uint8)
    frames[0, 0, :4] = list(b"DICM")
    np.save(tmp_path / "a.npy", frames)
    assert (tmp_path / "a.npy").read_bytes()[128:132] == b"DICM"
    assert probe(tmp_path / "a.npy").container == "npy"


def test_only_ordered_kinds_match_the_same_file(tmp_path):
    patterns = [(kind, place, re.compile(magic, re.DOTALL)) for kind, place, magic in _MAGIC]
    for suffix in SUFFIXES:
        if suffix == "dcm":
            continue
        start = read_start(made(tmp_path, suffix))
        fitting = [kind for kind, place, pattern in patterns if pattern.match(start, place)]
        allowed = {("npz", "archive"), ("encoded", "image"), ("webp", "image"), ("encoded", "audio")}
        assert fitting, suffix
        for pair in combinations(fitting, 2):
            assert pair[0] == pair[1] or pair in allowed, (suffix, fitting)


def test_a_dicom_directory_is_passed_over(tmp_path):
    write_dicom(tmp_path / "PAT1" / "IM0001", numbered(3))
    directory = tmp_path / "DICOMDIR"
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, MediaStorageDirectoryStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    FileDataset(str(directory), {}, file_meta=meta, preamble=bytes(128)).save_as(directory, enforce_file_format=True)
    manifest = Manifest.scan(tmp_path, progress=False)
    assert manifest.column("path").to_pylist() == ["PAT1/IM0001"] and manifest.not_read == {}


def test_a_dicom_report_is_named(tmp_path):
    write_dicom(tmp_path / "IM0001", numbered(3))
    write_dicom(tmp_path / "SR0001", numbered(3), Rows=0)
    manifest = Manifest.scan(tmp_path, progress=False)
    assert manifest.not_read == {"DICOM file without an image of its own": {"files": 1, "first": ["SR0001"]}}


def test_a_prediction_reads_the_files_that_a_scan_reads(tmp_path):
    contents = {"IM1": b"DICM".rjust(132, b"\0"), "a.mp4": b"", "b.txt": b"DICM".rjust(132, b"\0"), "c": b"text"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    assert [name for name in contents if is_video(tmp_path / name)] == ["IM1", "a.mp4"]


def test_the_suffixes():
    assert {".264", ".265", ".h265", ".avc", ".y4m", ".apng", ".webp", ".dcm"} <= EXTENSIONS
