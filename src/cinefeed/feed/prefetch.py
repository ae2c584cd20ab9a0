"""Prefetch batches: keep the workers busy, and return the batches in order, across epochs."""

from collections import deque
from collections.abc import Callable
from typing import Literal

from cinefeed.feed.batch import Batch
from cinefeed.feed.batch_builder import BatchBuilder, Pending
from cinefeed.feed.fetch_ahead import FetchAhead
from cinefeed.feed.stats import StatsRecorder
from cinefeed.feed.workers.pools import WorkerPool


def buffers_ahead(prefetch: int | Literal["auto"], *, workers: int, draws: int, batches: int) -> int:
    """Return how many buffers of `draws` draws, in `batches` batches, are made ahead of the one in use.

    "auto" is 2: one is finished while the other is made. If batches are small there are more, so that no worker is
    idle while a batch is returned.

    >>> buffers_ahead("auto", workers=2, draws=16, batches=1), buffers_ahead("auto", workers=8, draws=4, batches=1)
    (2, 4)
    """
    depth = 2 if prefetch == "auto" else prefetch
    return max(-(-depth // batches), -(-2 * workers // draws)) if workers else 0


class BatchPrefetcher:
    """The workers of a feed, and the batches that they have started, from (epoch, index) on.

    A buffer is one batch, or all batches of the same videos if they are interleaved. While one buffer is awaited,
    `ahead` others are in progress. With `prefetch_next_epoch`, the first buffers of the next epoch follow the last of
    an epoch, so that no worker is idle while the last clips of an epoch are made.
    """

    def __init__(
        self,
        worker_pool: WorkerPool,
        *,
        builder: BatchBuilder,
        epoch: int,
        index: int,
        ahead: int,
        prefetch_next_epoch: bool,
        warm: bool,
        fetch_ahead: FetchAhead | None = None,
        next_epoch: Callable[[int], int] = lambda epoch: epoch + 1,
    ) -> None:
        self.worker_pool = worker_pool
        self.pending: deque[Pending] = deque()
        self.ready: deque[Batch] = deque()  # the remaining batches of a buffer
        self.epoch = epoch  # of the next buffer to start, and its number in that epoch
        self.index, self._passed_over = divmod(index, builder.layout.batches)
        self._builder = builder
        self._ahead = ahead
        self._prefetch_next_epoch = prefetch_next_epoch
        self._warm = warm  # the kernels are compiled
        self._fetch_ahead = fetch_ahead
        self._next_epoch = next_epoch

    def take(self, epoch: int, *, meter: StatsRecorder) -> Batch:
        """Return the next batch of an epoch, and start those after it."""
        if not self.ready:
            while len(self.pending) <= self._ahead and self._begin(epoch):
                pass
            self.ready.extend(self._builder.finish(self.pending.popleft(), self.worker_pool, meter))
            if self._fetch_ahead is not None:
                self._fetch_ahead.finish()
            while self._passed_over:  # those that were handed out before a resume
                self.ready.popleft()
                self._passed_over -= 1
        return self.ready.popleft()

    def end(self, epoch: int) -> None:
        """Record that all batches of an epoch were returned."""
        if self.epoch == epoch:
            self.epoch, self.index = epoch + 1, 0

    def drop(self) -> bool:
        """Cancel all batches in progress; return whether the workers can make other batches."""
        self.stop_fetching()
        able = self.worker_pool.drop([clip for pending in self.pending for clip in pending.clips])
        self.pending.clear()
        self.ready.clear()
        return able

    def stop(self) -> None:
        """End the fetches, so that no worker waits for one, and the workers."""
        self.stop_fetching()
        self.worker_pool.stop()

    def stop_fetching(self) -> None:
        """End the fetches of remote files, and release those that were fetched."""
        if self._fetch_ahead is not None:
            self._fetch_ahead.stop()

    def _begin(self, epoch: int) -> bool:
        """Start one more buffer, of this epoch or the next; return whether there was one."""
        if self.index == self._builder.num_buffers(self.epoch):
            if self.epoch > epoch or not self._prefetch_next_epoch:
                return False
            self.epoch, self.index = self.epoch + 1, 0
            return True
        if self._fetch_ahead is not None:
            following: tuple[int, int] | None = (self.epoch, self.index + 1)
            if self.index + 1 == self._builder.num_buffers(self.epoch):
                following = (self.epoch + 1, 0) if self._prefetch_next_epoch else None
            self._fetch_ahead.begin(
                (self.epoch, self.index),
                following=following,
                next_epoch=self._next_epoch(self.epoch),
                goes_on=self._prefetch_next_epoch,
            )
        # The first clip compiles or loads the kernels: one worker makes it, the others wait.
        pending = self._builder.begin(self.index, self.epoch, self.worker_pool, first_alone=not self._warm)
        self.pending.append(pending)
        self.index += 1
        self._warm = True
        return True
