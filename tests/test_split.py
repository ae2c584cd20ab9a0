from collections import Counter
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinefeed.core.errors import SplitError
from cinefeed.data.split import assign_folds, assign_parts, check_groups, encode
from cinefeed.data.split_summary import measure_balance

FRACTIONS = {"train": 0.7, "val": 0.15, "test": 0.15}


def split(groups, labels=None, *, fractions=FRACTIONS, seed=7, previous_parts=None):
    return assign_parts(
        groups=groups,
        labels=labels,
        fractions=fractions,
        seed=seed,
        previous_parts=previous_parts,
        group_name="patient",
        label_name="label",
    )


def leaks(groups, parts):
    """Return the groups that come in two parts."""
    places = {}
    for group, part in zip(groups, parts, strict=True):
        places.setdefault(group, set()).add(int(part))
    return [group for group, where in places.items() if len(where) > 1]


def test_a_leak_is_found():
    assert leaks(["a", "b", "a"], [0, 1, 1]) == ["a"]


def uneven(count, seed):
    """Return groups of one to twelve rows."""
    rng = np.random.default_rng(seed)
    return np.repeat([f"g{i:04d}" for i in range(count)], rng.integers(1, 13, count))


@pytest.mark.parametrize("seed", range(5))
def test_no_group_leaks_and_shares_are_met(seed):
    groups = uneven(200, seed)
    parts = split(groups, seed=seed)
    assert leaks(groups, parts) == []
    shares = np.bincount(parts) / len(parts)
    np.testing.assert_allclose(shares, list(FRACTIONS.values()), atol=0.01)


@pytest.mark.parametrize("seed", range(5))
def test_every_part_has_its_share_of_each_class(seed):
    groups = uneven(300, seed)
    rng = np.random.default_rng(seed)
    label_of = {group: str(rng.choice(["a", "b", "c"], p=[0.7, 0.25, 0.05])) for group in np.unique(groups)}
    labels = np.array([label_of[group] for group in groups])
    parts = split(groups, labels, seed=seed)
    assert leaks(groups, parts) == []
    for number, share in enumerate(FRACTIONS.values()):
        for name in "abc":
            there, total = (labels[parts == number] == name).sum(), (labels == name).sum()
            assert abs(there - share * total) <= 12, (number, name)  # one group


@pytest.mark.parametrize("seed", range(5))
def test_every_part_has_its_share_of_each_quantile(seed):
    groups = uneven(300, seed)
    rng = np.random.default_rng(seed)
    ages = dict(zip(np.unique(groups), rng.lognormal(3, 0.6, 300), strict=True))
    values = np.array([ages[group] for group in groups])
    parts = split(groups, values, seed=seed)
    quartiles = np.quantile(values, [0.25, 0.5, 0.75])
    for number in range(3):
        counts = np.bincount(np.searchsorted(quartiles, values[parts == number]), minlength=4)
        np.testing.assert_allclose(
            counts / counts.sum(), 0.25, atol=0.08
        )  # a group is up to 0.04 of a part, a bin has two edges


def test_seeds_give_different_splits_even_of_unequal_groups():
    groups = np.repeat([f"g{i:02d}" for i in range(40)], np.arange(1, 41))
    assert len({tuple(split(groups, seed=seed)) for seed in range(10)}) == 10


def test_the_same_split_on_every_machine():
    """The numbers were written down once: a change of them would move patients between parts of existing studies."""
    groups = [f"p{i % 12}" for i in range(30)]
    labels = ["ab"[i % 12 % 2] for i in range(30)]
    assert "".join(map(str, split(groups, labels))) == "021000002100021000002100021000"
    assert "".join(map(str, split(groups, np.arange(30) / 7))) == "010020002100010020002100010020"
    assert "".join(map(str, assign_folds(groups=groups, folds=4, seed=7))) == "220113321300220113321300220113"


@given(order=st.permutations(range(24)), seed=st.integers(0, 2**64 - 1))
@settings(max_examples=25, deadline=None)
def test_the_order_of_rows_does_not_matter(order, seed):
    groups = np.array([f"p{i % 9}" for i in range(24)])
    values = np.array([0.1 * i**1.5 for i in range(24)])
    parts = split(groups, values, seed=seed)
    np.testing.assert_array_equal(split(groups[order], values[order], seed=seed), parts[order])


