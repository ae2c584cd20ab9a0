"""Statistics of a clip's values (maximum, mean, percentiles), before or after mapping by a look-up table.

Adjacent pointwise transforms become one table of 256 (or 65,536) entries: each is applied to the table in turn. The
statistics that a transform needs are computed from the counts of each value in the frames, counted once. So the table
gives the same bytes as one transform after the other.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cinefeed.core.compiled import compiled

STEPS = 256  # levels of `histogram`
SIZES: dict[np.dtype[Any], int] = {np.dtype(np.uint8): 256, np.dtype(np.uint16): 65536}  # entries of a table


class PixelLevels:
    """Statistics of frames, each computed on demand.

    >>> levels = PixelLevels(np.array([0, 10, 20, 40], np.uint8).reshape(2, 1, 2, 1))
    >>> levels.frame_max().tolist(), levels.mean_and_std()[0], levels.percentiles([50])
    ([10.0, 40.0], 17.5, [15.0])
    """

    def __init__(self, frames: NDArray[Any]) -> None:
        self.pixels = np.ascontiguousarray(frames)
        self.frames = len(frames)
        self._counts: NDArray[np.int64] | None = None

    def frame_max(self) -> NDArray[np.float64]:
        """Return the largest value of each frame, (frames,), at least 0."""
        if self.pixels.size == 0:
            return np.zeros(self.frames)
        return np.asarray(self.pixels.reshape(self.frames, -1).max(axis=1, initial=0), np.float64)

    def lowest(self) -> float:
        """Return the smallest value, at most 0."""
        return float(self.pixels.min(initial=0)) if self.pixels.dtype.kind == "f" else 0.0

    def mean_and_std(self) -> tuple[float, float]:
        """Return mean and standard deviation, by OpenCV: 0.07 ms for 25 x 150 x 150 bytes, NumPy took 1.4."""
        if self.pixels.size == 0:
            return 0.0, 0.0
        mean, std = cv2.meanStdDev(self.pixels.reshape(self.frames, -1))
        return float(mean[0, 0]), float(std[0, 0])

    def percentiles(self, percents: Sequence[float]) -> list[float]:
        """Return percentiles of the whole clip, interpolated as by NumPy."""
        if self.pixels.size == 0:
            return [0.0] * len(percents)
        if self.pixels.dtype not in SIZES:
            return [float(each) for each in np.percentile(self.pixels, percents)]
        counts = self.counts().sum(axis=0)
        return _percentiles(np.arange(len(counts), dtype=np.float64), counts, percents)

    def histogram(self, top: float) -> NDArray[np.int64]:
        """Return the number of pixels nearest to each of 256 levels from 0 to `top`."""
        if self.pixels.dtype in SIZES:
            counts = self.counts().sum(axis=0)
            return _rebin(np.arange(len(counts), dtype=np.float64), counts, top)
        return _rebin(self.pixels.reshape(-1), None, top)

    def counts(self) -> NDArray[np.int64]:
        """Return the counts of each value in each frame, (frames, 256); for uint16 in the clip, (1, 65536)."""
        if self._counts is None:
            size = SIZES[self.pixels.dtype]
            rows = self.frames if size == STEPS else 1
            self._counts = np.zeros((rows, size), np.int64)
            if self.pixels.size:
                count_values(self.pixels.reshape(rows, -1), self._counts)
        return self._counts


class TableLevels:
    """Statistics of frames after mapping each pixel by a table, (1 or frames, 1 or channels, entries)."""

    def __init__(self, pixels: PixelLevels, table: NDArray[Any]) -> None:
        self.frames = pixels.frames
        self._pixels = pixels
        self._table = table

    def frame_max(self) -> NDArray[np.float64]:
        """Return the largest value of each frame, (frames,)."""
        values = self._table.astype(np.float64)
        if values.shape[1] == 1 and (np.diff(values) >= 0).all():  # increasing: the maximum maps to the maximum
            largest = self._pixels.frame_max().astype(np.int64)
            return np.broadcast_to(values[:, 0], (self.frames, values.shape[2]))[np.arange(self.frames), largest]
        values, counts = self._values_and_counts(by_frame=True)
        return np.asarray(np.where(counts > 0, values, -np.inf).reshape(self.frames, -1).max(axis=1, initial=-np.inf))

    def lowest(self) -> float:
        """Return the smallest value of the clip, at most 0."""
        if self._table.dtype.kind != "f" or self._table.min() >= 0:
            return 0.0
        values, counts = self._values_and_counts()
        return float(np.where(counts > 0, values, 0.0).min())

    def mean_and_std(self) -> tuple[float, float]:
        """Return the mean and standard deviation of the clip, summed as by OpenCV."""
        values, counts = self._values_and_counts()
        total = counts.sum()
        if total == 0:
            return 0.0, 0.0
        mean, square = float((values * counts).sum() * (1 / total)), float((values**2 * counts).sum() * (1 / total))
        return mean, max(square - mean**2, 0.0) ** 0.5

    def percentiles(self, percents: Sequence[float]) -> list[float]:
        """Return percentiles of the whole clip, interpolated as by NumPy."""
        values, counts = self._values_and_counts()
        return _percentiles(values.reshape(-1), counts.reshape(-1), percents)

    def histogram(self, top: float) -> NDArray[np.int64]:
        """Return the number of pixels nearest to each of 256 levels from 0 to `top`."""
        values, counts = self._values_and_counts()
        return _rebin(values.reshape(-1), counts.reshape(-1), top)

    def _values_and_counts(self, *, by_frame: bool = False) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return the values and their counts, of one shape; summed over frames if the table is the same for all."""
        of_frames, channels, entries = self._table.shape
        if channels == 1:
            counts = self._pixels.counts()[:, None]
            if of_frames == 1 and not by_frame:
                counts = counts.sum(axis=0, keepdims=True)
        else:
            frames = self._pixels.pixels
            counts = np.stack([PixelLevels(frames[..., c]).counts() for c in range(channels)], axis=1)
        values = np.broadcast_to(self._table, (max(len(counts), len(self._table)), channels, entries))
        return values.astype(np.float64), np.broadcast_to(counts, values.shape)


