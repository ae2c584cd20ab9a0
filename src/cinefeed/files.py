"""Files that other programs see whole or not at all."""

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cinefeed.errors import TrainingError

PARTIAL = ".partial."  # how the name of a file that is being written begins
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # also a quota, or a limit on the size of files


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make the file beside its place, then move it there: a reader sees all of it or nothing.

    The name that `write` is given keeps the suffixes, which some writers go by, and is this process's own. An OSError
    names the file at its place.
    """
    partial = path.with_name(f"{PARTIAL}{os.getpid()}.{path.name}")
    try:
        write(partial)
        partial.replace(path)
    except OSError as error:
        raise named(error, path) from error
    finally:
        partial.unlink(missing_ok=True)


def named(error: OSError, path: Path) -> OSError:
    """Return an OSError that names a file: a write to an open file, or by a library in C, does not.

    >>> print(named(OSError(28, "No space left on device"), Path("runs/a/run.json")))
    [Errno 28] No space left on device: 'runs/a/run.json'
    """
    if error.errno is None:
        return OSError(f"{path}: {error}")
    return OSError(error.errno, error.strerror or os.strerror(error.errno), str(path))


@contextmanager
def full_disk_explained(path: Path, go_on: Callable[[], str] = lambda: "the same command goes on") -> Iterator[None]:
    """Raise TrainingError in place of the OSError of a full disk: the file, or `path`, the reason, and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        file = error.filename or path
        raise TrainingError(f"{file} cannot be written: {error.strerror}; make room, and {go_on()}") from error


def remove_partials(folder: Path, name: str | None = None) -> None:
    """Remove what killed processes have left of files that they were writing, of any file or of one name.

    Only for a folder, or a file, that no other process writes: under its lock.
    """
    ending = ".*" if name is None else re.escape(name)
    pattern = re.compile(rf"{re.escape(PARTIAL)}\d+\.{ending}")
    for each in folder.glob(f"{PARTIAL}*"):
        if pattern.fullmatch(each.name):
            each.unlink(missing_ok=True)
