"""What a video file holds: opened once, counted packet by packet or decoded to the end."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, Literal

import av
import numpy as np
from av.container import InputContainer
from av.stream import Discard, Disposition
from numpy.typing import NDArray

from cinefeed.clips import Times
from cinefeed.errors import SourceError
from cinefeed.sources.base import DEFAULT_READING, Facts, Reading, Ticks
from cinefeed.sources.boxes import check_sample_tables
from cinefeed.sources.damage import DamageLog
from cinefeed.sources.display import orientation, shown_size, square_or
from cinefeed.sources.embedded import EmbeddedVideo, VideoPath
from cinefeed.sources.layout import layout_of
from cinefeed.sources.limits import DEMUXERS, Deadline, ReadLimits
from cinefeed.sources.messages import heard_messages, tells_of_made_up
from cinefeed.sources.packets import Seen, makes_stamps_up, packets_of, pass_over_packets, within
from cinefeed.sources.second_look import changed_frames, frame_digest, needs_second_look

Verify = Literal["decode", "packets"]

# FFmpeg decodes up to 20 frames of H.264 while it opens a file, to learn what the facts already say. Skipping that
# took a `pocus` file from 2.3 to 0.4 ms.
_NO_PROBING = {"analyzeduration": "1", "probesize": "32", "fpsprobesize": "0"}
# A play list must neither fetch anything nor show another file of this machine as its own.
_LOCAL = {"protocol_whitelist": "file", "format_whitelist": ",".join(DEMUXERS)}
_PIXEL_BYTES = 4  # that a pixel counts for before one is decoded: decoders keep up to 17 frames

# Decoders that leave out frames which they cannot decode, and mark none, unless they are told to raise errors. Others
# do not need it, and then refuse what can be played.
_SILENT = frozenset({"hevc"})

_STATED = frozenset({"mp4", "mov", "m4a", "3gp", "3g2", "mj2"})
_STATED_CODECS = frozenset({"vp8", "vp9", "av1", "libdav1d"})


def states_its_stamps(facts: Facts) -> bool:
    """Return whether each packet has the same stamp however the file is opened, because the container states it.

    Only such files may be opened without probing. From others FFmpeg works stamps out, from what probing taught it:
    without it, the packets of an MPEG program stream that have no stamp get those of their neighbours. Matroska can
    keep AVI's decoding times alone, but not for the codecs of WebM.
    """
    return facts.container in _STATED or (facts.container == "webm" and facts.codec in _STATED_CODECS)


def open_container(
    path: VideoPath, *, container: str = "", probed: bool = True, limits: ReadLimits | None = None
) -> InputContainer:
    """Open a video file, of a format that is known where `container` names it, whatever the file is called.

    `probed=False` leaves out what FFmpeg would find out about the streams: only where `states_its_stamps`. With
    `limits` no decoder takes memory for frames that are far beyond them. Raises SourceError for whatever is no video
    file: missing, a folder, empty, unreadable, another format, one that is not among `DEMUXERS`.
    """
    if not probed:
        # The option is of the probing decoder; the one that reads frames has its own.
        with suppress(av.FFmpegError, OSError, ValueError):  # the file may have changed: then it is looked at in full
            return _open(
                path,
                format=container or None,
                container_options=_LOCAL | _NO_PROBING,
                options={"skip_frame": "all"},
            )
    options = None if limits is None else _most_pixels(limits)
    try:
        return _open(path, format=container or None, container_options=_LOCAL, options=options)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise SourceError(_why_not(path, error)) from error


def _open(path: VideoPath, **options: Any) -> InputContainer:
    container: InputContainer = av.open(path.reader() if isinstance(path, EmbeddedVideo) else f"file:{path}", **options)
    return container


def _most_pixels(limits: ReadLimits) -> dict[str, str]:
    """Return the options of a decoder that refuses larger frames: FFmpeg decodes while it opens a file.

    The default lets 134 million pixels through, four times 8K; a first frame shows how many bytes they take.
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
        f"{path}: is no video that FFmpeg can open ({reason}); it may be cut off, encrypted or of another kind, such "
        f"as sound, or a play list: formats that read other files are refused"
    )


