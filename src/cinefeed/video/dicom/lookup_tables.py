"""Lookup tables in DICOM headers: palettes, and the Modality LUT."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.errors import SourceError
from cinefeed.video.dicom.header import Elements, Header
from cinefeed.video.dicom.pixels import Image

_COLOURS = ("Red", "Green", "Blue")
_DESCRIPTOR = "RedPaletteColorLookupTableDescriptor"  # those of green and blue are the same (PS3.3 C.7.6.3.1.5)
TABLES = [
    _DESCRIPTOR,
    *(f"{prefix}{colour}PaletteColorLookupTableData" for prefix in ("", "Segmented") for colour in _COLOURS),
    *"Modality ModalityLUTSequence LUTDescriptor LUTData".split(),
]
_DISCRETE, _LINEAR, _INDIRECT = 0, 1, 2  # kinds of segments
_DEEPEST = 4  # nesting of indirect segments


class Table(NamedTuple):
    """A lookup table for stored numbers: `values[0]` is the value of the number `first`."""

    first: int
    values: NDArray[Any]  # (entries, 3) uint8 or uint16 colours, or (entries,) float32
    bits: int  # of a value

    def look_up(self, numbers: NDArray[Any]) -> NDArray[Any]:
        """Return the values of stored numbers; numbers outside the table get the value of its nearest end."""
        entries: NDArray[Any] = self.values[np.clip(numbers.astype(np.int64) - self.first, 0, len(self.values) - 1)]
        return entries


def table_of(header: Header, image: Image, *, path: Path) -> Table | None:
    """Return the lookup table of a file's pixels, None if there is none.

    Raises SourceError if it is invalid.
    """
    try:
        if image.photometric == "PALETTE COLOR":
            return _palette(header, image)
        item = header.first("ModalityLUTSequence")
        # The table of X-ray angiography converts to exposure, and is not used for display (PS3.3 C.11.1).
        if item is None or image.samples != 1 or header.text("Modality") in ("XA", "RF"):
            return None
        count, first, bits = _described(item, "LUTDescriptor", image)
        values = _entries(item, "LUTData", count=count, bits=bits)
        return Table(first, values.astype(np.float32), bits)
    except ValueError as error:
        raise SourceError(f"{path}: the lookup table of its pixels cannot be read: {error}") from None


def _palette(header: Header, image: Image) -> Table:
    count, first, bits = _described(header, _DESCRIPTOR, image)
    columns = []
    for colour in _COLOURS:
        name = f"{colour}PaletteColorLookupTableData"
        if name not in header.values and f"Segmented{name}" in header.values:
            columns.append(_from_segments(header, f"Segmented{name}", count=count, bits=bits))
        else:
            columns.append(_entries(header, name, count=count, bits=bits))
    if len({column.dtype for column in columns}) > 1:
        raise ValueError("its colours have entries of 8 and of 16 bits")
    return Table(first, np.stack(columns, axis=-1), 8 * columns[0].itemsize)


def _described(elements: Elements, keyword: str, image: Image) -> tuple[int, int, int]:
    """Return the number of entries, the number of the first entry, and the bits of an entry."""
    descriptor = [int(number) for number in elements.numbers(keyword)]
    if len(descriptor) != 3:
        raise ValueError(
            "no palette describes its entries" if "Palette" in keyword else "its entries are not described"
        )
    count, first, bits = descriptor
    first %= 1 << 16
    if image.signed and first >= 1 << 15:
        first -= 1 << 16
    if not 0 < bits <= 16:
        raise ValueError(f"its entries have {bits} bits; 8 to 16 can be read")
    return count % (1 << 16) or 1 << 16, first, bits


def _entries(elements: Elements, keyword: str, *, count: int, bits: int) -> NDArray[Any]:
    """Return the entries of a table, uint8 or uint16: 8-bit entries may be stored as bytes or as words."""
    data = elements.values.get(keyword, ("", b""))[1]
    if len(data) >= 2 * count:
        words = np.frombuffer(data, elements.order + "u2", count=count).astype(np.uint16)
        if bits > 8:
            return words
        return (words >> 8 if words.max() > 255 else words).astype(np.uint8)
    if len(data) < count:
        raise ValueError(f"it has {len(data)} bytes for {count} entries")
    return _octets(elements, keyword)[:count]


def _octets(elements: Elements, keyword: str) -> NDArray[np.uint8]:
    """Return data as bytes in the order of the entries: the low byte of a word first, whatever its byte order."""
    vr, data = elements.values[keyword]
    octets = np.frombuffer(data, np.uint8)
    if elements.order == ">" and vr != "OB":
        octets = octets[: len(octets) // 2 * 2].reshape(-1, 2)[:, ::-1].reshape(-1)
    return octets


def _from_segments(elements: Elements, keyword: str, *, count: int, bits: int) -> NDArray[Any]:
    """Return the entries of a palette that is stored as segments (PS3.3 C.7.9.2)."""
    words = bits > 8
    data = elements.values[keyword][1]
    codes = np.frombuffer(data[: len(data) // 2 * 2], elements.order + "u2") if words else _octets(elements, keyword)
    entries: list[int] = []
    try:
        _expand(codes.tolist(), 0, None, entries, words=words, limit=count, depth=0)
    except IndexError:
        raise ValueError("a segment breaks off") from None
    if len(entries) != count:
        raise ValueError(f"its segments have {len(entries)} of {count} entries")
    return np.array(entries, np.uint16 if words else np.uint8)


def _expand(
    codes: list[int], at: int, segments: int | None, entries: list[int], *, words: bool, limit: int, depth: int
) -> None:
    """Append the entries of some segments, or of all up to the end; a trailing padding byte is ignored."""
    if depth > _DEEPEST:
        raise ValueError(f"its segments are nested more than {_DEEPEST} times")
    while at + 1 < len(codes) if segments is None else segments > 0:
        kind, length = codes[at], codes[at + 1]
        at += 2
        if depth and not length:  # nested empty segments would take unlimited time
            raise ValueError(f"an empty segment of kind {kind} is nested in another")
        if kind == _DISCRETE:
            if at + length > len(codes):
                raise IndexError
            entries += codes[at : at + length]
            at += length
        elif kind == _LINEAR and entries and length:
            start, end = entries[-1], codes[at]
            entries += np.rint(np.linspace(start + (end - start) / length, end, length)).astype(int).tolist()
            at += 1
        elif kind == _INDIRECT and entries:
            parts = codes[at : at + (2 if words else 4)]
            offset = sum(part << (16 if words else 8) * i for i, part in enumerate(parts)) // (2 if words else 1)
            at += len(parts)
            _expand(codes, offset, length, entries, words=words, limit=limit, depth=depth + 1)
        else:
            raise ValueError(f"a segment of kind {kind} with {length} entries is not valid there")
        if len(entries) > limit:
            raise ValueError(f"its segments have more than {limit} entries")
        segments = None if segments is None else segments - 1
