"""Clips beside a copy with their saliency map, above a strip of time."""

import cv2
import numpy as np
from numpy.typing import NDArray

from cinefeed.core.moving import in_colour

_STRIP, _GAP = 8, 3  # height in pixels of the time strip below a clip, and of the gap around it
_HOT = np.array([230, 85, 0], np.float32)  # RGB, a vermilion that differs from all greys


def with_saliency(
    clip: NDArray[np.uint8], *, space: NDArray[np.float32], time: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """Return a clip next to a copy with its saliency map, above a strip of time spans with a moving mark.

    `space` is (rows, columns), `time` (spans,). The deepest colour is the largest change of the score, up or down, when
    a part of this clip is hidden.
    """
    frames, height, width = clip.shape[:3]
    grey = in_colour(clip).astype(np.float32)
    heat = cv2.resize(_relative(space), (width, height), interpolation=cv2.INTER_LINEAR)[..., np.newaxis]
    dimmed = 0.25 * grey.mean(axis=-1, keepdims=True) + 0.55 * grey
    overlaid = (1 - 0.6 * heat) * dimmed + 0.6 * heat * _HOT
    across = 2 * width + _GAP
    canvas = np.full((frames, height + 2 * _GAP + _STRIP, across, 3), 255, np.float32)
    canvas[:, :height, :width] = grey
    canvas[:, :height, width + _GAP :] = overlaid
    strip = _relative(time)[np.arange(across) * len(time) // across]
    canvas[:, height + _GAP : height + _GAP + _STRIP] = strip[:, np.newaxis] * _HOT + (1 - strip[:, np.newaxis]) * 228
    for frame in range(frames):
        at = round(frame / max(frames - 1, 1) * (across - 3))
        for top in (height, height + _GAP + _STRIP):  # above and below the strip, so that no span is hidden
            canvas[frame, top : top + _GAP, at : at + 3] = 30
    return np.clip(canvas, 0, 255).astype(np.uint8)


def _relative(changes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return absolute changes divided by their maximum; all 0 if nothing changes."""
    size = np.abs(np.asarray(changes, np.float32))
    return np.asarray(size / np.float32(max(float(size.max(initial=0.0)), 1e-12)), np.float32)
