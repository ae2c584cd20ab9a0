"""Pack a data set: shards that can be read in place of the source, and a manifest of them."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cinefeed.core.cores import usable_cores
from cinefeed.core.errors import SettingError, TableError
from cinefeed.core.files import full_disk_explained, write_atomically, write_errors
from cinefeed.core.locks import FOLDER_LOCK, with_write_lock
from cinefeed.core.progress import Progress, shown_progress
from cinefeed.core.text import format_bytes, format_count
from cinefeed.data.manifest.columns import METADATA_COLUMNS, ordered
from cinefeed.data.manifest.files import PACKED_MANIFEST
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.packing.estimate import estimate_bytes, rows_per_shard
from cinefeed.packing.settings import PackSettings
from cinefeed.packing.shards import (
    RECORDS,
    SHARDS,
    WORK,
    check_share,
    is_complete,
    pack_shard,
    read_record,
    record_path,
)
from cinefeed.packing.workers import PackWorkers

FORMAT_VERSION = 1
SETTINGS = "pack.json"
_MEDICAL = frozenset({"dicom", "nifti", "hdf5"})


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Result of `pack`: the manifest, the number of rows and of those without a video, of shards and of their bytes."""

    path: Path
    rows: int
    failures: tuple[dict[str, str], ...]
    shards: int
    new_shards: int
    bytes: int


