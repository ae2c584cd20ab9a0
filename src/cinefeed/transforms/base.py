"""What a transform is: it draws parameters once a clip, then applies them to all its frames."""

import inspect
import math
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from cinefeed.errors import MissingExtraError

Frames = NDArray[Any]
Parameters = dict[str, Any]

# The largest value of a type: what Brightness clips to. float32 frames have no agreed top.
TOPS: dict[np.dtype[Any], float] = {
    np.dtype(np.uint8): 255.0,
    np.dtype(np.uint16): 65535.0,
    np.dtype(np.float32): math.inf,
}


def dtype_of(name: str) -> np.dtype[Any]:
    """Return the type of a name; bfloat16 is NumPy's only with the package `ml_dtypes`, which comes with Keras and JAX.

    >>> dtype_of("float16").itemsize, dtype_of("bfloat16").itemsize
    (2, 2)
    """
    if name == "bfloat16":
        try:
            import ml_dtypes  # noqa: F401  # NumPy knows the name from then on
        except ImportError as error:
            raise MissingExtraError("ml_dtypes", extra="keras") from error
    return np.dtype(name)


class ClipInfo(NamedTuple):
    """The clip that parameters are drawn for: the target's shape, before any pixel is read.

    `spacing_mm` is the size of a pixel of the target, (down, across), where the file tells it.
    """

    frames: int
    height: int
    width: int
    channels: int
    spacing_mm: tuple[float, float] | None = None


@runtime_checkable
class Transform(Protocol):
    """One change of a clip, in two steps: draw the parameters, then apply them.

    `sample` returns plain data (numbers, text, lists: what JSON holds), so that a clip can be made again. `apply` is
    pure: it leaves its input alone and returns the same bytes for the same arguments. Frames are
    (frames, height, width, channels), uint8, uint16 or float32, and keep their shape.

    A transform may also have `output_dtype(dtype)`, where it changes the type; take `out=` in `apply`, where it can
    write its result in place; have `identity(info)`, the parameters that leave a clip as it is; and say by
    `alike = False` that it does not treat all frames the same.
    """

    def sample(self, rng: np.random.Generator, info: ClipInfo) -> Parameters:
        """Return the parameters of one clip."""
        ...

    def apply(self, frames: Frames, parameters: Parameters) -> Frames:
        """Return the changed frames."""
        ...


@runtime_checkable
class Geometric(Transform, Protocol):
    """A transform that moves pixels by an affine map; neighbouring ones are fused into one interpolation."""

    def matrix(self, parameters: Parameters, *, height: int, width: int) -> NDArray[np.float64]:
        """Return the forward map on a frame of `height` x `width`, float64 (3, 3).

        It maps (x, y, 1) in pixels, where the corner of the first pixel is (0, 0) and its centre (0.5, 0.5).
        """
        ...


class Warping(Transform, Protocol):
    """A transform that moves pixels by any other map; it is fused with its affine neighbours."""

    def source_points(
        self, points: NDArray[np.float64], parameters: Parameters, *, height: int, width: int
    ) -> NDArray[np.float64]:
        """Return where each target point (x, y), float64 (2, height, width), comes from: the inverse map."""
        ...


class Levels(Protocol):
    """What is known of the values of a clip, before a pointwise transform changes them."""

    @property
    def frames(self) -> int:
        """The number of frames."""
        ...

    def frame_max(self) -> NDArray[np.float64]:
        """Return the largest value of each frame, (frames,)."""
        ...

    def mean_and_std(self) -> tuple[float, float]:
        """Return both, over the whole clip."""
        ...

    def percentiles(self, percents: Sequence[float]) -> list[float]:
        """Return percentiles of the whole clip, interpolated as NumPy does."""
        ...

    def histogram(self, top: float) -> NDArray[np.int64]:
        """Return how many pixels lie at each of 256 levels from 0 to `top`, each at its nearest level."""
        ...


class Pointwise(Transform, Protocol):
    """A transform that maps each pixel by its value alone; neighbouring ones are fused into one look-up table."""

    def curve(self, values: Frames, parameters: Parameters, levels: Levels) -> Frames:
        """Return what `values`, (1 or frames, height, width, channels), become in a clip of these levels.

        `apply` is the curve of the frames themselves. A result may have more frames than `values`: one curve each.
        """
        ...


class Temporal(Transform, Protocol):
    """A transform of time: it chooses other frames of the video, before one is read."""

    def indices(self, indices: NDArray[np.int64], parameters: Parameters, count: int) -> NDArray[np.int64]:
        """Return the frame numbers that take the place of `indices`, as many, within 0 and `count` - 1."""
        ...


class Choosing(Transform, Protocol):
    """A transform made of others, of which each clip gets some, in some order."""

    def select(self, parameters: Parameters) -> list[tuple[Transform, Parameters]]:
        """Return the transforms that a clip gets, with their parameters."""
        ...

    @property
    def members(self) -> tuple[Transform, ...]:
        """All that may be chosen."""
        ...


def output_dtype(transform: Transform, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type that a transform makes of frames of `dtype`: the same, unless it says otherwise."""
    change = getattr(transform, "output_dtype", None)
    return dtype if change is None else np.dtype(change(dtype))


def writes_in_place(transform: Transform) -> bool:
    """Return whether `apply` takes `out=`."""
    return _takes_out(type(transform))


@cache
def _takes_out(kind: type) -> bool:
    return "out" in inspect.signature(kind.apply).parameters  # type: ignore[attr-defined]  # looked at a clip: 0.05 ms


def is_random(transform: Transform, *, info: ClipInfo | None = None) -> bool:
    """Return whether `sample` takes from the generator: only then may two clips of one video differ by it.

    `info` is of the clips to come; some transforms refuse others, such as constants for three channels a grey clip.

    >>> from cinefeed.transforms.geometry import Rotate
    >>> is_random(Rotate(degrees=25))
    True
    """
    rng = np.random.Generator(np.random.PCG64(0))
    before = rng.bit_generator.state
    transform.sample(rng, info or ClipInfo(frames=2, height=8, width=8, channels=1, spacing_mm=(1.0, 1.0)))
    return bool(rng.bit_generator.state != before)
