"""Counting of packets in place of frames, for files in which the two agree.

That requires one decoded frame per packet. A file that fails one of these checks is decoded:

- the container, not FFmpeg's parser, divides the stream into packets: not MPEG-PS, MPEG-TS or a bare stream, in which
  the first and last packets may be parts of frames
- every packet has a timestamp, all are different, and none is marked damaged, encrypted or cut off by an edit list
- the decoder of the codec returns one frame per packet, and no packet is marked as hidden (VP8, MPEG-4). HEVC, VP9,
  AV1 and MJPEG are decoded: their decoders omit frames whose references or compressed headers are damaged
- the decoder accepts the headers of each frame without a warning, and they have allowed values (H.264, MPEG-2)
- each packet of H.264 is one picture, no picture is missing, and their stated order is that of the timestamps
- the stream does not begin in mid-GOP: its first packet is a key frame and is displayed first
- the first decoded frames match the first packets and have one size, and none is interlaced if a packet may be half a
  frame
"""

from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer
from numpy.typing import NDArray

from cinefeed.video.ffmpeg.frame_numbers import DisplayOrder
from cinefeed.video.ffmpeg.messages import capture_errors
from cinefeed.video.limits import Deadline
from cinefeed.video.metadata import NO_DAMAGE

STAMPED_BY_PES = frozenset({"mpeg", "mpegts"})
# Their packets have decoding timestamps only. FFmpeg estimates presentation timestamps, again after each seek.
_DECODING_STAMPS = frozenset({"avi", "asf"})
# Decoders that can skip non-reference frames without changing the others. Not AV1: libdav1d drops requested frames.
SKIPPING = frozenset({"h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4"})
_NO_STAMPS = 0x80  # AVFMT_NOTIMESTAMPS
_CHECKED_FRAMES = 16  # number of decoded frames; 1 ms for 112 x 112

# Other codecs may return no frame for a packet without changes (QuickTime Animation, WMV), or were not tested.
_FRAME_PER_PACKET = frozenset(
    """
    dnxhd ffv1 ffvhuff h264 huffyuv jpeg2000 mpeg1video mpeg2video mpeg4 png prores rawvideo v210 vp8
    """.split()
)
_SMALL_VOP = 10  # bytes; an MPEG-4 frame "not coded" has 6 to 8, as has the packet that ends packed B-frames
_VOP = b"\0\0\1\xb6"  # start code of an MPEG-4 frame
# FFmpeg's filters that parse the headers of each frame, and raise an error for forbidden values; 4 us a frame.
_HEADER_CHECKS = {"h264": "h264_metadata", "mpeg2video": "mpeg2_metadata"}


class Seen(NamedTuple):
    """Result of one pass over a file, in output order: a timestamp (None if missing) and a key flag per frame.

    `presentation_stamps` are set if `stamps` are decoding timestamps. `damaged` are the ranges of damaged frames, (n,
    2); a pass over packets does not detect any.
    """

    stamps: Sequence[int | None]
    key_flags: Sequence[bool]
    first: av.VideoFrame | None
    error: str | None
    presentation_stamps: Sequence[int | None] | None
    damaged: NDArray[np.int32] = NO_DAMAGE


def makes_stamps_up(container: InputContainer) -> bool:
    """Return whether a file is a bare stream of frames, whose times FFmpeg invents, differently after a seek."""
    return bool(container.format.flags & _NO_STAMPS)


def packets_of(
    container: InputContainer, stream: av.VideoStream, *, presentation_of: dict[int | None, int | None] | None = None
) -> "Generator[av.Packet[av.VideoStream]]":
    """Yield the packets of a stream and a final empty packet, with timestamps that are the same after any seek.

    If these are decoding timestamps, `presentation_of` is filled with FFmpeg's presentation timestamp for each.
    """
    decoding_stamps = container.format.name in _DECODING_STAMPS
    packets = container.demux(stream)
    try:
        if not decoding_stamps:
            yield from packets
            return
        for packet in packets:
            if presentation_of is not None:
                presentation_of[packet.dts] = packet.pts
            packet.pts = packet.dts
            yield packet
    finally:
        packets.close()  # type: ignore[attr-defined]  # a generator that is not closed leaks 256 bytes


