"""Opening a video by its content, whatever its name says."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, get_args

from cinefeed.clips import PixelType
from cinefeed.errors import LimitError, SettingError, SourceError, did_you_mean
from cinefeed.sources.animation import AnimatedSource, probe_animated
from cinefeed.sources.arrays import ArraySource, NpzSource, npy_parts, npz_parts, probe_npy, probe_npz
from cinefeed.sources.base import DEFAULT_READING, Facts, Found, Reading, Source, StoredFrames
from cinefeed.sources.dicom import DicomSource
from cinefeed.sources.dicom_series import group_series
from cinefeed.sources.dicom_video import is_dicom_video, open_dicom_video, probe_dicom_file
from cinefeed.sources.encoded import EncodedSource
from cinefeed.sources.extras import check_extras
from cinefeed.sources.hdf5 import Hdf5Source, hdf5_parts, probe_hdf5
from cinefeed.sources.image_groups import group_images, has_pages, natural_key
from cinefeed.sources.images import ImagesSource, TiffSource, probe_images, probe_tiff
from cinefeed.sources.index import Verify, probe_encoded
from cinefeed.sources.kinds import (
    IMAGE_SUFFIXES,
    is_readable,
    kind_by_content,
    kind_by_suffix,
    kind_in_words,
    known_suffix,
    misnamed_image,
    own_kind,
    read_start,
)
from cinefeed.sources.limits import require_regular
from cinefeed.sources.nifti import NiftiSource, nifti_parts, probe_nifti
from cinefeed.sources.readers import is_of_a_reader, open_with_reader, probe_with_reader

_KINDS: dict[str, tuple[Callable[..., StoredFrames], Callable[..., Facts]]] = {
    "npy": (ArraySource, probe_npy),
    "npz": (NpzSource, probe_npz),
    "hdf5": (Hdf5Source, probe_hdf5),
    "nifti": (NiftiSource, probe_nifti),
    "dicom": (DicomSource, probe_dicom_file),
    "images": (ImagesSource, probe_images),
    "tiff": (TiffSource, probe_tiff),
    "webp": (AnimatedSource, probe_animated),
}
_PARTS: dict[str, Callable[[Path, Reading], list[str]]] = {
    "npy": npy_parts,
    "npz": npz_parts,
    "hdf5": hdf5_parts,
    "nifti": nifti_parts,
}


class Samples(NamedTuple):
    """What some files hold: samples, files in none of them (what each is, its name), and folders that need a choice.

    Of such a folder, `undecided` has the patterns that its images could be chosen by.
    """

    found: list[Found]
    unread: list[tuple[str, str]]
    undecided: dict[str, tuple[str, ...]]


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
    if facts is not None and is_of_a_reader(facts.container):
        source = open_with_reader(path, facts.container, channels=channels, part=part, facts=facts)
        if dtype is not None and isinstance(source, StoredFrames):
            source.dtype = dtype
        return source
    if facts is not None and is_dicom_video(facts):
        return open_dicom_video(path, channels=channels, part=part, facts=facts, dtype=dtype)
    if facts is None or facts.container not in _KINDS:
        return EncodedSource(path, channels=channels, part=part, facts=facts, dtype=dtype)
    stored = _KINDS[facts.container][0](path, channels=channels, part=part, facts=facts)
    stored.dtype = dtype
    return stored


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
    packets:  the first 16 frames are decoded and the rest is read: 90 frames take a quarter of the time, more take less
              of it. Where a packet might not be a frame, or stamps might not tell their order, the file is decoded all
              the same: MPEG-PS and TS, a start in mid-GOP, damage that the container shows, rarer codecs

    A file that breaks keeps the frames before, and `facts.error` says where. Raises SourceError where no frame at all
    can be read, the file is not a regular one, or it expands to more than `reading.limits`.
    """
    if verify not in ("decode", "packets"):
        raise SettingError(f"probe(verify={verify!r}) is not a choice; {did_you_mean(verify, ['decode', 'packets'])}")
    path, part = _address(path, part)
    first = path / files[0] if files else path
    require_regular(first)  # of the other files of a folder their readers ask the same
    kind = _kind_of(path if files and known_suffix(files[0]) in IMAGE_SUFFIXES else first)
    if kind == "encoded":
        return probe_encoded(path, part=part, verify=verify, reading=reading)
    if is_of_a_reader(kind):
        return probe_with_reader(path, kind, part=part, reading=reading)
    return _KINDS[kind][1](path, part=part, files=tuple(files), verify=verify, reading=reading)


def find_samples(root: Path, kinds: Mapping[str, str], *, reading: Reading) -> Samples:
    """Return the samples in some files under a folder: most files are one, some hold many, some are one frame of many.

    `kinds` has the kind of each file (see `cinefeed.sources.kinds`), by its name relative to `root`, with /. A file
    that cannot be opened is a sample, whose probe then says why, if its suffix promises one. Raises MissingExtraError,
    before any file is opened, unless the packages that read them are installed.
    """
    check_extras(Counter(kinds.values()), place=str(root))
    slides = [name for name, kind in kinds.items() if kind == "dicom"]
    found = group_series(root, slides, reading=reading) if slides else []
    images = group_images(kinds, root=root, frames=reading.frames)
    unread = [(misnamed_image(root / name) or what, name) for what, name in images.unread]
    frame_files = {*_files_of(found)}
    unread += [("DICOM file without an image of its own", name) for name in slides if name not in frame_files]
    found += images.found
    for name, kind in kinds.items():
        if kind not in ("dicom", "image"):
            try:
                found += [Found(name, part) for part in _parts(root / name, kind, reading)]
            except LimitError:
                limit = reading.limits.max_samples_per_file
                unread.append((f"file of more than {limit:,} samples (max_samples_per_file)", name))
            except SourceError:
                if known_suffix(name):
                    found.append(Found(name))
                else:  # nobody named it as a video
                    unread.append((kind_in_words(name, f"{kind} without a video"), name))
    return Samples(
        sorted(found, key=lambda each: (each.path, natural_key(each.part or ""))), unread, dict(images.undecided)
    )


def _files_of(samples: Iterable[Found]) -> Iterator[str]:
    for sample in samples:
        yield from (f"{sample.path}/{file}".removeprefix("./") for file in sample.files)
        if not sample.files:
            yield sample.path


def _parts(path: Path, kind: str, reading: Reading) -> list[str] | list[None]:
    """Return the parts of a file that are samples, or [None] where it is one itself. Raises SourceError."""
    if kind == "tiff" and not has_pages(path):
        raise SourceError(f"{path}: is one image")
    return _PARTS[kind](path, reading) or [None] if kind in _PARTS else [None]


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
    if kind := own_kind(path):
        return kind
    try:
        start = read_start(path)
    except OSError:
        start = b""  # who opens it says what is wrong with it
    content, promised = kind_by_content(start), kind_by_suffix(path)
    if is_readable(content):
        return str(content)
    if promised == "npy" and start:
        raise SourceError(f"{path}: is named .npy but does not begin as a NumPy file; it starts with {start[:6]!r}")
    return promised if promised in _KINDS else "dicom" if content == "dicomdir" else "encoded"
