"""Detection of pictures that are missing from an H.264 stream, by the numbers in the headers of its slices.

FFmpeg decodes the picture after a missing one with another reference, and marks nothing. But `frame_num` is at most
one more than that of the previous reference picture, unless the stream declares that it has gaps.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

import av
from av.bitstream import BitStreamFilterContext

from cinefeed.video.ffmpeg.messages import messages_of_level

_SLICES, _IDR, _SPS = frozenset({1, 2, 5}), 5, 7  # types of NAL units
_REFERENCE = 0x60  # bits of the first byte of a unit; zero if no other picture refers to it
_OPERATION = "memory_management_control_operation"
_SLICE_BYTES = 32  # of a slice; the number is among the first 12
_MOST_BYTES = 1024  # of a parameter set
_WITH_CHROMA_FORMAT = frozenset({44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244})  # profiles


class _Bits:
    """A reader of the bits of a NAL unit, after its first byte. Raises ValueError at the end."""

    def __init__(self, unit: bytes) -> None:
        payload = unit[1:_MOST_BYTES].replace(b"\0\0\3", b"\0\0")
        self._bits = bin(int.from_bytes(b"\1" + payload))[3:]
        self._at = 0

    def fixed(self, count: int) -> int:
        """Return an unsigned number of `count` bits."""
        self._at += count
        if self._at > len(self._bits):
            raise ValueError("the unit ends")
        return int(self._bits[self._at - count : self._at], 2)

    def varying(self) -> int:
        """Return an unsigned number in Exp-Golomb code."""
        return self.fixed(2 * (self._bits.index("1", self._at) - self._at) + 1) - 1

    def signed(self) -> int:
        """Return a signed number in Exp-Golomb code."""
        code = self.varying()
        return (code + 1) // 2 if code % 2 else -(code // 2)


class _Sequence(NamedTuple):
    """Parameters of a sequence that its numbers depend on."""

    number_bits: int
    allows_gaps: bool
    separate_planes: bool


class PictureNumbers:
    """Tracks the picture numbers of one H.264 stream, in decode order."""

    def __init__(self, stream: av.VideoStream) -> None:
        header = stream.codec_context.extradata or b""
        self._stream = stream
        self._reference = b""  # the last packet with a reference picture
        self._sequences: dict[int, _Sequence] = {}
        self._last_reference: int | None = None
        self._is_known = True  # the parameters of the stream
        self._length_bytes = (header[4] & 3) + 1 if header[:1] == b"\1" and len(header) > 6 else 0
        for unit in _listed_units(header) if self._length_bytes else self._units(header):
            self._read_parameters(unit)

    def follows_gap(self, packet: "av.Packet[av.VideoStream]") -> bool:
        """Return whether a reference picture is missing before the picture of a packet.

        Streams with several sets of parameters are not checked.
        """
        self._is_known = self._is_known and not packet.has_sidedata("new_extradata")
        for unit in self._units(memoryview(packet)) if self._is_known else ():
            self._read_parameters(unit)
            if unit[0] & 31 in _SLICES:
                follows_gap = self._is_known and self._follows_gap(unit)
                if unit[0] & _REFERENCE:
                    self._reference = bytes(packet)
                return follows_gap
        return False

    def _follows_gap(self, unit: bytes) -> bool:
        if not self._sequences:
            return False
        sequence, last, is_idr = next(iter(self._sequences.values())), self._last_reference, unit[0] & 31 == _IDR
        try:
            number = 0 if is_idr else _number_of(unit, sequence)
        except ValueError:
            self._last_reference = None
            return False
        if unit[0] & _REFERENCE or last is None:
            self._last_reference = number
        if is_idr or last is None or sequence.allows_gaps:
            return False
        if number in (last, (last + 1) % (1 << sequence.number_bits)):
            return False
        return number > 1 or not _resets_numbers(self._reference, self._stream)

    def _read_parameters(self, unit: bytes) -> None:
        if unit[0] & 31 == _SPS:
            try:
                number, sequence = _sequence_of(unit)
            except ValueError:
                return
            self._sequences[number] = sequence
            self._is_known = len(set(self._sequences.values())) == 1

    def _units(self, data: bytes | memoryview) -> Iterator[bytes]:
        """Yield the NAL units of a packet, slices cut off after their header."""
        at, end = 0, len(data)
        if not self._length_bytes:
            whole = bytes(data)
            while (at := whole.find(b"\0\0\1", at) + 3) > 2 and at < end:
                is_short = whole[at] & 31 in _SLICES
                next_start = whole.find(b"\0\0\1", at)
                yield whole[at : at + _SLICE_BYTES if is_short or next_start < 0 else next_start]
            return
        while at + self._length_bytes < end:
            size = int.from_bytes(data[at : at + self._length_bytes])
            at += self._length_bytes
            is_short = data[at] & 31 in _SLICES
            yield bytes(data[at : at + (min(size, _SLICE_BYTES) if is_short else size)])
            at += size


def _listed_units(header: bytes) -> Iterator[bytes]:
    """Yield the sequence parameter sets in the header of an MP4 or Matroska file."""
    at = 6
    for _ in range(header[5] & 31):
        size = int.from_bytes(header[at : at + 2])
        if unit := header[at + 2 : at + 2 + size]:
            yield unit
        at += 2 + size


def _sequence_of(unit: bytes) -> tuple[int, _Sequence]:
    """Return the number of a sequence parameter set, and its content."""
    bits = _Bits(unit)
    profile = bits.fixed(8)
    bits.fixed(16)
    number, separate_planes = bits.varying(), False
    if profile in _WITH_CHROMA_FORMAT:
        chroma_format = bits.varying()
        separate_planes = chroma_format == 3 and bool(bits.fixed(1))
        bits.varying(), bits.varying(), bits.fixed(1)  # bit depths, lossless
        if bits.fixed(1):
            for matrix in range(12 if chroma_format == 3 else 8):
                _skip_matrix(bits, 16 if matrix < 6 else 64)
    number_bits = bits.varying() + 4
    order_type = bits.varying()
    if order_type == 0:
        bits.varying()
    elif order_type == 1:
        bits.fixed(1), bits.signed(), bits.signed()
        for _ in range(bits.varying()):
            bits.signed()
    bits.varying()  # the number of reference pictures
    return number, _Sequence(number_bits, bool(bits.fixed(1)), separate_planes)


def _resets_numbers(packet: bytes, stream: av.VideoStream) -> bool:
    """Return whether the picture after a packet is numbered 1 (or 0, its second field) whatever its own number is.

    FFmpeg's filter reports the fields of headers as messages only.
    """
    with suppress(av.FFmpegError), messages_of_level(av.logging.INFO), av.logging.Capture() as messages:
        BitStreamFilterContext("trace_headers", stream).filter(av.Packet(packet))
    return any(_OPERATION in text and text.rstrip().endswith("= 5") for _, _, text in messages)


def _skip_matrix(bits: _Bits, size: int) -> None:
    """Skip a scaling matrix, whose entries are stored as differences."""
    last = following = 8
    for _ in range(size if bits.fixed(1) else 0):
        if following:
            following = (last + bits.signed()) % 256
        last = following or last


def _number_of(unit: bytes, sequence: _Sequence) -> int:
    """Return the `frame_num` of a slice."""
    bits = _Bits(unit[:_SLICE_BYTES])
    bits.varying(), bits.varying(), bits.varying()  # first macroblock, type, picture parameters
    if sequence.separate_planes:
        bits.fixed(2)
    return bits.fixed(sequence.number_bits)
