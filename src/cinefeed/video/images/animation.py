"""Animated WebP through OpenCV; FFmpeg before 8.1 cannot decode it."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cinefeed.core.errors import DecodeError, SourceError
from cinefeed.video.arrays.array_frames import ArrayFile, windowed
from cinefeed.video.ffmpeg.probe import Verify
from cinefeed.video.limits import DEFAULT_LIMITS
from cinefeed.video.metadata import VideoMetadata
from cinefeed.video.read_options import DEFAULT_READ_OPTIONS, ReadOptions
from cinefeed.video.timestamps import FrameTimes

# Each call decodes from the start of the file, so the next frames are decoded with the requested one.
_FRAMES_AT_ONCE, _BYTES_AT_ONCE = 16, 2**26
_CANVAS = slice(24, 30)  # width - 1 and height - 1, 3 bytes each


class AnimatedSource(ArrayFile):
    """An animated WebP file, RGB: each frame is drawn over the previous ones; an alpha channel is dropped."""

    @staticmethod
    def _probe(path: Path, part: str | None) -> VideoMetadata:
        return probe_animated(path, part=part)

    def _open(self, part: str | None) -> None:
        self._data = _data_of(self.path)
        limits = DEFAULT_LIMITS.covering(height=self.metadata.height, width=self.metadata.width, count=1)
        limits.check_frame(4 * math.prod(_canvas(self._data)), where=self.path)
        self._first = 0
        self._frames: list[NDArray[Any]] = []

    def _numbers(self, number: int) -> NDArray[Any]:
        if not self._first <= number < self._first + len(self._frames):
            self._frames, self._first = _decode_frames(self._data, number)[0], number
        if not self._frames:
            raise DecodeError(f"{self.path}: frame {number} cannot be decoded; the file has changed or is damaged")
        frame = self._frames[number - self._first]
        if frame.shape[:2] != (self.metadata.height, self.metadata.width):
            height, width = frame.shape[:2]
            raise SourceError(
                f"{self.path}: frames are {width} x {height}, the metadata gives {self.metadata.width} x "
                f"{self.metadata.height}; scan it again"
            )
        return cv2.cvtColor(frame, cv2.COLOR_BGRA2RGB if frame.shape[2] == 4 else cv2.COLOR_BGR2RGB)

    def close(self) -> None:
        """Close the file; planes that were returned remain valid."""
        super().close()
        self._data, self._frames = np.zeros(0, np.uint8), []


def probe_animated(
    path: str | Path,
    *,
    part: str | None = None,
    files: Sequence[str] = (),
    verify: Verify = "decode",
    reading: ReadOptions = DEFAULT_READ_OPTIONS,
) -> VideoMetadata:
    """Return the metadata of an animated WebP file. All frames are decoded to find their display times.

    Frames before a broken one can be read. Raises SourceError if no frame can be read, or if OpenCV is too old.
    """
    path = Path(path)
    if part is not None:
        raise SourceError(f"{path}: part {part!r} was asked for, an animated image has none")
    if not hasattr(cv2, "imdecodeanimation"):
        raise SourceError(f"{path}: an animated WebP needs OpenCV 4.11 or newer; update opencv-python-headless")
    data, deadline = _data_of(path), reading.limits.deadline(path)
    promised = _promised(data)
    reading.limits.check_frames(promised, where=path)
    reading.limits.check_frame(4 * math.prod(_canvas(data)), where=path)
    milliseconds: list[int] = []
    size = (0, 0)
    while True:
        deadline.check()
        frames, durations = _decode_frames(data, len(milliseconds))
        if not frames:
            break
        size = frames[0].shape[:2]
        milliseconds += durations[: len(frames)]
    count = len(milliseconds)
    if not count:
        raise SourceError(f"{path}: no frame can be decoded; the file is not an animated WebP, damaged or cut off")
    metadata = VideoMetadata(
        height=size[0],
        width=size[1],
        channels=3,
        bits=8,
        times=_times(milliseconds),
        rate_hz=1000 * count / sum(milliseconds) if sum(milliseconds) else float("nan"),
        container="webp",
        codec="webp",
        pixel_format="rgb uint8",
        header_frames=promised,
        error=None if count >= promised else f"breaks after {count} of {promised} frames: the next cannot be decoded",
    )
    with AnimatedSource(path, metadata=metadata) as source:
        return windowed(source, reading)


def _times(milliseconds: Sequence[int]) -> FrameTimes:
    """Return the display time of each frame; a duration of 0 gives no times."""
    count = len(milliseconds)
    durations = milliseconds[:-1] or milliseconds
    if min(durations) <= 0:
        return FrameTimes(0.0, float("nan"), count)
    if len(set(durations)) == 1:
        return FrameTimes(0.0, durations[0] / 1000, count)
    seconds = np.cumsum([0, *milliseconds[:-1]]) / 1000
    return FrameTimes(0.0, float(np.median(np.diff(seconds))), count, seconds)


def _data_of(path: Path) -> NDArray[np.uint8]:
    try:
        return np.memmap(path, np.uint8, mode="r")
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: cannot be read ({error})") from error


def _promised(data: NDArray[np.uint8]) -> int:
    """Return the number of frames in a file, according to its chunks."""
    count, place = 0, 12
    while place + 8 <= data.size:
        count += data[place : place + 4].tobytes() == b"ANMF"
        length = int.from_bytes(data[place + 4 : place + 8].tobytes(), "little")
        place += 8 + length + length % 2
    return count


def _canvas(data: NDArray[np.uint8]) -> tuple[int, int]:
    """Return the width and height of the frames, according to the header."""
    canvas = data[_CANVAS].tobytes()
    return int.from_bytes(canvas[:3], "little") + 1, int.from_bytes(canvas[3:], "little") + 1


def _decode_frames(data: NDArray[np.uint8], first: int) -> tuple[list[NDArray[Any]], list[int]]:
    """Return frames from number `first` on, BGR or BGRA, and their durations in ms; none past the end."""
    width, height = _canvas(data)
    count = max(min(_FRAMES_AT_ONCE, _BYTES_AT_ONCE // (4 * width * height)), 1)
    try:
        # Decoded from memory, because OpenCV prints errors with the path if it reads a file.
        _, animation = cv2.imdecodeanimation(data, first, count)
    except cv2.error:
        return [], []
    return list(animation.frames), list(animation.durations)
