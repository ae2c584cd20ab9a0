"""Damage that a decoder hides: FFmpeg shows something in place of what it cannot decode, and marks the frame.

What it shows depends on what it decoded before, and the frames after refer to it. So a marked frame damages all frames
up to the next key frame, and none of them is what the file held.
"""

from collections.abc import Sequence

import av
import numpy as np
from numpy.typing import NDArray

from cinefeed.errors import DecodeError
from cinefeed.kernels import compiled
from cinefeed.sources.base import NONE_DAMAGED

# What is known of the frames that a decoder puts out. After a seek into intra refresh, whose key frames are P frames,
# FFmpeg marks frames until the picture is whole again: that is RECOVERING, and no damage.
UNKNOWN, SOUND, DAMAGED, RECOVERING = range(4)
_INTER = (2, 3)  # AV_PICTURE_TYPE_P, _B
# Codecs of which what a damaged header has set holds for later key frames too.
_KEEPING_HEADERS = frozenset({"mpeg4"})
_MOST_REORDERED = 32  # frames that a decoder may hold back; H.264 and HEVC allow 16


def _next_state(state: int, corrupt: bool, key: bool, inter: bool) -> int:
    """Return the state after a frame: is it marked as corrupt, is it a key frame, does it need other frames?"""
    if corrupt:
        if state == UNKNOWN:
            return (RECOVERING if inter else DAMAGED) if key else UNKNOWN
        return RECOVERING if state == RECOVERING else DAMAGED
    if state == DAMAGED:
        return SOUND if key and not inter else DAMAGED
    return UNKNOWN if state == UNKNOWN and not key else SOUND


next_state = compiled(_next_state)  # for decoding loops that are compiled


class Soundness:
    """Follows the frames of one decoder; begun at the start of a file, or by a seek."""

    def __init__(self, *, at_start: bool) -> None:
        self._state = SOUND if at_start else UNKNOWN

    @property
    def damaged(self) -> bool:
        """Whether the last frame was marked, or one since the last key frame."""
        return self._state == DAMAGED

    def after(self, frame: av.VideoFrame) -> bool:
        """Return whether a frame, the next that the decoder put out, is what the file holds."""
        corrupt, key = frame.is_corrupt, bool(frame.key_frame)
        if corrupt or self._state != SOUND:
            inter = key and int(frame.pict_type) in _INTER
            self._state = _next_state(self._state, corrupt, key, inter)
        return self._state == SOUND


class DamageLog:
    """Notes what is damaged in a pass over all frames of a file, from its start."""

    def __init__(self, codec: str) -> None:
        self._lasts = codec in _KEEPING_HEADERS
        self.stamps: list[int | None] = []  # of the frames
        self._sent: list[int | None] = []  # stamps of the packets
        self._damaged: list[int] = []
        self._soundness = Soundness(at_start=True)

    def send(self, stamp: int | None) -> None:
        """Note that a packet goes to the decoder."""
        self._sent.append(stamp)

    def take(self, frame: av.VideoFrame) -> None:
        """Note a frame that the decoder put out."""
        if not self._soundness.after(frame):
            self._damaged.append(len(self.stamps))
        self.stamps.append(frame.pts)

    def ranges(self) -> NDArray[np.int32]:
        """Return the ranges of damaged frames, as `damaged_ranges` does."""
        if not self._damaged:
            return NONE_DAMAGED
        orders = {stamp: order for order, stamp in enumerate(self._sent) if stamp is not None}
        damaged = range(self._damaged[0], len(self.stamps)) if self._lasts else self._damaged
        return damaged_ranges(damaged, [None if stamp is None else orders.get(stamp) for stamp in self.stamps])


def damaged_ranges(damaged: Sequence[int], orders: Sequence[int | None]) -> NDArray[np.int32]:
    """Return the ranges of damaged frames, (n, 2): the first of each, and the one after its last.

    `damaged` are the numbers of frames, rising, that were not sound when they came out, and `orders[n]` is the place of
    frame n among the packets. A range begins earlier where frames that came out before were decoded after.

    >>> damaged_ranges([2, 3, 7], [0, 2, 1, 3, 4, 5, 6, 7]).tolist()
    [[1, 4], [7, 8]]
    """
    numbers = np.asarray(damaged, np.int32)
    begins = numbers[np.diff(numbers, prepend=-2) > 1]
    ends = numbers[np.diff(numbers, append=np.iinfo(np.int32).max) > 1] + 1
    for i, begin in enumerate(begins.tolist()):
        order = orders[begin]
        earlier = range(max(begin - _MOST_REORDERED, 0), begin)
        later_decoded = (n for n in earlier if order is not None and (orders[n] or 0) > order)
        begins[i] = min(later_decoded, default=begin)
    return np.stack([begins, ends], axis=1)


def damaged_among(numbers: NDArray[np.int64], ranges: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return which of these frames lie in a range of damaged ones."""
    within = (numbers[:, None] >= ranges[:, 0]) & (numbers[:, None] < ranges[:, 1])
    return np.asarray(within.any(axis=1), np.bool_)


def damage_error(path: object, number: int) -> DecodeError:
    """Return the error of a read that asked for a damaged frame."""
    return DecodeError(
        f"{path}: asked for frame {number}, which is damaged: parts of it, or of a frame that it refers to, cannot be "
        "decoded, and what FFmpeg shows there is made up; get the file again, leave the video out, or scan with "
        "Reading(on_damage='conceal') (--on-damage conceal)"
    )
