"""Networks of separate convolutions over space and time: R(2+1)D-18, and a small network."""

from functools import partial
from typing import Literal, get_args

import keras

from cinefeed.core.arguments import check_arguments
from cinefeed.core.errors import SettingError, did_you_mean
from cinefeed.feed.labels import FeedSpec
from cinefeed.models.parts import (
    Encoder,
    Encoders,
    Seeded,
    check_sizes,
    check_targets,
    encode,
    finish,
    inputs_of,
    mean_over_time,
    scaled,
)
from cinefeed.models.spacetime import Convolution, Masked, twice
from cinefeed.models.torchvision_weights import kinetics_scaling, load_r2plus1d_18

Size = Literal["small", "r2plus1d_18"]
Pooling = Literal["mean", "ordered"]
_SMALL = ((16, 1), (32, 1), (64, 2), (64, 2))  # filters and stride over time of each stage
_TIME_STRIDE = {"small": 4, "r2plus1d_18": 8}  # total stride over time
_FRAME_STRIDE = 16  # total stride over height and width, for both sizes


@check_arguments()
def cnn3d(
    spec: FeedSpec,
    *,
    size: Size = "small",
    weights: str | None = None,
    pooling: Pooling = "mean",
    encoders: Encoders = "shared",
    dense: int = 64,
    dropout: float = 0.0,
    seed: int = 0,
) -> keras.Model:
    """Return a network of convolutions over space and time, each followed by batch norm.

    The features of a clip are the mean of the last maps over pixels, pooled over time. Inputs, several views,
    covariates, the dense layer and the heads are those of `cnn_rnn`.

    Args:
        spec: The spec of the feed.
        size: "small" has four stages of 16, 32, 64 and 64 filters. Each stage is a convolution over each frame (5x5 in
            the first stage, then 3x3) with stride 2, and one over three frames in time, with stride 2 in the last two
            stages. "r2plus1d_18" is R(2+1)D-18 with eight residual blocks of 64 to 512 filters (Tran et al. 2018,
            "A Closer Look at Spatiotemporal Convolutions for Action Recognition"). With dense=0, three channels and the
            400 classes of Kinetics it has 31,505,325 trainable parameters, as torchvision's r2plus1d_18, and the same
            function of its weights.
        weights: A local file of weights of torchvision's r2plus1d_18 (.pth or .safetensors), for that size; the layer
            of its classes is left out. Pixels are then scaled as torchvision scales them, and uint8 clips are needed.
            For one channel the first kernel is summed over its three. Nothing is downloaded.
        pooling: "mean" over valid frames, or "ordered": the features of all time steps one after another, for clips
            whose frames correspond, such as the phases of a cycle or a word in the middle.
        encoders: "shared" or "own" encoders of several views.
        dense: Units of the dense layer before the heads; 0 for none.
        dropout: Dropout rate before the dense layer.
        seed: Seed of the initial weights and dropout.

    Raises SettingError for an unsupported spec or setting.

    >>> import numpy as np
    >>> spec = FeedSpec(clip_shape=(16, 64, 64, 1), dtype=np.dtype("uint8"), batch_size=8, target="sick",
    ...                 task="binary", classes=("no", "yes"))
    >>> cnn3d(spec).output_shape
    (None, 1)
    """
    check_targets(spec)
    check_sizes(filters=(1,), dense=dense, dropout=dropout)
    if size not in get_args(Size):
        raise SettingError(f"size={size!r} is not a choice; {did_you_mean(size, get_args(Size))}")
    if pooling not in get_args(Pooling):
        raise SettingError(f"pooling={pooling!r} is not a choice; {did_you_mean(pooling, get_args(Pooling))}")
    frames, height, width, _ = spec.clip_shape
    if frames < _TIME_STRIDE[size] or min(height, width) < _FRAME_STRIDE:
        raise SettingError(
            f"clips of {frames} frames of {height} x {width} are too small for cnn3d(size={size!r}), which has a total "
            f"stride of {_TIME_STRIDE[size]} over time and {_FRAME_STRIDE} over height and width; use at least "
            f"{_TIME_STRIDE[size]} frames of {_FRAME_STRIDE} x {_FRAME_STRIDE}"
        )
    if weights is not None and size == "small":
        raise SettingError("weights are for size='r2plus1d_18'; leave them out, or choose that size")
    inputs, seeded = inputs_of(spec), Seeded(seed)

    def make_encoder(suffix: str) -> Encoder:
        stages = _small(seeded) if size == "small" else _r2plus1d_18(seeded)
        scale = partial(scaled, dtype=spec.dtype) if weights is None else kinetics_scaling(spec)

        def encoder(clips: keras.KerasTensor) -> keras.KerasTensor:
            maps: Masked = (scale(clips), inputs.valid)
            for stage in stages:
                maps = stage(maps)
            x, valid = maps
            if weights is not None:
                load_r2plus1d_18([each for stage in stages for each in _convolutions_of(stage)], weights)
            x = keras.ops.mean(x, axis=(2, 3))
            if pooling == "mean":
                return keras.ops.squeeze(mean_over_time(x, valid), axis=1)
            if valid is not None:
                x = keras.ops.where(keras.ops.expand_dims(valid, -1), x, 0.0)
            return keras.ops.reshape(x, (-1, x.shape[1] * x.shape[2]))

        return encoder

    features = encode(inputs, make_encoder, encoders=encoders)
    return finish(features, inputs, spec, dense=dense, dropout=dropout, seeded=seeded, name="cnn3d")


