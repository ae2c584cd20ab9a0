"""Threads or processes: the decision by its numbers, and the trial by clips that can or cannot be made side by side."""

import threading
import time
from dataclasses import dataclass

import numpy as np
import pytest
from slow_transforms import Nap

import cinefeed as cf
from cinefeed.core.errors import CinefeedError
from cinefeed.feed.clip_pipeline import ClipPipeline, PlanEntry
from cinefeed.feed.workers import autotune as choose
from cinefeed.feed.workers.autotune import BackendChoice, Trial, choose_backend, decide, try_threads, why_no_processes
from cinefeed.transforms.compose import Compose

LOCK = threading.Lock()


@dataclass(frozen=True)
class HoldTheLock:
    """Take a while, one clip after the other, as code does that holds the interpreter."""

    seconds: float

    def sample(self, rng, info):
        return {}

    def apply(self, frames, parameters):
        with LOCK:
            time.sleep(self.seconds)
        return frames


@dataclass(frozen=True)
class NotPickled:
    """A transform that carries what cannot be sent."""

    function: object = lambda: None

    def sample(self, rng, info):
        return {}

    def apply(self, frames, parameters):
        return frames


def maker_of(manifest, *transforms):
    compose = Compose(transforms, frame=cf.Frame(height=8, width=8, channels=1), frames=2)
    return ClipPipeline(rows=manifest.rows, clip=cf.Clip(frames=2), compose=compose, channels=1, seed=0)


DRAWS = [PlanEntry(row, 0, row) for row in range(11)]


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(choose, "usable_cores", lambda: 2)


@pytest.mark.parametrize(
    ("gain", "workers", "cores", "backend"),
    [
        (1.94, 2, 2, "thread"),
        (1.8, 2, 2, "thread"),
        (1.79, 2, 2, "process"),
        (1.3, 2, 2, "process"),
        (1.0, 2, 2, "process"),
        (3.7, 4, 8, "thread"),
        (3.0, 4, 8, "process"),
        (1.9, 8, 2, "thread"),  # two cores do not gain eight times
        (6.0, 8, 8, "process"),
    ],
)
def test_the_gain_decides(gain, workers, cores, backend):
    assert decide(Trial(8, 0.01, gain), workers=workers, cores=cores).backend == backend


def test_it_says_why_in_one_line():
    assert decide(Trial(1, 0.5, 3.9), workers=4, cores=4).why == "4 threads: 3.9 times as fast as one, for 1 clip"
    assert (
        decide(Trial(64, 0.0014, 1.2), workers=2, cores=2).why
        == "2 processes: threads are only 1.2 times as fast as one, at 1.4 ms per clip"
    )


def test_clips_that_run_side_by_side_gain_with_threads(manifest, two_cores):
    trial = try_threads(maker_of(manifest, Nap(seconds=0.02)), DRAWS, workers=2)
    assert 1 <= trial.clips <= len(DRAWS)
    assert trial.seconds_a_clip >= 0.02
    assert 1.3 < trial.gain < 2.7  # napping needs no core


def test_clips_that_hold_the_interpreter_gain_nothing_and_go_to_processes(manifest, two_cores):
    pipeline = maker_of(manifest, HoldTheLock(seconds=0.02))
    assert try_threads(pipeline, DRAWS, workers=2).gain < 1.3
    choice = choose_backend(pipeline, DRAWS, workers=2)
    assert choice.backend == "process"
    assert choice.why.startswith("2 processes: threads are only ")


def test_the_first_clip_is_not_counted(manifest):
    """It compiles: here it takes half a second, the others nothing."""
    pipeline = maker_of(manifest)
    times = iter([0.5])
    made = []

    class Slow(type(pipeline)):
        def make(self, draw, out, valid):
            made.append(draw)
            time.sleep(next(times, 0.0))
            return super().make(draw, out, valid)

    slow = Slow(**{name: getattr(pipeline, name) for name in ("rows", "clip", "compose", "channels", "seed")})
    trial = try_threads(slow, DRAWS, workers=2)
    assert made[:2] == [DRAWS[0], DRAWS[0]]
    assert trial.clips == len(DRAWS)
    assert trial.seconds_a_clip < 0.5 / len(DRAWS)


def test_clips_that_cannot_be_made_are_passed_over(manifest, two_cores):
    (manifest.root / "00.npy").write_bytes(b"no video")
    pipeline = maker_of(manifest, Nap(seconds=0.01))
    assert try_threads(pipeline, DRAWS[:3], workers=2).clips == 2
    with pytest.raises(CinefeedError, match="none of 1 clip can be made"):
        try_threads(pipeline, DRAWS[:1], workers=2)
    choice = choose_backend(pipeline, DRAWS[:1], workers=2)
    assert choice == BackendChoice("thread", "2 threads: the first clips cannot be made, so none could be timed")


def test_nothing_is_measured_where_there_is_no_choice(manifest, monkeypatch):
    def fail(*arguments, **settings):
        raise AssertionError("it was measured")

    monkeypatch.setattr(choose, "try_threads", fail)
    pipeline = maker_of(manifest)
    monkeypatch.setattr(choose, "usable_cores", lambda: 1)
    assert choose_backend(pipeline, DRAWS, workers=4).backend == "thread"
    monkeypatch.setattr(choose, "usable_cores", lambda: 2)
    for workers in (0, 1):
        assert choose_backend(pipeline, DRAWS, workers=workers).backend == "thread"
    assert choose_backend(pipeline, DRAWS, workers=1).why.startswith("1 thread: ")
    choice = choose_backend(maker_of(manifest, NotPickled()), DRAWS, workers=2)
    assert choice.backend == "thread" and "processes cannot be used" in choice.why
    with pytest.raises(AssertionError, match="measured"):
        choose_backend(pipeline, DRAWS, workers=2)


def test_what_other_processes_cannot_be_given(manifest, monkeypatch):
    assert why_no_processes(maker_of(manifest, cf.Rotate(degrees=5), Nap(seconds=0))) == ""
    assert "pickle" in why_no_processes(maker_of(manifest, NotPickled()))
    monkeypatch.setattr(HoldTheLock, "__module__", "__main__")
    monkeypatch.setattr("__main__.HoldTheLock", HoldTheLock, raising=False)
    assert "move it to a module" in why_no_processes(maker_of(manifest, HoldTheLock(seconds=0)))
    videos = cf.Manifest.from_arrays([np.zeros((4, 8, 8), np.uint8)] * 2)
    assert "memory" in why_no_processes(maker_of(videos))
    monkeypatch.delattr("os.memfd_create")
    assert "Linux" in why_no_processes(maker_of(manifest))
