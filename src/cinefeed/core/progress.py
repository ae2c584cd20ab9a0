"""Progress of long operations: a callback, a progress bar on a terminal or in a notebook, or none."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, Literal

from cinefeed.core.html import in_notebook, text, updating_display

Progress = Callable[[int, int], None]

_SECONDS_BETWEEN_UPDATES = 0.1


@contextmanager
def shown_progress(progress: Progress | Literal[False] | None, *, what: str) -> Iterator[Progress]:
    """Yield a function `progress(done, total)`: the given one, one that updates a progress bar, or one without effect.

    None shows a bar with the description `what` in a notebook, and if stderr is a terminal; False shows nothing.
    """
    if callable(progress):
        yield progress
    elif progress is None and in_notebook():
        yield _notebook_bar(what)
    elif progress is False or not sys.stderr.isatty():
        yield lambda done, total: None
    else:
        with terminal_bar() as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)


def terminal_bar() -> Any:
    """Return a `rich.progress.Progress` on stderr: description, bar, count and time left; removed when it stops."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Bar(*columns, console=Console(stderr=True), transient=True)


def _notebook_bar(what: str) -> Progress:
    """Return a function that updates one bar below the cell, at most ten times a second."""
    update = updating_display()
    started = shown_at = monotonic()

    def report(done: int, total: int) -> None:
        nonlocal shown_at
        now = monotonic()
        if done < total and now - shown_at < _SECONDS_BETWEEN_UPDATES:
            return
        shown_at, seconds = now, now - started
        rest = f"{seconds:.0f} s" if done >= total else f"{seconds * (total - done) / max(done, 1):.0f} s left"
        bar = f'<progress value="{done}" max="{max(total, 1)}" style="width: 240px; vertical-align: middle"></progress>'
        update(f"<div>{text(what)} {bar} {done:,} of {total:,}, {rest}</div>")

    return report
