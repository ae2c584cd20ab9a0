"""Probing of all files of a table of samples, each once, on all cores.

Progress is stored in a journal beside the manifest, so that an interrupted scan continues. Metadata in the manifest or
journal is reused if size and modification time of a file are unchanged. A hash of both ends of each file is stored.
"""

import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from cinefeed.core.cores import usable_cores
from cinefeed.core.errors import LimitError, SettingError, SourceError, TableError, did_you_mean
from cinefeed.core.files import write_errors
from cinefeed.core.progress import Progress as Progress
from cinefeed.core.progress import shown_progress
from cinefeed.core.remote.cache import Hold
from cinefeed.core.remote.files import RemoteFiles
from cinefeed.data.manifest.columns import METADATA_COLUMNS, metadata_to_row
from cinefeed.data.manifest.files import scanned_at
from cinefeed.data.manifest.identity import FileState, content_hash, files_of
from cinefeed.data.manifest.quiet import decoders_quiet
from cinefeed.data.manifest.remote import AHEAD, announce, member_of
from cinefeed.video.limits import ReadLimits, irregular_kind
from cinefeed.video.metadata import VideoMetadata
from cinefeed.video.read_options import DEFAULT_READ_OPTIONS, ReadOptions
from cinefeed.video.registry import open_video, probe
from cinefeed.video.value_range import has_open_scale, measured

Verify = Literal["decode", "packets"]


class _Probes(NamedTuple):
    """Options of the scan."""

    root: Path | RemoteFiles
    verify: Verify
    workers: int | None
    progress: Progress | Literal[False] | None
    reading: ReadOptions
    private: bool

    @property
    def notes(self) -> dict[str, str]:
        """The options that metadata depends on; a later scan reuses metadata if they are equal."""
        return scan_notes(self.verify, self.reading)


def scan_notes(verify: Verify, reading: ReadOptions) -> dict[str, str]:
    """Return the notes about a scan that the next scan compares."""
    options = {name: getattr(reading, name) for name in ("axes", "window", "stream", "on_damage")}
    default = {name: getattr(DEFAULT_READ_OPTIONS, name) for name in options}
    return {"verify": verify, "reading": "" if options == default else json.dumps(options)}


_JOURNAL = {"path": pa.string(), "part": pa.string(), **METADATA_COLUMNS, "verify": pa.string(), "reading": pa.string()}
_FILE = ("path", "part", "frame_files", "size_bytes", "mtime_ns")
_CHUNK_ROWS = 4096  # rows stored as Python objects before they are converted to columns


def probe_videos(
    samples: Any,
    *,
    root: Path | RemoteFiles,
    verify: Verify,
    workers: int | None,
    out: Path | None,
    progress: Progress | Literal[False] | None,
    reading: ReadOptions = DEFAULT_READ_OPTIONS,
    private: bool = False,
) -> Any:
    """Return the samples with the metadata of their files, and with columns of header tags; see `with_metadata`."""
    samples = with_metadata(
        samples,
        root=root,
        verify=verify,
        workers=workers,
        out=out,
        progress=progress,
        reading=reading,
        private=private,
    )
    return with_tags(samples)


def with_metadata(
    samples: Any,
    *,
    root: Path | RemoteFiles,
    verify: Verify,
    workers: int | None,
    out: Path | None,
    progress: Progress | Literal[False] | None,
    reading: ReadOptions = DEFAULT_READ_OPTIONS,
    private: bool = False,
) -> Any:
    """Return the samples with the metadata of their files; only new or changed files are opened.

    A file without a readable frame has `error` and no frames; a file with a later fault has the frames before it.
    `progress(done, total)` is called after each file; None shows a bar on a terminal.
    """
    if verify not in get_args(Verify):
        raise SettingError(f"verify={verify!r} is not a choice; {did_you_mean(verify, get_args(Verify))}")
    if workers is not None and workers < 1:
        raise SettingError(f"workers={workers} must be at least 1; leave it out to use every core")
    parts = "part" in samples.schema.names
    keys = file_keys(samples, parts=parts)
    files = samples.select([name for name in _FILE if name in samples.schema.names])
    files = files.take(pc.index_in(keys.unique(), value_set=keys))
    probes = _Probes(root, verify, workers, progress, reading, private)
    if out is None:
        with decoders_quiet():
            metadata = _probe_all(files, previous=None, journal=None, probes=probes)
    else:
        path = journal_path(out)
        previous = previous_metadata(out)
        journal = _Journal(path)
        try:
            with decoders_quiet():
                metadata = _probe_all(files, previous=previous, journal=journal, probes=probes)
        finally:
            journal.close()
    metadata = metadata.take(pc.index_in(keys, value_set=file_keys(metadata, parts=parts)))
    for name in METADATA_COLUMNS:
        if name not in samples.schema.names:
            samples = samples.append_column(name, metadata.column(name))
    return samples


def file_keys(table: Any, *, parts: bool) -> Any:
    """Return keys that identify the files, or the parts of files, of a table."""
    paths = table.column("path").combine_chunks()
    if not parts:
        return paths
    return pc.binary_join_element_wise(paths, pc.fill_null(table.column("part").combine_chunks(), ""), "\x1f")


