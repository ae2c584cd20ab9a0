"""Baselines of a run: what a constant, nuisance columns and thumbnails score on the same split.

baselines.json      metrics of the model and of each baseline, paired differences, and what was used, by target
baselines.parquet   scores of the baselines on validation and test, with the column `baseline`
baselines.npz       thumbnails of the videos, so that a resumed run does not read them again; not of private data

The networks of small data sets are often no better than these, which a score alone does not show. An error never fails
a run, except that of a full disk: baselines.json then holds the reason in `note`.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cinefeed.config import Settings
from cinefeed.core.cores import usable_cores
from cinefeed.core.digests import is_whole
from cinefeed.core.errors import DiskFullError, TableError
from cinefeed.core.files import write_atomically
from cinefeed.core.progress import shown_progress
from cinefeed.core.rng import Stage, permutation_for
from cinefeed.core.text import format_count
from cinefeed.data.label_types import class_names
from cinefeed.data.manifest.encoded import encoded_from, source_videos
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.manifest.parquet import read_parquet_table, write_parquet_tables
from cinefeed.data.quality.thumbnails import Thumbnails, read_thumbnails
from cinefeed.data.split import encode
from cinefeed.feed.labels import FeedSpec
from cinefeed.metrics.baselines import CONSTANT, compare_baselines
from cinefeed.metrics.predictions import Predictions, predictions_of, target_columns
from cinefeed.metrics.units import cluster_of
from cinefeed.models.parts import targets_of
from cinefeed.training.baseline_models import Fitted, Target, constant_scores, fit, nuisance_features
from cinefeed.training.finish import needed_columns
from cinefeed.training.run import BASELINES, plain, read_baselines, write_arrays, write_json

TABLE, CACHE = "baselines.parquet", "baselines.npz"
MOST_ROWS = 2000  # reading a video takes 3 ms for `lips` and 120 ms for `pocus` on two busy cores
_MOST_VAL, _MOST_TEST = 300, 700
_COLUMNS, _THUMBNAIL, _MEAN = "columns", "thumbnail", "mean_frame"


def keep_baselines(
    folder: str | Path,
    *,
    settings: Settings,
    spec: FeedSpec,
    rows: Manifest,
    predictions: Predictions | None,
    progress: bool = False,
) -> None:
    """Measure baselines on the parts of a run, and write baselines.json, .parquet and .npz into its folder.

    `rows` have their part in the column `split`; `predictions` are those of the model. With `[evaluate] baselines`
    off, or without a label, nothing is measured, and baselines.json holds the reason.
    """
    start_time = time.monotonic()
    path = Path(folder)
    note = "[evaluate] baselines = false" if not settings.evaluate.baselines else ""
    note = note or ("the task has no label that a baseline could predict" if predictions is None else "")
    content: dict[str, Any] = {}
    if not note and predictions is not None:
        try:
            content = _measure(path, settings, spec, rows, predictions, progress=progress)
        except DiskFullError:  # the next file would fail too; the same command resumes here
            raise
        except Exception as error:  # results of a training must not be lost with an error of a baseline
            note = "the reason is not shown for private data" if rows.private else str(error)
            note = f"they could not be measured ({type(error).__name__}: {note[:300]})"
    write_json(path / BASELINES, {"note": note, "seconds": round(time.monotonic() - start_time, 1), **content})


def gather_baselines(
    folder: Path,
    runs: Sequence[Path],
    *,
    settings: Settings,
    predictions: Predictions | None,
    thresholds: Mapping[str, float],
) -> None:
    """Write the baselines of a cross-validation: those of its runs, each video by the models of its fold."""
    contents = [read_baselines(run) for run in runs]
    note = next((content["note"] for content in contents if content.get("note")), "")
    if not note and not all((run / TABLE).is_file() for run in runs):
        note = "a fold has none"
    content = {"note": note, "seconds": round(sum(each.get("seconds", 0.0) for each in contents), 1)}
    if not note and predictions is not None:
        scored = pa.concat_tables([read_parquet_table(run / TABLE) for run in runs])
        compared = _compare(settings, predictions, _by_name(scored, predictions.targets), thresholds=thresholds)
        rows = len(scored.filter(pc.equal(scored["split"], "test"))["id"].unique())
        content = contents[0] | content | {"rows": rows, "models": {}, "targets": compared}
    write_json(folder / BASELINES, content)


def _measure(
    folder: Path, settings: Settings, spec: FeedSpec, rows: Manifest, predictions: Predictions, *, progress: bool
) -> dict[str, Any]:
    group = settings.data.split.group or None
    count = len(rows)
    rows = rows.take(select_rows(rows, group=group))
    view = next(iter(rows.rows.views), "")
    features, notes = _features(folder, settings, rows, view=view, progress=progress)
    train = np.asarray(pc.equal(rows.column("split"), "train"))
    groups = encode(rows.column(group)).codes if group else np.arange(len(rows))
    columns = {name: rows.column(name) for name in ("id", "split", *needed_columns(settings))}
    several, tables = bool(spec.targets), {}
    models: dict[str, dict[str, str]] = {}
    targets = [_target(rows, each) for each in targets_of(spec)]
    for name, values in features.items():
        table = dict(columns)
        for target in targets:
            if values is None:
                fitted = constant_scores(target, train=train)
            else:
                fitted = fit(values, target, train=train, groups=groups, trees=name == _COLUMNS)
            table |= _score_columns(target, fitted, several=several)
            models.setdefault(target.name, {})[name] = fitted.model
        tables[name] = pa.table(table).filter(pa.array(~train))
    scored = pa.concat_tables([table.append_column("baseline", _names(name, table)) for name, table in tables.items()])
    write_atomically(folder / TABLE, lambda partial: write_parquet_tables(partial, [scored]))
    by_name = _by_name(scored, predictions.targets)
    return {
        "part": "test",
        "rows": len(rows),
        "rows_of_manifest": count,
        "view": view,
        "views": list(rows.rows.views),
        "notes": notes,
        "models": models,
        "targets": _compare(settings, predictions, by_name),
    }


def select_rows(manifest: Manifest, *, group: str | None, most: int = MOST_ROWS) -> NDArray[np.int64]:
    """Return the rows that baselines use: all, or at most `most` of whole groups, drawn by part."""
    parts = np.asarray(manifest.column("split").to_pylist(), object)
    if len(parts) <= most:
        return np.arange(len(parts))
    codes = encode(manifest.column(group)).codes if group else np.arange(len(parts))
    sizes = {part: int((parts == part).sum()) for part in ("train", "val", "test")}
    scale = most / MOST_ROWS
    limits = {"val": min(sizes["val"], round(_MOST_VAL * scale)), "test": min(sizes["test"], round(_MOST_TEST * scale))}
    limits["train"] = most - sum(limits.values())
    rows_by_part = []
    for part, limit in limits.items():
        rows = np.flatnonzero(parts == part)
        order = permutation_for(0, stage=Stage.SPLIT, count=int(codes.max()) + 1)
        rows = rows[np.argsort(order[codes[rows]], kind="stable")]
        _, starts, counts = np.unique(order[codes[rows]], return_index=True, return_counts=True)
        ends = starts + counts
        if len(ends):
            rows_by_part.append(rows[: max(int(ends[ends <= limit].max(initial=0)), int(ends[0]))])
    return np.sort(np.concatenate(rows_by_part))


def _features(
    folder: Path, settings: Settings, rows: Manifest, *, view: str, progress: bool
) -> tuple[dict[str, NDArray[Any] | None], dict[str, str]]:
    """Return the features of each baseline, None for the constant, and why others are left out or what they use."""
    features: dict[str, NDArray[Any] | None] = {CONSTANT: None}
    notes: dict[str, str] = {}
    if encoded_from(rows) is not None:
        videos = source_videos(rows)
        if videos is None:
            reason = "left out: the inputs are features, and the manifest of their videos is not there"
            return features, dict.fromkeys((_COLUMNS, _THUMBNAIL, _MEAN), reason)
        rows = videos
    values, names = nuisance_features(rows, view=view)
    if names:
        features[_COLUMNS] = values
        notes[_COLUMNS] = ", ".join(names)
    elif "num_frames" in rows.table.schema.names or view:
        notes[_COLUMNS] = "left out: container, size, rate and duration are the same in all rows"
    else:
        notes[_COLUMNS] = "left out: the videos were not scanned"
    thumbnails = _cached_thumbnails(folder, settings, rows, view=view, progress=progress)
    unread = int((~thumbnails.rows_read).sum())
    if unread == len(rows):
        reason = "left out: no video has a readable frame"
        return features, notes | dict.fromkeys((_THUMBNAIL, _MEAN), reason)
    if unread:
        notes |= dict.fromkeys((_THUMBNAIL, _MEAN), f"{format_count(unread, 'video')} without a readable frame")
    return features | {_THUMBNAIL: thumbnails.thumbnail, _MEAN: thumbnails.mean_frame}, notes


def _cached_thumbnails(folder: Path, settings: Settings, rows: Manifest, *, view: str, progress: bool) -> Thumbnails:
    """Return the thumbnails of rows from baselines.npz of the run or of another fold; else read the videos."""
    ids = np.array(rows.column("id").cast(pa.string()).to_pylist(), np.str_)
    states = _file_states(rows, view)
    is_fold = (folder.parent / "folds.json").is_file()
    for path in [folder / CACHE, *(sorted(folder.parent.glob(f"fold*/{CACHE}")) if is_fold else ())]:
        if path.is_file() and is_whole(path):
            with np.load(path, allow_pickle=False) as stored:
                places = {key: place for place, key in enumerate(zip(stored["ids"], stored["states"], strict=True))}
                order = [places.get(key, -1) for key in zip(ids, states, strict=True)]
                if min(order, default=0) >= 0:
                    return Thumbnails(thumbnail=stored["thumbnail"][order], mean_frame=stored["mean_frame"][order])
    count = settings.feed.workers.count
    workers = count if isinstance(count, int) and count > 0 else usable_cores()
    with shown_progress(None if progress else False, what="baselines") as report_progress:
        thumbnails = read_thumbnails(rows, range(len(rows)), workers=workers, progress=report_progress, view=view)
    if not rows.private:  # thumbnails are images of patients
        write_arrays(folder / CACHE, ids=ids, states=states, **vars(thumbnails))
    return thumbnails


def _file_states(rows: Manifest, view: str) -> NDArray[np.str_]:
    """Return size and time of each row's file at the scan, and its window, by which a cached thumbnail is valid."""
    names = [f"{name}:{view}" if view else name for name in ("path", "size_bytes", "mtime_ns")]
    names += [f"{name}:{view}" if view else name for name in ("start_seconds", "end_seconds")]
    columns = [rows.column(name).to_pylist() for name in names if name in rows.table.schema.names]
    return np.array([" ".join(map(str, each)) for each in zip(*columns, strict=True)], np.str_)


