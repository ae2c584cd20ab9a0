"""Every file of a table of samples is probed once, on all cores.

Progress is kept in a journal beside the manifest, so that an interrupted scan continues; what a manifest or journal
knows of a file is taken over while size and modification time are the same. How it began and ended is kept as a hash.
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

from cinefeed.cores import usable_cores
from cinefeed.errors import LimitError, SettingError, SourceError, TableError, did_you_mean
from cinefeed.manifest.columns import FACTS, facts_to_row
from cinefeed.manifest.files import scanned_at
from cinefeed.manifest.identity import FileState, content_hash, files_of
from cinefeed.manifest.progress import Progress as Progress
from cinefeed.manifest.progress import shown_progress
from cinefeed.manifest.quiet import decoders_quiet
from cinefeed.sources.base import DEFAULT_READING, Facts, Reading
from cinefeed.sources.limits import ReadLimits, irregular_kind
from cinefeed.sources.open import open_source, probe
from cinefeed.sources.values import has_open_scale, measured

Verify = Literal["decode", "packets"]


class _Probes(NamedTuple):
    """How files are probed."""

    root: Path
    verify: Verify
    workers: int | None
    progress: Progress | Literal[False] | None
    reading: Reading
    private: bool

    @property
    def notes(self) -> dict[str, str]:
        """What facts depend on besides the file; a later scan takes them over where it is the same."""
        return scan_notes(self.verify, self.reading)


def scan_notes(verify: Verify, reading: Reading) -> dict[str, str]:
    """Return what is noted of a scan, for the next one."""
    options = {name: getattr(reading, name) for name in ("axes", "window", "stream", "on_damage")}
    default = {name: getattr(DEFAULT_READING, name) for name in options}
    return {"verify": verify, "reading": "" if options == default else json.dumps(options)}


_KNOWN = {"path": pa.string(), "part": pa.string(), **FACTS, "verify": pa.string(), "reading": pa.string()}
_FILE = ("path", "part", "frame_files", "size_bytes", "mtime_ns")
_ROWS_AT_ONCE = 4096  # rows kept as Python objects before they become columns


def probe_videos(
    samples: Any,
    *,
    root: Path,
    verify: Verify,
    workers: int | None,
    out: Path | None,
    progress: Progress | Literal[False] | None,
    reading: Reading = DEFAULT_READING,
    private: bool = False,
) -> Any:
    """Return the samples with the facts of their files, of which only new or changed ones are opened.

    A file in which no frame can be read keeps `error` and no frames; one that breaks later keeps the frames before.
    `progress(done, total)` is called after each file; None draws a bar on a terminal.
    """
    if verify not in get_args(Verify):
        raise SettingError(f"verify={verify!r} is not a choice; {did_you_mean(verify, get_args(Verify))}")
    if workers is not None and workers < 1:
        raise SettingError(f"workers={workers} must be at least 1; leave it out to use every core")
    parts = "part" in samples.schema.names
    keys = _keys(samples, parts=parts)
    files = samples.select([name for name in _FILE if name in samples.schema.names])
    files = files.take(pc.index_in(keys.unique(), value_set=keys))
    probes = _Probes(root, verify, workers, progress, reading, private)
    if out is None:
        with decoders_quiet():
            facts = _probe_all(files, known=None, journal=None, probes=probes)
    else:
        path = journal_path(out)
        known = known_facts(out)
        journal = _Journal(path)
        try:
            with decoders_quiet():
                facts = _probe_all(files, known=known, journal=journal, probes=probes)
        except OSError as error:  # of the journal: those of videos are their rows'
            raise TableError(
                f"cannot write {path}: {error.strerror}; make room, and the same scan goes on where it was"
            ) from error
        finally:
            journal.close()
    facts = facts.take(pc.index_in(keys, value_set=_keys(facts, parts=parts)))
    for name in FACTS:
        if name not in samples.schema.names:
            samples = samples.append_column(name, facts.column(name))
    return _with_tags(samples)


def _keys(table: Any, *, parts: bool) -> Any:
    """Return what tells the files, or the parts of files, of a table apart."""
    paths = table.column("path").combine_chunks()
    if not parts:
        return paths
    return pc.binary_join_element_wise(paths, pc.fill_null(table.column("part").combine_chunks(), ""), "\x1f")


def _with_tags(samples: Any) -> Any:
    """Return the samples with a column for each thing that headers say of them, such as heart_rate_bpm."""
    said = [json.loads(text) if text else {} for text in samples.column("header_tags").to_pylist()]
    for name in sorted({name for tags in said for name in tags}):
        if name not in samples.schema.names:
            samples = samples.append_column(name, pa.array([tags.get(name) for tags in said]))
    return samples


class _Journal:
    """The rows of a scan that is not done, a line each. Raises TableError, which names the file, on a full disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered, so that nothing waits to be written when it is closed after a fault.
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise TableError(f"cannot write {path}: {error.strerror}; choose another place for the manifest") from error

    def add(self, row: dict[str, Any]) -> None:
        """Write a row, and let go of it: what is written stays if the scan is interrupted."""
        line = memoryview(json.dumps(row).encode() + b"\n")
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            raise TableError(
                f"cannot write {self.path}: {error.strerror}; make room there and scan again: it goes on from here"
            ) from error

    def close(self) -> None:
        """Close the journal, and delete it if it is empty."""
        self._file.close()
        if self.path.stat().st_size == 0:
            self.path.unlink()


