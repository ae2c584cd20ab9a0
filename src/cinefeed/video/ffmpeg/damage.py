"""Damage that a decoder hides: FFmpeg substitutes parts that it cannot decode, and marks the frame.

The substitute depends on what was decoded before, and later frames refer to it. So a marked frame damages all frames
up to the next key frame; none of them has the pixels of the file.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence, Set

import av
import numpy as np
from numpy.typing import NDArray

from cinefeed.core.compiled import compiled
from cinefeed.core.errors import DecodeError
from cinefeed.video.metadata import NO_DAMAGE

# States of a decoder's output. After a seek into intra refresh, whose key frames are P frames, FFmpeg marks frames
# until the picture is complete again: that is RECOVERING, not damage.
UNKNOWN, SOUND, DAMAGED, RECOVERING = range(4)
_INTER = (2, 3)  # AV_PICTURE_TYPE_P, _B
# Codecs whose damaged headers affect later key frames too.
_KEEPING_HEADERS = frozenset({"mpeg4"})


def _next_state(state: int, corrupt: bool, key: bool, inter: bool) -> int:
    """Return the state after a frame that is marked `corrupt`, is a `key` frame, or needs other frames (`inter`)."""
    if corrupt:
        if state == UNKNOWN:
            return (RECOVERING if inter else DAMAGED) if key else UNKNOWN
        return RECOVERING if state == RECOVERING else DAMAGED
    if state == DAMAGED:
        return SOUND if key and not inter else DAMAGED
    return UNKNOWN if state == UNKNOWN and not key else SOUND


next_state = compiled(_next_state)  # for compiled decoding loops


class Soundness:
    """Tracks whether the frames of one decoder are undamaged, from the start of a file or from a seek."""

    def __init__(self, *, at_start: bool) -> None:
        self._state = SOUND if at_start else UNKNOWN

    @property
    def is_damaged(self) -> bool:
        """Whether the last frame, or any since the last key frame, was marked."""
        return self._state == DAMAGED

    def after(self, frame: av.VideoFrame) -> bool:
        """Return whether the next frame of the decoder has the pixels of the file."""
        corrupt, key = frame.is_corrupt, bool(frame.key_frame)
        if corrupt or self._state != SOUND:
            inter = key and int(frame.pict_type) in _INTER
            self._state = _next_state(self._state, corrupt, key, inter)
        return self._state == SOUND


class DamageLog:
    """Records damage in a pass over all frames of a file, from its start."""

    def __init__(self, codec: str) -> None:
        self._lasts = codec in _KEEPING_HEADERS
        self.stamps: list[int | None] = []  # of the frames
        self._packet_stamps: list[int | None] = []  # in decode order
        self._marked: set[int] = set()
        self._marked_stamps: set[int | None] = set()
        self._whole: set[int] = set()  # frames that need no others
        self._gaps: list[int] = []  # places of packets before which pictures are missing

    def send(self, stamp: int | None) -> None:
        """Record a packet that is sent to the decoder."""
        self._packet_stamps.append(stamp)

    def take(self, frame: av.VideoFrame) -> None:
        """Record a frame from the decoder."""
        if frame.is_corrupt:
            self._marked.add(len(self.stamps))
        elif frame.key_frame and int(frame.pict_type) not in _INTER:
            self._whole.add(len(self.stamps))
        self.stamps.append(frame.pts)

    def mark_gap(self) -> None:
        """Note that pictures are missing before the last packet."""
        self._gaps.append(len(self._packet_stamps) - 1)

    def mark_stamp(self, stamp: int | None) -> None:
        """Note that the frame of a packet is damaged though the decoder does not mark it."""
        self._marked_stamps.add(stamp)

    def mark(self, numbers: Iterable[int]) -> None:
        """Note frames that are damaged though the decoder did not mark them."""
        self._marked.update(numbers)

    def ranges(self) -> NDArray[np.int32]:
        """Return the ranges of damaged frames, as `damaged_ranges` does."""
        if self._marked_stamps:
            self._marked.update(n for n, stamp in enumerate(self.stamps) if stamp in self._marked_stamps)
        if not self._marked and not self._gaps:
            return NO_DAMAGE
        if self._lasts:
            return damaged_ranges({min(self._marked)}, set(), [None] * len(self.stamps))
        places, decoded = self._places(), self._decoded()
        after_gaps = {decoded[i][1] for gap in self._gaps if (i := bisect_left(decoded, (gap, 0))) < len(decoded)}
        return damaged_ranges(self._marked, self._whole - self._marked, places, after_gaps)

    def count_left_out(self) -> int:
        """Return the number of packets after gaps for which the decoder returned no frame."""
        places = [place for place, _ in self._decoded()]
        ends = [
            places[i] if (i := bisect_left(places, gap)) < len(places) else len(self._packet_stamps)
            for gap in self._gaps
        ]
        left_out = {place for gap, end in zip(self._gaps, ends, strict=True) for place in range(gap, end)}
        return sum(self._packet_stamps[place] is not None for place in left_out)

    def _places(self) -> list[int | None]:
        """Return the place of each frame among the packets."""
        orders = {stamp: order for order, stamp in enumerate(self._packet_stamps) if stamp is not None}
        return [None if stamp is None else orders.get(stamp) for stamp in self.stamps]

    def _decoded(self) -> list[tuple[int, int]]:
        """Return place and number of the frames, in decode order."""
        return sorted((place, number) for number, place in enumerate(self._places()) if place is not None)


def damaged_ranges(
    marked: Set[int], whole: Set[int], orders: Sequence[int | None], after_gaps: Set[int] = frozenset()
) -> NDArray[np.int32]:
    """Return the ranges of damaged frames, (n, 2): first and end (exclusive).

    `marked` are the numbers of frames that the decoder marked, `whole` those of key frames that need no other frames,
    and `orders[n]` is the position of frame n among the packets. A marked frame damages the frames displayed after it
    and the frames decoded after it, up to the next of `whole`; later frames may need those displayed before a key frame
    and decoded after it. A gap of missing pictures before one of `after_gaps` damages it likewise, unless it is one of
    `whole`.

    >>> damaged_ranges({2, 7}, {0, 4}, [0, 2, 1, 3, 4, 5, 6, 7, 8]).tolist()
    [[1, 4], [7, 9]]
    """
    decode_order = sorted((n for n, order in enumerate(orders) if order is not None), key=lambda n: orders[n] or 0)
    damage_flags = np.zeros(len(orders) + 2, np.int8)
    for numbers in (range(len(orders)), decode_order):
        is_damaged, was_damaged, key = False, False, -1
        for number in numbers:
            is_damaged = is_damaged or number in after_gaps
            if number in whole:
                is_damaged, was_damaged, key = False, is_damaged, number
            is_damaged = is_damaged or number in marked
            # Frames decoded after a key frame and shown before it may refer to frames before it.
            damage_flags[number + 1] |= is_damaged or (was_damaged and number < key)
    return np.flatnonzero(np.diff(damage_flags)).astype(np.int32).reshape(-1, 2)


def damaged_among(numbers: NDArray[np.int64], ranges: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return a mask of the frames that lie in a damaged range."""
    within = (numbers[:, None] >= ranges[:, 0]) & (numbers[:, None] < ranges[:, 1])
    return np.asarray(within.any(axis=1), np.bool_)


def damage_error(path: object, number: int) -> DecodeError:
    """Return the error for a read of a damaged frame."""
    return DecodeError(
        f"{path}: asked for frame {number}, which is damaged: parts of it, or of a frame that it refers to, cannot be "
        "decoded, and FFmpeg replaces them by made-up pixels; get the file again, leave the video out, or scan with "
        "ReadOptions(on_damage='conceal') (--on-damage conceal)"
    )
