"""A pool of batch memory: a slot is reused when the last array on its memory has been deleted."""

import mmap
import os
import weakref
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.errors import FeedError
from cinefeed.core.text import format_bytes
from cinefeed.feed.batch_layout import Layout


@dataclass(frozen=True, eq=False)
class BatchBuffer:
    """The arrays of a batch, or of all batches of the same videos if they are interleaved.

    `fd` is the file descriptor of shared memory, else -1.
    """

    clips: NDArray[Any]  # (draws, clips, views, frames, height, width, channels)
    valid: NDArray[np.bool_]  # (draws, clips, frames)
    number: int
    fd: int
    masks: NDArray[np.uint8] | None = None  # (draws, clips, views, frames, height, width, 1)

    def place(self, draw: int) -> tuple[NDArray[Any], ...]:
        """Return the arrays of one draw, filled by `ClipPipeline.make`: clips, `valid`, and masks if there are any."""
        masks = () if self.masks is None else (self.masks[draw],)
        return self.clips[draw], self.valid[draw], *masks


class _Lease:
    """The base of every array on a slot. NumPy keeps it alive while any view, of any library, exists."""

    __slots__ = ("__array_interface__", "__weakref__", "memory")

    def __init__(self, memory: NDArray[np.uint8]) -> None:
        self.memory = memory
        self.__array_interface__ = memory.__array_interface__


class _Held(weakref.ref[_Lease]):
    """A weak reference to the lease of a slot, with the memory that becomes free with it."""

    __slots__ = ("memory", "number")
    memory: NDArray[np.uint8]
    number: int


class BufferPool:
    """A pool of batch memory. It grows to the number of batches that are held at the same time, at most `limit`.

    `shared` memory is a file without a name (memfd), which other processes map: no file is left if a process is killed.

    >>> slots = BufferPool(Layout(draws=2, shape=(1, 1, 3, 4, 4, 1)))
    >>> first = slots.lease().clips
    >>> view = first[0]
    >>> del first
    >>> slots.free
    0
    >>> del view
    >>> slots.free
    1
    """

    def __init__(self, layout: Layout, *, shared: bool = False, limit: int | None = None) -> None:
        self._layout = layout
        self._shared = shared
        self._limit = limit
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._made: list[int] = []  # file descriptors, by number of the slot
        self._held: dict[int, _Held] = {}
        # The callback is a C function: in a Python function, Ctrl-C would be printed and ignored.
        self._returned: deque[_Held] = deque()
        weakref.finalize(self, _close, self._made)

    @property
    def free(self) -> int:
        """Number of slots that are not in use."""
        return len(self._returned)

    @property
    def made(self) -> int:
        """Number of slots in the pool."""
        return len(self._made)

    def lease(self) -> BatchBuffer:
        """Return a slot with uninitialised content.

        Raises FeedError if all slots that the limit allows are in use.
        """
        if self._pid != os.getpid():  # this is a fork, and its shared memory is that of its parent too
            self._begin()
        try:
            last = self._returned.pop()
            number, memory = last.number, last.memory
        except IndexError:
            number, memory = self._make()
        lease = _Lease(memory)
        held = _Held(lease, self._returned.append)
        held.number, held.memory = number, memory
        self._held[number] = held
        return _slot(self._layout, np.asarray(lease), number, self._made[number])

    def _make(self) -> tuple[int, NDArray[np.uint8]]:
        number, size = len(self._made), self._layout.nbytes
        if self._limit is not None and number >= self._limit:
            raise FeedError(
                f"all {number * self._layout.batches} batches that the memory budget allows are held "
                f"({format_bytes(size * number)}); delete some, copy those that you keep, or increase memory="
            )
        if not self._shared:
            self._made.append(-1)
            return number, np.empty(size, np.uint8)
        fd = os.memfd_create("cinefeed")
        self._made.append(fd)
        os.ftruncate(fd, size)
        return number, np.frombuffer(mmap.mmap(fd, size), np.uint8)


def map_slot(fd: int, layout: Layout, *, number: int) -> BatchBuffer:
    """Return a slot that another process made, by its file descriptor."""
    return _slot(layout, np.frombuffer(mmap.mmap(fd, layout.nbytes), np.uint8), number, fd)


def _slot(layout: Layout, memory: NDArray[np.uint8], number: int, fd: int) -> BatchBuffer:
    return BatchBuffer(*layout.arrays(memory), number, fd, layout.masks_in(memory))


def _close(descriptors: list[int]) -> None:
    for fd in descriptors:
        if fd >= 0:
            os.close(fd)
