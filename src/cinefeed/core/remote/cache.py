"""A folder on local disk that holds remote files, bounded in bytes, which the processes of a machine share.

    cache/lock              locked while space is reserved or freed; holds the number of bytes in use
    cache/members/KEY/      the files of a member, complete; locked (shared) by each process that needs it
    cache/members/.KEY/     the same while it is fetched; locked by the process that fetches it
    cache/users/NAME        one per feed that fetches ahead, locked while the feed exists

All locks are those of the operating system (flock). They end with their process, however it ends, so a killed process
leaves nothing locked; the next process that needs space removes what was being fetched.
"""

import errno
import json
import os
import shutil
import struct
import tempfile
import time
import uuid
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cinefeed.core.errors import SettingError
from cinefeed.core.text import parse_bytes

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# Environment variables of the folder and of its limit. They replace all settings: disks are those of the machine.
CACHE, CACHE_BYTES = "CINEFEED_CACHE", "CINEFEED_CACHE_BYTES"
_COUNT = struct.Struct("<q")
_BLOCKED = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
_RESERVED = ".reserved"  # a sparse file as large as the member that is being fetched
_FRESH_SECONDS = 1.0  # a file of this age or less may not be locked yet

_EVICTED_SHARE = 1 / 64  # of the limit, that is freed at once: ranking 10,000 members takes 50 ms

# Returns for each key the number of the next draw that needs it, infinity if none is known.
NextUses = Callable[[Sequence[str]], Sequence[float]]


def cache_settings(folder: Path | None = None, limit: int | None = None) -> tuple[Path, int | None]:
    """Return folder and limit of the cache: those of the environment, or else the given ones, or else the default."""
    limit_text = os.environ.get(CACHE_BYTES)
    return (
        Path(os.environ.get(CACHE) or folder or default_folder()).expanduser(),
        parse_bytes(limit_text, name=CACHE_BYTES) if limit_text else limit,
    )


def default_folder() -> Path:
    """Return the folder of the cache if none is set: in the folder for temporary files, one for each user."""
    return Path(tempfile.gettempdir(), f"cinefeed-cache-{os.getuid() if hasattr(os, 'getuid') else 'user'}")


class Hold:
    """A file or folder of the cache that no process removes until `release`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor: int | None = descriptor
        _holds.add(self)

    def release(self) -> None:
        """Allow the member to be removed. May be called twice."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __del__(self) -> None:
        self.release()


_holds: "weakref.WeakSet[Hold]" = weakref.WeakSet()


def _release_in_child() -> None:
    """Close the locks that a forked process has inherited: it would hold them after its parent released them."""
    for hold in list(_holds):
        hold.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_in_child)


