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

from cinefeed.errors import DecodeError, LimitError
from cinefeed.sources.base import Facts, PixelValues
from cinefeed.sources.limits import ReadLimits
from cinefeed.sources.plain import as_plane, broken_after
from cinefeed.sources.values import ValueSampler, has_open_scale

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


class Samples(NamedTuple):
    """All samples of an array: where the first lies, and the bytes from one to the next."""

    first: Layout
    step: int
    count: int  # type: ignore[assignment]  # a tuple has a method of this name

    @property
    def apart(self) -> bool:
        """Whether no frame interleaves with another, of its own sample or of the next."""
        return self.first.step >= self.first.span and (self.count == 1 or self.step >= self.first.span)


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
    frame_axes = [axis for axis in "HWC" if axis in axes]
    return Layout(
        first=offset + sum(strides[axis] * index for axis, index in fixed.items()),
        step=strides["T"],
        count=sizes["T"],
        span=dtype.itemsize + sum(strides[axis] * (sizes[axis] - 1) for axis in frame_axes),
        shape=tuple(sizes[axis] for axis in frame_axes),
        strides=tuple(strides[axis] for axis in frame_axes),
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
        limits.check_unpacked(size, name="a packed array of which time is not the first axis", where=where)


def unpacked_facts(
    facts: Facts,
    layout: Layout,
    path: Path,
    member: str | None,
    *,
    promised: int,
    limits: ReadLimits,
    where: object,
    samples: Samples,
    number: int = 0,
    scale: tuple[float, float] = (1.0, 0.0),
) -> Facts:
    """Return the facts of a sample in a packed file, with where it breaks: all of the file is decompressed.

    `promised` are the bytes that it should unpack to, `number` is that of the sample among `samples`, `scale` the slope
    and intercept of its numbers. The samples of one file share that pass, in which their values are measured too: what
    it found is kept as long as size and date of the file stay. Raises SourceError where not one frame can be
    decompressed, LimitError where it takes longer than the limits allow.
    """
    stat = path.stat()
    measured = samples if has_open_scale(facts) and samples.apart else None
    end, fault, values = _unpacked(path, member, stat.st_size, stat.st_mtime_ns, measured, limits)
    if isinstance(fault, LimitError):
        raise fault
    if measured is not None:
        facts = replace(facts, values=_scaled(values[number], scale))
    facts = broken_after(facts, layout.whole(end), fault or "the file is cut off", where=where)
    if fault is not None and facts.error is None and (_CHECKSUM in fault or end >= promised):
        return replace(facts, error=f"all {layout.count} frames can be read, but any may be wrong: {fault}")
    return facts


def _scaled(values: PixelValues | None, scale: tuple[float, float]) -> PixelValues | None:
    if values is None:
        return None
    slope, intercept = scale
    least, most, low, high = (end * slope + intercept for end in values[:4])
    if slope < 0:
        least, most, low, high = most, least, high, low
    return PixelValues(least, most, low, high, values.nan_count, values.inf_count)


@lru_cache(maxsize=64)
def _unpacked(
    path: Path, member: str | None, _size: int, _mtime_ns: int, samples: Samples | None, limits: ReadLimits
) -> tuple[int, str | LimitError | None, list[PixelValues | None]]:
    """Return how many bytes can be decompressed, what is wrong after them, and the values of each sample."""
    unpacked_bytes, cutter = 0, None if samples is None else _FrameCutter(samples)
    deadline = limits.deadline(path)
    fault: str | LimitError | None = None
    try:
        with open_packed(path, member) as file:
            while block := file.read1(_BLOCK):  # read() would lose what came before a fault
                if cutter is not None:
                    cutter.add(unpacked_bytes, block)
                unpacked_bytes += len(block)
                deadline.check()
    except LimitError as error:  # kept too, or every sample of the file would take as long
        return unpacked_bytes, error, []
    except BROKEN as error:
        fault = f"{_CHECKSUM if 'CRC' in str(error) else 'it cannot be decompressed'} ({error})"
        if unpacked_bytes and isinstance(error, gzip.BadGzipFile) and "Not a gzipped" in str(error):
            fault = None  # what was appended to a whole file
    return unpacked_bytes, fault, [] if cutter is None else cutter.values()


class _FrameCutter:
    """Cuts the frames whose values are measured out of a stream of blocks, in the order in which they lie there."""

    def __init__(self, samples: Samples) -> None:
        self._layout = layout = samples.first
        self._samplers = [ValueSampler(layout.count) for _ in range(samples.count)]
        numbers = np.array(sorted(self._samplers[0].numbers))
        offsets = layout.first + numbers * layout.step + np.arange(samples.count)[:, np.newaxis] * samples.step
        order = np.argsort(offsets, axis=None)
        self._offsets = offsets.ravel()[order].tolist()
        self._places = [divmod(place, len(numbers)) for place in order.tolist()]
        self._numbers = numbers.tolist()
        self._next = 0
        self._buffer = bytearray()

    def add(self, start: int, block: bytes) -> None:
        """Take a block that begins at byte `start`."""
        span = self._layout.span
        while self._next < len(self._offsets):
            begin = self._offsets[self._next] + len(self._buffer) - start
            if begin >= len(block):
                return
            self._buffer += block[begin : begin + span - len(self._buffer)]
            if len(self._buffer) < span:
                return
            sample, number = self._places[self._next]
            self._samplers[sample].add(self._numbers[number], as_plane(self._layout.frame(bytes(self._buffer), 0)))
            self._next, self._buffer = self._next + 1, bytearray()

    def values(self) -> list[PixelValues | None]:
        """Return the values of each sample, as far as its frames came by."""
        return [sampler.values() for sampler in self._samplers]
