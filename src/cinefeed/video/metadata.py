"""Metadata of one video, as found by probing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cinefeed.video.timestamps import FrameTimes, Timestamps

NO_DAMAGE: NDArray[np.int32] = np.zeros((0, 2), np.int32)


class Region(NamedTuple):
    """A rectangle of the frame with one kind of content, in pixels; right and bottom are exclusive."""

    left: int
    top: int
    right: int
    bottom: int
    kind: str  # "2d", "colour", "pw", "cw", "m-mode" or "other"; of features "version"


class PackedMember(NamedTuple):
    """The position of a video in a packed shard, and what its codec does not define.

    `traits` are words: "limited" or "full" (range), a matrix such as "bt709", "open" if the numbers do not define black
    and white, and "untimed" if the times of frames are unknown, whatever the container states. "" if the codec defines
    all, or the bytes are those of the source.
    """

    offset: int  # of the first byte, in the shard
    size: int  # in bytes
    traits: str = ""

    @property
    def has_open_scale(self) -> bool:
        """Whether the numbers do not define black and white."""
        return "open" in self.traits.split()

    @property
    def is_untimed(self) -> bool:
        """Whether the times of frames are unknown."""
        return "untimed" in self.traits.split()


class PixelValues(NamedTuple):
    """Statistics of up to 16 frames, evenly spaced over a video, after rescaling and before windowing.

    NaN and infinite values are counted and excluded from the other statistics, which are NaN if no value is finite.
    """

    minimum: float
    maximum: float
    low: float  # the 0.5th percentile
    high: float  # the 99.5th
    nan_count: int
    inf_count: int


@dataclass(frozen=True, kw_only=True)
class VideoMetadata:
    """Metadata of a video. `times.count` is its length in frames; seconds count from the container's start.

    Height and width are as displayed: the stored frame is mirrored, then stretched to square pixels by enlarging one
    axis, then rotated upright (`cinefeed.video.orientation`). Planes are as stored.
    """

    height: int
    width: int
    channels: int  # 1 grey, 3 colour: as stored, not as requested
    bits: int
    times: FrameTimes
    rate_hz: float = float("nan")
    container: str = ""
    codec: str = ""
    pixel_format: str = ""
    rotation: int = 0  # degrees counter-clockwise from the stored frame to upright: 0, 90, 180 or 270
    header_frames: int = 0  # frame count in the header, 0 if it has none
    ticks: Timestamps | None = None  # encoded video only
    start_time_seconds: float = 0.0  # start of the container's own clock; `ffmpeg -ss` adds it to a given time
    key_frames: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))  # numbers of key frames
    error: str | None = None  # where and why the file breaks; the frames before the break can be read
    damaged: NDArray[np.int32] = field(default_factory=lambda: NO_DAMAGE)  # ranges of frames, (n, 2)
    conceals_damage: bool = False  # return FFmpeg's substitutes for damaged frames, else refuse
    mirrored: bool = False  # flip the stored frame left to right before rotating it
    aspect: float = 1.0  # width / height of a stored pixel; displayed pixels are square
    stream: int = 0  # index among the video streams of the file
    axes: str = ""  # of an array in an unusual order; the part fixes the index of a lower-case axis
    window: tuple[float, float] | None = None  # values that become black and white; inverted if the first is larger
    window_assumed: bool = False  # the file has no window; `window` is the full range of its more than 8 bits
    values: PixelValues | None = None  # measured by a scan and stored in a manifest; feeds do not use them
    spacing_mm: tuple[float, float] | None = None  # vertical and horizontal, of a displayed pixel
    regions: tuple[Region, ...] = ()
    member: PackedMember | None = None  # position in a packed shard; the other fields are those of the video in it
    files: tuple[str, ...] = ()  # of a folder: the files of its frames, in order
    tags: Mapping[str, str | float | None] = field(default_factory=dict)  # further columns, named by the format
