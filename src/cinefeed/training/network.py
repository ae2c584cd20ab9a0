"""From settings to a network that can be trained: model, optimiser, loss."""

import inspect
from typing import Any

import keras
import numpy as np

import cinefeed.models
from cinefeed.config import Settings
from cinefeed.errors import SettingError, did_you_mean
from cinefeed.feed.targets import FeedSpec


def build_model(settings: Settings, spec: FeedSpec) -> keras.Model:
    """Return the network that `[model]` names, built for a feed's spec and not yet compiled.

    Raises SettingError for a name or an option that cinefeed.models does not have, and for a spec that cannot fit.
    """
    known = [name for name in cinefeed.models.__all__ if inspect.isfunction(getattr(cinefeed.models, name))]
    name = settings.model.name
    if name not in known:
        raise SettingError(f"[model] name = {name!r} is not a model; {did_you_mean(name, known)}")
    function = getattr(cinefeed.models, name)
    first, *rest = inspect.signature(function).parameters
    options: dict[str, Any] = {"seed": settings.feed.seed, **settings.model.options}
    for option in options:
        if option not in rest:
            raise SettingError(f"[model: {name}] {option} is not a setting; {did_you_mean(option, rest)}")
    try:
        model = function(spec if first == "spec" else spec.clip_shape, **options)
    except SettingError as error:
        raise SettingError(f"[model: {name}] {error}") from error
    except (TypeError, ValueError) as error:
        raise SettingError(f"[model: {name}] cannot be built with {options}: {error}") from error
    taken = str(model.inputs[0].dtype)
    if taken == "float32" and np.dtype(spec.dtype).kind != "f":
        raise SettingError(
            f"[model: {name}] takes float32 clips that are scaled already, the feed gives {np.dtype(spec.dtype).name}; "
            f"add the transform Normalize"
        )
    wanted = (None, len(spec.classes) if spec.task == "multiclass" else 1)
    if tuple(model.output_shape) != wanted or (first != "spec" and spec.task != "regression"):
        raise SettingError(
            f"[model: {name}] gives {tuple(model.output_shape)} numbers a batch and cannot serve the task "
            f"{spec.task!r}, which needs {wanted}; take cnn_rnn"
        )
    return model


def compile_model(model: keras.Model, settings: Settings, spec: FeedSpec, *, steps: int) -> None:
    """Give a model its loss and its optimiser. `steps` is the number of batches of the whole training.

    A regression's loss is in the label's units. Nothing is scaled: Adam divides each step by the size of the
    gradients, so that the loss of an ejection fraction (squared, some hundreds) needs no other learning rate than
    that of a word's start (some hundredths).
    """
    train = settings.train
    rate: Any = train.learning_rate
    if train.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(train.learning_rate, decay_steps=max(steps, 1))
    model.compile(optimizer=keras.optimizers.Adam(rate), loss=loss_for(settings, spec))


def loss_for(settings: Settings, spec: FeedSpec) -> keras.losses.Loss:
    """Return the loss of a task; `[train] loss` chooses among those of a regression."""
    chosen = settings.train.loss
    if spec.task == "regression":
        if chosen == "huber":
            return keras.losses.Huber(delta=spec.target_scale)
        return keras.losses.MeanSquaredError()
    if chosen != "auto":
        raise SettingError(f"[train] loss = {chosen!r} is for a regression; the task is {spec.task!r}: leave it out")
    return keras.losses.BinaryCrossentropy() if spec.task == "binary" else keras.losses.SparseCategoricalCrossentropy()