def journal_path(out: Path) -> Path:
    """Return where a scan notes what it has done before the manifest `out` is whole."""
    return out.with_name(out.name + ".partial.jsonl")


def known_facts(out: Path) -> Any | None:
    """Return what the manifest `out` and the journal beside it know of files, newest first, or None."""
    tables = []
    journal = journal_path(out)
    if kind := irregular_kind(journal):
        raise TableError(f"{journal} is {kind}, and a scan keeps its progress there; remove it")
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
    before = scanned_at(out)
    if before is not None and "nan_count" in before.table.schema.names:  # else nothing was measured: scan all anew
        table = before.table.select([name for name in _KNOWN if name in before.table.schema.names])
        for name, kind in _KNOWN.items():  # what older manifests lack
            if name not in table.schema.names:
                note = pa.scalar(before.notes.get(name, "" if name == "reading" else None), kind)
                table = table.append_column(name, pa.repeat(note, table.num_rows))
        tables.append(table)
    return pa.concat_tables([each.select(list(_KNOWN)).cast(pa.schema(_KNOWN)) for each in tables]) if tables else None


def with_split_of(out: Path, samples: Any, *, hashed: Mapping[str, Any]) -> Any:
    """Return the samples with the column `split` of the manifest `out`, by id, unless they bring their own.

    `hashed` says with what salt the samples were hashed. Raises TableError where ids were hashed with another one.
    """
    before = scanned_at(out)
    if before is None or "split" not in before.table.schema.names or "split" in samples.schema.names:
        return samples
    both = hashed, before.notes.get("hashed") or {}
    salts = {each["fingerprint"] for each in both if "id" in each.get("columns", ())}
    if len(salts) > 1:
        raise TableError(
            f"{out} has a split, and its ids were hashed with another salt, so no sample would find its part; give "
            "the salt of that scan (--salt, or the file of that name with .salt), or another --out"
        )
    rows = pc.index_in(samples.column("id"), value_set=before.table.column("id"))
    return samples.append_column("split", before.table.column("split").take(rows))


def _unchanged(files: Any, known: Any, notes: dict[str, str]) -> Any:
    """Return for each file the row of `known` that still holds, or null.

    Rows without a frame never hold: a share that was away for a moment would leave its files broken for good.
    """
    enough = pc.is_in(known.column("verify"), value_set=pa.array(["decode", notes["verify"]]))
    enough = pc.and_(enough, pc.equal(pc.fill_null(known.column("reading"), ""), notes["reading"]))
    # stamps without the container's start, of an older scan, do not say when a frame is shown
    started = pc.or_(known.column("start_time_seconds").is_valid(), known.column("tick_den").is_null())
    enough = pc.and_(enough, started)
    readable = pc.fill_null(pc.greater(known.column("num_frames"), 0), False)
    readable = pc.and_(readable, known.column("content_hash").is_valid())
    candidates = pc.indices_nonzero(pc.and_(enough, readable))
    known = known.take(candidates).combine_chunks()
    parts = "part" in files.schema.names
    rows = pc.index_in(_keys(files, parts=parts), value_set=_keys(known, parts=parts))
    holds = pa.array([True] * files.num_rows)
    for name in ("size_bytes", "mtime_ns"):
        before = known.column(name).combine_chunks().take(rows)
        holds = pc.and_(holds, pc.fill_null(pc.equal(files.column(name).combine_chunks(), before), False))
    return pc.if_else(holds, candidates.take(rows), None)


