"""A program that is killed in mid-epoch goes on, started again, with exactly the batches that were missing."""

import json
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from epoch_digests import epochs, make
from slow_transforms import Nap

import cinefeed as cf

SETTINGS = {"target": "age", "batch_size": 2}  # six batches an epoch
# A training loop that keeps what it has consumed and where it stands in one file, which is there whole or not at all.
SCRIPT = """
import json, sys, time
from pathlib import Path
import cinefeed as cf
from epoch_digests import digest, make
from slow_transforms import Nap

kept, fresh, slow_at = Path(sys.argv[2]), Path(sys.argv[2] + ".new"), int(sys.argv[5])
transforms = [cf.Rotate(degrees=25), Nap(seconds=0.02)]
workers = cf.Workers(count=2, backend=sys.argv[3], prefetch=3)
feed = make(cf.Manifest.read(sys.argv[1]), transforms=transforms, workers=workers, **json.loads(sys.argv[4]))
run = {"consumed": []}
if kept.exists():
    run = json.loads(kept.read_text())
    feed.restore(run["state"])
while feed.epoch < 3:
    for batch in feed:
        run["consumed"].append(digest(batch))
        run["state"] = feed.state()
        fresh.write_text(json.dumps(run))
        fresh.replace(kept)
        if len(run["consumed"]) == slow_at:
            time.sleep(100)  # a step of training that does not come to its end
"""


@pytest.fixture
def whole(manifest):
    """The digests of three epochs without an interruption."""
    feed = make(manifest, transforms=[cf.Rotate(degrees=25), Nap(seconds=0.0)], **SETTINGS, workers=0)
    batches = [each for epoch in epochs(feed, 3) for each in epoch]
    assert len(set(batches)) == 18
    return batches


@contextmanager
def program(manifest, record, *, backend="thread", slow_at=0):
    """Start the program; at the end it is waited for, and killed where it has not come to its end."""
    path = record.with_name("m.parquet")
    manifest.write(path)
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, path, record, backend, json.dumps(SETTINGS), str(slow_at)],
        cwd=Path(__file__).parent,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def consumed(record):
    return json.loads(record.read_text())["consumed"] if record.exists() else []


def children_of(pid):
    """Return the processes that all threads of a process have started."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return {int(child) for each in lists for child in each.read_text().split()}


def wait_until(true, *, seconds=60.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.005)
    return False


def killed_at(number, manifest, record, *, backend):
    """Run the program until it has consumed a number of batches, and kill it; return the workers that it had."""
    with program(manifest, record, backend=backend, slow_at=number) as process:
        assert wait_until(lambda: len(consumed(record)) == number or process.poll() is not None)
        workers = children_of(process.pid)
        process.send_signal(signal.SIGKILL)
        _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (-signal.SIGKILL, "")
    return workers


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the processes of a process are looked up in /proc")
@pytest.mark.parametrize("backend", ["thread", "process"])
def test_a_program_that_is_killed_goes_on_where_it_was(manifest, whole, tmp_path, backend):
    """Killed in the first epoch, in the second and in the third, then left alone."""
    record = tmp_path / "run.json"
    for number, draws in ((2, 4), (9, 6), (16, 8)):
        workers = killed_at(number, manifest, record, backend=backend)
        assert json.loads(record.read_text())["state"]["draws"] == draws, "killed in the middle of an epoch"
        assert consumed(record) == whole[:number]
        assert len(workers) == (2 if backend == "process" else 0)
        assert wait_until(lambda workers=workers: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    with program(manifest, record, backend=backend) as process:
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert consumed(record) == whole


@pytest.mark.parametrize("off", [-2, 2])
def test_a_state_of_the_batch_before_or_after_is_found(manifest, whole, tmp_path, off):
    record = tmp_path / "run.json"
    killed_at(2, manifest, record, backend="thread")
    run = json.loads(record.read_text())
    run["state"]["draws"] += off
    record.write_text(json.dumps(run))
    with program(manifest, record) as process:
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert consumed(record) != whole and len(consumed(record)) == 18 - off // 2
