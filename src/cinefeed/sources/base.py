"""What every source hands over: facts about a file, and the frames asked for, as planes or as an array."""

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
    """The presentation time stamp of every frame, in the stream's own time base: what a seek needs.

    Regular stamps are three numbers. Any others are listed, int64, in the order in which a full decode puts the frames
    out; that is not always the order of the stamps (H.264 and MPEG-4 whose container stamps them as they are stored).
    `base` is the seconds of one tick, as numerator and denominator; of listed stamps `step` is the median distance.
    """

    first: int
    step: int
    count: int  # type: ignore[assignment]  # of frames; a tuple has a method of this name
    base: tuple[int, int]
    listed: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, stamps: NDArray[np.int64], *, base: tuple[int, int]) -> Self:
        """Return the shortest form of these stamps.

        >>> Ticks.of(np.array([0, 512, 1024]), base=(1, 12800))
        Ticks(first=0, step=512, count=3, base=(1, 12800), listed=None)
        """
        steps = np.diff(np.sort(stamps))
        step = int(np.median(steps)) if steps.size else 1
        first = int(stamps.min())
        regular = step > 0 and bool((np.diff(stamps) == step).all())
        return cls(first, step, len(stamps), base, None if regular else np.asarray(stamps, np.int64))

    def stamps(self) -> NDArray[np.int64]:
        """Return the stamp of every frame, in the order of the frames, int64 (count,)."""
        if self.listed is not None:
            return self.listed
        return self.first + self.step * np.arange(self.count, dtype=np.int64)

    def of_frames(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the stamps of these frames alone, without listing those of a long video."""
        # 64 bits: key frames are kept in 32, and stamps may lie beyond.
        return self.first + self.step * numbers.astype(np.int64) if self.listed is None else self.listed[numbers]

    def times(self, *, start_seconds: float) -> Times:
        """Return the same in seconds from the container's start time: that of frame n is the n-th of the sorted stamps.

        >>> Ticks.of(np.array([126000, 129600, 133200]), base=(1, 90000)).times(start_seconds=1.4).seconds().round(3)
        array([0.  , 0.04, 0.08])
        """
        seconds = self.base[0] / self.base[1]
        listed = None if self.listed is None else np.sort(self.listed).astype(np.float64) * seconds - start_seconds
        return Times(self.first * seconds - start_seconds, self.step * seconds, self.count, listed)


Window = Literal["file", "none", "percentiles"]
OnDamage = Literal["raise", "conceal"]
NONE_DAMAGED: NDArray[np.int32] = np.zeros((0, 2), np.int32)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a scan reads files that leave a choice. What comes of it is kept in each row, so that a feed needs no more.

    axes:    order of an array's axes, one letter each: T time, H height, W width, C channels, Z slices, N samples
             ("HWT", "NTHW"); by default (N,) T, H, W (, C) for arrays, and what the header says for NIfTI
    slice:   of a 4-D volume the middle slice, one by number, or each as a sample of its own
    window:  which values become black and white: those that the file names (DICOM), none (numbers as stored), or
             the 1st and 99th percentile of the file
    stream:  number among the video streams of a file; by default the first that is no cover picture
    frames:  which images of a folder are its frames, as a pattern of their names, such as "*.jpg" beside masks (or of
             their paths where it has a /, such as "*/images/*"); by default all, which must then be of one format
    keep:    DICOM attributes kept as columns, of SeriesDescription, ProtocolName, Manufacturer, ManufacturerModelName,
             MagneticFieldStrength, ViewPosition ...; never names, dates or comments
    salt:    what hashes patient, study and series ids; by default drawn anew, so that hashes of two scans differ;
             "" keeps them as they are
    limits:  what a file may expand to before it is refused
    on_damage:  a frame of an encoded video that is damaged is refused when it is read ("raise"), or what FFmpeg makes
             up is shown, always the same ("conceal"): it is decoded by a new decoder from the key frame before, which
             is slow. All frames are then decoded to find them, whatever `verify` is
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
    """A sample that a scan found: a file, a part of one (`part`), or a folder of which `files` are the frames."""

    path: str  # relative to the scanned folder, with /
    part: str | None = None
    files: tuple[str, ...] = ()  # relative to `path`, in the order of their frames
    tags: Mapping[str, str | float | None] = {}  # columns of the row: patient, study, series, ...


class Region(NamedTuple):
    """A rectangle of the frame that shows one thing, in pixels; right and bottom are past its end."""

    left: int
    top: int
    right: int
    bottom: int
    kind: str  # "2d", "colour", "pw", "cw", "m-mode" or "other"


class PixelValues(NamedTuple):
    """The numbers of up to 16 frames, evenly spread over a video: after a rescale, before a window.

    Those that are NaN or infinite are counted and have no part in the others, which are NaN where there is none left.
    """

    minimum: float
    maximum: float
    low: float  # the 0.5th percentile
    high: float  # the 99.5th
    nan_count: int
    inf_count: int


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a video file; `times.count` is its length, and its seconds count from the container's start.

    Height and width are as shown: the stored frame is mirrored, its pixels are made square by enlarging one axis, and
    it is turned upright, in this order (`cinefeed.sources.display`). Planes are as stored.
    """

    height: int
    width: int
    channels: int  # 1 grey, 3 colour: what the file holds, not what is asked of it
    bits: int
    times: Times
    rate_hz: float = float("nan")
    container: str = ""
    codec: str = ""
    pixel_format: str = ""
    rotation: int = 0  # degrees counter-clockwise that turn the stored frame upright: 0, 90, 180 or 270
    header_frames: int = 0  # what the header says, 0 where it says nothing
    ticks: Ticks | None = None  # encoded video alone
    start_time_seconds: float = (
        0.0  # of the container, by its own clock: what `ffmpeg -ss` adds to the time it is given
    )
    key_frames: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))  # numbers of key frames
    error: str | None = None  # where and how the file breaks; the frames before it can be read
    damaged: NDArray[np.int32] = field(default_factory=lambda: NONE_DAMAGED)  # ranges of frames, (n, 2): first, end
    conceals_damage: bool = False  # what FFmpeg makes up for damaged frames is shown; else they are refused
    mirrored: bool = False  # left and right of the stored frame change places before it is turned upright
    aspect: float = 1.0  # width of a stored pixel by its height; what is shown has square pixels
    stream: int = 0  # of the video streams in the file
    axes: str = ""  # of a stored array, where they are not in the usual order; a lower-case letter is fixed by the part
    window: tuple[float, float] | None = (
        None  # the values that become black and white; where the first is larger, inverted
    )
    window_assumed: bool = False  # the file names no window; that of all its bits, more than 8, stands in for one
    values: PixelValues | None = None  # measured by a scan; a manifest keeps them in columns, and no feed reads them
    spacing_mm: tuple[float, float] | None = None  # down and across, of a pixel as shown
    regions: tuple[Region, ...] = ()
    files: tuple[str, ...] = ()  # of a folder: the files that hold its frames, in their order
    tags: Mapping[str, str | float | None] = field(default_factory=dict)  # further columns, named by the format


