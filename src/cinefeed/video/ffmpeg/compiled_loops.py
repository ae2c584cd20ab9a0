"""FFmpeg's own functions, called by compiled loops: a whole clip is decoded without Python and without the GIL.

PyAV creates objects for each packet and frame while holding the GIL: for 16 frames of 112 x 112 that took a third of
the time, and two threads were no faster than one. Here FFmpeg's libraries, which PyAV ships, are called by address:
one call opens a file, one decodes the frames of a clip, one closes the file.

The struct offsets are in `abi`. If a library does not match them, this module is not used and PyAV reads all
files; `decoder` returns which of the two is used, and why.
"""

import errno
from typing import Any

import numpy as np
from numba import carray, types
from numpy.typing import NDArray

from cinefeed.core.compiled import compiled, pointer
from cinefeed.video.ffmpeg.abi import (
    FORMAT_ID,
    FRAME_STAMP,
    HEIGHT,
    LINES,
    NO_STAMP,
    OF_STREAM,
    PACKET_FLAGS,
    PARAMETERS,
    SIZE,
    STAMP,
    STREAM_COUNT,
    STREAMS,
    WIDTH,
    Offsets,
)
from cinefeed.video.ffmpeg.containers import DEMUXERS
from cinefeed.video.ffmpeg.damage import DAMAGED, SOUND, UNKNOWN, next_state
from cinefeed.video.ffmpeg.decode_range import end_of_run, seek_helps

_END_OF_FILE = -541478725  # AVERROR_EOF
_AGAIN = -errno.EAGAIN
_BACKWARD = 1  # AVSEEK_FLAG_BACKWARD
_KEY_PACKET = 1  # AV_PKT_FLAG_KEY
_CORRUPT, _KEY = 1, 2  # AV_FRAME_FLAG_CORRUPT, AV_FRAME_FLAG_KEY
_P, _B = 2, 3  # AVPictureType: frames that need others
_SKIP_NOTHING, SKIP_NONREF, SKIP_ALL = 0, 8, 48  # AVDiscard

_START, _GO_ON = -(2**62), -(2**62) + 1  # in place of a stamp to seek to
ALL, SOME, NOT_FRESH = range(3)  # results of `find_frames`; NOT_FRESH: the file must be reopened

# Indices into the state of an open file, one int64 array that compiled code reads and writes.
_FORMAT, _CODEC, _PACKET, _FRAME, _STREAM, _ERRORS_AT, _STATE, _REACHED, DECODED, RANGE, SPACE = range(11)
_OPTIONS, _FLAGS_AT, _SKIP_AT, _PICTURE_AT, _FRESH, _LAST = range(11, 17)  # fresh: nothing read; last: decoded
# A play list must neither fetch anything nor present another file of this machine as its own.
_WORDS = (
    b"protocol_whitelist",
    b"file",
    b"format_whitelist",
    ",".join(DEMUXERS).encode(),
    b"threads",
    b"1",
    b"discard",
    b"subfile,file",  # for videos in packed shards only
)
TEXTS = b"".join(word + b"\0" for word in _WORDS)
_, FILE_AT, _FORMATS_AT, _DEMUXERS_AT, _THREADS_AT, _ONE_AT, _DISCARD_AT, SUBFILE_AT = (
    sum(len(word) + 1 for word in _WORDS[:i]) for i in range(len(_WORDS))
)

_int, _long, _address, _nothing = types.int32, types.int64, types.intp, types.void


def _ffmpeg(name: str, returns: Any, *takes: Any) -> Any:
    """Declare one of FFmpeg's functions for compiled code, which looks it up by name."""
    NAMES.append(name)
    return types.ExternalFunction(name, returns(*takes))


