"""Measurement of the processor time used by this program and by all other programs."""

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

_STAT, _SCHEDULER = Path("/proc/stat"), Path("/proc/thread-self/schedstat")
_IDLE = (3, 4)  # indices in a line of /proc/stat: idle, and idle during disk access
_KINDS = 8  # user, nice, system, idle, iowait, irq, softirq, steal; guests, which follow, are counted in user


class CpuMeter:
    """Measure processor seconds of this program, and of all others on the cores that it may use (Linux only).

    >>> meter = CpuMeter()
    >>> meter.start()
    >>> seconds = meter.lap()
    >>> seconds == {} or seconds["available_cpu_seconds"] >= 0  # {} without /proc; clock ticks of 10 ms
    True
    """

    def __init__(self) -> None:
        self.started_at = 0.0
        self._before: dict[str, float] = {}
        self._thread = 0

    def start(self, processes: Sequence[int] = ()) -> None:
        """Start to measure; `processes` are the ids of running child processes that belong to the program."""
        self.started_at, self._thread = time.perf_counter(), threading.get_ident()
        self._before = _cpu_times(processes)

    def lap(self, processes: Sequence[int] = ()) -> dict[str, float]:
        """Return the seconds since `start` or the last lap, and start again; {} if the system does not provide them.

        available_cpu_seconds: time of all cores that the process may use
        own_cpu_seconds, other_cpu_seconds: time used by this program, and by all others on those cores
        delayed_seconds: time in which the calling thread was ready to run but had no core
        """
        before, thread = self._before, self._thread
        self.start(processes)
        now = self._before
        if not before or not now:
            return {}
        elapsed = {name: now[name] - before[name] for name in now}
        own = max(elapsed["own"], 0.0)
        return {
            "available_cpu_seconds": elapsed["available"],
            "own_cpu_seconds": own,
            "other_cpu_seconds": max(elapsed["busy"] - own, 0.0),
            "delayed_seconds": max(elapsed["delayed"], 0.0) if thread == self._thread else 0.0,
        }


def busy_ticks(lines: Sequence[str], *, cores: set[int]) -> tuple[int, int]:
    """Return the busy and the total clock ticks of some cores, from the lines of /proc/stat.

    Time that a hypervisor assigned to other machines (steal) counts as busy.

    >>> busy_ticks(["cpu  9 9 9 9 9 9 9 9 0 0", "cpu0 1 2 3 40 5 0 0 9 0 0", "cpu1 7 0 0 3 0 0 0 0 0 0"], cores={0})
    (15, 60)
    """
    busy = total = 0
    for line in lines:
        name, *numbers = line.split()[: 1 + _KINDS]
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores:
            ticks = [int(number) for number in numbers]
            total += sum(ticks)
            busy += sum(ticks) - sum(ticks[index] for index in _IDLE)
    return busy, total


def _cpu_times(processes: Sequence[int]) -> dict[str, float]:
    """Return times in seconds since the start of the machine or of the process, by name; {} without /proc."""
    try:
        with _STAT.open(encoding="ascii") as file:
            lines = [line for line in file if line.startswith("cpu")]
        busy, total = busy_ticks(lines, cores=os.sched_getaffinity(0))
        delayed = int(_SCHEDULER.read_text(encoding="ascii").split()[1]) / 1e9
    except (OSError, AttributeError, ValueError, IndexError):
        return {}
    tick = 1 / os.sysconf("SC_CLK_TCK")
    times = os.times()
    own = time.process_time() + times.children_user + times.children_system
    own += sum(_seconds_of(process, tick) for process in processes)
    return {"busy": busy * tick, "available": total * tick, "own": own, "delayed": delayed}


def _seconds_of(process: int, tick: float) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * tick  # utime and stime, fields 14 and 15 of proc(5)
    except (OSError, ValueError, IndexError):  # it has ended: its time is included in that of children
        return 0.0
