"""DICOM files for tests: written by pydicom, each frame telling its number in its pixels."""

import struct
from pathlib import Path

import numpy as np
from pydicom.datadict import DicomDictionary
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

AXIAL, CORONAL, SAGITTAL = (1, 0, 0, 0, 1, 0), (1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1)


def write_dicom(
    path: Path, frames, *, syntax=ExplicitVRLittleEndian, encoded=None, table=True, data=None, vr=None, **elements
) -> Path:
    """Write frames, (n, height, width) or (n, height, width, 3), with these elements; None leaves one out.

    `encoded` are the frames compressed already, each a list of fragments, which are joined where there is a table.
    `data` are the bytes of all frames, in place of what NumPy has.
    """
    frames = np.asarray(frames)
    bits = 8 * frames.dtype.itemsize
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.file_meta.MediaStorageSOPClassUID = MRImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = elements.get("SOPInstanceUID", "1.2.3")
    values = {
        "SOPClassUID": MRImageStorage,
        "SOPInstanceUID": "1.2.3",
        "StudyInstanceUID": "1.2.4",
        "SeriesInstanceUID": "1.2.5",
        "PatientID": "P7",
        "Modality": "MR",
        "Rows": frames.shape[1],
        "Columns": frames.shape[2],
        "SamplesPerPixel": 3 if frames.ndim == 4 else 1,
        "PhotometricInterpretation": "RGB" if frames.ndim == 4 else "MONOCHROME2",
        "PlanarConfiguration": 0 if frames.ndim == 4 else None,
        "NumberOfFrames": len(frames) if len(frames) > 1 else None,
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(frames.dtype.kind == "i"),
    }
    fill(ds, values | elements)
    if encoded is None:
        data = frames.tobytes() if data is None else data
        ds.add(DataElement(0x7FE00010, vr or ("OW" if bits > 8 else "OB"), data + bytes(len(data) % 2)))
    else:
        parts = [b"".join(frame) for frame in encoded] if table else [part for frame in encoded for part in frame]
        ds.add(DataElement(0x7FE00010, "OB", encapsulate(parts, has_bot=table)))
        ds["PixelData"].is_undefined_length = True
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


def fill(ds: Dataset, values) -> Dataset:
    """Put values into a data set; a dictionary is a sequence of one item, a list of them one of several."""
    for keyword, value in values.items():
        if isinstance(value, dict):
            value = [value]
        if isinstance(value, list) and value and isinstance(value[0], dict):
            value = Sequence([fill(Dataset(), each) for each in value])
        if value is not None:
            setattr(ds, keyword, value)
    return ds


def numbered(count: int, *, height: int = 12, width: int = 16, dtype="uint16", start: int = 0) -> np.ndarray:
    """Return frames whose pixels are all `start` + number, but for one corner, which tells up from down."""
    frames = np.zeros((count, height, width), dtype)
    frames += (np.arange(count) + start).astype(dtype)[:, None, None]
    frames[:, 0, 0] = 0
    return frames


def write_slice(path: Path, *, value: int, directions=AXIAL, position=(0, 0, 0), uid: str, **elements) -> Path:
    """Write one image of a series, all its pixels `value`."""
    return write_dicom(
        path,
        np.full((1, 12, 16), value, np.uint16),
        SOPInstanceUID=uid,
        ImageOrientationPatient=list(directions),
        ImagePositionPatient=list(position),
        **elements,
    )


def marked_file(path: Path, mark: str, *, keep: dict[int, tuple[str, bytes]]) -> Path:
    """Write a file in which every element of text that DICOM knows holds the mark, but for those in `keep`.

    pydicom refuses to write such values, so the elements are put together here: explicit, little endian.
    """
    text = set("AE AS CS DA DS DT IS LO LT PN SH ST TM UC UI UR UT".split())
    long = set("OB OW SQ UC UR UT".split())
    elements = {
        tag: (vr, mark.encode() + b" " * (len(mark) % 2))
        for tag, (vr, *_) in DicomDictionary.items()
        if vr in text and 0x00080000 <= tag < 0x7FE00000 and tag >> 16 != 0xFFFE
    }
    elements |= keep
    meta = {0x00020010: ("UI", b"1.2.840.10008.1.2.1\0"), 0x00020016: ("AE", mark.encode() + b" " * (len(mark) % 2))}

    def written(those) -> bytes:
        out = b""
        for tag, (vr, value) in sorted(those.items()):
            head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
            out += head + (struct.pack("<xxI", len(value)) if vr in long else struct.pack("<H", len(value))) + value
        return out

    path.write_bytes(bytes(128) + b"DICM" + written(meta) + written(elements))
    return path
