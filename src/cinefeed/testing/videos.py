"""Test videos with the frame number encoded in the pixels, so that each frame can be identified.

write_video("cine.mp4", numbered_frames(50), gop=12, b_frames=2)
with cinefeed.open_video("cine.mp4") as source:
    check_source(source)
    assert [read_number(frame) for frame in source.read([49, 0, 7])] == [49, 0, 7]
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Colorspace
from numpy.typing import NDArray

from cinefeed.core.errors import SettingError
from cinefeed.video.color import Matrix

_BITS, _ACROSS = 16, 4  # 4 x 4 blocks, the lowest bit first: robust against usual compression
_DARK, _BRIGHT = 40, 215


def numbered_frames(count: int, *, height: int = 64, width: int = 64, first: int = 0) -> NDArray[np.uint8]:
    """Return RGB frames (count, height, width, 3) with their numbers encoded in 16 binary blocks.

    >>> frames = numbered_frames(3, first=1000)
    >>> [read_number(frame) for frame in frames]
    [1000, 1001, 1002]
    """
    numbers = np.arange(first, first + count)
    bits = (numbers[:, None] >> np.arange(_BITS)) & 1
    blocks = np.where(bits, _BRIGHT, _DARK).astype(np.uint8).reshape(count, _ACROSS, _ACROSS)
    rows, columns = np.arange(height) * _ACROSS // height, np.arange(width) * _ACROSS // width
    return np.repeat(blocks[:, rows][:, :, columns, None], 3, axis=3)


def read_number(frame: NDArray[Any]) -> int:
    """Return the number in a frame of `numbered_frames`, after any coding and resizing of the whole frame.

    `frame` is (height, width) or (height, width, channels), of any dtype. The threshold between dark and bright is the
    middle between its extremes, or, for a frame of one shade such as frame 0, half of the full scale of the dtype.
    """
    grey = np.asarray(frame, np.float64)
    grey = grey.mean(axis=2) if grey.ndim == 3 else grey
    centres = [(np.arange(_ACROSS) + 0.5) * size / _ACROSS for size in grey.shape]
    reach = [max(size // (_ACROSS * 4), 1) for size in grey.shape]
    shades = np.array(
        [
            grey[int(y) - reach[0] : int(y) + reach[0], int(x) - reach[1] : int(x) + reach[1]].mean()
            for y in centres[0]
            for x in centres[1]
        ]
    )
    full = 65535.0 if frame.dtype == np.uint16 else 255.0
    middle = (shades.max() + shades.min()) / 2 if np.ptp(shades) > full / 4 else full / 2
    return int((shades > middle) @ (1 << np.arange(_BITS)))


def write_video(
    path: str | Path,
    frames: Iterable[NDArray[np.uint8]],
    *,
    codec: str = "h264",
    rate_hz: float = 25,
    gop: int = 12,
    b_frames: int = 0,
    pixel_format: str = "yuv420p",
    stamps: Sequence[int] | None = None,
    options: Mapping[str, str] | None = None,
    container_options: Mapping[str, str] | None = None,
    matrix: Matrix | None = None,
    full_range: bool | None = None,
    rotation: int = 0,
    mirrored: bool = False,
    aspect: Fraction | None = None,
) -> Path:
    """Encode uint8 frames, grey (height, width), RGB or RGBA, as a video file, and return its path.

    Args:
        path: file to write; its suffix selects the container.
        frames: the frames, all of one shape.
        codec: name of an encoder of FFmpeg.
        rate_hz: frames per second.
        gop: largest distance of key frames.
        b_frames: largest number of consecutive B-frames.
        pixel_format: pixel format of FFmpeg for the stored frames.
        stamps: presentation times in milliseconds, for a variable rate.
        options: options of the encoder.
        container_options: options of the muxer.
        matrix: matrix for the conversion of RGB to YUV, written as a tag; without it BT.601, untagged.
        full_range: range for that conversion, written as a tag; without it limited, untagged.
        rotation: rotation in the metadata, in degrees counter-clockwise, as `VideoMetadata` reads it.
        mirrored: mirroring in the metadata, as `VideoMetadata` reads it.
        aspect: aspect ratio of a pixel, as `VideoMetadata` reads it.

    Raises:
        SettingError: this PyAV does not convert to `matrix`.
    """
    path, space = Path(path), _space(matrix or "bt601")
    settings = dict(_DEFAULTS.get(codec, {})) | dict(options or {})
    muxer = ({"movflags": "faststart"} if path.suffix == ".mp4" else {}) | dict(container_options or {})
    with av.open(f"file:{path}", "w", options=muxer) as container:
        rate = Fraction(rate_hz).limit_denominator(1001)
        stream: Any = container.add_stream(codec, rate=rate, options=settings)
        coder = stream.codec_context
        for i, pixels in enumerate(frames):
            if i == 0:
                stream.height, stream.width = pixels.shape[:2]
                stream.pix_fmt = pixel_format
                coder.gop_size = gop
                coder.max_b_frames = b_frames
                if stamps is not None:
                    coder.time_base = Fraction(1, 1000)
                if matrix is not None:
                    coder.colorspace = _TAGS[matrix]
                if full_range is not None:
                    coder.color_range = 2 if full_range else 1
                if aspect is not None:
                    coder.sample_aspect_ratio = aspect
                if (
                    rotation or mirrored
                ):  # PyAV mirrors after rotating, VideoMetadata before, so the rotation is reversed
                    stream.set_display_rotation(-rotation if mirrored else rotation, hflip=mirrored)
            form = "gray" if pixels.ndim == 2 else "rgb24" if pixels.shape[2] == 3 else "rgba"
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=form)
            if matrix is not None or full_range is not None:
                frame = frame.reformat(format=pixel_format, dst_colorspace=space, dst_color_range=1 + bool(full_range))
            frame.pts = i if stamps is None else stamps[i]
            frame.time_base = 1 / rate if stamps is None else Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _space(matrix: Matrix) -> str:
    """Return PyAV's name of a matrix that it converts to. Raises SettingError if it cannot: 17.1 has no bt2020."""
    name = _SPACES[matrix]
    if name not in Colorspace.__members__:
        raise SettingError(f"PyAV {av.__version__} cannot convert to {matrix}, which was asked for; PyAV 18 can")
    return name


