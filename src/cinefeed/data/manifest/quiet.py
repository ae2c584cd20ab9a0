"""Suppression of decoder messages during a scan, which may be several per file: they are counted, not shown."""

import logging
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2

_log = logging.getLogger(__name__)
_opencv: Any = getattr(cv2.utils, "logging", cv2)  # OpenCV 4 has these functions at its root
_SILENT = 0  # LOG_LEVEL_SILENT, which OpenCV 4 does not name
_DECODERS = ("pydicom", "nibabel", "openjpeg", "PIL", "h5py")  # their warnings concern file contents


@contextmanager
def decoders_quiet() -> Iterator[Counter[str]]:
    """Count the Python warnings of decoders by package, silence OpenCV, and log the counts in one line.

    Faults of a file are detected by decoding it, and stored in its row. The texts of warnings are not logged because
    those of pydicom quote header values, including names of patients. OpenCV prints its messages itself, so they cannot
    be counted. Warning filters apply to all threads: warnings of other packages are shown as before.
    """
    counts: Counter[str] = Counter()
    level = _opencv.setLogLevel(_SILENT)
    try:
        with warnings.catch_warnings():
            show = warnings.showwarning

            def count(
                message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None
            ) -> None:
                package = next((name for name in _DECODERS if name in Path(filename).parts), None)
                if package is None:
                    show(message, category, filename, lineno, file, line)
                else:
                    counts[package] += 1

            warnings.showwarning = count
            warnings.filterwarnings("always", module=rf"({'|'.join(_DECODERS)})\b")
            yield counts
    finally:
        _opencv.setLogLevel(level)
    if counts:
        text = ", ".join(f"{number} of {package}" for package, number in sorted(counts.items()))
        _log.warning(
            "decoder warnings that are not shown: %s; files that cannot be read have an error in their row", text
        )
