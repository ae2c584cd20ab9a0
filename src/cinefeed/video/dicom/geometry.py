"""Grouping of the images of one series into clips: by slice plane, with each plane in temporal order.

A series may contain a whole short-axis stack, all long-axis views, magnitude and velocity images, or a repeated slice.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from cinefeed.core.errors import SourceError, did_you_mean
from cinefeed.video.dicom.header import GROUPS, Header, Scopes, nearest_elements, scopes_of

GEOMETRY = [
    *GROUPS,
    *"""
    PlaneOrientationSequence ImageOrientationPatient PlanePositionSequence ImagePositionPatient ImageType Rows Columns
    TriggerTime TemporalPositionIdentifier InstanceNumber CardiacSynchronizationSequence NominalCardiacTriggerDelayTime
    FrameContentSequence TemporalPositionIndex Modality
    """.split(),
]
_SAME_DIRECTION = 0.01  # of a cosine: half a degree; views differ by tens of degrees
_SAME_PLACE_MM = 0.1  # along the normal; the thinnest slices are half a millimetre apart
_MOST_REPEATS = 4  # times shared by more images on average are ignored: some writers store one time for all


class ImageGeometry(NamedTuple):
    """Attributes that distinguish an image from the others of its series."""

    kind: Hashable  # size and type; images of different kinds are never frames of one clip
    directions: tuple[float, ...]  # six cosines, empty if the file has no geometry
    place_mm: float  # along the normal of the plane
    trigger: float | None
    temporal: float | None
    number: float | None
    moves: bool = True  # can be a frame of a clip without geometry; stills of an echo study cannot


class CineStack(NamedTuple):
    """The images of one clip: their indices among the geometries, in temporal order."""

    members: tuple[int, ...]
    plane: int  # from 1
    repeat: int  # from 1
    note: str

    @property
    def name(self) -> str:
        """The end of its part name."""
        return f"plane-{self.plane:02}" + (f"-repeat-{self.repeat}" if self.repeat > 1 else "")


def geometry_of(scopes: Scopes) -> ImageGeometry:
    """Return the attributes of an image that determine its position in the series."""
    head = scopes[-1]
    orientation = nearest_elements(scopes, "PlaneOrientationSequence", "ImageOrientationPatient")
    directions = tuple(orientation.numbers("ImageOrientationPatient"))
    position = nearest_elements(scopes, "PlanePositionSequence", "ImagePositionPatient").numbers("ImagePositionPatient")
    has_geometry = len(directions) == 6 and len(position) == 3
    delay = nearest_elements(scopes, "CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime")
    trigger = delay.number("NominalCardiacTriggerDelayTime")
    index = nearest_elements(scopes, "FrameContentSequence", "TemporalPositionIndex").number("TemporalPositionIndex")
    return ImageGeometry(
        kind=(head.integer("Rows"), head.integer("Columns"), head.text("ImageType")),
        directions=directions if has_geometry else (),
        place_mm=_along_normal(position, directions) if has_geometry else 0.0,
        trigger=head.number("TriggerTime") if trigger is None else trigger,
        temporal=head.number("TemporalPositionIdentifier") if index is None else index,
        number=head.number("InstanceNumber"),
        moves=head.text("Modality") != "US",
    )


def _along_normal(position: Sequence[float], directions: Sequence[float]) -> float:
    """Return the position along the normal of two directions; NumPy takes 40 us, a third of the time of an image.

    >>> _along_normal([7.0, 7.0, 30.0], [1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
    30.0
    """
    (x, y, z), (a, b, c, d, e, f) = position, directions
    return x * (b * f - c * e) + y * (c * d - a * f) + z * (a * e - b * d)


def frames_of_part(header: Header, count: int, *, part: str | None, path: object) -> Sequence[int]:
    """Return the frames of one plane of a file, in order; without a part all frames, as stored."""
    if part is None:
        return range(count)
    stacks = stacks_of([geometry_of(scopes_of(header, number)) for number in range(count)])
    members_of = {stack.name: stack.members for stack in stacks}
    if part not in members_of:
        raise SourceError(f"{path}: has no part {part!r}; {did_you_mean(part, members_of)}")
    return members_of[part]


def stacks_of(geometries: Sequence[ImageGeometry]) -> list[CineStack]:
    """Return the clips in the images of one series, in the order of the instance numbers of their planes.

    Images of a plane are ordered by trigger time, else by temporal position, else by instance number, else by input
    order; images of equal time are repetitions, which become separate clips. Images without geometry are frames of one
    clip if trigger time or temporal position distinguishes them; ultrasound images never are, since one series has
    stills of many views.

    >>> plane = ImageGeometry("MR", (1, 0, 0, 0, 1, 0), 8.0, None, None, None)
    >>> planes = [plane._replace(trigger=40.0), plane._replace(place_mm=0.0), plane._replace(trigger=0.0)]
    >>> [(stack.members, stack.plane, stack.note) for stack in stacks_of(planes)]
    [((1,), 1, 'a single image'), ((2, 0), 2, '')]
    """
    order = sorted(range(len(geometries)), key=lambda i: (_or_last(geometries[i].number), geometries[i].place_mm, i))
    planes: list[list[int]] = []
    for members in _by_kind(geometries, order).values():
        planes += _planes(geometries, members)
    planes.sort(key=lambda plane: (_or_last(geometries[plane[0]].number), geometries[plane[0]].place_mm))
    repeats_of_planes = [_repeats(geometries, plane) for plane in planes]
    usual = Counter(len(repeats[0]) for repeats in repeats_of_planes if len(repeats[0]) > 1).most_common(1)
    stacks = []
    for number, repeats in enumerate(repeats_of_planes, start=1):
        for repeat, members in enumerate(repeats, start=1):
            where = f"plane {number} of {len(repeats_of_planes)}"
            notes = [f"{where} was acquired {len(repeats)} times, this is number {repeat}"] if len(repeats) > 1 else []
            if len(members) == 1:
                notes.append("a single image")
            elif len(members) != usual[0][0]:
                notes.append(f"{where} has {len(members)} phases, most have {usual[0][0]}")
            stacks.append(CineStack(tuple(members), number, repeat, "; ".join(notes)))
    return stacks


def _or_last(number: float | None) -> float:
    return float("inf") if number is None else number


def _by_kind(geometries: Sequence[ImageGeometry], order: Iterable[int]) -> dict[Hashable, list[int]]:
    kinds: dict[Hashable, list[int]] = defaultdict(list)
    for i in order:
        kinds[geometries[i].kind].append(i)
    return kinds


def _planes(geometries: Sequence[ImageGeometry], members: Sequence[int]) -> list[list[int]]:
    """Split images of one kind by plane; the order of members is kept within each."""
    loose = [i for i in members if not geometries[i].directions]
    moves = all(geometries[i].moves for i in loose) and _times([geometries[i] for i in loose], but=["number"])
    planes = [loose] if moves else [[i] for i in loose]
    views: list[list[int]] = []
    for i in members:
        if not geometries[i].directions:
            continue
        for view in views:
            pairs = zip(geometries[view[0]].directions, geometries[i].directions, strict=True)
            if all(abs(a - b) < _SAME_DIRECTION for a, b in pairs):
                view.append(i)
                break
        else:
            views.append([i])
    for view in views:
        along = sorted(view, key=lambda i: geometries[i].place_mm)
        gaps = np.diff([geometries[i].place_mm for i in along])
        cuts = [0, *(np.flatnonzero(gaps > _SAME_PLACE_MM) + 1).tolist(), len(along)]
        rank = {i: place for place, i in enumerate(view)}
        planes += [sorted(along[a:b], key=rank.__getitem__) for a, b in pairwise(cuts)]
    return planes


def _repeats(geometries: Sequence[ImageGeometry], plane: Sequence[int]) -> list[list[int]]:
    """Order the images of a plane by time, and split images of equal time into repetitions."""
    times = _times([geometries[i] for i in plane]) or range(len(plane))
    ordered = sorted(zip(times, range(len(plane)), plane, strict=True))
    repeats: list[list[int]] = []
    counts: Counter[float] = Counter()
    for time, _, i in ordered:
        if counts[time] == len(repeats):
            repeats.append([])
        repeats[counts[time]].append(i)
        counts[time] += 1
    return repeats


def _times(geometries: Sequence[ImageGeometry], *, but: Sequence[str] = ()) -> list[float]:
    """Return the sort keys of the images of a plane: the first attribute that all have and that distinguishes them."""
    for name in ("trigger", "temporal", "number"):
        times = [getattr(geometry, name) for geometry in geometries]
        distinct = len(set(times))
        if name not in but and None not in times and distinct > 1 and distinct * _MOST_REPEATS >= len(times):
            return times
    return []
