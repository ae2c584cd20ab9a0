"""`evaluate` of runs and of tables, `compare`, several targets on the command line."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sklearn.metrics
import typer

from cinefeed.cli.evaluate import compare
from cinefeed.config import read_settings
from cinefeed.metrics.predictions import predictions_of, target_columns

SMALL = "--frame 16x16x1 --frames 3 --batch-size 3 --workers 0 --epochs 1 --group patient --val 0.2 --test 0.3".split()


@pytest.fixture
def compared(capsys):
    """Runs `compare` alone, and returns what it printed."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(compare)

    def run(*words):
        capsys.readouterr()
        app(args=[str(word) for word in words], standalone_mode=False)
        return capsys.readouterr().out

    return run


def write_predictions(path, *, noise, seed=0):
    """Write predictions of 60 videos of 20 patients; the less noise, the better."""
    rng = np.random.default_rng(seed)
    truth = np.arange(60) // 3 % 2
    score = 1 / (1 + np.exp(-(4 * truth - 2 + rng.normal(0, noise, 60))))
    table = {
        "id": [f"v{row}" for row in range(60)],
        "split": ["test"] * 60,
        "patient": [f"p{row // 3}" for row in range(60)],
        "sex": ["fm"[row // 3 % 3 % 2] for row in range(60)],
        "target": ["sick" if each else "well" for each in truth],
        "score": score,
    }
    where = target_columns("sick", task="binary", classes=["well", "sick"])
    pq.write_table(predictions_of(pa.table(table), [where]).table, path)
    return truth, score


def test_a_table_of_any_program_is_measured(cinefeed, tmp_path):
    lines = ["who,target,score,site"]
    truth, scores = [0, 1, 1, 0, 1, 0], [0.1, 0.8, 0.4, 0.3, 0.9, 0.6]
    lines += [f"q{row // 2},{truth[row]},{scores[row]},{'ab'[row % 2]}" for row in range(6)]
    table = tmp_path / "theirs.csv"
    table.write_text("\n".join(lines) + "\n")
    done = cinefeed("evaluate", table, "--target", "disease", "--group", "who", "--subgroups", "site", "--json")
    assert done.code == 0, done.err
    assert done.json["videos"] == {"external": 6}
    assert done.json["metrics"]["external"]["auroc"] == pytest.approx(sklearn.metrics.roc_auc_score(truth, scores))
    measured = done.json["assessment"]["parts"]["external"]["disease"]
    assert (measured["classes"], measured["clusters"], len(measured["subgroups"]["site"])) == (["0", "1"], 3, 2)
    named = cinefeed("evaluate", table, "--classes", "1,0", "--json").json
    assert named["metrics"]["external"]["auroc"] == pytest.approx(1 - done.json["metrics"]["external"]["auroc"])
    as_number = cinefeed("evaluate", table, "--task", "regression")
    assert as_number.code == 0
    first, head, row, *_ = as_number.out.splitlines()
    assert "on 6 external videos: too few for an interval; not shown to be better than guessing the mean." in first
    assert head.split() == ["external,", "6", "videos"] and row.startswith("r2 ")


def test_intervals_subgroups_and_reasons_are_printed_once(cinefeed, tmp_path):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 80)
    table = {
        "id": [f"v{row // 2}" for row in range(160)],
        "target": np.repeat(truth, 2),
        "score": np.clip(0.3 * np.repeat(truth, 2) + rng.uniform(0, 0.7, 160), 0, 1),
        "site": np.repeat(np.where(np.arange(80) < 74, "north", "south"), 2),
    }
    pq.write_table(pa.table(table), tmp_path / "theirs.parquet")
    done = cinefeed("evaluate", tmp_path / "theirs.parquet", "--subgroups", "site")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[1].split() == "external, 80 videos, 160 clips".split()
    auroc = json.loads(cinefeed("evaluate", tmp_path / "theirs.parquet", "--json").out)["assessment"]
    auroc = auroc["parts"]["external"]["target"]["metrics"]["auroc"]
    assert f"auroc              {auroc['value']:.3f} ({auroc['low']:.3f} to {auroc['high']:.3f})" in lines
    north, south = (next(line for line in lines if line.startswith(name)) for name in ("north", "south"))
    assert " 74 " in north and " to " in north and " 6 " in south and " to " not in south
    assert done.out.count("an interval needs at least 10 units to resample; found 6") == 1
    noise = pa.table({"target": truth, "score": rng.uniform(size=80)})
    pq.write_table(noise, tmp_path / "noise.parquet")
    first = cinefeed("evaluate", tmp_path / "noise.parquet").out.splitlines()[0]
    assert first.startswith("AUROC 0.") and first.endswith(" on 80 external videos; no better than guessing.")
    one = pa.table({"target": ["a"] * 12, "score": rng.uniform(size=12)})
    pq.write_table(one, tmp_path / "one.parquet")
    out = cinefeed("evaluate", tmp_path / "one.parquet", "--classes", "a,b").out
    assert out.count("all targets are 'a'") == 1 and "nan" not in out and "not defined" in out


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (["theirs.csv", "--where", "study=s1"], 2, "are for a run folder"),
        (["absent.csv"], 2, "absent.csv"),
        (["theirs.csv", "--unit", "studdy"], 2, "did you mean 'study'"),
        (["theirs.csv", "--task", "ranking"], 2, "--task ranking is not a task"),
        ([".", "--group", "patient"], 2, "are for a table of predictions"),
    ],
)
def test_what_is_asked_wrongly_of_a_table(cinefeed, tmp_path, monkeypatch, words, code, hint):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "theirs.csv").write_text("study,target,score\ns1,1,0.5\ns2,2,0.6\n")
    done = cinefeed("evaluate", *words)
    assert (done.code, done.out) == (code, "") and hint in done.err