def _convolutions_of(stage: "Convolution | _Block") -> list[Convolution]:
    """Return the convolutions of a stage, in the order of torchvision's weights."""
    return stage.convolutions if isinstance(stage, _Block) else [stage]


def _small(seeded: Seeded) -> list[Convolution]:
    return [
        convolution
        for stage, (filters, time_stride) in enumerate(_SMALL)
        for convolution in twice(filters, side=3 if stage else 5, stride=2, time_stride=time_stride, seeded=seeded)
    ]


def _r2plus1d_18(seeded: Seeded) -> list["Convolution | _Block"]:
    stages: list[Convolution | _Block] = [
        Convolution(45, size=(1, 7, 7), strides=(1, 2, 2), symmetric=True, seeded=seeded),
        Convolution(64, size=(3, 1, 1), seeded=seeded),
    ]
    in_filters = 64
    for filters in (64, 128, 256, 512):
        stages += [_Block(in_filters, filters, seeded), _Block(filters, filters, seeded)]
        in_filters = filters
    return stages


class _Block:
    """A residual block of two (2+1)-D convolutions; it halves space and time if the number of filters increases."""

    def __init__(self, in_filters: int, filters: int, seeded: Seeded) -> None:
        # as many weights as a 3x3x3 convolution
        between = (27 * in_filters * filters) // (9 * in_filters + 3 * filters)
        stride = 1 if in_filters == filters else 2
        self._first = twice(filters, between=between, stride=stride, time_stride=stride, symmetric=True, seeded=seeded)
        self._second = twice(filters, between=between, seeded=seeded)
        strides = (stride,) * 3
        self._shortcut = None if stride == 1 else Convolution(filters, size=(1, 1, 1), strides=strides, seeded=seeded)

    @property
    def convolutions(self) -> list[Convolution]:
        """The convolutions of the block, the shortcut last."""
        return [*self._first, *self._second, *([] if self._shortcut is None else [self._shortcut])]

    def __call__(self, maps: Masked) -> Masked:
        x = maps
        for convolution in (*self._first, self._second[0]):
            x = convolution(x)
        residual, valid = self._second[1](x, relu=False)
        shortcut = maps[0] if self._shortcut is None else self._shortcut(maps, relu=False)[0]
        return keras.ops.relu(keras.ops.add(residual, shortcut)), valid
