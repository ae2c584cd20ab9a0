import numpy as np
import pyarrow as pa
import pytest

from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.quality.labels import label_findings, spelling_findings, telling_findings


def labelled(values, **columns):
    table = pa.table({"path": [f"{i:04}.mp4" for i in range(len(values))], "label": values, **columns})
    return Manifest.from_table(table)


def checked(values, *, group=None, **columns):
    findings, classes = label_findings(labelled(values, **columns), target="label", group=group)
    return {each.code: each for each in findings}, classes


def test_missing_labels_are_counted():
    findings, _ = checked(["a", None, "b", None] * 5)
    assert (findings["labels_missing"].severity, findings["labels_missing"].count) == ("warning", 10)
    findings, _ = checked([1.5, float("nan"), 3.5, 2.0])
    assert findings["labels_missing"].rows == (1,)
    findings, _ = checked(pa.nulls(3, pa.string()))
    assert findings["labels_missing"].severity == "error"


def test_a_constant_label_is_an_error():
    assert checked(["a"] * 5)[0]["label_constant"].severity == "error"
    assert checked([2.5, 2.5, None])[0]["label_constant"].severity == "error"
    assert "label_constant" not in checked(["a", "b"] * 5)[0]


def test_numbers_far_out_are_found_on_both_sides_and_others_are_not():
    rng = np.random.default_rng(0)
    ages = rng.normal(60, 10, 500)
    assert "labels_far_out" not in checked(ages)[0]
    ages[[7, 9]] = 600, -70
    finding = checked(ages)[0]["labels_far_out"]
    assert (finding.rows, finding.severity) == ((7, 9), "warning")
    assert finding.remarks[0] == "label 600"


def test_a_long_tail_is_not_far_out():
    skewed = np.random.default_rng(1).gamma(2.0, 3.0, 2000)
    finding = checked(skewed)[0].get("labels_far_out")
    assert finding is None or finding.count <= 4
    skewed[5] = 900
    assert checked(skewed)[0]["labels_far_out"].rows[0] == 5


def test_infinite_labels_are_an_error():
    assert checked([1.5, float("inf"), 2.5, 3.5])[0]["labels_infinite"].rows == (1,)


def test_classes_are_counted_by_rows_groups_and_parts():
    labels = ["a"] * 6 + ["b"] * 3
    columns = {"p": list("uuvvwwxyz"), "split": ["train", "val", "test"] * 3}
    findings, classes = checked(labels, group="p", **columns)
    assert classes["a"] == {"rows": 6, "groups": 3, "train": 2, "val": 2, "test": 2}
    assert list(classes["a"]) == ["rows", "groups", "train", "val", "test"]
    assert not {"classes_rare", "classes_not_in_part"} & findings.keys()


def test_a_class_with_fewer_groups_than_parts():
    findings, _ = checked(["a"] * 6 + ["b"] * 3, group="p", p=list("uuvvwwxxy"))
    assert "b (2 groups)" in findings["classes_rare"].detail
    assert findings["classes_rare"].rows == (6, 7, 8)
    findings, _ = checked(["a"] * 6 + ["b"] * 2)
    assert "b (2 rows)" in findings["classes_rare"].detail


def test_a_class_that_is_not_in_every_part():
    findings, _ = checked(["a", "b"] * 4, split=["train", "train", "train", "train", "val", "val", "val", "train"])
    assert "classes_not_in_part" not in findings
    findings, _ = checked(["a", "b"] * 4, split=["train", "train", "train", "train", "val", "train", "val", "train"])
    assert "no b in val" in findings["classes_not_in_part"].detail


def test_classes_of_very_different_size_are_a_note():
    assert checked(["a"] * 40 + ["b"] * 4)[0]["classes_skewed"].severity == "note"
    assert "classes_skewed" not in checked(["a"] * 30 + ["b"] * 4)[0]


def test_a_group_of_two_labels_is_a_note():
    findings, _ = checked(["a", "b", "a", "b"], group="p", p=["u", "u", "v", "w"])
    assert findings["groups_of_two_labels"].remarks == ("u: a", "u: b")


@pytest.mark.parametrize("other", ["covid ", "Covid", "COVID", " covid"])
def test_a_value_spelt_in_two_ways(other):
    manifest = labelled(["covid", "well", other, "well"])
    (findings,) = spelling_findings(manifest, ["label"])
    assert findings.rows == (0, 2)
    assert repr(other) in findings.detail


@pytest.mark.parametrize(("first", "second"), [("0037", "37"), ("P-007", "p 7"), ("0", "00")])
def test_a_value_with_and_without_leading_zeros(first, second):
    (findings,) = spelling_findings(labelled([first, "11", second, "110"]), ["label"])
    assert findings.rows == (0, 2)


def test_other_values_and_numbers_are_not_spellings():
    manifest = labelled(["covid", "covid 19", "1.05", "1.5"], number=[1, 2, 1, 2])
    assert spelling_findings(manifest, ["label", "number"]) == []


@pytest.mark.parametrize(
    ("column", "is_named"),
    [
        ([0, 1, 2, 3, 4] * 8, True),
        ([0, 1, 2, 3, None] * 8, True),
        ([0, 1, 2, 3, 4] * 7 + [1, 1, 1, 1, 1], False),  # 1 has both labels
        ([*range(40)], False),
        ([0, 1] + [None] * 38, False),
        (["x"] * 40, False),
    ],
)
def test_a_column_that_gives_the_label_away_is_named(column, is_named):
    labels = ["a", "b", "a", "b", "b"] * 8
    manifest = labelled(labels, code=column, site=["s", "t"] * 20, patient=[str(row // 2) for row in range(40)])
    findings = telling_findings(manifest, target="label", group=None, nuisance=())
    assert len(findings) == is_named
    if is_named:
        assert "each value of code (" in findings[0].title and "site" not in findings[0].title
    assert telling_findings(manifest, target="label", group=None, nuisance=["code"]) == []


def test_another_name_of_the_patient_does_not_give_the_label_away():
    manifest = labelled([*"aaaabbbb"] * 5, patient=[*"stuvwxyz"] * 5, alias=[*"stuvwxyz"] * 5)
    assert telling_findings(manifest, target="label", group="patient", nuisance=()) == []
