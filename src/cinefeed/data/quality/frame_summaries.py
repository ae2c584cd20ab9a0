"""Summaries of a few frames of every video, and checks that its file is unchanged and long enough.

The frames of a video become a fingerprint that hardly changes if the video is re-encoded, resized or brightened:

5 evenly spaced frames -> 32 x 32 each -> minus their own blur -> 12 x 12 -> differences from the mean frame doubled
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cinefeed.core.errors import ClipError, SourceError
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.video.clips import Clip, Frame, PixelType, why_too_short
from cinefeed.video.color import lacks_window, with_window
from cinefeed.video.metadata import VideoMetadata
from cinefeed.video.pixel_levels import PixelLevels
from cinefeed.video.planes import Planes, planes_to_array
from cinefeed.video.timestamps import FrameTimes

FRAMES = 5
_SMALL, _SIDE = 32, 12
PRINT = FRAMES * _SIDE * _SIDE
# Blur and factor were selected on `pocus` and `lips`, from 2 to 6 pixels and factors 1 and 2: these separate copies
# that were re-encoded, resized or cropped by 2 % per side (at most 0.128 and 0.073) best from different videos (0.18
# for the nearest mouths of one speaker). Without subtracting the blur, all ultrasound sectors look alike.
_BLUR, _MOTION = 4.0, 2.0
_FLAT = 1.0  # grey levels of 255; the darkest clip of `pocus` has 9, black and constant frames have 0
_LEVELS = 256  # levels that are counted; clips with less than a tenth of them have lost their contrast
_MUCH_CLIPPED = 0.01  # share of the pixels: as many as a window of the 0.5th and the 99.5th percentile clips
_AT_ONCE = 4096  # rows that are submitted to the threads at a time


@dataclass(frozen=True, kw_only=True)
class FrameSummaries:
    """Summaries of all rows. Arrays have one value per row, dicts map row indices to remarks."""

    prints: NDArray[np.int8]  # (rows, PRINT), all 0 if the frames are blank or were not read
    brightness: NDArray[np.float64]  # mean of the frames, 0 to 255; NaN if none was read
    contrast: NDArray[np.float64]  # standard deviation of the frames
    seconds: NDArray[np.float64]  # from the first to the last frame of the row; NaN without a rate
    sizes: NDArray[np.int64]  # bytes now, -1 if unknown
    missing_files: dict[int, str] = field(default_factory=dict)  # why the file cannot be found
    changed_files: dict[int, str] = field(default_factory=dict)  # how the file differs from the scanned one
    unreadable_frames: dict[int, str] = field(default_factory=dict)  # why probed frames cannot be read
    short_videos: dict[int, str] = field(default_factory=dict)  # lengths of the clip and of the video
    videos_without_times: dict[int, str] = field(
        default_factory=dict
    )  # empty text; the clip needs a rate, the video has none
    not_finite: dict[int, str] = field(default_factory=dict)  # number of pixels that are NaN or infinite
    few_levels: dict[int, str] = field(default_factory=dict)  # number of levels after the window or dtype of the feed
    few_stored_levels: dict[int, str] = field(default_factory=dict)  # number of levels of 8-bit frames
    clipped_by_window: dict[int, str] = field(default_factory=dict)  # share of pixels clipped by the window of the feed
    clipped_by_file: dict[int, str] = field(default_factory=dict)  # share of pixels clipped by the window of the file

    @property
    def rows_read(self) -> NDArray[np.bool_]:
        """Whether frames of each row were read, bool (rows,)."""
        return ~np.isnan(self.brightness)


def summarize_frames(
    manifest: Manifest,
    *,
    clip: Clip | None,
    frame: Frame | None = None,
    workers: int,
    progress: Callable[[int, int], None],
) -> FrameSummaries:
    """Open every video once, read a few of its frames on `workers` threads, and return the summaries."""
    count = len(manifest)
    nan_columns = [np.full(count, np.nan) for _ in range(3)]
    summaries = FrameSummaries(
        prints=np.zeros((count, PRINT), np.int8),
        brightness=nan_columns[0],
        contrast=nan_columns[1],
        seconds=nan_columns[2],
        sizes=np.full(count, -1, np.int64),
    )
    pool = ThreadPoolExecutor(workers, thread_name_prefix="cinefeed-check")
    try:
        for row in _in_parallel(pool, lambda row: _summarize_row(manifest, row, summaries, clip, frame), count):
            progress(row + 1, count)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    # Threads finish in any order, and findings list the first rows.
    for remarks in (each for each in vars(summaries).values() if isinstance(each, dict)):
        sorted_remarks = sorted(remarks.items())
        remarks.clear()
        remarks.update(sorted_remarks)
    return summaries


def read_frames(
    manifest: Manifest, row: int, metadata: VideoMetadata | None, *, count: int = FRAMES, view: str = ""
) -> NDArray[Any]:
    """Return a few grey frames, evenly spaced over the stretch of a row, (count, height, width): ..F...F...F..

    `metadata` is None for a row that was not scanned.
    """
    return _to_grey(*_read_planes(manifest, row, metadata, count=count, view=view))


def _read_planes(
    manifest: Manifest, row: int, metadata: VideoMetadata | None, *, count: int = FRAMES, view: str = ""
) -> tuple[Planes, VideoMetadata]:
    start, end = manifest.rows.window(row, view=view)
    with manifest.rows.open(row, channels=1, view=view) as source:
        metadata = metadata or source.metadata
        spread = Clip(frames=2 * count, position="spread")
        halves, _ = spread.select(metadata.times, start_seconds=start, end_seconds=end)
        return source.planes(halves[1::2]), metadata


def _to_grey(planes: Planes, metadata: VideoMetadata, *, dtype: PixelType | None = None) -> NDArray[Any]:
    array = planes_to_array(planes, channels=1, height=metadata.height, width=metadata.width, dtype=dtype)
    return np.asarray(array[..., 0])


def fingerprint(frames: NDArray[Any]) -> NDArray[np.int8]:
    """Return the fingerprint of frames (count, height, width), int8 (PRINT,); all 0 if the frames are blank.

    >>> bool(fingerprint(np.full((5, 40, 40), 16, np.uint8)).any())
    False
    """
    small = np.stack([_resize(frame.astype(np.float32), _SMALL) for frame in frames])
    fine = np.stack([_resize(frame - cv2.GaussianBlur(frame, (0, 0), _BLUR), _SIDE) for frame in small])
    fine -= fine.mean(axis=(1, 2), keepdims=True)
    full = 255.0 if frames.dtype == np.uint8 else float(np.ptp(small))  # 12 bits in 16 fill a small part of the scale
    rounding = 1e-4 * float(np.abs(small).max())
    if np.sqrt((fine**2).mean()) <= max(_FLAT / 255 * full, rounding):
        return np.zeros(PRINT, np.int8)
    mean = fine.mean(axis=0)
    fine = mean + _MOTION * (fine - mean)
    return np.asarray(np.rint(fine * (127 / np.abs(fine).max())), np.int8).ravel()


def _resize(frame: NDArray[Any], side: int) -> NDArray[Any]:
    return cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA)


def _in_parallel(pool: ThreadPoolExecutor, work: Callable[[int], None], count: int) -> Iterator[int]:
    for start in range(0, count, _AT_ONCE):
        rows = range(start, min(start + _AT_ONCE, count))
        for row, _ in zip(rows, pool.map(work, rows), strict=True):
            yield row


def _summarize_row(
    manifest: Manifest, row: int, summaries: FrameSummaries, clip: Clip | None, frame: Frame | None
) -> None:
    """Write the summary of one row into `summaries`."""
    metadata = manifest.metadata(row)
    if not _matches_scan(manifest, row, summaries) or metadata is None:
        return
    start, end = manifest.window(row)
    summaries.seconds[row] = duration(metadata.times, start, end)
    if clip is not None and clip.rate_hz is not None and np.isnan(summaries.seconds[row]):
        summaries.videos_without_times[row] = ""
    elif clip is not None and (why := why_too_short(clip, metadata.times, start, end)):
        summaries.short_videos[row] = why
    try:
        planes, _ = _read_planes(manifest, row, metadata)
        frames = _to_grey(planes, metadata)
    except (SourceError, ClipError, OSError) as error:
        summaries.unreadable_frames[row] = without_path(str(error), manifest.rows.location(row))
        return
    _record_values(planes, frames, metadata, row, summaries, frame)
    if row in summaries.not_finite:  # reported as a finding; the other pixels still give a fingerprint
        frames = np.nan_to_num(frames, posinf=0.0, neginf=0.0)
    summaries.prints[row] = fingerprint(frames)
    scale = 257.0 if frames.dtype == np.uint16 else 1.0
    summaries.brightness[row] = frames.mean(dtype=np.float64) / scale
    summaries.contrast[row] = frames.std(dtype=np.float64) / scale


def _record_values(
    planes: Planes,
    grey: NDArray[Any],
    metadata: VideoMetadata,
    row: int,
    summaries: FrameSummaries,
    frame: Frame | None,
) -> None:
    """Record how a feed would change the values of a row: levels, clipped pixels, pixels that are not finite."""
    dtype: PixelType = "uint8" if frame is None else frame.dtype
    colour = with_window(planes.colour, None if frame is None else frame.window)
    if colour.open_scale:
        samples = np.stack([each[0] for each in planes.frames])
        if samples.dtype.kind == "f":
            finite = np.isfinite(samples)
            if num_not_finite := finite.size - np.count_nonzero(finite):
                summaries.not_finite[row] = f"{num_not_finite:,} of {finite.size:,} pixels are NaN or infinite"
            samples = samples[finite]
        if colour.window is not None and not colour.window_assumed and samples.size:
            low, high = sorted(colour.window)
            share = float(np.mean((samples < low) | (samples > high)))
            if share > _MUCH_CLIPPED:
                remarks = summaries.clipped_by_file if colour == planes.colour else summaries.clipped_by_window
                remarks[row] = f"{share:.1%} of the pixels lie outside {low:g} to {high:g}"
    if dtype == "float32" or lacks_window(colour, dtype):
        return
    as_read = grey.dtype == dtype and colour == planes.colour
    fed_frames = grey if as_read else _to_grey(planes._replace(colour=colour), metadata, dtype=dtype)
    counts = PixelLevels(fed_frames[..., np.newaxis]).counts().sum(axis=0)
    levels = np.count_nonzero(counts.reshape(_LEVELS, -1).any(axis=1))
    if levels < _LEVELS / 10:
        remarks = summaries.few_levels if colour.open_scale or dtype == "uint16" else summaries.few_stored_levels
        remarks[row] = f"{levels} of {_LEVELS} levels"


def _matches_scan(manifest: Manifest, row: int, summaries: FrameSummaries) -> bool:
    """Record the size of a row's files and changes since the scan. Return whether they match the scan."""
    if manifest.rows.arrays is not None:
        return True
    try:
        summaries.sizes[row] = manifest.rows.state(row).size_bytes or 0
    except OSError as error:
        summaries.missing_files[row] = error.strerror or type(error).__name__
        return False
    if change := manifest.rows.change(row):
        summaries.changed_files[row] = change
        return False
    return True


def duration(times: FrameTimes, start: float | None, end: float | None) -> float:
    """Return the seconds from the first to the last frame between two times; NaN without a rate."""
    if times.listed is not None:
        first, last = float(times.listed[0]), float(times.listed[-1])
    else:
        first, last = times.first_seconds, times.first_seconds + times.step_seconds * (times.count - 1)
    low, high = max(first, first if start is None else start), min(last, last if end is None else end)
    return max(high - low, 0.0) if not np.isnan(last) else float("nan")


def without_path(text: str, path: Path | str) -> str:
    """Return the text of an error without the path, because the report names the row itself.

    >>> without_path("d/a.mp4: breaks after 3 frames", Path("d/a.mp4"))
    'breaks after 3 frames'
    """
    return text.replace(f"{path}: ", "").replace(str(path), "the file")
