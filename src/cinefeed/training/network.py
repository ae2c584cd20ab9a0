"""Construction of the network to train from settings: model, optimiser, loss."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import cinefeed.models
from cinefeed.config import Settings
from cinefeed.core.errors import SettingError, did_you_mean
from cinefeed.core.plugins import invalid_plugin, load_plugin, plugins
from cinefeed.encoders import load_encoder
from cinefeed.feed.labels import FeedSpec, TargetSpec
from cinefeed.models import ClipLoss
from cinefeed.models.parts import LATER, targets_of
from cinefeed.models.torch_layer import PretrainedEncoder
from cinefeed.training.keras_module import keras
from cinefeed.training.losses import Focal, RootMeanSquaredError, SmoothedCrossEntropy

_LOSSES = {"regression": ("mse", "rmse", "mae", "huber"), "classes": ("cross_entropy", "focal")}
_NOT_DECAYED = ["bias", "gamma", "beta"]  # names of Keras' variables of biases and of normalisation
_ADVICE = "use cnn_rnn or cnn3d, or for clips the autoencoder"


def build_model(settings: Settings, spec: FeedSpec, *, trained: bool = False) -> keras.Model:
    """Return the network that `[model]` names, built for a feed's spec and not compiled.

    With `trained=True` the initial weights of a backbone are not read: the caller loads the weights of a run instead.
    An encoder of `pretrained` is built again from its name, file and sha256.
    Raises SettingError for a name or an option that cinefeed.models does not have, and for a spec that does not fit.
    """
    name = settings.model.name
    function = _model_function(name)
    first, *rest = inspect.signature(function).parameters
    options: dict[str, Any] = {"seed": settings.feed.seed, **settings.model.options}
    for option in options:
        if option not in rest:
            raise SettingError(f"[model: {name}] {option} is not a setting; {did_you_mean(option, rest)}")
    if trained and "weights" in options and "encoder" not in options:
        options["weights"] = LATER
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


def _model_function(name: str) -> Callable[..., keras.Model]:
    """Return the function of cinefeed.models, or of a plug-in, that builds a network."""
    names = [name for name in cinefeed.models.__all__ if inspect.isfunction(getattr(cinefeed.models, name))]
    others = plugins("models", builtin=names)
    if name not in (*names, *others):
        raise SettingError(f"[model] name = {name!r} is not a model; {did_you_mean(name, [*names, *others])}")
    function: Callable[..., keras.Model]
    if name in names:
        function = getattr(cinefeed.models, name)
    else:
        function = load_plugin(others[name])
        if not inspect.isfunction(function) or not inspect.signature(function).parameters.keys() > {"seed"}:
            raise invalid_plugin(
                others[name], "a function of a feed's spec, with a parameter seed, that returns a model"
            )
    return function


@contextmanager
def precision(policy: str) -> Iterator[None]:
    """Set the dtype policy of Keras within the context, and restore the previous one on exit.

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
    """Epochs that train with one compiled network, from `first` to before `end`, counted from 0."""

    first: int
    end: int
    learning_rate: float
    unfreeze: bool = False  # train a frozen backbone too


def stages(settings: Settings) -> list[Stage]:
    """Return the stages of a training: one, or with `unfreeze_epoch` one before that epoch and one after.

    Each stage has its own optimiser, with new moment estimates, and its own learning rate schedule.
    """
    train = settings.train
    epochs, rate = int(train.epochs), float(train.learning_rate)
    if not train.unfreeze_epoch:
        return [Stage(first=0, end=epochs, learning_rate=rate)]
    before = Stage(first=0, end=train.unfreeze_epoch, learning_rate=rate)
    return [
        before,
        Stage(first=train.unfreeze_epoch, end=epochs, learning_rate=train.unfreeze_learning_rate, unfreeze=True),
    ]


def frozen_backbones(model: keras.Model) -> list[keras.layers.Layer]:
    """Return the frozen backbones of a network; raises SettingError if there is none."""
    backbones = [layer for layer in model.layers if layer.name.startswith("backbone") and not layer.trainable]
    if not backbones:
        raise SettingError(
            "[train] unfreeze_epoch needs a frozen backbone; set [model] backbone = ..., weights = ..., "
            "frozen = true, or name = 'pretrained' and encoder = ..., or leave unfreeze_epoch out"
        )
    return backbones


