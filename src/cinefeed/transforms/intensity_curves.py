"""Non-linear intensity transforms: gamma, window, clipping at percentiles, histogram equalisation.

Each is a function of the value alone, the same for all frames and channels, so that adjacent ones become one look-up
table (see `fuse`). Grey levels that are measurements, as in CT or quantitative MRI, lose their meaning.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.arguments import check_arguments
from cinefeed.core.errors import SettingError
from cinefeed.transforms.base import TOPS, ClipInfo, Frames, Levels, Parameters
from cinefeed.transforms.drawing import ParameterRange, RangeSpec
from cinefeed.transforms.lookup import look_up
from cinefeed.video.pixel_levels import SIZES, STEPS, PixelLevels

_GAMMA = ParameterRange("Gamma(gamma)", neutral=1.0, positive=True)
_LEVEL = ParameterRange("Window(level)", neutral=None)
_WIDTH = ParameterRange("Window(width)", neutral=None, positive=True)


class Curve:
    """Base class: uint8 frames are mapped by a table, others by the curve itself."""

    __slots__ = ()

    def curve(self, values: Frames, parameters: Parameters, levels: Levels) -> Frames:
        """Return the mapped values."""
        raise NotImplementedError

    def apply(self, frames: Frames, parameters: Parameters) -> Frames:
        """Return the mapped frames, with the same dtype."""
        levels = PixelLevels(frames)
        if frames.dtype != np.uint8:
            return self.curve(levels.pixels, parameters, levels)
        table = self.curve(np.arange(STEPS, dtype=np.uint8).reshape(1, 1, STEPS, 1), parameters, levels)
        result = np.empty(frames.shape, np.uint8)
        shape = (len(frames), math.prod(frames.shape[1:]))
        look_up(levels.pixels.reshape(shape), table.reshape(1, 1, STEPS), result.reshape(shape))
        return result


@check_arguments()
@dataclass(frozen=True, kw_only=True, slots=True)
class Gamma(Curve):
    """Raise the clip's brightness to a random power: below 1 dark parts become brighter, above 1 darker.

    `gamma=a` draws from 1 - a to 1 + a, `gamma=(low, high)` from low to high. Black and white stay the same. White is
    the largest number of the dtype, or, for float32, the maximum of the clip. A value below 0 is an error.

    >>> Gamma(gamma=0.2).apply(np.array([0, 64, 255], np.uint8).reshape(1, 1, 3, 1), {"gamma": 0.5}).ravel().tolist()
    [0, 128, 255]
    """

    gamma: RangeSpec

    def __post_init__(self) -> None:
        _GAMMA.check(self.gamma)

    def sample(self, rng: np.random.Generator, info: ClipInfo) -> Parameters:
        """Draw the power."""
        return {"gamma": _GAMMA.draw(rng, self.gamma)}

    def identity(self, info: ClipInfo) -> Parameters:
        """Return a power of 1."""
        return {"gamma": 1.0}

    def curve(self, values: Frames, parameters: Parameters, levels: Levels) -> Frames:
        """Return the values raised to the power."""
        _check_not_negative(self, levels)
        if parameters["gamma"] == 1.0:
            return values.copy()
        top = _white(values.dtype, levels)
        return _to_dtype(top * (values / np.float64(top)) ** parameters["gamma"], values.dtype)


@check_arguments()
@dataclass(frozen=True, kw_only=True, slots=True)
class Window(Curve):
    """Map a range of values to black to white, as in radiology viewers. Values outside become black or white.

    `level` is the middle of the range and `width` its length, in the values of the clip: each a fixed number, a pair
    (low, high) or a choice. White is the largest number of the dtype, and 1 for float32.

    >>> Window(level=100, width=50).apply(np.array([70, 100, 130], np.uint8).reshape(1, 1, 3, 1),
    ...                                   {"level": 100.0, "width": 50.0}).ravel().tolist()
    [0, 128, 255]
    """

    level: RangeSpec
    width: RangeSpec

    def __post_init__(self) -> None:
        _LEVEL.check(self.level)
        _WIDTH.check(self.width)

    def sample(self, rng: np.random.Generator, info: ClipInfo) -> Parameters:
        """Draw the level and the width; fixed numbers use no random number."""
        return {"level": _LEVEL.draw(rng, self.level), "width": _WIDTH.draw(rng, self.width)}

    def curve(self, values: Frames, parameters: Parameters, levels: Levels) -> Frames:
        """Return the values scaled from the window to black to white."""
        black, width = parameters["level"] - parameters["width"] / 2, parameters["width"]
        white = TOPS.get(values.dtype, math.inf)
        white = 1.0 if math.isinf(white) else white
        return _to_dtype(np.clip((values - np.float64(black)) / width, 0, 1) * white, values.dtype)


@check_arguments()
@dataclass(frozen=True, kw_only=True, slots=True)
class ClipPercentiles(Curve):
    """Clip the values of a clip to its percentiles `low` and `high`.

    The scale of a later Normalize then does not depend on one hot pixel or a bright text.

    >>> frames = np.array([0, 10, 20, 30, 250], np.uint8).reshape(1, 1, 5, 1)
    >>> ClipPercentiles(low=0, high=75).apply(frames, {}).ravel().tolist()
    [0, 10, 20, 30, 30]
    """

    low: float = 1.0
    high: float = 99.0

    def __post_init__(self) -> None:
        numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in (self.low, self.high))
        if not (numbers and 0 <= self.low < self.high <= 100):
            raise SettingError(f"ClipPercentiles(low={self.low!r}, high={self.high!r}) needs 0 <= low < high <= 100")

    def sample(self, rng: np.random.Generator, info: ClipInfo) -> Parameters:
        """Return an empty dict: the percentiles come from the clip."""
        return {}

    def curve(self, values: Frames, parameters: Parameters, levels: Levels) -> Frames:
        """Return the values clipped to the two percentiles."""
        low, high = levels.percentiles([self.low, self.high])
        return _to_dtype(np.clip(values, np.float64(low), np.float64(high)), values.dtype)


@check_arguments()
@dataclass(frozen=True, kw_only=True, slots=True)
class Equalize(Curve):
    """Equalise the histogram of the clip, clipped at `limit`.

    No level may count more than `limit` times the mean of all 256; the excess is distributed over all levels. A limit
    of 1 has no effect, 3 is mild, and a large one is full equalisation. It equals CLAHE (Zuiderveld, Graphics Gems
    IV, 1994) with the whole clip as one tile: tiles computed for each frame would make still tissue flicker.
    A value below 0 is an error.

    >>> frames = np.repeat(np.array([100, 101], np.uint8), 50).reshape(1, 10, 10, 1)
    >>> np.unique(Equalize(limit=1).apply(frames, {})).tolist()
    [100, 101]
    """

    limit: float = 3.0

    def __post_init__(self) -> None:
        if isinstance(self.limit, bool) or not isinstance(self.limit, int | float) or not 1 <= self.limit < math.inf:
            raise SettingError(f"Equalize(limit={self.limit!r}) must be a number of at least 1")

    def sample(self, rng: np.random.Generator, info: ClipInfo) -> Parameters:
        """Return an empty dict: the curve comes from the clip."""
        return {}

    def curve(self, values: Frames, parameters: Parameters, levels: Levels) -> Frames:
        """Return the values mapped by the cumulative sum of the clip's clipped histogram."""
        _check_not_negative(self, levels)
        top = float(levels.frame_max().max(initial=0.0))
        counts = levels.histogram(top).astype(np.float64)
        if self.limit == 1 or top <= 0 or counts.sum() == 0:
            return values.copy()
        clipped_counts = np.minimum(counts, self.limit * counts.mean())
        clipped_counts += (counts.sum() - clipped_counts.sum()) / STEPS
        # A level maps to the middle of its share, and black to black, so that an even histogram changes nothing.
        share = (np.cumsum(clipped_counts) - clipped_counts / 2) / clipped_counts.sum()
        share = (share - share[0]) / (share[-1] - share[0])
        at = np.clip(values * ((STEPS - 1) / np.float64(top)), 0, STEPS - 1)
        return _to_dtype(np.interp(at, np.arange(STEPS), share) * top, values.dtype)


def _check_not_negative(transform: Curve, levels: Levels) -> None:
    lowest = levels.lowest()
    if lowest < 0:
        raise SettingError(
            f"{transform!r} is defined for values from 0, and a clip has values down to {lowest:g}; set "
            "Frame(window=(black, white)), or put the transform before Normalize"
        )


def _white(dtype: np.dtype[Any], levels: Levels) -> float:
    """Return the value of white: the largest of the dtype, or, for float32, of the clip."""
    top = TOPS.get(dtype, math.inf)
    if math.isinf(top):
        top = float(levels.frame_max().max(initial=0.0))
    return top if top > 0 else 1.0


def _to_dtype(values: NDArray[np.float64], dtype: np.dtype[Any]) -> Frames:
    """Return values as `dtype`: clipped and rounded, halves up, if it holds whole numbers."""
    if dtype in SIZES:
        values = np.floor(np.clip(values, 0, TOPS[dtype]) + 0.5)
    return values.astype(dtype)
