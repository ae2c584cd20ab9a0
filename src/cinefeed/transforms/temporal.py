"""Transforms of time: they select which frames of the video a clip shows, before any frame is read, at no cost.

In a feed, `indices` maps the clip's frame indices, and other frames are read. `apply` works on a clip alone and treats
it as the whole video. None of these is on by default: each changes the meaning of a clip, as its docstring describes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.arguments import check_arguments
from cinefeed.core.errors import SettingError
from cinefeed.transforms.base import ClipInfo, Frames, Parameters
from cinefeed.transforms.drawing import ParameterRange, RangeSpec, probability

Indices = NDArray[np.int64]

_SPEED = ParameterRange("Speed(factor)", neutral=1.0, positive=True)
_SHARE = ParameterRange("FrameDrop(share)", lowest=0.0, highest=1.0, one_sided=True)
_PHASE = ParameterRange("PhaseShift(fraction)", lowest=-1.0, highest=1.0)


class _InTime:
    """Base class of transforms of time: `apply` treats the clip as the whole video."""

    __slots__ = ()

    def indices(self, indices: Indices, parameters: Parameters, count: int) -> Indices:
        raise NotImplementedError

    def apply(self, frames: Frames, parameters: Parameters) -> Frames:
        """Return the clip with its frames reselected."""
        clip_indices = np.arange(len(frames), dtype=np.int64)
        return frames[self.indices(clip_indices, parameters, len(frames))] if len(frames) else frames.copy()


@check_arguments()
@dataclass(frozen=True, kw_only=True, slots=True)
class Speed(_InTime):
    """Play the clip faster by a random factor, or slower if it is below 1, about its middle frame.

    `factor=a` draws from 1 - a to 1 + a, `factor=(low, high)` from low to high. A clip that would leave the video is
    moved. If it is longer than the video, the largest factor that fits is used. Rates change, such as a heart rate or
    a walking speed, and so does any label that depends on them.

    F.F.F.F.F   factor 0.5 -> ..FFFFF..        factor 2, in a video of 9 -> unchanged: it already fills the video

    >>> Speed(factor=0.5).indices(np.arange(0, 10, 2), {"factor": 0.5}, 9).tolist()
    [2, 3, 4, 5, 6]
    """

    factor: RangeSpec

    def __post_init__(self) -> None:
        _SPEED.check(self.factor)

    def sample(self, rng: np.random.Generator, info: ClipInfo) -> Parameters:
        """Draw the factor."""
        return {"factor": _SPEED.draw(rng, self.factor)}

    def identity(self, info: ClipInfo) -> Parameters:
        """Return a factor of 1."""
        return {"factor": 1.0}

    def indices(self, indices: Indices, parameters: Parameters, count: int) -> Indices:
        """Return the frame indices at the new speed."""
        first, last = int(indices.min()), int(indices.max())
        span = last - first
        if span == 0 or parameters["factor"] == 1.0:
            return indices.copy()
        factor = min(parameters["factor"], (count - 1) / span)
        start = min(max((first + last - span * factor) / 2, 0.0), count - 1 - span * factor)
        places = np.floor(start + (indices - first) * factor + 0.5)
        return np.asarray(places.clip(0, count - 1), np.int64)


@check_arguments()
@dataclass(frozen=True, kw_only=True, slots=True)
class Reverse(_InTime):
    """Play the clip backwards with a probability.

    It changes the meaning if time has a direction: the filling and emptying of a heart, speech, falls.

    F1 F2 F3 -> F3 F2 F1

    >>> Reverse().indices(np.array([4, 6, 8]), {"reversed": True}, 9).tolist()
    [8, 6, 4]
    """

    probability: float = 0.5

    def __post_init__(self) -> None:
        probability("Reverse(probability)", self.probability)

    def sample(self, rng: np.random.Generator, info: ClipInfo) -> Parameters:
        """Draw whether the clip is reversed."""
        return {"reversed": bool(rng.random() < self.probability)}

    def identity(self, info: ClipInfo) -> Parameters:
        """Return that the clip is not reversed."""
        return {"reversed": False}

    def indices(self, indices: Indices, parameters: Parameters, count: int) -> Indices:
        """Return the frame indices, in reverse order if the clip is reversed."""
        return indices[::-1].copy() if parameters["reversed"] else indices.copy()


@check_arguments()
@dataclass(frozen=True, kw_only=True, slots=True)
class Jitter(_InTime):
    """Move each frame independently, up to `frames` earlier or later. The order of the frames is kept.

    It changes quantities that are measured between frames, such as a velocity.

    >>> Jitter(frames=1).indices(np.array([0, 2, 4]), {"moves": [-1, 1, 0]}, 9).tolist()
    [0, 3, 4]
    """

    frames: int

    def __post_init__(self) -> None:
        if type(self.frames) is not int or self.frames < 0:
            raise SettingError(f"Jitter(frames={self.frames!r}) must be a whole number of at least 0")

    def sample(self, rng: np.random.Generator, info: ClipInfo) -> Parameters:
        """Draw the move of each frame."""
        return {"moves": rng.integers(-self.frames, self.frames + 1, info.frames).tolist()}

    def identity(self, info: ClipInfo) -> Parameters:
        """Return moves of 0."""
        return {"moves": [0] * info.frames}

    def indices(self, indices: Indices, parameters: Parameters, count: int) -> Indices:
        """Return the moved frame indices, within the video."""
        moved_indices = (indices + np.array(parameters["moves"][: len(indices)], np.int64)).clip(0, count - 1)
        # Only if the clip runs forwards: a looped or reversed clip has another order.
        forwards = bool((np.diff(indices) >= 0).all())
        return np.maximum.accumulate(moved_indices) if forwards else moved_indices


@check_arguments()
@dataclass(frozen=True, kw_only=True, slots=True)
class FrameDrop(_InTime):
    """Drop random frames, each with the same probability, as on a bad connection. The previous frame is repeated.

    `share` is that probability, drawn once per clip: `share=a` draws from 0 to a, `share=(low, high)` from low to high.
    The first frame is never dropped. Short events may vanish.

    F0 F1 F2 F3, F2 lost -> F0 F1 F1 F3

    >>> FrameDrop(share=0.3).indices(np.array([0, 1, 2, 3]), {"lost": [False, False, True, False]}, 4).tolist()
    [0, 1, 1, 3]
    """

    share: RangeSpec

    def __post_init__(self) -> None:
        _SHARE.check(self.share)

    def sample(self, rng: np.random.Generator, info: ClipInfo) -> Parameters:
        """Draw the share, then which frames are dropped."""
        share = _SHARE.draw(rng, self.share)
        return {"lost": (rng.random(info.frames) < share).tolist()}

    def identity(self, info: ClipInfo) -> Parameters:
        """Return that no frame is dropped."""
        return {"lost": [False] * info.frames}

    def indices(self, indices: Indices, parameters: Parameters, count: int) -> Indices:
        """Return the frame indices, with each dropped frame replaced by the last one that was not dropped."""
        places = np.arange(len(indices))
        places[np.array(parameters["lost"][: len(indices)], np.bool_)] = 0
        return indices[np.maximum.accumulate(places)]


@check_arguments()
@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseShift(_InTime):
    """Start the cycle at another phase: move all frames by a random fraction of the video, wrapping around its end.

    For videos of exactly one cycle (or several), such as a gated cine of one heartbeat; other videos jump from the last
    frame to the first. `fraction=a` draws from -a to a of the video, `fraction=(low, high)` from low to high. It
    changes the meaning if a clip must start at a known phase, such as end-diastole.

    0 1 2 3, by a quarter -> 1 2 3 0

    >>> PhaseShift(fraction=0.5).indices(np.arange(4), {"fraction": 0.25}, 4).tolist()
    [1, 2, 3, 0]
    """

    fraction: RangeSpec

    def __post_init__(self) -> None:
        _PHASE.check(self.fraction)

    def sample(self, rng: np.random.Generator, info: ClipInfo) -> Parameters:
        """Draw the fraction."""
        return {"fraction": _PHASE.draw(rng, self.fraction)}

    def identity(self, info: ClipInfo) -> Parameters:
        """Return a fraction of 0."""
        return {"fraction": 0.0}

    def indices(self, indices: Indices, parameters: Parameters, count: int) -> Indices:
        """Return the moved frame indices, wrapped around the end of the video."""
        return (indices + int(np.floor(parameters["fraction"] * count + 0.5))) % count
