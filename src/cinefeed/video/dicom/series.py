"""Grouping of DICOM files from scanners and archives into samples.

A multi-frame file is one sample, or one per slice plane; single images are grouped by series and plane.
"""

import hashlib
import io
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from cinefeed.core.errors import SettingError, SourceError, did_you_mean
from cinefeed.video.dicom.geometry import GEOMETRY, CineStack, ImageGeometry, geometry_of, stacks_of
from cinefeed.video.dicom.header import GROUPS, Header, frames_of, holds_video, read_header, scopes_of
from cinefeed.video.read_options import ReadOptions
from cinefeed.video.source import DiscoveredSample, Folder

Tags = Mapping[str, str | float | None]

_IDS = {"patient": "PatientID", "study": "StudyInstanceUID", "series": "SeriesInstanceUID"}
_NUMERIC = """
    EchoTime FlipAngle InversionTime MagneticFieldStrength PatientSize PatientWeight RepetitionTime SeriesNumber
    SliceThickness SpacingBetweenSlices TransducerFrequency
""".split()
# Codes, names of machines, and settings of a protocol. Free text about one patient and everything that can identify one
# is excluded: study description, comments, diagnoses, physicians, institution, station, serial number, dates.
_WORDS = """
    BodyPartExamined Laterality Manufacturer ManufacturerModelName MRAcquisitionType PatientAge PatientSex ProtocolName
    ScanningSequence SequenceName SequenceVariant SeriesDescription SoftwareVersions TransducerType ViewPosition
""".split()
ATTRIBUTES = tuple(sorted([*_NUMERIC, *_WORDS]))
_ALIKE = 8  # frames without their own groups that are read: more than the limit for repetitions
_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}


class _Seen(NamedTuple):
    """The header of a file that holds images."""

    name: str
    uid: str  # of the instance
    ids: tuple[str, ...]  # of patient, study and series; some may be empty or equal after anonymisation
    frames: int
    is_video: bool
    geometries: list[ImageGeometry]
    tags: Tags


def group_series(root: Folder, names: Sequence[str], *, reading: ReadOptions) -> list[DiscoveredSample]:
    """Return the samples in DICOM files; `names` are relative to `root`, with `/`.

    A multi-frame file is a sample; with several slice planes it is one sample per plane, named by `part`. Single images
    are grouped by series, then by plane, and ordered by trigger time, else temporal position, else instance number;
    `path` is then the deepest folder that contains them all, and `part` is 8 digits of a hash of study and series and
    the plane, independent of the file names. The hash has no salt, so that the parts of two scans agree: it cannot be
    inverted, but anyone who has the UIDs can find their sample. A still is a sample of one frame, with its file only.

    Files in no sample have no image (reports, presentation states, DICOMDIR), or are copies of others; `series_note`
    states this. It also reports planes acquired more than once, planes whose number of phases differs from that of most
    planes, and planes of a single image. A file that cannot be read is a sample; probing it raises the error.

    Tags are `patient`, `study` and `series` as stored, so that labels can be joined before they are hashed; `modality`,
    `plane`, `series_note`, and the attributes in `reading.keep`, in snake case (`patient_age` in years).
    Raises SettingError if `reading.keep` has an attribute that is not in `ATTRIBUTES`.
    """
    for keyword in reading.keep:
        if keyword not in ATTRIBUTES:
            raise SettingError(
                f"keep={keyword!r} is not an attribute that can be kept; {did_you_mean(keyword, ATTRIBUTES)}; "
                "attributes that may identify a person are never kept"
            )
    samples: list[DiscoveredSample] = []
    series: dict[tuple[object, ...], list[_Seen]] = defaultdict(list)
    for name in names:
        try:
            summary = _summary(root / name, name, reading)
        except SourceError:
            samples.append(DiscoveredSample(name))
            continue
        if summary is None:
            continue
        if summary.is_video:
            samples.append(DiscoveredSample(summary.name, tags=summary.tags))
        elif summary.frames > 1:
            samples += _of_one_file(summary)
        else:
            series[(*summary.ids, summary.ids[-1] or name)].append(summary)
    for images in series.values():
        samples += _of_a_series(images)
    return sorted(samples, key=lambda sample: (sample.path, sample.part or ""))


