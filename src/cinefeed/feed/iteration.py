"""The epochs of a feed: the start of an iteration, its only valid iterator, and the workers between iterations."""

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator

from cinefeed.core.errors import StaleIteratorError
from cinefeed.core.machine import CpuMeter
from cinefeed.feed.batch import Batch
from cinefeed.feed.batch_builder import BatchBuilder
from cinefeed.feed.clip_pipeline import PlanEntry
from cinefeed.feed.fetch_ahead import FetchAhead
from cinefeed.feed.prefetch import BatchPrefetcher
from cinefeed.feed.stats import StatsRecorder
from cinefeed.feed.workers.autotune import BackendChoice
from cinefeed.feed.workers.pools import WorkerPool

_log = logging.getLogger(__name__)

ADVICE = (
    "begin another with iter(). To look at a batch without disturbing an iteration, use feed.batch(i); to iterate "
    "twice at the same time, make a second feed"
)
_MEASURED_SECONDS = 1.0  # between two measurements of the CPU load, which take 0.1 ms
_TRIAL_DRAWS = 64  # maximum number of clips that are timed to choose the backend


class Epochs:
    """The place of a feed, its one valid iterator, and its workers.

    The place is an epoch, the batch from which it is iterated over (above 0 after a resume), and the number of its
    batches that were handed out or skipped. An epoch is unfinished if some were handed out since `start`, but not all.
    `repeats`, for evaluations: every epoch is epoch 0, and no batch is made before its iteration starts.
    """

    def __init__(
        self,
        *,
        builder: BatchBuilder,
        meter: StatsRecorder,
        start_pool: Callable[..., tuple[WorkerPool, BackendChoice | None]],
        choice: BackendChoice | None,
        workers: int,
        ahead: int,
        fetch_ahead: FetchAhead | None = None,
    ) -> None:
        self.builder = builder
        self.meter = meter
        self.choice = choice
        self.cpu = CpuMeter()
        self.repeats = False
        self.epoch = 0
        self.start = 0
        self.handed = 0
        self.latest_pool: weakref.ref[WorkerPool] | None = None
        self._start_pool = start_pool
        self._workers = workers
        self._ahead = ahead
        self._fetch_ahead = fetch_ahead
        self._iterator: weakref.ref[EpochIterator] | None = None
        self._prefetcher: BatchPrefetcher | None = None  # between two epochs
        self._worker_pool: WorkerPool | None = None  # idle, for the next iteration
        self._renew()

    @property
    def next_epoch(self) -> int:
        """The epoch of the next iteration: the one after an unfinished epoch, else that of the place."""
        return self._following(self.epoch) if self.handed > self.start else self.epoch

    def begin(self) -> "EpochIterator":
        """Return an iterator; older ones are stale from now on. An unfinished epoch is abandoned for the next one."""
        self._leave_parent()
        with self.lock:
            self._end_iterator("a newer iter() of the feed took over")
            if self.handed > self.start:
                self.epoch, self.start, self.handed = self.next_epoch, 0, 0
            iterator = EpochIterator(self)
            self._iterator = weakref.ref(iterator)
            return iterator

    def go_to(self, epoch: int, batch: int, *, by: str) -> None:
        """Move to a batch of an epoch, or to the next epoch if it has no more. `by` is the reason in later errors.

        An iterator that has not returned a batch stays valid and begins at this place, because frameworks create the
        iterator first, and then call set_epoch or restore.
        """
        self._leave_parent()
        with self.lock:
            if (epoch, batch, batch) == (self.epoch, self.start, self.handed):
                return  # the workers continue
            if batch and batch >= self.builder.count(epoch):
                epoch, batch = self._following(epoch), 0
            self.break_off(by)
            self.epoch, self.start, self.handed = epoch, batch, batch

    def break_off(self, reason: str) -> None:
        """End a running iteration, and drop the batches that were prepared for the next one."""
        self._leave_parent()
        with self.lock:
            iterator = None if self._iterator is None else self._iterator()
            if iterator is not None and iterator.begun:
                self._end_iterator(reason)
            if self._prefetcher is not None:
                self.drop(self._prefetcher)

    def close(self) -> None:
        """End the workers."""
        self.break_off("the feed was closed")
        worker_pool, self._worker_pool = self._worker_pool, None
        if worker_pool is not None:
            worker_pool.stop()

    def take_prefetcher(self) -> BatchPrefetcher:
        """Return the prefetched batches from the place on, for a new iteration."""
        prefetcher, self._prefetcher = self._prefetcher, None
        if prefetcher is not None:
            return prefetcher
        worker_pool, self._worker_pool = self._worker_pool, None
        warm = not self._workers or worker_pool is not None
        if worker_pool is None:
            epoch, plan_of = self.epoch, self.builder.plan_of
            worker_pool, self.choice = self._start_pool(
                self.choice,
                tried=lambda: [
                    PlanEntry(row, epoch, n) for n, row in enumerate(plan_of(epoch).rows[:_TRIAL_DRAWS].tolist())
                ],
                meanwhile=lambda: plan_of(epoch),
            )
        self.latest_pool = weakref.ref(worker_pool)
        return BatchPrefetcher(
            worker_pool,
            builder=self.builder,
            epoch=self.epoch,
            index=self.start,
            ahead=self._ahead,
            prefetch_next_epoch=self._workers > 0 and not self.repeats,  # an evaluation may be iterated over only once
            warm=warm,
            fetch_ahead=self._fetch_ahead,
            next_epoch=self._following,
        )

    def finish(self, prefetcher: BatchPrefetcher) -> None:
        """Move to the following epoch, with the workers and the batches that they have started."""
        if self.repeats:
            prefetcher.stop_fetching()
            self._keep(prefetcher.worker_pool)  # no batch is in progress
        else:
            prefetcher.end(self.epoch)
            self._prefetcher = prefetcher
        self.epoch, self.start, self.handed = self._following(self.epoch), 0, 0

    def drop(self, prefetcher: BatchPrefetcher) -> None:
        """Cancel the batches in progress; keep the workers for the next iteration, or stop them."""
        if self._prefetcher is prefetcher:
            self._prefetcher = None
        able = False
        try:
            able = prefetcher.drop()
        finally:
            if able:
                self._keep(prefetcher.worker_pool)
            else:
                if self._worker_pool is prefetcher.worker_pool:
                    self._worker_pool = None
                prefetcher.worker_pool.stop()

    def _following(self, epoch: int) -> int:
        return 0 if self.repeats else epoch + 1

    def _keep(self, worker_pool: WorkerPool) -> None:
        if self._worker_pool is None:
            self._worker_pool = worker_pool
        elif self._worker_pool is not worker_pool:
            worker_pool.stop()

    def _end_iterator(self, reason: str) -> None:
        iterator = None if self._iterator is None else self._iterator()
        self._iterator = None
        if iterator is not None:
            iterator.end(reason)

    def _leave_parent(self) -> None:
        """In a forked child, drop workers, iterators and lock of the parent; a thread there may hold the lock."""
        if self._pid != os.getpid():
            self._iterator = self._prefetcher = self._worker_pool = None
            self._renew()

    def _renew(self) -> None:
        self._pid = os.getpid()
        # Reentrant: a garbage collection, or a user's transform with workers=0, may enter it again in the same thread.
        self.lock = threading.RLock()


