import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cinefeed.data.sampling.measure import effective_rows, ks_distance, ks_to_uniform, total_variation

COUNTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=20).filter(
    lambda rows: sum(row[1] for row in rows) and sum(row[2] for row in rows)
)


@given(COUNTS)
def test_ks_is_scipys(rows):
    values, first, second = map(np.array, zip(*rows, strict=True))
    with np.errstate(all="ignore"):  # its p-value divides by the number of labels
        theirs = stats.ks_2samp(np.repeat(values, first), np.repeat(values, second), method="asymp").statistic
    assert ks_distance(values, first=first, second=second) == pytest.approx(theirs)


@given(COUNTS)
def test_ks_to_uniform_is_scipys(rows):
    values, weights, _ = map(np.array, zip(*rows, strict=True))
    theirs = stats.kstest(np.repeat(values, weights), stats.uniform(-1, 9).cdf, method="asymp").statistic
    assert ks_to_uniform(values, weights=weights, low=-1, high=8) == pytest.approx(theirs)


def test_known_distances():
    assert total_variation([1, 0, 0], [0, 1, 1]) == 1 and total_variation([3, 1], [3, 1]) == 0
    assert ks_distance([1, 2], first=[1, 0], second=[0, 1]) == 1
    assert effective_rows([5] * 10 + [50 / 90] * 90) == pytest.approx(100**2 / (250 + 90 * (50 / 90) ** 2))
