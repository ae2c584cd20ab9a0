"""Detection of frames that depend on how they are reached, although FFmpeg does not mark them.

Many decoders, such as those of HEVC, MJPEG and FFV1, leave the area of broken data as it was in memory. A picture that
a transport or program stream has lost is replaced by any other available picture. In neither case is a frame marked,
and in both the pixels depend on the path to the frame. So such files are decoded again from each key frame: into memory
that is filled with noise, which shows where a decoder leaves out an area; and, if reads do it, without the frames that
no other needs.
"""

import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress

import av
import numpy as np
from av.container import InputContainer

from cinefeed.video.ffmpeg.damage import Soundness
from cinefeed.video.ffmpeg.packets import SKIPPING, STAMPED_BY_PES, is_whole_frame, packets_of
from cinefeed.video.ffmpeg.pixel_formats import plane_layout, planes_of
from cinefeed.video.limits import Deadline

# Codecs whose decoders mark each damaged frame, log or raise an error for it, or write every pixel of it all the same.
_MARKED_CODECS = frozenset(
    """
    av1 dnxhd ffvhuff gif h264 huffyuv jpeg2000 libdav1d mpeg1video mpeg2video mpeg4 png prores rawvideo utvideo v210
    vp9
    """.split()
)
# Codecs whose decoders keep state over a seek that damaged headers did not replace.
_KEEPING_STATE = frozenset("flv h263 h263i h263p msmpeg4 msmpeg4v1 msmpeg4v2 rv10 rv20 wmv1 wmv2".split())
_RECENT_FRAMES = 16  # a decoder refers to as many; longer ago, their memory is free to be overwritten
_RECENT_BYTES = 2**27  # limit for them: a small file may have frames of half a gigabyte
_HELD_AFTER_FLUSH = 2  # frames to which a decoder still refers, such as that of FFV1
_NOISE_STARTS = 4093  # each is another noise
_EARLIER = 6  # frames: program and transport streams are searched by decoding timestamps, which are earlier
_MOST_LATE = 32  # packets after the next key frame with frames displayed before it; H.264 and HEVC allow 16


def needs_second_look(container: InputContainer, stream: av.VideoStream) -> bool:
    """Return whether the decoder of a stream may return damaged frames without any sign."""
    return stream.codec_context.name not in _MARKED_CODECS or container.format.name in STAMPED_BY_PES


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
    noise: "Noise",
    deadline: Deadline,
) -> set[int]:
    """Return the frames whose pixels change when decoding begins at the preceding key frame.

    `stamps`, `key_flags` and `digests` come from a first pass to the end of the file, whose frames `noise` has kept. If
    timestamps do not identify the frames, the result is empty: such frames are always counted from the start.
    """
    valid_stamps = [stamp for stamp in stamps if stamp is not None]
    keys, changed = np.flatnonzero(key_flags).tolist(), set[int]()
    if not keys or len(set(valid_stamps)) < len(stamps):
        return set()
    is_pes = container.format.name in STAMPED_BY_PES
    earlier = _EARLIER * int(np.median(np.diff(np.sort(valid_stamps)))) if is_pes and len(valid_stamps) > 1 else 0
    used_codec = stream.codec_context
    noise.fill(container, stream)
    skips, keeps_state = used_codec.name in SKIPPING, used_codec.name in _KEEPING_STATE
    # From the last key frame to the first, since some decoders use the frame before in place of broken data.
    for key, end in reversed(list(zip(keys, [*keys[1:], len(valid_stamps)], strict=True))):
        deadline.check()
        numbers = dict(zip(valid_stamps[key:end], range(key, end), strict=True))
        next_key = valid_stamps[end] if end < len(valid_stamps) else None
        used_codec.skip_frame = "DEFAULT"
        for codec in [used_codec, *([used_codec] if skips else []), *([_new_decoder(stream)] if keeps_state else [])]:
            try:
                container.seek(valid_stamps[key] - earlier, stream=stream)
                for frame in _sound_frames(
                    container, stream, codec, valid_stamps[key], next_key=next_key, is_pes=is_pes, noise=noise
                ):
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
            used_codec.flush_buffers()
            used_codec.skip_frame = "NONREF"
            noise.overwrite(most=_HELD_AFTER_FLUSH)
    return changed


class Noise:
    """Overwrites the memory of decoded frames with noise, each time another, when their decoder needs it no more."""

    def __init__(self, stream: av.VideoStream) -> None:
        self._most = max(min(_RECENT_FRAMES, _RECENT_BYTES // max(stream.width * stream.height * 2, 1)), 1)
        self._recent_frames = deque[av.VideoFrame]()
        self._bytes, self._count = np.zeros(0, np.uint8), 0

    def fill(self, container: InputContainer, stream: av.VideoStream) -> None:
        """Decode more frames, so that the decoder will never need memory that is not overwritten, and overwrite it."""
        packets, count = packets_of(container, stream), 0
        with suppress(av.FFmpegError, OSError, IndexError):
            container.seek(0, stream=stream)
            while count < max(self._most, 2 * _HELD_AFTER_FLUSH) and (packet := next(packets)).size:
                with suppress(av.FFmpegError):
                    for frame in packet.decode():
                        self._recent_frames.append(frame)
                        count += 1
        packets.close()
        stream.codec_context.flush_buffers()
        self.overwrite(most=_HELD_AFTER_FLUSH)

    def keep(self, frame: av.VideoFrame) -> None:
        """Keep a frame, which the decoder may refer to, and overwrite the oldest one in return."""
        self._recent_frames.append(frame)
        self.overwrite(most=self._most)

    def overwrite(self, *, most: int) -> None:
        """Overwrite the frames but for the last `most`, and return their memory to the decoder."""
        while len(self._recent_frames) > most:
            frame = self._recent_frames.popleft()
            address = frame.planes[0].buffer_ptr
            frame.make_writable()  # makes a copy if the decoder still refers to the frame
            for plane in frame.planes if frame.planes[0].buffer_ptr == address else ():
                if plane.buffer_size + _NOISE_STARTS > len(self._bytes):
                    self._bytes = np.random.default_rng(0).integers(0, 256, plane.buffer_size + _NOISE_STARTS, np.uint8)
                self._count += 1
                start = self._count % _NOISE_STARTS
                np.frombuffer(memoryview(plane), np.uint8)[:] = self._bytes[start : start + plane.buffer_size]


def _sound_frames(
    container: InputContainer,
    stream: av.VideoStream,
    codec: av.VideoCodecContext,
    key: int,
    *,
    next_key: int | None,
    is_pes: bool,
    noise: Noise,
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
                if codec is stream.codec_context:
                    noise.keep(frame)
                if soundness.after(frame):
                    yield frame
    finally:
        packets.close()


def _new_decoder(stream: av.VideoStream) -> av.VideoCodecContext:
    used_codec = stream.codec_context
    codec = av.CodecContext.create(used_codec.codec, "r")
    assert isinstance(codec, av.VideoCodecContext)
    codec.width, codec.height, codec.codec_tag = used_codec.width, used_codec.height, used_codec.codec_tag
    codec.extradata = used_codec.extradata
    codec.thread_type, codec.thread_count, codec.options = "NONE", 1, used_codec.options
    return codec
