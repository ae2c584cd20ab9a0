"""Frames asked of a video, by the stretches that are decoded one after the other."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cinefeed.sources.base import Facts, Ticks

_WORTH_A_SEEK = 2  # a seek costs as much as one frame of 112 x 112, decoded for nothing


class Run(NamedTuple):
    """Frames that one stretch of decoding gives."""

    numbers: list[int]
    stamps: list[int]
    key: int  # the key frame before the first, counted among the key frames; -1 where there is none


def runs_of(numbers: NDArray[np.int64], facts: Facts) -> list[Run]:
    """Return the runs that give these frames, rising, of a video whose stamps are known."""
    assert facts.ticks is not None
    wanted, stamps = numbers.tolist(), facts.ticks.of_frames(numbers).tolist()
    keys = (np.searchsorted(facts.key_frames, numbers, side="right") - 1).tolist()
    runs, start = [], 0
    for i in range(1, len(wanted) + 1):
        if i == len(wanted) or seek_helps(wanted[i - 1], keys[i], facts):
            runs.append(Run(wanted[start:i], stamps[start:i], keys[start]))
            start = i
    return runs


def seek_helps(last: int, key: int, facts: Facts) -> bool:
    """Say whether a seek to a key frame is cheaper than decoding on from the last frame wanted."""
    return key >= 0 and int(facts.key_frames[key]) - last > _WORTH_A_SEEK


def in_order(ticks: Ticks | None) -> bool:
    """Say whether frames come out in the order of their stamps.

    Where they do not (MPEG-4 in AVI with packed B-frames), a decoder that skips gives a frame the stamp of another:
    in `Megamind.avi` a third of the frames, each asked for alone, were the one after.
    """
    return ticks is not None and (ticks.listed is None or bool((np.diff(ticks.listed) > 0).all()))
