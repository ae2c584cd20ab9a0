from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cinefeed.core.errors import CinefeedError, LabelError, SettingError
from cinefeed.data.sampling import Plan, draw


def rounding_faults(counts: NDArray[Any], expected: NDArray[Any]) -> NDArray[Any]:
    """Return where a count is neither floor nor ceiling of what was expected (to a billionth)."""
    return np.flatnonzero((counts < np.floor(expected + 1e-9)) | (counts > np.ceil(expected - 1e-9)))


def batch_faults(plan: Plan, expected: NDArray[Any], batch_size: int) -> int:
    """Return how many counts of a stratum in a full batch are neither floor nor ceiling of its share of it."""
    full = len(plan) // batch_size
    batches = plan.strata[: full * batch_size].reshape(full, batch_size)
    share = expected * batch_size / len(plan)
    return sum(len(rounding_faults(np.bincount(b, minlength=len(share)), share)) for b in batches)


def check_plan(plan: Plan, expected: NDArray[Any], strata: NDArray[Any], batch_size: int | None = None) -> None:
    assert {plan.rows.dtype, plan.occurrence.dtype, plan.strata.dtype} == {np.dtype(np.int64)}
    assert len(plan) == len(plan.occurrence) == len(plan.strata) == round(expected.sum())
    counts = np.bincount(plan.rows, minlength=len(expected))
    assert rounding_faults(counts, expected).size == 0
    assert np.array_equal(plan.strata, strata[plan.rows])
    totals = np.bincount(strata, expected)
    assert rounding_faults(np.bincount(plan.strata, minlength=len(totals)), totals).size == 0
    order = np.argsort(plan.rows, kind="stable")
    first = np.repeat(np.cumsum(counts) - counts, counts)
    assert np.array_equal(plan.occurrence[order], np.arange(len(plan)) - first)
    if batch_size is not None:
        assert batch_faults(plan, totals, batch_size) == 0


