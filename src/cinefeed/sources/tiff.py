"""The pages of a TIFF file: where each lies, found by the links from one to the next."""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cinefeed.errors import DecodeError, SourceError

_ORDERS = {b"II": "<", b"MM": ">"}
_PLAIN, _BIG = 42, 43  # version numbers; a BigTIFF has offsets of 8 bytes
_WIDTH, _HEIGHT, _BITS, _SAMPLES, _TILE_WIDTH, _TILE_HEIGHT = _SIZE_TAGS = (256, 257, 258, 277, 322, 323)
_WHOLE = {1: "B", 3: "H", 4: "I", 16: "Q"}  # types of whole numbers
_PALETTE_SAMPLES = 3  # that a decoder makes of one
_LARGEST_BUFFER = 2**31 - 1  # bytes in one array of OpenCV's


class Pages:
    """The pages of one open TIFF file. DecodeErrors say what is wrong with a page, and name no file."""

    def __init__(self, path: Path, data: NDArray[np.uint8] | None = None) -> None:
        self.path = path
        self._places: list[int] = []  # of the pages found so far, each once
        self._place_set: set[int] = set()
        try:
            # A private copy of the bytes that say where the first page is, and of no others: they will be changed.
            self._bytes: NDArray[np.uint8] = np.memmap(path, np.uint8, mode="c") if data is None else data
        except (OSError, ValueError) as error:
            raise SourceError(f"{path}: cannot be read ({error})") from error
        start = self._bytes[:4].tobytes()
        order = _ORDERS.get(start[:2], "")
        version = struct.unpack(f"{order}2xH", start)[0] if order and len(start) == 4 else 0
        if version not in (_PLAIN, _BIG):
            raise SourceError(f"{path}: does not begin as a TIFF file")
        self._count, self._link = (f"{order}H", f"{order}I") if version == _PLAIN else (f"{order}Q", f"{order}Q")
        self._first, self._entry_bytes = (4, 12) if version == _PLAIN else (8, 20)
        try:
            self._next = self._number(self._link, self._first)  # where the page after those found lies, 0 for none
        except DecodeError as error:
            raise SourceError(f"{path}: ends within the first bytes of a TIFF file") from error

    def find(self, number: int) -> bool:
        """Return whether there is a page of this number. Raises DecodeError where the links break before it."""
        while len(self._places) <= number:
            place = self._next
            if place == 0:
                return False
            if place in self._place_set:
                raise DecodeError("is one that came before")
            entries = self._number(self._count, place)
            self._next = self._number(self._link, place + struct.calcsize(self._count) + entries * self._entry_bytes)
            self._places.append(place)
            self._place_set.add(place)
        return True

    def count(self) -> tuple[int, str | None]:
        """Return how many pages there are, and what is wrong with the one after them."""
        try:
            while self.find(len(self._places)):
                pass
        except DecodeError as error:
            return len(self._places), str(error)
        return len(self._places), None

    def has_entry(self, tag: int) -> bool:
        """Return whether the first page has an entry of this number."""
        return self.find(0) and any(entry[0] == tag for entry in self._entries(0))

    def decoded_bytes(self, number: int) -> int:
        """Return how many bytes a page takes when it is decoded, or a tile of it where that takes more."""
        if not self.find(number):
            raise DecodeError(f"is not there; the file has {len(self._places)} pages")
        order, sizes = self._link[0], dict[int, int]()
        for tag, kind, count, value in self._entries(number):
            if tag in _SIZE_TAGS and kind in _WHOLE:
                form = order + _WHOLE[kind]
                if count * struct.calcsize(form) > self._first:  # the values stand elsewhere, and here is where
                    sizes[tag] = self._number(form, struct.unpack(self._link, value)[0])
                else:
                    sizes[tag] = int(struct.unpack_from(form, value)[0])
        pixel_bytes = max(sizes.get(_SAMPLES, 1), _PALETTE_SAMPLES) * -(-sizes.get(_BITS, 1) // 8)
        width, height = sizes.get(_WIDTH, 0), sizes.get(_HEIGHT, 0)
        tile = sizes.get(_TILE_WIDTH, 0) * sizes.get(_TILE_HEIGHT, 0)
        return max(width * height, tile) * pixel_bytes

    def _entries(self, number: int) -> Iterator[tuple[int, int, int, bytes]]:
        """Yield tag, type, count and value of the entries of a page, as far as they are there."""
        place = self._places[number]
        count, begin = self._number(self._count, place), place + struct.calcsize(self._count)
        data = self._bytes[begin : begin + count * self._entry_bytes].tobytes()
        data = data[: len(data) // self._entry_bytes * self._entry_bytes]
        return struct.iter_unpack(f"{self._link[0]}HH{self._link[1]}{self._first}s", data)

    def starting_at(self, number: int) -> NDArray[np.uint8] | None:
        """Return the file with this page as its first: decoders of single images read it without those before.

        It holds until another page is asked for. None for a file that is too large to be handed over so.
        """
        if not self.find(number):
            raise DecodeError(f"is not there; the file has {len(self._places)} pages")
        if self._bytes.size > _LARGEST_BUFFER:
            return None
        link = struct.pack(self._link, self._places[number])
        self._bytes[self._first : self._first + len(link)] = np.frombuffer(link, np.uint8)
        return self._bytes

    def close(self) -> None:
        """Let go of the file."""
        self._bytes = np.zeros(0, np.uint8)

    def _number(self, form: str, place: int) -> int:
        data = self._bytes[place : place + struct.calcsize(form)].tobytes()
        if len(data) < struct.calcsize(form):
            raise DecodeError("lies past the end of the file")
        return int(struct.unpack(form, data)[0])
