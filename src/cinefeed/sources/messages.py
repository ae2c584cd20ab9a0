"""What FFmpeg says while it decodes, where it says no other way that a frame is not what the file holds."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Lock

import av

# The decoder of H.264 takes another picture in place of one that it lacks, and marks nothing. No file of 171 healthy
# ones, of phones, scanners and broadcasts, led to any of these messages.
_MADE_UP = (
    "co located POCs unavailable",
    "Missing reference picture",
    "reference picture missing",
    "unref short failure",
    "reference count overflow",
    "number of reference frames",
    "Frame num gap",
    "frame num gap",
)
_SILENT = logging.CRITICAL + 1
_lock, _users = Lock(), 0
_before: tuple[int | None, bool, int] | None = None  # what was set when the first of the users came


@contextmanager
def heard_messages() -> Iterator[None]:
    """Have PyAV hand FFmpeg's errors to `av.logging.Capture`, which it does not by default; others' are not shown.

    The setting holds for all threads of the process. A level of PyAV's that the user has set stays if it lets errors
    through, and is set again at the end.
    """
    global _users, _before
    logger = logging.getLogger("libav")
    with _lock:
        _users += 1
        if _before is None:
            level = av.logging.get_level()
            _before = level, av.logging.get_skip_repeated(), logger.level
            av.logging.set_skip_repeated(False)
            if level is None or level < av.logging.ERROR:  # FFmpeg's levels fall as they matter more
                logger.setLevel(_SILENT)
                av.logging.set_level(av.logging.ERROR)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0 and _before is not None:
                level, skip_repeated, logger_level = _before
                _before = None
                av.logging.set_level(level)
                av.logging.set_skip_repeated(skip_repeated)
                logger.setLevel(logger_level)


def tells_of_made_up(messages: Iterable[tuple[int, str, str]]) -> bool:
    """Return whether one of these messages says that the decoder used a picture in place of one that it lacks.

    >>> tells_of_made_up([(16, "h264", "co located POCs unavailable")])
    True
    """
    return any(each in text for _, _, text in messages for each in _MADE_UP)
