"""Checkpoint from which an interrupted training resumes exactly: same batches and losses as without the interruption.

checkpoint.npz holds every variable of the model (weights, running means, seeds of dropout), the optimiser and the
metrics, and as JSON the state of the callbacks, the epoch, the batch and the feed's state. Keras' BackupAndRestore
saves neither the metrics nor the position within an epoch, and restarts the feed's epoch.
"""

import json
import signal
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.digests import append_digest, is_whole
from cinefeed.core.errors import FeedError, SettingError, TrainingError
from cinefeed.core.files import write_atomically
from cinefeed.feed.state import plan_fingerprint
from cinefeed.training.batches import TrainingSet
from cinefeed.training.callbacks import sync_state
from cinefeed.training.keras_module import Logs, keras

_KERAS: dict[type, tuple[str, ...]] = {
    keras.callbacks.EarlyStopping: ("wait", "stopped_epoch", "best", "best_epoch"),
    keras.callbacks.ReduceLROnPlateau: ("wait", "cooldown_counter", "best"),
}
_METADATA = "metadata"  # the array of checkpoint.npz that holds JSON
_SIGNALS = ("SIGTERM", "SIGUSR1")  # what SLURM sends before it ends a job, and what it can be set to send
_START_OVER = "start over with --overwrite (overwrite=True)"


class Paused(Exception):
    """Training stopped on request after it saved a checkpoint. The same command resumes from it."""

    def __init__(self, *, epoch: int, batch: int) -> None:
        place = f"epoch {epoch + 1}, batch {batch}" if batch else f"the end of epoch {epoch}"
        super().__init__(f"stopped on request; checkpoint saved at {place}; run the same command again to resume")


