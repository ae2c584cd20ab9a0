"""From settings to rows, parts and a feed, and what a page shows of them. No framework is needed here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cinefeed.config import Settings
from cinefeed.errors import TableError
from cinefeed.feed.feed import Feed
from cinefeed.feed.targets import FeedSpec
from cinefeed.manifest.table import Manifest, Parts
from cinefeed.training.run import write_atomically, write_json

_SHEET_CLIPS = 8


def choose_rows(manifest: Manifest, settings: Settings) -> Manifest:
    """Return the rows that `[data.where]` names, and with `missing = "drop"` those of them that have a label.

    With `private`, ids are shown in place of paths from here on.
    """
    data = settings.data
    manifest = manifest.as_private() if data.private else manifest
    for column, values in data.where.items():
        manifest = manifest.where(column, list(values))
    if data.missing == "drop" and data.target:
        labelled = np.flatnonzero(~np.asarray(manifest.column(data.target).is_null(nan_is_null=True)))
        if len(labelled) == 0:
            raise TableError(f"none of {len(manifest)} rows has a {data.target!r} label; look at the label table")
        if len(labelled) < len(manifest):
            manifest = manifest.take(labelled, step=f"with a {data.target!r} label")
    return manifest


def usable_rows(manifest: Manifest) -> tuple[Manifest, list[dict[str, str]]]:
    """Return the rows that have frames, and a list of all that have an error: those left out, and damaged ones."""
    if "error" not in manifest.table.column_names:
        return manifest, []
    failures = [
        {"id": name, "path": path, "error": error}
        for name, path, error in zip(
            *(each.to_pylist() for each in (manifest.column("id"), manifest.shown(), manifest.column("error"))),
            strict=True,
        )
        if error is not None
    ]
    if "num_frames" not in manifest.table.column_names:
        return manifest, failures
    playable = np.flatnonzero(np.asarray(manifest.column("num_frames").fill_null(0)) > 0)
    if len(playable) == 0:
        first = f"{failures[0]['path']}: {failures[0]['error']}" if failures else "see 'cinefeed scan'"
        raise TableError(f"none of {len(manifest)} rows has a frame that can be read; {first}")
    if len(playable) == len(manifest):
        return manifest, failures
    return manifest.take(playable, step="with frames that can be read"), failures


def make_parts(manifest: Manifest, settings: Settings) -> Parts:
    """Return the parts that `[data.split]` asks for: drawn anew, or as a column says."""
    split = settings.data.split
    if split.column is not None:
        return manifest.parts(column=split.column, group=split.group or None, stratify=split.stratify)
    return manifest.split(
        val=split.val, test=split.test, group=split.group or None, stratify=split.stratify, seed=split.seed
    )


def build_feed(settings: Settings, part: Manifest) -> Feed:
    """Return the training feed of a part."""
    feed = settings.feed
    return Feed(
        part,
        target=settings.data.target or None,
        task=settings.data.task,
        classes=settings.data.classes,
        clip=settings.clip,
        frame=settings.frame,
        transforms=settings.transforms,
        sampler=settings.sampler,
        batch_size=feed.batch_size,
        seed=feed.seed,
        workers=feed.workers,
        backend=feed.backend,
        prefetch=feed.prefetch,
        clips_per_video=feed.clips_per_video,
        spread=feed.spread,
        views=feed.views,
        stack=feed.stack,
        geometry=feed.geometry,
        mask=feed.mask,
        mixing=feed.mixing,
    )


def keep_flow(
    folder: Path, *, feed: Feed, counts: Sequence[tuple[str, int]], failures: Sequence[dict[str, str]]
) -> None:
    """Write what a page shows of a feed before any training: labels, clips, rows after each step, failed files.

    balance.json has what balancing did, and with it how often the classes are drawn, by which probabilities can be
    corrected (cinefeed.balance.correct_prior).
    """
    if feed.spec.target:
        plan = feed.plan()
        classes = list(feed.spec.classes) or None
        labels = {"raw": feed.labels, "fed": feed.labels[plan.rows], "classes": classes}
        write_json(folder / "labels.json", labels)
        write_json(folder / "balance.json", feed.balance().as_dict())
    write_json(folder / "flow.json", counts)
    write_json(folder / "failures.json", failures)
    clips, captions = sheet(feed)
    write_atomically(folder / "clips.npz", lambda path: np.savez_compressed(path, clips=clips, captions=captions))


def sheet(feed: Feed, *, clips: int = _SHEET_CLIPS) -> tuple[NDArray[np.uint8], NDArray[np.str_]]:
    """Return a few clips as the feed gives them, uint8 (clips, frames, height, width, channels), and their captions.

    Several views lie side by side. Clips of another type are stretched, each from its own least value to its greatest.
    Of a private manifest no clip.
    """
    if feed.manifest.private:
        return np.zeros((0, *feed.spec.clip_shape), np.uint8), np.zeros(0, np.str_)
    batch = feed.batch(0)
    views = list(batch.clips.values()) if isinstance(batch.clips, Mapping) else [batch.clips]
    if feed.spec.stacked:
        views = np.split(views[0], len(feed.spec.views), axis=-1)
    pixels = np.concatenate([view[:clips] for view in views], axis=3)
    if pixels.dtype != np.uint8:
        axes = tuple(range(1, pixels.ndim))
        low, high = pixels.min(axis=axes, keepdims=True), pixels.max(axis=axes, keepdims=True)
        span = np.maximum(high.astype(np.float32) - low, np.finfo(np.float32).tiny)
        pixels = ((pixels.astype(np.float32) - low) / span * 255).astype(np.uint8)
    targets = batch.targets[feed.spec.target] if isinstance(batch.targets, Mapping) else batch.targets
    labels = [_in_words(target, feed.spec) for target in targets[:clips]]
    captions = [f"{row} · {label}" if label else str(row) for row, label in zip(batch.ids, labels, strict=False)]
    return pixels.copy(), np.array(captions, np.str_)


def _in_words(target: Any, spec: FeedSpec) -> str:
    """Return a row's label as a caption says it, and nothing where there is none, or it is a picture."""
    if not spec.target or spec.task in ("clip", "mask"):
        return ""
    if not spec.classes:
        return f"{target:.4g}"
    if not spec.soft:
        return str(spec.classes[target])
    shares = target if np.ndim(target) else (1 - target, target)
    return ", ".join(f"{name} {share:.0%}" for name, share in zip(spec.classes, shares, strict=True) if share > 0)
