"""Files that other programs see whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path

PARTIAL = ".partial."  # how the name of a file that is being written begins


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make the file beside its place, then move it there: a reader sees all of it or nothing.

    The name that `write` is given keeps the suffixes, which some writers go by, and is this process's own.
    """
    partial = path.with_name(f"{PARTIAL}{os.getpid()}.{path.name}")
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
