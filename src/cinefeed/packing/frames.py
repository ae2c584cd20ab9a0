"""Selection of the frames to pack, their size, and the metadata of the packed frames."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cinefeed.feed.clip_pipeline import part_of
from cinefeed.packing.settings import PackSettings
from cinefeed.transforms.compose import Compose
from cinefeed.transforms.fit import fit_inverse
from cinefeed.transforms.resample import resample
from cinefeed.video.clips import Frame, window_of
from cinefeed.video.color import Colour
from cinefeed.video.metadata import NO_DAMAGE, Region, VideoMetadata
from cinefeed.video.planes import Planes
from cinefeed.video.source import Source
from cinefeed.video.timestamps import FrameTimes

_CHUNK_BYTES = 1 << 25  # of decoded frames at once
_TOLERANCE_SECONDS = 1e-6


class PackedFrames(NamedTuple):
    """The frames of a packed video: planes of each frame, their colour, and the metadata except codec and container."""

    frames: Iterator[Sequence[NDArray[Any]]]
    colour: Colour
    metadata: VideoMetadata


def frames_to_pack(
    source: Source,
    settings: PackSettings,
    *,
    window: tuple[float | None, float | None] = (None, None),
    max_frames: int | None = None,
) -> PackedFrames:
    """Return the frames of a source as they are packed. Open it with `source_channels`.

    Without a size and channels, and with a lossless codec, planes stay as stored. Numbers without a fixed scale keep
    their values at another size; all other frames become pixels, 8 bits, or 16 bits if the source has more.

    `window` are the start and end seconds of the row; the first `max_frames` are packed, by default all. Raises
    ClipError if there is no frame within it, DecodeError if a frame cannot be read, and SettingError if 8 bits are
    needed and black and white are not defined.
    """
    metadata = source.metadata
    indices, times, rate_hz = select_frames(metadata, settings, window)
    if max_frames is not None and max_frames < len(indices):
        indices, times = indices[:max_frames], part_of(times, 0, max_frames)
    chunks = _chunks(source, indices)
    first = next(chunks)
    colour = first.colour
    packed = replace(
        metadata,
        times=times,
        rate_hz=rate_hz,
        ticks=None,
        start_time_seconds=0.0,
        key_frames=np.zeros(0, np.int32),
        damaged=NO_DAMAGE,
        conceals_damage=False,
        header_frames=times.count,
        stream=0,
        axes="",
        files=(),
    )
    height, width = target_size(metadata, settings)
    is_lossless = settings.is_lossless
    if is_lossless and not settings.resizes:
        return PackedFrames(_as_stored(first, chunks), colour, packed)
    channels = 1 if metadata.channels == 1 or settings.channels == 1 else 3
    keeps_numbers = is_lossless and (colour.open_scale or colour.window is not None) and colour.model != "yuv"
    keeps_numbers = keeps_numbers and (colour.model == "grey") == (channels == 1)
    dtype: Any = "uint8" if not is_lossless or colour.bits == 8 else "uint16"
    frame = Frame(height=height, width=width, channels=channels, fit=settings.fit, dtype=dtype, window=settings.window)
    if settings.size is None:
        frame = replace(frame, fit="stretch")  # by less than a pixel
    packed = _resized(packed, frame)
    if keeps_numbers:
        colour = replace(colour, rotation=0, mirrored=False, aspect=1.0)
        return PackedFrames(_numbers(first, chunks, frame), colour, packed)
    bits = 8 if dtype == "uint8" else 16
    packed = replace(packed, bits=bits, window=None, window_assumed=False, values=None)
    return PackedFrames(
        _pixels(first, chunks, frame), Colour(model="grey" if channels == 1 else "rgb", bits=bits), packed
    )


def source_channels(settings: PackSettings) -> int | None:
    """Return the channels with which sources are opened: luma only for grey, otherwise as stored."""
    return 1 if settings.channels == 1 else None


def select_frames(
    metadata: VideoMetadata, settings: PackSettings, window: tuple[float | None, float | None]
) -> tuple[NDArray[np.int64], FrameTimes, float]:
    """Return the frames of a video that are packed, their times, and their rate.

    >>> video = VideoMetadata(height=8, width=8, channels=1, bits=8, times=FrameTimes(0.0, 0.02, 10), rate_hz=50.0)
    >>> indices, times, rate_hz = select_frames(video, PackSettings(rate_hz=25), (None, None))
    >>> indices.tolist(), times.step_seconds, rate_hz
    ([0, 2, 4, 6, 8], 0.04, 25.0)
    """
    times, rate_hz = metadata.times, metadata.rate_hz
    if settings.margin_seconds is not None and window != (None, None):
        start, end = (
            None if edge is None else edge + sign * settings.margin_seconds
            for edge, sign in zip(window, (-1, 1), strict=True)
        )
        first, count = window_of(times, start, end)
        times = part_of(times, first, max(count, 1))
    else:
        first = 0
    if settings.rate_hz is not None and times.count > 1:
        seconds = times.seconds()
        length = float(seconds[-1] - seconds[0])
        if settings.rate_hz * length < times.count - 1 - _TOLERANCE_SECONDS:  # else the source has no more
            offsets = np.arange(int(length * settings.rate_hz + _TOLERANCE_SECONDS) + 1) / settings.rate_hz
            places = np.searchsorted(seconds, seconds[0] + offsets + _TOLERANCE_SECONDS, side="right") - 1
            sampled = FrameTimes(float(seconds[0]), 1 / settings.rate_hz, len(places))
            return first + places.astype(np.int64), sampled, float(settings.rate_hz)
    return np.arange(first, first + times.count, dtype=np.int64), times, rate_hz


def target_size(metadata: VideoMetadata, settings: PackSettings) -> tuple[int, int]:
    """Return the height and width of the packed frames of a video: those of the source, or even numbers.

    >>> video = VideoMetadata(height=240, width=321, channels=1, bits=8, times=FrameTimes(0.0, 0.02, 10))
    >>> target_size(video, PackSettings(short_side=128)), target_size(video, PackSettings())
    ((128, 172), (240, 321))
    """
    if settings.size is not None:
        return settings.size
    height, width = metadata.height, metadata.width
    if settings.short_side is None or settings.short_side >= min(height, width):
        return height, width
    scale = settings.short_side / min(height, width)
    return max(2 * round(height * scale / 2), 2), max(2 * round(width * scale / 2), 2)


def _chunks(source: Source, indices: NDArray[np.int64]) -> Iterator[Planes]:
    metadata = source.metadata
    frame_bytes = metadata.height * metadata.width * max(metadata.channels, 1) * max(metadata.bits // 8, 1)
    step = max(_CHUNK_BYTES // frame_bytes, 1)
    for begin in range(0, len(indices), step):
        yield source.planes(indices[begin : begin + step])


def _as_stored(first: Planes, chunks: Iterator[Planes]) -> Iterator[Sequence[NDArray[Any]]]:
    yield from first.frames
    for planes in chunks:
        yield from planes.frames


def _numbers(first: Planes, chunks: Iterator[Planes], frame: Frame) -> Iterator[Sequence[NDArray[Any]]]:
    """Yield frames at another size, in the numbers of the source."""
    for planes in _with(first, chunks):
        samples = [each[0] for each in planes.frames]
        height, width = samples[0].shape[:2]
        inverse = fit_inverse(frame, planes.colour, height, width, None)
        out = np.empty((len(samples), frame.height, frame.width, frame.channels), samples[0].dtype)
        resample(samples, inverse, out=out)
        yield from ((each[..., 0] if frame.channels == 1 else each,) for each in out)


def _pixels(first: Planes, chunks: Iterator[Planes], frame: Frame) -> Iterator[Sequence[NDArray[Any]]]:
    """Yield frames as pixels, upright, by the same code as in a feed."""
    compose = Compose([], frame=frame)
    for planes in _with(first, chunks):
        out = np.empty((len(planes.frames), frame.height, frame.width, frame.channels), frame.dtype)
        compose.render(planes, out, [])
        yield from ((each[..., 0] if frame.channels == 1 else each,) for each in out)


def _with(first: Planes, chunks: Iterator[Planes]) -> Iterator[Planes]:
    yield first
    yield from chunks


def _resized(metadata: VideoMetadata, frame: Frame) -> VideoMetadata:
    spacing = frame.target_spacing(metadata.height, metadata.width, spacing_mm=metadata.spacing_mm)
    return replace(
        metadata,
        height=frame.height,
        width=frame.width,
        channels=frame.channels,
        spacing_mm=spacing,
        rotation=0,
        mirrored=False,
        aspect=1.0,
        regions=_regions(metadata, frame),
    )


def _regions(metadata: VideoMetadata, frame: Frame) -> tuple[Region, ...]:
    """Return the regions of an ultrasound image in the packed frame; those outside it are left out."""
    matrix, regions = frame.matrix(metadata.height, metadata.width), []
    for region in metadata.regions:
        corners = matrix @ np.array([[region.left, region.right], [region.top, region.bottom], [1.0, 1.0]])
        (left, right), (top, bottom) = np.rint(corners[:2]).astype(int).tolist()
        left, right = max(left, 0), min(right, frame.width)
        top, bottom = max(top, 0), min(bottom, frame.height)
        if left < right and top < bottom:
            regions.append(Region(left, top, right, bottom, region.kind))
    return tuple(regions)
