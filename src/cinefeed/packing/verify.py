"""Verification of packed shards: every byte is read and compared, and damage is named by row."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cinefeed.core.errors import PackError, SettingError
from cinefeed.data.manifest.files import PACKED_MANIFEST
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.packing.pack import SETTINGS
from cinefeed.packing.shards import read_record, record_path, shard_name, tar_header

_CHUNK, _BLOCK = 1 << 20, 512


class Fault(NamedTuple):
    """Damage of a packed data set; `row` is None if it is between or beside the rows."""

    shard: str
    row: int | None
    error: str


def verify_packed(folder: str | Path, *, tick: Callable[[int, int], object] | None = None) -> list[Fault]:
    """Return what is damaged in a packed data set: every byte of all shards is read.

    `tick` is called with the number of shards done and of all shards. Raises SettingError if the folder is not that of
    a packed data set, TableError if its manifest is damaged.
    """
    folder = Path(folder)
    try:
        stored = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        step, rows = stored["settings"]["rows_per_shard"], stored["rows"]
    except (OSError, ValueError, KeyError) as error:
        raise SettingError(
            f"{folder} is not the folder of a packed data set ({error}); give the --out of pack"
        ) from error
    count, faults = -(-rows // step), list[Fault]()
    for number in range(count):
        try:
            table, notes = read_record(record_path(folder, number))
            faults += _shard_faults(folder / shard_name(number), table, notes, shard_name(number), first=number * step)
        except PackError as error:
            faults.append(Fault(shard_name(number), None, str(error)))
        if tick is not None:
            tick(number + 1, count)
    if not faults:
        Manifest.read(folder / PACKED_MANIFEST)  # has a digest of its own
    return faults


def _shard_faults(path: Path, table: Any, notes: dict[str, Any], shard: str, *, first: int) -> Iterator[Fault]:
    try:
        size = path.stat().st_size
        if size != notes["shard_bytes"]:
            yield Fault(shard, None, f"has {size:,} bytes, {notes['shard_bytes']:,} were written; copy it again")
        with path.open("rb") as file:
            at = 0
            for row, record in enumerate(table.to_pylist(), start=first):
                for name, offset, length, sha256 in _members(row, record):
                    file.seek(at)
                    if file.read(offset - at) != tar_header(name, length):
                        yield Fault(shard, row, f"the tar header of {name}, at byte {at:,}, is damaged")
                    if _digest(file, length) != sha256:
                        yield Fault(shard, row, f"the bytes of {name}, from byte {offset:,} on, are damaged")
                    padding = -length % _BLOCK
                    if file.read(padding) != bytes(padding):
                        yield Fault(shard, row, f"the padding of {name} is damaged")
                    at = offset + length + padding
            if file.read() != bytes(notes["shard_bytes"] - at):
                yield Fault(shard, None, f"the end of the tar, from byte {at:,} on, is damaged")
    except OSError as error:
        yield Fault(shard, None, f"cannot be read ({error.strerror or error}); copy it again")


def _members(row: int, record: dict[str, Any]) -> Iterator[tuple[str, int, int, str]]:
    """Yield name, offset, size and checksum of the members of a row: its video, if no earlier row has it, and JSON."""
    if record["member_offset"] is not None and record["part"].startswith(f"{row:08}"):
        yield record["part"], record["member_offset"], record["member_bytes"], record["member_sha256"]
    yield f"{row:08}.json", record["json_offset"], record["json_bytes"], record["json_sha256"]


def _digest(file: Any, size: int) -> str:
    digest = hashlib.sha256()
    while size > 0 and (block := file.read(min(size, _CHUNK))):
        digest.update(block)
        size -= len(block)
    return digest.hexdigest()
