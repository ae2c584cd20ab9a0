"""Axes of a stored array: one letter per axis, and the samples and frames that they define.

T time, H height, W width, C channels, Z slices, N samples. Without a declaration, three axes are (T, H, W); four are
(T, H, W, C) if the last has length 1 or 3, else (N, T, H, W); five are (N, T, H, W, C). Ambiguous shapes are refused
until axes are declared: a last axis of 2 or 4, or an axis of 1, 3 or 4 in a position where other programs store
channels; and three axes with a last axis of 1 to 3, which may be the channels of one image. If the last of four or five
axes has length 1 or 3, it is always the channels; otherwise an axis of 3 before it would be a height of three pixels.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from cinefeed.core.errors import SourceError
from cinefeed.core.text import format_count
from cinefeed.video.limits import ReadLimits

_USUAL = ("THW", "THWC")  # stored as "" in VideoMetadata
_DECLARE = "declare another order with axes=, one letter per axis, as in axes='TCHW'"
_CHOOSE = "choose with ReadOptions(axes=...), or 'cinefeed scan --axes'"
_NARROW = 4  # pixels: shorter axes are taken for the channels of an image
_PART = re.compile(r"(.*?)(?:\[([0-9]{1,18})\])?", re.DOTALL)


def axes_of(shape: Sequence[int], *, declared: str | None, where: object, choose: str = _CHOOSE) -> str:
    """Return the letters of an array's axes; in errors `where` identifies the array, `choose` says how to declare axes.

    >>> axes_of((25, 64, 64, 3), declared=None, where="a.npy"), axes_of((40, 25, 64, 64), declared=None, where="a.npy")
    ('THWC', 'NTHW')

    Raises SourceError if the shape matches neither the rule nor the declaration.
    """
    if declared is not None:
        if "Z" in declared:
            raise SourceError(
                f"{where}: axes={declared!r} has an axis Z, which only NIfTI files have; name it N: each is a sample"
            )
        return checked_axes(declared, shape, where=where)
    if readings := _other_readings(shape):
        raise SourceError(f"{where}: has shape {tuple(shape)}, whose order of axes is ambiguous: {readings}; {choose}")
    if len(shape) == 4:
        return checked_axes("THWC" if shape[3] in (1, 3) else "NTHW", shape, where=where)
    if len(shape) in (3, 5):
        return checked_axes("THW" if len(shape) == 3 else "NTHWC", shape, where=where)
    raise SourceError(
        f"{where}: has shape {tuple(shape)}; a video is (time, height, width) or (time, height, width, 1 or 3), and a "
        f"set of them has one axis more in front"
    )


def has_readings(shape: Sequence[int], declared: str | None) -> bool:
    """Return whether a shape without declared axes is ambiguous, so that `axes_of` refuses it.

    >>> has_readings((16, 3, 40, 40), None), has_readings((16, 40, 40, 3), None), has_readings((16, 3, 40, 40), "TCHW")
    (True, False, False)
    """
    return declared is None and bool(_other_readings(shape))


def _other_readings(shape: Sequence[int]) -> str:
    """Return the possible readings of a shape, with how to declare each; "" if it is not ambiguous."""
    if len(shape) == 3 and 0 < shape[2] < _NARROW <= shape[1]:
        height, width, channels = shape
        image = f"one image of {height} x {width} with {format_count(channels, 'channel')}, which is not a video"
        return f"{_reading('THW', shape)}, or {image}"
    if len(shape) not in (4, 5) or shape[-1] in (1, 3):
        return ""
    stacked = "N" if len(shape) == 5 else ""
    orders = [f"{stacked}{order}" for order in (("TCHW", "CTHW", "THWC") if stacked else ("TCHW", "THWC"))]
    orders = [order for order in orders if shape[order.index("C")] in ((2, 4) if order.endswith("C") else (1, 3, 4))]
    if not orders:
        return ""
    readings = [_reading(order, shape) for order in (*orders, *([] if stacked else ["NTHW"]))]
    return ", or ".join(readings)


def _reading(axes: str, shape: Sequence[int]) -> str:
    sizes = dict(zip(axes, shape, strict=True))
    text = f"{format_count(sizes['T'], 'frame')} of {sizes['H']} x {sizes['W']}"
    text = f"{sizes['N']} videos of {text}" if "N" in sizes else text
    channels = sizes.get("C")
    if channels in (2, 4):
        return f"{text} with {channels} channels: store {'3' if channels == 4 else '1'} of them"
    return f"axes={axes!r}: {text}" + (f" with {format_count(channels, 'channel')}" if channels else "")


def checked_axes(axes: str, shape: Sequence[int], *, where: object) -> str:
    """Return `axes` if they match the shape. Raises SourceError otherwise."""
    if len(axes) != len(shape):
        raise SourceError(
            f"{where}: has shape {tuple(shape)}, which has {len(shape)} axes, but axes={axes!r} has {len(axes)}"
        )
    if min(shape) < 1:
        raise SourceError(f"{where}: has shape {tuple(shape)}, read as {axes}: it has no frames")
    if "C" in axes and (channels := shape[axes.index("C")]) not in (1, 3):
        raise SourceError(
            f"{where}: has shape {tuple(shape)}, read as {axes}: {channels} channels; 1 (grey) or 3 (RGB) can be read; "
            f"{_DECLARE}"
        )
    return axes


def kept_axes(axes: str) -> str:
    """Return the axes as stored in VideoMetadata: "" for the usual order; the part fixes a lower-case axis.

    >>> kept_axes("THWC"), kept_axes("NHWT")
    ('', 'nHWT')
    """
    return "" if axes in _USUAL else axes.replace("N", "n").replace("Z", "z")


def split_part(part: str | None) -> tuple[str, int | None]:
    """Return the data set name and the row in a part, "" and None if absent.

    >>> split_part("/rest/cine[5]"), split_part("[5]"), split_part(None)
    (('/rest/cine', 5), ('', 5), ('', None))
    """
    match = _PART.fullmatch(part or "")
    name, row = match.groups() if match else (part, None)
    return name or "", None if row is None else int(row)


def row_of(row: int | None, axes: str, shape: Sequence[int], *, where: object) -> dict[str, int]:
    """Return the index fixed by a part: {"N": 5}, or {} for an array that is one sample.

    A set of one sample needs no part. Raises SourceError if the row is missing or out of range.
    """
    if "N" not in axes:
        if row is not None:
            raise SourceError(
                f"{where}: row {row} was asked for, but shape {tuple(shape)} is read as one sample, {axes}; leave out "
                f"[{row}], or {_DECLARE}"
            )
        return {}
    count = shape[axes.index("N")]
    if row is None and count > 1:
        raise SourceError(
            f"{where}: has shape {tuple(shape)}, read as {axes}: {count} samples; choose one by a part that ends in "
            f"[0] to [{count - 1}], or {_DECLARE}"
        )
    if row is not None and row >= count:
        raise SourceError(f"{where}: row {row} was asked for, it has rows 0 to {count - 1}")
    return {"N": row or 0}


def rows_of(shape: Sequence[int], axes: str, *, limits: ReadLimits, where: object) -> list[str]:
    """Return the suffix of each sample's part: "" for an array that is one sample, "[0]", "[1]" ... for a set."""
    if "N" in axes:
        limits.check_samples(shape[axes.index("N")], where=where)
    return [f"[{row}]" for row in range(shape[axes.index("N")])] if "N" in axes else [""]


def index_of(axes: str, fixed: Mapping[str, int], number: int) -> tuple[int | slice, ...]:
    """Return the index of one frame in a stored array.

    >>> index_of("NHWT", {"N": 5}, 2)
    (5, slice(None, None, None), slice(None, None, None), 2)
    """
    at = {**fixed, "T": number}
    return tuple(at.get(axis, slice(None)) for axis in axes)


def channels_last(frame: NDArray[Any], axes: str) -> NDArray[Any]:
    """Return a frame of `index_of` as (height, width) or (height, width, channels): a view."""
    frame_axes = [axis for axis in axes if axis in "HWC"]
    return frame.transpose([frame_axes.index(axis) for axis in "HWC" if axis in frame_axes])
