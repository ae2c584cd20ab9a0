"""Encoding of planes into a video file: the same bytes for the same frames, PyAV version and kind of processor."""

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from cinefeed.core.errors import SettingError
from cinefeed.core.files import DISK_FULL, write_error
from cinefeed.video.color import Matrix

_MUXERS = {".mp4": "mp4", ".mkv": "matroska"}
# No clock, random number or version text in the file. One thread: slices, and so bytes, depend on their number.
_SAME_BYTES, _ONE_THREAD = {"fflags": "+bitexact"}, {"threads": "1"}
_TAGS: dict[Matrix, int] = {"bt601": 6, "bt709": 1, "smpte240m": 7, "bt2020": 9}  # AVColorSpace
_LIMITED, _FULL = 1, 2  # AVColorRange


class Encoding(NamedTuple):
    """How frames are encoded.

    `options` are those of FFmpeg's encoder. `step` is the number of ticks of `time_base` between frames.
    """

    codec: str
    pixel_format: str
    options: Mapping[str, str]
    time_base: Fraction
    step: int
    full_range: bool
    matrix: Matrix = "bt601"
    gop: int = 1


def encode_planes(path: Path, frames: Iterable[Sequence[NDArray[Any]]], encoding: Encoding) -> int:
    """Encode frames, each a sequence of planes of the pixel format, as a video file; return their number.

    An rgb plane (height, width, 3) is accepted for the formats bgr0 and gbrp. The suffix of `path`, .mp4 or .mkv,
    selects the container. Raises SettingError if this FFmpeg lacks the encoder, or refuses the frames, and OSError.
    """
    try:
        return _encode(path, frames, encoding)
    except av.FFmpegError as error:
        reason = getattr(error, "strerror", None) or str(error)
        if error.errno in DISK_FULL:
            raise write_error(OSError(error.errno, reason), path) from error
        raise SettingError(
            f"FFmpeg cannot encode these frames as {encoding.codec} {encoding.pixel_format} ({reason}); choose another "
            "codec"
        ) from error


def _encode(path: Path, frames: Iterable[Sequence[NDArray[Any]]], encoding: Encoding) -> int:
    container_options = _SAME_BYTES | ({"movflags": "faststart"} if path.suffix == ".mp4" else {})
    count = 0
    with av.open(f"file:{path}", "w", format=_MUXERS[path.suffix], options=container_options) as container:
        stream: Any = None
        for planes in frames:
            if stream is None:
                stream = _add_stream(container, encoding, *planes[0].shape[:2])
            frame = _frame(planes, encoding.pixel_format)
            frame.pts, frame.time_base = count * encoding.step, encoding.time_base
            container.mux(stream.encode(frame))
            count += 1
        if stream is not None:
            container.mux(stream.encode(None))
    return count


def _add_stream(container: Any, encoding: Encoding, height: int, width: int) -> Any:
    options = {"flags": "+bitexact"} | _ONE_THREAD | dict(encoding.options)
    try:
        stream = container.add_stream(encoding.codec, options=options)
    except (av.FFmpegError, ValueError) as error:
        raise SettingError(
            f"this FFmpeg (PyAV {av.__version__}) has no encoder {encoding.codec}; choose another codec, or install "
            "PyAV from PyPI, whose wheels have it"
        ) from error
    coder = stream.codec_context
    stream.height, stream.width, stream.pix_fmt = height, width, encoding.pixel_format
    coder.gop_size, coder.max_b_frames, coder.time_base = encoding.gop, 0, encoding.time_base
    coder.framerate = 1 / (encoding.time_base * encoding.step)
    coder.color_range, coder.colorspace = _FULL if encoding.full_range else _LIMITED, _TAGS[encoding.matrix]
    return stream


def _frame(planes: Sequence[NDArray[Any]], pixel_format: str) -> av.VideoFrame:
    """Return a frame with copies of planes."""
    height, width = planes[0].shape[:2]
    frame = av.VideoFrame(width, height, pixel_format)
    if pixel_format == "bgr0":
        planes = [cv2.cvtColor(np.ascontiguousarray(planes[0]), cv2.COLOR_RGB2BGRA)]
    elif pixel_format.startswith("gbrp"):
        planes = [planes[0][..., channel] for channel in (1, 2, 0)]
    for plane, target in zip(planes, frame.planes, strict=True):
        rows = np.ascontiguousarray(plane).view(np.uint8).reshape(plane.shape[0], -1)
        buffer: Any = target
        view = np.ndarray((rows.shape[0], target.line_size), np.uint8, buffer)  # rows are padded
        view[:, : rows.shape[1]] = rows
    return frame
