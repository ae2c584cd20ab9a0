"""The part of a manifest that workers need: path and metadata of each row's video, and opening it."""

import copy
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self, cast

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.errors import ChangedFileError, CinefeedError
from cinefeed.core.remote.address import RemoteRoot, parse_root
from cinefeed.core.remote.cache import cache_settings
from cinefeed.core.remote.files import Member, RemoteFiles
from cinefeed.data.manifest.columns import METADATA_COLUMNS, VALUES, fact_value, metadata_columns, row_to_metadata
from cinefeed.data.manifest.held import HeldSource
from cinefeed.data.manifest.identity import FileState, change_of, content_hash, files_of, state_of
from cinefeed.data.manifest.remote import MEMBER_COLUMNS, default_files, member_of, remote_files
from cinefeed.video.arrays.in_memory import MemorySource
from cinefeed.video.metadata import VideoMetadata
from cinefeed.video.packed.source import open_packed
from cinefeed.video.registry import open_video
from cinefeed.video.source import Source

_COLUMNS = (
    "id",
    "path",
    "part",
    "start_seconds",
    "end_seconds",
    *(name for name in METADATA_COLUMNS if name not in VALUES),
)
_CACHE_SIZE = 1024  # files whose metadata is cached as Python objects, about 3 kB each
_MANY_FILES = 64  # checking 25 files takes 0.05 ms of a clip's 1.3 ms; 2000 would take 4 ms per clip
_MAX_CACHED_TIMES = 1000  # per file: each listed time takes 8 bytes more


class _File(NamedTuple):
    """The values of the columns for the file of a row."""

    path: Path
    part: str | None
    metadata: VideoMetadata | None
    window: tuple[float | None, float | None]
    names: tuple[str, ...]  # of its files, if `path` is a folder
    state: FileState  # of the files at the time of the scan


