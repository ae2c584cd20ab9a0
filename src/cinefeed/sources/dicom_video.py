"""Encoded video within DICOM (MPEG-2, H.264, HEVC; endoscopy, ultrasound), through FFmpeg, exact to the frame.

The video is read from where it lies in the file, from one fragment or several. What the header says of the patient, the
pixels and the regions holds as for other DICOM files; of a stereo video the first view is read.
"""

import io
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from cinefeed.clips import PixelType
from cinefeed.errors import EncapsulatedVideoError, SourceError
from cinefeed.sources.base import DEFAULT_READING, Facts, Reading
from cinefeed.sources.dicom import probe_dicom
from cinefeed.sources.dicom_facts import FACTS, header_tags, regions_of, spacing_of, times_of
from cinefeed.sources.dicom_fragments import fragments_of
from cinefeed.sources.dicom_header import Header, places_of, read_header
from cinefeed.sources.embedded import EmbeddedVideo
from cinefeed.sources.encoded import EncodedSource
from cinefeed.sources.index import Verify, probe_encoded
from cinefeed.sources.limits import DEFAULT_LIMITS, ReadLimits, require_regular

_WITHIN = "dicom/"  # before the name of the container, in the facts of such files


def probe_dicom_file(
    path: Path,
    *,
    part: str | None = None,
    files: Sequence[str] = (),
    verify: Verify = "decode",
    reading: Reading = DEFAULT_READING,
) -> Facts:
    """Return the facts of DICOM images, as `probe_dicom` does, or of the video that a DICOM file holds.

    `container` is then "dicom/" and that of the video. Times are those of the video, or, of a bare stream of frames,
    which has none, those of the header. Raises SourceError where there is neither.
    """
    try:
        return probe_dicom(path, part=part, files=files, verify=verify, reading=reading)
    except EncapsulatedVideoError:
        if part is not None or files:
            raise
    header, video, is_cut = _located(Path(path), FACTS, reading.limits)
    with closing(video):
        facts = probe_encoded(video, verify=verify, reading=Reading(limits=reading.limits, on_damage=reading.on_damage))
    count, promised = facts.times.count, max(header.integer("NumberOfFrames"), 0)
    places = places_of(header)
    times = times_of([places_of(header, number) for number in range(count)]) if facts.ticks is None else facts.times
    if times.step_seconds > 0 and times is not facts.times:
        facts = replace(facts, times=times, rate_hz=1 / times.step_seconds)
    of_all = f" of {promised}" if promised else ""
    return replace(
        facts,
        container=_WITHIN + facts.container,
        header_frames=promised or facts.header_frames,
        error=facts.error or (f"breaks after {count}{of_all} frames: the file is cut off" if is_cut else None),
        spacing_mm=spacing_of(places),
        regions=regions_of(places, rows=facts.height, columns=facts.width),
        tags=header_tags(places),
    )


def is_dicom_video(facts: Facts) -> bool:
    """Return whether facts are those of a video within DICOM."""
    return facts.container.startswith(_WITHIN)


def open_dicom_video(
    path: Path, *, channels: int | None = None, part: str | None = None, facts: Facts, dtype: PixelType | None = None
) -> EncodedSource:
    """Open the video that a DICOM file holds. Raises SourceError where it holds none."""
    _, video, _ = _located(path, [], DEFAULT_LIMITS)
    return EncodedSource(video, channels=channels, part=part, facts=facts, dtype=dtype)


def _located(path: Path, keywords: Sequence[str], limits: ReadLimits) -> tuple[Header, EmbeddedVideo, bool]:
    """Return the header of a file, where its video lies, and whether it is cut off."""
    require_regular(path)
    try:
        opened: Any = path.open("rb")
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error})") from error
    with closing(opened):
        header, file = read_header(opened, path=path, keywords=["NumberOfFrames", *keywords], limits=limits)
        if header.pixels is None:
            raise SourceError(f"{path}: is DICOM and holds no video")
        pieces = fragments_of(file, header)
        size = file.seek(0, io.SEEK_END)
    if not pieces:
        raise SourceError(f"{path}: holds no fragment of the video that its header names; the file is cut off")
    return header, EmbeddedVideo(path, pieces), sum(pieces[-1]) > size
