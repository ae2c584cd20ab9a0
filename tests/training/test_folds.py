import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.stats
import sklearn.metrics
from made_run import make_manifest, make_run, settings_for

from cinefeed.core.errors import SettingError, SplitError
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.training.evaluate import evaluate
from cinefeed.training.folds import over_folds, train_folds
from cinefeed.training.run import read_run, read_thresholds


@pytest.fixture
def path(tmp_path):
    return make_manifest(tmp_path / "v")


def folds_of(path, **sections):
    sections.setdefault("data", {}).setdefault("split", {"test": 0.1})
    return settings_for(path, **sections)


class Trainer:
    """Makes runs in place of training them, and remembers which; it can be told to stop at one."""

    def __init__(self, *, stop_at=None, pause_at=None):
        self.trained, self.stop_at, self.pause_at = [], stop_at, pause_at

    def __call__(self, settings, *, overwrite):
        name = settings.train.out.rpartition("/")[2]
        if name == self.stop_at:
            raise KeyboardInterrupt
        if name != self.pause_at:
            self.trained.append(name)
            make_run(settings, overwrite=overwrite)


def test_every_video_is_measured_once_by_a_run_that_did_not_see_its_patient(path):
    result = train_folds(folds_of(path, data={"target": "sick"}), folds=3, train=(trainer := Trainer()))
    assert result.finished and trainer.trained == ["fold1", "fold2", "fold3"]
    table = pq.read_table(result.folder / "predictions.parquet")
    assert sorted(table["id"].to_pylist()) == sorted(f"v{row}" for row in range(24))
    for number in (1, 2, 3):
        settings, _, own = read_run(result.folder / f"fold{number}")
        names = ("train", "val", "test")
        parts = {name: set(own.where("split", [name]).column("patient").to_pylist()) for name in names}
        assert not parts["train"] & parts["val"] and not (parts["train"] | parts["val"]) & parts["test"]
        mine = table.filter(table["fold"].to_numpy() == number)
        assert set(mine["patient"].to_pylist()) == parts["test"] and set(mine["split"].to_pylist()) == {"test"}
        assert settings.data.classes == ("no", "yes") and settings.data.split.column == "split"
    truth, output = [np.array(table[name].to_pylist()) for name in ("target", "score")]
    assert result.metrics["auroc"] == sklearn.metrics.roc_auc_score(truth == "yes", output)
    assert json.loads((result.folder / "metrics.json").read_text())["test"] == result.metrics
    measured = json.loads((result.folder / "assessment.json").read_text())["parts"]["test"]["sick"]
    selection = [read_thresholds(result.folder / f"fold{number}") for number in (1, 2, 3)]
    assert {} in selection, "a fold whose validation part has one class chooses none"
    thresholds = [each["sick"] for each in selection if each]
    assert measured["threshold"] == pytest.approx(np.mean(thresholds)) and measured["clusters"] == 12
    assert measured["metrics"]["auroc"]["low"] is not None
    content = json.loads((result.folder / "folds.json").read_text())
    accuracies = [each["metrics"]["accuracy"] for each in content["runs"]]
    assert content["metrics"]["accuracy"]["mean"] == pytest.approx(np.mean(accuracies))
    assert [each["rows"] for each in content["runs"]] == [8, 8, 8] and content["group"] == "patient"


def test_it_goes_on_at_the_fold_that_is_not_finished(path):
    settings = folds_of(path, data={"target": ["age", "kind"]})
    with pytest.raises(KeyboardInterrupt):
        train_folds(settings, folds=3, train=Trainer(stop_at="fold2"))
    first = (path.parent / "run" / "fold1" / "predictions.parquet").read_bytes()
    paused = train_folds(settings, folds=3, train=Trainer(pause_at="fold3"))
    assert not paused.finished and not (paused.folder / "predictions.parquet").exists()
    result = train_folds(settings, folds=3, train=(trainer := Trainer()))
    assert trainer.trained == ["fold3"] and result.finished and {"age_mae", "kind_auroc"} <= set(result.metrics)
    assert (path.parent / "run" / "fold1" / "predictions.parquet").read_bytes() == first
    assert train_folds(settings, folds=3, train=(trainer := Trainer())).metrics == result.metrics
    assert trainer.trained == []
    with pytest.raises(SettingError, match=r"holds the runs of several folds; pass one of them, such as .*fold1"):
        evaluate(result.folder)
    train_folds(settings, folds=3, train=(trainer := Trainer()), overwrite=True)
    assert trainer.trained == ["fold1", "fold2", "fold3"]


