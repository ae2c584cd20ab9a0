"""The errors of cinefeed, with one base class.

CinefeedError
├── SettingError       (ValueError)         a setting that is unknown, missing or out of range
│   └── ArgumentError  (TypeError)          an argument that is unknown, missing or of a wrong type
├── TableError         (ValueError)         a manifest or label table that cannot be used
├── ColumnError        (LookupError)        a column that the table does not have
├── SplitError         (ValueError)         a split that is impossible with these groups and labels
├── LabelError         (ValueError)         labels that cannot be balanced, fed or scored
├── ClipError          (ValueError)         a clip that does not fit its video
├── SourceError        (ValueError)         a file that cannot be read as a video, or lacks the requested data
│   ├── DecodeError    (ValueError)         a video that breaks before the requested frames
│   ├── ChangedFileError (ValueError)       a file that changed after it was scanned
│   ├── EncapsulatedVideoError (ValueError) a DICOM file that holds an encoded video in place of images
│   └── LimitError     (ValueError)         a file that exceeds ReadLimits
├── FeedError          (RuntimeError)       an unsupported use of a feed
│   ├── StaleIteratorError (RuntimeError)   an iterator of a feed that was replaced by a newer one
│   └── UnpicklableError     (RuntimeError)       settings that cannot be sent to worker processes
├── FetchError         (RuntimeError)       a remote file that could not be fetched
├── InUseError         (RuntimeError)       a path that another process is writing
├── PackError          (RuntimeError)       packing that had to stop, or packed shards that are damaged
├── TrainingError      (RuntimeError)       a run that had to stop
├── JobError           (RuntimeError)       a part of some work that could not be done on a cluster
├── DiskFullError      (OSError)            a file for which the disk has no room
├── PluginError        (ImportError)        a plug-in of another package that cannot be used
├── KerasBackendError  (ImportError)        a backend of Keras that is set and not installed, where another is
└── MissingExtraError  (ImportError)        an optional package that is not installed

A message contains what was asked, what was found, and what to do. The manifest row is added once, by the code that
reads it.
"""

import os
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from errno import ENOSPC
from importlib.util import find_spec

KERAS_BACKENDS = "torch", "jax", "tensorflow"  # torch first: JAX's 3-D convolution on CPU took 40 times as long


class CinefeedError(Exception):
    """Base class of all errors of cinefeed."""


class SettingError(CinefeedError, ValueError):
    """A setting is unknown, missing or out of range."""


class ArgumentError(SettingError, TypeError):
    """An argument is unknown, missing or of a wrong type."""


class TableError(CinefeedError, ValueError):
    """A manifest or label table cannot be used."""


class ColumnError(CinefeedError, LookupError):
    """A requested column is not in the table."""


class SplitError(CinefeedError, ValueError):
    """The requested split is impossible with these groups and labels."""


class LabelError(CinefeedError, ValueError):
    """Labels cannot be balanced, fed or scored."""


class ClipError(CinefeedError, ValueError):
    """A clip does not fit its video."""


class SourceError(CinefeedError, ValueError):
    """A file cannot be read as a video, or does not have the requested data."""


class DecodeError(SourceError):
    """A video breaks before the requested frames."""


class ChangedFileError(SourceError):
    """A file changed after it was scanned: its size or its content differs."""


class EncapsulatedVideoError(SourceError):
    """The pixels of a DICOM file are an encoded video in place of images."""


class LimitError(SourceError):
    """A file expands to more data than `ReadLimits` allows, or takes longer to probe."""


class FeedError(CinefeedError, RuntimeError):
    """The feed was called in an unsupported way."""


class StaleIteratorError(FeedError):
    """An iterator was used after `iter(feed)`, `set_epoch`, `restore`, `close` or an error had ended it."""


class UnpicklableError(FeedError):
    """Settings of a feed cannot be sent to worker processes, such as a transform that is defined in a script."""


class FetchError(CinefeedError, RuntimeError):
    """A remote file could not be fetched, although the request was repeated.

    Not a SourceError: a row must not be replaced because of the network, which would change the bytes of a batch.
    """