def _probe_all(
    files: Any,
    *,
    known: Any | None,
    journal: _Journal | None,
    probes: "_Probes",
) -> Any:
    schema = pa.schema(_KNOWN)
    kept = schema.empty_table()
    waiting = files
    if known is not None:
        rows = _unchanged(files, known, probes.notes)
        kept = known.take(rows.drop_null())
        waiting = files.filter(rows.is_null())
    tables, batch = [kept], []
    total = files.num_rows
    with shown_progress(probes.progress, what="scan") as progress:
        progress(kept.num_rows, total)
        for done, row in enumerate(_probe_in_parallel(waiting, probes), start=1):
            batch.append(row)
            if journal is not None:
                journal.add(row)
            if len(batch) == _ROWS_AT_ONCE:
                tables.append(pa.Table.from_pylist(batch, schema))
                batch = []
            progress(kept.num_rows + done, total)
    return pa.concat_tables([*tables, pa.Table.from_pylist(batch, schema)])


@lru_cache(maxsize=64)  # a stacked set is a row a sample, all of one file
def _content_hash(path: Path, names: tuple[str, ...], _state: FileState) -> str:
    return content_hash(files_of(path, names))


def with_values(path: Path, part: str | None, facts: Facts, *, verify: Verify, limits: ReadLimits) -> Facts:
    """Return facts with the values of some frames, where these do not say what is black and white.

    Where frames were decoded to see whether they are whole, that was done on the way. Without `verify="decode"` arrays
    that are packed are passed over: each row of a set would be unpacked from the beginning. Raises LimitError where it
    takes longer than the limits allow.
    """
    packed = verify == "packets" and facts.container in ("npz", "nifti")
    if facts.values is not None or packed or not has_open_scale(facts):
        return facts
    try:
        with open_source(path, part=part, facts=facts) as source:
            return measured(source, deadline=limits.deadline(path))
    except LimitError:
        raise
    except (SourceError, OSError):  # a frame that cannot be read: the feed says so when it is fed
        return facts


def _probe_in_parallel(files: Any, probes: "_Probes") -> Iterator[dict[str, Any]]:
    """Yield the row of each file as it is done, in any order. Threads scale, since FFmpeg works without the GIL."""

    def work(file: dict[str, Any]) -> dict[str, Any]:
        row = file | probes.notes
        path, part, parts = probes.root / file["path"], file.get("part"), file.get("frame_files") or ()
        state = FileState(file.get("size_bytes"), file.get("mtime_ns"))
        try:
            facts = probe(path, part=part, files=parts, verify=probes.verify, reading=probes.reading)
            row["content_hash"] = _content_hash(path, tuple(parts), state)
            facts = with_values(path, part, facts, verify=probes.verify, limits=probes.reading.limits)
        except (SourceError, OSError, MemoryError) as error:
            reason = f"{path}: there is not enough memory ({error})" if isinstance(error, MemoryError) else str(error)
            return row | {"num_frames": 0, "error": reason.replace(str(path), "the file") if probes.private else reason}
        return row | facts_to_row(facts)

    workers = probes.workers or usable_cores()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="cinefeed-scan")
    running: set[Future[dict[str, Any]]] = set()
    try:
        for start in range(0, files.num_rows, _ROWS_AT_ONCE):
            part = files.slice(start, _ROWS_AT_ONCE)
            for file in part.to_pylist():
                running.add(pool.submit(work, file))
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
