"""Reading and writing of manifest files, and the root of a manifest that was moved."""

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from cinefeed.core.errors import SettingError, TableError
from cinefeed.core.remote.address import RemoteRoot, Root, parse_root
from cinefeed.data.manifest.columns import plain_table
from cinefeed.data.manifest.parquet import DIGEST, NOTES, read_parquet_table, with_digest
from cinefeed.data.manifest.read_table import read_table
from cinefeed.data.manifest.write_table import SUFFIXES, table_suffix, write_table
from cinefeed.video.limits import irregular_kind
from cinefeed.video.packed.shards import shard_fault

PACKED_MANIFEST = "manifest.parquet"  # in the folder of a packed data set
VERSION = 1  # of the notes and columns of a manifest; newer versions are refused


class Stored(NamedTuple):
    """A table and its notes; {} if another program wrote it."""

    table: Any
    notes: dict[str, Any]


def write_manifest(table: Any, *, path: Path, root: Root, notes: Mapping[str, Any]) -> None:
    """Write a manifest to a temporary file, then move it to `path`. Raises TableError or DiskFullError if that fails.

    Parquet keeps everything. CSV and JSON are for other programs: they keep the columns only, without those that name
    files if the manifest is private. Raises SettingError for another suffix.
    """
    table_suffix(path)
    if path.suffix.lower() != SUFFIXES[0]:
        hidden = [name for name in table.schema.names if name.partition(":")[0] in ("path", "frame_files")]
        exported = table.drop_columns(hidden) if notes.get("private") else table
    else:
        absolute = root.resolve().as_posix()
        is_remote = isinstance(root, RemoteRoot)
        relative = absolute if is_remote else Path(os.path.relpath(absolute, path.resolve().parent)).as_posix()
        location = {"version": VERSION, "root": relative, "root_absolute": absolute}
        exported = with_digest(table, json.dumps({**location, **notes}).encode())
    try:
        write_table(path, [exported])
    except SettingError as error:
        raise TableError(str(error)) from error


def read_parquet(path: Path) -> Stored:
    """Return the table of a file and its notes.

    Raises OSError, ArrowException for another format, and TableError if the manifest is damaged or of a newer version.
    """
    if kind := irregular_kind(path):
        raise OSError(errno.EINVAL, f"it is {kind}, not a file")
    table = read_parquet_table(path)
    metadata = table.schema.metadata or {}
    notes = json.loads(metadata.get(NOTES, b"{}"))
    if "root" in notes:  # otherwise another kind of table, such as predictions
        _check_version(notes, path)
        if DIGEST not in metadata:
            raise TableError(f"{path} has no digest, so damage cannot be detected; scan again")
    return Stored(table.replace_schema_metadata(None), notes)


def _check_version(notes: Mapping[str, Any], path: Path) -> None:
    version = notes.get("version")
    if not isinstance(version, int):
        raise TableError(f"{path} has no format version, so the meaning of its columns is unknown; scan again")
    if version > VERSION:
        raise TableError(
            f"{path} has format version {version} of a newer cinefeed, and this one reads up to {VERSION}; "
            "run 'pip install --upgrade cinefeed', or scan again with this version into another file"
        )


def root_of(stored: Stored, *, path: Path) -> Root:
    """Return the root of a manifest read from `path`.

    It is remote, or relative to the manifest, or the absolute path at the time of writing if only that contains the
    first video.
    """
    remote = parse_root(stored.notes["root"])
    if isinstance(remote, RemoteRoot):
        return remote
    places = [path.resolve().parent / stored.notes["root"], Path(stored.notes["root_absolute"])]
    first = str(stored.table.column("path")[0])
    return Path(os.path.normpath(next((place for place in places if (place / first).exists()), places[0])))


def check_shards(table: Any, *, root: Path) -> None:
    """Raise TableError if a packed shard of these rows is missing or cut off; the files of other rows are not read."""
    if "member_offset" not in table.schema.names or table.column("member_offset").null_count == len(table):
        return
    ends = pc.add(table.column("member_offset"), table.column("member_bytes"))
    shards = pa.table({"path": table.column("path"), "end": ends}).group_by("path").aggregate([("end", "max")])
    faults = [
        f"{root / path} {fault}"
        for path, end in zip(shards["path"].to_pylist(), shards["end_max"].to_pylist(), strict=True)
        if end is not None and (fault := shard_fault(root / path, end=end))
    ]
    if faults:
        raise TableError(
            f"{faults[0]}{f', and {len(faults) - 1} more shards' if len(faults) > 1 else ''}; copy the shards again, "
            "or run the same 'cinefeed pack' again, which makes what is missing"
        )


def scanned_at(out: Path) -> Stored | None:
    """Return the scanned manifest at `out`, or None if there is no file. Raises TableError for any other file."""
    if not out.exists():
        return None
    is_parquet = out.suffix.lower() == SUFFIXES[0]
    try:
        stored = read_parquet(out) if is_parquet else Stored(_read_exported(out), {})
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{out} exists and is not a manifest; choose another name, or delete it") from error
    if "num_frames" not in stored.table.schema.names or (is_parquet and not stored.notes):
        raise TableError(f"{out} exists and was not written by a scan; choose another name, or delete it")
    return stored


def _read_exported(path: Path) -> Any:
    """Return the table of a manifest that was written as CSV or JSON. Raises OSError if it is not one."""
    try:
        if path.suffix.lower() == ".csv":
            return read_table(path)
        return plain_table(pa.Table.from_pylist(json.loads(path.read_text(encoding="utf-8"))), name=str(path))
    except (ValueError, AttributeError) as error:
        raise OSError(f"{path} is not a table: {error}") from error
