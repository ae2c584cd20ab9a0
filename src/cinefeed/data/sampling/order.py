"""The order of the draws of an epoch: repeats are far apart, and each batch has the composition of the epoch."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.rng import Stage, stable_order, words_for

GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio: its multiples modulo 2**64 are evenly distributed

# Positions in the address (seed, PLAN, epoch). Changing them changes all plans.
_PHASE, _JITTER, _SHUFFLE, _TURN = range(4)
_BLOCKS = (8, 4, 2, 1)  # batches per block: numbers of ranks on one machine

Whole = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Batches:
    """The batches of an epoch; a full batch has `low` or `high` draws of each stratum."""

    size: int
    full: int  # number of full batches
    tail: int  # draws in the incomplete last batch
    share: NDArray[np.float64]  # expected draws of each stratum in a full batch
    low: Whole  # share, rounded down
    high: Whole  # share, rounded up

    def overflow(self, totals: Whole) -> int:
        """Return the number of draws in `totals` (strata,) that exceed the full batches and the tail; <= 0 if none."""
        return int(np.maximum(totals - self.high * self.full, 0).sum()) - self.tail

    def tail_draws(self, totals: Whole) -> Whole:
        """Return the draws of each stratum in the tail, (strata,): those in excess of the full batches' shares."""
        least, most = np.maximum(totals - self.full * self.high, 0), totals - self.full * self.low
        return _round_to_total(totals - self.full * self.share, least=least, most=most, total=self.tail)

    def remaining_draws(self, totals: Whole, *, first: int, last: int) -> Whole:
        """Return the draws of each stratum that the `first` batches leave to the `last` batches, (strata,).

        The first batches get their shares as exactly as possible, so that each of the last batches can get low or high.
        """
        least = np.maximum(totals - first * self.high, last * self.low)
        most = np.minimum(totals - first * self.low, last * self.high)
        return _round_to_total(totals - first * self.share, least=least, most=most, total=last * self.size)


def _round_to_total(values: NDArray[np.float64], *, least: Whole, most: Whole, total: int) -> Whole:
    """Return integers near `values` between `least` and `most` (all (strata,)) that sum to `total`."""
    draws = np.clip(np.floor(values + 1e-9).astype(np.int64), least, most)
    while (missing := total - int(draws.sum())) != 0:
        step = 1 if missing > 0 else -1
        movable = np.flatnonzero(draws < most if missing > 0 else draws > least)
        assert len(movable), "the batches cannot hold these draws"
        furthest = movable[np.argsort(step * (draws - values)[movable], kind="stable")]
        draws[furthest[: abs(missing)]] += step
    return draws


def batches_of(expected: NDArray[np.float64], *, draws: int, size: int) -> Batches:
    """Return the batches of an epoch with `draws` draws in batches of `size`; `expected` draws are (strata,).

    >>> batches_of(np.array([30.0, 10.0]), draws=40, size=6).high.tolist()
    [5, 2]
    """
    share = expected * size / draws
    return Batches(
        size=size,
        full=draws // size,
        tail=draws % size,
        share=share,
        low=np.floor(share + 1e-9).astype(np.int64),  # a share of 8 may be computed as 7.999999999999999
        high=np.ceil(share - 1e-9).astype(np.int64),
    )


