"""Packing of one row: its video is decoded and written as a file, in any process, with the same bytes everywhere."""

from pathlib import Path
from typing import Any, NamedTuple

from cinefeed.core.errors import CinefeedError, SettingError
from cinefeed.core.files import DISK_FULL
from cinefeed.data.manifest.columns import METADATA_COLUMNS, metadata_to_row
from cinefeed.data.manifest.identity import content_hash
from cinefeed.data.manifest.rows import Rows
from cinefeed.packing.codecs import copy_packed, write_packed
from cinefeed.packing.frames import frames_to_pack, source_channels
from cinefeed.packing.settings import PackSettings


class RowJob(NamedTuple):
    """A row to pack, as sent to a worker process: a table of this row alone, and the file to write."""

    row: int  # of the manifest
    table: Any
    root: str
    private: bool
    settings: PackSettings
    folder: Path
    name: str  # of the file, without a suffix
    readers: tuple[Any, ...] = ()  # of the user, which its file may need
    max_frames: int | None = None  # pack the first of a video only, to measure a codec
    arrays: Any = None  # videos in memory, which no other process has


class RowResult(NamedTuple):
    """A packed row: its file and the columns of its metadata, or the error."""

    row: int
    file: Path | None
    columns: dict[str, Any]
    error: str = ""
    is_fatal: bool = False  # an error of the settings, which concerns all rows


def pack_row(job: RowJob) -> RowResult:
    """Write the video of a row as a file. Errors of the video are returned; OSError is raised if the disk is full."""
    rows, settings = Rows(job.table, root=job.root, private=job.private, arrays=job.arrays), job.settings
    try:
        with rows.open(0, channels=source_channels(settings)) as source:
            if settings.codec == "copy":
                part = job.table.column("part")[0].as_py() if "part" in job.table.schema.names else None
                packed = copy_packed(rows.path_of(0), job.folder, job.name, source.metadata, part=part)
            else:
                frames = frames_to_pack(source, settings, window=rows.window(0), max_frames=job.max_frames)
                packed = write_packed(frames, job.folder, job.name, settings)
    except (CinefeedError, OSError, MemoryError) as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise
        text = str(error) or type(error).__name__
        for path in (rows.path_of(0), job.folder / job.name):  # shards hold no path of the source
            text = text.replace(str(path), "the file")
        return RowResult(job.row, None, {}, text, is_fatal=isinstance(error, SettingError))
    columns = metadata_to_row(packed.metadata)
    columns["content_hash"] = content_hash([str(packed.path)])
    columns["size_bytes"] = columns["member_bytes"]
    return RowResult(job.row, packed.path, {name: value for name, value in columns.items() if name in METADATA_COLUMNS})
