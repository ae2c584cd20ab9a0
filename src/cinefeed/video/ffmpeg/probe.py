"""Probing of encoded video: the file is opened once, and its packets are counted or its frames decoded."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, Literal

import av
import numpy as np
from av.container import InputContainer
from av.stream import Discard, Disposition
from numpy.typing import NDArray

from cinefeed.core.errors import SourceError
from cinefeed.video.embedded import EmbeddedVideo, PackedVideo, VideoPath
from cinefeed.video.ffmpeg.boxes import check_sample_tables
from cinefeed.video.ffmpeg.containers import DEMUXERS
from cinefeed.video.ffmpeg.damage import DamageLog
from cinefeed.video.ffmpeg.frame_numbers import PictureNumbers
from cinefeed.video.ffmpeg.messages import capture_errors, reports_substitution
from cinefeed.video.ffmpeg.packets import Seen, makes_stamps_up, packets_of, pass_over_packets, within
from cinefeed.video.ffmpeg.pixel_formats import plane_layout
from cinefeed.video.ffmpeg.second_look import Noise, changed_frames, frame_digest, needs_second_look
from cinefeed.video.ffmpeg.seek_check import SeekCheck
from cinefeed.video.limits import Deadline, ReadLimits
from cinefeed.video.metadata import VideoMetadata
from cinefeed.video.orientation import orientation, shown_size, square_or
from cinefeed.video.read_options import DEFAULT_READ_OPTIONS, ReadOptions
from cinefeed.video.timestamps import FrameTimes, Timestamps

Verify = Literal["decode", "packets"]

# FFmpeg decodes up to 20 frames of H.264 when it opens a file, to find what the metadata already contains. Without it
# opening a `pocus` file takes 0.4 ms in place of 2.3.
_NO_PROBING = {"analyzeduration": "1", "probesize": "32", "fpsprobesize": "0"}
# A play list must neither fetch anything nor present another file of this machine as its own.
_LOCAL = {"protocol_whitelist": "file", "format_whitelist": ",".join(DEMUXERS)}
_PACKED = _LOCAL | {"protocol_whitelist": "subfile,file"}  # subfile: a part of one file of this machine
_PIXEL_BYTES = 4  # assumed size before a frame is decoded: decoders keep up to 17 frames

# Decoders that drop undecodable frames without marking any, unless they are set to raise errors. With that setting
# other decoders refuse files that can be played.
_SILENT = frozenset({"hevc"})

_STAMPED_CONTAINERS = frozenset({"mp4", "mov", "m4a", "3gp", "3g2", "mj2"})
_STAMPED_CODECS = frozenset({"vp8", "vp9", "av1", "libdav1d"})


def states_its_stamps(metadata: VideoMetadata) -> bool:
    """Return whether the container states the timestamp of each packet, so that it does not depend on how it is opened.

    Only such files may be opened without probing. For other files FFmpeg derives timestamps from probing: without it,
    packets of an MPEG program stream that have no timestamp get those of their neighbours. Matroska can store AVI's
    decoding times only, but not for the codecs of WebM; for FFV1, which never reorders frames, they are the same.
    """
    return (
        metadata.container in _STAMPED_CONTAINERS
        or (metadata.container == "webm" and metadata.codec in _STAMPED_CODECS)
        or (metadata.container in ("matroska", "webm") and metadata.codec == "ffv1")
    )


def open_container(
    path: VideoPath, *, container: str = "", probe: bool = True, limits: ReadLimits | None = None
) -> InputContainer:
    """Open a video file; `container` names its format if that is already known, whatever the file is called.

    `probe=False` skips FFmpeg's analysis of the streams; use it only if `states_its_stamps`. With `limits` the decoder
    allocates no memory for frames far beyond them. Raises SourceError if the file is missing, a folder, empty,
    unreadable, or of a format that is not in `DEMUXERS`.
    """
    if not probe:
        # The option applies to the probing decoder; the decoder that reads frames has its own.
        with suppress(av.FFmpegError, OSError, ValueError):  # the file may have changed: probe it
            return _open(
                path,
                format=container or None,
                container_options=_options(path) | _NO_PROBING,
                options={"skip_frame": "all"},
            )
    options = None if limits is None else _most_pixels(limits)
    try:
        return _open(path, format=container or None, container_options=_options(path), options=options)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise SourceError(_why_not(path, error)) from error


def _open(path: VideoPath, **options: Any) -> InputContainer:
    file: Any = f"file:{path}"
    if isinstance(path, PackedVideo):
        file = os.fsdecode(path.url)
    elif isinstance(path, EmbeddedVideo):
        file = path.reader()
    container: InputContainer = av.open(file, **options)
    return container


def _options(path: VideoPath) -> dict[str, str]:
    return _PACKED if isinstance(path, PackedVideo) else _LOCAL


def _most_pixels(limits: ReadLimits) -> dict[str, str]:
    """Return decoder options that refuse larger frames, since FFmpeg decodes while it opens a file.

    FFmpeg's default allows 134 million pixels, four times 8K; the bytes per pixel are known after the first frame.
    """
    return {"max_pixels": str(max(limits.max_frame_bytes // _PIXEL_BYTES, 1))}


def _why_not(path: VideoPath, error: Exception) -> str:
    reason = getattr(error, "strerror", None) or str(error)
    if isinstance(path, EmbeddedVideo):
        return f"{path}: holds an encoded video that FFmpeg cannot open ({reason}); it may be cut off or damaged"
    if path.is_dir():
        return f"{path}: is a folder, not a video file"
    if not path.exists():
        return f"{path}: there is no such file; were the videos moved since the manifest was written?"
    try:
        with path.open("rb") as file:
            if not file.read(1):
                return f"{path}: the file is empty (0 bytes)"
    except OSError as refused:
        return f"{path}: cannot be read ({refused.strerror})"
    return (
        f"{path}: FFmpeg cannot open this file as video ({reason}); it may be cut off, encrypted or of another kind, "
        f"such as sound, or a play list: formats that read other files are refused"
    )


def video_stream(container: InputContainer, *, path: VideoPath, number: int | None = None) -> av.VideoStream:
    """Return a video stream, set to one decoder thread because clips are read in parallel.

    `number` is its index among the video streams; None selects the first that is not a cover picture. Raises
    SourceError if there is no such stream.
    """
    streams = container.streams.video
    decodable = [stream for stream in streams if stream.codec_context is not None]
    candidates = (
        [stream for stream in decodable if not stream.disposition & Disposition.attached_pic]
        if number is None
        else [stream for stream in streams[number : number + 1] if stream in decodable]
    )
    if candidates:
        candidates[0].codec_context.thread_type = "NONE"
        candidates[0].codec_context.thread_count = 1
        return candidates[0]
    if not decodable or number is None:
        kinds = " and ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise SourceError(f"{path}: holds no video that can be decoded, only {kinds}")
    choices = ", ".join(f"{streams.index(each)} ({each.name} {each.width} x {each.height})" for each in decodable)
    raise SourceError(f"{path}: video stream {number} was asked for, these can be decoded: {choices}")


def open_stream(
    path: VideoPath,
    *,
    number: int | None = None,
    container: str = "",
    probe: bool = True,
    limits: ReadLimits | None = None,
) -> tuple[InputContainer, av.VideoStream]:
    """Open a file to read one of its video streams, in the same way for a scan and for a feed.

    Raises SourceError as `open_container` and `video_stream` do.
    """
    file = open_container(path, container=container, probe=probe, limits=limits)
    try:
        stream = video_stream(file, path=path, number=number)
    except SourceError:
        file.close()
        raise
    for other in file.streams:
        if other is not stream:
            other.discard = Discard.all
    return file, stream


@contextmanager
def open_pass(
    path: VideoPath, *, number: int | None = None, limits: ReadLimits
) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    """Open a file for one pass over one of its video streams, and close it at the end."""
    container, stream = open_stream(path, number=number, limits=limits)
    if not stream.width * stream.height:  # a decoder that refuses a frame does not report its size
        name = container.format.name.split(",")[0]
        container.close()  # an embedded video has one reader
        limits.check_frame(_stated_pixels(path, number, name, limits) * _PIXEL_BYTES, where=path)
        container, stream = open_stream(path, number=number, limits=limits)
    with container:
        limits.check_frame(stream.width * stream.height * _PIXEL_BYTES, where=path)
        stream.codec_context.options = _most_pixels(limits)
        yield container, stream


def _stated_pixels(path: VideoPath, number: int | None, container: str, limits: ReadLimits) -> int:
    """Return the pixels of a frame according to the header of a file, 0 if unknown."""
    try:
        file, stream = open_stream(path, number=number, container=container, probe=False, limits=limits)
    except SourceError:
        return 0
    with file:
        return stream.width * stream.height


def probe_encoded(
    path: VideoPath, *, verify: Verify = "decode", part: str | None = None, reading: ReadOptions = DEFAULT_READ_OPTIONS
) -> VideoMetadata:
    """Return the metadata of one stream (`reading.stream`) of an encoded video; see `cinefeed.video.registry.probe`.

    Only the frames before the first encrypted frame, and before a change of frame size, can be read. `damaged` has the
    frames that FFmpeg marks as corrupt and those that may refer to them; it is filled only if all frames are decoded.
    """
    refuse_part(path, part)
    check_sample_tables(path, reading.limits)
    deadline = reading.limits.deadline(path)
    if verify == "packets" and reading.on_damage == "raise":  # concealing needs the damaged frames
        with open_pass(path, number=reading.stream, limits=reading.limits) as (container, stream):
            seek_check = SeekCheck(container, stream)
            result = pass_over_packets(container, stream, deadline=deadline, visit=seek_check.add)
            if result is not None and not seek_check.stamps_change(
                _key_stamps(result.stamps, result.key_flags), deadline
            ):
                return _metadata(path, container, stream, result)
    with open_pass(path, number=reading.stream, limits=reading.limits) as (container, stream):
        with capture_errors():
            looks_twice = needs_second_look(container, stream)
            result, has_messages = _pass_over_frames(container, stream, deadline, looks_twice=looks_twice)
        metadata = _metadata(path, container, stream, result)
    if has_messages and not looks_twice:
        with open_pass(path, number=reading.stream, limits=reading.limits) as (container, stream), capture_errors():
            result, _ = _pass_over_frames(container, stream, deadline, looks_twice=True)
            metadata = _metadata(path, container, stream, result)
    return replace(metadata, conceals_damage=reading.on_damage == "conceal" and metadata.damaged.size > 0)


def refuse_part(path: VideoPath, part: str | None) -> None:
    """Raise SourceError if a part of an encoded video is requested: it has no parts."""
    if part is not None:
        raise SourceError(
            f"{path}: part {part!r} was asked for, an encoded video has none; choose one of several video streams "
            "with ReadOptions(stream=...)"
        )


def _pass_over_frames(
    container: InputContainer, stream: av.VideoStream, deadline: Deadline, *, looks_twice: bool
) -> tuple[Seen, bool]:
    """Decode a file, and once more from each key frame if `looks_twice`; return whether the decoder logged errors."""
    log, digests, has_messages = DamageLog(stream.codec_context.name), list[int](), False
    noise = Noise(stream)
    if strict := stream.codec_context.name in _SILENT:
        stream.codec_context.options = {**stream.codec_context.options, "err_detect": "explode"}
    seek_check = SeekCheck(container, stream)
    numbers = PictureNumbers(stream) if stream.codec_context.name == "h264" else None
    flags: list[bool] = []
    presented_of: dict[int | None, int | None] = {}
    first, reason, key_stamp = None, None, None
    try:
        for packet in packets_of(container, stream, presentation_of=presented_of):
            if packet.has_sidedata("encryption_info"):
                reason = "it is encrypted, and cinefeed has no keys; decrypt it first"
                break
            log.send(packet.pts)
            seek_check.add(packet)
            if packet.is_keyframe and key_stamp is None:
                key_stamp = packet.pts
            if numbers is not None and packet.size and numbers.follows_gap(packet):
                log.mark_gap()
            try:
                with av.logging.Capture() as messages:
                    frames = packet.decode()
                has_messages = has_messages or bool(messages)
                if reports_substitution(messages):
                    log.mark_stamp(packet.pts)
            except av.FFmpegError:
                if first is not None or not strict or (key_stamp is not None and (packet.pts or 0) >= key_stamp):
                    raise
                frames = []  # the file begins in mid-GOP: before its first key frame, or displayed before it
            for frame in frames:
                first = first or within(frame, deadline)
                if (frame.height, frame.width) != (first.height, first.width):
                    # Scaling it to the size of the first frame would return pixels that are not in the file.
                    reason = f"the next is {frame.width} x {frame.height}, the first {first.width} x {first.height}"
                    break
                log.take(frame)
                flags.append(bool(frame.key_frame))
                if looks_twice:
                    digests.append(frame_digest(frame))
                    noise.keep(frame)
            if reason is not None:
                break
            deadline.check_frames(len(log.stamps))
    except (av.FFmpegError, OSError, IndexError) as failure:  # PyAV raises IndexError if a stream appears later
        reason = str(getattr(failure, "strerror", None) or failure)
    stamps = log.stamps
    if seek_check.stamps_change(_key_stamps(stamps, flags), deadline):
        stamps, presented_of = [None] * len(stamps), {}  # frames are counted
    elif looks_twice:
        log.mark(
            changed_frames(
                container,
                stream,
                stamps=stamps,
                key_flags=flags,
                digests=digests,
                noise=noise,
                deadline=deadline,
            )
        )
    total = f" of {stream.frames}" if stream.frames else ""
    error = reason and f"breaks after {len(stamps)}{total} frames: {reason}"
    if error is None and (left_out := log.count_left_out()):
        error = f"lacks pictures: a reference picture is missing, and FFmpeg leaves out {left_out} that follow it"
    presented = [presented_of.get(stamp) for stamp in stamps] if presented_of else None
    return Seen(stamps, flags, first, error, presented, log.ranges()), has_messages


def _key_stamps(stamps: Sequence[int | None], key_flags: Sequence[bool]) -> list[int]:
    return [stamp for stamp, is_key in zip(stamps, key_flags, strict=True) if is_key and stamp is not None]


def _metadata(path: VideoPath, container: InputContainer, stream: av.VideoStream, result: Seen) -> VideoMetadata:
    frame = result.first
    if frame is None:
        reason = (result.error or "it holds none").removeprefix("breaks after ")
        raise SourceError(f"{path}: no frame can be decoded ({reason})")
    layout = plane_layout(frame.format.name)
    rotation, mirrored = orientation(frame)
    aspect = square_or(stream.sample_aspect_ratio)
    height, width = shown_size(frame.height, frame.width, aspect=aspect, rotation=rotation)
    rate = stream.average_rate or stream.guessed_rate
    rate_hz = float(rate) if rate else float("nan")
    stamps = [None] * len(result.stamps) if makes_stamps_up(container) else result.stamps
    start = (container.start_time or 0) / av.time_base
    ticks, times = _times(stamps, stream, rate_hz, start_seconds=start)
    if ticks is not None and result.presentation_stamps is not None:
        presented_stamps = sorted(result.presentation_stamps, key=lambda stamp: stamp or 0)
        presented, shown_times = _times(presented_stamps, stream, rate_hz, start_seconds=start)
        times = times if presented is None else shown_times
    return VideoMetadata(
        height=height,
        width=width,
        channels=layout.channels,
        bits=layout.bits,
        times=times,
        rate_hz=rate_hz,
        container=_container_name(container.format.name, path),
        codec=stream.codec_context.name,
        pixel_format=frame.format.name,
        rotation=rotation,
        header_frames=max(stream.frames, 0),
        ticks=ticks,
        start_time_seconds=0.0 if ticks is None else start,
        key_frames=np.flatnonzero(np.array(result.key_flags, np.bool_)).astype(np.int32),
        error=result.error,
        damaged=result.damaged,
        mirrored=mirrored,
        aspect=aspect,
        stream=container.streams.video.index(stream),
    )


def _times(
    stamps: Sequence[int | None], stream: av.VideoStream, rate_hz: float, *, start_seconds: float
) -> tuple[Timestamps | None, FrameTimes]:
    """Return timestamps and times; no timestamps if some are missing or repeated, so that frames must be counted."""
    valid_stamps: NDArray[np.int64] = np.array([stamp for stamp in stamps if stamp is not None], np.int64)
    base = stream.time_base
    if base is None or len(valid_stamps) < len(stamps) or len(np.unique(valid_stamps)) < len(valid_stamps):
        return None, FrameTimes(0.0, 1 / rate_hz, len(stamps))
    ticks = Timestamps.of(valid_stamps, base=(base.numerator, base.denominator))
    return ticks, ticks.times(start_seconds=start_seconds)


def _container_name(names: str, path: VideoPath) -> str:
    """Return one of FFmpeg's names for the format, the one equal to the suffix if there is one.

    >>> from pathlib import Path
    >>> _container_name("mov,mp4,m4a,3gp,3g2,mj2", Path("a.mp4")), _container_name("mov,mp4,m4a,3gp,3g2,mj2", Path("a"))
    ('mp4', 'mov')
    """
    format_names = names.split(",")
    suffix = path.suffix.lower().removeprefix(".")
    return suffix if suffix in format_names else format_names[0]