class Checkpoint(keras.callbacks.Callback):  # type: ignore[misc]  # keras is untyped
    """Save the state of a training at the end of each epoch and every `minutes` minutes, so that it can resume.

    The checkpoint comes last in `fit(callbacks=[...])`. Keras has no `fit` that starts within an epoch, so
    `fit_ranges` yields the calls to make: one for the rest of an epoch, then one for the other epochs.

    Args:
        path: The checkpoint file.
        dataset: The data set that is trained on.
        callbacks: Callbacks with state to save: those of cinefeed, EarlyStopping, ReduceLROnPlateau, and any with an
            attribute `resumes`.
        minutes: Time between saves within an epoch; 0 saves at the end of epochs only.
        writes: False restores and stops in the same way and writes no file: for all ranks but one.
        agree: Function that combines the stop requests of all ranks into one decision.

    >>> import tempfile
    >>> from cinefeed.video.clips import Clip, Frame
    >>> from cinefeed.feed.feed import Feed
    >>> from cinefeed.data.manifest.manifest import Manifest
    >>> from cinefeed.models import cnn_rnn
    >>> videos = Manifest.from_arrays(np.zeros((6, 5, 8, 8), np.uint8), {"age": [20.0, 30, 40, 50, 60, 70]})
    >>> feed = Feed(videos, target="age", clip=Clip(frames=4), frame=Frame(height=8, width=8, channels=1))
    >>> model = cnn_rnn(feed.spec, filters=[2, 2], units=2, dense=2)
    >>> model.compile("adam", loss="mse")
    >>> dataset, stop = TrainingSet(feed), keras.callbacks.EarlyStopping(monitor="loss", patience=2)
    >>> checkpoint = Checkpoint(Path(tempfile.mkdtemp()) / "last.npz", dataset, callbacks=[stop], minutes=10)
    >>> checkpoint.load()  # True if there is a file to resume from
    False
    >>> for begin, end in checkpoint.fit_ranges(0, 2):
    ...     callbacks = [dataset.callback, stop, checkpoint]
    ...     history = model.fit(dataset, initial_epoch=begin, epochs=end, verbose=0, callbacks=callbacks)
    >>> checkpoint.epoch, checkpoint.path.is_file()
    (2, True)

    After `request_stop()`, which `stop_on_signals` calls, it saves at the end of the next batch and raises Paused.
    """

    def __init__(
        self,
        path: str | Path,
        dataset: TrainingSet,
        *,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        minutes: float = 0.0,
        writes: bool = True,
        agree: Callable[[bool], bool] = bool,
    ) -> None:
        super().__init__()
        self.path = Path(path)
        self.dataset = dataset
        self.minutes = minutes
        self.writes = writes
        self.agree = agree
        self.epoch = 0  # number of completed epochs
        self.batch = 0  # number of completed batches of the next epoch
        self.stopped = False  # a callback ended training before all epochs were complete
        self.compiled_at = 0  # the epoch for which the model was compiled: its optimiser is new there
        self._callbacks = [callback for callback in callbacks if _attribute_names(callback)]
        self._states: list[dict[str, Any]] | None = None  # of these callbacks, to restore
        self._variables: dict[str, NDArray[Any]] | None = None  # to restore
        self._feed_state: Mapping[str, Any] | None = None
        self._stop_requested = threading.Event()
        self._last_save = time.monotonic()
        self.start_time = time.perf_counter()  # of this process; a caller that started earlier may set it
        self._earlier_seconds = 0.0

    @property
    def seconds(self) -> float:
        """Duration of the training: earlier processes up to their last save, plus this process."""
        return self._earlier_seconds + time.perf_counter() - self.start_time

    def load(self) -> bool:
        """Read the file if it exists and move the feed to its position; variables are restored when `fit` starts.

        Returns False if there is no file. Raises TrainingError if the file is damaged, SettingError if it was written
        with another backend or other callbacks, FeedError if it was written with another feed.
        """
        if not self.path.is_file():
            return False
        content, arrays = _read(self.path)
        if content["backend"] != keras.config.backend():
            raise SettingError(
                f"{self.path} was written with Keras on {content['backend']}, this is {keras.config.backend()}: losses "
                f"would differ; set KERAS_BACKEND={content['backend']}, or {_START_OVER}"
            )
        saved_names = ", ".join(state["callback"] for state in content["callbacks"]) or "none"
        own_names = ", ".join(type(callback).__name__ for callback in self._callbacks) or "none"
        if saved_names != own_names:
            raise SettingError(
                f"{self.path} has the state of other callbacks ({saved_names} there, {own_names} here); pass the same "
                f"ones, or {_START_OVER}"
            )
        self.epoch, self.stopped = content["epoch"], content["stopped"]
        self._earlier_seconds = content["seconds"]
        self._states, self._variables, self._feed_state = content["callbacks"], arrays, content["feed"]
        try:
            self.dataset.feed.restore(content["feed"])
        except FeedError as error:
            raise FeedError(f"{self.path}: {error}; or {_START_OVER}") from error
        feed = self.dataset.feed
        self.batch = content["feed"]["draws"] // feed.global_batch_size  # the number of ranks may be another
        self._restore_callbacks()  # their state is also read if no epoch is left
        return True

    def fit_ranges(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield `initial_epoch` and `epochs` of each remaining `fit` for the epochs from `first` to before `end`."""
        if self.batch and first <= self.epoch < end and not self.stopped:
            self.dataset.start = self.batch
            try:
                yield self.epoch, self.epoch + 1
            finally:
                self.dataset.start = 0
        if max(first, self.epoch) < end and not self.stopped:
            yield max(first, self.epoch), end

    def request_stop(self) -> None:
        """Request a save at the end of the next batch, after which Paused is raised."""
        self._stop_requested.set()

    def on_train_begin(self, logs: Logs = None) -> None:
        """Restore variables and callbacks: the other callbacks have been reset by now, and all variables exist."""
        if self._variables is not None:
            _assign(self.model.variables, self._variables, "model", path=self.path)
            if (self.epoch, self.batch) != (self.compiled_at, 0):
                _assign(self.model.optimizer.variables, self._variables, "optimiser", path=self.path)
        self._restore_callbacks()
        if not self.path.is_file():  # before any weights are saved: a run with weights can then always resume
            self._save()

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Restore feed and metrics if the checkpoint is within this epoch; Keras has just reset the metrics."""
        self._last_save = time.monotonic()
        if self._variables is None:
            return
        if self.batch:
            assert self._feed_state is not None
            self.dataset.feed.restore(self._feed_state)
            _assign(self.model.metrics_variables, self._variables, "metrics", path=self.path)
        self._variables = self._feed_state = None

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Save if a save is due or a stop was requested."""
        batches_done = self.dataset.start + batch + 1
        must_stop = self.agree(self._stop_requested.is_set())
        is_due = bool(self.minutes) and time.monotonic() - self._last_save >= 60 * self.minutes
        if not (must_stop or is_due) or batch + 1 == self.params.get("steps"):  # `on_epoch_end` saves and stops
            return
        if np.isfinite(float((logs or {}).get("loss", 0.0))):
            self.batch = batches_done
            self._save()
        if must_stop:
            raise Paused(epoch=self.epoch, batch=batches_done)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Save, unless the loss is not finite: the checkpoint before it is then left as it is."""
        if not np.isfinite(float((logs or {}).get("loss", 0.0))):
            self.stopped = True
            return
        self.epoch, self.batch, self.stopped = epoch + 1, 0, bool(self.model.stop_training)
        self._save()
        if self.agree(self._stop_requested.is_set()) and not self.stopped:
            raise Paused(epoch=self.epoch, batch=0)

    def on_train_end(self, logs: Logs = None) -> None:
        """Store the state of the callbacks for the next `fit`."""
        self._states = self._callback_states()

    def _save(self) -> None:
        self._last_save = time.monotonic()
        if not self.writes:
            return
        sync_state(self.model)
        feed = self.dataset.feed
        draws = self.batch * feed.global_batch_size  # not the feed's own: Keras on TensorFlow prefetches
        content = {
            "backend": keras.config.backend(),
            "epoch": self.epoch,
            "batch": self.batch,
            "stopped": self.stopped,
            "seconds": self.seconds,
            # of this epoch: the feed may be in the next one, after the batch with which Keras builds the model
            "feed": {
                **feed.state(),
                "epoch": self.epoch,
                "draws": draws,
                "plan": plan_fingerprint(feed.plan(epoch=self.epoch)),
            },
            "callbacks": self._callback_states(),
        }
        encoded = json.dumps(content, default=_python_number).encode()
        arrays: dict[str, Any] = {_METADATA: np.frombuffer(encoded, np.uint8)}
        for kind, variables in (
            ("model", self.model.variables),
            ("optimiser", self.model.optimizer.variables),
            ("metrics", self.model.metrics_variables),
        ):
            arrays |= {f"{kind} {number}": keras.ops.convert_to_numpy(each) for number, each in enumerate(variables)}
        try:
            write_atomically(self.path, lambda path: _write(path, arrays))
        except OSError as error:
            previous = "the previous one is unchanged" if self.path.is_file() else "there is no previous one"
            raise TrainingError(
                f"the checkpoint of epoch {self.epoch}, batch {self.batch} cannot be saved ({error}); {previous}. "
                f"{how_to_resume(self.path).capitalize()}"
            ) from error

    def _callback_states(self) -> list[dict[str, Any]]:
        return [
            {
                "callback": type(callback).__name__,
                **{name: getattr(callback, name) for name in _attribute_names(callback) if hasattr(callback, name)},
            }
            for callback in self._callbacks
        ]

    def _restore_callbacks(self) -> None:
        for callback, state in zip(self._callbacks, self._states or (), strict=False):
            for name in state.keys() - {"callback"}:
                setattr(callback, name, state[name])


def how_to_resume(path: Path) -> str:
    """Return what to do after an interruption: without a checkpoint there are no weights and nothing to resume."""
    return f"run the same command again to {'resume' if path.is_file() else 'start over'}"


@contextmanager
def stop_on_signals(checkpoint: Checkpoint) -> Iterator[None]:
    """Within the context, SIGTERM and SIGUSR1 request a stop: SLURM sends them before it ends a job."""

    def request_stop(number: int, frame: FrameType | None) -> None:
        checkpoint.request_stop()

    if threading.current_thread() is not threading.main_thread():  # other threads may not set handlers
        yield
        return
    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    previous_handlers = {number: signal.signal(number, request_stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)


def _attribute_names(callback: keras.callbacks.Callback) -> tuple[str, ...]:
    """Return the attributes of a callback that a checkpoint saves."""
    return tuple(getattr(callback, "resumes", _KERAS.get(type(callback), ())))


def _python_number(value: Any) -> Any:
    """Return a scalar of NumPy or a backend as a Python number, which JSON accepts; a float keeps every bit."""
    return np.asarray(value).item()


def _write(path: Path, arrays: Mapping[str, Any]) -> None:
    np.savez(path, **arrays)
    append_digest(path)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    try:
        if not is_whole(path):
            raise ValueError("its digest differs")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        return json.loads(arrays.pop(_METADATA).tobytes()), arrays
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise TrainingError(f"{path} is damaged ({error}), so training cannot resume from it; {_START_OVER}") from error


def _assign(variables: Sequence[Any], saved: Mapping[str, NDArray[Any]], kind: str, *, path: Path) -> None:
    """Assign the arrays of a checkpoint to variables; raises SettingError if number or shapes differ."""
    arrays = [saved[name] for name in saved if name.startswith(f"{kind} ")]
    saved_shapes, own_shapes = [array.shape for array in arrays], [tuple(each.shape) for each in variables]
    if saved_shapes != own_shapes:
        raise SettingError(
            f"{path} does not fit: it has {len(saved_shapes)} variables of the {kind}, this one has {len(own_shapes)}, "
            f"or their shapes differ; train the same network, or {_START_OVER}"
        )
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
