"""Labels -> strata: each row's class, or the bin of its continuous label."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from cinefeed.errors import LabelError, SettingError, did_you_mean
from cinefeed.label_types import class_name

Bins = Literal["auto", "integer"] | int | tuple[float, ...]


class Strata(NamedTuple):
    """Which class or label bin each row is in; only those that have a row are numbered.

    `numbers` is int64 (rows,), `names` says what each number stands for, `values` are the labels themselves as float64
    (rows,) where they are numbers to be kept in order, or None; `edges` are those of the bins, empty ones included.
    `places` (strata,) says which of these bins each stratum is, or what its whole value is.
    """

    numbers: NDArray[np.int64]
    names: tuple[str, ...]
    values: NDArray[np.float64] | None = None
    edges: NDArray[np.float64] | None = None
    places: NDArray[np.float64] | None = None

    @property
    def kind(self) -> str:
        """What a stratum is: "class" or "bin"."""
        return "class" if self.values is None else "bin"

    @property
    def counts(self) -> NDArray[np.int64]:
        """Rows in each stratum, int64 (strata,)."""
        return np.bincount(self.numbers, minlength=len(self.names)).astype(np.int64)


def label_array(labels: ArrayLike) -> NDArray[Any]:
    """Return labels as one flat array of numbers, booleans or text. Raises LabelError where a row has none.

    >>> label_array(["sick", "well"]).tolist()
    ['sick', 'well']
    """
    array = np.asarray(labels)
    if array.ndim != 1:
        raise LabelError(f"labels must be one value a row; found an array of shape {array.shape}")
    if array.size == 0:
        raise LabelError("there are no labels: the table has no row left; look at the filters and the split before it")
    if array.dtype == object:
        missing = np.array([value is None or value != value for value in array])  # NaN alone differs from itself
        _refuse(missing, "no label")
        array = np.asarray(array.tolist())
    if array.dtype.kind == "f":
        _refuse(np.isnan(array), "a NaN label")
        _refuse(np.isinf(array), "an infinite label")
    if array.dtype.kind not in "biufU":
        raise LabelError(f"labels are {array.dtype}; give numbers, booleans or text")
    return array


def _refuse(bad: NDArray[np.bool_], what: str) -> None:
    if bad.any():
        rows = np.flatnonzero(bad)
        first = ", ".join(map(str, rows[:5].tolist())) + (", ..." if len(rows) > 5 else "")
        raise LabelError(
            f"{len(rows)} of {len(bad)} rows have {what} (rows {first}); "
            "fill them in, or filter them out of the manifest"
        )


def group_numbers(groups: ArrayLike, *, rows: int) -> NDArray[np.int64]:
    """Return the number of each row's group, int64 (rows,), from any names. Raises LabelError where a row has none.

    >>> group_numbers(["p7", "p2", "p7"], rows=3).tolist()
    [1, 0, 1]
    """
    try:
        found = label_array(groups)
    except LabelError as error:
        raise LabelError(f"groups: {error}") from error
    if len(found) != rows:
        raise LabelError(f"there are {len(found)} groups for {rows} labels; give one a row")
    return np.unique(found, return_inverse=True)[1].astype(np.int64)


def class_strata(labels: ArrayLike) -> Strata:
    """Return each row's class, numbered in sorted order.

    >>> class_strata(["well", "sick", "well"])
    Strata(numbers=array([1, 0, 1]), names=('sick', 'well'), values=None, edges=None, places=None)
    """
    array = label_array(labels)
    if array.dtype.kind == "U":  # sorting a million texts takes seconds, looking them up does not
        found = pa.array(array).dictionary_encode()
        names = found.dictionary.to_pylist()
        places = np.empty(len(names), np.int64)
        places[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
        return Strata(places[found.indices.to_numpy()], tuple(sorted(names)))
    values, numbers = np.unique(array, return_inverse=True)
    return Strata(numbers.astype(np.int64), tuple(class_name(value) for value in values.tolist()))


def bin_strata(labels: ArrayLike, *, bins: Bins = "auto") -> Strata:
    """Return the bin of each row's continuous label.

    "auto" gives every value its own bin where all are whole numbers, else the least number of equal bins that is at
    least twice the cube root of the number of rows (the Rice rule); "integer" insists on whole numbers; a number makes
    that many equal bins; edges are taken as they are: the last bin holds its right edge, and a label outside raises
    LabelError.

    >>> bin_strata([61, 35, 61]).names
    ('35', '61')
    >>> bin_strata([0.0, 4.5, 10.0], bins=2).names
    ('[0, 5)', '[5, 10]')
    >>> bin_strata([30.0, 61.0], bins=(0, 40, 100)).numbers.tolist()
    [0, 1]
    """
    array = label_array(labels)
    if array.dtype.kind not in "iuf":
        kind = "booleans" if array.dtype.kind == "b" else "text"
        raise LabelError(f"labels are {kind}, not numbers; UniformLabels is for regression, take BalancedClasses")
    values = array.astype(np.float64)
    whole = bool((values == np.floor(values)).all())
    if bins == "integer" and not whole:
        raise LabelError(
            f"bins='integer' needs whole labels; found {values[values != np.floor(values)][0]:g}; "
            "take bins='auto' or a number of bins"
        )
    if bins == "integer" or (bins == "auto" and whole):
        distinct, numbers = np.unique(array, return_inverse=True)
        names = tuple(class_name(value) for value in distinct.tolist())
        return Strata(numbers.astype(np.int64), names, values, None, distinct.astype(np.float64))
    if isinstance(bins, tuple):
        edges = np.array(bins, np.float64)
        _refuse_outside(values, edges)
        found = np.minimum(np.searchsorted(edges, values, side="right") - 1, len(edges) - 2)
    else:
        count = _rice(len(values)) if isinstance(bins, str) else bins
        edges, found = _equal_bins(values, count)
    occupied, numbers = np.unique(found, return_inverse=True)
    names = tuple(
        f"[{edges[k]:.4g}, {edges[k + 1]:.4g}{']' if k == len(edges) - 2 else ')'}" for k in occupied.tolist()
    )
    return Strata(numbers.astype(np.int64), names, values, edges, occupied.astype(np.float64))


def _rice(rows: int) -> int:
    """Return the least k with k**3 >= 8 rows, in whole numbers: a power in floats may differ between machines."""
    k = max(int(2 * rows ** (1 / 3)) - 1, 1)
    while k**3 < 8 * rows:
        k += 1
    return k


def _equal_bins(values: NDArray[np.float64], count: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    low, high = float(values.min()), float(values.max())
    if low == high:
        return np.array([low, high]), np.zeros(len(values), np.int64)
    scale = 0.25 if max(abs(low), abs(high)) > 1e300 else 1.0  # the span of the largest floats would be infinite
    share = (values * scale - low * scale) / (high * scale - low * scale)
    steps = np.arange(count + 1) / count
    return low * (1 - steps) + high * steps, np.minimum((share * count).astype(np.int64), count - 1)


def _refuse_outside(values: NDArray[np.float64], edges: NDArray[np.float64]) -> None:
    outside = (values < edges[0]) | (values > edges[-1])
    if outside.any():
        raise LabelError(
            f"{int(outside.sum())} labels lie outside the bins, {edges[0]:g} to {edges[-1]:g}; the labels run from "
            f"{values.min():g} to {values.max():g}; widen the first or last edge"
        )


def check_bins(bins: object) -> Bins:
    """Return a bins setting in its frozen form. Raises SettingError.

    >>> check_bins([0, 40, 100])
    (0.0, 40.0, 100.0)
    """
    if isinstance(bins, str):
        if bins == "auto":
            return "auto"
        if bins == "integer":
            return "integer"
        raise SettingError(f"bins={bins!r} is not a rule; {did_you_mean(bins, ('auto', 'integer'))}")
    if isinstance(bins, int | np.integer) and not isinstance(bins, bool):
        if bins < 1:
            raise SettingError(f"bins={bins} must be at least 1")
        return int(bins)
    if not isinstance(bins, Sequence | np.ndarray) or len(bins) < 2:
        raise SettingError(f"bins={bins!r} must be 'auto', 'integer', a number of bins, or at least two edges")
    edges = tuple(float(edge) for edge in bins)
    if not all(low < high for low, high in pairwise(edges)) or not np.isfinite(edges).all():
        raise SettingError(f"bins={list(edges)} must be finite edges that rise")
    return edges
