"""Progress of long operations: a callback, a progress bar on a terminal, or none."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

Progress = Callable[[int, int], None]


@contextmanager
def shown_progress(progress: Progress | Literal[False] | None, *, what: str) -> Iterator[Progress]:
    """Yield a function `progress(done, total)`: the given one, one that updates a progress bar, or one without effect.

    None shows a bar with the description `what` if stderr is a terminal; False shows nothing.
    """
    if callable(progress):
        yield progress
    elif progress is False or not sys.stderr.isatty():
        yield lambda done, total: None
    else:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Bar(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
