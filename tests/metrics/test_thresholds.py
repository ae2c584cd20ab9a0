"""Thresholds by rule, and the operating points of an assessment, recomputed with scikit-learn."""

import numpy as np
import pyarrow as pa
import pytest
import sklearn.metrics as sk

from cinefeed.core.errors import SettingError
from cinefeed.metrics import assess, best_threshold, predictions_of, target_columns
from cinefeed.metrics.display import assessment_lines


def merit(rule, targets, positive):
    if rule == "f1":
        return sk.f1_score(targets, positive)
    return sk.recall_score(targets, positive) + sk.recall_score(targets, positive, pos_label=0) - 1


@pytest.mark.parametrize("rule", ["f1", "youden"])
@pytest.mark.parametrize("seed", range(5))
def test_a_threshold_is_the_best_of_all_scores(rule, seed):
    rng = np.random.default_rng(seed)
    targets = (rng.uniform(size=60) < 0.2).astype(int)
    scores = np.round(np.clip(targets * 0.3 + rng.uniform(0, 0.7, 60), 0, 1), 2)  # rounded, so that some are equal
    threshold = best_threshold(targets=targets, scores=scores, rule=rule)
    best = max(merit(rule, targets, scores >= each) for each in scores)
    assert threshold in scores and merit(rule, targets, scores >= threshold) == pytest.approx(best)


def predictions(*parts):
    """Return predictions of a rare class, by which F1 and Youden's J differ."""
    rng = np.random.default_rng(3)
    targets = np.tile(np.arange(100) < 10, len(parts))
    scores = np.clip(targets * 0.25 + rng.uniform(0, 0.75, len(targets)), 0, 1)
    table = pa.table(
        {
            "id": [f"v{row}" for row in range(len(targets))],
            "split": np.repeat(parts, 100),
            "target": np.where(targets, "sick", "well"),
            "score": scores,
        }
    )
    return predictions_of(table, [target_columns("state", task="binary", classes=["well", "sick"])])


@pytest.mark.parametrize("rule", ["f1", "youden"])
def test_an_assessment_has_the_points_of_both_rules_and_uses_one(rule):
    made = predictions("val", "test")
    result = assess(made, rule=rule, resamples=20)["parts"]["test"]["state"]
    points = {point["rule"]: point for point in result["operating_points"]}
    assert {*points} == {"f1", "youden"} and points["f1"]["threshold"] != points["youden"]["threshold"]
    assert (result["threshold_rule"], result["threshold"]) == (rule, points[rule]["threshold"])
    assert result["metrics"]["f1"]["value"] == points[rule]["f1"]
    rows = made.part("test").table
    truth, score = np.array(rows["target"]) == "sick", np.array(rows["score"])
    for point in points.values():
        positive = score >= point["threshold"]
        assert point["sensitivity"] == sk.recall_score(truth, positive)
        assert point["specificity"] == sk.recall_score(truth, positive, pos_label=False)
        assert point["accuracy"] == sk.accuracy_score(truth, positive)


def test_the_terminal_names_both_thresholds_and_the_one_in_use():
    lines = assessment_lines(assess(predictions("val", "test"), rule="youden", resamples=20))
    points = [line for line in lines if "threshold" in line]
    assert [line.partition(",")[0] for line in points] == ["val", "val", "test", "test"]
    assert [line.partition(" (")[0] for line in lines if line.startswith("positive")] == ["positive class: sick"]
    assert "(Youden's J on val, used above): sensitivity " in points[2] and "(best F1 on val): " in points[3]


def test_points_of_an_earlier_run_are_used_without_a_validation_part():
    frozen = {"state": {"f1": 0.7, "youden": 0.5}}
    made = predictions("external")
    result = assess(made, thresholds={"state": 0.7}, rule_thresholds=frozen, resamples=20)["parts"]["external"]["state"]
    assert [point["threshold"] for point in result["operating_points"]] == [0.7, 0.5]
    assert "operating_points" not in assess(made, resamples=20)["parts"]["external"]["state"]
    with pytest.raises(SettingError, match="rule_thresholds name a target 'stat'; did you mean 'state'"):
        assess(made, rule_thresholds={"stat": {"f1": 0.7}})


def test_an_unknown_rule_is_refused():
    with pytest.raises(SettingError, match="rule = 'J' must be 'f1'"):
        assess(predictions("val"), rule="J")
