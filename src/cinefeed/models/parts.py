"""Shared parts of the networks: inputs, scaling, encoders of several views, mean over time, heads, and checks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal, get_args

import keras
import numpy as np
from keras import layers

from cinefeed.core.arguments import expect
from cinefeed.core.errors import SettingError, did_you_mean
from cinefeed.feed.labels import FeedSpec, TargetSpec, Task
from cinefeed.video.clips import PixelType

Encoders = Literal["shared", "own"]
Encoder = Callable[[Any], Any]  # from KerasTensor to KerasTensor
# Name prefixes of the identity layers at the input (single frames) and output (features) of the frame encoder.
FRAMES, FEATURES = "frames", "features"
# In place of a path of weights: the network is built as with weights, and they are loaded later, from a run.
LATER = "weights of a run"
FULL_SCALE = {"uint8": 255, "uint16": 65535}
_DTYPES = (*get_args(PixelType), "float16", "bfloat16")


class Seeded:
    """A source of one seed per layer, because layers of equal shape must not have equal initial weights."""

    def __init__(self, seed: int) -> None:
        self._seeds = count(seed * 1000)

    def number(self) -> int:
        """Return the next seed."""
        return next(self._seeds)

    def initializer(self, kind: str) -> keras.initializers.Initializer:
        """Return a Keras initializer by class name, with the next seed."""
        return getattr(keras.initializers, kind)(seed=self.number())


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The inputs of a network: clips, covariates, and a mask of valid frames if clips are padded."""

    clips: tuple[keras.KerasTensor, ...]
    covariates: tuple[keras.KerasTensor, ...]
    valid: keras.KerasTensor | None

    @property
    def structure(self) -> Any:
        """All inputs by name, as in the batches of a feed; a single one as a list.

        For a list of one input, Keras accepts an array or a dictionary without a warning.
        """
        valid = () if self.valid is None else (self.valid,)
        every = [*self.clips, *self.covariates, *valid]
        return every if len(every) == 1 else {each.name: each for each in every}


def inputs_of(spec: FeedSpec) -> Inputs:
    """Return the inputs for the batches of a feed: `clips` or one per view, covariates, and `valid` if padded.

    Raises SettingError for masks, an unsupported dtype, and a name that Keras does not support.
    """
    dtype = np.dtype(spec.dtype).name
    if dtype not in _DTYPES:
        raise SettingError(f"dtype={dtype!r} is not a clip dtype; {did_you_mean(dtype, _DTYPES)}")
    if spec.masks:
        raise SettingError("the networks of cinefeed do not support masks; feed without masks, or use another network")
    for name in (*spec.clip_names, *(covariate.name for covariate in spec.covariates)):
        if "/" in name:
            raise SettingError(
                f"Keras does not support '/' in the name of an input; found {name!r}; rename the column or view"
            )
    return Inputs(
        clips=tuple(keras.Input(spec.clip_shape, dtype=dtype, name=name) for name in spec.clip_names),
        covariates=tuple(keras.Input((each.size,), dtype="float32", name=each.name) for each in spec.covariates),
        valid=keras.Input(spec.clip_shape[:1], dtype="bool", name="valid") if spec.padded else None,
    )


def scaled(x: keras.KerasTensor, dtype: np.dtype[Any]) -> keras.KerasTensor:
    """Return integer pixels scaled to -1..3, because the mean of dark medical frames is then near 0; others as is."""
    full = FULL_SCALE.get(np.dtype(dtype).name)
    return x if full is None else layers.Rescaling(4 / full, -1.0)(x)


def encode(inputs: Inputs, make: Callable[[str], Encoder], *, encoders: Encoders) -> list[keras.KerasTensor]:
    """Return the features of each clip, from one encoder shared by all views, or from one encoder per view.

    `make` returns an encoder for a suffix of layer names, such as "" or "_clips_2ch".
    """
    if encoders not in get_args(Encoders):
        raise SettingError(f"encoders={encoders!r} is not a choice; {did_you_mean(encoders, get_args(Encoders))}")
    if encoders == "own" and len(inputs.clips) > 1:
        return [make(f"_{clips.name}")(clips) for clips in inputs.clips]
    encoder = make("")
    return [encoder(clips) for clips in inputs.clips]


def mean_over_time(x: keras.KerasTensor, valid: keras.KerasTensor | None) -> keras.KerasTensor:
    """Return the mean over valid frames, (batch, 1, features), and 0 for a row of padding only.

    Keras' GlobalAveragePooling1D returns NaN for such a row, which makes the loss NaN even with a row weight of 0.
    """
    if valid is None:
        return keras.ops.mean(x, axis=1, keepdims=True)
    weights = keras.ops.expand_dims(keras.ops.cast(valid, "float32"), -1)
    count = keras.ops.maximum(keras.ops.sum(weights, axis=1, keepdims=True), 1.0)
    return keras.ops.sum(x * weights, axis=1, keepdims=True) / count


