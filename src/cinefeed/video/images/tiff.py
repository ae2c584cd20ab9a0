"""Pages of a TIFF file: positions, found through the links from each page to the next."""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.errors import DecodeError, SourceError

_ORDERS = {b"II": "<", b"MM": ">"}
_PLAIN, _BIG = 42, 43  # version numbers; a BigTIFF has offsets of 8 bytes
_WIDTH, _HEIGHT, _BITS, _SAMPLES, _TILE_WIDTH, _TILE_HEIGHT = _SIZE_TAGS = (256, 257, 258, 277, 322, 323)
_WHOLE = {1: "B", 3: "H", 4: "I", 16: "Q"}  # integer types
_PALETTE_SAMPLES = 3  # decoded samples of one palette index
_LARGEST_BUFFER = 2**31 - 1  # bytes in an OpenCV array


class Pages:
    """The pages of one open TIFF file. The text of a DecodeError describes a page, without the file name."""

    def __init__(self, path: Path, data: NDArray[np.uint8] | None = None) -> None:
        self.path = path
        self._places: list[int] = []  # of the pages found so far, without repeats
        self._place_set: set[int] = set()
        try:
            # Copy on write: `starting_at` changes the bytes of the first page's offset, and no others.
            self._bytes: NDArray[np.uint8] = np.memmap(path, np.uint8, mode="c") if data is None else data
        except (OSError, ValueError) as error:
            raise SourceError(f"{path}: cannot be read ({error})") from error
        start = self._bytes[:4].tobytes()
        order = _ORDERS.get(start[:2], "")
        version = struct.unpack(f"{order}2xH", start)[0] if order and len(start) == 4 else 0
        if version not in (_PLAIN, _BIG):
            raise SourceError(f"{path}: is not a TIFF file")
        self._count, self._link = (f"{order}H", f"{order}I") if version == _PLAIN else (f"{order}Q", f"{order}Q")
        self._first, self._entry_bytes = (4, 12) if version == _PLAIN else (8, 20)
        try:
            self._next = self._number(self._link, self._first)  # position of the next page, 0 for none
        except DecodeError as error:
            raise SourceError(f"{path}: ends within the first bytes of a TIFF file") from error

    def find(self, number: int) -> bool:
        """Return whether a page of this number exists. Raises DecodeError if the links break before it."""
        while len(self._places) <= number:
            place = self._next
            if place == 0:
                return False
            if place in self._place_set:
                raise DecodeError("is a repeat of an earlier page")
            entries = self._number(self._count, place)
            self._next = self._number(self._link, place + struct.calcsize(self._count) + entries * self._entry_bytes)
            self._places.append(place)
            self._place_set.add(place)
        return True

    def count(self) -> tuple[int, str | None]:
        """Return the number of pages, and the fault of the page after them."""
        try:
            while self.find(len(self._places)):
                pass
        except DecodeError as error:
            return len(self._places), str(error)
        return len(self._places), None

    def has_entry(self, tag: int) -> bool:
        """Return whether the first page has an entry with this tag."""
        return self.find(0) and any(entry[0] == tag for entry in self._entries(0))

    def decoded_bytes(self, number: int) -> int:
        """Return the bytes of a decoded page, or of one of its tiles if that is larger."""
        if not self.find(number):
            raise DecodeError(f"is not there; the file has {len(self._places)} pages")
        order, sizes = self._link[0], dict[int, int]()
        for tag, kind, count, value in self._entries(number):
            if tag in _SIZE_TAGS and kind in _WHOLE:
                form = order + _WHOLE[kind]
                if count * struct.calcsize(form) > self._first:  # the entry has the offset of the values
                    sizes[tag] = self._number(form, struct.unpack(self._link, value)[0])
                else:
                    sizes[tag] = int(struct.unpack_from(form, value)[0])
        pixel_bytes = max(sizes.get(_SAMPLES, 1), _PALETTE_SAMPLES) * -(-sizes.get(_BITS, 1) // 8)
        width, height = sizes.get(_WIDTH, 0), sizes.get(_HEIGHT, 0)
        tile = sizes.get(_TILE_WIDTH, 0) * sizes.get(_TILE_HEIGHT, 0)
        return max(width * height, tile) * pixel_bytes

    def _entries(self, number: int) -> Iterator[tuple[int, int, int, bytes]]:
        """Yield tag, type, count and value of the entries of a page, as far as they are present."""
        place = self._places[number]
        count, begin = self._number(self._count, place), place + struct.calcsize(self._count)
        data = self._bytes[begin : begin + count * self._entry_bytes].tobytes()
        data = data[: len(data) // self._entry_bytes * self._entry_bytes]
        return struct.iter_unpack(f"{self._link[0]}HH{self._link[1]}{self._first}s", data)

    def starting_at(self, number: int) -> NDArray[np.uint8] | None:
        """Return the file with this page as its first, so that decoders of single images read it directly.

        It is valid until another page is requested. None if the file is too large for OpenCV.
        """
        if not self.find(number):
            raise DecodeError(f"is not there; the file has {len(self._places)} pages")
        if self._bytes.size > _LARGEST_BUFFER:
            return None
        link = struct.pack(self._link, self._places[number])
        self._bytes[self._first : self._first + len(link)] = np.frombuffer(link, np.uint8)
        return self._bytes

    def close(self) -> None:
        """Close the file."""
        self._bytes = np.zeros(0, np.uint8)

    def _number(self, form: str, place: int) -> int:
        data = self._bytes[place : place + struct.calcsize(form)].tobytes()
        if len(data) < struct.calcsize(form):
            raise DecodeError("lies past the end of the file")
        return int(struct.unpack(form, data)[0])