def _uniform(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return words as floats in [0, 1), the same on every machine."""
    return np.asarray((words >> np.uint64(11)) * 2.0**-53, np.float64)


def order_by(numbers: Whole, words: NDArray[np.uint64]) -> Whole:
    """Return the indices that sort by `numbers`, then by all but the lowest bits of `words`.

    It sorts one combined key, which takes half the time of np.lexsort for a million draws.
    """
    bits = np.uint64(int(numbers.max(initial=0)).bit_length())
    if bits == 0:
        return stable_order(words)
    return stable_order((numbers.astype(np.uint64) << (np.uint64(64) - bits)) | (words >> bits))


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
    """Return the rows, occurrences and strata of the draws in epoch order, each int64 (draws,).

    The repeats of a row are distributed over the epoch: a row with three draws has one in each third, at a random
    position. Rows with equal expected draws alternate: no row is repeated before all of them have occurred.

    Args:
        rows: Row number of each draw, in any order.
        occurrence: Index of each draw among the draws of its row, from 0.
        expected: Expected draws of each row.
        strata: Stratum of each row.
        batches: The batches of the epoch, to give each batch the composition of the epoch, or None.
        seed: Seed of the plan.
        epoch: Number of the epoch.
    """
    phase = _uniform(words_for(seed, stage=Stage.PLAN, count=len(expected), epoch=epoch, position=_PHASE))
    jitter = _uniform(words_for(seed, stage=Stage.PLAN, count=len(rows), epoch=epoch, position=_JITTER))
    # With half as much jitter as phase, neighbours change between repeats, which are at least half a period apart.
    time = (occurrence + (phase[rows] + 0.5 * jitter) / 1.5) / np.maximum(expected[rows], 1.0)
    strata_of_draws = strata[rows]
    totals = np.bincount(strata_of_draws, minlength=int(strata.max()) + 1).astype(np.int64)
    queue = order_by(strata_of_draws, (time * 2.0**63).astype(np.uint64))  # time is below 2
    ordered_strata = _even(totals, seed, epoch) if batches is None else _by_batch(totals, batches, seed, epoch)
    positions = stable_order(ordered_strata)
    ordered_rows, ordered_occurrence = np.empty_like(rows), np.empty_like(rows)
    ordered_rows[positions] = rows[queue]
    ordered_occurrence[positions] = occurrence[queue]
    return ordered_rows, ordered_occurrence, ordered_strata


def _even(totals: Whole, seed: int, epoch: int) -> Whole:
    """Return the stratum of each position, int64 (draws,): n draws of a stratum are one in each n-th of the epoch."""
    strata = np.repeat(np.arange(len(totals)), totals)
    if len(totals) == 1:
        return strata
    within = np.arange(len(strata)) - np.repeat(np.cumsum(totals) - totals, totals)
    shift = _uniform(words_for(seed, stage=Stage.PLAN, count=len(strata), epoch=epoch, position=_SHUFFLE))
    return strata[np.argsort((within + shift) / totals[strata], kind="stable")]


def _by_batch(totals: Whole, batches: Batches, seed: int, epoch: int) -> Whole:
    """Return the stratum of each position, int64 (draws,); each full batch has low or high draws of each stratum.

    The draws, sorted by stratum, are assigned round-robin: first to blocks of eight batches, then to the batches of a
    block. Round-robin assignment gives each batch the same number of draws of a stratum, to within one (McNaughton,
    Management Science 1959). Blocks are visited in golden-ratio order, which distributes a stratum over the epoch. The
    batches of a block are visited in the order 0 4 2 6 1 5 3 7, so that two, four or eight consecutive batches (the
    global batches of as many ranks) have the shares of the epoch as well. The batches that remain after the blocks of
    eight form blocks of four, two and one.
    """
    (offset,) = words_for(seed, stage=Stage.PLAN, count=1, epoch=epoch, position=_TURN).tolist()
    rest = batches.tail_draws(totals)
    assigned = [(rest, np.full(batches.tail, batches.full))]  # draws of each stratum, and the batch of each draw
    totals, num_left = totals - rest, batches.full
    for block in _BLOCKS:
        count, num_after = num_left // block, num_left % block
        if count == 0:
            continue
        rest = batches.remaining_draws(totals, first=count * block, last=num_after)
        blocks = stable_order(np.arange(count, dtype=np.uint64) * np.uint64(GOLDEN))
        draws = np.arange(count * block * batches.size)
        assigned.append((totals - rest, batches.full - num_left + _round_robin(draws, blocks, block, offset)))
        totals, num_left = rest, num_after
    strata = np.concatenate([np.repeat(np.arange(len(counts)), counts) for counts, _ in assigned])
    batch = np.concatenate([numbers for _, numbers in assigned])
    shuffle = words_for(seed, stage=Stage.PLAN, count=len(strata), epoch=epoch, position=_SHUFFLE)
    return strata[order_by(batch, shuffle)]


def _round_robin(draws: Whole, blocks: Whole, block: int, offset: int) -> Whole:
    """Return the batch of each draw; `blocks` is the order of the blocks, `block` the number of batches in a block."""
    count = len(blocks)
    block_of_draw = blocks[(draws + offset % count) % count]
    index_in_block = np.empty_like(draws)
    index_in_block[stable_order(block_of_draw)] = draws % (len(draws) // count)
    batch_order = np.array([int(f"{k:b}".zfill(block.bit_length() - 1)[::-1], 2) for k in range(block)])
    return np.asarray(block_of_draw * block + batch_order[(index_in_block + block_of_draw + offset % block) % block])