def video_stream(container: InputContainer, *, path: VideoPath, number: int | None = None) -> av.VideoStream:
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


def open_stream(
    path: VideoPath,
    *,
    number: int | None = None,
    container: str = "",
    probed: bool = True,
    limits: ReadLimits | None = None,
) -> tuple[InputContainer, av.VideoStream]:
    """Open a file to read one of its video streams, in the same way for a scan and for a feed.

    Raises SourceError as `open_container` and `video_stream` do.
    """
    file = open_container(path, container=container, probed=probed, limits=limits)
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
def opened(
    path: VideoPath, *, number: int | None = None, limits: ReadLimits
) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    """Open a file for one pass over one of its video streams, and close it whatever happens."""
    container, stream = open_stream(path, number=number, limits=limits)
    if not stream.width * stream.height:  # a decoder that refuses them forgets how many they are
        name = container.format.name.split(",")[0]
        container.close()  # an embedded video has one reader
        limits.check_frame(_stated_pixels(path, number, name, limits) * _PIXEL_BYTES, where=path)
        container, stream = open_stream(path, number=number, limits=limits)
    with container:
        limits.check_frame(stream.width * stream.height * _PIXEL_BYTES, where=path)
        stream.codec_context.options = _most_pixels(limits)
        yield container, stream


def _stated_pixels(path: VideoPath, number: int | None, container: str, limits: ReadLimits) -> int:
    """Return the pixels of a frame by the header of a file, 0 where it tells nothing of them."""
    try:
        file, stream = open_stream(path, number=number, container=container, probed=False, limits=limits)
    except SourceError:
        return 0
    with file:
        return stream.width * stream.height


def probe_encoded(
    path: VideoPath, *, verify: Verify = "decode", part: str | None = None, reading: Reading = DEFAULT_READING
) -> Facts:
    """Return the facts of an encoded video, of `reading.stream` alone; see `cinefeed.sources.open.probe`.

    Of a file that is encrypted from some frame on, the frames before can be read, and of one whose frames change their
    size on the way those before the change. Frames that FFmpeg marks as corrupt, and those that may refer to them, are
    in `damaged`, if all were decoded.
    """
    refuse_part(path, part)
    check_sample_tables(path, reading.limits)
    deadline = reading.limits.deadline(path)
    if verify == "packets" and reading.on_damage == "raise":  # what is to be concealed must be known
        with opened(path, number=reading.stream, limits=reading.limits) as (container, stream):
            seen = pass_over_packets(container, stream, deadline=deadline)
            if seen is not None:
                return _facts(path, container, stream, seen)
    with opened(path, number=reading.stream, limits=reading.limits) as (container, stream):
        with heard_messages():
            seen = _pass_over_frames(container, stream, deadline)
        facts = _facts(path, container, stream, seen)
    return replace(facts, conceals_damage=reading.on_damage == "conceal" and facts.damaged.size > 0)


def refuse_part(path: VideoPath, part: str | None) -> None:
    """Raise SourceError where a part of an encoded video is asked for: it has none."""
    if part is not None:
        raise SourceError(
            f"{path}: part {part!r} was asked for, an encoded video has none; choose one of several video streams "
            "with Reading(stream=...)"
        )


