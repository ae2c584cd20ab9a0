"""Struct offsets of FFmpeg, by major version, and the check at startup that they are correct.

`TESTED_VERSIONS` lists the versions tested with PyAV 17.1 to 19; no other version is called by address. A
library of these versions is tested once per process: values that it writes into new structures, the offsets in its
option tables, two streams that it adds to a file, and a raw and a damaged frame that it decodes must be at the expected
offsets. Values that may be elsewhere are read before they are written, and only nearby addresses are followed: a wrong
table cannot crash the process.
"""

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import av

NO_STAMP = -(2**63)

# Byte offsets in a structure, equal in all known versions.
STREAM_COUNT, STREAMS = 44, 48  # AVFormatContext: nb_streams, streams
PARAMETERS = 16  # AVStream: codecpar, which begins with the type (0 video) and the id of the codec
STAMP, SIZE, OF_STREAM, PACKET_FLAGS = 8, 32, 36, 40  # AVPacket: pts, size, stream_index, flags
LINES, WIDTH, HEIGHT, FORMAT_ID = 64, 104, 108, 116  # AVFrame: linesize, width, height, format
FRAME_STAMP = 136  # AVFrame: pts
_DECODE_STAMP, _DATA = 16, 24  # AVPacket: dts, data
_OPTION_OFFSET = 16  # AVOption: offset


