"""Conversion of YUV planes to RGB target pixels in one pass: luma and chroma interpolated by row, then colour matrix.

Each row of the target is computed for all frames of a clip while its numbers are in the L1 cache. The pixels equal
those of `resample.resample` followed by `color.to_pixels`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.compiled import compiled
from cinefeed.core.scratch import scratch
from cinefeed.transforms.kernels import blend_row, transpose
from cinefeed.transforms.resample import Lanes
from cinefeed.video.color import Colour, rgb_factors, rgb_lanes


def lanes_to_rgb(luma: Lanes, chroma: Lanes, colour: Colour, *, dtype: np.dtype[Any], out: NDArray[Any]) -> None:
    """Interpolate the planes of a clip into `out`, C-contiguous (frames, height, width, 3).

    `chroma` are the blue differences of all frames, then the red ones. `dtype` is that of the planes; samples are
    rounded to it between the interpolation and the colour matrix.
    """
    frames, height, width, _ = out.shape
    rgb = scratch("rgb", (height * width, 3, frames), out.dtype)
    _blend_to_rgb(*luma, *chroma, np.empty(1, dtype), rgb_factors(colour, out.dtype), width, rgb)
    transpose(rgb.reshape(-1, frames), out.reshape(frames, -1))


@compiled
def _blend_to_rgb(
    luma: Any,
    luma_rows: int,
    luma_inverse: Any,
    luma_points: Any,
    luma_top: int,
    luma_left: int,
    luma_bottom: float,
    luma_right: float,
    luma_gain: float,
    luma_fill: float,
    chroma: Any,
    rows: int,
    inverse: Any,
    points: Any,
    top: int,
    left: int,
    bottom: float,
    right: float,
    gain: float,
    fill: float,
    sample: Any,
    factors: Any,
    width: int,
    rgb: Any,
) -> None:
    coordinates, cells, weights = np.empty((2, width)), np.empty(width, np.int32), np.empty((2, width), np.float32)
    bright = np.empty((width, luma.shape[1]), sample.dtype)
    differences = np.empty((width, chroma.shape[1]), sample.dtype)
    for i in range(rgb.shape[0] // width):
        blend_row(
            i,
            luma,
            luma_rows,
            luma_inverse,
            luma_points,
            luma_top,
            luma_left,
            luma_bottom,
            luma_right,
            luma_gain,
            luma_fill,
            coordinates,
            cells,
            weights,
            bright,
        )
        blend_row(
            i,
            chroma,
            rows,
            inverse,
            points,
            top,
            left,
            bottom,
            right,
            gain,
            fill,
            coordinates,
            cells,
            weights,
            differences,
        )
        rgb_lanes(bright, differences, factors, rgb[i * width : (i + 1) * width])
