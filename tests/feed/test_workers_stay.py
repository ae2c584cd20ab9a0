"""Workers live on over jumps and broken-off loops, and whatever interrupts that, no later batch is wrong or missing."""

import gc
import os
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from slow_transforms import Nap

import cinefeed as cf
from cinefeed.core.errors import SourceError
from cinefeed.feed.iteration import Epochs
from cinefeed.feed.prefetch import buffers_ahead
from cinefeed.feed.workers.pools import ThreadPool
from cinefeed.feed.workers.processes import ProcessPool

BACKENDS = pytest.mark.parametrize(
    ("backend", "worker_pool"),
    [
        ("thread", ThreadPool),
        pytest.param(
            "process",
            ProcessPool,
            marks=pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="worker processes need Linux"),
        ),
    ],
)
SETTINGS = {
    "target": "age",
    "clip": cf.Clip(frames=4, stride=2, short="pad"),
    "frame": cf.Frame(height=16, width=16, channels=1),
    "batch_size": 4,
    "seed": 7,
}


def make(manifest, **changes):
    return cf.Feed(manifest, **{**SETTINGS, "workers": 2, **changes})


def pixels(batches):
    return [batch.clips.tobytes() for batch in batches]


def expected(manifest, epoch):
    alone = make(manifest, workers=0)
    return pixels(alone.batch(index, epoch=epoch) for index in range(len(alone)))


def running(process_ids):
    return [pid for pid in process_ids if Path(f"/proc/{pid}").exists()]


def pids(worker_pool):
    return worker_pool.pids if isinstance(worker_pool, ProcessPool) else []


@BACKENDS
def test_they_end_with_the_feed_and_wait_for_no_collection(manifest, backend, worker_pool):
    feed = make(manifest, workers=cf.Workers(count=2, backend=backend))
    next(iter(feed))
    workers = pids(feed._epochs._worker_pool)
    assert isinstance(feed._epochs._worker_pool, worker_pool)
    gc.collect()
    gc.disable()
    try:
        del feed
        assert not running(workers)
    finally:
        gc.enable()


@BACKENDS
@pytest.mark.parametrize("where", ["in a loop", "between epochs"])
def test_an_interrupt_while_clips_are_dropped(manifest, monkeypatch, backend, worker_pool, where):
    feed = make(manifest, workers=cf.Workers(count=2, backend=backend, prefetch=3))
    list(feed)
    batches = iter(feed)
    if where == "in a loop":
        next(batches)
    else:
        list(batches)
    workers = pids(feed._epochs.latest_pool())

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(worker_pool, "drop", interrupted)
        feed.set_epoch(5)
    assert not running(workers)
    feed.set_epoch(5)
    assert pixels(feed) == expected(manifest, 5)


@BACKENDS
def test_an_iterator_that_ends_late_disturbs_no_other(manifest, backend, worker_pool):
    """As one does whose last reference another thread holds, or a cycle: the feed knows nothing of it any more."""
    feed = make(manifest, workers=cf.Workers(count=2, backend=backend))
    late = iter(feed)
    next(late)
    feed._epochs._iterator = None
    batches = iter(feed)
    clips = pixels([next(batches)])
    del late
    assert clips + pixels(batches) == expected(manifest, 1)
    assert pixels(feed) == expected(manifest, 2)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("evaluation", [True, False])
