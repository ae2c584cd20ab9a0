"""Any network of `keras.applications` as the CNN that all frames share."""

import inspect
import sys
import warnings as python_warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
from keras import layers

from cinefeed.errors import SettingError, did_you_mean
from cinefeed.feed.targets import FeedSpec
from cinefeed.models.parts import FULL_SCALE, Encoder, Seeded


def frame_backbone(
    backbone: str, *, spec: FeedSpec, weights: str | None, frozen: bool, seeded: Seeded, name: str
) -> Encoder:
    """Return what makes features of frames: a network of `keras.applications`, without its top, averaged over the map.

    backbone: as Keras calls it: "MobileNetV2", "EfficientNetB0", "ResNet50" ...
    weights: a local file without the top (Keras' own end in no_top.h5 or notop.h5), of three channels; None starts from
        chance. Nothing is downloaded.
    frozen: leave the backbone out of training, its batch norm and dropout as in prediction. To thaw it later:
        `model.get_layer("backbone").trainable = True`, then compile again; its batch norm stays as it is then.

    The first layer brings pixels to the scale that the backbone was trained with. Frames of one channel need no copies
    as colours: the kernel of the first convolution is summed over its three, as a grey pixel would meet it three times.
    Frames of other numbers of channels (stacked views) share that sum. Where a backbone scales each colour by numbers
    of its own, a grey pixel gets their mean.

    Raises SettingError for a name that Keras does not have, and for frames, channels or weights that do not fit.
    """
    module, build = _application(backbone)
    height, width, channels = spec.clip_shape[1:]
    if weights is not None and not Path(weights).is_file():
        raise SettingError(
            f"weights={weights!r} is no file; give one of {backbone} without its top, which is here, or leave it out"
        )
    try:
        core = _built(build, (height, width, channels))
    except ValueError as error:
        raise SettingError(f"{backbone} cannot take frames of {height} x {width} x {channels}: {error}") from error
    core = keras.models.clone_model(core, clone_function=lambda layer: _with_seeds(layer, seeded))
    core = keras.Model(core.inputs[0], core.outputs[0], name=name)
    if weights is not None:
        _load(core, build, weights, backbone=backbone)
    core.trainable = not frozen
    prepare = _preparation(module, backbone, spec)

    def encoder(frames: keras.KerasTensor) -> keras.KerasTensor:
        return core(prepare(frames), training=False) if frozen else core(prepare(frames))

    return encoder


def _application(backbone: str) -> tuple[ModuleType, Any]:
    """Return a backbone's module, which knows how pixels are prepared for it, and the function that builds it."""
    found = {
        name: build
        for name, build in vars(keras.applications).items()
        if inspect.isfunction(build) and "include_top" in inspect.signature(build).parameters
    }
    if backbone not in found:
        raise SettingError(
            f"backbone={backbone!r} is not a network of keras.applications; {did_you_mean(backbone, found)}"
        )
    return sys.modules[found[backbone].__module__], found[backbone]


def _built(build: Any, shape: tuple[int, ...], *, weights: str | None = None) -> keras.Model:
    with python_warnings.catch_warnings():  # "expects either 1 or 3 input channels": stacked views have others
        python_warnings.simplefilter("ignore", UserWarning)
        return build(include_top=False, weights=weights, input_shape=shape, pooling="avg")


def _with_seeds(layer: layers.Layer, seeded: Seeded) -> layers.Layer:
    """Return the layer anew, with seeds for its initializers and its dropout: Keras' applications have none."""
    config = layer.get_config()
    for name, value in config.items():
        if name == "seed":
            config[name] = seeded.number()
        elif name.endswith("_initializer") and isinstance(value, dict) and "seed" in value["config"]:
            value["config"]["seed"] = seeded.number()
    return type(layer).from_config(config)


def _load(core: keras.Model, build: Any, weights: str, *, backbone: str) -> None:
    """Give a backbone the weights of a file, those that meet the frames' channels summed over the three of the file."""
    height, width, channels = core.input_shape[1:]
    try:
        colour = _built(build, (height, width, 3), weights=weights)
    except (ValueError, OSError, KeyError) as error:
        raise SettingError(f"weights={weights!r} do not fit {backbone} without its top: {error}") from error
    for ours, theirs in zip(core.weights, colour.weights, strict=True):
        values = keras.ops.convert_to_numpy(theirs)
        if ours.shape != theirs.shape:
            over = next(axis for axis in range(values.ndim) if ours.shape[axis] != values.shape[axis])
            kernel = values.ndim > 1  # a mean or variance of each colour is averaged
            values = values.sum(axis=over, keepdims=True) / channels if kernel else values.mean(keepdims=True)
            values = np.broadcast_to(values, ours.shape)
        ours.assign(values)


def _preparation(module: ModuleType, backbone: str, spec: FeedSpec) -> Encoder:
    """Return the first layers: pixels on the backbone's scale, its colours in its order; found by trying it."""

    def prepared(pixel: list[float]) -> Any:
        return module.preprocess_input(np.array(pixel, np.float32).reshape(1, 1, 1, 3), data_format="channels_last")

    black, white = (prepared([level] * 3).ravel().astype(np.float64) for level in (0.0, 255.0))
    turned = not np.array_equal(prepared([255.0, 0.0, 0.0])[..., 0].ravel(), white[:1])  # blue comes first
    scale, offset = (white - black) / 255, black
    untouched = bool((scale == 1).all() and (offset == 0).all())
    dtype, channels = np.dtype(spec.dtype).name, spec.clip_shape[3]
    if dtype not in FULL_SCALE:
        if untouched:
            raise SettingError(
                f"{backbone} scales pixels of 0 to 255 itself, the feed gives {dtype}; feed uint8, without Normalize"
            )
        return lambda frames: frames
    scale = scale * 255 / FULL_SCALE[dtype]
    if channels != 3:
        scale, offset, turned = scale.mean(), offset.mean(), False
    rescaling = layers.Rescaling(scale.tolist(), offset.tolist())

    def prepare(frames: keras.KerasTensor) -> keras.KerasTensor:
        return rescaling(keras.ops.flip(frames, axis=-1) if turned else frames)

    return prepare
