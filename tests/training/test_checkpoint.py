"""A training that was broken off goes on as if it had not been."""

import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")
import h5py
import keras
import numpy as np
import pyarrow as pa
import pytest
import torch

from cinefeed.config import to_toml
from cinefeed.core.digests import append_digest
from cinefeed.core.errors import DiskFullError, FeedError, SettingError, TrainingError
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.feed.feed import Feed
from cinefeed.feed.settings import Workers
from cinefeed.training import checkpoint as module
from cinefeed.training import fit as fit_module
from cinefeed.training.batches import TrainingSet
from cinefeed.training.checkpoint import Checkpoint, Paused, stop_on_signals
from cinefeed.training.fit import train
from cinefeed.training.setup import make_parts
from cinefeed.video.clips import Clip, Frame

sys.path.insert(0, str(Path(__file__).parent))
from resumable import Losses, settings_for

SCRIPT = Path(__file__).with_name("resumable.py")


@pytest.fixture
def rows(manifest, tmp_path):
    manifest.write(tmp_path / "m.parquet")
    return tmp_path / "m.parquet"


def run_script(settings, *how, backend="torch"):
    """Train in a process of its own; return its exit code, its output and each batch's loss, from the first on."""
    toml = Path(settings.train.out).with_name("s.toml")
    toml.write_text(to_toml(settings))
    done = subprocess.run(
        [sys.executable, SCRIPT, toml, *map(str, how)],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": backend},
    )
    return done.returncode, done.stdout + done.stderr, losses_of(toml.with_name("losses.txt"))


def losses_of(path):
    return path.read_text().splitlines() if path.exists() else []


def weights_of(folder):
    result = {}
    with h5py.File(folder / "best.weights.h5") as file:
        file.visititems(lambda name, each: result.update({name: each[()]}) if isinstance(each, h5py.Dataset) else None)
    return result


def same_runs(one, other):
    """Whether two run folders hold the same results, bit for bit."""
    names = ("history.csv", "metrics.json", "predictions.parquet", "labels.json")
    weights, others = weights_of(one), weights_of(other)
    return (
        all((one / name).read_bytes() == (other / name).read_bytes() for name in names)
        and weights.keys() == others.keys()
        and all(np.array_equal(weights[name], others[name]) for name in weights)
    )


def undisturbed(rows, folder):
    folder.mkdir()
    settings = settings_for(rows, out=folder / "run")
    train(settings, callbacks=[Losses(folder / "losses.txt")])
    return folder / "run", losses_of(folder / "losses.txt")


def test_after_kill_9_within_an_epoch_it_goes_on_exactly(rows, tmp_path):
    whole, losses = undisturbed(rows, tmp_path / "a")
    assert len(losses) == 16 and len(set(losses)) == 16
    (tmp_path / "b").mkdir()
    settings = settings_for(rows, out=tmp_path / "b" / "run")
    code, _, before = run_script(settings, "kill", 2, 2)
    assert code == -signal.SIGKILL
    assert before == losses[:11]
    assert not (tmp_path / "b" / "run" / "run.json").exists()
    (tmp_path / "b" / "losses.txt").unlink()
    result = train(settings, callbacks=[Losses(tmp_path / "b" / "losses.txt")])
    # the batch at which it was killed is done again: its checkpoint was not written any more
    assert losses_of(tmp_path / "b" / "losses.txt") == losses[10:]
    assert same_runs(whole, result.folder)
    assert not (result.folder / "checkpoint.npz").exists()


def test_the_comparison_sees_a_difference(rows, tmp_path):
    whole, losses = undisturbed(rows, tmp_path / "a")
    (tmp_path / "b").mkdir()
    other = settings_for(rows, out=tmp_path / "b" / "run", learning_rate=0.051)
    train(other, callbacks=[Losses(tmp_path / "b" / "losses.txt")])
    assert not same_runs(whole, tmp_path / "b" / "run")
    assert losses_of(tmp_path / "b" / "losses.txt")[0] == losses[0]
    assert losses_of(tmp_path / "b" / "losses.txt")[2:] != losses[2:]


