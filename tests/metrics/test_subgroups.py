import numpy as np
import pyarrow as pa
import pytest

from cinefeed.core.errors import ColumnError
from cinefeed.metrics import predictions_of, regression_metrics, target_columns
from cinefeed.metrics.estimates import Resampling
from cinefeed.metrics.subgroups import group_rows, subgroup_metrics

AGE = target_columns("age", task="regression")
rng = np.random.default_rng(0)


def ages(count, **columns):
    targets = rng.normal(60, 10, count)
    rows = {"id": [f"v{k}" for k in range(count)], "split": ["test"] * count, "target": targets}
    return predictions_of(pa.table(rows | {"score": targets + rng.normal(0, 5, count)} | columns), [AGE])


def subgroups(predictions, by, **kwargs):
    return subgroup_metrics(predictions, AGE, by=by, resampling=Resampling(resamples=50), **kwargs)


def test_each_value_has_the_metrics_of_its_own_rows():
    predictions = ages(60, sex=["f", "m", "m"] * 20)
    female, male = subgroups(predictions, "sex")
    assert [(each["value"], each["units"]) for each in (female, male)] == [("f", 20), ("m", 40)]
    targets, scores = predictions.arrays("age")
    for each, rows in ((female, slice(0, None, 3)), (male, np.arange(60) % 3 > 0)):
        expected = regression_metrics(targets=targets[rows], scores=scores[rows])
        assert {name: metric["value"] for name, metric in each["metrics"].items()} == pytest.approx(dict(expected))
        assert each["metrics"]["mae"]["low"] < each["metrics"]["mae"]["high"]


def test_a_patient_of_two_devices_is_in_both():
    patients = [f"p{k // 2}" for k in range(40)]
    predictions = ages(40, device=["new", "old"] * 20, patient=patients, target=np.repeat(np.arange(20.0), 2))
    result = subgroups(predictions, "device", unit="patient")
    assert [(each["value"], each["units"], each["clusters"]) for each in result] == [("new", 20, 20), ("old", 20, 20)]


def test_numbers_of_many_values_are_put_into_quarters():
    names, numbers = group_rows(pa.array([*np.linspace(20, 80, 41), np.nan, None]))
    assert names == ["20 to 35", "36.5 to 50", "51.5 to 65", "66.5 to 80", None]
    assert np.bincount(numbers).tolist() == [11, 10, 10, 10, 2]
    names, numbers = group_rows(pa.array([0.0] * 30 + list(range(1, 11))))  # three of four are alike
    assert names == ["0 to 0", "1 to 10"] and np.bincount(numbers).tolist() == [30, 10]


def test_dates_and_ids_keep_all_digits():
    days = [20150101 + k for k in range(60)]
    names = ["20150101 to 20150115", "20150116 to 20150130", "20150131 to 20150145", "20150146 to 20150160"]
    assert group_rows(pa.array(days))[0] == names
    assert group_rows(pa.array(days, pa.float64()))[0] == names
    assert group_rows(pa.array([20150102.0, 20150101.0, 0.123456789]))[0] == ["0.123457", "20150101", "20150102"]


def test_few_numbers_booleans_and_missing_values_are_groups():
    assert group_rows(pa.array([2.0, 1.0, 2.0]))[0] == ["1", "2"]
    assert group_rows(pa.array([10, 2]))[0] == ["2", "10"]
    assert group_rows(pa.array([True, False]))[0] == ["False", "True"]
    names, numbers = group_rows(pa.array([None, "x", None]))
    assert names == ["x", None] and numbers.tolist() == [1, 0, 1]
    assert group_rows(pa.nulls(2, pa.string()))[0] == [None]


def test_rarest_of_many_values_are_merged():
    sites = [f"s{k:02d}" for k in range(30) for _ in range(1 + (k % 3 == 0) * 3)] + [None]
    names, numbers = group_rows(pa.array(sites))
    assert len(names) == 21 and names[-2:] == ["11 others", None]
    assert set(names[:-2]) >= {f"s{k:02d}" for k in range(0, 30, 3)}
    counts = np.bincount(numbers)
    assert counts.sum() == len(sites) and counts[-2:].tolist() == [11, 1]
    for name, number in zip(sites[:-1], numbers[:-1], strict=True):
        assert names[number] in (name, "11 others")


def test_missing_column():
    with pytest.raises(ColumnError, match="no column 'sx' for subgroups; did you mean 'sex'"):
        subgroups(ages(4, sex=list("fmfm")), "sx")
