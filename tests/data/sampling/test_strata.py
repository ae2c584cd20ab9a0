import numpy as np
import pytest

from cinefeed.core.errors import LabelError, SettingError
from cinefeed.data.sampling.strata import bin_strata, check_bins, class_strata


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["b", "a"], ("a", "b")),
        (np.array(["b", "a"], object), ("a", "b")),
        ([True, False], ("False", "True")),
        ([1.0, 0.0], ("0", "1")),
        (np.array([3, 1], np.uint8), ("1", "3")),
    ],
)
def test_classes_of_any_kind(labels, names):
    strata = class_strata(labels)
    assert strata.names == names
    assert strata.numbers.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "no labels"),
        ([1.0, np.nan], "1 of 2 rows has a NaN label"),
        ([1.0, -np.inf], "infinite"),
        (np.array(["a", None], object), r"no label \(rows 1\)"),
        ([[1, 2]], "shape"),
        (np.array(["2020-01-01"], "datetime64[D]"), "datetime64"),
    ],
)
def test_labels_that_are_none(labels, message):
    for strata in (class_strata, bin_strata):
        with pytest.raises(LabelError, match=message):
            strata(labels)


def test_whole_labels_have_a_bin_each_and_others_equal_bins():
    assert bin_strata([60.0, 35.0, 60.0]).names == ("35", "60")
    smooth = bin_strata(np.linspace(0, 1, 1000) ** 2)
    assert len(smooth.names) == 20  # the Rice rule: 2 x 1000 ** (1/3)
    assert smooth.numbers.max() == 19


def test_bins_hold_their_left_edge_and_the_last_both():
    assert bin_strata([0.0, 1.0, 2.0], bins=2).numbers.tolist() == [0, 1, 1]
    assert bin_strata([0.0, 1.0, 2.0], bins=(0.0, 1.0, 2.0)).numbers.tolist() == [0, 1, 1]


def test_empty_bins_are_not_numbered():
    strata = bin_strata([0.0, 0.1, 100.5], bins=10)
    assert strata.counts.tolist() == [2, 1]
    assert strata.names == ("[0, 10.05)", "[90.45, 100.5]")


@pytest.mark.parametrize("labels", [[0.5], [0.5] * 9, [-1.7e308, 1.7e308, 0.5], [0.0, 5e-324, 0.5], [1e-300, 0.25]])
def test_extreme_labels(labels):
    strata = bin_strata(labels)
    assert strata.counts.sum() == len(labels)
    assert (strata.counts > 0).all()


@pytest.mark.parametrize(
    ("labels", "bins", "message"),
    [
        (["a"], "auto", "text"),
        ([True], "auto", "booleans"),
        ([0.5], "integer", "found 0.5"),
        ([1.0, 9.5], (0, 5), "0 to 5; the labels range from 1 to 9.5"),
    ],
)
def test_labels_that_do_not_fit_their_bins(labels, bins, message):
    with pytest.raises(LabelError, match=message):
        bin_strata(labels, bins=bins)


@pytest.mark.parametrize("bins", ["autos", 0, True, [1], [2, 1], [0, np.nan], 2.5])
def test_bins_that_are_none(bins):
    with pytest.raises(SettingError, match="bins="):
        check_bins(bins)
