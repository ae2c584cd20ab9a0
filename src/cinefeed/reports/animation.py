"""Clips as animated WebP images, embedded in a page as data URIs.

Pillow, a dependency of matplotlib, writes them. GIF has only 256 colours, and an APNG of speckle is ten times as large.
"""

import base64
import io

import cv2
import numpy as np
from numpy.typing import NDArray

from cinefeed.core.errors import MissingExtraError

_MS_A_FRAME = 90
_QUALITY = 55  # of lossy WebP: 24 frames of 96 x 96 speckle take about 25 kB
_STRIP, _GAP = 8, 3  # height in pixels of the time strip below a clip, and of the gap around it
_HOT = np.array([230, 85, 0], np.float32)  # RGB, a vermilion that differs from all greys


def animated_webp(clip: NDArray[np.uint8]) -> str:
    """Return a clip, uint8 (frames, height, width, channels), as the data URI of an animated WebP."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("pillow", extra="report") from error
    frames = [Image.fromarray(np.ascontiguousarray(frame)) for frame in in_colour(clip)]
    buffer = io.BytesIO()
    frames[0].save(
        buffer,
        format="WEBP",
        save_all=True,
        append_images=frames[1:],
        duration=_MS_A_FRAME,
        loop=0,
        quality=_QUALITY,
        method=4,
    )
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def in_colour(clip: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a clip with three channels; unless there are three, the first channel is repeated as grey."""
    return clip if clip.shape[-1] == 3 else np.repeat(clip[..., :1], 3, axis=-1)


def with_saliency(
    clip: NDArray[np.uint8], *, space: NDArray[np.float32], time: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """Return a clip next to a copy with its saliency map, above a strip of time spans with a animated_webp mark.

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
