"""What watches a training run. Each is a plain Keras callback, of use in anybody's own `fit`.

Order matters in `fit(callbacks=[...])`: WholeSetMetrics comes first, since the others read what it measures.
"""

import sys
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cinefeed.errors import SettingError, TrainingError, did_you_mean
from cinefeed.feed.feed import Feed
from cinefeed.feed.stats import Stats
from cinefeed.training.run import write_atomically
from cinefeed.training.scores import measure, score, single_numbers

Logs = dict[str, Any] | None
_EVERY = 8  # batches, between two looks at the feed
_LESS_IS_BETTER = ("loss", "rmse", "mae", "mse")


def mode_of(monitor: str) -> str:
    """Return whether less or more of a metric is better: "min" or "max".

    >>> mode_of("val_rmse"), mode_of("val_auroc")
    ('min', 'max')
    """
    return "min" if monitor.removeprefix("val_") in _LESS_IS_BETTER else "max"


class WholeSetMetrics(keras.callbacks.Callback):  # type: ignore[misc]  # keras is untyped
    """Measure the whole validation set at each epoch's end, into the logs as `val_...`, `val_loss` among them.

    Keras' own `validation_data` averages metrics over batches, which is another number than the metric of the set.
    """

    def __init__(self, feed: Feed) -> None:
        super().__init__()
        self.feed = feed

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Score every row of the feed and add what the scores measure."""
        logs = {} if logs is None else logs
        logs["learning_rate"] = float(self.model.optimizer.learning_rate)
        logs["val_loss"] = float("nan")
        if not np.isfinite(logs.get("loss", 0.0)):
            return
        scores = score(self.model, self.feed)
        if not np.isfinite(scores.values).all():
            return
        predicted = scores.values[:, np.newaxis] if scores.values.ndim == 1 else scores.values
        loss = self.model.compute_loss(
            y=keras.ops.convert_to_tensor(scores.targets), y_pred=keras.ops.convert_to_tensor(predicted, "float32")
        )
        logs["val_loss"] = float(keras.ops.convert_to_numpy(loss))
        metrics = single_numbers(measure(self.feed.spec, scores))
        logs.update({f"val_{name}": value for name, value in metrics.items()})


class BestWeights(keras.callbacks.Callback):  # type: ignore[misc]  # keras is untyped
    """Keep the weights of the best epoch in a file that is whole at any time (`x.weights.h5`).

    Keras' ModelCheckpoint writes over the last good file: a full disk or a kill while saving would leave neither.
    """

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
            write_atomically(self.path, self.model.save_weights)
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
    """Stop after `patience` epochs in a row with `val_f1` of zero: the model calls nothing positive, and stays so."""

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


class Progress(keras.callbacks.Callback):  # type: ignore[misc]  # keras is untyped
    """Show a bar for the epoch under way and a line for each one done, on stderr; no terminal, no bar.

    With `feed`, both say what it is doing: clips a second, and whether the model waits for it or it for the model.
    """

    def __init__(self, *, shown: tuple[str, ...] = (), feed: Feed | None = None) -> None:
        super().__init__()
        self.shown = shown
        self.feed = feed
        self._before = Stats()
        self._epoch = 0
        self._told = ""  # of the feed, last
        self._bar: Any = None
        self._task: Any = None
        self._started = 0.0

    def on_train_begin(self, logs: Logs = None) -> None:
        """Put up the bar."""
        if not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
        self._bar.start()

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Start the epoch's bar."""
        self._started, self._epoch = time.perf_counter(), epoch
        self._before = Stats() if self.feed is None else self.feed.stats()
        if self._bar is not None:
            self._task = self._bar.add_task(self._name(epoch), total=self.params.get("steps"))

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Move the bar."""
        if self._bar is not None:
            loss = (logs or {}).get("loss", float("nan"))
            if self.feed is not None and batch % _EVERY == _EVERY - 1:
                self._told = f" · {self._feed_line()}"
            self._bar.update(
                self._task, advance=1, description=f"{self._name(self._epoch)} · loss {loss:.4g}{self._told}"
            )

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Print the epoch's line."""
        numbers = {name: value for name, value in (logs or {}).items() if isinstance(value, int | float)}
        names = [name for name in ("loss", "val_loss", *self.shown) if name in numbers]
        figures = "  ".join(f"{name} {numbers[name]:.4g}" for name in dict.fromkeys(names))
        line = f"{self._name(epoch)}  {figures}  ({time.perf_counter() - self._started:.1f} s)"
        line += f"  {self._feed_line()}" if self.feed is not None else ""
        if self._bar is None:
            print(line, file=sys.stderr, flush=True)
        else:
            self._bar.remove_task(self._task)
            self._bar.console.print(line, highlight=False)

    def on_train_end(self, logs: Logs = None) -> None:
        """Take the bar down."""
        self.close()

    def close(self) -> None:
        """Take the bar down, also where training broke off."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _feed_line(self) -> str:
        assert self.feed is not None
        return self.feed.stats().since(self._before).line()

    def _name(self, epoch: int) -> str:
        return f"epoch {epoch + 1}/{self.params.get('epochs', '?')}"
