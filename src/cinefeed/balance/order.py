"""In what order the draws of an epoch come: repeats far apart, and every batch composed like the epoch."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cinefeed.rng import Stage, stable_order, words_for

GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio: its multiples, modulo 2**64, are spread evenly

# Positions of the address (seed, PLAN, epoch): part of the promise of reproducibility.
_PHASE, _JITTER, _SHUFFLE, _TURN = range(4)
_BLOCKS = (8, 4, 2, 1)  # batches: ranks of one machine

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
        """Return how many draws of each stratum the tail takes, (strata,): what the full batches do not expect."""
        least, most = np.maximum(totals - self.full * self.high, 0), totals - self.full * self.low
        return _near(totals - self.full * self.share, least=least, most=most, total=self.tail)

    def kept(self, totals: Whole, *, dealt: int, left: int) -> Whole:
        """Return how many draws of each stratum the first `dealt` batches leave to the last `left` ones, (strata,).

        The first ones get their shares as exactly as can be while each of the last ones can still get low or high.
        """
        least = np.maximum(totals - dealt * self.high, left * self.low)
        most = np.minimum(totals - dealt * self.low, left * self.high)
        return _near(totals - dealt * self.share, least=least, most=most, total=left * self.size)


def _near(wish: NDArray[np.float64], *, least: Whole, most: Whole, total: int) -> Whole:
    """Return whole numbers between `least` and `most` near to `wish`, `total` in sum; all are (strata,)."""
    draws = np.clip(np.floor(wish + 1e-9).astype(np.int64), least, most)
    while (missing := total - int(draws.sum())) != 0:
        step = 1 if missing > 0 else -1
        movable = np.flatnonzero(draws < most if missing > 0 else draws > least)
        assert len(movable), "draws that no batches can hold"
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


def order_by(numbers: Whole, words: NDArray[np.uint64]) -> Whole:
    """Return the order by small numbers, and where they are equal by words; of those all but the lowest bits count.

    One sort of one key: half the time of np.lexsort, on a million draws.
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
    """Return the draws in the order of the epoch: rows, occurrence and strata, each int64 (draws,).

    `rows` and `occurrence` list the draws in any order; `expected` and `strata` are by row number. A row drawn three
    times is due in each third of the epoch, at a moment of its own; equals take turns, so that no row comes again
    before they all have come.
    """
    phase = _uniform(words_for(seed, stage=Stage.PLAN, count=len(expected), epoch=epoch, position=_PHASE))
    jitter = _uniform(words_for(seed, stage=Stage.PLAN, count=len(rows), epoch=epoch, position=_JITTER))
    # Half as much jitter as phase: neighbours change between turns, and a row still waits half a turn for its next.
    due = (occurrence + (phase[rows] + 0.5 * jitter) / 1.5) / np.maximum(expected[rows], 1.0)
    of_draws = strata[rows]
    totals = np.bincount(of_draws, minlength=int(strata.max()) + 1).astype(np.int64)
    queue = order_by(of_draws, (due * 2.0**63).astype(np.uint64))  # it is below 2
    slots = _even(totals, seed, epoch) if batches is None else _by_batch(totals, batches, seed, epoch)
    place = stable_order(slots)
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

    Draws are dealt like cards, sorted by stratum: first to blocks of eight batches, then to the batches of a block. A
    dealer who gives one card to each in turn gives everyone as many of a stratum as everyone else, to one (McNaughton,
    Management Science 1959). Blocks are visited in golden order, which spreads a stratum over the epoch, and the
    batches of a block in the order 0 4 2 6 1 5 3 7, so that pairs, fours and eights of batches that follow each other,
    the global batches of so many ranks, have the epoch's shares as well. What is left of the eights is dealt to a block
    of four, of two and of one.
    """
    (turn,) = words_for(seed, stage=Stage.PLAN, count=1, epoch=epoch, position=_TURN).tolist()
    rest = batches.tail_draws(totals)
    places = [(rest, np.full(batches.tail, batches.full))]
    totals, left = totals - rest, batches.full
    for block in _BLOCKS:
        count, after = left // block, left % block
        if count == 0:
            continue
        rest = batches.kept(totals, dealt=count * block, left=after)
        golden = stable_order(np.arange(count, dtype=np.uint64) * np.uint64(GOLDEN))
        cards = np.arange(count * block * batches.size)
        places.append((totals - rest, batches.full - left + _deal(cards, golden, block, turn)))
        totals, left = rest, after
    strata = np.concatenate([np.repeat(np.arange(len(each)), each) for each, _ in places])
    batch = np.concatenate([each for _, each in places])
    shuffle = words_for(seed, stage=Stage.PLAN, count=len(strata), epoch=epoch, position=_SHUFFLE)
    return strata[order_by(batch, shuffle)]


def _deal(cards: Whole, golden: Whole, block: int, turn: int) -> Whole:
    """Return the batch that each card goes to, where `golden` is the order of the blocks, and `turn` who begins."""
    count = len(golden)
    to_block = golden[(cards + turn % count) % count]
    in_block = np.empty_like(cards)  # a block's cards are counted in the order in which they come
    in_block[stable_order(to_block)] = cards % (len(cards) // count)
    turns = np.array([int(f"{k:b}".zfill(block.bit_length() - 1)[::-1], 2) for k in range(block)])
    return np.asarray(to_block * block + turns[(in_block + to_block + turn % block) % block])
