"""Random generators by address: no generator is shared, so the order of work cannot change a result.

An address is (seed, stage, epoch, position). It becomes the key and the counter of a Philox generator (Salmon et al.,
"Parallel random numbers: as easy as 1, 2, 3", SC 2011), so that two addresses never share a number, by construction:

    key     = (seed, stage)
    counter = (0 ..., position, epoch, 0)      the first word counts the numbers drawn at that address
"""

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray

from cinefeed.core.errors import SettingError


class Stage(IntEnum):
    """Purpose of a random number. Results depend on the values: append new ones, never renumber."""

    PLAN = 0
    CLIP = 1
    AUGMENT = 2
    SPLIT = 3
    REPLACE = 4
    BOOTSTRAP = 5
    DEMO = 6
    MIX = 7
    VERSION = 8


class _Key(ISeedSequence):
    """Seed sequence that returns the key of a Philox generator.

    `Philox(key=...)` first gathers entropy from the system, for `spawn`: 13 us, this takes 5. `spawn` raises here; its
    generators would differ from run to run.
    """

    def __init__(self, seed: int, stage: Stage) -> None:
        self._words = np.array([seed, stage], np.uint64)

    def generate_state(self, n_words: int, dtype: Any = np.uint64) -> NDArray[Any]:
        assert n_words == 2 and dtype == np.uint64
        return self._words


def _philox(seed: int, stage: Stage, epoch: int, position: int) -> np.random.Philox:
    if not (0 <= seed < 2**64 and 0 <= epoch < 2**64 and 0 <= position < 2**64):
        raise SettingError(
            f"seed={seed}, epoch={epoch}, position={position} is not a valid random address; "
            "give whole numbers from 0 to 2**64-1"
        )
    counter = np.array([0, position, epoch, 0], np.uint64)
    return np.random.Philox(_Key(seed, stage), counter=counter)  # type: ignore[arg-type]  # NumPy's stubs lack it


def rng_for(seed: int, *, stage: Stage, epoch: int = 0, position: int = 0) -> np.random.Generator:
    """Return the random generator of an address.

    Its distributions (`uniform`, `integers` ...) are reproducible with one version of NumPy. For numbers that must be
    the same on every machine and version, use `words_for`.

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
    """Return a random permutation of 0 to `count` - 1, int64, made of raw words: the same on every machine.

    >>> sorted(permutation_for(7, stage=Stage.PLAN, count=4).tolist())
    [0, 1, 2, 3]
    """
    return stable_order(words_for(seed, stage=stage, count=count, epoch=epoch, position=position))


def stable_order(keys: NDArray[Any]) -> NDArray[np.int64]:
    """Return the indices, int64, that sort whole numbers of at least 0. Equal numbers keep their order.

    Equals a stable sort, on every machine, in a third of its time. NumPy sorts fastest if no two keys are equal, so
    small keys get their index as lowest bits. Large keys are random and seldom equal.

    >>> stable_order(np.array([1, 0, 1, 0])).tolist()
    [1, 3, 0, 2]
    """
    bits = len(keys).bit_length()
    if bits + int(keys.max(initial=0)).bit_length() <= 64:
        packed_keys = (keys.astype(np.uint64) << np.uint64(bits)) | np.arange(len(keys), dtype=np.uint64)
        packed_keys.sort()
        return (packed_keys & np.uint64((1 << bits) - 1)).astype(np.int64)
    order = np.argsort(keys)
    sorted_keys = keys[order]
    all_distinct = bool((sorted_keys[1:] != sorted_keys[:-1]).all())
    return (order if all_distinct else np.argsort(keys, kind="stable")).astype(np.int64, copy=False)
