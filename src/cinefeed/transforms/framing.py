"""Changes of the clip's size within its frame: random resized crop, pad, resize. Each is a matrix, as in geometry.

The frame keeps its size, which is set by cinefeed.Frame. Pixels outside the frame are cut off, missing ones are black.
"""

import math
from dataclasses import dataclass

import numpy as np

from cinefeed.core.arguments import check_arguments
from cinefeed.core.errors import SettingError
from cinefeed.transforms.base import ClipInfo, Parameters
from cinefeed.transforms.drawing import ParameterRange, RangeSpec, draw_length, one_length
from cinefeed.transforms.geometry import Affine, about_centre
from cinefeed.transforms.resample import Matrix

_AREA = ParameterRange("RandomResizedCrop(area)", neutral=None, positive=True, highest=1.0)
_ASPECT = ParameterRange("RandomResizedCrop(aspect)", neutral=None, positive=True)


@check_arguments()
@dataclass(frozen=True, kw_only=True, slots=True)
class RandomResizedCrop(Affine):
    """Enlarge a random part of the frame to the whole frame.

    `area` is the fraction of the frame's area to crop. `aspect` is the width of the crop divided by its height, both
    relative to the frame: 1 keeps shapes, 2 makes objects half as wide. Both are ranges or fixed numbers. Aspects are
    drawn uniformly in their logarithm, so that wide and high are equally likely. The crop may cut off the part that
    the label describes.

    >>> crop = RandomResizedCrop(area=(0.5, 1.0))
    >>> crop.matrix({"left": 2.0, "top": 0.0, "width": 4.0, "height": 8.0}, height=8, width=8).tolist()
    [[2.0, 0.0, -4.0], [0.0, 1.0, -0.0], [0.0, 0.0, 1.0]]
    """

    area: RangeSpec = (0.5, 1.0)
    aspect: RangeSpec = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        _AREA.check(self.area)
        _ASPECT.check(self.aspect)

    def sample(self, rng: np.random.Generator, info: ClipInfo) -> Parameters:
        """Draw the crop, in pixels of the target frame."""
        area = _AREA.draw(rng, self.area)
        if isinstance(self.aspect, tuple | list) and len(self.aspect) == 2:
            low, high = _ASPECT.ends(self.aspect)
            aspect = math.exp(float(rng.uniform(math.log(low), math.log(high))))
        else:
            aspect = _ASPECT.draw(rng, self.aspect)
        width = min(math.sqrt(area * aspect), 1.0) * info.width
        height = min(math.sqrt(area / aspect), 1.0) * info.height
        left, top = float(rng.random()) * (info.width - width), float(rng.random()) * (info.height - height)
        return {"left": left, "top": top, "width": width, "height": height}

    def identity(self, info: ClipInfo) -> Parameters:
        """Return a crop of the whole frame."""
        return {"left": 0.0, "top": 0.0, "width": float(info.width), "height": float(info.height)}

    def matrix(self, parameters: Parameters, *, height: int, width: int) -> Matrix:
        """Return the map from the crop to the whole frame."""
        across, down = width / parameters["width"], height / parameters["height"]
        return np.array(
            [[across, 0.0, -across * parameters["left"]], [0.0, down, -down * parameters["top"]], [0.0, 0.0, 1.0]]
        )


@check_arguments()
@dataclass(frozen=True, kw_only=True, slots=True)
class Pad(Affine):
    """Shrink the clip about its centre, with its aspect ratio, to leave a black margin around it.

    Give the margin as exactly one of `pixels` (of the target frame), `fraction` (of its shorter side) and `mm`: a
    number `a` draws from 0 to a, a pair (low, high) from low to high. Before a Rotate or Shift it keeps the corners
    inside the frame.

    >>> Pad(pixels=2).matrix({"margin": 2.0}, height=8, width=16).tolist()
    [[0.5, 0.0, 4.0], [0.0, 0.5, 2.0], [0.0, 0.0, 1.0]]
    """

    pixels: RangeSpec | None = None
    fraction: RangeSpec | None = None
    mm: RangeSpec | None = None

    def __post_init__(self) -> None:
        one_length("Pad", self._settings(), one_sided=True)
        if self.fraction is not None and ParameterRange("Pad(fraction)", one_sided=True).ends(self.fraction)[1] >= 0.5:
            raise SettingError(f"Pad(fraction={self.fraction!r}) leaves no image; give fractions below 0.5")

    def _settings(self) -> dict[str, RangeSpec | None]:
        return {"pixels": self.pixels, "fraction": self.fraction, "mm": self.mm}

    def sample(self, rng: np.random.Generator, info: ClipInfo) -> Parameters:
        """Draw the margin, in pixels of the target frame. Raises SettingError if it leaves no image."""
        axis = 0 if info.height <= info.width else 1
        margin = draw_length("Pad", self._settings(), rng, info, axis=axis, one_sided=True)
        if 2 * margin >= min(info.height, info.width):
            raise SettingError(
                f"{self!r} leaves no image of {info.height} x {info.width} pixels; give a smaller margin"
            )
        return {"margin": margin}

    def identity(self, info: ClipInfo) -> Parameters:
        """Return a margin of 0."""
        return {"margin": 0.0}

    def matrix(self, parameters: Parameters, *, height: int, width: int) -> Matrix:
        """Return the scaling about the centre of the frame."""
        scale = 1 - 2 * parameters["margin"] / min(height, width)
        return about_centre([[scale, 0.0], [0.0, scale]], height=height, width=width)


@check_arguments()
@dataclass(frozen=True, kw_only=True, slots=True)
class Resize(Affine):
    """Scale the clip to `height` x `width` pixels about the centre of the frame; the frame keeps its size.

    A size larger than the frame zooms in, a smaller one leaves a black margin, and another aspect ratio stretches.
    The output size is set by Frame. Resize is fused into the same interpolation.

    >>> Resize(height=4, width=16).matrix({}, height=8, width=8).tolist()
    [[2.0, 0.0, -4.0], [0.0, 0.5, 2.0], [0.0, 0.0, 1.0]]
    """

    height: int
    width: int

    def __post_init__(self) -> None:
        for name, size in (("height", self.height), ("width", self.width)):
            if type(size) is not int or size < 1:
                raise SettingError(f"Resize({name}={size!r}) must be a whole number of at least 1")

    def sample(self, rng: np.random.Generator, info: ClipInfo) -> Parameters:
        """Return an empty dict: nothing is random."""
        return {}

    def matrix(self, parameters: Parameters, *, height: int, width: int) -> Matrix:
        """Return the scaling about the centre of the frame."""
        return about_centre([[self.width / width, 0.0], [0.0, self.height / height]], height=height, width=width)
