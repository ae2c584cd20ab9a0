"""Moves of the whole frame: rotate, shift, scale, flip. Each is a matrix; neighbours become one interpolation.

All frames of a clip move alike. Matrices map (x, y, 1) in pixels of the target, corner-origin, x to the right, y down.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cinefeed.errors import SettingError, did_you_mean
from cinefeed.transforms.base import ClipInfo, Frames, Parameters, Spread, draw, interval, probability
from cinefeed.transforms.warp import Matrix, inverted, resample

Axis = Literal["horizontal", "vertical", "both"]


def about_centre(linear: list[list[float]], *, height: int, width: int) -> Matrix:
    """Return the 3x3 map that applies a 2x2 one about the frame's centre.

    >>> about_centre([[-1.0, 0.0], [0.0, 1.0]], height=4, width=6).tolist()
    [[-1.0, 0.0, 6.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    (a, b), (c, d) = linear
    x, y = width / 2, height / 2
    return np.array([[a, b, x - a * x - b * y], [c, d, y - c * x - d * y], [0.0, 0.0, 1.0]])


class _Geometry:
    """What the geometric transforms share: alone, one interpolation, zeros where the frame has moved away."""

    __slots__ = ()

    def matrix(self, parameters: Parameters, *, height: int, width: int) -> Matrix:
        raise NotImplementedError

    def apply(self, frames: Frames, parameters: Parameters, *, out: NDArray[Any] | None = None) -> Frames:
        """Return the frames moved by `parameters`, of the same shape and type."""
        moved = np.empty(frames.shape, frames.dtype) if out is None else out
        forward = self.matrix(parameters, height=frames.shape[1], width=frames.shape[2])
        resample(list(frames), inverted(forward), out=moved)
        return moved


@dataclass(frozen=True, kw_only=True, slots=True)
class Rotate(_Geometry):
    """Turn the clip about its centre by a random angle, in degrees, counter-clockwise where positive.

    `degrees` a draws from -a to a, a pair from its low to its high end. Large angles change the meaning of images with
    a fixed upright, such as digits or echo views.

    >>> Rotate(degrees=90).matrix({"degrees": 90.0}, height=2, width=4).round(6).tolist()
    [[0.0, 1.0, 1.0], [-1.0, 0.0, 3.0], [0.0, 0.0, 1.0]]
    """

    degrees: Spread

    def __post_init__(self) -> None:
        interval("Rotate(degrees)", self.degrees)

    def sample(self, rng: np.random.Generator, info: ClipInfo) -> Parameters:
        """Draw the angle, in degrees."""
        return {"degrees": draw(rng, interval("Rotate(degrees)", self.degrees))}

    def matrix(self, parameters: Parameters, *, height: int, width: int) -> Matrix:
        """Return the rotation about the centre of the frame."""
        turn = math.radians(parameters["degrees"])
        cosine, sine = math.cos(turn), math.sin(turn)
        return about_centre([[cosine, sine], [-sine, cosine]], height=height, width=width)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shift(_Geometry):
    """Move the clip right and down by random distances, each drawn on its own, in pixels or as a fraction of the frame.

    A number a draws from -a to a, a pair from its low to its high end. Pixels are those of the target frame.

    >>> Shift(fraction=0.1).matrix({"right": 3.0, "down": -1.5}, height=10, width=10)[:2, 2].tolist()
    [3.0, -1.5]
    """

    pixels: Spread | None = None
    fraction: Spread | None = None

    def __post_init__(self) -> None:
        if (self.pixels is None) == (self.fraction is None):
            raise SettingError(
                "Shift takes pixels or fraction, one of the two; as Shift(pixels=15), Shift(fraction=0.1)"
            )
        if self.pixels is not None:
            interval("Shift(pixels)", self.pixels)
        if self.fraction is not None:
            low, high = interval("Shift(fraction)", self.fraction)
            if max(-low, high) > 1:
                raise SettingError(f"Shift(fraction={self.fraction!r}) goes beyond the frame; give fractions up to 1")

    def sample(self, rng: np.random.Generator, info: ClipInfo) -> Parameters:
        """Draw the distances, in pixels of the target frame."""
        if self.pixels is not None:
            ends = interval("Shift(pixels)", self.pixels)
            return {"right": draw(rng, ends), "down": draw(rng, ends)}
        ends = interval("Shift(fraction)", self.fraction)
        return {"right": draw(rng, ends) * info.width, "down": draw(rng, ends) * info.height}

    def matrix(self, parameters: Parameters, *, height: int, width: int) -> Matrix:
        """Return the translation."""
        return np.array([[1.0, 0.0, parameters["right"]], [0.0, 1.0, parameters["down"]], [0.0, 0.0, 1.0]])


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale(_Geometry):
    """Enlarge the clip about its centre by a random factor, or shrink it where the factor is below 1.

    `factor` a draws from 1 - a to 1 + a, a pair from its low to its high end. It changes what is measured in pixels,
    such as a diameter or a volume.

    >>> Scale(factor=0.1).matrix({"factor": 2.0}, height=4, width=6).tolist()
    [[2.0, 0.0, -3.0], [0.0, 2.0, -2.0], [0.0, 0.0, 1.0]]
    """

    factor: Spread

    def __post_init__(self) -> None:
        interval("Scale(factor)", self.factor, neutral=1.0, positive=True)

    def sample(self, rng: np.random.Generator, info: ClipInfo) -> Parameters:
        """Draw the factor."""
        return {"factor": draw(rng, interval("Scale(factor)", self.factor, neutral=1.0, positive=True))}

    def matrix(self, parameters: Parameters, *, height: int, width: int) -> Matrix:
        """Return the enlargement about the centre of the frame."""
        factor = parameters["factor"]
        return about_centre([[factor, 0.0], [0.0, factor]], height=height, width=width)


@dataclass(frozen=True, kw_only=True, slots=True)
class Flip(_Geometry):
    """Mirror the clip: "horizontal" swaps left and right, "vertical" top and bottom, "both" draws each on its own.

    It changes the meaning wherever sides matter: text, traffic, and medical views, where a mirrored heart is a disease.

    >>> Flip(axis="horizontal").apply(np.arange(3, dtype=np.uint8).reshape(1, 1, 3, 1),
    ...                               {"horizontal": True, "vertical": False}).ravel().tolist()
    [2, 1, 0]
    """

    axis: Axis = "horizontal"
    probability: float = 0.5

    def __post_init__(self) -> None:
        if self.axis not in get_args(Axis):
            raise SettingError(
                f"Flip(axis={self.axis!r}) is not a choice; {did_you_mean(str(self.axis), get_args(Axis))}"
            )
        probability("Flip(probability)", self.probability)

    def sample(self, rng: np.random.Generator, info: ClipInfo) -> Parameters:
        """Draw whether each side is swapped."""
        across, down = bool(rng.random() < self.probability), bool(rng.random() < self.probability)
        return {"horizontal": across and self.axis != "vertical", "vertical": down and self.axis != "horizontal"}

    def matrix(self, parameters: Parameters, *, height: int, width: int) -> Matrix:
        """Return the reflection about the centre of the frame."""
        across = -1.0 if parameters["horizontal"] else 1.0
        down = -1.0 if parameters["vertical"] else 1.0
        return about_centre([[across, 0.0], [0.0, down]], height=height, width=width)
