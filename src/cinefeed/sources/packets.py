"""Counting the packets of a video in place of its frames, for files in which both are the same.

That holds where the decoder puts out one frame for each packet. A file that fails one of these checks is decoded:

- the container, not FFmpeg's parser, divides the stream into packets: not MPEG-PS, MPEG-TS or a bare stream, whose
  first and last packets may be parts of frames
- it has a time stamp for each packet, all different, and calls none damaged, encrypted or cut off by an edit list
- the codec is one whose decoder gives a frame for each packet, and no packet says that nothing is shown (VP8, VP9,
  MPEG-4) or that frames cannot be decoded for lack of those before (HEVC, after a splice)
- the stream does not begin in mid-GOP: its first packet is a key frame and the first to be shown
- the first frames, decoded, are those of the first packets and all of one size, and none is interlaced where a packet
  may be half a frame
"""

import re
from collections.abc import Generator, Iterator, Sequence
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from cinefeed.sources.base import NONE_DAMAGED
from cinefeed.sources.limits import Deadline

STAMPED_BY_PES = frozenset({"mpeg", "mpegts"})
# Their one stamp a packet is that of decoding. FFmpeg guesses those of presentation from it, anew after each seek.
_DECODING_STAMPS = frozenset({"avi", "asf"})
_NO_STAMPS = 0x80  # AVFMT_NOTIMESTAMPS
_CHECKED = 16  # frames that are decoded; 1 ms of 112 x 112

# Others may give no frame for a packet that changes nothing (QuickTime Animation, WMV), or were not tried.
_FRAME_PER_PACKET = frozenset(
    """
    av1 dnxhd ffv1 ffvhuff h264 hevc huffyuv jpeg2000 libdav1d mjpeg mpeg1video mpeg2video mpeg4 png prores rawvideo
    v210 vp8 vp9
    """.split()
)
_SMALL_VOP = 10  # bytes; an MPEG-4 frame "not coded" has 6 to 8, and so has the packet that ends packed B-frames
_HEVC_SPLICES = frozenset({16, 17, 18, 36, 37})  # NAL units: BLA pictures, end of sequence, end of bitstream


class Seen(NamedTuple):
    """What one pass over a file found, in output order: a stamp (None where there is none) and a key flag a frame.

    `shown` are the presentation stamps, where `stamps` are those of decoding. `damaged` are the ranges of frames that
    are not what the file holds, (n, 2); a pass over packets does not know of any.
    """

    stamps: Sequence[int | None]
    key_flags: Sequence[bool]
    first: av.VideoFrame | None
    error: str | None
    shown: Sequence[int | None] | None
    damaged: NDArray[np.int32] = NONE_DAMAGED


def makes_stamps_up(container: InputContainer) -> bool:
    """Return whether a file is a bare stream of frames, to which FFmpeg gives times, and other ones after a seek."""
    return bool(container.format.flags & _NO_STAMPS)


def packets_of(
    container: InputContainer, stream: av.VideoStream, *, shown: dict[int | None, int | None] | None = None
) -> "Generator[av.Packet[av.VideoStream]]":
    """Yield the packets of a stream, and at the end an empty one, with stamps that are the same after any seek.

    Where these are stamps of decoding, `shown` is filled with FFmpeg's stamp of presentation for each.
    """
    decoding_stamps = container.format.name in _DECODING_STAMPS
    packets = container.demux(stream)
    try:
        if not decoding_stamps:
            yield from packets
            return
        for packet in packets:
            if shown is not None:
                shown[packet.dts] = packet.pts
            packet.pts = packet.dts
            yield packet
    finally:
        packets.close()  # type: ignore[attr-defined]  # one that is dropped leaves 256 bytes for good


def is_whole_frame(packet: "av.Packet[av.VideoStream]", place: int) -> bool:
    """Return whether a key frame of a program or transport stream, the `place`-th packet after a seek, is all there.

    Else its stamp may be that of another frame.
    """
    # The remains of a frame can come first, and with the flag of a key frame; they begin with no start code.
    whole = place > 0 or memoryview(packet)[:4].tobytes().startswith((b"\0\0\1", b"\0\0\0\1"))
    return whole and packet.pos is not None  # FFmpeg gives no position to a frame whose stamp it made up