@st.composite
def draws(draw_from: st.DrawFn) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Expected draws of some rows, whole in sum, alike or not within a stratum, and their strata."""
    rows = draw_from(st.integers(1, 40))
    _, strata = np.unique(draw_from(st.lists(st.integers(0, 8), min_size=rows, max_size=rows)), return_inverse=True)
    weights = np.array(draw_from(st.lists(st.integers(0, 50), min_size=rows, max_size=rows)), float)
    if draw_from(st.booleans()):
        weights = np.bincount(strata)[strata] / 7.0
    weights[0] += 1
    length = draw_from(st.integers(1, 120))
    return weights * (length / weights.sum()), strata.astype(np.int64)


@given(draws(), st.integers(0, 5), st.integers(0, 50))
@settings(max_examples=200, deadline=None)
def test_rows_strata_and_total_are_exact(case, seed, epoch):
    expected, strata = case
    check_plan(draw(expected, strata=strata, seed=seed, epoch=epoch), expected, strata)


@given(draws(), st.integers(1, 40), st.integers(0, 50))
@settings(max_examples=400, deadline=None)
def test_every_full_batch_has_the_shares_of_the_epoch(case, batch_size, epoch):
    expected, strata = case
    check_plan(draw(expected, strata=strata, epoch=epoch, batch_size=batch_size), expected, strata, batch_size)


@given(draws())
@settings(max_examples=25, deadline=None)
def test_rows_get_their_expected_draws_over_the_epochs(case):
    expected, strata = case
    epochs = 200
    counts = sum(
        np.bincount(draw(expected, strata=strata, epoch=e).rows, minlength=len(expected)) for e in range(epochs)
    )
    assert np.abs(counts / epochs - expected).max() < 5 / epochs  # at random it would be 0.035, often


def test_a_short_epoch_whose_first_rounding_no_batch_can_hold():
    # Two strata rounded up to 3 where a batch of 5 holds at most 2 of each, and a tail of one: found by search
    totals = np.array([2.28, 0.24, 0.24, 0.24, 2.28, 0.24, 0.24, 0.24])
    for epoch in range(300):
        check_plan(draw(totals, strata=np.arange(8), epoch=epoch, batch_size=5), totals, np.arange(8), 5)


def block_faults(plan: Plan, expected: NDArray[Any], size: int, draws: int) -> int:
    """Return how many counts of a stratum in the whole blocks of the first draws are neither floor nor ceiling."""
    head = Plan(rows=plan.rows[:draws], occurrence=plan.occurrence[:draws], strata=plan.strata[:draws])
    return batch_faults(head, expected * draws / len(plan), size)


@pytest.mark.parametrize("batch_size", [3, 16, 18])
@pytest.mark.parametrize("seed", range(4))
def test_global_batches_of_1_2_4_and_8_ranks_have_the_same_shares(batch_size, seed):
    shares = np.random.default_rng(seed).integers(1, 50, 2 + seed).astype(float)
    for draws_asked in (40 * batch_size, 43 * batch_size + 2, 800):
        expected = shares * (draws_asked / shares.sum())
        whole = draws_asked // (8 * batch_size) * 8 * batch_size
        for epoch in range(6):
            plan = draw(expected, strata=np.arange(len(shares)), seed=seed, epoch=epoch, batch_size=batch_size)
            for ranks in (1, 2, 4, 8):
                assert block_faults(plan, expected, ranks * batch_size, whole) == 0
            for ranks in (2, 4):  # the last batches, less than eight
                size = ranks * batch_size
                blocks = plan.strata[: draws_asked // size * size].reshape(-1, size)
                counts = np.stack([np.bincount(each, minlength=len(shares)) for each in blocks])
                assert np.abs(counts - expected * size / draws_asked).max() < 2


def test_the_block_check_sees_pairs_that_are_off():
    strata = np.array([0, 0, 1, 0, 0, 1, 0, 1, 1, 0, 1, 1])  # threes of 2+1 and 1+2 are right alone, the pairs are not
    plan = Plan(rows=strata, occurrence=strata, strata=strata)
    assert block_faults(plan, np.array([6.0, 6.0]), 3, 12) == 0
    assert block_faults(plan, np.array([6.0, 6.0]), 6, 12) == 4


def test_groups_stand_together_and_come_as_often_as_expected():
    expected, groups = np.array([0.3, 0.7, 0.3, 0.7]), np.array([0, 1, 0, 1])
    for epoch in range(50):
        plan = draw(expected, strata=np.zeros(4, np.int64), groups=groups, epoch=epoch)
        counts = np.bincount(groups[plan.rows], minlength=2)
        assert counts[0] in (0, 1) and counts[1] in (1, 2)
    with_labels = np.array([0.0, 1.0, 2.0, 3.0])  # sorted by label alone the groups alternate, and one may come twice
    half = np.full(4, 0.5)
    apart = [draw(half, strata=np.zeros(4, np.int64), values=with_labels, epoch=epoch) for epoch in range(50)]
    assert {int((groups[plan.rows] == 0).sum()) for plan in apart} == {0, 2}
    near = [
        draw(half, strata=np.zeros(4, np.int64), values=with_labels, groups=groups, epoch=epoch) for epoch in range(50)
    ]
    assert {int((groups[plan.rows] == 0).sum()) for plan in near} == {1}


def test_the_batch_check_sees_a_batch_off_by_one():
    plan = Plan(rows=np.arange(8), occurrence=np.zeros(8, int), strata=np.array([0, 0, 0, 1, 0, 1, 1, 1]))
    assert batch_faults(plan, np.array([4.0, 4.0]), 4) == 4
    assert rounding_faults(np.array([1, 3, 2]), np.array([1.0, 1.5, 1.5])).tolist() == [1]


def test_leftovers_rotate():
    expected, strata = np.full(10, 0.3), np.zeros(10, np.int64)
    missing = [set(range(10))]
    for epoch in range(6):
        missing.append(missing[-1] - set(draw(expected, strata=strata, epoch=epoch).rows.tolist()))
    assert not missing[-1], "a row of three draws in ten epochs must come within six"


def test_no_repeat_before_its_equals_had_their_turn():
    for batch_size in (None, 8):
        plan = draw(np.full(50, 4.0), strata=np.zeros(50, np.int64), batch_size=batch_size)
        assert np.array_equal(plan.occurrence, np.repeat(range(4), 50))


def test_repeats_are_far_apart_and_the_order_changes():
    plan = draw(np.full(200, 5.0), strata=np.zeros(200, np.int64))
    places = np.argsort(plan.rows, kind="stable").reshape(200, 5)
    assert np.diff(places, axis=1).min() > 70  # of 200 between equals; at random 1
    assert not np.array_equal(plan.rows[:200], plan.rows[200:400])


def test_repeats_of_a_row_drawn_more_often_than_its_equals_spread_over_the_epoch():
    expected = np.array([10.0] + [1.0] * 90)
    plan = draw(expected, strata=np.zeros(91, np.int64))
    assert np.histogram(np.flatnonzero(plan.rows == 0), bins=5, range=(0, 100))[0].min() >= 1


def test_a_plan_is_a_function_of_its_address():
    expected, strata = np.full(30, 1.5), np.repeat([0, 1, 2], 10)
    first, again = (draw(expected, strata=strata, seed=3, epoch=4, batch_size=6) for _ in range(2))
    assert np.array_equal(first.rows, again.rows) and np.array_equal(first.occurrence, again.occurrence)
    for other in (draw(expected, strata=strata, seed=4, epoch=4), draw(expected, strata=strata, seed=3, epoch=5)):
        assert not np.array_equal(first.rows, other.rows)


def test_a_known_plan_is_the_same_on_every_machine():
    plan = draw(np.array([0.5, 0.5, 1.5, 1.5, 3.0]), strata=np.array([0, 0, 1, 1, 1]), seed=7, epoch=2, batch_size=3)
    assert plan.rows.tolist() == [2, 4, 3, 1, 4, 4, 2]


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ([0.5, 0.6], "sum to 1.1"),
        ([-1.0, 2.0], "not negative"),
        ([np.nan, 1.0], "finite"),
        ([1e13, 0.0], "too large"),
    ],
)
def test_what_cannot_be_drawn(expected, message):
    with pytest.raises(LabelError, match=message):
        draw(np.array(expected), strata=np.zeros(2, np.int64))


def test_bad_addresses_and_batches():
    with pytest.raises(SettingError, match="batch_size=0"):
        draw(np.ones(2), strata=np.zeros(2, np.int64), batch_size=0)
    with pytest.raises(CinefeedError, match="epoch=-1"):
        draw(np.ones(2), strata=np.zeros(2, np.int64), epoch=-1)
