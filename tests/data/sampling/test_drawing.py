"""What the drawer must show: against chance, over epochs, over ranks, on a million rows."""

import tracemalloc

import numpy as np
import pytest
from benchmarks.drawing import compare, demo_labels

from cinefeed.data.sampling import BalancedClasses, UniformLabels
from cinefeed.data.sampling.measure import ks_to_uniform
from cinefeed.feed.shard import ShardPositions

LABELS = demo_labels(2000, seed=0)
SAMPLER = UniformLabels(bins=20)


def test_fed_labels_are_as_uniform_as_the_expected_draws_in_every_epoch():
    expected = SAMPLER.expected_draws(LABELS)
    low, high = LABELS.min(), LABELS.max()
    expected_distance = ks_to_uniform(LABELS, weights=expected, low=low, high=high)
    assert 0.005 < expected_distance < 0.03
    for epoch in range(100):
        fed = np.bincount(SAMPLER.plan(LABELS, seed=1, epoch=epoch).rows, minlength=2000)
        assert abs(ks_to_uniform(LABELS, weights=fed, low=low, high=high) - expected_distance) < 0.001


def test_drawing_by_chance_is_further_off_and_misses_more():
    def by_chance(expected, draws, epoch):
        return np.random.default_rng(epoch).choice(len(expected), draws, p=expected / expected.sum())

    exact, chance = compare(LABELS, bins=20, epochs=30, chance=by_chance)
    assert exact.ks_off.max() < 0.001 < chance.ks_off.mean()
    assert chance.ks.mean() > exact.ks.mean() and chance.ks.std() > 10 * exact.ks.std()
    assert exact.off_in_batches.max() < 1 < chance.off_in_batches.max()
    assert chance.missed_in_epoch.mean() > exact.missed_in_epoch.mean()
    assert chance.missed_in_ten.mean() > exact.missed_in_ten.mean()


@pytest.mark.parametrize(
    "sampler",
    [BalancedClasses(), BalancedClasses(proportion={"0": 0.2, "1": 0.3, "2": 0.5}), UniformLabels(length=777)],
    ids=str,
)
def test_1_2_and_4_ranks_share_the_same_global_batches(sampler):
    """A global batch of 32: the same shares, to one draw, whoever makes it; with one plan, the same draws."""
    labels = np.random.default_rng(0).choice(3, 1000, p=[0.7, 0.2, 0.1])
    expected = np.bincount(labels, sampler.expected_draws(labels))
    for world_size in (1, 2, 4):
        size = 32 // world_size
        plan = sampler.plan(labels, seed=3, epoch=2, batch_size=size)
        shares = [ShardPositions(size, rank, world_size) for rank in range(world_size)]
        whole = len(plan) // (8 * size) * 8 * size // 32
        for index in range(whole):
            strata = [plan.strata[slice(*_ends(each.positions(index, draws=len(plan))[0]))] for each in shares]
            counts = np.bincount(np.concatenate(strata), minlength=3)
            share = expected * 32 / len(plan)
            assert (counts >= np.floor(share + 1e-9)).all() and (counts <= np.ceil(share - 1e-9)).all()
            for each in strata:
                local = np.bincount(each, minlength=3)
                assert (local >= np.floor(share / world_size + 1e-9)).all()
                assert (local <= np.ceil(share / world_size - 1e-9)).all()


def _ends(positions):
    return positions.start, positions.stop


def test_ranks_of_one_batch_size_take_one_plan_between_them():
    plan = SAMPLER.plan(LABELS, batch_size=16)
    for world_size in (1, 2, 4):
        position_counts = np.zeros(len(plan), int)
        for rank in range(world_size):
            share = ShardPositions(16, rank, world_size)
            for index in range(share.count(len(plan))):
                position_counts[slice(*_ends(share.positions(index, draws=len(plan))[0]))] += 1
        assert (position_counts == 1).all()


def test_a_million_rows_in_bounded_memory():
    labels = demo_labels(1_000_000, seed=0)
    tracemalloc.start()
    try:
        plan = SAMPLER.plan(labels, batch_size=16)
        assert len(SAMPLER.expected_draws(labels)) == len(plan) == 1_000_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200e6
    fed = np.bincount(plan.strata)
    assert fed.max() - fed.min() <= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "sampler",
    [
        UniformLabels(bins=20, smoothing=2.0, max_repeats=20),
        UniformLabels(bins=200, strength=0.5, length="max_count", max_repeats=3),
        UniformLabels(bins=20, group="patient"),
        UniformLabels(by="weights"),
    ],
    ids=str,
)
def test_a_million_rows_with_every_setting(sampler):
    labels = demo_labels(1_000_000, seed=0)
    groups = np.arange(1_000_000) // 3 if sampler.group else None
    expected = sampler.expected_draws(labels, groups=groups)
    for epoch in range(2):
        plan = sampler.plan(labels, groups=groups, epoch=epoch, batch_size=32)
        draws = np.bincount(plan.rows, minlength=len(labels))
        assert (draws >= np.floor(expected + 1e-6)).all() and (draws <= np.ceil(expected - 1e-6)).all()
