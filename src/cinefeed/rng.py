"""Every random choice has an address: no generator is shared, so no order of work can change a result.

An address is (seed, stage, epoch, position). It becomes the key and the counter of a Philox generator (Salmon et al.,
"Parallel random numbers: as easy as 1, 2, 3", SC 2011), so two addresses never share a number, by construction:

    key     = (seed, stage)
    counter = (0 ..., position, epoch, 0)      the first word counts the numbers drawn at that address
"""

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray

from cinefeed.errors import SettingError


class Stage(IntEnum):
    """What a random number is for. Values are part of the promise of reproducibility: append, never renumber."""

    PLAN = 0
    CLIP = 1
    AUGMENT = 2
    SPLIT = 3
    REPLACE = 4
    BOOTSTRAP = 5
    DEMO = 6
    MIX = 7


class _Key(ISeedSequence):
    """The key of a Philox generator, as the seed that it asks for.

    `Philox(key=...)` gathers entropy from the system first, for `spawn`: 13 us, where this takes 5. And `spawn` is
    refused here, whose generators would be different ones each time.
    """

    def __init__(self, seed: int, stage: Stage) -> None:
        self._words = np.array([seed, stage], np.uint64)

    def generate_state(self, n_words: int, dtype: Any = np.uint64) -> NDArray[Any]:
        assert n_words == 2 and dtype == np.uint64
        return self._words


def _philox(seed: int, stage: Stage, epoch: int, position: int) -> np.random.Philox:
    if not (0 <= seed < 2**64 and 0 <= epoch < 2**64 and 0 <= position < 2**64):
        raise SettingError(
            f"seed={seed}, epoch={epoch} and position={position} cannot all be part of a random address; "
            "give whole numbers from 0 to 2**64-1"
        )
    counter = np.array([0, position, epoch, 0], np.uint64)
    return np.random.Philox(_Key(seed, stage), counter=counter)  # type: ignore[arg-type]  # NumPy's stubs lack it


def rng_for(seed: int, *, stage: Stage, epoch: int = 0, position: int = 0) -> np.random.Generator:
    """Return the generator that owns one stage of one draw.

    Its distributions (`uniform`, `integers` ...) are the same on one version of NumPy; for numbers that must be the
    same on every machine and version, take `words_for`.

    >>> again = [float(rng_for(7, stage=Stage.CLIP, position=3).random()) for _ in range(2)]
    >>> again[0] == again[1]
    True
    """
    return np.random.Generator(_philox(seed, stage, epoch, position))


def words_for(seed: int, *, stage: Stage, count: int, epoch: int = 0, position: int = 0) -> NDArray[np.uint64]:
    """Return `count` raw Philox words (uint64) of an address: the same on every machine and NumPy version.

    >>> words_for(7, stage=Stage.PLAN, count=2).dtype
    dtype('uint64')
    """
    return np.asarray(_philox(seed, stage, epoch, position).random_raw(count), np.uint64)


def permutation_for(seed: int, *, stage: Stage, count: int, epoch: int = 0, position: int = 0) -> NDArray[np.int64]:
    """Return a random order of `count` things, from raw words alone: the same on every machine.

    >>> sorted(permutation_for(7, stage=Stage.PLAN, count=4).tolist())
    [0, 1, 2, 3]
    """
    return stable_order(words_for(seed, stage=stage, count=count, epoch=epoch, position=position))


def stable_order(keys: NDArray[Any]) -> NDArray[np.int64]:
    """Return the order of whole numbers from 0 up, int64, those that are equal as they stand.

    It is what a stable sort gives, on every machine, in a third of its time: NumPy is fastest where no two keys are
    equal, so small ones get their place as their lowest bits, and large ones, which are random, seldom meet.

    >>> stable_order(np.array([1, 0, 1, 0])).tolist()
    [1, 3, 0, 2]
    """
    bits = len(keys).bit_length()
    if bits + int(keys.max(initial=0)).bit_length() <= 64:
        packed = (keys.astype(np.uint64) << np.uint64(bits)) | np.arange(len(keys), dtype=np.uint64)
        packed.sort()
        return (packed & np.uint64((1 << bits) - 1)).astype(np.int64)
    order = np.argsort(keys)
    sorted_keys = keys[order]
    all_distinct = bool((sorted_keys[1:] != sorted_keys[:-1]).all())
    return (order if all_distinct else np.argsort(keys, kind="stable")).astype(np.int64, copy=False)
