"""Workers are killed at random: every sample comes exactly once, or there is a clear error, and nothing is left."""

import gc
import os
import random
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from epoch_digests import digest
from slow_transforms import Nap

import cinefeed as cf
from cinefeed.core.errors import FeedError

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="worker processes need Linux")
# What the engine says of a clip that was being made each time when a worker died, and of workers that never began.
CLEAR = r"row \d+, \d+\.npy: 2 workers ended at this clip; the last was killed by SIG|workers end before they are ready"


def make(folder, rows, **changes):
    """Return a feed of `rows` clips, each of a file whose pixels say which it is."""
    names = [f"{row:03}.npy" for row in range(rows)]
    for row, name in enumerate(names):
        if not (folder / name).exists():
            np.save(folder / name, np.full((8, 16, 16), row % 251, np.uint8))
    table = pa.table(
        {"id": [name[:-4] for name in names], "path": names, "number": [float(row) for row in range(rows)]}
    )
    settings = {
        "target": "number",
        "clip": cf.Clip(frames=4),
        "frame": cf.Frame(height=16, width=16, channels=1),
        "transforms": [cf.Brightness(factor=0.2), Nap(seconds=0.02)],
        "batch_size": 4,
        "seed": 7,
        "workers": cf.Workers(count=3, backend="process"),
    }
    return cf.Feed(cf.Manifest.from_table(table, root=folder), **{**settings, **changes})


def children():
    """Return the living and the dead that this process has not waited for, whichever of its threads started them."""
    pids = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it has just gone
            continue
        if int(parent) == os.getpid():
            pids.add((stat.parent.name, state))
    return pids


def belongings():
    """Return what a feed must not leave behind: processes, threads, handles, shared memory."""
    gc.collect()
    handles = [str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    kinds = Counter(each.split(":")[0] for each in handles)
    shared = sorted(
        each for each in Path("/dev/shm").iterdir() if not each.name.startswith("sem.")
    )  # of other programs
    return children(), threading.active_count(), kinds, shared


def settled(before, *, seconds=10.0):
    """Return the belongings once they are those of before, or after a while what there is then."""
    deadline = time.monotonic() + seconds
    while (now := belongings()) != before and time.monotonic() < deadline:
        time.sleep(0.05)
    return now


def pool_of(batches):
    return batches._prefetcher.worker_pool


def kill_one(worker_pool, killed, rng, signals):
    """Kill a worker that lives, whatever it is doing: starting, waiting, or making a clip."""
    deadline = time.monotonic() + 60
    while not (alive := [pid for pid in worker_pool.pids if pid not in killed]):
        assert time.monotonic() < deadline, "no worker came to take the place of those that were killed"
        time.sleep(0.01)
    killed.append(rng.choice(alive))
    os.kill(killed[-1], rng.choice(signals))


def survive(feed, *, kills, seed, pause, signals):
    """Feed an epoch while workers are killed, now and then between two batches, at random moments.

    After an error it goes on from the state, as a user would. Return the digests of the batches, the errors, and the
    workers that were killed.
    """
    rng, count = random.Random(seed), len(feed)
    digests, errors, killed = [], [], []
    while feed.epoch == 0:
        batches = iter(feed)
        try:
            for batch in batches:
                digests.append(digest(batch))
                del batch
                due = kills if len(digests) == count - 1 else kills * len(digests) // (count - 1)
                while len(killed) < due and len(digests) < count:
                    time.sleep(rng.uniform(0, pause))
                    kill_one(pool_of(batches), killed, rng, signals)
        except FeedError as error:
            errors.append(str(error))
            feed.restore(feed.state())
    return digests, errors, killed


def check_survival(folder, *, rows, kills, seed, pause, signals=(signal.SIGKILL,), **changes):
    """Check that an epoch with kills is that of threads without, that errors are clear, and that nothing is left."""
    calm = make(folder, rows, workers=cf.Workers(count=3, backend="thread"))
    expected = [digest(batch) for batch in calm]
    first = make(folder, rows, workers=cf.Workers(count=1, backend="process"), transforms=[])
    list(first)  # some files are opened once and for all
    del calm, first
    gc.collect()
    assert wait_for(lambda: not children() and "/memfd" not in belongings()[2])
    before = belongings()
    feed = make(folder, rows, **changes)
    digests, errors, killed = survive(feed, kills=kills, seed=seed, pause=pause, signals=signals)
    assert digests == expected and len(set(killed)) == kills
    assert [error for error in errors if not re.search(CLEAR, error)] == []
    wait_for(lambda stats=feed.stats: len(stats().deaths) == kills or errors)
    named = {int(death.split()[1]) for death in feed.stats().deaths}
    assert named <= set(killed)
    assert errors or len(named) == kills, "each is named, unless its worker pool was given up"
    del feed
    assert settled(before) == before
    return errors


def wait_for(true, *, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not (held := true()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return held


def test_four_kills(tmp_path):
    check_survival(tmp_path, rows=40, kills=4, seed=0, pause=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_thirty_kills(tmp_path, seed):
    signals = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)
    errors = check_survival(
        tmp_path,
        rows=250,
        kills=30,
        seed=seed,
        pause=1.0,
        signals=signals,
        workers=cf.Workers(count=4, backend="process"),
    )
    print(f"30 kills, seed {seed}: {len(errors)} errors {errors}")


def test_what_is_left_behind_is_found(tmp_path):
    """The comparison fails for a process, a zombie, a handle and shared memory."""
    before = belongings()
    sleeper = subprocess.Popen(["sleep", "60"])
    assert settled(before, seconds=0) != before
    sleeper.kill()
    assert wait_for(lambda: (str(sleeper.pid), "Z") in children())
    assert settled(before, seconds=0) != before
    sleeper.wait()
    assert settled(before) == before
    with (tmp_path / "open").open("w"):
        assert settled(before, seconds=0) != before
    name = Path("/dev/shm", f"left-by-a-test-{os.getpid()}")
    name.touch()
    assert settled(before, seconds=0) != before
    name.unlink()
    assert settled(before) == before
