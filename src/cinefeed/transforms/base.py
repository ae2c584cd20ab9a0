"""The transform protocols: sample the parameters once per clip, then apply them to all its frames."""

import inspect
import math
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.errors import MissingExtraError

Frames = NDArray[Any]
Parameters = dict[str, Any]

# The largest value of each dtype, to which Brightness clips. float32 frames have no fixed maximum.
TOPS: dict[np.dtype[Any], float] = {
    np.dtype(np.uint8): 255.0,
    np.dtype(np.uint16): 65535.0,
    np.dtype(np.float32): math.inf,
}


def dtype_of(name: str) -> np.dtype[Any]:
    """Return the dtype of a name. bfloat16 needs the package `ml_dtypes`, which is installed with Keras and JAX.

    >>> dtype_of("float16").itemsize, dtype_of("bfloat16").itemsize
    (2, 2)
    """
    if name == "bfloat16":
        try:
            import ml_dtypes  # noqa: F401  # registers the name with NumPy
        except ModuleNotFoundError as error:
            raise MissingExtraError("ml_dtypes", extra="keras") from error
    return np.dtype(name)


class ClipInfo(NamedTuple):
    """Shape of the clip for which parameters are sampled, before any pixel is read.

    `spacing_mm` is the pixel size of the target frame in millimetres, (down, across), or None if it is unknown.
    """

    frames: int
    height: int
    width: int
    channels: int
    spacing_mm: tuple[float, float] | None = None


@runtime_checkable
class Transform(Protocol):
    """A change of a clip in two steps: sample the parameters, then apply them.

    `sample` returns plain data that JSON can hold (numbers, text, lists), so that a clip can be reproduced. `apply` is
    pure: it does not modify its input and returns the same bytes for the same arguments. Frames are
    (frames, height, width, channels), uint8, uint16 or float32. The shape does not change.

    Optional members:
        output_dtype(dtype): the dtype of the result, if it differs from that of the input.
        apply(..., out=): an array for the result, if `apply` can write into one.
        identity(info): parameters that leave a clip unchanged.
        same_for_all_frames: False if equal frames of a clip may become different.
    """

    def sample(self, rng: np.random.Generator, info: ClipInfo) -> Parameters:
        """Return the parameters of one clip."""
        ...

    def apply(self, frames: Frames, parameters: Parameters) -> Frames:
        """Return the transformed frames."""
        ...


@runtime_checkable
class Geometric(Transform, Protocol):
    """A transform that moves pixels by an affine map. Adjacent ones are fused into one interpolation."""

    def matrix(self, parameters: Parameters, *, height: int, width: int) -> NDArray[np.float64]:
        """Return the forward map on a frame of `height` x `width`, float64 (3, 3).

        It maps (x, y, 1) in pixels, where the corner of the first pixel is (0, 0) and its centre (0.5, 0.5).
        """
        ...


class Warping(Transform, Protocol):
    """A transform that moves pixels by a map that is not affine. It is fused with adjacent affine ones."""

    def source_points(
        self, points: NDArray[np.float64], parameters: Parameters, *, height: int, width: int
    ) -> NDArray[np.float64]:
        """Return the source point of each target point (x, y), float64 (2, height, width): the inverse map."""
        ...


class Levels(Protocol):
    """Statistics of the values of a clip, before a pointwise transform changes them."""

    @property
    def frames(self) -> int:
        """The number of frames."""
        ...

    def frame_max(self) -> NDArray[np.float64]:
        """Return the largest value of each frame, (frames,)."""
        ...

    def lowest(self) -> float:
        """Return the smallest value of the clip, at most 0."""
        ...

    def mean_and_std(self) -> tuple[float, float]:
        """Return the mean and the standard deviation of the whole clip."""
        ...

    def percentiles(self, percents: Sequence[float]) -> list[float]:
        """Return percentiles of the whole clip, interpolated as by NumPy."""
        ...

    def histogram(self, top: float) -> NDArray[np.int64]:
        """Return the number of pixels nearest to each of 256 levels from 0 to `top`."""
        ...


def bottom_of(levels: Levels) -> float:
    """Return the value to which a transform clips its result: 0, but none if the clip has negative values."""
    return 0.0 if levels.lowest() == 0 else -math.inf


class Pointwise(Transform, Protocol):
    """A transform that maps each pixel by its value alone. Adjacent ones are fused into one look-up table."""

    def curve(self, values: Frames, parameters: Parameters, levels: Levels) -> Frames:
        """Return the transformed `values`, (1 or frames, height, width, channels), for a clip of these levels.

        `apply` must equal the curve of the frames themselves. The result may have more frames than `values`, if each
        frame has its own curve.
        """
        ...


class Temporal(Transform, Protocol):
    """A transform of time: it selects other frames of the video, before any frame is read."""

    def indices(self, indices: NDArray[np.int64], parameters: Parameters, count: int) -> NDArray[np.int64]:
        """Return the frame indices that replace `indices`: the same number of them, each from 0 to `count` - 1."""
        ...


class Choosing(Transform, Protocol):
    """A transform that applies a selection of its member transforms to each clip."""

    def select(self, parameters: Parameters) -> list[tuple[Transform, Parameters]]:
        """Return the transforms to apply, in order, with their parameters."""
        ...

    @property
    def members(self) -> tuple[Transform, ...]:
        """All transforms that may be selected."""
        ...


def output_dtype(transform: Transform, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of a transform's result for frames of `dtype`: the same, unless it has `output_dtype`."""
    change = getattr(transform, "output_dtype", None)
    return dtype if change is None else np.dtype(change(dtype))


def writes_in_place(transform: Transform) -> bool:
    """Return whether `apply` takes `out=`."""
    return _takes_out(type(transform))


@cache
def _takes_out(kind: type) -> bool:
    return "out" in inspect.signature(kind.apply).parameters  # type: ignore[attr-defined]  # inspected for every clip it takes 0.05 ms


def is_random(transform: Transform, *, info: ClipInfo | None = None) -> bool:
    """Return whether `sample` uses the generator. If not, the transform is the same for all clips.

    `info` describes the clips. Some transforms reject other clips: constants for three channels need three channels.

    >>> from cinefeed.transforms.geometry import Rotate
    >>> is_random(Rotate(degrees=25))
    True
    """
    rng = np.random.Generator(np.random.PCG64(0))
    before = rng.bit_generator.state
    transform.sample(rng, info or ClipInfo(frames=2, height=8, width=8, channels=1, spacing_mm=(1.0, 1.0)))
    return bool(rng.bit_generator.state != before)
