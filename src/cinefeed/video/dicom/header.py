"""Reading of DICOM headers: the requested elements, and the position of the pixels. Other elements are skipped unread.

pydicom reads headers too, but its warnings and its log quote unusual values, which may include names, and filters of
warnings apply to all threads at once. A value that is never read cannot leak; it also takes a third of the time.
"""

import io
import re
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from typing import Any, BinaryIO, NamedTuple

from cinefeed.core.errors import MissingExtraError, SourceError
from cinefeed.video.limits import DEFAULT_LIMITS, ReadLimits

_IMPLICIT, _EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
_DEFLATED, _BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
UNCOMPRESSED = (_IMPLICIT, _EXPLICIT, _DEFLATED, _BIG_ENDIAN)
_VIDEO = re.compile(r"1\.2\.840\.10008\.1\.2\.4\.10[0-8](\.1)?")
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXELS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
_UNKNOWN = 0xFFFFFFFF  # undefined length: the data end with a delimiter
_LETTERS = frozenset(bytes(pair) for pair in product(range(ord("A"), ord("Z") + 1), repeat=2))  # of any VR
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())  # with a length of four bytes
_BINARY = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "AT": "I", "OW": "H", "UV": "Q", "OV": "Q"}
_LARGEST_VALUE, _DEEPEST = 1 << 26, 32
_PIECE = 1 << 16  # bytes of a deflated file inflated at a time


# The functional groups of enhanced files: per frame, and shared by all frames.
GROUPS = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")


class Pixels(NamedTuple):
    """Position of the pixels in the file; `length` is None if they are divided into fragments."""

    keyword: str
    vr: str
    offset: int
    length: int | None


@dataclass(slots=True)
class Elements:
    """Elements of a data set, or of one item of a sequence, by keyword; absent elements are empty."""

    order: str = "<"
    values: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    sequences: dict[str, list["Elements"]] = field(default_factory=dict)

    def numbers(self, keyword: str) -> list[float]:
        """Return the numbers of an element; an empty list if any value is not a number."""
        vr, value = self.values.get(keyword, ("", b""))
        if not value:
            return []
        if vr in _BINARY:
            size = struct.calcsize(_BINARY[vr])
            count = len(value) // size
            return list(struct.unpack(f"{self.order}{count}{_BINARY[vr]}", value[: count * size]))
        try:
            numbers = [float(part) for part in self.text(keyword).split("\\") if part.strip()]
        except ValueError:
            return []
        return numbers if all(abs(number) < 1e300 for number in numbers) else []  # excludes infinity and NaN

    def number(self, keyword: str) -> float | None:
        """Return the first number of an element, None if it has none."""
        return next(iter(self.numbers(keyword)), None)

    def integer(self, keyword: str, otherwise: int = 0) -> int:
        """Return the first number of an element as an integer."""
        number = self.number(keyword)
        return otherwise if number is None else int(number)

    def text(self, keyword: str, *, codec: str = "latin-1") -> str:
        """Return the text of an element, with values separated by backslashes, "" if it has none."""
        return self.values.get(keyword, ("", b""))[1].decode(codec, "replace").strip(" \0\r\n\t")

    def first(self, sequence: str) -> "Elements | None":
        """Return the first item of a sequence, None if it has none."""
        items = self.sequences.get(sequence)
        return items[0] if items else None


@dataclass(slots=True)
class Header(Elements):
    """The requested elements of a file, its transfer syntax, and the position of its pixels."""

    syntax: str = _EXPLICIT
    pixels: Pixels | None = None

    def in_words(self, keyword: str) -> str:
        """Return free text in the file's own character set; undecodable bytes are replaced."""
        name = self.text("SpecificCharacterSet").split("\\")[0].strip()
        return self.text(keyword, codec=load_pydicom().charset.python_encoding.get(name, "latin-1"))


Scopes = list[Elements]


