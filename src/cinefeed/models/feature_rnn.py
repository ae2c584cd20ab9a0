"""The recurrent part of `cnn_rnn`, for frame features written by `cinefeed encode`."""

import keras

from cinefeed.core.arguments import check_arguments
from cinefeed.feed.labels import FeedSpec
from cinefeed.models.heads import head_on_features
from cinefeed.models.over_time import Pooling, Recurrent, check_over_time, over_time
from cinefeed.models.parts import Encoder, Encoders, Inputs, Seeded, check_sizes


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

    >>> import numpy as np
    >>> spec = FeedSpec(clip_shape=(16, 1, 64, 1), dtype=np.dtype("float32"), batch_size=16, target="age",
    ...                 task="regression", target_mean=56.0, target_scale=11.0)
    >>> feature_rnn(spec).output_shape
    (None, 1)
    """
    check_sizes(filters=(1,), units=units, dense=dense, dropout=dropout)
    check_over_time(rnn=rnn, bidirectional=bidirectional, pooling=pooling)

    def make(inputs: Inputs, seeded: Seeded) -> Encoder:
        return over_time(
            inputs.valid, rnn=rnn, units=units, bidirectional=bidirectional, pooling=pooling, seeded=seeded
        )

    return head_on_features(spec, make, encoders=encoders, dense=dense, dropout=dropout, seed=seed, name="feature_rnn")