def _pass_over_frames(container: InputContainer, stream: av.VideoStream, deadline: Deadline) -> Seen:
    log, digests = DamageLog(stream.codec_context.name), list[int]()
    looks_twice = needs_second_look(container, stream)
    if strict := stream.codec_context.name in _SILENT:
        stream.codec_context.options = {**stream.codec_context.options, "err_detect": "explode"}
    flags: list[bool] = []
    presented_of: dict[int | None, int | None] = {}
    first, reason = None, None
    try:
        for packet in packets_of(container, stream, shown=presented_of):
            if packet.has_sidedata("encryption_info"):
                reason = "it is encrypted, and cinefeed has no keys; decrypt it first"
                break
            log.send(packet.pts)
            try:
                with av.logging.Capture() as messages:
                    frames = packet.decode()
                if tells_of_made_up(messages):
                    log.mark_stamp(packet.pts)
            except av.FFmpegError:
                if first is not None or not strict:
                    raise
                frames = []  # it begins in mid-GOP
            for frame in frames:
                first = first or within(frame, deadline)
                if (frame.height, frame.width) != (first.height, first.width):
                    # Scaled to the size of the first it would be a frame that no full decode shows.
                    reason = f"the next is {frame.width} x {frame.height}, the first {first.width} x {first.height}"
                    break
                log.take(frame)
                flags.append(bool(frame.key_frame))
                if looks_twice:
                    digests.append(frame_digest(frame))
            if reason is not None:
                break
            deadline.check_frames(len(log.stamps))
    except (av.FFmpegError, OSError, IndexError) as broken:  # IndexError: PyAV's, where a stream appears on the way
        reason = str(getattr(broken, "strerror", None) or broken)
    stamps = log.stamps
    if looks_twice:
        log.mark(changed_frames(container, stream, stamps=stamps, key_flags=flags, digests=digests, deadline=deadline))
    counted = f" of {stream.frames}" if stream.frames else ""
    error = reason and f"breaks after {len(stamps)}{counted} frames: {reason}"
    presented = [presented_of.get(stamp) for stamp in stamps] if presented_of else None
    return Seen(stamps, flags, first, error, presented, log.ranges())


def _facts(path: VideoPath, container: InputContainer, stream: av.VideoStream, seen: Seen) -> Facts:
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
    stamps = [None] * len(seen.stamps) if makes_stamps_up(container) else seen.stamps
    start = (container.start_time or 0) / av.time_base
    ticks, times = _times(stamps, stream, rate_hz, start_seconds=start)
    if ticks is not None and seen.shown is not None:
        presented_stamps = sorted(seen.shown, key=lambda stamp: stamp or 0)
        presented, shown_times = _times(presented_stamps, stream, rate_hz, start_seconds=start)
        times = times if presented is None else shown_times
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
        start_time_seconds=0.0 if ticks is None else start,
        key_frames=np.flatnonzero(np.array(seen.key_flags, np.bool_)).astype(np.int32),
        error=seen.error,
        damaged=seen.damaged,
        mirrored=mirrored,
        aspect=aspect,
        stream=container.streams.video.index(stream),
    )


def _times(
    stamps: Sequence[int | None], stream: av.VideoStream, rate_hz: float, *, start_seconds: float
) -> tuple[Ticks | None, Times]:
    """Return the stamps and times; no stamps where some are missing or repeated, so that frames must be counted."""
    known: NDArray[np.int64] = np.array([stamp for stamp in stamps if stamp is not None], np.int64)
    base = stream.time_base
    if base is None or len(known) < len(stamps) or len(np.unique(known)) < len(known):
        return None, Times(0.0, 1 / rate_hz, len(stamps))
    ticks = Ticks.of(known, base=(base.numerator, base.denominator))
    return ticks, ticks.times(start_seconds=start_seconds)


def _container_name(names: str, path: VideoPath) -> str:
    """Return one of FFmpeg's names for the format: that of the suffix where it is among them.

    >>> from pathlib import Path
    >>> _container_name("mov,mp4,m4a,3gp,3g2,mj2", Path("a.mp4")), _container_name("mov,mp4,m4a,3gp,3g2,mj2", Path("a"))
    ('mp4', 'mov')
    """
    known = names.split(",")
    suffix = path.suffix.lower().removeprefix(".")
    return suffix if suffix in known else known[0]
