"""Packing in parts: each part makes some of the shards, and the merge puts all into one folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from cinefeed.core.errors import SettingError
from cinefeed.core.files import write_atomically, write_errors
from cinefeed.core.locks import FOLDER_LOCK, with_write_lock, write_lock
from cinefeed.core.progress import Progress
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.manifest.parquet import table_digest
from cinefeed.jobs.files import link_files
from cinefeed.jobs.parts import Part, part_bounds
from cinefeed.jobs.records import DonePart, Job, PartWork, make_part, merged_rows
from cinefeed.jobs.versions import versions_of_decoder
from cinefeed.packing.estimate import estimate_bytes, rows_per_shard
from cinefeed.packing.pack import (
    SETTINGS,
    Packed,
    check_failures,
    check_source,
    failures_of,
    named,
    notes_of,
    pack_shards,
    packed_rows,
    start,
    write_packed,
)
from cinefeed.packing.settings import PackSettings
from cinefeed.packing.shards import check_share, record_path, shard_name

_PACKED = "packed"  # folder in a part: a packed data set of some shards, without a manifest


def pack_part(
    manifest: str | Path | Manifest,
    *,
    part: Part,
    out: str | Path,
    settings: PackSettings,
    workers: int | None = None,
    progress: Progress | Literal[False] | None = None,
) -> DonePart:
    """Pack one part of a manifest into the folder `out`, to be merged by `merge`.

    A part consists of whole shards, those of `pack`, balanced by their expected bytes. The other arguments and errors
    are those of `pack`.
    """
    videos = manifest if isinstance(manifest, Manifest) else Manifest.read(manifest)
    check_source(videos, settings)
    step = rows_per_shard(videos, settings)
    sizes = np.add.reduceat(estimate_bytes(videos, settings), np.arange(0, len(videos), step))
    job = Job(
        command="pack",
        settings=settings.as_dict() | {"rows_per_shard": step},
        inputs={"manifest": table_digest(videos.table, b"").decode(), "rows": len(videos)},
        versions=versions_of_decoder(),
        whole=notes_of(videos, settings),
    )

    def work(part_folder: Path) -> PartWork:
        folder = part_folder / _PACKED
        with write_lock(folder, folder=True):  # removes partial files of a killed process
            start(videos, settings, folder)
        numbers = range(*map(int, part_bounds(sizes, part.count)[part.number : part.number + 2]))
        if not numbers:
            return PartWork(numbers=np.arange(0), files=[f"{_PACKED}/{SETTINGS}"])
        pack_shards(videos, settings, folder, numbers, step=step, workers=workers, progress=progress)
        table, num_bytes = packed_rows(videos, folder, numbers, step=step)
        failures = failures_of(videos, table, first=numbers.start * step)
        check_failures(failures, videos, settings)
        names = [shard_name(number) for number in numbers]
        names += [record_path(Path(), number).as_posix() for number in numbers]
        return PartWork(
            numbers=np.arange(len(table)) + numbers.start * step,
            table=table,
            files=[f"{_PACKED}/{name}" for name in [SETTINGS, *names]],
            details={
                "shards": len(numbers),
                "bytes": num_bytes,
                "failures": named(failures),
                "num_bad": sum(each["new"] for each in failures),
                "max_bad": settings.max_bad,
            },
        )

    return make_part(Path(out), part, job, work)


@with_write_lock("out", folder=True)
def merge_pack(parts: Sequence[DonePart], *, out: Path) -> Packed:
    """Write the packed data set of all parts into the folder `out`.

    Raises SettingError if the folder holds anything else, PackError if too many rows have no video.
    """
    job, details = parts[0].job, [each.record["details"] for each in parts if each.record["rows"]]
    table = merged_rows(parts, total=job.inputs["rows"])
    failures = [failure for each in details for failure in each["failures"]]
    if num_bad := sum(each["num_bad"] for each in details):
        check_share(num_bad, len(table), max(each["max_bad"] for each in details), failures[0]["error"])
    settings = (parts[0].folder / _PACKED / SETTINGS).read_bytes()
    with write_errors(out, advice="name another folder"):
        out.mkdir(parents=True, exist_ok=True)
        others = sorted(each.name for each in out.iterdir() if each.name != FOLDER_LOCK)
        if others and not ((out / SETTINGS).is_file() and (out / SETTINGS).read_bytes() == settings):
            raise SettingError(f"{out} holds other files ({', '.join(others[:3])}); name a new folder")
        write_atomically(out / SETTINGS, lambda partial: partial.write_bytes(settings))
        link_files(
            (each.folder / name, out / Path(name).relative_to(_PACKED))
            for each in parts
            for name in each.record["files"]
            if not name.endswith(SETTINGS)
        )
    return Packed(
        path=write_packed(table, job.whole, folder=out),
        rows=len(table),
        failures=tuple(failures),
        shards=sum(each["shards"] for each in details),
        new_shards=0,
        bytes=sum(each["bytes"] for each in details),
    )
