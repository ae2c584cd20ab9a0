"""The exact plan of an epoch from expected draws.

The method is systematic sampling (Madow, Annals of Mathematical Statistics 1949). Rows are intervals on a line, sorted
by stratum and label; the length of an interval is the expected draws of its row. Marks are one draw apart. A row is
drawn once for each mark in its interval.

rows    |- a --|- b --|---- c ----|----- d -----|  expected 0.7, 0.7, 1.2 and 1.4 draws
marks     ^         ^         ^         ^          a, b, c, d
marks           ^         ^         ^         ^    b, c, d, d

The draws of a row, of a stratum, and of any range of labels are therefore the expected draws, rounded down or up. The
marks move by the golden ratio from one epoch to the next, so that the mean draws of a row over epochs quickly approach
its expected draws. Lengths are integer multiples of a small unit and marks are raw Philox words, so the plan is the
same on every machine.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.errors import LabelError, SettingError
from cinefeed.core.rng import Stage, permutation_for, words_for
from cinefeed.data.sampling.order import GOLDEN, Batches, Whole, batches_of, order_by, put_in_order

# Positions in the address (seed, PLAN, epoch); the first two are used for all epochs. order.py uses those below 100.
_MARKS, _TIES, _SWAPS = 100, 101, 102


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """The draws of one epoch, in order: three int64 arrays of equal length.

    `rows` are row numbers, `occurrence` is the index of a draw among the draws of its row (0 for the first), and
    `strata` is the class or label bin of the row.
    """

    rows: Whole
    occurrence: Whole
    strata: Whole

    def __len__(self) -> int:
        return len(self.rows)


def draw(
    expected: NDArray[np.float64],
    *,
    strata: Whole,
    values: NDArray[np.float64] | None = None,
    groups: Whole | None = None,
    seed: int = 0,
    epoch: int = 0,
    batch_size: int | None = None,
) -> Plan:
    """Return the plan of an epoch; the draws of each row and each stratum are the expected ones, rounded down or up.

    No row is repeated before all rows with the same stratum and expected draws have occurred.

    Args:
        expected: Expected draws of each row, (rows,).
        strata: Stratum number of each row, (rows,), from 0 without gaps.
        values: Label of each row, (rows,). If given, any range of labels in a stratum also has its expected draws.
        groups: Group number of each row, (rows,). If given, each group in a stratum has its expected draws, instead of
            each range of labels.
        seed: Seed of the plan.
        epoch: Number of the epoch.
        batch_size: If given, each stratum also has its expected draws in each full batch, and in each two, four or
            eight consecutive batches that form a global batch of several ranks.

    Raises LabelError if the expected draws are negative or not finite, or do not sum to an integer, and SettingError
    for a batch size below 1.

    >>> plan = draw(np.array([0.5, 0.5, 2.0]), strata=np.array([0, 0, 1]))
    >>> np.bincount(plan.strata).tolist()
    [1, 2]
    """
    if batch_size is not None and batch_size < 1:
        raise SettingError(f"batch_size={batch_size} must be at least 1")
    ties = words_for(seed, stage=Stage.PLAN, count=len(expected), position=_TIES)
    order = order_by(strata, ties) if values is None else _by_label(values, ties, strata)
    if groups is not None:
        order = _together(order, strata[order], groups[order])
    lengths = _RowLengths(expected[order], strata[order])
    start = int(words_for(seed, stage=Stage.PLAN, count=1, position=_MARKS)[0]) + epoch * GOLDEN
    offsets = lengths.offsets((start % 2**64) >> (64 - lengths.bits))
    batches = None
    if batch_size is not None:
        batches = batches_of(lengths.expected(), draws=int(lengths.totals(offsets).sum()), size=batch_size)
        offsets = _fit_offsets(
            lengths,
            offsets,
            batches,
            swap_order=permutation_for(seed, stage=Stage.PLAN, count=len(offsets), epoch=epoch, position=_SWAPS),
        )
    counts = lengths.counts(offsets)
    rows = np.repeat(order, counts)
    occurrence = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    rows, occurrence, ordered_strata = put_in_order(
        rows, occurrence=occurrence, expected=expected, strata=strata, batches=batches, seed=seed, epoch=epoch
    )
    return Plan(rows=rows, occurrence=occurrence, strata=ordered_strata)


def _by_label(values: NDArray[np.float64], ties: NDArray[np.uint64], strata: Whole) -> Whole:
    """Return the order by stratum, label and tie; ties and strata are sorted only if labels do not determine them."""
    order = np.argsort(values, kind="stable")
    sorted_values = values[order]
    is_repeat = np.append(False, sorted_values[1:] == sorted_values[:-1])
    tie_indices = np.flatnonzero(is_repeat | np.append(is_repeat[1:], False))
    tie_numbers = np.cumsum(~is_repeat)[tie_indices]
    order[tie_indices] = order[tie_indices][order_by(tie_numbers, ties[order[tie_indices]])]
    numbers = strata[order]
    return order if (numbers[1:] >= numbers[:-1]).all() else order[np.argsort(numbers, kind="stable")]


def _together(order: Whole, strata: Whole, groups: Whole) -> Whole:
    """Return an order in which the rows of a group in a stratum are adjacent, at the position of the first one."""
    cells = strata * (int(groups.max()) + 1) + groups
    _, first, cells = np.unique(cells, return_index=True, return_inverse=True)
    return order[np.argsort(first[cells], kind="stable")]


class _RowLengths:
    """The expected draws of rows sorted by stratum, as integer draws and fractions in units of 2**-bits."""

    def __init__(self, expected: NDArray[np.float64], strata: Whole) -> None:
        if not (np.isfinite(expected).all() and (expected >= 0).all()):
            raise LabelError("expected draws must be finite and not negative; check the sampler")
        # Sums of fractions must stay below 2**62, and a unit above the rounding error of the largest float.
        self.bits = min(40, 62 - len(expected).bit_length(), 50 - int(expected.max()).bit_length())
        if self.bits < 10:
            raise LabelError(
                f"a plan of {len(expected)} rows with up to {expected.max():.3g} draws each is too large; use fewer "
                "rows or draws"
            )
        self.unit = 1 << self.bits
        self.strata = strata
        self.starts = np.flatnonzero(np.diff(strata, prepend=-1))
        whole = np.floor(expected)
        fraction = np.rint((expected - whole) * self.unit).astype(np.int64)
        self.whole = whole.astype(np.int64) + (fraction >> self.bits)
        self.fraction = fraction & (self.unit - 1)
        # Rounding error: three rows of 7/3 draws sum to seven draws minus a few units. Sums of strata, and then of the
        # epoch, that are this close to an integer are set to that integer.
        is_exact = self._round_sums(self.starts, self.fraction > 0)
        self._round_sums(np.zeros(1, np.int64), (self.fraction > 0) & ~is_exact)
        if int(self.fraction.sum()) % self.unit:
            raise LabelError(
                f"expected draws sum to {expected.sum():.6g}, which is not an integer; scale them to an integer sum"
            )

    def _round_sums(self, starts: Whole, movable: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Make the sum of each range of rows an integer by moving at most one unit per movable row, if possible.

        Returns whether the sum of the range of each row is an integer, bool (rows,).
        """
        sizes = np.diff(starts, append=len(self.fraction))
        excess = (np.add.reduceat(self.fraction, starts) + self.unit // 2) % self.unit - self.unit // 2
        ranks = np.cumsum(movable, dtype=np.int64) - movable
        ranks -= np.repeat(ranks[starts], sizes)
        is_near = np.abs(excess) <= np.add.reduceat(movable.astype(np.int64), starts)
        to_move = movable & np.repeat(is_near, sizes) & (ranks < np.repeat(np.abs(excess), sizes))
        self.fraction[to_move] -= np.repeat(np.sign(excess), sizes)[to_move]
        return np.repeat(is_near, sizes)

    def fraction_sums(self) -> Whole:
        """Return the sum of the fractions of each stratum, in units."""
        return np.asarray(np.add.reduceat(self.fraction, self.starts))

    def expected(self) -> NDArray[np.float64]:
        """Return the expected draws of each stratum."""
        return np.asarray(np.add.reduceat(self.whole, self.starts) + self.fraction_sums() / self.unit)

    def offsets(self, first: int) -> Whole:
        """Return the distance of the start of each stratum from the mark before it, in units; `first` for the first."""
        ends = np.cumsum(self.fraction_sums())
        return (np.concatenate([[0], ends[:-1]]) + first) % self.unit

    def totals(self, offsets: Whole) -> Whole:
        """Return the draws of each stratum."""
        return np.asarray(np.add.reduceat(self.whole, self.starts) + ((self.fraction_sums() + offsets) >> self.bits))

    def counts(self, offsets: Whole) -> Whole:
        """Return the draws of each row."""
        ends = np.cumsum(self.fraction)
        ends -= np.repeat(ends[self.starts] - self.fraction[self.starts], np.diff(self.starts, append=len(ends)))
        ends += offsets[self.strata]
        return np.asarray(self.whole + (ends >> self.bits) - ((ends - self.fraction) >> self.bits))


def _fit_offsets(lengths: _RowLengths, offsets: Whole, batches: Batches, *, swap_order: Whole) -> Whole:
    """Return offsets whose totals fit into the batches, changing the rounding of as few strata as possible.

    In short epochs, the full batches and the tail may not be able to hold all strata that are rounded up. Then some
    strata are rounded down instead, and as many others up. Such a rounding always exists, because the expected draws
    fit; and from any rounding that does not fit, swapping two strata reduces the overflow.
    """
    totals = lengths.totals(offsets)
    overflow = batches.overflow(totals)
    if overflow <= 0:
        return offsets
    edge = lengths.unit - lengths.fraction_sums() % lengths.unit  # offsets from here on round the stratum up
    has_fraction, room = edge < lengths.unit, batches.high * batches.full - totals
    down = swap_order[(has_fraction & (offsets >= edge) & (room < 0))[swap_order]][:overflow]
    up = swap_order[(has_fraction & (offsets < edge) & (room > 0))[swap_order]][:overflow]
    offsets = offsets.copy()
    for k in down.tolist():
        offsets[k] = (int(offsets[k]) - int(edge[k])) * int(edge[k]) // (lengths.unit - int(edge[k]))
    for k in up.tolist():
        offsets[k] = int(edge[k]) + int(offsets[k]) * (lengths.unit - int(edge[k])) // int(edge[k])
    return offsets