def read_header(
    file: BinaryIO, *, path: object, keywords: Iterable[str], limits: ReadLimits = DEFAULT_LIMITS
) -> tuple[Header, BinaryIO]:
    """Return the header of a DICOM file, and the file that contains its pixels (inflated if the file is deflated).

    `keywords` are those of elements and of sequences, at any depth. Raises SourceError if it is not a DICOM file,
    breaks within the header, or inflates beyond the limits; MissingExtraError without pydicom, whose dictionary has the
    names of the elements.
    """
    tags = _tags_of(frozenset(keywords))
    try:
        syntax = _start(file)
        if syntax == _DEFLATED:
            with file:
                file = _inflated(file, path=path, limits=limits)
        order = ">" if syntax == _BIG_ENDIAN else "<"
        header = Header(order, syntax=syntax)
        _read_elements(file, header, tags, explicit=syntax != _IMPLICIT, end=None, depth=0)
        if header.pixels is None and file.tell() > file.seek(0, io.SEEK_END):
            raise _BrokenError("its header breaks off")
    except (_BrokenError, struct.error, zlib.error) as error:
        why = str(error) if isinstance(error, _BrokenError) else "its header breaks off"
        raise SourceError(f"{path}: cannot be read as DICOM: {why}") from None
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error})") from error
    return header, file


def holds_video(header: Header) -> bool:
    """Return whether the pixels are encoded as one video (MPEG-2, H.264 or HEVC), in one or more fragments."""
    return _VIDEO.fullmatch(header.syntax) is not None


def _inflated(file: BinaryIO, *, path: object, limits: ReadLimits) -> BinaryIO:
    """Return the remainder of a deflated file, inflated into memory."""
    whole, inflater = io.BytesIO(), zlib.decompressobj(-zlib.MAX_WBITS)
    while not inflater.eof and (piece := file.read(_PIECE)):
        while piece and not inflater.eof:  # a byte of padding may follow
            whole.write(inflater.decompress(piece, _PIECE))
            limits.check_unpacked(whole.tell(), name="its deflated data set", where=path)
            piece = inflater.unconsumed_tail
    whole.write(inflater.flush())
    whole.seek(0)
    return whole


def frames_of(header: Elements, *, file_bytes: int, path: object) -> int:
    """Return the number of frames in a header, at least 1. Raises SourceError if it exceeds the number of bytes."""
    count = max(header.integer("NumberOfFrames", 1), 1)
    if count > file_bytes:
        raise SourceError(
            f"{path}: its header promises {count:,} frames, but the file has {file_bytes:,} bytes; it is damaged"
        )
    return count


def load_pydicom() -> Any:
    """Return pydicom, which imports all its modules that are used here.

    Two threads that import different modules of it at once, such as pydicom.uid and pydicom.datadict, can find one of
    them partially initialized. Raises MissingExtraError if it is not installed.
    """
    try:
        import pydicom
    except ModuleNotFoundError as error:
        raise MissingExtraError("pydicom", extra="dicom") from error
    return pydicom


def syntax_name(syntax: str) -> str:
    """Return the short name of a transfer syntax.

    >>> syntax_name("1.2.840.10008.1.2.4.80")
    'JPEGLSLossless'
    """
    return str(load_pydicom().uid.UID(syntax).keyword or syntax)


def has_preamble(start: bytes) -> bool:
    """Return whether the first 132 bytes of a file are a DICOM preamble."""
    return start[128:132] == b"DICM"


def scopes_of(header: Header, number: int = 0) -> Scopes:
    """Return the data sets that may have elements of a frame, the most specific first.

    In enhanced files those are the frame's own functional groups, then the shared ones, then the file itself.
    """
    per_frame, shared = (header.sequences.get(name, []) for name in GROUPS)
    return [*per_frame[number : number + 1], *shared[:1], header]


def nearest_elements(scopes: Scopes, sequence: str, keyword: str) -> Elements:
    """Return the most specific elements with a keyword, inside a sequence or beside it; empty if there are none."""
    for scope in scopes:
        for elements in (scope.first(sequence), scope):
            if elements is not None and keyword in elements.values:
                return elements
    return Elements()


class _BrokenError(Exception):
    """The file violates the DICOM standard; the message quotes nothing of it."""


@lru_cache(maxsize=16)
def _tags_of(keywords: frozenset[str]) -> Mapping[int, tuple[str, str]]:
    """Return keyword and value representation by tag."""
    datadict = load_pydicom().datadict
    tags = {keyword: datadict.tag_for_keyword(keyword) for keyword in keywords}
    return {tag: (keyword, datadict.dictionary_VR(tag)[:2]) for keyword, tag in tags.items() if tag is not None}