def _percentiles(values: NDArray[np.float64], counts: NDArray[np.int64], percents: Sequence[float]) -> list[float]:
    total = int(counts.sum())
    if total == 0:
        return [0.0] * len(percents)
    order = np.argsort(values, kind="stable")
    values, below = values[order], np.cumsum(counts[order])
    places = np.asarray(percents, np.float64) / 100 * (total - 1)
    lower = np.floor(places)
    first, second = (
        values[np.searchsorted(below, at, side="right")] for at in (lower, np.minimum(lower + 1, total - 1))
    )
    return [float(each) for each in first + (places - lower) * (second - first)]


def _rebin(values: NDArray[Any], counts: NDArray[np.int64] | None, top: float) -> NDArray[np.int64]:
    levels = np.zeros(STEPS, np.int64)
    if values.size:
        at = np.clip(np.rint(values * ((STEPS - 1) / (top or 1.0))), 0, STEPS - 1).astype(np.int64)
        weights = None if counts is None else counts.astype(np.float64)
        levels[:] = np.bincount(at, weights=weights, minlength=STEPS)
    return levels


@compiled
def count_values(pixels: NDArray[Any], counts: NDArray[np.int64]) -> None:
    """Add the count of each value of `pixels` (frames, size) to `counts` (frames, 256 or 65,536).

    Eight partial counts in turn, because two increments of one counter in a row wait for each other: 0.3 against 1.4 ms
    for 16 x 112 x 112 x 3 black pixels, 0.22 against 0.4 for smooth images.
    """
    turns = np.empty((8, counts.shape[1]), np.int32)
    for f in range(pixels.shape[0]):
        values = pixels[f]
        turns[:] = 0
        whole = values.size // 8
        for k in range(whole):
            eight = values[8 * k : 8 * k + 8]
            for j in range(8):
                turns[j, eight[j]] += np.int32(1)
        for k in range(8 * whole, values.size):
            turns[0, values[k]] += np.int32(1)
        for k in range(counts.shape[1]):
            for j in range(8):
                counts[f, k] += turns[j, k]
