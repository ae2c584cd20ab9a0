"""Selection of the number and kind of workers, by timing a few clips with one thread and with all threads.

Threads of one process share one interpreter lock. If calls of FFmpeg, OpenCV and our kernels are long, threads hold it
for a small part of the time; if frames are small, they wait for it. Two workers on two cores, relative to one: threads
1.9 times on large frames and 1.3 times on 112 x 112, processes 1.94 times on both. Processes take a second to start,
and memory, so threads are preferred if their gain is high enough.

Buffers of worker processes are memory without a file (memfd), which counts as memory of the process. The size of
/dev/shm, often 64 MB in a container, does not limit them.
"""

import os
import pickle
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Literal, NamedTuple

from cinefeed.core.cores import usable_cores
from cinefeed.core.errors import CinefeedError, FeedError
from cinefeed.core.text import format_count
from cinefeed.feed.batch_layout import BatchLayout
from cinefeed.feed.clip_pipeline import ClipPipeline, PlanEntry
from cinefeed.feed.workers.buffers import BufferPool
from cinefeed.feed.workers.messages import OF_ROWS
from cinefeed.feed.workers.pools import Backend

_ENOUGH = 0.9  # of the ideal gain; processes reached 0.97 of it (1.94 of 2), so that threads are within 10 % of them
_ROUNDS = 3  # each with one thread and then with all; fewer if clips take long
_PASS_SECONDS, _SECONDS = 0.15, 1.0


class BackendChoice(NamedTuple):
    """The backend that makes the clips, and the reason in one line."""

    backend: Backend
    why: str


class Trial(NamedTuple):
    """A measurement: number of clips, seconds of a clip with one thread, and the speedup with all threads."""

    clips: int
    seconds_a_clip: float
    gain: float


def choose_backend(pipeline: ClipPipeline, draws: Sequence[PlanEntry], *, workers: int) -> BackendChoice:
    """Return the faster backend for the clips of a feed, threads or processes; it takes about a second.

    `draws` are the first of the plan; as many are made as there is time for. Nothing is measured if only one backend is
    possible. Clips that cannot be made are skipped: the feed raises their errors later.
    """
    cores = usable_cores()
    if workers < 2 or cores < 2:
        return BackendChoice("thread", f"{format_count(workers, 'thread')}: only one of them would run at a time")
    unfit = why_no_processes(pipeline)
    if unfit:
        return BackendChoice("thread", f"{format_count(workers, 'thread')}: processes cannot be used, {unfit}")
    try:
        return decide(try_threads(pipeline, draws, workers=workers), workers=workers, cores=cores)
    except CinefeedError:
        return BackendChoice(
            "thread", f"{format_count(workers, 'thread')}: the first clips cannot be made, so none could be timed"
        )


def decide(trial: Trial, *, workers: int, cores: int) -> BackendChoice:
    """Return threads if their speedup is close to the ideal, the number of workers that have a core, else processes.

    If other programs or a slow disk delay the threads, processes are chosen without a gain: that costs only their
    start.

    >>> decide(Trial(clips=8, seconds_a_clip=0.03, gain=1.9), workers=2, cores=2)
    BackendChoice(backend='thread', why='2 threads: 1.9 times as fast as one, for 8 clips')
    >>> decide(Trial(clips=60, seconds_a_clip=0.0025, gain=1.3), workers=2, cores=2)
    BackendChoice(backend='process', why='2 processes: threads are only 1.3 times as fast as one, at 2.5 ms per clip')
    """
    if trial.gain >= _ENOUGH * min(workers, cores):
        faster = f"{trial.gain:.1f} times as fast as one, for {format_count(trial.clips, 'clip')}"
        return BackendChoice("thread", f"{workers} threads: {faster}")
    milliseconds = 1e3 * trial.seconds_a_clip
    rounded = f"{milliseconds:.0f}" if milliseconds >= 10 else f"{milliseconds:.1f}"
    return BackendChoice(
        "process",
        f"{workers} processes: threads are only {trial.gain:.1f} times as fast as one, at {rounded} ms per clip",
    )


