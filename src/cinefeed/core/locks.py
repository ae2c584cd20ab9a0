"""Write locks: one process at a time writes a run folder, a manifest or a folder of features.

A lock is a small file that its holder keeps open and locked by the operating system (flock; on Windows msvcrt.locking),
so that it is released however the process ends. Its text names the holder: process, command, host, time.

    runs/a          ->  runs/a/.lock
    m.parquet       ->  .m.parquet.lock

Some network shares do not support such locks. There the existence of the file is the lock: one process creates it, and
if that process has ended on this machine, the next one replaces the file. For a process of another machine this cannot
be decided, and the error names the file to delete.

The package filelock was tried: it leaves lock files beside manifests, and its error does not name the holder.
"""

import errno
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from cinefeed.core.errors import InUseError
from cinefeed.core.files import full_disk_explained, remove_partials, write_atomically, write_errors

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

P = ParamSpec("P")
R = TypeVar("R")
FOLDER_LOCK = ".lock"
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
_UNWRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT}
_LONGEST = 200  # characters of the command in a lock file
_NAMELESS_SECONDS = 5.0  # a lock file without the name of a holder is stale after this time

_held_locks: dict[Path, tuple[int, int]] = {}  # of this process: lock file -> descriptor, thread that holds it


@contextmanager
def write_lock(path: str | Path, *, folder: bool = False) -> Iterator[None]:
    """Hold the write lock of a file or folder. Raises InUseError if another process holds it.

    The same thread may enter the lock again. Missing parent folders are created, and removed if nothing was written to
    them. A place that cannot be written has no lock, so that the write itself raises its error. Partial files of killed
    processes are removed. If the disk is full, the error of a write within the context is a DiskFullError.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "m.parquet"
    >>> with write_lock(target):
    ...     sorted(each.name for each in target.parent.iterdir())
    ['.m.parquet.lock']
    >>> sorted(target.parent.iterdir())
    []
    """
    target = Path(path).resolve()
    lock = target / FOLDER_LOCK if folder else target.with_name(f".{target.name}{FOLDER_LOCK}")
    if lock in _held_locks and _held_locks[lock][1] == threading.get_ident():
        yield
        return
    created_folders: list[Path] = []
    try:
        try:
            _create_folders(lock.parent, created_folders)
            descriptor = _acquire(lock, display_path=str(path))
        except FileNotFoundError:  # another process has just removed the empty folder
            _create_folders(lock.parent, created_folders)
            descriptor = _acquire(lock, display_path=str(path))
    except OSError as error:
        _remove_folders(created_folders)
        if error.errno not in _UNWRITABLE:
            with full_disk_explained(lock):
                raise
        yield
        return
    except InUseError:
        _remove_folders(created_folders)
        raise
    _forget_in_children()
    _held_locks[lock] = (descriptor, threading.get_ident())
    try:
        remove_partials(lock.parent, None if folder else target.name)
        with full_disk_explained(target):
            yield
    finally:
        if _held_locks.pop(lock, None) is not None:  # a forked child holds no locks
            _release(lock, descriptor)
            _remove_folders(created_folders)


def with_write_lock(argument: str, *, folder: bool = False) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function so that it holds the write lock of one keyword argument, a path or None, while it runs."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            path = kwargs.get(argument)
            if path is None:
                return function(*args, **kwargs)
            with write_lock(path, folder=folder):  # type: ignore[arg-type]  # a path, by the function's signature
                return function(*args, **kwargs)

        return wrapper

    return decorate


def _acquire(lock: Path, *, display_path: str) -> int:
    """Return the descriptor of a lock file that this process now holds."""
    while True:
        descriptor, is_new = _open(lock)
        try:
            has_locks, is_free = _try_lock(descriptor)
            if not has_locks:
                is_free = is_new
            if not is_free:
                holder = _read_holder(lock)
                if has_locks or not _is_left_over(lock, holder):
                    raise _in_use(display_path, lock, holder, by_system=has_locks)
                _remove_leftover(lock, holder)
            elif _is_at(lock, descriptor):  # otherwise its holder removed it after it was opened here
                _write_holder(descriptor)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _open(lock: Path) -> tuple[int, bool]:
    """Return the descriptor of a lock file, and whether this call created it."""
    while True:
        try:
            return os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
        except FileExistsError:
            pass
        try:
            return os.open(lock, os.O_RDWR), False
        except FileNotFoundError:
            continue
        except PermissionError:  # a file of another user can be locked, but not written
            return os.open(lock, os.O_RDONLY), False


