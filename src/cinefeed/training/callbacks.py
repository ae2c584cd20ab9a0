"""Keras callbacks of a training run: validation metrics, best weights, stopping, warm-up; usable in any `fit`.

Order matters in `fit(callbacks=[...])`: WholeSetMetrics comes first, since the others read its metrics.
The class attribute `resumes` names the attributes of a callback that a checkpoint saves.

>>> import tempfile
>>> from cinefeed.adapters.keras import FeedDataset
>>> from cinefeed.video.clips import Clip, Frame
>>> from cinefeed.data.manifest.manifest import Manifest
>>> from cinefeed.models import cnn_rnn
>>> videos = Manifest.from_arrays(np.zeros((6, 5, 8, 8), np.uint8), {"age": [20.0, 30, 40, 50, 60, 70]})
>>> feed = Feed(videos, target="age", clip=Clip(frames=4), frame=Frame(height=8, width=8, channels=1), batch_size=3)
>>> dataset, val = FeedDataset(feed), feed.evaluation(videos)
>>> model = cnn_rnn(feed.spec, filters=[2, 2], units=2, dense=2)
>>> model.compile("adam", loss="mse")
>>> best = BestWeights(Path(tempfile.mkdtemp()) / "best.weights.h5", monitor="val_rmse")
>>> own = [WholeSetMetrics(val), best, StopAtNaN(), StopWhenF1StaysZero(patience=3)]
>>> history = model.fit(dataset, epochs=1, verbose=0, callbacks=[dataset.callback, *own])
>>> best.path.name, best.best_epoch, round(best.best, 1)
('best.weights.h5', 0, 17.1)
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cinefeed.core.errors import SettingError, TrainingError, did_you_mean
from cinefeed.core.files import write_atomically
from cinefeed.feed.feed import Feed
from cinefeed.models import ClipLoss
from cinefeed.training.distributed import copy_running_means, rank_and_size
from cinefeed.training.keras_module import Logs, keras
from cinefeed.training.predictions import Scores, measure, metric_names, single_numbers
from cinefeed.training.ranks import feed_of_rank, score_by_ranks
from cinefeed.training.weights import save_weights

_LESS_IS_BETTER = ("loss", "rmse", "mae", "mse", "sd", "ece")


def mode_of(monitor: str) -> str:
    """Return "min" if lower values of a metric are better, else "max".

    >>> mode_of("val_rmse"), mode_of("val_auroc"), mode_of("val_age_mae")  # of the target `age` among several
    ('min', 'max', 'min')
    """
    return "min" if monitor.rpartition("_")[2] in _LESS_IS_BETTER else "max"


class WholeSetMetrics(keras.callbacks.Callback):  # type: ignore[misc]  # keras is untyped
    """Compute metrics of the whole validation set after each epoch and add them to the logs as `val_...`.

    `val_loss` is one of them. Keras' own `validation_data` averages metrics over batches, which differs from the metric
    of the whole set. If the loss or a score is not finite, all metrics are NaN.

    With several ranks each scores some of the rows, and rank 0 alone has the metrics: all ranks need this callback, and
    a feed of all rows (`Shard(rank=0, world_size=1)`).
    """

    def __init__(self, feed: Feed) -> None:
        super().__init__()
        self.feed = feed
        self._own_feed = feed_of_rank(feed)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Score every row of the feed and add the metrics to the logs."""
        logs = {} if logs is None else logs
        if not np.isfinite(logs.get("loss", 0.0)):  # the mean of all ranks
            scores = None
        else:
            copy_running_means(self.model)
            scores = score_by_ranks(self.model, self._own_feed)
        if rank_and_size()[0] > 0:
            return
        logs["learning_rate"] = float(self.model.optimizer.learning_rate)
        names = ("loss", *metric_names(self.feed.spec))  # all, so that a monitored metric exists after a NaN too
        logs.update(dict.fromkeys([f"val_{name}" for name in names], float("nan")))
        if scores is None or not all(np.isfinite(values).all() for values in _by_name(scores.values).values()):
            return
        logs["val_loss"] = loss_of(self.model, scores)
        metrics = single_numbers(measure(self.feed.spec, scores))
        logs.update({f"val_{name}": value for name, value in metrics.items()})


def loss_of(model: keras.Model, scores: Scores) -> float:
    """Return the loss of a compiled model on a whole part; for several targets the sum, without missing labels.

    For the task "clip" the scores already are the loss of each clip.
    """
    if isinstance(model.loss, ClipLoss):
        return float(np.mean(scores.values))
    targets, values = _by_name(scores.targets), _by_name(scores.values)
    y, y_pred, weights = {}, {}, {}
    for name, value in values.items():
        target = targets[name]
        loss = model.loss[name] if isinstance(model.loss, Mapping) else model.loss
        if isinstance(loss, keras.losses.CategoricalCrossentropy) and target.ndim == 1:  # targets are mixed in training
            target = np.eye(value.shape[1], dtype=np.float32)[target]
        y[name] = keras.ops.convert_to_tensor(target)
        y_pred[name] = keras.ops.convert_to_tensor(value[:, np.newaxis] if value.ndim == 1 else value, "float32")
        if name in scores.has_label:
            weights[name] = keras.ops.convert_to_tensor(scores.has_label[name].astype(np.float32))
    if isinstance(scores.values, Mapping):
        return float(keras.ops.convert_to_numpy(model.compute_loss(y=y, y_pred=y_pred, sample_weight=weights or None)))
    return float(keras.ops.convert_to_numpy(model.compute_loss(y=y[""], y_pred=y_pred[""])))


