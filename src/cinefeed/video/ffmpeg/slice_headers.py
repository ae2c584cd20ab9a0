"""The headers of H.264 slices: numbers of pictures, which FFmpeg has no function to return."""

from collections.abc import Iterator
from typing import NamedTuple

import av

SLICES, IDR, SPS = frozenset({1, 2, 5}), 5, 7  # types of NAL units
_REFERENCE = 0x60  # bits of the first byte of a unit; zero if no other picture refers to it
_SLICE_BYTES = 32  # of a slice; the numbers are among the first 20
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
        return int(self._bits[self._at - count : self._at], 2) if count else 0

    def varying(self) -> int:
        """Return an unsigned number in Exp-Golomb code."""
        return self.fixed(2 * (self._bits.index("1", self._at) - self._at) + 1) - 1

    def signed(self) -> int:
        """Return a signed number in Exp-Golomb code."""
        code = self.varying()
        return (code + 1) // 2 if code % 2 else -(code // 2)


class Sequence(NamedTuple):
    """Parameters of a sequence that the numbers in the headers of slices depend on."""

    number_bits: int
    order_type: int
    order_bits: int  # 0 unless the order is stated in slices
    allows_gaps: bool
    separate_planes: bool
    has_fields: bool


class Slice(NamedTuple):
    """The numbers in the header of a slice."""

    is_idr: bool
    is_reference: bool
    first_macroblock: int
    number: int  # frame_num: the number of reference pictures before it, modulo a power of two
    is_field: bool
    order: int  # pic_order_cnt_lsb: its place in the order of display, modulo a power of two


class SliceHeaders:
    """Parses the headers of slices in the packets of one H.264 stream, in decode order."""

    def __init__(self, stream: av.VideoStream) -> None:
        header = stream.codec_context.extradata or b""
        self._sequences: dict[int, Sequence] = {}
        self._is_replaced = False  # by parameters beside a packet
        self._length_bytes = (header[4] & 3) + 1 if header[:1] == b"\1" and len(header) > 6 else 0
        for unit in _listed_units(header) if self._length_bytes else self._units(header):
            self._read_parameters(unit)

    @property
    def sequence(self) -> Sequence | None:
        """The parameters of the stream; None if there are several sets of them, or they cannot be parsed."""
        sequences = set(self._sequences.values())
        return sequences.pop() if len(sequences) == 1 and not self._is_replaced else None

    def slices(self, packet: "av.Packet[av.VideoStream]") -> Iterator[Slice | None]:
        """Yield the slices of a packet, None for each that cannot be parsed."""
        self._is_replaced = self._is_replaced or packet.has_sidedata("new_extradata")
        for unit in self._units(memoryview(packet)):
            self._read_parameters(unit)
            if unit[0] & 31 in SLICES:
                sequence = self.sequence
                yield None if sequence is None else _slice_of(unit, sequence)

    def _read_parameters(self, unit: bytes) -> None:
        if unit[0] & 31 == SPS:
            try:
                number, sequence = _sequence_of(unit)
            except ValueError:
                return
            self._sequences[number] = sequence

    def _units(self, data: bytes | memoryview) -> Iterator[bytes]:
        """Yield the NAL units of a packet, slices cut off after their header."""
        at, end = 0, len(data)
        if not self._length_bytes:
            whole = bytes(data)
            while (at := whole.find(b"\0\0\1", at) + 3) > 2 and at < end:
                is_short = whole[at] & 31 in SLICES
                next_start = whole.find(b"\0\0\1", at)
                yield whole[at : at + _SLICE_BYTES if is_short or next_start < 0 else next_start]
            return
        while at + self._length_bytes < end:
            size = int.from_bytes(data[at : at + self._length_bytes])
            at += self._length_bytes
            is_short = data[at] & 31 in SLICES
            if size:
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


def _sequence_of(unit: bytes) -> tuple[int, Sequence]:
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
    number_bits, order_type = bits.varying() + 4, bits.varying()
    order_bits = bits.varying() + 4 if order_type == 0 else 0
    if order_type == 1:
        bits.fixed(1), bits.signed(), bits.signed()
        for _ in range(bits.varying()):
            bits.signed()
    bits.varying()  # the number of reference pictures
    allows_gaps = bool(bits.fixed(1))
    bits.varying(), bits.varying()  # width, height
    return number, Sequence(number_bits, order_type, order_bits, allows_gaps, separate_planes, not bits.fixed(1))


def _skip_matrix(bits: _Bits, size: int) -> None:
    """Skip a scaling matrix, whose entries are stored as differences."""
    last = following = 8
    for _ in range(size if bits.fixed(1) else 0):
        if following:
            following = (last + bits.signed()) % 256
        last = following or last


def _slice_of(unit: bytes, sequence: Sequence) -> Slice | None:
    """Return the numbers in the header of a slice, None if it ends too early."""
    bits, is_idr = _Bits(unit[:_SLICE_BYTES]), unit[0] & 31 == IDR
    try:
        first_macroblock = bits.varying()
        bits.varying(), bits.varying()  # type, picture parameters
        if sequence.separate_planes:
            bits.fixed(2)
        number = bits.fixed(sequence.number_bits)
        is_field = sequence.has_fields and bool(bits.fixed(1))
        if is_field:
            bits.fixed(1)
        if is_idr:
            bits.varying()
        order = bits.fixed(sequence.order_bits)
    except ValueError:
        return None
    return Slice(is_idr, bool(unit[0] & _REFERENCE), first_macroblock, number, is_field, order)