def is_whole_frame(packet: "av.Packet[av.VideoStream]", place: int) -> bool:
    """Return whether a key frame of a program or transport stream, packet number `place` after a seek, is complete.

    Otherwise its timestamp may be that of another frame.
    """
    # The remainder of a frame can come first, with a key flag, but without a start code.
    whole = place > 0 or memoryview(packet)[:4].tobytes().startswith((b"\0\0\1", b"\0\0\0\1"))
    return whole and packet.pos is not None  # FFmpeg sets no position for a frame with an invented timestamp


def within(frame: av.VideoFrame, deadline: Deadline) -> av.VideoFrame:
    """Return the first frame of a file. Raises LimitError if it is larger than the limits allow."""
    deadline.limits.check_frame(sum(plane.buffer_size for plane in frame.planes), where=deadline.where)
    return frame


def pass_over_packets(
    container: InputContainer,
    stream: av.VideoStream,
    *,
    deadline: Deadline,
    visit: "Callable[[av.Packet[av.VideoStream]], None]",
) -> Seen | None:
    """Return the timestamps and key flags of a stream's packets, by timestamp; None if the file must be decoded.

    `visit` is called with each packet. Raises LimitError if there are more than the limits allow, or it takes longer.
    """
    codec = stream.codec_context
    if makes_stamps_up(container) or container.format.name in STAMPED_BY_PES or codec.name not in _FRAME_PER_PACKET:
        return None
    stamps: list[int] = []
    flags: list[bool] = []
    presented_of: dict[int | None, int | None] = {}
    first, decoded_stamps = None, list[int | None]()  # the first frame, and the stamps of the first frames
    check_name = _HEADER_CHECKS.get(codec.name)
    order = DisplayOrder(stream) if codec.name == "h264" else None
    try:
        header_check = check_name and BitStreamFilterContext(check_name, stream)
        with capture_errors(warnings=True), av.logging.Capture() as messages:
            for packet in packets_of(container, stream, presentation_of=presented_of):
                visit(packet)
                if packet.size:
                    stamp = packet.pts
                    if stamp is None or packet.is_discard or packet.is_corrupt:
                        return None
                    if packet.has_sidedata("encryption_info") or _hides_frames(packet, codec):
                        return None
                    if not (stamps or packet.is_keyframe) or (stamps and stamp < stamps[0]):
                        return None
                    if order is not None and not order.is_regular(packet, stamp):
                        return None
                    stamps.append(stamp)
                    flags.append(packet.is_keyframe)
                for frame in packet.decode()[: _CHECKED_FRAMES - len(decoded_stamps)]:
                    first = first or within(frame, deadline)
                    decoded_stamps.append(frame.pts)
                    if frame.is_corrupt or (frame.interlaced_frame and codec.name == "h264"):
                        return None
                    if (frame.height, frame.width) != (first.height, first.width):
                        return None
                if len(decoded_stamps) == _CHECKED_FRAMES:
                    codec.skip_frame = "ALL"  # the decoder parses headers only
                if packet.size and header_check:
                    header_check.filter(packet)  # the packet is empty afterwards
                deadline.check_frames(len(stamps))
            if messages:
                return None
    except (av.FFmpegError, OSError, IndexError):  # PyAV raises IndexError if a stream appears later
        return None
    by_stamp = sorted(range(len(stamps)), key=stamps.__getitem__)
    sorted_stamps = [stamps[i] for i in by_stamp]
    if first is None or decoded_stamps != sorted_stamps[:_CHECKED_FRAMES]:
        return None
    if len(set(sorted_stamps)) < len(sorted_stamps) or not (order is None or order.is_that_of_stamps()):
        return None
    if codec.reorder_depth > 0 and sorted_stamps == stamps:  # timestamps in storage order
        return None
    return Seen(
        sorted_stamps,
        [flags[i] for i in by_stamp],
        first,
        None,
        [presented_of[stamp] for stamp in sorted_stamps] if presented_of else None,
    )


def _hides_frames(packet: "av.Packet[av.VideoStream]", codec: av.VideoCodecContext) -> bool:
    """Return whether a packet is marked as having no displayed frame, or has no frame that a decoder finds."""
    if codec.name == "vp8":
        return not memoryview(packet)[0] & 0x10  # show_frame
    return codec.name == "mpeg4" and (packet.size < _SMALL_VOP or _VOP not in bytes(packet))
