"""Messages of decoders during a scan, which number one or more a file: counted, not shown."""

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
_DECODERS = ("pydicom", "nibabel", "openjpeg", "PIL", "h5py")  # packages whose warnings are about what is in a file


@contextmanager
def decoders_quiet() -> Iterator[Counter[str]]:
    """Count the Python warnings of decoders by package, and have OpenCV print nothing; one log line names the counts.

    What is wrong with a file is known by its decoding, and stands in its row. The texts are left out because pydicom's
    quote what is in a header, names among it. OpenCV prints by itself, so its messages cannot be counted. Filters of
    warnings hold for all threads: other packages' warnings are shown as before.
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
        named = ", ".join(f"{number} of {package}" for package, number in sorted(counts.items()))
        _log.warning("warnings of decoders that are not shown: %s; what cannot be read has an error in its row", named)
