"""From settings to a network that can be trained: model, optimiser, loss."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

import cinefeed.models
from cinefeed.config import Settings
from cinefeed.errors import SettingError, did_you_mean
from cinefeed.feed.targets import FeedSpec, TargetSpec
from cinefeed.models import ClipLoss
from cinefeed.models.parts import targets_of
from cinefeed.training.losses import Focal, RootMeanSquaredError

_LOSSES = {"regression": ("mse", "rmse", "mae", "huber"), "classes": ("cross_entropy", "focal")}
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
        with precision(settings.train.precision):
            model = function(spec if first == "spec" else spec.clip_shape, **options)
    except SettingError as error:
        raise SettingError(f"[model: {name}] {error}") from error
    except (TypeError, ValueError) as error:
        raise SettingError(f"[model: {name}] cannot be built with {options}: {error}") from error
    _check_inputs(model, spec, name=name)
    _check_outputs(model, spec, name=name, any_task=first == "spec")
    return model


@contextmanager
def precision(policy: str) -> Iterator[None]:
    """Build layers under a precision of Keras, and leave the one of the process as it was.

    >>> with precision("mixed_bfloat16"):
    ...     layer = keras.layers.Dense(1)
    >>> layer.compute_dtype, layer.variable_dtype, keras.config.dtype_policy().name
    ('bfloat16', 'float32', 'float32')
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Epochs that one compiled network trains for, from `first` to before `end`, counted from 0."""

    first: int
    end: int
    learning_rate: float
    unfreeze: bool = False  # a frozen backbone is trained too


def stages(settings: Settings) -> list[Stage]:
    """Return the stages of a training: one, or with `unfreeze_epoch` one before it and one after.

    Each has an optimiser of its own, whose averages begin with its count of steps, and a schedule over its epochs.
    """
    train = settings.train
    if not train.unfreeze_epoch:
        return [Stage(first=0, end=train.epochs, learning_rate=train.learning_rate)]
    before = Stage(first=0, end=train.unfreeze_epoch, learning_rate=train.learning_rate)
    return [
        before,
        Stage(first=train.unfreeze_epoch, end=train.epochs, learning_rate=train.unfreeze_learning_rate, unfreeze=True),
    ]


def frozen_backbones(model: keras.Model) -> list[keras.layers.Layer]:
    """Return a network's backbones that are frozen; raises SettingError where there is none to unfreeze."""
    found = [each for each in model.layers if each.name.startswith("backbone") and not each.trainable]
    if not found:
        raise SettingError(
            "[train] unfreeze_epoch is for a backbone that begins frozen; write [model] backbone = ..., weights = ..., "
            "frozen = true, or leave unfreeze_epoch out"
        )
    return found


def compile_model(
    model: keras.Model, settings: Settings, spec: FeedSpec, *, steps: int, stage: Stage | None = None
) -> None:
    """Give a model its loss and its optimiser. `steps` is the number of batches of the whole training.

    A regression's loss is in the label's units. Nothing is scaled: Adam divides each step by the size of the
    gradients, so that the loss of an ejection fraction (squared, some hundreds) needs no other learning rate than
    that of a word's start (some hundredths).

    Of several targets each has its own loss, and the sum is trained on. There a regression's loss counts by the
    variance of its labels: else an ejection fraction would drown the cross-entropies beside it. A label that is missing
    has weight 0 in a feed's batches, and so no part in the loss of its target.
    """
    train = settings.train
    stage = stages(settings)[0] if stage is None else stage
    rate: Any = stage.learning_rate
    if train.schedule == "cosine":
        rate = _cosine(settings, stage, steps_per_epoch=max(steps, 1) / train.epochs)
    model.compile(
        optimizer=keras.optimizers.Adam(rate, global_clipnorm=train.clip_norm or None),
        loss=loss_for(settings, spec),
        loss_weights=_loss_weights(spec, settings),
    )


def _cosine(settings: Settings, stage: Stage, *, steps_per_epoch: float) -> keras.optimizers.schedules.CosineDecay:
    warm = 0 if stage.unfreeze else min(settings.train.warmup_epochs, stage.end - stage.first - 1)
    rest = max(round((stage.end - stage.first - warm) * steps_per_epoch), 1)
    if not warm:
        return keras.optimizers.schedules.CosineDecay(stage.learning_rate, decay_steps=rest)
    return keras.optimizers.schedules.CosineDecay(
        0.0, decay_steps=rest, warmup_target=stage.learning_rate, warmup_steps=round(warm * steps_per_epoch)
    )


def loss_for(settings: Settings, spec: FeedSpec) -> keras.losses.Loss | dict[str, keras.losses.Loss]:
    """Return the loss of a task, of several targets by name; `[train] loss` chooses for those that it fits."""
    chosen = settings.train.loss
    targets = targets_of(spec)
    kind = next((kind for kind, names in _LOSSES.items() if chosen in names), None)
    if kind is not None and all(_kind(each) != kind for each in targets):
        found = ", ".join(sorted({each.task for each in targets}))
        what = "a regression" if kind == "regression" else "classes"
        raise SettingError(f"[train] loss = {chosen!r} is for {what}; the task is {found!r}: leave it out")
    losses = {each.name: _loss(each, chosen if _kind(each) == kind else "auto", soft=spec.soft) for each in targets}
    return losses if spec.targets else losses[spec.target]


def _kind(target: TargetSpec) -> str:
    return "classes" if target.classes else target.task


def _loss(target: TargetSpec, chosen: str, *, soft: bool) -> keras.losses.Loss:
    if target.task == "clip":
        return ClipLoss()
    if target.task == "regression":
        of_numbers = {"mae": keras.losses.MeanAbsoluteError, "rmse": RootMeanSquaredError}
        if chosen == "huber":
            return keras.losses.Huber(delta=target.scale)
        return of_numbers.get(chosen, keras.losses.MeanSquaredError)()
    if chosen == "focal":
        return Focal()
    if target.task == "binary":
        return keras.losses.BinaryCrossentropy()
    return keras.losses.CategoricalCrossentropy() if soft else keras.losses.SparseCategoricalCrossentropy()


def _loss_weights(spec: FeedSpec, settings: Settings) -> dict[str, float] | None:
    """Return what each of several losses counts: a regression's as if its labels had a standard deviation of 1."""
    if not spec.targets:
        return None
    power = 1 if settings.train.loss in ("mae", "rmse") else 2  # of the label's unit in the loss
    return {each.name: 1 / each.scale**power if each.task == "regression" else 1.0 for each in spec.targets}


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
