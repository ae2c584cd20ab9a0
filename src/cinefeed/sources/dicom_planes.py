"""Images of one series become clips: parted by slice plane, each plane in the order of time.

A series may hold a whole short-axis stack, all long-axis views, magnitude beside velocity, or a slice taken twice.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from cinefeed.errors import SourceError, did_you_mean
from cinefeed.sources.dicom_header import GROUPS, Header, Places, found_in, places_of

GEOMETRY = [
    *GROUPS,
    *"""
    PlaneOrientationSequence ImageOrientationPatient PlanePositionSequence ImagePositionPatient ImageType Rows Columns
    TriggerTime TemporalPositionIdentifier InstanceNumber CardiacSynchronizationSequence NominalCardiacTriggerDelayTime
    FrameContentSequence TemporalPositionIndex Modality
    """.split(),
]
_SAME_DIRECTION = 0.01  # of a cosine: half a degree; views differ by tens of degrees
_SAME_PLACE_MM = 0.1  # along the normal; the thinnest slices lie half a millimetre apart
_MOST_REPEATS = 4  # a time that more images share on average is no time: some writers put one for all


class Shot(NamedTuple):
    """What tells one image from the others of its series."""

    kind: Hashable  # images of another kind, size or type, are never frames of one clip
    directions: tuple[float, ...]  # six cosines, none where the file has no geometry
    place_mm: float  # along the normal of the plane
    trigger: float | None
    temporal: float | None
    number: float | None
    moves: bool = True  # may be a frame of a clip, though it has no geometry: not so the stills of an echo study


class Stack(NamedTuple):
    """The images of one clip: their indices among the shots, in the order of time."""

    members: tuple[int, ...]
    plane: int  # from 1
    repeat: int  # from 1
    note: str

    @property
    def name(self) -> str:
        """The end of the part that stands for it."""
        return f"plane-{self.plane:02}" + (f"-repeat-{self.repeat}" if self.repeat > 1 else "")


def shot_of(places: Places) -> Shot:
    """Return what places an image in its series."""
    head = places[-1]
    oriented = found_in(places, "PlaneOrientationSequence", "ImageOrientationPatient")
    directions = tuple(oriented.numbers("ImageOrientationPatient"))
    position = found_in(places, "PlanePositionSequence", "ImagePositionPatient").numbers("ImagePositionPatient")
    placed = len(directions) == 6 and len(position) == 3
    delayed = found_in(places, "CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime")
    trigger = delayed.number("NominalCardiacTriggerDelayTime")
    index = found_in(places, "FrameContentSequence", "TemporalPositionIndex").number("TemporalPositionIndex")
    return Shot(
        kind=(head.integer("Rows"), head.integer("Columns"), head.text("ImageType")),
        directions=directions if placed else (),
        place_mm=_along_normal(position, directions) if placed else 0.0,
        trigger=head.number("TriggerTime") if trigger is None else trigger,
        temporal=head.number("TemporalPositionIdentifier") if index is None else index,
        number=head.number("InstanceNumber"),
        moves=head.text("Modality") != "US",
    )


def _along_normal(position: Sequence[float], directions: Sequence[float]) -> float:
    """Return how far a position lies along the normal of two directions; NumPy took 40 us, a third of an image's time.

    >>> _along_normal([7.0, 7.0, 30.0], [1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
    30.0
    """
    (x, y, z), (a, b, c, d, e, f) = position, directions
    return x * (b * f - c * e) + y * (c * d - a * f) + z * (a * e - b * d)


def frames_of_part(header: Header, count: int, *, part: str | None, path: object) -> Sequence[int]:
    """Return the frames of a file that make one plane of it, in their order; without a part all, as stored."""
    if part is None:
        return range(count)
    stacks = stacks_of([shot_of(places_of(header, number)) for number in range(count)])
    named = {stack.name: stack.members for stack in stacks}
    if part not in named:
        raise SourceError(f"{path}: has no part {part!r}; {did_you_mean(part, named)}")
    return named[part]


def stacks_of(shots: Sequence[Shot]) -> list[Stack]:
    """Return the clips that images of one series make, in the order in which their planes were numbered.

    In a plane images are ordered by trigger time, else by temporal position, else by instance number, else as they
    come; those of equal time are repetitions, which become clips of their own. Images without a plane are frames of one
    clip where trigger time or temporal position tells each from the others; ultrasound, where stills of many views
    make one series, never is.

    >>> plane = Shot("MR", (1, 0, 0, 0, 1, 0), 8.0, None, None, None)
    >>> stacks_of([plane._replace(trigger=40.0), plane._replace(place_mm=0.0), plane._replace(trigger=0.0)])
    [Stack(members=(1,), plane=1, repeat=1, note='a single image'), Stack(members=(2, 0), plane=2, repeat=1, note='')]
    """
    order = sorted(range(len(shots)), key=lambda i: (_or_last(shots[i].number), shots[i].place_mm, i))
    planes: list[list[int]] = []
    for alike in _by_kind(shots, order).values():
        planes += _planes(shots, alike)
    planes.sort(key=lambda plane: (_or_last(shots[plane[0]].number), shots[plane[0]].place_mm))
    parted = [_repeats(shots, plane) for plane in planes]
    usual = Counter(len(repeats[0]) for repeats in parted if len(repeats[0]) > 1).most_common(1)
    stacks = []
    for number, repeats in enumerate(parted, start=1):
        for repeat, members in enumerate(repeats, start=1):
            where = f"plane {number} of {len(parted)}"
            notes = [f"{where} was taken {len(repeats)} times, this is number {repeat}"] if len(repeats) > 1 else []
            if len(members) == 1:
                notes.append("a single image")
            elif len(members) != usual[0][0]:
                notes.append(f"{where} has {len(members)} phases, most have {usual[0][0]}")
            stacks.append(Stack(tuple(members), number, repeat, "; ".join(notes)))
    return stacks


def _or_last(number: float | None) -> float:
    return float("inf") if number is None else number


def _by_kind(shots: Sequence[Shot], order: Iterable[int]) -> dict[Hashable, list[int]]:
    kinds: dict[Hashable, list[int]] = defaultdict(list)
    for i in order:
        kinds[shots[i].kind].append(i)
    return kinds


def _planes(shots: Sequence[Shot], members: Sequence[int]) -> list[list[int]]:
    """Part images of one kind by plane; members keep their order within each."""
    loose = [i for i in members if not shots[i].directions]
    moves = all(shots[i].moves for i in loose) and _times([shots[i] for i in loose], but=["number"])
    planes = [loose] if moves else [[i] for i in loose]
    views: list[list[int]] = []
    for i in members:
        if not shots[i].directions:
            continue
        for view in views:
            pairs = zip(shots[view[0]].directions, shots[i].directions, strict=True)
            if all(abs(a - b) < _SAME_DIRECTION for a, b in pairs):
                view.append(i)
                break
        else:
            views.append([i])
    for view in views:
        along = sorted(view, key=lambda i: shots[i].place_mm)
        gaps = np.diff([shots[i].place_mm for i in along])
        cuts = [0, *(np.flatnonzero(gaps > _SAME_PLACE_MM) + 1).tolist(), len(along)]
        rank = {i: place for place, i in enumerate(view)}
        planes += [sorted(along[a:b], key=rank.__getitem__) for a, b in pairwise(cuts)]
    return planes


def _repeats(shots: Sequence[Shot], plane: Sequence[int]) -> list[list[int]]:
    """Order the images of a plane by time, and part those that were taken at the same one."""
    times = _times([shots[i] for i in plane]) or range(len(plane))
    ordered = sorted(zip(times, range(len(plane)), plane, strict=True))
    repeats: list[list[int]] = []
    seen: Counter[float] = Counter()
    for time, _, i in ordered:
        if seen[time] == len(repeats):
            repeats.append([])
        repeats[seen[time]].append(i)
        seen[time] += 1
    return repeats


def _times(shots: Sequence[Shot], *, but: Sequence[str] = ()) -> list[float]:
    """Return what the images of a plane are ordered by: the first time that all have and that tells them apart."""
    for name in ("trigger", "temporal", "number"):
        times = [getattr(shot, name) for shot in shots]
        told = len(set(times))
        if name not in but and None not in times and told > 1 and told * _MOST_REPEATS >= len(times):
            return times
    return []
