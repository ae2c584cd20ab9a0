"""From settings to a network that can be trained: model, optimiser, loss."""

import inspect
from typing import Any

import keras
import numpy as np

import cinefeed.models
from cinefeed.config import Settings
from cinefeed.errors import SettingError, did_you_mean
from cinefeed.feed.targets import FeedSpec, TargetSpec
from cinefeed.models import ClipLoss
from cinefeed.models.parts import targets_of

_INSTEAD = "take cnn_rnn or cnn3d, or for clips the autoencoder"


def build_model(settings: Settings, spec: FeedSpec, *, trained: bool = False) -> keras.Model:
    """Return the network that `[model]` names, built for a feed's spec and not yet compiled.

    `trained` says that a run's weights are loaded into it next: the file that a backbone began with is not needed.
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
    if trained:
        options.pop("weights", None)
    try:
        model = function(spec if first == "spec" else spec.clip_shape, **options)
    except SettingError as error:
        raise SettingError(f"[model: {name}] {error}") from error
    except (TypeError, ValueError) as error:
        raise SettingError(f"[model: {name}] cannot be built with {options}: {error}") from error
    _check_inputs(model, spec, name=name)
    _check_outputs(model, spec, name=name, any_task=first == "spec")
    return model


def compile_model(model: keras.Model, settings: Settings, spec: FeedSpec, *, steps: int) -> None:
    """Give a model its loss and its optimiser. `steps` is the number of batches of the whole training.

    A regression's loss is in the label's units. Nothing is scaled: Adam divides each step by the size of the
    gradients, so that the loss of an ejection fraction (squared, some hundreds) needs no other learning rate than
    that of a word's start (some hundredths).

    Of several targets each has its own loss, and the sum is trained on. There a regression's loss counts by the
    variance of its labels: else an ejection fraction would drown the cross-entropies beside it. A label that is missing
    has weight 0 in a feed's batches, and so no part in the loss of its target.
    """
    train = settings.train
    rate: Any = train.learning_rate
    if train.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(train.learning_rate, decay_steps=max(steps, 1))
    model.compile(
        optimizer=keras.optimizers.Adam(rate), loss=loss_for(settings, spec), loss_weights=_loss_weights(spec)
    )


def loss_for(settings: Settings, spec: FeedSpec) -> keras.losses.Loss | dict[str, keras.losses.Loss]:
    """Return the loss of a task, of several targets by name; `[train] loss` chooses among those of a regression."""
    chosen = settings.train.loss
    targets = targets_of(spec)
    if chosen != "auto" and all(each.task != "regression" for each in targets):
        raise SettingError(f"[train] loss = {chosen!r} is for a regression; the task is {spec.task!r}: leave it out")
    losses = {each.name: _loss(each, chosen, soft=spec.soft) for each in targets}
    return losses if spec.targets else losses[spec.target]


def _loss(target: TargetSpec, chosen: str, *, soft: bool) -> keras.losses.Loss:
    if target.task == "clip":
        return ClipLoss()
    if target.task == "regression":
        return keras.losses.Huber(delta=target.scale) if chosen == "huber" else keras.losses.MeanSquaredError()
    if target.task == "binary":
        return keras.losses.BinaryCrossentropy()
    return keras.losses.CategoricalCrossentropy() if soft else keras.losses.SparseCategoricalCrossentropy()


def _loss_weights(spec: FeedSpec) -> dict[str, float] | None:
    """Return what each of several losses counts: a regression's as if its labels had a standard deviation of 1."""
    if not spec.targets:
        return None
    return {each.name: 1 / each.scale**2 if each.task == "regression" else 1.0 for each in spec.targets}


def _check_inputs(model: keras.Model, spec: FeedSpec, *, name: str) -> None:
    """Raise SettingError where a network does not read all that the feed gives, or takes another type of pixel."""
    given = {*spec.clip_names, *(each.name for each in spec.covariates), *(["valid"] * spec.padded)}
    taken = {each.name for each in model.inputs}
    if given != taken:
        raise SettingError(
            f"[model: {name}] reads {', '.join(sorted(taken))}, the feed gives {', '.join(sorted(given))}; {_INSTEAD}"
        )
    pixels = {str(each.dtype) for each in model.inputs if each.name in spec.clip_names}
    if pixels == {"float32"} and np.dtype(spec.dtype).kind != "f":
        raise SettingError(
            f"[model: {name}] takes float32 clips that are scaled already, the feed gives {np.dtype(spec.dtype).name}; "
            f"add the transform Normalize"
        )


def _check_outputs(model: keras.Model, spec: FeedSpec, *, name: str, any_task: bool) -> None:
    """Raise SettingError where a network's outputs are not those of the task; `any_task`: it was built for the spec."""

    def shape(target: TargetSpec) -> tuple[int | None, ...]:
        if target.task == "clip":
            return (None, *spec.clip_shape)
        return (None, len(target.classes) if target.task == "multiclass" else 1)

    shapes = {each.name: shape(each) for each in targets_of(spec)}
    wanted = shapes if spec.targets else shapes[spec.target]
    found = model.output  # a dictionary of several, which output_shape would not tell apart
    given = {each: tuple(x.shape) for each, x in found.items()} if isinstance(found, dict) else tuple(found.shape)
    if given != wanted or not (any_task or spec.task == "regression"):
        raise SettingError(
            f"[model: {name}] gives {given} numbers a batch and cannot serve the task "
            f"{spec.task!r}, which needs {wanted}; {_INSTEAD}"
        )