@pytest.mark.slow
def test_on_jax_too(rows, tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    settings = settings_for(rows, out=tmp_path / "b" / "run", warmup_epochs=2)
    code, output, losses = run_script(settings_for(rows, out=tmp_path / "a" / "run", warmup_epochs=2), backend="jax")
    assert code == 0, output
    code, _, _ = run_script(settings, "kill", 1, 2, backend="jax")
    assert code == -signal.SIGKILL
    (tmp_path / "b" / "losses.txt").unlink()
    code, output, after = run_script(settings, backend="jax")
    assert code == 0, output
    assert after == losses[-len(after) :] and len(after) == 10
    assert same_runs(tmp_path / "a" / "run", tmp_path / "b" / "run")


@pytest.mark.parametrize("how", ["term", pytest.param("usr1", marks=pytest.mark.slow)])
def test_a_signal_saves_and_leaves_with_0(rows, tmp_path, how):
    if how == "term":
        settings = settings_for(rows, out=tmp_path / "run", save_minutes=0)
        code, output, before = run_script(settings, how, 1, 1)
    else:  # at an epoch's last batch: the epoch is finished first
        settings = settings_for(rows, out=tmp_path / "run", save_minutes=0)
        code, output, before = run_script(settings, how, 1, 3)
    assert code == 0
    place = "epoch 2, batch 2" if how == "term" else "the end of epoch 2"
    assert f"checkpoint saved at {place}; run the same command again" in output
    assert len(before) == (6 if how == "term" else 8)
    train(settings, callbacks=[Losses(tmp_path / "losses.txt")])
    whole, losses = undisturbed(rows, tmp_path / "a")
    assert losses_of(tmp_path / "losses.txt") == losses
    assert same_runs(whole, tmp_path / "run")


class Break(keras.callbacks.Callback):
    """Raises at a batch or at an epoch's end, as a bug or a bad file would."""

    def __init__(self, epoch, batch=None):
        super().__init__()
        self.at = (epoch, batch)
        self.epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            raise ZeroDivisionError

    def on_epoch_end(self, epoch, logs=None):
        if (epoch, None) == self.at:
            raise ZeroDivisionError


@pytest.fixture
def broken(rows, tmp_path):
    """Settings of a run that was broken off in its second epoch."""
    settings = settings_for(rows, out=tmp_path / "run", epochs=2)
    with pytest.raises(ZeroDivisionError):
        train(settings, callbacks=[Break(1, 2)])
    return settings


def test_other_settings_are_named(broken, rows, tmp_path):
    other = settings_for(rows, out=tmp_path / "run", epochs=2, learning_rate=0.1, patience=2)
    before = (tmp_path / "run" / "checkpoint.npz").read_bytes()
    message = r"with other settings \(\[train\] learning_rate = 0.05 there, 0.1 here; \[train\] patience = 3 there, 2 h"
    with pytest.raises(SettingError, match=message):
        train(other)
    assert (tmp_path / "run" / "checkpoint.npz").read_bytes() == before
    result = train(other, overwrite=True)
    assert result.epochs == 2


def test_other_workers_go_on(broken, tmp_path):
    feed = replace(broken.feed, workers=Workers(count=1, prefetch=1), max_bad=0.5)
    result = train(replace(broken, feed=feed))
    assert result.epochs == 2 and not (tmp_path / "run" / "checkpoint.npz").exists()


def test_another_manifest_is_refused(broken, manifest, rows, tmp_path):
    manifest.take(np.arange(10)).write(rows)
    with pytest.raises(SettingError, match=r"with other rows \(11 there, 10 here.*--overwrite"):
        train(broken)


@pytest.mark.parametrize("part", ["val", "test"])
def test_rows_that_are_not_trained_on_must_be_the_same_too(broken, rows, tmp_path, part):
    own = Manifest.read(tmp_path / "run" / "manifest.parquet")
    row = own.column("split").to_pylist().index(part)
    table = Manifest.read(rows).table
    ages = table["age"].to_pylist()
    ages[row] += 1.0
    changed = table.set_column(table.column_names.index("age"), "age", pa.array(ages))
    Manifest.from_table(changed, root=rows.parent).write(rows)
    parts = make_parts(Manifest.read(rows), broken)
    assert parts.train.fingerprint == own.where("split", ["train"]).take(np.arange(len(parts.train))).fingerprint
    with pytest.raises(SettingError, match=r"with other rows \(11 there, 11 here, or they differ in a label"):
        train(broken)


class Threads(keras.callbacks.Callback):
    """Notes how many threads torch computes each batch with."""

    def __init__(self):
        super().__init__()
        self.numbers = set()

    def on_train_batch_end(self, batch, logs=None):
        self.numbers.add(torch.get_num_threads())


def test_it_goes_on_with_the_threads_that_it_began_with(broken, tmp_path):
    path = tmp_path / "run" / "versions.json"
    versions = json.loads(path.read_text())
    before = torch.get_num_threads()
    assert versions["threads"] == str(before), "OMP_NUM_THREADS is set in tests"
    path.write_text(json.dumps(versions | {"threads": str(before + 1)}))
    threads = Threads()
    train(broken, callbacks=[threads])
    assert threads.numbers == {before + 1}
    assert torch.get_num_threads() == before


def test_another_number_of_threads_is_another_setting(broken, rows, tmp_path):
    with pytest.raises(SettingError, match=r"threads = 'auto' there, 3 here"):
        train(settings_for(rows, out=tmp_path / "run", epochs=2, threads=3))


def test_the_time_before_the_break_counts(broken, tmp_path):
    path = tmp_path / "run" / "checkpoint.npz"
    content, arrays = module._read(path)
    content["seconds"] += 1e6
    np.savez(path, metadata=np.frombuffer(json.dumps(content).encode(), np.uint8), **arrays)
    append_digest(path)
    result = train(broken)
    assert result.seconds > 1e6
    assert json.loads((tmp_path / "run" / "run.json").read_text())["seconds"] > 1e6


def test_a_feed_of_other_rows_is_refused(manifest, tmp_path):
    fit(*own(manifest, tmp_path / "a.npz"), epochs=1)
    _, _, other = own(manifest.take(np.arange(10)), tmp_path / "a.npz")
    with pytest.raises(FeedError, match="manifest"):
        other.load()


def test_a_checkpoint_is_there_before_any_weights(manifest, rows, tmp_path, monkeypatch):
    """Else a kill after the first epoch's weights would leave a folder from which nothing goes on."""

    def full(*a, **how):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module.np, "savez", full)
        with pytest.raises(
            TrainingError,
            match=r"the disk is full .*there is no previous one\. Run the same command again to start over",
        ):
            fit(*own(manifest, tmp_path / "a.npz"), epochs=1)
    settings = settings_for(rows, out=tmp_path / "run", epochs=1, save_minutes=0)
    with monkeypatch.context() as patch:
        patch.setattr("cinefeed.training.logging.write_atomically", full)
        with pytest.raises(DiskFullError, match=r"the disk is full .*; free some space, and run the same"):
            train(settings)
    assert (tmp_path / "run" / "best.weights.h5").exists()
    assert train(settings).complete


