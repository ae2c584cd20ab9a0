"""Keras callbacks that log a training: history.csv, log.jsonl, TensorBoard, the terminal; usable in any `fit`."""

import csv
import io
import json
import sys
import time
from pathlib import Path
from typing import Any

from cinefeed.core.errors import MissingExtraError
from cinefeed.core.files import write_atomically, write_error
from cinefeed.core.progress import terminal_bar
from cinefeed.core.text import format_count, format_duration, format_percent, one_line
from cinefeed.feed.feed import Feed
from cinefeed.feed.stats import Stats
from cinefeed.training.keras_module import Logs, keras
from cinefeed.training.run import plain

_FEED_INTERVAL = 8  # batches between two updates of the feed's statistics
_LOG_INTERVAL = 10  # batches between two lines of log.jsonl
_ROWS = 12  # epochs in the live table


class History(keras.callbacks.Callback):  # type: ignore[misc]  # keras is untyped
    """Write a line per epoch to a CSV file that is complete at any time; a resumed run repeats and loses no line.

    >>> import tempfile
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    >>> model.compile("sgd", loss="mse")
    >>> path = Path(tempfile.mkdtemp()) / "history.csv"
    >>> history = model.fit(keras.ops.zeros((4, 1)), keras.ops.zeros((4, 1)), verbose=0, callbacks=[History(path)])
    >>> path.read_text().split()
    ['epoch,loss', '0,0.0']
    """

    resumes = ("rows",)

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)
        self.rows: list[dict[str, Any]] = []

    def on_train_begin(self, logs: Logs = None) -> None:
        """Clear the rows; a checkpoint restores those of a resumed run afterwards."""
        self.rows = []

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Add the line of the epoch. Missing values, such as metrics after a NaN, are NA."""
        numbers = {name: float(value) for name, value in sorted((logs or {}).items())}
        self.rows.append({"epoch": epoch, **numbers})
        names = ["epoch", *sorted({name for row in self.rows for name in row} - {"epoch"})]
        text = io.StringIO()
        writer = csv.DictWriter(text, names, restval="NA", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomically(self.path, lambda path: path.write_text(text.getvalue(), encoding="utf-8"))


class JsonLines(keras.callbacks.Callback):  # type: ignore[misc]  # keras is untyped
    """Append events to a file, one JSON object per line: the start of training, some batches, each epoch.

    Lines are never rewritten: the file of a resumed run shows where it resumed, and which batches were repeated.

    >>> import tempfile
    >>> lines = JsonLines(Path(tempfile.mkdtemp()) / "log.jsonl")
    >>> lines.on_epoch_end(0, {"loss": 0.5, "val_loss": float("nan")})  # as `fit` does
    >>> json.loads(lines.path.read_text()) | {"time": "now"}
    {'event': 'epoch', 'time': 'now', 'epoch': 1, 'loss': 0.5, 'val_loss': None}
    """

    def __init__(self, path: str | Path, *, every: int = _LOG_INTERVAL) -> None:
        super().__init__()
        self.path = Path(path)
        self.every = every
        self._epoch = 0

    def write(self, event: str, **metadata: Any) -> None:
        """Append a line."""
        line = json.dumps(plain({"event": event, "time": round(time.time(), 3), **metadata}), ensure_ascii=False)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise write_error(error, self.path) from error

    def on_train_begin(self, logs: Logs = None) -> None:
        """Log the start of a `fit`."""
        self.write("fit", **{name: self.params.get(name) for name in ("epochs", "steps")})

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Store the epoch for the lines of batches."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Log the loss so far, every `every` batches."""
        if (batch + 1) % self.every == 0:
            self.write("batch", epoch=self._epoch + 1, batch=batch + 1, loss=float((logs or {}).get("loss", "nan")))

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Log all metrics of the epoch."""
        self.write("epoch", epoch=epoch + 1, **{name: float(value) for name, value in (logs or {}).items()})


class TensorBoard(keras.callbacks.Callback):  # type: ignore[misc]  # keras is untyped
    """Write the metrics of each epoch for TensorBoard: `tensorboard --logdir folder`. Keras' own needs TensorFlow."""

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        try:
            from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
            from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
            from tensorboard.summary.writer.event_file_writer import EventFileWriter  # type: ignore[import-untyped]
        except ModuleNotFoundError as error:
            raise MissingExtraError("tensorboard", extra="tensorboard") from error
        self.folder = Path(folder)
        self._event, self._summary, self._make = Event, Summary, EventFileWriter
        self._writer: Any = None

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Write the metrics of the epoch at step `epoch` + 1."""
        if self._writer is None:
            self._writer = self._make(str(self.folder))
        values = [self._summary.Value(tag=name, simple_value=float(value)) for name, value in (logs or {}).items()]
        summary = self._summary(value=values)
        self._writer.add_event(self._event(wall_time=time.time(), step=epoch + 1, summary=summary))
        self._writer.flush()

    def on_train_end(self, logs: Logs = None) -> None:
        """Close the file; the next `fit` starts another."""
        self.close()

    def close(self) -> None:
        """Close the file, also after an interrupted training."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class Progress(keras.callbacks.Callback):  # type: ignore[misc]  # keras is untyped
    """Show a live table of past epochs and a progress bar of the current one on stderr; without a terminal, lines.

    The table stays after training.

    Args:
        metrics: Metrics to show beside `loss` and `val_loss`.
        feed: A feed whose throughput and waiting time are shown: a column of the table, and a line below it.
        epochs: Number of epochs of all calls of `fit` together.
    """

    def __init__(self, *, metrics: tuple[str, ...] = (), feed: Feed | None = None, epochs: int | None = None) -> None:
        super().__init__()
        self.metrics = metrics
        self.feed = feed
        self.epochs = epochs
        self._previous_stats = Stats()
        self._epoch = 0
        self._feed_text = ""  # at the last update
        self._lines: list[list[str]] = []
        self._live: Any = None
        self._bar: Any = None
        self._task: Any = None
        self._start_time = 0.0
        self._end_text = ""  # when training will end; empty until the first epoch is done

    def on_train_begin(self, logs: Logs = None) -> None:
        """Start the table and the bar."""
        self._lines = []
        if not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.live import Live

        self._bar = terminal_bar()
        self._live = Live(get_renderable=self._render, console=Console(stderr=True), refresh_per_second=4)
        self._live.start()

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Start the epoch's bar."""
        self._start_time, self._epoch = time.perf_counter(), epoch
        self._previous_stats = Stats() if self.feed is None else self.feed.stats()
        if self._bar is not None:
            self._task = self._bar.add_task(self._name(epoch), total=self.params.get("steps"))

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Advance the bar."""
        if self._bar is not None:
            loss = (logs or {}).get("loss", float("nan"))
            if self.feed is not None and batch % _FEED_INTERVAL == _FEED_INTERVAL - 1:
                self._feed_text = self._feed_line()
            self._bar.update(self._task, advance=1, description=f"{self._name(self._epoch)} · loss {loss:.4g}")

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Add the line of the epoch."""
        numbers = {name: value for name, value in (logs or {}).items() if isinstance(value, int | float)}
        names = [name for name in self._columns if name in numbers]
        figures = "  ".join(f"{name} {numbers[name]:.4g}" for name in names)
        seconds = time.perf_counter() - self._start_time
        feed_text = self._feed_line() if self.feed is not None else ""
        is_first, self._end_text = not self._end_text, self._end(epoch, seconds)
        if self._bar is None:
            feed_text = f"  {feed_text}" if feed_text else ""
            line = one_line(f"{self._name(epoch)}  {figures}  ({seconds:.1f} s){feed_text}")
            print(line, file=sys.stderr, flush=True)
            if is_first and self._end_text:
                print(self._end_text, file=sys.stderr, flush=True)
            return
        cells = {name: f"{numbers[name]:.4g}" if name in numbers else "" for name in self._columns}
        self._feed_text = feed_text
        waits = [] if self.feed is None else [format_percent(self.feed.stats().since(self._previous_stats).wait_share)]
        self._lines.append([str(epoch + 1), *cells.values(), f"{seconds:.1f}", *waits])
        self._bar.remove_task(self._task)
        self._live.refresh()

    def on_train_end(self, logs: Logs = None) -> None:
        """Remove the bar."""
        self.close()

    def close(self) -> None:
        """Remove the bar, also after an interrupted training."""
        if self._live is not None:
            self._live.stop()
            self._live = self._bar = None

    @property
    def _columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(("loss", "val_loss", *self.metrics)))

    def _render(self) -> Any:
        """Return the table of the last epochs, the feed's statistics and the bar."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False)
        for name in ("epoch", *self._columns, "s", *(["waits"] if self.feed is not None else [])):
            # with spaces, where a narrow terminal can wrap the name; a number stays on one line
            table.add_column(name.replace("_", " "), justify="right", vertical="bottom")
        for line in self._lines[-_ROWS:]:
            table.add_row(*line)
        messages = [Text(text) for text in (self._feed_text, self._end_text) if text]
        return Group(table, *messages, *([self._bar] if self._bar is not None else []))

    def _end(self, epoch: int, seconds: float) -> str:
        """Return a text about the remaining epochs, from the seconds of this one; "" after the last one.

        A resumed run may begin within an epoch: its seconds are scaled to a whole one.
        """
        remaining = (self.epochs or self.params.get("epochs") or 0) - epoch - 1
        if remaining <= 0:
            return ""
        steps = self.params.get("steps")
        whole = len(self.feed) / steps if self.feed is not None and steps else 1.0
        left = remaining * seconds * whole
        end = time.strftime("%H:%M" if left < 12 * 3600 else "%A %H:%M", time.localtime(time.time() + left))
        return f"{format_count(remaining, 'epoch')} to go: about {format_duration(left)}, until {end}"

    def _feed_line(self) -> str:
        assert self.feed is not None
        return self.feed.stats().since(self._previous_stats).line()

    def _name(self, epoch: int) -> str:
        return f"epoch {epoch + 1}/{self.epochs or self.params.get('epochs', '?')}"
