"""Who makes the clips: the caller itself, threads, or processes, behind one small interface."""

import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Literal, Protocol

from cinefeed.cores import usable_cores
from cinefeed.feed.clip import ClipMaker, Draw, Took
from cinefeed.feed.slots import Slot

Backend = Literal["thread", "process"]


class Crew(Protocol):
    """Workers that write clips into slots. One thread submits."""

    @property
    def ready(self) -> bool:
        """Whether all workers can work, and none is still starting."""
        ...

    @property
    def pids(self) -> Sequence[int]:
        """The process numbers of the workers, none for threads."""
        ...

    def submit(self, draws: Mapping[int, Draw], slot: Slot) -> list[Future[Took]]:
        """Have clips made into a slot, by place; the future of each holds its error, or the time that it took."""
        ...

    def drop(self, clips: Sequence[Future[Took]]) -> bool:
        """Drop those of the clips that have not begun, and wait for the rest; say whether the workers can go on."""
        ...

    def stop(self) -> None:
        """Drop what has not begun, wait for the rest, and leave nothing behind. Stopping twice is harmless."""
        ...


class InlineCrew:
    """The caller makes each clip as it is submitted."""

    ready = True
    pids: Sequence[int] = ()

    def __init__(self, maker: ClipMaker) -> None:
        self._maker = maker

    def submit(self, draws: Mapping[int, Draw], slot: Slot) -> list[Future[Took]]:
        """Make the clips now."""
        return [self._made(draw, slot, place) for place, draw in draws.items()]

    def drop(self, clips: Sequence[Future[Took]]) -> bool:
        """Nothing is under way."""
        return True

    def stop(self) -> None:
        """Nothing is to be stopped."""

    def _made(self, draw: Draw, slot: Slot, place: int) -> Future[Took]:
        future: Future[Took] = Future()
        try:
            future.set_result(self._maker.make(draw, *slot.place(place)))
        except Exception as error:
            future.set_exception(error)
        try:
            return future
        finally:
            del future  # its error knows this frame, and would hold the slot


class ThreadCrew:
    """Threads of this process. They scale where C calls are long: FFmpeg, OpenCV and our kernels release the GIL."""

    ready = True
    pids: Sequence[int] = ()

    def __init__(self, maker: ClipMaker, *, count: int) -> None:
        self._maker = maker
        self._count = count
        self._stopped = False
        self._open()

    def submit(self, draws: Mapping[int, Draw], slot: Slot) -> list[Future[Took]]:
        """Have each clip made by the next thread that is free."""
        return [self._pool.submit(self._maker.make, draw, *slot.place(place)) for place, draw in draws.items()]

    def drop(self, clips: Sequence[Future[Took]]) -> bool:
        """End all threads: once they are gone a clip's memory is free, and others start with the next clip."""
        if self._stopped:
            return False
        self._close()
        self._open()
        return True

    def stop(self) -> None:
        """Drop what has not begun, and wait for the rest."""
        self._stopped = True
        self._close()

    def _close(self) -> None:
        with suppress(RuntimeError):  # one of the threads has collected an iterator, and cannot wait for itself
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._end.detach()

    def _open(self) -> None:
        self._pool = ThreadPoolExecutor(self._count, thread_name_prefix="cinefeed")
        self._end = weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)


def count_workers(count: int | Literal["auto"]) -> int:
    """Return a number of workers; "auto" is one a usable core."""
    return usable_cores() if count == "auto" else count
