"""A folder becomes a table: find the videos, join their labels, and probe each file once, on all cores.

Progress is kept in a journal beside the manifest, so that an interrupted scan continues; what a manifest or journal
knows of a file is taken over while size and modification time are the same.
"""

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from io import BufferedWriter
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from cinefeed.errors import SettingError, SourceError, TableError, did_you_mean
from cinefeed.manifest.columns import FACTS, facts_to_row
from cinefeed.manifest.files import scanned_at
from cinefeed.manifest.labels import Unmatched, columns_of_paths, first_names, join_labels
from cinefeed.manifest.reading import read_table
from cinefeed.sources.open import EXTENSIONS, known_suffix, probe

Verify = Literal["decode", "packets"]
Progress = Callable[[int, int], None]
History = list[tuple[str, int]]

_KNOWN = {"path": pa.string(), **FACTS, "verify": pa.string()}
_ROWS_AT_ONCE = 4096  # rows kept as Python objects before they become columns


def find_videos(folder: Path) -> Any:
    """Return path (relative, with `/`), size_bytes and mtime_ns of every video under a folder, sorted by path.

    Hidden files and folders are left out; links are followed, each folder once. Raises TableError where there is none.
    """
    found: list[tuple[str, int, int]] = []
    others: Counter[str] = Counter()
    seen: set[tuple[int, int]] = set()

    def walk(place: Path, prefix: str) -> None:
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                try:
                    stat = entry.stat()
                except OSError as error:
                    if known_suffix(entry.name):
                        raise TableError(f"{place / entry.name} cannot be read: {error.strerror}") from error
                    continue
                if entry.is_dir():
                    if (stat.st_dev, stat.st_ino) not in seen:
                        seen.add((stat.st_dev, stat.st_ino))
                        walk(Path(entry.path), f"{prefix}{entry.name}/")
                elif known_suffix(entry.name):
                    found.append((prefix + entry.name, stat.st_size, stat.st_mtime_ns))
                else:
                    others[Path(entry.name).suffix.lower() or "no suffix"] += 1

    if not folder.is_dir():
        raise TableError(f"{folder} is no folder; give the folder that holds the videos")
    top = folder.stat()
    seen.add((top.st_dev, top.st_ino))
    walk(folder, "")
    if not found:
        there = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5)) or "no file at all"
        raise TableError(
            f"no videos in {folder}: there is {there}; give another folder, or files of a known kind "
            f"({', '.join(sorted(EXTENSIONS))})"
        )
    found.sort()
    paths, sizes, mtimes = zip(*found, strict=True)
    try:
        return pa.table({"path": pa.array(paths, pa.string()), "size_bytes": sizes, "mtime_ns": mtimes})
    except UnicodeEncodeError as error:
        raise TableError(f"a file name under {folder} is not UTF-8: {error.object!r}; rename that file") from error


def describe_videos(
    videos: Any,
    *,
    root: Path,
    labels: object | None,
    on: str | Sequence[str] | None,
    path_columns: str | None,
    unmatched: Unmatched,
) -> tuple[Any, History]:
    """Return the videos with columns from their folders and their label rows, and how many were left at each step."""
    history = [("videos found", videos.num_rows)]
    if path_columns is not None:
        columns, follows = columns_of_paths(videos.column("path").combine_chunks(), pattern=path_columns)
        for name in columns.schema.names:
            videos = videos.append_column(name, columns.column(name))
        strangers = videos.column("path").filter(pc.invert(follows))
        if len(strangers) == videos.num_rows or (len(strangers) and unmatched == "error"):
            raise TableError(
                f"path_columns={path_columns!r}: {len(strangers)} of {videos.num_rows} videos do not follow it "
                f"(first: {first_names(strangers)}); mend it, or leave them out with unmatched='ignore'"
            )
        videos = videos.filter(follows)
        if len(strangers):
            history.append((f"path follows {path_columns}", videos.num_rows))
    if labels is not None:
        name = str(labels) if isinstance(labels, str | Path) else "the label table"
        videos, joined_on = join_labels(videos, read_table(labels), on=on, unmatched=unmatched, root=root, name=name)
        history.append((f"with a row of labels (joined on {joined_on})", videos.num_rows))
    elif on is not None:
        raise SettingError(f"on={on!r} joins a table of labels, but none was given; give labels= too, or leave out on=")
    return videos, history


def probe_videos(
    samples: Any,
    *,
    root: Path,
    verify: Verify,
    workers: int | None,
    out: Path | None,
    progress: Progress | Literal[False] | None,
) -> Any:
    """Return the samples with the facts of their files, of which only new or changed ones are opened.

    A file in which no frame can be read keeps `error` and no frames; one that breaks later keeps the frames before.
    `progress(done, total)` is called after each file; None draws a bar on a terminal.
    """
    if verify not in get_args(Verify):
        raise SettingError(f"verify={verify!r} is not a choice; {did_you_mean(verify, get_args(Verify))}")
    if workers is not None and workers < 1:
        raise SettingError(f"workers={workers} must be at least 1; leave it out to use every core")
    first = samples.column("path").dictionary_encode().combine_chunks()
    rows = pc.index_in(first.dictionary, value_set=samples.column("path"))
    files = samples.select(["path", "size_bytes", "mtime_ns"]).take(rows)
    if out is None:
        facts = _probe_all(files, known=None, journal=None, root=root, verify=verify, workers=workers, show=progress)
    else:
        path = journal_path(out)
        known = known_facts(out)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            journal = path.open("ab")
        except OSError as error:
            raise TableError(f"cannot write {out}: {error.strerror}; choose another place") from error
        try:
            with journal:
                facts = _probe_all(
                    files, known=known, journal=journal, root=root, verify=verify, workers=workers, show=progress
                )
        finally:
            if path.stat().st_size == 0:
                path.unlink()
    facts = facts.take(pc.index_in(samples.column("path"), value_set=facts.column("path")))
    for name in FACTS:
        if name not in samples.schema.names:
            samples = samples.append_column(name, facts.column(name))
    return samples


