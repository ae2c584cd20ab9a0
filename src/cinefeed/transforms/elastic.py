"""Elastic deformation by a smooth displacement field that is the same for all frames."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.arguments import check_arguments
from cinefeed.core.compiled import compiled
from cinefeed.core.errors import SettingError
from cinefeed.transforms.base import ClipInfo, Frames, Parameters
from cinefeed.transforms.drawing import RangeSpec, draw_length, one_length
from cinefeed.transforms.field import pixel_centres, resample_at


@check_arguments()
@dataclass(frozen=True, kw_only=True, slots=True)
class Elastic:
    """Deform the clip by a smooth random field: a spline through a grid of `points` x `points` displacements.

    The length is the largest displacement of a grid point along each axis. Give exactly one of `pixels` (of the target
    frame), `fraction` (of its height) and `mm`: a number `a` draws the length from 0 to a, a pair (low, high) from low
    to high. More points make smaller waves. A length below a third of the grid step, frame / (points - 1), makes no
    folds. It is fused with adjacent affine transforms into one interpolation. The method follows Simard, Steinkraus and
    Platt (ICDAR 2003), with a coarse grid in place of their filtered noise. Shapes, lengths and areas change.

    >>> elastic = Elastic(pixels=3)
    >>> parameters = elastic.sample(np.random.default_rng(0), ClipInfo(4, 32, 32, 1))
    >>> max(abs(each) for line in parameters["across"] for each in line) <= 3
    True
    """

    pixels: RangeSpec | None = None
    fraction: RangeSpec | None = None
    mm: RangeSpec | None = None
    points: int = 4

    def __post_init__(self) -> None:
        one_length("Elastic", self._settings(), one_sided=True)
        if type(self.points) is not int or not 2 <= self.points <= 32:
            raise SettingError(f"Elastic(points={self.points!r}) must be a whole number from 2 to 32")

    def _settings(self) -> dict[str, RangeSpec | None]:
        return {"pixels": self.pixels, "fraction": self.fraction, "mm": self.mm}

    def sample(self, rng: np.random.Generator, info: ClipInfo) -> Parameters:
        """Draw the displacements of the grid points, in pixels of the target frame."""
        length = draw_length("Elastic", self._settings(), rng, info, axis=0, one_sided=True)
        across, down = rng.uniform(-length, length, (2, self.points, self.points))
        return {"across": across.tolist(), "down": down.tolist()}

    def identity(self, info: ClipInfo) -> Parameters:
        """Return displacements of 0."""
        still = [[0.0] * self.points] * self.points
        return {"across": still, "down": still}

    def source_points(
        self, points: NDArray[np.float64], parameters: Parameters, *, height: int, width: int
    ) -> NDArray[np.float64]:
        """Return the points displaced by the field: the source points of the target points."""
        grids = np.array([parameters["across"], parameters["down"]], np.float64)
        result = np.empty(points.shape)
        flat = np.ascontiguousarray(points, np.float64).reshape(2, -1)
        add_field(grids, flat, float(width), float(height), result.reshape(2, -1))
        return result

    def apply(self, frames: Frames, parameters: Parameters, *, out: NDArray[Any] | None = None) -> Frames:
        """Return the deformed frames, with the same shape and dtype."""
        result = np.empty(frames.shape, frames.dtype) if out is None else out
        height, width = frames.shape[1:3]
        points = self.source_points(pixel_centres(height, width), parameters, height=height, width=width)
        resample_at(list(frames), np.eye(3), points, out=result)
        return result


@compiled
def add_field(
    grids: NDArray[np.float64], points: NDArray[np.float64], width: float, height: float, out: NDArray[np.float64]
) -> None:
    """Write `points` (2, count) displaced by a smooth field into `out`: 0.4 ms for 112 x 112 points; NumPy took 8.

    `grids` (2, rows, columns) are displacements across and down at grid points that span the frame. They are
    interpolated by a Catmull-Rom spline along each axis; beyond the rim, the grid is repeated.
    """
    rows, columns = grids.shape[1:]
    weights = np.empty((2, 4))
    for k in range(points.shape[1]):
        x = min(max(points[0, k] / width, 0.0), 1.0) * (columns - 1)
        y = min(max(points[1, k] / height, 0.0), 1.0) * (rows - 1)
        column, row = int(x), int(y)
        for axis in range(2):
            t = x - column if axis == 0 else y - row
            weights[axis, 0] = ((2.0 - t) * t - 1.0) * t / 2
            weights[axis, 1] = ((3.0 * t - 5.0) * t * t + 2.0) / 2
            weights[axis, 2] = ((4.0 - 3.0 * t) * t + 1.0) * t / 2
            weights[axis, 3] = (t - 1.0) * t * t / 2
        across, down = 0.0, 0.0
        for i in range(4):
            from_row = min(max(row + i - 1, 0), rows - 1)
            for j in range(4):
                weight = weights[1, i] * weights[0, j]
                from_column = min(max(column + j - 1, 0), columns - 1)
                across += weight * grids[0, from_row, from_column]
                down += weight * grids[1, from_row, from_column]
        out[0, k] = points[0, k] + across
        out[1, k] = points[1, k] + down
