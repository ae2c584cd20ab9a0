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
└── MissingExtraError  (ImportError)        an optional package that is not installed

A message says what was asked, what was found, and what to do. The stage that knows the manifest row adds it, once.
"""

from collections.abc import Iterable
from difflib import get_close_matches


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


class MissingExtraError(CinefeedError, ImportError):
    """An optional package is not installed."""

    def __init__(self, package: str, *, extra: str, hint: str = "") -> None:
        super().__init__(f"{package} is not installed; run: pip install 'cinefeed[{extra}]'{hint}")


def keras_missing(error: ImportError) -> MissingExtraError:
    """Return what to say where Keras cannot be imported: it is not there, or the backend that it was told to use."""
    if error.name in (None, "keras"):
        return MissingExtraError("keras", extra="keras")
    hint = f", and set KERAS_BACKEND=torch in the environment (or jax): without it, Keras takes {error.name}"
    return MissingExtraError(f"Keras' backend {error.name}", extra="keras,torch", hint=hint)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return a hint that names the nearest known name, and all of them where none is near.

    >>> did_you_mean("batch_sise", ["batch_size", "seed"])
    "did you mean 'batch_size'?"
    >>> did_you_mean("zzz", ["batch_size", "seed"])
    'there are: batch_size, seed'
    """
    choices = [str(each) for each in names]
    near = get_close_matches(name, choices, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"there are: {', '.join(sorted(choices))}" if choices else "there are none"
