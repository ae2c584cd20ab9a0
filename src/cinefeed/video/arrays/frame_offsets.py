"""Arrays stored in a file as in memory: position of each frame, and reading of single frames."""

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

from cinefeed.core.errors import DecodeError, LimitError, SourceError
from cinefeed.video.arrays.array_frames import as_plane, broken_after
from cinefeed.video.limits import ReadLimits
from cinefeed.video.metadata import PixelValues, VideoMetadata
from cinefeed.video.value_range import ValueSampler, has_open_scale

# Errors that the standard library raises for damaged packed bytes.
BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
_BLOCK = 1 << 12  # small, to lose little before a break; 100 MB take 1.2 s, with 64 KB 1.0

_CHECKSUM = "its checksum does not match"
_SKIP = 1 << 20  # block size for skipping to a frame; seek() would allocate 16 MB


class FrameLayout(NamedTuple):
    """Positions of the frames of one sample, in bytes."""

    first: int  # the first byte of frame 0
    step: int  # from a frame to the next
    count: int  # type: ignore[assignment]  # of frames; a tuple has a method of this name
    span: int  # size from the first to the last byte of a frame; more than `step` if frames interleave
    shape: tuple[int, ...]  # of a frame, (height, width) or (height, width, channels)
    strides: tuple[int, ...]
    dtype: np.dtype[Any]

    def whole(self, end: int) -> int:
        """Return the number of frames that end within the first `end` bytes."""
        return max(min(self.count, (end - self.first - self.span) // self.step + 1), 0)

    def frame(self, data: Any, offset: int) -> NDArray[Any]:
        """Return the frame that begins at byte `offset` of `data`, as a view."""
        return np.ndarray(self.shape, self.dtype, data, offset, self.strides)


class Samples(NamedTuple):
    """All samples of an array: layout of the first, and the bytes between samples."""

    first: FrameLayout
    step: int
    count: int  # type: ignore[assignment]  # a tuple has a method of this name

    @property
    def apart(self) -> bool:
        """Whether frames do not interleave, within a sample and between samples."""
        return self.first.step >= self.first.span and (self.count == 1 or self.step >= self.first.span)


def frame_layout(
    shape: Sequence[int], axes: str, dtype: np.dtype[Any], *, fortran: bool, offset: int, fixed: Mapping[str, int]
) -> FrameLayout:
    """Return the layout of the frames of a sample in an array that begins at byte `offset`.

    >>> layout = frame_layout((4, 6, 8), "THW", np.dtype(np.uint8), fortran=False, offset=128, fixed={})
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
    return FrameLayout(
        first=offset + sum(strides[axis] * index for axis, index in fixed.items()),
        step=strides["T"],
        count=sizes["T"],
        span=dtype.itemsize + sum(strides[axis] * (sizes[axis] - 1) for axis in frame_axes),
        shape=tuple(sizes[axis] for axis in frame_axes),
        strides=tuple(strides[axis] for axis in frame_axes),
        dtype=dtype,
    )


def check_count(count: int, available: int, *, where: object) -> None:
    """Raise SourceError if a file has fewer frames than its metadata, `count`."""
    if count > available:
        raise SourceError(f"{where}: its metadata has {count} frames, the file has {available}; scan it again")


def first_frames(layout: FrameLayout, count: int, *, end: int, where: object) -> FrameLayout:
    """Return the layout of the first `count` frames. Raises SourceError if fewer lie before byte `end`."""
    check_count(count, layout.whole(end), where=where)
    return layout._replace(count=count)


class FrameReader(Protocol):
    """Reads frames by their numbers."""

    def read(self, number: int) -> NDArray[Any]:
        """Return a frame, (height, width) or (height, width, channels)."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class MappedFrames:
    """Frames of a memory-mapped file: views, which are read from disk only when accessed."""

    def __init__(self, path: Path, layout: FrameLayout) -> None:
        self._layout = layout
        self._bytes: NDArray[np.uint8] | None = np.memmap(path, np.uint8, mode="r")

    def read(self, number: int) -> NDArray[Any]:
        """Return a frame as a view into the file."""
        return self._layout.frame(self._bytes, self._layout.first + number * self._layout.step)

    def close(self) -> None:
        """Close the file; frames that were returned keep it open until they are deleted."""
        self._bytes = None


class UnpackedFrames:
    """Frames of a gzip file, or of a member of a zip file, decompressed up to the last requested frame.

    Frames requested in ascending order take one pass; an earlier frame restarts from the beginning. If frames
    interleave (time is not the first axis), all are decompressed at once, and kept until the source is closed.
    """

    def __init__(self, path: Path, member: str | None, layout: FrameLayout) -> None:
        self._path = path
        self._member = member
        self._layout = layout
        self._file: BufferedReader | None = None
        self._all: bytes | None = None

    def read(self, number: int) -> NDArray[Any]:
        """Return a frame, decompressed. Raises DecodeError if the file breaks before the end of the frame."""
        layout = self._layout
        if layout.step >= layout.span:
            return layout.frame(self._cut(layout.first + number * layout.step, layout.span, number), 0)
        if self._all is None:
            self._all = self._cut(layout.first, layout.span + (layout.count - 1) * layout.step, layout.count - 1)
        return layout.frame(self._all, number * layout.step)

    def close(self) -> None:
        """Close the file."""
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
            self.close()  # data after a fault cannot be trusted
            raise DecodeError(f"{self._path}: frame {number} cannot be decompressed ({error})") from error
        if len(data) < size:
            raise DecodeError(f"{self._path}: breaks before the end of frame {number}")
        return data


def open_packed(path: Path, member: str | None) -> BufferedReader:
    """Open a gzip file, or a member of a zip file, for reading unpacked bytes."""
    if member is None:
        return cast(BufferedReader, gzip.open(path))
    with zipfile.ZipFile(path) as archive:
        return cast(BufferedReader, archive.open(member))  # keeps its own handle of the file


def check_unpacked(layout: FrameLayout, limits: ReadLimits, *, where: object) -> None:
    """Raise LimitError if the frames of a packed file interleave and together exceed the limit for memory."""
    if layout.step < layout.span:
        size = layout.span + (layout.count - 1) * layout.step
        limits.check_unpacked(size, name="a packed array in which time is not the first axis", where=where)


def unpacked_metadata(
    metadata: VideoMetadata,
    layout: FrameLayout,
    path: Path,
    member: str | None,
    *,
    promised: int,
    limits: ReadLimits,
    where: object,
    samples: Samples,
    number: int = 0,
    scale: tuple[float, float] = (1.0, 0.0),
) -> VideoMetadata:
    """Return the metadata of a sample in a packed file, including where it breaks; the whole file is decompressed.

    `promised` is the number of bytes that it should unpack to, `number` the index of the sample among `samples`,
    `scale` the slope and intercept of its numbers. All samples of a file share one pass, which also measures their
    values; the result is cached while size and date of the file do not change. Raises SourceError if no frame can be
    decompressed, LimitError if it takes longer than the limits allow.
    """
    stat = path.stat()
    measured = samples if has_open_scale(metadata) and samples.apart else None
    end, fault, values = _unpacked(path, member, stat.st_size, stat.st_mtime_ns, measured, limits)
    if isinstance(fault, LimitError):
        raise fault
    if measured is not None:
        metadata = replace(metadata, values=_scaled(values[number], scale))
    metadata = broken_after(metadata, layout.whole(end), fault or "the file is cut off", where=where)
    if fault is not None and metadata.error is None and (_CHECKSUM in fault or end >= promised):
        return replace(metadata, error=f"all {layout.count} frames can be read, but any may be wrong: {fault}")
    return metadata


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
    """Return the number of bytes that can be decompressed, the fault after them, and the values of each sample."""
    unpacked_bytes, cutter = 0, None if samples is None else _FrameCutter(samples)
    deadline = limits.deadline(path)
    fault: str | LimitError | None = None
    try:
        with open_packed(path, member) as file:
            while block := file.read1(_BLOCK):  # read() would lose the bytes before a fault
                if cutter is not None:
                    cutter.add(unpacked_bytes, block)
                unpacked_bytes += len(block)
                deadline.check()
    except LimitError as error:  # cached too, else every sample of the file would take as long
        return unpacked_bytes, error, []
    except BROKEN as error:
        fault = f"{_CHECKSUM if 'CRC' in str(error) else 'it cannot be decompressed'} ({error})"
        if unpacked_bytes and isinstance(error, gzip.BadGzipFile) and "Not a gzipped" in str(error):
            fault = None  # bytes appended to a complete file
    return unpacked_bytes, fault, [] if cutter is None else cutter.values()


class _FrameCutter:
    """Extracts the frames whose values are measured from a stream of blocks, in storage order."""

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
        """Process a block that begins at byte `start`."""
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
        """Return the values of each sample, from the frames processed so far."""
        return [sampler.values() for sampler in self._samplers]
