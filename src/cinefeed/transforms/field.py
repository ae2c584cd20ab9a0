"""Interpolation at arbitrary points, for maps that are not affine; `resample.resample` does the same for matrices."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cinefeed.transforms.resample import (
    _TOLERANCE,
    Blocks,
    Lanes,
    Matrix,
    blend_into,
    make_lanes,
    pack_rows,
    shrink_factors,
)


def pixel_centres(height: int, width: int) -> Matrix:
    """Return x and y of the centre of every pixel, float64 (2, height, width).

    >>> pixel_centres(1, 2).tolist()
    [[[0.5, 1.5]], [[0.5, 0.5]]]
    """
    return np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5))


def map_points(points: Matrix, matrix: Matrix) -> Matrix:
    """Return points, (2, height, width), mapped by a matrix, (3, 3)."""
    return np.tensordot(matrix[:2, :2], points, axes=1) + matrix[:2, 2][:, None, None]


def resample_at(
    frames: Sequence[NDArray[Any]] | NDArray[Any],
    inverse: Matrix,
    points: Matrix,
    *,
    out: NDArray[Any],
    fill: float = 0.0,
    extent: tuple[float, float] | None = None,
) -> None:
    """Sample frames into `out` at `points`, (2, height, width), mapped by `inverse`; otherwise as `resample`.

    If the map shrinks, on average over the target, whole blocks of pixels are averaged first, as in `resample`.

    >>> frame, out = np.arange(6, dtype=np.uint8).reshape(2, 3), np.empty((1, 2, 3, 1), np.uint8)
    >>> resample_at([frame], np.eye(3), pixel_centres(2, 3) + [[[1.0]], [[0.0]]], out=out)
    >>> out[0, :, :, 0].tolist()
    [[1, 2, 0], [4, 5, 0]]
    """
    if len(frames) == 0:
        return
    blend_into(out, lanes_at(frames, inverse, points, fill=fill, extent=extent))


def lanes_at(
    frames: Sequence[NDArray[Any]] | NDArray[Any],
    inverse: Matrix,
    points: Matrix,
    *,
    fill: float,
    extent: tuple[float, float] | None = None,
    use: str = "lanes",
) -> Lanes:
    """Return the lanes of frames for a map by points; `resample.lanes_of` does the same for a matrix."""
    packed_frames = pack_rows(frames)
    height, width = packed_frames[0].shape[:2]
    down, across = shrink_factors(inverse @ _affine_part(points), height, width)
    block_inverse = inverse * np.array([[1 / across], [1 / down], [1.0]])
    places = map_points(points, block_inverse).reshape(2, -1)
    blocks = Blocks(down, across, *_blocks(places[1], -(-height // down)), *_blocks(places[0], -(-width // across)))
    return make_lanes(packed_frames, blocks, block_inverse, places, extent=extent, fill=fill, use=use)


def _affine_part(points: Matrix) -> Matrix:
    """Return the mean steps from pixel to pixel, from which the factor of shrinking follows."""
    _, height, width = points.shape
    steps = np.eye(3)
    if width > 1:
        steps[:2, 0] = (points[:, :, -1] - points[:, :, 0]).mean(axis=1) / (width - 1)
    if height > 1:
        steps[:2, 1] = (points[:, -1] - points[:, 0]).mean(axis=1) / (height - 1)
    return steps


def _blocks(places: NDArray[np.float64], blocks: int) -> tuple[int, int]:
    """Return the first block that the points need along one axis, and the number of blocks."""
    first = min(max(math.floor(float(places.min()) - 0.5 - _TOLERANCE), 0), blocks - 1)
    last = min(max(math.floor(float(places.max()) - 0.5 + _TOLERANCE) + 1, first), blocks - 1)
    return first, last - first + 1
