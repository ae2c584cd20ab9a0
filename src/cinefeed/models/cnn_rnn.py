"""A CNN shared by all frames, then a recurrent layer over time: the network that a feed's spec asks for."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from cinefeed.errors import SettingError
from cinefeed.feed.targets import FeedSpec
from cinefeed.models.backbones import frame_backbone
from cinefeed.models.over_time import Pooling, Recurrent, check_over_time, over_time
from cinefeed.models.parts import (
    FEATURES,
    FRAMES,
    Encoder,
    Encoders,
    Seeded,
    check_frames,
    check_sizes,
    check_targets,
    encode,
    finish,
    inputs_of,
    scaled,
)


def cnn_rnn(
    spec: FeedSpec,
    *,
    filters: Sequence[int] = (16, 32, 64, 64),
    backbone: str | None = None,
    weights: str | None = None,
    frozen: bool = False,
    rnn: Recurrent = "gru",
    bidirectional: bool = False,
    pooling: Pooling = "mean",
    units: int = 64,
    encoders: Encoders = "shared",
    dense: int = 64,
    dropout: float = 0.0,
    seed: int = 0,
) -> keras.Model:
    """Return a network that reads a clip frame by frame with one CNN, then all frames in their order.

    uint8 and uint16 clips are scaled to -1..3 by the first layer (medical frames are dark: their mean comes near 0),
    float32 ones are taken as they are. Time is folded into the batch for the CNN (82 against 125 ms a training step
    with `TimeDistributed`): a 5x5 convolution, then a 3x3 one for each further number in `filters`, all of stride 2,
    with ReLU; the mean over the last map is a frame's features. They and their change from the clip's mean go through
    `rnn` of `units`, each way where it is `bidirectional`, whose outputs are averaged over time (`pooling`: or weighed
    by what they are, "attention"); then `dropout`, a `dense` layer (0 for none) and the head:

    regression   (batch, 1)        in units of the label: the first predictions are the training labels' mean
    binary       (batch, 1)        probability of `classes[1]`
    multiclass   (batch, classes)  probabilities in the order of `classes`

    Of several targets each has its head, and the output is a dictionary by name. Covariates stand beside the clip's
    features before the dense layer, as do those of several views: read by one CNN and RNN that are "shared", or each by
    its "own" (`encoders`). `rnn="none"` averages over frames in whatever order they come: what a network reaches that
    does not see motion. With `backbone`, a network of `keras.applications` takes the place of `filters`, see
    `frame_backbone` for it, its `weights` and `frozen`.

    Inputs are "clips" (or one a view) and, where the spec is padded, "valid" (batch, frames), bool: padding frames then
    change nothing. The model saves as `.keras` and loads in safe mode, with Keras alone. `seed` fixes the first weights
    and dropout. Raises SettingError for a spec that cannot fit.

    >>> spec = FeedSpec(clip_shape=(16, 64, 64, 1), dtype=np.dtype("uint8"), batch_size=16, target="age",
    ...                 task="regression", target_mean=56.0, target_scale=11.0)
    >>> model = cnn_rnn(spec)
    >>> model.output_shape
    (None, 1)
    """
    check_targets(spec)
    check_sizes(filters=filters, units=units, dense=dense, dropout=dropout)
    check_over_time(rnn=rnn, bidirectional=bidirectional, pooling=pooling)
    if backbone is None:
        if weights is not None or frozen:
            raise SettingError("weights and frozen are a backbone's; name one of keras.applications, or leave them out")
        check_frames(spec, halvings=len(filters), why=f"{len(filters)} filter numbers, each of which halves them")
    inputs, seeded = inputs_of(spec), Seeded(seed)

    def encoder_of_clips(suffix: str) -> Encoder:
        if backbone is None:
            of_frame = _frame_cnn(filters, spec.dtype, seeded)
        else:
            of_frame = frame_backbone(
                backbone, spec=spec, weights=weights, frozen=frozen, seeded=seeded, name=f"backbone{suffix}"
            )
        of_clip = over_time(
            inputs.valid, rnn=rnn, units=units, bidirectional=bidirectional, pooling=pooling, seeded=seeded
        )

        def encoder(clips: keras.KerasTensor) -> keras.KerasTensor:
            frames, *shape = spec.clip_shape
            x = keras.ops.reshape(clips, (-1, *shape))
            x = layers.Identity(name=f"{FRAMES}_{clips.name}")(x)
            x = layers.Identity(name=f"{FEATURES}_{clips.name}")(of_frame(x))
            return of_clip(keras.ops.reshape(x, (-1, frames, x.shape[-1])))

        return encoder

    features = encode(inputs, encoder_of_clips, encoders=encoders)
    return finish(features, inputs, spec, dense=dense, dropout=dropout, seeded=seeded, name="cnn_rnn")


def _frame_cnn(filters: Sequence[int], dtype: np.dtype[Any], seeded: Seeded) -> Encoder:
    """Return what makes features of frames: convolutions of stride 2, then the mean over the last map."""
    convolutions = [
        layers.Conv2D(
            number,
            3 if stage else 5,
            strides=2,
            padding="same",
            activation="relu",
            kernel_initializer=seeded.initializer("HeNormal"),
        )
        for stage, number in enumerate(filters)
    ]

    def encoder(frames: keras.KerasTensor) -> keras.KerasTensor:
        x = scaled(frames, dtype)
        for convolution in convolutions:
            x = convolution(x)
        return layers.GlobalAveragePooling2D()(x)

    return encoder
