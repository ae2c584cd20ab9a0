"""A feed at a glance: some of its clips with captions, and how often each pixel value is fed."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cinefeed.feed.batch import Batch
from cinefeed.feed.feed import Feed
from cinefeed.feed.labels import FeedSpec

_SHEET_CLIPS = 8


def pixel_counts(batch: Batch) -> dict[str, Any]:
    """Return a histogram of the pixel values of a batch without padding: `counts` between `edges`.

    It has 256 bins over the range of the integer dtype, or for floats 128 bins from the minimum to the maximum.
    """
    views = list(batch.clips.values()) if isinstance(batch.clips, Mapping) else [batch.clips]
    pixels = np.concatenate([view[batch.valid].reshape(-1) for view in views])
    if pixels.dtype.kind == "u":
        top = np.iinfo(pixels.dtype).max + 1
        edges = np.linspace(0, top, 257)
    else:
        pixels = pixels.astype(np.float32)  # float16 and bfloat16 have no histogram
        low, high = (float(pixels.min()), float(pixels.max())) if pixels.size else (0.0, 0.0)
        edges = np.linspace(low, high if high > low else low + 1, 129)
    counts, _ = np.histogram(pixels, bins=edges)
    return {"dtype": str(views[0].dtype), "edges": edges, "counts": counts}


def sheet(
    feed: Feed, batch: Batch | None = None, *, clips: int = _SHEET_CLIPS
) -> tuple[NDArray[np.uint8], NDArray[np.str_]]:
    """Return a few clips of a feed, uint8 (clips, frames, height, width, channels), and their captions.

    They are taken from `batch`, by default the first of the epoch. Several views are placed side by side. Clips of
    another dtype are scaled, each from its own minimum and maximum. A private manifest gives no clips.
    """
    if feed.manifest.private:
        return np.zeros((0, *feed.spec.clip_shape), np.uint8), np.zeros(0, np.str_)
    batch = feed.batch(0) if batch is None else batch
    views = list(batch.clips.values()) if isinstance(batch.clips, Mapping) else [batch.clips]
    if feed.spec.stacked:
        views = np.split(views[0], len(feed.spec.views), axis=-1)
    pixels = np.concatenate([view[:clips] for view in views], axis=3)
    if pixels.dtype != np.uint8:
        axes = tuple(range(1, pixels.ndim))
        low, high = pixels.min(axis=axes, keepdims=True), pixels.max(axis=axes, keepdims=True)
        span = np.maximum(high.astype(np.float32) - low, np.finfo(np.float32).tiny)
        pixels = ((pixels.astype(np.float32) - low) / span * 255).astype(np.uint8)
    if isinstance(batch.targets, Mapping):
        labels = [_several_labels_text(batch, row, feed.spec) for row in range(len(batch.ids))][:clips]
    else:
        labels = [_label_text(target, feed.spec) for target in batch.targets[:clips]]
    captions = [f"{row} · {label}" if label else str(row) for row, label in zip(batch.ids, labels, strict=False)]
    return pixels.copy(), np.array(captions, np.str_)


def _several_labels_text(batch: Batch, row: int, spec: FeedSpec) -> str:
    """Return the labels of a row for several targets as text: "age 61, sex f"; missing ones are left out."""
    texts = [
        f"{each.name} {_label_text(batch.targets[each.name][row], replace(spec, task=each.task, classes=each.classes))}"
        for each in spec.targets
        if batch.weights[each.name][row] > 0
    ]
    return ", ".join(texts)


def _label_text(target: Any, spec: FeedSpec) -> str:
    """Return the label of a row as text for a caption; "" if there is none, or if it is an image."""
    if not spec.target or spec.task in ("clip", "mask"):
        return ""
    if not spec.classes:
        return f"{target:.4g}"
    if not spec.soft:
        return str(spec.classes[target])
    shares = target if np.ndim(target) else (1 - target, target)
    return ", ".join(f"{name} {share:.0%}" for name, share in zip(spec.classes, shares, strict=True) if share > 0)
