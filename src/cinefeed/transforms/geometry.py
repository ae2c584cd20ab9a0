"""Moves of the whole frame: rotate, shift, scale, shear, flip. Each is a matrix; neighbours become one interpolation.

All frames of a clip move alike. Matrices map (x, y, 1) in pixels of the target, corner-origin, x to the right, y down.
"""

import math
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from cinefeed.errors import SettingError, did_you_mean
from cinefeed.transforms.base import ClipInfo, Frames, Parameters
from cinefeed.transforms.drawing import Axis, Limits, RangeSpec, draw_length, one_length, probability
from cinefeed.transforms.warp import Matrix, invert, resample

_DEGREES = Limits("Rotate(degrees)")
_FACTOR = Limits("Scale(factor)", neutral=1.0, positive=True)
# At 45 degrees to both sides a shear is no map any more: all pixels fall on a line.
_SHEAR = Limits("Shear(degrees)", lowest=-44.0, highest=44.0)


def about_centre(linear: list[list[float]], *, height: int, width: int) -> Matrix:
    """Return the 3x3 map that applies a 2x2 one about the frame's centre.

    >>> about_centre([[-1.0, 0.0], [0.0, 1.0]], height=4, width=6).tolist()
    [[-1.0, 0.0, 6.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    (a, b), (c, d) = linear
    x, y = width / 2, height / 2
    return np.array([[a, b, x - a * x - b * y], [c, d, y - c * x - d * y], [0.0, 0.0, 1.0]])


def check_axis(kind: str, axis: object) -> None:
    """Raise SettingError where an axis is none."""
    if axis not in get_args(Axis):
        raise SettingError(f"{kind}(axis={axis!r}) is not a choice; {did_you_mean(str(axis), get_args(Axis))}")


class Affine:
    """What the geometric transforms share: alone, one interpolation, zeros where the frame has moved away."""

    __slots__ = ()

    def matrix(self, parameters: Parameters, *, height: int, width: int) -> Matrix:
        """Return the forward map."""
        raise NotImplementedError

    def apply(self, frames: Frames, parameters: Parameters, *, out: NDArray[Any] | None = None) -> Frames:
        """Return the frames moved by `parameters`, of the same shape and type."""
        result = np.empty(frames.shape, frames.dtype) if out is None else out
        forward = self.matrix(parameters, height=frames.shape[1], width=frames.shape[2])
        resample(list(frames), invert(forward), out=result)
        return result


@dataclass(frozen=True, kw_only=True, slots=True)
class Rotate(Affine):
    """Turn the clip about its centre by a random angle, in degrees, counter-clockwise where positive.

    `degrees` a draws from -a to a, a pair from its low to its high end. Large angles change the meaning of images with
    a fixed upright, such as digits or echo views.

    >>> Rotate(degrees=90).matrix({"degrees": 90.0}, height=2, width=4).round(6).tolist()
    [[0.0, 1.0, 1.0], [-1.0, 0.0, 3.0], [0.0, 0.0, 1.0]]
    """

    degrees: RangeSpec

    def __post_init__(self) -> None:
        _DEGREES.check(self.degrees)

    def sample(self, rng: np.random.Generator, info: ClipInfo) -> Parameters:
        """Draw the angle, in degrees."""
        return {"degrees": _DEGREES.draw(rng, self.degrees)}

    def identity(self, info: ClipInfo) -> Parameters:
        """Return no turn."""
        return {"degrees": 0.0}

    def matrix(self, parameters: Parameters, *, height: int, width: int) -> Matrix:
        """Return the rotation about the centre of the frame."""
        turn = math.radians(parameters["degrees"])
        cosine, sine = math.cos(turn), math.sin(turn)
        return about_centre([[cosine, sine], [-sine, cosine]], height=height, width=width)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shift(Affine):
    """Move the clip right and down by random distances, each drawn on its own.

    In pixels of the target frame, as a fraction of it, or in millimetres: one of the three. A number a draws from -a
    to a, a pair from its low to its high end. Millimetres need a row that tells the size of its pixels.

    >>> Shift(fraction=0.1).matrix({"right": 3.0, "down": -1.5}, height=10, width=10)[:2, 2].tolist()
    [3.0, -1.5]
    """

    pixels: RangeSpec | None = None
    fraction: RangeSpec | None = None
    mm: RangeSpec | None = None

    def __post_init__(self) -> None:
        one_length("Shift", self._settings())

    def _settings(self) -> dict[str, RangeSpec | None]:
        return {"pixels": self.pixels, "fraction": self.fraction, "mm": self.mm}

    def sample(self, rng: np.random.Generator, info: ClipInfo) -> Parameters:
        """Draw the distances, in pixels of the target frame."""
        right, down = (draw_length("Shift", self._settings(), rng, info, axis=axis) for axis in (1, 0))
        return {"right": right, "down": down}

    def identity(self, info: ClipInfo) -> Parameters:
        """Return no distance."""
        return {"right": 0.0, "down": 0.0}

    def matrix(self, parameters: Parameters, *, height: int, width: int) -> Matrix:
        """Return the translation."""
        return np.array([[1.0, 0.0, parameters["right"]], [0.0, 1.0, parameters["down"]], [0.0, 0.0, 1.0]])


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale(Affine):
    """Enlarge the clip about its centre by a random factor, or shrink it where the factor is below 1.

    `factor` a draws from 1 - a to 1 + a, a pair from its low to its high end. It changes what is measured in pixels,
    such as a diameter or a volume.

    >>> Scale(factor=0.1).matrix({"factor": 2.0}, height=4, width=6).tolist()
    [[2.0, 0.0, -3.0], [0.0, 2.0, -2.0], [0.0, 0.0, 1.0]]
    """

    factor: RangeSpec

    def __post_init__(self) -> None:
        _FACTOR.check(self.factor)

    def sample(self, rng: np.random.Generator, info: ClipInfo) -> Parameters:
        """Draw the factor."""
        return {"factor": _FACTOR.draw(rng, self.factor)}

    def identity(self, info: ClipInfo) -> Parameters:
        """Return a factor of 1."""
        return {"factor": 1.0}

    def matrix(self, parameters: Parameters, *, height: int, width: int) -> Matrix:
        """Return the enlargement about the centre of the frame."""
        factor = parameters["factor"]
        return about_centre([[factor, 0.0], [0.0, factor]], height=height, width=width)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shear(Affine):
    """Slant the clip about its centre by random angles, in degrees: "horizontal" moves rows, "vertical" columns.

    `degrees` a draws from -a to a, a pair from its low to its high end; with "both" each axis draws its own. Angles
    and shapes change, areas do not (with "both", a little).

    >>> Shear(degrees=10).matrix({"across": 0.0, "down": 0.0}, height=4, width=4).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """

    degrees: RangeSpec
    axis: Axis = "horizontal"

    def __post_init__(self) -> None:
        _SHEAR.check(self.degrees)
        check_axis("Shear", self.axis)

    def sample(self, rng: np.random.Generator, info: ClipInfo) -> Parameters:
        """Draw the angles, in degrees."""
        across, down = _SHEAR.draw(rng, self.degrees), _SHEAR.draw(rng, self.degrees)
        return {
            "across": across if self.axis != "vertical" else 0.0,
            "down": down if self.axis != "horizontal" else 0.0,
        }

    def identity(self, info: ClipInfo) -> Parameters:
        """Return no angle."""
        return {"across": 0.0, "down": 0.0}

    def matrix(self, parameters: Parameters, *, height: int, width: int) -> Matrix:
        """Return the slant about the centre of the frame."""
        across, down = (math.tan(math.radians(parameters[name])) for name in ("across", "down"))
        return about_centre([[1.0, across], [down, 1.0]], height=height, width=width)


@dataclass(frozen=True, kw_only=True, slots=True)
class Flip(Affine):
    """Mirror the clip: "horizontal" swaps left and right, "vertical" top and bottom, "both" draws each on its own.

    It changes the meaning wherever sides matter: text, traffic, and medical views, where a mirrored heart is a disease
    (dextrocardia), and a chiral view such as an apical four-chamber one becomes another.

    >>> Flip(axis="horizontal").apply(np.arange(3, dtype=np.uint8).reshape(1, 1, 3, 1),
    ...                               {"horizontal": True, "vertical": False}).ravel().tolist()
    [2, 1, 0]
    """

    axis: Axis = "horizontal"
    probability: float = 0.5

    def __post_init__(self) -> None:
        check_axis("Flip", self.axis)
        probability("Flip(probability)", self.probability)

    def sample(self, rng: np.random.Generator, info: ClipInfo) -> Parameters:
        """Draw whether each side is swapped."""
        across, down = bool(rng.random() < self.probability), bool(rng.random() < self.probability)
        return {"horizontal": across and self.axis != "vertical", "vertical": down and self.axis != "horizontal"}

    def identity(self, info: ClipInfo) -> Parameters:
        """Return no side swapped."""
        return {"horizontal": False, "vertical": False}

    def matrix(self, parameters: Parameters, *, height: int, width: int) -> Matrix:
        """Return the reflection about the centre of the frame."""
        across = -1.0 if parameters["horizontal"] else 1.0
        down = -1.0 if parameters["vertical"] else 1.0
        return about_centre([[across, 0.0], [0.0, down]], height=height, width=width)
