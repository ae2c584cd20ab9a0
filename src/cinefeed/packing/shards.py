"""Packing of one shard: rows become members of a tar, and a record of it states that the shard is complete.

Each shard depends on the manifest, the settings and its number alone, so that shards can be made by separate processes
and machines, and the bytes are those of one run.
"""

import hashlib
import json
import os
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa

from cinefeed.core.errors import PackError, SettingError, SourceError
from cinefeed.core.files import remove_partials, write_atomically
from cinefeed.core.locks import write_lock
from cinefeed.data.manifest.columns import METADATA_COLUMNS, label_names
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.manifest.parquet import read_parquet_table, with_digest, write_parquet_tables
from cinefeed.packing.rows import RowJob, RowResult
from cinefeed.packing.settings import PackSettings
from cinefeed.packing.workers import PackWorkers
from cinefeed.video.readers import readers_of

SHARDS, RECORDS, WORK = "shards", "index", "work"  # folders of a packed data set
_BLOCK, _END = tarfile.BLOCKSIZE, tarfile.RECORDSIZE
_LARGEST_USTAR = 8**11 - 1  # bytes of a member; larger ones need the size field of GNU tar
_CHUNK = 1 << 20
# Columns of a record: those that replace the columns of the source, and a checksum of the JSON beside each video.
RECORD = {
    "path": pa.string(),
    "part": pa.string(),
    **METADATA_COLUMNS,
    "json_offset": pa.int64(),
    "json_bytes": pa.int64(),
    "json_sha256": pa.string(),
}


class Member(NamedTuple):
    """Position of a member of a tar, without its header, and its checksum."""

    offset: int
    size: int
    sha256: str


