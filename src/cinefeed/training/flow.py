"""From settings to rows, parts and a feed, and what a page shows of them. No framework is needed here."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cinefeed.config import Settings
from cinefeed.errors import LabelError, SettingError, TableError
from cinefeed.feed.batch import Batch
from cinefeed.feed.evaluating import check_clips
from cinefeed.feed.feed import Feed
from cinefeed.feed.targets import FeedSpec, TargetSpec
from cinefeed.label_types import class_names
from cinefeed.manifest.encoded import made_by_a_run
from cinefeed.manifest.summary import frames_in_words
from cinefeed.manifest.table import Manifest, Parts
from cinefeed.metrics.predictions import check_column_name
from cinefeed.split import unseen_classes
from cinefeed.text import format_count
from cinefeed.training.run import write_arrays, write_json

_SHEET_CLIPS = 8


def choose_rows(manifest: Manifest, settings: Settings) -> Manifest:
    """Return the rows that `[data.where]` names, and with `missing = "drop"` those of them that have a label.

    Of several targets one is enough; a row that has none is refused unless it is dropped. With `private`, ids are shown
    in place of paths from here on.
    """
    data = settings.data
    tasks = data.task if isinstance(data.task, Mapping) else dict.fromkeys(data.targets[:1], data.task)
    for target, task in tasks.items():
        manifest = manifest.with_task(target, task)
    for column, values in data.where.items():
        manifest = manifest.where(column, list(values))
    manifest = manifest.as_private() if data.private else manifest
    columns = manifest.table.column_names
    named = [each for each in data.targets if each != "clip" or each in columns]
    if not named or (data.missing == "error" and len(named) == 1):
        return manifest  # of one target the feed says what is missing
    missing = [np.asarray(manifest.column(each).is_null(nan_is_null=True)) for each in named]
    unlabelled = np.logical_and.reduce(missing)
    words = " or ".join(map(repr, named))
    if unlabelled.all():
        raise TableError(f"none of {len(manifest)} rows has a {words} label; look at the label table")
    if data.missing == "error" and unlabelled.any():
        first = manifest.column("id")[int(np.argmax(unlabelled))]
        raise LabelError(
            f"{int(unlabelled.sum())} of {len(manifest)} rows have no label in any of {', '.join(named)} (first: "
            f"{first}); leave them out with missing = 'drop' (--drop-missing)"
        )
    if unlabelled.any():
        manifest = manifest.take(np.flatnonzero(~unlabelled), step=f"with a {words} label")
    return manifest


def check_evaluation(manifest: Manifest, settings: Settings) -> None:
    """Raise what stands in the way of `[evaluate]`, before any training: the end of one is a bad place to learn it.

    ColumnError for a column that is not there, TableError for rows without a unit, LabelError for a unit whose rows
    differ in a label, SettingError for several clips of a video where it has but one place for a clip, and for a column
    that is called as one of the predictions' own.
    """
    asked = settings.evaluate
    check_clips(asked.clips, position=settings.clip.position)
    for column in asked.subgroups:
        manifest.column(column)
    for carried in (settings.data.split.group or None, asked.unit, *asked.subgroups):
        if carried is not None:
            check_column_name(carried)
    if asked.unit is None:
        return
    units = manifest.column(asked.unit)
    unknown = np.asarray(units.is_null(nan_is_null=True))
    if unknown.any():
        raise TableError(
            f"{int(unknown.sum())} of {len(manifest)} rows have no {asked.unit!r} (first: "
            f"{manifest.column('id')[int(np.argmax(unknown))]}), which is the unit to be measured: fill it, leave them "
            "out, or choose another unit, or none, to count videos"
        )
    for target in settings.data.targets:
        if target not in manifest.table.column_names:
            continue
        pairs = pa.table({"unit": units, "label": manifest.column(target)}).filter(pc.field("label").is_valid())
        counts = pairs.group_by("unit").aggregate([("label", "count_distinct")])
        torn = counts.filter(pc.greater(counts["label_count_distinct"], 1))["unit"]
        if len(torn):
            raise LabelError(
                f"{len(torn)} values of {asked.unit!r} have videos whose {target!r} labels differ (first: {torn[0]}), "
                "so they have no label of their own: choose another unit, or none, to count videos"
            )


def usable_rows(manifest: Manifest) -> tuple[Manifest, list[dict[str, str]]]:
    """Return the rows that have frames, and a list of all that have an error or damaged frames, with the reason.

    Rows of damaged frames stay: those frames raise when they are read, or are shown as FFmpeg makes them up. An empty
    list means that no file breaks only if `manifest.verified` is "decode".
    """
    failures, names = [], manifest.table.column_names
    columns = [
        manifest.column(name).to_pylist() if name in names else [None] * len(manifest) for name in ("error", "damaged")
    ]
    if any(any(values) for values in columns):
        for name, path, error, ranges in zip(
            manifest.column("id").to_pylist(), manifest.shown().to_pylist(), *columns, strict=True
        ):
            reasons = [error] * bool(error) + ([f"frames {frames_in_words(ranges)} are damaged"] if ranges else [])
            if reasons:
                failures.append({"id": name, "path": path, "error": "; ".join(reasons)})
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
    """Return the parts that `[data.split]` asks for: drawn anew, or as a column says; see also `check_evaluation`.

    Features of a run keep its parts, where they are known: SettingError says so.
    """
    check_evaluation(manifest, settings)
    split = settings.data.split
    if split.column is not None:
        parts = manifest.parts(column=split.column, group=split.group or None, stratify=split.stratify)
        _check_classes(parts.all, settings)
        return parts
    is_parted = "split" in manifest.table.column_names and manifest.column("split").null_count < len(manifest)
    if is_parted and made_by_a_run(manifest):
        raise SettingError(
            "the rows are features of a network that was trained on some of them, and parts drawn anew would test on "
            "those; take the parts from its run: [data.split] column = 'split' (--split-column split)"
        )
    parts = manifest.split(
        val=split.val, test=split.test, group=split.group or None, stratify=split.stratify, seed=split.seed
    )
    _check_classes(parts.all, settings)
    return parts


def _check_classes(rows: Manifest, settings: Settings) -> None:
    """Raise LabelError where validation or test have a class that training lacks, unless the classes were named."""
    data = settings.data
    for target in data.targets:
        named = target in data.classes if isinstance(data.classes, Mapping) else data.classes is not None
        if named or target not in rows.table.column_names or target == settings.feed.inputs.mask:
            continue
        if not rows.label_type(target).is_classes:
            continue
        unseen = unseen_classes(labels=rows.column(target), parts=rows.column("split"))
        for value, places in unseen.items():
            where = "; ".join(
                f"{format_count(len(missing), 'row')} of the {part} part ({_first(rows, missing)})"
                for part, missing in places.items()
            )
            names = class_names(rows.column(target)).drop_null().unique().sort().to_pylist()
            learnt = ",".join(each for each in names if each not in unseen)
            option = (f"{target}=" if len(data.targets) > 1 else "") + ",".join(names)
            raise LabelError(
                f"class {value!r} of {target!r} has no row to train with, and {where}: leave its rows out with --where "
                f"{target}={learnt}, split again with --stratify {target} where each part can have one of its groups, "
                f"or name all classes, so that it is one that is never learnt: --classes {option}"
            )


def _first(rows: Manifest, places: NDArray[np.int64]) -> str:
    return ", ".join(str(rows.shown()[int(row)]) for row in places[:3]) + " ..." * (len(places) > 3)


def build_feed(settings: Settings, part: Manifest) -> Feed:
    """Return the training feed of a part."""
    return Feed.from_settings(part, settings.feed_settings())


def check_labels(feed: Feed) -> None:
    """Raise LabelError where the training rows all have the same number to learn, before any training."""
    for target in feed.spec.targets or [feed.spec]:
        name = target.name if isinstance(target, TargetSpec) else target.target
        if target.task != "regression" or not name:
            continue
        values = feed.manifest.column(name).drop_null().unique()
        if len(values) == 1:
            raise LabelError(
                f"{name!r} is {values[0]} in all {len(feed.manifest)} training rows, so there is nothing to learn; "
                "choose another target, or other rows ([data.where])"
            )


def keep_flow(
    folder: Path, *, feed: Feed, counts: Sequence[tuple[str, int]], failures: Sequence[dict[str, str]]
) -> None:
    """Write what a page shows of a feed before any training: labels, clips, levels, rows after each step, failed files.

    balance.json has what balancing did, and with it how often the classes are drawn, by which probabilities can be
    corrected (cinefeed.balance.correct_prior).
    """
    if feed.spec.target and feed.spec.task not in ("clip", "mask"):
        write_json(folder / "labels.json", _labels(feed))
        write_json(folder / "balance.json", feed.balance().as_dict())
    write_json(folder / "flow.json", counts)
    write_json(folder / "failures.json", failures)
    batch = feed.batch(0)
    write_json(folder / "pixels.json", pixel_counts(batch))
    clips, captions = sheet(feed, batch)
    write_arrays(folder / "clips.npz", clips=clips, captions=captions)


def _labels(feed: Feed) -> dict[str, Any]:
    """Return the labels of the target that is balanced, by row and as drawn, and of several targets each by name."""
    fed = feed.plan().rows
    if not feed.spec.targets:
        return {"raw": feed.labels, "fed": feed.labels[fed], "classes": list(feed.spec.classes) or None}
    found = {}
    for each in feed.spec.targets:
        column = feed.manifest.column(each.name)
        known = ~np.asarray(column.is_null(nan_is_null=True))
        labels = np.array(class_names(column).to_pylist() if each.classes else column.to_pylist(), object)
        drawn = fed[known[fed]]
        found[each.name] = {"raw": labels[known], "fed": labels[drawn], "classes": list(each.classes) or None}
    return {**found[feed.spec.target], "targets": found}


def pixel_counts(batch: Batch) -> dict[str, Any]:
    """Return how often each level stands in the clips of a batch, padding left out: `counts`, between `edges`.

    The levels are 256 of the type's scale, or of floats 128 from the least to the greatest that there is.
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
    """Return a few clips as the feed gives them, uint8 (clips, frames, height, width, channels), and their captions.

    They are of `batch`, by default the first of the epoch. Several views lie side by side. Clips of another type are
    stretched, each from its own least value to its greatest. Of a private manifest no clip.
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
        labels = [_several_in_words(batch, place, feed.spec) for place in range(len(batch.ids))][:clips]
    else:
        labels = [_in_words(target, feed.spec) for target in batch.targets[:clips]]
    captions = [f"{row} · {label}" if label else str(row) for row, label in zip(batch.ids, labels, strict=False)]
    return pixels.copy(), np.array(captions, np.str_)


def _several_in_words(batch: Batch, place: int, spec: FeedSpec) -> str:
    """Return those labels that a row has, of several targets: "age 61, sex f"."""
    said = [
        f"{each.name} {_in_words(batch.targets[each.name][place], replace(spec, task=each.task, classes=each.classes))}"
        for each in spec.targets
        if batch.weights[each.name][place] > 0
    ]
    return ", ".join(said)


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