NAMES: list[str] = []  # of all functions that compiled code calls
_dict_set = _ffmpeg("av_dict_set", _int, _address, _address, _address, _int)
_dict_free = _ffmpeg("av_dict_free", _nothing, _address)
_find_input_format = _ffmpeg("av_find_input_format", _address, _address)
_set_option = _ffmpeg("av_opt_set_int", _int, _address, _address, _long, _int)
_open_input = _ffmpeg("avformat_open_input", _int, _address, _address, _address, _address)
_close_input = _ffmpeg("avformat_close_input", _nothing, _address)
_read_packet = _ffmpeg("av_read_frame", _int, _address, _address)
_seek = _ffmpeg("av_seek_frame", _int, _address, _int, _long, _int)
_find_decoder = _ffmpeg("avcodec_find_decoder", _address, _int)
_new_codec = _ffmpeg("avcodec_alloc_context3", _address, _address)
_set_parameters = _ffmpeg("avcodec_parameters_to_context", _int, _address, _address)
_open_codec = _ffmpeg("avcodec_open2", _int, _address, _address, _address)
_free_codec = _ffmpeg("avcodec_free_context", _nothing, _address)
_flush = _ffmpeg("avcodec_flush_buffers", _nothing, _address)
_send_packet = _ffmpeg("avcodec_send_packet", _int, _address, _address)
_receive_frame = _ffmpeg("avcodec_receive_frame", _int, _address, _address)
_new_packet = _ffmpeg("av_packet_alloc", _address)
_empty_packet = _ffmpeg("av_packet_unref", _nothing, _address)
_free_packet = _ffmpeg("av_packet_free", _nothing, _address)
_new_frame = _ffmpeg("av_frame_alloc", _address)
_empty_frame = _ffmpeg("av_frame_unref", _nothing, _address)
_free_frame = _ffmpeg("av_frame_free", _nothing, _address)


def new_state(offsets: Offsets) -> NDArray[np.int64]:
    """Return the state of a video that is not open yet."""
    state = np.zeros(17, np.int64)
    state[_FLAGS_AT], state[_SKIP_AT], state[_PICTURE_AT] = offsets.flags, offsets.skip, offsets.picture_type
    state[_ERRORS_AT], state[_REACHED], state[_LAST] = offsets.errors, NO_STAMP, -1
    return state


@compiled
def _number(address: int) -> int:
    return int(carray(pointer(address), (1,), np.int32)[0])


@compiled
def _long_number(address: int) -> int:
    return int(carray(pointer(address), (1,), np.int64)[0])


@compiled
def open_stream(texts: Any, protocols_at: int, format_at: int, path_at: int, number: int, state: Any) -> bool:
    """Open a file and the decoder of video stream `number`; return whether both succeeded.

    `texts` are TEXTS, the name of the format and the path, each ending in a zero byte. `protocols_at` is FILE_AT, or
    SUBFILE_AT for a video in a packed shard. The file is not probed.
    """
    text, at = texts.ctypes.data, state.ctypes.data
    options = at + 8 * _OPTIONS
    _dict_set(options, text, text + protocols_at, 0)
    _dict_set(options, text + _FORMATS_AT, text + _DEMUXERS_AT, 0)
    status = _open_input(at + 8 * _FORMAT, text + path_at, _find_input_format(text + format_at), options)
    _dict_free(options)
    if status < 0:
        return False
    count, streams = _number(state[_FORMAT] + STREAM_COUNT), _long_number(state[_FORMAT] + STREAMS)
    stream_index, parameters, videos = -1, 0, 0
    for i in range(count):
        stream = _long_number(streams + 8 * i)
        candidate = _long_number(stream + PARAMETERS)
        if _number(candidate) == 0:
            if videos == number:
                stream_index, parameters = i, candidate
            videos += 1
        if stream_index != i:
            _set_option(stream, text + _DISCARD_AT, SKIP_ALL, 0)
    if stream_index < 0:
        return False
    state[_STREAM] = stream_index
    decoder = _find_decoder(_number(parameters + 4))
    state[_CODEC] = _new_codec(decoder)
    if decoder == 0 or state[_CODEC] == 0 or _set_parameters(state[_CODEC], parameters) < 0:
        return False
    _dict_set(options, text + _THREADS_AT, text + _ONE_AT, 0)
    status = _open_codec(state[_CODEC], decoder, options)
    _dict_free(options)
    state[_PACKET], state[_FRAME], state[_FRESH] = _new_packet(), _new_frame(), 1
    return bool(status >= 0 and state[_PACKET] != 0 and state[_FRAME] != 0)


