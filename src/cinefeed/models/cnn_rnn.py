"""A CNN shared by all frames, then a recurrent layer over time: the network that a feed's spec asks for."""

from collections.abc import Sequence
from itertools import count
from typing import Literal, get_args

import keras
import numpy as np
from keras import layers

from cinefeed.errors import SettingError, did_you_mean
from cinefeed.feed.targets import FeedSpec, Task

Recurrent = Literal["gru", "lstm"]
_PIXEL_SCALE = {"uint8": 1 / 255, "uint16": 1 / 65535, "float32": 1.0}


def cnn_rnn(
    spec: FeedSpec,
    *,
    filters: Sequence[int] = (16, 32, 64, 64),
    rnn: Recurrent = "gru",
    units: int = 64,
    dense: int = 64,
    dropout: float = 0.0,
    seed: int = 0,
) -> keras.Model:
    """Return a network that reads a clip frame by frame with one CNN, then all frames in their order.

    uint8 or uint16 clips are scaled to 0..1 by the first layer, float32 ones are taken as they are. Time is folded
    into the batch for the CNN (82 against 125 ms a training step with `TimeDistributed`): a 5x5 convolution of stride
    2, then one 3x3 convolution and 2x2 max-pooling for each further number in `filters`, all with batch norm and ReLU;
    the mean over the last map is a frame's features. `rnn` of `units` reads them; then `dropout`, a `dense` layer
    (0 for none) and the head:

    regression   (batch, 1)        in units of the label: the first predictions are the training labels' mean
    binary       (batch, 1)        probability of `classes[1]`
    multiclass   (batch, classes)  probabilities in the order of `classes`

    Inputs are "clips" and, where the spec is padded, "valid" (batch, frames), bool: padding frames then change nothing.
    The model saves as `.keras` and loads in safe mode, with Keras alone. `seed` fixes the first weights and dropout.
    Raises SettingError for a spec that cannot fit.

    >>> spec = FeedSpec(clip_shape=(16, 64, 64, 1), dtype=np.dtype("uint8"), batch_size=16, target="age",
    ...                 task="regression", target_mean=56.0, target_scale=11.0)
    >>> model = cnn_rnn(spec)
    >>> model.output_shape
    (None, 1)
    """
    dtype = np.dtype(spec.dtype).name
    _check(spec, dtype, filters=filters, rnn=rnn, units=units, dense=dense, dropout=dropout)
    frames, height, width, channels = spec.clip_shape
    seeds = count(seed * 1000)  # a number for each layer: two layers of one shape must not start alike

    def initializer(kind: str) -> keras.initializers.Initializer:
        return getattr(keras.initializers, kind)(seed=next(seeds))

    clips = keras.Input((frames, height, width, channels), dtype=dtype, name="clips")
    x = keras.ops.reshape(clips, (-1, height, width, channels))
    x = layers.Rescaling(_PIXEL_SCALE[dtype])(x)
    for stage, number in enumerate(filters):
        x = layers.Conv2D(
            number,
            3 if stage else 5,
            strides=1 if stage else 2,
            padding="same",
            use_bias=False,  # batch norm adds one
            kernel_initializer=initializer("HeNormal"),
        )(x)
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
        x = layers.ReLU()(x)
        if stage:
            x = layers.MaxPooling2D()(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = keras.ops.reshape(x, (-1, frames, filters[-1]))
    recurrent = {"gru": layers.GRU, "lstm": layers.LSTM}[rnn](
        units, kernel_initializer=initializer("GlorotUniform"), recurrent_initializer=initializer("Orthogonal")
    )
    inputs = {"clips": clips}
    if spec.padded:
        inputs["valid"] = keras.Input((frames,), dtype="bool", name="valid")
        x = recurrent(x, mask=inputs["valid"])
    else:
        x = recurrent(x)
    if dropout:
        x = layers.Dropout(dropout, seed=next(seeds))(x)
    if dense:
        x = layers.Dense(dense, activation="relu", kernel_initializer=initializer("HeNormal"))(x)
    return keras.Model(inputs, _head(x, spec, initializer("GlorotUniform")), name="cnn_rnn")


def _head(x: keras.KerasTensor, spec: FeedSpec, initializer: keras.initializers.Initializer) -> keras.KerasTensor:
    """Return the predictions; float32, whatever the precision of the layers below."""
    if spec.task == "regression":
        x = layers.Dense(1, kernel_initializer="zeros", dtype="float32")(x)
        return layers.Rescaling(float(spec.target_scale), float(spec.target_mean), dtype="float32", name="score")(x)
    outputs, activation = (1, "sigmoid") if spec.task == "binary" else (len(spec.classes), "softmax")
    return layers.Dense(outputs, activation=activation, kernel_initializer=initializer, dtype="float32", name="score")(
        x
    )


def _check(
    spec: FeedSpec, dtype: str, *, filters: Sequence[int], rnn: str, units: int, dense: int, dropout: float
) -> None:
    if spec.task not in get_args(Task):
        raise SettingError(f"task={spec.task!r} is not one of a cnn_rnn; {did_you_mean(spec.task, get_args(Task))}")
    if rnn not in get_args(Recurrent):
        raise SettingError(f"rnn={rnn!r} is not a choice; {did_you_mean(rnn, get_args(Recurrent))}")
    if dtype not in _PIXEL_SCALE:
        raise SettingError(f"dtype={dtype!r} is not one of a clip; {did_you_mean(dtype, _PIXEL_SCALE)}")
    if not filters or min(filters) < 1 or units < 1 or dense < 0 or not 0 <= dropout < 1:
        raise SettingError(
            f"filters={tuple(filters)}, units={units}, dense={dense}, dropout={dropout}: give at least one filter "
            f"number, positive sizes (dense may be 0), and a dropout from 0 to below 1"
        )
    _, height, width, _ = spec.clip_shape
    heights, widths = _sizes(height, len(filters)), _sizes(width, len(filters))
    if min(heights[-1], widths[-1]) < 1:
        steps = " -> ".join(f"{high} x {wide}" for high, wide in zip(heights, widths, strict=True))
        raise SettingError(
            f"frames of {height} x {width} are too small for {len(filters)} filter numbers, each of which halves them: "
            f"{steps}; give frames of at least {2 ** len(filters) - 1} pixels a side, or fewer filters"
        )
    if spec.task == "regression" and not (
        np.isfinite(spec.target_mean) and np.isfinite(spec.target_scale) and spec.target_scale > 0
    ):
        raise SettingError(
            f"a regression needs a finite mean and a positive scale of the training labels, found "
            f"target_mean={spec.target_mean}, target_scale={spec.target_scale}; are all labels alike?"
        )
    wanted = {"regression": (0, 0), "binary": (2, 2), "multiclass": (2, np.inf)}[spec.task]
    if spec.task != "regression" and not wanted[0] <= len(spec.classes) <= wanted[1]:
        raise SettingError(
            f"task={spec.task!r} needs {'two classes' if spec.task == 'binary' else 'at least two classes'}, "
            f"found {len(spec.classes)}: {', '.join(map(str, spec.classes)) or 'none'}"
        )


def _sizes(size: int, stages: int) -> list[int]:
    """Return the side of a frame and of each feature map: the first convolution rounds up, poolings round down.

    >>> _sizes(25, 4)
    [25, 13, 6, 3, 1]
    """
    sizes = [size, -(-size // 2)]
    for _ in range(stages - 1):
        sizes.append(sizes[-1] // 2)
    return sizes
