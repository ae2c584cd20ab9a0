"""Conversion of stored planes to grey or RGB pixels: range expansion and colour matrix, at the target size only.

Swscale costs more than decoding, so colour is converted after a frame is resized to the target, never before.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import cv2
import numpy as np
from numba import carray
from numpy.typing import NDArray

from cinefeed.core.compiled import addresses_of, compiled, pointer
from cinefeed.core.errors import SettingError, SourceError

ColourModel = Literal["grey", "yuv", "rgb"]
Matrix = Literal["bt601", "bt709", "smpte240m", "bt2020"]

# Weights of red and blue in luma: ITU-R BT.601-7, BT.709-6, SMPTE 240M, ITU-R BT.2020-2.
_WEIGHTS: dict[Matrix, tuple[float, float]] = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "smpte240m": (0.212, 0.087),
    "bt2020": (0.2627, 0.0593),
}
_PEAKS = {"uint8": 255.0, "uint16": 65535.0}


@dataclass(frozen=True, kw_only=True, slots=True)
class Colour:
    """How the planes of a frame are converted to grey or RGB.

    grey: one plane (height, width)
    yuv:  three planes: luma, and blue and red difference at their own resolution
    rgb:  one plane (height, width, 3)
    """

    model: ColourModel
    bits: int = 8  # bits of a sample, the lowest of a uint8 or uint16; 32 for float32
    full_range: bool = True
    matrix: Matrix = "bt601"
    rotation: int = 0  # this and the next fields as in VideoMetadata; planes are as stored
    mirrored: bool = False
    aspect: float = 1.0
    window: tuple[float, float] | None = None  # of grey or rgb planes
    window_assumed: bool = False  # as in VideoMetadata
    open_scale: bool = False  # `bits` do not define black and white: see cinefeed.video.value_range


def to_pixels(planes: Sequence[NDArray[Any]], colour: Colour, *, channels: int, out: NDArray[Any]) -> None:
    """Convert planes of one size to grey or RGB pixels, written into `out`.

    `planes` are (height, width), or (n, height, width) of a whole clip, uint8, uint16 or float32; an rgb plane has a
    last axis of 3. `out` has the same shape with `channels` as last axis, and is C-contiguous. Limited range is
    expanded.

    uint8 and uint16:   full scale, 0 to 255 and 0 to 65535, whatever the stored depth
    float32:            0 to 255 with fractions for up to 15 stored bits; 16-bit and float samples keep their numbers

    If grey or rgb planes have a window, its black becomes 0 and its white the full scale (255 for float32), in each
    channel, and values outside are clipped; a black above the white inverts. RGB is converted to grey by the weights of
    BT.601.

    >>> luma = np.array([[16, 235]], np.uint8)
    >>> out = np.empty((1, 2, 1), np.uint8)
    >>> to_pixels([luma], Colour(model="grey", full_range=False), channels=1, out=out)
    >>> out.ravel().tolist()
    [0, 255]
    >>> to_pixels([luma], Colour(model="grey", window=(235, 16)), channels=1, out=out)
    >>> out.ravel().tolist()
    [255, 0]
    """
    if not out.flags.c_contiguous:
        raise SourceError(
            f"to_pixels writes into a C-contiguous array; out has shape {out.shape}, strides {out.strides}"
        )
    if channels == 3 and colour.model == "yuv":
        _yuv_to_rgb(planes, colour, out)
        return
    if colour.model == "rgb":
        rgb = planes[0]
        if channels == 1 and colour.window is not None:
            windowed = np.empty(rgb.shape, out.dtype)
            _expand(rgb, colour, windowed)
            out.reshape(-1)[:] = _grey(windowed)
            return
        _expand(_grey(rgb) if channels == 1 else rgb, colour, out)
    elif channels == 1:
        _expand(planes[0], colour, out)
    else:
        grey = np.empty(planes[0].shape, out.dtype)
        _expand(planes[0], colour, grey)
        _interleave([grey, grey, grey], out)


def lacks_window(colour: Colour, dtype: str) -> bool:
    """Return whether the planes need a window, which defines black and white, to become pixels of `dtype`.

    >>> lacks_window(Colour(model="grey", bits=16, open_scale=True), "uint8")
    True
    """
    if not colour.open_scale or dtype == "float32":
        return False
    if colour.window is not None:
        return colour.window_assumed and dtype == "uint8"
    return dtype == "uint8" or colour.bits == 32


@lru_cache(maxsize=256)
def with_window(colour: Colour, window: tuple[float, float] | None) -> Colour:
    """Return the conversion with `window`, if the scale is open; an inverted conversion remains inverted."""
    if window is None or not colour.open_scale:
        return colour
    inverted = colour.window is not None and colour.window[0] > colour.window[1]
    return replace(colour, window=window[::-1] if inverted else window, window_assumed=False)


def window_missing(dtype: str, problem: str, suggested: tuple[float, float] | None) -> SettingError:
    """Return the error for numbers without a window that defines black and white."""
    window = "LOW, HIGH" if suggested is None else f"{suggested[0]:.10g}, {suggested[1]:.10g}"
    return SettingError(
        f"frames as {dtype} were asked for, but {problem}, whose black and white are not defined; without a window "
        f"most levels would be lost. Give Frame(window=({window})), in TOML [frame] window = [{window}], or another "
        "dtype: float32 keeps all numbers, uint16 integers from 0 to 65535 (DICOM by the range of its bits)"
    )


def cut_to_rgb(
    groups: Sequence[Sequence[NDArray[Any]] | NDArray[Any]], colour: Colour, *, top: int, left: int, out: NDArray[Any]
) -> None:
    """Crop one window of YUV frames of equal size, and write it as RGB into `out`, C-contiguous (n, h, w, 3).

    `groups` are the luma planes, and the blue and then the red ones, uint8 or uint16; rows may be padded. Chroma of
    half the height or width (rounded up) is upsampled as in `resample`, with weight 3/4 for the nearer sample, and
    rounded, in the same pass: 0.2 ms for 16 x 112 x 112 of 4:2:0, in place of 0.9 for resampling and then `to_pixels`.
    """
    luma, blue = groups[0][0], groups[1][0]
    down, across = (1 if whole == part else 2 for whole, part in zip(luma.shape, blue.shape, strict=True))
    (bright, pitch), (differences, part_pitch) = map(addresses_of, groups)
    addresses = np.stack([bright, *differences.reshape(2, -1)], axis=1)
    pitches = np.array([pitch[0], part_pitch[0], part_pitch[-1]])
    factors = rgb_factors(colour, out.dtype)
    cut = (top, left, *blue.shape, down, across)
    narrow, wide = (np.uint16, np.uint32) if luma.itemsize == 1 else (np.uint32, np.uint64)
    kinds = np.empty(1, luma.dtype), np.empty(0, narrow), np.empty(0, wide)
    _cut_samples(addresses, pitches, *kinds, cut, factors, out)


def _grey(rgb: NDArray[Any]) -> NDArray[Any]:
    return cv2.cvtColor(np.ascontiguousarray(rgb).reshape(1, -1, 3), cv2.COLOR_RGB2GRAY).reshape(-1)


def _expand(samples: NDArray[Any], colour: Colour, out: NDArray[Any]) -> None:
    """Scale samples of one kind, or their window, to full range and to the scale of `out`."""
    flat, target = np.ascontiguousarray(samples).reshape(-1), out.reshape(-1)
    limited = not colour.full_range and colour.model != "rgb"
    if colour.window is not None:
        offset, scale, peak = _window_scale(*colour.window, out.dtype.name)
    else:
        offset, scale, peak = _luma_scale(colour.bits, limited, out.dtype.name)
    if colour.window is None and scale == 1.0 and offset == 0.0 and (samples.dtype == out.dtype or peak == 0.0):
        target[:] = flat
    else:
        _expand_samples(flat, np.array([offset, scale, peak, _half(out.dtype.name)], np.float32), target)


def _yuv_to_rgb(planes: Sequence[NDArray[Any]], colour: Colour, out: NDArray[Any]) -> None:
    luma, blue, red = (np.ascontiguousarray(plane).reshape(-1) for plane in planes)
    # Planar, then interleaved by OpenCV: 0.15 ms for 16 x 112 x 112. One loop that interleaves takes 0.66, int32 fixed
    # point in place of float32 0.26.
    rgb = np.empty((3, luma.size), out.dtype)
    _rgb_samples(luma, blue, red, rgb_factors(colour, out.dtype), rgb)
    _interleave(list(rgb), out)


def _interleave(parts: list[NDArray[Any]], out: NDArray[Any]) -> None:
    cv2.merge([part.reshape(1, -1) for part in parts], out.reshape(1, -1, 3))


def _half(dtype: str) -> float:
    """Return the offset that makes a store into this type round; a store into an integer truncates."""
    return 0.0 if dtype == "float32" else 0.5


@lru_cache(maxsize=64)
def _luma_scale(bits: int, limited: bool, dtype: str) -> tuple[float, float, float]:
    """Return offset, scale and largest value (0 for none) that convert luma to the scale of `dtype`."""
    if bits == 32:
        return 0.0, 1.0, _PEAKS.get(dtype, 0.0)
    top = float((1 << bits) - 1)
    peak = _PEAKS.get(dtype, top if bits == 16 else 255.0)
    step = 2.0 ** (bits - 8)
    return (16 * step, peak / (219 * step), peak) if limited else (0.0, peak / top, peak)


def _window_scale(black: float, white: float, dtype: str) -> tuple[float, float, float]:
    """Return the same for a window; a window of width 0, as of a blank image, becomes a step of 1."""
    peak = _PEAKS.get(dtype, 255.0)
    return black, peak / ((white - black) or 1.0), peak


def rgb_factors(colour: Colour, dtype: np.dtype[Any]) -> NDArray[np.float32]:
    """Return the factors that convert YUV to RGB of a dtype, for the compiled loops, read-only.

    Offset and scale of luma, centre of chroma, its factors for red, green (two) and blue, the peak, and the rounding.
    """
    return _factors(colour.bits, colour.full_range, colour.matrix, dtype)


@lru_cache(maxsize=64)
def _factors(bits: int, full_range: bool, matrix: Matrix, dtype: np.dtype[Any]) -> NDArray[np.float32]:
    offset, scale, peak = _luma_scale(bits, not full_range, dtype.name)  # dtype.name takes 5 us
    red, blue = _WEIGHTS[matrix]
    green = 1 - red - blue
    span = (1 << bits) - 1 if full_range else 224 * 2.0 ** (bits - 8)
    from_red, from_blue = 2 * (1 - red) * peak / span, 2 * (1 - blue) * peak / span
    centre = 2.0 ** (bits - 1)
    to_green = (-from_blue * blue / green, -from_red * red / green)
    factors = np.array([offset, scale, centre, from_red, *to_green, from_blue, peak, _half(dtype.name)], np.float32)
    factors.flags.writeable = False
    return factors


@compiled
def _expand_samples(samples: Any, factors: Any, out: Any) -> None:
    offset, scale, peak, half = factors[0], factors[1], factors[2], factors[3]
    for i in range(samples.size):
        value = (np.float32(samples[i]) - offset) * scale + half
        out[i] = min(max(value, np.float32(0)), peak)


@compiled
def _rgb_samples(luma: Any, blue: Any, red: Any, factors: Any, rgb: Any) -> None:
    offset, scale, centre, peak = factors[0], factors[1], factors[2], factors[7]
    r_red, g_blue, g_red, b_blue = factors[3], factors[4], factors[5], factors[6]
    low, half = np.float32(0), factors[8]
    reds, greens, blues = rgb[0], rgb[1], rgb[2]
    for i in range(luma.size):
        grey = (np.float32(luma[i]) - offset) * scale + half
        u, v = np.float32(blue[i]) - centre, np.float32(red[i]) - centre
        reds[i] = min(max(grey + r_red * v, low), peak)
        greens[i] = min(max(grey + g_blue * u + g_red * v, low), peak)
        blues[i] = min(max(grey + b_blue * u, low), peak)


@compiled
def rgb_lanes(luma: Any, chroma: Any, factors: Any, rgb: Any) -> None:
    """Convert YUV pixels of side-by-side frames to RGB, (pixels, 3, frames).

    `luma` is (pixels, frames), `chroma` (pixels, 2 x frames), blue and then red; both may have more columns.
    """
    offset, scale, centre, peak = factors[0], factors[1], factors[2], factors[7]
    r_red, g_blue, g_red, b_blue = factors[3], factors[4], factors[5], factors[6]
    low, half, frames = np.float32(0), factors[8], rgb.shape[2]
    for i in range(rgb.shape[0]):
        bright, blue, red = luma[i, :frames], chroma[i, :frames], chroma[i, frames : 2 * frames]
        to_red, to_green, to_blue = rgb[i, 0], rgb[i, 1], rgb[i, 2]
        for k in range(frames):
            grey = (np.float32(bright[k]) - offset) * scale + half
            u, v = np.float32(blue[k]) - centre, np.float32(red[k]) - centre
            to_red[k] = min(max(grey + r_red * v, low), peak)
            to_green[k] = min(max(grey + g_blue * u + g_red * v, low), peak)
            to_blue[k] = min(max(grey + b_blue * u, low), peak)


@compiled
def _enlarge(
    address: int,
    pitch: int,
    sample: Any,
    rows: int,
    columns: int,
    top: int,
    left: int,
    down: int,
    across: int,
    sums: Any,
    pairs: Any,
    out: Any,
) -> None:
    # One plane of chroma, from row `top` of the target and column `left` of the plane, in sixteenths until the end. One
    # extra column on each side lets the compiler treat all rows as one line: 0.07 ms for 32 planes of 56 x 56, in place
    # of 0.42 with rows of float32. `pairs` are two neighbours of `out` as one number, written at once.
    height, count = sums.shape[0], sums.shape[1] - 2
    near_weight, far_weight = (3, 1) if down == 2 else (4, 0)
    before, after = max(left - 1, 0), min(left + count, columns - 1)
    for i in range(height):
        y = top + i
        row = y // down
        other = min(max(row - 1 + 2 * (y % down), 0), rows - 1) if down == 2 else row
        near = carray(pointer(address + row * pitch * sample.itemsize), (columns,), sample.dtype)
        far = carray(pointer(address + other * pitch * sample.itemsize), (columns,), sample.dtype)
        upper, lower, middle = near[left : left + count], far[left : left + count], sums[i, 1 : count + 1]
        for k in range(count):
            middle[k] = near_weight * upper[k] + far_weight * lower[k]
        sums[i, 0] = near_weight * near[before] + far_weight * far[before]
        sums[i, count + 1] = near_weight * near[after] + far_weight * far[after]
    line = sums.reshape(-1)
    if across == 1:
        to = out.reshape(-1)
        for k in range(line.size):
            to[k] = (4 * np.uint32(line[k]) + 8) >> 4
        return
    inner, before_it, after_it, both = line[1:-1], line[:-2], line[2:], pairs.reshape(-1)[1:-1]
    high = 8 * out.itemsize
    for k in range(inner.size):
        weighted = np.uint32(np.uint32(3) * np.uint32(inner[k]) + np.uint32(8))
        first = np.uint32(weighted + np.uint32(before_it[k])) >> np.uint32(4)
        second = np.uint32(weighted + np.uint32(after_it[k])) >> np.uint32(4)
        both[k] = _pair(first, second, high, both)


@compiled
def _pair(first: Any, second: Any, high: int, like: Any) -> Any:
    kind = like.dtype.type
    return kind(first) | (kind(second) << kind(high))


@compiled
def _cut_samples(
    addresses: Any, pitches: Any, sample: Any, narrow: Any, wide: Any, cut: Any, factors: Any, out: Any
) -> None:
    # `narrow` and `wide` have the dtypes of one and of two sums of chroma.
    top, left, rows, columns, down, across = cut
    frames, height, width, _ = out.shape
    offset, scale, centre, peak, half = factors[0], factors[1], factors[2], factors[7], factors[8]
    r_red, g_blue, g_red, b_blue = factors[3], factors[4], factors[5], factors[6]
    low, item = np.float32(0), sample.itemsize
    rgb = np.empty((3, height, width), out.dtype)
    reds, greens, blues = rgb[0].reshape(-1), rgb[1].reshape(-1), rgb[2].reshape(-1)
    first = left // across
    count = (left + width - 1) // across - first + 1
    begin = left - (first - 1) * across
    sums = np.empty((height, count + 2), narrow.dtype)
    pairs = np.empty((2, height, count + 2), wide.dtype)
    chroma = pairs.view(narrow.dtype) if across == 2 else np.empty((2, height, count + 2), narrow.dtype)
    for f in range(frames):
        for part in range(2):
            _enlarge(
                addresses[f, part + 1],
                pitches[part + 1],
                sample,
                rows,
                columns,
                top,
                first,
                down,
                across,
                sums,
                pairs[part],
                chroma[part],
            )
        for i in range(height):
            luma = carray(pointer(addresses[f, 0] + ((top + i) * pitches[0] + left) * item), (width,), sample.dtype)
            blue, red = chroma[0, i, begin : begin + width], chroma[1, i, begin : begin + width]
            to_red, to_green, to_blue = rgb[0, i], rgb[1, i], rgb[2, i]
            for k in range(width):
                grey = (np.float32(luma[k]) - offset) * scale + half
                u, v = np.float32(blue[k]) - centre, np.float32(red[k]) - centre
                to_red[k] = min(max(grey + r_red * v, low), peak)
                to_green[k] = min(max(grey + g_blue * u + g_red * v, low), peak)
                to_blue[k] = min(max(grey + b_blue * u, low), peak)
        # A separate loop, so that both are vectorised: 0.03 ms; one loop for both takes 0.5 ms more.
        to = out[f].reshape(-1)
        for k in range(reds.size):
            to[3 * k], to[3 * k + 1], to[3 * k + 2] = reds[k], greens[k], blues[k]
