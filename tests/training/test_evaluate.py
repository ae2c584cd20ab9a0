import json
import shutil
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import sklearn.metrics
from made_run import make_manifest, make_run, settings_for

from cinefeed.config import overlay, parse, to_table
from cinefeed.core.errors import ColumnError, LabelError, SettingError, SplitError, TableError
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.sampling import correct_prior
from cinefeed.metrics.assess import assess
from cinefeed.metrics.predictions import read_predictions
from cinefeed.metrics.units import cluster_of
from cinefeed.training.evaluate import evaluate
from cinefeed.training.finish import finish_run
from cinefeed.training.predict import predict
from cinefeed.training.run import read_rule_thresholds, read_thresholds
from cinefeed.training.setup import make_parts


@pytest.fixture
def path(tmp_path):
    return make_manifest(tmp_path / "v")


def outside(path, patients, **columns):
    """A manifest of the same videos with other patients."""
    rows = Manifest.read(path)
    table = rows.table.set_column(rows.table.column_names.index("patient"), "patient", pa.array(patients))
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    other = path.with_name("other.parquet")
    Manifest.from_table(table, root=path.parent).write(other)
    return other


def column(table, name):
    return table[name].to_numpy(zero_copy_only=False)


def test_every_metric_of_a_regression_comes_from_the_predictions_by_scikit_learn(path):
    run = make_run(settings_for(path, evaluate={"clips": 3}))
    table = pq.read_table(run.folder / "predictions.parquet")
    content = json.loads((run.folder / "metrics.json").read_text())
    assert table.num_rows == 3 * 12 and set(column(table, "split")) == {"val", "test"}
    for part in ("val", "test"):
        rows = table.filter(pc.equal(table["split"], part)).group_by("id", use_threads=False)
        videos = rows.aggregate([("target", "min"), ("score", "mean")])
        truth, output = videos["target_min"].to_numpy(), videos["score_mean"].to_numpy()
        assert content[part]["mae"] == pytest.approx(sklearn.metrics.mean_absolute_error(truth, output))
        assert content[part]["r2"] == pytest.approx(sklearn.metrics.r2_score(truth, output))
        assert run.metrics[part] == pytest.approx(content[part])


@pytest.mark.parametrize("unit", [None, "patient"])
def test_every_metric_of_classes_comes_from_the_predictions_by_scikit_learn(path, unit):
    run = make_run(settings_for(path, data={"target": "sick"}, evaluate={} if unit is None else {"unit": unit}))
    table = pq.read_table(run.folder / "predictions.parquet")
    assessment = json.loads((run.folder / "assessment.json").read_text())
    result = assessment["parts"]["test"]["sick"]
    rows = table.filter(pc.equal(table["split"], "test")).group_by(unit or "id", use_threads=False)
    units = rows.aggregate([("target", "min"), ("score", "mean")])
    truth, output = column(units, "target_min") == "yes", units["score_mean"].to_numpy()
    assert (result["units"], result["videos"], result["clusters"]) == (len(truth), 6, 3)
    assert run.metrics["test"]["auroc"] == sklearn.metrics.roc_auc_score(truth, output)
    assert run.metrics["test"]["f1"] == sklearn.metrics.f1_score(truth, output >= result["threshold"])
    assert result["threshold_from"] == "val" and assessment["parts"]["val"]["sick"]["threshold"] == result["threshold"]
    assert read_thresholds(run.folder) == {"sick": result["threshold"]}


