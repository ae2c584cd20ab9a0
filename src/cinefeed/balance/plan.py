"""Expected draws -> the exact plan of an epoch.

Systematic sampling (Madow, Annals of Mathematical Statistics 1949): the rows lie on a line, sorted by stratum and
label, each as long as its expected draws; marks stand one draw apart; a row is drawn once for each mark that it holds.

rows    |- a --|- b --|---- c ----|----- d -----|  expected 0.7, 0.7, 1.2 and 1.4 draws
marks     ^         ^         ^         ^          a, b, c, d
marks           ^         ^         ^         ^    b, c, d, d

So a row, a stratum, or any run of labels comes as often as expected, rounded down or up. The marks move on by the
golden ratio from one epoch to the next, so that each row's mean over the epochs soon is its expected draws. Lengths are
whole numbers of a small unit and the marks are raw Philox words: the plan is the same on every machine.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cinefeed.balance.order import GOLDEN, Batches, Whole, batches_of, order_by, put_in_order
from cinefeed.errors import LabelError, SettingError
from cinefeed.rng import Stage, permutation_for, words_for

# Positions of the address (seed, PLAN, epoch); the first two hold for all epochs. order.py has those below 100.
_MARKS, _TIES, _SWAPS = 100, 101, 102


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """One epoch's draws, in order: three int64 arrays of equal length.

    `rows` are row numbers; `occurrence` is 0 where a row comes for the first time, 1 for the second ...; `strata` is
    the class or label bin of the row.
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
    """Return the plan in which each row comes as often as `expected` (rows,), rounded down or up.

    So does each stratum, in the epoch and, with `batch_size`, in each full batch and in those eights, fours and pairs
    of batches that several ranks share; `strata` (rows,) are numbers from 0, none left out. Sorted by `values` (rows,),
    any run of labels within a stratum does so too; with `groups` (rows,), numbers, each group's rows within a stratum
    do instead. No row is repeated before its equals, those of the same stratum and expected draws, have had their turn.
    Raises LabelError where the expected draws do not add up to a whole number.

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
    line = _Line(expected[order], strata[order])
    turn = int(words_for(seed, stage=Stage.PLAN, count=1, position=_MARKS)[0]) + epoch * GOLDEN
    marks = line.marks((turn % 2**64) >> (64 - line.bits))
    batches = None
    if batch_size is not None:
        batches = batches_of(line.expected(), draws=int(line.totals(marks).sum()), size=batch_size)
        marks = _fit(
            line,
            marks,
            batches,
            swaps=permutation_for(seed, stage=Stage.PLAN, count=len(marks), epoch=epoch, position=_SWAPS),
        )
    counts = line.counts(marks)
    rows = np.repeat(order, counts)
    occurrence = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    rows, occurrence, slots = put_in_order(
        rows, occurrence=occurrence, expected=expected, strata=strata, batches=batches, seed=seed, epoch=epoch
    )
    return Plan(rows=rows, occurrence=occurrence, strata=slots)


def _by_label(values: NDArray[np.float64], ties: NDArray[np.uint64], strata: Whole) -> Whole:
    """Return the order by stratum, label and tie; ties and strata are sorted only where labels leave them open."""
    order = np.argsort(values, kind="stable")
    placed = values[order]
    again = np.append(False, placed[1:] == placed[:-1])
    tied = np.flatnonzero(again | np.append(again[1:], False))
    order[tied] = order[tied][order_by(np.cumsum(~again)[tied], ties[order[tied]])]
    numbers = strata[order]
    return order if (numbers[1:] >= numbers[:-1]).all() else order[np.argsort(numbers, kind="stable")]


def _together(order: Whole, strata: Whole, groups: Whole) -> Whole:
    """Return rows in such an order that within a stratum each group's stand together, where its first one stood."""
    cells = strata * (int(groups.max()) + 1) + groups
    _, first, cells = np.unique(cells, return_index=True, return_inverse=True)
    return order[np.argsort(first[cells], kind="stable")]


