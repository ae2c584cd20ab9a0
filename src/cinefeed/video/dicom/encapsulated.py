"""Encoded video in DICOM files (MPEG-2, H.264, HEVC; endoscopy, ultrasound), read through FFmpeg, exact to the frame.

The video is read in place, from one fragment or several. Metadata of patient, pixels and regions come from the header,
as for other DICOM files; of a stereo video the first view is read.
"""

import io
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from cinefeed.core.errors import EncapsulatedVideoError, SourceError
from cinefeed.video.clips import PixelType
from cinefeed.video.dicom.fragments import fragments_of
from cinefeed.video.dicom.header import Header, read_header, scopes_of
from cinefeed.video.dicom.metadata import METADATA_COLUMNS, header_tags, regions_of, spacing_of, times_of
from cinefeed.video.dicom.source import probe_dicom
from cinefeed.video.embedded import EmbeddedVideo
from cinefeed.video.ffmpeg.probe import Verify, probe_encoded
from cinefeed.video.ffmpeg.source import EncodedSource
from cinefeed.video.limits import DEFAULT_LIMITS, ReadLimits, require_regular
from cinefeed.video.metadata import VideoMetadata
from cinefeed.video.read_options import DEFAULT_READ_OPTIONS, ReadOptions

_WITHIN = "dicom/"  # prefix of the container name in the metadata of such files


def probe_dicom_file(
    path: Path,
    *,
    part: str | None = None,
    files: Sequence[str] = (),
    verify: Verify = "decode",
    reading: ReadOptions = DEFAULT_READ_OPTIONS,
) -> VideoMetadata:
    """Return the metadata of DICOM images, as `probe_dicom` does, or of the encoded video in a DICOM file.

    `container` is then "dicom/" followed by that of the video. Times are those of the video, or those of the header if
    the video is a bare stream without times. Raises SourceError if there is neither.
    """
    try:
        return probe_dicom(path, part=part, files=files, verify=verify, reading=reading)
    except EncapsulatedVideoError:
        if part is not None or files:
            raise
    header, video, is_cut = _locate(Path(path), METADATA_COLUMNS, reading.limits)
    with closing(video):
        metadata = probe_encoded(
            video, verify=verify, reading=ReadOptions(limits=reading.limits, on_damage=reading.on_damage)
        )
    count, promised = metadata.times.count, max(header.integer("NumberOfFrames"), 0)
    scopes = scopes_of(header)
    times = (
        times_of([scopes_of(header, number) for number in range(count)]) if metadata.ticks is None else metadata.times
    )
    if times.step_seconds > 0 and times is not metadata.times:
        metadata = replace(metadata, times=times, rate_hz=1 / times.step_seconds)
    of_all = f" of {promised}" if promised else ""
    return replace(
        metadata,
        container=_WITHIN + metadata.container,
        header_frames=promised or metadata.header_frames,
        error=metadata.error or (f"breaks after {count}{of_all} frames: the file is cut off" if is_cut else None),
        spacing_mm=spacing_of(scopes),
        regions=regions_of(scopes, rows=metadata.height, columns=metadata.width),
        tags=header_tags(scopes),
    )


def is_dicom_video(metadata: VideoMetadata) -> bool:
    """Return whether metadata describe an encoded video in a DICOM file."""
    return metadata.container.startswith(_WITHIN)


def open_dicom_video(
    path: Path,
    *,
    channels: int | None = None,
    part: str | None = None,
    metadata: VideoMetadata,
    dtype: PixelType | None = None,
) -> EncodedSource:
    """Open the video in a DICOM file. Raises SourceError if there is none."""
    _, video, _ = _locate(path, [], DEFAULT_LIMITS)
    return EncodedSource(video, channels=channels, part=part, metadata=metadata, dtype=dtype)


def _locate(path: Path, keywords: Sequence[str], limits: ReadLimits) -> tuple[Header, EmbeddedVideo, bool]:
    """Return the header of a file, the position of its video, and whether the video is cut off."""
    require_regular(path)
    try:
        file: Any = path.open("rb")
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error})") from error
    with closing(file):
        header, file = read_header(file, path=path, keywords=["NumberOfFrames", *keywords], limits=limits)
        if header.pixels is None:
            raise SourceError(f"{path}: is a DICOM file without a video")
        pieces = fragments_of(file, header)
        size = file.seek(0, io.SEEK_END)
    if not pieces:
        raise SourceError(f"{path}: has no fragment of the video in its header; the file is cut off")
    return header, EmbeddedVideo(path, pieces), sum(pieces[-1]) > size
