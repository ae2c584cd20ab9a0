"""Use of a finished run: `evaluate` measures a part or another manifest, `predict` scores any video."""

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cinefeed.config import Settings
from cinefeed.core.errors import ColumnError, SettingError, SplitError, TableError, did_you_mean
from cinefeed.core.locks import with_write_lock
from cinefeed.data.manifest.encoded import check_encoded
from cinefeed.data.manifest.find import hashed_id
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.manifest.output_folders import output_kind
from cinefeed.data.manifest.scan import probe_videos
from cinefeed.data.manifest.write_table import table_suffix, write_table
from cinefeed.feed.feed import Feed
from cinefeed.feed.labels import FeedSpec
from cinefeed.metrics.assess import flat_metrics
from cinefeed.metrics.predictions import with_warnings
from cinefeed.training.finish import (
    assess_table,
    needed_columns,
    priors_of,
    shared_patients,
    with_evaluation,
)
from cinefeed.training.keras_module import keras
from cinefeed.training.known_videos import count_by_part
from cinefeed.training.network import build_model
from cinefeed.training.predictions import by_video, predictions_table, score, score_batches, with_predicted_classes
from cinefeed.training.run import WEIGHTS, read_rule_thresholds, read_run, read_thresholds
from cinefeed.training.setup import build_feed, check_evaluation, choose_rows, usable_rows
from cinefeed.training.threads import with_threads_of_run
from cinefeed.training.weights import load_weights
from cinefeed.video.kinds import is_video

