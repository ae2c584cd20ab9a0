"""Selection of the decoder of encoded video: FFmpeg called by compiled loops, or PyAV."""

import ctypes
import logging
from functools import cache
from typing import Literal, NamedTuple

import av
import llvmlite.binding as llvm

from cinefeed.video.ffmpeg.abi import TESTED_VERSIONS, Version, library, version, what_differs
from cinefeed.video.ffmpeg.compiled_loops import NAMES

_log = logging.getLogger(__name__)


class DecoderChoice(NamedTuple):
    """The decoder of encoded video in this process, for files that both support, and why. Both return the same bytes.

    "compiled" is FFmpeg called by compiled loops, "PyAV" is PyAV, frame by frame. Files whose display times only PyAV
    can determine, such as AVI and Matroska, are always read by PyAV. `versions` are those of PyAV ("av") and of the
    FFmpeg libraries that it ships.
    """

    name: Literal["compiled", "PyAV"]
    reason: str
    versions: dict[str, str]


@cache
def decoder_choice() -> DecoderChoice:
    """Return the decoder of encoded video, and why. The first call checks the libraries and logs one line for PyAV.

    >>> decoder_choice().name in ("compiled", "PyAV")
    True
    """
    libraries = {name: ".".join(map(str, av.library_versions.get(name, (0,)))) for name in Version._fields}
    versions = {"av": av.__version__, **libraries}
    reason = _why_not_compiled()
    if reason is None:
        return DecoderChoice("compiled", f"libavcodec {libraries['libavcodec']} has the expected layout", versions)
    _log.warning(
        "encoded video is read by PyAV, frame by frame, up to three times slower: %s (PyAV %s)", reason, av.__version__
    )
    return DecoderChoice("PyAV", reason, versions)


def _why_not_compiled() -> str | None:
    """Make FFmpeg's functions available to compiled code; return why that fails, None if it succeeds."""
    if ctypes.sizeof(ctypes.c_void_p) != 8:
        return "addresses do not have 64 bits"
    if version() not in TESTED_VERSIONS:
        tested = ", ".join(str(each.libavcodec) for each in TESTED_VERSIONS)
        return (
            f"compiled code was tested with libavcodec {tested}, this is {version().libavcodec} "
            f"(libavformat {version().libavformat}, libavutil {version().libavutil})"
        )
    try:
        functions = library()
        for name in NAMES:
            llvm.add_symbol(name, ctypes.cast(getattr(functions, name), ctypes.c_void_p).value)
        differs = what_differs(functions, TESTED_VERSIONS[version()])
    except (ImportError, OSError, AttributeError) as error:  # on Windows linked libraries cannot be searched
        return f"FFmpeg's functions cannot be called by name: {error}"
    return differs and f"{differs} is not at the offset of libavcodec {version().libavcodec}"
