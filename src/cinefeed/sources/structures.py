"""What lies where in FFmpeg's structures, by major version, and the check at start that it lies there.

`KNOWN` has the versions that were run with PyAV 17.1 to 19, and nothing else is called by address. A library of these
versions is tried once a process: what it writes into new structures, the places that its tables of options name, two
streams that it adds to a file, and a raw and a damaged frame that it decodes must be where they are looked for. What
might be otherwise is read before it is written, and only near addresses are followed: a wrong table ends no program.
"""

import ctypes
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import av

NO_STAMP = -(2**63)

# Bytes from the start of a structure, the same in all that is known.
STREAM_COUNT, STREAMS = 44, 48  # AVFormatContext: nb_streams, streams
PARAMETERS = 16  # AVStream: codecpar, which begins with the type (0 video) and the id of the codec
STAMP, SIZE, OF_STREAM, PACKET_FLAGS = 8, 32, 36, 40  # AVPacket: pts, size, stream_index, flags
LINES, WIDTH, HEIGHT, FORMAT_ID = 64, 104, 108, 116  # AVFrame: linesize, width, height, format
SHOWN = 136  # AVFrame: pts
_DECODED, _DATA = 16, 24  # AVPacket: dts, data
_OPTION_PLACE = 16  # AVOption: offset


