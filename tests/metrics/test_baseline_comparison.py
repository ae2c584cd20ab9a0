"""A model compared with baselines on the same resamples, and the lines of a terminal about them."""

import numpy as np
import pyarrow as pa
import pytest

from cinefeed.metrics import assess, predictions_of, target_columns
from cinefeed.metrics.baselines import compare_baselines, guess_of
from cinefeed.metrics.bootstrap import SAME_VALUE
from cinefeed.metrics.display import assessment_lines, baseline_lines
from cinefeed.metrics.headline import headline_sentences

ROWS = 60


def predictions(noise, *, task, seed=0):
    """Return predictions of 60 videos whose scores are the labels and noise, larger for a worse model."""
    rng = np.random.default_rng(seed)
    labels = rng.normal(50, 10, ROWS)
    scores = labels + rng.normal(0, noise, ROWS)
    sex = np.where(np.arange(ROWS) % 3, "f", "m").tolist()
    table = {"id": [f"v{row}" for row in range(ROWS)], "split": ["test"] * ROWS, "sex": sex}
    if task == "regression":
        table |= {"target": labels, "score": scores}
        return predictions_of(pa.table(table), [target_columns("ef", task=task)])
    table["target"] = np.where(labels > 50, "yes", "no").tolist()
    table["score"] = 1 / (1 + np.exp(50 - scores))
    return predictions_of(pa.table(table), [target_columns("ef", task=task, classes=["no", "yes"])])


@pytest.mark.parametrize("task", ["regression", "binary"])
def test_the_verdict_is_that_of_the_paired_difference(task):
    model = predictions(4, task=task)
    baselines = {"constant": predictions(200, task=task), "thumbnail": predictions(4, task=task)}
    baselines["columns"] = predictions(0.5, task=task)
    target = compare_baselines(model, baselines, resamples=200)["ef"]
    unit = "R²" if task == "regression" else "points of AUROC"
    content = {"note": "", "part": "test", "seconds": 1.0, "rows": ROWS, "targets": {"ef": target}}
    first, constant, thumbnail, columns, last = baseline_lines(content)
    assert baseline_lines(content, duration=False) == [first, constant, thumbnail, columns]
    assert first.startswith("test, R²: model 0." if task == "regression" else "test, AUROC: model 0.")
    assert constant.startswith("test: better than guessing") and unit in constant
    assert "no better than the thumbnail" in thumbnail or "not compared with the thumbnail" in thumbnail
    assert "worse than the nuisance columns by" in columns and last == "baselines took 1 s for 60 videos"
    assert guess_of({"task": task, "classes": [], "metrics": {}}, target).verdict == "better"
    first = assessment_lines(assess(model, resamples=200), baselines=content)[0]
    assert first.startswith("R² 0." if task == "regression" else "AUROC 0.") and ") on 60 test videos" in first
    assert "; below the nuisance columns (" in first and "than the thumbnail (" in first and "guessing" not in first


def few(value, *, low=None, high=None, reason=None):
    """A result of 11 videos, compared with columns that score 0.625 and with a thumbnail that scores 0.7."""
    metrics = {"balanced_accuracy": {"value": value, "low": low, "high": high, "reason": reason}}
    result = {"task": "multiclass", "classes": ["a", "b", "c"], "units": 11, "metrics": metrics}
    assessment = {"parts": {"val": {}, "test": {"label": result}}}
    compared = {"metric": "balanced_accuracy", "baselines": {}}
    for name, score in {"columns": 0.625, "thumbnail": 0.7}.items():
        difference = {"difference": None if value is None else value - score, "low": None, "high": None}
        if low is not None:
            difference |= {"low": low - score, "high": high - score}
        metric = {"balanced_accuracy": {"value": score}}
        compared["baselines"][name] = {"metrics": metric, "difference": difference}
    return assessment, {"note": "", "part": "test", "targets": {"label": compared}}


@pytest.mark.parametrize(
    ("value", "interval", "reason", "sentence"),
    [
        (0.667, None, "'covid' has 1", "0.667 on 11 test videos: too few for an interval; below the thumbnail (0.700); "
         "not shown to be better than the nuisance columns (0.625)"),
        (0.9, (0.8, 1.0), None, "0.900 (0.800 to 1.000) on 11 test videos; better than 2 baselines"),
        (0.9, (0.65, 1.0), None, "0.900 (0.650 to 1.000) on 11 test videos; no better than the thumbnail (0.700)"),
        (0.3, (0.2, 0.4), None, "0.300 (0.200 to 0.400) on 11 test videos; below the thumbnail (0.700), "
         "the nuisance columns (0.625)"),
        (1.0, None, SAME_VALUE, f"1.000 on 11 test videos: {SAME_VALUE}; not shown to be better than the thumbnail "
         "(0.700), the nuisance columns (0.625)"),
    ],
)  # fmt: skip
def test_the_first_sentence_names_what_is_not_beaten(value, interval, reason, sentence):
    low, high = interval or (None, None)
    assessment, baselines = few(value, low=low, high=high, reason=reason)
    assert headline_sentences(assessment, baselines=baselines) == {"label": f"Balanced accuracy {sentence}."}


def test_the_first_sentence_without_a_value_or_baselines():
    assessment, _ = few(None, reason="one class")
    expected = "Balanced accuracy is not defined on 11 test videos."
    assert headline_sentences(assessment) == {"label": expected}
    assessment, _ = few(0.5, low=0.3, high=0.6)
    assert headline_sentences(assessment)["label"].endswith("test videos; no better than guessing.")
    assert headline_sentences({"parts": {}}) == {}


def test_no_baselines_have_a_reason():
    assert baseline_lines({}) == []
    assert baseline_lines({"note": "one class in training"}) == ["no baselines: one class in training"]


def test_subgroups_are_a_table_of_their_own():
    assessment = assess(predictions(4, task="regression"), resamples=50, subgroups=["sex"])
    lines = assessment_lines(assessment)
    start = next(number for number, line in enumerate(lines) if line.startswith("by sex"))
    assert [line.split()[:2] for line in lines[start + 1 : start + 3]] == [["f", "40"], ["m", "20"]]
