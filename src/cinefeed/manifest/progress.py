"""How far a long work has come: told to a function, drawn as a bar on a terminal, or kept quiet."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

Progress = Callable[[int, int], None]


@contextmanager
def shown_progress(progress: Progress | Literal[False] | None, *, what: str) -> Iterator[Progress]:
    """Give the work a `progress(done, total)` to call: that of the caller, a bar where stderr is a terminal, or none.

    False shows nothing; None draws the bar, under the name `what`.
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
