"""Worker processes that pack rows, and results in the order of the rows."""

import logging
import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Self

from cinefeed.core.errors import PackError
from cinefeed.core.pools import ONE_THREAD, PASSIVE
from cinefeed.packing.rows import RowJob, RowResult, pack_row

_log = logging.getLogger(__name__)
_AHEAD = 2  # rows per worker that are packed and not yet in a shard: their files take space on the disk


class PackWorkers:
    """Processes that pack rows. The caller packs if `count` is 0 or 1, and rows that cannot be sent to a process.

    Processes import cinefeed alone, never the user's script, so scripts need no `__main__` guard.
    """

    def __init__(self, count: int) -> None:
        self.count = count if count > 1 else 0
        self._processes: list[subprocess.Popen[bytes]] = []
        self._idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        self._threads = ThreadPoolExecutor(max(self.count, 1), thread_name_prefix="cinefeed-pack")

    def pack(self, jobs: Iterable[RowJob]) -> Generator[RowResult]:
        """Yield the results of the jobs, in their order.

        Raises PackError if a worker process ends, OSError if the disk is full.
        """
        if not self.count:
            yield from map(pack_row, jobs)
            return
        pending: deque[Future[RowResult]] = deque()
        for job in jobs:
            if job.arrays is not None or not _is_picklable(job):
                while pending:
                    yield pending.popleft().result()
                yield pack_row(job)
                continue
            pending.append(self._threads.submit(self._ask, job))
            if len(pending) >= _AHEAD * self.count:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    def close(self) -> None:
        """End all processes."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.kill()
        self._threads.shutdown(wait=True)  # waits for the threads that read answers
        for process in self._processes:
            with suppress(OSError), process:  # closes its pipes
                pass
        self._processes.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, job: RowJob) -> RowResult:
        process = self._start() if self._idle.empty() else self._idle.get()
        assert process.stdin is not None and process.stdout is not None
        try:
            pickle.dump(job, process.stdin)
            process.stdin.flush()
            answer = pickle.load(process.stdout)
        except (EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
            raise PackError(
                f"row {job.row}: a worker process ended unexpectedly (exit status {process.wait()}); -9 means that "
                "it was killed, often for lack of memory: give fewer --workers and run the same command again"
            ) from error
        self._idle.put(process)
        if isinstance(answer, OSError):
            raise answer
        result: RowResult = answer
        return result

    def _start(self) -> subprocess.Popen[bytes]:
        modules = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "cinefeed.packing.worker_main"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | PASSIVE | ONE_THREAD | {"PYTHONPATH": modules},
        )
        self._processes.append(process)
        return process


def _is_picklable(job: RowJob) -> bool:
    """Return whether a job can be sent to a process; readers that are defined in a script cannot."""
    try:
        pickle.dumps(job.readers)
    except (pickle.PicklingError, AttributeError, TypeError):
        _log.warning("rows are packed without worker processes, which cannot import the reader of their files")
        return False
    return all(getattr(reader.opener, "__module__", None) != "__main__" for reader in job.readers)
