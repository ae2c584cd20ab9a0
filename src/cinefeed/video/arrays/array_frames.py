"""Plain numbers as frames: dtypes of planes, metadata, and a window by percentiles."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.errors import SourceError
from cinefeed.video.arrays.axes import checked_axes, kept_axes
from cinefeed.video.color import Colour, ColourModel
from cinefeed.video.limits import Deadline, ReadLimits
from cinefeed.video.metadata import VideoMetadata
from cinefeed.video.read_options import ReadOptions
from cinefeed.video.source import FrameSource, Source
from cinefeed.video.timestamps import FrameTimes
from cinefeed.video.value_range import has_open_scale

_PLANE_TYPES = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.float32))
_WINDOW_FRAMES = 32
_WINDOW_SAMPLES = 2**17  # per frame, evenly spaced: 4 million in total are enough for a percentile, and take 0.1 s


class ArrayFrames(FrameSource):
    """Base class of sources with one plane of plain numbers per frame."""

    @property
    def colour(self) -> Colour:
        """How the planes are converted to pixels."""
        metadata = self.metadata
        model: ColourModel = "grey" if metadata.channels == 1 else "rgb"
        return Colour(model=model, bits=metadata.bits, window=metadata.window, open_scale=has_open_scale(metadata))

    def _frame(self, number: int) -> tuple[NDArray[Any], ...]:
        return (as_plane(self._numbers(number)),)

    @abstractmethod
    def _numbers(self, number: int) -> NDArray[Any]:
        """Return a frame as stored, (height, width) or (height, width, 1 or 3), of any dtype of `plane_type`."""


class ArrayFile(ArrayFrames):
    """Base class of files of plain numbers; without `metadata` the file is probed."""

    def __init__(
        self,
        path: str | Path,
        *,
        channels: int | None = None,
        part: str | None = None,
        metadata: VideoMetadata | None = None,
    ) -> None:
        path = Path(path)
        super().__init__(path, metadata=metadata or self._probe(path, part), channels=channels)
        self._open(part)

    @staticmethod
    @abstractmethod
    def _probe(path: Path, part: str | None) -> VideoMetadata:
        """Return the metadata of the file."""

    @abstractmethod
    def _open(self, part: str | None) -> None:
        """Open the file, and compare it with the metadata."""


def plane_type(dtype: np.dtype[Any], *, where: object) -> np.dtype[Any]:
    """Return the dtype of a plane for numbers of `dtype`.

    uint8, uint16 and float32 are kept; bool becomes uint8, 0 and 255; every other integer or float dtype becomes
    float32, and integers beyond 2**24 are rounded. Raises SourceError for any other dtype.
    """
    if dtype.kind not in "buif":
        raise SourceError(f"{where}: has dtype {dtype}; integers or floats are needed (objects are never unpickled)")
    if dtype == np.bool_:
        return np.dtype(np.uint8)
    native = dtype.newbyteorder("=")
    return native if native in _PLANE_TYPES else np.dtype(np.float32)


def as_plane(frame: NDArray[Any]) -> NDArray[Any]:
    """Return a frame as a plane, (height, width) or (height, width, 3): a view if dtype and order allow it."""
    if frame.ndim == 3 and frame.shape[2] == 1:
        frame = frame[..., 0]
    if frame.dtype == np.bool_:
        return frame.astype(np.uint8) * np.uint8(255)
    return np.ascontiguousarray(frame, plane_type(frame.dtype, where="frame"))


def sample_metadata(
    shape: Sequence[int],
    axes: str,
    dtype: np.dtype[Any],
    *,
    container: str,
    where: object,
    whole: int | None = None,
    codec: str = "raw",
    scaled: bool = False,
    limits: ReadLimits | None = None,
) -> VideoMetadata:
    """Return the metadata of one sample of an array, of which the first `whole` frames can be read.

    Numbers that are `scaled` on reading are float32. Raises SourceError if no frame can be read, or a frame exceeds the
    limits.
    """
    plane = np.dtype(np.float32) if scaled else plane_type(dtype, where=where)
    sizes = dict(zip(axes, shape, strict=True))
    if limits is not None:
        frame_bytes = max(dtype.itemsize, plane.itemsize) * sizes["H"] * sizes["W"] * sizes.get("C", 1)
        limits.check_frame(frame_bytes, where=where)
    metadata = VideoMetadata(
        height=sizes["H"],
        width=sizes["W"],
        channels=sizes.get("C", 1),
        bits=8 * plane.itemsize,
        times=FrameTimes(0.0, float("nan"), sizes["T"]),
        container=container,
        codec=codec,
        pixel_format=str(dtype),
        header_frames=sizes["T"],
        axes=kept_axes(axes),
    )
    return metadata if whole is None else broken_after(metadata, whole, "the file is cut off", where=where)


def known_axes(metadata: VideoMetadata, shape: Sequence[int], dtype: np.dtype[Any], *, where: object) -> str:
    """Return the letters of an array's axes from its metadata. Raises SourceError if the array has changed."""
    axes = metadata.axes.upper() or "THWC"[: len(shape)]
    sizes = dict(zip(axes, shape, strict=False))
    actual = (len(shape), sizes.get("H"), sizes.get("W"), sizes.get("C", 1), str(dtype))
    if actual != (len(axes), metadata.height, metadata.width, metadata.channels, metadata.pixel_format):
        raise SourceError(
            f"{where}: has {dtype} of shape {tuple(shape)}, its metadata gives {metadata.pixel_format}, {axes}, of "
            f"{metadata.height} x {metadata.width}; scan it again"
        )
    return checked_axes(axes, shape, where=where)


def broken_after(metadata: VideoMetadata, whole: int, reason: str, *, where: object) -> VideoMetadata:
    """Return the metadata of a file that breaks after `whole` frames, unchanged if those are all.

    Raises SourceError if there is no whole frame.
    """
    count = metadata.times.count
    if whole >= count:
        return metadata
    if whole < 1:
        raise SourceError(f"{where}: 0 of {count} frames are whole: {reason}")
    times = metadata.times
    listed = None if times.listed is None else times.listed[:whole]
    return replace(
        metadata,
        times=FrameTimes(times.first_seconds, times.step_seconds, whole, listed),
        error=f"breaks after {whole} of {count} frames: {reason}",
    )


def windowed(source: FrameSource, reading: ReadOptions) -> VideoMetadata:
    """Return the metadata of an open source, with a window by percentiles if `reading` requests it."""
    if reading.window != "percentiles":
        return source.metadata
    return replace(source.metadata, window=percentile_window(source, deadline=reading.limits.deadline(source.path)))


def percentile_window(source: Source, *, deadline: Deadline) -> tuple[float, float] | None:
    """Return the 1st and the 99th percentile of up to 32 evenly spaced frames, None if no number is finite.

    Raises LimitError after the deadline.
    """
    count = len(source)
    some = []
    for number in np.unique(np.linspace(0, count - 1, min(count, _WINDOW_FRAMES)).round().astype(np.int64)):
        deadline.check()
        samples = source.planes([number]).frames[0][0].reshape(-1)
        some.append(samples[:: -(-samples.size // _WINDOW_SAMPLES)].copy())
    numbers = np.concatenate(some)
    finite = numbers[np.isfinite(numbers)]
    if finite.size == 0:
        return None
    black, white = np.percentile(finite, [1, 99])
    return float(black), float(white)
