"""Interpolation of frames by an inverse map: the one definition of a sample for all geometric results.

1. If the map shrinks by a whole factor or more, blocks of whole pixels are averaged first (area averaging, which does
   not alias): shrinking by 4.6 averages blocks of 4, which leaves a step of 1.15. A step of 1.5 to 2 averages blocks
   of 2.
2. Each target pixel is the bilinear mean of the four (averaged) pixels around the source point of its centre. Pixel
   centres lie at .5, so that unmoved frames, whole-pixel shifts, flips and quarter turns are exact copies.
3. A point outside the frame gets the fill value. Between the centres of the outermost pixels and the frame's edge, the
   edge is repeated, so that enlarging makes no dark rim.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.compiled import addresses_of, compiled
from cinefeed.core.errors import SettingError, SourceError
from cinefeed.core.scratch import scratch
from cinefeed.transforms.kernels import blend, fold, transpose

Matrix = NDArray[np.float64]

_TOLERANCE = 1e-6  # of a pixel or a factor, as in kernels.blend: far below a visible change, far above rounding
NO_POINTS: NDArray[np.float64] = np.empty((2, 0))
_TYPES = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.float32))


def resample(
    frames: Sequence[NDArray[Any]] | NDArray[Any],
    inverse: Matrix,
    *,
    out: NDArray[Any],
    fill: float = 0.0,
    extent: tuple[float, float] | None = None,
) -> None:
    """Sample frames through one inverse map into `out`.

    Args:
        frames: n arrays of one dtype and shape, (height, width) or (height, width, channels). Rows may be padded.
        inverse: (3, 3), maps a target point to a source point, in pixels, corner-origin.
        out: C-contiguous (n, height, width, channels). As `frames`, it is uint8, uint16 or float32.
        fill: value of points outside the frame.
        extent: (height, width) within which a point is inside, by default those of the arrays.

    Raises SourceError if the frames have another dtype, or differ in dtype or shape.

    >>> frame = np.arange(6, dtype=np.uint8).reshape(2, 3)
    >>> out = np.empty((1, 2, 3, 1), np.uint8)
    >>> one_pixel_left = np.array([[1.0, 0, 1], [0, 1, 0], [0, 0, 1]])
    >>> resample([frame], one_pixel_left, out=out)
    >>> out[0, :, :, 0].tolist()
    [[1, 2, 0], [4, 5, 0]]
    """
    if len(frames) == 0:
        return
    packed_frames = pack_rows(frames)
    dtype, (height, width) = packed_frames[0].dtype, packed_frames[0].shape[:2]
    bottom, right = extent or (float(height), float(width))
    corner = whole_pixel_shift(inverse)
    if corner is not None and dtype == out.dtype:
        box = CropBox(*corner, *out.shape[1:3])
        if box.fits_in(min(height, bottom), min(width, right)):
            fold(*addresses_of(packed_frames), np.empty(1, dtype), height, width, 1, 1, box.top, box.left, out)
            return
    blend_into(out, lanes_of(packed_frames, inverse, size=out.shape[1:3], fill=fill, extent=extent))


class Lanes(NamedTuple):
    """Frames side by side, and the map from the target to them; `kernels.blend` documents the fields."""

    samples: NDArray[Any]  # (rows x columns, channels x frames, padded)
    rows: int
    inverse: NDArray[np.float64]
    points: NDArray[np.float64]
    top: int
    left: int
    bottom: float
    right: float
    gain: float
    fill: float


def lanes_of(
    frames: Sequence[NDArray[Any]] | NDArray[Any],
    inverse: Matrix,
    *,
    size: tuple[int, int],
    fill: float,
    extent: tuple[float, float] | None = None,
    use: str = "lanes",
) -> Lanes:
    """Return the lanes of frames for a target of `size`, (height, width). `use` names their scratch memory."""
    packed_frames = pack_rows(frames)
    block_inverse = np.empty((3, 3))
    height, width = packed_frames[0].shape[:2]
    blocks = Blocks(*_shrink(inverse, height, width, size[0], size[1], block_inverse))
    return make_lanes(packed_frames, blocks, block_inverse, NO_POINTS, extent=extent, fill=fill, use=use)


class Blocks(NamedTuple):
    """The blocks of `down` x `across` pixels that a target needs: the first one and their number, along each axis."""

    down: int
    across: int
    top: int
    rows: int
    left: int
    columns: int


def make_lanes(
    frames: Sequence[NDArray[Any]] | NDArray[Any],
    blocks: Blocks,
    block_inverse: Matrix,
    points: NDArray[np.float64],
    *,
    extent: tuple[float, float] | None,
    fill: float,
    use: str,
) -> Lanes:
    """Return the lanes of frames from `pack_rows`.

    `block_inverse` maps the centres of the target to source points, in blocks. If `points`, (2, height x width), is not
    empty, it holds the source points.
    """
    height, width, channels = (*frames[0].shape, 1)[:3]
    kind, (down, across, top, rows, left, columns) = frames[0].dtype, blocks
    block = _one_block(frames) if down == across == 1 and 2 * rows * columns >= height * width else None
    if block is not None:
        top, rows, left, columns, sums = 0, height, 0, width, block  # without a copy, at the cost of more pixels
    else:
        sums = scratch("sums", (len(frames), rows, columns, channels), _sum_type(kind, down * across))
        fold(*addresses_of(frames), np.empty(1, kind), height, width, down, across, top, left, sums)
    # Frames side by side, channel by channel: bytes are transposed in 0.07 ms (16 x 128 x 158 x 3), pixels of three
    # channels in 0.24.
    num_lanes = _padded_count(len(frames), channels)
    samples = scratch(use, (rows * columns, channels * num_lanes), sums.dtype)
    transpose(sums.reshape(len(frames), -1), samples.reshape(-1, num_lanes)[:, : len(frames)])
    bottom, right = extent or (float(height), float(width))
    gain = 1 / (down * across)
    return Lanes(samples, rows, block_inverse[:2], points, top, left, bottom / down, right / across, gain, float(fill))


def blend_into(out: NDArray[Any], lanes: Lanes) -> None:
    """Interpolate lanes into `out`, C-contiguous (frames, height, width, channels)."""
    frames, height, width, channels = out.shape
    target = scratch("target", (height * width, lanes.samples.shape[1]), out.dtype)
    blend(*lanes, width, target)
    transpose(target.reshape(height * width * channels, -1)[:, :frames], out.reshape(frames, -1))


def pack_rows(frames: Sequence[NDArray[Any]] | NDArray[Any]) -> Sequence[NDArray[Any]] | NDArray[Any]:
    """Return frames whose pixels are contiguous within each row; copies those that are not. Needs at least one."""
    if isinstance(frames, np.ndarray) and frames[0].flags.c_contiguous and frames.dtype in _TYPES:
        return frames
    packed_frames = [_by_rows(frame) for frame in frames]
    if any(frame.shape != packed_frames[0].shape or frame.dtype != packed_frames[0].dtype for frame in packed_frames):
        kinds = sorted({f"{frame.shape[1]} x {frame.shape[0]} ({frame.dtype})" for frame in packed_frames})
        raise SourceError(f"the frames of a clip differ: {', '.join(kinds)}; split the video where it changes")
    return packed_frames


class CropBox(NamedTuple):
    """A rectangle of a frame, in pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def rows(self) -> slice:
        """The rows that the box covers."""
        return slice(self.top, self.top + self.height)

    @property
    def columns(self) -> slice:
        """The columns that the box covers."""
        return slice(self.left, self.left + self.width)

    def fits_in(self, height: float, width: float) -> bool:
        """Return whether the box lies within a frame of that size."""
        return min(self.top, self.left) >= 0 and self.rows.stop <= height and self.columns.stop <= width


