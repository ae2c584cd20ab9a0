"""Weights of torchvision's R(2+1)D-18 for the network of Keras."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from keras import layers

from cinefeed.core.errors import SettingError
from cinefeed.encoders.files import check_file
from cinefeed.feed.labels import FeedSpec
from cinefeed.models.parts import LATER, Encoder
from cinefeed.models.spacetime import Convolution

# Of Kinetics, by which torchvision normalises: torchvision.models.video.R2Plus1D_18_Weights.KINETICS400_V1.transforms()
_MEAN, _STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)
_NORM = ("weight", "bias", "running_mean", "running_var")
_MOST_NAMES = 3


def kinetics_scaling(spec: FeedSpec) -> Encoder:
    """Return the layer that scales uint8 pixels as torchvision does; a grey channel has the mean of three.

    Raises SettingError for another dtype.
    """
    if np.dtype(spec.dtype).name != "uint8":
        raise SettingError(
            f"weights of torchvision need pixels from 0 to 255; found {np.dtype(spec.dtype).name} in the feed; feed "
            "uint8, without Normalize"
        )
    scale, offset = 1 / (255 * np.array(_STD)), -np.array(_MEAN) / np.array(_STD)
    if spec.clip_shape[3] != 3:
        scale, offset = scale.mean(keepdims=True), offset.mean(keepdims=True)
    rescaling = layers.Rescaling(scale.tolist(), offset.tolist())
    return lambda clips: rescaling(clips)


def load_r2plus1d_18(convolutions: Sequence[Convolution], weights: str) -> None:
    """Load a file of torchvision's weights into the convolutions, which are in the order of the file's names.

    Raises SettingError if the file is absent, or is of another network.
    """
    if weights == LATER:
        return
    path = check_file(weights, encoder="r2plus1d_18")
    state = _read(path)
    names = _names()
    expected = {f"{convolution}.weight" for convolution, _ in names} | {f"{n}.{end}" for _, n in names for end in _NORM}
    missing = sorted(expected - state.keys())
    if missing:
        raise SettingError(
            f"{path} lacks {len(missing)} tensors of torchvision's r2plus1d_18 ({', '.join(missing[:_MOST_NAMES])}); "
            "pass the weights of this network"
        )
    for layer, (convolution, norm) in zip(convolutions, names, strict=True):
        kernel = state[f"{convolution}.weight"].transpose(2, 3, 4, 1, 0)
        channels = layer.convolution.kernel.shape[3]
        if kernel.shape[3] == 3 != channels:  # the sum is that of equal channels, divided between stacked views
            kernel = np.repeat(kernel.sum(axis=3, keepdims=True) / channels, channels, axis=3)
        try:
            layer.convolution.kernel.assign(kernel)
            for variable, end in zip(layer.norm.weights, _NORM, strict=True):
                variable.assign(state[f"{norm}.{end}"])
        except ValueError as error:
            raise SettingError(f"{path}: {convolution} does not fit r2plus1d_18 ({error})") from error


def _names() -> list[tuple[str, str]]:
    """Return the names of each convolution and its batch norm in torchvision, in the order of the network.

    >>> _names()[2], len(_names())
    (('layer1.0.conv1.0.0', 'layer1.0.conv1.0.1'), 37)
    """
    names = [("stem.0", "stem.1"), ("stem.3", "stem.4")]
    for stage in (1, 2, 3, 4):
        for block in (0, 1):
            start = f"layer{stage}.{block}"
            for convolution in (f"{start}.conv1", f"{start}.conv2"):
                names += [(f"{convolution}.0.0", f"{convolution}.0.1"), (f"{convolution}.0.3", f"{convolution}.1")]
            if stage > 1 and block == 0:
                names.append((f"{start}.downsample.0", f"{start}.downsample.1"))
    return names


def _read(path: Path) -> dict[str, Any]:
    """Return the arrays of a weight file; reading it needs PyTorch, with any backend of Keras."""
    from cinefeed.encoders.weights import read_state

    return {name: each.detach().cpu().numpy() for name, each in read_state(path).items()}