def test_other_settings_or_rows_are_not_mixed_with_those_begun(path):
    with pytest.raises(KeyboardInterrupt):
        train_folds(folds_of(path), folds=3, train=Trainer(stop_at="fold2"))
    with pytest.raises(SettingError, match=r"started with other settings in \[feed\], \[evaluate\]"):
        other = folds_of(path, feed={"seed": 8}, evaluate={"resamples": 51})
        train_folds(other, folds=3, train=Trainer())
    with pytest.raises(SettingError, match="holds 3 folds, and folds=4"):
        train_folds(folds_of(path), folds=4, train=Trainer())
    rows = Manifest.read(path)
    rows.take(np.arange(23)).write(path)
    with pytest.raises(SettingError, match="rows of fold 1 differ from those"):
        train_folds(folds_of(path), folds=3, train=Trainer())


def test_what_stands_in_the_way_is_left_alone(path):
    out = path.parent / "run"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(SettingError, match=r"holds other files \(thesis.tex\)"):
        train_folds(folds_of(path), folds=3, train=Trainer(), overwrite=True)
    run = make_run(settings_for(path, train={"out": str(path.parent / "one")})).folder
    with pytest.raises(SettingError, match="holds other files"):
        train_folds(folds_of(path, train={"out": str(run)}), folds=3, train=Trainer())
    parted = settings_for(path, data={"split": {"column": "sex"}}, train={"out": str(path.parent / "new")})
    with pytest.raises(SettingError, match="takes the parts from the column 'sex'"):
        train_folds(parted, folds=3, train=Trainer())
    with pytest.raises(SplitError, match="13 folds need at least 13 groups; there are 12"):
        train_folds(folds_of(path, train={"out": str(path.parent / "new")}), folds=13, train=Trainer())
    assert not (path.parent / "new").exists()


def test_balanced_folds_are_corrected_by_their_mean_draws(path):
    data = {"target": "sick", "split": {"stratify": "sick"}}
    settings = settings_for(path, data=data, sampler={"name": "BalancedClasses"})
    result = train_folds(settings, folds=2, train=Trainer())
    content = json.loads((result.folder / "assessment.json").read_text())
    assert content["priors"]["sick"]["draws"] == pytest.approx([0.5, 0.5])
    assert content["parts"]["test"]["sick"]["corrected"] is not None


def test_the_interval_over_folds_is_students():
    result = over_folds([0.8, 0.9, 0.7, 0.8, 0.8])
    low, high = scipy.stats.ttest_1samp([0.8, 0.9, 0.7, 0.8, 0.8], 0).confidence_interval(0.95)
    assert (result["low"], result["high"]) == pytest.approx((low, high))
    assert over_folds([0.5]) == {"mean": 0.5, "sd": None, "low": None, "high": None, "folds": 1}
    assert over_folds([])["mean"] is None


def test_the_interval_over_folds_stays_within_the_values_of_the_metric():
    assert over_folds([0.99, 0.98, 0.999], metric="age_pearson_r")["high"] == 1
    assert over_folds([0.1, 0.0, 0.3], metric="f1")["low"] == 0
    assert over_folds([0.1, 0.0, 0.3], metric="age_r2")["low"] < 0


def test_features_that_learnt_from_the_rows_are_not_dealt_into_folds(path, tmp_path):
    manifest = Manifest.read(path)
    table = manifest.table.append_column("encoded_from", pa.array(["cnn_rnn of a run, weights 0"] * len(manifest)))
    features = tmp_path / "features.parquet"
    Manifest(table, root=manifest.root).write(features)
    with pytest.raises(SettingError, match="would test on training rows"):
        train_folds(folds_of(features), folds=3, train=Trainer())