def _start(file: BinaryIO) -> str:
    """Read the file up to the data set, and return the transfer syntax; the file is left at the data set."""
    preamble = file.read(132)
    begin = 132 if has_preamble(preamble) else 0
    first = preamble[:2]
    if begin == 0 and first not in (b"\x02\0", b"\x08\0", b"\0\x08"):
        raise _BrokenError("it does not begin like a DICOM file")
    file.seek(begin)
    meta = Elements()
    _read_elements(file, meta, {0x00020010: ("TransferSyntaxUID", "UI")}, explicit=True, end=None, depth=0, group=2)
    if syntax := meta.text("TransferSyntaxUID"):
        if not set(syntax) <= set("0123456789."):
            raise _BrokenError("its transfer syntax is not a valid UID")
        if syntax not in (_IMPLICIT, _EXPLICIT):
            return syntax
    elif begin == 0 and first == b"\0\x08":
        return _BIG_ENDIAN
    # The first element shows which of the two it is; some writers declare one and write the other.
    start = file.tell()
    head = file.read(6)
    file.seek(start)
    return _EXPLICIT if head[4:6] in _LETTERS else _IMPLICIT


def _read_elements(
    file: BinaryIO,
    into: Elements,
    tags: Mapping[int, tuple[str, str]],
    *,
    explicit: bool,
    end: int | None,
    depth: int,
    group: int | None = None,
) -> None:
    """Read the requested elements of a data set: to `end`, to its end delimiter, to the pixels or to another group."""
    if depth > _DEEPEST:
        raise _BrokenError(f"its sequences are more than {_DEEPEST} deep")
    order = into.order
    two, four, tag_of = struct.Struct(order + "H"), struct.Struct(order + "I"), struct.Struct(order + "HH")
    while end is None or file.tell() < end:
        head = file.read(8)
        if len(head) < 8:
            return
        high, low = tag_of.unpack_from(head)
        if group is not None and high != group:
            file.seek(-8, io.SEEK_CUR)
            return
        tag = high << 16 | low
        if tag == _ITEM_END:
            return
        vr = head[4:6] if explicit and head[4:6] in _LETTERS else b""  # explicit data sets can have implicit elements
        if vr in _LONG:
            length = four.unpack(file.read(4))[0]
        else:
            length = two.unpack_from(head, 6)[0] if vr else four.unpack_from(head, 4)[0]
        if tag in _PIXELS and isinstance(into, Header):
            into.pixels = Pixels(_PIXELS[tag], vr.decode(), file.tell(), None if length == _UNKNOWN else length)
            return
        keyword, dictionary_vr = tags.get(tag, ("", ""))
        kind = vr.decode() if vr not in (b"", b"UN") else dictionary_vr
        if keyword and kind == "SQ":
            into.sequences[keyword] = _read_items(file, order, tags, explicit and vr != b"UN", length, depth)
        elif length == _UNKNOWN:  # a sequence, or fragments
            _read_items(file, order, {}, explicit and vr != b"UN", length, depth)
        elif keyword:
            if length > _LARGEST_VALUE:
                raise _BrokenError(f"its {keyword} is {length} bytes long")
            into.values[keyword] = (kind, file.read(length))
            if len(into.values[keyword][1]) < length:
                raise _BrokenError("its header breaks off")
        else:
            file.seek(length, io.SEEK_CUR)


def _read_items(
    file: BinaryIO,
    order: str,
    tags: Mapping[int, tuple[str, str]],
    explicit: bool,
    length: int,
    depth: int,
) -> list[Elements]:
    """Read the items of a sequence, or skip those in which nothing is requested."""
    items: list[Elements] = []
    end = None if length == _UNKNOWN else file.tell() + length
    head_of = struct.Struct(order + "HHI")
    while end is None or file.tell() < end:
        head = file.read(8)
        if len(head) < 8:
            raise _BrokenError("its header breaks off")
        high, low, size = head_of.unpack(head)
        tag = high << 16 | low
        if tag == _SEQUENCE_END:
            break
        if tag != _ITEM:
            raise _BrokenError("a sequence in its header has content other than items")
        begin = file.tell()
        if tags or size == _UNKNOWN:
            item = Elements(order)
            last = None if size == _UNKNOWN else begin + size
            _read_elements(file, item, tags, explicit=explicit, end=last, depth=depth + 1)
            items.append(item)
        if size != _UNKNOWN:
            file.seek(begin + size)
    if end is not None:
        file.seek(end)
    return items