def _by_name(values: Any) -> Mapping[str, Any]:
    return values if isinstance(values, Mapping) else {"": values}


class BestWeights(keras.callbacks.Callback):  # type: ignore[misc]  # keras is untyped
    """Save the weights of the best epoch to a file that is complete at any time (`x.weights.h5`).

    Keras' ModelCheckpoint overwrites the last good file: a full disk or a kill while saving would destroy it.
    A digest follows the weights, so that damage is detected (training/weights.py); Keras ignores it when loading.
    """

    resumes = ("best", "best_epoch")

    def __init__(self, path: str | Path, *, monitor: str = "val_loss") -> None:
        super().__init__()
        self.path = Path(path)
        self.monitor = monitor
        self.best: float | None = None
        self.best_epoch = -1

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Save the weights if the monitored metric is finite and better than in every earlier epoch."""
        if self.monitor not in (logs or {}):
            raise SettingError(f"monitor={self.monitor!r} is not measured; {did_you_mean(self.monitor, logs or {})}")
        value = float((logs or {})[self.monitor])
        sign = 1.0 if mode_of(self.monitor) == "min" else -1.0
        if not np.isfinite(value) or (self.best is not None and sign * value >= sign * self.best):
            return
        try:
            write_atomically(self.path, lambda path: save_weights(self.model, path))
        except OSError as error:
            saved = f"those of epoch {self.best_epoch + 1} are kept" if self.best is not None else "none are kept"
            raise TrainingError(f"the weights of epoch {epoch + 1} cannot be saved ({error}); {saved}") from error
        self.best, self.best_epoch = value, epoch


class StopAtNaN(keras.callbacks.Callback):  # type: ignore[misc]  # keras is untyped
    """Stop at the first batch whose loss is not finite; `reason` then names the batch and is empty until then."""

    def __init__(self) -> None:
        super().__init__()
        self.reason = ""
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Store the epoch, which `reason` names."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Check the loss: Keras passes its mean since the start of the epoch, which stays NaN after one NaN."""
        loss = (logs or {}).get("loss", 0.0)
        if not np.isfinite(loss):
            self.reason = f"the loss is {loss} at epoch {self._epoch + 1}, batch {batch + 1}"
            self.model.stop_training = True


class StopWhenF1StaysZero(keras.callbacks.Callback):  # type: ignore[misc]  # keras is untyped
    """Stop after `patience` epochs in a row with a `val_f1` of zero: the model predicts no positive and stays so.

    With several targets each has its own F1 (`val_sick_f1`), so this callback never stops a training.
    """

    resumes = ("reason", "_zeros")

    def __init__(self, *, patience: int) -> None:
        super().__init__()
        self.patience = patience
        self.reason = ""
        self._zeros = 0

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Count the epochs in a row with a `val_f1` of zero."""
        self._zeros = self._zeros + 1 if (logs or {}).get("val_f1") == 0 else 0
        if self._zeros >= self.patience:
            self.reason = f"val_f1 was zero for {self._zeros} epochs"
            self.model.stop_training = True


class WarmUp(keras.callbacks.Callback):  # type: ignore[misc]  # keras is untyped
    """Raise the learning rate to `rate` over the first `steps` batches, and leave it unchanged afterwards.

    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.SGD(0.5), loss="mse")
    >>> rates = []
    >>> watch = keras.callbacks.LambdaCallback(
    ...     on_train_batch_end=lambda batch, logs: rates.append(float(model.optimizer.learning_rate)))
    >>> x = np.ones((4, 1), np.float32)
    >>> history = model.fit(x, x, batch_size=1, verbose=0, callbacks=[WarmUp(0.5, steps=2), watch])
    >>> rates
    [0.25, 0.5, 0.5, 0.5]
    """

    def __init__(self, rate: float, *, steps: int) -> None:
        super().__init__()
        self.rate = rate
        self.steps = steps
        self._finished = False

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Set the rate from the optimiser's own step counter, which a resumed run restores."""
        if self._finished:
            return
        sync_state(self.model)
        step = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
        if step < self.steps:
            self.model.optimizer.learning_rate = self.rate * (step + 1) / self.steps
        self._finished = step + 1 >= self.steps


def sync_state(model: keras.Model) -> None:
    """Update a model's variables: on JAX, `fit` updates them only at the end of an epoch."""
    if keras.config.backend() == "jax":
        model.jax_state_sync()
