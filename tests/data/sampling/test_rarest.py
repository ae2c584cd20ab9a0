import numpy as np
import pytest

from cinefeed.core.errors import LabelError
from cinefeed.data.sampling import BalancedClasses
from cinefeed.data.sampling.multilabel import count_labels, parse_label_sets, rarest_strata

TEXT = ["edema"] * 50 + ["edema;effusion"] * 8 + ["effusion ; hernia"] * 2 + [""] * 40
LISTS = [[part.strip() for part in text.split(";")] if text else [] for text in TEXT]


@pytest.mark.parametrize(
    ("sampler", "labels"),
    [
        (BalancedClasses(separator=";"), TEXT),
        (BalancedClasses(separator=";"), np.array(TEXT, object)),
        (BalancedClasses(), LISTS),
        (BalancedClasses(), [set(each) for each in LISTS]),
        (BalancedClasses(), np.array([np.array(each, object) for each in LISTS], object)),
    ],
    ids=["text", "text of objects", "lists", "sets", "arrays"],
)
def test_rows_of_several_labels_are_balanced_by_the_rarest(sampler, labels):
    strata = sampler.strata(labels)
    assert strata.names == ("edema", "effusion", "hernia", "none")
    assert strata.counts.tolist() == [50, 8, 2, 40]
    assert np.bincount(sampler.plan(labels).strata).tolist() == [25, 25, 25, 25]


def test_what_is_reached_is_reported_label_by_label():
    report = BalancedClasses(separator=";").report(TEXT)
    assert report.labels["hernia"] == (2, 25)
    rows, draws = report.labels["effusion"]
    assert rows == 10 and draws == 50  # a hernia brings an effusion with it
    assert report.deviation["label"] < 2
    assert BalancedClasses().report(["a", "b"]).labels == {}


def test_shares_name_labels():
    sampler = BalancedClasses(separator=";", proportion={"edema": 0.4, "effusion": 0.4, "hernia": 0.1, "none": 0.1})
    assert np.bincount(sampler.plan(TEXT).strata).tolist() == [40, 40, 10, 10]


def test_ties_are_settled_by_name_and_numbers_are_named():
    strata = rarest_strata(parse_label_sets([[2.0, 1.0], [1, 2], [None, 3]]))
    assert [strata.names[number] for number in strata.numbers] == ["1", "1", "3"]
    assert count_labels([frozenset("ab"), frozenset("a")], np.array([2.0, 0.5])) == {"a": 2.5, "b": 2.0}


def test_labels_that_are_not_several():
    assert parse_label_sets(["a", "b"]) is None and parse_label_sets(np.array([1.0, 2.0])) is None
    assert parse_label_sets([]) is None
    with pytest.raises(LabelError, match="separator=';' needs text labels"):
        BalancedClasses(separator=";").plan([1.0, 2.0])
    with pytest.raises(LabelError, match=r"no label \(rows 1\)"):
        BalancedClasses(separator=";").plan(np.array(["a;b", None], object))
    with pytest.raises(LabelError, match="all 2 labels are 'a'"):
        BalancedClasses().plan([["a"], ["a", "b"]][:1] * 2)
