"""What a transform is: it draws parameters once a clip, then applies them to all its frames."""

import inspect
import math
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from cinefeed.errors import SettingError

Frames = NDArray[Any]
Parameters = dict[str, Any]
Spread = float | tuple[float, float]


class ClipInfo(NamedTuple):
    """The clip that parameters are drawn for: the target's shape, before any pixel is read."""

    frames: int
    height: int
    width: int
    channels: int


@runtime_checkable
class Transform(Protocol):
    """One change of a clip, in two steps: draw the parameters, then apply them.

    `sample` returns plain data (numbers, text, lists: what JSON holds), so that a clip can be made again. `apply` is
    pure: it leaves its input alone and returns the same bytes for the same arguments. Frames are
    (frames, height, width, channels), uint8, uint16 or float32, and keep their shape.

    A transform may also have `output_dtype(dtype)`, where it changes the type, and take `out=` in `apply`, where it
    can write its result in place.
    """

    def sample(self, rng: np.random.Generator, info: ClipInfo) -> Parameters:
        """Return the parameters of one clip."""
        ...

    def apply(self, frames: Frames, parameters: Parameters) -> Frames:
        """Return the changed frames."""
        ...


@runtime_checkable
class Geometric(Transform, Protocol):
    """A transform that moves pixels by an affine map; neighbouring ones are fused into one interpolation."""

    def matrix(self, parameters: Parameters, *, height: int, width: int) -> NDArray[np.float64]:
        """Return the forward map on a frame of `height` x `width`, float64 (3, 3).

        It maps (x, y, 1) in pixels, where the corner of the first pixel is (0, 0) and its centre (0.5, 0.5).
        """
        ...


def output_dtype(transform: Transform, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type that a transform makes of frames of `dtype`: the same, unless it says otherwise."""
    change = getattr(transform, "output_dtype", None)
    return dtype if change is None else np.dtype(change(dtype))


def writes_in_place(transform: Transform) -> bool:
    """Return whether `apply` takes `out=`."""
    return "out" in inspect.signature(transform.apply).parameters


def is_random(transform: Transform) -> bool:
    """Return whether `sample` takes from the generator: only then may two clips of one video differ by it.

    >>> from cinefeed.transforms.geometry import Rotate
    >>> is_random(Rotate(degrees=25))
    True
    """
    rng = np.random.Generator(np.random.PCG64(0))
    before = rng.bit_generator.state
    transform.sample(rng, ClipInfo(frames=2, height=8, width=8, channels=1))
    return bool(rng.bit_generator.state != before)


def interval(
    name: str, spread: object, *, neutral: float = 0.0, lowest: float = -math.inf, positive: bool = False
) -> tuple[float, float]:
    """Return the lower and the upper end of what a setting is drawn from.

    A number is the distance from doing nothing, to both sides; a pair is the two ends themselves:

    Rotate(degrees=25)  -> -25 to 25       Rotate(degrees=(0, 25))   -> 0 to 25
    Scale(factor=0.1)   -> 0.9 to 1.1      Scale(factor=(0.5, 1.0))  -> 0.5 to 1.0

    Raises SettingError where it is neither, not finite, upside down, or below `lowest`.

    >>> interval("Scale(factor)", 0.25, neutral=1.0)
    (0.75, 1.25)
    """
    pair = isinstance(spread, tuple | list)
    values: list[Any] = list(spread) if isinstance(spread, tuple | list) else [spread]
    numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in values)
    if not numbers or len(values) != (2 if pair else 1) or not all(math.isfinite(each) for each in values):
        raise SettingError(
            f"{name}={spread!r} must be a number a, for {neutral:g} - a to {neutral:g} + a, or a pair (low, high)"
        )
    if not pair and values[0] < 0:
        raise SettingError(f"{name}={spread!r} must not be negative; for one side alone give a pair (low, high)")
    low, high = values if pair else (neutral - values[0], neutral + values[0])
    if low > high:
        raise SettingError(f"{name}={spread!r} has its ends the wrong way round; give (low, high)")
    if low < lowest or (positive and low <= 0):
        limit = "above 0" if positive else f"at {lowest:g} or more"
        raise SettingError(f"{name}={spread!r} reaches down to {low:g}; it must stay {limit}")
    return float(low), float(high)


def probability(name: str, value: object) -> float:
    """Return `value` where it lies within 0 and 1, else raise SettingError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise SettingError(f"{name}={value!r} must be a number from 0 to 1")
    return float(value)


def draw(rng: np.random.Generator, ends: tuple[float, float]) -> float:
    """Return a number drawn evenly between two ends."""
    return float(rng.uniform(*ends))
