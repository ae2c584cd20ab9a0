"""Networks for clips, as functions that return a `keras.Model`. Importing it imports Keras and its backend."""

from cinefeed.core.errors import keras_missing

try:
    import keras as _keras  # noqa: F401
except ImportError as _error:
    raise keras_missing(_error) from None

from cinefeed.models.autoencoder import ClipLoss, autoencoder
from cinefeed.models.cnn3d import cnn3d
from cinefeed.models.cnn_rnn import cnn_rnn
from cinefeed.models.feature_rnn import feature_rnn
from cinefeed.models.heads import attentive, linear, ordered
from cinefeed.models.pretrained import pretrained
from cinefeed.models.reference import reference_cnn_lstm

__all__ = [
    "ClipLoss",
    "attentive",
    "autoencoder",
    "cnn3d",
    "cnn_rnn",
    "feature_rnn",
    "linear",
    "ordered",
    "pretrained",
    "reference_cnn_lstm",
]
