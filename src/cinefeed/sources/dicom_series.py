"""DICOM files, as scanners and archives leave them, become samples.

A multi-frame file is one, or one for each of its slice planes; single images are put together by series and plane.
"""

import hashlib
import io
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from cinefeed.errors import SettingError, SourceError, did_you_mean
from cinefeed.sources.base import Found, Reading
from cinefeed.sources.dicom_header import GROUPS, Header, frames_of, holds_video, places_of, read_header
from cinefeed.sources.dicom_planes import GEOMETRY, Shot, Stack, shot_of, stacks_of

Tags = Mapping[str, str | float | None]

_IDS = {"patient": "PatientID", "study": "StudyInstanceUID", "series": "SeriesInstanceUID"}
_MEASURED = """
    EchoTime FlipAngle InversionTime MagneticFieldStrength PatientSize PatientWeight RepetitionTime SeriesNumber
    SliceThickness SpacingBetweenSlices TransducerFrequency
""".split()
# Codes, names of machines, and what is chosen with a protocol. Left out is what people write by hand of one patient or
# what leads to one: study description, comments, diagnoses, physicians, institution, station, serial number, dates.
_WORDS = """
    BodyPartExamined Laterality Manufacturer ManufacturerModelName MRAcquisitionType PatientAge PatientSex ProtocolName
    ScanningSequence SequenceName SequenceVariant SeriesDescription SoftwareVersions TransducerType ViewPosition
""".split()
KEPT = tuple(sorted([*_MEASURED, *_WORDS]))
_ALIKE = 8  # frames without groups of their own that are looked at: more than would be taken for repetitions
_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}


class _Seen(NamedTuple):
    """The header of a file that holds images."""

    name: str
    uid: str  # of the instance
    ids: tuple[str, ...]  # of patient, study and series: a careless anonymiser leaves some of them empty or alike
    frames: int
    is_video: bool
    shots: list[Shot]
    tags: Tags


def group_series(root: Path, names: Sequence[str], *, reading: Reading) -> list[Found]:
    """Return the samples that DICOM files make; `names` are relative to `root`, with `/`.

    A multi-frame file is a sample; one with several slice planes is one for each, its `part` naming the plane. Single
    images are put together by series, then by plane, and ordered by trigger time, else temporal position, else
    instance number; `path` is then the deepest folder that holds them all, and `part` 8 digits of a hash of study and
    series and the plane, the same whatever the files are called. The hash has no salt, so that the parts of two scans
    agree: it cannot be turned back, but who has the UIDs can find their sample. A still is a sample of one frame, its
    file alone.

    Files in no sample hold no image (reports, presentation states, DICOMDIR), or are copies of others, as
    `series_note` says. It also says where a plane was taken more than once, where its phases are not as many as those
    of most planes, and where there is one image only. A file that cannot be read is a sample, whose probe says why.

    Tags are `patient`, `study` and `series` as they stand in the files, for labels to be joined to before they are
    hashed; `modality`, `plane`, `series_note`, and what `reading.keep` names, in snake case (`patient_age` in years).
    Raises SettingError where `reading.keep` names an attribute that is not one of `KEPT`.
    """
    for keyword in reading.keep:
        if keyword not in KEPT:
            raise SettingError(
                f"keep={keyword!r} is not an attribute that can be kept; {did_you_mean(keyword, KEPT)}; those that may "
                f"name a person never are"
            )
    found: list[Found] = []
    series: dict[tuple[object, ...], list[_Seen]] = defaultdict(list)
    for name in names:
        try:
            summary = _see(root / name, name, reading)
        except SourceError:
            found.append(Found(name))
            continue
        if summary is None:
            continue
        if summary.is_video:
            found.append(Found(summary.name, tags=summary.tags))
        elif summary.frames > 1:
            found += _of_one_file(summary)
        else:
            series[(*summary.ids, summary.ids[-1] or name)].append(summary)
    for images in series.values():
        found += _of_a_series(images)
    return sorted(found, key=lambda sample: (sample.path, sample.part or ""))


