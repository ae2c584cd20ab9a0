"""Read errors of the disk, told apart from files that cannot be decoded."""

import errno
from pathlib import Path

import av

from cinefeed.errors import SourceError
from cinefeed.sources.limits import irregular_kind

# What a disk, a network share or the system itself answers with, for a while or for good, whatever is in the file.
_NAMES = """
    EIO EAGAIN EINTR ESTALE ETIMEDOUT ENETDOWN ENETUNREACH EHOSTDOWN EHOSTUNREACH ENOTCONN ECONNRESET ECONNABORTED
    EREMOTEIO EMFILE ENFILE
"""
_OF_THE_DISK = frozenset(getattr(errno, name) for name in _NAMES.split() if hasattr(errno, name))
_PIECE = 1 << 22  # bytes


def disk_error(error: BaseException, path: Path) -> OSError | None:
    """Return the error of the disk that is behind an error, or None where it is none.

    >>> disk_error(OSError(errno.EIO, "Input/output error"), Path("a.npy"))
    OSError(5, 'Input/output error')
    >>> disk_error(FileNotFoundError(errno.ENOENT, "No such file"), Path("a.npy"))
    """
    behind: BaseException | None = error
    while behind is not None:
        # FFmpeg says EIO of a file that is cut off, too.
        if isinstance(behind, OSError) and behind.errno in _OF_THE_DISK and not isinstance(behind, av.FFmpegError):
            return behind
        behind = behind.__cause__ or behind.__context__
    # A decoder tells nothing of why it stopped, so the system is asked: a damaged file can be read to its end.
    return _read_through(path) if isinstance(error, SourceError) else None


def _read_through(path: Path) -> OSError | None:
    if irregular_kind(path) is not None:  # to read a pipe to its end may take for ever
        return None
    try:
        with path.open("rb") as file:
            while file.read(_PIECE):
                pass
    except OSError as error:
        return error if error.errno in _OF_THE_DISK else None
    return None
