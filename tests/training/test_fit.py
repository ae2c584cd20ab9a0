import csv
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cinefeed.config import overlay, parse, read_settings, to_table
from cinefeed.core.errors import SettingError, SourceError, SplitError, TableError, TrainingError
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.metrics import classification_metrics, regression_metrics
from cinefeed.training import fit
from cinefeed.training.evaluate import evaluate
from cinefeed.training.fit import train
from cinefeed.training.predict import predict
from cinefeed.training.run import check_out, read_run
from cinefeed.training.stopping import choose_patience

RUN_FILES = (
    "settings.toml versions.json manifest.parquet spec.json labels.json clips.npz flow.json balance.json history.csv "
    "pixels.json "
    "log.jsonl best.weights.h5 predictions.parquet assessment.json metrics.json worst.npz saliency.npz "
    "feed_stats.json failures.json findings.json baselines.json baselines.parquet baselines.npz run.json"
).split()


@pytest.fixture
def path(manifest, tmp_path):
    manifest.write(tmp_path / "m.parquet")
    return tmp_path / "m.parquet"


def settings_for(path, **sections):
    table = {
        "data": {"manifest": str(path), "target": "age", "split": {"group": False, "val": 0.2, "test": 0.3, "seed": 1}},
        "clip": {"frames": 4},
        "frame": {"height": 8, "width": 8, "channels": 1},
        "transforms": [{"name": "Shift", "pixels": 1}],
        "feed": {"batch_size": 3, "seed": 7, "workers": 1},
        "model": {"filters": [4, 4], "units": 4, "dense": 0},
        "train": {"out": str(path.parent / "run"), "epochs": 2},
    }
    return parse(overlay(table, sections))


def test_a_run_keeps_all_there_is_to_know(path):
    settings = settings_for(path, sampler={"name": "UniformLabels"})
    result = train(settings)
    settings = parse(overlay(to_table(settings), {"train": {"learning_rate": 1e-3}}))  # which was "auto"
    folder = result.folder
    assert sorted(each.name for each in folder.iterdir()) == sorted(RUN_FILES)
    assert to_table(read_settings(folder / "settings.toml")) == to_table(settings)
    run_settings, spec, rows = read_run(folder)
    assert run_settings == settings
    assert spec.clip_shape == (4, 8, 8, 1)
    assert len(rows) == 11
    with (folder / "history.csv").open() as file:
        history = list(csv.DictReader(file))
    assert len(history) == result.epochs == 2
    assert {"loss", "val_loss", "val_r2", "val_rmse", "val_mae", "learning_rate"} <= set(history[0])
    run = json.loads((folder / "run.json").read_text())
    assert run["fingerprint"] == Manifest.read(path).fingerprint
    assert run["stopped"] == "all 2 epochs are done"
    versions = json.loads((folder / "versions.json").read_text())
    assert versions["backend"] == keras.config.backend()
    labels = json.loads((folder / "labels.json").read_text())
    assert len(labels["raw"]) == len(rows.where("split", ["train"]))
    assert labels["classes"] is None
    with np.load(folder / "clips.npz") as stored:
        assert stored["clips"].dtype == np.uint8
        assert stored["clips"].shape[1:] == (4, 8, 8, 1)
        assert len(stored["captions"]) == len(stored["clips"])


def test_metrics_can_be_computed_again_from_the_predictions(path):
    result = train(settings_for(path))
    table = pq.read_table(result.folder / "predictions.parquet")
    content = json.loads((result.folder / "metrics.json").read_text())
    for part in ("val", "test"):
        rows = table.filter(table["split"].to_numpy(zero_copy_only=False) == part)
        again = regression_metrics(targets=rows["target"].to_numpy(), scores=rows["score"].to_numpy())
        assert again["rmse"] == pytest.approx(content[part]["rmse"])
        assert again["rmse"] == pytest.approx(result.metrics[part]["rmse"])
    assert result.metrics["val"]["rmse"] != result.metrics["test"]["rmse"]


def test_the_same_settings_give_the_same_run(path):
    first = train(settings_for(path))
    second = train(settings_for(path, train={"out": str(path.parent / "again")}, feed={"workers": 0}))
    other = train(settings_for(path, train={"out": str(path.parent / "other")}, feed={"seed": 8}))
    names = ("history.csv", "metrics.json", "labels.json")
    assert all((first.folder / name).read_bytes() == (second.folder / name).read_bytes() for name in names)
    assert (first.folder / "history.csv").read_bytes() != (other.folder / "history.csv").read_bytes()


def test_evaluate_repeats_the_run_and_takes_another_manifest(path, tmp_path):
    result = train(settings_for(path))
    again = evaluate(result.folder, part="test")
    assert again.metrics["rmse"] == pytest.approx(result.metrics["test"]["rmse"], rel=1e-6)
    outside = evaluate(result.folder, manifest=path, out=tmp_path / "outside.parquet")
    assert outside.part == "external"
    assert pq.read_table(tmp_path / "outside.parquet").num_rows == 11
    with pytest.raises(SettingError, match="part='tset'"):
        evaluate(result.folder, part="tset")