class TarWriter:
    """Writes an uncompressed tar without times, owners or modes that depend on the machine."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._at = 0

    def add(self, name: str, content: BinaryIO, size: int) -> Member:
        """Append `size` bytes as a member; they begin at a multiple of 512. Raises PackError if there are fewer."""
        self._write(tar_header(name, size))
        digest, offset, rest = hashlib.sha256(), self._at, size
        while rest and (block := content.read(min(rest, _CHUNK))):
            digest.update(block)
            self._write(block)
            rest -= len(block)
        if rest:
            raise PackError(f"{name}: {rest:,} of {size:,} bytes of a packed video are missing; run the command again")
        self._write(bytes(-size % _BLOCK))
        return Member(offset, size, digest.hexdigest())

    def finish(self) -> int:
        """Append the end of the tar, and return its size."""
        self._write(bytes(2 * _BLOCK))
        self._write(bytes(-self._at % _END))
        return self._at

    def _write(self, block: bytes) -> None:
        self._file.write(block)
        self._at += len(block)


def tar_header(name: str, size: int) -> bytes:
    """Return the header of a member.

    >>> len(tar_header("00000812.mp4", 70_000))
    512
    """
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o444
    return info.tobuf(tarfile.USTAR_FORMAT if size <= _LARGEST_USTAR else tarfile.GNU_FORMAT)


def shard_name(number: int) -> str:
    """Return the path of a shard, relative to the folder of the packed data set.

    >>> shard_name(7)
    'shards/000007.tar'
    """
    return f"{SHARDS}/{number:06}.tar"


def record_path(out: Path, number: int) -> Path:
    """Return the path of the record of a shard."""
    return out / RECORDS / f"{number:06}.parquet"


def pack_shard(
    manifest: Manifest,
    settings: PackSettings,
    number: int,
    *,
    out: Path,
    rows_per_shard: int,
    workers: PackWorkers,
    progress: Callable[[int], object] = lambda row: None,
) -> Path:
    """Make one shard unless it is complete, and return the path of its record.

    The shard is written to a temporary file and renamed, then its record is written. `progress` is called after each
    row.

    Raises PackError or SourceError for a row that cannot be packed, unless settings.on_error is "record"; SettingError
    for settings that do not suit a row; InUseError while another process makes this shard; OSError.
    """
    shard, record = out / shard_name(number), record_path(out, number)
    with write_lock(shard):
        remove_partials(record.parent, record.name)
        if is_complete(out, number):
            return record
        record.unlink(missing_ok=True)
        work = out / WORK / f"{number:06}"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        rows = range(number * rows_per_shard, min((number + 1) * rows_per_shard, len(manifest)))
        sources = _sources(manifest, settings, rows)
        records: list[dict[str, Any]] = []
        sizes: list[int] = []

        def write(path: Path) -> None:
            with path.open("wb") as file, closing(workers.pack(sources.jobs(manifest, settings, work))) as results:
                tar, name = TarWriter(file), shard_name(number)
                records.extend(_add_rows(tar, manifest, settings, sources, results, shard=name, progress=progress))
                sizes.append(tar.finish())
                file.flush()
                os.fsync(file.fileno())

        write_atomically(shard, write)
        table = pa.Table.from_pylist(records, pa.schema(RECORD))
        notes = json.dumps({"shard_bytes": sizes[0], "rows": len(rows)}).encode()
        record.parent.mkdir(exist_ok=True)
        write_atomically(record, lambda path: _write_durably(path, with_digest(table, notes)))
        shutil.rmtree(work)
    return record


def is_complete(out: Path, number: int) -> bool:
    """Return whether a shard and its record exist, and the shard has the size in the record."""
    record = record_path(out, number)
    if not record.is_file():
        return False
    _, notes = read_record(record)
    shard = out / shard_name(number)
    return shard.is_file() and shard.stat().st_size == notes["shard_bytes"]


def read_record(path: Path) -> tuple[Any, dict[str, Any]]:
    """Return the table of a record and its notes. Raises PackError if it is missing or damaged."""
    try:
        table = read_parquet_table(path)
        return table, json.loads((table.schema.metadata or {})[b"cinefeed"])
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise PackError(f"{path} is missing or damaged ({error}); delete it, and run 'cinefeed pack' again") from error


def check_share(num_bad: int, num_rows: int, max_bad: float, first: str) -> None:
    """Raise PackError if a larger share of all rows failed than is allowed; `first` is the error of one of them."""
    if num_bad and num_bad / num_rows > max_bad:
        raise PackError(
            f"{num_bad} of {num_rows} rows cannot be packed, more than max_bad={max_bad:g} allows "
            f"({first}); run 'cinefeed check', leave such rows out, or raise max_bad"
        )


class _Sources(NamedTuple):
    """The rows of a shard, in groups: rows to pack, and for copies of whole files the row that has the same file."""

    rows: range
    errors: dict[int, str]  # rows without a readable frame, by the scan
    same_file: dict[int, int]  # row -> an earlier row of the shard with the same file

    def jobs(self, manifest: Manifest, settings: PackSettings, work: Path) -> Iterator[RowJob]:
        """Yield a job for each row that has a video of its own to pack."""
        rows = manifest.rows
        readers = tuple(readers_of(rows.containers()))
        for row in self.rows:
            if row not in self.errors and row not in self.same_file:
                table, name = rows.table.take([row]), f"{row:08}"
                yield RowJob(row, table, rows.root, manifest.private, settings, work, name, readers, arrays=rows.arrays)


def _sources(manifest: Manifest, settings: PackSettings, rows: range) -> _Sources:
    table, names = manifest.table.slice(rows.start, len(rows)), manifest.table.schema.names
    errors: dict[int, str] = {}
    if "num_frames" in names:
        texts = table.column("error").to_pylist() if "error" in names else [None] * len(rows)
        for row, frames, path, text in zip(
            rows, table.column("num_frames").to_pylist(), table.column("path").to_pylist(), texts, strict=True
        ):
            if frames == 0:
                errors[row] = re.sub(rf"\S*{re.escape(path)}", "the file", text or "no frame can be read")
    same_file, first_rows = dict[int, int](), dict[str, int]()
    if settings.codec == "copy":
        for row, path in zip(rows, table.column("path").to_pylist(), strict=True):
            if row not in errors and (first := first_rows.setdefault(path, row)) != row:
                same_file[row] = first
    return _Sources(rows, errors, same_file)


def _add_rows(
    tar: TarWriter,
    manifest: Manifest,
    settings: PackSettings,
    sources: _Sources,
    results: Iterator[RowResult],
    *,
    shard: str,
    progress: Callable[[int], object],
) -> list[dict[str, Any]]:
    """Write the members of a shard, in the order of its rows, and return the rows of its record."""
    records: dict[int, dict[str, Any]] = {}
    labels = _labels(manifest, sources.rows)
    num_bad = 0
    for row in sources.rows:
        record: dict[str, Any] = {"path": shard}
        if row in sources.errors:
            record |= {"num_frames": 0, "error": sources.errors[row]}
        elif row in sources.same_file:
            twin = records[sources.same_file[row]]
            record |= {name: value for name, value in twin.items() if not name.startswith("json_")}
        elif (result := next(results)).file is None:
            num_bad += 1
            _raise_unless_recorded(result, manifest, settings, num_bad)
            record |= {"num_frames": 0, "error": result.error}
        else:
            name = f"{row:08}{result.file.suffix}"
            with result.file.open("rb") as file:
                member = tar.add(name, file, result.file.stat().st_size)
            result.file.unlink()
            record |= {**result.columns, "part": name, "member_offset": member.offset, "member_sha256": member.sha256}
        text = _description(record, labels[row])
        described = tar.add(f"{row:08}.json", BytesIO(text), len(text))
        beside = {"json_offset": described.offset, "json_bytes": described.size, "json_sha256": described.sha256}
        records[row] = record | beside
        progress(row)
    return [*records.values()]


def _raise_unless_recorded(result: RowResult, manifest: Manifest, settings: PackSettings, num_bad: int) -> None:
    where = f"row {result.row}, {manifest.rows.display_name(result.row)}: {result.error}"
    if result.is_fatal:
        raise SettingError(where)
    if settings.on_error == "raise":
        raise SourceError(f"{where}; leave the row out, or pack with on_error='record'")
    check_share(num_bad, len(manifest), settings.max_bad, where)


def _labels(manifest: Manifest, rows: range) -> dict[int, dict[str, Any]]:
    """Return the id, part of the split, seconds and labels of each row, as plain values."""
    names = manifest.table.schema.names
    selected = [name for name in ("id", "split", "start_seconds", "end_seconds") if name in names]
    table = manifest.table.slice(rows.start, len(rows)).select([*selected, *label_names(names)])
    return dict(zip(rows, table.to_pylist(), strict=True))


def _description(record: Mapping[str, Any], labels: Mapping[str, Any]) -> bytes:
    """Return the JSON beside a video: id and labels, and its metadata without the position in the shard."""
    reserved = {"id", "split", "start_seconds", "end_seconds"}
    sample = {name: labels[name] for name in sorted(reserved & {*labels}) if labels[name] is not None}
    own_labels = {name: value for name, value in labels.items() if name not in reserved}
    positions = ("path", "part", "content_hash", "size_bytes")
    metadata = {
        name: value
        for name, value in record.items()
        if value is not None and name not in positions and not name.startswith("member_")
    }
    metadata |= {"traits": record["member_traits"]} if record.get("member_traits") else {}
    content = {**sample, "labels": own_labels, "metadata": metadata}
    return json.dumps(content, sort_keys=True, ensure_ascii=False, default=str).encode()


def _write_durably(path: Path, table: Any) -> None:
    write_parquet_tables(path, [table])
    with path.open("rb+") as file:
        os.fsync(file.fileno())
