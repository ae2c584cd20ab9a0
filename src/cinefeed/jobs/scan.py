"""A scan in parts: each part opens its files, and the merge makes the manifest without opening any."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from cinefeed.core.errors import TableError
from cinefeed.core.files import write_atomically, write_errors
from cinefeed.core.locks import with_write_lock
from cinefeed.core.remote.address import parse_root
from cinefeed.core.remote.files import RemoteFiles
from cinefeed.data.manifest.columns import ordered
from cinefeed.data.manifest.discover import discover_samples
from cinefeed.data.manifest.find import find_remote_videos, find_videos, salt_path, stored_salt
from cinefeed.data.manifest.labels import Unmatched
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.manifest.parquet import table_digest
from cinefeed.data.manifest.remote import opened_root
from cinefeed.data.manifest.scan import (
    Progress,
    Verify,
    file_keys,
    journal_path,
    with_metadata,
    with_split_of,
    with_tags,
)
from cinefeed.data.manifest.write_table import table_suffix
from cinefeed.jobs.parts import Part, part_rows
from cinefeed.jobs.records import DonePart, Job, PartWork, make_part, merged_rows
from cinefeed.jobs.versions import versions_of_decoder
from cinefeed.video.read_options import DEFAULT_READ_OPTIONS, ReadOptions

_SALT = "salt"  # in the folder of all parts
_JOURNAL = "scan"  # its journal is in the folder of the part


def scan_part(
    folder: str | Path,
    *,
    part: Part,
    out: str | Path,
    labels: object | None = None,
    on: str | Sequence[str] | None = None,
    path_columns: str | None = None,
    unmatched: Unmatched = "error",
    verify: Verify = "decode",
    workers: int | None = None,
    progress: Progress | Literal[False] | None = None,
    reading: ReadOptions = DEFAULT_READ_OPTIONS,
    private: bool = False,
    share_labels: bool = False,
) -> DonePart:
    """Scan one part of a folder into the folder `out`, to be merged by `merge`.

    Each part lists the whole folder, which must not change in between, and opens its own files. Hashed columns have one
    salt for all parts: `reading.salt`, or that of the file `out`/salt, which the first part makes. The other arguments
    and errors are those of `Manifest.scan`.
    """
    root, parts = parse_root(folder), Path(out)
    files = opened_root(root)
    discovery = discover_samples(
        files,
        labels=labels,
        on=on,
        path_columns=path_columns,
        unmatched=unmatched,
        verify=verify,
        reading=reading,
        private=private,
        share_labels=share_labels,
        make_salt=lambda: stored_salt(parts / _SALT),
    )
    samples = discovery.samples
    options = asdict(reading)
    options.pop("salt")  # its fingerprint is one of the notes
    job = Job(
        command="scan",
        settings={"verify": verify, "private": private, **options},
        inputs={"samples": table_digest(samples, b"").decode(), "rows": len(samples)},
        versions=versions_of_decoder(),
        whole={
            "root": root.resolve().as_posix(),
            "history": discovery.history,
            "notes": discovery.notes,
            "has_salt_file": bool(discovery.notes["hashed"]) and reading.salt is None,
        },
    )

    def work(part_folder: Path) -> PartWork:
        keys = file_keys(samples, parts="part" in samples.schema.names)
        units = np.asarray(keys.dictionary_encode().indices)
        _, first_rows = np.unique(units, return_index=True)
        sizes = np.asarray(samples.column("size_bytes"))[first_rows]
        numbers = part_rows(part, units.astype(np.int64), sizes)
        if len(numbers) == 0:
            return PartWork(numbers=numbers)
        table = with_metadata(
            samples.take(pa.array(numbers)),
            root=files,
            verify=verify,
            workers=workers,
            out=part_folder / _JOURNAL,
            progress=progress,
            reading=reading,
            private=private,
        )
        return PartWork(numbers=numbers, table=table)

    done = make_part(parts, part, job, work)
    journal_path(done.folder / _JOURNAL).unlink(missing_ok=True)  # after the record, which replaces it
    return done


def count_files(folder: str | Path, *, reading: ReadOptions, private: bool) -> int:
    """Return the number of samples that a scan would find, without opening videos. Raises TableError for none."""
    files = opened_root(parse_root(folder))
    if isinstance(files, RemoteFiles):
        videos = find_remote_videos(files, reading=reading, private=private)
    else:
        videos = find_videos(files, reading=reading, private=private)
    return int(videos.table.num_rows)


@with_write_lock("out")
def merge_scan(parts: Sequence[DonePart], *, out: Path) -> Manifest:
    """Write the manifest of all parts of a scan, and return it; a column `split` of an existing one is kept."""
    table_suffix(out)
    job = parts[0].job
    if job.whole["has_salt_file"]:
        _copy_salt(parts[0].folder.parent / _SALT, salt_path(out))
    samples = merged_rows(parts, total=job.inputs["rows"])
    samples = with_split_of(out, samples, hashed=job.whole["notes"]["hashed"])
    history = [(step, rows) for step, rows in job.whole["history"]]
    manifest = Manifest(
        ordered(with_tags(samples)), root=parse_root(job.whole["root"]), history=history, notes=job.whole["notes"]
    )
    manifest.write(out)
    return manifest


def with_salt_of(out: Path, parts: Path) -> None:
    """Give parts the salt of the manifest that they will be merged to, if it has one."""
    if salt_path(out).exists():
        _copy_salt(salt_path(out), parts / _SALT)


def _copy_salt(source: Path, target: Path) -> None:
    if target.exists():
        if target.read_text().strip() != source.read_text().strip():
            raise TableError(
                f"{target} has another salt than {source}, so later scans would give other hashes; move it away, or "
                "choose another --out"
            )
        return

    def write(partial: Path) -> None:
        partial.touch(0o600)
        shutil.copyfile(source, partial)

    with write_errors(target, advice="choose another folder", kind=TableError):
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, write)
