"""Preallocated batch arrays, leased: a slot comes back when the last array that looks into it has died."""

import weakref
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class _Lease:
    """The base of every array on a slot. NumPy keeps it alive as long as any view, of any library, lives."""

    __slots__ = ("__array_interface__", "__weakref__", "store")

    def __init__(self, store: NDArray[Any]) -> None:
        self.store = store
        self.__array_interface__ = store.__array_interface__


class Slots:
    """A pool of arrays of one shape. Memory grows to the number of arrays held at once, and no further.

    >>> slots = Slots((2, 3), dtype="uint8")
    >>> first = slots.lease()
    >>> view = first[0]
    >>> del first
    >>> slots.free
    0
    >>> del view
    >>> slots.free
    1
    """

    def __init__(self, shape: tuple[int, ...], *, dtype: DTypeLike) -> None:
        self._shape = shape
        self._dtype = np.dtype(dtype)
        self._free: deque[NDArray[Any]] = deque()

    @property
    def free(self) -> int:
        """Number of slots that nobody holds."""
        return len(self._free)

    def lease(self) -> NDArray[Any]:
        """Return an array of the pool's shape. What stands in it is whatever was there before."""
        try:
            store = self._free.pop()
        except IndexError:
            store = np.empty(self._shape, self._dtype)
        lease = _Lease(store)
        weakref.finalize(lease, self._free.append, store).atexit = False
        return np.asarray(lease)