def test_fractions_are_the_decimals_that_were_written():
    parts = split(np.arange(1000), fractions={"train": 0.7, "val": 0.1, "test": 0.2})
    assert np.bincount(parts).tolist() == [700, 100, 200]
    thirds = dict.fromkeys(("a", "b", "c"), Fraction(1, 3))
    assert np.bincount(split(np.arange(9), fractions=thirds)).tolist() == [3, 3, 3]


def test_small_sets_leave_no_part_empty():
    for seed in range(20):
        assert sorted(Counter(split(["a", "b", "c"], seed=seed).tolist()).values()) == [1, 1, 1]
        few = split(np.arange(5), fractions={"train": 0.9, "val": 0.05, "test": 0.05}, seed=seed)
        assert sorted(np.bincount(few).tolist()) == [1, 1, 3]
        labels = np.array(["rare"] * 3 + ["common"] * 40)
        parts = split(np.arange(43), labels, fractions={"train": 0.9, "val": 0.05, "test": 0.05}, seed=seed)
        assert sorted(parts[:3].tolist()) == [0, 1, 2]


def test_a_group_counts_for_its_most_frequent_class():
    groups = np.repeat(np.arange(30), 3)
    labels = np.array(["a", "a", "b"] * 15 + ["b", "b", "a"] * 15)
    parts = split(groups, labels, fractions={"train": 0.6, "val": 0.2, "test": 0.2})
    assert np.bincount(parts[:45]).tolist() == np.bincount(parts[45:]).tolist() == [27, 9, 9]


def test_a_class_that_is_nowhere_the_most_frequent_comes_in_every_part():
    groups = np.repeat(np.arange(30), 3)
    labels = np.array(["a", "a", "a"] * 15 + ["b", "b", "b"] * 12 + ["b", "b", "c"] * 3)
    for seed in range(10):
        parts = split(groups, labels, seed=seed)
        assert set(parts[labels == "c"].tolist()) == {0, 1, 2}


@pytest.mark.parametrize("labels", [None, "labels"])
def test_keep_deals_only_new_groups(labels):
    groups = uneven(100, 3)
    if labels:
        labels = np.array(["ab"[hash_ % 2] for hash_ in encode(groups).codes])
    old = groups < "g0060"
    names = np.array(list(FRACTIONS))
    before = names[split(groups[old], None if labels is None else labels[old])]
    previous_parts = np.full(len(groups), None, object)
    previous_parts[old] = before
    parts = split(groups, labels, previous_parts=previous_parts.tolist(), seed=99)
    assert (names[parts][old] == before).all()
    assert leaks(groups, parts) == []
    np.testing.assert_allclose(np.bincount(parts) / len(parts), list(FRACTIONS.values()), atol=0.02)


def test_keep_gives_new_rows_of_an_old_group_its_part():
    parts = split(["a", "b", "c", "c"], previous_parts=[None, "train", "test", None])
    assert parts.tolist() == [1, 0, 2, 2]


def test_keep_refuses_a_split_that_leaks_or_is_none():
    with pytest.raises(SplitError, match=r"1 of 2 values of 'patient' are in more than one part \(first: a\)"):
        split(["a", "a", "b", "c"], previous_parts=["train", "test", "val", None])
    with pytest.raises(SplitError, match="unknown part 'dev'"):
        split(["a", "b", "c"], previous_parts=["train", "dev", None])


@pytest.mark.parametrize("bad", [-0.1, 1.0, float("nan"), True, "0.7"])
def test_fractions_out_of_range(bad):
    with pytest.raises(SplitError, match=r"val=.* must be a fraction"):
        split(["a", "b", "c"], fractions={"train": 0.9, "val": bad})


def test_fractions_must_add_up():
    with pytest.raises(SplitError, match="sum to 1"):
        split(["a", "b"], fractions={"train": 0.5, "val": 0.4})