def test_epochs_of_a_single_batch_go_on_from_the_first_checkpoint(rows, tmp_path, monkeypatch):
    """Keras takes their only batch to build the model, after which the feed stands in the next epoch."""

    def full(*a, **how):
        raise OSError(errno.ENOSPC, "No space left on device")

    settings = settings_for(rows, out=tmp_path / "run", epochs=2)
    settings = replace(settings, feed=replace(settings.feed, batch_size=16))
    with monkeypatch.context() as patch:
        patch.setattr("cinefeed.training.logging.write_atomically", full)
        with pytest.raises(DiskFullError, match="free some space, and run the same"):
            train(settings)
    assert train(settings).complete


def test_weights_whose_checkpoint_is_lost_are_not_written_over(rows, tmp_path):
    settings = settings_for(rows, out=tmp_path / "run", epochs=1)
    train(settings)
    (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(SettingError, match="an interrupted run without a checkpoint"):
        train(settings)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_checkpoint_is_named(broken, tmp_path, damage):
    path = tmp_path / "run" / "checkpoint.npz"
    good = bytearray(path.read_bytes())
    if damage == "flipped":
        good[len(good) // 2] ^= 255
    path.write_bytes({"cut": good[: len(good) // 2], "flipped": good, "empty": b""}[damage])
    with pytest.raises(TrainingError, match=r"checkpoint.npz is damaged .*--overwrite"):
        train(broken)
    assert (tmp_path / "run" / "best.weights.h5").exists()
    assert train(broken, overwrite=True).complete


def test_another_backend_is_refused(broken, monkeypatch):
    monkeypatch.setattr(module.keras.config, "backend", lambda: "jax")
    with pytest.raises(SettingError, match="KERAS_BACKEND=torch"):
        train(broken)


def test_a_full_disk_ends_clearly_and_keeps_the_last_checkpoint(rows, tmp_path, monkeypatch):
    settings = settings_for(rows, out=tmp_path / "run", epochs=2)
    states = []
    savez = np.savez

    def full(path, **arrays):
        if len(states) == 6:
            Path(path).write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")
        savez(path, **arrays)
        states.append(Path(path).read_bytes())

    monkeypatch.setattr(module.np, "savez", full)
    with pytest.raises(TrainingError, match=r"epoch 1, batch 2 cannot be saved \(.*No space left.*the previous one is"):
        train(settings)
    monkeypatch.undo()
    assert (tmp_path / "run" / "checkpoint.npz").read_bytes().startswith(states[-1])
    assert not list((tmp_path / "run").glob(".partial*"))
    train(settings)
    train(settings_for(rows, out=tmp_path / "whole", epochs=2))
    assert same_runs(tmp_path / "whole", tmp_path / "run")


def test_a_full_disk_at_any_other_file_too(rows, tmp_path, monkeypatch):
    settings = settings_for(rows, out=tmp_path / "run", epochs=2)

    def full(path, write):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("cinefeed.training.logging.write_atomically", full)
    with pytest.raises(DiskFullError, match=r"the disk is full .*; free some space, and run the same"):
        train(settings)
    monkeypatch.undo()
    assert train(settings).complete


def test_a_run_that_was_trained_but_not_scored_is_scored(rows, tmp_path, monkeypatch):
    settings = settings_for(rows, out=tmp_path / "run", epochs=2)
    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "load_weights", lambda *a: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(settings)
    train(settings, callbacks=[Losses(tmp_path / "losses.txt")])
    assert losses_of(tmp_path / "losses.txt") == []
    train(settings_for(rows, out=tmp_path / "whole", epochs=2))
    assert same_runs(tmp_path / "whole", tmp_path / "run")


def test_what_stopped_early_stays_stopped(rows, tmp_path, monkeypatch):
    settings = settings_for(rows, out=tmp_path / "run", epochs=20, patience=1, learning_rate=1e-9, reduce_lr_patience=0)
    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "load_weights", lambda *a: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(settings)
    result = train(settings)
    assert result.epochs < 20
    assert result.stopped == "val_loss did not improve for 1 epochs"


@pytest.mark.parametrize(
    ("schedule", "at"), [("plateau", (1, 1)), ("plateau", (2, None)), ("cosine", (1, None)), ("cosine", (2, 1))]
)
def test_across_warm_up_and_unfreezing(rows, tmp_path, monkeypatch, at, schedule):
    """The first layer of the CNN stands for a backbone: an epoch frozen, then trained too."""

    def frozen(settings, spec, **how):
        model = build(settings, spec, **how)
        layer = next(each for each in model.layers if isinstance(each, keras.layers.Conv2D))
        layer.trainable = False
        models.append(layer)
        return model

    build, models = fit_module.build_model, []
    monkeypatch.setattr(fit_module, "build_model", frozen)
    monkeypatch.setattr(fit_module, "frozen_backbones", lambda model: models[-1:])
    unfreezing = {
        "unfreeze_epoch": 2,
        "unfreeze_learning_rate": 0.01,
        "warmup_epochs": 1,
        "schedule": schedule,
        "epochs": 3,
    }
    whole = train(settings_for(rows, out=tmp_path / "whole", **unfreezing))
    settings = settings_for(rows, out=tmp_path / "run", **unfreezing)
    with pytest.raises(ZeroDivisionError):
        train(settings, callbacks=[Break(*at)])
    result = train(settings)
    assert same_runs(whole.folder, result.folder)
    assert models[-2].trainable and not models[-1].trainable  # the one trained, the one that the best weights are of


# Beyond a run of cinefeed: a Checkpoint in anybody's own fit


def own(manifest, path, **options):
    feed = Feed(manifest, target="age", clip=Clip(frames=4), frame=Frame(height=8, width=8, channels=1), batch_size=4)
    keras.utils.set_random_seed(1)
    clips = keras.Input((4, 8, 8, 1), name="clips")
    x = keras.layers.GlobalAveragePooling3D()(keras.layers.Rescaling(1 / 255)(clips))
    model = keras.Model({"clips": clips}, keras.layers.Dense(1)(keras.layers.Dropout(0.5, seed=3)(x)))
    model.compile(keras.optimizers.Adam(0.1), loss="mse", metrics=["mae"])
    dataset = TrainingSet(feed)
    return model, dataset, Checkpoint(path, dataset, **options)


def fit(model, dataset, checkpoint, *callbacks, epochs=3):
    losses = []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: losses.append(dict(logs)))
    for begin, end in checkpoint.fit_ranges(0, epochs):
        model.fit(
            dataset,
            initial_epoch=begin,
            epochs=end,
            verbose=0,
            callbacks=[dataset.callback, watch, *callbacks, checkpoint],
        )
    return losses


def test_alone_in_a_fit_of_ones_own(manifest, tmp_path):
    whole = fit(*own(manifest, tmp_path / "a.npz"))
    model, dataset, checkpoint = own(manifest, tmp_path / "b.npz", minutes=1e-9)
    assert not checkpoint.load()
    with pytest.raises(ZeroDivisionError):
        fit(model, dataset, checkpoint, Break(1, 2))
    model, dataset, checkpoint = own(manifest, tmp_path / "b.npz")
    assert checkpoint.load()
    assert (checkpoint.epoch, checkpoint.batch) == (1, 2)
    assert fit(model, dataset, checkpoint) == whole[1:]
    assert {"loss", "mae"} <= set(whole[0])


def test_signals_ask_and_the_old_handlers_come_back(manifest, tmp_path):
    model, dataset, checkpoint = own(manifest, tmp_path / "a.npz")
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signals(checkpoint):
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Paused, match="epoch 1, batch 1"):
            fit(model, dataset, checkpoint)
    assert signal.getsignal(signal.SIGTERM) is before
    content, _ = module._read(tmp_path / "a.npz")
    assert (content["epoch"], content["batch"]) == (0, 1)
    assert json.dumps(content["feed"])


def test_other_callbacks_and_networks_are_refused(manifest, tmp_path):
    stop = keras.callbacks.EarlyStopping(monitor="loss")
    model, dataset, checkpoint = own(manifest, tmp_path / "a.npz", callbacks=[stop])
    fit(model, dataset, checkpoint, stop, epochs=1)
    _, _, other = own(manifest, tmp_path / "a.npz")
    with pytest.raises(SettingError, match=r"other callbacks \(EarlyStopping there, none here\)"):
        other.load()
    _, dataset, again = own(manifest, tmp_path / "a.npz", callbacks=[keras.callbacks.EarlyStopping()])
    again.load()
    larger = keras.Sequential([keras.Input((4, 8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(1)])
    larger.compile(keras.optimizers.Adam(0.1), loss="mse")
    again.set_model(larger)
    with pytest.raises(SettingError, match="does not fit"):
        again.on_train_begin()


def test_a_resume_after_the_last_epoch_does_not_report_that_nothing_was_fed(rows, tmp_path, monkeypatch):
    settings = settings_for(rows, out=tmp_path / "run", epochs=1)

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("cinefeed.training.fit.finish_run", stop)
        with pytest.raises(KeyboardInterrupt):
            train(settings)
    result = train(settings)
    assert result.complete and result.epochs == 1
    assert result.feed_verdict == "the feed was not measured: an earlier process did all epochs"
    stats = json.loads((tmp_path / "run" / "feed_stats.json").read_text())
    assert stats["verdict"] == result.feed_verdict
    assert "nothing has been fed" not in (tmp_path / "run" / "run.json").read_text()
