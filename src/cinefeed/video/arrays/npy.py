"""NumPy files, `.npy` and `.npz`: only the requested frames are read, and pickles never are."""

import io
import struct
import threading
import zipfile
import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from tokenize import TokenError
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from cinefeed.core.errors import LimitError, SourceError, did_you_mean
from cinefeed.video.arrays.array_frames import (
    ArrayFile,
    broken_after,
    known_axes,
    plane_type,
    sample_metadata,
    windowed,
)
from cinefeed.video.arrays.axes import axes_of, has_readings, row_of, rows_of, split_part
from cinefeed.video.arrays.frame_offsets import (
    FrameLayout,
    FrameReader,
    MappedFrames,
    Samples,
    UnpackedFrames,
    check_unpacked,
    first_frames,
    frame_layout,
    unpacked_metadata,
)
from cinefeed.video.ffmpeg.probe import Verify
from cinefeed.video.metadata import VideoMetadata
from cinefeed.video.read_options import DEFAULT_READ_OPTIONS, ReadOptions

# NumPy parses a header with ast. In CPython 3.11 its recursion counter is shared by all threads: two concurrent calls
# have raised "SystemError: AST constructor recursion depth mismatch" in a test run.
_ONE_HEADER_AT_A_TIME = threading.Lock()
_NO_HEADER = (ValueError, SyntaxError, TokenError, EOFError, zlib.error)
# ValueError: a name that is not text; RuntimeError: unsupported compression or encryption
_NO_ARCHIVE = (zipfile.BadZipFile, ValueError, RuntimeError, struct.error)
_LONGEST_HEADER = 10_000  # bytes: NumPy refuses longer ones too, but reads them first
_LOCAL_HEADER = struct.Struct("<26xHH")  # of a zip member: the lengths of its name and extra field, which follow


class _Array(NamedTuple):
    """An array in a file: its header and the position of its numbers."""

    where: str  # file and part, for errors
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    offset: int  # of the first number: in the file, or in the unpacked member
    end: int  # of the available bytes, or of the bytes promised by a member
    member: str | None = None  # the compressed member of an archive

    def layout(self, axes: str, row: int | None) -> FrameLayout:
        fixed = row_of(row, axes, self.shape, where=self.where)
        return frame_layout(self.shape, axes, self.dtype, fortran=self.fortran, offset=self.offset, fixed=fixed)

    def samples(self, axes: str) -> Samples:
        count = self.shape[axes.index("N")] if "N" in axes else 1
        first = self.layout(axes, 0 if "N" in axes else None)
        return Samples(first, self.layout(axes, 1).first - first.first if count > 1 else 0, count)


class ArraySource(ArrayFile):
    """A video in a `.npy` file: (time, height, width), or with 1 (grey) or 3 (RGB) channels as last axis.

    The part "[5]" is one row of a set, (N, T, H, W) or (N, T, H, W, C). uint8, uint16 and float32 are kept; bool
    becomes 0 and 255; every other integer or float dtype is read as float32, and integers beyond 2**24 are rounded.
    Raises SourceError for any other dtype or shape.

    The file is memory-mapped, and planes are views into it. A frame of a file with another axis order than (T, H, W) is
    read on its own too, but if time is the last axis, its numbers are spread over all pages of the file.
    """

    @staticmethod
    def _probe(path: Path, part: str | None) -> VideoMetadata:
        return probe_npy(path, part=part)

    def _open(self, part: str | None) -> None:
        array = self._find(self.path, part)
        axes = known_axes(self.metadata, array.shape, array.dtype, where=array.where)
        layout = first_frames(array.layout(axes, split_part(part)[1]), len(self), end=array.end, where=array.where)
        self._reader: FrameReader = (
            MappedFrames(self.path, layout) if array.member is None else UnpackedFrames(self.path, array.member, layout)
        )

    @staticmethod
    def _find(path: Path, part: str | None) -> _Array:
        return _in_file(path, part)

    def _numbers(self, number: int) -> NDArray[Any]:
        return self._reader.read(number)

    def close(self) -> None:
        """Close the file; planes that were returned remain valid, and keep it open until they are deleted."""
        super().close()
        self._reader.close()