def _summary(path: Path, name: str, reading: ReadOptions) -> _Seen | None:
    """Return a summary of the header of a file, or None if it has no image."""
    elements = [
        *GEOMETRY,
        *_IDS.values(),
        *reading.keep,
        *"NumberOfFrames SOPInstanceUID Modality SpecificCharacterSet".split(),
    ]
    try:
        with path.open("rb") as file:
            header, content = read_header(file, path=path, keywords=elements, limits=reading.limits)
            size = content.seek(0, io.SEEK_END)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not header.integer("Rows"):
        return None
    if header.pixels is None:
        raise SourceError(f"{path}: is a DICOM file without an image")
    frames = frames_of(header, file_bytes=size, path=path)
    reading.limits.check_frames(frames, where=path)
    # Frames without their own functional groups are alike.
    distinct_frames = min(len(header.sequences.get(GROUPS[0], [])) + _ALIKE, frames)
    tags: dict[str, str | float | None] = {tag: header.in_words(word) or None for tag, word in _IDS.items()}
    modality = header.text("Modality")
    tags["modality"] = modality if re.fullmatch("[A-Z]{1,10}", modality) else None
    tags |= {snake_case(keyword): _column_value(header, keyword) for keyword in reading.keep}
    return _Seen(
        name=name,
        uid=header.text("SOPInstanceUID"),
        ids=tuple(header.text(keyword) for keyword in _IDS.values()),
        frames=frames,
        is_video=holds_video(header),
        geometries=[geometry_of(scopes_of(header, number)) for number in range(distinct_frames)],
        tags=tags,
    )


def _of_one_file(image: _Seen) -> list[DiscoveredSample]:
    stacks = stacks_of(image.geometries) if any(geometry.directions for geometry in image.geometries) else []
    if len(stacks) < 2:
        return [DiscoveredSample(image.name, tags=image.tags)]
    if len(stacks) == len(image.geometries):  # a volume without a time axis is one sample
        return [
            DiscoveredSample(image.name, tags={**image.tags, "series_note": f"{len(stacks)} planes of one image each"})
        ]
    return [DiscoveredSample(image.name, part=stack.name, tags=_with_plane(image, stack, "")) for stack in stacks]


def _of_a_series(images: Sequence[_Seen]) -> list[DiscoveredSample]:
    distinct: dict[tuple[str, ImageGeometry], _Seen] = {}
    for image in sorted(images, key=lambda image: image.name):
        distinct.setdefault((image.uid or image.name, image.geometries[0]), image)
    members_by_uid = sorted(distinct.values(), key=lambda image: image.uid)
    copies = len(images) - len(members_by_uid)
    note = f"{copies} of {len(images)} files are copies of others, and omitted" if copies else ""
    digest = hashlib.blake2b("\\".join(images[0].ids[1:]).encode(), digest_size=4).hexdigest()
    samples = []
    for stack in stacks_of([image.geometries[0] for image in members_by_uid]):
        members = [members_by_uid[i] for i in stack.members]
        tags = _with_plane(members[0], stack, note)
        if len(members) == 1:
            samples.append(DiscoveredSample(members[0].name, tags=tags))
            continue
        folder = _common_folder([image.name for image in members])
        files = tuple(PurePosixPath(image.name).relative_to(folder).as_posix() for image in members)
        samples.append(DiscoveredSample(folder, part=f"{digest}/{stack.name}", files=files, tags=tags))
    return samples


def _with_plane(image: _Seen, stack: CineStack, note: str) -> Tags:
    tags = dict(image.tags)
    if image.geometries[0].directions:
        tags["plane"] = stack.plane
    if notes := "; ".join(filter(None, [note, stack.note])):
        tags["series_note"] = notes
    return tags


def _common_folder(names: Sequence[str]) -> str:
    """Return the deepest folder that contains all files.

    >>> _common_folder(["a/b/1.dcm", "a/c/2.dcm"]), _common_folder(["1.dcm", "2.dcm"])
    ('a', '.')
    """
    folders = [PurePosixPath(name).parent.parts for name in names]
    shared = []
    for steps in zip(*folders, strict=False):
        if len(set(steps)) > 1:
            break
        shared.append(steps[0])
    return PurePosixPath(*shared).as_posix()


def _column_value(header: Header, keyword: str) -> str | float | None:
    if keyword in _NUMERIC:
        return header.number(keyword)
    text = header.in_words(keyword)
    if keyword == "PatientAge":
        digits, unit = text[:-1], text[-1:]
        return round(int(digits) * _YEARS[unit], 2) if digits.isdecimal() and unit in _YEARS else None
    return text or None


def snake_case(keyword: str) -> str:
    """Return the column name of a DICOM attribute.

    >>> snake_case("SeriesDescription"), snake_case("MRAcquisitionType")
    ('series_description', 'mr_acquisition_type')
    """
    letters = [
        f"_{letter}" if letter.isupper() and keyword[i + 1 : i + 2].islower() else letter
        for i, letter in enumerate(keyword)
    ]
    return "".join(letters).lower().strip("_")
