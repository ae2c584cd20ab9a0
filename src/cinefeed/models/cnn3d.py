"""Networks that convolve over space and time, each apart: R(2+1)D-18, and a small one."""

from typing import Literal, get_args

import keras

from cinefeed.errors import SettingError, did_you_mean
from cinefeed.feed.targets import FeedSpec
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

Size = Literal["small", "r2plus1d_18"]
_SMALL = ((16, 1), (32, 1), (64, 2), (64, 2))  # maps, and stride over time, of each stage
_TIMES = {"small": 4, "r2plus1d_18": 8}  # by which frames become fewer
_SIDES = 16  # by which they become smaller, in both


def cnn3d(
    spec: FeedSpec,
    *,
    size: Size = "small",
    encoders: Encoders = "shared",
    dense: int = 64,
    dropout: float = 0.0,
    seed: int = 0,
) -> keras.Model:
    """Return a network of convolutions over space and time, each followed by batch norm.

    small        four stages of 16, 32, 64 and 64 maps; each a convolution over frames, of stride 2 (5x5, then 3x3), and
                 one over three frames in time, in the last two stages of stride 2
    r2plus1d_18  R(2+1)D-18: eight residual blocks of 64 to 512 maps (Tran et al. 2018, "A Closer Look at Spatiotemporal
                 Convolutions for Action Recognition"); with dense=0, three channels and the 400 classes of Kinetics
                 31,505,325 parameters are trained, as in torchvision's r2plus1d_18

    The mean over the last maps and over valid frames is a clip's features. What follows them, the inputs, several
    views, covariates and targets are as in `cnn_rnn`. Raises SettingError for a spec that cannot fit.

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
    frames, height, width, _ = spec.clip_shape
    if frames < _TIMES[size] or min(height, width) < _SIDES:
        raise SettingError(
            f"clips of {frames} frames of {height} x {width} are too small for a cnn3d of size {size!r}, whose strides "
            f"come to {_TIMES[size]} over time and {_SIDES} over frames; give at least {_TIMES[size]} frames of "
            f"{_SIDES} x {_SIDES}"
        )
    inputs, seeded = inputs_of(spec), Seeded(seed)

    def encoder_of_clips(suffix: str) -> Encoder:
        stages = _small(seeded) if size == "small" else _r2plus1d_18(seeded)

        def encoder(clips: keras.KerasTensor) -> keras.KerasTensor:
            maps: Masked = (scaled(clips, spec.dtype), inputs.valid)
            for stage in stages:
                maps = stage(maps)
            x, valid = maps
            return keras.ops.squeeze(mean_over_time(keras.ops.mean(x, axis=(2, 3)), valid), axis=1)

        return encoder

    features = encode(inputs, encoder_of_clips, encoders=encoders)
    return finish(features, inputs, spec, dense=dense, dropout=dropout, seeded=seeded, name=f"cnn3d_{size}")


def _small(seeded: Seeded) -> list[Convolution]:
    return [
        each
        for stage, (maps, time_stride) in enumerate(_SMALL)
        for each in twice(maps, side=3 if stage else 5, stride=2, time_stride=time_stride, seeded=seeded)
    ]


def _r2plus1d_18(seeded: Seeded) -> list["Convolution | _Block"]:
    stages: list[Convolution | _Block] = [
        Convolution(45, size=(1, 7, 7), strides=(1, 2, 2), seeded=seeded),
        Convolution(64, size=(3, 1, 1), seeded=seeded),
    ]
    before = 64
    for maps in (64, 128, 256, 512):
        stages += [_Block(before, maps, seeded), _Block(maps, maps, seeded)]
        before = maps
    return stages


class _Block:
    """Two (2+1)-D convolutions and the way around them; it halves space and time where the number of maps doubles."""

    def __init__(self, before: int, maps: int, seeded: Seeded) -> None:
        between = (27 * before * maps) // (9 * before + 3 * maps)  # as many weights as a 3x3x3 convolution has
        stride = 1 if before == maps else 2
        self._first = twice(maps, between=between, stride=stride, time_stride=stride, seeded=seeded)
        self._second = twice(maps, between=between, seeded=seeded)
        self._around = None if stride == 1 else Convolution(maps, size=(1, 1, 1), strides=(stride,) * 3, seeded=seeded)

    def __call__(self, maps: Masked) -> Masked:
        x = maps
        for each in (*self._first, self._second[0]):
            x = each(x)
        onward, valid = self._second[1](x, relu=False)
        around = maps[0] if self._around is None else self._around(maps, relu=False)[0]
        return keras.ops.relu(keras.ops.add(onward, around)), valid