def whole_pixel_shift(inverse: Matrix) -> tuple[int, int] | None:
    """Return the shift in pixels, (down, across), of a map that only shifts by whole pixels; None for other maps.

    >>> whole_pixel_shift(np.array([[1.0, 0, 4], [0, 1, -2], [0, 0, 1]]))
    (-2, 4)
    """
    (a, b, right), (c, d, down) = inverse[:2].tolist()  # in Python, because NumPy takes 20 us for so few numbers
    y, x = round(down), round(right)
    error = max(abs(a - 1), abs(b), abs(right - x), abs(c), abs(d - 1), abs(down - y))
    return None if error > _TOLERANCE**1.5 else (y, x)  # over a thousand pixels the error stays small


def _one_block(frames: Sequence[NDArray[Any]] | NDArray[Any]) -> NDArray[Any] | None:
    """Return frames as one array if they are at equal distances, as in a .npy file: saves 0.2 ms (25 x 150 x 150)."""
    if isinstance(frames, np.ndarray):
        return frames
    first = frames[0]
    distances = np.diff(addresses_of(frames)[0]) if all(frame.flags.c_contiguous for frame in frames) else np.zeros(1)
    distance = int(distances[0]) if len(distances) else first.nbytes
    if distance < first.nbytes or (distances != distance).any():
        return None
    return np.lib.stride_tricks.as_strided(first, (len(frames), *first.shape), (distance, *first.strides))