@compiled
def close_stream(state: Any) -> None:
    """Release what `open_stream` allocated. Closing twice is allowed."""
    at = state.ctypes.data
    if state[_FRAME] != 0:
        _free_frame(at + 8 * _FRAME)
    if state[_PACKET] != 0:
        _free_packet(at + 8 * _PACKET)
    if state[_CODEC] != 0:
        _free_codec(at + 8 * _CODEC)
    if state[_FORMAT] != 0:
        _close_input(at + 8 * _FORMAT)


@compiled
def _copy(frame: int, plane: int, block: Any) -> bool:
    """Copy a plane of a frame, (rows, bytes); return whether its rows are stored top to bottom."""
    address, line = _long_number(frame + 8 * plane), _number(frame + LINES + 4 * plane)
    if line < block.shape[1]:
        return False
    for y in range(block.shape[0]):
        row, to = carray(pointer(address + y * line), (block.shape[1],), np.uint8), block[y]
        for x in range(row.size):
            to[x] = row[x]
    return True


@compiled
def _receive(state: Any, stamps: Any, shape: Any, is_found: Any, luma: Any, blue: Any, red: Any) -> int:
    """Receive the decoder's frames; return how many were copied, -1 if it fails, hides damage or the format differs."""
    frame, copied = state[_FRAME], 0
    while True:
        status = _receive_frame(state[_CODEC], frame)
        if status < 0:
            return copied if status in (_AGAIN, _END_OF_FILE) else -1
        state[DECODED] += 1
        at = frame + state[_FLAGS_AT]
        flags = _number(at)
        corrupt = flags & _CORRUPT != 0 or _number(frame + state[_ERRORS_AT]) != 0
        picture = _number(frame + state[_PICTURE_AT])
        state[_STATE] = next_state(state[_STATE], corrupt, flags & _KEY != 0, picture in (_P, _B))
        stamp = _long_number(frame + FRAME_STAMP)
        place = np.searchsorted(stamps, stamp)
        requested = place < stamps.size and stamps[place] == stamp and not is_found[place]
        if requested and state[_STATE] == DAMAGED:
            return -1
        if requested and state[_STATE] == SOUND:
            if (_number(frame + WIDTH), _number(frame + HEIGHT), _number(frame + FORMAT_ID)) != shape:
                return -1
            whole = _copy(frame, 0, luma[place])
            if blue.size > 0:
                whole = whole and _copy(frame, 1, blue[place]) and _copy(frame, 2, red[place])
            if not whole:
                return -1
            if state[RANGE] < 0:
                state[RANGE], state[SPACE] = _number(at + 4), _number(at + 16)
            is_found[place] = True
            copied += 1
        _empty_frame(frame)