def test_what_balancing_did_is_taken_back(path):
    sections = {"data": {"target": "sick"}, "sampler": {"name": "BalancedClasses"}}
    run = make_run(settings_for(path, **sections))
    table = pq.read_table(run.folder / "predictions.parquet")
    assert set(column(table, "split")) == {"val", "test"} and len(set(column(table, "id"))) == 12, "each video once"
    assessment = json.loads((run.folder / "assessment.json").read_text())
    prior = assessment["priors"]["sick"]
    balance = json.loads((run.folder / "balance.json").read_text())
    assert prior["draws"][0] == prior["draws"][1] and sum(prior["raw"]) == 12 == sum(balance["raw"])
    result = assessment["parts"]["test"]["sick"]
    rows = table.filter(pc.equal(table["split"], "test"))
    truth, output = column(rows, "target") == "yes", correct_prior(column(rows, "score"), **prior)
    assert output.mean() < column(rows, "score").mean()
    corrected = result["corrected"]
    assert corrected["metrics"]["auroc"]["value"] == result["metrics"]["auroc"]["value"]
    assert corrected["calibration"]["ece"] != result["calibration"]["ece"]
    assert sum(each["count"] for each in corrected["calibration"]["bins"]) == len(truth) == 6
    plain = make_run(settings_for(path, data={"target": "sick"}, train={"out": str(path.parent / "plain")}))
    assert json.loads((plain.folder / "assessment.json").read_text())["parts"]["test"]["sick"]["corrected"] is None
    weighed = settings_for(
        path, data={"target": "sick"}, train={"out": str(path.parent / "w"), "class_weights": "balanced"}
    )
    content = json.loads((make_run(weighed).folder / "assessment.json").read_text())
    assert content["priors"]["sick"] == {"draws": [1, 1], "raw": prior["raw"]}


def test_evaluate_repeats_the_run(path):
    run = make_run(settings_for(path, data={"target": ["sick", "kind"]}, evaluate={"clips": 2, "subgroups": ["sex"]}))
    again = evaluate(run.folder)
    assert again.metrics == pytest.approx(run.metrics["test"], nan_ok=True)
    content = json.loads((run.folder / "assessment.json").read_text())
    assert content["parts"]["test"]["sick"].pop("threshold_from") == "val"
    assert again.assessment["parts"]["test"]["sick"].pop("threshold_from") == "frozen"
    assert again.assessment["parts"]["test"] == content["parts"]["test"]
    assert [each["value"] for each in content["parts"]["test"]["sick"]["subgroups"]["sex"]] == ["f", "m"]
    train = evaluate(run.folder, part="train", clips=1, unit="patient", subgroups=[])
    result = train.assessment["parts"]["train"]["kind"]
    assert (result["clips"], result["units"], result["subgroups"]) == (12, 6, {})
    assert evaluate(run.folder, part="test", where={"kind": ["a"]}).predictions.num_rows == 8
    with pytest.raises(SettingError, match="part='tset'"):
        evaluate(run.folder, part="tset")


def test_patients_that_were_seen_are_refused(path, tmp_path):
    run = make_run(settings_for(path, data={"target": "sick"}))
    own = Manifest.read(run.folder / "manifest.parquet")
    patients = own.table.filter(pc.not_equal(own.table["split"], "test"))["patient"].unique().to_pylist()
    with pytest.raises(
        SplitError,
        match=r"9 of 12 values of 'patient' in .*m.parquet are in the run's training or validation .*--where",
    ):
        evaluate(run.folder, manifest=path)
    one = outside(path, [patients[0] if row == 5 else f"q{row // 2}" for row in range(24)])
    with pytest.raises(SplitError, match=rf"1 of 13 .* \(first: {patients[0]}\)"):
        evaluate(run.folder, manifest=one)
    unseen = sorted(set(own.column("patient").to_pylist()) - set(patients))
    tested = evaluate(run.folder, manifest=path, where={"patient": unseen})
    assert tested.metrics == pytest.approx(run.metrics["test"])
    bare = tmp_path / "bare.parquet"
    rows = Manifest.read(path)
    Manifest.from_table(rows.table.rename_columns({"patient": "patients"}), root=path.parent).write(bare)
    with pytest.raises(ColumnError, match=r"bare.parquet has no column 'patient', .*did you mean 'patients'"):
        evaluate(run.folder, manifest=bare)


def test_a_private_manifest_names_no_patient(path):
    run = make_run(settings_for(path, data={"private": True}))
    with pytest.raises(SplitError, match="private data: none is named"):
        evaluate(run.folder, manifest=path)