def _padded_count(frames: int, channels: int) -> int:
    # A whole number of SIMD vectors: 32 frames, 7 of them unused, took 0.43 ms, 25 took 0.74 (150 x 150, uint8).
    if frames * channels <= 8:
        return frames
    return 8 if frames <= 8 else -(-frames // 16) * 16


def invert(forward: Matrix) -> Matrix:
    """Return the inverse of an affine map. Computed in Python, because NumPy takes 10 us for so few numbers.

    Raises SettingError if there is no inverse.

    >>> invert(np.array([[2.0, 0.0, 6.0], [0.0, 4.0, 0.0], [0.0, 0.0, 1.0]])).tolist()
    [[0.5, -0.0, -3.0], [-0.0, 0.25, 0.0], [0.0, 0.0, 1.0]]
    """
    (a, b, right), (c, d, down) = np.asarray(forward, np.float64)[:2].tolist()
    area = a * d - b * c
    if area == 0:
        raise SettingError(
            f"the matrix {forward.tolist()} of a transform has no inverse: it maps all pixels to one line; "
            "give settings that keep height and width above 0"
        )
    a, b, c, d = d / area, -b / area, -c / area, a / area
    return np.array([[a, b, -a * right - b * down], [c, d, -c * right - d * down], [0.0, 0.0, 1.0]])


@compiled
def _shrink(
    inverse: Matrix, height: int, width: int, target_height: int, target_width: int, block_inverse: Matrix
) -> tuple[int, int, int, int, int, int]:
    """Write the map from the target to blocks into `scaled`, and return the `Blocks`. In Python it took 40 us."""
    down, across = shrink_factors(inverse, height, width)
    block_inverse[0], block_inverse[1], block_inverse[2] = (
        inverse[0] * (1 / across),
        inverse[1] * (1 / down),
        inverse[2],
    )
    top, rows = _needed_blocks(block_inverse[1], target_height, target_width, -(-height // down))
    left, columns = _needed_blocks(block_inverse[0], target_height, target_width, -(-width // across))
    return down, across, top, rows, left, columns


@compiled
def shrink_factors(inverse: Matrix, height: int, width: int) -> tuple[int, int]:
    """Return the size of the blocks of pixels that are averaged first, (down, across).

    >>> shrink_factors(np.diag([4.6, 1.2, 1.0]), 480, 640)
    (1, 4)
    """
    down, across = math.hypot(inverse[1, 0], inverse[1, 1]), math.hypot(inverse[0, 0], inverse[0, 1])
    return min(_block_size(down), height), min(_block_size(across), width)


@compiled
def _block_size(step: float) -> int:
    # Bilinear sampling alone aliases from a step of about 1.7: its blur is then below that of a box of one step.
    return 2 if 1.5 <= step < 2 else max(int(step + _TOLERANCE), 1)


@compiled
def _needed_blocks(row: Matrix, height: int, width: int, blocks: int) -> tuple[int, int]:
    """Return the first block that the target needs along one axis, and the number of blocks."""
    reach = abs(row[0]) * (width - 1) / 2 + abs(row[1]) * (height - 1) / 2
    centre = row[0] * width / 2 + row[1] * height / 2 + row[2]
    first = min(max(math.floor(centre - reach - 0.5 - _TOLERANCE), 0), blocks - 1)
    last = min(max(math.floor(centre + reach - 0.5 + _TOLERANCE) + 1, first), blocks - 1)
    return first, last - first + 1


def _sum_type(dtype: np.dtype[Any], count: int) -> np.dtype[Any]:
    """Return the smallest dtype that holds the sum of `count` pixels."""
    if count == 1:
        return dtype
    return np.dtype(np.uint16 if dtype == np.uint8 and count <= 257 else np.float32)


def _by_rows(frame: NDArray[Any]) -> NDArray[Any]:
    """Return the frame if its pixels are contiguous within each row, else a copy."""
    if frame.dtype not in _TYPES:  # which have the byte order of the machine
        raise SourceError(f"frames are {frame.dtype}; supported are {', '.join(map(str, _TYPES))}; convert them first")
    item = frame.itemsize
    packed_strides = (item,) if frame.ndim == 2 else (frame.shape[2] * item, item)
    rows_are_aligned = frame.strides[0] % item == 0 and frame.strides[0] >= frame.shape[1] * packed_strides[0]
    return frame if frame.strides[1:] == packed_strides and rows_are_aligned and frame.flags.aligned else frame.copy()