def view_names(columns: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the views in the columns of a pivoted table; () if each row is one video.

    >>> view_names(["id", "path", "path:2ch", "path:4ch", "age"])
    ('2ch', '4ch')
    """
    return tuple(name.removeprefix("path:") for name in columns if name.startswith("path:"))


class Rows:
    """The rows of a manifest without labels, stored as columns, so a million rows need little memory.

    If a row has several views (see `Manifest.pivot`), each method takes the name of a view, by default the first.
    `arrays` are videos in memory that replace files.
    """

    def __init__(
        self, table: Any, *, root: str, private: bool = False, arrays: Sequence[NDArray[Any]] | None = None
    ) -> None:
        names = table.schema.names
        self.views = view_names(names)
        columns = {f"{name}:{view}" for name in _COLUMNS for view in self.views}.union(_COLUMNS)
        self.table = table.select([name for name in names if name in columns]).combine_chunks()
        self.root = root
        self.private = private
        self.arrays = arrays
        self._files: dict[tuple[int, str], _File] = {}
        # By view and row, the modification time of a copy with equal content; zeros take no memory until written.
        self._compared = {view: np.zeros(len(self.table), np.int64) for view in self.views or ("",)}

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def relative_path(self, row: int, *, view: str = "") -> str:
        """Return the path of a row's file, relative to the root."""
        return str(self._columns[self._name("path", view)][row].as_py())

    @cached_property
    def remote(self) -> RemoteFiles | None:
        """The files, if the root is remote: fetched into the default cache, or that of `with_cache`."""
        root = parse_root(self.root)
        return default_files(root, os.getpid(), cache_settings()) if isinstance(root, RemoteRoot) else None

    def with_cache(self, folder: Path | None, limit: int | None) -> Self:
        """Return the rows with a cache of remote files in a folder, of at most `limit` bytes; local ones unchanged."""
        root = parse_root(self.root)
        if not isinstance(root, RemoteRoot):
            return self
        rows = copy.copy(self)
        rows.remote = remote_files(root, folder=folder, limit=limit)
        return rows

    def member(self, row: int, *, view: str = "") -> Member:
        """Return what is fetched for a row, if the root is remote."""
        return member_of({name: self._value(name, row, view) for name in MEMBER_COLUMNS})

    def path_of(self, row: int, *, view: str = "") -> Path:
        """Return the path of a row's file, including the root; of a remote file, its place in the cache."""
        if self.remote is not None:
            return self.remote.local_path(self.member(row, view=view))
        return Path(self.root, self.relative_path(row, view=view))

    def location(self, row: int, *, view: str = "") -> str:
        """Return the path of a row's file, including the root, or its address."""
        if self.remote is not None:
            return self.remote.root.join(self.relative_path(row, view=view))
        return str(self.path_of(row, view=view))

    def display_name(self, row: int, *, view: str = "") -> str:
        """Return the display name of a row, or of one of its views: its path, or its id if paths are private."""
        name = str(self._columns["id"][row]) if self.private else self.relative_path(row, view=view)
        if not self.private and self._value("member_offset", row, view) is not None:
            name = f"{name}::{self._value('part', row, view)}"
        return f"{name} (view {view})" if view else name

    def window(self, row: int, *, view: str = "") -> tuple[float | None, float | None]:
        """Return the start and end in seconds that limit the clips of a row; None if there is no limit."""
        return self._file(row, view).window

    def metadata(self, row: int, *, view: str = "") -> VideoMetadata | None:
        """Return the metadata of a row's video, or None if it was not probed or no frame can be read."""
        return self._file(row, view).metadata

    def open(self, row: int, *, channels: int | None = None, view: str = "") -> Source:
        """Open the video of a row; see `cinefeed.open_video`.

        Raises ChangedFileError if a file changed since the scan.
        """
        file = self._file(row, view)
        path, part, metadata = file.path, file.part, file.metadata
        if self.arrays is not None:
            assert metadata is not None
            number = int(self.relative_path(row, view=view))
            return MemorySource(self.arrays[number], metadata=metadata, channels=channels)
        if self.remote is not None:
            return self._open_remote(row, channels=channels, view=view)
        if change := self.change(row, view=view):
            again = "'cinefeed scan' again with the same --out"
            if metadata is not None and metadata.member is not None:
                again = "'cinefeed pack --verify', which names all damaged rows"
            raise ChangedFileError(f"{path}: {change}; run {again}")
        if metadata is not None and metadata.member is not None:
            return open_packed(path, channels=channels, metadata=metadata)
        return open_video(path, channels=channels, part=part, metadata=metadata)

    def _open_remote(self, row: int, *, channels: int | None, view: str) -> Source:
        assert self.remote is not None
        file, began = self._file(row, view), time.perf_counter()
        hold = self.remote.hold(self.member(row, view=view))
        seconds = time.perf_counter() - began
        try:
            path, metadata = self.path_of(row, view=view), file.metadata
            if metadata is not None and metadata.member is not None:  # of a shard, this part alone was fetched
                metadata = replace(metadata, member=metadata.member._replace(offset=0))
            source = open_video(path, channels=channels, part=file.part, metadata=metadata)
        except BaseException as error:
            hold.release()
            if isinstance(error, CinefeedError):
                error.args = (self.nameless(str(error), row, view=view),)
            raise
        return cast(Source, HeldSource(source, hold, fetch_seconds=seconds))

    def files(self, row: int, *, view: str = "") -> list[str]:
        """Return the files of a row: one, or those of a folder; of remote files, their places in the cache."""
        path = self._file(row, view).path if self.remote is None else self.path_of(row, view=view)
        return files_of(path, self._file(row, view).names)

    def state(self, row: int) -> FileState:
        """Return the state of the files of a row now; of remote files, that of the scan. Raises OSError."""
        return state_of(self.files(row)) if self.remote is None else self._file(row, "").state

    @contextmanager
    def local_files(self, row: int) -> Iterator[list[str]]:
        """Yield the files of a row; remote ones are fetched into the cache, and stay there until the end."""
        hold = None if self.remote is None else self.remote.hold(self.member(row))
        try:
            yield self.files(row)
        finally:
            if hold is not None:
                hold.release()

    def change(self, row: int, *, view: str = "") -> str | None:
        """Return how the files of a row differ from the scanned ones; None if they do not, or were not scanned.

        Another size is a change. If only the modification time differs, the file may be a copy: the content at both
        ends is compared, once per process. More than 64 files are checked once per process too. A single missing file
        is not reported here; opening it raises.
        """
        file = self._file(row, view)
        if self.arrays is not None or self.remote is not None or file.state.size_bytes is None:
            return None
        if file.metadata is not None and file.metadata.member is not None:
            return self._member_change(row, view, file)
        compared = self._compared[view or next(iter(self._compared))]
        many = len(file.names) > _MANY_FILES
        if many and compared[row]:
            return None
        files = self.files(row, view=view)
        try:
            state = state_of(files)
            same = state in (file.state, file.state._replace(mtime_ns=compared[row]))
            if not same and (
                change := change_of(
                    files, state, scanned=file.state, scanned_hash=self._value("content_hash", row, view)
                )
            ):
                return change
        except FileNotFoundError:
            return "one of its files is missing" if file.names else None
        except OSError:
            return None
        if many or not same:
            compared[row] = state.mtime_ns or 0
        return None

    def _member_change(self, row: int, view: str, file: _File) -> str | None:
        """Return how a video in a packed shard differs from the packed one: its content is compared once per process.

        A shard that was modified since is compared again.
        """
        assert file.metadata is not None and file.metadata.member is not None
        compared, member = self._compared[view or next(iter(self._compared))], file.metadata.member
        try:
            stat = os.stat(file.path)  # noqa: PTH116  # a Path would double the 1.4 us of a call
            if stat.st_mtime_ns == compared[row]:
                return None
            if stat.st_size < member.offset + member.size:
                return f"the shard is cut off: it has {stat.st_size:,} bytes of {member.offset + member.size:,} or more"
            if self._value("content_hash", row, view) != content_hash([str(file.path)], within=member):
                return "the shard is damaged, or is not the packed one"
        except OSError:
            return None  # opening the file raises the error
        compared[row] = stat.st_mtime_ns
        return None

    def containers(self) -> set[str | None]:
        """Return the container formats of all files, including None if one was not probed."""
        containers: set[str | None] = set()
        for view in self.views or ("",):
            column = self._columns.get(self._name("container", view))
            containers |= {None} if column is None else {*column.unique().to_pylist()}
        return containers

    def nameless(self, text: str, row: int, *, view: str = "") -> str:
        """Return a message about a row, without its path if paths are private; of a remote file, with its address."""
        place = "the file" if self.private else self.location(row, view=view)
        for path in (str(self.path_of(row, view=view)), self.location(row, view=view)):
            text = text.replace(path, place)
        return text

    def _file(self, row: int, view: str) -> _File:
        """Return the column values for a row's file, cached for the next epoch; building them takes 0.03 ms."""
        file = self._files.get((row, view))
        if file is None:
            columns = self._fact_columns[view or next(iter(self._fact_columns))]
            metadata = None if columns is None else row_to_metadata(columns, row)
            part, start, end = (self._value(name, row, view) for name in ("part", "start_seconds", "end_seconds"))
            names = (self._value("frame_files", row, view) or ()) if metadata is None else metadata.files
            state = FileState(*(fact_value(columns or {}, row, name) for name in FileState._fields))
            file = _File(
                Path(self.root, self.relative_path(row, view=view)), part, metadata, (start, end), tuple(names), state
            )
            if (
                metadata is not None
                and metadata.times.listed is not None
                and len(metadata.times.listed) > _MAX_CACHED_TIMES
            ):
                return file
            if len(self._files) >= _CACHE_SIZE:
                self._files.clear()
            self._files[row, view] = file
        return file

    @cached_property
    def _fact_columns(self) -> dict[str, dict[str, Any] | None]:
        """The metadata columns of each view, by its name; "" if a row is one video."""
        if not self.views:
            return {"": metadata_columns(self.table)}
        names, columns = set(self.table.schema.names), {}
        for view in self.views:
            present = [name for name in METADATA_COLUMNS if f"{name}:{view}" in names]
            part = self.table.select([f"{name}:{view}" for name in present])
            columns[view] = metadata_columns(part.rename_columns(present))
        return columns

    def _name(self, column: str, view: str) -> str:
        """Return the name of a view's column in the table."""
        view = view or next(iter(self.views), "")
        return f"{column}:{view}" if view else column

    def _value(self, name: str, row: int, view: str) -> Any:
        column = self._columns.get(self._name(name, view))
        return None if column is None else column[row].as_py()

    @cached_property
    def _columns(self) -> dict[str, Any]:
        """The columns by name; a look-up in the table takes 4 us."""
        return {name: self.table.column(name) for name in self.table.schema.names}
