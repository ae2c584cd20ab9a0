"""A model compared with baselines on the same resamples, and the lines of a terminal about them."""

import numpy as np
import pyarrow as pa
import pytest

from cinefeed.metrics import assess, predictions_of, target_columns
from cinefeed.metrics.baselines import compare_baselines, guess_of
from cinefeed.metrics.display import assessment_lines, baseline_lines

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
    assert first.startswith("test, R²: model 0." if task == "regression" else "test, AUROC: model 0.")
    assert constant.startswith("test: better than guessing") and unit in constant
    assert "no better than the thumbnail" in thumbnail or "not compared with the thumbnail" in thumbnail
    assert "worse than the nuisance columns by" in columns and last == "baselines took 1 s for 60 videos"
    assert guess_of({"task": task, "classes": [], "metrics": {}}, target).verdict == "better"


def test_no_baselines_have_a_reason():
    assert baseline_lines({}) == []
    assert baseline_lines({"note": "one class in training"}) == ["no baselines: one class in training"]


def test_subgroups_are_a_table_of_their_own():
    assessment = assess(predictions(4, task="regression"), resamples=50, subgroups=["sex"])
    lines = assessment_lines(assessment)
    start = next(number for number, line in enumerate(lines) if line.startswith("by sex"))
    assert [line.split()[:2] for line in lines[start + 1 : start + 3]] == [["f", "40"], ["m", "20"]]
