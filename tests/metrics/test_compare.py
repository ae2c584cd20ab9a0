import json

import numpy as np
import pyarrow as pa
import pytest

from cinefeed.errors import ColumnError, LabelError, TableError
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


def test_a_small_difference_is_seen_where_both_find_the_same_videos_hard():
    worse, better = ages(TRUE + HARD + 0.5 * np.sign(HARD)), ages(TRUE + HARD)
    found = compare(worse, better, **SETTINGS)["targets"]["age"]["metrics"]["mae"]
    alone = [assess(each, **SETTINGS)["parts"]["test"]["age"]["metrics"]["mae"] for each in (worse, better)]
    assert (found["a"], found["b"]) == (alone[0]["value"], alone[1]["value"])
    assert found["difference"] == pytest.approx(-0.5)
    assert found["high"] < 0  # though the two intervals overlap
    assert alone[0]["low"] < alone[1]["high"]


def test_a_model_does_not_differ_from_itself():
    found = compare(ages(TRUE + HARD), ages(TRUE + HARD), **SETTINGS)
    for each in found["targets"]["age"]["metrics"].values():
        assert (each["difference"], each["low"], each["high"]) == (0, 0, 0)
    json.dumps(found, allow_nan=False)


def test_noise_alone_is_no_difference():
    one, other = (ages(TRUE + rng.normal(0, 8, 60)) for _ in range(2))
    found = compare(one, other, **SETTINGS)["targets"]["age"]["metrics"]
    assert found["mae"]["low"] < 0 < found["mae"]["high"]


def test_rows_may_lie_in_another_order_and_units_may_be_patients():
    patients = {"patient": [f"p{k // 2}" for k in range(60)]}
    target = np.repeat(TRUE[:30], 2)
    one, other = (ages(target + rng.normal(0, 8, 60), target=target, **patients) for _ in range(2))
    turned = predictions_of(other.table.take(list(range(60))[::-1]), [AGE])
    found = compare(one, other, unit="patient", **SETTINGS)
    assert found == compare(one, turned, unit="patient", **SETTINGS)
    assert found["targets"]["age"]["units"] == 30
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
    found = compare(risks(0.1), risks(0.6), **SETTINGS)["targets"]["sick"]
    assert found["thresholds"]["a"] < 0.5 < found["thresholds"]["b"]
    assert found["metrics"]["f1"]["a"] == found["metrics"]["f1"]["b"] == 1
    assert found["metrics"]["f1"]["difference"] == 0


def test_of_one_class_nothing_is_compared_but_what_is_defined():
    one = predictions_of(risks(0.1).table.filter(pa.array(np.arange(80) % 2 == 1)), [SICK])
    found = compare(one, one, **SETTINGS)["targets"]["sick"]["metrics"]
    assert found["auroc"]["reason"] == "all targets are 'yes'"
    assert (found["auroc"]["difference"], found["auroc"]["low"]) == (None, None)
    assert found["accuracy"]["difference"] == 0


def test_few_units_have_a_difference_without_an_interval():
    found = compare(ages(TRUE[:5] + 1, target=TRUE[:5]), ages(TRUE[:5], target=TRUE[:5]), **SETTINGS)
    each = found["targets"]["age"]["metrics"]["mae"]
    assert each["difference"] == pytest.approx(-1) and each["low"] is None
    assert each["reason"] == "an interval needs 10 units to resample; there are 5"


def test_models_without_labels():
    blank = ages(TRUE, target=pa.nulls(60, pa.float64()))
    assert compare(blank, blank)["targets"]["age"]["metrics"]["r2"]["reason"] == "no labels"


@pytest.mark.parametrize(
    ("other", "error", "message"),
    [
        (ages(TRUE[:58], target=TRUE[:58]), TableError, r"videos in 'test' differ: 58 in both, 2 in a alone, 0 in b"),
        (ages(TRUE, ids=[f"v{k:02d}" for k in range(3, 63)]), TableError, "57 in both, 3 in a alone, 3 in b alone"),
        (ages(TRUE, target=[1.0, *TRUE[1:]]), LabelError, "1 of 60 units have another 'age' label .*v00"),
        (ages(TRUE, target=[None, *TRUE[1:]]), TableError, "units with a 'age' label differ: 59 in both, 1 in a alone"),
        (risks(0.1), TableError, r"the targets differ: 0 in both, 1 in a alone, 1 in b alone \(age, sick"),
    ],
)
def test_models_that_cannot_be_compared(other, error, message):
    with pytest.raises(error, match=message):
        compare(ages(TRUE), other, **SETTINGS)


def test_other_classes_and_other_columns():
    turned = predictions_of(risks(0.1).table, [target_columns("sick", task="binary", classes=["yes", "no"])])
    with pytest.raises(LabelError, match="classes no, yes in a and yes, no in b"):
        compare(risks(0.1), turned)
    with pytest.raises(LabelError, match="40 of 40 units have another"):
        compare(risks(0.1), risks(0.1, flip=True))
    with pytest.raises(ColumnError, match="no column 'patient'"):
        compare(risks(0.1), risks(0.2), unit="patient")
    with pytest.raises(TableError, match="'train'; there are"):
        compare(risks(0.1), risks(0.2), part="train")


def test_one_table_may_tell_the_patients_of_both():
    target, patients = np.repeat(TRUE[:30], 2), {"patient": [f"p{k // 2}" for k in range(60)]}
    told, untold = ages(target + HARD, target=target, **patients), ages(target + HARD + 1, target=target)
    forth, back = (
        compare(told, untold, cluster="patient", **SETTINGS),
        compare(untold, told, cluster="patient", **SETTINGS),
    )
    mae = [each["targets"]["age"]["metrics"]["mae"] for each in (forth, back)]
    assert forth["targets"]["age"]["clusters"] == back["targets"]["age"]["clusters"] == 30
    assert mae[0]["low"] == pytest.approx(-mae[1]["high"])


def test_a_threshold_that_was_kept_serves_where_no_validation_part_is():
    labels = np.array(["no", "yes"])[(TRUE > 60).astype(int)]
    score = 1 / (1 + np.exp(-(TRUE - 60 + HARD) / 10))
    rows = {"id": [f"v{k:02d}" for k in range(60)], "split": ["test"] * 60, "target": labels, "score": score}
    table = predictions_of(pa.table(rows), [SICK])
    kept = compare(table, table, thresholds={"a": {"sick": 0.9}}, **SETTINGS)["targets"]["sick"]
    assert kept["thresholds"] == {"a": 0.9, "b": 0.5} and kept["metrics"]["sensitivity"]["difference"] > 0
    both = predictions_of(pa.table(rows | {"split": ["test", "val"] * 30}), [SICK])
    own = compare(both, both, thresholds={"a": {"sick": 0.9}}, **SETTINGS)["targets"]["sick"]
    assert own["thresholds"]["a"] == own["thresholds"]["b"] != 0.9
