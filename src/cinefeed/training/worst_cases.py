"""The videos with the largest errors of a model, as small clips for a report."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from cinefeed.core.text import format_percent
from cinefeed.feed.feed import Feed
from cinefeed.feed.preview import sheet
from cinefeed.metrics.predictions import Predictions
from cinefeed.metrics.units import units_of

WORST = 10
_FRAMES, _SIDE = 24, 96  # of a small clip: ten of them take some 150 kB of the page


class Scored(NamedTuple):
    """A video of a part: the id of its row, the error of its score, and a caption with label and prediction."""

    id: str
    error: float
    caption: str


def by_error(predictions: Predictions) -> list[Scored]:
    """Return the videos that have a label, the largest error first; scores of the clips of a video are averaged.

    The error is the distance to the label, or 1 minus the probability of the true class. With several targets it is
    that of the first target: errors in years and in probabilities have no common order.
    """
    target = predictions.targets[0]
    if not predictions.labelled(target).any():
        return []
    videos = units_of(predictions, target)
    scores = videos.scores.reshape(len(videos.names), -1)
    scored = [
        Scored(name, *_error_and_caption(value, score, classes=target.classes))
        for name, value, score in zip(videos.names, videos.targets, scores, strict=True)
    ]
    return sorted(scored, key=lambda video: -video.error)


def _error_and_caption(value: Any, score: NDArray[np.float64], *, classes: Sequence[str]) -> tuple[float, str]:
    r"""Return the error of a score, and a caption with label and prediction.

    >>> _error_and_caption(1, np.array([0.2]), classes=["well", "sick"])
    (0.8, 'true sick · probability of sick 20\xa0%')
    >>> _error_and_caption(61.0, np.array([36.5]), classes=[])
    (24.5, 'true 61 · predicted 36.5')
    """
    if not classes:
        return abs(float(value - score[0])), f"true {value:.4g} · predicted {score[0]:.4g}"
    shares = np.array([1 - score[0], score[0]]) if len(score) == 1 else score
    percent = format_percent(shares[value]).replace(" %", "\N{NO-BREAK SPACE}%")
    caption = f"true {classes[value]} · probability of {classes[value]} {percent}"
    predicted_class = int(shares.argmax())
    if len(classes) > 2 and predicted_class != value:
        caption += f" · predicted {classes[predicted_class]}"
    return round(1 - float(shares[value]), 12), caption


def small_clips(feed: Feed, *, rows: Sequence[int]) -> NDArray[np.uint8]:
    """Return small clips of some rows of an evaluation feed, uint8 (clips, frames, height, width, channels)."""
    clips = []
    for row in rows:
        pixels, _ = sheet(feed.evaluation(feed.manifest.take([row]), clips=1), clips=1)
        clips.append(shrink(pixels[0]))
    return np.stack(clips)


def shrink(clip: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return at most 24 frames of a clip, evenly spaced, with at most 96 pixels per side."""
    indices = np.unique(np.linspace(0, len(clip) - 1, min(_FRAMES, len(clip))).round().astype(int))
    scale = min(1.0, _SIDE / max(clip.shape[1:3]))
    size = max(round(clip.shape[2] * scale), 1), max(round(clip.shape[1] * scale), 1)
    frames = [cv2.resize(clip[index], size, interpolation=cv2.INTER_AREA) for index in indices]
    return np.stack(frames).reshape(len(frames), size[1], size[0], clip.shape[-1]).astype(np.uint8)
