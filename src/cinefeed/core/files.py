"""Atomic writing of files, and errors that name the file."""

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cinefeed.core.errors import CinefeedError, DiskFullError, SettingError

PARTIAL = ".partial."  # prefix of the names of files that are being written
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # also a quota, or a limit on file sizes


def write_atomically(path: Path, write: Callable[[Path], object], *, keep: bool = False) -> None:
    """Call `write` with a temporary path beside `path`, then rename the file, so that readers never see a part of it.

    With `keep`, a file that another process has written to `path` in the meantime stays. The temporary name keeps the
    suffixes, from which some writers choose the format, and is unique to this process. An OSError names `path`; if the
    disk is full, it is a DiskFullError.
    """
    partial = path.with_name(f"{PARTIAL}{os.getpid()}.{path.name}")
    try:
        write(partial)
        if not (keep and _link(partial, path)):
            partial.replace(path)
    except OSError as error:
        raise write_error(error, path) from error
    finally:
        partial.unlink(missing_ok=True)


def _link(source: Path, path: Path) -> bool:
    """Give a file a second name unless a file of that name exists; return False if the file system has no links."""
    try:
        path.hardlink_to(source)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno in DISK_FULL:
            raise
        return path.exists()
    return True


def write_error(error: OSError, path: Path) -> OSError:
    """Return an OSError that names a file; one from an open file or a C library does not.

    It is a DiskFullError if the disk is full.

    >>> print(write_error(OSError(5, "Input/output error"), Path("runs/a/run.json")))
    [Errno 5] Input/output error: 'runs/a/run.json'
    """
    if error.errno is None:
        return OSError(f"{path}: {error}")
    kind = DiskFullError if error.errno in DISK_FULL else OSError
    return kind(error.errno, os.strerror(error.errno), str(path))  # the text of a C library may be long


@contextmanager
def full_disk_explained(path: Path) -> Iterator[None]:
    """Replace the OSError of a full disk by a DiskFullError, which names the file, or `path`."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL or isinstance(error, DiskFullError):
            raise
        raise write_error(error, Path(error.filename or path)) from error


@contextmanager
def write_errors(path: Path, *, advice: str, kind: type[CinefeedError] = SettingError) -> Iterator[None]:
    """Replace an OSError by an error of cinefeed that names `path` and gives advice; DiskFullError if the disk is full.

    >>> with write_errors(Path("a.csv"), advice="choose another folder"):
    ...     raise PermissionError(13, "Permission denied")
    Traceback (most recent call last):
    cinefeed.core.errors.SettingError: a.csv cannot be written: Permission denied; choose another folder
    """
    try:
        with full_disk_explained(path):
            yield
    except DiskFullError:
        raise
    except OSError as error:
        raise kind(f"{path} cannot be written: {error.strerror or error}; {advice}") from error


def remove_partials(folder: Path, name: str | None = None) -> None:
    """Remove partial files of killed processes, for one name or for all.

    Call it only under the lock of the folder or file, so that no other process is writing there.
    """
    ending = ".*" if name is None else re.escape(name)
    pattern = re.compile(rf"{re.escape(PARTIAL)}\d+\.{ending}")
    for path in folder.glob(f"{PARTIAL}*"):
        if pattern.fullmatch(path.name):
            path.unlink(missing_ok=True)
