"""The network of the 2020 system for cardiac MRI cine: a CNN shared by all frames, then an LSTM."""

from itertools import count

import keras
from keras import layers

from cinefeed.core.arguments import check_arguments
from cinefeed.core.errors import SettingError
from cinefeed.models.norm import BatchNormalization
from cinefeed.models.parts import FEATURES, FRAMES

_L2 = 0.001
_BLOCKS = (64, 128, 256, 512)
_LSTM_UNITS = 128
_SPATIAL_DROPOUT = 0.3


@check_arguments()
def reference_cnn_lstm(clip_shape: tuple[int, int, int, int] = (25, 150, 150, 1), *, seed: int = 0) -> keras.Model:
    """Return the network of the 2020 system, which predicts one number from a cine.

    `clip_shape` is (frames, height, width, channels). The input "clips" is float32 and already scaled (see Normalize).
    The output is (batch, 1), in units of the label. The 2020 system applied the CNN frame by frame; here time is folded
    into the batch, which is equivalent and faster. Layers and map sizes for frames of 150 x 150:

    conv 5x5/2 same, 32            75 x 75
    conv 3x3 valid, 32             73 x 73      pool -> 36 x 36
    2 conv 3x3 same, 64            36 x 36      pool -> 18 x 18      spatial dropout 0.3
    2 conv 3x3 same, 128           18 x 18      pool ->  9 x 9       spatial dropout 0.3
    2 conv 3x3 same, 256            9 x 9       pool ->  4 x 4       spatial dropout 0.3
    2 conv 3x3 same, 512            4 x 4       pool ->  2 x 2       flatten -> 2048 features per frame

    Each convolution has an L2 penalty of 0.001 (in Keras' definition, without the factor 1/2) and is followed by batch
    norm and SELU. The CNN is followed by an LSTM with 128 units that returns all steps, flatten, a dense layer of 128
    units with SELU, and a dense layer of 1 unit. `seed` determines the initial weights and dropout.

    Raises SettingError for frames that are too small for the five poolings.

    >>> model = reference_cnn_lstm((25, 150, 150, 1))
    >>> f"{model.count_params():,}"
    '6,244,577'
    """
    frames, height, width, channels = clip_shape
    if min(_last_size(height), _last_size(width)) < 1:
        raise SettingError(
            f"reference_cnn_lstm halves frames six times: {height} x {width} becomes "
            f"{max(_last_size(height), 0)} x {max(_last_size(width), 0)}; use frames of at least 67 x 67, "
            f"or cnn_rnn with fewer filters"
        )
    seeds = count(seed * 1000)  # one per layer: layers of equal shape must not have equal initial weights
    # On torch, Keras converts channels-last maps to channels-first and back in every layer. The weights have the same
    # shape in both formats: to run a model on another backend, build the network there and load the weights.
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
        return layers.Activation("selu")(BatchNormalization(axis=1 if channels_first else -1)(x))

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
    if channels_first:  # the order of features is the same on every backend
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
    """Return the side of the last map: ceil(size / 2) for the strided convolution, - 2 for the valid one, // 32."""
    return (-(-size // 2) - 2) // 32
