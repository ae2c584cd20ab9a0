"""Limits on data files: supported containers, how far one file may expand, and regular files only.

A file of a few bytes can promise or unpack to any amount, refer to other files, or be a pipe that never ends.
"""

import os
import stat
from dataclasses import dataclass, fields, replace
from pathlib import Path
from time import monotonic
from typing import NamedTuple, Self

from cinefeed.core.arguments import check_arguments
from cinefeed.core.errors import LimitError, SettingError, SourceError

_KINDS = {  # of files that are not regular
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}
_MOST_BYTES = 16  # of a pixel: four channels of 32 bits
_LEAST_FRAMES = 1 << 20  # frames that a file may promise without having a byte for each


@check_arguments()
@dataclass(frozen=True, kw_only=True)
class ReadLimits:
    """How far one file may expand when it is probed; beyond a limit it is refused before memory is allocated.

    max_frame_bytes:     bytes of one decoded frame; the default holds 8K RGB of 16 bits twice
    max_unpacked_bytes:  bytes unpacked into memory at once: a deflated DICOM file, a chunk of an HDF5 data set, a
                         compressed array in which time is not the first axis
    max_frames:          frames of one sample; the default is 46 hours at 60 Hz
    max_samples_per_file:  samples in one file: rows of an array, slices of a volume, data sets
    max_file_seconds:    seconds for one pass over a sample, to probe it or to measure its values, checked after each
                         frame

    A feed reads what a scan accepted within its limits, so limits are not stored.

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
        """Raise LimitError if a frame of `size` bytes exceeds the limit."""
        if size > self.max_frame_bytes:
            raise self._error("max_frame_bytes", f"a frame takes {size:,} bytes", where)

    def check_unpacked(self, size: int, *, name: str, where: object) -> None:
        """Raise LimitError if unpacking `size` bytes into memory exceeds the limit; `name` is for the error."""
        if size > self.max_unpacked_bytes:
            raise self._error("max_unpacked_bytes", f"{name} unpacks to {size:,} bytes or more", where)

    def check_frames(self, count: int, *, file_bytes: int | None = None, where: object) -> None:
        """Raise SourceError for more frames than the file has bytes, LimitError for more than the limit."""
        if file_bytes is not None and count > max(file_bytes, _LEAST_FRAMES):
            raise SourceError(
                f"{where}: promises {count:,} frames, but has {file_bytes:,} bytes, which is impossible; "
                f"the file is damaged"
            )
        if count > self.max_frames:
            raise self._error("max_frames", f"promises {count:,} frames", where)

    def check_samples(self, count: int, *, where: object) -> None:
        """Raise LimitError if a file has more samples than the limit."""
        if count > self.max_samples_per_file:
            raise self._error("max_samples_per_file", f"holds {count:,} samples", where)

    def deadline(self, where: object) -> "Deadline":
        """Return the deadline of a pass over a sample that starts now; `where` identifies the sample."""
        return Deadline(self, where, monotonic() + self.max_file_seconds)

    def covering(self, *, height: int, width: int, count: int) -> Self:
        """Return limits that allow a sample of the size found by a scan, which may have had other limits."""
        frame_bytes = height * width * _MOST_BYTES
        return replace(
            self,
            max_frame_bytes=max(self.max_frame_bytes, frame_bytes),
            max_unpacked_bytes=max(self.max_unpacked_bytes, frame_bytes * count),
        )

    def _error(self, name: str, problem: str, where: object) -> LimitError:
        return LimitError(
            f"{where}: {problem}, beyond {name}={getattr(self, name):,}; raise that limit if the file can be "
            f"trusted (ReadOptions(limits=ReadLimits({name}=...)), or scan --{name.replace('_', '-')})"
        )


DEFAULT_LIMITS = ReadLimits()


class Deadline(NamedTuple):
    """The deadline of a pass over one sample."""

    limits: ReadLimits
    where: object
    ends_at: float  # of time.monotonic()

    def check(self) -> None:
        """Raise LimitError if the deadline has passed."""
        if monotonic() > self.ends_at:
            raise self.limits._error("max_file_seconds", "probing takes longer", self.where)

    def check_frames(self, count: int) -> None:
        """Raise LimitError if the deadline has passed, or if `count` frames are too many."""
        self.limits.check_frames(count, where=self.where)
        self.check()


def irregular_kind(path: str | Path) -> str | None:
    """Return the kind of a path that exists and is not a regular file, such as "a named pipe"; None otherwise.

    Opening a pipe blocks until another process writes into it; a device may never end.
    """
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116  # a Path takes three times the 1.4 us
    except (OSError, ValueError):
        return None  # opening it raises a better error
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "not a regular file")


def require_regular(path: str | Path) -> None:
    """Raise SourceError if a path is a pipe, a device or another object that must not be opened."""
    kind = irregular_kind(path)
    if kind is not None and kind != _KINDS[stat.S_IFDIR]:
        raise SourceError(f"{path}: is {kind}, but only regular files are opened; copy its content into a file")
