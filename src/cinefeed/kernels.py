"""The compiled loops of the transforms: operations that NumPy and OpenCV cannot do in one pass over the pixels.

The file is longer than 400 lines, because all code that runs once per pixel is in one place.

A clip is resampled in two steps. OpenCV does the same frame by frame, in 2.7 times the time for 16 frames of 516 x 516
to 112 x 112, and 1.2 to 2.3 times if nothing shrinks (benchmarks/transforms.py). It also has no border that is black
outside and repeated within, and takes the interpreter lock about 32 times per clip.

fold    decoded frames -> sums of blocks of whole pixels: the area reduction, and the only read of the source
blend   lanes -> target frames, one bilinear interpolation; lanes are channels x frames side by side, so that the
        weights of a pixel are computed once for all frames
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import cv2
import numpy as np
from numba import carray, njit, types
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

from cinefeed.kernel_cache import KernelCache

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def compiled(function: Kernel) -> Kernel:
    """Compile a loop with numba. It releases the GIL; machine code of this package is cached on disk.

    Without fastmath and parallel, the same input gives the same bytes on any number of threads. Pass contiguous arrays:
    each other memory layout is one more compilation.

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
    dispatcher = njit(nogil=True)(function)
    if function.__module__.startswith("cinefeed."):  # the cache key covers the sources of this package only
        dispatcher._cache = KernelCache(function)
    return cast(Kernel, dispatcher)