class NpzSource(ArraySource):
    """A video in an array of a `.npz` file, given by the part: "/x", or "/x[5]" for a row of a set; see ArraySource.

    Files written by `np.savez` are memory-mapped like a `.npy` file. Files written by `np.savez_compressed` are
    decompressed from the beginning up to the last requested frame, again by every source that opens them: store a set
    of many samples without compression.
    """

    @staticmethod
    def _probe(path: Path, part: str | None) -> VideoMetadata:
        return probe_npz(path, part=part)

    @staticmethod
    def _find(path: Path, part: str | None) -> _Array:
        return _in_archive(path, part)


def probe_npy(
    path: str | Path,
    *,
    part: str | None = None,
    files: Sequence[str] = (),
    verify: Verify = "decode",
    reading: ReadOptions = DEFAULT_READ_OPTIONS,
) -> VideoMetadata:
    """Return the metadata of a video in a `.npy` file; a file that is cut off keeps its whole frames.

    Raises SourceError if there is no video.
    """
    return _probe(ArraySource, "npy", Path(path), part, verify, reading)


def probe_npz(
    path: str | Path,
    *,
    part: str | None = None,
    files: Sequence[str] = (),
    verify: Verify = "decode",
    reading: ReadOptions = DEFAULT_READ_OPTIONS,
) -> VideoMetadata:
    """Return the metadata of a video in a `.npz` file.

    With verify="decode" a compressed array is decompressed once, for all its samples, to find where it breaks. Raises
    SourceError if there is no video.
    """
    return _probe(NpzSource, "npz", Path(path), part, verify, reading)


probe_array = probe_npy


def npy_parts(path: str | Path, reading: ReadOptions = DEFAULT_READ_OPTIONS) -> list[str]:
    """Return the parts of a `.npy` file that are samples: "[0]", "[1]" ..., or none if the whole file is one sample.

    Raises SourceError if it holds no video.
    """
    return [end for end in _ends(_in_file(Path(path), None), reading) if end]


def npz_parts(path: str | Path, reading: ReadOptions = DEFAULT_READ_OPTIONS) -> list[str]:
    """Return the parts of a `.npz` file that are samples, in the order of the archive: "/x", or "/x[0]", "/x[1]" ...

    Arrays that are not videos (labels, text, objects) are skipped. Raises SourceError if there are no others.
    """
    path = Path(path)
    parts, faults = list[str](), []
    for name in (names := _names(path)):
        try:
            member = _in_archive(path, name)
            if member.dtype.kind in "buif" and has_readings(member.shape, reading.axes):
                parts.append(name)  # a row of the manifest, whose error lists the possible axes
            else:
                parts += [name + end for end in _ends(member, reading)]
                reading.limits.check_samples(len(parts), where=path)
        except LimitError:
            raise
        except SourceError as error:
            faults.append(str(error))
    if not parts:
        first = f"; {faults[0]}" if faults else ""
        raise SourceError(f"{path}: none of its {len(names)} arrays is a video{first}")
    return parts


def _ends(array: _Array, reading: ReadOptions) -> list[str]:
    plane_type(array.dtype, where=array.where)
    axes = axes_of(array.shape, declared=reading.axes, where=array.where)
    return rows_of(array.shape, axes, limits=reading.limits, where=array.where)


