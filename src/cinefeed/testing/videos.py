"""Videos that carry their frame number in their pixels, so that identity is provable.

write_video("cine.mp4", numbered_frames(50), gop=12, b_frames=2)
with cinefeed.open_source("cine.mp4") as source:
    check_source(source)
    assert [read_number(frame) for frame in source.read([49, 0, 7])] == [49, 0, 7]
"""

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

_BITS, _ACROSS = 16, 4  # 4 x 4 blocks, the lowest bit first: they outlive any usual compression
_DARK, _BRIGHT = 40, 215


def numbered_frames(count: int, *, height: int = 64, width: int = 64, first: int = 0) -> NDArray[np.uint8]:
    """Return RGB frames (count, height, width, 3) that each show their number, in 16 binary blocks.

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
    """Return the number that a frame of `numbered_frames` shows, after any coding and resizing of the whole frame.

    `frame` is (height, width) or (height, width, channels), of any type; dark and bright are told by the middle
    between its extremes, and where the frame is of one shade, as frame 0 is, by half of the type's full scale.
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
    rotation: int = 0,
) -> Path:
    """Encode frames (height, width, 3) or (height, width) of uint8 into a video file, and return its path.

    `stamps` are presentation times in milliseconds, for a variable rate; `options` are the encoder's own. `rotation`
    is written as `Facts.rotation` reads it: degrees counter-clockwise that turn the stored frame upright.
    """
    path = Path(path)
    settings = dict(_DEFAULTS.get(codec, {})) | dict(options or {})
    with av.open(f"file:{path}", "w", options={"movflags": "faststart"} if path.suffix == ".mp4" else {}) as container:
        rate = Fraction(rate_hz).limit_denominator(1001)
        stream: Any = container.add_stream(codec, rate=rate, options=settings)
        for i, pixels in enumerate(frames):
            if i == 0:
                stream.height, stream.width = pixels.shape[:2]
                stream.pix_fmt = pixel_format
                stream.codec_context.gop_size = gop
                stream.codec_context.max_b_frames = b_frames
                if stamps is not None:
                    stream.codec_context.time_base = Fraction(1, 1000)
                if rotation:
                    stream.set_display_rotation(rotation)
            form = "gray" if pixels.ndim == 2 else "rgb24"
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=form)
            frame.pts = i if stamps is None else stamps[i]
            frame.time_base = 1 / rate if stamps is None else Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


# The same bytes on every machine, whatever its cores; and no key frame but those of the GOP.
_DEFAULTS: dict[str, dict[str, str]] = {
    "h264": {"threads": "1", "preset": "veryfast", "sc_threshold": "0"},
    "hevc": {"preset": "ultrafast", "x265-params": "log-level=none:scenecut=0:pools=1:frame-threads=1"},
    "mpeg4": {"threads": "1", "qscale": "3", "sc_threshold": "1000000000"},
    "mpeg2video": {"threads": "1", "qscale": "3", "sc_threshold": "1000000000"},
    "vp9": {"threads": "1", "deadline": "realtime", "cpu-used": "8"},
}
