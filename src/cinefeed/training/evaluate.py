"""A finished run, used: `evaluate` measures a part or another manifest, `predict` scores any video."""

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cinefeed.config import Settings
from cinefeed.errors import ColumnError, SettingError, SplitError, TableError, did_you_mean
from cinefeed.feed.feed import Feed
from cinefeed.feed.targets import FeedSpec
from cinefeed.locks import with_write_lock
from cinefeed.manifest.encoded import check_encoded
from cinefeed.manifest.find import hashed_id
from cinefeed.manifest.scan import probe_videos
from cinefeed.manifest.table import Manifest
from cinefeed.manifest.writing import table_suffix, write_table
from cinefeed.metrics.assess import flat_metrics
from cinefeed.metrics.predictions import with_warnings
from cinefeed.sources.kinds import is_video
from cinefeed.training.finish import (
    assess_table,
    needed_columns,
    priors_of,
    seen_patients,
    with_evaluation,
)
from cinefeed.training.flow import build_feed, check_evaluation, choose_rows, usable_rows
from cinefeed.training.network import build_model
from cinefeed.training.run import WEIGHTS, kept_thresholds, read_run
from cinefeed.training.scores import by_video, predictions_table, score, score_batches
from cinefeed.training.threads import with_threads_of_run
from cinefeed.training.weights import load_weights

