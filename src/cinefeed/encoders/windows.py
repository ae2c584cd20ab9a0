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

    By default a window starts where the one before it ends. The last window ends with the video, so that every frame
    is covered. A video shorter than a window has one, whose last frame is repeated. `hop` counts frames of the video.

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
        first = self._clip.select(times)[0]
        span = int(first[-1]) + 1
        last_start = max(times.count - span, 0)
        starts = list(range(0, last_start + 1, self.hop or span))
        if starts[-1] != last_start:
            starts.append(last_start)
        selections = [self._clip.select(part_of(times, start, times.count - start))[0] + start for start in starts]
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

    def __str__(self) -> str:
        pace = f"{self.rate_hz:g} Hz" if self.rate_hz is not None else f"stride {self.stride}"
        hop = f" every {self.hop} frames" if self.hop is not None else ""
        return f"windows of {self.frames} frames, {pace}{hop}"

    @property
    def _clip(self) -> Clip:
        return Clip(frames=self.frames, stride=self.stride, rate_hz=self.rate_hz, position="start")
