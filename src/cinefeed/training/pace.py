"""The duration of a training on this machine, estimated from a few timed steps; nothing is written."""

import time
from dataclasses import dataclass, replace

from cinefeed.config import Settings
from cinefeed.core.text import format_count, format_duration
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.training.auto import with_choices
from cinefeed.training.batches import TrainingSet
from cinefeed.training.folds import fold_manifests
from cinefeed.training.keras_module import Logs, keras
from cinefeed.training.losses import class_weights
from cinefeed.training.network import build_model, compile_model
from cinefeed.training.predictions import score
from cinefeed.training.run import device
from cinefeed.training.setup import build_feed, choose_rows, make_parts, usable_rows
from cinefeed.training.threads import choose_threads, restored_threads, use_threads

_SECONDS = 8.0  # of timed steps
_MIN_STEPS = 4  # the first one also compiles, and the next ones find batches that were made meanwhile


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Seconds of a step, an epoch with its validation, and the whole training with all its folds."""

    steps: int  # that were timed
    step_seconds: float
    epoch_seconds: float
    total_seconds: float
    batches: int  # of an epoch
    epochs: int
    folds: int
    device: str

    def __str__(self) -> str:
        """Return one sentence, such as the comment of a settings file."""
        folds = f" of {self.folds} folds" if self.folds else ""
        return (
            f"{format_duration(self.step_seconds)} a step, {format_duration(self.epoch_seconds)} an epoch of "
            f"{format_count(self.batches, 'step')}, about {format_duration(self.total_seconds)} for all "
            f"{format_count(self.epochs, 'epoch')}{folds} and the evaluation, here ({self.device}, from "
            f"{format_count(self.steps, 'step')})"
        )


class _Timer(keras.callbacks.Callback):  # type: ignore[misc]  # keras is untyped
    """Store the time of each step's end, and stop after some seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.times: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        self.times.append(time.perf_counter())
        if len(self.times) > _MIN_STEPS and self.times[-1] - self.times[0] > self.seconds:
            self.model.stop_training = True


def measure_pace(settings: Settings, *, seconds: float = _SECONDS) -> Pace:
    """Return how long the training that `settings` describe takes, from about `seconds` of its steps.

    The result depends on this machine and on other programs. Raises what `train` raises for unsuitable data.
    """
    folds, train = settings.train.folds, settings.train
    rows, _ = usable_rows(choose_rows(Manifest.read(settings.data.manifest), settings))
    if folds:
        rows = fold_manifests(rows, settings, folds=folds)[0]
        settings = replace(
            settings, data=replace(settings.data, split=replace(settings.data.split, column="split", stratify=None))
        )
    parts = make_parts(rows, settings)
    with restored_threads():
        feed = build_feed(settings, parts.train)
        try:
            balance = class_weights(feed) if train.class_weights == "balanced" else None
            dataset = TrainingSet(feed, class_weights=balance)
            settings = with_choices(settings, feed.spec, videos=len(parts.train), batches=len(feed))
            train, num_epochs = settings.train, int(settings.train.epochs)
            model = build_model(settings, feed.spec)
            use_threads(choose_threads(model, feed.spec, setting=train.threads))
            compile_model(model, settings, feed.spec, steps=num_epochs * len(feed))
            timer = _Timer(seconds)
            epochs = -(-(_MIN_STEPS + 2) // len(feed))
            model.fit(dataset, epochs=epochs, verbose=0, callbacks=[dataset.callback, timer])
            last_half = timer.times[len(timer.times) // 2 - 1 :]
            step_seconds = (last_half[-1] - last_half[0]) / max(len(last_half) - 1, 1)
            num_timed = min(len(parts.val), 2 * settings.feed.batch_size)
            val = feed.evaluation(parts.val.take(range(num_timed)), clips=1)
            start = time.perf_counter()
            score(model, val)
            video_seconds = (time.perf_counter() - start) / num_timed
            val.close()
        finally:
            feed.close()
    epoch_seconds = len(feed) * step_seconds + len(parts.val) * video_seconds
    num_assessed = (len(parts.val) + len(parts.test)) * settings.evaluate.clips
    run_seconds = num_epochs * epoch_seconds + num_assessed * video_seconds
    return Pace(
        steps=len(timer.times),
        step_seconds=step_seconds,
        epoch_seconds=epoch_seconds,
        total_seconds=run_seconds * max(folds, 1),
        batches=len(feed),
        epochs=num_epochs,
        folds=folds,
        device=device(),
    )
