"""Affine transforms: rotate, shift, scale, shear, flip. Each is a matrix; adjacent ones become one interpolation.

All frames of a clip move the same way. Matrices map (x, y, 1) in pixels of the target, corner-origin, x to the right,
y down.
"""

import math
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.arguments import check_arguments
from cinefeed.core.errors import SettingError, did_you_mean
from cinefeed.transforms.base import ClipInfo, Frames, Parameters
from cinefeed.transforms.drawing import Axis, ParameterRange, RangeSpec, draw_length, one_length, probability
from cinefeed.transforms.resample import Matrix, invert, resample

_DEGREES = ParameterRange("Rotate(degrees)")
_FACTOR = ParameterRange("Scale(factor)", neutral=1.0, positive=True)
# A shear of 45 degrees along both axes has no inverse: all pixels fall on a line.
_SHEAR = ParameterRange("Shear(degrees)", lowest=-44.0, highest=44.0)


def about_centre(linear: list[list[float]], *, height: int, width: int) -> Matrix:
    """Return the 3 x 3 matrix that applies a 2 x 2 matrix about the centre of the frame.

    >>> about_centre([[-1.0, 0.0], [0.0, 1.0]], height=4, width=6).tolist()
    [[-1.0, 0.0, 6.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    (a, b), (c, d) = linear
    x, y = width / 2, height / 2
    return np.array([[a, b, x - a * x - b * y], [c, d, y - c * x - d * y], [0.0, 0.0, 1.0]])


def check_axis(kind: str, axis: object) -> None:
    """Raise SettingError if the axis is not "horizontal", "vertical" or "both"."""
    if axis not in get_args(Axis):
        raise SettingError(f"{kind}(axis={axis!r}) is not a choice; {did_you_mean(str(axis), get_args(Axis))}")


class Affine:
    """Base class of affine transforms: applied alone, one interpolation, zeros outside the frame."""

    __slots__ = ()

    def matrix(self, parameters: Parameters, *, height: int, width: int) -> Matrix:
        """Return the forward map."""
        raise NotImplementedError

    def apply(self, frames: Frames, parameters: Parameters, *, out: NDArray[Any] | None = None) -> Frames:
        """Return the moved frames, with the same shape and dtype."""
        result = np.empty(frames.shape, frames.dtype) if out is None else out
        forward = self.matrix(parameters, height=frames.shape[1], width=frames.shape[2])
        resample(list(frames), invert(forward), out=result)
        return result


@check_arguments()
@dataclass(frozen=True, kw_only=True, slots=True)
class Rotate(Affine):
    """Rotate the clip about its centre by a random angle in degrees. Positive angles are counter-clockwise.

    `degrees=a` draws from -a to a, `degrees=(low, high)` from low to high. Large angles change the meaning of images
    with a fixed orientation, such as digits or echo views.

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
        """Return an angle of 0."""
        return {"degrees": 0.0}

    def matrix(self, parameters: Parameters, *, height: int, width: int) -> Matrix:
        """Return the rotation about the centre of the frame."""
        turn = math.radians(parameters["degrees"])
        cosine, sine = math.cos(turn), math.sin(turn)
        return about_centre([[cosine, sine], [-sine, cosine]], height=height, width=width)


@check_arguments()
@dataclass(frozen=True, kw_only=True, slots=True)
class Shift(Affine):
    """Move the clip right and down by two independent random distances.

    Give exactly one of `pixels` (of the target frame), `fraction` (of its width and height) and `mm`: a number `a`
    draws from -a to a, a pair (low, high) from low to high. Millimetres need rows with a known pixel size.

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
        """Return distances of 0."""
        return {"right": 0.0, "down": 0.0}

    def matrix(self, parameters: Parameters, *, height: int, width: int) -> Matrix:
        """Return the translation."""
        return np.array([[1.0, 0.0, parameters["right"]], [0.0, 1.0, parameters["down"]], [0.0, 0.0, 1.0]])


@check_arguments()
@dataclass(frozen=True, kw_only=True, slots=True)
class Scale(Affine):
    """Scale the clip about its centre by a random factor. Factors below 1 shrink it.

    `factor=a` draws from 1 - a to 1 + a, `factor=(low, high)` from low to high. It changes quantities that are measured
    in pixels, such as a diameter or a volume.

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
        """Return the scaling about the centre of the frame."""
        factor = parameters["factor"]
        return about_centre([[factor, 0.0], [0.0, factor]], height=height, width=width)


@check_arguments()
@dataclass(frozen=True, kw_only=True, slots=True)
class Shear(Affine):
    """Shear the clip about its centre by random angles in degrees: "horizontal" moves rows, "vertical" columns.

    `degrees=a` draws from -a to a, `degrees=(low, high)` from low to high; "both" draws an angle for each axis. Angles
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
        """Return angles of 0."""
        return {"across": 0.0, "down": 0.0}

    def matrix(self, parameters: Parameters, *, height: int, width: int) -> Matrix:
        """Return the shear about the centre of the frame."""
        across, down = (math.tan(math.radians(parameters[name])) for name in ("across", "down"))
        return about_centre([[1.0, across], [down, 1.0]], height=height, width=width)


@check_arguments()
@dataclass(frozen=True, kw_only=True, slots=True)
class Flip(Affine):
    """Mirror the clip: "horizontal" swaps left and right, "vertical" top and bottom, "both" draws each separately.

    It changes the meaning if sides matter: in text, traffic, and medical views. A mirrored heart is a disease
    (dextrocardia), and a chiral view such as the apical four-chamber view becomes another view.

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
        """Return that no side is swapped."""
        return {"horizontal": False, "vertical": False}

    def matrix(self, parameters: Parameters, *, height: int, width: int) -> Matrix:
        """Return the reflection about the centre of the frame."""
        across = -1.0 if parameters["horizontal"] else 1.0
        down = -1.0 if parameters["vertical"] else 1.0
        return about_centre([[across, 0.0], [0.0, down]], height=height, width=width)