PARTS = ("train", "val", "test")
Tick = Callable[[int, int], object]  # called with the number of clips done and of all clips
ROWS_AT_ONCE = 1024  # predictions per write


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Result of `evaluate` or `predict`: predictions, failed files, and of `evaluate` metrics and assessment."""

    part: str
    metrics: dict[str, Any]
    predictions: pa.Table
    assessment: dict[str, Any] = field(default_factory=dict)
    failures: tuple[dict[str, str], ...] = ()
    repeated: int = 0  # number of paths that name a video already in the list
    run_parts: Mapping[str, int] = field(default_factory=dict)  # predicted videos that are in each part of the run


@with_threads_of_run
@with_write_lock("out")
def evaluate(
    run: str | Path,
    *,
    part: str = "test",
    manifest: str | Path | None = None,
    where: Mapping[str, Sequence[str]] | None = None,
    unit: str | None = None,
    clips: int | None = None,
    subgroups: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    out: str | Path | None = None,
    tick: Tick | None = None,
) -> Evaluation:
    """Measure a run's best weights on one of its parts, or on another manifest that has the label.

    Another manifest is external validation: it is filtered as the run's own was (`[data.where]`), and the thresholds
    are those that the run selected on its validation part. Patients (the `group` of the run's split) of the run's
    training or validation are an error. Without a group this is not checked; if the manifests have hashed patients with
    different salts, a warning of the assessment reports that it cannot be checked.

    Args:
        run: The run folder.
        part: The part to measure: "train", "val" or "test".
        manifest: Another manifest to measure, in place of a part.
        where: Values by column; only rows with these values are measured.
        unit: Override `[evaluate] unit`.
        clips: Override `[evaluate] clips`.
        subgroups: Override `[evaluate] subgroups`.
        metrics: Override `[evaluate] metrics`, which are those of plug-ins.
        out: File for the predictions, a row per clip: Parquet, CSV or JSON, by suffix.
        tick: Called with the number of clips done and of all clips.

    Raises SettingError if `run` is not a run folder, SplitError for patients of the run, ColumnError if the column of
    patients is absent, InUseError while another process writes `out`, and the errors of a feed for unsuitable rows or
    labels.
    """
    if part not in PARTS:
        raise SettingError(f"part={part!r} is not a part; choose one of {', '.join(PARTS)}")
    if out is not None:
        table_suffix(Path(out))
    settings, model, trained, own, thresholds = load(run)
    settings = with_evaluation(
        settings,
        unit=unit,
        clips=clips,
        subgroups=None if subgroups is None else tuple(subgroups),
        metrics=None if metrics is None else tuple(metrics),
    )
    rows = own.where("split", [part]) if manifest is None else choose_rows(Manifest.read(manifest), settings)
    for column, values in (where or {}).items():
        rows = rows.where(column, list(values))
    warnings: tuple[str, ...] = ()
    if manifest is not None:
        part = "external"
        warnings = _refuse_shared_patients(rows, own=own, settings=settings, name=str(manifest))
    check_encoded(rows, like=own)
    usable, failures = usable_rows(rows)
    check_evaluation(usable, settings)
    feed = trained.evaluation(usable, clips=settings.evaluate.clips)
    scores = score(model, feed, tick=clip_counter(tick, len(usable) * settings.evaluate.clips))
    columns = needed_columns(settings)
    table = predictions_table(trained.spec, scores, manifest=usable, part=part, columns=columns)
    assessment = assess_table(
        table,
        settings=settings,
        spec=trained.spec,
        priors=priors_of(settings, trained),
        thresholds=thresholds,
        rule_thresholds=read_rule_thresholds(run),
    )
    if warnings:
        table = with_warnings(table, warnings)
        assessment["warnings"] = list(warnings)
    if out is not None:
        write_table(Path(out), [table])
    return Evaluation(
        part=part,
        metrics=flat_metrics(assessment)[part],
        predictions=table,
        assessment=assessment,
        failures=tuple(failures),
    )


@with_threads_of_run
@with_write_lock("out")
def predict(
    run: str | Path,
    *,
    paths: Iterable[str | Path] = (),
    manifest: str | Path | None = None,
    clips: int | None = None,
    per_clip: bool = False,
    out: str | Path | None = None,
    tick: Tick | None = None,
) -> Evaluation:
    """Score videos by path (files, or folders to search), or every row of a manifest; no label is needed.

    For classes the column `predicted` (with several targets `predicted_<name>`) has the class: of two, the second from
    the threshold on that the run chose on its validation part, 0.5 if it has none; of more, the one with the largest
    score.

    A file that is missing or not a video is left out and listed in `failures`, with the reason; a truncated file is
    scored by the frames that decode. A file that several paths name is scored once. The `id` of a file in the root
    folder of the run's manifest is its path within that folder, as in the manifest; of other files, its path within
    their common folder. `run_parts` has the number of videos that were in a part of the run, by content.

    Args:
        run: The run folder.
        paths: Files, or folders to search for videos.
        manifest: A manifest, in place of paths.
        clips: Number of clips per video whose scores are averaged; by default that of `[evaluate]`.
        per_clip: Return a row per clip instead of a row per video.
        out: File for the predictions, written batch by batch: Parquet, CSV or JSON, by suffix.
        tick: Called with the number of clips done and of all clips.

    Raises InUseError while another process writes `out`.
    """
    if out is not None:
        table_suffix(Path(out))
    loaded, repeated = load(run), 0
    if manifest is not None:
        readable, failures = rows_to_predict(manifest, loaded)
    else:
        files, repeated = _files_at([Path(each) for each in paths])
        readable, failures = _probe(files, own=loaded.own)
    check_encoded(readable, like=loaded.own)
    count = loaded.settings.evaluate.clips if clips is None else clips
    feed = loaded.trained.evaluation(readable, labelled=False, clips=count)
    tables = prediction_tables(loaded, feed, per_clip=per_clip, tick=clip_counter(tick, len(readable) * count))
    table = write_predictions(tables, out=None if out is None else Path(out))
    return Evaluation(
        part="predict",
        metrics={},
        predictions=table,
        failures=tuple(failures),
        repeated=repeated,
        run_parts=count_by_part(readable, own=loaded.own),
    )


def rows_to_predict(manifest: str | Path, loaded: "Loaded") -> tuple[Manifest, list[dict[str, str]]]:
    """Return the rows of a manifest that can be scored, and a list of the others. Raises TableError without any."""
    rows = Manifest.read(manifest)
    readable, absent = _existing_rows(rows.as_private() if loaded.own.private else rows)
    readable, failures = usable_rows(readable)
    return readable, absent + failures


def write_predictions(tables: Iterable[pa.Table], *, out: Path | None) -> pa.Table:
    """Write predictions to a file, Parquet table by table, and return all; do not write without a file."""
    if out is None:
        return pa.concat_tables(tables)
    if table_suffix(out) == ".parquet":
        write_table(out, tables)
        return pq.read_table(out, memory_map=True)
    table = pa.concat_tables(tables)
    write_table(out, [table])
    return table


def _refuse_shared_patients(rows: Manifest, *, own: Manifest, settings: Settings, name: str) -> tuple[str, ...]:
    """Raise SplitError if another manifest has patients that the run was trained or validated on.

    Returns a warning if this cannot be checked.
    """
    group = settings.data.split.group
    if not group:
        return ()
    columns = rows.table.column_names
    if group not in columns:
        raise ColumnError(
            f"{name} has no column {group!r}, which is needed to exclude patients of the run's training; "
            f"{did_you_mean(group, columns)}"
        )
    shared = shared_patients(rows, own=own, group=group)
    if shared:
        values = rows.column(group).drop_null().unique()
        examples = "private data: none is named" if rows.private else f"first: {', '.join(shared[:3])}"
        raise SplitError(
            f"{len(shared)} of {len(values)} values of {group!r} in {name} are in the run's training or validation "
            f"({examples}), so this is not external validation; leave their rows out (--where), or pass another "
            f"manifest"
        )
    salts = own.salt_fingerprint(group), rows.salt_fingerprint(group)
    if salts[0] == salts[1] is not None:
        return ()
    return (
        f"overlap of patients cannot be checked: the run's manifest and {name} hold {group!r} hashed with different or "
        "unknown salts, so one patient has two names; scan both with the same --salt, or join both with a shared "
        f"table of hashes of each {group}",
    )


def _existing_rows(manifest: Manifest) -> tuple[Manifest, list[dict[str, str]]]:
    """Return the rows whose files exist, and a list of the others. Raises TableError if no file exists."""
    if manifest.rows.remote is not None:  # a file that is absent there is an error of its own
        return manifest, []
    views = manifest.rows.views or ("",)
    paths = [[manifest.rows.path_of(row, view=view) for view in views] for row in range(len(manifest))]
    absent = [row for row, files in enumerate(paths) if not all(each.exists() for each in files)]
    if not absent:
        return manifest, []
    ids, names = (manifest.column("id").to_pylist(), manifest.display_names().to_pylist())
    failures = [{"id": ids[row], "path": names[row], "error": "the file does not exist"} for row in absent]
    if len(absent) == len(manifest):
        raise TableError(
            f"none of the {len(absent)} files exists (first: {names[0]}); check the manifest's root folder"
        )
    present = np.setdiff1d(np.arange(len(manifest)), absent)
    return manifest.take(present, step="whose files exist"), failures


def prediction_tables(
    loaded: "Loaded", feed: Feed, *, per_clip: bool, tick: Callable[[int], object] | None
) -> Iterator[pa.Table]:
    """Yield the predictions of a feed, about a thousand rows at a time, in the order of its manifest."""
    first, spec = 0, loaded.trained.spec
    for scores in score_batches(loaded.model, feed, at_least=ROWS_AT_ONCE):
        videos = len(scores.ids) // feed.settings.clips_per_video.count
        rows = feed.manifest.take(np.arange(first, first + videos))
        rows_of_table = scores if per_clip else by_video(scores)
        table = predictions_table(spec, rows_of_table, manifest=rows, part="predict", labelled=False)
        table = with_predicted_classes(table, spec, rows_of_table, thresholds=loaded.thresholds)
        yield table if per_clip else table.drop_columns("clip")
        first += videos
        if tick is not None:
            tick(len(scores.ids))


class Loaded(NamedTuple):
    """A run's settings, its model with the best weights, its training feed, manifest and thresholds."""

    settings: Settings
    model: keras.Model
    trained: Feed
    own: Manifest
    thresholds: Mapping[str, float]


def load(run: str | Path) -> Loaded:
    """Return what evaluation needs of a run."""
    if (Path(run) / "folds.json").is_file():
        raise SettingError(f"{run} holds the runs of several folds; pass one of them, such as {Path(run) / 'fold1'}")
    settings, spec, own = read_run(run)
    model = load_model(settings, spec, Path(run) / WEIGHTS)
    inputs = replace(settings.feed.inputs, weight=None)  # weights are for the training loss alone
    unweighted = replace(settings, feed=replace(settings.feed, inputs=inputs))
    return Loaded(settings, model, build_feed(unweighted, own.where("split", ["train"])), own, read_thresholds(run))


def load_model(settings: Settings, spec: FeedSpec, weights: Path) -> keras.Model:
    """Return the network of a run with weights from a file.

    Raises TrainingError if the file is damaged, SettingError if weights and network do not fit.
    """
    model = build_model(settings, spec, trained=True)
    try:
        load_weights(model, weights)
    except (ValueError, OSError) as error:
        raise SettingError(f"{weights} does not fit the model that settings.toml describes: {error}") from error
    return model


def _files_at(paths: list[Path]) -> tuple[list[Path], int]:
    """Return the files of paths and of folders without duplicates, and the number of duplicates."""
    files: list[Path] = []
    for path in paths:
        if path.suffix.lower() == ".parquet" and path.is_file():
            raise SettingError(
                f"{path} is a table, not a video or a folder of videos; to score the rows of a manifest, "
                f"pass manifest={str(path)!r} (--manifest {path})"
            )
        files += sorted(_videos_in(path)) or [path]
    distinct: dict[str, Path] = {}
    for path in files:
        distinct.setdefault(os.path.abspath(path), path)  # noqa: PTH100  # removes "..", keeps links
    return list(distinct.values()), len(files) - len(distinct)


def _videos_in(folder: Path) -> Iterator[Path]:
    """Yield the videos in a folder; run folders and features are skipped, as in a scan."""
    for directory, folders, names in os.walk(folder):
        if output_kind({*folders, *names}) is not None:
            folders.clear()
            continue
        files = (Path(directory, name) for name in names)
        yield from (file for file in files if file.is_file() and is_video(file))


def _probe(files: list[Path], *, own: Manifest) -> tuple[Manifest, list[dict[str, str]]]:
    """Return a manifest of some videos, each probed once, and a list of the files that are damaged or not videos.

    Paths are relative to the root of the run's manifest `own` if all files are in it. If `own` is private, neither
    result contains a path. Raises TableError if no frame of any file can be read.
    """
    private = own.private
    rows = []
    failures: list[dict[str, str]] = []
    for path in files:
        try:
            status = path.stat()
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "a folder without a video")
            rows.append({"path": str(path.absolute()), "size_bytes": status.st_size, "mtime_ns": status.st_mtime_ns})
        except OSError as error:
            name = hashed_id(str(path), salt="id") if private else str(path)
            reason = error.strerror or ("it cannot be read" if private else str(error))
            failures.append({"id": name, "path": name, "error": reason})
    if not rows:
        reasons = "; ".join(f"{failure['path']}: {failure['error']}" for failure in failures[:3])
        raise TableError(f"there is no video to predict ({reasons or 'no path was passed'}); pass files or folders")
    root = Path(str(own.root)).absolute()
    in_root = own.rows.remote is None and all(Path(str(row["path"])).is_relative_to(root) for row in rows)
    unprobed = Manifest.from_table(pa.Table.from_pylist(rows), root=root if in_root else None)
    table = probe_videos(
        unprobed.table,
        root=Path(str(unprobed.root)),
        verify="decode",
        workers=None,
        out=None,
        progress=None,
        private=private,
    )
    videos = Manifest.from_table(table, root=str(unprobed.root))
    usable, damaged = usable_rows(videos.as_private() if private else videos)
    return usable, failures + damaged


def clip_counter(tick: Tick | None, total: int) -> Callable[[int], object] | None:
    """Return a function that counts clips and calls `tick`; None without it."""
    if tick is None:
        return None
    clips_done = 0

    def count(clips: int) -> None:
        nonlocal clips_done
        clips_done += clips
        tick(clips_done, total)

    return count
