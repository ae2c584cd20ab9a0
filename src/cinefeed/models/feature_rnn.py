"""The recurrent half of `cnn_rnn`, for features of frames that `cinefeed encode` has written."""

import keras
import numpy as np

from cinefeed.errors import SettingError
from cinefeed.feed.targets import FeedSpec
from cinefeed.models.over_time import Pooling, Recurrent, check_over_time, over_time
from cinefeed.models.parts import Encoder, Encoders, Seeded, check_sizes, check_targets, encode, finish, inputs_of


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
    """Return a network that reads features of frames in their order: `cnn_rnn` without its CNN.

    A frame of features is one line of numbers, float32 (1, dimension, 1), which a feed gives unchanged with
    `Frame(height=1, width=dimension, channels=1, fit="none", dtype="float32")`. All settings, several views,
    covariates, targets and padding are as in `cnn_rnn`, and so are the weights that follow its CNN.
    Raises SettingError for frames that are pictures.

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
            f"feature_rnn reads features, float32 of 1 x dimension, and the feed gives frames of {height} x {width}, "
            f"{np.dtype(spec.dtype).name}; feed what 'cinefeed encode' wrote with fit='none' and dtype='float32', or "
            f"take cnn_rnn for pictures"
        )
    inputs, seeded = inputs_of(spec), Seeded(seed)

    def encoder_of_clips(suffix: str) -> Encoder:
        of_clip = over_time(
            inputs.valid, rnn=rnn, units=units, bidirectional=bidirectional, pooling=pooling, seeded=seeded
        )
        return lambda clips: of_clip(keras.ops.reshape(clips, (-1, frames, width * channels)))

    features = encode(inputs, encoder_of_clips, encoders=encoders)
    return finish(features, inputs, spec, dense=dense, dropout=dropout, seeded=seeded, name="feature_rnn")
