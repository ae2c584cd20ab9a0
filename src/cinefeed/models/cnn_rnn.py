"""A network of a CNN shared by all frames and a recurrent layer over time."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import keras
import numpy as np
from keras import layers

from cinefeed.core.arguments import check_arguments
from cinefeed.core.errors import SettingError, did_you_mean
from cinefeed.feed.labels import FeedSpec
from cinefeed.models.norm import BatchNormalization
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
from cinefeed.models.pretrained_backbones import frame_backbone

Norm = Literal["none", "layer", "batch"]


@check_arguments()
def cnn_rnn(
    spec: FeedSpec,
    *,
    filters: Sequence[int] = (16, 32, 64, 64),
    norm: Norm = "none",
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
    """Return a network that encodes each frame with a CNN, then the sequence of frames with a recurrent layer.

    The first layer scales uint8 and uint16 clips to -1..3, because medical frames are dark and their mean is then near
    0; float32 clips are not scaled. For the CNN, time is folded into the batch (82 ms per training step, compared with
    125 ms with `TimeDistributed`). The recurrent layer reads the features of each frame and their change from the mean
    of the clip. The output depends on the task:

    regression   (batch, 1)        in units of the label; the initial prediction is the mean of the training labels
    binary       (batch, 1)        probability of `classes[1]`
    multiclass   (batch, classes)  probabilities in the order of `classes`

    With several targets, each has a head, and the output is a dictionary by target name. Inputs are "clips" (or one
    per view), covariates and, if the spec is padded, "valid" (batch, frames), bool. Covariates and the features of
    several views are concatenated before the dense layer. Padding frames do not change the output. The model can be
    saved as `.keras` and loaded in safe mode without cinefeed.

    Args:
        spec: The spec of the feed.
        filters: Filters of each convolution, all with stride 2 and ReLU: 5x5 for the first, then 3x3. The features of a
            frame are the mean of the last maps.
        norm: "layer" or "batch" normalisation after each convolution of `filters`, or "none". Clips with padding cannot
            have "batch", whose statistics would include padding frames.
        backbone: Name of a network of `keras.applications` to use instead of `filters`; see `frame_backbone`.
        weights: Weight file of the backbone.
        frozen: Exclude the backbone from training.
        rnn: "gru", "lstm", or "none" to ignore the order of frames, as a baseline without motion.
        bidirectional: Read the frames in both directions.
        pooling: "mean" or "attention" over time.
        units: Units of the recurrent layer.
        encoders: "shared" or "own" encoders of several views.
        dense: Units of the dense layer before the heads; 0 for none.
        dropout: Dropout rate before the dense layer.
        seed: Seed of the initial weights and dropout.

    Raises SettingError for an unsupported spec or setting.

    >>> spec = FeedSpec(clip_shape=(16, 64, 64, 1), dtype=np.dtype("uint8"), batch_size=16, target="age",
    ...                 task="regression", target_mean=56.0, target_scale=11.0)
    >>> model = cnn_rnn(spec)
    >>> model.output_shape
    (None, 1)
    """
    check_targets(spec)
    check_sizes(filters=filters, units=units, dense=dense, dropout=dropout)
    check_over_time(rnn=rnn, bidirectional=bidirectional, pooling=pooling)
    if norm not in get_args(Norm):
        raise SettingError(f"norm={norm!r} is not a choice; {did_you_mean(norm, get_args(Norm))}")
    if norm == "batch" and spec.padded:
        raise SettingError(
            "norm='batch' would average over padding frames too; use norm='layer', or clips without padding"
        )
    if backbone is None:
        if weights is not None or frozen:
            raise SettingError("weights and frozen need a backbone; give one of keras.applications, or leave them out")
        check_frames(spec, halvings=len(filters), cause=f"{len(filters)} convolutions with stride 2")
    inputs, seeded = inputs_of(spec), Seeded(seed)

    def make_encoder(suffix: str) -> Encoder:
        if backbone is None:
            frame_encoder = _frame_cnn(filters, spec.dtype, seeded, norm=norm)
        else:
            frame_encoder = frame_backbone(
                backbone, spec=spec, weights=weights, frozen=frozen, seeded=seeded, name=f"backbone{suffix}"
            )
        sequence_encoder = over_time(
            inputs.valid, rnn=rnn, units=units, bidirectional=bidirectional, pooling=pooling, seeded=seeded
        )

        def encoder(clips: keras.KerasTensor) -> keras.KerasTensor:
            frames, *shape = spec.clip_shape
            x = keras.ops.reshape(clips, (-1, *shape))
            x = layers.Identity(name=f"{FRAMES}_{clips.name}")(x)
            x = layers.Identity(name=f"{FEATURES}_{clips.name}")(frame_encoder(x))
            return sequence_encoder(keras.ops.reshape(x, (-1, frames, x.shape[-1])))

        return encoder

    features = encode(inputs, make_encoder, encoders=encoders)
    return finish(features, inputs, spec, dense=dense, dropout=dropout, seeded=seeded, name="cnn_rnn")


def _frame_cnn(filters: Sequence[int], dtype: np.dtype[Any], seeded: Seeded, *, norm: Norm) -> Encoder:
    """Return an encoder of frames: convolutions with stride 2, then the mean of the last maps."""
    convolutions = [
        layers.Conv2D(
            stage_filters,
            3 if stage else 5,
            strides=2,
            padding="same",
            activation="relu" if norm == "none" else None,
            kernel_initializer=seeded.initializer("HeNormal"),
        )
        for stage, stage_filters in enumerate(filters)
    ]

    norms: list[Any]  # keras is untyped
    if norm == "batch":
        norms = [BatchNormalization(momentum=0.9, epsilon=1e-5) for _ in filters]
    else:
        norms = [layers.GroupNormalization(groups=1) if norm == "layer" else None for _ in filters]

    def encoder(frames: keras.KerasTensor) -> keras.KerasTensor:
        x = scaled(frames, dtype)
        for convolution, normalise in zip(convolutions, norms, strict=True):
            x = convolution(x)
            x = x if normalise is None else keras.ops.relu(normalise(x))
        return layers.GlobalAveragePooling2D()(x)

    return encoder