@intrinsic  # type: ignore[untyped-decorator]
def pointer(_context: Any, _address: Any) -> Any:
    """Convert an address to a pointer, so that one call without the GIL can read frames from separate arrays."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.voidptr(types.intp), generate


def addresses_of(frames: Sequence[NDArray[Any]] | NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the memory address of each frame, and its row stride in items."""
    if isinstance(frames, np.ndarray):
        frame_stride, row_stride = frames.strides[:2]
        start, count = frames.__array_interface__["data"][0], len(frames)
        return start + frame_stride * np.arange(count, dtype=np.intp), np.full(
            count, row_stride // frames.itemsize, np.intp
        )
    addresses = np.array([frame.__array_interface__["data"][0] for frame in frames], np.intp)
    return addresses, np.array([frame.strides[0] // frame.itemsize for frame in frames], np.intp)


def transpose(source: NDArray[Any], target: NDArray[Any]) -> None:
    """Transpose two axes by OpenCV: 0.06 ms for 25 x 22,500 bytes; NumPy took 0.22 and a loop 0.33."""
    if cv2.transpose(source, target) is not target:
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


def _round_like(value: Any, like: Any) -> Any:
    """Return a float32 rounded to the nearest integer, halves up, if `like` holds integers, else unchanged."""


# strict=True compares annotations too, and a lambda has none
@overload(_round_like, strict=False)  # type: ignore[untyped-decorator]
def _round_like_overload(value: Any, like: Any) -> Any:
    if isinstance(like.dtype, types.Float):
        return lambda value, like: value
    return lambda value, like: np.int32(value + np.float32(0.5))


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
                out[k, lane] = _round_like(blank, out)
            continue
        for lane in range(count):
            upper = w00 * np.float32(lanes[p, lane]) + w01 * np.float32(lanes[q, lane])
            lower = w10 * np.float32(lanes[r, lane]) + w11 * np.float32(lanes[s, lane])
            out[k, lane] = _round_like(upper + lower, out)


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


@compiled
def scale_and_move(
    pixels: NDArray[Any],
    gains: NDArray[np.float32],
    offsets: NDArray[np.float32],
    bottom: np.float32,
    top: np.float32,
    out: NDArray[Any],
) -> None:
    """Write `pixels * gain + offset`, clipped, into `out`.

    `pixels` and `out` are (frames, pixels x channels), `gains` and `offsets` (frames, channels).
    """
    frames, size = pixels.shape
    channels = gains.shape[1]
    # The factors of 64 pixels are repeated side by side: 0.12 ms for 16 x 112 x 112 x 3; channel by channel took 0.54.
    stretch = 64 * channels
    gain, offset = np.empty(stretch, np.float32), np.empty(stretch, np.float32)
    for f in range(frames):
        for k in range(stretch):
            gain[k], offset[k] = gains[f, k % channels], offsets[f, k % channels]
        for begin in range(0, size, stretch):
            values, to = pixels[f, begin : begin + stretch], out[f, begin : begin + stretch]
            for k in range(values.size):
                to[k] = _round_like(min(max(np.float32(values[k]) * gain[k] + offset[k], bottom), top), out)


@compiled
def look_up(pixels: NDArray[Any], tables: NDArray[Any], out: NDArray[Any]) -> None:
    """Write the table entry of each pixel into `out`: 0.2 ms for 16 x 112 x 112 x 3; OpenCV took 0.36.

    `pixels` and `out` are (frames, pixels x channels), `tables` (1 or frames, 1 or channels, 256 or 65,536).
    """
    frames, size = pixels.shape
    channels = tables.shape[1]
    for f in range(frames):
        table = tables[f % tables.shape[0]]
        values, to = pixels[f], out[f]
        if channels == 1:
            only = table[0]
            for k in range(size):
                to[k] = only[values[k]]
        elif channels == 3:  # pixel by pixel: 0.23 ms; channel by channel took 0.34
            first, second, third = table[0], table[1], table[2]
            for k in range(size // 3):
                to[3 * k] = first[values[3 * k]]
                to[3 * k + 1] = second[values[3 * k + 1]]
                to[3 * k + 2] = third[values[3 * k + 2]]
        else:
            for c in range(channels):
                own, from_channel, into = table[c], values[c::channels], to[c::channels]
                for k in range(from_channel.size):
                    into[k] = own[from_channel[k]]


@compiled
def count_values(pixels: NDArray[Any], counts: NDArray[np.int64]) -> None:
    """Add the count of each value of `pixels` (frames, size) to `counts` (frames, 256 or 65,536).

    Eight partial counts in turn, because two increments of one counter in a row wait for each other: 0.3 against 1.4 ms
    for 16 x 112 x 112 x 3 black pixels, 0.22 against 0.4 for smooth images.
    """
    turns = np.empty((8, counts.shape[1]), np.int32)
    for f in range(pixels.shape[0]):
        values = pixels[f]
        turns[:] = 0
        whole = values.size // 8
        for k in range(whole):
            eight = values[8 * k : 8 * k + 8]
            for j in range(8):
                turns[j, eight[j]] += np.int32(1)
        for k in range(8 * whole, values.size):
            turns[0, values[k]] += np.int32(1)
        for k in range(counts.shape[1]):
            for j in range(8):
                counts[f, k] += turns[j, k]


@compiled
def saturate(planes: NDArray[Any], factor: np.float32, top: np.float32) -> None:
    """Scale the differences of red, green and blue, `planes` (3, pixels), from their grey by `factor`, in place.

    Grey is that of BT.601, as in JPEG. Splitting, this loop and merging by OpenCV take 0.4 ms for 16 x 112 x 112; a
    loop over interleaved pixels took 1.0.
    """
    reds, greens, blues = planes[0], planes[1], planes[2]
    none, rest = np.float32(0), np.float32(1) - factor
    for k in range(reds.size):
        red, green, blue = np.float32(reds[k]), np.float32(greens[k]), np.float32(blues[k])
        grey = rest * (np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue)
        reds[k] = _round_like(min(max(red * factor + grey, none), top), planes)
        greens[k] = _round_like(min(max(green * factor + grey, none), top), planes)
        blues[k] = _round_like(min(max(blue * factor + grey, none), top), planes)


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


@compiled
def _hash(number: np.uint64) -> np.uint64:
    # The last step of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): every input bit affects every output bit.
    number = (number ^ (number >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    number = (number ^ (number >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return number ^ (number >> np.uint64(31))


@compiled
def add_noise(
    pixels: NDArray[Any],
    seed: np.uint64,
    fresh: bool,
    shift: np.float32,
    gain: np.float32,
    top: np.float32,
    out: NDArray[Any],
) -> None:
    """Write `pixels + n * (shift + gain * pixels)` into `out`, both (frames, size), for nearly normal numbers n.

    Each n is the scaled sum of the eight bytes of a hashed counter: mean 0, standard deviation 1, at most 4.9. With
    `fresh` each frame gets other numbers. NumPy's normal numbers alone took 6 ms for 16 x 112 x 112 x 3.
    """
    frames, size = pixels.shape
    step, bytes_of = np.uint64(0x9E3779B97F4A7C15), np.uint64(0x00FF00FF00FF00FF)
    begin = _hash(seed * step + step)
    for f in range(frames):
        values, to = pixels[f], out[f]
        counter = begin + (np.uint64(f) * np.uint64(size) * step if fresh else np.uint64(0))
        for k in range(size):
            word = _hash(counter + np.uint64(k) * step)
            pairs = (word & bytes_of) + ((word >> np.uint64(8)) & bytes_of)
            total = np.int32((pairs * np.uint64(0x0001000100010001)) >> np.uint64(48))
            number = np.float32(total - np.int32(1020)) * np.float32(1 / 209.02153)
            value = np.float32(values[k])
            to[k] = _round_like(min(max(value + number * (shift + gain * value), np.float32(0)), top), out)