class InUseError(CinefeedError, RuntimeError):
    """Another process is writing the run folder, manifest or folder of features."""


class PackError(CinefeedError, RuntimeError):
    """Packing had to stop, or packed shards are damaged."""


class TrainingError(CinefeedError, RuntimeError):
    """A training run had to stop."""


class JobError(CinefeedError, RuntimeError):
    """A part of some work could not be done on a cluster."""


class DiskFullError(CinefeedError, OSError):
    """The disk has no room for a file, or a quota or a limit on file sizes is reached.

    >>> print(DiskFullError(28, "No space left", "run.json"))
    run.json cannot be written: the disk is full (No space left); free some space, and run the same command again
    """

    def __str__(self) -> str:
        reason = "the disk is full" if self.errno == ENOSPC else "a limit on disk usage is reached"
        advice = "free some space, and run the same command again"
        return f"{self.filename} cannot be written: {reason} ({self.strerror}); {advice}"


class PluginError(CinefeedError, ImportError):
    """A plug-in of another package cannot be imported, has an unsuitable object, or a name that is in use."""


class KerasBackendError(CinefeedError, ImportError):
    """Keras is set to a backend that is not installed, and another one is."""


class MissingExtraError(CinefeedError, ImportError):
    """An optional package is not installed, or several."""

    def __init__(self, *packages: str, extra: str, hint: str = "") -> None:
        names = f"{listed_in_words(packages)} {'is' if len(packages) == 1 else 'are'} not installed"
        super().__init__(f"{names}; run: pip install 'cinefeed[{extra}]'{hint}")


def keras_missing(error: ImportError) -> ImportError:
    """Return the error for a failed import of Keras: Keras itself is not installed, or its backend, or something else.

    Keras needs a backend, and uses TensorFlow unless KERAS_BACKEND, or its file keras.json, names another.
    """
    backend = (error.name or "").partition(".")[0]
    if backend == "keras":
        return MissingExtraError("keras", extra="keras,torch", hint=" (or 'cinefeed[keras,jax]')")
    if backend not in KERAS_BACKENDS or find_spec(backend) is not None:
        return error  # another error, which an installation would not fix
    is_set = os.environ.get("KERAS_BACKEND") == backend
    why = f"it names {backend} now" if is_set else f"without it, Keras uses {backend}"
    setting = "KERAS_BACKEND={} in the environment before Python starts: " + why
    installed = [name for name in KERAS_BACKENDS if find_spec(name) is not None]
    if installed:
        message = f"Keras' backend {backend} is not installed, {installed[0]} is; set "
        return KerasBackendError(message + setting.format(installed[0]))
    extra = backend if backend in ("torch", "jax") else "torch"
    hint = "" if is_set and extra == backend else f" (or 'cinefeed[keras,jax]'), and set {setting.format('torch')}"
    return MissingExtraError(f"Keras' backend {backend}", extra=f"keras,{extra}", hint=hint)


def listed_in_words(names: Sequence[str]) -> str:
    """Return names with commas, and "and" before the last one.

    >>> listed_in_words(["h5py", "nibabel", "pydicom"])
    'h5py, nibabel and pydicom'
    """
    return " and ".join([*filter(None, [", ".join(names[:-1])]), *names[-1:]])


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return a hint with the nearest of some names, or with all of them if none is near.

    >>> did_you_mean("batch_sise", ["batch_size", "seed"])
    "did you mean 'batch_size'?"
    >>> did_you_mean("CNN_RNN", ["cnn3d", "cnn_rnn"])
    "did you mean 'cnn_rnn'?"
    >>> did_you_mean("zzz", ["batch_size", "seed"])
    'there are: batch_size, seed'
    """
    choices = [str(each) for each in names]
    by_letters = {each.casefold(): each for each in choices}
    near = get_close_matches(name, choices, n=1) or get_close_matches(name.casefold(), by_letters, n=1)
    if near:
        return f"did you mean {by_letters[near[0].casefold()]!r}?"
    return f"there are: {', '.join(sorted(choices))}" if choices else "there are none"
