"""Worker processes: started once, monitored, and replaced if they are killed. Batches are in shared memory.

The file is a little longer than 400 lines: starting, listening and ending share one state, under one lock.
"""

import logging
import os
import pickle
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError, wait
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pyarrow as pa

from cinefeed.core.cores import usable_cores
from cinefeed.core.errors import DecodeError, FeedError, UnpicklableError
from cinefeed.core.pools import ONE_THREAD, PASSIVE
from cinefeed.feed.batch_layout import BatchLayout
from cinefeed.feed.clip_pipeline import ClipPipeline, ClipTimings, PlanEntry
from cinefeed.feed.workers.buffers import BatchBuffer
from cinefeed.feed.workers.messages import (
    DONE,
    FAILED,
    GROUP,
    MASKS,
    OF_ROWS,
    PACKET,
    READY,
    UNFIT,
    Job,
    Progress,
    pack_jobs,
    unpack_done,
    unpack_failed,
)
from cinefeed.video.readers import readers_of

_log = logging.getLogger(__name__)
_AHEAD = 2 * GROUP  # jobs of a worker: those in progress and as many more, so that it never waits for the parent
_AHEAD_SECONDS = 0.05  # of work that a worker has, roughly; if clips take longer it has fewer jobs, but at least two
_ATTEMPTS = 2  # to make a clip, if workers are killed while they make it
_PATIENCE_SECONDS = 2.0  # that workers have to complete clips that are not needed any more
_SIGNALS = {each.value: each.name for each in signal.Signals}
_EARLY_DEATHS = 3  # of workers that sent no message; then the feed fails


@dataclass
class _Task:
    job: Job
    buffer: BatchBuffer
    future: Future[ClipTimings]
    deaths: int = 0


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    line: socket.socket
    progress: Progress
    ready: bool = False
    started: bool = False  # it was ready once
    tasks: deque[_Task] = field(default_factory=deque)  # the first is in progress, or completed and not reported yet
    num_reported: int = 0  # tasks that it has reported as completed or failed
    num_observed: int = 0  # completed tasks when its progress was last read ...
    began: float = 0.0  # ... and when that number was first read
    buffers: set[int] = field(default_factory=set)  # that it has mapped
    late: bool = False  # killed because the task after `num_observed` ones took too long


