"""Draws of strata -> expected draws of rows: none above a limit, groups alike; and densities that are smoothed."""

import math

import numpy as np
from numpy.typing import NDArray

from cinefeed.balance.strata import Strata

Floats = NDArray[np.float64]


def fill(wish: Floats, *, most: Floats, total: float) -> Floats:
    """Return `total` shared out in proportion to `wish` (n,), none above its `most` (n,): what is over fills the rest.

    Water-filling: one level, as high as it must be, times `wish`, cut off at `most`. The sum of `most` where `wish` is
    not 0 must be `total` or more.

    >>> fill(np.array([9.0, 2.0, 1.0]), most=np.array([3.0, 9.0, 9.0]), total=12).tolist()
    [3.0, 6.0, 3.0]
    """
    wanted = np.flatnonzero(wish > 0)
    order = wanted[np.argsort(most[wanted] / wish[wanted], kind="stable")]
    tight, asked = most[order], wish[order]
    level = (total - (np.cumsum(tight) - tight)) / np.cumsum(asked[::-1])[::-1]  # if all before each one are at `most`
    below = level * asked <= tight
    cut = int(below.argmax()) if below.any() else len(order)
    filled = np.zeros_like(wish)
    filled[order[:cut]] = tight[:cut]
    if cut < len(order):
        filled[order[cut:]] = np.minimum(level[cut] * asked[cut:], tight[cut:])
        last = order[-1]  # of all the furthest from its limit; what rounding left over would break a whole sum
        filled[last] = min(filled[last] + total - math.fsum(filled), most[last])
    return filled


def spread(draws: Floats, *, strata: Strata, groups: NDArray[np.int64] | None, most: float | None = None) -> Floats:
    """Return the expected draws of each row, float64 (rows,), from those of its stratum, `draws` (strata,).

    The rows of a stratum are alike; with `groups` (rows,), numbers, its groups are, and the rows of each. None gets
    above `most`, for which the strata must leave room.

    >>> strata = Strata(np.zeros(3, np.int64), ("all",))
    >>> spread(np.array([4.0]), strata=strata, groups=np.array([0, 0, 1])).tolist()
    [1.0, 1.0, 2.0]
    """
    if groups is None:
        return np.asarray((draws / strata.counts)[strata.numbers])
    cells = strata.numbers * (int(groups.max()) + 1) + groups
    _, first, cells, rows = np.unique(cells, return_index=True, return_inverse=True, return_counts=True)
    alike = np.bincount(strata.numbers[first], minlength=len(draws))  # groups in each stratum
    expected = np.asarray((draws / alike)[strata.numbers] / rows[cells])
    if most is not None and expected.max() > most:
        order = np.argsort(strata.numbers, kind="stable")
        ends = np.cumsum(strata.counts)
        for number in np.unique(strata.numbers[expected > most]).tolist():
            here = order[ends[number] - strata.counts[number] : ends[number]]
            expected[here] = fill(expected[here], most=np.full(len(here), float(most)), total=float(draws[number]))
    return expected


def smoothed_counts(strata: Strata, *, bins: float) -> Floats:
    """Return the rows around each bin, float64 (strata,): counts under a Gaussian of `bins` bins, its peak 1.

    The effective density of label distribution smoothing (Yang et al., "Delving into deep imbalanced regression", ICML
    2021): neighbours on a continuous scale teach each other, so a bin beside full ones is not as rare as it looks.
    Whole labels are apart as far as their values are; empty bins count as bins.

    >>> strata = Strata(np.array([0, 1, 1, 2]), ("1", "2", "9"), places=np.array([1.0, 2.0, 9.0]))
    >>> smoothed_counts(strata, bins=1).round(2).tolist()
    [2.21, 2.61, 1.0]
    """
    counts, places = strata.counts, strata.places
    assert places is not None, "classes have no places"
    density = counts.astype(np.float64)
    for step in range(1, min(math.ceil(4 * bins), int(min(places[-1] - places[0], 1e9))) + 1):
        # A multiple of 2**-30, so that the sums are exact and the plan the same on every machine
        weight = math.ldexp(round(math.ldexp(math.exp(-0.5 * (step / bins) ** 2), 30)), -30)
        there = np.minimum(np.searchsorted(places, places + step), len(places) - 1)
        here = np.flatnonzero((places[there] == places + step) & (places[there] > places))
        density[here] += weight * counts[there[here]]
        density[there[here]] += weight * counts[here]
    return density