def _target(rows: Manifest, spec: Any) -> Target:
    column = rows.column(spec.name)
    has_label = ~np.asarray(column.is_null(nan_is_null=True))
    if spec.classes:
        numbers = pc.index_in(class_names(column), value_set=pa.array(spec.classes, pa.string()))
        has_label &= np.asarray(numbers.is_valid())
        labels: NDArray[Any] = np.asarray(numbers.fill_null(0)).astype(np.int64)
    else:
        labels = np.nan_to_num(np.asarray(column.cast(pa.float64(), safe=False).fill_null(0.0)))
    return Target(spec.name, spec.task, tuple(spec.classes), labels, has_label)


def _score_columns(target: Target, fitted: Fitted, *, several: bool) -> dict[str, Any]:
    names = target_columns(target.name, task=target.task, classes=target.classes, several=several)
    values = np.array(target.classes, object)[target.labels] if target.classes else target.labels
    kind = pa.string() if target.classes else pa.float64()
    columns = {names.target: pa.array(values, kind, mask=~target.has_label)}
    scores = fitted.scores.reshape(len(fitted.scores), -1)
    return columns | {name: pa.array(scores[:, number]) for number, name in enumerate(names.scores)}


def _names(name: str, table: pa.Table) -> pa.Array:
    return pa.array([name] * len(table), pa.string())


def _by_name(scored: pa.Table, targets: Any) -> dict[str, Predictions]:
    """Return the predictions of each baseline in a table of all."""
    names = scored["baseline"].unique().to_pylist()
    tables = {name: scored.filter(pc.equal(scored["baseline"], name)).drop_columns("baseline") for name in names}
    return {name: predictions_of(table, targets) for name, table in tables.items()}


def _compare(
    settings: Settings,
    model: Predictions,
    baselines: Mapping[str, Predictions],
    *,
    thresholds: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    evaluate = settings.evaluate
    if "test" not in model.parts:
        raise TableError("there are no predictions of the test part")
    cluster = cluster_of(model.table, unit=evaluate.unit, group=settings.data.split.group or None)
    compared = compare_baselines(
        model,
        baselines,
        thresholds=thresholds,
        rule=evaluate.threshold,
        unit=evaluate.unit,
        cluster=cluster,
        resamples=evaluate.resamples,
        level=evaluate.level,
    )
    return dict(plain(compared))
