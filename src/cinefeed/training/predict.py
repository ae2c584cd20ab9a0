"""Prediction of any videos by a finished run."""

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cinefeed.core.errors import SettingError, TableError
from cinefeed.core.locks import with_write_lock
from cinefeed.data.manifest.encoded import check_encoded
from cinefeed.data.manifest.find import hashed_id
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.manifest.output_folders import output_kind
from cinefeed.data.manifest.scan import probe_videos
from cinefeed.data.manifest.write_table import table_suffix, write_table
from cinefeed.feed.feed import Feed
from cinefeed.training.known_videos import count_by_part
from cinefeed.training.predictions import by_video, predictions_table, score_batches, with_predicted_classes
from cinefeed.training.setup import usable_rows
from cinefeed.training.threads import with_threads_of_run
from cinefeed.training.trained import Evaluation, Loaded, Tick, clip_counter, load
from cinefeed.video.kinds import is_video

ROWS_AT_ONCE = 1024  # predictions per write


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
        manifest: A manifest, in place of `paths`.
        clips: Number of clips per video whose scores are averaged; by default that of `[evaluate]`.
        per_clip: Return a row per clip instead of a row per video.
        out: File for the predictions, written batch by batch: Parquet, CSV or JSON, by suffix.
        tick: Called with the number of clips done and of all clips.

    Raises SettingError if `run` is not a run folder, for both `paths` and `manifest`, and for a suffix of `out` that is
    no table; TableError if there is no video to score; InUseError while another process writes `out`; and the errors of
    a feed for rows that the network of the run cannot read.
    """
    if out is not None:
        table_suffix(Path(out))
    path_list = [Path(each) for each in paths]
    if path_list and manifest is not None:
        raise SettingError(f"the videos are given twice, as {path_list[0]} and as a manifest; leave one of them out")
    loaded, repeated = load(run), 0
    if manifest is not None:
        readable, failures = rows_to_predict(manifest, loaded)
    else:
        files, repeated = _files_at(path_list)
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


def rows_to_predict(manifest: str | Path, loaded: Loaded) -> tuple[Manifest, list[dict[str, str]]]:
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
    loaded: Loaded, feed: Feed, *, per_clip: bool, tick: Callable[[int], object] | None
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
