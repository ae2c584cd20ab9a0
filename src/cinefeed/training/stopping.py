"""What ends a training before its last epoch: a loss that is not finite, no improvement, an F1 that stays zero."""

from collections.abc import Sequence

import pyarrow.compute as pc

from cinefeed.config import Settings
from cinefeed.config.recipe import MIN_UNITS
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.training.callbacks import StopAtNaN, StopWhenF1StaysZero, mode_of
from cinefeed.training.keras_module import keras

_PATIENCE = 10  # epochs, with patience = "auto"


def choose_patience(settings: Settings, val: Manifest) -> tuple[int, str]:
    """Return the epochs without improvement that stop a training, 0 for none, and a line for the user or ""."""
    train, column = settings.train, settings.evaluate.unit or settings.data.split.group or "id"
    units = pc.count_distinct(val.column(column)).as_py()
    is_noisy = train.monitor != "loss" and units < MIN_UNITS
    unit = "videos" if column == "id" else f"values of {column!r}"
    few = f"the validation part has {units} {unit}, fewer than {MIN_UNITS}"
    if train.patience != "auto":
        note = f"note: {few}: early stopping (patience = {train.patience}) follows its noise"
        return train.patience, note if is_noisy and train.patience else ""
    if is_noisy:
        return 0, f"no early stopping: {few}, so that {train.monitor} is mostly noise"
    return (0 if train.schedule == "cosine" else _PATIENCE), ""


def stoppers_for(settings: Settings, *, patience: int) -> list[keras.callbacks.Callback]:
    """Return the callbacks that stop training early or lower the learning rate, in the order of their calls."""
    train = settings.train
    monitor = {"monitor": train.monitor, "mode": mode_of(train.monitor)}
    stoppers: list[keras.callbacks.Callback] = [StopAtNaN()]
    if train.f1_zero_patience:
        stoppers.append(StopWhenF1StaysZero(patience=train.f1_zero_patience))
    if patience:
        stoppers.append(keras.callbacks.EarlyStopping(patience=patience, min_delta=train.min_improvement, **monitor))
    if train.reduce_lr_patience and train.schedule == "plateau":
        stoppers.append(
            keras.callbacks.ReduceLROnPlateau(
                patience=train.reduce_lr_patience, factor=train.reduce_lr_factor, **monitor
            )
        )
    return stoppers


def stop_reason(settings: Settings, stoppers: Sequence[keras.callbacks.Callback], *, epochs: int) -> str:
    """Return why a training ended."""
    for callback in stoppers:
        if getattr(callback, "reason", ""):
            return str(callback.reason)
        if isinstance(callback, keras.callbacks.EarlyStopping) and callback.stopped_epoch:
            train = settings.train
            least = f" by more than {train.min_improvement:g}" if train.min_improvement else ""
            return f"{train.monitor} did not improve{least} for {callback.patience} epochs"
    return f"all {epochs} epochs are done"
