"""One look at every video: is its file there and as it was, is it long enough, and what do a few frames show.

The pictures of a video become a fingerprint that hardly changes when it is encoded anew, resized or brightened:

5 frames, evenly spread -> 32 x 32 each -> minus their own blur -> 12 x 12 -> what differs from the mean frame doubled
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cinefeed.clips import Clip, Frame, PixelType, Times
from cinefeed.errors import ClipError, SourceError
from cinefeed.manifest.identity import state_of
from cinefeed.manifest.table import Manifest
from cinefeed.sources.base import Facts, Planes, planes_to_array
from cinefeed.sources.colour import lacks_window, with_window
from cinefeed.transforms.levels import PixelLevels

FRAMES = 5
_SMALL, _SIDE = 32, 12
PRINT = FRAMES * _SIDE * _SIDE
# Blur and the doubling were chosen on `pocus` and `lips`: of 2 to 6 pixels and factors 1 and 2 these set copies that
# were encoded anew, resized or cropped by 2 % a side (at most 0.128 and 0.073) furthest apart from different videos
# (0.18 for the nearest mouths of one speaker). Without blur taken off, all ultrasound sectors are alike.
_BLUR, _MOTION = 4.0, 2.0
_FLAT = 1.0  # grey levels of 255; the darkest clip of `pocus` has 9, black and constant frames have 0
_LEVELS = 256  # that are told apart; a feed with less than a tenth of them has lost its contrast
_MUCH_CLIPPED = 0.01  # of the pixels: as many as a window of the 0.5th and the 99.5th percentile clips
_AT_ONCE = 4096  # rows handed to the threads at a time


@dataclass(frozen=True, kw_only=True)
class Looks:
    """What a look at each row found; arrays have one value a row."""

    prints: NDArray[np.int8]  # (rows, PRINT), all 0 where nothing can be told from the pictures
    brightness: NDArray[np.float64]  # mean of the frames read, 0 to 255; NaN where none was
    contrast: NDArray[np.float64]  # their standard deviation
    seconds: NDArray[np.float64]  # from the first to the last frame of the row; NaN without a rate
    sizes: NDArray[np.int64]  # bytes now, -1 where that is not known
    missing: dict[int, str] = field(default_factory=dict)  # row: why the file cannot be found
    changed: dict[int, str] = field(default_factory=dict)  # row: in what its file is not the scanned one
    unread: dict[int, str] = field(default_factory=dict)  # row: why its frames cannot be read, though they were probed
    short: dict[int, str] = field(default_factory=dict)  # row: what the clip asks for and the video has
    timeless: dict[int, str] = field(default_factory=dict)  # row: nothing more; the clip asks for a rate, it has none
    not_finite: dict[int, str] = field(default_factory=dict)  # row: how many pixels are NaN or infinite
    few_levels: dict[int, str] = field(default_factory=dict)  # row: how many levels its window or type leaves
    few_stored: dict[int, str] = field(default_factory=dict)  # row: how many levels its 8-bit frames have
    clipped: dict[int, str] = field(default_factory=dict)  # row: how much the feed's window clips
    clipped_by_file: dict[int, str] = field(default_factory=dict)  # row: how much its own window clips

    @property
    def read(self) -> NDArray[np.bool_]:
        """Of which rows frames were read."""
        return ~np.isnan(self.brightness)


def look_at_all(
    manifest: Manifest,
    *,
    clip: Clip | None,
    frame: Frame | None = None,
    workers: int,
    progress: Callable[[int, int], None],
) -> Looks:
    """Open every video once and read a few of its frames, on `workers` threads."""
    count = len(manifest)
    unknown = [np.full(count, np.nan) for _ in range(3)]
    looks = Looks(
        prints=np.zeros((count, PRINT), np.int8),
        brightness=unknown[0],
        contrast=unknown[1],
        seconds=unknown[2],
        sizes=np.full(count, -1, np.int64),
    )
    strict = None if clip is None else replace(clip, position="start" if clip.position == "random" else clip.position)
    strict = None if strict is None else replace(strict, short="error")
    pool = ThreadPoolExecutor(workers, thread_name_prefix="cinefeed-check")
    try:
        for row in _in_parallel(pool, lambda row: _look(manifest, row, looks, strict, frame), count):
            progress(row + 1, count)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    # Threads end in any order, findings name the first rows.
    for remarks in (each for each in vars(looks).values() if isinstance(each, dict)):
        ordered = sorted(remarks.items())
        remarks.clear()
        remarks.update(ordered)
    return looks


def read_frames(manifest: Manifest, row: int, facts: Facts, *, count: int = FRAMES) -> NDArray[Any]:
    """Return a few frames of a row, grey, evenly spread over its stretch, (count, height, width): ..F...F...F.."""
    return _grey(_read_planes(manifest, row, facts, count=count), facts)


def _read_planes(manifest: Manifest, row: int, facts: Facts, *, count: int = FRAMES) -> Planes:
    start, end = manifest.window(row)
    halves, _ = Clip(frames=2 * count, position="spread").select(facts.times, start_seconds=start, end_seconds=end)
    with manifest.open(row, channels=1) as source:
        return source.planes(halves[1::2])


def _grey(planes: Planes, facts: Facts, *, dtype: PixelType | None = None) -> NDArray[Any]:
    array = planes_to_array(planes, channels=1, height=facts.height, width=facts.width, dtype=dtype)
    return np.asarray(array[..., 0])


def fingerprint(frames: NDArray[Any]) -> NDArray[np.int8]:
    """Return what the pictures of (count, height, width) show, int8 (PRINT,); all 0 where they show nothing.

    >>> bool(fingerprint(np.full((5, 40, 40), 16, np.uint8)).any())
    False
    """
    small = np.stack([_resized(frame.astype(np.float32), _SMALL) for frame in frames])
    fine = np.stack([_resized(frame - cv2.GaussianBlur(frame, (0, 0), _BLUR), _SIDE) for frame in small])
    fine -= fine.mean(axis=(1, 2), keepdims=True)
    full = 255.0 if frames.dtype == np.uint8 else float(np.ptp(small))  # 12 bits in 16 fill a small part of the scale
    rounding = 1e-4 * float(np.abs(small).max())
    if np.sqrt((fine**2).mean()) <= max(_FLAT / 255 * full, rounding):
        return np.zeros(PRINT, np.int8)
    mean = fine.mean(axis=0)
    fine = mean + _MOTION * (fine - mean)
    return np.asarray(np.rint(fine * (127 / np.abs(fine).max())), np.int8).ravel()


def _resized(frame: NDArray[Any], side: int) -> NDArray[Any]:
    return cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA)


def _in_parallel(pool: ThreadPoolExecutor, work: Callable[[int], None], count: int) -> Iterator[int]:
    for start in range(0, count, _AT_ONCE):
        rows = range(start, min(start + _AT_ONCE, count))
        for row, _ in zip(rows, pool.map(work, rows), strict=True):
            yield row


def _look(manifest: Manifest, row: int, looks: Looks, clip: Clip | None, frame: Frame | None) -> None:
    """Fill in what one row shows."""
    facts = manifest.facts(row)
    if not _is_as_scanned(manifest, row, looks) or facts is None:
        return
    start, end = manifest.window(row)
    looks.seconds[row] = _duration(facts.times, start, end)
    if clip is not None and clip.rate_hz is not None and np.isnan(looks.seconds[row]):
        looks.timeless[row] = ""
    elif clip is not None:
        try:
            clip.select(facts.times, start_seconds=start, end_seconds=end)
        except ClipError as error:
            looks.short[row] = str(error).split(";")[0]
    try:
        planes = _read_planes(manifest, row, facts)
        frames = _grey(planes, facts)
    except (SourceError, ClipError, OSError) as error:
        looks.unread[row] = without_path(str(error), manifest.path_of(row))
        return
    _look_at_values(planes, frames, facts, row, looks, frame)
    if row in looks.not_finite:  # said in a finding; what is left tells which video it is
        frames = np.nan_to_num(frames, posinf=0.0, neginf=0.0)
    looks.prints[row] = fingerprint(frames)
    scale = 257.0 if frames.dtype == np.uint16 else 1.0
    looks.brightness[row] = frames.mean(dtype=np.float64) / scale
    looks.contrast[row] = frames.std(dtype=np.float64) / scale


def _look_at_values(
    planes: Planes, grey: NDArray[Any], facts: Facts, row: int, looks: Looks, frame: Frame | None
) -> None:
    """Note what becomes of a row's numbers when they are fed: levels, what is clipped, what is no number."""
    dtype: PixelType = "uint8" if frame is None else frame.dtype
    colour = with_window(planes.colour, None if frame is None else frame.window)
    if colour.open_scale:
        samples = np.stack([each[0] for each in planes.frames])
        if samples.dtype.kind == "f":
            finite = np.isfinite(samples)
            if wrong := finite.size - np.count_nonzero(finite):
                looks.not_finite[row] = f"{wrong:,} of {finite.size:,} pixels are NaN or infinite"
            samples = samples[finite]
        if colour.window is not None and not colour.window_assumed and samples.size:
            low, high = sorted(colour.window)
            share = float(np.mean((samples < low) | (samples > high)))
            if share > _MUCH_CLIPPED:
                clipped = looks.clipped_by_file if colour == planes.colour else looks.clipped
                clipped[row] = f"{share:.1%} of the pixels lie outside {low:g} to {high:g}"
    if dtype == "float32" or lacks_window(colour, dtype):
        return
    as_read = grey.dtype == dtype and colour == planes.colour
    fed = grey if as_read else _grey(planes._replace(colour=colour), facts, dtype=dtype)
    counts = PixelLevels(fed[..., np.newaxis]).counts().sum(axis=0)
    levels = np.count_nonzero(counts.reshape(_LEVELS, -1).any(axis=1))
    if levels < _LEVELS / 10:
        few = looks.few_levels if colour.open_scale or dtype == "uint16" else looks.few_stored
        few[row] = f"{levels} of {_LEVELS} levels"


def _is_as_scanned(manifest: Manifest, row: int, looks: Looks) -> bool:
    """Note the size of a row's files, and what changed since the scan."""
    if manifest.rows.arrays is not None:
        return True
    try:
        looks.sizes[row] = state_of(manifest.rows.files(row)).size_bytes or 0
    except OSError as error:
        looks.missing[row] = error.strerror or type(error).__name__
        return False
    if change := manifest.rows.change(row):
        looks.changed[row] = change
        return False
    return True


def _duration(times: Times, start: float | None, end: float | None) -> float:
    if times.listed is not None:
        first, last = float(times.listed[0]), float(times.listed[-1])
    else:
        first, last = times.first_seconds, times.first_seconds + times.step_seconds * (times.count - 1)
    low, high = max(first, first if start is None else start), min(last, last if end is None else end)
    return max(high - low, 0.0) if not np.isnan(last) else float("nan")


def without_path(text: str, path: Path) -> str:
    """Return an error's text without the path that it begins with: whoever shows it names the row his own way.

    >>> without_path("d/a.mp4: breaks after 3 frames", Path("d/a.mp4"))
    'breaks after 3 frames'
    """
    return text.replace(f"{path}: ", "").replace(str(path), "the file")
