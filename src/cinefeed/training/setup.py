"""Rows, parts and feed of a run from its settings, and their data for a report. Imports no framework."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cinefeed.config import Settings
from cinefeed.core.errors import LabelError, SettingError, TableError
from cinefeed.core.text import count_having, format_count
from cinefeed.data.label_types import class_names
from cinefeed.data.manifest.encoded import made_by_a_run
from cinefeed.data.manifest.manifest import Manifest, Parts
from cinefeed.data.manifest.summary import frames_in_words
from cinefeed.data.split_summary import unseen_classes
from cinefeed.feed.evaluation import check_clips
from cinefeed.feed.feed import Feed
from cinefeed.feed.labels import TargetSpec
from cinefeed.feed.preview import pixel_counts, sheet
from cinefeed.metrics.predictions import check_column_name
from cinefeed.training.run import write_arrays, write_json


def choose_rows(manifest: Manifest, settings: Settings) -> Manifest:
    """Return the rows that `[data.where]` selects, and with `missing = "drop"` only those that have a label.

    With several targets one label is enough; a row without any is an error unless rows are dropped. With `private`, the
    returned manifest shows ids instead of paths.
    """
    data = settings.data
    tasks = data.task if isinstance(data.task, Mapping) else dict.fromkeys(data.targets[:1], data.task)
    for target, task in tasks.items():
        if target in manifest.table.column_names:  # "clip" is none
            manifest = manifest.with_task(target, task)
    for column, values in data.where.items():
        manifest = manifest.where(column, list(values))
    manifest = manifest.as_private() if data.private else manifest
    columns = manifest.table.column_names
    targets = [target for target in data.targets if target != "clip" or target in columns]
    if not targets or (data.missing == "error" and len(targets) == 1):
        return manifest  # for one target the feed raises the error
    missing = [np.asarray(manifest.column(target).is_null(nan_is_null=True)) for target in targets]
    unlabelled = np.logical_and.reduce(missing)
    words = " or ".join(map(repr, targets))
    if unlabelled.all():
        raise TableError(f"none of {len(manifest)} rows has a {words} label; check the label table")
    if data.missing == "error" and unlabelled.any():
        first = manifest.column("id")[int(np.argmax(unlabelled))]
        raise LabelError(
            f"{count_having(int(unlabelled.sum()), len(manifest), 'row')} no label in any of {', '.join(targets)} "
            f"(first: {first}); leave them out with missing = 'drop' (--drop-missing)"
        )
    if unlabelled.any():
        manifest = manifest.take(np.flatnonzero(~unlabelled), step=f"with a {words} label")
    return manifest


def check_evaluation(manifest: Manifest, settings: Settings) -> None:
    """Check `[evaluate]` before training, so that an error does not appear at its end.

    Raises ColumnError for a missing column, TableError for rows without a unit, LabelError for a unit whose rows
    differ in a label, and SettingError for several clips per video with a position that allows one, or for a column
    with a reserved name.
    """
    evaluate = settings.evaluate
    check_clips(evaluate.clips, position=settings.clip.position)
    for column in evaluate.subgroups:
        manifest.column(column)
    for column_or_none in (settings.data.split.group or None, evaluate.unit, *evaluate.subgroups):
        if column_or_none is not None:
            check_column_name(column_or_none)
    if evaluate.unit is None:
        return
    units = manifest.column(evaluate.unit)
    has_no_unit = np.asarray(units.is_null(nan_is_null=True))
    if has_no_unit.any():
        raise TableError(
            f"{count_having(int(has_no_unit.sum()), len(manifest), 'row')} no {evaluate.unit!r} (first: "
            f"{manifest.column('id')[int(np.argmax(has_no_unit))]}), which is the unit of evaluation; fill it, leave "
            "the rows out, or choose another unit, or none, to count videos"
        )
    for target in settings.data.targets:
        if target not in manifest.table.column_names:
            continue
        pairs = pa.table({"unit": units, "label": manifest.column(target)}).filter(pc.field("label").is_valid())
        counts = pairs.group_by("unit").aggregate([("label", "count_distinct")])
        ambiguous = counts.filter(pc.greater(counts["label_count_distinct"], 1))["unit"]
        if len(ambiguous):
            raise LabelError(
                f"{len(ambiguous)} values of {evaluate.unit!r} have videos whose {target!r} labels differ (first: "
                f"{ambiguous[0]}), so they have no single label; choose another unit, or none, to count videos"
            )


def check_folds(rows: Manifest, settings: Settings) -> None:
    """Check that the rows can be split into folds; runs `check_evaluation` too.

    Raises SettingError for a split by a column, and for features whose network was trained on some of the rows.
    """
    column = settings.data.split.column
    if column is not None:
        raise SettingError(
            f"cross-validation splits all rows, and [data.split] takes the parts from the column {column!r}: set a "
            "group instead, and leave out the rows of a separate test set with [data.where]"
        )
    if made_by_a_run(rows):
        raise SettingError(
            "the rows are features of a run's network, which was trained on some of them: each fold would test on "
            "training rows of the network; use the videos, or features of a backbone that was not trained on them"
        )
    check_evaluation(rows, settings)


def usable_rows(manifest: Manifest) -> tuple[Manifest, list[dict[str, str]]]:
    """Return the rows that have frames, and a list of rows with an error or damaged frames.

    The `error` of such a row has the reason, and whether the row is used or left out.
    Rows with damaged frames are kept: reading such a frame raises an error or returns FFmpeg's concealment. An empty
    list proves that all files can be read only if `manifest.verified` is "decode".
    """
    failures, names = [], manifest.table.column_names
    columns = [
        manifest.column(name).to_pylist() if name in names else [None] * len(manifest) for name in ("error", "damaged")
    ]
    if any(any(values) for values in columns):
        columns.append(manifest.column("num_frames").to_pylist() if "num_frames" in names else [1] * len(manifest))
        for name, path, error, ranges, frames in zip(
            manifest.column("id").to_pylist(), manifest.display_names().to_pylist(), *columns, strict=True
        ):
            reasons = [error] * bool(error) + ([f"frames {frames_in_words(ranges)} are damaged"] if ranges else [])
            if reasons:
                outcome = "the row is used" if frames else "the row is left out"
                failures.append({"id": name, "path": path, "error": "; ".join([*reasons, outcome])})
    if "num_frames" not in manifest.table.column_names:
        return manifest, failures
    playable = np.flatnonzero(np.asarray(manifest.column("num_frames").fill_null(0)) > 0)
    if len(playable) == 0:
        first = f"{failures[0]['path']}: {failures[0]['error']}" if failures else "see 'cinefeed scan'"
        raise TableError(f"none of {len(manifest)} rows has a readable frame; {first}")
    if len(playable) == len(manifest):
        return manifest, failures
    return manifest.take(playable, step="with frames that can be read"), failures


def left_out(selected: Manifest, usable: Manifest) -> str:
    """Return a line about selected rows that are not usable, see `usable_rows`; "" if there are none."""
    count = len(selected) - len(usable)
    verb = "is" if count == 1 else "are"
    rows = count_having(count, len(selected), "row")
    return f"{rows} no frame that can be read, and {verb} left out: see failures.json" if count else ""


def unused_split(manifest: Manifest, settings: Settings) -> str:
    """Return a line about a column `split` of the manifest that the settings do not use; "" if there is none."""
    is_parted = "split" in manifest.table.column_names and manifest.column("split").null_count < len(manifest)
    if settings.data.split.column is not None or not is_parted:
        return ""
    return (
        "the column 'split' of the manifest is not used: the parts are new ones, at random; to use it, set "
        '[data.split] column = "split" (--split-column split)'
    )


def make_parts(manifest: Manifest, settings: Settings) -> Parts:
    """Return the parts of `[data.split]`: a new random split, or those of a column; runs `check_evaluation` first.

    Raises SettingError for a new split of features whose network was trained on some of the rows.
    """
    check_evaluation(manifest, settings)
    split = settings.data.split
    if split.column is not None:
        parts = manifest.parts(column=split.column, group=split.group or None, stratify=split.stratify)
        _check_classes(parts.all, settings)
        return parts
    if unused_split(manifest, settings) and made_by_a_run(manifest):
        raise SettingError(
            "the rows are features of a network that was trained on some of them, and a new split would test on "
            "those; use the parts of its run: [data.split] column = 'split' (--split-column split)"
        )
    parts = manifest.split(
        val=split.val, test=split.test, group=split.group or None, stratify=split.stratify, seed=split.seed
    )
    _check_classes(parts.all, settings)
    return parts


def _check_classes(rows: Manifest, settings: Settings) -> None:
    """Raise LabelError if validation or test has a class that training lacks, unless `[data] classes` lists classes."""
    data = settings.data
    for target in data.targets:
        is_listed = target in data.classes if isinstance(data.classes, Mapping) else data.classes is not None
        if is_listed or target not in rows.table.column_names or target == settings.feed.inputs.mask:
            continue
        kind = rows.label_type(target)
        if not kind.is_classes:
            continue
        rows_by_class = unseen_classes(labels=rows.column(target), parts=rows.column("split"))
        for value, rows_by_part in rows_by_class.items():
            counts = "; ".join(
                f"{format_count(len(indices), 'row')} of the {part} part ({_first(rows, indices)})"
                for part, indices in rows_by_part.items()
            )
            names = class_names(rows.column(target)).drop_null().unique().sort().to_pylist()
            training_classes = ",".join(name for name in names if name not in rows_by_class)
            option = (f"{target}=" if len(data.targets) > 1 else "") + ",".join(names)
            cause = f"{kind.text_notice(target)}; as it is, " if kind.others else ""
            raise LabelError(
                f"{cause}class {value!r} of {target!r} has no training row, and {counts}: leave its rows out with "
                f"--where {shlex.quote(f'{target}={training_classes}')}, split again with --stratify "
                f"{shlex.quote(target)} if the class has a group for each part, or list all classes, one of them "
                f"without training rows: "
                f"--classes {option}"
            )


def _first(rows: Manifest, indices: NDArray[np.int64]) -> str:
    return ", ".join(str(rows.display_names()[int(row)]) for row in indices[:3]) + " ..." * (len(indices) > 3)


def build_feed(settings: Settings, part: Manifest) -> Feed:
    """Return the training feed of a part."""
    return Feed.from_settings(part, settings.feed_settings())


def check_labels(feed: Feed) -> None:
    """Raise LabelError if all training rows have the same value of a regression target."""
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
    """Write data of a feed for the report: labels, clips, pixel values, rows after each step, failed files.

    balance.json holds the result of balancing with the draw frequencies of classes, by which probabilities can be
    corrected (cinefeed.data.sampling.correct_prior).
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
    """Return the labels of the balanced target, by row ("raw") and as drawn ("fed"), and those of several by name."""
    drawn_rows = feed.plan().rows
    if not feed.spec.targets:
        return {"raw": feed.labels, "fed": feed.labels[drawn_rows], "classes": list(feed.spec.classes) or None}
    by_target = {}
    for target in feed.spec.targets:
        column = feed.manifest.column(target.name)
        has_label = ~np.asarray(column.is_null(nan_is_null=True))
        labels = np.array(class_names(column).to_pylist() if target.classes else column.to_pylist(), object)
        by_target[target.name] = {
            "raw": labels[has_label],
            "fed": labels[drawn_rows[has_label[drawn_rows]]],
            "classes": list(target.classes) or None,
        }
    return {**by_target[feed.spec.target], "targets": by_target}
