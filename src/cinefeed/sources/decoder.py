"""Which decoder reads encoded video: FFmpeg called by compiled loops, or PyAV, and why."""

import ctypes
import logging
from functools import cache
from typing import Literal, NamedTuple

import av
import llvmlite.binding as llvm

from cinefeed.sources.libav import NAMES
from cinefeed.sources.structures import KNOWN, Version, library, version, what_differs

_log = logging.getLogger(__name__)


class DecoderChoice(NamedTuple):
    """Which decoder reads encoded video of this process where both can, and why. Both give the same bytes.

    "compiled" is FFmpeg called by compiled loops, "PyAV" is PyAV's objects, frame by frame. Files of which only PyAV
    can tell when frames are shown, such as AVI and Matroska, are read by PyAV in any case. `versions` are those of PyAV
    ("av") and of FFmpeg's libraries that it brings.
    """

    name: Literal["compiled", "PyAV"]
    reason: str
    versions: dict[str, str]


@cache
def decoder_choice() -> DecoderChoice:
    """Return which decoder reads encoded video, and why. The first call looks; where it is PyAV, it logs one line.

    >>> decoder_choice().name in ("compiled", "PyAV")
    True
    """
    libraries = {name: ".".join(map(str, av.library_versions.get(name, (0,)))) for name in Version._fields}
    versions = {"av": av.__version__, **libraries}
    reason = _why_not_compiled()
    if reason is None:
        return DecoderChoice("compiled", f"libavcodec {libraries['libavcodec']} is as known", versions)
    _log.warning(
        "encoded video is read by PyAV, frame by frame, up to three times slower: %s (PyAV %s)", reason, av.__version__
    )
    return DecoderChoice("PyAV", reason, versions)


def _why_not_compiled() -> str | None:
    """Name FFmpeg's functions to compiled code; return why it cannot be called, None where it can."""
    if ctypes.sizeof(ctypes.c_void_p) != 8:
        return "an address has not 64 bits"
    if version() not in KNOWN:
        tested = ", ".join(str(each.libavcodec) for each in KNOWN)
        return (
            f"compiled code was tested with libavcodec {tested}, this is {version().libavcodec} "
            f"(libavformat {version().libavformat}, libavutil {version().libavutil})"
        )
    try:
        functions = library()
        for name in NAMES:
            llvm.add_symbol(name, ctypes.cast(getattr(functions, name), ctypes.c_void_p).value)
        differs = what_differs(functions, KNOWN[version()])
    except (ImportError, OSError, AttributeError) as error:  # on Windows one cannot look into what a library links to
        return f"FFmpeg's functions cannot be called by name: {error}"
    return differs and f"{differs} is not where libavcodec {version().libavcodec} has it"
