"""Processor time of this program and of others: made-up clocks, and the ones of this machine."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cinefeed.core import machine
from cinefeed.core.machine import CpuMeter, busy_ticks

needs_proc = pytest.mark.skipif(not Path("/proc/thread-self/schedstat").exists(), reason="no /proc here")


def test_only_the_cores_of_the_process_count():
    lines = ["cpu  1 1 1 1", "cpu0 10 0 5 80 5 0 0 0 3 3", "cpu1 100 0 0 0 0 0 0 0", "intr 7 7"]
    assert busy_ticks(lines, cores={0}) == (15, 100)
    assert busy_ticks(lines, cores={0, 1}) == (115, 200)
    assert busy_ticks(["cpu0 0 0 0 90 0 0 0 10"], cores={0}) == (10, 100)  # time that another virtual machine had


@needs_proc
def test_own_time_grows_with_own_work_and_that_of_named_processes():
    meter = CpuMeter()
    meter.start()
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    lap = meter.lap()
    assert lap["own_cpu_seconds"] >= 0.1
    assert lap["available_cpu_seconds"] > 0
    spin = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", spin], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        meter.start([process.pid])
        process.stdout.readline()
        assert meter.lap([process.pid])["own_cpu_seconds"] >= 0.1  # what it spent before `start` is not counted
        process.communicate(b"\n")


def test_others_have_what_is_busy_and_not_ours(monkeypatch):
    times = iter(
        [
            {"busy": 10.0, "available": 100.0, "own": 5.0, "delayed": 1.0},
            {"busy": 17.0, "available": 108.0, "own": 7.0, "delayed": 1.5},
        ]
    )
    monkeypatch.setattr(machine, "_cpu_times", lambda processes: next(times))
    meter = CpuMeter()
    meter.start()
    assert meter.lap() == {
        "available_cpu_seconds": 8.0,
        "own_cpu_seconds": 2.0,
        "other_cpu_seconds": 5.0,
        "delayed_seconds": 0.5,
    }


def test_without_proc_nothing_is_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "_STAT", tmp_path / "absent")
    meter = CpuMeter()
    meter.start([os.getpid()])
    assert meter.lap() == {}