def with_tags(samples: Any) -> Any:
    """Return the samples with a column for each header tag, such as heart_rate_bpm."""
    rows = [json.loads(text) if text else {} for text in samples.column("header_tags").to_pylist()]
    for name in sorted({name for tags in rows for name in tags}):
        if name not in samples.schema.names:
            samples = samples.append_column(name, pa.array([tags.get(name) for tags in rows]))
    return samples


class _Journal:
    """The rows of an unfinished scan, one per line. Raises DiskFullError, or TableError if it cannot be written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with write_errors(path, advice="choose another folder for the manifest", kind=TableError):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered, so that nothing is left to write if it is closed after an error.
            self._file = path.open("ab", buffering=0)

    def add(self, row: dict[str, Any]) -> None:
        """Write a row to the file, so that it is not lost if the scan is interrupted."""
        line = memoryview(json.dumps(row).encode() + b"\n")
        with write_errors(self.path, advice="run the same scan again: it continues", kind=TableError):
            while line:
                line = line[self._file.write(line) :]

    def close(self) -> None:
        """Close the journal, and delete it if it is empty."""
        self._file.close()
        if self.path.stat().st_size == 0:
            self.path.unlink()


def journal_path(out: Path) -> Path:
    """Return the path of the journal of a scan that writes the manifest `out`."""
    return out.with_name(out.name + ".partial.jsonl")


def previous_metadata(out: Path) -> Any | None:
    """Return the metadata of files in the manifest `out` and the journal beside it, newest first, or None."""
    tables = []
    journal = journal_path(out)
    if kind := irregular_kind(journal):
        raise TableError(f"{journal} is {kind}, but a scan stores its progress there; remove it")
    if journal.exists():
        raw = journal.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]  # the last line may be incomplete
        if len(whole) < len(raw):
            os.truncate(journal, len(whole))
        if whole:
            parse = pa.json.ParseOptions(explicit_schema=pa.schema(_JOURNAL), unexpected_field_behavior="ignore")
            longest = max(map(len, whole.splitlines()))  # a line must fit in one block
            blocks = pa.json.ReadOptions(block_size=max(2**20, 2 * longest))
            try:
                table = pa.json.read_json(pa.BufferReader(whole), parse_options=parse, read_options=blocks)
            except pa.ArrowException as error:
                raise TableError(f"{journal} is damaged: {error}; delete it and scan again from the start") from error
            tables.append(table.take(pa.array(range(table.num_rows - 1, -1, -1), pa.int64())))
    before = scanned_at(out)
    if (
        before is not None and "nan_count" in before.table.schema.names
    ):  # otherwise values were not measured: scan all again
        table = before.table.select([name for name in _JOURNAL if name in before.table.schema.names])
        for name, kind in _JOURNAL.items():  # columns that older manifests lack
            if name not in table.schema.names:
                note = pa.scalar(before.notes.get(name, "" if name == "reading" else None), kind)
                table = table.append_column(name, pa.repeat(note, table.num_rows))
        tables.append(table)
    return (
        pa.concat_tables([each.select(list(_JOURNAL)).cast(pa.schema(_JOURNAL)) for each in tables]) if tables else None
    )


def with_split_of(out: Path, samples: Any, *, hashed: Mapping[str, Any]) -> Any:
    """Return the samples with the column `split` of the manifest `out`, by id, unless they have one already.

    `hashed` is the note about the salt of the samples. Raises TableError if ids of `out` were hashed with another salt.
    """
    before = scanned_at(out)
    if before is None or "split" not in before.table.schema.names or "split" in samples.schema.names:
        return samples
    both = hashed, before.notes.get("hashed") or {}
    salts = {each["fingerprint"] for each in both if "id" in each.get("columns", ())}
    if len(salts) > 1:
        raise TableError(
            f"{out} has a split, and its ids were hashed with another salt, so samples cannot be matched with their "
            "parts; give the salt of that scan (--salt, or the file of that name with .salt), or another --out"
        )
    rows = pc.index_in(samples.column("id"), value_set=before.table.column("id"))
    return samples.append_column("split", before.table.column("split").take(rows))


def _unchanged(files: Any, previous: Any, notes: dict[str, str]) -> Any:
    """Return for each file the row of `previous` that is still valid, or null.

    Rows without a frame are never reused: a network share may have been unavailable for a moment.
    """
    is_valid = pc.is_in(previous.column("verify"), value_set=pa.array(["decode", notes["verify"]]))
    is_valid = pc.and_(is_valid, pc.equal(pc.fill_null(previous.column("reading"), ""), notes["reading"]))
    # timestamps of an older scan, without the container's start, do not define the time of a frame
    has_start = pc.or_(previous.column("start_time_seconds").is_valid(), previous.column("tick_den").is_null())
    is_valid = pc.and_(is_valid, has_start)
    readable = pc.fill_null(pc.greater(previous.column("num_frames"), 0), False)
    readable = pc.and_(readable, previous.column("content_hash").is_valid())
    candidates = pc.indices_nonzero(pc.and_(is_valid, readable))
    previous = previous.take(candidates).combine_chunks()
    parts = "part" in files.schema.names
    rows = pc.index_in(file_keys(files, parts=parts), value_set=file_keys(previous, parts=parts))
    is_unchanged = pa.array([True] * files.num_rows)
    for name in ("size_bytes", "mtime_ns"):
        before = previous.column(name).combine_chunks().take(rows)
        is_equal = pc.equal(files.column(name).combine_chunks(), before)
        is_unchanged = pc.and_(is_unchanged, pc.fill_null(is_equal, False))
    return pc.if_else(is_unchanged, candidates.take(rows), None)


def _probe_all(
    files: Any,
    *,
    previous: Any | None,
    journal: _Journal | None,
    probes: "_Probes",
) -> Any:
    schema = pa.schema(_JOURNAL)
    reused = schema.empty_table()
    pending = files
    if previous is not None:
        rows = _unchanged(files, previous, probes.notes)
        reused = previous.take(rows.drop_null())
        pending = files.filter(rows.is_null())
    tables, batch = [reused], []
    total = files.num_rows
    if isinstance(probes.root, RemoteFiles) and pending.num_rows:
        announce(probes.root, map(member_of, pending.to_pylist()))
    with shown_progress(probes.progress, what="scan") as progress:
        progress(reused.num_rows, total)
        for count, row in enumerate(_probe_in_parallel(pending, probes), start=1):
            batch.append(row)
            if journal is not None:
                journal.add(row)
            if len(batch) == _CHUNK_ROWS:
                tables.append(pa.Table.from_pylist(batch, schema))
                batch = []
            progress(reused.num_rows + count, total)
    return pa.concat_tables([*tables, pa.Table.from_pylist(batch, schema)])


@lru_cache(maxsize=64)  # a stacked array has one row per sample, all of one file
def _content_hash(path: Path, names: tuple[str, ...], _state: FileState) -> str:
    return content_hash(files_of(path, names))


def with_values(
    path: Path, part: str | None, metadata: VideoMetadata, *, verify: Verify, limits: ReadLimits
) -> VideoMetadata:
    """Return metadata with pixel values measured in some frames, if the file does not define black and white.

    If frames were decoded for verification, values are present already. Without `verify="decode"` compressed arrays
    are skipped: each row of a stacked array would be decompressed from the start. Raises LimitError if it takes longer
    than the limits allow.
    """
    is_compressed = verify == "packets" and metadata.container in ("npz", "nifti")
    if metadata.values is not None or is_compressed or not has_open_scale(metadata):
        return metadata
    try:
        with open_video(path, part=part, metadata=metadata) as source:
            return measured(source, deadline=limits.deadline(path))
    except LimitError:
        raise
    except (SourceError, OSError):  # a frame that cannot be read: the feed reports it
        return metadata


def _probe_in_parallel(files: Any, probes: "_Probes") -> Iterator[dict[str, Any]]:
    """Yield the row of each file once it is probed, in any order. Threads scale, since FFmpeg releases the GIL."""
    remote = probes.root if isinstance(probes.root, RemoteFiles) else None

    def work(file: dict[str, Any], fetch: Future[tuple[Hold, bool]] | None) -> dict[str, Any]:
        if remote is None or fetch is None:
            assert isinstance(probes.root, Path)
            return probed(file, probes.root / file["path"])
        hold, _ = fetch.result()
        try:
            path = remote.local_path(member_of(file))
            row = probed(file, path)
            if row.get("error") is not None and not probes.private:
                row["error"] = row["error"].replace(str(path), remote.root.join(file["path"]))
            return row
        finally:
            hold.release()

    def probed(file: dict[str, Any], path: Path) -> dict[str, Any]:
        row = file | probes.notes
        part, parts = file.get("part"), file.get("frame_files") or ()
        state = FileState(file.get("size_bytes"), file.get("mtime_ns"))
        try:
            metadata = probe(path, part=part, files=parts, verify=probes.verify, reading=probes.reading)
            row["content_hash"] = _content_hash(path, tuple(parts), state)
            metadata = with_values(path, part, metadata, verify=probes.verify, limits=probes.reading.limits)
        except (SourceError, OSError, MemoryError) as error:
            reason = f"{path}: there is not enough memory ({error})" if isinstance(error, MemoryError) else str(error)
            return row | {"num_frames": 0, "error": reason.replace(str(path), "the file") if probes.private else reason}
        return row | metadata_to_row(metadata)

    workers = probes.workers or usable_cores()
    most = 4 * workers if remote is None else max(4 * workers, AHEAD)  # files in progress
    pool = ThreadPoolExecutor(workers, thread_name_prefix="cinefeed-scan")
    running: set[Future[dict[str, Any]]] = set()
    try:
        for start in range(0, files.num_rows, _CHUNK_ROWS):
            part = files.slice(start, _CHUNK_ROWS)
            for file in part.to_pylist():
                running.add(pool.submit(work, file, None if remote is None else remote.start(member_of(file))))
                if len(running) >= most:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield future.result()
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    finally:
        if remote is not None:
            remote.cancel()
        pool.shutdown(wait=True, cancel_futures=True)
