"""Opening a video by its content, whatever its name says."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

from cinefeed.clips import PixelType
from cinefeed.errors import SettingError, SourceError, did_you_mean
from cinefeed.sources.arrays import ArraySource, NpzSource, npy_parts, npz_parts, probe_npy, probe_npz
from cinefeed.sources.base import DEFAULT_READING, Facts, Found, Reading, Source, StoredFrames
from cinefeed.sources.dicom import DicomSource, probe_dicom
from cinefeed.sources.dicom_series import group_series, is_dicom
from cinefeed.sources.encoded import EncodedSource
from cinefeed.sources.hdf5 import Hdf5Source, hdf5_parts, probe_hdf5
from cinefeed.sources.images import (
    IMAGE_SUFFIXES,
    ImagesSource,
    TiffSource,
    group_images,
    has_pages,
    probe_images,
    probe_tiff,
)
from cinefeed.sources.index import Verify, probe_encoded
from cinefeed.sources.limits import require_regular
from cinefeed.sources.nifti import NiftiSource, nifti_parts, probe_nifti

_ENCODED = """
    .3g2 .3gp .asf .avi .divx .dv .f4v .flv .gif .h264 .hevc .ivf .m2ts .m2v .m4v .mjpeg .mjpg .mkv .mov .mp4 .mpe
    .mpeg .mpg .mts .mxf .nut .ogv .ts .vob .webm .wmv
