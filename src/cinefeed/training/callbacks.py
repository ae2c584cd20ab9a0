"""What watches a training run. Each is a plain Keras callback, of use in anybody's own `fit`.

Order matters in `fit(callbacks=[...])`: WholeSetMetrics comes first, since the others read what it measures.
`resumes` names what of a callback belongs to a checkpoint.

>>> import tempfile
>>> from cinefeed.adapters.keras import FeedDataset
>>> from cinefeed.clips import Clip, Frame
>>> from cinefeed.manifest.table import Manifest
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

import keras
import numpy as np

from cinefeed.errors import SettingError, TrainingError, did_you_mean
from cinefeed.feed.feed import Feed
from cinefeed.files import write_atomically
from cinefeed.models import ClipLoss
from cinefeed.training.scores import Scores, measure, metric_names, score, single_numbers
from cinefeed.training.weights import save_weights

Logs = dict[str, Any] | None
_LESS_IS_BETTER = ("loss", "rmse", "mae", "mse", "sd", "ece")


def mode_of(monitor: str) -> str:
    """Return whether less or more of a metric is better: "min" or "max".

    >>> mode_of("val_rmse"), mode_of("val_auroc"), mode_of("val_age_mae")  # of the target `age` among several
    ('min', 'max', 'min')
    """
    return "min" if monitor.rpartition("_")[2] in _LESS_IS_BETTER else "max"


class WholeSetMetrics(keras.callbacks.Callback):  # type: ignore[misc]  # keras is untyped
    """Measure the whole validation set at each epoch's end, into the logs as `val_...`, `val_loss` among them.

    Keras' own `validation_data` averages metrics over batches, which is another number than the metric of the set.
    Where the loss or a score is no finite number, all of them are NaN.
    """

    def __init__(self, feed: Feed) -> None:
        super().__init__()
        self.feed = feed

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Score every row of the feed and add what the scores measure."""
        logs = {} if logs is None else logs
        logs["learning_rate"] = float(self.model.optimizer.learning_rate)
        names = ("loss", *metric_names(self.feed.spec))  # all: who watches one of them misses none after a NaN
        logs.update(dict.fromkeys([f"val_{name}" for name in names], float("nan")))
        if not np.isfinite(logs.get("loss", 0.0)):
            return
        scores = score(self.model, self.feed)
        if not all(np.isfinite(each).all() for each in _by_name(scores.values).values()):
            return
        logs["val_loss"] = loss_of(self.model, scores)
        metrics = single_numbers(measure(self.feed.spec, scores))
        logs.update({f"val_{name}": value for name, value in metrics.items()})


def loss_of(model: keras.Model, scores: Scores) -> float:
    """Return a compiled model's loss of a whole part; of several targets the sum, without labels that are missing.

    Of the task "clip" the scores are the loss of each clip already.
    """
    if isinstance(model.loss, ClipLoss):
        return float(np.mean(scores.values))
    targets, values = _by_name(scores.targets), _by_name(scores.values)
    y, y_pred, weights = {}, {}, {}
    for name, value in values.items():
        target = targets[name]
        loss = model.loss[name] if isinstance(model.loss, Mapping) else model.loss
        if isinstance(loss, keras.losses.CategoricalCrossentropy) and target.ndim == 1:  # of targets mixed in training
            target = np.eye(value.shape[1], dtype=np.float32)[target]
        y[name] = keras.ops.convert_to_tensor(target)
        y_pred[name] = keras.ops.convert_to_tensor(value[:, np.newaxis] if value.ndim == 1 else value, "float32")
        if name in scores.known:
            weights[name] = keras.ops.convert_to_tensor(scores.known[name].astype(np.float32))
    if isinstance(scores.values, Mapping):
        return float(keras.ops.convert_to_numpy(model.compute_loss(y=y, y_pred=y_pred, sample_weight=weights or None)))
    return float(keras.ops.convert_to_numpy(model.compute_loss(y=y[""], y_pred=y_pred[""])))


def _by_name(values: Any) -> Mapping[str, Any]:
    return values if isinstance(values, Mapping) else {"": values}


class BestWeights(keras.callbacks.Callback):  # type: ignore[misc]  # keras is untyped
    """Keep the weights of the best epoch in a file that is whole at any time (`x.weights.h5`).

    Keras' ModelCheckpoint writes over the last good file: a full disk or a kill while saving would leave neither.
    A digest follows the weights, by which damage is seen (training/weights.py); Keras loads them as any others.
    """

    resumes = ("best", "best_epoch")

    def __init__(self, path: str | Path, *, monitor: str = "val_loss") -> None:
        super().__init__()
        self.path = Path(path)
        self.monitor = monitor
        self.best: float | None = None
        self.best_epoch = -1

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Save where the monitored metric is finite and better than ever."""
        if self.monitor not in (logs or {}):
            raise SettingError(f"monitor={self.monitor!r} is not measured; {did_you_mean(self.monitor, logs or {})}")
        value = float((logs or {})[self.monitor])
        sign = 1.0 if mode_of(self.monitor) == "min" else -1.0
        if not np.isfinite(value) or (self.best is not None and sign * value >= sign * self.best):
            return
        try:
            write_atomically(self.path, lambda path: save_weights(self.model, path))
        except OSError as error:
            kept = f"those of epoch {self.best_epoch + 1} are kept" if self.best is not None else "none are kept"
            raise TrainingError(f"the weights of epoch {epoch + 1} cannot be saved ({error}); {kept}") from error
        self.best, self.best_epoch = value, epoch


class StopAtNaN(keras.callbacks.Callback):  # type: ignore[misc]  # keras is untyped
    """Stop at the first batch whose loss is not finite, and say which; `reason` is empty until then."""

    def __init__(self) -> None:
        super().__init__()
        self.reason = ""
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Remember the epoch, to name it."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Look at the loss: Keras gives its mean since the epoch's start, which stays NaN after one NaN."""
        loss = (logs or {}).get("loss", 0.0)
        if not np.isfinite(loss):
            self.reason = f"the loss is {loss} at epoch {self._epoch + 1}, batch {batch + 1}"
            self.model.stop_training = True


class StopWhenF1StaysZero(keras.callbacks.Callback):  # type: ignore[misc]  # keras is untyped
    """Stop after `patience` epochs in a row with `val_f1` of zero: the model calls nothing positive, and stays so.

    Of several targets each has an F1 of its own (`val_sick_f1`), so that it never stops.
    """

    resumes = ("reason", "_zeros")

    def __init__(self, *, patience: int) -> None:
        super().__init__()
        self.patience = patience
        self.reason = ""
        self._zeros = 0

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Count the epochs of zero."""
        self._zeros = self._zeros + 1 if (logs or {}).get("val_f1") == 0 else 0
        if self._zeros >= self.patience:
            self.reason = f"val_f1 was zero for {self._zeros} epochs"
            self.model.stop_training = True


class WarmUp(keras.callbacks.Callback):  # type: ignore[misc]  # keras is untyped
    """Let the learning rate rise to `rate` over the first `steps` batches; then it is left to others.

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
        self._over = False

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Set the rate by the optimiser's own count of steps, which a resumed run has too."""
        if self._over:
            return
        sync_state(self.model)
        step = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
        if step < self.steps:
            self.model.optimizer.learning_rate = self.rate * (step + 1) / self.steps
        self._over = step + 1 >= self.steps


def sync_state(model: keras.Model) -> None:
    """Bring a model's variables up to date: on JAX they stand still while `fit` runs through an epoch."""
    if keras.config.backend() == "jax":
        model.jax_state_sync()