class Offsets(NamedTuple):
    """Byte offsets in a structure, of one major version."""

    picture_type: int  # of an AVFrame: followed by the aspect ratio, two numbers
    flags: int  # of an AVFrame: followed by colour range, primaries, transfer, colour space and chroma site
    errors: int  # of an AVFrame: flags of concealed decoding errors
    skip: int  # of an AVCodecContext: frames to skip

    @property
    def best_guess(self) -> int:
        """Of an AVFrame, FFmpeg's estimated timestamp: the next multiple of 8 after the chroma site."""
        return -(-(self.flags + 24) // 8) * 8


class Version(NamedTuple):
    """The major versions of the three libraries of one FFmpeg release."""

    libavcodec: int
    libavformat: int
    libavutil: int


TESTED_VERSIONS = {
    Version(62, 62, 60): Offsets(picture_type=120, flags=276, errors=320, skip=708),  # FFmpeg 8
    Version(63, 63, 61): Offsets(picture_type=120, flags=276, errors=320, skip=704),  # FFmpeg 9
}

_ADDRESSES = """
    av_frame_alloc av_packet_alloc avcodec_get_class av_opt_find avformat_alloc_context avformat_new_stream
    avcodec_find_decoder_by_name avcodec_find_encoder_by_name avcodec_alloc_context3
""".split()
_FRAME_BYTES, _PACKET_BYTES = 360, 80  # bytes of an AVFrame and an AVPacket that are read
_SEARCH_CLASS = 2  # AV_OPT_SEARCH_FAKE_OBJ
_NEAR = 1 << 42  # largest distance in bytes between blocks allocated together
# A frame of raw video; all numbers that are checked are different.
_WIDTH, _HEIGHT, _PICTURE = 6, 4, bytes(range(36))
_RAW = {"video_size": "6x4", "pixel_format": "yuv420p", "color_range": "2", "colorspace": "5", "time_base": "1/25"}
_RANGE, _SPACE, _INTRA, _KEY, _KEY_PACKET = 2, 5, 1, 2, 1
# A grey frame of 48 x 48 in MPEG-2; the last of three rows is missing and the second is cut off.
_DAMAGED_FRAME = bytes.fromhex(
    "000001b303003013ffffe018000001b5148a00010000000001b80008004000000100000ffff8000001b58ffff3418000"
    "00010113f334a52f99be66e529488b94a522200000010213f334a52f99be"
)
_PRESENTATION_TIME, _DECODE_TIME = 5, 3  # FFmpeg's estimate is the first of the two


def version() -> Version:
    """Return the major versions of FFmpeg's libraries that PyAV ships."""
    return Version(*(av.library_versions.get(name, (0,))[0] for name in Version._fields))


def library() -> ctypes.CDLL:
    """Return the PyAV module that is linked to all of FFmpeg. Raises ImportError or OSError if it is missing."""
    import av._core  # private: if PyAV moves it, PyAV reads all files

    return ctypes.CDLL(av._core.__file__)


def what_differs(library: ctypes.CDLL, offsets: Offsets) -> str | None:
    """Return a value that is not at its expected offset, None if all are. Raises AttributeError for a function."""
    for name in _ADDRESSES:
        getattr(library, name).restype = ctypes.c_void_p
    codec_class = ctypes.c_void_p(library.avcodec_get_class())
    option = library.av_opt_find(ctypes.byref(codec_class), b"skip_frame", None, 0, _SEARCH_CLASS)
    if not option or _int(option, _OPTION_OFFSET) != offsets.skip:
        return "an AVCodecContext's skip_frame"
    return (
        _new_differs(library, offsets)
        or _streams_differ(library)
        or _decoded_differs(library, offsets)
        or _damage_differs(library, offsets)
    )


def _new_differs(library: ctypes.CDLL, offsets: Offsets) -> str | None:
    """Compare new packets and frames with FFmpeg's defaults."""
    with _frame(library) as frame, _packet(library) as packet:
        frame_bytes, packet_bytes = ctypes.string_at(frame, _FRAME_BYTES), ctypes.string_at(packet, _PACKET_BYTES)
        if struct.unpack_from("<qq", packet_bytes, STAMP) != (NO_STAMP, NO_STAMP):
            return "an AVPacket's stamps"
        if struct.unpack_from("<q", frame_bytes, FRAME_STAMP)[0] != NO_STAMP:
            return "an AVFrame's stamp"
        if struct.unpack_from("<i", frame_bytes, FORMAT_ID)[0] != -1:
            return "an AVFrame's format"
        if struct.unpack_from("<3i", frame_bytes, offsets.picture_type) != (0, 0, 1):  # no type, aspect ratio 0 / 1
            return "an AVFrame's type and aspect ratio"
        # No flags, no range, unspecified primaries, transfer and space, no chroma site.
        if struct.unpack_from("<6i", frame_bytes, offsets.flags) != (0, 0, 2, 2, 2, 0):
            return "an AVFrame's flags and colours"
        if struct.unpack_from("<q", frame_bytes, offsets.best_guess)[0] != NO_STAMP:
            return "an AVFrame's guessed stamp"
    return None


def _streams_differ(library: ctypes.CDLL) -> str | None:
    """Let FFmpeg add two streams to a file, and check them and their content."""
    context = library.avformat_alloc_context()
    try:
        before = _int(context, STREAM_COUNT)
        streams = [library.avformat_new_stream(_address(context), None) for _ in range(2)]
        if (before, _int(context, STREAM_COUNT)) != (0, 2):
            return "an AVFormatContext's number of streams"
        list_address = _long(context, STREAMS)
        if not _is_near(list_address, context) or [_long(list_address, 8 * i) for i in range(2)] != streams:
            return "an AVFormatContext's streams"
        with _codec(library, "rawvideo", _RAW) as codec:
            parameters = _long(streams[1], PARAMETERS)
            if not _is_near(parameters, streams[1]) or (_int(parameters, 0), _int(parameters, 4)) != (-1, 0):
                return "an AVStream's parameters"
            status = library.avcodec_parameters_from_context(_address(parameters), _address(codec))
            decoder = library.avcodec_find_decoder(_int(parameters, 4))
            if status < 0 or _int(parameters, 0) != 0 or not decoder:
                return "an AVStream's type and codec"
    finally:
        library.avformat_free_context(_address(context))
    return None


def _decoded_differs(library: ctypes.CDLL, offsets: Offsets) -> str | None:
    """Let FFmpeg decode a frame with known numbers, encode it again, and check frame and packet."""
    with _codec(library, "rawvideo", _RAW) as codec, _frame(library) as frame, _packet(library) as packet:
        library.av_new_packet(_address(packet), len(_PICTURE))
        if _int(packet, SIZE) != len(_PICTURE) or not _is_near(_long(packet, _DATA), packet):
            return "an AVPacket's size and data"
        ctypes.memmove(_long(packet, _DATA), _PICTURE, len(_PICTURE))
        ctypes.c_int64.from_address(packet + STAMP).value = _PRESENTATION_TIME
        ctypes.c_int64.from_address(packet + _DECODE_STAMP).value = _DECODE_TIME
        status = library.avcodec_send_packet(_address(codec), _address(packet))
        if status < 0 or library.avcodec_receive_frame(_address(codec), _address(frame)) < 0:
            return "an AVPacket"
        if (_long(frame, FRAME_STAMP), _long(frame, offsets.best_guess)) != (_PRESENTATION_TIME, _PRESENTATION_TIME):
            return "the stamp of a decoded AVFrame"
        yuv420p = library.av_get_pix_fmt(b"yuv420p")
        if [_int(frame, place) for place in (WIDTH, HEIGHT, FORMAT_ID)] != [_WIDTH, _HEIGHT, yuv420p]:
            return "the size and format of a decoded AVFrame"
        if [_int(frame, LINES + 4 * i) for i in range(4)] != [_WIDTH, _WIDTH // 2, _WIDTH // 2, 0]:
            return "the lines of a decoded AVFrame"
        luma, blue, red = (_long(frame, 8 * i) for i in range(3))
        apart = [_WIDTH * _HEIGHT, _WIDTH * _HEIGHT // 4]
        if not _is_near(luma, frame) or [blue - luma, red - blue] != apart:
            return "the planes of a decoded AVFrame"
        if ctypes.string_at(luma, len(_PICTURE)) != _PICTURE:
            return "the pixels of a decoded AVFrame"
        flags = [_int(frame, offsets.flags + 4 * i) for i in (0, 1, 4)]
        if [flags[0] & _KEY, *flags[1:], _int(frame, offsets.picture_type)] != [_KEY, _RANGE, _SPACE, _INTRA]:
            return "the flags, colours and type of a decoded AVFrame"
        if _int(frame, offsets.errors) != 0:
            return "the errors of a decoded AVFrame"
        with _codec(library, "rawvideo", _RAW, encodes=True) as encoder, _packet(library) as encoded:
            library.avcodec_send_frame(_address(encoder), _address(frame))
            library.avcodec_receive_packet(_address(encoder), _address(encoded))
            numbers = [_int(encoded, place) for place in (SIZE, OF_STREAM, PACKET_FLAGS)]
            if [_long(encoded, STAMP), *numbers] != [_PRESENTATION_TIME, len(_PICTURE), 0, _KEY_PACKET]:
                return "the stamp, size and flags of an encoded AVPacket"
    return None


def _damage_differs(library: ctypes.CDLL, offsets: Offsets) -> str | None:
    """Let FFmpeg decode a truncated frame, and check its error flags."""
    with _codec(library, "mpeg2video", {}) as codec, _frame(library) as frame, _packet(library) as packet:
        library.av_new_packet(_address(packet), len(_DAMAGED_FRAME))
        ctypes.memmove(_long(packet, _DATA), _DAMAGED_FRAME, len(_DAMAGED_FRAME))
        library.avcodec_send_packet(_address(codec), _address(packet))
        library.avcodec_send_packet(_address(codec), None)
        if library.avcodec_receive_frame(_address(codec), _address(frame)) < 0 or _int(frame, offsets.errors) <= 0:
            return "the errors of a damaged AVFrame"
    return None


@contextmanager
def _codec(library: ctypes.CDLL, name: str, options: dict[str, str], *, encodes: bool = False) -> Iterator[int]:
    find = library.avcodec_find_encoder_by_name if encodes else library.avcodec_find_decoder_by_name
    kind = ctypes.c_void_p(find(name.encode()))
    codec = ctypes.c_void_p(library.avcodec_alloc_context3(kind))
    try:
        for option, value in {"threads": "1", **options}.items():
            library.av_opt_set(codec, option.encode(), value.encode(), 0)
        library.avcodec_open2(codec, kind, None)
        assert codec.value is not None
        yield codec.value
    finally:
        library.avcodec_free_context(ctypes.byref(codec))


@contextmanager
def _frame(library: ctypes.CDLL) -> Iterator[int]:
    frame = ctypes.c_void_p(library.av_frame_alloc())
    try:
        assert frame.value is not None
        yield frame.value
    finally:
        library.av_frame_free(ctypes.byref(frame))


@contextmanager
def _packet(library: ctypes.CDLL) -> Iterator[int]:
    packet = ctypes.c_void_p(library.av_packet_alloc())
    try:
        assert packet.value is not None
        yield packet.value
    finally:
        library.av_packet_free(ctypes.byref(packet))


def _address(value: int) -> ctypes.c_void_p:
    return ctypes.c_void_p(value)


def _int(structure: int, place: int) -> int:
    return ctypes.c_int32.from_address(structure + place).value


def _long(structure: int, place: int) -> int:
    return ctypes.c_int64.from_address(structure + place).value


def _is_near(value: int, structure: int) -> bool:
    """Return whether a number can be the address of a block that was allocated with a structure, and is safe to read.

    Two adjacent smaller numbers read as one are almost never so near. A block may also be far away: one that another
    thread allocated and this one freed is used again.
    """
    return value % 8 == 0 and value > 1 << 16 and (abs(value - structure) < _NEAR or _is_mapped(value))


def _is_mapped(address: int) -> bool:
    """Return whether an address of this process can be read; False where the system does not tell."""
    try:
        with open("/proc/self/mem", "rb", buffering=0) as memory:  # noqa: PTH123  # no file of a folder
            return len(os.pread(memory.fileno(), 8, address)) == 8
    except (OSError, OverflowError):
        return False
