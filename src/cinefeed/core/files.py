"""Atomic writing of files, and errors that name the file."""

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cinefeed.core.errors import SettingError, TrainingError

PARTIAL = ".partial."  # prefix of the names of files that are being written
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # also a quota, or a limit on file sizes


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary path beside `path`, then rename the file, so that readers never see a part of it.

    The temporary name keeps the suffixes, from which some writers choose the format, and is unique to this process. An
    OSError names `path`.
    """
    partial = path.with_name(f"{PARTIAL}{os.getpid()}.{path.name}")
    try:
        write(partial)
        partial.replace(path)
    except OSError as error:
        raise with_path(error, path) from error
    finally:
        partial.unlink(missing_ok=True)


def write_text(text: str, path: Path) -> None:
    """Write a text file, whole or not at all. Raises SettingError if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise SettingError(f"{path} cannot be written: {error.strerror}; choose another path") from error


def with_path(error: OSError, path: Path) -> OSError:
    """Return an OSError that names a file; one from an open file or a C library does not.

    >>> print(with_path(OSError(28, "No space left on device"), Path("runs/a/run.json")))
    [Errno 28] No space left on device: 'runs/a/run.json'
    """
    if error.errno is None:
        return OSError(f"{path}: {error}")
    return OSError(error.errno, error.strerror or os.strerror(error.errno), str(path))


@contextmanager
def full_disk_explained(path: Path, go_on: Callable[[], str] = lambda: "the same command goes on") -> Iterator[None]:
    """Replace the OSError of a full disk by a TrainingError with the file (or `path`), the reason, and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        file = error.filename or path
        raise TrainingError(f"{file} cannot be written: {error.strerror}; make room, and {go_on()}") from error


def remove_partials(folder: Path, name: str | None = None) -> None:
    """Remove partial files of killed processes, for one name or for all.

    Call it only under the lock of the folder or file, so that no other process is writing there.
    """
    ending = ".*" if name is None else re.escape(name)
    pattern = re.compile(rf"{re.escape(PARTIAL)}\d+\.{ending}")
    for path in folder.glob(f"{PARTIAL}*"):
        if pattern.fullmatch(path.name):
            path.unlink(missing_ok=True)
