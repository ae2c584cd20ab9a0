"""Files of parts in the folder of the whole: linked, or copied to another file system."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from cinefeed.core.files import DISK_FULL, remove_partials, write_atomically
from cinefeed.core.progress import shown_progress


def link_files(files: Iterable[tuple[Path, Path]]) -> None:
    """Give each file (source, target) its second name, replacing another file of that name; raises OSError.

    Call it under the lock of the folder of the targets: partial files of a killed process beside them are removed.
    """
    pairs = [*files]
    for folder in {target.parent for _, target in pairs}:
        remove_partials(folder)
    with shown_progress(None, what="merge") as report:
        for count, (source, target) in enumerate(pairs, start=1):
            if not (target.exists() and os.path.samefile(source, target)):  # noqa: PTH121
                target.parent.mkdir(parents=True, exist_ok=True)
                _link(source, target)
            report(count, len(pairs))


def _link(source: Path, target: Path) -> None:
    def write(partial: Path) -> None:
        try:
            partial.hardlink_to(source)
        except OSError as error:  # another file system, or one without links
            if error.errno in DISK_FULL:
                raise
            shutil.copy2(source, partial)  # with its modification time

    write_atomically(target, write)