PARTS = ("train", "val", "test")
Tick = Callable[[int, int], object]  # clips done, of how many
_ROWS = 1024  # predictions that are written at once


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a run's weights are worth on some rows: metrics, all of `assess`, and the predictions they come from."""

    part: str
    metrics: dict[str, Any]
    predictions: pa.Table
    assessment: dict[str, Any] = field(default_factory=dict)
    failures: tuple[dict[str, str], ...] = ()
    repeated: int = 0  # paths to be scored that name a video once more


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
    out: str | Path | None = None,
    tick: Tick | None = None,
) -> Evaluation:
    """Measure a run's best weights on one of its parts, or on another manifest that carries the label.

    The other manifest is external validation: it is filtered as the run's own was (`[data.where]`), thresholds are
    those that the run chose on its validation part, and patients (the `group` of the run's split) that it saw in
    training or validation are refused; where the split has no group, nothing tells them, and where the manifests have
    hashed them with different salts, a warning of the assessment says that it cannot be checked. `where` keeps rows of
    either. `unit`, `clips` and `subgroups` overrule `[evaluate]`. `out` keeps the predictions, a row a clip: Parquet,
    CSV or JSON, by its suffix.

    Raises SettingError where `run` is no run folder, SplitError for patients who were seen, ColumnError where a column
    for that is absent, InUseError while another process writes `out`, and what a feed raises for rows or labels that
    do not serve.
    """
    if part not in PARTS:
        raise SettingError(f"part={part!r} is not a part; there are: {', '.join(PARTS)}")
    if out is not None:
        table_suffix(Path(out))
    settings, model, trained, own = _load(run)
    settings = with_evaluation(
        settings, unit=unit, clips=clips, subgroups=None if subgroups is None else tuple(subgroups)
    )
    rows = own.where("split", [part]) if manifest is None else choose_rows(Manifest.read(manifest), settings)
    for column, values in (where or {}).items():
        rows = rows.where(column, list(values))
    warnings: tuple[str, ...] = ()
    if manifest is not None:
        part = "external"
        warnings = _refuse_seen(rows, own=own, settings=settings, name=str(manifest))
    check_encoded(rows, like=own)
    chosen, failures = usable_rows(rows)
    check_evaluation(chosen, settings)
    feed = trained.evaluation(chosen, clips=settings.evaluate.clips)
    scores = score(model, feed, tick=_counting(tick, len(chosen) * settings.evaluate.clips))
    columns = needed_columns(settings)
    table = predictions_table(trained.spec, scores, manifest=chosen, part=part, columns=columns)
    assessment = assess_table(
        table,
        settings=settings,
        spec=trained.spec,
        priors=priors_of(settings, trained),
        thresholds=kept_thresholds(run),
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

    A file that is no video, or is not there, is left out and listed in `failures`, with the reason; one that breaks
    off is scored by the frames that decode. A file that several paths name is scored once. `clips` of each video are
    scored, by default as many as `[evaluate]` says, and averaged: a row a video, or with `per_clip` a row a clip.
    `out` keeps the predictions, written as they come: Parquet, CSV or JSON, by its suffix. Raises InUseError while
    another process writes it.
    """
    if out is not None:
        table_suffix(Path(out))
    repeated = 0
    settings, model, trained, own = _load(run)
    if manifest is not None:
        rows = Manifest.read(manifest)
        readable, absent = _there(rows.as_private() if own.private else rows)
        readable, failures = usable_rows(readable)
        failures = absent + failures
    else:
        files, repeated = _files_at([Path(each) for each in paths])
        readable, failures = _probed(files, private=own.private)
    check_encoded(readable, like=own)
    count = settings.evaluate.clips if clips is None else clips
    feed = trained.evaluation(readable, labelled=False, clips=count)
    counting = _counting(tick, len(readable) * count)
    tables = _predicted(model, feed, spec=trained.spec, per_clip=per_clip, tick=counting)
    if out is None:
        table = pa.concat_tables(tables)
    elif table_suffix(Path(out)) == ".parquet":
        write_table(Path(out), tables)
        table = pq.read_table(out, memory_map=True)
    else:
        table = pa.concat_tables(tables)
        write_table(Path(out), [table])
    return Evaluation(part="predict", metrics={}, predictions=table, failures=tuple(failures), repeated=repeated)


def _refuse_seen(rows: Manifest, *, own: Manifest, settings: Settings, name: str) -> tuple[str, ...]:
    """Raise SplitError where another manifest has patients that the run was trained or validated on.

    Returns a warning where that cannot be seen.
    """
    group = settings.data.split.group
    if not group:
        return ()
    columns = rows.table.column_names
    if group not in columns:
        raise ColumnError(
            f"{name} has no column {group!r}, by which the run tells patients that it has seen; "
            f"{did_you_mean(group, columns)}"
        )
    seen = seen_patients(rows, own=own, group=group)
    if seen:
        known = rows.column(group).drop_null().unique()
        named = "of private data none is named" if rows.private else f"first: {', '.join(seen[:3])}"
        raise SplitError(
            f"{len(seen)} of {len(known)} values of {group!r} in {name} were seen by the run in training or validation "
            f"({named}), so this is no external validation; leave their rows out (--where), or give another manifest"
        )
    salts = own.salt_fingerprint(group), rows.salt_fingerprint(group)
    if salts[0] == salts[1] is not None:
        return ()
    return (
        f"overlap of patients cannot be checked: the run's manifest and {name} hold {group!r} under different or "
        "unknown salts, so that one patient has two names; scan both with the same --salt, or join both with a shared "
        f"table of hashes of each {group}",
    )


def _there(manifest: Manifest) -> tuple[Manifest, list[dict[str, str]]]:
    """Return the rows whose files are there, and a list of those that are not. Raises TableError for none."""
    views = manifest.rows.views or ("",)
    paths = [[manifest.rows.path_of(row, view=view) for view in views] for row in range(len(manifest))]
    absent = [row for row, files in enumerate(paths) if not all(each.exists() for each in files)]
    if not absent:
        return manifest, []
    ids, shown = (manifest.column("id").to_pylist(), manifest.shown().to_pylist())
    failures = [{"id": ids[row], "path": shown[row], "error": "there is no such file"} for row in absent]
    if len(absent) == len(manifest):
        raise TableError(f"none of the {len(absent)} files is there (first: {shown[0]}); is the root right?")
    kept = np.setdiff1d(np.arange(len(manifest)), absent)
    return manifest.take(kept, step="whose files are there"), failures


def _predicted(
    model: keras.Model, feed: Feed, *, spec: FeedSpec, per_clip: bool, tick: Callable[[int], object] | None
) -> Iterator[pa.Table]:
    """Yield the predictions of a feed, a thousand rows at a time: its rows come in the order of its manifest."""
    first = 0
    for scores in score_batches(model, feed, at_least=_ROWS):
        videos = len(scores.ids) // feed.settings.clips_per_video.count
        rows = feed.manifest.take(np.arange(first, first + videos))
        if per_clip:
            yield predictions_table(spec, scores, manifest=rows, part="predict", labelled=False)
        else:
            table = predictions_table(spec, by_video(scores), manifest=rows, part="predict", labelled=False)
            yield table.drop_columns("clip")
        first += videos
        if tick is not None:
            tick(len(scores.ids))


def _load(run: str | Path) -> tuple[Settings, keras.Model, Feed, Manifest]:
    """Return a run's settings, its model with the best weights, its training feed and its manifest."""
    if (Path(run) / "folds.json").is_file():
        raise SettingError(f"{run} holds the runs of several folds; name one of them, such as {Path(run) / 'fold1'}")
    settings, spec, own = read_run(run)
    model = load_model(settings, spec, Path(run) / WEIGHTS)
    inputs = replace(settings.feed.inputs, weight=None)  # weights are for the training loss alone
    unweighted = replace(settings, feed=replace(settings.feed, inputs=inputs))
    return settings, model, build_feed(unweighted, own.where("split", ["train"])), own


def load_model(settings: Settings, spec: FeedSpec, weights: Path) -> keras.Model:
    """Return the network of a run with weights from a file.

    Raises TrainingError where the file is damaged, SettingError where the two do not fit.
    """
    model = build_model(settings, spec, trained=True)
    try:
        load_weights(model, weights)
    except (ValueError, OSError) as error:
        raise SettingError(f"{weights} does not fit the model that settings.toml describes: {error}") from error
    return model


def _files_at(paths: list[Path]) -> tuple[list[Path], int]:
    """Return the files that paths name, those within folders too, each once; and how many are named once more."""
    files: list[Path] = []
    for path in paths:
        if path.suffix.lower() == ".parquet" and path.is_file():
            raise SettingError(
                f"{path} is a table, and videos or folders of them were asked for; to score the rows of a manifest, "
                f"name it as such: manifest={str(path)!r} (--manifest {path})"
            )
        inside = [each for each in path.rglob("*") if each.is_file() and is_video(each)] if path.is_dir() else []
        files += sorted(inside) or [path]
    different: dict[str, Path] = {}
    for path in files:
        different.setdefault(os.path.abspath(path), path)  # noqa: PTH100  # without "..", and a link stays one
    return list(different.values()), len(files) - len(different)


def _probed(files: list[Path], *, private: bool) -> tuple[Manifest, list[dict[str, str]]]:
    """Return a manifest of some videos, each probed once, and those files that are damaged or none.

    With `private` neither names a path. Raises TableError where no frame of any can be read.
    """
    rows = []
    failures: list[dict[str, str]] = []
    for path in files:
        try:
            found = path.stat()
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "a folder without a video")
            rows.append({"path": str(path.absolute()), "size_bytes": found.st_size, "mtime_ns": found.st_mtime_ns})
        except OSError as error:
            name = hashed_id(str(path), salt="id") if private else str(path)
            reason = error.strerror or ("it cannot be read" if private else str(error))
            failures.append({"id": name, "path": name, "error": reason})
    if not rows:
        reasons = "; ".join(f"{each['path']}: {each['error']}" for each in failures[:3])
        raise TableError(f"there is no video to predict ({reasons or 'none was named'}); name files or folders")
    named = Manifest.from_table(pa.Table.from_pylist(rows))
    table = probe_videos(
        named.table, root=named.root, verify="decode", workers=None, out=None, progress=None, private=private
    )
    probed = Manifest.from_table(table, root=named.root)
    chosen, damaged = usable_rows(probed.as_private() if private else probed)
    return chosen, failures + damaged


def _counting(tick: Tick | None, total: int) -> Callable[[int], object] | None:
    if tick is None:
        return None
    done = 0

    def count(clips: int) -> None:
        nonlocal done
        done += clips
        tick(done, total)

    return count