def join_streams(path: str | Path, sources: Sequence[str | Path]) -> Path:
    """Write one file with the encoded streams of several files, and return its path."""
    path = Path(path)
    with ExitStack() as stack:
        out = stack.enter_context(av.open(f"file:{path}", "w"))
        packets: list[Any] = []
        for source in sources:
            container = stack.enter_context(av.open(f"file:{source}"))
            targets = {stream.index: out.add_stream_from_template(stream) for stream in container.streams}
            packets += [(packet, targets[packet.stream.index]) for packet in container.demux() if packet.size]
        for packet, target in sorted(packets, key=lambda each: float((each[0].dts or 0) * each[0].time_base)):
            packet.stream = target
            out.mux(packet)
    return path


_TAGS: dict[Matrix, int] = {"bt601": 6, "bt709": 1, "smpte240m": 7, "bt2020": 9}  # AVColorSpace
_SPACES: dict[Matrix, str] = {"bt601": "ITU601", "bt709": "ITU709", "smpte240m": "SMPTE240M", "bt2020": "BT2020"}

# Options for the same bytes on every machine, with any number of cores, and for key frames only at each GOP.
_DEFAULTS: dict[str, dict[str, str]] = {
    "h264": {"threads": "1", "preset": "veryfast", "sc_threshold": "0"},
    "hevc": {"preset": "ultrafast", "x265-params": "log-level=none:scenecut=0:pools=1:frame-threads=1"},
    "mpeg4": {"threads": "1", "qscale": "3", "sc_threshold": "1000000000"},
    "mpeg2video": {"threads": "1", "qscale": "3", "sc_threshold": "1000000000"},
    "vp9": {"threads": "1", "deadline": "realtime", "cpu-used": "8"},
}
