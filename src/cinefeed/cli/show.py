"""Output of commands: results on stdout, messages on stderr."""

import json
import os
import sys
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import Any

from cinefeed.core.errors import MissingExtraError, keras_missing
from cinefeed.core.keras_backend import keras_backend
from cinefeed.core.text import one_line, terminal_text
from cinefeed.training.run import plain


def emit(result: Mapping[str, Any], *, as_json: bool, text: str) -> None:
    """Print the result of a command: as JSON, or as text."""
    print(json.dumps(plain(result), ensure_ascii=False) if as_json else terminal_text(text))


def note(text: str) -> None:
    """Print a message on stderr."""
    print(terminal_text(text), file=sys.stderr, flush=True)


def list_failures(failures: Iterable[Mapping[str, str]]) -> None:
    """Print the path and error of each video that could not be read, on stderr."""
    for failure in failures:
        note(one_line(f"{failure['path']}: {failure['error']}"))


def choose_backend() -> str:
    """Set KERAS_BACKEND to an installed backend unless it is set, and return its name; call it before importing Keras.

    Raises MissingExtraError if Keras or its backend is not installed.
    """
    if find_spec("keras") is None:
        raise MissingExtraError("keras", extra="keras")
    name = keras_backend()
    if name is None:
        raise MissingExtraError(
            "a Keras backend (torch, jax or tensorflow)", extra="torch", hint=" (or 'cinefeed[jax]')"
        )
    if find_spec(name) is None:
        raise keras_missing(ImportError(name=name))
    os.environ["KERAS_BACKEND"] = name
    return name
