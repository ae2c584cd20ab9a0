"""The workers that make clips: the caller itself or threads, and the interface that processes have too."""

import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Literal, Protocol

from cinefeed.feed.clip_pipeline import ClipPipeline, ClipTimings, PlanEntry
from cinefeed.feed.workers.buffers import BatchBuffer

Backend = Literal["thread", "process"]


class WorkerPool(Protocol):
    """Workers that write clips into buffers. Only one thread may submit."""

    @property
    def ready(self) -> bool:
        """Whether all workers have started."""
        ...

    @property
    def pids(self) -> Sequence[int]:
        """The process ids of the workers; empty for threads."""
        ...

    def submit(self, draws: Mapping[int, PlanEntry], buffer: BatchBuffer) -> list[Future[ClipTimings]]:
        """Make clips into the places of a buffer; the future of each holds its timings or its error."""
        ...

    def drop(self, clips: Sequence[Future[ClipTimings]]) -> bool:
        """Cancel the clips that were not started, wait for the rest, and return whether the workers can continue."""
        ...

    def stop(self) -> None:
        """Cancel the clips that were not started, wait for the rest, and release everything. May be called twice."""
        ...


class InlinePool:
    """Makes each clip in the caller, when it is submitted."""

    ready = True
    pids: Sequence[int] = ()

    def __init__(self, pipeline: ClipPipeline) -> None:
        self._pipeline = pipeline

    def submit(self, draws: Mapping[int, PlanEntry], buffer: BatchBuffer) -> list[Future[ClipTimings]]:
        """Make the clips now."""
        return [self._make(draw, buffer, place) for place, draw in draws.items()]

    def drop(self, clips: Sequence[Future[ClipTimings]]) -> bool:
        """Return True: no clip is in progress."""
        return True

    def stop(self) -> None:
        """Do nothing: there is no worker."""

    def _make(self, draw: PlanEntry, buffer: BatchBuffer, place: int) -> Future[ClipTimings]:
        future: Future[ClipTimings] = Future()
        try:
            future.set_result(self._pipeline.make(draw, *buffer.place(place)))
        except Exception as error:
            future.set_exception(error)
        try:
            return future
        finally:
            del future  # its error refers to this frame, and would hold the buffer


class ThreadPool:
    """Threads of this process. They scale if C calls are long: FFmpeg, OpenCV and our kernels release the GIL."""

    ready = True
    pids: Sequence[int] = ()

    def __init__(self, pipeline: ClipPipeline, *, count: int) -> None:
        self._pipeline = pipeline
        self._count = count
        self._stopped = False
        self._open()

    def submit(self, draws: Mapping[int, PlanEntry], buffer: BatchBuffer) -> list[Future[ClipTimings]]:
        """Queue the clips; the next free thread makes each."""
        return [self._pool.submit(self._pipeline.make, draw, *buffer.place(place)) for place, draw in draws.items()]

    def drop(self, clips: Sequence[Future[ClipTimings]]) -> bool:
        """End all threads, which frees the memory of their clips; new ones start with the next clip."""
        if self._stopped:
            return False
        self._close()
        self._open()
        return True

    def stop(self) -> None:
        """Cancel the clips that were not started, and wait for the rest."""
        self._stopped = True
        self._close()

    def _close(self) -> None:
        with suppress(RuntimeError):  # one of the threads has collected an iterator, and cannot wait for itself
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._end.detach()

    def _open(self) -> None:
        self._pool = ThreadPoolExecutor(self._count, thread_name_prefix="cinefeed")
        self._end = weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)
