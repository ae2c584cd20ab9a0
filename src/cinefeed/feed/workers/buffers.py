"""A pool of batch memory: a buffer is reused when the last array on its memory has been deleted."""

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
from cinefeed.feed.batch_layout import BatchLayout


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
    """The base of every array on a buffer. NumPy keeps it alive while any view, of any library, exists."""

    __slots__ = ("__array_interface__", "__weakref__", "memory")

    def __init__(self, memory: NDArray[np.uint8]) -> None:
        self.memory = memory
        self.__array_interface__ = memory.__array_interface__


class _LeaseReference(weakref.ref[_Lease]):
    """A weak reference to the lease of a buffer, with the memory that becomes free with it."""

    __slots__ = ("memory", "number")
    memory: NDArray[np.uint8]
    number: int


class BufferPool:
    """A pool of batch memory. It grows to the number of batches that are held at the same time, at most `limit`.

    `shared` memory is a file without a name (memfd), which other processes map: no file is left if a process is killed.

    >>> buffers = BufferPool(BatchLayout(draws=2, shape=(1, 1, 3, 4, 4, 1)))
    >>> first = buffers.lease().clips
    >>> view = first[0]
    >>> del first
    >>> buffers.free
    0
    >>> del view
    >>> buffers.free
    1
    """

    def __init__(self, layout: BatchLayout, *, shared: bool = False, limit: int | None = None) -> None:
        self._layout = layout
        self._shared = shared
        self._limit = limit
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._descriptors: list[int] = []  # file descriptors, by number of the buffer
        self._leases: dict[int, _LeaseReference] = {}
        # The callback is a C function: in a Python function, Ctrl-C would be printed and ignored.
        self._free: deque[_LeaseReference] = deque()
        weakref.finalize(self, _close, self._descriptors)

    @property
    def free(self) -> int:
        """Number of buffers that are not in use."""
        return len(self._free)

    @property
    def size(self) -> int:
        """Number of buffers in the pool."""
        return len(self._descriptors)

    def lease(self) -> BatchBuffer:
        """Return a buffer with uninitialised content.

        Raises FeedError if all buffers that the limit allows are in use.
        """
        if self._pid != os.getpid():  # this is a fork, and its shared memory is that of its parent too
            self._begin()
        try:
            last = self._free.pop()
            number, memory = last.number, last.memory
        except IndexError:
            number, memory = self._make()
        lease = _Lease(memory)
        reference = _LeaseReference(lease, self._free.append)
        reference.number, reference.memory = number, memory
        self._leases[number] = reference
        return _buffer(self._layout, np.asarray(lease), number, self._descriptors[number])

    def _make(self) -> tuple[int, NDArray[np.uint8]]:
        number, size = len(self._descriptors), self._layout.nbytes
        if self._limit is not None and number >= self._limit:
            raise FeedError(
                f"all {number * self._layout.batches} batches that the memory budget allows are held "
                f"({format_bytes(size * number)}); delete some, copy those that you keep, or increase memory="
            )
        if not self._shared:
            self._descriptors.append(-1)
            return number, np.empty(size, np.uint8)
        fd = os.memfd_create("cinefeed")
        self._descriptors.append(fd)
        os.ftruncate(fd, size)
        return number, np.frombuffer(mmap.mmap(fd, size), np.uint8)


def map_buffer(fd: int, layout: BatchLayout, *, number: int) -> BatchBuffer:
    """Return a buffer that another process made, by its file descriptor."""
    return _buffer(layout, np.frombuffer(mmap.mmap(fd, layout.nbytes), np.uint8), number, fd)


def _buffer(layout: BatchLayout, memory: NDArray[np.uint8], number: int, fd: int) -> BatchBuffer:
    return BatchBuffer(*layout.arrays(memory), number, fd, layout.masks_in(memory))


def _close(descriptors: list[int]) -> None:
    for fd in descriptors:
        if fd >= 0:
            os.close(fd)