"""
_ENCODED_SUFFIXES = frozenset(_ENCODED.split())
_DICOM_SUFFIXES = frozenset([".dcm", ".dicom", ".ima"])
_BY_SUFFIX = {
    ".npy": "npy",
    ".npz": "npz",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".nii": "nifti",
    ".nii.gz": "nifti",
    **dict.fromkeys(_DICOM_SUFFIXES, "dicom"),
}
EXTENSIONS = frozenset([*_ENCODED_SUFFIXES, *_BY_SUFFIX, *IMAGE_SUFFIXES])
_BEGINNINGS = {  # of files that may have another name
    b"\x93NUMPY": "npy",
    b"\x89HDF\r\n\x1a\n": "hdf5",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"II+\0": "tiff",
    b"MM\0+": "tiff",
}
_KINDS: dict[str, tuple[Callable[..., StoredFrames], Callable[..., Facts]]] = {
    "npy": (ArraySource, probe_npy),
    "npz": (NpzSource, probe_npz),
    "hdf5": (Hdf5Source, probe_hdf5),
    "nifti": (NiftiSource, probe_nifti),
    "dicom": (DicomSource, probe_dicom),
    "images": (ImagesSource, probe_images),
    "tiff": (TiffSource, probe_tiff),
}
_PARTS: dict[str, Callable[[Path, Reading], list[str]]] = {
    ".npy": npy_parts,
    ".npz": npz_parts,
    ".h5": hdf5_parts,
    ".hdf5": hdf5_parts,
    ".nii": nifti_parts,
    ".nii.gz": nifti_parts,
}


def known_suffix(path: str | Path) -> str | None:
    """Return the suffix, in lower case, by which a scan takes a file for a video, or None.

    >>> known_suffix("studies/7/4ch.v2.MP4"), known_suffix("notes.txt")
    ('.mp4', None)
    """
    name = Path(path).name.lower().lstrip(".")
    parts = name.split(".")
    for i in range(1, len(parts)):  # the longest first, so that a compound suffix wins
        suffix = "." + ".".join(parts[i:])
        if suffix in EXTENSIONS:
            return suffix
    return None


def open_source(
    path: str | Path,
    *,
    channels: int | None = None,
    part: str | None = None,
    facts: Facts | None = None,
    reading: Reading = DEFAULT_READING,
    dtype: PixelType | None = None,
) -> Source:
    """Open a video and read any of its frames.

    `channels` is 1 (grey) or 3 (RGB), or as the file holds them. `part` names a sample inside the file, such as a data
    set ("/name" or "/name[5]") or a slice ("slice=4"); "file.h5::/name" says the same in the path. `dtype` is what
    `read` gives: uint8, uint16 or float32, or as stored. `facts` are those of the manifest: with them nothing is probed
    and no pass over the file is made, and `reading` is not needed. Raises SourceError where the file holds no video, is
    not a regular file, or expands to more than `reading.limits`.

    >>> import tempfile, numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "cine.npy")
    ...     np.save(path, np.arange(24, dtype=np.uint8).reshape(6, 2, 2))
    ...     with open_source(path) as source:
    ...         print(len(source), source.read([5, 0, 5])[:, 0, 0, 0].tolist())
    6 [20, 0, 20]
    """
    if channels not in (None, 1, 3):
        raise SettingError(f"open_source(channels={channels!r}) must be 1 (grey), 3 (RGB) or None (as stored)")
    if dtype is not None and dtype not in get_args(PixelType):
        raise SettingError(f"open_source(dtype={dtype!r}) is not a choice; {did_you_mean(dtype, get_args(PixelType))}")
    path, part = _address(path, part)
    require_regular(path)
    if facts is None and (reading != DEFAULT_READING or _kind_of(path) != "encoded"):
        facts = probe(path, part=part, verify="packets", reading=reading)
    if facts is None or facts.container not in _KINDS:
        return EncodedSource(path, channels=channels, part=part, facts=facts, dtype=dtype)
    source = _KINDS[facts.container][0](path, channels=channels, part=part, facts=facts)
    source.dtype = dtype
    return source


def probe(
    path: str | Path,
    *,
    part: str | None = None,
    files: Sequence[str] = (),
    verify: Verify = "decode",
    reading: Reading = DEFAULT_READING,
) -> Facts:
    """Return what a video file holds, or a `part` of it, or a folder of which `files` are the frames.

    decode:   every frame is decoded; only this shows where a file breaks, and how its frames lie in time
    packets:  the file is read and not decoded, about 20 times faster; a file whose time stamps may not tell the order
              of its frames is decoded all the same

    A file that breaks keeps the frames before, and `facts.error` says where. Raises SourceError where no frame at all
    can be read, the file is not a regular one, or it expands to more than `reading.limits`.
    """
    if verify not in ("decode", "packets"):
        raise SettingError(f"probe(verify={verify!r}) is not a choice; {did_you_mean(verify, ['decode', 'packets'])}")
    path, part = _address(path, part)
    for file in (path, *(path / name for name in files)):
        require_regular(file)
    kind = _kind_of(path / files[0]) if files and known_suffix(files[0]) not in IMAGE_SUFFIXES else _kind_of(path)
    if kind == "encoded":
        return probe_encoded(path, part=part, verify=verify, reading=reading)
    return _KINDS[kind][1](path, part=part, files=tuple(files), verify=verify, reading=reading)


def find_samples(root: Path, names: Sequence[str], *, reading: Reading) -> list[Found]:
    """Return the samples in some files under a folder: most files are one, some hold many, some are one frame of many.

    `names` are relative to `root`, with /. A file that cannot be opened is a sample, whose probe then says why.
    """
    suffixes = {name: known_suffix(name) or "" for name in names}
    slides = [name for name in names if suffixes[name] in _DICOM_SUFFIXES]
    found = group_series(root, slides, reading=reading) if slides else []
    found += group_images(names, root=root) if IMAGE_SUFFIXES & {*suffixes.values()} else []
    frames = {f"{each.path}/{file}".removeprefix("./") for each in found for file in each.files}
    for name, suffix in suffixes.items():
        if suffix in IMAGE_SUFFIXES:  # one that is no frame is a video if it has pages, else a picture beside them
            found += [Found(name)] if name not in frames and has_pages(root / name) else []
        elif suffix not in _DICOM_SUFFIXES:
            found += [Found(name, part) for part in _parts(root / name, suffix, reading)]
    return sorted(found, key=lambda each: (each.path, each.part or ""))


def _parts(path: Path, suffix: str, reading: Reading) -> list[str] | list[None]:
    """Return the parts of a file that are samples, or [None] where it is one itself, or cannot be opened."""
    if suffix not in _PARTS:
        return [None]
    try:
        return _PARTS[suffix](path, reading) or [None]
    except SourceError:
        return [None]


def _address(path: str | Path, part: str | None) -> tuple[Path, str | None]:
    """Return the file, and the part of it, that "file.h5::/name" names."""
    file, mark, rest = str(path).partition("::")
    if mark and part is None:
        return Path(file), rest
    return path if isinstance(path, Path) else Path(path), part


def _kind_of(path: Path) -> str:
    """Return the kind of a file by how it begins, or, where that tells nothing, by its name."""
    if path.is_dir():
        return "images"
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError:
        start = b""  # who opens it says what is wrong with it
    for beginning, kind in _BEGINNINGS.items():
        if start.startswith(beginning):
            return kind
    suffix = known_suffix(path) or ""
    if suffix == ".npy" and start:
        raise SourceError(f"{path}: is named .npy but does not begin as a NumPy file; it starts with {start[:6]!r}")
    if suffix in _BY_SUFFIX:
        return _BY_SUFFIX[suffix]
    return "dicom" if suffix not in _ENCODED_SUFFIXES and is_dicom(path) else "encoded"
