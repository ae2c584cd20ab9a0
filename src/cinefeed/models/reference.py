"""The 2020 system's network for cardiac-MRI cine, layer for layer: one CNN shared by all frames, then an LSTM."""

from itertools import count

import keras
from keras import layers

from cinefeed.errors import SettingError
from cinefeed.models.norm import batch_norm
from cinefeed.models.parts import FEATURES, FRAMES

_L2 = 0.001
_BLOCKS = (64, 128, 256, 512)
_LSTM_UNITS = 128
_SPATIAL_DROPOUT = 0.3


def reference_cnn_lstm(clip_shape: tuple[int, int, int, int] = (25, 150, 150, 1), *, seed: int = 0) -> keras.Model:
    """Return the network that the 2020 system trained to read one number from a cine.

    `clip_shape` is (frames, height, width, channels); its input "clips" is float32, already scaled (see Normalize),
    its output (batch, 1), in units of the label. The 2020 system ran the CNN frame by frame; here time is folded into
    the batch, which is the same network, faster. Per frame of 150 x 150:

    conv 5x5/2 same, 32            75 x 75
    conv 3x3 valid, 32             73 x 73      pool -> 36 x 36
    2 conv 3x3 same, 64            36 x 36      pool -> 18 x 18      spatial dropout 0.3
    2 conv 3x3 same, 128           18 x 18      pool ->  9 x 9       spatial dropout 0.3
    2 conv 3x3 same, 256            9 x 9       pool ->  4 x 4       spatial dropout 0.3
    2 conv 3x3 same, 512            4 x 4       pool ->  2 x 2       flatten -> 2048 features a frame

    Each convolution has batch norm, then SELU, and an L2 penalty of 0.001 (not halved: Keras' own). Then LSTM 128 that
    returns all its steps, flatten, dense 128 SELU, dense 1. `seed` fixes the first weights and the dropout.
    Raises SettingError where a frame is too small for the five poolings.

    >>> model = reference_cnn_lstm((25, 150, 150, 1))
    >>> f"{model.count_params():,}"
    '6,244,577'
    """
    frames, height, width, channels = clip_shape
    if min(_last_size(height), _last_size(width)) < 1:
        raise SettingError(
            f"reference_cnn_lstm halves a frame six times: {height} x {width} ends at "
            f"{max(_last_size(height), 0)} x {max(_last_size(width), 0)}; give frames of at least 67 x 67, "
            f"or take cnn_rnn with fewer filters"
        )
    seeds = count(seed * 1000)  # a number for each layer: two layers of one shape must not start alike
    # On torch Keras copies maps with their channels last to channels first at every layer, and back. The weights are of
    # one shape either way; where a model file is to run elsewhere, build the network there and load its weights.
    channels_first = keras.config.backend() == "torch"
    order = {"data_format": "channels_first"} if channels_first else {}

    def convolve(x: keras.KerasTensor, filters: int, size: int = 3, **options: object) -> keras.KerasTensor:
        x = layers.Conv2D(
            filters,
            size,
            kernel_initializer=keras.initializers.GlorotUniform(seed=next(seeds)),
            kernel_regularizer=keras.regularizers.L2(_L2),
            **order,
            **options,
        )(x)
        return layers.Activation("selu")(batch_norm(axis=1 if channels_first else -1)(x))

    clips = keras.Input((frames, height, width, channels), name="clips")
    x = layers.Identity(name=f"{FRAMES}_clips")(keras.ops.reshape(clips, (-1, height, width, channels)))
    if channels_first:
        x = keras.ops.transpose(x, (0, 3, 1, 2))
    x = convolve(x, 32, size=5, strides=2, padding="same")
    x = convolve(x, 32, padding="valid")
    x = layers.MaxPooling2D(**order)(x)
    for filters in _BLOCKS:
        x = convolve(x, filters, padding="same")
        x = convolve(x, filters, padding="same")
        x = layers.MaxPooling2D(**order)(x)
        if filters != _BLOCKS[-1]:
            x = layers.SpatialDropout2D(_SPATIAL_DROPOUT, seed=next(seeds), **order)(x)
    if channels_first:  # features are in one order on every backend
        x = keras.ops.transpose(x, (0, 2, 3, 1))
    x = layers.Identity(name=f"{FEATURES}_clips")(layers.Flatten()(x))
    x = keras.ops.reshape(x, (-1, frames, x.shape[1]))
    x = layers.LSTM(
        _LSTM_UNITS,
        return_sequences=True,
        kernel_initializer=keras.initializers.GlorotUniform(seed=next(seeds)),
        recurrent_initializer=keras.initializers.Orthogonal(seed=next(seeds)),
    )(x)
    x = layers.Flatten()(x)
    x = layers.Dense(128, activation="selu", kernel_initializer=keras.initializers.GlorotUniform(seed=next(seeds)))(x)
    x = layers.Dense(1, kernel_initializer=keras.initializers.GlorotUniform(seed=next(seeds)))(x)
    return keras.Model([clips], x, name="reference_cnn_lstm")


def _last_size(size: int) -> int:
    """Return the side of the last feature map: ceil(size / 2) by the strided convolution, -2 by the valid one, / 32."""
    return (-(-size // 2) - 2) // 32