@compiled
def _decode_run(
    state: Any, stamps: Any, seek: int, skippable: int, shape: Any, is_found: Any, luma: Any, blue: Any, red: Any
) -> bool:
    """Decode the frames of one run; return whether all of them were found.

    `skippable` is what may be left out if it is not requested: nothing, frames without references to them, or all.
    """
    codec, packet = state[_CODEC], state[_PACKET]
    started = seek in (_START, _GO_ON)
    if seek != _GO_ON:
        state[_STATE] = SOUND if started else UNKNOWN
    if not started:
        _flush(codec)
        if _seek(state[_FORMAT], state[_STREAM], seek, _BACKWARD) < 0:
            return False
    state[_REACHED] = NO_STAMP
    skip = carray(pointer(codec + state[_SKIP_AT]), (1,), np.int32)
    is_sent = np.zeros(stamps.size, np.bool_)
    missing = unsent_count = stamps.size
    reached, all_stamped = stamps[0], True
    while True:
        status = _read_packet(state[_FORMAT], packet)
        if status < 0 and status != _END_OF_FILE:
            return False
        if status < 0:
            break
        size, flags = _number(packet + SIZE), _number(packet + PACKET_FLAGS)
        stamp = _long_number(packet + STAMP)
        if _number(packet + OF_STREAM) != state[_STREAM] or not (started or (size > 0 and flags & _KEY_PACKET)):
            _empty_packet(packet)
            continue
        if not started and stamp != NO_STAMP and stamp > stamps[0]:  # the seek landed too late
            _empty_packet(packet)
            return False
        started = True
        if stamp == NO_STAMP:
            all_stamped = False
        else:
            reached = max(reached, stamp)
        place = np.searchsorted(stamps, stamp)
        requested = place < stamps.size and stamps[place] == stamp
        if requested and not is_sent[place]:
            is_sent[place] = True
            unsent_count -= 1
        if skippable == SKIP_ALL and not requested:
            _empty_packet(packet)
            continue
        skip[0] = _SKIP_NOTHING if requested else skippable
        status = _send_packet(codec, packet)
        _empty_packet(packet)
        copied = _receive(state, stamps, shape, is_found, luma, blue, red)
        if status < 0 or copied < 0:
            return False
        missing -= copied
        if missing == 0 and reached <= stamps[-1]:
            if all_stamped:
                state[_REACHED] = reached
            return True
        if unsent_count == 0:  # the decoder still holds missing frames, or frames displayed later, for reordering
            break
    skip[0] = _SKIP_NOTHING
    whole = _send_packet(codec, 0) >= 0 and _receive(state, stamps, shape, is_found, luma, blue, red) == missing
    return bool(whole and state[_STATE] != DAMAGED)


@compiled
def _seek_of(state: Any, number: int, stamp: int, key: int, keys: Any, key_stamps: Any) -> int:
    """Return the timestamp of the key frame from which the first run is decoded, or _START or _GO_ON."""
    if NO_STAMP < state[_REACHED] < stamp and not seek_helps(state[_LAST], key, keys):
        return _GO_ON
    if key < 0 or (state[_FRESH] != 0 and keys[key] == 0):
        return _START
    return int(key_stamps[key])


@compiled
def find_frames(
    state: Any,
    numbers: Any,
    stamps: Any,
    places: Any,
    keys: Any,
    key_stamps: Any,
    skippable: int,
    shape: Any,
    luma: Any,
    chroma: Any,
) -> int:
    """Decode frames in ascending order, by number and timestamp, and copy their planes; return ALL if all were found.

    `luma` is (places, rows, bytes). `chroma` has the blue and then the red planes; if its size is 0, only luma is
    copied. Place i gets the frame of `numbers[places[i]]` (`places` must be ascending), or of `numbers[i]` if `places`
    is empty. `keys` are the numbers of the key frames around these frames and `key_stamps` their timestamps, `shape` is
    the width, height and format of every frame.
    """
    is_found, half = np.zeros(numbers.size, np.bool_), chroma.shape[0] // 2
    begin = 0
    while begin < numbers.size:
        end = end_of_run(numbers, begin, keys)
        key = np.searchsorted(keys, numbers[begin], side="right") - 1
        if begin == 0:
            seek = _seek_of(state, numbers[0], stamps[0], key, keys, key_stamps)
            if seek == _START and state[_FRESH] == 0:
                return NOT_FRESH
            state[_FRESH], state[_LAST] = 0, numbers[-1]
        else:
            seek = key_stamps[key]
        blues, reds = chroma[begin:end], chroma[half + begin : half + end]  # empty if chroma is
        if not _decode_run(
            state, stamps[begin:end], seek, skippable, shape, is_found[begin:end], luma[begin:end], blues, reds
        ):
            return SOME
        begin = end
    for planes in (luma, chroma[:half], chroma[half:]):
        for i in range(min(places.size, planes.shape[0]) - 1, -1, -1):
            if places[i] != i:
                planes[i] = planes[places[i]]
    return ALL
