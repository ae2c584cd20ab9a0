"""Networks that read clips, as functions that return a `keras.Model`. Importing this imports Keras and its backend."""

try:
    import keras as _keras  # noqa: F401
except ModuleNotFoundError as _error:
    if _error.name != "keras":  # Keras is there, and its backend is not: Keras' own message names it
        raise
    from cinefeed.errors import MissingExtraError

    raise MissingExtraError("keras", extra="keras") from _error

from cinefeed.models.cnn_rnn import cnn_rnn
from cinefeed.models.reference import reference_cnn_lstm

__all__ = ["cnn_rnn", "reference_cnn_lstm"]