def test_an_interrupt_at_the_last_batch_leaves_no_line_behind(manifest, monkeypatch, before, evaluation):
    feed = make(manifest, workers=cf.Workers(count=2, backend="thread"))
    if evaluation:
        feed = feed.evaluation(manifest)
    batches = iter(feed)
    for _ in range(len(feed) - 1):
        next(batches)
    finish = Epochs.finish

    def interrupted(epochs, line):
        if not before:
            finish(epochs, line)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Epochs, "finish", interrupted)
        next(batches)
    whole = pixels(map(feed.batch, range(3))) if evaluation else expected(manifest, 1)
    assert pixels(feed) == whole


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="worker processes need Linux")
def test_no_worker_outlives_an_interrupt_while_they_end(manifest, monkeypatch):
    feed = make(manifest, workers=cf.Workers(count=2, backend="process", prefetch=3), transforms=[Nap(seconds=1.0)])
    batches = iter(feed)
    next(batches)
    workers = pids(feed._epochs.latest_pool())
    calls = []
    wait = subprocess.Popen.wait

    def interrupted(self, timeout=None):
        calls.append(timeout)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return wait(self, timeout=timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        feed._epochs.latest_pool().stop()
    assert calls and not running(workers)


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="worker processes need Linux")
def test_a_fork_has_workers_of_its_own(tmp_path):
    for number in range(8):
        np.save(tmp_path / f"{number}.npy", np.full((9, 20, 20), number, np.uint8))
    script = """
        import os, sys
        import cinefeed as cf
        feed = cf.Feed(cf.Manifest.scan(sys.argv[1]), target=None, clip=cf.Clip(frames=4), batch_size=4,
                       frame=cf.Frame(height=16, width=16, channels=1),
                       workers=cf.Workers(count=2, backend="process"))
        if sys.argv[2] == "epoch":
            list(feed)
        else:
            next(iter(feed))
        held = list(feed)
        pixels = [batch.clips.tobytes() for batch in held]
        child = os.fork()
        if not child:
            del held  # their memory is the parent's still
            feed.set_epoch(5)
            alone = [feed.batch(index).clips.tobytes() for index in range(len(feed))]
            os._exit([batch.clips.tobytes() for batch in feed] != alone)
        _, status = os.waitpid(child, 0)
        assert [batch.clips.tobytes() for batch in held] == pixels, "the child wrote into the parent's batches"
        assert len(list(feed)) == 2
        sys.exit(status)
    """
    for when in ("epoch", "batch"):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), str(tmp_path), when],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, ""), when


@BACKENDS
def test_a_clip_that_was_replaced_gives_its_memory_back(tmp_path, backend, worker_pool):
    (tmp_path / "bad.npy").write_bytes(b"\x93NUMPY cut")
    for number in range(12):
        np.save(tmp_path / f"{number}.npy", np.full((9, 20, 20), number, np.uint8))
    names = ["bad.npy", *(f"{number}.npy" for number in range(12))]
    manifest = cf.Manifest.from_table(pa.table({"path": names, "age": [*map(float, range(13))]}), root=tmp_path)
    make_one = partial(make, manifest, on_error="replace", max_bad=0.5)
    budget = make_one(workers=cf.Workers(count=2, backend=backend, memory="1GB")).memory_budget
    buffers = buffers_ahead("auto", workers=2, draws=SETTINGS["batch_size"], batches=1) + 2
    least = budget.decoders + buffers * budget.buffer_bytes
    feed = make_one(workers=cf.Workers(count=2, backend=backend, memory=least))
    gc.disable()
    try:
        for _ in range(6):
            for batch in feed:
                del batch
    finally:
        gc.enable()
    assert [line for line in feed.stats().skipped if "bad.npy" in line]


@BACKENDS
def test_a_clip_that_cannot_be_made_gives_its_memory_back(tmp_path, backend, worker_pool):
    (tmp_path / "bad.npy").write_bytes(b"\x93NUMPY cut")
    np.save(tmp_path / "a.npy", np.zeros((9, 20, 20), np.uint8))
    table = pa.table({"path": ["a.npy", "bad.npy"], "age": [31.0, 45.0]})
    feed = make(
        cf.Manifest.from_table(table, root=tmp_path),
        workers=cf.Workers(count=2, backend=backend, prefetch=1),
        batch_size=1,
    )
    made = []
    gc.disable()
    try:
        for _ in range(4):
            feed.set_epoch(0)
            with pytest.raises(SourceError):
                list(feed)
            made.append(feed._builder.buffers.size)
    finally:
        gc.enable()
    assert made[1:] == made[1:2] * 3


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="worker processes need Linux")
def test_a_program_ends_at_once_with_an_iterator_open(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((9, 20, 20), np.uint8))
    script = """
        import sys
        import cinefeed as cf
        feed = cf.Feed(cf.Manifest.scan(sys.argv[1]), target=None, clip=cf.Clip(frames=4), batch_size=1,
                       frame=cf.Frame(height=16, width=16, channels=1),
                       workers=cf.Workers(count=2, backend="process", prefetch=4))
        batches = iter(feed)
        next(batches)
        print("last line", flush=True)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "last line\n"
        began = time.monotonic()
        assert process.wait(timeout=30) == 0 and process.stderr.read() == ""
    print(f"ended after {time.monotonic() - began:.2f} s")
