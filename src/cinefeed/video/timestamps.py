"""Presentation times of the frames of a video."""

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.errors import ClipError


@dataclass(frozen=True, slots=True)
class FrameTimes:
    """Presentation time of each frame, in seconds from the container's start (for arrays, from the first frame).

    Three numbers describe a video with a constant rate. With a variable rate, `listed` has the time of each frame,
    sorted. `step_seconds` is NaN if the rate is unknown (plain arrays).

    >>> FrameTimes(0.0, 0.04, 3).seconds().tolist()
    [0.0, 0.04, 0.08]
    """

    first_seconds: float
    step_seconds: float
    count: int
    listed: NDArray[np.float64] | None = None

    def seconds(self) -> NDArray[np.float64]:
        """Return the time of every frame, float64 (count,), in seconds. Raises ClipError if the rate is unknown."""
        if self.listed is not None:
            return self.listed
        if np.isnan(self.step_seconds):
            raise ClipError(
                "times in seconds were requested, but the file has no frame rate; select clips by frames and stride, "
                "and leave out rate_hz, start_seconds and end_seconds"
            )
        return self.first_seconds + self.step_seconds * np.arange(self.count, dtype=np.float64)


class Timestamps(NamedTuple):
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

        >>> Timestamps.of(np.array([0, 512, 1024]), base=(1, 12800))
        Timestamps(first=0, step=512, count=3, base=(1, 12800), listed=None)
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

    def times(self, *, start_seconds: float) -> FrameTimes:
        """Return the times in seconds from the container's start; frame n has the n-th smallest timestamp.

        >>> stamps = Timestamps.of(np.array([126000, 129600, 133200]), base=(1, 90000))
        >>> stamps.times(start_seconds=1.4).seconds().round(3)
        array([0.  , 0.04, 0.08])
        """
        seconds = self.base[0] / self.base[1]
        listed = None if self.listed is None else np.sort(self.listed).astype(np.float64) * seconds - start_seconds
        return FrameTimes(self.first * seconds - start_seconds, self.step * seconds, self.count, listed)
