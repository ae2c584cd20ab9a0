"""A pretrained PyTorch encoder with a head, trained together: a frozen encoder, or fine-tuning."""

from typing import Literal, get_args

import keras
import numpy as np
from keras import layers

from cinefeed.core.arguments import check_arguments
from cinefeed.core.errors import SettingError, did_you_mean
from cinefeed.feed.labels import FeedSpec
from cinefeed.models.heads import attentive_encoder, linear_encoder
from cinefeed.models.over_time import over_time
from cinefeed.models.parts import (
    FEATURES,
    FRAMES,
    Encoder,
    Encoders,
    Seeded,
    check_sizes,
    check_targets,
    encode,
    finish,
    inputs_of,
)
from cinefeed.models.torch_layer import PretrainedEncoder

Head = Literal["linear", "attentive", "feature_rnn"]


@check_arguments()
def pretrained(
    spec: FeedSpec,
    *,
    encoder: str,
    weights: str | None = None,
    sha256: str | None = None,
    frozen: bool = True,
    head: Head = "attentive",
    units: int = 128,
    encoders: Encoders = "shared",
    dense: int = 0,
    dropout: float = 0.0,
    seed: int = 0,
) -> keras.Model:
    """Return a network of a pretrained PyTorch encoder and a head, on Keras' torch backend.

    The clips of the feed are uint8, without Normalize: the encoder scales them as in its training. An encoder of frames
    has every frame; one of clips has windows of its number of frames, so the clips need a multiple of it. Inputs,
    several views, covariates, targets and padding are those of `cnn_rnn`. Nothing is downloaded. While the encoder is
    frozen for a whole training, `cinefeed encode` computes its features once and is faster.

    Args:
        spec: The spec of the feed.
        encoder: "torchvision:NAME", "timm:NAME", "transformers:FOLDER" or "python:MODULE:FUNCTION".
        weights: Local file of its weights; see `cinefeed.encoders.load_encoder`.
        sha256: The sha256 that the weights must have; a run's settings hold that of its training.
        frozen: Exclude the encoder from training. `[train] unfreeze_epoch` trains it later.
        head: "linear", "attentive" or "feature_rnn": the networks of these names, on the features.
        units: Units of the heads "attentive" and "feature_rnn".
        encoders: "shared" or "own" encoders of several views.
        dense: Units of the dense layer before the heads; 0 for none.
        dropout: Dropout rate before the last layers.
        seed: Seed of the initial weights of the head and of dropout.

    Raises SettingError for an unknown encoder, weights that do not fit, another dtype than uint8, another backend than
    torch, and for clips that the encoder does not take.
    """
    check_targets(spec)
    check_sizes(filters=(1,), dense=dense, dropout=dropout, units=units)
    if head not in get_args(Head):
        raise SettingError(f"head={head!r} is not a choice; {did_you_mean(head, get_args(Head))}")
    if np.dtype(spec.dtype).name != "uint8":
        raise SettingError(
            f"{encoder} needs pixels from 0 to 255; found {np.dtype(spec.dtype).name} in the feed; feed uint8, without "
            "Normalize"
        )
    inputs, seeded = inputs_of(spec), Seeded(seed)

    def make_encoder(suffix: str) -> Encoder:
        network = PretrainedEncoder(encoder=encoder, weights=weights, sha256=sha256, name=f"backbone{suffix}")
        network.trainable = not frozen
        frames, *size = spec.clip_shape
        window = network.preprocessing.frames
        if window is not None and frames % window:
            raise SettingError(
                f"{encoder} has windows of {window} frames, and clips have {frames}; set [clip] frames to a multiple"
            )
        count = frames if window is None else frames // window
        valid = inputs.valid if inputs.valid is None or window is None else inputs.valid[:, ::window]
        of_features = _head(head, valid, frames=count, units=units, dropout=dropout, seeded=seeded)

        def encode_clips(clips: keras.KerasTensor) -> keras.KerasTensor:
            x = keras.ops.reshape(clips, (-1, *([] if window is None else [window]), *size))
            names = (FRAMES, FEATURES) if window is None else ("windows", "window_features")
            x = layers.Identity(name=f"{names[0]}_{clips.name}")(x)
            x = layers.Identity(name=f"{names[1]}_{clips.name}")(network(x))
            return of_features(keras.ops.reshape(x, (-1, count, network.dimension)))

        return encode_clips

    features = encode(inputs, make_encoder, encoders=encoders)
    return finish(features, inputs, spec, dense=dense, dropout=dropout, seeded=seeded, name="pretrained")


def _head(
    head: Head, valid: keras.KerasTensor | None, *, frames: int, units: int, dropout: float, seeded: Seeded
) -> Encoder:
    if head == "linear":
        return linear_encoder(valid)
    if head == "attentive":
        return attentive_encoder(valid, frames=frames, units=units, dropout=dropout, seeded=seeded)
    return over_time(valid, rnn="gru", units=units, bidirectional=False, pooling="mean", seeded=seeded)
