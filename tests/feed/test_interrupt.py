"""A real Ctrl-C, in a process of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import cinefeed as cf

SCRIPT = """
import signal, sys, threading, time
import cinefeed as cf

signal.signal(signal.SIGINT, signal.default_int_handler)  # where the tests run in the background it is ignored

class Slow:
    def sample(self, rng, info):
        return {}
    def apply(self, frames, parameters):
        time.sleep(0.05)
        return frames.copy()

manifest = cf.Manifest.read(sys.argv[1])
feed = cf.Feed(manifest, target="age", clip=cf.Clip(frames=4), frame=cf.Frame(height=16, width=16, channels=1),
               transforms=[Slow()], batch_size=2, workers=cf.Workers(count=2, prefetch=4))
try:
    while True:
        for batch in feed:
            print("batch", flush=True)
except KeyboardInterrupt:
    print("threads", [thread.name for thread in threading.enumerate() if "cinefeed" in thread.name], flush=True)
    raise
"""


def test_ctrl_c_ends_the_program_and_its_workers(manifest, tmp_path):
    path = tmp_path / "m.parquet"
    manifest.write(path)
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(path)],
        env={**os.environ, "PYTHONPATH": str(Path(cf.__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "batch\n"
        process.send_signal(signal.SIGINT)
        try:
            out, err = process.communicate(timeout=60)  # a hang fails here; no speed is asserted
        except subprocess.TimeoutExpired:
            process.kill()
            pytest.fail(f"it went on after Ctrl-C: {process.communicate()}")
    assert process.returncode == -signal.SIGINT and "KeyboardInterrupt" in err
    assert out.splitlines()[-1] == "threads []"