def _try_lock(descriptor: int) -> tuple[bool, bool]:
    """Return whether the file system supports locks, and whether this process now holds this one."""
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, 1 << 20, os.SEEK_SET)  # beyond the text: a locked range cannot be read on Windows
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
            return True, False
        if error.errno in _UNSUPPORTED or error.errno == errno.EBADF:  # EBADF: NFS cannot lock a read-only descriptor
            return False, False
        raise
    return True, True


def _release(lock: Path, descriptor: int) -> None:
    try:
        lock.unlink(missing_ok=True)  # before unlocking, so that no other process can lock this file in between
    except OSError:
        pass  # Windows does not remove an open file; closing the descriptor releases the lock
    finally:
        os.close(descriptor)


def _is_at(lock: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(lock.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _write_holder(descriptor: int) -> None:
    holder = {
        "process": os.getpid(),
        "started": _start_time(os.getpid()),
        "host": socket.gethostname(),
        "command": " ".join(sys.argv)[:_LONGEST],
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(holder).encode())
    except OSError:
        pass  # a file of another user, or a full disk: the lock is held, without a name


def _read_holder(lock: Path) -> Mapping[str, Any]:
    """Return the holder of a lock, {} if its file names none yet."""
    for _ in range(5):
        try:
            holder = json.loads(lock.read_text(encoding="utf-8"))
            return holder if isinstance(holder, dict) else {}
        except (OSError, ValueError):
            time.sleep(0.02)  # just created
    return {}


def _in_use(display_path: str, lock: Path, holder: Mapping[str, Any], *, by_system: bool) -> InUseError:
    holder_text = "another process"
    if holder:
        holder_text = (
            f"process {holder.get('process')} on {holder.get('host')} ({holder.get('command')}), "
            f"since {holder.get('since')}"
        )
    advice = "wait until it has finished, stop it, or choose another path"
    if not by_system:
        advice += f"; if it no longer runs, delete {lock}"
    return InUseError(f"{display_path} is being written by {holder_text}; {advice}")


def _is_left_over(lock: Path, holder: Mapping[str, Any]) -> bool:
    """Return whether the holder named in a lock file is a process of this machine that has ended."""
    if not holder:
        try:
            return time.time() - lock.stat().st_mtime > _NAMELESS_SECONDS
        except FileNotFoundError:
            return True
    if holder.get("host") != socket.gethostname():
        return False
    process = int(holder["process"])
    if sys.platform != "win32":  # on Windows, signal 0 ends the process
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass  # a process of another user
    return _start_time(process) != holder.get("started")  # process numbers are reused


def _remove_leftover(lock: Path, holder: Mapping[str, Any]) -> None:
    """Remove the lock file of a process that has ended, unless another process has replaced it in the meantime."""
    renamed_lock = lock.with_name(f"{lock.name}.{os.getpid()}")
    try:
        lock.rename(renamed_lock)
        if _read_holder(renamed_lock) == holder:
            renamed_lock.unlink()
        else:
            renamed_lock.rename(lock)
    except FileNotFoundError:
        pass


def _start_time(process: int) -> str | None:
    """Return the start time of a process in ticks since boot, or None if unknown (other systems than Linux)."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _create_folders(folder: Path, created_folders: list[Path]) -> None:
    if not folder.is_dir():
        _create_folders(folder.parent, created_folders)
        folder.mkdir(exist_ok=True)
        created_folders.append(folder)


def _remove_folders(created_folders: list[Path]) -> None:
    for folder in reversed(created_folders):
        try:
            folder.rmdir()
        except OSError:
            return  # not empty


@cache  # once per process
def _forget_in_children() -> None:
    """Register that forked children close the locks, which they would otherwise hold after the parent was killed."""

    def forget() -> None:
        for descriptor, _ in _held_locks.values():
            os.close(descriptor)
        _held_locks.clear()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=forget)


def write_text(text: str, path: Path) -> None:
    """Write a text file, whole or not at all. Raises SettingError or DiskFullError if it cannot be written."""
    with write_errors(path, advice="choose another path"), write_lock(path):
        path.parent.mkdir(parents=True, exist_ok=True)  # if there was no room for a lock
        write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))
