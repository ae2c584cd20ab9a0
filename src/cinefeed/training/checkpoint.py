"""One file from which a broken-off training goes on exactly: same batches, same losses as if it had never stopped.

checkpoint.npz holds every variable of the model (weights, running means, seeds of dropout), of the optimiser and of the
metrics, and as JSON what the callbacks know, the epoch, the batch and the feed's state. Keras' BackupAndRestore keeps
neither the metrics nor the place within an epoch, and starts the feed's epoch anew.
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

import keras
import numpy as np
from numpy.typing import NDArray

from cinefeed.digests import append_digest, is_whole
from cinefeed.errors import FeedError, SettingError, TrainingError
from cinefeed.feed.state import plan_fingerprint
from cinefeed.files import write_atomically
from cinefeed.training.batches import TrainingSet
from cinefeed.training.callbacks import Logs, sync_state

_KERAS: dict[type, tuple[str, ...]] = {
    keras.callbacks.EarlyStopping: ("wait", "stopped_epoch", "best", "best_epoch"),
    keras.callbacks.ReduceLROnPlateau: ("wait", "cooldown_counter", "best"),
}
_SIGNALS = ("SIGTERM", "SIGUSR1")  # what SLURM sends before it ends a job, and what it can be told to send
_BEGIN_ANEW = "begin anew with --overwrite (overwrite=True)"


class Paused(Exception):
    """Training was asked to leave, has kept its place, and left. The same command goes on from there."""

    def __init__(self, *, epoch: int, batch: int) -> None:
        place = f"epoch {epoch + 1}, batch {batch}" if batch else f"the end of epoch {epoch}"
        super().__init__(f"asked to leave: all is kept at {place}, the same command goes on from there")


class Checkpoint(keras.callbacks.Callback):  # type: ignore[misc]  # keras is untyped
    """Keep all that a training needs to go on, at each epoch's end and every so many minutes within.

    It comes last in `fit(callbacks=[...])`. `callbacks` are those whose state is kept: cinefeed's, EarlyStopping,
    ReduceLROnPlateau, and any that names its attributes in `resumes`. Keras has no `fit` that begins within an epoch,
    so `parts` says which ones to run: the rest of an epoch, then the others.

    >>> import tempfile
    >>> from cinefeed.clips import Clip, Frame
    >>> from cinefeed.feed.feed import Feed
    >>> from cinefeed.manifest.table import Manifest
    >>> from cinefeed.models import cnn_rnn
    >>> videos = Manifest.from_arrays(np.zeros((6, 5, 8, 8), np.uint8), {"age": [20.0, 30, 40, 50, 60, 70]})
    >>> feed = Feed(videos, target="age", clip=Clip(frames=4), frame=Frame(height=8, width=8, channels=1))
    >>> model = cnn_rnn(feed.spec, filters=[2, 2], units=2, dense=2)
    >>> model.compile("adam", loss="mse")
    >>> dataset, stop = TrainingSet(feed), keras.callbacks.EarlyStopping(monitor="loss", patience=2)
    >>> checkpoint = Checkpoint(Path(tempfile.mkdtemp()) / "last.npz", dataset, callbacks=[stop], minutes=10)
    >>> checkpoint.load()  # True where there is a file to go on from
    False
    >>> for begin, end in checkpoint.parts(0, 2):
    ...     watching = [dataset.callback, stop, checkpoint]
    ...     history = model.fit(dataset, initial_epoch=begin, epochs=end, verbose=0, callbacks=watching)
    >>> checkpoint.epoch, checkpoint.path.is_file()
    (2, True)

    After `ask_to_leave()`, which `leave_on_signals` calls, it saves at the next batch's end and raises Paused.
    `writes=False` restores and leaves alike, and writes nothing: for all ranks but one. `agree` makes of what one rank
    was asked what all of them do.
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
        self.epoch = 0  # where training stands, or will go on: so many epochs are done
        self.batch = 0  # and so many batches of the next one
        self.stopped = False  # a callback ended training before all epochs were done
        self.compiled_at = 0  # the epoch that the model was compiled for: its optimiser is new there
        self._kept = [each for each in callbacks if _names(each)]
        self._states: list[dict[str, Any]] | None = None  # of these callbacks, to be put back
        self._found: dict[str, NDArray[Any]] | None = None  # variables, to be put back
        self._feed_state: Mapping[str, Any] | None = None
        self._asked = threading.Event()
        self._saved = time.monotonic()
        self.began = time.perf_counter()  # when this process did; who began before making this may say so
        self._seconds_before = 0.0

    @property
    def seconds(self) -> float:
        """How long training has taken, in earlier processes up to what they saved and in this one."""
        return self._seconds_before + time.perf_counter() - self.began

    def load(self) -> bool:
        """Read the file, if there is one, and move the feed to its place; the rest follows when `fit` begins.

        Raises TrainingError for a file that is damaged, SettingError for one of another backend or other callbacks,
        FeedError where the feed is another one.
        """
        if not self.path.is_file():
            return False
        told, arrays = _read(self.path)
        if told["backend"] != keras.config.backend():
            raise SettingError(
                f"{self.path} was written with Keras on {told['backend']}, this is {keras.config.backend()}: losses "
                f"would differ; set KERAS_BACKEND={told['backend']}, or {_BEGIN_ANEW}"
            )
        there = ", ".join(each["callback"] for each in told["callbacks"]) or "none"
        here = ", ".join(type(each).__name__ for each in self._kept) or "none"
        if there != here:
            raise SettingError(
                f"{self.path} has the state of other callbacks ({there} there, {here} here); pass the same ones, or "
                f"{_BEGIN_ANEW}"
            )
        self.epoch, self.stopped = told["epoch"], told["stopped"]
        self._seconds_before = told.get("seconds", 0.0)  # an older file lacks it
        self._states, self._found, self._feed_state = told["callbacks"], arrays, told["feed"]
        try:
            self.dataset.feed.restore(told["feed"])
        except FeedError as error:
            raise FeedError(f"{self.path}: {error}; or {_BEGIN_ANEW}") from error
        feed = self.dataset.feed
        self.batch = told["feed"]["draws"] // feed.global_batch_size  # the number of ranks may be another
        self._put_back_callbacks()  # what they know is asked for also where no epoch is left
        return True

    def parts(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield `initial_epoch` and `epochs` of each `fit` that is left of the epochs from `first` to before `end`."""
        if self.batch and first <= self.epoch < end and not self.stopped:
            self.dataset.start = self.batch
            try:
                yield self.epoch, self.epoch + 1
            finally:
                self.dataset.start = 0
        if max(first, self.epoch) < end and not self.stopped:
            yield max(first, self.epoch), end

    def ask_to_leave(self) -> None:
        """Ask for a save at the next batch's end, and for Paused."""
        self._asked.set()

    def on_train_begin(self, logs: Logs = None) -> None:
        """Put back what was kept: by now the others have begun anew, and all variables are there."""
        if self._found is not None:
            _assign(self.model.variables, self._found, "model", path=self.path)
            if (self.epoch, self.batch) != (self.compiled_at, 0):
                _assign(self.model.optimizer.variables, self._found, "optimiser", path=self.path)
        self._put_back_callbacks()
        if not self.path.is_file():  # before any weights are kept: a run that has some can always go on
            self._save()

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Put back feed and metrics where the epoch had begun already; Keras has just set the metrics to 0."""
        self._saved = time.monotonic()
        if self._found is None:
            return
        if self.batch:
            assert self._feed_state is not None
            self.dataset.feed.restore(self._feed_state)
            _assign(self.model.metrics_variables, self._found, "metrics", path=self.path)
        self._found = self._feed_state = None

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Save where it is time to, or where it was asked to leave."""
        done = self.dataset.start + batch + 1
        leaving = self.agree(self._asked.is_set())
        due = bool(self.minutes) and time.monotonic() - self._saved >= 60 * self.minutes
        if not (leaving or due) or batch + 1 == self.params.get("steps"):  # the epoch's end saves, and leaves
            return
        if np.isfinite(float((logs or {}).get("loss", 0.0))):
            self.batch = done
            self._save()
        if leaving:
            raise Paused(epoch=self.epoch, batch=done)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Save, unless the loss is no number: the place before it is worth more."""
        if not np.isfinite(float((logs or {}).get("loss", 0.0))):
            self.stopped = True
            return
        self.epoch, self.batch, self.stopped = epoch + 1, 0, bool(self.model.stop_training)
        self._save()
        if self.agree(self._asked.is_set()) and not self.stopped:
            raise Paused(epoch=self.epoch, batch=0)

    def on_train_end(self, logs: Logs = None) -> None:
        """Remember what the callbacks know, for a `fit` that goes on with this one."""
        self._states = self._states_now()

    def _save(self) -> None:
        self._saved = time.monotonic()
        if not self.writes:
            return
        sync_state(self.model)
        feed = self.dataset.feed
        draws = self.batch * feed.global_batch_size  # Keras on TensorFlow takes batches ahead
        told = {
            "backend": keras.config.backend(),
            "epoch": self.epoch,
            "batch": self.batch,
            "stopped": self.stopped,
            "seconds": self.seconds,
            # of this epoch: the feed may stand in the next one, after the batch by which Keras builds the model
            "feed": {
                **feed.state(),
                "epoch": self.epoch,
                "draws": draws,
                "plan": plan_fingerprint(feed.plan(epoch=self.epoch)),
            },
            "callbacks": self._states_now(),
        }
        arrays: dict[str, Any] = {"told": np.frombuffer(json.dumps(told, default=_number).encode(), np.uint8)}
        for kind, variables in (
            ("model", self.model.variables),
            ("optimiser", self.model.optimizer.variables),
            ("metrics", self.model.metrics_variables),
        ):
            arrays |= {f"{kind} {place}": keras.ops.convert_to_numpy(each) for place, each in enumerate(variables)}
        try:
            write_atomically(self.path, lambda path: _write(path, arrays))
        except OSError as error:
            kept = "the one before it is kept" if self.path.is_file() else "there is none before it"
            raise TrainingError(
                f"the checkpoint of epoch {self.epoch}, batch {self.batch} cannot be saved ({error}); {kept}. "
                f"Make room, and {how_to_go_on(self.path)}"
            ) from error

    def _states_now(self) -> list[dict[str, Any]]:
        return [
            {
                "callback": type(each).__name__,
                **{name: getattr(each, name) for name in _names(each) if hasattr(each, name)},
            }
            for each in self._kept
        ]

    def _put_back_callbacks(self) -> None:
        for each, state in zip(self._kept, self._states or (), strict=False):
            for name in state.keys() - {"callback"}:
                setattr(each, name, state[name])


def how_to_go_on(path: Path) -> str:
    """Return what to do after a break: without a checkpoint there are no weights either, and nothing to go on from."""
    return "the same command goes on" if path.is_file() else "the same command begins again"


@contextmanager
def leave_on_signals(checkpoint: Checkpoint) -> Iterator[None]:
    """Within it, SIGTERM and SIGUSR1 ask a training to leave: SLURM sends them before it ends a job."""

    def ask(number: int, frame: FrameType | None) -> None:
        checkpoint.ask_to_leave()

    if threading.current_thread() is not threading.main_thread():  # others may not set handlers
        yield
        return
    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _names(callback: keras.callbacks.Callback) -> tuple[str, ...]:
    """Return the attributes of a callback that belong to a checkpoint."""
    return tuple(getattr(callback, "resumes", _KERAS.get(type(callback), ())))


def _number(value: Any) -> Any:
    """Return a NumPy scalar, or a backend's, as JSON takes it; a float keeps every bit."""
    return np.asarray(value).item()


def _write(path: Path, arrays: Mapping[str, Any]) -> None:
    np.savez(path, **arrays)
    append_digest(path)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    try:
        if not is_whole(path):
            raise ValueError("its digest differs")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
        told = json.loads(arrays.pop("told").tobytes())
        return told, arrays
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise TrainingError(f"{path} is damaged ({error}), so training cannot go on from it; {_BEGIN_ANEW}") from error


def _assign(variables: Sequence[Any], found: Mapping[str, NDArray[Any]], kind: str, *, path: Path) -> None:
    """Give variables what a checkpoint has for them; raises SettingError where the two do not fit."""
    arrays = [found[name] for name in found if name.startswith(f"{kind} ")]
    shapes, wanted = [each.shape for each in arrays], [tuple(each.shape) for each in variables]
    if shapes != wanted:
        raise SettingError(
            f"{path} does not fit: it has {len(shapes)} variables of the {kind}, this one has {len(wanted)}, or their "
            f"shapes differ; train the same network, or {_BEGIN_ANEW}"
        )
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
