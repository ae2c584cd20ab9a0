"""What a command prints, and where: results on stdout, progress on stderr and on a terminal only."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cinefeed.errors import MissingExtraError
from cinefeed.text import terminal_text
from cinefeed.training.run import plain

Tick = Callable[[int, int], None]


def emit(result: Mapping[str, Any], *, as_json: bool, text: str) -> None:
    """Print a command's result: JSON for programs, or the text for people."""
    print(json.dumps(plain(result), ensure_ascii=False) if as_json else terminal_text(text))


def note(text: str) -> None:
    """Print text about the work, beside its result."""
    print(terminal_text(text), file=sys.stderr, flush=True)


@contextmanager
def ticking(what: str) -> Iterator[Tick | None]:
    """Give a function `tick(done, total)` that moves a bar, or None where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def figures(metrics: Mapping[str, Any]) -> str:
    """Return the single numbers of a table of metrics, one line.

    >>> figures({"r2": 0.8125, "rmse": 4.0, "confusion": [[1, 0], [0, 1]]})
    'r2 0.8125, rmse 4'
    """
    numbers = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    return ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())


def choose_backend() -> str:
    """Choose an installed Keras backend unless the user did, and return its name; call it before Keras is imported.

    The user's choice is KERAS_BACKEND, or the `backend` in keras.json where that is installed: Keras itself writes
    "tensorflow" into that file when there is none, so a name that is not installed there is nobody's choice.
    """
    if find_spec("keras") is None:
        raise MissingExtraError("keras", extra="keras")
    chosen = os.environ.get("KERAS_BACKEND")
    if chosen:
        return chosen
    configured = _configured_backend()
    if configured and find_spec(configured) is not None:
        return configured
    for name in ("torch", "jax", "tensorflow"):  # torch first: its 3-D convolution on CPU was 40 times as fast as JAX's
        if find_spec(name) is not None:
            os.environ["KERAS_BACKEND"] = name
            return name
    raise MissingExtraError("a Keras backend (torch, jax or tensorflow)", extra="torch")


def _configured_backend() -> str | None:
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    try:
        found = json.loads((home / "keras.json").read_text(encoding="utf-8")).get("backend")
    except (OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, str) else None