@pytest.mark.parametrize(
    ("groups", "labels", "message"),
    [
        ([], None, "no rows"),
        (["a"], None, "3 parts need at least 3 groups; there is 1 value of 'patient'"),
        (["a", "a", "b", "b"], None, "3 parts need at least 3 groups; there are 2 values of 'patient'"),
        (["a", "b", "c", None], None, "1 of 4 rows has no 'patient'"),
        (["a", "b", "c"], ["x", None, "y"], "1 of 3 rows has no 'label'"),
        (["a", "b", "c"], [1.0, float("nan"), 2.0], "1 of 3 rows has no 'label'"),
        (["a", "b", "c"], ["x", "x", "x"], "one class only, 'x'"),
        (["a", "b", "c"], [2.5, 2.5, 2.5], "is 2.5 for every 'patient'"),
        (list("abcdef"), list("xxxxxy"), "class 'y' of 'label' has 1 'patient', but 3 parts need one each"),
        (list("abcdee"), list("xxxxyy"), "class 'y' of 'label' has 1 'patient'"),
        (list("abcdef"), [True, True, True, True, True, False], "class 'False' of 'label' has 1 'patient'"),
    ],
)
def test_what_cannot_be_split_is_refused(groups, labels, message):
    with pytest.raises(SplitError, match=message):
        split(groups, labels)


def test_folds_hold_every_row_once():
    groups = uneven(60, 1)
    labels = np.array(["ab"[code % 2] for code in encode(groups).codes])
    folds = assign_folds(groups=groups, labels=labels, folds=5, seed=7)
    assert leaks(groups, folds) == []
    np.testing.assert_allclose(np.bincount(folds) / len(folds), 0.2, atol=0.02)
    for name in "ab":
        np.testing.assert_allclose(np.bincount(folds[labels == name]) / (labels == name).sum(), 0.2, atol=0.05)


@pytest.mark.parametrize("folds", [1, 0, True, 2.0])
def test_a_number_of_folds_that_is_none(folds):
    with pytest.raises(SplitError, match="must be a whole number of at least 2"):
        assign_folds(groups=["a", "b"], folds=folds, seed=7)


def test_more_folds_than_groups():
    with pytest.raises(
        SplitError, match="3 folds need at least 3 groups; there are 2 values of 'patient'; use at most 2"
    ):
        assign_folds(groups=["a", "b", "a"], folds=3, seed=7, group_name="patient")
    with pytest.raises(SplitError, match="class 'y' of 'label' has 2 'group', but 3 parts"):
        assign_folds(groups=list("abcdef"), labels=list("xxxxyy"), folds=3, seed=7)


def test_encode():
    encoded = encode(pa.chunked_array([["b", None], ["a"]]))
    assert (encoded.codes.tolist(), encoded.values) == ([1, -1, 0], ["a", "b"])
    assert encode([True, False]).values == [False, True]
    assert encode([2.5, float("nan")]).codes.tolist() == [0, -1]


def test_check_groups():
    check_groups(groups=["a", "b", "a"], parts=["train", "test", "train"])
    with pytest.raises(SplitError, match=r"1 of 2 .*\(first: a\)"):
        check_groups(groups=["a", "b", "a"], parts=["train", "test", "test"])


def test_balance_as_dict_and_text():
    balance = measure_balance(
        parts=np.array([0, 0, 0, 2]),
        names=("train", "val", "test"),
        groups=["p", "p", "q", "r"],
        labels=[1.0, 2.0, 3.0, None],
        group_name="patient",
        label_name="age",
    )
    assert balance.as_dict() == {
        "train": {"rows": 3, "groups": 2, "mean": 2.0, "quartiles": [1.0, 1.5, 2.0, 2.5, 3.0]},
        "test": {"rows": 1, "groups": 1, "mean": None, "quartiles": None},
    }
    assert str(balance).splitlines() == [
        "part   rows   share  patient  age mean  min  25 %  median  75 %  max",
        "train     3  75.0 %        2         2    1   1.5       2   2.5    3",
        "test      1  25.0 %        1       nan  nan   nan     nan   nan  nan",
    ]


def test_many_classes_are_a_table_with_a_line_per_class():
    labels = [f"c{number // 2}" for number in range(80)] + ["rare"]
    balance = measure_balance(
        parts=np.arange(81) % 2, names=("train", "val"), labels=labels, label_name="word", kind="classes"
    )
    lines = str(balance).splitlines()
    assert lines[:5] == [
        "part   rows   share",
        "train    41  50.6 %",
        "val      40  49.4 %",
        "",
        "word    train      val",
    ]
    assert lines[5] == "c0    1 (2 %)  1 (2 %)" and len(lines) == 5 + 30 + 1
    assert lines[-1] == "and 11 more, with 1 to 2 rows each"
    assert max(map(len, lines)) < 40
