"""A manifest as a Parquet file: written whole or not at all, and its root found again when it was moved."""

import errno
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from cinefeed.errors import TableError
from cinefeed.sources.limits import irregular_kind

_NOTES = b"cinefeed"


class Stored(NamedTuple):
    """A table, and what was noted with it: {} where another program wrote it."""

    table: Any
    notes: dict[str, Any]


def write_parquet(table: Any, *, path: Path, root: Path, notes: dict[str, Any]) -> None:
    """Write a table beside its place, then move it there. Raises TableError where that fails."""
    places = {
        "version": 1,
        "root": Path(os.path.relpath(root.resolve(), path.resolve().parent)).as_posix(),
        "root_absolute": root.resolve().as_posix(),
    }
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            pq.write_table(
                table.replace_schema_metadata({_NOTES: json.dumps(places | notes)}), file, compression="zstd"
            )
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise TableError(f"cannot write {path}: {error.strerror or error}; choose another place") from error
    finally:
        if beside.parent.is_dir():
            beside.unlink(missing_ok=True)


def read_parquet(path: Path) -> Stored:
    """Return the table of a file, without its notes, and them. Raises OSError, or ArrowException for another format."""
    if kind := irregular_kind(path):
        raise OSError(errno.EINVAL, f"it is {kind}, not a file")
    with pq.ParquetFile(path) as file:  # read_table cuts a million rows into chunks, and took twice as long
        table = file.read()
    notes = (table.schema.metadata or {}).get(_NOTES)
    return Stored(table.replace_schema_metadata(None), json.loads(notes) if notes else {})


def root_of(stored: Stored, *, path: Path) -> Path:
    """Return the root of a manifest read from `path`: where its first video is, beside it as before, or as before."""
    places = [path.resolve().parent / stored.notes["root"], Path(stored.notes["root_absolute"])]
    first = str(stored.table.column("path")[0])
    return Path(os.path.normpath(next((place for place in places if (place / first).exists()), places[0])))


def scanned_at(out: Path) -> Stored | None:
    """Return the scanned manifest at `out`, None where there is nothing; TableError where there is something else."""
    if not out.exists():
        return None
    try:
        stored = read_parquet(out)
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{out} exists and is no manifest; choose another name, or delete it") from error
    if not stored.notes or "num_frames" not in stored.table.schema.names:
        raise TableError(f"{out} exists and was not written by a scan; choose another name, or delete it")
    return stored
