"""The few compiled loops: what NumPy and OpenCV do not do in one pass over the pixels.

A clip is resampled in two steps, both on the layout (rows, columns, lanes), lanes = frames x channels, so that the
weights of a pixel are worked out once and shared by all frames (benchmarks/transforms.py):

fold    decoded frames -> lanes, each block of whole pixels summed: the area reduction, and the only read of the source
blend   lanes -> target frames, one bilinear interpolation through an inverse map
"""

import logging
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import carray, njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

_log = logging.getLogger(__name__)
_said: list[str] = []

Kernel = TypeVar("Kernel", bound=Callable[..., Any])

# Target pixels between two transposes: the tile, 128 x 25 lanes of float32, stays in the first-level cache.
_TILE = 128
_ONE = np.float32(1)


def compiled(function: Kernel) -> Kernel:
    """Compile a loop with numba: it releases the GIL, and its machine code is kept on disk.

    Where the cache cannot be written (a read-only installation without a home), numba raises at decoration; then the
    loop is compiled in memory, once a process, and that is logged once. No fastmath and no parallel: the same input
    gives the same bytes on any number of threads. Arrays are made contiguous by the caller, for each other layout is
    one more compilation.

    >>> @compiled
    ... def total(values):
    ...     result = 0.0
    ...     for value in values:
    ...         result += value
    ...     return result
    >>> import numpy as np
    >>> float(total(np.array([1.0, 2.0])))
    3.0
    """
    try:
        return cast(Kernel, njit(cache=True, nogil=True)(function))
    except RuntimeError as error:
        if not _said:
            _said.append(str(error))
            _log.warning("compiling in memory, a few seconds a process: %s; set NUMBA_CACHE_DIR to keep it", error)
        return cast(Kernel, njit(nogil=True)(function))


@intrinsic  # type: ignore[untyped-decorator]
def _pointer(_context: Any, _address: Any) -> Any:
    """Turn an address into a pointer: the frames of a clip lie apart, and one call a clip keeps the GIL released."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.voidptr(types.intp), generate


@compiled
def _sum_across(values: NDArray[Any], factor: int, sums: NDArray[Any]) -> None:
    # A factor that the compiler knows lets it use vector instructions: 0.44 against 1.1 ms for 16 frames of 516 x 516.
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
    channels: int,
    down: int,
    across: int,
    top: int,
    left: int,
    lanes: NDArray[Any],
) -> None:
    """Sum blocks of `down` x `across` pixels of each frame into `lanes`, (rows, columns, frames x channels).

    Frame i starts at `addresses[i]`, `pitches[i]` items a row, of the type of `sample`. The first block is (`top`,
    `left`), counted in blocks. A block that the frame's edge cuts is scaled to the weight of a whole one.
    """
    rows, columns, count = lanes.shape
    sums = np.empty(columns * across * channels, lanes.dtype)
    line = np.empty((count, columns), lanes.dtype)
    start = left * across * channels
    used = min(columns * across, width - left * across)
    for y in range(rows):
        first = (top + y) * down
        deep = min(down, height - first)
        for f in range(addresses.size):
            pitch = pitches[f]
            source = carray(_pointer(addresses[f] + first * pitch * sample.itemsize), (deep * pitch,), sample.dtype)
            # A slice indexed from 0 is known to be in bounds, and vectorises: an index with an offset took ten times
            # as long.
            pixels = source[start : start + used * channels]
            for k in range(pixels.size):
                sums[k] = pixels[k]
            for j in range(1, deep):
                pixels = source[j * pitch + start : j * pitch + start + used * channels]
                for k in range(pixels.size):
                    sums[k] += pixels[k]
            if deep < down:
                for k in range(used * channels):
                    sums[k] = sums[k] * down / deep
            whole = used // across
            if channels == 1:
                _sum_across(sums, across, line[f, :whole])
            else:
                for c in range(channels):
                    for x in range(whole):
                        total = sums[x * across * channels + c]
                        for k in range(1, across):
                            total += sums[(x * across + k) * channels + c]
                        line[f * channels + c, x] = total
            rest = used - whole * across
            if rest > 0:
                for c in range(channels):
                    total = sums[whole * across * channels + c]
                    for k in range(1, rest):
                        total += sums[(whole * across + k) * channels + c]
                    line[f * channels + c, whole] = total * across / rest
        to = lanes[y]
        for x in range(columns):
            cell = to[x]
            for k in range(count):
                cell[k] = line[k, x]


@compiled
def blend(
    lanes: NDArray[Any],
    inverse: NDArray[np.float64],
    top: float,
    left: float,
    bottom_limit: float,
    right_limit: float,
    gain: float,
    rounding: float,
    fill: float,
    out: NDArray[Any],
) -> None:
    """Interpolate `lanes` into `out`, (frames, height, width, channels).

    `inverse` (2, 3) maps a target point (x, y, 1) to lane coordinates, corner-origin; lanes[0, 0] lies at (`top`,
    `left`). Points beyond 0 or the limits become `fill`; in the half pixel before them the edge is repeated. A point
    on a pixel's centre takes that pixel as it is. `gain` scales sums to means, `rounding` is 0.5 for integers.
    """
    rows, columns, count = lanes.shape
    frames, height, width, channels = out.shape
    flat = out.reshape(frames, height * width * channels)
    tile = np.empty((_TILE, count), np.float32)
    scale, half, blank = np.float32(gain), np.float32(rounding), np.float32(fill)
    for begin in range(0, height * width, _TILE):
        size = min(_TILE, height * width - begin)
        for k in range(size):
            i, j = divmod(begin + k, width)
            u = inverse[0, 0] * (j + 0.5) + inverse[0, 1] * (i + 0.5) + inverse[0, 2]
            v = inverse[1, 0] * (j + 0.5) + inverse[1, 1] * (i + 0.5) + inverse[1, 2]
            # 1e-6 of a pixel: the rounding of a product of matrices must not blur an exact copy or cut an edge
            if u < -1e-6 or v < -1e-6 or u > right_limit + 1e-6 or v > bottom_limit + 1e-6:
                for l in range(count):
                    tile[k, l] = blank
                continue
            u = min(max(u - 0.5 - left, 0.0), columns - 1.0)
            v = min(max(v - 0.5 - top, 0.0), rows - 1.0)
            x, y = int(u + 1e-6), int(v + 1e-6)
            across, down = np.float32(u - x), np.float32(v - y)
            if across < 2e-6 and down < 2e-6:
                for l in range(count):
                    tile[k, l] = scale * np.float32(lanes[y, x, l]) + half
                continue
            x1, y1 = min(x + 1, columns - 1), min(y + 1, rows - 1)
            w11 = np.float32(across * down * scale)
            w10 = np.float32((_ONE - across) * down * scale)
            w01 = np.float32(across * (_ONE - down) * scale)
            w00 = np.float32((_ONE - across) * (_ONE - down) * scale)
            for l in range(count):
                upper = w00 * np.float32(lanes[y, x, l]) + w01 * np.float32(lanes[y, x1, l])
                lower = w10 * np.float32(lanes[y1, x, l]) + w11 * np.float32(lanes[y1, x1, l])
                tile[k, l] = upper + lower + half
        for f in range(frames):
            for c in range(channels):
                l = f * channels + c
                for k in range(size):
                    flat[f, (begin + k) * channels + c] = tile[k, l]
