"""Detection of pictures that are missing from an H.264 stream, or not displayed, by the numbers in slice headers.

FFmpeg decodes the picture after a missing one with another reference, and marks nothing. But `frame_num` is at most
one more than that of the previous reference picture, unless the stream declares that it has gaps. It drops a picture
that comes after one to be displayed later.
"""

from contextlib import suppress
from itertools import pairwise

import av
from av.bitstream import BitStreamFilterContext

from cinefeed.video.ffmpeg.messages import messages_of_level
from cinefeed.video.ffmpeg.slice_headers import Sequence, Slice, SliceHeaders

_OPERATION = "memory_management_control_operation"


class PictureNumbers:
    """Tracks the picture numbers of one H.264 stream, in decode order, to find missing pictures.

    Streams with several sets of parameters are not checked.
    """

    def __init__(self, stream: av.VideoStream) -> None:
        self._stream, self._headers = stream, SliceHeaders(stream)
        self._reference = b""  # the last packet with a reference picture
        self._last_reference: int | None = None

    def follows_gap(self, packet: "av.Packet[av.VideoStream]") -> bool:
        """Return whether a reference picture is missing before the picture of a packet."""
        header = next(self._headers.slices(packet), None)
        sequence, last, previous = self._headers.sequence, self._last_reference, self._reference
        if header is None or sequence is None:
            self._last_reference = None
            return False
        number = 0 if header.is_idr else header.number
        if header.is_reference:
            self._reference = bytes(packet)
        if header.is_reference or last is None:
            self._last_reference = number
        if header.is_idr or last is None or sequence.allows_gaps:
            return False
        if number in (last, (last + 1) % (1 << sequence.number_bits)):
            return False
        return number > 1 or not _resets_numbers(previous, self._stream)


def _resets_numbers(packet: bytes, stream: av.VideoStream) -> bool:
    """Return whether the picture after a packet is numbered 1 (or 0, its second field) whatever its own number is.

    FFmpeg's filter reports the fields of headers as messages only.
    """
    with suppress(av.FFmpegError), messages_of_level(av.logging.INFO), av.logging.Capture() as messages:
        BitStreamFilterContext("trace_headers", stream).filter(av.Packet(packet))
    return any(_OPERATION in text and text.rstrip().endswith("= 5") for _, _, text in messages)


class DisplayOrder:
    """Tracks whether each packet of one H.264 stream is one frame, displayed in the order of the timestamps."""

    def __init__(self, stream: av.VideoStream) -> None:
        self._headers = SliceHeaders(stream)
        self._last_number: int | None = None  # of a reference picture
        self._last_order = 0
        self._idr_count = 0
        self._orders: list[tuple[int, tuple[int, int]]] = []  # timestamp; IDR pictures before, and the stated order

    def is_regular(self, packet: "av.Packet[av.VideoStream]", stamp: int) -> bool:
        """Return whether a packet has one picture, a frame, whose number follows from those before it.

        A missing, repeated or damaged picture is irregular; so are a few sound ones, for example after a reset.
        """
        headers = list(self._headers.slices(packet))
        sequence, first = self._headers.sequence, headers[0] if headers else None
        if first is None or sequence is None or sequence.order_type == 1 or first.is_field or first.first_macroblock:
            return False
        if any(each is None or each._replace(first_macroblock=0) != first for each in headers[1:]):
            return False  # another picture
        last = -1 if first.is_idr else self._last_number
        if last is not None and first.number != (last + 1) % (1 << sequence.number_bits):
            return False
        if first.is_reference or last is None:
            self._last_number = first.number
        self._idr_count += first.is_idr
        self._orders.append((stamp, (self._idr_count, self._order_of(first, sequence))))
        return True

    def is_that_of_stamps(self) -> bool:
        """Return whether the pictures have the order of their timestamps."""
        orders = [order for _, order in sorted(self._orders)]
        return all(one < other for one, other in pairwise(orders))

    def _order_of(self, header: Slice, sequence: Sequence) -> int:
        """Return the place of a picture in the order of display since the last IDR picture."""
        if sequence.order_type == 2:  # as stored
            return len(self._orders)
        last, span = 0 if header.is_idr else self._last_order, 1 << sequence.order_bits
        order = last + span // 2 - (span // 2 - header.order + last) % span
        if header.is_reference:
            self._last_order = order
        return order
