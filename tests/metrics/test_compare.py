import json

import numpy as np
import pyarrow as pa
import pytest

from cinefeed.core.errors import ColumnError, LabelError, TableError
from cinefeed.metrics import assess, compare, predictions_of, target_columns

AGE = target_columns("age", task="regression")
SICK = target_columns("sick", task="binary", classes=["no", "yes"])
rng = np.random.default_rng(0)
TRUE = rng.normal(60, 12, 60)
HARD = rng.normal(0, 8, 60)  # what both models get wrong alike
SETTINGS = {"resamples": 200, "seed": 0}


def ages(score, *, target=TRUE, ids=None, **columns):
    rows = {"id": ids or [f"v{k:02d}" for k in range(len(score))], "split": ["test"] * len(score), "target": target}
    return predictions_of(pa.table(rows | {"score": score} | columns), [AGE])


def test_pairing_detects_small_differences():
    worse, better = ages(TRUE + HARD + 0.5 * np.sign(HARD)), ages(TRUE + HARD)
    result = compare(worse, better, **SETTINGS)["targets"]["age"]["metrics"]["mae"]
    alone = [assess(each, **SETTINGS)["parts"]["test"]["age"]["metrics"]["mae"] for each in (worse, better)]
    assert (result["a"], result["b"]) == (alone[0]["value"], alone[1]["value"])
    assert result["difference"] == pytest.approx(-0.5)
    assert result["high"] < 0  # though the two intervals overlap
    assert alone[0]["low"] < alone[1]["high"]


def test_a_model_does_not_differ_from_itself():
    result = compare(ages(TRUE + HARD), ages(TRUE + HARD), **SETTINGS)
    for each in result["targets"]["age"]["metrics"].values():
        assert (each["difference"], each["low"], each["high"]) == (0, 0, 0)
    assert result["targets"]["age"]["same_scores"]
    assert not compare(ages(TRUE + HARD), ages(TRUE), **SETTINGS)["targets"]["age"]["same_scores"]
    json.dumps(result, allow_nan=False)


def test_two_values_in_validation_are_not_two_classes():
    parts = [*["val"] * 30, *["test"] * 30]
    both_parts = ages(TRUE + HARD, target=[*[40.0, 50.0] * 15, *TRUE[30:]], split=parts)
    assert "mae" in compare(both_parts, both_parts, **SETTINGS)["targets"]["age"]["metrics"]


def test_noise_alone_is_no_difference():
    one, other = (ages(TRUE + rng.normal(0, 8, 60)) for _ in range(2))
    result = compare(one, other, **SETTINGS)["targets"]["age"]["metrics"]
    assert result["mae"]["low"] < 0 < result["mae"]["high"]


def test_row_order_does_not_matter_and_units_may_be_patients():
    patients = {"patient": [f"p{k // 2}" for k in range(60)]}
    target = np.repeat(TRUE[:30], 2)
    one, other = (ages(target + rng.normal(0, 8, 60), target=target, **patients) for _ in range(2))
    turned = predictions_of(other.table.take(list(range(60))[::-1]), [AGE])
    result = compare(one, other, unit="patient", **SETTINGS)
    assert result == compare(one, turned, unit="patient", **SETTINGS)
    assert result["targets"]["age"]["units"] == 30
    by_cluster = compare(one, ages(np.array(other.table["score"]), target=target), cluster="patient", **SETTINGS)
    assert (by_cluster["targets"]["age"]["units"], by_cluster["targets"]["age"]["clusters"]) == (60, 30)


def risks(rise, flip=False):
    """Return predictions of two classes whose validation chooses another threshold for each rise."""
    sick = np.arange(80) % 2
    score = np.clip(rise + 0.3 * sick + np.linspace(-0.1, 0.1, 80), 0, 1)
    split = ["val"] * 40 + ["test"] * 40
    table = pa.table({"id": [f"v{k}" for k in range(80)], "split": split, "score": score})
    words = np.array(["no", "yes"])[1 - sick if flip else sick]
    return predictions_of(table.append_column("target", pa.array(words.tolist())), [SICK])


def test_each_model_has_the_threshold_of_its_own_validation():
    result = compare(risks(0.1), risks(0.6), **SETTINGS)["targets"]["sick"]
    assert result["thresholds"]["a"] < 0.5 < result["thresholds"]["b"]
    assert result["metrics"]["f1"]["a"] == result["metrics"]["f1"]["b"] == 1
    assert result["metrics"]["f1"]["difference"] == 0


def test_one_class_compares_only_defined_metrics():
    one = predictions_of(risks(0.1).table.filter(pa.array(np.arange(80) % 2 == 1)), [SICK])
    result = compare(one, one, **SETTINGS)["targets"]["sick"]["metrics"]
    assert result["auroc"]["reason"] == "all targets are 'yes'"
    assert (result["auroc"]["difference"], result["auroc"]["low"]) == (None, None)
    assert result["accuracy"]["difference"] == 0


