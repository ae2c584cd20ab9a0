"""FFmpeg's log messages during decoding, which are the only sign of some substituted frames."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Lock

import av

# The H.264 decoder uses another picture in place of a missing one, without marking it. None of 171 undamaged files, of
# phones, scanners and broadcasts, caused any of these messages.
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
_before: tuple[int | None, bool, int] | None = None  # settings before the first user


@contextmanager
def capture_errors(*, warnings: bool = False) -> Iterator[None]:
    """Let `av.logging.Capture` receive FFmpeg's errors, which PyAV disables by default; other messages are hidden.

    The setting applies to all threads of the process. A log level that the user has set is kept if it includes errors
    (and `warnings`), and is restored at the end.
    """
    least = av.logging.WARNING if warnings else av.logging.ERROR
    global _users, _before
    logger = logging.getLogger("libav")
    with _lock:
        _users += 1
        if _before is None:
            _before = av.logging.get_level(), av.logging.get_skip_repeated(), logger.level
            av.logging.set_skip_repeated(False)
        level = av.logging.get_level()
        if level is None or level < least:  # lower levels are more severe
            logger.setLevel(_SILENT)
            av.logging.set_level(least)
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


@contextmanager
def messages_of_level(level: int) -> Iterator[None]:
    """Let `av.logging.Capture` receive FFmpeg's messages up to a level for a moment, within `capture_errors`."""
    with _lock:
        previous = av.logging.get_level()
        if previous is None or previous < level:
            av.logging.set_level(level)
        try:
            yield
        finally:
            av.logging.set_level(previous)


def reports_substitution(messages: Iterable[tuple[int, str, str]]) -> bool:
    """Return whether one of these messages means that the decoder replaced a missing picture by another.

    >>> reports_substitution([(16, "h264", "co located POCs unavailable")])
    True
    """
    return any(phrase in text for _, _, text in messages for phrase in _MADE_UP)