class _Line:
    """Rows end to end, sorted by stratum: the whole draws of each, and what is left over, in units of 2**-bits."""

    def __init__(self, expected: NDArray[np.float64], strata: Whole) -> None:
        if not (np.isfinite(expected).all() and (expected >= 0).all()):
            raise LabelError("expected draws must be finite and not negative; look at the sampler that made them")
        # No sum of parts may pass 2**62, and a unit must stay above the rounding of the largest float.
        self.bits = min(40, 62 - len(expected).bit_length(), 50 - int(expected.max()).bit_length())
        if self.bits < 10:
            raise LabelError(f"{len(expected)} rows, drawn up to {expected.max():.3g} times, are too many for one plan")
        self.unit = 1 << self.bits
        self.strata = strata
        self.starts = np.flatnonzero(np.diff(strata, prepend=-1))
        whole = np.floor(expected)
        part = np.rint((expected - whole) * self.unit).astype(np.int64)
        self.whole = whole.astype(np.int64) + (part >> self.bits)
        self.part = part & (self.unit - 1)
        # Three rows of 7/3 draws are a few units off seven; a stratum that near to a whole number is made whole,
        # and so is the line.
        settled = self._settle(self.starts, self.part > 0)
        self._settle(np.zeros(1, np.int64), (self.part > 0) & ~settled)
        if int(self.part.sum()) % self.unit:
            raise LabelError(
                f"expected draws add up to {expected.sum():.6g}; a plan has a whole number of draws, so scale them"
            )

    def _settle(self, starts: Whole, movable: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Move single units off or onto rows so that each group is whole, where that suffices; say which rows' are."""
        sizes = np.diff(starts, append=len(self.part))
        off = (np.add.reduceat(self.part, starts) + self.unit // 2) % self.unit - self.unit // 2
        ranks = np.cumsum(movable, dtype=np.int64) - movable
        ranks -= np.repeat(ranks[starts], sizes)
        near = np.abs(off) <= np.add.reduceat(movable.astype(np.int64), starts)
        moved = movable & np.repeat(near, sizes) & (ranks < np.repeat(np.abs(off), sizes))
        self.part[moved] -= np.repeat(np.sign(off), sizes)[moved]
        return np.repeat(near, sizes)

    def left_over(self) -> Whole:
        """Return the sum of the parts of each stratum, in units."""
        return np.asarray(np.add.reduceat(self.part, self.starts))

    def expected(self) -> NDArray[np.float64]:
        """Return the expected draws of each stratum."""
        return np.asarray(np.add.reduceat(self.whole, self.starts) + self.left_over() / self.unit)

    def marks(self, first: int) -> Whole:
        """Return how far into its last unit draw each stratum starts, where the line starts at `first`."""
        ends = np.cumsum(self.left_over())
        return (np.concatenate([[0], ends[:-1]]) + first) % self.unit

    def totals(self, marks: Whole) -> Whole:
        """Return the draws of each stratum."""
        return np.asarray(np.add.reduceat(self.whole, self.starts) + ((self.left_over() + marks) >> self.bits))

    def counts(self, marks: Whole) -> Whole:
        """Return the draws of each row."""
        ends = np.cumsum(self.part)
        ends -= np.repeat(ends[self.starts] - self.part[self.starts], np.diff(self.starts, append=len(ends)))
        ends += marks[self.strata]
        return np.asarray(self.whole + (ends >> self.bits) - ((ends - self.part) >> self.bits))


def _fit(line: _Line, marks: Whole, batches: Batches, *, swaps: Whole) -> Whole:
    """Return marks whose totals fit into the batches: the fewest strata rounded up are rounded down, and as many up.

    Full batches may be unable to hold a stratum that was rounded up, and the tail too short for what is left: seldom,
    and in short epochs alone. Another rounding always fits, since the expected draws themselves do; and wherever one
    does not fit yet, some swap of two strata brings it nearer.
    """
    totals = line.totals(marks)
    overflow = batches.overflow(totals)
    if overflow <= 0:
        return marks
    edge = line.unit - line.left_over() % line.unit  # marks from here on round the stratum up
    broken, room = edge < line.unit, batches.high * batches.full - totals
    down = swaps[(broken & (marks >= edge) & (room < 0))[swaps]][:overflow]
    up = swaps[(broken & (marks < edge) & (room > 0))[swaps]][:overflow]
    marks = marks.copy()
    for k in down.tolist():
        marks[k] = (int(marks[k]) - int(edge[k])) * int(edge[k]) // (line.unit - int(edge[k]))
    for k in up.tolist():
        marks[k] = int(edge[k]) + int(marks[k]) * (line.unit - int(edge[k])) // int(edge[k])
    return marks
