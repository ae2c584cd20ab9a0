"""Functions that open and probe videos. The format is detected from the content of the file, not from its name."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, get_args

from cinefeed.core.arguments import check_arguments, expect, require_local
from cinefeed.core.errors import LimitError, SettingError, SourceError, did_you_mean
from cinefeed.video.arrays.hdf5 import Hdf5Source, hdf5_parts, probe_hdf5
from cinefeed.video.arrays.nifti import NiftiSource, nifti_parts, probe_nifti
from cinefeed.video.arrays.npy import ArraySource, NpzSource, npy_parts, npz_parts, probe_npy, probe_npz
from cinefeed.video.clips import PixelType
from cinefeed.video.dicom.encapsulated import is_dicom_video, open_dicom_video, probe_dicom_file
from cinefeed.video.dicom.series import group_series
from cinefeed.video.dicom.source import DicomSource
from cinefeed.video.extras import check_extras
from cinefeed.video.ffmpeg.probe import Verify, probe_encoded
from cinefeed.video.ffmpeg.source import EncodedSource
from cinefeed.video.images.animation import AnimatedSource, probe_animated
from cinefeed.video.images.groups import group_images, has_pages, natural_key
from cinefeed.video.images.source import ImagesSource, TiffSource, probe_images, probe_tiff
from cinefeed.video.kinds import (
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
from cinefeed.video.limits import require_regular
from cinefeed.video.metadata import VideoMetadata
from cinefeed.video.packed.source import open_packed
from cinefeed.video.read_options import DEFAULT_READ_OPTIONS, ReadOptions
from cinefeed.video.readers import is_of_a_reader, open_with_reader, probe_with_reader
from cinefeed.video.source import DiscoveredSample, Folder, FrameSource, Source

_KINDS: dict[str, tuple[Callable[..., FrameSource], Callable[..., VideoMetadata]]] = {
    "npy": (ArraySource, probe_npy),
    "npz": (NpzSource, probe_npz),
    "hdf5": (Hdf5Source, probe_hdf5),
    "nifti": (NiftiSource, probe_nifti),
    "dicom": (DicomSource, probe_dicom_file),
    "images": (ImagesSource, probe_images),
    "tiff": (TiffSource, probe_tiff),
    "webp": (AnimatedSource, probe_animated),
}
_PARTS: dict[str, Callable[[Path, ReadOptions], list[str]]] = {
    "npy": npy_parts,
    "npz": npz_parts,
    "hdf5": hdf5_parts,
    "nifti": nifti_parts,
}


OPENED_KINDS = frozenset([*_PARTS, "dicom", "tiff"])  # kinds whose files must be opened to know their samples


class Samples(NamedTuple):
    """The samples in a set of files, the files that are in no sample, and the folders that need a choice.

    `unread` has pairs of a description and a file name. `ambiguous` maps each folder that needs a choice to the name
    patterns that its images can be selected by.
    """

    samples: list[DiscoveredSample]
    unread: list[tuple[str, str]]
    ambiguous: dict[str, tuple[str, ...]]


@check_arguments()
def open_video(
    path: str | Path,
    *,
    channels: int | None = None,
    part: str | None = None,
    metadata: VideoMetadata | None = None,
    reading: ReadOptions = DEFAULT_READ_OPTIONS,
    dtype: PixelType | None = None,
) -> Source:
    """Open a video for random access to its frames.

    channels:  1 (grey) or 3 (RGB); by default as stored
    part:      a sample inside the file, such as a data set ("/name" or "/name[5]") or a slice ("slice=4");
               "file.h5::/name" is the same, given in the path
    metadata:  metadata from a manifest; with it the file is not probed, and `reading` is not needed
    dtype:     dtype that `read` returns: uint8, uint16 or float32; by default as stored

    Raises SourceError if the file holds no video, is not a regular file, or expands beyond `reading.limits`.

    >>> import tempfile, numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "cine.npy")
    ...     np.save(path, np.arange(24, dtype=np.uint8).reshape(6, 2, 2))
    ...     with open_video(path) as source:
    ...         print(len(source), source.read([5, 0, 5])[:, 0, 0, 0].tolist())
    6 [20, 0, 20]
    """
    if channels not in (None, 1, 3) or isinstance(channels, bool):
        raise SettingError(f"open_video(channels={channels!r}) must be 1 (grey), 3 (RGB) or None (as stored)")
    if dtype is not None and dtype not in get_args(PixelType):
        raise SettingError(f"open_video(dtype={dtype!r}) is not a choice; {did_you_mean(dtype, get_args(PixelType))}")
    path, part = _address(path, part)
    require_regular(path)
    if metadata is None and (reading != DEFAULT_READ_OPTIONS or _kind_of(path) != "encoded"):
        metadata = probe(path, part=part, verify="packets", reading=reading)
    if metadata is not None and metadata.member is not None:
        return open_packed(path, channels=channels, metadata=metadata, dtype=dtype)
    if metadata is not None and is_of_a_reader(metadata.container):
        source = open_with_reader(path, metadata.container, channels=channels, part=part, metadata=metadata)
        if dtype is not None and isinstance(source, FrameSource):
            source.dtype = dtype
        return source
    if metadata is not None and is_dicom_video(metadata):
        return open_dicom_video(path, channels=channels, part=part, metadata=metadata, dtype=dtype)
    if metadata is None or metadata.container not in _KINDS:
        return EncodedSource(path, channels=channels, part=part, metadata=metadata, dtype=dtype)
    source = _KINDS[metadata.container][0](path, channels=channels, part=part, metadata=metadata)
    source.dtype = dtype
    return source


@check_arguments()
def probe(
    path: str | Path,
    *,
    part: str | None = None,
    files: Sequence[str] = (),
    verify: Verify = "decode",
    reading: ReadOptions = DEFAULT_READ_OPTIONS,
) -> VideoMetadata:
    """Return the metadata of a video file, of one `part` of it, or of a folder whose frames are `files`.

    decode:   decode every frame; only this finds where a file breaks, and the exact time of every frame
    packets:  decode the first 16 frames and read the packets of the rest: a quarter of the time for 90 frames, less for
              more. All frames are decoded if a packet may not be a frame, or if the timestamps may not give the order
              of the frames: HEVC, VP9, AV1 and rarer codecs, MPEG-PS and TS, a start in mid-GOP, damage visible in the
              container

    A file that breaks keeps the frames before the break, and `metadata.error` describes the break. Raises SourceError
    if no frame can be read, the file is not a regular file, or it expands beyond `reading.limits`.
    """
    if verify not in ("decode", "packets"):
        raise SettingError(f"probe(verify={verify!r}) is not a choice; {did_you_mean(verify, ['decode', 'packets'])}")
    path, part = _address(path, part)
    first = path / files[0] if files else path
    require_regular(first)  # the readers check the other files of a folder
    kind = _kind_of(path if files and known_suffix(files[0]) in IMAGE_SUFFIXES else first)
    if kind == "encoded":
        return probe_encoded(path, part=part, verify=verify, reading=reading)
    if is_of_a_reader(kind):
        return probe_with_reader(path, kind, part=part, reading=reading)
    return _KINDS[kind][1](path, part=part, files=tuple(files), verify=verify, reading=reading)


def find_samples(root: Folder, kinds: Mapping[str, str], *, reading: ReadOptions) -> Samples:
    """Return the samples in a set of files: a file is one sample, several samples, or one frame of a sample.

    `kinds` maps file names, relative to `root` and with /, to kinds (see `cinefeed.video.kinds`). A file that cannot
    be opened is a sample if its suffix is that of a video; probing it then raises the error. Raises MissingExtraError,
    before any file is opened, if the packages that read these kinds are not installed.
    """
    check_extras(Counter(kinds.values()), place=str(root))
    slides = [name for name, kind in kinds.items() if kind == "dicom"]
    samples = group_series(root, slides, reading=reading) if slides else []
    images = group_images(kinds, root=root, frames=reading.frames)
    unread = [(misnamed_image(root / name) or what, name) for what, name in images.unread]
    frame_files = {*_files_of(samples)}
    unread += [("DICOM file without an image of its own", name) for name in slides if name not in frame_files]
    samples += images.samples
    for name, kind in kinds.items():
        if kind not in ("dicom", "image"):
            try:
                samples += [DiscoveredSample(name, part) for part in _parts(root, name, kind, reading)]
            except LimitError:
                limit = reading.limits.max_samples_per_file
                unread.append((f"file of more than {limit:,} samples (max_samples_per_file)", name))
            except SourceError:
                if known_suffix(name):
                    samples.append(DiscoveredSample(name))
                else:  # no suffix of a video
                    unread.append((kind_in_words(name, f"{kind} without a video"), name))
    return Samples(
        sorted(samples, key=lambda each: (each.path, natural_key(each.part or ""))), unread, dict(images.ambiguous)
    )


def _files_of(samples: Iterable[DiscoveredSample]) -> Iterator[str]:
    for sample in samples:
        yield from (f"{sample.path}/{file}".removeprefix("./") for file in sample.files)
        if not sample.files:
            yield sample.path


def _parts(root: Folder, name: str, kind: str, reading: ReadOptions) -> list[str] | list[None]:
    """Return the parts of a file that are samples, or [None] if the file is one sample. Raises SourceError."""
    if kind == "tiff" and not has_pages(root / name):
        raise SourceError(f"{root / name}: is one image")
    return _PARTS[kind](root / name, reading) or [None] if kind in _PARTS else [None]


def _address(path: str | Path, part: str | None) -> tuple[Path, str | None]:
    """Split "file.h5::/name" into the file and its part. Raises ArgumentError for another object than a path."""
    advice = "give the path of a video; manifest.open(row) opens a row of a manifest, Manifest.from_arrays takes arrays"
    expect(path, (str, os.PathLike), name="the path of a video", remedy=advice)
    require_local(path, error=SourceError, what="videos")
    file, mark, rest = str(path).partition("::")
    if mark and part is None:
        return Path(file), rest
    return path if isinstance(path, Path) else Path(path), part


def _kind_of(path: Path) -> str:
    """Return the kind of a file by its first bytes, or by its name if those are ambiguous."""
    if path.is_dir():
        return "images"
    if kind := own_kind(path):
        return kind
    try:
        start = read_start(path)
    except OSError:
        start = b""  # opening the file raises the error
    content, promised = kind_by_content(start), kind_by_suffix(path)
    if is_readable(content):
        return str(content)
    if promised == "npy" and start:
        raise SourceError(f"{path}: is named .npy but is not a NumPy file; it starts with {start[:6]!r}")
    return promised if promised in _KINDS else "dicom" if content == "dicomdir" else "encoded"
