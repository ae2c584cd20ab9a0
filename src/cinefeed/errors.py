"""The errors of cinefeed, with one base class.

CinefeedError
├── SettingError       (ValueError)         a setting that is unknown, missing or out of range
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
│   └── UnfitError     (RuntimeError)       settings that cannot be sent to worker processes
├── InUseError         (RuntimeError)       a path that another process is writing
├── TrainingError      (RuntimeError)       a run that had to stop
└── MissingExtraError  (ImportError)        an optional package that is not installed

A message contains what was asked, what was found, and what to do. The manifest row is added once, by the code that
reads it.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class CinefeedError(Exception):
    """Base class of all errors of cinefeed."""


class SettingError(CinefeedError, ValueError):
    """A setting is unknown, missing or out of range."""


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


class UnfitError(FeedError):
    """Settings of a feed cannot be sent to worker processes, such as a transform that is defined in a script."""


class InUseError(CinefeedError, RuntimeError):
    """Another process is writing the run folder, manifest or folder of features."""


class TrainingError(CinefeedError, RuntimeError):
    """A training run had to stop."""


class MissingExtraError(CinefeedError, ImportError):
    """An optional package is not installed."""

    def __init__(self, package: str, *, extra: str, hint: str = "") -> None:
        super().__init__(f"{package} is not installed; run: pip install 'cinefeed[{extra}]'{hint}")


def keras_missing(error: ImportError) -> MissingExtraError:
    """Return the error for a failed import of Keras: Keras itself or its backend is not installed."""
    if error.name in (None, "keras"):
        return MissingExtraError("keras", extra="keras")
    hint = f", and set KERAS_BACKEND=torch in the environment (or jax): without it, Keras takes {error.name}"
    return MissingExtraError(f"Keras' backend {error.name}", extra="keras,torch", hint=hint)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return a hint with the nearest of some names, or with all of them if none is near.

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
