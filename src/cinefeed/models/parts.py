"""What the networks share: inputs, scaling, encoders of several views, the mean over time, the head of each target."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal, get_args

import keras
import numpy as np
from keras import layers

from cinefeed.clips import PixelType
from cinefeed.errors import SettingError, did_you_mean
from cinefeed.feed.targets import FeedSpec, TargetSpec, Task

Encoders = Literal["shared", "own"]
Encoder = Callable[[Any], Any]  # a KerasTensor to another
# The layers, which do nothing, where single frames go into what reads them, and where their features come out.
FRAMES, FEATURES = "frames", "features"
FULL_SCALE = {"uint8": 255, "uint16": 65535}
_DTYPES = (*get_args(PixelType), "float16", "bfloat16")


class Seeded:
    """Gives each layer a seed of its own: two layers of one shape must not start alike."""

    def __init__(self, seed: int) -> None:
        self._seeds = count(seed * 1000)

    def number(self) -> int:
        """Return the next seed."""
        return next(self._seeds)

    def initializer(self, kind: str) -> keras.initializers.Initializer:
        """Return an initializer of Keras, by its class name, with the next seed."""
        return getattr(keras.initializers, kind)(seed=self.number())


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a network is called with: clips, covariates, and which frames are valid where some are padding."""

    clips: tuple[keras.KerasTensor, ...]
    covariates: tuple[keras.KerasTensor, ...]
    valid: keras.KerasTensor | None

    @property
    def structure(self) -> Any:
        """All of them by name, as a feed gives them; a single one as a list.

        Keras takes an array as well as a dictionary for a list of one, and warns of no other structure.
        """
        valid = () if self.valid is None else (self.valid,)
        every = [*self.clips, *self.covariates, *valid]
        return every if len(every) == 1 else {each.name: each for each in every}


def inputs_of(spec: FeedSpec) -> Inputs:
    """Return the inputs that a feed's batches have: `clips` or one a view, covariates, `valid` where clips are padded.

    Raises SettingError for a type of pixel that is none, and for a name that Keras does not take.
    """
    dtype = np.dtype(spec.dtype).name
    if dtype not in _DTYPES:
        raise SettingError(f"dtype={dtype!r} is not one of a clip; {did_you_mean(dtype, _DTYPES)}")
    if spec.masks:
        raise SettingError("the networks here read no masks; feed without them, or name a network of your own")
    for name in (*spec.clip_names, *(each.name for each in spec.covariates)):
        if "/" in name:
            raise SettingError(f"Keras takes no '/' in the name of an input, found {name!r}; rename the column or view")
    return Inputs(
        clips=tuple(keras.Input(spec.clip_shape, dtype=dtype, name=name) for name in spec.clip_names),
        covariates=tuple(keras.Input((each.size,), dtype="float32", name=each.name) for each in spec.covariates),
        valid=keras.Input(spec.clip_shape[:1], dtype="bool", name="valid") if spec.padded else None,
    )


def scaled(x: keras.KerasTensor, dtype: np.dtype[Any]) -> keras.KerasTensor:
    """Return integer pixels as -1..3 (medical frames are dark: their mean comes near 0), others as they are."""
    full = FULL_SCALE.get(np.dtype(dtype).name)
    return x if full is None else layers.Rescaling(4 / full, -1.0)(x)


def encode(inputs: Inputs, make: Callable[[str], Encoder], *, encoders: Encoders) -> list[keras.KerasTensor]:
    """Return the features of each clip, by one encoder that all views share, or by one of each view's own.

    `make` makes an encoder; it is told what the names of its layers may end in: "" or "_clips_2ch".
    """
    if encoders not in get_args(Encoders):
        raise SettingError(f"encoders={encoders!r} is not a choice; {did_you_mean(encoders, get_args(Encoders))}")
    if encoders == "own" and len(inputs.clips) > 1:
        return [make(f"_{each.name}")(each) for each in inputs.clips]
    encoder = make("")
    return [encoder(each) for each in inputs.clips]


