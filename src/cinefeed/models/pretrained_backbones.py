"""Backbones of `keras.applications` as the CNN shared by all frames."""

import inspect
import sys
import warnings as python_warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
from keras import layers

from cinefeed.core.errors import SettingError, did_you_mean
from cinefeed.feed.labels import FeedSpec
from cinefeed.models.parts import FULL_SCALE, LATER, Encoder, Seeded


def frame_backbone(
    backbone: str, *, spec: FeedSpec, weights: str | None, frozen: bool, seeded: Seeded, name: str
) -> Encoder:
    """Return an encoder of frames: a network of `keras.applications` without its top, with global average pooling.

    Args:
        backbone: Name of the network in Keras, such as "MobileNetV2", "EfficientNetB0" or "ResNet50".
        spec: The spec of the feed.
        weights: A local weight file without the top (Keras' file names end in no_top.h5 or notop.h5), for three
            channels; None for random weights. Nothing is downloaded.
        frozen: Exclude the backbone from training, with batch norm and dropout in inference mode. To unfreeze it, set
            `model.get_layer("backbone").trainable = True` and compile again; batch norm stays in inference mode.
        seeded: Source of seeds.
        name: Name of the backbone layer.

    The first layer scales pixels to the range that the backbone was trained with. For frames with one channel, the
    kernel of the first convolution is summed over its three input channels, which is equivalent to repeating the grey
    channel. For other numbers of channels (stacked views), the sum is divided between them. If a backbone scales each
    color differently, other numbers of channels use the mean scale.

    Raises SettingError for an unknown network, and for frames, channels or weights that the network does not support.
    """
    module, build = _application(backbone)
    height, width, channels = spec.clip_shape[1:]
    weights = None if weights == LATER else weights
    if weights is not None and not Path(weights).is_file():
        raise SettingError(
            f"weights={weights!r} is not a file; give a local weight file of {backbone} without its top, or leave "
            "weights out"
        )
    try:
        network = _build_network(build, (height, width, channels))
    except ValueError as error:
        raise SettingError(f"{backbone} does not support frames of {height} x {width} x {channels}: {error}") from error
    network = keras.models.clone_model(network, clone_function=lambda layer: _with_seeds(layer, seeded))
    network = keras.Model(network.inputs[0], network.outputs[0], name=name)
    if weights is not None:
        _load_weights(network, build, weights, backbone=backbone)
    network.trainable = not frozen
    preprocess = _preprocessing(module, backbone, spec)

    def encoder(frames: keras.KerasTensor) -> keras.KerasTensor:
        return network(preprocess(frames), training=False) if frozen else network(preprocess(frames))

    return encoder


def _application(backbone: str) -> tuple[ModuleType, Any]:
    """Return the module of a backbone, which contains `preprocess_input`, and the function that builds it."""
    builders = {
        name: build
        for name, build in vars(keras.applications).items()
        if inspect.isfunction(build) and "include_top" in inspect.signature(build).parameters
    }
    if backbone not in builders:
        raise SettingError(
            f"backbone={backbone!r} is not a network of keras.applications; {did_you_mean(backbone, builders)}"
        )
    return sys.modules[builders[backbone].__module__], builders[backbone]


def _build_network(build: Any, shape: tuple[int, ...], *, weights: str | None = None) -> keras.Model:
    with python_warnings.catch_warnings():  # "expects either 1 or 3 input channels"; stacked views have other numbers
        python_warnings.simplefilter("ignore", UserWarning)
        return build(include_top=False, weights=weights, input_shape=shape, pooling="avg")


def _with_seeds(layer: layers.Layer, seeded: Seeded) -> layers.Layer:
    """Return a copy of a layer with seeds for initializers and dropout, which Keras' applications do not set."""
    config = layer.get_config()
    for name, value in config.items():
        if name == "seed":
            config[name] = seeded.number()
        elif name.endswith("_initializer") and isinstance(value, dict) and "seed" in value["config"]:
            value["config"]["seed"] = seeded.number()
    return type(layer).from_config(config)


def _load_weights(network: keras.Model, build: Any, weights: str, *, backbone: str) -> None:
    """Load a weight file for three channels into a network with any number of channels.

    Kernels that read the input channels are summed over the three channels of the file.
    """
    height, width, channels = network.input_shape[1:]
    try:
        color_network = _build_network(build, (height, width, 3), weights=weights)
    except (ValueError, OSError, KeyError) as error:
        raise SettingError(f"weights={weights!r} do not fit {backbone} without its top: {error}") from error
    for variable, color_variable in zip(network.weights, color_network.weights, strict=True):
        values = keras.ops.convert_to_numpy(color_variable)
        if variable.shape != color_variable.shape:
            axis = next(axis for axis in range(values.ndim) if variable.shape[axis] != values.shape[axis])
            is_kernel = values.ndim > 1  # means and variances of input channels are averaged instead
            values = values.sum(axis=axis, keepdims=True) / channels if is_kernel else values.mean(keepdims=True)
            values = np.broadcast_to(values, variable.shape)
        variable.assign(values)


def _preprocessing(module: ModuleType, backbone: str, spec: FeedSpec) -> Encoder:
    """Return the layers that scale and order channels like the backbone's `preprocess_input`, determined by calls."""

    def preprocess_pixel(pixel: list[float]) -> Any:
        return module.preprocess_input(np.array(pixel, np.float32).reshape(1, 1, 1, 3), data_format="channels_last")

    black, white = (preprocess_pixel([level] * 3).ravel().astype(np.float64) for level in (0.0, 255.0))
    is_bgr = not np.array_equal(preprocess_pixel([255.0, 0.0, 0.0])[..., 0].ravel(), white[:1])
    scale, offset = (white - black) / 255, black
    is_identity = bool((scale == 1).all() and (offset == 0).all())
    dtype, channels = np.dtype(spec.dtype).name, spec.clip_shape[3]
    if dtype not in FULL_SCALE:
        if is_identity:
            raise SettingError(
                f"{backbone} needs pixels from 0 to 255; found {dtype} in the feed; feed uint8, without Normalize"
            )
        return lambda frames: frames
    scale = scale * 255 / FULL_SCALE[dtype]
    if channels != 3:
        scale, offset, is_bgr = scale.mean(), offset.mean(), False
    rescaling = layers.Rescaling(scale.tolist(), offset.tolist())

    def preprocess(frames: keras.KerasTensor) -> keras.KerasTensor:
        return rescaling(keras.ops.flip(frames, axis=-1) if is_bgr else frames)

    return preprocess
