"""The recurrent part of `cnn_rnn`, for frame features written by `cinefeed encode`."""

import keras
import numpy as np

from cinefeed.core.arguments import check_arguments
from cinefeed.core.errors import SettingError
from cinefeed.feed.labels import FeedSpec
from cinefeed.models.over_time import Pooling, Recurrent, check_over_time, over_time
from cinefeed.models.parts import Encoder, Encoders, Seeded, check_sizes, check_targets, encode, finish, inputs_of


@check_arguments()
def feature_rnn(
    spec: FeedSpec,
    *,
    rnn: Recurrent = "gru",
    bidirectional: bool = False,
    pooling: Pooling = "mean",
    units: int = 64,
    encoders: Encoders = "shared",
    dense: int = 64,
    dropout: float = 0.0,
    seed: int = 0,
) -> keras.Model:
    """Return a network for sequences of frame features: `cnn_rnn` without its CNN.

    The features of a frame are float32 (1, dimension, 1). A feed returns them unchanged with
    `Frame(height=1, width=dimension, channels=1, fit="none", dtype="float32")`. Settings, several views, covariates,
    targets, padding and initial weights are those of `cnn_rnn`.

    Raises SettingError for frames that are images, and for an unsupported spec or setting.

    >>> spec = FeedSpec(clip_shape=(16, 1, 64, 1), dtype=np.dtype("float32"), batch_size=16, target="age",
    ...                 task="regression", target_mean=56.0, target_scale=11.0)
    >>> feature_rnn(spec).output_shape
    (None, 1)
    """
    check_targets(spec)
    check_sizes(filters=(1,), units=units, dense=dense, dropout=dropout)
    check_over_time(rnn=rnn, bidirectional=bidirectional, pooling=pooling)
    frames, height, width, channels = spec.clip_shape
    if height != 1 or np.dtype(spec.dtype).kind != "f":
        raise SettingError(
            f"feature_rnn needs features, float32 of 1 x dimension; found frames of {height} x {width}, "
            f"{np.dtype(spec.dtype).name}; feed the output of 'cinefeed encode' with fit='none' and dtype='float32', "
            f"or use cnn_rnn for images"
        )
    inputs, seeded = inputs_of(spec), Seeded(seed)

    def make_encoder(suffix: str) -> Encoder:
        sequence_encoder = over_time(
            inputs.valid, rnn=rnn, units=units, bidirectional=bidirectional, pooling=pooling, seeded=seeded
        )
        return lambda clips: sequence_encoder(keras.ops.reshape(clips, (-1, frames, width * channels)))

    features = encode(inputs, make_encoder, encoders=encoders)
    return finish(features, inputs, spec, dense=dense, dropout=dropout, seeded=seeded, name="feature_rnn")