def compile_model(
    model: keras.Model, settings: Settings, spec: FeedSpec, *, steps: int, stage: Stage | None = None
) -> None:
    """Compile a model with its loss and optimiser. `steps` is the number of batches of the whole training.

    The loss of a regression is in the label's units and not scaled: Adam divides each step by the size of the
    gradients, so that the loss of an ejection fraction (squared, some hundreds) needs the same learning rate as that of
    a word's start (some hundredths).

    With several targets each has its own loss, and their sum is minimised. The loss of a regression is then divided by
    the variance of its labels, since an ejection fraction would otherwise outweigh cross-entropies. A missing label has
    weight 0 in the batches of a feed, and so does not affect the loss of its target.
    """
    train = settings.train
    stage = stages(settings)[0] if stage is None else stage
    rate: Any = stage.learning_rate
    if train.schedule == "cosine":
        rate = _cosine(settings, stage, steps_per_epoch=max(steps, 1) / int(train.epochs))
    options = {"global_clipnorm": train.clip_norm or None, "weight_decay": train.weight_decay or None}
    factors = learning_rate_factors(model, train.layer_decay) if train.layer_decay < 1 else {}
    optimizer = LayerwiseAdam(rate, factors, **options) if factors else keras.optimizers.Adam(rate, **options)
    if train.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=_NOT_DECAYED)
    model.compile(
        optimizer=optimizer,
        loss=loss_for(settings, spec),
        loss_weights=_loss_weights(spec, settings),
    )


class LayerwiseAdam(keras.optimizers.Adam):  # type: ignore[misc]  # keras is untyped
    """Adam with a factor of the learning rate for some variables, given by their `id`."""

    def __init__(self, learning_rate: Any, factors: Mapping[int, float], **options: Any) -> None:
        super().__init__(learning_rate, **options)
        self._factors = dict(factors)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable."""
        super().update_step(gradient, variable, learning_rate * self._factors.get(id(variable), 1.0))

    def _apply_weight_decay(self, variables: Any) -> None:  # Keras' own has one rate for all variables
        for variable in variables:
            if self.weight_decay and self._use_weight_decay(variable):
                rate = self.learning_rate * self._factors.get(id(variable), 1.0)
                variable.assign(variable * (1.0 - self.weight_decay * keras.ops.cast(rate, variable.dtype)))


def learning_rate_factors(model: keras.Model, decay: float) -> dict[int, float]:
    """Return the factors of the learning rate of the encoders' variables.

    Raises SettingError for a network without a pretrained encoder of PyTorch.
    """
    encoders = [layer for layer in model.layers if isinstance(layer, PretrainedEncoder)]
    if not encoders:
        raise SettingError(
            f"[train] layer_decay = {decay} is for [model] name = 'pretrained'; leave it out of a {model.name}"
        )
    return {key: factor for each in encoders for key, factor in each.learning_rate_factors(decay).items()}


def with_encoder_digest(settings: Settings) -> Settings:
    """Return settings with the sha256 of the pretrained encoder's weights, by which a run finds the same ones again."""
    options = settings.model.options
    if settings.model.name != "pretrained" or "encoder" not in options or "sha256" in options:
        return settings
    try:
        digest = load_encoder(str(options["encoder"]), weights=options.get("weights")).sha256
    except SettingError as error:
        raise SettingError(f"[model: pretrained] {error}") from error
    return replace(settings, model=replace(settings.model, options={**options, "sha256": digest}))


def _cosine(settings: Settings, stage: Stage, *, steps_per_epoch: float) -> keras.optimizers.schedules.CosineDecay:
    warmup_epochs = 0 if stage.unfreeze else min(settings.train.warmup_epochs, stage.end - stage.first - 1)
    decay_steps = max(round((stage.end - stage.first - warmup_epochs) * steps_per_epoch), 1)
    if not warmup_epochs:
        return keras.optimizers.schedules.CosineDecay(stage.learning_rate, decay_steps=decay_steps)
    warmup_steps = round(warmup_epochs * steps_per_epoch)
    return keras.optimizers.schedules.CosineDecay(
        0.0, decay_steps=decay_steps, warmup_target=stage.learning_rate, warmup_steps=warmup_steps
    )


