"""Measure the speed of a feed without a model, for several numbers of workers and both backends."""

import time
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from cinefeed.core.errors import SettingError
from cinefeed.feed.batch import Batch
from cinefeed.feed.feed import Feed
from cinefeed.feed.stats import Stats
from cinefeed.feed.workers.pools import Backend

_WARM_SECONDS = 0.5  # at least, after the first batch


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The result for one setting of the workers; `gain` is relative to one worker of the first backend, or None."""

    workers: int
    backend: Backend
    stats: Stats
    gain: float | None = None

    @property
    def megabytes_per_second(self) -> float:
        """Finished clips, in 10**6 bytes per second."""
        return self.stats.bytes / 1e6 / self.stats.elapsed_seconds

    def as_dict(self) -> dict[str, Any]:
        """Return every figure, for JSON."""
        figures = {"workers": self.workers, "backend": self.backend, "gain": self.gain}
        return figures | {"megabytes_per_second": self.megabytes_per_second} | self.stats.as_dict()


def measure_feed(feed: Feed, *, seconds: float = 5.0, epochs: int | None = None) -> Stats:
    """Iterate without a model for some seconds, or for a number of epochs, and return the stats of that time.

    Compiling kernels and starting workers is not counted: the time begins once all workers have started, at least half
    a second after the first batch. From the second epoch on, files that fit are read from memory.
    """
    if epochs is not None and epochs < 1:
        raise SettingError(f"epochs={epochs} must be at least 1")
    if not seconds > 0:
        raise SettingError(f"seconds={seconds:g} must be more than 0")
    if not len(feed):
        raise SettingError("an epoch of this feed has no batch; take a smaller batch_size, or drop_last=False")
    with closing(_endless(feed)) as batches:
        next(batches)
        warm = time.perf_counter() + _WARM_SECONDS
        while time.perf_counter() < warm or not feed.workers_ready:
            next(batches)
        before, until = feed.stats(), time.perf_counter() + seconds
        last_batch = None if epochs is None else before.batches + epochs * len(feed)
        while feed.stats().batches < last_batch if last_batch is not None else time.perf_counter() < until:
            next(batches)  # the batch is deleted at once
        return feed.stats().since(before)


def measure_grid(
    make: Callable[[int, Backend], Feed],
    *,
    workers: Iterable[int],
    backends: Iterable[Backend],
    seconds: float = 5.0,
    epochs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Measured]:
    """Measure the feeds that `make` returns for each number of workers and each backend, in turn.

    Without workers there is no backend, so the caller's own work is measured once.
    """
    counts, kinds = sorted(set(workers)), list(dict.fromkeys(backends))
    settings = [(count, kind) for count in counts for kind in (kinds if count else kinds[:1])]
    measurements: list[Measured] = []
    for number, (count, kind) in enumerate(settings):
        if progress is not None:
            progress(number, len(settings))
        stats = measure_feed(make(count, kind), seconds=seconds, epochs=epochs)
        measurements.append(Measured(workers=count, backend=kind, stats=stats))
    return with_gains(measurements)


def with_gains(runs: list[Measured]) -> list[Measured]:
    """Return the runs with their gain over the first run of one worker, the reference of both backends."""
    one = next((run.stats.clips_per_second for run in runs if run.workers == 1), None)
    if one is None:
        return runs
    return [replace(run, gain=run.stats.clips_per_second / one) if run.workers else run for run in runs]


def _endless(feed: Feed) -> Generator[Batch]:
    while True:
        yield from feed