def mean_over_time(x: keras.KerasTensor, valid: keras.KerasTensor | None) -> keras.KerasTensor:
    """Return (batch, 1, features): the mean over valid frames, 0 for a row that is all padding.

    Keras' GlobalAveragePooling1D gives NaN for such a row, and a loss of weight 0 times NaN is NaN.
    """
    if valid is None:
        return keras.ops.mean(x, axis=1, keepdims=True)
    weights = keras.ops.expand_dims(keras.ops.cast(valid, "float32"), -1)
    number = keras.ops.maximum(keras.ops.sum(weights, axis=1, keepdims=True), 1.0)
    return keras.ops.sum(x * weights, axis=1, keepdims=True) / number


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
    """Return the network whose views have these features: beside them the covariates, a dense layer, the heads."""
    every = [*features, *inputs.covariates]
    x = layers.Concatenate()(every) if len(every) > 1 else every[0]
    if dropout:
        x = layers.Dropout(dropout, seed=seeded.number())(x)
    if dense:
        x = layers.Dense(dense, activation="relu", kernel_initializer=seeded.initializer("HeNormal"))(x)
    if not spec.targets:
        return keras.Model(inputs.structure, _head(x, targets_of(spec)[0], seeded, name="score"), name=name)
    scores = {each.name: _head(x, each, seeded, name=f"score_{each.name}".replace("/", "_")) for each in spec.targets}
    return keras.Model(inputs.structure, scores, name=name)


def targets_of(spec: FeedSpec) -> tuple[TargetSpec, ...]:
    """Return the targets of a spec, one or several."""
    mean, scale = spec.target_mean, spec.target_scale
    one = TargetSpec(name=spec.target, task=spec.task, classes=spec.classes, mean=mean, scale=scale)
    return spec.targets or (one,)


def _head(x: keras.KerasTensor, target: TargetSpec, seeded: Seeded, *, name: str) -> keras.KerasTensor:
    """Return the predictions of a target; float32, whatever the precision of the layers below."""
    if target.task == "regression":
        x = layers.Dense(1, kernel_initializer="zeros", dtype="float32")(x)
        return layers.Rescaling(float(target.scale), float(target.mean), dtype="float32", name=name)(x)
    outputs, activation = (1, "sigmoid") if target.task == "binary" else (len(target.classes), "softmax")
    glorot = seeded.initializer("GlorotUniform")
    return layers.Dense(outputs, activation=activation, kernel_initializer=glorot, dtype="float32", name=name)(x)


def check_targets(spec: FeedSpec) -> None:
    """Raise SettingError for a task that is no score, classes that do not suit it, and labels without a scale."""
    for target in targets_of(spec):
        if target.task not in get_args(Task):
            raise SettingError(f"task={target.task!r} is not a task; {did_you_mean(target.task, get_args(Task))}")
        if target.task in ("clip", "mask"):
            raise SettingError(
                f"task={target.task!r} wants pictures, and scores are given; take the autoencoder for clips"
            )
        if target.task == "regression":
            if not (np.isfinite(target.mean) and np.isfinite(target.scale) and target.scale > 0):
                raise SettingError(
                    f"a regression needs a finite mean and a positive scale of the training labels, found for "
                    f"{target.name!r} target_mean={target.mean}, target_scale={target.scale}; are all labels alike?"
                )
        elif len(target.classes) < 2 or (target.task == "binary" and len(target.classes) > 2):
            raise SettingError(
                f"task={target.task!r} of {target.name!r} needs "
                f"{'two classes' if target.task == 'binary' else 'at least two classes'}, "
                f"found {len(target.classes)}: {', '.join(map(str, target.classes)) or 'none'}"
            )


def check_sizes(*, filters: Sequence[int], dense: int, dropout: float, **sizes: int) -> None:
    """Raise SettingError for numbers of which no layer can be made; `sizes` are any others that must be positive."""
    if not filters or min(filters) < 1 or min(sizes.values(), default=1) < 1 or dense < 0 or not 0 <= dropout < 1:
        others = "".join(f", {name}={value}" for name, value in sizes.items())
        raise SettingError(
            f"filters={tuple(filters)}{others}, dense={dense}, dropout={dropout}: give at least one filter "
            f"number, positive sizes (dense may be 0), and a dropout from 0 to below 1"
        )


def check_frames(spec: FeedSpec, *, halvings: int, why: str) -> None:
    """Raise SettingError where frames are smaller than what is made of them: halved `halvings` times."""
    _, height, width, _ = spec.clip_shape
    least = 2**halvings
    if min(height, width) < least:
        raise SettingError(
            f"frames of {height} x {width} are too small for {why}; give frames of at least {least} x {least}, "
            f"or fewer filters"
        )
