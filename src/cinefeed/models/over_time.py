"""Features of clips from features of frames: change over time, a recurrent layer, and pooling over time."""

from typing import Literal, get_args

import keras
from keras import layers

from cinefeed.core.errors import SettingError, did_you_mean
from cinefeed.models.parts import Encoder, Seeded, mean_over_time

Recurrent = Literal["gru", "lstm", "none"]
Pooling = Literal["mean", "attention"]
_EPSILON = 0.02  # avoids division by zero for features that are 0 in all frames


def check_over_time(*, rnn: Recurrent, bidirectional: bool, pooling: Pooling) -> None:
    """Raise SettingError for an invalid choice."""
    for name, value, choices in (("rnn", rnn, Recurrent), ("pooling", pooling, Pooling)):
        if value not in get_args(choices):
            raise SettingError(f"{name}={value!r} is not a choice; {did_you_mean(value, get_args(choices))}")
    if bidirectional and rnn == "none":
        raise SettingError(
            "bidirectional needs a recurrent layer; found rnn='none'; leave it out, or use 'gru' or 'lstm'"
        )


def over_time(
    valid: keras.KerasTensor | None,
    *,
    rnn: Recurrent,
    units: int,
    bidirectional: bool,
    pooling: Pooling,
    seeded: Seeded,
) -> Encoder:
    """Return an encoder from (batch, frames, features) to (batch, features), with its own weights.

    Args:
        valid: Whether each frame is valid, (batch, frames), bool; None without padding. Padding frames are ignored.
        rnn: Kind of recurrent layer, or "none".
        units: Units of the recurrent layer.
        bidirectional: Read the frames in both directions.
        pooling: "mean" or "attention" over time.
        seeded: Source of seeds.
    """
    normalize = layers.LayerNormalization()
    recurrent = _recurrent(rnn, units, bidirectional, seeded)
    scorer = layers.Dense(1, kernel_initializer=seeded.initializer("GlorotUniform")) if pooling != "mean" else None

    def encoder(x: keras.KerasTensor) -> keras.KerasTensor:
        x = _with_change(x, valid, normalize)
        if recurrent is not None:
            x = recurrent(x, mask=valid)
        x = mean_over_time(x, valid) if scorer is None else _attention(x, valid, scorer)
        return keras.ops.squeeze(x, axis=1)

    return encoder


def _recurrent(rnn: Recurrent, units: int, bidirectional: bool, seeded: Seeded) -> layers.Layer | None:
    if rnn == "none":
        return None
    kind = {"gru": layers.GRU, "lstm": layers.LSTM}[rnn]
    forward, *backward = (
        kind(
            units,
            return_sequences=True,
            go_backwards=backwards,
            kernel_initializer=seeded.initializer("GlorotUniform"),
            recurrent_initializer=seeded.initializer("Orthogonal"),
        )
        for backwards in ((False, True) if bidirectional else (False,))
    )
    return layers.Bidirectional(forward, backward_layer=backward[0]) if backward else forward


def _with_change(
    x: keras.KerasTensor, valid: keras.KerasTensor | None, normalize: layers.LayerNormalization
) -> keras.KerasTensor:
    """Return the normalized features of each frame, concatenated with their relative change from the clip's mean.

    Features after a ReLU are positive, and the motion of a heart changes them much less than its size, position and
    gain. Without the change, a GRU did not learn the ejection fraction of the demo data in eight epochs (test R2 -0.4);
    with it, the test R2 was 0.83. The change is relative to the mean absolute value, because the features of some
    backbones are negative too.
    """
    mean, magnitude = mean_over_time(x, valid), mean_over_time(keras.ops.abs(x), valid)
    change = 4.0 * (x - mean) / (magnitude + _EPSILON)  # 4: a heartbeat changes a feature by about a quarter
    return layers.Concatenate()([normalize(x), change])


def _attention(x: keras.KerasTensor, valid: keras.KerasTensor | None, scorer: layers.Dense) -> keras.KerasTensor:
    """Return (batch, 1, features): the mean over time, weighted by a softmax of scores; padding has a weight of 0."""
    weights = keras.ops.cast(scorer(x), "float32")
    if valid is not None:  # -1e9, not -inf: softmax would be NaN for a row of padding only
        weights = keras.ops.where(keras.ops.expand_dims(valid, -1), weights, -1e9)
    return keras.ops.sum(x * keras.ops.softmax(weights, axis=1), axis=1, keepdims=True)
