"""Folders of parts: what a part is made of, its rows, and the record that states that it is complete.

Such a folder, parts/part-0003-of-0050, has

    job.json     command, part, settings and inputs: written first, and compared by every rerun
    rows.arrow   the rows of the part, and their numbers among all rows
    done.json    the record, written last: numbers, sizes and hashes

and the files of the command: packed shards or features.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cinefeed.core.digests import is_text_changed, json_with_digest
from cinefeed.core.errors import SettingError, TableError
from cinefeed.core.files import write_atomically, write_errors
from cinefeed.core.locks import write_lock
from cinefeed.core.text import format_count
from cinefeed.jobs.parts import Part, part_folder, part_folders

VERSION = 1  # of job.json
JOB, ROWS, DONE = "job.json", "rows.arrow", "done.json"
_NUMBER = "cinefeed.row"  # the column with the numbers of rows
_MOST_NAMES = 5


class Job(NamedTuple):
    """What is done in parts; equal for all parts of the same work.

    command:  the command
    settings: the settings that decide bytes
    inputs:   digests of what is read
    versions: of the libraries that decide bytes
    whole:    what the merged result needs besides rows and files: notes, history, paths
    """

    command: str
    settings: dict[str, Any]
    inputs: dict[str, Any]
    versions: dict[str, str]
    whole: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class PartWork:
    """What the work on a part came to: numbers of its rows, their table, details for the record."""

    numbers: NDArray[np.int64]
    table: Any = None  # None if there are no rows
    files: Sequence[str] = ()  # relative to the folder of the part
    details: dict[str, Any] = field(default_factory=dict)


class DonePart(NamedTuple):
    """A complete part: its folder, its record, and whether this call made it."""

    folder: Path
    part: Part
    job: Job
    record: dict[str, Any]
    is_new: bool = False


def make_part(parts: Path, part: Part, job: Job, work: Callable[[Path], PartWork]) -> DonePart:
    """Do the work on a part in its folder, unless it is complete, and write its record.

    `work` is called with the folder, and continues what an interrupted call left there. Raises SettingError if the
    folder was started with other settings or inputs, InUseError while another process writes it.
    """
    folder = part_folder(parts, part)
    content = _plain({"version": VERSION, "part": part.number, "parts": part.count, **job._asdict()})
    with write_errors(folder, advice="name another folder"), write_lock(folder, folder=True):
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / JOB).exists():
            started, _ = _read_job(folder)
            if differing := differences(started, Job(**{name: content[name] for name in Job._fields})):
                raise SettingError(
                    f"{folder} was started with other settings or inputs: {'; '.join(differing)}; run it with those, "
                    "delete this folder, or name another --out"
                )
            if (folder / DONE).exists():
                return DonePart(folder, part, job, _read_record(folder))
        else:
            _write_json(folder / JOB, content)
        result = work(folder)
        record: dict[str, Any] = {"rows": len(result.numbers), "details": result.details}
        if result.table is not None:
            record["rows_sha256"] = _write_rows(folder / ROWS, result)
        record["files"] = {name: (folder / name).stat().st_size for name in result.files}
        record = _plain(record)
        _write_json(folder / DONE, record)
    return DonePart(folder, part, job, record, is_new=True)


def read_parts(folders: Sequence[Path]) -> list[DonePart]:
    """Return all parts of some work, in order, after a check that they are complete, each once, and of the same work.

    Raises SettingError if there are none, or parts that do not belong together; TableError for missing, unfinished,
    doubled and damaged ones. Each error names the parts.
    """
    numbered_folders = [each for folder in folders for each in part_folders(folder)]
    if not numbered_folders:
        names = ", ".join(map(str, folders))
        raise SettingError(f"{names} has no parts (part-0000-of-...); give the --out of commands with --shard")
    jobs = {folder: _read_job(folder) for folder, _ in numbered_folders if (folder / JOB).is_file()}
    unfinished = [folder for folder, _ in numbered_folders if not (folder / DONE).is_file()]
    check_coverage(jobs, unfinished=unfinished)
    done = [DonePart(folder, part, job, _read_record(folder)) for folder, (job, part) in jobs.items()]
    return sorted(done, key=lambda each: each.part)


def check_coverage(jobs: Mapping[Path, tuple[Job, Part]], *, unfinished: Sequence[Path] = ()) -> None:
    """Raise SettingError or TableError unless these are all parts of the same work, each once and complete."""
    first_folder, (first, first_part) = next(iter(jobs.items()), (Path(), (None, Part(0, 0))))
    if first is None:
        raise TableError(f"no part is complete: {_names(unfinished)}; run their commands again")
    for folder, (job, part) in jobs.items():
        if part.count != first_part.count:
            raise SettingError(
                f"{folder} is a part of {part.count}, and {first_folder} of {first_part.count}; merge the parts of one "
                "number of parts, and remove the others"
            )
        if differing := differences(first, job):
            raise SettingError(
                f"{folder} and {first_folder} were made with different settings or inputs: {'; '.join(differing)}; "
                "delete one of them, and run its command again with the settings of the other parts"
            )
    folders_by_number: dict[int, list[Path]] = {}
    for folder, (_, part) in jobs.items():
        folders_by_number.setdefault(part.number, []).append(folder)
    doubled = [folder for folders in folders_by_number.values() if len(folders) > 1 for folder in folders]
    if doubled:
        raise TableError(f"parts are doubled: {_names(doubled)}; remove all but one of each")
    numbers = [number for number in range(first_part.count) if number not in folders_by_number]
    absent = [str(Part(number, first_part.count)) for number in numbers]
    absent += [f"{folder.name} (unfinished)" for folder in unfinished]
    if absent:
        raise TableError(
            f"{format_count(len(absent), 'part')} of {first_part.count} missing: {_names(absent)}; run "
            f"'cinefeed {first.command} ... --shard NUMBER/{first_part.count}' for each"
        )


def merged_rows(parts: Sequence[DonePart], *, total: int) -> Any:
    """Return the rows of all parts in the order of one process, after a check that each of `total` rows is there once.

    Raises TableError for missing, doubled or damaged rows.
    """
    tables = [_read_rows(each) for each in parts if each.record["rows"]]
    if not tables:
        raise TableError("no part has a row; there is nothing to merge")
    table = pa.concat_tables(tables).combine_chunks()
    numbers = np.asarray(table.column(_NUMBER))
    order = np.argsort(numbers, kind="stable")
    if not np.array_equal(numbers[order], np.arange(total)):
        missing, doubled = np.setdiff1d(np.arange(total), numbers), len(numbers) - len(np.unique(numbers))
        raise TableError(
            f"the parts have {len(numbers)} rows, {doubled} of them twice, and {len(missing)} of {total} are missing "
            f"(first: {missing[:3].tolist()}); delete the parts, and run their commands again"
        )
    table = table.drop_columns(_NUMBER)
    return table if np.array_equal(order, np.arange(total)) else table.take(order)


def differences(one: Job, other: Job) -> list[str]:
    """Return what differs between two jobs, as texts with both values.

    >>> job = Job("pack", {"codec": "raw"}, {}, {}, {})
    >>> differences(job, job._replace(settings={"codec": "jpeg"}))
    ["settings codec: 'raw' and 'jpeg'"]
    """
    if one.command != other.command:
        return [f"command: {one.command} and {other.command}"]
    texts = []
    for section in ("settings", "inputs", "versions", "whole"):
        before, after = _plain(getattr(one, section)), _plain(getattr(other, section))
        for name in dict.fromkeys([*before, *after]):
            if before.get(name) != after.get(name):
                values = [repr(each.get(name)) for each in (before, after)]
                is_short = sum(map(len, values)) < 100
                texts.append(f"{section} {name}" + (f": {values[0]} and {values[1]}" if is_short else ""))
    return texts


def _names(folders: Sequence[Path | str]) -> str:
    rest = len(folders) - _MOST_NAMES
    return ", ".join(map(str, folders[:_MOST_NAMES])) + (f" and {rest} more" if rest > 0 else "")


def _plain(data: Any) -> Any:
    return json.loads(json.dumps(data))


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    text = json_with_digest(json.dumps(content, indent=1))
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
        if is_text_changed(text) or not isinstance(content, dict):
            raise ValueError("its digest differs")
    except (OSError, ValueError) as error:
        raise TableError(f"{path} is damaged ({error}); delete {path.parent}, and run its command again") from error
    return content


def _read_job(folder: Path) -> tuple[Job, Part]:
    content = _read_json(folder / JOB)
    if content.get("version") != VERSION:
        raise SettingError(
            f"{folder / JOB} has format version {content.get('version')}, and this cinefeed reads {VERSION}; use one "
            "version for all parts"
        )
    return Job(**{name: content[name] for name in Job._fields}), Part(content["part"], content["parts"])


def _read_record(folder: Path) -> dict[str, Any]:
    """Return the record of a complete part, after a check of the sizes of its files."""
    record = _read_json(folder / DONE)
    for name, size in record["files"].items():
        actual = (folder / name).stat().st_size if (folder / name).is_file() else None
        if actual != size:
            raise TableError(
                f"{folder / name} is {'missing' if actual is None else f'{actual:,} bytes'}, and {size:,} bytes were "
                f"written; delete {folder}, and run its command again"
            )
    return record


def _write_rows(path: Path, result: PartWork) -> str:
    """Write the rows of a part, in a format that keeps all types, and return a hash of the file."""
    table = result.table.append_column(_NUMBER, pa.array(result.numbers, pa.int64())).combine_chunks()

    def write(partial: Path) -> None:
        with pa.ipc.new_file(str(partial), table.schema) as writer:
            writer.write_table(table)

    write_atomically(path, write)
    return sha256_of(path)


def _read_rows(each: DonePart) -> Any:
    path = each.folder / ROWS
    try:
        if sha256_of(path) == each.record["rows_sha256"]:
            with pa.OSFile(str(path)) as file:
                return pa.ipc.open_file(file).read_all()
        reason = "its hash differs from that of its record"
    except (OSError, pa.ArrowException) as error:
        reason = str(error)
    raise TableError(f"{path} is damaged: {reason}; delete {each.folder}, and run its command again")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
