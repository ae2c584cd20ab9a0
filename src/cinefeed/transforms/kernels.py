"""The compiled loops of the transforms: operations that NumPy and OpenCV cannot do in one pass over the pixels.

The file is longer than 400 lines, because all code that runs once per pixel is in one place.

A clip is resampled in two steps. OpenCV does the same frame by frame, in 2.7 times the time for 16 frames of 516 x 516
to 112 x 112, and 1.2 to 2.3 times if nothing shrinks (benchmarks/transforms.py). It also has no border that is black
outside and repeated within, and takes the interpreter lock about 32 times per clip.

fold    decoded frames -> sums of blocks of whole pixels: the area reduction, and the only read of the source
blend   lanes -> target frames, one bilinear interpolation; lanes are channels x frames side by side, so that the
        weights of a pixel are computed once for all frames
"""

from typing import Any

import cv2
import numpy as np
from numba import carray
from numpy.typing import NDArray

from cinefeed.core.compiled import compiled, pointer, round_like


def transpose(source: NDArray[Any], target: NDArray[Any]) -> None:
    """Transpose two axes by OpenCV: 0.06 ms for 25 x 22,500 bytes; NumPy took 0.22 and a loop 0.33.

    OpenCV counts bytes in 32 bits: for frames that lie far apart in a large file it would read other memory.
    """
    if any(len(each) * abs(each.strides[0]) >= 2**31 for each in (source, target)):
        np.copyto(target, source.T)
    elif cv2.transpose(source, target) is not target:
        raise AssertionError("cv2.transpose did not write in place")


@compiled
def _sum_across(values: NDArray[Any], factor: int, sums: NDArray[Any]) -> None:
    # A constant factor lets the compiler use vector instructions: 0.44 against 1.1 ms for 16 frames of 516 x 516.
    if factor == 1:
        for x in range(sums.size):
            sums[x] = values[x]
    elif factor == 2:
        for x in range(sums.size):
            sums[x] = values[2 * x] + values[2 * x + 1]
    elif factor == 3:
        for x in range(sums.size):
            sums[x] = values[3 * x] + values[3 * x + 1] + values[3 * x + 2]
    elif factor == 4:
        for x in range(sums.size):
            sums[x] = values[4 * x] + values[4 * x + 1] + values[4 * x + 2] + values[4 * x + 3]
    else:
        for x in range(sums.size):
            total = values[factor * x]
            for k in range(1, factor):
                total += values[factor * x + k]
            sums[x] = total


@compiled
def fold(
    addresses: NDArray[np.intp],
    pitches: NDArray[np.intp],
    sample: NDArray[Any],
    height: int,
    width: int,
    down: int,
    across: int,
    top: int,
    left: int,
    out: NDArray[Any],
) -> None:
    """Sum blocks of `down` x `across` pixels of each frame into `out`, (frames, rows, columns, channels).

    Frame i, `height` x `width`, starts at `addresses[i]`, with a row stride of `pitches[i]` items of the dtype of
    `sample`. The first block is (`top`, `left`), counted in blocks. A block that is cut by the edge of the frame is
    scaled to the weight of a whole one.
    """
    frames, rows, columns, channels = out.shape
    sums = np.empty(columns * across * channels, out.dtype)
    start = left * across * channels
    used = min(columns * across, width - left * across)
    whole, rest = divmod(used, across)
    for f in range(frames):
        pitch = pitches[f]
        for y in range(rows):
            first = (top + y) * down
            deep = min(down, height - first)
            source = carray(pointer(addresses[f] + first * pitch * sample.itemsize), (deep * pitch,), sample.dtype)
            # Indices of a slice start at 0 and are known to be in bounds: ten times as fast as an offset.
            pixels = source[start : start + used * channels]
            to = out[f, y].reshape(columns * channels)
            if down == 1 and across == 1:
                for k in range(pixels.size):
                    to[k] = pixels[k]
                continue
            for k in range(pixels.size):
                sums[k] = pixels[k]
            for j in range(1, deep):
                pixels = source[j * pitch + start : j * pitch + start + used * channels]
                for k in range(pixels.size):
                    sums[k] += pixels[k]
            if deep < down:
                for k in range(used * channels):
                    sums[k] = sums[k] * down / deep
            if channels == 1 or across == 1:
                _sum_across(sums, across, to[: whole * channels])
            else:
                for x in range(whole):
                    for c in range(channels):
                        total = sums[x * across * channels + c]
                        for k in range(1, across):
                            total += sums[(x * across + k) * channels + c]
                        to[x * channels + c] = total
            if rest > 0:
                for c in range(channels):
                    total = sums[whole * across * channels + c]
                    for k in range(1, rest):
                        total += sums[(whole * across + k) * channels + c]
                    to[whole * channels + c] = total * across / rest


