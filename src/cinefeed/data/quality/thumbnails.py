"""Thumbnails of videos: the image features of simple baselines, computed from a few frames.

5 evenly spaced frames of a row -> grey -> 8 x 8: mean, and difference of each frame from it     thumbnail, 384 numbers
                                -> grey -> 16 x 16: mean                                         mean frame, 256 numbers
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cinefeed.core.errors import CinefeedError
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.quality.frame_summaries import FRAMES, read_frames

SIDE, MEAN_SIDE = 8, 16


@dataclass(frozen=True, kw_only=True)
class Thumbnails:
    """Features of some rows, float32; NaN for a row whose frames cannot be read."""

    thumbnail: NDArray[np.float32]  # (rows, (1 + FRAMES) * 64)
    mean_frame: NDArray[np.float32]  # (rows, 256)

    @property
    def rows_read(self) -> NDArray[np.bool_]:
        """Whether the frames of each row were read, bool (rows,)."""
        return np.asarray(~np.isnan(self.mean_frame).any(axis=1))


def read_thumbnails(
    manifest: Manifest, rows: Sequence[int], *, workers: int, progress: Callable[[int, int], None], view: str = ""
) -> Thumbnails:
    """Return the features of some rows of a manifest, of one view if rows have several; opens each video once."""
    thumbnail = np.full((len(rows), (1 + FRAMES) * SIDE**2), np.nan, np.float32)
    mean_frame = np.full((len(rows), MEAN_SIDE**2), np.nan, np.float32)

    def read(number: int) -> None:
        row = rows[number]
        try:
            frames = read_frames(manifest, row, manifest.rows.metadata(row, view=view), view=view)
        except (CinefeedError, OSError):
            return
        thumbnail[number], mean_frame[number] = features_of(frames)

    with ThreadPoolExecutor(workers, thread_name_prefix="cinefeed-baselines") as pool:
        for number, _ in enumerate(pool.map(read, range(len(rows)))):
            progress(number + 1, len(rows))
    return Thumbnails(thumbnail=thumbnail, mean_frame=mean_frame)


def features_of(frames: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return thumbnail (384,) and mean frame (256,) of grey frames (FRAMES, height, width).

    >>> thumbnail, mean_frame = features_of(np.full((5, 40, 60), 7, np.uint8))
    >>> thumbnail.shape, mean_frame.shape, round(float(thumbnail[0]), 3)
    ((384,), (256,), 7.0)
    """
    finite = np.nan_to_num(frames.astype(np.float32), posinf=0.0, neginf=0.0)
    phases = _resized(finite, SIDE)
    mean = phases.mean(axis=0)
    thumbnail = np.concatenate([mean.ravel(), (phases - mean).ravel()])
    return thumbnail, _resized(finite, MEAN_SIDE).mean(axis=0).ravel()


def _resized(frames: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    return np.stack([cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA) for frame in frames])
