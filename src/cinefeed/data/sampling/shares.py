"""Expected draws of rows from the draws of their strata, with a limit per row, and smoothed label densities."""

import math

import numpy as np
from numpy.typing import NDArray

from cinefeed.data.sampling.strata import Strata

Floats = NDArray[np.float64]


def fill(weights: Floats, *, limits: Floats, total: float) -> Floats:
    """Return `total` distributed in proportion to `weights` (n,), without exceeding `limits` (n,), float64 (n,).

    Water-filling: each value is the smaller of `level * weight` and its limit, for the level that gives `total`. The
    limits of positive weights must sum to at least `total`.

    >>> fill(np.array([9.0, 2.0, 1.0]), limits=np.array([3.0, 9.0, 9.0]), total=12).tolist()
    [3.0, 6.0, 3.0]
    """
    positive = np.flatnonzero(weights > 0)
    order = positive[np.argsort(limits[positive] / weights[positive], kind="stable")]
    sorted_limits, sorted_weights = limits[order], weights[order]
    # the level if all values before each one are at their limit
    levels = (total - (np.cumsum(sorted_limits) - sorted_limits)) / np.cumsum(sorted_weights[::-1])[::-1]
    below = levels * sorted_weights <= sorted_limits
    cut = int(below.argmax()) if below.any() else len(order)
    values = np.zeros_like(weights)
    values[order[:cut]] = sorted_limits[:cut]
    if cut < len(order):
        values[order[cut:]] = np.minimum(levels[cut] * sorted_weights[cut:], sorted_limits[cut:])
        last = order[-1]  # the value furthest from its limit absorbs the rounding error, so that the sum is exact
        values[last] = min(values[last] + total - math.fsum(values), limits[last])
    return values


def distribute_draws(
    draws: Floats, *, strata: Strata, groups: NDArray[np.int64] | None, limit: float | None = None
) -> Floats:
    """Return the expected draws of each row, float64 (rows,).

    Args:
        draws: Expected draws of each stratum, (strata,).
        strata: The strata of the rows.
        groups: Group number of each row, (rows,). The groups of a stratum get equal draws, as do the rows of a group.
            Without groups, the rows of a stratum get equal draws.
        limit: Maximum expected draws of a row. Each stratum must have enough rows for its draws.

    >>> strata = Strata(np.zeros(3, np.int64), ("all",))
    >>> distribute_draws(np.array([4.0]), strata=strata, groups=np.array([0, 0, 1])).tolist()
    [1.0, 1.0, 2.0]
    """
    if groups is None:
        return np.asarray((draws / strata.counts)[strata.numbers])
    cells = strata.numbers * (int(groups.max()) + 1) + groups
    _, first, cells, rows = np.unique(cells, return_index=True, return_inverse=True, return_counts=True)
    group_counts = np.bincount(strata.numbers[first], minlength=len(draws))  # groups in each stratum
    expected = np.asarray((draws / group_counts)[strata.numbers] / rows[cells])
    if limit is not None and expected.max() > limit:
        order = np.argsort(strata.numbers, kind="stable")
        ends = np.cumsum(strata.counts)
        for number in np.unique(strata.numbers[expected > limit]).tolist():
            members = order[ends[number] - strata.counts[number] : ends[number]]
            limits = np.full(len(members), float(limit))
            expected[members] = fill(expected[members], limits=limits, total=float(draws[number]))
    return expected


def smoothed_counts(strata: Strata, *, bins: float) -> Floats:
    """Return the row counts of each bin, smoothed with a Gaussian (peak 1) of standard deviation `bins`, (strata,).

    This is the effective density of label distribution smoothing (Yang et al., "Delving into deep imbalanced
    regression", ICML 2021): a model also learns from neighbouring labels, so a bin next to full bins is less rare than
    its count suggests. The distance of integer labels is the difference of their values; empty bins count as bins.

    >>> strata = Strata(np.array([0, 1, 1, 2]), ("1", "2", "9"), places=np.array([1.0, 2.0, 9.0]))
    >>> smoothed_counts(strata, bins=1).round(2).tolist()
    [2.21, 2.61, 1.0]
    """
    counts, places = strata.counts, strata.places
    assert places is not None, "classes have no bin numbers"
    density = counts.astype(np.float64)
    for step in range(1, min(math.ceil(4 * bins), int(min(places[-1] - places[0], 1e9))) + 1):
        # a multiple of 2**-30, so that sums are exact and the plan is the same on every machine
        weight = math.ldexp(round(math.ldexp(math.exp(-0.5 * (step / bins) ** 2), 30)), -30)
        upper = np.minimum(np.searchsorted(places, places + step), len(places) - 1)
        lower = np.flatnonzero((places[upper] == places + step) & (places[upper] > places))
        density[lower] += weight * counts[upper[lower]]
        density[upper[lower]] += weight * counts[lower]
    return density
