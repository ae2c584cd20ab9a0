"""Writing of one packed video: raw arrays, FFV1, JPEG or H.264, or the bytes of the source."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from cinefeed.core.errors import CinefeedError, PackError, SettingError, SourceError
from cinefeed.packing.frames import PackedFrames
from cinefeed.packing.settings import PackSettings
from cinefeed.video.color import Colour
from cinefeed.video.ffmpeg.pixel_formats import plane_shapes
from cinefeed.video.ffmpeg.probe import probe_encoded
from cinefeed.video.ffmpeg.writer import Encoding, encode_planes
from cinefeed.video.metadata import PackedMember, VideoMetadata
from cinefeed.video.packed.frame_codec import CONTAINER, FrameCodec, load_codec, write_planes
from cinefeed.video.readers import is_of_a_reader
from cinefeed.video.timestamps import FrameTimes

SUFFIXES = {"raw": ".npy", "ffv1": ".mkv", "jpeg": ".mp4", "h264": ".mp4"}
_CONTAINERS = {"matroska": ".mkv", "mpegts": ".ts", "mpeg": ".mpg"}  # suffixes that are not the container's name
_NOT_ENCODED = frozenset("npy npz hdf5 nifti dicom images tiff webp memory planes".split())
_NOMINAL_HZ = 25  # of files of videos without a known rate
_YUV_FORMATS = {  # by the factors of height and width between luma and chroma
    (1, 1): "yuv444p",
    (1, 2): "yuv422p",
    (2, 2): "yuv420p",
    (2, 1): "yuv440p",
    (1, 4): "yuv411p",
    (4, 4): "yuv410p",
}


class PackedFile(NamedTuple):
    """A packed video as a file, to be put into a shard, and its metadata; `member` has no offset yet."""

    path: Path
    metadata: VideoMetadata


def write_packed(frames: PackedFrames, folder: Path, name: str, settings: PackSettings) -> PackedFile:
    """Write the frames of a video as a file `name` with the suffix of the codec.

    Raises SettingError if the codec cannot hold these numbers, and OSError.
    """
    path = folder / f"{name}{SUFFIXES.get(settings.codec, '.planes')}"
    metadata = frames.metadata
    rest = iter(frames.frames)
    first = next(rest)
    every_frame: Iterator[Sequence[NDArray[Any]]] = chain([first], rest)
    if (codec := load_codec(settings.codec)) is not None:
        return _write_planes(path, first, every_frame, frames.colour, metadata, codec, settings.codec)
    if settings.codec == "raw":
        return _write_raw(path, first, every_frame, frames.colour, metadata)
    encoding = _encoding(first, frames.colour, metadata, settings)
    if settings.codec != "ffv1":
        every_frame = (_lossy_planes(planes, encoding.pixel_format) for planes in every_frame)
    count = encode_planes(path, every_frame, encoding)
    stored = probe_encoded(path, verify="packets")
    if not count == stored.times.count == metadata.times.count:
        raise SourceError(
            f"{path}: {metadata.times.count} frames were to be packed, {count} were encoded and {stored.times.count} "
            "can be read; choose another codec, and report this"
        )
    is_untimed = bool(np.isnan(metadata.times.step_seconds)) and metadata.times.listed is None
    words = _traits(frames.colour) if settings.codec == "ffv1" else ""
    ticks = stored.ticks
    start = 0.0 if ticks is None or is_untimed else ticks.first * ticks.base[0] / ticks.base[1] - _start(metadata.times)
    packed = replace(
        metadata,
        container=stored.container,
        codec=stored.codec,
        pixel_format=stored.pixel_format,
        header_frames=stored.header_frames,
        ticks=ticks,
        start_time_seconds=start,
        key_frames=stored.key_frames,
        member=PackedMember(0, path.stat().st_size, f"{words} untimed".strip() if is_untimed else words),
    )
    return PackedFile(path, packed)


def copy_packed(source: Path, folder: Path, name: str, metadata: VideoMetadata, *, part: str | None) -> PackedFile:
    """Copy a file into a packed video. Raises SettingError if its format cannot be read from inside a shard."""
    container = metadata.container
    is_encoded = container not in _NOT_ENCODED and not is_of_a_reader(container) and "/" not in container
    is_array = container == "npy" and part is None and _is_plain_array(source, metadata)
    if not is_array and not is_encoded:
        kind = f"a part of {container}" if part is not None else container
        raise SettingError(
            f"{source}: codec='copy' was asked for, but {kind} is not a single file that can be read inside a shard; "
            "choose raw or ffv1, which keep all numbers"
        )
    path = folder / f"{name}{_CONTAINERS.get(container, f'.{container}')}"
    with source.open("rb") as original, path.open("wb") as copy:
        shutil.copyfileobj(original, copy, 1 << 20)
    traits = _traits(Colour(model="grey", open_scale=metadata.bits != 8)) if is_array else ""
    return PackedFile(path, replace(metadata, member=PackedMember(0, path.stat().st_size, traits)))


def _is_plain_array(path: Path, metadata: VideoMetadata) -> bool:
    """Return whether a .npy file holds the frames of its metadata, in memory order, in a dtype that is kept."""
    if metadata.axes or metadata.pixel_format not in ("uint8", "uint16", "float32"):
        return False
    frame_bytes = metadata.height * metadata.width * metadata.channels * np.dtype(metadata.pixel_format).itemsize
    with path.open("rb") as file:
        if np.lib.format.read_magic(file) != (1, 0):
            return False
        _, is_fortran, _ = np.lib.format.read_array_header_1_0(file)
        return not is_fortran and path.stat().st_size == file.tell() + frame_bytes * metadata.times.count


def _write_raw(
    path: Path,
    first: Sequence[NDArray[Any]],
    frames: Iterator[Sequence[NDArray[Any]]],
    colour: Colour,
    metadata: VideoMetadata,
) -> PackedFile:
    """Write frames as one array: pixels, or the planes of each frame one after the other."""
    dtype, count = first[0].dtype.newbyteorder("<"), metadata.times.count
    shape = first[0].shape if len(first) == 1 else (sum(plane.size for plane in first),)
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count, *shape)}
    written = 0
    with path.open("wb") as file:  # no memory map: it is sparse, and raises SIGBUS on a full disk
        np.lib.format.write_array_header_1_0(file, header)
        for planes in frames:
            for plane in planes:
                file.write(np.ascontiguousarray(plane, dtype).data)
            written += 1
    if written != count:
        raise SourceError(f"{path}: {count} frames were to be packed, the source returned {written}; report this")
    return _of_planes(path, first, colour, metadata, container="npy", codec="raw")


def _write_planes(
    path: Path,
    first: Sequence[NDArray[Any]],
    frames: Iterator[Sequence[NDArray[Any]]],
    colour: Colour,
    metadata: VideoMetadata,
    codec: FrameCodec,
    name: str,
) -> PackedFile:
    """Write frames with the codec of a plug-in. Raises PackError if it fails."""
    planes = metadata.times.count * len(first)
    try:
        written = write_planes(path, frames, codec, planes=planes)
    except (CinefeedError, OSError, MemoryError):
        raise
    except Exception as error:
        raise PackError(f"{path}: the codec {name!r} failed: {type(error).__name__}: {error}") from error
    if written != planes:
        raise SourceError(f"{path}: {planes} planes were to be packed, the source returned {written}; report this")
    return _of_planes(path, first, colour, metadata, container=CONTAINER, codec=name)


def _of_planes(
    path: Path,
    first: Sequence[NDArray[Any]],
    colour: Colour,
    metadata: VideoMetadata,
    *,
    container: str,
    codec: str,
) -> PackedFile:
    """Return a file that holds the planes of frames in a format of cinefeed."""
    packed = replace(
        metadata,
        container=container,
        codec=codec,
        pixel_format=_format_name(first, colour) if len(first) > 1 else first[0].dtype.name,
        member=PackedMember(0, path.stat().st_size, _traits(colour)),
    )
    return PackedFile(path, packed)


def _encoding(
    first: Sequence[NDArray[Any]], colour: Colour, metadata: VideoMetadata, settings: PackSettings
) -> Encoding:
    time_base, step = _clock(metadata.times)
    if settings.codec == "ffv1":
        pixel_format = _format_name(first, colour)
        options = {"level": "3", "slicecrc": "0", "context": "0", "coder": "0"}
        is_full = colour.full_range or colour.model == "rgb"
        return Encoding("ffv1", pixel_format, options, time_base, step, is_full, colour.matrix)
    is_grey = first[0].ndim == 2
    if settings.codec == "jpeg":
        quality = {"flags": "+bitexact+qscale", "global_quality": str(118 * settings.quantiser)}  # FF_QP2LAMBDA
        return Encoding("mjpeg", "yuvj420p", quality, time_base, step, True)
    # tune=fastdecode: without CABAC and the deblocking filter, which are a large share of the time of decoding.
    options = {
        "flags": "+bitexact+cgop",
        "preset": "medium",
        "tune": "fastdecode",
        "crf": str(settings.quantiser),
        "sc_threshold": "0",
        "x264-params": "mbtree=0",  # with it 2 % of encodings of one video of 32 x 40 pixels had other bytes
    }
    is_even = not (first[0].shape[0] % 2 or first[0].shape[1] % 2)
    pixel_format = "gray" if is_grey else "yuvj420p" if is_even else "yuvj444p"
    return Encoding("libx264", pixel_format, options, time_base, step, True, gop=settings.gop)


def _lossy_planes(planes: Sequence[NDArray[Any]], pixel_format: str) -> list[NDArray[Any]]:
    """Return pixels as planes of a YUV format: full range, BT.601, chroma centred, neutral for grey."""
    pixels = planes[0]
    if pixel_format == "gray":
        return [pixels]
    shape = plane_shapes(pixel_format, *pixels.shape[:2])[1]
    if pixels.ndim == 2:
        return [pixels, *[np.full(shape, 128, np.uint8)] * 2]
    luma, red, blue = cv2.split(cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2YCrCb))
    if shape == luma.shape:
        return [luma, blue, red]
    odd = [side % 2 for side in luma.shape]
    wide = (cv2.copyMakeBorder(each, 0, odd[0], 0, odd[1], cv2.BORDER_REPLICATE) for each in (blue, red))
    return [luma, *(cv2.resize(each, shape[::-1], interpolation=cv2.INTER_AREA) for each in wide)]


def _format_name(planes: Sequence[NDArray[Any]], colour: Colour) -> str:
    """Return FFmpeg's name of the pixel format that holds these planes without loss. Raises SettingError."""
    first = planes[0]
    if first.dtype not in (np.uint8, np.uint16):
        raise SettingError(
            f"codec='ffv1' holds integers of 8 to 16 bits, and a video holds {first.dtype}; choose codec='raw'"
        )
    is_deep = first.dtype == np.uint16
    if len(planes) == 1 and first.ndim == 3:
        return "gbrp16le" if is_deep else "bgr0"
    if len(planes) == 1:
        return "gray16le" if is_deep else "gray"
    chroma = planes[-1].shape
    down, across = (next(n for n in (1, 2, 4) if -(-a // n) == b) for a, b in zip(first.shape, chroma, strict=True))
    return _YUV_FORMATS[down, across] + (f"{colour.bits}le" if is_deep else "")


def _traits(colour: Colour) -> str:
    words = ["full" if colour.full_range or colour.model == "rgb" else "limited", colour.matrix]
    return " ".join([*words, "open"] if colour.open_scale else words)


def _start(times: FrameTimes) -> float:
    return float(times.first_seconds if times.listed is None else times.listed[0])


def _clock(times: FrameTimes) -> tuple[Fraction, int]:
    """Return the time base of a file, and its ticks per frame, from the (median) step of its times.

    >>> _clock(FrameTimes(0.0, 1001 / 30000, 9)), _clock(FrameTimes(0.0, float("nan"), 9))
    ((Fraction(1001, 30000), 1), (Fraction(1, 25), 1))
    """
    step = times.step_seconds
    if times.listed is not None and times.count > 1:
        step = float(np.median(np.diff(times.listed)))
    if not step > 0:
        return Fraction(1, _NOMINAL_HZ), 1
    return Fraction(step).limit_denominator(1_000_000), 1
