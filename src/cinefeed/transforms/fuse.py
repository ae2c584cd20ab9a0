"""What is applied together: which transforms a clip gets, in steps, and how each step becomes one pass over the pixels.

geometry   neighbours that move pixels: one inverse map, one interpolation
pointwise  neighbours that map values: one look-up table of 256 entries (uint8) or 65,536 (uint16); float32 frames have
           no table, and go through one after the other
other      each on its own
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cinefeed.errors import SettingError
from cinefeed.kernels import look_up
from cinefeed.transforms.base import Frames, Levels, Parameters, Transform, output_dtype, writes_in_place
from cinefeed.transforms.call import Call
from cinefeed.transforms.field import moved, pixel_centres
from cinefeed.transforms.levels import SIZES, PixelLevels, TableLevels
from cinefeed.transforms.warp import Matrix, inverted

_HALVES = ("float16", "bfloat16")
_STILL: Matrix = np.eye(3)
_STILL.flags.writeable = False
Kind = Literal["time", "geometry", "pointwise", "other"]
Part = tuple[Any, Parameters]  # a transform, and its parameters

_MARKS: dict[str, Kind] = {
    "indices": "time",
    "matrix": "geometry",
    "source_points": "geometry",
    "curve": "pointwise",
}


@dataclass(frozen=True, slots=True)
class Step:
    """Transforms that are applied together."""

    kind: Kind
    parts: list[Part]


def kind_of(transform: Transform) -> Kind:
    """Return how a transform is applied; a choice is of the kind that all its members are of, or else "other".

    >>> from cinefeed.transforms.geometry import Flip
    >>> kind_of(Flip())
    'geometry'
    """
    members = getattr(transform, "members", None)
    if members is not None and _has(transform, "chosen"):
        kinds = {kind_of(each) for each in members}
        return kinds.pop() if len(kinds) == 1 else "other"
    return next((kind for method, kind in _MARKS.items() if _has(transform, method)), "other")


def may_retime(transform: Transform) -> bool:
    """Return whether a transform may choose other frames: one of time, or a choice among whose members is one.

    A choice that does not name its members may choose anything.
    """
    if not _has(transform, "chosen"):
        return kind_of(transform) == "time"
    members = getattr(transform, "members", None)
    return members is None or any(map(may_retime, members))


def _has(transform: object, method: str) -> bool:
    # Asked of the class, for a setting may bear any name; isinstance with a protocol takes 40 us.
    return method in _methods_of(type(transform))  # type: ignore[arg-type]  # a class can be hashed


@lru_cache(maxsize=1024)
def _methods_of(kind: Hashable) -> frozenset[str]:
    """Return which methods of those that are looked for a class has."""
    return frozenset(name for name in (*_MARKS, "chosen") if callable(getattr(kind, name, None)))


def chosen(transforms: Sequence[Transform], parameters: Sequence[Parameters]) -> Iterator[Part]:
    """Yield the transforms that a clip gets, in order, what choices have chosen in their place."""
    for transform, drawn in zip(transforms, parameters, strict=True):
        if _has(transform, "chosen"):
            pairs = transform.chosen(drawn)  # type: ignore[attr-defined]
            yield from chosen([each for each, _ in pairs], [each for _, each in pairs])
        else:
            yield transform, drawn


def steps(parts: Iterator[Part]) -> list[Step]:
    """Return the steps of a clip: neighbours of one kind together, those of time left out."""
    found: list[Step] = []
    for part in parts:
        kind = kind_of(part[0])
        if kind == "time":
            continue
        if found and kind == found[-1].kind and kind != "other":
            found[-1].parts.append(part)
        else:
            found.append(Step(kind, [part]))
    return found


def one_map(parts: Sequence[Part], *, height: int, width: int) -> tuple[Matrix, NDArray[np.float64] | None]:
    """Return neighbouring moves as one: a forward matrix, and the points that its inverse maps to the source.

    The points are None where all moves are affine: then they are the target's own pixel centres.
    """
    matrix, warps = _STILL, []
    for transform, drawn in parts:
        if _has(transform, "source_points"):
            warps.append((matrix, transform, drawn))
            matrix = _STILL
        else:
            move = transform.matrix(drawn, height=height, width=width)
            matrix = move if matrix is _STILL else move @ matrix
    if not warps:
        return matrix, None
    points = moved(pixel_centres(height, width), inverted(matrix))
    for number, (before, transform, drawn) in reversed(list(enumerate(warps))):
        points = transform.source_points(points, drawn, height=height, width=width)
        if number:
            points = moved(points, inverted(before))
    return warps[0][0], points


def undone(parts: Sequence[Part], points: NDArray[np.float64], *, height: int, width: int) -> NDArray[np.float64]:
    """Return where points of a moved frame, (2, rows, columns), were before: its moves taken back, the last one first.

    >>> from cinefeed.transforms.geometry import Shift
    >>> points = undone([(Shift(pixels=9), {"right": 2.0, "down": 0.0})], pixel_centres(1, 2), height=1, width=2)
    >>> points[0].tolist()
    [[-1.5, -0.5]]
    """
    for transform, drawn in reversed(parts):
        if _has(transform, "source_points"):
            points = transform.source_points(points, drawn, height=height, width=width)
        else:
            points = moved(points, inverted(transform.matrix(drawn, height=height, width=width)))
    return points


def apply_pointwise(parts: Sequence[Part], clip: Frames, out: Frames | None) -> Frames:
    """Return the clip after neighbouring pointwise transforms, in `out` where it is given and of their type.

    What comes out is, to the byte, what one after the other gives, as long as what passes between them are whole
    numbers; a mean of floats may differ in its last bit.
    """
    run: list[Part] = []
    for number, part in enumerate(parts):
        # A table of 65,536 entries a frame would be larger than many a clip.
        if clip.dtype in SIZES and not (clip.dtype == np.uint16 and getattr(part[0], "by_frame", False)):
            run.append(part)
            continue
        return apply_pointwise(parts[number:], _by_table(run, clip, None), out) if run else _in_turn(parts, clip, out)
    return _by_table(run, clip, out)


def _in_turn(parts: Sequence[Part], clip: Frames, out: Frames | None) -> Frames:
    clip = apply_one(parts[0], clip, None if parts[1:] else out)
    return apply_pointwise(parts[1:], clip, out) if parts[1:] else clip


def _by_table(parts: Sequence[Part], clip: Frames, out: Frames | None) -> Frames:
    entries = SIZES[clip.dtype]
    # One curve alone is faster by itself, unless it ends in 16-bit floats: NumPy took 1.6 ms for 16 x 112 x 112 x 3.
    alone = len(parts) == 1 and output_dtype(parts[0][0], clip.dtype).name not in _HALVES
    if alone or clip.size < entries:
        for number, part in enumerate(parts):
            clip = apply_one(part, clip, out if number == len(parts) - 1 else None)
        return clip
    pixels = PixelLevels(clip)
    levels: Levels = pixels
    values: Frames = np.arange(entries, dtype=clip.dtype).reshape(1, 1, entries, 1)
    for transform, drawn in parts:
        expected = output_dtype(transform, values.dtype)
        values = transform.curve(values, drawn, levels)
        if values.dtype != expected:
            raise SettingError(f"{transform!r} made {values.dtype} in curve(), promised was {expected}")
        table = np.ascontiguousarray(values[:, 0].swapaxes(1, 2))
        levels = TableLevels(pixels, table)
    result = out if out is not None and out.dtype == table.dtype else np.empty(clip.shape, table.dtype)
    target = result
    if table.dtype.name in _HALVES:  # numba knows neither; to a look-up any two bytes are alike
        table, target = table.view(np.uint16), result.view(np.uint16)
    look_up(pixels.pixels.reshape(len(clip), -1), table, target.reshape(len(clip), -1))
    return result


def apply_one(part: Part, clip: Frames, out: Frames | None) -> Frames:
    """Return the clip after one transform, in `out` where it can write there.

    Raises SettingError where the transform does not keep the shape, or gives a type that it does not name.
    """
    transform, drawn = part
    expected = output_dtype(transform, clip.dtype)
    if out is not None and out.dtype == expected and writes_in_place(transform):
        transform.apply(clip, drawn, out=out)
        return out
    changed: Frames = transform.apply(clip, drawn)
    if changed.shape != clip.shape or changed.dtype != expected:
        raise SettingError(
            f"{transform!r} made {changed.dtype} {changed.shape} of {clip.dtype} {clip.shape}; apply() must keep "
            f"the shape, and the type unless output_dtype() names another (here {expected})"
        )
    return np.ascontiguousarray(changed)


def said(transform: object) -> str:
    """Return a transform as it was written: without the settings that are at their defaults.

    >>> from cinefeed.transforms.geometry import Shift
    >>> said(Shift(pixels=15))
    'Shift(pixels=15)'
    """
    if isinstance(transform, tuple | list):
        return "(" + ", ".join(said(each) for each in transform) + ")"
    if isinstance(transform, set | frozenset):
        return "{" + ", ".join(said(each) for each in sorted(transform)) + "}"
    if isinstance(transform, float):
        return repr(transform).removesuffix(".0")
    if not is_dataclass(transform) or isinstance(transform, type | Call):
        return repr(transform)
    shown = {each.name: getattr(transform, each.name) for each in fields(transform) if each.repr}
    defaults = {each.name: each.default for each in fields(transform)}
    settings = (f"{name}={said(value)}" for name, value in shown.items() if value is not defaults[name] != value)
    return f"{type(transform).__name__}({', '.join(settings)})"