def journal_path(out: Path) -> Path:
    """Return where a scan notes what it has done before the manifest `out` is whole."""
    return out.with_name(out.name + ".partial.jsonl")


def known_facts(out: Path) -> Any | None:
    """Return what the manifest `out` and the journal beside it know of files, newest first, or None."""
    tables = []
    journal = journal_path(out)
    if journal.exists():
        raw = journal.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]  # the last line may be torn
        if len(whole) < len(raw):
            os.truncate(journal, len(whole))
        if whole:
            parse = pa.json.ParseOptions(explicit_schema=pa.schema(_KNOWN), unexpected_field_behavior="ignore")
            longest = max(map(len, whole.splitlines()))  # a line has to fit in one block
            blocks = pa.json.ReadOptions(block_size=max(2**20, 2 * longest))
            try:
                table = pa.json.read_json(pa.BufferReader(whole), parse_options=parse, read_options=blocks)
            except pa.ArrowException as error:
                raise TableError(f"{journal} is broken: {error}; delete it, and the scan starts anew") from error
            tables.append(table.take(pa.array(range(table.num_rows - 1, -1, -1), pa.int64())))
    before = scanned_at(out, columns=set(FACTS))
    if before is not None:
        table = before.table.select(["path", *FACTS])
        verify = pa.scalar(before.notes["verify"], pa.string())
        tables.append(table.append_column("verify", pa.repeat(verify, table.num_rows)))
    return pa.concat_tables([each.select(list(_KNOWN)).cast(pa.schema(_KNOWN)) for each in tables]) if tables else None


def with_split_of(out: Path, samples: Any) -> Any:
    """Return the samples with the column `split` of the manifest `out`, by id, unless they bring their own."""
    before = scanned_at(out, columns=set(FACTS))
    if before is None or "split" not in before.table.schema.names or "split" in samples.schema.names:
        return samples
    rows = pc.index_in(samples.column("id"), value_set=before.table.column("id"))
    return samples.append_column("split", before.table.column("split").take(rows))


def _unchanged(files: Any, known: Any, verify: Verify) -> Any:
    """Return for each file the row of `known` that still holds, or null.

    Rows without a frame never hold: a share that was away for a moment would leave its files broken for good.
    """
    enough = pc.is_in(known.column("verify"), value_set=pa.array(["decode", verify]))
    readable = pc.fill_null(pc.greater(known.column("num_frames"), 0), False)
    candidates = pc.indices_nonzero(pc.and_(enough, readable))
    known = known.take(candidates).combine_chunks()
    rows = pc.index_in(files.column("path").combine_chunks(), value_set=known.column("path").combine_chunks())
    holds = pa.array([True] * files.num_rows)
    for name in ("size_bytes", "mtime_ns"):
        before = known.column(name).combine_chunks().take(rows)
        holds = pc.and_(holds, pc.fill_null(pc.equal(files.column(name).combine_chunks(), before), False))
    return pc.if_else(holds, candidates.take(rows), None)


def _probe_all(
    files: Any,
    *,
    known: Any | None,
    journal: BufferedWriter | None,
    root: Path,
    verify: Verify,
    workers: int | None,
    show: Progress | Literal[False] | None,
) -> Any:
    schema = pa.schema(_KNOWN)
    kept = schema.empty_table()
    waiting = files
    if known is not None:
        rows = _unchanged(files, known, verify)
        kept = known.take(rows.drop_null())
        waiting = files.filter(rows.is_null())
    tables, batch = [kept], []
    total = files.num_rows
    with _shown(show) as progress:
        progress(kept.num_rows, total)
        for done, row in enumerate(_probe_in_parallel(waiting, root=root, verify=verify, workers=workers), start=1):
            batch.append(row)
            if journal is not None:
                journal.write(json.dumps(row).encode() + b"\n")
                journal.flush()
            if len(batch) == _ROWS_AT_ONCE:
                tables.append(pa.Table.from_pylist(batch, schema))
                batch = []
            progress(kept.num_rows + done, total)
    return pa.concat_tables([*tables, pa.Table.from_pylist(batch, schema)])


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _probe_in_parallel(files: Any, *, root: Path, verify: Verify, workers: int | None) -> Iterator[dict[str, Any]]:
    """Yield the row of each file as it is done, in any order. Threads scale, since FFmpeg works without the GIL."""

    def work(path: str, size_bytes: int, mtime_ns: int) -> dict[str, Any]:
        row = {"path": path, "size_bytes": size_bytes, "mtime_ns": mtime_ns, "verify": verify}
        try:
            return row | facts_to_row(probe(root / path, verify=verify))
        except (SourceError, OSError) as error:
            return row | {"num_frames": 0, "error": str(error)}

    workers = workers or usable_cores()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="cinefeed-scan")
    running: set[Future[dict[str, Any]]] = set()
    try:
        for start in range(0, files.num_rows, _ROWS_AT_ONCE):
            part = files.slice(start, _ROWS_AT_ONCE)
            for path, size_bytes, mtime_ns in zip(*[column.to_pylist() for column in part.columns], strict=True):
                running.add(pool.submit(work, path, size_bytes, mtime_ns))
                if len(running) >= 4 * workers:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for each in done:
                        yield each.result()
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for each in done:
                yield each.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _shown(progress: Progress | Literal[False] | None) -> Iterator[Progress]:
    if callable(progress):
        yield progress
    elif progress is False or not sys.stderr.isatty():
        yield lambda done, total: None
    else:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("scan"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Bar(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task("scan", total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