class _Space:
    """The bytes in use, while the cache is locked. Each change is written at once."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        content = os.pread(descriptor, _COUNT.size, 0)
        self.used = _COUNT.unpack(content)[0] if len(content) == _COUNT.size else 0

    def add(self, size: int) -> None:
        self.used += size
        os.pwrite(self._descriptor, _COUNT.pack(self.used), 0)


class Cache:
    """The members in a folder. Their bytes never exceed `limit`, by default half of what the disk has free."""

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        if fcntl is None:
            raise SettingError("the cache of remote data needs file locks that Windows lacks; use Linux or macOS")
        self.folder, self.members, self.users = folder, folder / "members", folder / "users"
        try:
            for each in (folder, self.members, self.users):
                each.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self.locked() as space:
                free = shutil.disk_usage(folder).free
                self.limit = limit if limit is not None else (free + space.used) // 2
            owner = folder.stat().st_uid
        except OSError as error:
            raise SettingError(
                f"the cache {folder} cannot be used: {error}; give a folder on a local disk with Workers(cache=...)"
            ) from error
        if owner != os.getuid():
            raise SettingError(f"the cache {folder} belongs to another user; give another with Workers(cache=...)")

    def hold(self, key: str) -> Hold | None:
        """Return the member, held, or None if it is absent."""
        path = self.members / key
        descriptor = _lock(path, shared=True)
        if descriptor is None:
            return None
        os.utime(descriptor)  # the time of its last use
        return Hold(path, descriptor)

    def begin(self, key: str) -> "Partial | None":
        """Return the member as one that this process now fetches; None if it is complete, or another one fetches it."""
        folder = self.members / f".{key}"
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        descriptor = _lock(folder)
        if descriptor is None:
            return None
        partial = Partial(self, key, folder, descriptor)
        if (self.members / key).exists():
            partial.abandon()
            return None
        return partial

    @contextmanager
    def locked(self) -> Iterator[_Space]:
        """Lock the cache, and yield its bytes in use."""
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield _Space(descriptor)
        finally:
            os.close(descriptor)

    def recount(self) -> None:
        """Remove what killed processes left, and count the bytes of the rest: they may leave a wrong sum."""
        with self.locked() as space:
            used = 0
            for folder in self.members.iterdir():
                if folder.name.startswith(".") and (descriptor := _lock(folder)) is not None:
                    shutil.rmtree(folder, ignore_errors=True)
                    os.close(descriptor)
                else:
                    used += _size_of(folder)
            space.add(used - space.used)

    def register(self, about: dict[str, Any]) -> Hold:
        """Announce a feed that fetches ahead, with some plain data, until the result is released."""
        path = self.users / uuid.uuid4().hex
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        os.write(descriptor, json.dumps(about).encode())
        return Hold(path, descriptor)

    def registered(self) -> list[dict[str, Any]]:
        """Return the data of all feeds that are registered now."""
        data = []
        for path in self.users.iterdir():
            try:
                descriptor = _lock(path)
                if descriptor is None:
                    data.append(json.loads(path.read_text(encoding="utf-8")))
                    continue
                if time.time() - path.stat().st_mtime > _FRESH_SECONDS:
                    path.unlink()
                os.close(descriptor)
            except (OSError, ValueError):  # removed, or not written yet
                continue
        return data

    def make_room(self, size: int, space: _Space, next_uses: NextUses) -> bool:
        """Remove members that nobody holds until `size` more bytes fit; return whether they do.

        Those that are needed last are first; of several that are not needed, the one that was unused for longest.
        """
        if space.used + size <= self.limit:
            return True
        names, unused_since = [], []
        with os.scandir(self.members) as folders:
            for folder in folders:
                with suppress(FileNotFoundError):
                    unused_since.append(folder.stat().st_mtime)
                    names.append(folder.name)
        ranked = sorted(zip([-use for use in next_uses(names)], unused_since, names, strict=True))
        target = min(self.limit - size, int(self.limit * (1 - _EVICTED_SHARE)))
        for _, _, name in ranked:
            if space.used <= target:
                break
            self._remove(self.members / name, space)
        return space.used + size <= self.limit

    def _remove(self, folder: Path, space: _Space) -> None:
        """Remove a member, unless another process holds it, or this one."""
        descriptor = _lock(folder)
        if descriptor is None:
            return
        size = _size_of(folder)
        shutil.rmtree(folder.rename(self.members / f".{uuid.uuid4().hex}"), ignore_errors=True)
        os.close(descriptor)
        space.add(-size)


class Partial:
    """A member while this process fetches it, until `complete` or `abandon`."""

    def __init__(self, cache: Cache, key: str, folder: Path, descriptor: int) -> None:
        self.folder = folder
        self._cache, self._key, self._descriptor = cache, key, descriptor
        self._size = 0  # that is reserved

    def reserve(self, size: int, *, next_uses: NextUses) -> bool:
        """Reserve space for the member; see `Cache.make_room`. Return False if there is none now."""
        with self._cache.locked() as space:
            if not self._cache.make_room(size, space, next_uses):
                return False
            space.add(size)
            self._size = size
            with open(self.folder / _RESERVED, "wb") as file:  # noqa: PTH123  # a sparse file takes no space
                file.truncate(size)
            return True

    def complete(self) -> Hold:
        """Make the member visible to all processes, and hold it. Its files must have the reserved size."""
        with self._cache.locked():  # so that nobody removes it before it is held
            (self.folder / _RESERVED).unlink()
            folder = self.folder.rename(self._cache.members / self._key)
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)
        return Hold(folder, self._descriptor)

    def abandon(self) -> None:
        """Remove what was fetched."""
        with self._cache.locked() as space:
            shutil.rmtree(self.folder, ignore_errors=True)
            space.add(-self._size)
        os.close(self._descriptor)


def _lock(path: Path, *, shared: bool = False) -> int | None:
    """Return the descriptor of a locked file or folder; None if it is absent, or another lock excludes this one."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        if os.path.samestat(path.stat(), os.fstat(descriptor)):
            return descriptor
    except FileNotFoundError:  # it was renamed in between
        pass
    except OSError as error:
        if error.errno not in _BLOCKED:
            os.close(descriptor)
            raise
    os.close(descriptor)
    return None


def _size_of(folder: Path) -> int:
    """Return the bytes of a member's files, or those that are reserved for it."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as files:
        sizes = {file.name: file.stat().st_size for file in files}
        return sizes.get(_RESERVED) or sum(sizes.values())
    return 0
