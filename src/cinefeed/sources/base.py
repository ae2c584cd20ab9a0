"""Base types of all sources: metadata of a file, requests for frames, and frames as planes or arrays."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Protocol, Self, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from cinefeed.clips import PixelType, Times
from cinefeed.errors import SettingError, SourceError, did_you_mean
from cinefeed.sources.colour import Colour as Colour
from cinefeed.sources.colour import lacks_window, to_pixels
from cinefeed.sources.display import upright
from cinefeed.sources.limits import DEFAULT_LIMITS, ReadLimits


class Ticks(NamedTuple):
    """The presentation timestamp of every frame, in the stream's time base; seeking needs it.

    Regular timestamps are stored as three numbers, all others as an int64 array in the frame order of a full decode,
    which can differ from the order of the timestamps (H.264 and MPEG-4 in containers that stamp frames in storage
    order). `base` is the seconds of one tick, as numerator and denominator; `step` of an array is the median step.
    """

    first: int
    step: int
    count: int  # type: ignore[assignment]  # of frames; a tuple has a method of this name
    base: tuple[int, int]
    listed: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, stamps: NDArray[np.int64], *, base: tuple[int, int]) -> Self:
        """Return the most compact form of these timestamps.

        >>> Ticks.of(np.array([0, 512, 1024]), base=(1, 12800))
        Ticks(first=0, step=512, count=3, base=(1, 12800), listed=None)
        """
        steps = np.diff(np.sort(stamps))
        step = int(np.median(steps)) if steps.size else 1
        first = int(stamps.min())
        regular = step > 0 and bool((np.diff(stamps) == step).all())
        return cls(first, step, len(stamps), base, None if regular else np.asarray(stamps, np.int64))

    def stamps(self) -> NDArray[np.int64]:
        """Return the timestamp of every frame, in frame order, int64 (count,)."""
        if self.listed is not None:
            return self.listed
        return self.first + self.step * np.arange(self.count, dtype=np.int64)

    def of_frames(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the timestamps of these frames only, without computing those of the whole video."""
        # int64: key frames are stored as int32, and timestamps can be larger.
        return self.first + self.step * numbers.astype(np.int64) if self.listed is None else self.listed[numbers]

    def times(self, *, start_seconds: float) -> Times:
        """Return the times in seconds from the container's start; frame n has the n-th smallest timestamp.

        >>> Ticks.of(np.array([126000, 129600, 133200]), base=(1, 90000)).times(start_seconds=1.4).seconds().round(3)
        array([0.  , 0.04, 0.08])
        """
        seconds = self.base[0] / self.base[1]
        listed = None if self.listed is None else np.sort(self.listed).astype(np.float64) * seconds - start_seconds
        return Times(self.first * seconds - start_seconds, self.step * seconds, self.count, listed)


