"""Frames asked of a video, by the stretches that are decoded one after the other."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cinefeed.kernels import compiled
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
    frames, stamps = numbers.tolist(), facts.ticks.of_frames(numbers).tolist()
    key_frames = facts.key_frames.astype(np.int64)
    keys = (np.searchsorted(key_frames, numbers, side="right") - 1).tolist()
    runs, begin = [], 0
    while begin < len(frames):
        end = end_of_run(numbers, begin, key_frames)
        runs.append(Run(frames[begin:end], stamps[begin:end], keys[begin]))
        begin = end
    return runs


@compiled
def end_of_run(numbers: NDArray[np.int64], begin: int, key_frames: NDArray[np.int64]) -> int:
    """Return the place after the last of the frames, rising, that are decoded in one go from the one at `begin` on."""
    end = begin + 1
    while end < numbers.size:
        key = np.searchsorted(key_frames, numbers[end], side="right") - 1
        if seek_helps(numbers[end - 1], key, key_frames):
            break
        end += 1
    return int(end)


@compiled
def seek_helps(last: int, key: int, key_frames: NDArray[np.int64]) -> bool:
    """Say whether a seek to a key frame, by its place among them, is cheaper than to decode on from a frame."""
    return bool(key >= 0 and key_frames[key] - last > _WORTH_A_SEEK)


def in_order(ticks: Ticks | None) -> bool:
    """Say whether frames come out in the order of their stamps.

    Where they do not (MPEG-4 in AVI with packed B-frames), a decoder that skips gives a frame the stamp of another:
    in `Megamind.avi` a third of the frames, each asked for alone, were the one after.
    """
    return ticks is not None and (ticks.listed is None or bool((np.diff(ticks.listed) > 0).all()))