def test_compare_shows_paired_differences(compared, tmp_path):
    write_predictions(tmp_path / "a.parquet", noise=4)
    write_predictions(tmp_path / "b.parquet", noise=0.5)
    words = [tmp_path / "a.parquet", tmp_path / "b.parquet", "--group", "patient", "--resamples", 200]
    result = json.loads(compared(*words, "--out", tmp_path / "c.json", "--json"))
    auroc = result["targets"]["sick"]["metrics"]["auroc"]
    assert auroc["difference"] == pytest.approx(auroc["b"] - auroc["a"]) and 0 < auroc["low"] < auroc["high"]
    assert result["targets"]["sick"]["clusters"] == 20 and result["cluster"] == "patient"
    assert json.loads((tmp_path / "c.json").read_text())["targets"] == result["targets"]
    output = compared(*words)
    assert output.count("positive class: sick (") == 1
    assert output.startswith(f"a: {words[0]}, b: {words[1]}\n")
    line = next(each for each in output.splitlines() if each.strip().startswith("auroc"))
    assert f"{auroc['difference']:.4g}" in line and " to " in line and "identical" not in output
    same = compared(words[0], words[0], "--resamples", 50)
    assert "a and b are identical: both predict the same values for all 60 videos" in same
    alone = json.loads(compared(words[0], words[0], "--json", "--resamples", 50))
    assert all(each["difference"] == 0 for each in alone["targets"]["sick"]["metrics"].values())
    table = pq.read_table(words[0])
    healthy = pa.array([1 - each for each in table["score"].to_pylist()])
    scores = {"score_well": healthy, "score_sick": table["score"]}
    pq.write_table(pa.table({**{each: table[each] for each in ("id", "split", "target")}, **scores}), words[1])
    for pair in (words[:2], words[1::-1]):  # the table does not name its target: it is that of the run
        named = json.loads(compared(*pair, "--json", "--resamples", 50))["targets"]
        assert list(named) == ["sick"] and named["sick"]["same_scores"]


def test_options_for_several_targets_and_covariates(cinefeed, manifest, tmp_path):
    run = tmp_path / "run"
    words = ["--target", "kind,age", "--classes", "kind=b,a", "--task", "kind=multiclass", "--weight", "age"]
    done = cinefeed("train", manifest, *words, *SMALL, "--out", run, "--json")
    assert done.code == 0, done.err
    settings = read_settings(run / "settings.toml")
    assert (settings.data.target, settings.feed.inputs.weight) == (("kind", "age"), "age")
    assert (settings.data.classes, settings.data.task) == ({"kind": ("b", "a")}, {"kind": "multiclass"})
    assert {"kind_auroc", "age_rmse"} <= set(done.json["metrics"]["test"])
    labels = json.loads((run / "labels.json").read_text())
    assert labels["classes"] == ["b", "a"] and labels["targets"]["age"]["classes"] is None
    done = cinefeed("evaluate", run, "--clips", 2, "--unit", "id", "--subgroups", "patient", "--json")
    assert done.code == 0, done.err
    split = pq.read_table(run / "predictions.parquet")["split"].to_pylist()
    assert done.json["clips"] == 2 * split.count("test") > 0 and done.json["videos"] == split.count("test")
    done = cinefeed("evaluate", run, "--manifest", manifest)
    assert done.code == 1 and "are in the run's training or validation" in done.err
    done = cinefeed(
        "train", manifest, "--target", "kind", "--target", "age", "--classes", "knd=a", *SMALL, "--out", run
    )
    assert done.code == 2 and "did you mean 'kind'" in done.err
    done = cinefeed("train", manifest, "--target", "age", "--task", "a=b", "--task", "c", *SMALL, "--out", run)
    assert done.code == 2 and "must be TARGET=VALUE" in done.err
