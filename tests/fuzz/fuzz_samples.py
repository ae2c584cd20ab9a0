"""Small healthy files, one of each format, to be broken. Each is written by its own library, the same on every run."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest

from cinefeed.testing import numbered_frames, write_video


class Sample(NamedTuple):
    """A healthy file, the address of the video inside it, and the library that parses it."""

    path: Path
    part: str | None
    library: str


def _frames(count: int = 12, side: int = 32) -> np.ndarray:
    """Return grey frames (count, side, side) of texture: shades of one block would leave a codec nothing to do."""
    rng = np.random.default_rng(0)
    moving = np.stack([np.roll(rng.integers(0, 256, (side, side)), n, axis=1) for n in range(count)])
    return (numbered_frames(count, height=side, width=side)[..., 0] // 2 + moving // 4).astype(np.uint8)


def _encoded(name: str, **how) -> Callable[[Path], Sample]:
    def write(folder: Path) -> Sample:
        colour = np.repeat(_frames(24, 48)[..., None], 3, axis=3)
        return Sample(write_video(folder / name, colour, **how), None, "FFmpeg")

    return write


def _npy(folder: Path) -> Sample:
    np.save(folder / "array.npy", _frames())
    return Sample(folder / "array.npy", None, "NumPy")


def _npz(folder: Path) -> Sample:
    np.savez_compressed(folder / "arrays.npz", cine=_frames(), labels=np.arange(3))
    return Sample(folder / "arrays.npz", "/cine", "NumPy")


def _hdf5(folder: Path) -> Sample:
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "stacked.h5", "w") as file:
        stacked = np.stack([_frames()] * 2)
        file.create_dataset("study/cine", data=stacked, chunks=(1, 4, 32, 32), compression="gzip")
    return Sample(folder / "stacked.h5", "/study/cine[1]", "HDF5")


def _nifti(folder: Path) -> Sample:
    nibabel = pytest.importorskip("nibabel")
    volume = np.moveaxis(np.stack([_frames()] * 2), (0, 1, 2, 3), (2, 3, 1, 0)).astype(np.int16)
    image = nibabel.Nifti1Image(volume, np.diag([1.5, 1.5, 8.0, 1.0]))
    image.header.set_slope_inter(2.0, 3.0)
    nibabel.save(image, folder / "volume.nii.gz")
    return Sample(folder / "volume.nii.gz", "slice=1", "nibabel")


def _dicom(folder: Path, *, compressed: bool) -> Sample:
    pydicom = pytest.importorskip("pydicom")
    frames = _frames()
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.UltrasoundMultiFrameImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    image = pydicom.Dataset()
    image.file_meta = meta
    image.SOPClassUID, image.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    image.StudyInstanceUID, image.SeriesInstanceUID, image.PatientID = "1.2.3", "1.2.3.1", "nobody"
    image.Rows, image.Columns, image.NumberOfFrames, image.FrameTime = *frames.shape[1:], len(frames), "40.0"
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 8, 8, 7, 0
    image.WindowCenter, image.WindowWidth = "128", "256"
    image.PixelData = frames.tobytes()
    if compressed:
        image.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
    path = folder / ("run_lengths.dcm" if compressed else "plain.dcm")
    image.save_as(path, enforce_file_format=True)
    return Sample(path, None, "pydicom")


def _tiff(folder: Path) -> Sample:
    path = folder / "pages.tiff"
    cv2.imwritemulti(str(path), list(_frames(6)), [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    return Sample(path, None, "OpenCV")


def _png(folder: Path) -> Sample:
    (folder / "images").mkdir()
    for number, frame in enumerate(_frames(6)):
        cv2.imwrite(str(folder / "images" / f"{number}.png"), frame)
    return Sample(folder / "images", None, "OpenCV")


WRITERS: dict[str, Callable[[Path], Sample]] = {
    "mp4": _encoded("h264.mp4", b_frames=2),
    "avi": _encoded("mpeg4.avi", codec="mpeg4"),
    "webm": _encoded("vp9.webm", codec="vp9"),
    "mpg": _encoded("mpeg2.mpg", codec="mpeg2video", b_frames=1),
    "ts": _encoded("h264.ts", b_frames=2),
    "gif": _encoded("palette.gif", codec="gif", pixel_format="rgb8"),
    "npy": _npy,
    "npz": _npz,
    "h5": _hdf5,
    "nii.gz": _nifti,
    "dcm": lambda folder: _dicom(folder, compressed=False),
    "dcm, run lengths": lambda folder: _dicom(folder, compressed=True),
    "tiff": _tiff,
    "png": _png,
}


def write_samples(folder: Path) -> Iterator[tuple[str, Sample]]:
    """Write the samples whose libraries are installed."""
    for name, write in WRITERS.items():
        try:
            yield name, write(folder)
        except pytest.skip.Exception:
            print(f"{name}: its library is not installed, no such file is broken")