def loss_for(settings: Settings, spec: FeedSpec) -> keras.losses.Loss | dict[str, keras.losses.Loss]:
    """Return the loss of a task, or losses by target; `[train] loss` applies to the targets whose kind it fits."""
    name = settings.train.loss
    targets = targets_of(spec)
    kind = next((kind for kind, names in _LOSSES.items() if name in names), None)
    if kind is not None and all(_kind(target) != kind for target in targets):
        tasks = ", ".join(sorted({target.task for target in targets}))
        purpose = "a regression" if kind == "regression" else "classes"
        raise SettingError(f"[train] loss = {name!r} is for {purpose}; the task is {tasks!r}: leave it out")
    smoothing = settings.train.label_smoothing
    if smoothing and (name == "focal" or not any(target.classes for target in targets)):
        reason = "the loss is 'focal'" if name == "focal" else "no target has classes"
        raise SettingError(f"[train] label_smoothing = {smoothing} is for cross-entropy, and {reason}: leave it out")
    losses = {
        each.name: _loss(each, name if _kind(each) == kind else "auto", soft=spec.soft, smoothing=smoothing)
        for each in targets
    }
    return losses if spec.targets else losses[spec.target]


def _kind(target: TargetSpec) -> str:
    return "classes" if target.classes else target.task


def _loss(target: TargetSpec, name: str, *, soft: bool, smoothing: float) -> keras.losses.Loss:
    if target.task == "clip":
        return ClipLoss()
    if target.task == "regression":
        losses = {"mae": keras.losses.MeanAbsoluteError, "rmse": RootMeanSquaredError}
        if name == "huber":
            return keras.losses.Huber(delta=target.scale)
        return losses.get(name, keras.losses.MeanSquaredError)()
    if name == "focal":
        return Focal()
    if target.task == "binary":
        return keras.losses.BinaryCrossentropy(label_smoothing=smoothing)
    if smoothing:
        return SmoothedCrossEntropy(label_smoothing=smoothing)
    return keras.losses.CategoricalCrossentropy() if soft else keras.losses.SparseCategoricalCrossentropy()


def _loss_weights(spec: FeedSpec, settings: Settings) -> dict[str, float] | None:
    """Return the weights of several losses: a regression's as if its labels had a standard deviation of 1."""
    if not spec.targets:
        return None
    power = 1 if settings.train.loss in ("mae", "rmse") else 2  # of the label's unit in the loss
    return {each.name: 1 / each.scale**power if each.task == "regression" else 1.0 for each in spec.targets}


def _check_inputs(model: keras.Model, spec: FeedSpec, *, name: str) -> None:
    """Raise SettingError if the inputs of a network are not those of the feed, or have another dtype."""
    feed_inputs = {*spec.clip_names, *(each.name for each in spec.covariates), *(["valid"] * spec.padded)}
    model_inputs = {each.name for each in model.inputs}
    if feed_inputs != model_inputs:
        raise SettingError(
            f"[model: {name}] has the inputs {', '.join(sorted(model_inputs))}, the feed provides "
            f"{', '.join(sorted(feed_inputs))}; {_ADVICE}"
        )
    pixels = {str(each.dtype) for each in model.inputs if each.name in spec.clip_names}
    if pixels == {"float32"} and np.dtype(spec.dtype).kind != "f":
        raise SettingError(
            f"[model: {name}] needs scaled float32 clips, the feed provides {np.dtype(spec.dtype).name}; "
            f"add the transform Normalize"
        )


def _check_outputs(model: keras.Model, spec: FeedSpec, *, name: str, any_task: bool) -> None:
    """Raise SettingError if the outputs of a network do not fit the task; `any_task`: it was built from the spec."""

    def shape(target: TargetSpec) -> tuple[int | None, ...]:
        if target.task == "clip":
            return (None, *spec.clip_shape)
        return (None, len(target.classes) if target.task == "multiclass" else 1)

    shapes = {each.name: shape(each) for each in targets_of(spec)}
    expected = shapes if spec.targets else shapes[spec.target]
    output = model.output  # not output_shape, which does not name the outputs
    actual = {each: tuple(x.shape) for each, x in output.items()} if isinstance(output, dict) else tuple(output.shape)
    if actual != expected or not (any_task or spec.task == "regression"):
        raise SettingError(
            f"[model: {name}] has outputs of shape {actual} and cannot be used for the task "
            f"{spec.task!r}, which needs {expected}; {_ADVICE}"
        )
