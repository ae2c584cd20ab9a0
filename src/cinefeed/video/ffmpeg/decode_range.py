"""Division of requested frames into runs that are decoded without a seek."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.compiled import compiled
from cinefeed.video.metadata import VideoMetadata
from cinefeed.video.timestamps import Timestamps

_WORTH_A_SEEK = 2  # frames; a seek costs as much as decoding one frame of 112 x 112


class DecodeRange(NamedTuple):
    """Requested frames that are decoded in one run."""

    numbers: list[int]
    stamps: list[int]
    key: int  # index of the key frame before the first, among the key frames; -1 if there is none


def runs_of(numbers: NDArray[np.int64], metadata: VideoMetadata) -> list[DecodeRange]:
    """Return the runs of these frames, in ascending order, of a video with timestamps."""
    assert metadata.ticks is not None
    frames, stamps = numbers.tolist(), metadata.ticks.of_frames(numbers).tolist()
    key_frames = metadata.key_frames.astype(np.int64)
    keys = (np.searchsorted(key_frames, numbers, side="right") - 1).tolist()
    runs, begin = [], 0
    while begin < len(frames):
        end = end_of_run(numbers, begin, key_frames)
        runs.append(DecodeRange(frames[begin:end], stamps[begin:end], keys[begin]))
        begin = end
    return runs


@compiled
def end_of_run(numbers: NDArray[np.int64], begin: int, key_frames: NDArray[np.int64]) -> int:
    """Return the index after the last of the ascending frames that are decoded in one run from `begin` on."""
    end = begin + 1
    while end < numbers.size:
        key = np.searchsorted(key_frames, numbers[end], side="right") - 1
        if seek_helps(numbers[end - 1], key, key_frames):
            break
        end += 1
    return int(end)


@compiled
def seek_helps(last: int, key: int, key_frames: NDArray[np.int64]) -> bool:
    """Return whether seeking to key frame number `key` is cheaper than decoding on from frame `last`."""
    return bool(key >= 0 and key_frames[key] - last > _WORTH_A_SEEK)


def in_order(ticks: Timestamps | None) -> bool:
    """Return whether frames are decoded in the order of their timestamps.

    If not (MPEG-4 in AVI with packed B-frames), a decoder that skips gives a frame the timestamp of another: in
    `Megamind.avi` a third of the frames, requested one by one, were the next frame.
    """
    return ticks is not None and (ticks.listed is None or bool((np.diff(ticks.listed) > 0).all()))