@with_write_lock("out", folder=True)
def pack(
    manifest: str | Path | Manifest,
    *,
    out: str | Path,
    settings: PackSettings,
    workers: int | None = None,
    progress: Progress | Literal[False] | None = None,
) -> Packed:
    """Write the videos of a manifest into shards in the folder `out`, and a manifest of them, manifest.parquet.

    The packed manifest has the ids, labels, groups, seconds and parts of the source, and is used like any other:
    `Manifest.read(out)`. After an interruption the same call continues; complete shards are not made again, and the
    bytes of all files are those of an undisturbed call, with any number of workers.

    Args:
        manifest: The videos.
        out: The folder of the packed data set.
        settings: Codec, size, rate and further settings.
        workers: Number of processes, by default one per core; 0 packs in this process.
        progress: Called as `progress(done, total)` after each row; None shows a bar on a terminal, False nothing.

    Raises SettingError for settings that do not suit the data, or if `out` holds shards of other settings or data, or
    the disk has too little room; SourceError and PackError for rows that cannot be packed; DiskFullError if the disk is
    full; InUseError while another process writes the folder.
    """
    videos = manifest if isinstance(manifest, Manifest) else Manifest.read(manifest)
    check_source(videos, settings)
    folder = Path(out)
    step = start(videos, settings, folder)
    numbers = range(-(-len(videos) // step))
    num_new = pack_shards(videos, settings, folder, numbers, step=step, workers=workers, progress=progress)
    table, size = packed_rows(videos, folder, numbers, step=step)
    failures = failures_of(videos, table)
    check_failures(failures, videos, settings)
    manifest_path = write_packed(table, notes_of(videos, settings), folder=folder)
    return Packed(
        path=manifest_path,
        rows=len(videos),
        failures=named(failures),
        shards=len(numbers),
        new_shards=num_new,
        bytes=size,
    )


def pack_shards(
    videos: Manifest,
    settings: PackSettings,
    folder: Path,
    numbers: Sequence[int],
    *,
    step: int,
    workers: int | None,
    progress: Progress | Literal[False] | None,
) -> int:
    """Make the shards with these numbers that are not complete, in a folder that was started; return how many."""
    if workers is not None and workers < 0:
        raise SettingError(f"workers={workers} must be at least 0; leave it out to use every core")
    rows = {number: range(number * step, min((number + 1) * step, len(videos))) for number in numbers}
    pending = [number for number in numbers if not is_complete(folder, number)]
    _check_space(videos, settings, folder, [rows[number] for number in pending])
    total = sum(map(len, rows.values()))
    rows_done = total - sum(len(rows[number]) for number in pending)
    count = usable_cores() if workers is None else workers
    with full_disk_explained(folder), PackWorkers(count) as pool, shown_progress(progress, what="pack") as report:
        report(rows_done, total)
        for number in numbers:  # complete ones too, to remove the lock that a killed process may have left
            pack_shard(
                videos,
                settings,
                number,
                out=folder,
                rows_per_shard=step,
                workers=pool,
                progress=partial(_report_row, report, offset=rows_done + 1 - rows[number].start, total=total),
            )
            rows_done += len(rows[number]) if number in pending else 0
        shutil.rmtree(folder / WORK, ignore_errors=True)
    return len(pending)


def _report_row(report: Progress, row: int, *, offset: int, total: int) -> None:
    report(row + offset, total)


def check_source(videos: Manifest, settings: PackSettings) -> None:
    """Raise SettingError if these videos must not, or cannot, be packed with these settings."""
    names = videos.table.schema.names
    if videos.rows.views:
        raise SettingError("a row holds several views; pack the manifest of single videos, then pivot the packed one")
    if "header_tags" in names and not settings.allow_burned_in:
        tags = (json.loads(text) if text else {} for text in videos.column("header_tags").to_pylist())
        burned_in = [row for row, row_tags in enumerate(tags) if row_tags.get("burned_in") == "YES"]
        if burned_in:
            raise SettingError(
                f"{format_count(len(burned_in), 'DICOM file')} (first: row {burned_in[0]}) state that identities are "
                "burned into the pixels (BurnedInAnnotation = YES), and packing keeps pixels; leave these rows out "
                "(where burned_in is NO), blank the text first, or pack with allow_burned_in (--allow-burned-in)"
            )
    if "container" in names and not videos.private and not settings.keep_ids:
        containers = videos.column("container").to_pylist()
        medical = np.array([(each or "").partition("/")[0] in _MEDICAL for each in containers])
        hidden = videos.as_private().column("id").to_pylist()
        leaking = [
            row
            for row, (own, other) in enumerate(zip(videos.column("id").to_pylist(), hidden, strict=True))
            if own != other and medical[row]
        ]
        if leaking:
            raise SettingError(
                f"the ids of {format_count(len(leaking), 'row')} are paths of DICOM, NIfTI or HDF5 files (first: row "
                f"{leaking[0]}), which may name patients, and packed shards hold no path of the source; pack with "
                "--private, which hashes them (Manifest.as_private()), scan with --private, or keep them with "
                "--keep-ids (keep_ids=True)"
            )


def start(videos: Manifest, settings: PackSettings, folder: Path) -> int:
    """Write the settings into a new folder, or compare them with those of an existing one; return rows per shard.

    Raises SettingError if the folder has other files, or was made from other data or with other settings.
    """
    step = rows_per_shard(videos, settings)
    content = {
        "version": FORMAT_VERSION,
        "settings": settings.as_dict() | {"rows_per_shard": step},
        "source": videos.fingerprint,
        "rows": len(videos),
        "pyav": version("av"),
    }
    text = json.dumps(content, sort_keys=True, indent=1)
    path = folder / SETTINGS
    try:
        with write_errors(folder, advice="name another folder"):
            folder.mkdir(parents=True, exist_ok=True)
            others = sorted(each.name for each in folder.iterdir() if each.name != FOLDER_LOCK)
            if path.is_file():
                _check_same(json.loads(path.read_text(encoding="utf-8")), json.loads(text), folder)
            elif others:
                raise SettingError(f"{folder} holds other files ({', '.join(others[:3])}); name a new folder")
            else:
                write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))
            for name in (SHARDS, RECORDS):
                (folder / name).mkdir(exist_ok=True)
    except ValueError as error:
        if isinstance(error, SettingError):
            raise
        raise SettingError(f"{path} is damaged ({error}); delete the folder, and pack again") from error
    return step