def _probe(
    kind: type[ArraySource], container: str, path: Path, part: str | None, verify: Verify, reading: ReadOptions
) -> VideoMetadata:
    array = kind._find(path, part)
    plane_type(array.dtype, where=array.where)
    axes = axes_of(array.shape, declared=reading.axes, where=array.where)
    layout = array.layout(axes, split_part(part)[1])
    limits = reading.limits
    metadata = sample_metadata(array.shape, axes, array.dtype, container=container, where=array.where, limits=limits)
    if array.member is not None:
        check_unpacked(layout, limits, where=array.where)
    if array.member is not None and verify == "decode":
        metadata = unpacked_metadata(
            metadata,
            layout,
            path,
            array.member,
            promised=array.end,
            limits=limits,
            where=array.where,
            samples=array.samples(axes),
            number=split_part(part)[1] or 0,
        )
    else:
        metadata = broken_after(metadata, layout.whole(array.end), "the file is cut off", where=array.where)
    if reading.window != "percentiles":
        return metadata
    with kind(path, part=part, metadata=metadata) as source:
        return windowed(source, reading)


def _in_file(path: Path, part: str | None) -> _Array:
    """Return the array of a `.npy` file."""
    name, _ = split_part(part)
    if name:
        raise SourceError(
            f"{path}: part {part!r} was asked for, but the array of a .npy file has no name; its samples are '[0]' ..."
        )
    try:
        with path.open("rb") as file:
            header = _header(file)
            return _Array(str(path), *header, offset=file.tell(), end=file.seek(0, 2))
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error})") from error
    except _NO_HEADER as error:
        raise SourceError(f"{path}: is not a NumPy file that cinefeed can read ({error})") from error


def _in_archive(path: Path, part: str | None) -> _Array:
    """Return the array of a `.npz` file given by the part, or the only one that can be a video."""
    names = _names(path)
    name = split_part(part)[0]
    name = f"/{name.lstrip('/')}" if name else _only_video(path, names)
    if name not in names:
        raise SourceError(f"{path}: has no array {name!r}; {did_you_mean(name, names)}")
    where = f"{path}::{name}"
    try:
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo(names[name])
            with archive.open(info) as file:
                header = _header(file)
                header_end = file.tell()
        if info.compress_type != zipfile.ZIP_STORED:
            return _Array(where, *header, offset=header_end, end=info.file_size, member=info.filename)
        with path.open("rb") as file:
            file.seek(info.header_offset)
            lengths = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
            begin = file.tell() + sum(lengths)
            return _Array(where, *header, offset=begin + header_end, end=min(begin + info.file_size, file.seek(0, 2)))
    except OSError as error:
        raise SourceError(f"{where}: cannot be read ({error.strerror or error})") from error
    except (*_NO_ARCHIVE, *_NO_HEADER) as error:
        raise SourceError(f"{where}: is not an array that cinefeed can read ({error})") from error


def _names(path: Path) -> dict[str, str]:
    """Return the arrays of an archive by their names in parts: "/x" is the member "x.npy"."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {f"/{name[:-4]}": name for name in archive.namelist() if name.endswith(".npy")}
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error})") from error
    except _NO_ARCHIVE as error:
        raise SourceError(f"{path}: is not a .npz file, or it is cut off ({error})") from error


def _only_video(path: Path, names: dict[str, str]) -> str:
    candidates = []
    for name in names:
        try:
            array = _in_archive(path, name)
        except SourceError:
            continue
        if 3 <= len(array.shape) <= 5 and array.dtype.kind in "buif":
            candidates.append(name)
    if len(candidates) != 1:
        raise SourceError(
            f"{path}: has {len(candidates)} arrays that could be a video; select one by its part, as in "
            f"{path.name}::{(candidates or list(names) or ['/name'])[0]}; {did_you_mean('', names)}"
        )
    return candidates[0]


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"format version {version} has named fields, which a video cannot have")
    prefix = file.read(2 if version == (1, 0) else 4)
    length = int.from_bytes(prefix, "little")
    if length > _LONGEST_HEADER:
        raise ValueError(f"its header is {length} bytes long")
    return _parsed(version, prefix + file.read(length))


@lru_cache(maxsize=256)  # most files of a data set have the same header, and parsing one takes 30 us
def _parsed(version: tuple[int, int], header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    with _ONE_HEADER_AT_A_TIME:
        shape, fortran, dtype = read(io.BytesIO(header))
    return shape, fortran, dtype
