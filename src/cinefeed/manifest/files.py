"""A manifest as a file: Parquet with notes, or a table for other programs; its root when it was moved."""

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from cinefeed.errors import SettingError, TableError
from cinefeed.manifest.columns import plain_table
from cinefeed.manifest.reading import read_table
from cinefeed.manifest.writing import SUFFIXES, table_suffix, write_table
from cinefeed.sources.limits import irregular_kind

VERSION = 1  # of the notes and columns of a manifest; a program refuses those that are newer than its own
_NOTES = b"cinefeed"


class Stored(NamedTuple):
    """A table, and what was noted with it: {} where another program wrote it."""

    table: Any
    notes: dict[str, Any]


def write_manifest(table: Any, *, path: Path, root: Path, notes: Mapping[str, Any]) -> None:
    """Write a manifest beside its place, then move it there. Raises TableError where that fails.

    Parquet keeps all that a manifest is. CSV and JSON are for other programs: they have the columns alone, of a private
    manifest those that name no file. Raises SettingError for another suffix.
    """
    table_suffix(path)
    if path.suffix.lower() != SUFFIXES[0]:
        hidden = [name for name in table.schema.names if name.partition(":")[0] in ("path", "frame_files")]
        written = table.drop_columns(hidden) if notes.get("private") else table
    else:
        places = {
            "version": VERSION,
            "root": Path(os.path.relpath(root.resolve(), path.resolve().parent)).as_posix(),
            "root_absolute": root.resolve().as_posix(),
        }
        written = table.replace_schema_metadata({_NOTES: json.dumps({**places, **notes})})
    try:
        write_table(path, [written])
    except SettingError as error:
        raise TableError(str(error)) from error


def read_parquet(path: Path) -> Stored:
    """Return the table of a file, without its notes, and them.

    Raises OSError, ArrowException for another format, and TableError for a manifest of a newer version.
    """
    if kind := irregular_kind(path):
        raise OSError(errno.EINVAL, f"it is {kind}, not a file")
    with pq.ParquetFile(path) as file:  # read_table cuts a million rows into chunks, and took twice as long
        table = file.read()
    text = (table.schema.metadata or {}).get(_NOTES)
    notes = json.loads(text) if text else {}
    if "root" in notes:  # else a table of another kind, such as predictions
        _check_version(notes, path)
    return Stored(table.replace_schema_metadata(None), notes)


def _check_version(notes: Mapping[str, Any], path: Path) -> None:
    version = notes.get("version")
    if not isinstance(version, int):
        raise TableError(f"{path} has no format version, so what its columns mean is not known; scan again")
    if version > VERSION:
        raise TableError(
            f"{path} has format version {version}, and this cinefeed reads up to {VERSION}: a newer one wrote it; "
            "run 'pip install --upgrade cinefeed', or scan again with this one, into another file"
        )


def root_of(stored: Stored, *, path: Path) -> Path:
    """Return the root of a manifest read from `path`: where its first video is, beside it as before, or as before."""
    places = [path.resolve().parent / stored.notes["root"], Path(stored.notes["root_absolute"])]
    first = str(stored.table.column("path")[0])
    return Path(os.path.normpath(next((place for place in places if (place / first).exists()), places[0])))


def scanned_at(out: Path) -> Stored | None:
    """Return the scanned manifest at `out`, None where there is nothing; TableError where there is something else."""
    if not out.exists():
        return None
    is_parquet = out.suffix.lower() == SUFFIXES[0]
    try:
        stored = read_parquet(out) if is_parquet else Stored(_read_exported(out), {})
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{out} exists and is no manifest; choose another name, or delete it") from error
    if "num_frames" not in stored.table.schema.names or (is_parquet and not stored.notes):
        raise TableError(f"{out} exists and was not written by a scan; choose another name, or delete it")
    return stored


def _read_exported(path: Path) -> Any:
    """Return the table of a manifest that was written as CSV or JSON. Raises OSError where it is none."""
    try:
        if path.suffix.lower() == ".csv":
            return read_table(path)
        return plain_table(pa.Table.from_pylist(json.loads(path.read_text(encoding="utf-8"))), name=str(path))
    except (ValueError, AttributeError) as error:
        raise OSError(f"{path} is no table: {error}") from error