@pytest.mark.parametrize("rule", ["f1", "youden"])
def test_predict_names_the_class_by_the_threshold_of_the_run(path, rule):
    run = make_run(settings_for(path, data={"target": "sick"}, evaluate={"threshold": rule})).folder
    result = json.loads((run / "assessment.json").read_text())["parts"]["test"]["sick"]
    assert result["threshold_rule"] == rule
    assert result["threshold"] == read_rule_thresholds(run)["sick"][rule]
    (run.parent / "videos").mkdir()
    for file in (run.parent / "videos" / "a.npy", run / "b.npy"):  # a run folder is not searched
        file.write_bytes((path.parent / "00.npy").read_bytes())
    run.rename(run.parent / "videos" / "run")
    table = predict(run.parent / "videos" / "run", paths=[run.parent / "videos"]).predictions
    assert [each.rpartition("/")[2] for each in column(table, "path")] == ["a.npy"]
    assert table["predicted"].to_pylist() == ["yes" if table["score"][0].as_py() >= result["threshold"] else "no"]


def test_thresholds_are_frozen_outside(path, tmp_path):
    run = make_run(settings_for(path, data={"target": "sick"}))
    other = outside(path, [f"q{row // 2}" for row in range(24)])
    result = evaluate(run.folder, manifest=other, out=tmp_path / "o.parquet")
    measured = result.assessment["parts"]["external"]["sick"]
    assert (result.part, measured["threshold_from"]) == ("external", "frozen")
    assert measured["threshold"] == read_thresholds(run.folder)["sick"]
    points = {point["rule"]: point["threshold"] for point in measured["operating_points"]}
    assert points == read_rule_thresholds(run.folder)["sick"]
    assert pq.read_table(tmp_path / "o.parquet").num_rows == 24
    assert measured["metrics"]["auroc"]["low"] is not None and measured["clusters"] == 12
    (run.folder / "assessment.json").unlink()
    assert evaluate(run.folder, manifest=other).assessment["parts"]["external"]["sick"]["threshold"] == 0.5
    (run.folder / "assessment.json").write_text("{")
    with pytest.raises(SettingError, match="thresholds are unknown"):
        evaluate(run.folder, manifest=other)


def test_a_unit_whose_labels_differ_is_refused_before_any_training(path):
    rows = Manifest.read(path)
    with pytest.raises(LabelError, match=r"12 values of 'patient' have videos whose 'age' labels differ \(first: p0\)"):
        make_parts(rows, settings_for(path, evaluate={"unit": "patient"}))
    with pytest.raises(ColumnError, match="'patient'"):
        make_parts(rows, settings_for(path, evaluate={"unit": "patent"}))
    with pytest.raises(ColumnError, match="'sex'"):
        make_parts(rows, settings_for(path, evaluate={"subgroups": ["sxe"]}))
    with pytest.raises(SettingError, match="clips=2: with position='spread'"):
        make_parts(rows, settings_for(path, clip={"position": "spread"}, evaluate={"clips": 2}))
    make_parts(rows, settings_for(path, data={"target": "kind"}, evaluate={"unit": "patient"}))


def test_a_unit_of_several_patients_is_resampled_itself(path):
    settings = settings_for(path, data={"target": "kind"}, evaluate={"unit": "kind"})
    assert json.loads((make_run(settings).folder / "assessment.json").read_text())["cluster"] == "kind"
    table = pa.table({"study": ["s1", "s2"], "patient": ["p", "p"]})
    assert cluster_of(table, unit="study", group="patient") == "patient"


def test_clips_that_are_given_back_have_an_error_with_an_interval(path):
    table = overlay(to_table(settings_for(path)), {"data": {"target": "clip"}, "evaluate": {"clips": 2}})
    table["data"]["split"]["test"] = 0.5
    run = make_run(parse(table | {"model": {"name": "autoencoder", "filters": [4], "code": 2}}))
    result = json.loads((run.folder / "assessment.json").read_text())["parts"]["test"]["clip"]
    table = pq.read_table(run.folder / "predictions.parquet")
    rows = table.filter(pc.equal(table["split"], "test"))
    assert (
        result["metrics"]["mse"]["value"] == pytest.approx(column(rows, "score").mean()) == run.metrics["test"]["mse"]
    )
    assert result["clusters"] == 6 and result["metrics"]["mse"]["reason"].startswith("an interval needs at least 10")
    assert not (run.folder / "labels.json").exists()
    assert evaluate(run.folder, unit="patient").metrics["mse"] == pytest.approx(run.metrics["test"]["mse"])
    other = outside(path, [f"q{row // 2}" for row in range(24)])
    outer = evaluate(run.folder, manifest=other).assessment["parts"]["external"]["clip"]["metrics"]["mse"]
    assert outer["low"] < outer["value"] < outer["high"]
    assert predict(run.folder, manifest=path).predictions.column_names == ["id", "path", "split", "score"]