def why_no_processes(pipeline: ClipPipeline) -> str:
    """Return why the clips cannot be made by other processes, "" if they can."""
    if not hasattr(os, "memfd_create"):
        return "they need Linux"
    if pipeline.rows.arrays is not None:
        return "videos in memory are not sent to them"
    try:
        settings = pickle.dumps([value for name, value in vars(pipeline).items() if name not in OF_ROWS])
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    # A class of the user's script is pickled as a member of __main__, which workers do not have.
    return "a transform is defined in the script itself: move it to a module" if b"__main__" in settings else ""


def try_threads(pipeline: ClipPipeline, draws: Sequence[PlanEntry], *, workers: int) -> Trial:
    """Time some clips with one thread and with all, in turn, and return the medians.

    The first clip compiles or loads the kernels, and the first pass reads the files into memory: neither is counted.
    """
    makers = [_timed_maker(pipeline) for _ in range(workers)]
    draws, began = _readable(makers[0], draws), time.perf_counter()
    alone: list[float] = []
    gains: list[float] = []
    with ThreadPoolExecutor(workers, thread_name_prefix="cinefeed-trial") as pool:
        while not gains or (len(gains) < _ROUNDS and time.perf_counter() - began < _SECONDS):
            seconds = [makers[0](draw) for draw in draws]
            until = time.perf_counter() + _PASS_SECONDS
            shares = [
                pool.submit(_share, make, draws, seconds, first=number * len(draws) // workers, until=until)
                for number, make in enumerate(makers)
            ]
            gains.append(sum(share.result() for share in shares))
            alone.append(statistics.fmean(seconds))
    return Trial(len(draws), statistics.median(alone), statistics.median(gains))


def _timed_maker(pipeline: ClipPipeline) -> Callable[[PlanEntry], float]:
    """Return a function that makes a clip in separate memory, and returns the seconds that it took."""
    layout = BatchLayout(1, pipeline.shape, pipeline.compose.dtype, masks=pipeline.masks is not None)
    arrays = BufferPool(layout).lease().place(0)

    def make(draw: PlanEntry) -> float:
        began = time.perf_counter()
        pipeline.make(draw, *arrays)
        return time.perf_counter() - began

    return make


def _readable(make: Callable[[PlanEntry], float], draws: Sequence[PlanEntry]) -> list[PlanEntry]:
    """Return the draws that can be made in the time of one pass, at least one. Raises FeedError if none can be made."""
    for draw in draws:  # the first that can be made is made again below, where its time counts
        with suppress(CinefeedError):
            make(draw)
            break
    readable_draws, total_seconds = [], 0.0
    for draw in draws:
        with suppress(CinefeedError):
            total_seconds += make(draw)
            readable_draws.append(draw)
        if total_seconds >= _PASS_SECONDS:
            break
    if not readable_draws:
        raise FeedError(f"none of {format_count(len(draws), 'clip')} can be made")
    return readable_draws


def _share(
    make: Callable[[PlanEntry], float],
    draws: Sequence[PlanEntry],
    seconds: Sequence[float],
    *,
    first: int,
    until: float,
) -> float:
    """Make clips in a cycle, starting with one of them, until the time is over; return the speed.

    It is relative to one thread alone: 1.0 if the clips take the same `seconds`. So clips of different lengths have the
    right weight.
    """
    began = now = time.perf_counter()
    work_seconds, number = 0.0, first
    while now < until or not work_seconds:
        make(draws[number])
        work_seconds += seconds[number]
        number = (number + 1) % len(draws)
        now = time.perf_counter()
    return work_seconds / (now - began)


def count_workers(count: int | Literal["auto"]) -> int:
    """Return a number of workers; "auto" is the number of usable cores."""
    return usable_cores() if count == "auto" else count
