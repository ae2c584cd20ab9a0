"""What a video file holds: opened once, counted packet by packet or decoded to the end."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from numpy.typing import NDArray

from cinefeed.clips import Times
from cinefeed.errors import SourceError
from cinefeed.sources.base import DEFAULT_READING, Facts, Reading, Ticks
from cinefeed.sources.boxes import check_sample_tables
from cinefeed.sources.display import orientation, shown_size, square_or
from cinefeed.sources.layout import layout_of
from cinefeed.sources.limits import DEMUXERS, Deadline, ReadLimits

Verify = Literal["decode", "packets"]

# FFmpeg decodes up to 20 frames of H.264 while it opens a file, to learn what the facts already say. Skipping that
# took a `pocus` file from 2.3 to 0.4 ms; naming the container saves 0.06 ms of a `lips` file's 0.21.
_NO_PROBING = {"analyzeduration": "1", "probesize": "32", "fpsprobesize": "0"}
_NO_STAMPS = 0x80  # AVFMT_NOTIMESTAMPS
# A play list must neither fetch anything nor show another file of this machine as its own.
_LOCAL = {"protocol_whitelist": "file", "format_whitelist": ",".join(DEMUXERS)}


_PIXEL_BYTES = 4  # that a pixel counts for before one is decoded: decoders keep up to 17 frames


class Seen(NamedTuple):
    """What one pass over a file found: a stamp (None where there is none) and a key flag a frame, in output order."""

    stamps: list[int | None]
    key_flags: list[bool]
    first: av.VideoFrame | None
    error: str | None
    in_doubt: bool  # the packets' stamps may not tell the order of the frames


def open_container(
    path: Path, *, container: str = "", known: bool = False, limits: ReadLimits | None = None
) -> InputContainer:
    """Open a video file; `known` leaves out what FFmpeg would find out about its streams.

    With `limits` no decoder takes memory for frames that are far beyond them.

    Raises SourceError for whatever is no video file: missing, a folder, empty, unreadable, another format.
    """
    if known:
        # The option is of the probing decoder; the one that reads frames has its own.
        with suppress(av.FFmpegError, OSError, ValueError):  # the file may have changed: then it is looked at in full
            return av.open(
                f"file:{path}",
                format=container or None,
                container_options=_LOCAL | _NO_PROBING,
                options={"skip_frame": "all"},
            )
    options = None if limits is None else _most_pixels(limits)
    try:
        return av.open(f"file:{path}", container_options=_LOCAL, options=options)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise SourceError(_why_not(path, error)) from error


def _most_pixels(limits: ReadLimits) -> dict[str, str]:
    """Return the options of a decoder that refuses larger frames: FFmpeg decodes while it opens a file.

    The default lets 134 million pixels through, four times 8K; a first frame shows how many bytes they take.
    """
    return {"max_pixels": str(max(limits.max_frame_bytes // _PIXEL_BYTES, 1))}


def _why_not(path: Path, error: Exception) -> str:
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
    reason = getattr(error, "strerror", None) or str(error)
    return (
        f"{path}: is no video that FFmpeg can open ({reason}); it may be cut off, encrypted or of another kind, such "
        f"as sound, or a play list: formats that read other files are refused"
    )


def video_stream(container: InputContainer, *, path: Path, number: int | None = None) -> av.VideoStream:
    """Return a video stream, set to one decoder thread, for clips are read in parallel.

    `number` is its place among the video streams; None takes the first that is no cover picture. Raises SourceError
    where there is none.
    """
    streams = container.streams.video
    able = [stream for stream in streams if stream.codec_context is not None]
    chosen = (
        [stream for stream in able if not stream.disposition & Disposition.attached_pic]
        if number is None
        else [stream for stream in streams[number : number + 1] if stream in able]
    )
    if chosen:
        chosen[0].codec_context.thread_type = "NONE"
        chosen[0].codec_context.thread_count = 1
        return chosen[0]
    if not able or number is None:
        kinds = " and ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise SourceError(f"{path}: holds no video that can be decoded, only {kinds}")
    known = ", ".join(f"{streams.index(each)} ({each.name} {each.width} x {each.height})" for each in able)
    raise SourceError(f"{path}: video stream {number} was asked for, these can be decoded: {known}")


@contextmanager
def opened(
    path: Path, *, number: int | None = None, limits: ReadLimits
) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    """Open a file for one pass over one of its video streams, and close it whatever happens."""
    with open_container(path, limits=limits) as container:
        stream = video_stream(container, path=path, number=number)
        pixels = stream.width * stream.height
        if not pixels:  # a decoder that refuses them forgets how many they are
            with open_container(path, container=container.format.name.split(",")[0], known=True) as unprobed:
                stated = video_stream(unprobed, path=path, number=number)
                pixels = stated.width * stated.height
        limits.check_frame(pixels * _PIXEL_BYTES, where=path)
        stream.codec_context.options = _most_pixels(limits)
        yield container, stream


def probe_encoded(
    path: Path, *, verify: Verify = "decode", part: str | None = None, reading: Reading = DEFAULT_READING
) -> Facts:
    """Return the facts of an encoded video, of `reading.stream` alone; see `cinefeed.sources.open.probe`.

    Of a file that is encrypted from some frame on, the frames before can be read, and of one whose frames change their
    size on the way those before the change.
    """
    refuse_part(path, part)
    check_sample_tables(path, reading.limits)
    deadline = reading.limits.deadline()
    if verify == "packets":
        with opened(path, number=reading.stream, limits=reading.limits) as (container, stream):
            seen = _pass_over_packets(container, stream, path, deadline)
            if not seen.in_doubt and seen.first is not None:
                return _facts(path, container, stream, seen)
    with opened(path, number=reading.stream, limits=reading.limits) as (container, stream):
        return _facts(path, container, stream, _pass_over_frames(container, stream, path, deadline))


def refuse_part(path: Path, part: str | None) -> None:
    """Raise SourceError where a part of an encoded video is asked for: it has none."""
    if part is not None:
        raise SourceError(
            f"{path}: part {part!r} was asked for, an encoded video has none; choose one of several video streams "
            "with Reading(stream=...)"
        )


def _pass_over_frames(container: InputContainer, stream: av.VideoStream, path: Path, deadline: Deadline) -> Seen:
    stamps: list[int | None] = []
    flags: list[bool] = []
    first, reason = None, None
    try:
        for packet in container.demux(stream):
            if packet.has_sidedata("encryption_info"):
                reason = "it is encrypted, and cinefeed has no keys; decrypt it first"
                break
            for frame in packet.decode():
                first = first or _within(frame, path, deadline.limits)
                if (frame.height, frame.width) != (first.height, first.width):
                    # Scaled to the size of the first it would be a frame that no full decode shows.
                    reason = f"the next is {frame.width} x {frame.height}, the first {first.width} x {first.height}"
                    break
                stamps.append(frame.pts)
                flags.append(bool(frame.key_frame))
            if reason is not None:
                break
            _check(len(stamps), path, deadline)
    except (av.FFmpegError, OSError, IndexError) as broken:  # IndexError: PyAV's, where a stream appears on the way
        reason = str(getattr(broken, "strerror", None) or broken)
    counted = f" of {stream.frames}" if stream.frames else ""
    error = reason and f"breaks after {len(stamps)}{counted} frames: {reason}"
    return Seen(stamps, flags, first, error, False)


def _within(frame: av.VideoFrame, path: Path, limits: ReadLimits) -> av.VideoFrame:
    """Return the first frame of a file. Raises SourceError if it is larger than the limits allow."""
    limits.check_frame(sum(plane.buffer_size for plane in frame.planes), where=path)
    return frame


def _check(count: int, path: Path, deadline: Deadline) -> None:
    deadline.limits.check_frames(count, where=path)
    deadline.check(path)


def _pass_over_packets(container: InputContainer, stream: av.VideoStream, path: Path, deadline: Deadline) -> Seen:
    stamps: list[int | None] = []
    flags: list[bool] = []
    first, discarded = None, False
    try:
        for packet in container.demux(stream):
            if packet.has_sidedata("encryption_info"):
                return Seen(stamps, flags, None, None, True)
            if packet.size:
                stamps.append(packet.pts)
                flags.append(packet.is_keyframe)
                discarded |= packet.is_discard
            if first is None:
                first = next(iter(packet.decode()), None)
                if first is not None:
                    _within(first, path, deadline.limits)
            _check(len(stamps), path, deadline)
    except (av.FFmpegError, OSError, IndexError):
        return Seen(stamps, flags, first, None, True)
    known = [stamp for stamp in stamps if stamp is not None]
    reorders = stream.codec_context.reorder_depth > 0
    as_stored = all(a <= b for a, b in pairwise(known))
    # AVI has no presentation stamps, FFmpeg guesses them; others stamp frames that are reordered as they are stored.
    guessed = reorders and (as_stored or container.format.name == "avi")
    doubt = discarded or guessed or len(set(known)) < len(stamps) or _makes_stamps_up(container)
    if doubt:
        return Seen(stamps, flags, first, None, True)
    order = sorted(range(len(known)), key=known.__getitem__)
    return Seen([known[i] for i in order], [flags[i] for i in order], first, None, False)


def _facts(path: Path, container: InputContainer, stream: av.VideoStream, seen: Seen) -> Facts:
    frame = seen.first
    if frame is None:
        reason = (seen.error or "it holds none").removeprefix("breaks after ")
        raise SourceError(f"{path}: no frame can be decoded ({reason})")
    layout = layout_of(frame.format.name)
    rotation, mirrored = orientation(frame)
    aspect = square_or(stream.sample_aspect_ratio)
    height, width = shown_size(frame.height, frame.width, aspect=aspect, rotation=rotation)
    rate = stream.average_rate or stream.guessed_rate
    rate_hz = float(rate) if rate else float("nan")
    stamps = [None] * len(seen.stamps) if _makes_stamps_up(container) else seen.stamps
    ticks, times = _times(stamps, stream, rate_hz)
    return Facts(
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
        key_frames=np.flatnonzero(np.array(seen.key_flags, np.bool_)).astype(np.int32),
        error=seen.error,
        mirrored=mirrored,
        aspect=aspect,
        stream=container.streams.video.index(stream),
    )


def _makes_stamps_up(container: InputContainer) -> bool:
    """Return whether a file is a bare stream of frames, to which FFmpeg gives times, and other ones after a seek."""
    return bool(container.format.flags & _NO_STAMPS)


def _times(stamps: Sequence[int | None], stream: av.VideoStream, rate_hz: float) -> tuple[Ticks | None, Times]:
    """Return the stamps and times; no stamps where some are missing or repeated, so that frames must be counted."""
    known: NDArray[np.int64] = np.array([stamp for stamp in stamps if stamp is not None], np.int64)
    base = stream.time_base
    if base is None or len(known) < len(stamps) or len(np.unique(known)) < len(known):
        return None, Times(0.0, 1 / rate_hz, len(stamps))
    ticks = Ticks.of(known, base=(base.numerator, base.denominator))
    return ticks, ticks.times()


def _container_name(names: str, path: Path) -> str:
    """Return one of FFmpeg's names for the format: that of the suffix where it is among them.

    >>> _container_name("mov,mp4,m4a,3gp,3g2,mj2", Path("a.mp4")), _container_name("mov,mp4,m4a,3gp,3g2,mj2", Path("a"))
    ('mp4', 'mov')
    """
    known = names.split(",")
    suffix = path.suffix.lower().removeprefix(".")
    return suffix if suffix in known else known[0]
