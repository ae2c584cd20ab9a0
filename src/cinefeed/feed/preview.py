"""A feed at a glance: some of its clips with captions, and how often each pixel value is fed."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cinefeed.feed.batch import Batch
from cinefeed.feed.contact_sheet import captions, pictures
from cinefeed.feed.feed import Feed

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
    spec = feed.spec
    pixels = pictures(batch.clips, stacked=len(spec.views) if spec.stacked else 0, count=clips)
    texts = captions(batch.ids.tolist(), batch.targets, batch.weights, spec, count=clips)
    return pixels, np.array(texts, np.str_)