def test_few_units_have_a_difference_without_an_interval():
    result = compare(ages(TRUE[:5] + 1, target=TRUE[:5]), ages(TRUE[:5], target=TRUE[:5]), **SETTINGS)
    each = result["targets"]["age"]["metrics"]["mae"]
    assert each["difference"] == pytest.approx(-1) and each["low"] is None
    assert each["reason"] == "an interval needs at least 10 units to resample; found 5"


def test_models_without_labels():
    blank = ages(TRUE, target=pa.nulls(60, pa.float64()))
    assert compare(blank, blank)["targets"]["age"]["metrics"]["r2"]["reason"] == "no labels"


@pytest.mark.parametrize(
    ("other", "error", "message"),
    [
        (
            ages(TRUE[:58], target=TRUE[:58]),
            TableError,
            r"videos in 'test' differ: 58 in both, 2 .v58, v59. only in a, 0 only in b; .* column 'id'",
        ),
        (
            ages(TRUE, ids=[f"v{k:02d}" for k in range(3, 63)]),
            TableError,
            "57 in both, 3 .v00, v01, v02. only in a",
        ),
        (ages(TRUE, target=[1.0, *TRUE[1:]]), LabelError, "1 of 60 units have different 'age' labels .*v00"),
        (
            ages(TRUE, target=[None, *TRUE[1:]]),
            TableError,
            "with a 'age' label differ: 59 in both, 1 .v00. only in a",
        ),
        (risks(0.1), TableError, r"targets differ: 0 in both, 1 \(age\) only in a, 1 \(sick\) only in b"),
    ],
)
def test_models_that_cannot_be_compared(other, error, message):
    with pytest.raises(error, match=message):
        compare(ages(TRUE), other, **SETTINGS)


def test_other_classes_and_other_columns():
    turned = predictions_of(risks(0.1).table, [target_columns("sick", task="binary", classes=["yes", "no"])])
    with pytest.raises(LabelError, match="classes no, yes in a and yes, no in b"):
        compare(risks(0.1), turned)
    with pytest.raises(LabelError, match="40 of 40 units have different"):
        compare(risks(0.1), risks(0.1, flip=True))
    with pytest.raises(ColumnError, match="no column 'patient'"):
        compare(risks(0.1), risks(0.2), unit="patient")
    with pytest.raises(TableError, match="'train'; there are"):
        compare(risks(0.1), risks(0.2), part="train")


def test_classes_may_be_in_another_order_if_each_has_its_column():
    scores = rng.dirichlet([2.0, 2.0, 2.0], 60)
    rows = {"id": [f"v{k}" for k in range(60)], "split": ["test"] * 60, "target": [*"abc"] * 20}
    rows |= {f"score_{name}": scores[:, k] for k, name in enumerate("abc")}
    one, other = (
        predictions_of(pa.table(rows), [target_columns("view", task="multiclass", classes=[*order])])
        for order in ("abc", "cab")
    )
    result = compare(one, other, **SETTINGS)["targets"]["view"]
    assert result["same_scores"] and result["classes"] == [*"abc"]
    assert all(each["difference"] == 0 for each in result["metrics"].values())


def test_cluster_column_may_be_in_one_table_only():
    target, patients = np.repeat(TRUE[:30], 2), {"patient": [f"p{k // 2}" for k in range(60)]}
    with_clusters, without_clusters = (
        ages(target + HARD, target=target, **patients),
        ages(target + HARD + 1, target=target),
    )
    forth, back = (
        compare(with_clusters, without_clusters, cluster="patient", **SETTINGS),
        compare(without_clusters, with_clusters, cluster="patient", **SETTINGS),
    )
    mae = [each["targets"]["age"]["metrics"]["mae"] for each in (forth, back)]
    assert forth["targets"]["age"]["clusters"] == back["targets"]["age"]["clusters"] == 30
    assert mae[0]["low"] == pytest.approx(-mae[1]["high"])


def test_frozen_threshold_is_used_without_validation_part():
    labels = np.array(["no", "yes"])[(TRUE > 60).astype(int)]
    score = 1 / (1 + np.exp(-(TRUE - 60 + HARD) / 10))
    rows = {"id": [f"v{k:02d}" for k in range(60)], "split": ["test"] * 60, "target": labels, "score": score}
    table = predictions_of(pa.table(rows), [SICK])
    frozen = compare(table, table, thresholds={"a": {"sick": 0.9}}, **SETTINGS)["targets"]["sick"]
    assert frozen["thresholds"] == {"a": 0.9, "b": 0.5} and frozen["metrics"]["sensitivity"]["difference"] > 0
    both = predictions_of(pa.table(rows | {"split": ["test", "val"] * 30}), [SICK])
    own = compare(both, both, thresholds={"a": {"sick": 0.9}}, **SETTINGS)["targets"]["sick"]
    assert own["thresholds"]["a"] == own["thresholds"]["b"] != 0.9
