"""In what order the draws of an epoch come: repeats far apart, and every batch composed like the epoch."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cinefeed.rng import Stage, words_for

GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio: its multiples, modulo 2**64, are spread evenly

# Positions of the address (seed, PLAN, epoch): part of the promise of reproducibility.
_PHASE, _JITTER, _SHUFFLE, _TURN = range(4)

Whole = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Batches:
    """How an epoch falls into batches, and how many draws of each stratum a full one holds: `low` or `high`."""

    size: int
    full: int  # batches of that size
    tail: int  # draws in the batch after them
    share: NDArray[np.float64]  # expected draws of each stratum in a full batch
    low: Whole
    high: Whole

    def overflow(self, totals: Whole) -> int:
        """Return by how many draws `totals` exceed what the full batches and the tail can hold; 0 or less fits."""
        return int(np.maximum(totals - self.high * self.full, 0).sum()) - self.tail

    def tail_draws(self, totals: Whole) -> Whole:
        """Return how many draws of each stratum the tail takes, (strata,): its share, as near as `totals` allow."""
        least = np.maximum(totals - self.high * self.full, 0)
        most = totals - self.low * self.full
        wish = self.share * self.tail / self.size
        draws = np.clip(np.floor(wish).astype(np.int64), least, most)
        while (missing := self.tail - int(draws.sum())) != 0:
            step = 1 if missing > 0 else -1
            movable = np.flatnonzero(draws < most if missing > 0 else draws > least)
            furthest = movable[np.argsort(step * (draws - wish)[movable], kind="stable")]
            draws[furthest[: abs(missing)]] += step
        return draws


def batches_of(expected: NDArray[np.float64], *, draws: int, size: int) -> Batches:
    """Return the batches of an epoch of `draws` in which the strata are expected so often, (strata,).

    >>> batches_of(np.array([30.0, 10.0]), draws=40, size=6).high.tolist()
    [5, 2]
    """
    share = expected * size / draws
    return Batches(
        size=size,
        full=draws // size,
        tail=draws % size,
        share=share,
        low=np.floor(share + 1e-9).astype(np.int64),  # eight of sixteen may read 7.999999999999999
        high=np.ceil(share - 1e-9).astype(np.int64),
    )


def _uniform(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return words as floats in [0, 1), the same on every machine."""
    return np.asarray((words >> np.uint64(11)) * 2.0**-53, np.float64)


def put_in_order(
    rows: Whole,
    *,
    occurrence: Whole,
    expected: NDArray[np.float64],
    strata: Whole,
    batches: Batches | None,
    seed: int,
    epoch: int,
) -> tuple[Whole, Whole, Whole]:
    """Return the draws in the order of the epoch: rows, occurrence and strata, each int64 (draws,).

    `rows` and `occurrence` list the draws in any order; `expected` and `strata` are by row number. A row drawn three
    times is due in each third of the epoch, at a moment of its own; equals take turns, so that no row comes again
    before they all have come.
    """
    phase = _uniform(words_for(seed, stage=Stage.PLAN, count=len(expected), epoch=epoch, position=_PHASE))
    jitter = _uniform(words_for(seed, stage=Stage.PLAN, count=len(rows), epoch=epoch, position=_JITTER))
    # Half as much jitter as phase: neighbours change between turns, and a row still waits half a turn for its next.
    due = (occurrence + (phase[rows] + 0.5 * jitter) / 1.5) / np.maximum(expected[rows], 1.0)
    queue = np.lexsort((due, strata[rows]))
    totals = np.bincount(strata[rows], minlength=int(strata.max()) + 1).astype(np.int64)
    slots = _even(totals, seed, epoch) if batches is None else _by_batch(totals, batches, seed, epoch)
    place = np.argsort(slots, kind="stable")
    ordered, ordered_occurrence = np.empty_like(rows), np.empty_like(rows)
    ordered[place] = rows[queue]
    ordered_occurrence[place] = occurrence[queue]
    return ordered, ordered_occurrence, slots


def _even(totals: Whole, seed: int, epoch: int) -> Whole:
    """Return the stratum of each place of the epoch, int64 (draws,): one draw of n in each n-th of the epoch."""
    strata = np.repeat(np.arange(len(totals)), totals)
    if len(totals) == 1:
        return strata
    within = np.arange(len(strata)) - np.repeat(np.cumsum(totals) - totals, totals)
    shift = _uniform(words_for(seed, stage=Stage.PLAN, count=len(strata), epoch=epoch, position=_SHUFFLE))
    return strata[np.argsort((within + shift) / totals[strata], kind="stable")]


def _by_batch(totals: Whole, batches: Batches, seed: int, epoch: int) -> Whole:
    """Return the stratum of each place, int64 (draws,), so that each full batch holds low or high of each stratum.

    Every full batch takes `low` of each stratum. What is left of the strata is dealt out, one stratum after the other,
    a card to each batch and round again (McNaughton, Management Science 1959): no batch gets a stratum twice, because
    none has more left than there are batches. The deal visits the batches in golden order, which spreads a stratum's
    cards over the epoch.
    """
    tail = batches.tail_draws(totals)
    extra = totals - tail - batches.low * batches.full
    names = np.arange(len(totals))
    base = np.repeat(names, batches.low)
    strata, batch = np.tile(base, batches.full), np.repeat(np.arange(batches.full), len(base))
    if batches.full:
        turn = int(words_for(seed, stage=Stage.PLAN, count=1, epoch=epoch, position=_TURN)[0]) % batches.full
        golden = np.argsort(np.arange(batches.full, dtype=np.uint64) * np.uint64(GOLDEN), kind="stable")
        strata = np.concatenate([strata, np.repeat(names, extra)])
        batch = np.concatenate([batch, golden[(np.arange(int(extra.sum())) + turn) % batches.full]])
    strata = np.concatenate([strata, np.repeat(names, tail)])
    batch = np.concatenate([batch, np.full(batches.tail, batches.full)])
    shuffle = words_for(seed, stage=Stage.PLAN, count=len(strata), epoch=epoch, position=_SHUFFLE)
    return strata[np.lexsort((shuffle, batch))]
