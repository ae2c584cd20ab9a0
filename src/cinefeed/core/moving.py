"""Clips as animated WebP images in data URIs, and contact sheets of them.

GIF has only 256 colours, and an APNG of speckle is ten times as large.
"""

import base64
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cinefeed.core.html import text

_MS_A_FRAME = 90
_QUALITY = 55  # of lossy WebP: 24 frames of 96 x 96 speckle take about 25 kB
_LONGEST_SIDE, _MOST_FRAMES = 176, 32  # of a clip on a contact sheet


def animated_webp(clip: NDArray[np.uint8], *, ms_a_frame: int = _MS_A_FRAME) -> str:
    """Return a clip, uint8 (frames, height, width, channels), as the data URI of an animated WebP."""
    animation = cv2.Animation()
    animation.frames = [np.ascontiguousarray(frame[..., ::-1]) for frame in in_colour(clip)]
    animation.durations = [ms_a_frame] * len(clip)
    animation.loop_count = 0
    if len(clip) == 1:
        _, encoded = cv2.imencode(".webp", animation.frames[0], [cv2.IMWRITE_WEBP_QUALITY, _QUALITY])
    else:
        _, encoded = cv2.imencodeanimation(".webp", animation, [cv2.IMWRITE_WEBP_QUALITY, _QUALITY])
    return "data:image/webp;base64," + base64.b64encode(encoded.tobytes()).decode()


def in_colour(clip: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a clip with three channels; unless there are three, the first channel is repeated as grey."""
    return clip if clip.shape[-1] == 3 else np.repeat(clip[..., :1], 3, axis=-1)


def as_levels(clips: NDArray[Any]) -> NDArray[np.uint8]:
    """Return clips, (clips, frames, height, width, channels), as uint8.

    Clips of another dtype are scaled, each from its own range.

    >>> as_levels(np.array([-1.0, 0.0, 1.0]).reshape(1, 3, 1, 1, 1)).ravel().tolist()
    [0, 127, 255]
    """
    if clips.dtype == np.uint8:
        return clips
    values = np.nan_to_num(clips.astype(np.float32))
    axes = tuple(range(1, clips.ndim))
    low, high = values.min(axis=axes, keepdims=True), values.max(axis=axes, keepdims=True)
    span = np.maximum(high - low, np.finfo(np.float32).tiny)
    return np.asarray((values - low) / span * 255).astype(np.uint8)


def contact_sheet(clips: Sequence[NDArray[np.uint8] | str], captions: Sequence[str]) -> str:
    """Return moving clips, uint8 (frames, height, width, channels), and captions; text in place of a clip is a note."""
    figures = []
    widest = max((clip.shape[2] / clip.shape[1] for clip in clips if not isinstance(clip, str)), default=1.0)
    for clip, caption in zip(clips, captions, strict=True):
        picture = f'<p class="note">{text(clip)}</p>' if isinstance(clip, str) else _picture(clip, caption)
        figures.append(f"<figure>{picture}<figcaption>{text(caption)}</figcaption></figure>")
    least = min(150 if widest < 1.6 else round(95 * widest), 280)
    return f'<div class="clips" style="--least:{least}px">{"".join(figures)}</div>' if figures else ""


def _picture(clip: NDArray[np.uint8], caption: str) -> str:
    count, height, width = clip.shape[:3]
    numbers = np.unique(np.linspace(0, count - 1, min(count, _MOST_FRAMES)).round().astype(int))
    frames = in_colour(clip[numbers])
    scale = _LONGEST_SIDE / max(min(height, width), max(height, width) / 2)
    if scale < 1:
        size = max(round(width * scale), 1), max(round(height * scale), 1)
        frames = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])
    uri = animated_webp(frames, ms_a_frame=round(_MS_A_FRAME * count / len(numbers)))
    return f'<img src="{uri}" alt="{text(caption)}" width="{width}" height="{height}">'
