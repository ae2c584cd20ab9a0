"""Preallocated batch memory, leased: a slot comes back when the last array that looks into it has died."""

import mmap
import os
import weakref
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cinefeed.errors import FeedError


@dataclass(frozen=True, eq=False)
class Slot:
    """The arrays of one batch. `fd` is the file descriptor of its memory where that is shared, else -1."""

    clips: NDArray[Any]  # (batch, frames, height, width, channels)
    valid: NDArray[np.bool_]  # (batch, frames)
    number: int
    fd: int


def slot_bytes(shape: tuple[int, ...], dtype: DTypeLike) -> int:
    """Return the size of a slot for batches of `shape`: the clips, and a byte a frame that says if it is valid."""
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize + shape[0] * shape[1]


class _Lease:
    """The base of every array on a slot. NumPy keeps it alive as long as any view, of any library, lives."""

    __slots__ = ("__array_interface__", "__weakref__", "memory")

    def __init__(self, memory: NDArray[np.uint8]) -> None:
        self.memory = memory
        self.__array_interface__ = memory.__array_interface__


class _Held(weakref.ref[_Lease]):
    """What a slot is known by while somebody holds it."""

    __slots__ = ("memory", "number")
    memory: NDArray[np.uint8]
    number: int


class Slots:
    """A pool of batches' memory. It grows to the number of batches held at once, up to `limit`, and no further.

    `shared` memory is a file without a name (memfd), which other processes map: nothing is left behind, whoever dies.

    >>> slots = Slots((2, 3, 4, 4, 1), dtype="uint8")
    >>> first = slots.lease().clips
    >>> view = first[0]
    >>> del first
    >>> slots.free
    0
    >>> del view
    >>> slots.free
    1
    """

    def __init__(
        self, shape: tuple[int, ...], *, dtype: DTypeLike, shared: bool = False, limit: int | None = None
    ) -> None:
        self._shape = shape
        self._dtype = np.dtype(dtype)
        self.nbytes = slot_bytes(shape, dtype)
        self._clip_bytes = self.nbytes - shape[0] * shape[1]
        self._shared = shared
        self._limit = limit
        self._made: list[int] = []  # file descriptors, by number of the slot
        self._held: dict[int, _Held] = {}
        # The callback is a function in C: Ctrl-C while one in Python ran would be printed there, and lost.
        self._returned: deque[_Held] = deque()
        weakref.finalize(self, _close, self._made)

    @property
    def free(self) -> int:
        """Number of slots that nobody holds."""
        return len(self._returned)

    @property
    def made(self) -> int:
        """Number of slots that there are."""
        return len(self._made)

    def lease(self) -> Slot:
        """Return a slot. What stands in it is whatever was there before.

        Raises FeedError where all that the limit allows are held.
        """
        try:
            last = self._returned.pop()
            number, memory = last.number, last.memory
        except IndexError:
            number, memory = self._make()
        lease = _Lease(memory)
        held = _Held(lease, self._returned.append)
        held.number, held.memory = number, memory
        self._held[number] = held
        whole = np.asarray(lease)
        clips = whole[: self._clip_bytes].view(self._dtype).reshape(self._shape)
        valid = whole[self._clip_bytes :].view(np.bool_).reshape(self._shape[:2])
        return Slot(clips, valid, number, self._made[number])

    def _make(self) -> tuple[int, NDArray[np.uint8]]:
        number = len(self._made)
        if self._limit is not None and number >= self._limit:
            raise FeedError(
                f"all {number} batches that the memory budget allows are held ({self.nbytes * number / 1e6:.0f} MB); "
                "let go of some, copy what you keep, or give more memory="
            )
        if not self._shared:
            self._made.append(-1)
            return number, np.empty(self.nbytes, np.uint8)
        fd = os.memfd_create("cinefeed")
        self._made.append(fd)
        os.ftruncate(fd, self.nbytes)
        return number, np.frombuffer(mmap.mmap(fd, self.nbytes), np.uint8)


def map_slot(fd: int, shape: tuple[int, ...], *, dtype: DTypeLike, number: int) -> Slot:
    """Return a slot that another process made, by its file descriptor."""
    whole = np.frombuffer(mmap.mmap(fd, slot_bytes(shape, dtype)), np.uint8)
    size = len(whole) - shape[0] * shape[1]
    clips = whole[:size].view(dtype).reshape(shape)
    return Slot(clips, whole[size:].view(np.bool_).reshape(shape[:2]), number, fd)


def _close(descriptors: list[int]) -> None:
    for fd in descriptors:
        if fd >= 0:
            os.close(fd)