Window = Literal["file", "none", "percentiles"]
OnDamage = Literal["raise", "conceal"]
NO_DAMAGE: NDArray[np.int32] = np.zeros((0, 2), np.int32)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Options for reading files that can be read in several ways. Scans store the result in each row for feeds.

    axes:    order of an array's axes, one letter per axis: T time, H height, W width, C channels, Z slices, N samples
             ("HWT", "NTHW"); by default (N,) T, H, W (, C) for arrays, and the order in the header for NIfTI
    slice:   slice of a 4-D volume: the middle one, one by number, or each as a separate sample
    window:  values that become black and white: those in the file (DICOM), none (numbers as stored), or the 1st and
             99th percentile of the file
    stream:  index among the video streams of a file; by default the first that is not a cover picture
    frames:  images of a folder that are its frames, as a name pattern, such as "*.jpg" beside masks (a pattern with a /
             is matched against the path, such as "*/images/*"); by default all, which must then have one format
    keep:    DICOM attributes to keep as columns, such as SeriesDescription, ProtocolName, Manufacturer,
             ManufacturerModelName, MagneticFieldStrength, ViewPosition; names, dates and comments are never kept
    salt:    salt for hashing patient, study and series ids; by default random, so that the hashes of two scans differ;
             "" keeps the ids unhashed
    limits:  limits beyond which a file is refused
    on_damage:  "raise" refuses to read a damaged frame of an encoded video; "conceal" returns what FFmpeg substitutes.
             The substitute is always the same: a new decoder starts at the previous key frame, which is slow. To find
             damaged frames all frames are decoded, whatever `verify` is
    """

    axes: str | None = None
    slice: Literal["middle", "each"] | int = "middle"
    window: Window = "file"
    stream: int | None = None
    frames: str | None = None
    keep: tuple[str, ...] = ()
    salt: str | None = None
    limits: ReadLimits = DEFAULT_LIMITS
    on_damage: OnDamage = "raise"

    def __post_init__(self) -> None:
        if self.window not in get_args(Window):
            raise SettingError(f"window={self.window!r} is not a choice; {did_you_mean(self.window, get_args(Window))}")
        if self.on_damage not in get_args(OnDamage):
            raise SettingError(
                f"on_damage={self.on_damage!r} is not a choice; {did_you_mean(self.on_damage, get_args(OnDamage))}"
            )
        if not (self.slice in ("middle", "each") or (type(self.slice) is int and self.slice >= 0)):
            raise SettingError(f"slice={self.slice!r} must be 'middle', 'each' or a number from 0")
        if self.stream is not None and (type(self.stream) is not int or self.stream < 0):
            raise SettingError(f"stream={self.stream!r} must be a number from 0")
        if not (self.frames is None or (isinstance(self.frames, str) and self.frames)):
            raise SettingError(f"frames={self.frames!r} must be a pattern of file names, such as '*.jpg'")
        axes = self.axes
        if axes is not None and not ({*"THW"} <= {*axes} <= {*"NTZHWC"} and len({*axes}) == len(axes)):
            raise SettingError(f"axes={axes!r} must name T, H and W, and may name C, Z and N, each once, as in 'HWT'")


DEFAULT_READING = Reading()


class Found(NamedTuple):
    """A sample found by a scan: a file, a part of a file (`part`), or a folder whose frames are `files`."""

    path: str  # relative to the scanned folder, with /
    part: str | None = None
    files: tuple[str, ...] = ()  # relative to `path`, in the order of their frames
    tags: Mapping[str, str | float | None] = {}  # columns of the row: patient, study, series, ...


class Region(NamedTuple):
    """A rectangle of the frame with one kind of content, in pixels; right and bottom are exclusive."""

    left: int
    top: int
    right: int
    bottom: int
    kind: str  # "2d", "colour", "pw", "cw", "m-mode" or "other"


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
class Facts:
    """Metadata of a video. `times.count` is its length in frames; seconds count from the container's start.

    Height and width are as displayed: the stored frame is mirrored, then stretched to square pixels by enlarging one
    axis, then rotated upright (`cinefeed.sources.display`). Planes are as stored.
    """

    height: int
    width: int
    channels: int  # 1 grey, 3 colour: as stored, not as requested
    bits: int
    times: Times
    rate_hz: float = float("nan")
    container: str = ""
    codec: str = ""
    pixel_format: str = ""
    rotation: int = 0  # degrees counter-clockwise from the stored frame to upright: 0, 90, 180 or 270
    header_frames: int = 0  # frame count in the header, 0 if it has none
    ticks: Ticks | None = None  # encoded video only
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
    files: tuple[str, ...] = ()  # of a folder: the files of its frames, in order
    tags: Mapping[str, str | float | None] = field(default_factory=dict)  # further columns, named by the format


class Stacked(Sequence[tuple[NDArray[Any], ...]]):
    """Frames of `Planes` that are contiguous in memory, so that all of them can be processed at once.

    `groups` are C-contiguous: the first planes of n frames, (n, height, width), followed by any further planes of equal
    size, one kind after the other: blue and red difference as (2 n, height, width).

    >>> Stacked([np.zeros((2, 4, 4)), np.arange(4.0).reshape(4, 1, 1)])[1][2].tolist()
    [[3.0]]
    """

    def __init__(self, groups: Sequence[NDArray[Any]]) -> None:
        self.groups = groups

    def __len__(self) -> int:
        return len(self.groups[0])

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        number = range(len(self))[place]
        return tuple(plane for group in self.groups for plane in group[number :: len(self)])

    def select(self, places: NDArray[np.intp]) -> "Stacked":
        """Return the frames at these indices, copied."""
        count, selected = len(self), list[NDArray[Any]]()
        for group in self.groups:
            kinds = group.reshape(-1, count, *group.shape[1:])[:, places]
            selected.append(kinds.reshape(-1, *group.shape[1:]))
        return Stacked(selected)


class Planes(NamedTuple):
    """Frames as a decoder returns them: `frames[i]` is the tuple of planes of the i-th requested frame.

    Planes are uint8, uint16 or float32, and views if the decoder allows it: rows may be padded, and repeated frames may
    share memory. A yuv source with one channel returns luma only, with model "grey".
    """

    frames: Sequence[tuple[NDArray[np.generic], ...]]
    colour: Colour


class Source(Protocol):
    """An open video file. It reads frames in any order; use it from one thread at a time."""

    @property
    def facts(self) -> Facts:
        """Metadata of the file."""
        ...

    def __len__(self) -> int: ...

    def planes(self, indices: Sequence[int] | NDArray[np.int64]) -> Planes:
        """Return the frames of `indices` as planes. Raises DecodeError, or SourceError (index out of range)."""
        ...

    def read(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.generic]:
        """Return the frames of `indices`, upright, (n, height, width, channels)."""
        ...

    def close(self) -> None:
        """Close the file. Closing twice is allowed."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class StoredFrames(ABC):
    """Base class of sources that read each frame on its own. Subclasses implement `_frame`."""

    def __init__(self, path: str | Path, *, facts: Facts, channels: int | None = None) -> None:
        self.path = Path(path)
        self.facts = facts
        self.channels = channels or facts.channels
        self.dtype: PixelType | None = None  # dtype that `read` returns; None: as stored
        self._closed = False

    @property
    @abstractmethod
    def colour(self) -> Colour:
        """How the planes of `_frame` are converted to pixels."""

    @abstractmethod
    def _frame(self, number: int) -> tuple[NDArray[Any], ...]:
        """Return the planes of a frame, each uint8, uint16 or float32."""

    def __len__(self) -> int:
        return self.facts.times.count

    def planes(self, indices: Sequence[int] | NDArray[np.int64]) -> Planes:
        """Return the frames of `indices`, as stored; repeated frames share memory."""
        if self._closed:
            raise SourceError(f"{self.path}: the source is closed; open it again with open_source")
        numbers = frame_numbers(indices, count=len(self), path=self.path).tolist()
        ready = {number: self._frame(number) for number in sorted(set(numbers))}
        return Planes([ready[number] for number in numbers], self.colour)

    def read(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[Any]:
        """Return the frames of `indices`, upright and converted, (n, height, width, channels)."""
        height, width = self.facts.height, self.facts.width
        return planes_to_array(
            self.planes(indices), channels=self.channels, height=height, width=width, dtype=self.dtype
        )

    def close(self) -> None:
        """Close the file; planes that were returned remain valid."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def frame_numbers(indices: Sequence[int] | NDArray[np.int64], *, count: int, path: object) -> NDArray[np.int64]:
    """Return the indices as int64 (n,). Raises SourceError if one is not in 0 ... count - 1."""
    numbers = np.asarray(indices)
    if numbers.size == 0:
        numbers = numbers.astype(np.int64).reshape(-1)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        raise SourceError(f"{path}: frames are asked for by a list of whole numbers, not {indices!r}")
    numbers = numbers.astype(np.int64)
    if numbers.size and (numbers.min() < 0 or numbers.max() >= count):
        first_invalid = int(numbers[(numbers < 0) | (numbers >= count)][0])
        raise SourceError(f"{path}: frame {first_invalid} was asked for, the file has frames 0 to {count - 1}")
    return numbers


def planes_to_array(
    planes: Planes, *, channels: int, height: int, width: int, dtype: PixelType | None = None
) -> NDArray[Any]:
    """Return frames as displayed and converted, (n, height, width, channels).

    `dtype` is that of the result, scaled as in `to_pixels`; by default the stored depth: up to 8 bits become uint8, up
    to 16 bits uint16 at full scale, float32 stays. Chroma is resized to the size of luma by linear interpolation, with
    evenly spaced sample centres; non-square pixels are made square by linear interpolation.
    """
    colour = planes.colour
    if dtype is not None and lacks_window(colour, dtype):
        raise SourceError(
            f"pixels as {dtype} were asked for, but these numbers ({colour.bits} bits) do not define black and white; "
            "read them as stored (dtype=None), or with Reading(window='percentiles')"
        )
    out_dtype = dtype or ("uint8" if colour.bits == 8 else "float32" if colour.bits == 32 else "uint16")
    out = np.empty((len(planes.frames), height, width, channels), out_dtype)
    as_stored = not (colour.rotation or colour.mirrored or colour.aspect != 1)
    for frame, target in zip(planes.frames, out, strict=True):
        same = frame[:1] if channels == 1 else (frame[0], *(_spread(plane, frame[0].shape) for plane in frame[1:]))
        pixels = target if as_stored else np.empty((*frame[0].shape[:2], channels), out_dtype)
        to_pixels(same, colour, channels=channels, out=pixels)
        if not as_stored:
            target[:] = upright(pixels, colour, height=height, width=width)
    return out


def _spread(chroma: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return chroma at the size of luma; for odd sizes the chroma planes are rounded up."""
    # A chroma sample is centred on its pixels, whatever the codec: see Compose._fit.
    height, width = shape[0], shape[1]
    down = next(factor for factor in (1, 2, 4) if chroma.shape[0] * factor >= height)
    across = next(factor for factor in (1, 2, 4) if chroma.shape[1] * factor >= width)
    if down == across == 1:
        return chroma
    size = (chroma.shape[1] * across, chroma.shape[0] * down)
    return cv2.resize(chroma, size, interpolation=cv2.INTER_LINEAR)[:height, :width]
