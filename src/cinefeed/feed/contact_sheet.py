"""Clips of a batch as pictures with captions. Arguments are arrays, so that `Batch` itself can use it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.moving import as_levels
from cinefeed.feed.labels import FeedSpec


def pictures(clips: Any, *, stacked: int, count: int) -> NDArray[np.uint8]:
    """Return the first clips of a batch, uint8 (clips, frames, height, width, channels), views side by side.

    `clips` are one array, or a mapping by name for several views; `stacked` views are the channels of one array. Clips
    of another dtype are scaled, each from its own minimum and maximum.
    """
    views = list(clips.values()) if isinstance(clips, Mapping) else [clips]
    if stacked:
        views = np.split(views[0], stacked, axis=-1)
    return as_levels(np.concatenate([view[:count] for view in views], axis=3)).copy()


def captions(ids: Sequence[str], targets: Any, weights: Any, spec: FeedSpec | None, *, count: int) -> list[str]:
    """Return the id and the label of each of the first rows; without a spec, classes are numbers."""
    texts = []
    for row, name in enumerate(ids[:count]):
        label = _label(targets, weights, row, spec)
        texts.append(f"{name} · {label}" if label else str(name))
    return texts


def _label(targets: Any, weights: Any, row: int, spec: FeedSpec | None) -> str:
    """Return the label of a row; for several targets "age 61, sex f", without missing labels."""
    if not isinstance(targets, Mapping):
        return _label_text(targets[row], spec)
    kinds = {each.name: each for each in spec.targets} if spec is not None else {}
    labels = []
    for name, values in targets.items():
        if weights[name][row] > 0:
            kind = kinds.get(name)
            own = None if spec is None or kind is None else replace(spec, task=kind.task, classes=kind.classes)
            labels.append(f"{name} {_label_text(values[row], own)}")
    return ", ".join(labels)


def _label_text(target: Any, spec: FeedSpec | None) -> str:
    """Return a label as text for a caption; "" if there is none, or if it is an image."""
    if spec is None:
        if np.ndim(target):
            return ", ".join(f"{share:.3g}" for share in target) if np.ndim(target) == 1 else ""
        return "" if np.isnan(float(target)) else f"{target:.4g}"
    if not spec.target or spec.task in ("clip", "mask"):
        return ""
    if not spec.classes:
        return f"{target:.4g}"
    if not spec.soft:
        return str(spec.classes[target])
    shares = target if np.ndim(target) else (1 - target, target)
    return ", ".join(f"{name} {share:.0%}" for name, share in zip(spec.classes, shares, strict=True) if share > 0)
