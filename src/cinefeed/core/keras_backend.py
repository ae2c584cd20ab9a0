"""The backend that Keras will use, determined without importing Keras."""

import json
import os
from importlib.util import find_spec
from pathlib import Path

from cinefeed.core.errors import KERAS_BACKENDS


def keras_backend() -> str | None:
    """Return the backend that the user chose, else the first one installed; None if there is none.

    The user's choice is KERAS_BACKEND, or the `backend` in keras.json if that is installed: Keras itself writes
    "tensorflow" into that file when it creates it, so a backend in that file that is not installed was not chosen by
    the user.
    """
    backend = os.environ.get("KERAS_BACKEND")
    if backend:
        return backend
    configured = _configured_backend()
    names = (configured, *KERAS_BACKENDS) if configured else KERAS_BACKENDS
    return next((name for name in names if find_spec(name) is not None), None)


def can_import_keras() -> bool:
    """Return whether Keras and the backend that it selects by itself are installed."""
    backend = os.environ.get("KERAS_BACKEND") or _configured_backend() or "tensorflow"
    return find_spec("keras") is not None and find_spec(backend) is not None


def _configured_backend() -> str | None:
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    try:
        backend = json.loads((home / "keras.json").read_text(encoding="utf-8")).get("backend")
    except (OSError, ValueError, AttributeError):
        return None
    return backend if isinstance(backend, str) else None