class EpochIterator(Iterator[Batch]):
    """Iterates over the batches of an epoch, from the place of the feed at its first batch on.

    After the last batch it stays exhausted. If something else ended it, such as a newer iterator of the same feed, it
    raises StaleIteratorError, so that an incomplete epoch is never mistaken for a complete one.
    """

    def __init__(self, epochs: Epochs) -> None:
        self.begun = False
        self._epochs = epochs
        self._pid = os.getpid()
        self._prefetcher: BatchPrefetcher | None = None  # while it gives batches
        self._complete = False
        self._reason = ""  # why it ended
        self._epoch = self._num_given = self._count = 0
        self._mark = 0.0  # time of the previous batch

    def __next__(self) -> Batch:
        """Return the next batch."""
        if self._complete:
            raise StopIteration
        if self._pid != os.getpid():
            self._reason = "it belongs to the parent of this process"
            raise self._stale()  # before the lock, which another thread of the parent may have held
        with self._epochs.lock:
            if self._complete:  # meanwhile, by another thread
                raise StopIteration
            if self._reason:
                raise self._stale()
            try:
                batch = self._take()
            except BaseException as error:
                self._fail(error)
                raise
        if batch is None:
            raise StopIteration
        return batch

    def __del__(self) -> None:
        self.end("it was deleted")

    def end(self, reason: str) -> None:
        """End the iterator, and cancel its batches in progress."""
        self._reason = self._reason or reason
        prefetcher, self._prefetcher = self._prefetcher, None
        if prefetcher is not None:
            self._epochs.drop(prefetcher)

    def _take(self) -> Batch | None:
        """Return the next batch; None if the epoch has no batch."""
        epochs = self._epochs
        if self._prefetcher is None:
            self._prefetcher = epochs.take_prefetcher()
            self.begun = True
            self._epoch, self._num_given = epochs.epoch, epochs.start
            self._count = epochs.builder.count(self._epoch)
            share, draws = epochs.builder.share, len(epochs.builder.plan_of(self._epoch).rows)
            if draws and not self._count:
                _log.warning(
                    "the epoch is empty: its %d draws are no full batch of %d, and drop_last leaves out the rest; "
                    "take a smaller batch_size, or drop_last=False",
                    draws,
                    share.draws,
                )
            epochs.cpu.start(self._prefetcher.worker_pool.pids)
            self._mark = time.perf_counter()
        batch = None
        if self._num_given < self._count:
            begun_at = time.perf_counter()
            batch = self._prefetcher.take(self._epoch, meter=epochs.meter)
            self._num_given += 1
            epochs.handed = self._num_given
            mark, self._mark = self._mark, time.perf_counter()
            epochs.meter.add(
                batches=1,
                clips=len(batch.ids),
                bytes=batch.nbytes,
                wait_seconds=self._mark - begun_at,
                elapsed_seconds=self._mark - mark,
            )
            if self._num_given == self._count or self._mark - epochs.cpu.started_at > _MEASURED_SECONDS:
                epochs.meter.add(**epochs.cpu.lap(self._prefetcher.worker_pool.pids))
        if self._num_given == self._count:  # with the last batch: Lightning does not call next() after it
            epochs.finish(self._prefetcher)
            self._prefetcher, self._complete = None, True
        return batch

    def _fail(self, error: BaseException) -> None:
        """End after an error; the workers are stopped, because their state is unknown."""
        prefetcher, self._prefetcher = self._prefetcher, None
        self._reason = f"it raised {type(error).__name__}"
        if prefetcher is not None:
            try:
                prefetcher.stop()
            finally:
                self._epochs.drop(prefetcher)

    def _stale(self) -> StaleIteratorError:
        place = f"batch {self._num_given} of {self._count} of epoch {self._epoch}" if self.begun else "its first batch"
        return StaleIteratorError(
            f"this iterator ended {'after' if self.begun else 'before'} {place}: {self._reason}; {ADVICE}"
        )
