"""Baselines of a run: what they score on made-up sets, and what the comparison with a model is."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from made_run import settings_for

from cinefeed.core.errors import DiskFullError
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.feed.labels import FeedSpec, TargetSpec
from cinefeed.metrics import predictions_of, target_columns
from cinefeed.metrics.baselines import baseline_sentence, guess_of
from cinefeed.metrics.display import baseline_lines
from cinefeed.training.baselines import keep_baselines, select_rows
from cinefeed.training.finish import assess_table
from cinefeed.training.run import read_baselines

ROWS = 120
PARTS = ["train"] * 60 + ["val"] * 20 + ["test"] * 40


def spec_of(*targets):
    several = [TargetSpec(name=name, task=task, classes=classes) for name, task, classes in targets]
    name, task, classes = targets[0]
    return FeedSpec(
        target=name,
        task=task,
        classes=classes,
        clip_shape=(4, 8, 8, 1),
        dtype=np.dtype("uint8"),
        batch_size=4,
        targets=tuple(several) if len(several) > 1 else (),
    )


def made_videos(folder, *, brightness=None, seed=0, **columns):
    """Videos of noise, brighter by `brightness`, in parts of one video a patient."""
    rng = np.random.default_rng(seed)
    brightness = np.zeros(ROWS) if brightness is None else brightness
    folder.mkdir(exist_ok=True)
    for row in range(ROWS):
        np.save(folder / f"{row}.npy", rng.integers(60, 120, (6, 12, 16)).astype(np.uint8) + np.uint8(brightness[row]))
    table = {
        "id": [f"v{row}" for row in range(ROWS)],
        "path": [f"{row}.npy" for row in range(ROWS)],
        "patient": [f"p{row}" for row in range(ROWS)],
        "split": PARTS,
        **columns,
    }
    return Manifest.from_table(pa.table(table), root=folder)


def model_predictions(rows, spec, scores):
    """Predictions of a model for validation and test; `scores` by target, a row or a column a class."""
    table = {name: rows.column(name) for name in ("id", "split", "patient")}
    targets = []
    for each in spec.targets or [TargetSpec(name=spec.target, task=spec.task, classes=spec.classes)]:
        names = target_columns(each.name, task=each.task, classes=each.classes, several=bool(spec.targets))
        table[names.target] = rows.column(each.name)
        for number, name in enumerate(names.scores):
            table[name] = np.asarray(scores[each.name], np.float64).reshape(len(rows), -1)[:, number]
        targets.append(names)
    evaluated = pa.table(table).filter(pc.not_equal(rows.column("split"), "train"))
    return predictions_of(evaluated, targets)


def measured(folder, rows, spec, scores, *, path=None, **evaluate):
    folder.mkdir(exist_ok=True)
    settings = settings_for(folder / "m.parquet", data={"target": spec.target}, evaluate={"resamples": 200, **evaluate})
    predictions = model_predictions(rows, spec, scores)
    keep_baselines(folder, settings=settings, spec=spec, rows=rows, predictions=predictions)
    content = read_baselines(folder)
    assert content["note"] == "", content["note"]
    return content, assess_table(predictions.table, settings=settings, spec=spec)


BINARY = spec_of(("sick", "binary", ("no", "yes")))


def test_a_set_that_only_a_nuisance_column_predicts(tmp_path):
    rng = np.random.default_rng(0)
    sick = rng.integers(0, 2, ROWS)
    columns = {"container": np.array(["mp4", "avi"])[sick], "rate_hz": rng.choice([25.0, 30.0], ROWS)}
    rows = made_videos(tmp_path / "v", sick=np.array(["no", "yes"])[sick], **columns)
    content, _ = measured(tmp_path / "run", rows, BINARY, {"sick": rng.uniform(size=ROWS)})
    baselines = content["targets"]["sick"]["baselines"]
    assert baselines["columns"]["metrics"]["auroc"]["value"] > 0.95
    assert content["notes"]["columns"] == "container, rate_hz"
    assert abs(baselines["thumbnail"]["metrics"]["auroc"]["value"] - 0.5) < 0.25
    assert baselines["constant"]["metrics"]["auroc"]["value"] == 0.5
    sentences = baseline_lines(read_baselines(tmp_path / "run"))
    assert any("worse than the nuisance columns by" in line for line in sentences)
    assert sentences[-1].startswith("baselines took ") and sentences[-1].endswith(" s for 120 videos")


def test_a_model_that_copies_the_labels_is_better_than_all(tmp_path):
    sick = np.random.default_rng(1).integers(0, 2, ROWS)
    rows = made_videos(tmp_path / "v", sick=np.array(["no", "yes"])[sick])
    content, assessment = measured(tmp_path / "run", rows, BINARY, {"sick": sick.astype(float)})
    baselines = content["targets"]["sick"]["baselines"]
    assert content["notes"]["columns"] == "left out: the videos were not scanned"
    assert list(baselines) == ["constant", "thumbnail", "mean_frame"]
    for name, each in baselines.items():
        assert baseline_sentence(name, each["difference"], task="binary").startswith("better than "), name
    result = assessment["parts"]["test"]["sick"]
    assert result["metrics"]["auroc"]["low"] is None  # all resamples are 1
    assert guess_of(result).verdict == guess_of(result, content["targets"]["sick"]).verdict == "better"
    assert (tmp_path / "run" / "baselines.npz").is_file()


@pytest.mark.parametrize("task", ["regression", "binary", "multiclass"])
def test_noise_is_called_no_better_than_a_guess(tmp_path, task):
    rng = np.random.default_rng(2)
    names = {"regression": (), "binary": ("no", "yes"), "multiclass": ("a", "b", "c")}[task]
    label = rng.normal(50, 10, ROWS) if not names else np.array(names)[rng.integers(0, len(names), ROWS)]
    rows = made_videos(tmp_path / "v", kind=label)
    scores = {"regression": lambda: rng.normal(50, 1, ROWS), "binary": lambda: rng.uniform(size=ROWS)}.get(
        task, lambda: rng.dirichlet(np.ones(3), ROWS)
    )()
    content, assessment = measured(tmp_path / "run", rows, spec_of(("kind", task, names)), {"kind": scores})
    target = content["targets"]["kind"]
    sentence = baseline_sentence("constant", target["baselines"]["constant"]["difference"], task=task)
    assert sentence.startswith("no better than guessing")
    assert guess_of(assessment["parts"]["test"]["kind"]).verdict == "no better"
    assert guess_of(assessment["parts"]["test"]["kind"], target).verdict == "no better"


def test_a_thumbnail_predicts_a_number_that_is_the_brightness(tmp_path):
    age = np.random.default_rng(3).uniform(0, 100, ROWS).round()
    rows = made_videos(tmp_path / "v", brightness=age, age=age)
    spec = spec_of(("age", "regression", ()))
    content, _ = measured(tmp_path / "run", rows, spec, {"age": np.full(ROWS, 50.0)})
    baselines = content["targets"]["age"]["baselines"]
    assert baselines["thumbnail"]["metrics"]["r2"]["value"] > 0.9
    assert baselines["mean_frame"]["metrics"]["r2"]["value"] > 0.9
    assert "ridge" in content["models"]["age"]["thumbnail"]
    assert baseline_sentence("thumbnail", baselines["thumbnail"]["difference"], task="regression").startswith("worse")


def test_several_targets_with_missing_labels_and_a_unit(tmp_path):
    rng = np.random.default_rng(4)
    age, sick = rng.uniform(0, 100, ROWS).round(), rng.integers(0, 2, ROWS)
    ages = pa.array([None if row % 5 == 0 else value for row, value in enumerate(age)], pa.float64())
    rows = made_videos(tmp_path / "v", brightness=age, age=ages, sick=np.array(["no", "yes"])[sick])
    spec = spec_of(("age", "regression", ()), ("sick", "binary", ("no", "yes")))
    scores = {"age": age + rng.normal(0, 1, ROWS), "sick": sick * 0.5 + rng.uniform(0, 0.5, ROWS)}
    content, _ = measured(tmp_path / "run", rows, spec, scores, unit="patient")
    assert content["targets"]["age"]["units"] == 32 and content["targets"]["sick"]["units"] == 40
    assert content["targets"]["sick"]["baselines"]["thumbnail"]["difference"]["low"] > 0
    assert any(
        line.startswith("test sick: better than the thumbnail by")
        for line in baseline_lines(read_baselines(tmp_path / "run"))
    )


def test_the_same_rows_as_the_model_by_numbers_computed_again(tmp_path):
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(5)
    sick = rng.integers(0, 2, ROWS)
    rows = made_videos(
        tmp_path / "v", brightness=20 * sick + rng.integers(0, 40, ROWS), sick=np.array(["no", "yes"])[sick]
    )
    scores = 0.3 * sick + 0.7 * rng.uniform(size=ROWS)
    content, _ = measured(tmp_path / "run", rows, BINARY, {"sick": scores})
    table = pq.read_table(tmp_path / "run" / "baselines.parquet").to_pandas()
    own = table[(table["baseline"] == "thumbnail") & (table["split"] == "test")]
    model = roc_auc_score(sick[80:], scores[80:])
    thumbnail = roc_auc_score(own["target"] == "yes", own["score"])
    difference = content["targets"]["sick"]["baselines"]["thumbnail"]["difference"]
    assert difference["difference"] == pytest.approx(model - thumbnail)
    assert difference["low"] <= difference["difference"] <= difference["high"]


def test_thumbnails_are_read_once_and_never_kept_of_private_data(tmp_path, monkeypatch):
    sick = np.array(["no", "yes"])[np.random.default_rng(1).integers(0, 2, ROWS)]
    rows = made_videos(tmp_path / "v", sick=sick)
    scores = {"sick": np.full(ROWS, 0.5)}
    first, _ = measured(tmp_path / "run", rows, BINARY, scores)
    private, _ = measured(tmp_path / "private", rows.as_private(), BINARY, scores)
    assert not (tmp_path / "private" / "baselines.npz").exists()

    def refuse(*arguments, **options):
        raise AssertionError("the videos are read again")

    monkeypatch.setattr("cinefeed.training.baselines.read_thumbnails", refuse)
    second, _ = measured(tmp_path / "run", rows, BINARY, scores)
    assert second | {"seconds": 0} == first | {"seconds": 0}
    assert private["targets"] == first["targets"]


def test_errors_and_settings_leave_a_reason(tmp_path, monkeypatch):
    rows = made_videos(tmp_path / "v", sick=np.array(["no", "yes"])[np.arange(ROWS) % 2])
    settings = settings_for(tmp_path / "m.parquet", evaluate={"baselines": False})
    predictions = model_predictions(rows, BINARY, {"sick": np.full(ROWS, 0.5)})
    keep_baselines(tmp_path, settings=settings, spec=BINARY, rows=rows, predictions=predictions)
    assert baseline_lines(read_baselines(tmp_path)) == ["no baselines: [evaluate] baselines = false"]
    settings = settings_for(tmp_path / "m.parquet")
    keep_baselines(tmp_path, settings=settings, spec=BINARY, rows=rows, predictions=None)
    assert "no label" in baseline_lines(read_baselines(tmp_path))[0]

    def fail(*arguments, **options):
        raise OSError("the disk is gone")

    monkeypatch.setattr("cinefeed.training.baselines.read_thumbnails", fail)
    keep_baselines(tmp_path, settings=settings, spec=BINARY, rows=rows, predictions=predictions)
    assert json.loads((tmp_path / "baselines.json").read_text())["note"] == (
        "they could not be measured (OSError: the disk is gone)"
    )
    assert baseline_lines(read_baselines(tmp_path / "empty")) == []


def test_a_full_disk_stops_a_run_that_goes_on_afterwards(tmp_path, monkeypatch):
    rows = made_videos(tmp_path / "v", sick=np.array(["no", "yes"])[np.arange(ROWS) % 2])
    predictions = model_predictions(rows, BINARY, {"sick": np.full(ROWS, 0.5)})

    def fill(path, **arrays):
        raise DiskFullError(28, "No space left on device", str(path))

    monkeypatch.setattr("cinefeed.training.baselines.write_arrays", fill)
    settings = settings_for(tmp_path / "m.parquet")
    with pytest.raises(DiskFullError, match=r"baselines\.npz cannot be written: the disk is full"):
        keep_baselines(tmp_path, settings=settings, spec=BINARY, rows=rows, predictions=predictions)
    assert not (tmp_path / "baselines.json").exists()  # else the same command would take it for a result


def test_large_sets_are_sampled_by_whole_groups_of_each_part():
    parts = ["train"] * 3000 + ["val"] * 900 + ["test"] * 1500
    table = {"id": list(map(str, range(5400))), "path": ["x"] * 5400, "split": parts}
    rows = Manifest.from_table(pa.table({**table, "patient": [f"p{row // 3}" for row in range(5400)]}))
    selection = select_rows(rows, group="patient")
    counts = [
        int(((selection >= low) & (selection < high)).sum()) for low, high in ((0, 3000), (3000, 3900), (3900, 5400))
    ]
    assert counts == [999, 300, 699]
    assert set(np.bincount(selection // 3).tolist()) == {0, 3}  # no patient in part
    assert (select_rows(rows, group="patient") == selection).all()
    assert len(select_rows(rows, group=None)) == 2000
    assert len(select_rows(rows.take(np.arange(2000)), group="patient")) == 2000
