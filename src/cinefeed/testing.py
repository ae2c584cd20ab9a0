"""Public conformance checks, and videos that carry their frame number in their pixels, so that identity is provable.

write_video("cine.mp4", numbered_frames(50), gop=12, b_frames=2)
with cinefeed.open_source("cine.mp4") as source:
    check_source(source)
    assert [read_number(frame) for frame in source.read([49, 0, 7])] == [49, 0, 7]
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from cinefeed.errors import SourceError
from cinefeed.sources.base import Source, planes_to_array

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


def check_source(source: Source, *, reopen: Callable[[], Source] | None = None, seed: int = 0) -> None:
    """Check that a source keeps its promises; `reopen` returns the same file opened anew, for two checks more.

    Length and facts agree; frames asked for in any order, repeated, reversed or one by one equal those of one read in
    order; an index out of range and a closed source raise SourceError; planes fit the facts. A source of more than
    200 frames is checked on 200 of them in a row. The source is closed at the end. Raises AssertionError, which says
    what is wrong.
    """
    facts = source.facts
    _must(len(source) == facts.times.count > 0, f"len() is {len(source)}, facts.times.count {facts.times.count}")
    rng = np.random.Generator(np.random.Philox(key=seed))
    count = min(len(source), 200)
    start = int(rng.integers(0, len(source) - count + 1))
    whole = source.read(range(start, start + count))
    channels = whole.shape[-1]
    _must(
        whole.shape == (count, facts.height, facts.width, channels) and channels in (1, 3),
        f"read gives {whole.shape}, the facts say {count} frames of {facts.height} x {facts.width}",
    )
    _must(whole.dtype in (np.uint8, np.uint16, np.float32), f"read gives {whole.dtype}")
    for name, numbers in _requests(count, rng):
        got = source.read([start + number for number in numbers])
        _must(got.shape == (len(numbers), *whole.shape[1:]), f"{name}: {len(numbers)} frames asked, {got.shape} given")
        for place, number in enumerate(numbers):
            same = np.array_equal(got[place], whole[number], equal_nan=whole.dtype == np.float32)
            _must(same, f"{name}: frame {start + number} differs from the one read in order")
    _check_planes(source, whole[:2], start=start)
    for wrong in ([len(source)], [-1], [0, len(source) + 5]):
        _must(_refuses(source, wrong), f"index {wrong} of {len(source)} frames does not raise SourceError")
    source.close()
    source.close()
    _must(_refuses(source, [0]), "a closed source does not raise SourceError")
    if reopen is not None:
        with reopen() as again:
            same = np.array_equal(again.read([start + count - 1])[0], whole[-1], equal_nan=whole.dtype == np.float32)
            _must(same, f"frame {start + count - 1} differs after opening again")
        _must(_refuses(again, [0]), "leaving `with` does not close the source")


def _requests(count: int, rng: np.random.Generator) -> list[tuple[str, list[int]]]:
    last = count - 1
    return [
        ("first", [0]),
        ("last", [last]),
        ("none", []),
        ("reversed", list(range(last, max(last - 20, -1), -1))),
        ("repeated", [last // 2] * 3 + [0, 0]),
        ("strided", list(range(0, count, 3))[:20]),
        *((f"random {i}", rng.integers(0, count, 8).tolist()) for i in range(4)),
        *((f"single {i}", [int(rng.integers(0, count))]) for i in range(4)),
    ]


def _check_planes(source: Source, frames: NDArray[Any], *, start: int) -> None:
    facts, planes = source.facts, source.planes(range(start, start + len(frames)))
    _must(len(planes.frames) == len(frames), "planes gives another number of frames than asked")
    expected = {"grey": 1, "yuv": 3, "rgb": 1}[planes.colour.model]
    stored = (facts.width, facts.height) if facts.rotation % 180 else (facts.height, facts.width)
    for parts in planes.frames:
        _must(len(parts) == expected, f"a {planes.colour.model} frame has {len(parts)} planes, not {expected}")
        _must(parts[0].shape[:2] == stored, f"the first plane is {parts[0].shape}, the facts say {stored} as stored")
    array = planes_to_array(planes, channels=frames.shape[-1], height=facts.height, width=facts.width)
    _must(np.array_equal(array, frames, equal_nan=array.dtype == np.float32), "planes and read disagree")


def _refuses(source: Source, indices: list[int]) -> bool:
    try:
        source.read(indices)
    except SourceError:
        return True
    return False


def _must(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)
