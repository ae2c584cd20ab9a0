import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter1d

from cinefeed.data.sampling.samplers import UniformLabels
from cinefeed.data.sampling.shares import distribute_draws, fill, smoothed_counts
from cinefeed.data.sampling.strata import Strata, bin_strata


@given(
    st.lists(st.tuples(st.floats(0, 1e4), st.floats(0.1, 1e3)), min_size=1, max_size=30).filter(
        lambda pairs: any(wish > 1e-3 for wish, _ in pairs)
    ),
    st.floats(0.01, 1.0),
)
@settings(max_examples=300, deadline=None)
def test_filling_reaches_the_total_and_no_one_s_limit_is_passed(pairs, share):
    wish, most = map(np.array, zip(*pairs, strict=True))
    wish[wish < 1e-3] = 0
    total = share * most[wish > 0].sum()
    filled = fill(wish, limits=most, total=total)
    assert math.isclose(math.fsum(filled), total, rel_tol=1e-9)
    assert (filled <= most).all() and (filled[wish == 0] == 0).all()
    free = (wish > 0) & (filled < most * (1 - 1e-9))
    assert (
        np.ptp(filled[free] / wish[free]) < 1e-6 * max(1.0, (filled[free] / wish[free]).max()) if free.any() else True
    )


def test_filling_what_needs_no_limit_changes_no_proportion():
    assert fill(np.array([3.0, 1.0, 0.0]), limits=np.full(3, 9.0), total=8.0).tolist() == [6.0, 2.0, 0.0]
    assert fill(np.array([3.0, 1.0]), limits=np.array([2.0, 2.0]), total=4.0).tolist() == [2.0, 2.0]


def test_groups_are_alike_in_each_stratum_up_to_a_limit():
    strata = Strata(np.array([0, 0, 0, 0, 1, 1]), ("a", "b"))
    groups = np.array([0, 0, 0, 1, 1, 2])
    draws = np.array([6.0, 2.0])
    assert distribute_draws(draws, strata=strata, groups=groups).tolist() == [1.0, 1.0, 1.0, 3.0, 1.0, 1.0]
    limited = distribute_draws(draws, strata=strata, groups=groups, limit=2.0)
    assert limited == pytest.approx([4 / 3, 4 / 3, 4 / 3, 2, 1, 1])


def test_smoothing_is_a_gaussian_over_all_bins():
    labels = np.random.default_rng(0).beta(5, 2, 500)
    strata = bin_strata(labels, bins=30)
    dense = np.zeros(30)
    dense[strata.places.astype(int)] = strata.counts
    for width in (0.5, 2.0, 5.0):
        peak = gaussian_filter1d(np.eye(201)[100], width, mode="constant")[100]
        expected = gaussian_filter1d(dense, width, mode="constant")[strata.places.astype(int)] / peak
        smoothed = smoothed_counts(strata, bins=width)
        assert np.abs(smoothed / expected - 1).max() < 2e-3  # the tails beyond four widths


def test_smoothing_whole_labels_goes_by_their_values():
    strata = bin_strata([1, 2, 2, 5, 1000])
    alone = smoothed_counts(strata, bins=1.0)
    assert alone[-1] == 1 and alone[0] == pytest.approx(1 + 2 * np.exp(-0.5) + np.exp(-8), abs=1e-8)
    huge = bin_strata([2**60, 2**60 + 512, 0])
    assert smoothed_counts(huge, bins=2.0).tolist() == [1, 1, 1]


def test_smoothed_shares_are_inverse_to_the_smoothed_counts():
    labels = np.random.default_rng(1).beta(5, 2, 400)
    sampler = UniformLabels(bins=15, smoothing=2.0)
    strata = sampler.strata(labels)
    expected = sampler.expected_draws(labels)
    assert np.ptp(expected * smoothed_counts(strata, bins=2.0)[strata.numbers]) < 1e-9