def finish(
    features: Sequence[keras.KerasTensor],
    inputs: Inputs,
    spec: FeedSpec,
    *,
    dense: int,
    dropout: float,
    seeded: Seeded,
    name: str,
) -> keras.Model:
    """Return the network from the features of the views: concatenation with covariates, a dense layer, and heads.

    Args:
        features: Features of each view, (batch, features).
        inputs: The inputs of the network.
        spec: The spec of the feed.
        dense: Units of the dense layer; 0 for none.
        dropout: Dropout rate before the dense layer.
        seeded: Source of seeds.
        name: Name of the model.
    """
    tensors = [*features, *inputs.covariates]
    x = layers.Concatenate()(tensors) if len(tensors) > 1 else tensors[0]
    if dropout:
        x = layers.Dropout(dropout, seed=seeded.number())(x)
    if dense:
        x = layers.Dense(dense, activation="relu", kernel_initializer=seeded.initializer("HeNormal"))(x)
    if not spec.targets:
        return keras.Model(inputs.structure, _head(x, targets_of(spec)[0], seeded, name="score"), name=name)
    scores = {
        target.name: _head(x, target, seeded, name=f"score_{target.name}".replace("/", "_")) for target in spec.targets
    }
    return keras.Model(inputs.structure, scores, name=name)


def targets_of(spec: FeedSpec) -> tuple[TargetSpec, ...]:
    """Return the targets of a spec, one or several."""
    mean, scale = spec.target_mean, spec.target_scale
    single = TargetSpec(name=spec.target, task=spec.task, classes=spec.classes, mean=mean, scale=scale)
    return spec.targets or (single,)


def _head(x: keras.KerasTensor, target: TargetSpec, seeded: Seeded, *, name: str) -> keras.KerasTensor:
    """Return the predictions of a target, in float32 also with mixed precision."""
    if target.task == "regression":
        x = layers.Dense(1, kernel_initializer="zeros", dtype="float32")(x)
        return layers.Rescaling(float(target.scale), float(target.mean), dtype="float32", name=name)(x)
    outputs, activation = (1, "sigmoid") if target.task == "binary" else (len(target.classes), "softmax")
    glorot = seeded.initializer("GlorotUniform")
    return layers.Dense(outputs, activation=activation, kernel_initializer=glorot, dtype="float32", name=name)(x)


def check_spec(spec: object) -> None:
    """Raise ArgumentError unless a network is given the spec of a feed."""
    advice = "give feed.spec, the spec of a feed: cinefeed.models.cnn_rnn(feed.spec)"
    expect(spec, FeedSpec, name="the spec of a network", remedy=advice)


def check_targets(spec: FeedSpec) -> None:
    """Raise SettingError for a task without scores, classes that do not match the task, and labels without a scale."""
    check_spec(spec)
    for target in targets_of(spec):
        if target.task not in get_args(Task):
            raise SettingError(f"task={target.task!r} is not a task; {did_you_mean(target.task, get_args(Task))}")
        if target.task in ("clip", "mask"):
            raise SettingError(f"task={target.task!r} needs an image output, not scores; use the autoencoder for clips")
        if target.task == "regression":
            if not (np.isfinite(target.mean) and np.isfinite(target.scale) and target.scale > 0):
                raise SettingError(
                    f"a regression needs a finite mean and a positive scale of the training labels; found for "
                    f"{target.name!r} target_mean={target.mean}, target_scale={target.scale}; check whether all labels "
                    f"are equal"
                )
        elif len(target.classes) < 2 or (target.task == "binary" and len(target.classes) > 2):
            raise SettingError(
                f"task={target.task!r} of {target.name!r} needs "
                f"{'two classes' if target.task == 'binary' else 'at least two classes'}; "
                f"found {len(target.classes)}: {', '.join(map(str, target.classes)) or 'none'}"
            )


def check_sizes(*, filters: Sequence[int], dense: int, dropout: float, **sizes: int) -> None:
    """Raise SettingError for invalid layer sizes; `sizes` are further sizes that must be positive."""
    if not filters or min(filters) < 1 or min(sizes.values(), default=1) < 1 or dense < 0 or not 0 <= dropout < 1:
        others = "".join(f", {name}={value}" for name, value in sizes.items())
        raise SettingError(
            f"filters={tuple(filters)}{others}, dense={dense}, dropout={dropout} are invalid; give at least one number "
            f"of filters, positive sizes (dense may be 0), and a dropout of at least 0 and less than 1"
        )


def check_frames(spec: FeedSpec, *, halvings: int, cause: str) -> None:
    """Raise SettingError if frames are too small to be halved `halvings` times; `cause` is the reason for halving."""
    _, height, width, _ = spec.clip_shape
    minimum = 2**halvings
    if min(height, width) < minimum:
        raise SettingError(
            f"frames of {height} x {width} are too small for {cause}; use frames of at least {minimum} x {minimum}, "
            f"or fewer filters"
        )
