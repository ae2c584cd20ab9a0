"""Frames that depend on how they are reached, though FFmpeg marks none of them.

The decoder of HEVC leaves what a broken slice does not cover as its memory was. A picture that a transport or program
stream has lost is replaced by whatever other one is there. In neither case is a frame marked, and in both another way
to the frame shows other pixels. So such files are decoded again from each key frame, in two ways in which reads do it.
"""

import zlib
from collections import deque
from collections.abc import Iterator, Sequence

import av
import numpy as np
from av.container import InputContainer

from cinefeed.sources.damage import Soundness
from cinefeed.sources.layout import layout_of, planes_of
from cinefeed.sources.limits import Deadline
from cinefeed.sources.packets import STAMPED_BY_PES, is_whole_frame, packets_of

_UNMARKED_CODECS = frozenset({"hevc"})
_HELD_FRAMES = 16  # while they are held the decoder writes to other memory than in the first pass
_HELD_BYTES = 2**27  # ... at most: a small file may hold frames of half a gigabyte
_EARLIER = 6  # frames: seeks in program and transport streams look for decoding stamps, which lie before
_MOST_LATE = 32  # packets after the next key frame that may hold frames shown before it; H.264 and HEVC allow 16


def needs_second_look(container: InputContainer, stream: av.VideoStream) -> bool:
    """Return whether the decoder of a stream may put out damaged frames that it does not mark."""
    return stream.codec_context.name in _UNMARKED_CODECS or container.format.name in STAMPED_BY_PES


def frame_digest(frame: av.VideoFrame) -> int:
    """Return a checksum of the pixels of a frame."""
    value = 0
    for plane in planes_of(frame, layout_of(frame.format.name), grey=False):
        value = zlib.crc32(np.ascontiguousarray(plane).data, value)
    return value


def changed_frames(
    container: InputContainer,
    stream: av.VideoStream,
    *,
    stamps: Sequence[int | None],
    key_flags: Sequence[bool],
    digests: Sequence[int],
    deadline: Deadline,
) -> set[int]:
    """Return the frames that come out otherwise where decoding begins at the key frame before them.

    `stamps`, `key_flags` and `digests` are those of the frames of a first pass, which has come to the end of the file.
    Of frames whose stamps do not tell them apart there are none: those are always counted from the start.
    """
    known = [stamp for stamp in stamps if stamp is not None]
    keys, changed = np.flatnonzero(key_flags).tolist(), set[int]()
    if not keys or len(set(known)) < len(stamps):
        return set()
    is_pes = container.format.name in STAMPED_BY_PES
    earlier = _EARLIER * int(np.median(np.diff(np.sort(known)))) if is_pes and len(known) > 1 else 0
    held_count = min(_HELD_FRAMES, _HELD_BYTES // max(stream.width * stream.height * 2, 1))
    for key, end in zip(keys, [*keys[1:], len(known)], strict=True):
        deadline.check()
        numbers = dict(zip(known[key:end], range(key, end), strict=True))
        next_key = known[end] if end < len(known) else None
        # A new decoder has empty memory, one that has read the file what was there before.
        ways = ((stream.codec_context, True, 0), (_new_decoder(stream), False, held_count))
        for codec, skips, held_frames in ways:
            codec.skip_frame = "NONREF" if skips else "DEFAULT"
            held = deque[av.VideoFrame](maxlen=held_frames)
            try:
                container.seek(known[key] - earlier, stream=stream)
                for frame in _sound_frames(container, stream, codec, known[key], next_key=next_key, is_pes=is_pes):
                    held.append(frame)
                    number = None if frame.pts is None else numbers.get(frame.pts)
                    if number is not None and frame_digest(frame) != digests[number]:
                        changed.add(number)
                    if (
                        frame.pts is None
                        or frame.pts == known[end - 1]
                        or (next_key is not None and frame.pts >= next_key)
                    ):
                        break
                    deadline.check()
            except (av.FFmpegError, OSError, IndexError):  # a read from here fails as well, and begins earlier
                pass
    return changed


def _sound_frames(
    container: InputContainer,
    stream: av.VideoStream,
    codec: av.VideoCodecContext,
    key: int,
    *,
    next_key: int | None,
    is_pes: bool,
) -> Iterator[av.VideoFrame]:
    """Yield what a decoder makes of the packets from a key frame on, until those after the next one are late."""
    soundness, started, late = Soundness(at_start=False), False, 0
    packets = packets_of(container, stream)
    try:
        for place, packet in enumerate(packets):
            starts = packet.pts == key and packet.is_keyframe
            started = started or (starts and (not is_pes or is_whole_frame(packet, place)))
            if not started:
                continue
            late += next_key is not None and packet.pts is not None and packet.pts >= next_key
            if late > _MOST_LATE:
                return
            for frame in codec.decode(packet if packet.size else None):
                if soundness.after(frame):
                    yield frame
    finally:
        packets.close()


def _new_decoder(stream: av.VideoStream) -> av.VideoCodecContext:
    first = stream.codec_context
    codec = av.CodecContext.create(first.codec, "r")
    assert isinstance(codec, av.VideoCodecContext)
    codec.extradata = first.extradata
    codec.thread_type, codec.thread_count, codec.options = "NONE", 1, first.options
    return codec
