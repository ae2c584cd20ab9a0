"""Every error that cinefeed raises, so that one `except` catches them all.

CinefeedError
├── SettingError       (ValueError)         a setting that is unknown, missing or out of range
├── TableError         (ValueError)         a manifest or label table that cannot be used
├── ColumnError        (LookupError)        a column that is not there
├── SplitError         (ValueError)         a split that these groups and labels do not allow
├── LabelError         (ValueError)         labels that cannot be balanced, fed or scored
├── ClipError          (ValueError)         a clip that does not fit its video
├── SourceError        (ValueError)         a file that is no video we can read, or asked for what it lacks
│   ├── DecodeError    (ValueError)         a video that breaks before the frames asked for
│   ├── ChangedFileError (ValueError)       a file that is not the scanned one any more
│   ├── EncapsulatedVideoError (ValueError) a DICOM file whose pixels are an encoded video, where images are read
│   └── LimitError     (ValueError)         a file that expands to more than ReadLimits allow
├── FeedError          (RuntimeError)       a feed used in a way that it cannot serve
│   ├── StaleIteratorError (RuntimeError)   an iterator of a feed that a newer one has replaced
│   └── UnfitError     (RuntimeError)       settings that cannot be sent to worker processes
├── InUseError         (RuntimeError)       a place that another process writes
├── TrainingError      (RuntimeError)       a run that had to stop
├── KerasBackendError  (ImportError)        a backend of Keras that is set and not installed, where another is
└── MissingExtraError  (ImportError)        an optional package that is not installed

A message says what was asked, what was found, and what to do. The stage that knows the manifest row adds it, once.
"""

import os
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from importlib.util import find_spec

KERAS_BACKENDS = "torch", "jax", "tensorflow"  # torch first: JAX's 3-D convolution on CPU took 40 times as long


class CinefeedError(Exception):
    """Any error of cinefeed's own."""


class SettingError(CinefeedError, ValueError):
    """A setting is unknown, missing or out of range."""


class TableError(CinefeedError, ValueError):
    """A manifest or label table cannot be used as it is."""


class ColumnError(CinefeedError, LookupError):
    """A column was asked for that the table does not have."""


class SplitError(CinefeedError, ValueError):
    """These groups and labels do not allow the split that was asked for."""


class LabelError(CinefeedError, ValueError):
    """Labels cannot be balanced, fed or scored as they are."""


class ClipError(CinefeedError, ValueError):
    """A clip does not fit its video."""


class SourceError(CinefeedError, ValueError):
    """A file is no video that cinefeed reads, or was asked for what it does not have."""


class DecodeError(SourceError):
    """A video breaks before the frames that were asked for."""


class ChangedFileError(SourceError):
    """A file is not the one that was scanned any more: its size or its content is another."""


class EncapsulatedVideoError(SourceError):
    """The pixels of a DICOM file are one encoded video, and not images."""


class LimitError(SourceError):
    """A file expands to more than `ReadLimits` allow, or takes longer to probe."""


class FeedError(CinefeedError, RuntimeError):
    """A feed was used in a way that it cannot serve."""


class StaleIteratorError(FeedError):
    """An iterator was used after a newer `iter(feed)`, `set_epoch`, `restore`, `close` or an error had ended it."""


class UnfitError(FeedError):
    """Worker processes cannot be given a feed's settings, such as a transform that is defined in the user's script."""


class InUseError(CinefeedError, RuntimeError):
    """A run folder, a manifest or a folder of features is being written by another process."""


class TrainingError(CinefeedError, RuntimeError):
    """A training run had to stop."""


class KerasBackendError(CinefeedError, ImportError):
    """Keras is set to a backend that is not installed, and another one is."""


class MissingExtraError(CinefeedError, ImportError):
    """An optional package is not installed, or several."""

    def __init__(self, *packages: str, extra: str, hint: str = "") -> None:
        names = f"{listed_in_words(packages)} {'is' if len(packages) == 1 else 'are'} not installed"
        super().__init__(f"{names}; run: pip install 'cinefeed[{extra}]'{hint}")


def keras_missing(error: ImportError) -> ImportError:
    """Return the error for a failed import of Keras: Keras itself is not installed, or its backend, or something else.

    Keras needs a backend, and takes TensorFlow unless KERAS_BACKEND, or its file keras.json, names another.
    """
    backend = (error.name or "").partition(".")[0]
    if backend == "keras":
        return MissingExtraError("keras", extra="keras,torch", hint=" (or 'cinefeed[keras,jax]')")
    if backend not in KERAS_BACKENDS or find_spec(backend) is not None:
        return error  # whatever it is, installing would not mend it
    is_set = os.environ.get("KERAS_BACKEND") == backend
    why = f"it names {backend} now" if is_set else f"without it, Keras takes {backend}"
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


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint that names the nearest known name, and all of them where none is near.

    >>> did_you_mean("batch_sise", ["batch_size", "seed"])
    "did you mean 'batch_size'?"
    >>> did_you_mean("zzz", ["batch_size", "seed"])
    'there are: batch_size, seed'
    """
    names = [str(each) for each in known]
    near = get_close_matches(name, names, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"there are: {', '.join(sorted(names))}" if names else "there are none"
