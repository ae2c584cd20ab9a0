"""What a data file may do: which containers are opened, how much one file may expand to, and regular files only.

A file of a few bytes can promise or unpack to any amount, name other files, or be a pipe that never ends.
"""

import os
import stat
from dataclasses import dataclass, fields, replace
from pathlib import Path
from time import monotonic
from typing import NamedTuple, Self

from cinefeed.errors import LimitError, SettingError, SourceError

# FFmpeg's names of the containers that are opened, whatever a file is called. Each holds its frames itself; play lists
# and formats that read other files (concat, hls, dash, sdp, rtsp, image2, imf, vobsub, tee, lavfi ...) are left out.
DEMUXERS = tuple(
    """
    apng asf av1 avi dv flv gif h264 hevc ivf m4v matroska mjpeg mov mpeg mpegts mpegvideo mxf nut obu ogg vc1 vvc webm
    yuv4mpegpipe
    """.split()
)
_KINDS = {  # of files that are not regular
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}
_MOST_BYTES = 16  # of a pixel: four channels of 32 bits
_LEAST_FRAMES = 1 << 20  # promised by a file that is cut off, though no byte is there for each


@dataclass(frozen=True, kw_only=True)
class ReadLimits:
    """What one file may expand to when it is probed; beyond it the file is refused, before memory is taken for it.

    max_frame_bytes:     bytes of one frame as decoded; the default holds 8K RGB of 16 bits twice
    max_unpacked_bytes:  bytes that must be unpacked into memory at once: a deflated DICOM file, a chunk of an HDF5 data
                         set, a compressed array of which time is not the first axis
    max_frames:          frames of one sample; 46 hours at 60 Hz by default
    max_samples_per_file:  samples in one file: rows of an array, slices of a volume, data sets
    max_file_seconds:    seconds that a pass over one sample may take, to probe it or to measure its values, looked at
                         after each frame

    A feed reads what a scan has probed within its limits, so none of them is stored.

    >>> ReadLimits(max_frame_bytes=2**32).max_file_seconds
    3600.0
    """

    max_frame_bytes: int = 1 << 29
    max_unpacked_bytes: int = 1 << 29
    max_frames: int = 10_000_000
    max_samples_per_file: int = 1_000_000
    max_file_seconds: float = 3600.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise SettingError(f"ReadLimits({field.name}={getattr(self, field.name)!r}) must be above 0")

    def check_frame(self, size: int, *, where: object) -> None:
        """Raise LimitError if a frame of `size` bytes is larger than one may be."""
        if size > self.max_frame_bytes:
            raise self._error("max_frame_bytes", f"a frame takes {size:,} bytes", where)

    def check_unpacked(self, size: int, *, what: str, where: object) -> None:
        """Raise LimitError if `size` bytes are more than may be unpacked into memory at once."""
        if size > self.max_unpacked_bytes:
            raise self._error("max_unpacked_bytes", f"{what} unpacks to {size:,} bytes or more", where)

    def check_frames(self, count: int, *, file_bytes: int | None = None, where: object) -> None:
        """Raise SourceError if a file promises more frames than a sample may have, or than the file has bytes."""
        if file_bytes is not None and count > max(file_bytes, _LEAST_FRAMES):
            raise SourceError(
                f"{where}: promises {count:,} frames, and has {file_bytes:,} bytes: they cannot be there; "
                f"the file is damaged"
            )
        if count > self.max_frames:
            raise self._error("max_frames", f"promises {count:,} frames", where)

    def check_samples(self, count: int, *, where: object) -> None:
        """Raise LimitError if a file holds more samples than are listed."""
        if count > self.max_samples_per_file:
            raise self._error("max_samples_per_file", f"holds {count:,} samples", where)

    def deadline(self, where: object) -> "Deadline":
        """Return the moment until which a pass over a sample that begins now may take; `where` names the sample."""
        return Deadline(self, where, monotonic() + self.max_file_seconds)

    def covering(self, *, height: int, width: int, count: int) -> Self:
        """Return limits that allow for a sample of the size that a scan has found, with limits of its own."""
        frame_bytes = height * width * _MOST_BYTES
        return replace(
            self,
            max_frame_bytes=max(self.max_frame_bytes, frame_bytes),
            max_unpacked_bytes=max(self.max_unpacked_bytes, frame_bytes * count),
        )

    def _error(self, name: str, problem: str, where: object) -> LimitError:
        return LimitError(
            f"{where}: {problem}, beyond {name}={getattr(self, name):,}; raise that limit if the file can be "
            f"trusted (Reading(limits=ReadLimits({name}=...)), or scan --{name.replace('_', '-')})"
        )


DEFAULT_LIMITS = ReadLimits()


class Deadline(NamedTuple):
    """The moment until which a pass over one sample may take."""

    limits: ReadLimits
    where: object
    ends_at: float  # of time.monotonic()

    def check(self) -> None:
        """Raise LimitError if the time is over."""
        if monotonic() > self.ends_at:
            raise self.limits._error("max_file_seconds", "to probe it takes longer", self.where)

    def check_frames(self, count: int) -> None:
        """Raise LimitError if the time is over, or if `count` frames are too many."""
        self.limits.check_frames(count, where=self.where)
        self.check()


def irregular_kind(path: str | Path) -> str | None:
    """Return what a path is that is neither a regular file nor absent, such as "a named pipe"; None otherwise.

    To open a pipe waits until somebody writes into it; a device may never end.
    """
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116  # a Path would triple the 1.4 us of a call
    except (OSError, ValueError):
        return None  # the error of opening it says more
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "not a regular file")


def require_regular(path: str | Path) -> None:
    """Raise SourceError if a path is a pipe, a device or another thing to which opening it would do something."""
    kind = irregular_kind(path)
    if kind is not None and kind != _KINDS[stat.S_IFDIR]:
        raise SourceError(f"{path}: is {kind}, and only regular files are opened; copy its content into a file")
