"""Detection of frames that depend on how they are reached, although FFmpeg does not mark them.

The HEVC decoder leaves the area of a broken slice uninitialised. A picture that a transport or program stream has lost
is replaced by any other available picture. In neither case is a frame marked, and in both the pixels depend on the
path to the frame. So such files are decoded again from each key frame, in two of the ways in which reads do it.
"""

import zlib
from collections import deque
from collections.abc import Iterator, Sequence

import av
import numpy as np
from av.container import InputContainer

from cinefeed.video.ffmpeg.damage import Soundness
from cinefeed.video.ffmpeg.packets import STAMPED_BY_PES, is_whole_frame, packets_of
from cinefeed.video.ffmpeg.pixel_formats import plane_layout, planes_of
from cinefeed.video.limits import Deadline

_UNMARKED_CODECS = frozenset({"hevc"})
_RECENT_FRAMES = 16  # keeping them makes the decoder write to other memory than in the first pass
_RECENT_BYTES = 2**27  # limit for them: a small file may have frames of half a gigabyte
_EARLIER = 6  # frames: program and transport streams are searched by decoding timestamps, which are earlier
_MOST_LATE = 32  # packets after the next key frame with frames displayed before it; H.264 and HEVC allow 16


def needs_second_look(container: InputContainer, stream: av.VideoStream) -> bool:
    """Return whether the decoder of a stream may return damaged frames without marking them."""
    return stream.codec_context.name in _UNMARKED_CODECS or container.format.name in STAMPED_BY_PES


def frame_digest(frame: av.VideoFrame) -> int:
    """Return a checksum of the pixels of a frame."""
    value = 0
    for plane in planes_of(frame, plane_layout(frame.format.name), grey=False):
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
    """Return the frames whose pixels change when decoding begins at the preceding key frame.

    `stamps`, `key_flags` and `digests` come from a first pass to the end of the file. If timestamps do not identify the
    frames, the result is empty: such frames are always counted from the start.
    """
    valid_stamps = [stamp for stamp in stamps if stamp is not None]
    keys, changed = np.flatnonzero(key_flags).tolist(), set[int]()
    if not keys or len(set(valid_stamps)) < len(stamps):
        return set()
    is_pes = container.format.name in STAMPED_BY_PES
    earlier = _EARLIER * int(np.median(np.diff(np.sort(valid_stamps)))) if is_pes and len(valid_stamps) > 1 else 0
    held_count = min(_RECENT_FRAMES, _RECENT_BYTES // max(stream.width * stream.height * 2, 1))
    for key, end in zip(keys, [*keys[1:], len(valid_stamps)], strict=True):
        deadline.check()
        numbers = dict(zip(valid_stamps[key:end], range(key, end), strict=True))
        next_key = valid_stamps[end] if end < len(valid_stamps) else None
        # A new decoder has empty memory; a used decoder has earlier frames in memory.
        ways = ((stream.codec_context, True, 0), (_new_decoder(stream), False, held_count))
        for codec, skips, held_frames in ways:
            codec.skip_frame = "NONREF" if skips else "DEFAULT"
            recent_frames = deque[av.VideoFrame](maxlen=held_frames)
            try:
                container.seek(valid_stamps[key] - earlier, stream=stream)
                for frame in _sound_frames(
                    container, stream, codec, valid_stamps[key], next_key=next_key, is_pes=is_pes
                ):
                    recent_frames.append(frame)
                    number = None if frame.pts is None else numbers.get(frame.pts)
                    if number is not None and frame_digest(frame) != digests[number]:
                        changed.add(number)
                    if (
                        frame.pts is None
                        or frame.pts == valid_stamps[end - 1]
                        or (next_key is not None and frame.pts >= next_key)
                    ):
                        break
                    deadline.check()
            except (av.FFmpegError, OSError, IndexError):  # a read from here fails as well, and starts earlier
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
    """Yield the undamaged frames decoded from a key frame on, until packets after the next one are late."""
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