def test_predict_needs_no_label_and_lists_bad_files(path, tmp_path):
    run = train(settings_for(path)).folder
    folder = tmp_path / "new"
    folder.mkdir()
    good = np.full((9, 20, 20), 100, np.uint8)
    np.save(folder / "good.npy", good)
    (folder / "empty.npy").write_bytes(b"")
    (folder / "text.mp4").write_text("no video")
    result = predict(run, paths=[folder], out=tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["id", "path", "split", "score"]
    assert len(result.predictions) == table.num_rows == 1
    assert sorted(each["path"].rpartition("/")[2] for each in result.failures) == ["empty.npy", "text.mp4"]
    with pytest.raises(TableError, match=r"none of 1 rows has a readable frame.*text.mp4"):
        predict(run, paths=[folder / "text.mp4"])
    with pytest.raises(TableError, match=r"no video to predict.*absent.mp4: No such file"):
        predict(run, paths=[folder / "absent.mp4"])
    by_manifest = predict(run, manifest=path)
    assert len(by_manifest.predictions) == 11


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_classes(path, task):
    settings = settings_for(
        path,
        data={"target": "sick", "task": task, "split": {"stratify": "sick"}},
        sampler={"name": "BalancedClasses"},
    )
    result = train(settings)
    table = pq.read_table(result.folder / "predictions.parquet")
    scores = ["score"] if task == "binary" else ["score_no", "score_yes"]
    assert table.column_names == ["id", "path", "split", "clip", "target", *scores]
    assert set(table["target"].to_pylist()) == {"no", "yes"}
    rows = table.filter(table["split"].to_numpy(zero_copy_only=False) == "test")
    targets = [["no", "yes"].index(name) for name in rows["target"].to_pylist()]
    again = classification_metrics(targets=targets, scores=rows[scores[-1]].to_numpy(), classes=["no", "yes"])
    assert again["auroc"] == pytest.approx(result.metrics["test"]["auroc"])


def test_a_finished_run_is_not_overwritten_unasked(path):
    settings = settings_for(path)
    folder = train(settings).folder
    before = (folder / "run.json").read_bytes()
    with pytest.raises(SettingError, match=r"holds a finished run.*--overwrite"):
        train(settings)
    assert (folder / "run.json").read_bytes() == before
    train(settings, overwrite=True)


def test_a_folder_with_other_files_is_left_alone(path):
    out = path.parent / "mine"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(SettingError, match=r"holds other files \(thesis.tex\)"):
        train(settings_for(path, train={"out": str(out)}), overwrite=True)
    assert [each.name for each in out.iterdir()] == ["thesis.tex"]


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(path):
    blocked = path.parent / "file"
    blocked.write_text("in the way")
    with pytest.raises(SettingError, match=r"run cannot be written: Not a directory"):
        train(settings_for(path.with_name("absent.parquet"), train={"out": str(blocked / "run")}))


@pytest.mark.parametrize(
    ("sections", "error", "message"),
    [
        ({"data": {"manifest": "absent.parquet"}}, TableError, "absent.parquet cannot be read"),
        ({"data": {"target": "aeg"}}, LookupError, "'age'"),
        ({"data": {"where": {"sick": ["perhaps"]}}}, TableError, "perhaps"),
        ({"data": {"split": {"stratify": "id"}}}, SplitError, "id"),
        ({"model": {"name": "cnn_rmn"}}, SettingError, r"\[model\] name = 'cnn_rmn' .*'cnn_rnn'"),
        ({"model": {"unit": 4}}, SettingError, r"\[model: cnn_rnn\] unit is not a setting; did you mean 'units'"),
        ({"model": {"filters": [4] * 8}}, SettingError, r"\[model: cnn_rnn\] frames of 8 x 8 are too small"),
        ({"model": {"name": "reference_cnn_lstm", "units": 3}}, SettingError, "units is not a setting"),
        ({"train": {"monitor": "val_bias"}}, SettingError, r"monitor = 'val_bias' is not measured"),
        ({"train": {"monitor": "val_rms"}}, SettingError, r"monitor = 'val_rms' .*'val_rmse'"),
    ],
)
def test_what_was_asked_wrongly_leaves_nothing_behind(path, sections, error, message):
    if sections.get("model", {}).get("name") == "reference_cnn_lstm":
        settings = parse({**to_table(settings_for(path)), "model": sections["model"]})
    else:
        settings = settings_for(path, **sections)
    with pytest.raises(error, match=message):
        train(settings)
    assert not (path.parent / "run").exists()


def test_huber_is_for_regressions(path):
    train(settings_for(path, train={"loss": "huber", "schedule": "cosine", "epochs": 1}))
    wrong = settings_for(path, data={"target": "sick"}, train={"loss": "huber", "out": str(path.parent / "b")})
    with pytest.raises(SettingError, match="loss = 'huber' is for a regression"):
        train(wrong)


class _PoisonAt(keras.callbacks.Callback):
    """Makes the weights NaN before one epoch, so that its first loss is."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            self.model.set_weights([np.full_like(each, np.nan) for each in self.model.get_weights()])


def test_a_nan_ends_the_run_with_the_last_good_weights(path):
    with pytest.raises(TrainingError, match=r"nan at epoch 2, batch 1; weights of epoch 1 are kept in .*best.weights"):
        train(settings_for(path, train={"epochs": 4}), callbacks=[_PoisonAt(1)])
    assert not (path.parent / "run" / "run.json").exists()
    assert np.isfinite(evaluate(path.parent / "run").metrics["rmse"])
    with pytest.raises(SettingError, match="an interrupted run without a checkpoint"):
        train(settings_for(path))


def test_a_nan_ends_so_whatever_is_monitored(path):
    settings = settings_for(path, train={"epochs": 4, "monitor": "val_rmse"})
    with pytest.raises(TrainingError, match=r"nan at epoch 2, batch 1; weights of epoch 1 are kept in .*best.weights"):
        train(settings, callbacks=[_PoisonAt(1)])
    assert not (path.parent / "run" / "checkpoint.npz").exists()
    lines = (path.parent / "run" / "history.csv").read_text().splitlines()
    assert [each.partition(",")[0] for each in lines] == ["epoch", "0", "1"]


def test_what_a_run_is_known_by_is_written_first(path, monkeypatch):
    monkeypatch.setattr(fit, "write_settings", lambda *a: 1 / 0)  # settings.toml
    with pytest.raises(ZeroDivisionError):
        train(settings_for(path))
    monkeypatch.undo()
    assert [each.name for each in (path.parent / "run").iterdir()] == ["spec.json"]
    assert check_out(path.parent / "run")


def test_a_nan_in_the_data_ends_clearly(path):
    frames = np.ones((12, 20, 24), np.float32)
    frames[3] = np.nan
    for number in range(11):
        np.save(path.parent / f"{number:02}.npy", frames)
    float_frames = {"frame": {"dtype": "float32"}, "transforms": []}
    with pytest.raises(SourceError, match=r"row \d+, \d\d\.npy: 480 of the 1,920 pixels of a clip are NaN or infinite"):
        train(settings_for(path, **float_frames))
    assert not (path.parent / "run" / "run.json").exists()


def test_a_nan_in_the_first_epoch_keeps_no_weights(path):
    with pytest.raises(TrainingError, match="no epoch was complete"):
        train(settings_for(path), callbacks=[_PoisonAt(0)])
    assert not (path.parent / "run" / "best.weights.h5").exists()
    train(settings_for(path))


def test_it_stops_when_nothing_improves(path):
    settings = settings_for(path, train={"epochs": 30, "patience": 1, "learning_rate": 1e-9, "reduce_lr_patience": 0})
    result = train(settings)
    assert result.epochs < 30
    assert result.stopped == "val_loss did not improve for 1 epochs"


def test_an_improvement_must_be_large_enough(path):
    settings = settings_for(path, train={"epochs": 30, "patience": 2, "min_improvement": 1e9, "reduce_lr_patience": 0})
    result = train(settings)
    assert result.epochs == 3
    assert result.stopped == "val_loss did not improve by more than 1e+09 for 2 epochs"


@pytest.mark.parametrize(
    ("options", "units", "patience", "note"),
    [
        ({}, 30, 10, ""),
        (
            {},
            29,
            0,
            "no early stopping: the validation part has 29 values of 'patient', fewer than 30, so that val_loss",
        ),
        ({"schedule": "cosine"}, 30, 0, ""),
        ({"monitor": "loss"}, 29, 10, ""),
        ({"patience": 4}, 29, 4, "early stopping (patience = 4) follows its noise"),
        ({"patience": 0}, 29, 0, ""),
    ],
)
def test_a_small_validation_part_stops_nothing_unless_told_to(options, units, patience, note):
    settings = parse(
        {
            "data": {"manifest": "m", "target": "y", "split": {"group": "patient"}},
            "frame": {"height": 8, "width": 8},
            "train": {"out": "r", "schedule": "plateau", **options},
        }
    )
    val = Manifest.from_table(
        pa.table({"path": [f"{n}.npy" for n in range(60)], "patient": [n % units for n in range(60)]})
    )
    result, line = choose_patience(settings, val)
    assert result == patience
    assert note in line and bool(note) == bool(line)


@pytest.mark.slow
def test_jax_trains_too(path):
    script = (
        "import sys; from cinefeed.config import read_settings; from cinefeed.training.fit import train\n"
        "from cinefeed.training.evaluate import evaluate\n"
        "result = train(read_settings(sys.argv[1]))\n"
        "assert abs(evaluate(result.folder).metrics['rmse'] - result.metrics['test']['rmse']) < 1e-3"
    )
    from cinefeed.config import to_toml

    toml = path.parent / "s.toml"
    toml.write_text(to_toml(settings_for(path)))
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    subprocess.run([sys.executable, "-c", script, str(toml)], check=True, env=environment)
    assert json.loads((path.parent / "run" / "versions.json").read_text())["backend"] == "jax"