class Places(NamedTuple):
    """Bytes from the start of a structure, of one major version."""

    picture_type: int  # of an AVFrame: the aspect ratio, two numbers, follows
    flags: int  # of an AVFrame: colour range, primaries, transfer, colour space and site of chroma follow
    errors: int  # of an AVFrame: what the decoder could not decode and has hidden
    skip: int  # of an AVCodecContext: which frames to leave out

    @property
    def best_guess(self) -> int:
        """Of an AVFrame, when to show it as FFmpeg guesses: the next multiple of 8 after the site of chroma."""
        return -(-(self.flags + 24) // 8) * 8


class Version(NamedTuple):
    """The major versions of the three libraries, which come together."""

    libavcodec: int
    libavformat: int
    libavutil: int


KNOWN = {
    Version(62, 62, 60): Places(picture_type=120, flags=276, errors=320, skip=708),  # FFmpeg 8
    Version(63, 63, 61): Places(picture_type=120, flags=276, errors=320, skip=704),  # FFmpeg 9
}

_ADDRESSES = """
    av_frame_alloc av_packet_alloc avcodec_get_class av_opt_find avformat_alloc_context avformat_new_stream
    avcodec_find_decoder_by_name avcodec_find_encoder_by_name avcodec_alloc_context3
""".split()
_FRAME_BYTES, _PACKET_BYTES = 360, 80  # no more of an AVFrame or AVPacket is looked at
_SEARCH_CLASS = 2  # AV_OPT_SEARCH_FAKE_OBJ
_NEAR = 1 << 42  # bytes between what was allocated at about the same time, at most
# A frame of raw video, of which no two numbers that are looked at are the same.
_WIDTH, _HEIGHT, _PICTURE = 6, 4, bytes(range(36))
_RAW = {"video_size": "6x4", "pixel_format": "yuv420p", "color_range": "2", "colorspace": "5", "time_base": "1/25"}
_RANGE, _SPACE, _INTRA, _KEY, _KEY_PACKET = 2, 5, 1, 2, 1
# A grey frame of 48 x 48 in MPEG-2, of which the last of three rows is missing and the second is cut off.
_DAMAGED = bytes.fromhex(
    "000001b303003013ffffe018000001b5148a00010000000001b80008004000000100000ffff8000001b58ffff3418000"
    "00010113f334a52f99be66e529488b94a522200000010213f334a52f99be"
)
_SHOWN_AT, _DECODED_AT = 5, 3  # FFmpeg's own guess is the first of the two


def version() -> Version:
    """Return the major versions of FFmpeg's libraries that PyAV brings."""
    return Version(*(av.library_versions.get(name, (0,))[0] for name in Version._fields))


def library() -> ctypes.CDLL:
    """Return PyAV's module that is linked to all of FFmpeg. Raises ImportError or OSError where it is not there."""
    import av._core  # private: PyAV may move it, and then reads all itself

    return ctypes.CDLL(av._core.__file__)


def what_differs(library: ctypes.CDLL, places: Places) -> str | None:
    """Return what does not lie where it is looked for; None where all does. Raises AttributeError for a function."""
    for name in _ADDRESSES:
        getattr(library, name).restype = ctypes.c_void_p
    codec_class = ctypes.c_void_p(library.avcodec_get_class())
    option = library.av_opt_find(ctypes.byref(codec_class), b"skip_frame", None, 0, _SEARCH_CLASS)
    if not option or _int(option, _OPTION_PLACE) != places.skip:
        return "an AVCodecContext's skip_frame"
    return (
        _new_differs(library, places)
        or _streams_differ(library)
        or _decoded_differs(library, places)
        or _damage_differs(library, places)
    )


def _new_differs(library: ctypes.CDLL, places: Places) -> str | None:
    """Compare new packets and frames with the defaults that FFmpeg writes."""
    with _frame(library) as frame, _packet(library) as packet:
        written, sent = ctypes.string_at(frame, _FRAME_BYTES), ctypes.string_at(packet, _PACKET_BYTES)
        if struct.unpack_from("<qq", sent, STAMP) != (NO_STAMP, NO_STAMP):
            return "an AVPacket's stamps"
        if struct.unpack_from("<q", written, SHOWN)[0] != NO_STAMP:
            return "an AVFrame's stamp"
        if struct.unpack_from("<i", written, FORMAT_ID)[0] != -1:
            return "an AVFrame's format"
        if struct.unpack_from("<3i", written, places.picture_type) != (0, 0, 1):  # of no type, and 0 / 1
            return "an AVFrame's type and aspect ratio"
        # No flags, no range, primaries, transfer and space unspecified, no site of chroma.
        if struct.unpack_from("<6i", written, places.flags) != (0, 0, 2, 2, 2, 0):
            return "an AVFrame's flags and colours"
        if struct.unpack_from("<q", written, places.best_guess)[0] != NO_STAMP:
            return "an AVFrame's guessed stamp"
    return None


def _streams_differ(library: ctypes.CDLL) -> str | None:
    """Let FFmpeg add two streams to a file, and look for them and for what they hold."""
    context = library.avformat_alloc_context()
    try:
        before = _int(context, STREAM_COUNT)
        streams = [library.avformat_new_stream(_address(context), None) for _ in range(2)]
        if (before, _int(context, STREAM_COUNT)) != (0, 2):
            return "an AVFormatContext's number of streams"
        listed = _long(context, STREAMS)
        if not _is_near(listed, context) or [_long(listed, 8 * i) for i in range(2)] != streams:
            return "an AVFormatContext's streams"
        with _codec(library, "rawvideo", _RAW) as codec:
            parameters = _long(streams[1], PARAMETERS)
            if not _is_near(parameters, streams[1]) or (_int(parameters, 0), _int(parameters, 4)) != (-1, 0):
                return "an AVStream's parameters"
            done = library.avcodec_parameters_from_context(_address(parameters), _address(codec))
            decoder = library.avcodec_find_decoder(_int(parameters, 4))
            if done < 0 or _int(parameters, 0) != 0 or not decoder:
                return "an AVStream's type and codec"
    finally:
        library.avformat_free_context(_address(context))
    return None


def _decoded_differs(library: ctypes.CDLL, places: Places) -> str | None:
    """Let FFmpeg decode a frame whose every number is given, and encode it again, and look at frame and packet."""
    with _codec(library, "rawvideo", _RAW) as codec, _frame(library) as frame, _packet(library) as packet:
        library.av_new_packet(_address(packet), len(_PICTURE))
        if _int(packet, SIZE) != len(_PICTURE) or not _is_near(_long(packet, _DATA), packet):
            return "an AVPacket's size and data"
        ctypes.memmove(_long(packet, _DATA), _PICTURE, len(_PICTURE))
        ctypes.c_int64.from_address(packet + STAMP).value = _SHOWN_AT
        ctypes.c_int64.from_address(packet + _DECODED).value = _DECODED_AT
        sent = library.avcodec_send_packet(_address(codec), _address(packet))
        if sent < 0 or library.avcodec_receive_frame(_address(codec), _address(frame)) < 0:
            return "an AVPacket"
        if (_long(frame, SHOWN), _long(frame, places.best_guess)) != (_SHOWN_AT, _SHOWN_AT):
            return "the stamp of a decoded AVFrame"
        yuv420p = library.av_get_pix_fmt(b"yuv420p")
        if [_int(frame, place) for place in (WIDTH, HEIGHT, FORMAT_ID)] != [_WIDTH, _HEIGHT, yuv420p]:
            return "the size and format of a decoded AVFrame"
        if [_int(frame, LINES + 4 * i) for i in range(4)] != [_WIDTH, _WIDTH // 2, _WIDTH // 2, 0]:
            return "the lines of a decoded AVFrame"
        luma, blue, red = (_long(frame, 8 * i) for i in range(3))
        apart = [_WIDTH * _HEIGHT, _WIDTH * _HEIGHT // 4]
        if abs(luma - frame) > _NEAR or [blue - luma, red - blue] != apart:
            return "the planes of a decoded AVFrame"
        if ctypes.string_at(luma, len(_PICTURE)) != _PICTURE:
            return "the pixels of a decoded AVFrame"
        flags = [_int(frame, places.flags + 4 * i) for i in (0, 1, 4)]
        if [flags[0] & _KEY, *flags[1:], _int(frame, places.picture_type)] != [_KEY, _RANGE, _SPACE, _INTRA]:
            return "the flags, colours and type of a decoded AVFrame"
        if _int(frame, places.errors) != 0:
            return "the errors of a decoded AVFrame"
        with _codec(library, "rawvideo", _RAW, encodes=True) as encoder, _packet(library) as encoded:
            library.avcodec_send_frame(_address(encoder), _address(frame))
            library.avcodec_receive_packet(_address(encoder), _address(encoded))
            numbers = [_int(encoded, place) for place in (SIZE, OF_STREAM, PACKET_FLAGS)]
            if [_long(encoded, STAMP), *numbers] != [_SHOWN_AT, len(_PICTURE), 0, _KEY_PACKET]:
                return "the stamp, size and flags of an encoded AVPacket"
    return None


def _damage_differs(library: ctypes.CDLL, places: Places) -> str | None:
    """Let FFmpeg decode a frame that is cut off, and look at what it says of it."""
    with _codec(library, "mpeg2video", {}) as codec, _frame(library) as frame, _packet(library) as packet:
        library.av_new_packet(_address(packet), len(_DAMAGED))
        ctypes.memmove(_long(packet, _DATA), _DAMAGED, len(_DAMAGED))
        library.avcodec_send_packet(_address(codec), _address(packet))
        library.avcodec_send_packet(_address(codec), None)
        if library.avcodec_receive_frame(_address(codec), _address(frame)) < 0 or _int(frame, places.errors) <= 0:
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
    """Say whether a number can be the address of something small that was allocated beside a structure.

    It is then safe to look there: of two halves of other numbers that were read as one, next to none is so near.
    """
    return value % 8 == 0 and value > 1 << 16 and abs(value - structure) < _NEAR
