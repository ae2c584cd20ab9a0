"""Decoded size of an image, from its header: 1 MB of PNG can hold 900 megapixels, and is checked before decoding."""

import re
import struct
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

_PNG = b"\x89PNG\r\n\x1a\n"
_SAMPLES_OF_PNG = {0: 1, 2: 3, 3: 3, 4: 3, 6: 4}  # by colour type; palettes and grey with alpha become colour
_JP2, _J2K = b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"
_NO_FRAME = frozenset([0xC4, 0xC8, 0xCC])  # JPEG markers in the range of frames that are tables or extensions
_NAKED = frozenset([0x01, *range(0xD0, 0xD9)])  # JPEG markers without a length
_PNM = re.compile(rb"P([1-6])(?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})(?:(?:\s|#[^\n]*\n)+(\d{1,9}))?")
_START_BYTES = 1 << 22  # bytes at the start of a file; JPEG may have a thumbnail and a colour profile before its size
_WEBP_BYTES = 30  # size of the header of any WebP format
_BOXES_BYTES = 1 << 12  # of JPEG 2000, before its pixels


def decoded_bytes(data: bytes | NDArray[np.uint8]) -> int | None:
    """Return the decoded size in bytes of a BMP, JPEG, JPEG-LS, JPEG 2000, PNG, PNM or WebP image.

    None for other formats, or if the header is incomplete.

    >>> decoded_bytes(b"P5 30000 30000 255 ")
    900000000
    """
    start = bytes(data[:_START_BYTES])
    for beginning, measure in _KINDS.items():
        if start.startswith(beginning):
            try:
                return measure(start)
            except (struct.error, IndexError, KeyError):
                return None
    return None


def _of_png(start: bytes) -> int:
    width, height, depth, kind = struct.unpack_from(">IIBB", start, 16)
    return int(width * height * _SAMPLES_OF_PNG[kind] * (2 if depth == 16 else 1))


def _of_bmp(start: bytes) -> int:
    old = struct.unpack_from("<I", start, 14)[0] == 12
    width, height = struct.unpack_from("<HH" if old else "<ii", start, 18)
    return int(abs(width) * abs(height) * 4)


def _of_webp(start: bytes) -> int | None:
    kind = start[12:16]
    if len(start) < _WEBP_BYTES:
        return None
    if kind == b"VP8 ":
        width, height = (size & 0x3FFF for size in struct.unpack_from("<HH", start, 26))
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", start, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (int.from_bytes(start[at : at + 3], "little") + 1 for at in (24, 27))
    return int(width * height * 4)


def _of_pnm(start: bytes) -> int | None:
    match = _PNM.match(start)
    if match is None:
        return None
    samples = 3 if match[1] in b"36" else 1
    wide = match[1] not in b"14" and int(match[4] or 0) > 255
    return int(match[2]) * int(match[3]) * samples * (2 if wide else 1)


def _of_jpeg(start: bytes) -> int | None:
    at = 2
    while True:
        if start[at] != 0xFF:
            return None
        marker = start[at + 1]
        if marker == 0xFF:  # a byte of padding
            at += 1
        elif marker in _NAKED:
            at += 2
        elif (0xC0 <= marker <= 0xCF and marker not in _NO_FRAME) or marker == 0xF7:  # 0xF7: JPEG-LS
            depth, height, width, samples = struct.unpack_from(">BHHB", start, at + 4)
            return int(height * width * samples * (2 if depth > 8 else 1))
        else:
            at += 2 + int(struct.unpack_from(">H", start, at + 2)[0])


def _of_jpeg_2000(start: bytes) -> int | None:
    at = start.find(_J2K, 0, _BOXES_BYTES)
    if at < 0:
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", start, at + 8)
    samples, depth = struct.unpack_from(">HB", start, at + 40)
    return int(max(right - left, 0) * max(bottom - top, 0) * samples * (2 if (depth & 0x7F) + 1 > 8 else 1))


_KINDS: dict[bytes, Callable[[bytes], int | None]] = {
    _PNG: _of_png,
    b"BM": _of_bmp,
    b"RIFF": _of_webp,
    **{b"P%d" % number: _of_pnm for number in range(1, 7)},
    b"\xff\xd8\xff": _of_jpeg,
    _JP2: _of_jpeg_2000,
    _J2K: _of_jpeg_2000,
}
