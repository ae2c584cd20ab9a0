"""What every source hands over: facts about a file, and the frames asked for, as planes or as an array."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from cinefeed.clips import Times

ColourModel = Literal["grey", "yuv", "rgb"]
Matrix = Literal["bt601", "bt709", "bt2020"]


class Ticks(NamedTuple):
    """The presentation time stamps of a stream, sorted, in its own time base: what a seek needs.

    Regular stamps are three numbers; irregular ones are listed, int64, one a frame. `base` is the seconds of one tick,
    as numerator and denominator.
    """

    first: int
    step: int
    count: int
    base: tuple[int, int]
    listed: NDArray[np.int64] | None = None

    def stamps(self) -> NDArray[np.int64]:
        """Return the stamp of every frame, int64 (count,)."""
        if self.listed is not None:
            return self.listed
        return self.first + self.step * np.arange(self.count, dtype=np.int64)

    def times(self) -> Times:
        """Return the same in seconds."""
        seconds = self.base[0] / self.base[1]
        listed = None if self.listed is None else self.listed * seconds
        return Times(self.first * seconds, self.step * seconds, self.count, listed)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a video file. Height and width are as shown, after `rotation`; `times.count` is its length."""

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
    key_frames: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))  # numbers of key frames
    error: str | None = None  # where and how the file breaks; the frames before it can be read


@dataclass(frozen=True, kw_only=True, slots=True)
class Colour:
    """How a frame's planes become grey or RGB.

    grey: one plane (height, width)
    yuv:  three planes: luma, and blue and red difference at their own resolution
    rgb:  one plane (height, width, 3)
    """

    model: ColourModel
    bits: int = 8  # bits used of each sample, in the low end of a uint8 or uint16; 32 for float32 as it is
    full_range: bool = True
    matrix: Matrix = "bt601"
    rotation: int = 0  # as in Facts; planes are as stored


class Planes(NamedTuple):
    """Frames as a decoder puts them out: `frames[i]` is the tuple of planes of the i-th frame asked for.

    Planes are views (uint8, uint16 or float32) where the decoder allows it: rows may be padded, repeats share memory.
    A yuv source asked for one channel hands over luma alone, with model "grey".
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
