"""Scanning of remote data: which files there are, and reading each of them whole through the cache."""

import logging
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cinefeed.core.errors import SettingError
from cinefeed.core.remote.address import RemoteRoot, Root
from cinefeed.core.remote.cache import Hold
from cinefeed.core.remote.files import Member, RemoteFiles, combined_tag
from cinefeed.core.remote.store import RemoteFile
from cinefeed.core.text import format_bytes, format_count, format_duration
from cinefeed.data.manifest.identity import FileState, content_hash

_log = logging.getLogger(__name__)
AHEAD = 32  # files that a scan fetches at the same time
_MEASURED_BYTES = 64_000_000  # at most, to estimate the time of a scan


MEMBER_COLUMNS = ("path", "frame_files", "size_bytes", "mtime_ns", "content_hash", "member_offset", "member_bytes")


def remote_files(root: RemoteRoot, *, folder: Path | None = None, limit: int | None = None) -> RemoteFiles:
    """Return the files below a remote root, verified by the hash of the scan if their tag is unknown."""
    return RemoteFiles(root, folder=folder, limit=limit, content_hash=content_hash)


def opened_root(root: Root) -> Path | RemoteFiles:
    """Return a local folder as it is, and the files below a remote root."""
    return remote_files(root) if isinstance(root, RemoteRoot) else root


@lru_cache(maxsize=8)  # packing makes the rows of each job anew, and connections should last
def default_files(root: RemoteRoot, _process: int, _cache: object) -> RemoteFiles:
    """Return the files below a remote root, with the default cache, for all that is not a feed.

    The other arguments are the process and the settings of its cache, which files of another one do not serve.
    """
    return remote_files(root)


def list_files(files: RemoteFiles) -> list[RemoteFile]:
    """Return all files below the root, sorted, without hidden ones. Raises SettingError for a web server."""
    if files.root.scheme in ("http", "https"):
        raise SettingError(
            f"{files.root} cannot be scanned, because a web server does not list its files; make a manifest of a table "
            f"with their paths: Manifest.from_table(table, root={str(files.root)!r})"
        )
    listing = (file for file in files.list() if not any(part.startswith(".") for part in file.path.split("/")))
    return sorted(listing)


def remote_state(files: Sequence[RemoteFile]) -> FileState:
    """Return the size of a sample's files, and their tag in place of a modification time."""
    return FileState(sum(file.size for file in files), combined_tag(files))


def member_of(row: Mapping[str, Any]) -> Member:
    """Return what is fetched for a row of a manifest, or of a scan: files, or the part of a packed shard."""
    if row.get("member_offset") is not None:
        offset, length = row["member_offset"], row["member_bytes"]
        content = row.get("content_hash")
        return Member(row["path"], offset=offset, length=length, size=length, content_hash=content)
    return Member(
        row["path"],
        files=tuple(row.get("frame_files") or ()),
        size=row.get("size_bytes"),
        tag=row.get("mtime_ns"),
        content_hash=row.get("content_hash"),
    )


def listed_member(file: RemoteFile) -> Member:
    """Return what is fetched for a file of a listing."""
    return Member(file.path, size=file.size, tag=combined_tag([file]))


class RemoteFolder:
    """A remote folder for the discovery of samples: `folder / name` fetches a file, and returns its local path.

    The file stays in the cache until a few more were fetched. Files in `ahead` are fetched before they are needed.
    """

    def __init__(self, files: RemoteFiles, listing: Mapping[str, RemoteFile], *, ahead: Sequence[str]) -> None:
        self._files, self._listing = files, listing
        self._ahead = deque(ahead)
        self._started: dict[str, Future[tuple[Hold, bool]]] = {}
        self._holds: deque[Hold] = deque()

    def __str__(self) -> str:
        return str(self._files.root)

    def __truediv__(self, name: str) -> Path:
        while self._ahead and len(self._started) < AHEAD:
            self._start(self._ahead.popleft())
        self._start(name)
        self._holds.append(self._started.pop(name).result()[0])
        if len(self._holds) > 2:  # an image and the next one of its folder
            self._holds.popleft().release()
        return self._files.local_path(self._member(name))

    def close(self) -> None:
        """Allow the cache to remove the files."""
        for future in self._started.values():
            future.cancel()
        for hold in self._holds:
            hold.release()

    def _start(self, name: str) -> None:
        if name not in self._started:
            self._started[name] = self._files.start(self._member(name))

    def _member(self, name: str) -> Member:
        return listed_member(self._listing[name])


def announce(files: RemoteFiles, members: Iterable[Member]) -> None:
    """Log how many bytes a scan will read, and for how long, from the rate of the first files."""
    members = [member for member in dict.fromkeys(members) if not files.is_present(member)]
    if not members:
        return
    total = sum(member.size or 0 for member in members)
    began, fetched = time.perf_counter(), 0
    started: list[Future[tuple[Hold, bool]]] = []
    for member in members[:AHEAD]:
        if fetched > _MEASURED_BYTES:
            break
        started.append(files.start(member))
        fetched += member.size or 0
    for future in started:
        future.result()[0].release()
    rate = max(fetched, 1) / (time.perf_counter() - began)
    _log.warning(
        "the scan of %s reads %s whole, %s: about %s at %s a second",
        files.root,
        format_count(len(members), "file"),
        format_bytes(total),
        format_duration(total / rate),
        format_bytes(rate),
    )


def without_tags(table: Any) -> Any:
    """Return a manifest's table without the tags of remote files: at another root, contents are compared."""
    for name in table.schema.names:
        if name.partition(":")[0] == "mtime_ns":
            values = table.column(name)
            values = pc.if_else(pc.less(values, 0), pa.scalar(None, values.type), values)
            table = table.set_column(table.schema.get_field_index(name), name, values)
    return table