def test_predict_needs_no_label_and_lists_bad_files(path, tmp_path):
    run = make_run(settings_for(path)).folder
    folder = tmp_path / "new"
    folder.mkdir()
    np.save(folder / "good.npy", np.full((9, 20, 20), 100, np.uint8))
    (folder / "empty.npy").write_bytes(b"")
    (folder / "text.mp4").write_text("no video")
    result = predict(run, paths=[folder], clips=3, per_clip=True, out=tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["id", "path", "split", "clip", "score"]
    assert table["clip"].to_pylist() == [0, 1, 2] and result.predictions.equals(table)
    averaged = predict(run, paths=[folder], clips=3).predictions
    assert averaged.column_names == ["id", "path", "split", "score"]
    assert averaged["score"].to_pylist() == [pytest.approx(np.mean(table["score"].to_pylist()))]
    assert sorted(each["path"].rpartition("/")[2] for each in result.failures) == ["empty.npy", "text.mp4"]
    with pytest.raises(TableError, match=r"none of 1 rows has a readable frame.*text.mp4"):
        predict(run, paths=[folder / "text.mp4"])
    with pytest.raises(TableError, match=r"no video to predict.*absent.mp4: No such file"):
        predict(run, paths=[folder / "absent.mp4"])
    with pytest.raises(SettingError, match=r"is a table, not a video.*--manifest .*parquet"):
        predict(run, paths=[folder, path])
    with pytest.raises(SettingError, match=r"given twice, as .*new and as a manifest; leave one of them out"):
        predict(run, paths=[folder], manifest=path)


def test_predict_writes_as_it_goes_and_lists_files_that_are_gone(path, tmp_path, monkeypatch):
    run = make_run(settings_for(path, data={"target": ["age", "kind"]}, evaluate={"clips": 2})).folder
    (path.parent / "07.npy").unlink()
    monkeypatch.setattr("cinefeed.training.predict.ROWS_AT_ONCE", 9)
    ticks = []
    out = tmp_path / "o" / "p.parquet"
    result = predict(run, manifest=path, per_clip=True, out=out, tick=lambda *each: ticks.append(each))
    assert [each["path"] for each in result.failures] == ["07.npy"]
    file = pq.ParquetFile(out)
    assert file.metadata.num_row_groups == 4 and file.metadata.num_rows == 46
    assert result.predictions.column_names[4:] == [
        *("score_age", "score_kind_a", "score_kind_b", "score_kind_c", "predicted_kind")
    ]
    scores = np.stack([column(result.predictions, f"score_kind_{each}") for each in "abc"], axis=1)
    assert column(result.predictions, "predicted_kind").tolist() == ["abc"[each] for each in scores.argmax(axis=1)]
    assert ticks[-1] == (46, 46) and len(ticks) == 4
    whole = predict(run, manifest=path, per_clip=True).predictions
    assert whole.equals(result.predictions)
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(SettingError, match="cannot be written"):
        predict(run, manifest=path, out=blocked / "p.parquet")
    for each in path.parent.glob("*.npy"):
        each.unlink()
    with pytest.raises(TableError, match="none of the 24 files exists"):
        predict(run, manifest=path)


def test_a_video_that_is_named_again_is_scored_once(path, tmp_path, monkeypatch):
    run = make_run(settings_for(path, data={"target": "kind"})).folder
    monkeypatch.chdir(path.parent)
    named = [path.parent / "03.npy", "03.npy", "./sub/../03.npy", "01.npy", path.parent / "01.npy"]
    result = predict(run, paths=named, clips=2)
    assert [each.rpartition("/")[2] for each in result.predictions["path"].to_pylist()] == ["03.npy", "01.npy"]
    assert result.repeated == 3
    everything = predict(run, paths=[path.parent, "03.npy"])
    assert len(everything.predictions) == 24 and everything.repeated == 1


def test_videos_of_the_run_are_counted_by_their_content(path, tmp_path):
    hashes = Manifest.scan(path.parent, progress=False).table["content_hash"]
    table = Manifest.read(path).table.append_column("content_hash", hashes)
    Manifest.from_table(table, root=path.parent).write(path)
    run = make_run(settings_for(path, data={"target": "kind"})).folder
    parts = Manifest.read(run / "manifest.parquet").column("split").to_pylist()
    others = tmp_path / "others"
    others.mkdir()
    shutil.copy(path.parent / f"{parts.index('val'):02}.npy", others / "renamed.npy")
    np.save(others / "00.npy", np.zeros((12, 12, 12), np.uint8))  # another video of the same name
    result = predict(run, paths=[others, path.parent / f"{parts.index('test'):02}.npy"])
    assert result.run_parts == {"val": 1, "test": 1}
    alone = predict(run, paths=[path.parent / "03.npy"])
    assert alone.predictions["id"].to_pylist() == ["03.npy"] and alone.run_parts == {parts[3]: 1}
    assert predict(run, manifest=path).run_parts == {part: parts.count(part) for part in ("train", "val", "test")}


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_predictions_by_suffix(path, tmp_path, suffix):
    run = make_run(settings_for(path, data={"target": "kind"})).folder
    for number, work in enumerate((partial(predict, run, manifest=path), partial(evaluate, run))):
        out = tmp_path / f"{number}.{suffix}"
        result = work(out=out).predictions
        table = pd.read_csv(out) if suffix == "csv" else pd.read_json(out)
        assert table["id"].tolist() == result["id"].to_pylist() and list(table.columns) == result.column_names
        assert np.allclose(table["score_a"], result["score_a"].to_pylist())
        with pytest.raises(SettingError, match=r"must be \.parquet, \.csv or \.json"):
            work(out=tmp_path / "p.xlsx")
    if suffix == "csv":  # such a table is one of predictions again
        assert assess(read_predictions(out))["parts"]["test"]["target"]["units"] == len(result)


def test_finishing_makes_evaluation_feeds_of_several_clips(path):
    settings = settings_for(path)
    run = make_run(settings)
    rows = pq.read_table(run.folder / "predictions.parquet").num_rows
    several = make_run(settings_for(path, train={"out": str(path.parent / "b")}, evaluate={"clips": 3}))
    assert pq.read_table(several.folder / "predictions.parquet").num_rows == 3 * rows
    assert callable(finish_run)


def test_predict_of_a_private_run_names_no_path(path, tmp_path):
    run = make_run(settings_for(path, data={"private": True})).folder
    manifest = Manifest.read(run / "manifest.parquet")
    if not manifest.private:
        manifest.as_private().write(run / "manifest.parquet")
    folder = tmp_path / "Doe^John"
    folder.mkdir()
    (folder / "broken.npy").write_bytes(b"no array")
    np.save(folder / "good.npy", np.zeros((12, 12, 12), np.uint8))
    result = predict(run, paths=[folder, folder / "absent.npy"])
    assert len(result.failures) == 2
    assert "Doe" not in repr(result.failures) and "Doe" not in repr(result.predictions.column("id").to_pylist())
    with pytest.raises(TableError) as caught:
        predict(run, paths=[folder / "absent.npy"])
    assert "Doe" not in str(caught.value)
    with pytest.raises(TableError) as caught:
        predict(run, paths=[folder / "broken.npy"])
    assert "Doe" not in str(caught.value)
    table = pa.table({"path": ["Doe^John/good.npy", "Doe^John/absent.npy"]})
    Manifest.from_table(table, root=tmp_path).write(tmp_path / "m.parquet")
    result = predict(run, manifest=tmp_path / "m.parquet")
    assert len(result.failures) == 1 and "Doe" not in repr(result.failures)
