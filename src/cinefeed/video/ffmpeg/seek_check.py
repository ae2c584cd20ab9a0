"""Check that packets have the same timestamps after a seek as in a pass from the start.

AVI stores no timestamps: FFmpeg counts packets, and after a seek takes the count from the index of the file. If the
index has other entries than the file has packets, a timestamp then identifies another frame.
"""

from collections.abc import Iterable

import av
from av.container import InputContainer

from cinefeed.video.ffmpeg.packets import STAMPED_BY_PES, makes_stamps_up, packets_of
from cinefeed.video.limits import Deadline

_STATING_STAMPS = frozenset({"mov", "matroska"})  # for each packet, or range of packets


class SeekCheck:
    """Records the packets of one stream in a pass from its start, to find them again after seeks."""

    def __init__(self, container: InputContainer, stream: av.VideoStream) -> None:
        name = container.format.name
        states_stamps = not _STATING_STAMPS.isdisjoint(name.split(","))
        self._container, self._stream = container, stream
        self._is_needed = not (states_stamps or name in STAMPED_BY_PES or makes_stamps_up(container))
        self._places: dict[int | None, tuple[int | None, int]] = {}  # by timestamp: offset in the file, and size

    def add(self, packet: "av.Packet[av.VideoStream]") -> None:
        """Record a packet of the pass."""
        if self._is_needed and packet.size:
            self._places[packet.pts] = packet.pos, packet.size

    def stamps_change(self, key_stamps: Iterable[int], deadline: Deadline) -> bool:
        """Return whether a seek to one of these key frames leads to a packet with another timestamp."""
        for stamp in key_stamps if self._is_needed else ():
            deadline.check()
            packets = packets_of(self._container, self._stream)
            try:
                self._container.seek(stamp, stream=self._stream)
                first = next((packet for packet in packets if packet.size and packet.is_keyframe), None)
                if first is not None and self._places.get(first.pts) != (first.pos, first.size):
                    return True
            except (av.FFmpegError, OSError, IndexError):  # a read from here fails as well, and starts earlier
                pass
            finally:
                packets.close()
        return False
