"""Position of each frame in the compressed pixel data of a DICOM file."""

import io
import struct
from typing import BinaryIO

import numpy as np

from cinefeed.video.dicom.header import Header

END_OF_IMAGE = b"\xff\xd9"  # of JPEG, JPEG-LS and JPEG 2000 alike
ITEM = b"\xfe\xff\x00\xe0"


def find_frames(file: BinaryIO, header: Header, *, frames: int) -> list[list[tuple[int, int]]]:
    """Return offset and length of the fragments of each compressed frame, from the offset table if there is one.

    Without a table, as in pydicom: one fragment per frame if their numbers match; all fragments if there is one frame;
    else a frame ends with the end marker of a JPEG image. If there are fewer fragments than frames, each is one frame.
    """
    table_length, begin = _offset_table(file, header)
    table = np.frombuffer(file.read(min(table_length, 1 << 24)), "<u4" if table_length % 4 == 0 else "u1")
    if spans := _by_long_table(header, begin):
        return spans
    fragments = _fragments(file, begin)
    if table_length % 4 == 0 and len(table):
        starts = {offset - 8 - begin: number for number, (offset, _) in enumerate(fragments)}
        cuts = [starts.get(int(offset)) for offset in table]
        valid_cuts = [cut for cut in cuts if cut is not None]
        if len(valid_cuts) == len(cuts) and valid_cuts[0] == 0 and valid_cuts == sorted(set(valid_cuts)):
            return [fragments[a:b] for a, b in zip(valid_cuts, [*valid_cuts[1:], len(fragments)], strict=True)]
    if frames == 1 and fragments:
        return [fragments]
    if len(fragments) <= frames:
        return [[each] for each in fragments]
    spans, last = [], 0
    for number, (offset, length) in enumerate(fragments, start=1):
        file.seek(offset + max(length - 10, 0))
        if END_OF_IMAGE in file.read(min(length, 10)):
            spans.append(fragments[last:number])
            last = number
    return [*spans, fragments[last:]] if last < len(fragments) else spans


def fragments_of(file: BinaryIO, header: Header) -> list[tuple[int, int]]:
    """Return offset and length of all fragments, without the preceding offset table."""
    assert header.pixels is not None
    if header.pixels.length is not None:  # against the standard, but unambiguous
        return [(header.pixels.offset, header.pixels.length)]
    return _fragments(file, _offset_table(file, header)[1])


def _offset_table(file: BinaryIO, header: Header) -> tuple[int, int]:
    """Return the length of the offset table and the start of the fragments; the file is left at the table."""
    assert header.pixels is not None
    file.seek(header.pixels.offset)
    head = file.read(8)
    length = struct.unpack("<4xI", head)[0] if len(head) == 8 else 0
    return length, header.pixels.offset + 8 + length


def _by_long_table(header: Header, begin: int) -> list[list[tuple[int, int]]]:
    offsets, lengths = (
        np.frombuffer(value[: len(value) // 8 * 8], "<u8").tolist()
        for value in (
            header.values.get(name, ("", b""))[1] for name in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
        )
    )
    if len(offsets) != len(lengths):
        return []
    return [[(begin + offset + 8, length)] for offset, length in zip(offsets, lengths, strict=True)]


def _fragments(file: BinaryIO, begin: int) -> list[tuple[int, int]]:
    spans = []
    file.seek(begin)
    while len(head := file.read(8)) == 8 and head[:4] == ITEM:
        length = struct.unpack("<4xI", head)[0]
        if length == 0xFFFFFFFF:
            break
        spans.append((file.tell(), length))
        file.seek(length, io.SEEK_CUR)
    return spans
