"""The windows of a video that a clip encoder maps to one feature each."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.errors import SettingError
from cinefeed.feed.clip_pipeline import part_of
from cinefeed.video.clips import Clip
from cinefeed.video.timestamps import FrameTimes


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Windows of `frames` frames at a stride or rate, which start every `hop` frames of the video.

    By default a window starts where the one before it ends. The last window ends with the video and may overlap the one
    before it. A video shorter than a window has one, whose last frame is repeated. `hop` counts frames of the video.

    frames=3, stride=2, in a video of 12:   F.F.F....... .....F.F.F.. .......F.F.F

    >>> indices, centres = Windows(frames=3, stride=2).of(FrameTimes(0.0, 0.04, 12))
    >>> indices.tolist(), centres.tolist()
    ([[0, 2, 4], [5, 7, 9], [7, 9, 11]], [2, 7, 9])
    """

    frames: int
    stride: int = 1
    rate_hz: float | None = None
    hop: int | None = None

    def __post_init__(self) -> None:
        self._clip  # noqa: B018  # raises SettingError
        if self.hop is not None and self.hop < 1:
            raise SettingError(f"hop={self.hop} must be a number of frames of at least 1")

    def of(self, times: FrameTimes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the frames of each window, (windows, frames), and the central frame of each, (windows,)."""
        last_start = self._last_start(times)
        starts, selections = [0], [self._clip.select(times)[0]]
        while starts[-1] < last_start:
            next_start = starts[-1] + self.hop if self.hop is not None else int(selections[-1][-1]) + 1
            starts.append(min(next_start, last_start))
            part = part_of(times, starts[-1], times.count - starts[-1])
            selections.append(self._clip.select(part)[0] + starts[-1])
        indices = np.stack(selections)
        return indices, (indices[:, 0] + indices[:, -1]) // 2

    def times_of(self, times: FrameTimes) -> FrameTimes:
        """Return the times of the windows: those of their central frames.

        Without a frame rate, windows have no times either.
        """
        centres = self.of(times)[1]
        if times.listed is None and np.isnan(times.step_seconds):
            return FrameTimes(0.0, times.step_seconds, len(centres))
        return FrameTimes(0.0, float("nan"), len(centres), times.seconds()[centres])

    def _last_start(self, times: FrameTimes) -> int:
        """Return the first frame of the window that ends with the video; 0 for a shorter video."""
        if self.rate_hz is None:
            return max(times.count - ((self.frames - 1) * self.stride + 1), 0)
        seconds = times.seconds()
        start = seconds[-1] - (self.frames - 1) / self.rate_hz
        return int(np.searchsorted(seconds, max(start - 1e-6, seconds[0])))

    def __str__(self) -> str:
        pace = f"{self.rate_hz:g} Hz" if self.rate_hz is not None else f"stride {self.stride}"
        hop = f" every {self.hop} frames" if self.hop is not None else ""
        return f"windows of {self.frames} frames, {pace}{hop}"

    @property
    def _clip(self) -> Clip:
        return Clip(frames=self.frames, stride=self.stride, rate_hz=self.rate_hz, position="start")
