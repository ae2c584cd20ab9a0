"""Worker processes: the same bytes as threads, and nothing lost or left behind when they die."""

import gc
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from slow_transforms import Nap

import cinefeed as cf
from cinefeed.core.errors import DecodeError, FeedError, SourceError

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="worker processes need Linux")


def make(manifest, **changes):
    settings = {
        "target": "age",
        "clip": cf.Clip(frames=4, stride=2, short="pad"),
        "frame": cf.Frame(height=16, width=16, channels=1),
        "transforms": [cf.Rotate(degrees=20), cf.Brightness(factor=0.2)],
        "batch_size": 4,
        "seed": 7,
        "workers": cf.Workers(count=2, backend="process"),
    }
    return cf.Feed(manifest, **{**settings, **changes})


def pids(feed):
    return feed._epochs.latest_pool().pids


def gone(process_ids, *, seconds=5.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(Path(f"/proc/{pid}").exists() for pid in process_ids):
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("more", [(), (cf.Normalize(dtype="bfloat16"),)])
def test_the_same_bytes_as_threads_over_two_epochs(manifest, more):
    transforms = [cf.Rotate(degrees=20), cf.Brightness(factor=0.2), *more]
    threads, processes = (
        make(manifest, workers=cf.Workers(count=2, backend="thread"), transforms=transforms),
        make(manifest, transforms=transforms),
    )
    for _ in range(2):
        pairs = list(zip(threads, processes, strict=True))
        assert len(pairs) == 3
        for expected, result in pairs:
            for name in ("clips", "targets", "weights", "ids", "valid"):
                np.testing.assert_array_equal(getattr(result, name), getattr(expected, name))


def test_workers_stay_over_epochs_and_end_with_the_feed(manifest):
    feed = make(manifest)
    list(feed)
    first = pids(feed)
    list(feed)
    assert pids(feed) == first, feed.stats().deaths
    assert feed.stats().decode_seconds > 0
    del feed
    gc.collect()
    assert gone(first)


def test_workers_stay_where_set_epoch_changes_nothing(manifest):
    feed, alone = make(manifest), make(manifest, workers=cf.Workers(count=0))
    for epoch in range(3):
        feed.set_epoch(epoch)  # as many a training loop says it
        before = pids(feed) if epoch else None
        clips = [batch.clips.tobytes() for batch in feed]
        assert clips == [alone.batch(number, epoch=epoch).clips.tobytes() for number in range(len(alone))]
        assert before in (None, pids(feed)), feed.stats().deaths
    before = pids(feed)
    feed.set_epoch(7)
    clips = [batch.clips.tobytes() for batch in feed]
    assert clips[0] == alone.batch(0, epoch=7).clips.tobytes()
    alone.set_epoch(8)  # where the workers of `feed` stand
    next(iter(alone))
    rest = [batch.clips.tobytes() for batch in feed.restore(alone.state())]
    assert pids(feed) == before
    assert rest == [alone.batch(number, epoch=8).clips.tobytes() for number in range(1, len(alone))]


def test_all_workers_are_started(manifest):
    feed = make(manifest, workers=cf.Workers(count=3, backend="process"))
    assert not feed.workers_ready
    deadline = time.monotonic() + 60
    while not feed.workers_ready and time.monotonic() < deadline:
        for _ in feed:
            pass
    assert feed.workers_ready and len(pids(feed)) == 3
    threads = make(manifest, workers=cf.Workers(count=2, backend="thread"))
    next(iter(threads))
    assert threads.workers_ready


def test_breaking_off_leaves_them_to_the_next_iteration(manifest):
    feed, alone = (
        make(manifest, workers=cf.Workers(count=2, backend="process", prefetch=3, memory="30MB")),
        make(manifest, workers=cf.Workers(count=0)),
    )
    before: list[int] = []
    for number in range(3):
        for batch in feed:
            assert batch.clips.tobytes() == alone.batch(0, epoch=number).clips.tobytes()
            break
        assert {*before} <= {*pids(feed)}, number  # the second worker may start later
        before = pids(feed)
    whole = [alone.batch(number, epoch=3).clips.tobytes() for number in range(3)]
    assert [batch.clips.tobytes() for batch in feed] == whole
    assert {*before} <= {*pids(feed)} and not feed.stats().deaths
    before = pids(feed)
    feed.close()
    assert gone(before)
    assert feed.epoch == 4 and next(iter(feed)).clips.tobytes() == alone.batch(0, epoch=4).clips.tobytes()


def test_an_error_in_a_worker_names_row_and_path_and_brings_its_traceback(manifest):
    (manifest.root / "03.npy").write_bytes(b"\x93NUMPY is cut off")
    with pytest.raises(SourceError, match=r"row 3, 03\.npy") as caught:
        list(make(manifest))
    assert "in _make" in "".join(caught.value.__notes__)


def test_a_killed_worker_is_named_and_its_clips_are_made_by_another(manifest, caplog):
    expected = [
        batch.clips.copy()
        for batch in make(manifest, workers=cf.Workers(count=2, backend="thread"), transforms=[Nap(seconds=0.6)])
    ]
    feed = make(manifest, transforms=[Nap(seconds=0.6)])
    batches = iter(feed)
    clips = [next(batches).clips.copy()]
    prefetcher = batches._prefetcher
    os.kill(next(each.process.pid for each in prefetcher.worker_pool._workers if each.tasks), signal.SIGKILL)
    deadline = time.monotonic() + 5  # one second on a machine at rest
    while not prefetcher.worker_pool.deaths and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (
        "was killed by SIGKILL while it made row " in prefetcher.worker_pool.deaths[0]
        and ".npy" in prefetcher.worker_pool.deaths[0]
    )
    clips += [batch.clips.copy() for batch in batches]
    for one, other in zip(clips, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert any("SIGKILL" in record.message for record in caplog.records)


def test_a_clip_at_which_two_workers_die_is_an_error(manifest):
    feed = make(manifest, transforms=[Nap(seconds=0.0, kill_where=200)])
    with pytest.raises(
        FeedError, match=r"row \d+, 10\.npy: 2 workers ended at this clip; the last was killed by SIGKILL"
    ):
        list(feed)


def test_a_clip_that_takes_too_long_is_given_up(manifest):
    feed = make(
        manifest, transforms=[Nap(seconds=30.0)], workers=cf.Workers(count=2, backend="process", timeout_seconds=0.5)
    )
    began = time.monotonic()
    with pytest.raises(DecodeError, match=r"row \d+, \d+\.npy: took longer than 0\.5 s"):
        list(feed)
    assert time.monotonic() - began < 20


@dataclass(frozen=True)
class Elsewhere:
    def sample(self, rng, info):
        return {}

    def apply(self, frames, parameters):
        return frames


def test_settings_that_cannot_be_sent_are_served_by_threads_and_that_is_said(manifest, caplog):
    @dataclass(frozen=True)
    class Local(Elsewhere):
        pass

    feed = make(manifest, transforms=[Local()])
    assert len(list(feed)) == 3
    assert "threads make the clips" in caplog.text and "threads" in feed.summary()


SCRIPT = textwrap.dedent(
    """
    import os, sys
    from dataclasses import dataclass
    from pathlib import Path
    import cinefeed as cf

    print("script", flush=True)  # a worker that imported this would say it again

    @dataclass(frozen=True)
    class Mine:
        def sample(self, rng, info):
            return {}
        def apply(self, frames, parameters):
            return frames

    manifest = cf.Manifest.scan(sys.argv[1], progress=False)
    transforms = [Mine()] if sys.argv[2] == "mine" else [cf.Rotate(degrees=5)]
    feed = cf.Feed(
        manifest, target=None, clip=cf.Clip(frames=4), frame=cf.Frame(height=16, width=16, channels=1),
        transforms=transforms, batch_size=4, workers=cf.Workers(count=2, backend="process"),
    )
    batches = iter(feed)
    next(batches)
    worker_pool = batches._prefetcher.worker_pool
    print("pids", *getattr(worker_pool, "pids", []), flush=True)
    if sys.argv[2] == "die":
        os.kill(os.getpid(), 9)
    if sys.argv[2] == "raise":
        raise SystemExit(3)
    """
)


@pytest.mark.parametrize(("how", "status"), [("end", 0), ("raise", 3), ("die", -9), ("mine", 0)])
def test_a_script_needs_no_guard_and_leaves_nothing(manifest, tmp_path, how, status):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, script, manifest.root, how], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == status, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "script" and len(lines) == 2
    worker_pids = [int(pid) for pid in lines[1].split()[1:]]
    assert len(worker_pids) == (0 if how == "mine" else 2)
    assert gone(worker_pids)
    assert ("threads make the clips" in done.stderr) == (how == "mine")
    assert "Traceback" not in done.stderr
