"""Arrays that lie in a file as they would in memory: where each frame is, and how it is read without the others."""

import gzip
import lzma
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from cinefeed.errors import DecodeError, SourceError
from cinefeed.sources.base import Facts
from cinefeed.sources.limits import ReadLimits
from cinefeed.sources.plain import broken_after

# What the packages of the standard library raise where packed bytes are damaged.
BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
_BLOCK = 1 << 12  # small, so that little before a break is lost; 100 MB take 1.2 s, by 64 KB 1.0

_CHECKSUM = "its checksum does not fit"
_SKIP = 1 << 20  # on the way to a frame; seek() itself would hold 16 MB at a time


class Layout(NamedTuple):
    """Where the frames of one sample lie, in bytes."""

    first: int  # the first byte of frame 0
    step: int  # from a frame to the next
    count: int  # type: ignore[assignment]  # of frames; a tuple has a method of this name
    span: int  # from the first byte of a frame past its last; more than `step` where frames interleave
    shape: tuple[int, ...]  # of a frame, (height, width) or (height, width, channels)
    strides: tuple[int, ...]
    dtype: np.dtype[Any]

    def whole(self, end: int) -> int:
        """Return how many frames end within the first `end` bytes."""
        return max(min(self.count, (end - self.first - self.span) // self.step + 1), 0)

    def frame(self, data: Any, offset: int) -> NDArray[Any]:
        """Return the frame that begins at byte `offset` of `data`, as a view."""
        return np.ndarray(self.shape, self.dtype, data, offset, self.strides)


def layout_of(
    shape: Sequence[int], axes: str, dtype: np.dtype[Any], *, fortran: bool, offset: int, fixed: Mapping[str, int]
) -> Layout:
    """Return where the frames of a sample lie in an array that begins at byte `offset`.

    >>> layout = layout_of((4, 6, 8), "THW", np.dtype(np.uint8), fortran=False, offset=128, fixed={})
    >>> layout.first, layout.step, layout.span, layout.strides, layout.whole(128 + 100)
    (128, 48, 48, (8, 1), 2)
    """
    strides, step = {}, dtype.itemsize
    order = list(zip(axes, shape, strict=True))
    for axis, size in order if fortran else reversed(order):
        strides[axis] = step
        step *= size
    sizes = dict(order)
    kept = [axis for axis in "HWC" if axis in axes]
    return Layout(
        first=offset + sum(strides[axis] * index for axis, index in fixed.items()),
        step=strides["T"],
        count=sizes["T"],
        span=dtype.itemsize + sum(strides[axis] * (sizes[axis] - 1) for axis in kept),
        shape=tuple(sizes[axis] for axis in kept),
        strides=tuple(strides[axis] for axis in kept),
        dtype=dtype,
    )


class FrameReader(Protocol):
    """Reads frames by their numbers."""

    def read(self, number: int) -> NDArray[Any]:
        """Return a frame, (height, width) or (height, width, channels)."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


class MappedFrames:
    """Frames of a file that is mapped into memory: views, of which only what is looked at is read."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self._layout = layout
        self._bytes: NDArray[np.uint8] | None = np.memmap(path, np.uint8, mode="r")

    def read(self, number: int) -> NDArray[Any]:
        """Return a frame as a view into the file."""
        return self._layout.frame(self._bytes, self._layout.first + number * self._layout.step)

    def close(self) -> None:
        """Let go of the file; frames already handed over hold it until they are gone."""
        self._bytes = None


class UnpackedFrames:
    """Frames of a gzip file, or of a member of a zip file, decompressed as far as the last one asked for.

    Frames asked for in ascending order are one pass; an earlier one starts again from the beginning. Where frames
    interleave (time is no leading axis), all are decompressed at once, and kept until the source is closed.
    """

    def __init__(self, path: Path, member: str | None, layout: Layout) -> None:
        self._path = path
        self._member = member
        self._layout = layout
        self._file: BufferedReader | None = None
        self._all: bytes | None = None

    def read(self, number: int) -> NDArray[Any]:
        """Return a frame, decompressed. Raises DecodeError where the file breaks before its end."""
        layout = self._layout
        if layout.step >= layout.span:
            return layout.frame(self._cut(layout.first + number * layout.step, layout.span, number), 0)
        if self._all is None:
            self._all = self._cut(layout.first, layout.span + (layout.count - 1) * layout.step, layout.count - 1)
        return layout.frame(self._all, number * layout.step)

    def close(self) -> None:
        """Let go of the file."""
        file, self._file, self._all = self._file, None, None
        if file is not None:
            file.close()

    def _cut(self, offset: int, size: int, number: int) -> bytes:
        try:
            if self._file is None:
                self._file = open_packed(self._path, self._member)
            if self._file.tell() > offset:
                self._file.seek(0)
            while (skip := offset - self._file.tell()) > 0 and self._file.read(min(skip, _SKIP)):
                pass
            data = self._file.read(size)
        except BROKEN as error:
            self.close()  # what comes after a fault is not to be trusted
            raise DecodeError(f"{self._path}: frame {number} cannot be decompressed ({error})") from error
        if len(data) < size:
            raise DecodeError(f"{self._path}: breaks before the end of frame {number}")
        return data


def open_packed(path: Path, member: str | None) -> BufferedReader:
    """Open a gzip file, or a member of a zip file, for reading what was packed."""
    if member is None:
        return cast(BufferedReader, gzip.open(path))
    with zipfile.ZipFile(path) as archive:
        return cast(BufferedReader, archive.open(member))  # it holds the file open on its own


def check_unpacked(layout: Layout, limits: ReadLimits, *, where: object) -> None:
    """Raise SourceError if the frames of a packed file interleave, and are together more than may be in memory."""
    if layout.step < layout.span:
        size = layout.span + (layout.count - 1) * layout.step
        limits.check_unpacked(size, what="a packed array of which time is not the first axis", where=where)


def unpacked_facts(
    facts: Facts, layout: Layout, path: Path, member: str | None, *, promised: int, limits: ReadLimits, where: object
) -> Facts:
    """Return the facts of a sample in a packed file, with where it breaks: all of the file is decompressed.

    `promised` are the bytes that it should unpack to. The samples of one file share that pass: what it found is kept
    as long as size and date of the file stay. Raises SourceError where not one frame can be decompressed, or it takes
    longer than the limits allow.
    """
    stat = path.stat()
    end, fault = _unpacked(path, member, stat.st_size, stat.st_mtime_ns, limits)
    if isinstance(fault, SourceError):
        raise fault
    facts = broken_after(facts, layout.whole(end), fault or "the file is cut off", where=where)
    if fault is not None and facts.error is None and (_CHECKSUM in fault or end >= promised):
        return replace(facts, error=f"all {layout.count} frames can be read, but any may be wrong: {fault}")
    return facts


@lru_cache(maxsize=64)
def _unpacked(
    path: Path, member: str | None, _size: int, _mtime_ns: int, limits: ReadLimits
) -> tuple[int, str | SourceError | None]:
    """Return how many bytes can be decompressed, and what is wrong after them; the error where it takes too long."""
    done, deadline = 0, limits.deadline()
    try:
        with open_packed(path, member) as file:
            while block := file.read1(_BLOCK):  # read() would lose what came before a fault
                done += len(block)
                deadline.check(path)
    except SourceError as error:  # kept too, or every sample of the file would take as long
        return done, error
    except BROKEN as error:
        if done and isinstance(error, gzip.BadGzipFile) and "Not a gzipped" in str(error):
            return done, None  # what was appended to a whole file
        return done, f"{_CHECKSUM if 'CRC' in str(error) else 'it cannot be decompressed'} ({error})"
    return done, None