@compiled
def _place(
    across_at: NDArray[np.float64],
    down_at: NDArray[np.float64],
    rows: int,
    columns: int,
    top: int,
    left: int,
    bottom: float,
    right: float,
    cells: NDArray[np.int32],
    across: NDArray[np.float32],
    down: NDArray[np.float32],
) -> None:
    # For each point of one target row: the cell above and to its left (-1 if outside), and the distances from it.
    # No branch, no call and few arrays in the loop, so that it vectorises: 0.07 ms for 150 x 150; a loop that wrote
    # four cells and four weights took 0.24.
    last_row, last_column = rows - 1.0, columns - 1.0
    for k in range(cells.size):
        u, v = across_at[k], down_at[k]
        # A millionth of a pixel: rounding in matrix products must not blur an exact copy or cut off an edge.
        inside = (u >= -1e-6) & (v >= -1e-6) & (u <= right + 1e-6) & (v <= bottom + 1e-6)
        u = min(max(u - 0.5 - left, 0.0), last_column)
        v = min(max(v - 0.5 - top, 0.0), last_row)
        x, y = np.int32(u + 1e-6), np.int32(v + 1e-6)
        cells[k] = np.int32(y * columns + x) if inside else np.int32(-1)
        right_of, below = np.float32(u - x), np.float32(v - y)
        across[k] = right_of if right_of > np.float32(2e-6) else np.float32(0)
        down[k] = below if below > np.float32(2e-6) else np.float32(0)


@compiled
def blend_row(
    i: int,
    lanes: NDArray[Any],
    rows: int,
    inverse: NDArray[np.float64],
    points: NDArray[np.float64],
    top: int,
    left: int,
    bottom: float,
    right: float,
    gain: float,
    fill: float,
    coordinates: NDArray[np.float64],
    cells: NDArray[np.int32],
    weights: NDArray[np.float32],
    out: NDArray[Any],
) -> None:
    """Interpolate one row of the target into `out` (width, lanes); see `blend`.

    `coordinates`, `cells` and `weights` are scratch memory.
    """
    count, width = lanes.shape[1], cells.size
    across, down = weights[0], weights[1]
    blank, scale, one = np.float32(fill), np.float32(gain), np.float32(1)
    columns = lanes.shape[0] // rows
    if points.size > 0:
        coordinates[:] = points[:, i * width : (i + 1) * width]
    else:
        for axis in range(2):
            at = inverse[axis, 1] * (i + 0.5) + inverse[axis, 2]
            for k in range(width):
                coordinates[axis, k] = inverse[axis, 0] * (k + 0.5) + at
    _place(coordinates[0], coordinates[1], rows, columns, top, left, bottom, right, cells, across, down)
    for k in range(width):
        p, a, d = np.int64(cells[k]), across[k], down[k]
        # A neighbour of weight 0 is not read: it may lie beyond the edge, or hold NaN.
        q, r = p + np.int64(a > 0), p + columns * np.int64(d > 0)
        s = r + np.int64(a > 0)
        w00, w01 = (one - a) * (one - d) * scale, a * (one - d) * scale
        w10, w11 = (one - a) * d * scale, a * d * scale
        if p < 0:
            for lane in range(count):
                out[k, lane] = round_like(blank, out)
            continue
        for lane in range(count):
            upper = w00 * np.float32(lanes[p, lane]) + w01 * np.float32(lanes[q, lane])
            lower = w10 * np.float32(lanes[r, lane]) + w11 * np.float32(lanes[s, lane])
            out[k, lane] = round_like(upper + lower, out)


@compiled
def blend(
    lanes: NDArray[Any],
    rows: int,
    inverse: NDArray[np.float64],
    points: NDArray[np.float64],
    top: int,
    left: int,
    bottom: float,
    right: float,
    gain: float,
    fill: float,
    width: int,
    out: NDArray[Any],
) -> None:
    """Interpolate `lanes`, (rows x columns, lanes), into `out`, (height x width, lanes).

    `inverse` (2, 3) maps a target point (x, y, 1) to lane coordinates, corner-origin; lanes[0] lies at (`top`,
    `left`). Points outside 0 to `bottom` and 0 to `right` become `fill`; within half a pixel of these edges, the edge
    is repeated. A point on the centre of a pixel takes that pixel exactly. `gain` converts sums to means. If `points`
    (2, height x width) is not empty, it holds x and y in lane coordinates, and `inverse` is not used.
    """
    coordinates, cells, weights = np.empty((2, width)), np.empty(width, np.int32), np.empty((2, width), np.float32)
    for i in range(out.shape[0] // width):
        row = out[i * width : (i + 1) * width]
        blend_row(
            i, lanes, rows, inverse, points, top, left, bottom, right, gain, fill, coordinates, cells, weights, row
        )