def _see(path: Path, name: str, reading: Reading) -> _Seen | None:
    """Return what the header of a file says, or None where it holds no image."""
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
        raise SourceError(f"{path}: is DICOM and holds no image")
    frames = frames_of(header, file_bytes=size, path=path)
    reading.limits.check_frames(frames, where=path)
    # Frames beyond the functional groups of their own are alike.
    own = min(len(header.sequences.get(GROUPS[0], [])) + _ALIKE, frames)
    tags: dict[str, str | float | None] = {tag: header.in_words(word) or None for tag, word in _IDS.items()}
    modality = header.text("Modality")
    tags["modality"] = modality if re.fullmatch("[A-Z]{1,10}", modality) else None
    tags |= {snake_case(keyword): _kept(header, keyword) for keyword in reading.keep}
    return _Seen(
        name=name,
        uid=header.text("SOPInstanceUID"),
        ids=tuple(header.text(keyword) for keyword in _IDS.values()),
        frames=frames,
        is_video=holds_video(header),
        shots=[shot_of(places_of(header, number)) for number in range(own)],
        tags=tags,
    )


def _of_one_file(seen: _Seen) -> list[Found]:
    stacks = stacks_of(seen.shots) if any(shot.directions for shot in seen.shots) else []
    if len(stacks) < 2:
        return [Found(seen.name, tags=seen.tags)]
    if len(stacks) == len(seen.shots):  # a volume without time stays together
        return [Found(seen.name, tags={**seen.tags, "series_note": f"{len(stacks)} planes of one image each"})]
    return [Found(seen.name, part=stack.name, tags=_with_plane(seen, stack, "")) for stack in stacks]


def _of_a_series(images: Sequence[_Seen]) -> list[Found]:
    distinct: dict[tuple[str, Shot], _Seen] = {}
    for image in sorted(images, key=lambda image: image.name):
        distinct.setdefault((image.uid or image.name, image.shots[0]), image)
    seen = sorted(distinct.values(), key=lambda image: image.uid)
    copies = len(images) - len(seen)
    note = f"{copies} of {len(images)} files are copies of others, and left out" if copies else ""
    digest = hashlib.blake2b("\\".join(images[0].ids[1:]).encode(), digest_size=4).hexdigest()
    found = []
    for stack in stacks_of([image.shots[0] for image in seen]):
        members = [seen[i] for i in stack.members]
        tags = _with_plane(members[0], stack, note)
        if len(members) == 1:
            found.append(Found(members[0].name, tags=tags))
            continue
        folder = _common_folder([image.name for image in members])
        files = tuple(PurePosixPath(image.name).relative_to(folder).as_posix() for image in members)
        found.append(Found(folder, part=f"{digest}/{stack.name}", files=files, tags=tags))
    return found


def _with_plane(seen: _Seen, stack: Stack, note: str) -> Tags:
    tags = dict(seen.tags)
    if seen.shots[0].directions:
        tags["plane"] = stack.plane
    if notes := "; ".join(filter(None, [note, stack.note])):
        tags["series_note"] = notes
    return tags


def _common_folder(names: Sequence[str]) -> str:
    """Return the deepest folder that holds all files.

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


def _kept(header: Header, keyword: str) -> str | float | None:
    if keyword in _MEASURED:
        return header.number(keyword)
    text = header.in_words(keyword)
    if keyword == "PatientAge":
        digits, unit = text[:-1], text[-1:]
        return round(int(digits) * _YEARS[unit], 2) if digits.isdecimal() and unit in _YEARS else None
    return text or None


def snake_case(keyword: str) -> str:
    """Return the column's name of a DICOM attribute.

    >>> snake_case("SeriesDescription"), snake_case("MRAcquisitionType")
    ('series_description', 'mr_acquisition_type')
    """
    letters = [
        f"_{letter}" if letter.isupper() and keyword[i + 1 : i + 2].islower() else letter
        for i, letter in enumerate(keyword)
    ]
    return "".join(letters).lower().strip("_")