def _check_same(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    if before == now:
        return
    differing = [name for name in now if name != "settings" and before.get(name) != now[name]]
    old, new = before.get("settings", {}), now["settings"]
    differing += [f"{name} ({old.get(name)} before, {new[name]} now)" for name in new if old.get(name) != new[name]]
    what = {"source": "other rows, files or labels", "rows": "", "pyav": "another PyAV, whose encoders may differ"}
    reasons = [what.get(each, each) for each in differing]
    raise SettingError(
        f"{folder} was packed with other settings or from other data: {', '.join(filter(None, reasons))}; name another "
        "folder, or delete this one"
    )


def _check_space(videos: Manifest, settings: PackSettings, folder: Path, pending: list[range]) -> None:
    """Raise SettingError if the disk cannot hold what is still to be packed; for codecs of known size only."""
    if settings.codec not in ("raw", "copy") or not pending:
        return
    sizes = estimate_bytes(videos, settings)
    needed = float(sum(sizes[rows.start : rows.stop].sum() for rows in pending))
    free = free_bytes(folder)
    if needed > free:
        raise SettingError(
            f"packing as {settings.codec} needs about {format_bytes(needed)} in {folder}, and {format_bytes(free)} are "
            "free; choose a smaller size, another codec (jpeg, h264), or another disk"
        )


def free_bytes(folder: Path) -> int:
    """Return the free bytes of the disk of a folder, which need not exist yet."""
    existing = next((each for each in (folder.absolute(), *folder.absolute().parents) if each.exists()), Path("/"))
    return shutil.disk_usage(existing).free


def packed_rows(videos: Manifest, folder: Path, numbers: Sequence[int], *, step: int) -> tuple[Any, int]:
    """Return the rows of complete shards with their packed videos, and the bytes of the shards.

    Raises PackError if a shard is missing.
    """
    tables, size = [], 0
    for number in numbers:
        table, shard_notes = read_record(record_path(folder, number))
        tables.append(table)
        size += shard_notes["shard_bytes"]
    records = pa.concat_tables(tables).combine_chunks()
    table = videos.table.slice(numbers[0] * step, len(numbers) * step)
    if len(records) != len(table):
        raise TableError(f"{folder}: the shards have {len(records)} rows, the manifest {len(table)}; pack again")
    for name in ("part", *METADATA_COLUMNS):
        table = table.drop_columns(name) if name in table.schema.names else table
    table = table.set_column(table.schema.get_field_index("path"), "path", records.column("path"))
    for name in ("part", *METADATA_COLUMNS):
        table = table.append_column(name, records.column(name))
    return table, size


def notes_of(videos: Manifest, settings: PackSettings) -> dict[str, Any]:
    """Return the notes and the history of the packed manifest of these videos."""
    notes: dict[str, Any] = {name: videos.notes[name] for name in ("private", "hashed") if name in videos.notes}
    verified = (videos.verified or "packets") if settings.codec == "copy" else "decode"
    notes |= {"label_types": videos.label_types, "verify": verified}
    notes["packed"] = {"version": FORMAT_VERSION, "settings": settings.as_dict(), "source": videos.fingerprint}
    return {"notes": notes, "history": [*videos.history, (f"packed as {settings.codec}", len(videos))]}


def write_packed(table: Any, notes: Mapping[str, Any], *, folder: Path) -> Path:
    """Write the manifest of packed rows, with what `notes_of` returned, and return its path."""
    packed = Manifest(ordered(table), root=folder, history=notes["history"], notes=notes["notes"])
    packed.write(folder / PACKED_MANIFEST)
    return folder / PACKED_MANIFEST


def failures_of(videos: Manifest, packed: Any, *, first: int = 0) -> list[dict[str, Any]]:
    """Return the rows without a video of a packed table, which begins at row `first`; `new` are readable sources."""
    names = videos.table.schema.names
    rows = (pc.indices_nonzero(pc.equal(packed.column("num_frames"), 0)).to_numpy() + first).tolist()
    return [
        {
            "id": videos.column("id")[row].as_py(),
            "path": videos.rows.display_name(row),
            "error": packed.column("error")[row - first].as_py(),
            "new": "num_frames" not in names or videos.column("num_frames")[row].as_py() != 0,
        }
        for row in rows
    ]


def check_failures(failures: Sequence[Mapping[str, Any]], videos: Manifest, settings: PackSettings) -> None:
    """Raise PackError if more rows have no video, although their source has one, than the settings allow."""
    if new := [each for each in failures if each["new"]]:
        check_share(len(new), len(videos), settings.max_bad, str(new[0]["error"]))


def named(failures: Sequence[Mapping[str, Any]]) -> tuple[dict[str, str], ...]:
    """Return id, path and error of failures."""
    return tuple({name: str(each[name]) for name in ("id", "path", "error")} for each in failures)


def codec_in(folder: Path) -> str | None:
    """Return the codec of the shards in a folder, None if packing has not started there."""
    try:
        return str(json.loads((folder / SETTINGS).read_text(encoding="utf-8"))["settings"]["codec"])
    except (OSError, ValueError, KeyError):
        return None
