"""One process at a time writes a run folder, a manifest or a folder of features.

A lock is a small file that its holder keeps open, locked by the operating system (flock; on Windows msvcrt.locking), so
it ends with the process, whatever ends that. Its text names the holder: process, command, host, time.

    runs/a          ->  runs/a/.lock
    m.parquet       ->  .m.parquet.lock

Some network shares have no such locks. There the file itself is the lock: it is created by one process only, and if
that process no longer runs on this machine, the next one replaces it. If it runs on another machine nobody can tell,
and the error names the file to delete.

The package filelock was tried: its lock files stay beside manifests for good, and its error does not name the holder.
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

from cinefeed.errors import InUseError
from cinefeed.files import remove_partials

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

P = ParamSpec("P")
R = TypeVar("R")
FOLDER_LOCK = ".lock"
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
_UNWRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT}
_LONGEST = 200  # characters of a command that are kept
_NAMELESS_SECONDS = 5.0  # a lock file without a holder's name is left over after this time

_held: dict[Path, tuple[int, int]] = {}  # of this process: lock file -> its descriptor, and the thread that holds it


@contextmanager
def write_lock(path: str | Path, *, folder: bool = False) -> Iterator[None]:
    """Hold the lock of a file, or of a folder, that is being written. Raises InUseError if another process holds it.

    Within it the same thread may ask for it again. Missing parent folders are created, and removed if nothing was
    written to them. A place that cannot be written has no lock: the write raises the error that explains it. What a
    killed process has left of a file half-written there is removed.

    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp()) / "m.parquet"
    >>> with write_lock(place):
    ...     sorted(each.name for each in place.parent.iterdir())
    ['.m.parquet.lock']
    >>> sorted(place.parent.iterdir())
    []
    """
    place = Path(path).resolve()
    lock = place / FOLDER_LOCK if folder else place.with_name(f".{place.name}{FOLDER_LOCK}")
    if lock in _held and _held[lock][1] == threading.get_ident():
        yield
        return
    created: list[Path] = []
    try:
        try:
            _create_folders(lock.parent, created)
            descriptor = _acquire(lock, shown=str(path))
        except FileNotFoundError:  # another process has just removed the empty folder
            _create_folders(lock.parent, created)
            descriptor = _acquire(lock, shown=str(path))
    except OSError as error:
        _remove_folders(created)
        if error.errno not in _UNWRITABLE:
            raise
        yield
        return
    except InUseError:
        _remove_folders(created)
        raise
    _forget_in_children()
    _held[lock] = (descriptor, threading.get_ident())
    try:
        remove_partials(lock.parent, None if folder else place.name)
        yield
    finally:
        if _held.pop(lock, None) is not None:  # a forked child holds nothing
            _release(lock, descriptor)
            _remove_folders(created)


def locked(argument: str, *, folder: bool = False) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function hold the write lock of one of its keyword arguments, a path or None, while it runs."""

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


def _acquire(lock: Path, *, shown: str) -> int:
    """Return the descriptor of a lock file that is now this process's."""
    while True:
        descriptor, is_new = _open(lock)
        try:
            supported, free = _try_lock(descriptor)
            if not supported:
                free = is_new
            if not free:
                holder = _read(lock)
                if supported or not _is_left_over(lock, holder):
                    raise _in_use(shown, lock, holder, by_system=supported)
                _set_aside(lock, holder)
            elif _is_at(lock, descriptor):  # else its holder removed it after it was opened here
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
        except PermissionError:  # of another user: it can be locked, but not written
            return os.open(lock, os.O_RDONLY), False


def _try_lock(descriptor: int) -> tuple[bool, bool]:
    """Return whether the file system has locks, and whether this one is now held here."""
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, 1 << 20, os.SEEK_SET)  # beyond the text: what Windows locks, others cannot read
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
            return True, False
        if error.errno in _UNSUPPORTED or error.errno == errno.EBADF:  # EBADF: NFS locks no descriptor for reading
            return False, False
        raise
    return True, True


def _release(lock: Path, descriptor: int) -> None:
    try:
        lock.unlink(missing_ok=True)  # before it is unlocked: nobody can have locked this file in between
    except OSError:
        pass  # Windows does not remove an open file; the lock ends with the descriptor all the same
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
        "started": _started(os.getpid()),
        "host": socket.gethostname(),
        "command": " ".join(sys.argv)[:_LONGEST],
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(holder).encode())
    except OSError:
        pass  # of another user, or on a full disk: it is locked, only without a name


def _read(lock: Path) -> Mapping[str, Any]:
    """Return who holds a lock, {} if its file has no name yet."""
    for _ in range(5):
        try:
            holder = json.loads(lock.read_text(encoding="utf-8"))
            return holder if isinstance(holder, dict) else {}
        except (OSError, ValueError):
            time.sleep(0.02)  # created a moment ago
    return {}


def _in_use(shown: str, lock: Path, holder: Mapping[str, Any], *, by_system: bool) -> InUseError:
    who = "another process"
    if holder:
        who = (
            f"process {holder.get('process')} on {holder.get('host')} ({holder.get('command')}), "
            f"since {holder.get('since')}"
        )
    advice = "wait until it has finished, stop it, or name another place"
    if not by_system:
        advice += f"; if it no longer runs, delete {lock}"
    return InUseError(f"{shown} is being written by {who}; {advice}")


def _is_left_over(lock: Path, holder: Mapping[str, Any]) -> bool:
    """Return whether the holder that a lock file names is a process of this machine that has ended."""
    if not holder:
        try:
            return time.time() - lock.stat().st_mtime > _NAMELESS_SECONDS
        except FileNotFoundError:
            return True
    if holder.get("host") != socket.gethostname():
        return False
    process = int(holder["process"])
    if sys.platform != "win32":  # there a signal of 0 ends a process
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass  # it is another user's
    return _started(process) != holder.get("started")  # a number may be given to another process


def _set_aside(lock: Path, holder: Mapping[str, Any]) -> None:
    """Remove the lock file of a process that has ended, unless another process has replaced it meanwhile."""
    aside = lock.with_name(f"{lock.name}.{os.getpid()}")
    try:
        lock.rename(aside)
        if _read(aside) == holder:
            aside.unlink()
        else:
            aside.rename(lock)
    except FileNotFoundError:
        pass


def _started(process: int) -> str | None:
    """Return when a process started, in ticks since boot, or None where the system does not tell (other than Linux)."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _create_folders(folder: Path, created: list[Path]) -> None:
    if not folder.is_dir():
        _create_folders(folder.parent, created)
        folder.mkdir(exist_ok=True)
        created.append(folder)


def _remove_folders(created: list[Path]) -> None:
    for each in reversed(created):
        try:
            each.rmdir()
        except OSError:
            return  # something was written


@cache  # once in a process
def _forget_in_children() -> None:
    """Let forked children close the locks: they would outlive a killed parent with them."""

    def forget() -> None:
        for descriptor, _ in _held.values():
            os.close(descriptor)
        _held.clear()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=forget)
