"""What one process writes, another does not; reading a run while it is written remains possible."""

import threading
from contextlib import contextmanager

import pytest
from made_run import make_manifest, make_run, settings_for

from cinefeed.core.errors import InUseError, SettingError
from cinefeed.core.locks import write_lock
from cinefeed.encoders.video_encoder import VideoEncoder
from cinefeed.reports import run_page
from cinefeed.training.encode import encode
from cinefeed.training.evaluate import evaluate
from cinefeed.training.export import export
from cinefeed.training.fit import train
from cinefeed.training.folds import train_folds
from cinefeed.training.predict import predict
from cinefeed.transforms.compose import Compose
from cinefeed.video.clips import Frame


@pytest.fixture
def path(tmp_path):
    return make_manifest(tmp_path / "v")


@contextmanager
def held_elsewhere(place, *, folder=False):
    """Another holder of the lock: a thread counts as one; tests/test_locks.py has processes."""
    locked, done = threading.Event(), threading.Event()

    def hold():
        with write_lock(place, folder=folder):
            locked.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert locked.wait(10)
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_a_run_folder_is_written_by_one_and_read_by_all(path):
    settings = settings_for(path)
    run = make_run(settings).folder
    (run / "run.json").unlink()  # as of one that has not ended
    before = sorted(each.name for each in run.iterdir())
    with held_elsewhere(run, folder=True):
        for overwrite in (False, True):
            with pytest.raises(InUseError, match=r"run is being written by process \d+ on .*since"):
                train(settings, overwrite=overwrite)
        with pytest.raises(InUseError, match="is being written"):
            train_folds(settings, train=train)
        assert sorted(each.name for each in run.iterdir()) == sorted([*before, ".lock"])
        assert evaluate(run).metrics == evaluate(run, out=path.parent / "p.parquet").metrics
        assert run_page(run).is_file()
        with pytest.raises(SettingError, match="is not a run folder"):  # a run whose files are not there yet
            evaluate(path.parent)
    with pytest.raises(SettingError, match="holds an interrupted run"):
        train(settings)


def test_a_training_that_is_refused_leaves_no_folder(path):
    settings = settings_for(path, train={"out": str(path.parent / "runs" / "a"), "monitor": "val_los"})
    with pytest.raises(SettingError, match="did you mean 'val_loss'"):
        train(settings)
    assert not (path.parent / "runs").exists()


def test_predictions_features_and_exports_are_written_by_one(path, tmp_path):
    run = make_run(settings_for(path)).folder
    for work in (lambda out: predict(run, manifest=path, out=out), lambda out: evaluate(run, out=out)):
        with held_elsewhere(tmp_path / "p.csv"), pytest.raises(InUseError, match=r"p\.csv is being written by process"):
            work(tmp_path / "p.csv")
    compose = Compose([], frame=Frame(height=8, width=8, channels=1))
    encoder = VideoEncoder(model=None, compose=compose, name="never called")
    with held_elsewhere(tmp_path / "f", folder=True), pytest.raises(InUseError, match="f is being written by process"):
        encode(path, out=tmp_path / "f", encoder=encoder)
    with held_elsewhere(run / "model.keras"), pytest.raises(InUseError, match=r"model\.keras is being written by"):
        export(run, format="keras")
    assert not list(tmp_path.glob("[pf]*"))