def within(frame: av.VideoFrame, deadline: Deadline) -> av.VideoFrame:
    """Return the first frame of a file. Raises LimitError if it is larger than the limits allow."""
    deadline.limits.check_frame(sum(plane.buffer_size for plane in frame.planes), where=deadline.where)
    return frame


def pass_over_packets(container: InputContainer, stream: av.VideoStream, *, deadline: Deadline) -> Seen | None:
    """Return the stamps and key flags of a stream's packets, by rising stamp; None where the file must be decoded.

    Raises LimitError where there are more than the limits allow, or it takes longer.
    """
    codec = stream.codec_context
    if makes_stamps_up(container) or container.format.name in STAMPED_BY_PES or codec.name not in _FRAME_PER_PACKET:
        return None
    stamps: list[int] = []
    flags: list[bool] = []
    presented_of: dict[int | None, int | None] = {}
    first, decoded = None, list[int | None]()  # the first frame, and the stamps of the first frames
    try:
        for packet in packets_of(container, stream, shown=presented_of):
            if packet.size:
                stamp = packet.pts
                if stamp is None or packet.is_discard or packet.is_corrupt or packet.has_sidedata("encryption_info"):
                    return None
                if not (stamps or packet.is_keyframe) or (stamps and stamp < stamps[0]):
                    return None
                if _hides_frames(packet, codec):
                    return None
                stamps.append(stamp)
                flags.append(packet.is_keyframe)
            if len(decoded) < _CHECKED:
                for frame in packet.decode():
                    first = first or within(frame, deadline)
                    decoded.append(frame.pts)
                    if frame.is_corrupt:
                        return None
                    if frame.interlaced_frame and codec.name in ("h264", "hevc"):
                        return None
                    if (frame.height, frame.width) != (first.height, first.width):
                        return None
            deadline.check_frames(len(stamps))
    except (av.FFmpegError, OSError, IndexError):  # IndexError: PyAV's, where a stream appears on the way
        return None
    order = sorted(range(len(stamps)), key=stamps.__getitem__)
    sorted_stamps = [stamps[i] for i in order]
    count = len(decoded) if len(decoded) >= _CHECKED else len(sorted_stamps)
    if first is None or decoded != sorted_stamps[:count] or len(set(sorted_stamps)) < len(sorted_stamps):
        return None
    if codec.reorder_depth > 0 and sorted_stamps == stamps:  # stamped as they are stored
        return None
    return Seen(
        sorted_stamps,
        [flags[i] for i in order],
        first,
        None,
        [presented_of[stamp] for stamp in sorted_stamps] if presented_of else None,
    )


def _hides_frames(packet: "av.Packet[av.VideoStream]", codec: av.VideoCodecContext) -> bool:
    """Return whether a packet says that it shows no frame, or that frames after it may not be shown."""
    if codec.name == "vp8":
        return not memoryview(packet)[0] & 0x10  # show_frame
    if codec.name == "vp9":
        first, last = memoryview(packet)[0], memoryview(packet)[-1]
        lies_lower = first & 0x30 == 0x30  # profile 3 has a reserved bit before
        several = last & 0xE0 == 0xC0  # a superframe, whose last frame is shown
        return not several and not first & (0x0A >> lies_lower)  # show_existing_frame, show_frame
    if codec.name == "mpeg4":
        return packet.size < _SMALL_VOP
    return codec.name == "hevc" and not _HEVC_SPLICES.isdisjoint(_hevc_units(bytes(packet), codec.extradata or b""))


def _hevc_units(data: bytes, extradata: bytes) -> Iterator[int]:
    """Yield the types of the NAL units in a packet of HEVC."""
    if extradata[:1] != b"\1":  # with start codes
        yield from (unit[1][0] >> 1 & 63 for unit in re.finditer(rb"\x00\x00\x01(.)", data, re.DOTALL))
        return
    at, length_bytes = 0, (extradata[21] & 3) + 1
    while at + length_bytes < len(data):
        yield data[at + length_bytes] >> 1 & 63
        at += length_bytes + int.from_bytes(data[at : at + length_bytes])
