"""Value statistics of frames: range, non-finite values, and whether the numbers define black and white."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.errors import DecodeError
from cinefeed.video.ffmpeg.pixel_formats import plane_layout
from cinefeed.video.limits import Deadline
from cinefeed.video.metadata import PixelValues, VideoMetadata
from cinefeed.video.source import Source

_FRAMES = 16
_SAMPLES = 2**12  # per frame, evenly spaced: 65,000 in total are enough for the percentiles, and take 0.6 ms
_PLAIN_CONTAINERS = frozenset("npy npz hdf5 nifti images tiff memory".split())  # containers of plain numbers
_PERCENTS = (0.5, 99.5)


def has_open_scale(metadata: VideoMetadata) -> bool:
    """Return whether a file's numbers do not define black and white, so that a window is needed.

    This holds for floats, signed integers, and grey of more than 8 bits. 8 bits are displayed as they are; colour video
    of 10 or 12 bits has a standard range, and DICOM colours are defined.
    """
    if metadata.bits == 8:
        return False
    if metadata.member is not None and metadata.member.traits:
        return metadata.member.has_open_scale
    if metadata.container in _PLAIN_CONTAINERS or not metadata.pixel_format or metadata.pixel_format in np.sctypeDict:
        return True
    return (
        metadata.channels == 1 if metadata.container == "dicom" else plane_layout(metadata.pixel_format).model == "grey"
    )


class ValueSampler:
    """Collects the numbers of up to 16 of `count` frames, evenly spaced, in a pass; frame 0 may be excluded."""

    def __init__(self, count: int, *, first: int = 0) -> None:
        self.numbers: frozenset[int] = frozenset(spread_frames(count, first=min(first, count - 1)))
        self._low, self._high = np.inf, -np.inf
        self._some: list[NDArray[Any]] = []
        self._nan = self._inf = 0

    def add(self, number: int, plane: NDArray[Any]) -> None:
        """Add a frame, if it is one of the selected frames."""
        if number not in self.numbers:
            return
        flat = plane.reshape(-1)
        low, high = float(flat.min()), float(flat.max())  # NaN if any value is
        some = flat[:: -(-flat.size // _SAMPLES)]
        if not (np.isfinite(low) and np.isfinite(high)):
            finite = flat[np.isfinite(flat)]
            nan = int(np.isnan(flat).sum())
            self._nan, self._inf = self._nan + nan, self._inf + flat.size - finite.size - nan
            low, high = float(finite.min(initial=np.inf)), float(finite.max(initial=-np.inf))
            some = finite[:: max(-(-finite.size // _SAMPLES), 1)]
        self._low, self._high = min(self._low, low), max(self._high, high)
        self._some.append(some.copy())

    def values(self) -> PixelValues | None:
        """Return the statistics; None if no frame was added."""
        if not self._some:
            return None
        some = np.concatenate(self._some)
        low, high = np.percentile(some, _PERCENTS).tolist() if some.size else (np.nan, np.nan)
        least, most = (self._low, self._high) if some.size else (np.nan, np.nan)
        return PixelValues(least, most, low, high, self._nan, self._inf)


def decode_through(
    source: Source, *, deadline: Deadline, first: int = 0
) -> tuple[int, DecodeError | None, PixelValues | None]:
    """Decode all frames of a source from `first` on, one by one.

    Return the number of frames before the first that cannot be read, its error, and the values of some frames if their
    scale is open. Raises LimitError after the deadline.
    """
    sampler = ValueSampler(len(source), first=first) if has_open_scale(source.metadata) else None
    for number in range(first, len(source)):
        deadline.check()
        try:
            planes = source.planes([number])
        except DecodeError as error:
            return number, error, None if sampler is None else sampler.values()
        if sampler is not None:
            sampler.add(number, planes.frames[0][0])
    return len(source), None, None if sampler is None else sampler.values()


def spread_frames(count: int, *, first: int = 0) -> list[int]:
    """Return the numbers of up to 16 evenly spaced frames.

    >>> spread_frames(40)
    [0, 3, 5, 8, 10, 13, 16, 18, 21, 23, 26, 29, 31, 34, 36, 39]
    """
    numbers = np.linspace(first, count - 1, min(count - first, _FRAMES))
    return [int(number) for number in np.unique(numbers.round())]


def measured(source: Source, *, deadline: Deadline) -> VideoMetadata:
    """Return the metadata of an open source, with the values of up to 16 of its frames.

    Raises LimitError after the deadline.
    """
    sampler = ValueSampler(len(source))
    for number in sorted(sampler.numbers):  # one by one: memory for one frame only
        deadline.check()
        sampler.add(number, source.planes([number]).frames[0][0])
    return replace(source.metadata, values=sampler.values())


def suggest_window(values: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    """Return a window that clips at most a hundredth of the pixels of any file, from the low and high of each.

    >>> suggest_window([(12.2, 980.0), (40.0, 1015.1)]), suggest_window([(0.0049, 0.9951)]), suggest_window([])
    ((12.0, 1016.0), (0.0049, 0.9951), None)
    """
    ranges = [each for each in values if np.isfinite(each).all()]
    if not ranges:
        return None
    low, high = min(each[0] for each in ranges), max(each[1] for each in ranges)
    if high <= low:
        return low, low + 1.0
    # Rounded to a thousandth of its width or finer: readable numbers, and integers if the values are large.
    digits = 3 - int(np.floor(np.log10(high - low)))
    step = 10.0**-digits
    return round(float(np.floor(low / step + 1e-6)) * step, digits), round(
        float(np.ceil(high / step - 1e-6)) * step, digits
    )
