"""A few processes that read broken files one at a time, watched for time and memory, and replaced when they die."""

import json
import os
import queue
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

HANG_SECONDS = 10.0
MEMORY_MB = 1024.0
_START_SECONDS = 60.0  # for the imports, on a busy machine
_FILES_A_PROCESS = 250
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Outcome(NamedTuple):
    """What became of one broken file: a verdict of `fuzz_worker`, or "crash" or "hang"."""

    job: dict[str, Any]
    verdict: str
    detail: str
    seconds: float
    peak_mb: float


class _Process:
    """One `fuzz_worker`, whose last words are kept."""

    def __init__(self) -> None:
        self.files = 0
        self._words = tempfile.TemporaryFile("w+")  # noqa: SIM115 - end() closes it
        script = Path(__file__).with_name("fuzz_worker.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._words
        )
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], _START_SECONDS)[0] or not self._process.stdout.readline():
            words = self._last_words()
            raise RuntimeError(f"{script.name} does not start: {words}")

    def ask(self, job: dict[str, Any], *, hang_seconds: float) -> Outcome:
        """Return what became of a file."""
        began = time.monotonic()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.files += 1
        self._process.stdin.write(json.dumps(job).encode() + b"\n")
        self._process.stdin.flush()
        while not select.select([self._process.stdout], [], [], 0.02)[0]:
            spent, resident = time.monotonic() - began, self._resident_mb()
            if resident > MEMORY_MB:
                return Outcome(job, "memory", "stopped as it grew", spent, resident)
            if spent > hang_seconds:
                return Outcome(job, "hang", f"stopped after {spent:.0f} s", spent, resident)
        line = self._process.stdout.readline()
        spent = time.monotonic() - began
        if not line:
            return Outcome(job, "crash", self._last_words(), spent, 0.0)
        answer = json.loads(line)
        peak = answer["peak_mb"]
        return Outcome(job, "memory" if peak > MEMORY_MB else answer["verdict"], answer["detail"], spent, peak)

    def end(self) -> None:
        """End the process and wait until it is gone."""
        self._process.kill()
        self._process.communicate()
        self._words.close()

    def _resident_mb(self) -> float:
        try:
            return int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]) * _PAGE / 2**20
        except (OSError, IndexError):
            return 0.0  # it has just died

    def _last_words(self) -> str:
        """Return the signal of which it died, and the innermost line of Python that it was in."""
        self._process.kill()  # it is dead, or never began
        code = self._process.wait()
        self._words.seek(0)
        words = self._words.read()
        lines = [line.strip() for line in words.splitlines() if line.strip().startswith("File ")]
        return f"{signal.Signals(-code).name if code < 0 else f'exit {code}'} {lines[0] if lines else words[-300:]}"


def run_jobs(
    jobs: Iterable[dict[str, Any]], *, processes: int, seconds: float, hang_seconds: float = HANG_SECONDS
) -> list[Outcome]:
    """Return what became of each file, in no order; jobs that have not begun after `seconds` are left out."""
    waiting: queue.Queue[dict[str, Any] | None] = queue.Queue(maxsize=2 * processes)
    outcomes: list[Outcome] = []

    def serve() -> None:
        process: _Process | None = None
        while (job := waiting.get()) is not None:
            process = process or _Process()
            outcome = process.ask(job, hang_seconds=hang_seconds)
            outcomes.append(outcome)
            if process.files == _FILES_A_PROCESS or outcome.verdict in ("crash", "hang", "memory"):
                process.end()
                process = None
        if process is not None:
            process.end()

    threads = [Thread(target=serve) for _ in range(processes)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    for job in jobs:
        if time.monotonic() > end:
            break
        waiting.put(job)
    for _ in threads:
        waiting.put(None)
    for thread in threads:
        thread.join()
    return outcomes
