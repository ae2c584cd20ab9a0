"""Every kind of source keeps the promises of `check_source`: on every real file there is, and on generated ones."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest

from cinefeed import open_video, probe
from cinefeed.core.errors import SourceError
from cinefeed.testing import check_source, numbered_frames, read_number, stored_metadata, write_video
from cinefeed.video.arrays.in_memory import MemorySource
from cinefeed.video.read_options import DEFAULT_READ_OPTIONS, ReadOptions

DATA = Path(__file__).parents[3] / "shared" / "data"
NO_VIDEO = {".csv", ".md", ""}  # labels, descriptions, licences
FAST_PIXELS = 8_000_000  # of the frames that a check reads: about half a second
DEEP = ["yuv420p10le", "yuv422p12le", "yuv444p16le", "gbrp10le", "gray16le"]


def real_files() -> list[str]:
    """Return every file of the data folder that is no table and no text."""
    files = (path for path in DATA.rglob("*") if path.is_file() and path.suffix not in NO_VIDEO)
    return sorted(path.relative_to(DATA).as_posix() for path in files)


def large_files() -> set[str]:
    """Return the encoded files of which a check decodes too much for a fast test."""
    if not (DATA / "facts.csv").exists():
        return set()
    with (DATA / "facts.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    pixels = {row["path"]: int(row["width"]) * int(row["height"]) * int(row["frames_decoded"]) for row in rows}
    return {path for path, count in pixels.items() if count > FAST_PIXELS}


def is_fast(name: str) -> bool:
    """Every small file but `lips`, of which every 15th is taken: they are all alike."""
    return name not in LARGE and (not name.startswith("lips/") or int(Path(name).stem) % 15 == 0)


LARGE = large_files()
FILES = [pytest.param(name, marks=() if is_fast(name) else pytest.mark.slow) for name in real_files()]


def conforms(
    path: Path,
    *,
    part: str | None = None,
    files: tuple[str, ...] = (),
    reading: ReadOptions = DEFAULT_READ_OPTIONS,
    **options: object,
) -> None:
    """Check a source, opened as a feed opens it: with the metadata of a manifest."""
    metadata = stored_metadata(probe(path, part=part, files=files, reading=reading))

    def reopen():
        return open_video(path, part=part, metadata=metadata, **options)

    check_source(reopen(), reopen=reopen)


@pytest.mark.parametrize("name", FILES)
def test_real_files(data, name):
    conforms(data / name)


def test_every_kind_of_real_file_is_included(data):
    suffixes = {Path(name).suffix for name in real_files()}
    assert suffixes == {".avi", ".dcm", ".gif", ".gz", ".mkv", ".mov", ".mp4", ".mpg", ".nii", ".webm"}


def test_a_real_file_that_breaks_its_promise_is_found(data, monkeypatch):
    monkeypatch.setattr("cinefeed.video.ffmpeg.source.frame_indices", lambda numbers, **_: np.asarray(numbers) // 2 * 2)
    with pytest.raises(AssertionError, match=r"planes and read differ|differs|does not raise"):
        conforms(data / "lips" / "00139.mp4")


class Made(NamedTuple):
    """A generated file: what shows that its frames are the right ones is the number in each."""

    path: Path
    part: str | None = None
    files: tuple[str, ...] = ()
    reading: ReadOptions = DEFAULT_READ_OPTIONS
    numbers: range = range(12)


def shades(dtype: str, *, first: int = 0, channels: int = 0) -> np.ndarray:
    """Return 12 frames of 32 x 40 that show their numbers, (time, height, width) or with channels at the end."""
    frames = numbered_frames(12, height=32, width=40, first=first)
    scale = 257 if dtype in ("uint16", ">u2") else 1
    return (frames[..., :channels] if channels else frames[..., 0]).astype(dtype) * np.array(scale, dtype)


def encoded(name: str, **how: object) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        return Made(write_video(folder / name, numbered_frames(12, height=48, width=64), **how))

    return make


def npy(dtype: str, *, channels: int = 0, axes: str | None = None, order: str = "C") -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        array = shades(dtype, channels=channels)
        if axes is not None:
            array = np.transpose(array, ["THWC".index(letter) for letter in axes])
        np.save(folder / "a.npy", np.asarray(array, order=order))
        return Made(folder / "a.npy", reading=ReadOptions(axes=axes))

    return make


def npz(folder: Path) -> Made:
    np.savez_compressed(folder / "a.npz", stack=np.stack([shades("uint8"), shades("uint8", first=20)]), labels=[1, 2])
    return Made(folder / "a.npz", "/stack[1]", numbers=range(20, 32))


def hdf5(folder: Path, *, chunks: tuple[int, ...] | None) -> Made:
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "a.h5", "w") as file:
        stacked = np.stack([shades("uint16"), shades("uint16", first=20)])
        file.create_dataset("study/cine", data=stacked, chunks=chunks, compression="gzip" if chunks else None)
    return Made(folder / "a.h5", "/study/cine[1]", numbers=range(20, 32))


def nifti(folder: Path, *, suffix: str) -> Made:
    nibabel = pytest.importorskip("nibabel")
    volume = np.stack([shades("int16"), shades("int16", first=20), shades("int16")])  # slice, time, height, width
    image = nibabel.Nifti1Image(volume.transpose(3, 2, 0, 1), np.diag([1.5, 1.5, 8.0, 1.0]))
    image.header.set_slope_inter(2.0, 3.0)
    nibabel.save(image, folder / f"a{suffix}")
    return Made(folder / f"a{suffix}", "slice=1", numbers=range(20, 32))


def tiff(folder: Path, *, dtype: str, channels: int = 0) -> Made:
    cv2.imwritemulti(str(folder / "a.tiff"), list(shades(dtype, channels=channels)))
    return Made(folder / "a.tiff")


def images(folder: Path, *, suffix: str, dtype: str) -> Made:
    for number, frame in enumerate(shades(dtype, channels=3)):
        cv2.imwrite(str(folder / f"frame{number + 1}{suffix}"), frame)
    return Made(folder, files=tuple(f"frame{number + 1}{suffix}" for number in range(12)))


def dicom_series(folder: Path) -> Made:
    pydicom = pytest.importorskip("pydicom")
    for number, frame in enumerate(shades("uint16")):
        meta = pydicom.dataset.FileMetaDataset()
        meta.MediaStorageSOPClassUID = pydicom.uid.MRImageStorage
        meta.MediaStorageSOPInstanceUID = f"1.2.3.{number}"
        meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        image = pydicom.Dataset()
        image.file_meta = meta
        image.SOPClassUID, image.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        image.StudyInstanceUID, image.SeriesInstanceUID, image.InstanceNumber = "1.2", "1.2.3", number
        image.TriggerTime, image.PixelSpacing = 40.0 * number, [1.25, 1.25]
        image.Rows, image.Columns = frame.shape
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
        image.PixelData = frame.tobytes()
        image.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return Made(folder, files=tuple(f"{number}.dcm" for number in range(12)))


MADE: dict[str, Callable[[Path], Made]] = {
    "H.264": encoded("a.mp4", b_frames=2),
    "H.264, variable rate": encoded("a.mkv", stamps=[0, 40, 80, 200, 240, 300, 301, 400, 440, 480, 700, 740]),
    "H.264, 4:4:4": encoded("a.mp4", pixel_format="yuv444p"),
    "H.264, turned": encoded("a.mp4", rotation=90),
    "MPEG-4 in AVI": encoded("a.avi", codec="mpeg4", b_frames=2),
    "MPEG-2 in TS": encoded("a.ts", codec="mpeg2video", b_frames=2),
    "Motion JPEG": encoded("a.avi", codec="mjpeg", pixel_format="yuvj422p"),
    "VP9": encoded("a.webm", codec="vp9"),
    "raw BGR": encoded("a.avi", codec="rawvideo", pixel_format="bgr24"),
    "raw grey": encoded("a.nut", codec="rawvideo", pixel_format="gray"),
    **{f"FFV1, {form}": encoded("a.mkv", codec="ffv1", pixel_format=form) for form in [*DEEP, "yuva420p", "bgra"]},
    "npy": npy("uint8"),
    "npy, RGB in Fortran order": npy("uint8", channels=3, order="F"),
    "npy, big-endian": npy(">u2"),
    "npy, float64": npy("float64"),
    "npy, height first": npy("uint16", axes="HWT"),
    "npy, channels first": npy("uint8", channels=3, axes="TCHW"),
    "npz": npz,
    "HDF5": lambda folder: hdf5(folder, chunks=None),
    "HDF5, chunks": lambda folder: hdf5(folder, chunks=(1, 5, 32, 40)),
    "NIfTI": lambda folder: nifti(folder, suffix=".nii"),
    "NIfTI, gzip": lambda folder: nifti(folder, suffix=".nii.gz"),
    "TIFF": lambda folder: tiff(folder, dtype="uint16"),
    "TIFF, RGB": lambda folder: tiff(folder, dtype="uint8", channels=3),
    "folder of PNG": lambda folder: images(folder, suffix=".png", dtype="uint16"),
    "folder of JPEG": lambda folder: images(folder, suffix=".jpg", dtype="uint8"),
    "DICOM series": dicom_series,
}


@pytest.mark.parametrize("kind", MADE)
def test_made_files(kind, tmp_path):
    made = MADE[kind](tmp_path)
    conforms(made.path, part=made.part, files=made.files, reading=made.reading)
    metadata = probe(made.path, part=made.part, files=made.files, reading=made.reading)
    with open_video(made.path, part=made.part, metadata=metadata, channels=1) as source:
        displayed = source.read(range(len(source)))
    assert [read_number(frame if metadata.rotation == 0 else np.rot90(frame, -1)) for frame in displayed] == list(
        made.numbers
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "kind", ["H.264", "raw BGR", "raw grey", "npy", "npy, channels first", "TIFF", "folder of PNG"]
)
def test_requested_channels(kind, channels, tmp_path):
    made = MADE[kind](tmp_path)
    conforms(made.path, part=made.part, files=made.files, reading=made.reading, channels=channels)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("kind", ["H.264", "FFV1, yuv420p10le", "npy, float64", "NIfTI"])
def test_requested_dtypes(kind, dtype, tmp_path):
    made = MADE[kind](tmp_path)
    if kind in ("npy, float64", "NIfTI") and dtype != "float32":
        with (
            open_video(made.path, part=made.part, reading=made.reading, dtype=dtype) as source,
            pytest.raises(SourceError, match=r"32 bits\) do not define black and white"),
        ):
            source.read([0])
        made = made._replace(reading=replace(made.reading, window="percentiles"))
    conforms(made.path, part=made.part, files=made.files, reading=made.reading, dtype=dtype)


def test_arrays_in_memory():
    array = shades("uint16")
    metadata = MemorySource(array).metadata
    check_source(MemorySource(array), reopen=lambda: MemorySource(array, metadata=stored_metadata(metadata)))
