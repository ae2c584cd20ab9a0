"""Distinguish read errors of the disk from files that cannot be decoded."""

import errno
from pathlib import Path

import av

from cinefeed.core.errors import SourceError
from cinefeed.video.limits import irregular_kind

# Errors of a disk, a network share or the system, temporary or permanent, that do not depend on the file content.
_NAMES = """
    EIO EAGAIN EINTR ESTALE ETIMEDOUT ENETDOWN ENETUNREACH EHOSTDOWN EHOSTUNREACH ENOTCONN ECONNRESET ECONNABORTED
    EREMOTEIO EMFILE ENFILE
"""
_OF_THE_DISK = frozenset(getattr(errno, name) for name in _NAMES.split() if hasattr(errno, name))
_PIECE = 1 << 22  # bytes


def disk_error(error: BaseException, path: Path) -> OSError | None:
    """Return the error of the disk that caused an error, or None if there is none.

    >>> disk_error(OSError(errno.EIO, "Input/output error"), Path("a.npy"))
    OSError(5, 'Input/output error')
    >>> disk_error(FileNotFoundError(errno.ENOENT, "No such file"), Path("a.npy"))
    """
    cause: BaseException | None = error
    while cause is not None:
        # FFmpeg raises EIO for a truncated file, too.
        if isinstance(cause, OSError) and cause.errno in _OF_THE_DISK and not isinstance(cause, av.FFmpegError):
            return cause
        cause = cause.__cause__ or cause.__context__
    # A decoder gives no reason, so the file is read once: a damaged file can be read to its end.
    return _read_through(path) if isinstance(error, SourceError) else None


def _read_through(path: Path) -> OSError | None:
    if irregular_kind(path) is not None:  # reading a pipe to its end may never end
        return None
    try:
        with path.open("rb") as file:
            while file.read(_PIECE):
                pass
    except OSError as error:
        return error if error.errno in _OF_THE_DISK else None
    return None
