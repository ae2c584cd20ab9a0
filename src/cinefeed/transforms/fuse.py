"""Fusion of adjacent transforms: the steps of a clip, each of which is one pass over the pixels.

geometry   adjacent transforms that move pixels: one inverse map, one interpolation
pointwise  adjacent transforms that map values: one look-up table of 256 entries (uint8) or 65,536 (uint16); float32
           frames have no table, and the transforms are applied one after the other
other      each transform separately
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.errors import SettingError
from cinefeed.transforms.base import Frames, Levels, Parameters, Transform, output_dtype, writes_in_place
from cinefeed.transforms.call import Call
from cinefeed.transforms.field import map_points, pixel_centres
from cinefeed.transforms.lookup import look_up
from cinefeed.transforms.resample import Matrix, invert
from cinefeed.video.pixel_levels import SIZES, PixelLevels, TableLevels

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
    """Return how a transform is applied. A choice has the kind of its members if they are all of one, else "other".

    >>> from cinefeed.transforms.geometry import Flip
    >>> kind_of(Flip())
    'geometry'
    """
    members = getattr(transform, "members", None)
    if members is not None and _has(transform, "select"):
        kinds = {kind_of(each) for each in members}
        return kinds.pop() if len(kinds) == 1 else "other"
    return next((kind for method, kind in _MARKS.items() if _has(transform, method)), "other")


def may_retime(transform: Transform) -> bool:
    """Return whether a transform may select other frames: a transform of time, or a choice that has one as a member.

    A choice without `members` may select any transform.
    """
    if not _has(transform, "select"):
        return kind_of(transform) == "time"
    members = getattr(transform, "members", None)
    return members is None or any(map(may_retime, members))


def _has(transform: object, method: str) -> bool:
    # Looked up on the class, because a setting may have any name; isinstance with a protocol takes 40 us.
    return method in _methods_of(type(transform))  # type: ignore[arg-type]  # a class can be hashed


@lru_cache(maxsize=1024)
def _methods_of(kind: Hashable) -> frozenset[str]:
    """Return which of the methods that decide the kind a class has."""
    return frozenset(name for name in (*_MARKS, "select") if callable(getattr(kind, name, None)))


def select_parts(transforms: Sequence[Transform], parameters: Sequence[Parameters]) -> Iterator[Part]:
    """Yield the transforms to apply to a clip, in order, with choices replaced by the transforms that they select."""
    for transform, own_parameters in zip(transforms, parameters, strict=True):
        if _has(transform, "select"):
            pairs = transform.select(own_parameters)  # type: ignore[attr-defined]
            yield from select_parts([each for each, _ in pairs], [each for _, each in pairs])
        else:
            yield transform, own_parameters


def group_steps(parts: Iterator[Part]) -> list[Step]:
    """Return the steps of a clip: adjacent transforms of one kind together, transforms of time left out."""
    groups: list[Step] = []
    for part in parts:
        kind = kind_of(part[0])
        if kind == "time":
            continue
        if groups and kind == groups[-1].kind and kind != "other":
            groups[-1].parts.append(part)
        else:
            groups.append(Step(kind, [part]))
    return groups


def fuse_maps(parts: Sequence[Part], *, height: int, width: int) -> tuple[Matrix, NDArray[np.float64] | None]:
    """Return adjacent moves as one: a forward matrix, and the points that its inverse maps to the source.

    The points are None if all moves are affine; they are then the pixel centres of the target.
    """
    matrix, warps = _STILL, []
    for transform, own_parameters in parts:
        if _has(transform, "source_points"):
            warps.append((matrix, transform, own_parameters))
            matrix = _STILL
        else:
            move = transform.matrix(own_parameters, height=height, width=width)
            matrix = move if matrix is _STILL else move @ matrix
    if not warps:
        return matrix, None
    points = map_points(pixel_centres(height, width), invert(matrix))
    for number, (matrix_before, transform, own_parameters) in reversed(list(enumerate(warps))):
        points = transform.source_points(points, own_parameters, height=height, width=width)
        if number:
            points = map_points(points, invert(matrix_before))
    return warps[0][0], points


def undo_moves(parts: Sequence[Part], points: NDArray[np.float64], *, height: int, width: int) -> NDArray[np.float64]:
    """Return the positions of points, (2, rows, columns), before the moves. The last move is undone first.

    >>> from cinefeed.transforms.geometry import Shift
    >>> points = undo_moves([(Shift(pixels=9), {"right": 2.0, "down": 0.0})], pixel_centres(1, 2), height=1, width=2)
    >>> points[0].tolist()
    [[-1.5, -0.5]]
    """
    for transform, own_parameters in reversed(parts):
        if _has(transform, "source_points"):
            points = transform.source_points(points, own_parameters, height=height, width=width)
        else:
            points = map_points(points, invert(transform.matrix(own_parameters, height=height, width=width)))
    return points


def apply_pointwise(parts: Sequence[Part], clip: Frames, out: Frames | None) -> Frames:
    """Return the clip after adjacent pointwise transforms, in `out` if it is given and has their dtype.

    The result equals that of one transform after the other, to the byte, as long as the values between them are whole
    numbers. A mean of floats may differ in its last bit.
    """
    run: list[Part] = []
    for number, part in enumerate(parts):
        # A table of 65,536 entries per frame would be larger than many clips.
        if clip.dtype in SIZES and not (clip.dtype == np.uint16 and getattr(part[0], "by_frame", False)):
            run.append(part)
            continue
        return (
            apply_pointwise(parts[number:], _apply_table(run, clip, None), out)
            if run
            else _apply_in_turn(parts, clip, out)
        )
    return _apply_table(run, clip, out)


def _apply_in_turn(parts: Sequence[Part], clip: Frames, out: Frames | None) -> Frames:
    clip = apply_one(parts[0], clip, None if parts[1:] else out)
    return apply_pointwise(parts[1:], clip, out) if parts[1:] else clip


def _apply_table(parts: Sequence[Part], clip: Frames, out: Frames | None) -> Frames:
    entries = SIZES[clip.dtype]
    # One curve is faster without a table, unless it gives 16-bit floats: NumPy took 1.6 ms for 16 x 112 x 112 x 3.
    is_single = len(parts) == 1 and output_dtype(parts[0][0], clip.dtype).name not in _HALVES
    if is_single or clip.size < entries:
        for number, part in enumerate(parts):
            clip = apply_one(part, clip, out if number == len(parts) - 1 else None)
        return clip
    pixels = PixelLevels(clip)
    levels: Levels = pixels
    values: Frames = np.arange(entries, dtype=clip.dtype).reshape(1, 1, entries, 1)
    for transform, own_parameters in parts:
        expected_dtype = output_dtype(transform, values.dtype)
        values = transform.curve(values, own_parameters, levels)
        if values.dtype != expected_dtype:
            raise SettingError(
                f"{transform!r} returned {values.dtype} from curve(), expected {expected_dtype}; change output_dtype()"
            )
        table = np.ascontiguousarray(values[:, 0].swapaxes(1, 2))
        levels = TableLevels(pixels, table)
    result = out if out is not None and out.dtype == table.dtype else np.empty(clip.shape, table.dtype)
    target = result
    if table.dtype.name in _HALVES:  # numba has neither type; a look-up copies any two bytes
        table, target = table.view(np.uint16), result.view(np.uint16)
    look_up(pixels.pixels.reshape(len(clip), -1), table, target.reshape(len(clip), -1))
    return result


def apply_one(part: Part, clip: Frames, out: Frames | None) -> Frames:
    """Return the clip after one transform, in `out` if the transform can write there.

    Raises SettingError if the transform changes the shape, or the dtype without `output_dtype`.
    """
    transform, own_parameters = part
    expected_dtype = output_dtype(transform, clip.dtype)
    if out is not None and out.dtype == expected_dtype and writes_in_place(transform):
        transform.apply(clip, own_parameters, out=out)
        return out
    result: Frames = transform.apply(clip, own_parameters)
    if result.shape != clip.shape or result.dtype != expected_dtype:
        raise SettingError(
            f"{transform!r} turned {clip.dtype} {clip.shape} into {result.dtype} {result.shape}; apply() must keep "
            f"the shape, and return the dtype of output_dtype() or else that of its input (here {expected_dtype})"
        )
    return np.ascontiguousarray(result)


def compact_repr(transform: object) -> str:
    """Return the short repr of a transform: without the settings that have their default values.

    >>> from cinefeed.transforms.geometry import Shift
    >>> compact_repr(Shift(pixels=15))
    'Shift(pixels=15)'
    """
    if isinstance(transform, tuple | list):
        return "(" + ", ".join(compact_repr(each) for each in transform) + ")"
    if isinstance(transform, set | frozenset):
        return "{" + ", ".join(compact_repr(each) for each in sorted(transform)) + "}"
    if isinstance(transform, float):
        return repr(transform).removesuffix(".0")
    if not is_dataclass(transform) or isinstance(transform, type | Call):
        return repr(transform)
    values = {each.name: getattr(transform, each.name) for each in fields(transform) if each.repr}
    defaults = {each.name: each.default for each in fields(transform)}
    settings = (
        f"{name}={compact_repr(value)}" for name, value in values.items() if value is not defaults[name] != value
    )
    return f"{type(transform).__name__}({', '.join(settings)})"
