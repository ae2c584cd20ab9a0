"""Loops compiled by numba, and their arguments: addresses of arrays, and values in an array's type."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit, types
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

from cinefeed.core.kernel_cache import KernelCache

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def compiled(function: Kernel) -> Kernel:
    """Compile a loop with numba. It releases the GIL; machine code of this package is cached on disk.

    Without fastmath and parallel, the same input gives the same bytes on any number of threads. Pass contiguous arrays:
    every other memory layout needs another compilation.

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


def round_like(value: Any, like: Any) -> Any:
    """Return a float32 rounded to the nearest integer, halves up, if `like` holds integers, else unchanged."""


# strict=True compares annotations too, and a lambda has none
@overload(round_like, strict=False)  # type: ignore[untyped-decorator]
def _round_like_overload(value: Any, like: Any) -> Any:
    if isinstance(like.dtype, types.Float):
        return lambda value, like: value
    return lambda value, like: np.int32(value + np.float32(0.5))
