"""Keras, or a short error if Keras or its backend is not installed. Other modules here import it from this one."""

from typing import Any

from cinefeed.core.errors import keras_missing

try:
    import keras
except ImportError as error:
    raise keras_missing(error) from None  # the traceback of Keras' own imports has 40 lines and names no remedy

__all__ = ["Logs", "keras"]

Logs = dict[str, Any] | None  # of a callback