class ProcessPool:
    """Processes that write clips into shared buffers.

    A process that ends unexpectedly is replaced, and is reported in `deaths` and in the log; another process makes its
    clip once more, then it is an error. A clip that takes longer than `timeout_seconds` is an error, and its worker is
    replaced. `meanwhile` is called while the processes start, which takes a second. Raises UnpicklableError if the
    settings cannot be sent to another process.
    """

    def __init__(
        self,
        pipeline: ClipPipeline,
        *,
        count: int,
        layout: BatchLayout,
        deaths: list[str],
        timeout_seconds: float | None,
        meanwhile: Callable[[], object],
    ) -> None:
        self.deaths = deaths
        self._pid = os.getpid()
        self._rows = pipeline.rows
        self._timeout = timeout_seconds
        self._lock = threading.RLock()
        self._waiting: deque[_Task] = deque()
        self._ahead = 2  # jobs of a worker, until the first timings
        self._early_deaths = 0
        self._failure: FeedError | None = None
        self._stopped = False
        # The parent's module path, so that transforms of the user's own modules are found; as it is now, because some
        # workers start later.
        modules = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
        self._environment = os.environ | PASSIVE | ONE_THREAD | {"PYTHONPATH": modules}
        self._folder = Path.cwd()
        self._memory = [_write_memory(_settings(pipeline, layout)), _columns(pipeline)]
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._end = weakref.finalize(self, _end, self._workers, self._memory, [self._wake, self._woken], self._pid)
        self._count = count  # of workers
        # A start takes a second of a core: one core is left to the feed, and the other workers start after these.
        try:
            for _ in range(min(count, max(usable_cores() - 1, 1))):
                self._start()
            meanwhile()
            self._await_first()
        except BaseException:
            self._end()
            raise
        self._thread = threading.Thread(target=_listen, args=(weakref.ref(self), self._selector), daemon=True)
        self._thread.name = "cinefeed-processes"
        self._thread.start()

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers."""
        with self._lock:
            return [worker.process.pid for worker in self._workers]

    @property
    def _ours(self) -> bool:
        """Whether this process has the workers: False while Python exits, and in a fork, whose parent has them."""
        return self._end.alive and self._pid == os.getpid()

    @property
    def ready(self) -> bool:
        """Whether all workers have started."""
        if self._stopped or not self._ours:
            return False
        with self._lock:
            return len(self._workers) == self._count and all(worker.ready for worker in self._workers)

    def submit(self, draws: Mapping[int, PlanEntry], buffer: BatchBuffer) -> list[Future[ClipTimings]]:
        """Queue the clips for the workers that have the fewest jobs."""
        tasks = [_Task(Job(buffer.number, place, draw), buffer, Future()) for place, draw in draws.items()]
        with self._lock:
            if self._failure is not None:
                raise self._failure
            if self._stopped:
                raise FeedError("the workers have been stopped")
            self._waiting.extend(tasks)
            self._hand_out()
        return [task.future for task in tasks]

    def drop(self, clips: Sequence[Future[ClipTimings]]) -> bool:
        """Cancel clips that were not started, and wait for the rest; False if that takes too long."""
        if self._stopped or not self._ours or threading.current_thread() is self._thread:
            return False
        with self._lock:
            for task in self._waiting:
                task.future.cancel()
            self._waiting.clear()
        if not wait([clip for clip in clips if not clip.cancelled()], timeout=_PATIENCE_SECONDS).not_done:
            return self._failure is None
        with self._lock:
            self._stopped = True
            for worker in self._workers:
                worker.process.kill()
        return False

    def stop(self) -> None:
        """Cancel clips that were not started, let the workers complete the rest, and release everything."""
        if not self._ours:
            return
        with self._lock:
            self._stopped = True
            tasks = [*self._waiting, *(task for worker in self._workers for task in worker.tasks)]
            self._waiting.clear()
        for task in tasks:
            task.future.cancel()
        self._wake.close()
        if threading.current_thread() is self._thread:  # it has garbage collected an unused iterator
            self._end()
            return
        self._thread.join()
        self._end()
        self._selector.close()
        for worker in self._workers:
            worker.progress.close()

    def _start(self) -> None:
        done = _write_memory(bytes(Progress.SIZE))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            progress, descriptors = Progress(done), [theirs.fileno(), done, *self._memory]
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "cinefeed.feed.workers.worker_main", *map(str, descriptors)],
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                env=self._environment,
                cwd=self._folder,
            )
        finally:
            theirs.close()
            os.close(done)
        worker = _Worker(process, ours, progress)
        self._workers.append(worker)
        self._selector.register(ours, selectors.EVENT_READ, worker)

    def _await_first(self) -> None:
        """Wait until one worker is ready. Raises its error if it cannot start: then no worker can."""
        while not any(worker.ready for worker in self._workers):
            for key, _ in self._selector.select():
                if key.data is not None:
                    self._read_messages(key.data)
            if self._failure is not None:
                raise self._failure

    def _hand_out(self) -> None:
        """Send jobs to the workers that have the fewest, several in one packet if there are many."""
        while self._waiting:
            # Several jobs after several have ended, not one after each.
            room = max(self._ahead - GROUP, self._ahead // 2)
            able = [each for each in self._workers if each.ready and not each.late and len(each.tasks) <= room]
            if not able:
                return
            worker = min(able, key=lambda each: len(each.tasks))
            count = min(GROUP, self._ahead - len(worker.tasks), -(-len(self._waiting) // len(self._workers)))
            tasks = [self._waiting.popleft()]
            while self._waiting and len(tasks) < count and self._waiting[0].buffer is tasks[0].buffer:
                tasks.append(self._waiting.popleft())  # of one buffer, so that clips of the next do not delay it
            new = {task.buffer.number: task.buffer.fd for task in tasks if task.buffer.number not in worker.buffers}
            try:
                packet = pack_jobs([task.job for task in tasks])
                if new:
                    socket.send_fds(worker.line, [packet], [*new.values()])
                else:
                    worker.line.send(packet)
            except OSError:  # it has just ended; the listener will read that from its socket
                self._waiting.extendleft(reversed(tasks))
                worker.ready = False
                return
            worker.buffers.update(new)
            if not worker.tasks:
                worker.began = time.monotonic()
            worker.tasks.extend(tasks)

    def _read_messages(self, worker: _Worker) -> None:
        """Process all messages of a worker, or its end."""
        with self._lock:
            while True:
                try:
                    packet = worker.line.recv(PACKET, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    break
                except OSError:  # one end of the socket is closed
                    packet = b""
                kind = packet[:1]
                if kind == READY:
                    worker.ready, worker.started, self._early_deaths = True, True, 0
                    if len(self._workers) < self._count and self._may_start:
                        self._start()
                elif kind == UNFIT:
                    self._fail(UnpicklableError(packet[1:].decode()))
                elif kind in (DONE, FAILED):
                    timings = unpack_done(packet) if kind == DONE else []
                    results: Sequence[ClipTimings | BaseException] = timings or [unpack_failed(packet)]
                    for result in results:
                        _settle(worker.tasks.popleft().future, result)
                        worker.num_reported += 1
                    if timings:
                        seconds = max(timings[-1].read + timings[-1].decode + timings[-1].transform, 1e-6)
                        self._ahead = min(max(int(_AHEAD_SECONDS / seconds), 2), _AHEAD)
                else:
                    if self._end.alive:  # while Python exits, the workers are ended
                        self._replace(worker)
                    break
            self._hand_out()

    def _replace(self, worker: _Worker) -> None:
        """Report a worker that ended, start another, and queue its tasks again; the one in progress counts as tried."""
        self._selector.unregister(worker.line)
        worker.line.close()
        self._workers.remove(worker)
        try:
            code = worker.process.wait(timeout=5)
        except subprocess.TimeoutExpired:  # it closed its socket, but still runs
            worker.process.kill()
            code = worker.process.wait()
        how = f"was killed by {_SIGNALS.get(-code, f'signal {-code}')}" if code < 0 else f"ended with status {code}"
        tasks, ends = list(worker.tasks), dict[Future[ClipTimings], BaseException]()
        worker.tasks.clear()
        at = ""
        done = worker.progress.count
        in_progress = tasks[done - worker.num_reported :]  # those before are completed, but not reported
        if in_progress:
            first = in_progress[0]
            at = f" while it made row {first.job.draw.row}, {self._rows.display_name(first.job.draw.row)}"
            first.deaths += 1
            if worker.late and done == worker.num_observed:
                ends[first.future] = DecodeError(f"{at[15:]}: took longer than {self._timeout:g} s, and was given up")
            elif first.deaths >= _ATTEMPTS:
                ends[first.future] = FeedError(f"{at[15:]}: {first.deaths} workers ended at this clip; the last {how}")
            del first
        self.deaths.append(f"worker {worker.process.pid} {how}{at}")
        _log.warning("%s", self.deaths[-1])
        self._waiting.extendleft(task for task in reversed(tasks) if not (task.future.done() or task.future in ends))
        del tasks, in_progress  # the memory of a clip is free once its future has its result
        for future, error in ends.items():
            _settle(future, error)
        worker.progress.close()
        self._early_deaths += not worker.started
        if self._early_deaths >= _EARLY_DEATHS:
            self._fail(FeedError(f"workers end before they are ready: {self.deaths[-1]}; try backend='thread'"))
        elif self._may_start:
            self._start()

    @property
    def _may_start(self) -> bool:
        """Whether workers may be started: False after a failure, after `stop`, and while Python exits."""
        return self._failure is None and not self._stopped and self._end.alive

    def _fail(self, failure: FeedError) -> None:
        """Set a failure as the result of all waiting clips, and of all later ones."""
        with self._lock:
            self._failure = failure = self._failure or failure  # the first is the cause
            for task in [*self._waiting, *(each for worker in self._workers for each in worker.tasks)]:
                _settle(task.future, failure)
            self._waiting.clear()

    def _end_late_ones(self) -> None:
        if self._timeout is None:
            return
        with self._lock:
            for worker in self._workers:
                done = worker.progress.count
                if done != worker.num_observed:
                    worker.num_observed, worker.began = done, time.monotonic()
                elif worker.tasks and time.monotonic() - worker.began > self._timeout and not worker.late:
                    worker.late = True
                    worker.process.kill()


def _listen(pool_of: "weakref.ref[ProcessPool]", selector: selectors.BaseSelector) -> None:
    """Process the messages of the workers until they are stopped or deleted."""
    while True:
        ready = selector.select(timeout=0.2)
        worker_pool = pool_of()
        if worker_pool is None or worker_pool._stopped or not worker_pool._end.alive:
            return
        try:
            for key, _ in ready:
                if key.data is not None and key.data in worker_pool._workers:
                    worker_pool._read_messages(key.data)
            worker_pool._end_late_ones()
        except Exception as error:  # the thread ends, so all waiting clips get the error
            worker_pool._fail(FeedError(f"the workers cannot go on: {type(error).__name__}: {error}"))
            return
        del worker_pool


def _settle(future: Future[ClipTimings], result: ClipTimings | BaseException) -> None:
    """Set the result of a future, unless it was cancelled."""
    try:
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)
    except InvalidStateError:
        pass


def _settings(pipeline: ClipPipeline, layout: BatchLayout) -> bytes:
    """Return all settings of a worker but the columns, pickled. Only our own worker processes read them."""
    if pipeline.rows.arrays is not None:
        raise UnpicklableError("videos in memory are not sent to other processes")
    settings = {
        "rows": {"root": pipeline.rows.root, "private": pipeline.rows.private, "cache": _cache(pipeline)},
        "maker": {each.name: getattr(pipeline, each.name) for each in fields(pipeline) if each.name not in OF_ROWS},
        "layout": layout,
        "readers": readers_of(
            pipeline.rows.containers() | (set() if pipeline.masks is None else pipeline.masks.containers())
        ),
    }
    try:
        return pickle.dumps(settings)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UnpicklableError(f"{type(error).__name__}: {error}") from error


def _cache(pipeline: ClipPipeline) -> tuple[Path | None, int | None]:
    """Return folder and limit of the cache of remote files."""
    files = pipeline.rows.remote
    return (None, None) if files is None else (files.cache.folder, files.cache.limit)


def _columns(pipeline: ClipPipeline) -> int:
    """Return the file descriptor of memory that holds the columns, as an Arrow file."""
    table: Any = pipeline.rows.table
    if pipeline.masks is not None:
        table = table.append_column(MASKS, pipeline.masks.table.column("path"))
    fd = os.memfd_create("cinefeed")
    # Written without a buffer: a million rows take 0.1 s, with a buffer that grows and is copied 1 s.
    try:
        with pa.OSFile(f"/proc/self/fd/{fd}", "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _write_memory(content: bytes) -> int:
    """Return the file descriptor of memory with this content."""
    fd = os.memfd_create("cinefeed")
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
    return fd


def _end(workers: list[_Worker], memory: list[int], sockets: list[socket.socket], pid: int) -> None:
    """Close the sockets, and wait for the workers to end; those that do not, or have not started yet, are killed."""
    if os.getpid() != pid:  # this is a fork: the workers are those of its parent
        return
    for worker in list(workers):
        worker.line.close()
        if not worker.ready:
            worker.process.kill()
    deadline = time.monotonic() + _PATIENCE_SECONDS
    try:
        for worker in list(workers):
            with suppress(subprocess.TimeoutExpired):
                worker.process.wait(timeout=max(deadline - time.monotonic(), 0))
    finally:  # after Ctrl-C too: a running worker could write into memory that is used again
        for worker in list(workers):
            worker.process.kill()  # no effect if it has ended
            worker.process.wait()
        for fd in memory:
            os.close(fd)
        for each in sockets:
            each.close()