class Stacked(Sequence[tuple[NDArray[Any], ...]]):
    """The frames of `Planes` where they follow each other in memory, so that they can be taken all at once.

    `groups` are C-contiguous: the first planes of n frames, (n, height, width), and, where there are more, those of the
    same size one kind after the other: blue and red difference as (2 n, height, width).

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

    def taken(self, places: NDArray[np.intp]) -> "Stacked":
        """Return the frames of these places, copied."""
        count, found = len(self), list[NDArray[Any]]()
        for group in self.groups:
            kinds = group.reshape(-1, count, *group.shape[1:])[:, places]
            found.append(kinds.reshape(-1, *group.shape[1:]))
        return Stacked(found)


class Planes(NamedTuple):
    """Frames as a decoder puts them out: `frames[i]` is the tuple of planes of the i-th frame asked for.

    Planes are uint8, uint16 or float32, views where the decoder allows it: rows may be padded, repeats may share
    memory. A yuv source asked for one channel hands over luma alone, with model "grey".
    """

    frames: Sequence[tuple[NDArray[np.generic], ...]]
    colour: Colour


class Source(Protocol):
    """One open video file. It reads any frames in the order asked; one thread at a time."""

    @property
    def facts(self) -> Facts:
        """What is known of the file."""
        ...

    def __len__(self) -> int: ...

    def planes(self, indices: Sequence[int] | NDArray[np.int64]) -> Planes:
        """Return the frames of `indices` as planes. Raises DecodeError, or SourceError (an index out of range)."""
        ...

    def read(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.generic]:
        """Return the frames of `indices`, upright, (n, height, width, channels)."""
        ...

    def close(self) -> None:
        """Let go of the file. Closing twice is harmless."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class StoredFrames(ABC):
    """A source whose frames lie apart in their file, so that each is read for itself. Subclasses say how."""

    def __init__(self, path: str | Path, *, facts: Facts, channels: int | None = None) -> None:
        self.path = Path(path)
        self.facts = facts
        self.channels = channels or facts.channels
        self.dtype: PixelType | None = None  # of what `read` gives; as stored
        self._closed = False

    @property
    @abstractmethod
    def colour(self) -> Colour:
        """How the planes that `_frame` returns become pixels."""

    @abstractmethod
    def _frame(self, number: int) -> tuple[NDArray[Any], ...]:
        """Return the planes of a frame, each uint8, uint16 or float32."""

    def __len__(self) -> int:
        return self.facts.times.count

    def planes(self, indices: Sequence[int] | NDArray[np.int64]) -> Planes:
        """Return the frames of `indices`, as stored; repeats share memory."""
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
        """Let go of the file; planes already handed over stay valid."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def frame_numbers(indices: Sequence[int] | NDArray[np.int64], *, count: int, path: object) -> NDArray[np.int64]:
    """Return the indices as int64 (n,), or raise SourceError where one is not in 0 ... count - 1."""
    numbers = np.asarray(indices)
    if numbers.size == 0:
        numbers = numbers.astype(np.int64).reshape(-1)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        raise SourceError(f"{path}: frames are asked for by a list of whole numbers, not {indices!r}")
    numbers = numbers.astype(np.int64)
    if numbers.size and (numbers.min() < 0 or numbers.max() >= count):
        wrong = int(numbers[(numbers < 0) | (numbers >= count)][0])
        raise SourceError(f"{path}: frame {wrong} was asked for, the file has frames 0 to {count - 1}")
    return numbers


def planes_to_array(
    planes: Planes, *, channels: int, height: int, width: int, dtype: PixelType | None = None
) -> NDArray[Any]:
    """Return frames as shown and converted, (n, height, width, channels).

    `dtype` is that of the result, scaled as `to_pixels` says; by default the stored depth: up to 8 bits give uint8, up
    to 16 bits uint16 at its full scale, float32 stays. Chroma is brought to the size of luma by linear interpolation,
    sample centres spread evenly; pixels that are not square are made so by linear interpolation.
    """
    colour = planes.colour
    if dtype is not None and lacks_window(colour, dtype):
        raise SourceError(
            f"pixels as {dtype} were asked for, and these numbers ({colour.bits} bits) name no black and white; read "
            "them as they are stored (dtype=None), or with Reading(window='percentiles')"
        )
    chosen = dtype or ("uint8" if colour.bits == 8 else "float32" if colour.bits == 32 else "uint16")
    out = np.empty((len(planes.frames), height, width, channels), chosen)
    as_stored = not (colour.rotation or colour.mirrored or colour.aspect != 1)
    for frame, target in zip(planes.frames, out, strict=True):
        same = frame[:1] if channels == 1 else (frame[0], *(_spread(plane, frame[0].shape) for plane in frame[1:]))
        stored = target if as_stored else np.empty((*frame[0].shape[:2], channels), chosen)
        to_pixels(same, colour, channels=channels, out=stored)
        if not as_stored:
            target[:] = upright(stored, colour, height=height, width=width)
    return out


def _spread(chroma: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return chroma at the size of luma; odd sizes hold half a chroma sample more than luma has."""
    # A chroma sample lies in the middle of its pixels, whatever the codec: see Compose._fit.
    height, width = shape[0], shape[1]
    down = next(factor for factor in (1, 2, 4) if chroma.shape[0] * factor >= height)
    across = next(factor for factor in (1, 2, 4) if chroma.shape[1] * factor >= width)
    if down == across == 1:
        return chroma
    size = (chroma.shape[1] * across, chroma.shape[0] * down)
    return cv2.resize(chroma, size, interpolation=cv2.INTER_LINEAR)[:height, :width]
