"""Strata of rows: the class of each row, or the bin of its continuous label."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from cinefeed.core.errors import LabelError, SettingError, did_you_mean
from cinefeed.core.text import count_having
from cinefeed.data.label_types import class_name

Bins = Literal["auto", "integer"] | int | tuple[float, ...]


class Strata(NamedTuple):
    """The class or label bin of each row; only non-empty ones are numbered.

    `numbers` is the stratum of each row, int64 (rows,), and `names` the name of each stratum. For bins, `values` are
    the labels, float64 (rows,), `edges` are the bin edges, including those of empty bins, and `places` (strata,) is the
    bin number of each stratum. For integer bins, `edges` is None and `places` are the label values. For classes, all
    three are None.
    """

    numbers: NDArray[np.int64]
    names: tuple[str, ...]
    values: NDArray[np.float64] | None = None
    edges: NDArray[np.float64] | None = None
    places: NDArray[np.float64] | None = None

    @property
    def kind(self) -> str:
        """The kind of stratum: "class" or "bin"."""
        return "class" if self.values is None else "bin"

    @property
    def counts(self) -> NDArray[np.int64]:
        """The number of rows in each stratum, int64 (strata,)."""
        return np.bincount(self.numbers, minlength=len(self.names)).astype(np.int64)


def label_array(labels: ArrayLike) -> NDArray[Any]:
    """Return labels as a one-dimensional array of numbers, booleans or text.

    Raises LabelError for missing labels, and for labels of another shape or type.

    >>> label_array(["sick", "well"]).tolist()
    ['sick', 'well']
    """
    array = np.asarray(labels)
    if array.ndim != 1:
        raise LabelError(f"labels must be one value per row; found an array of shape {array.shape}")
    if array.size == 0:
        raise LabelError("there are no labels: the table has no rows; check the filters and the split")
    if array.dtype == object:
        missing = np.array([value is None or value != value for value in array])  # only NaN differs from itself
        _refuse(missing, "no label")
        array = np.asarray(array.tolist())
    if array.dtype.kind == "f":
        _refuse(np.isnan(array), "a NaN label")
        _refuse(np.isinf(array), "an infinite label")
    if array.dtype.kind not in "biufU":
        raise LabelError(f"labels must be numbers, booleans or text; found {array.dtype}")
    return array


def _refuse(faulty: NDArray[np.bool_], what: str) -> None:
    if faulty.any():
        rows = np.flatnonzero(faulty)
        first = ", ".join(map(str, rows[:5].tolist())) + (", ..." if len(rows) > 5 else "")
        raise LabelError(
            f"{count_having(len(rows), len(faulty), 'row')} {what} (rows {first}); "
            "fill them in, or filter them out of the manifest"
        )


def group_numbers(groups: ArrayLike, *, rows: int) -> NDArray[np.int64]:
    """Return the group number of each row, int64 (rows,), from group names. Raises LabelError for missing groups.

    >>> group_numbers(["p7", "p2", "p7"], rows=3).tolist()
    [1, 0, 1]
    """
    try:
        names = label_array(groups)
    except LabelError as error:
        raise LabelError(f"groups: {error}") from error
    if len(names) != rows:
        raise LabelError(f"there are {len(names)} groups for {rows} labels; give one group per row")
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def class_strata(labels: ArrayLike) -> Strata:
    """Return strata by class, numbered in sorted order.

    >>> class_strata(["well", "sick", "well"])
    Strata(numbers=array([1, 0, 1]), names=('sick', 'well'), values=None, edges=None, places=None)
    """
    array = label_array(labels)
    if array.dtype.kind == "U":  # faster than np.unique, which takes seconds to sort a million strings
        encoded = pa.array(array).dictionary_encode()
        names = encoded.dictionary.to_pylist()
        ranks = np.empty(len(names), np.int64)
        ranks[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
        return Strata(ranks[encoded.indices.to_numpy()], tuple(sorted(names)))
    values, numbers = np.unique(array, return_inverse=True)
    return Strata(numbers.astype(np.int64), tuple(class_name(value) for value in values.tolist()))


def bin_strata(labels: ArrayLike, *, bins: Bins = "auto") -> Strata:
    """Return strata by bins of a continuous label.

    `bins` is one of the following:

    "auto"     one bin per value if all labels are integers; otherwise equal bins, twice the cube root of the number of
               rows, rounded up (the Rice rule)
    "integer"  one bin per value
    a number   that many bins of equal width
    edges      bins between these edges; the last bin includes its right edge

    Raises LabelError for labels that are not numbers, for non-integer labels with "integer", and for labels outside
    the edges.

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
        raise LabelError(
            f"bins need numeric labels; found {kind}; UniformLabels is for regression, use BalancedClasses"
        )
    values = array.astype(np.float64)
    are_integers = bool((values == np.floor(values)).all())
    if bins == "integer" and not are_integers:
        raise LabelError(
            f"bins='integer' needs integer labels; found {values[values != np.floor(values)][0]:g}; "
            "use bins='auto' or a number of bins"
        )
    if bins == "integer" or (bins == "auto" and are_integers):
        distinct, numbers = np.unique(array, return_inverse=True)
        names = tuple(class_name(value) for value in distinct.tolist())
        return Strata(numbers.astype(np.int64), names, values, None, distinct.astype(np.float64))
    if isinstance(bins, tuple):
        edges = np.array(bins, np.float64)
        _refuse_outside(values, edges)
        bin_of_row = np.minimum(np.searchsorted(edges, values, side="right") - 1, len(edges) - 2)
    else:
        count = _rice(len(values)) if isinstance(bins, str) else bins
        edges, bin_of_row = _equal_bins(values, count)
    nonempty, numbers = np.unique(bin_of_row, return_inverse=True)
    names = tuple(
        f"[{edges[k]:.4g}, {edges[k + 1]:.4g}{']' if k == len(edges) - 2 else ')'}" for k in nonempty.tolist()
    )
    return Strata(numbers.astype(np.int64), names, values, edges, nonempty.astype(np.float64))


def _rice(rows: int) -> int:
    """Return the smallest k with k**3 >= 8 * rows, in integers: a floating-point power may differ between machines."""
    k = max(int(2 * rows ** (1 / 3)) - 1, 1)
    while k**3 < 8 * rows:
        k += 1
    return k


def _equal_bins(values: NDArray[np.float64], count: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    low, high = float(values.min()), float(values.max())
    if low == high:
        return np.array([low, high]), np.zeros(len(values), np.int64)
    scale = 0.25 if max(abs(low), abs(high)) > 1e300 else 1.0  # the range of the largest floats would be infinite
    share = (values * scale - low * scale) / (high * scale - low * scale)
    steps = np.arange(count + 1) / count
    return low * (1 - steps) + high * steps, np.minimum((share * count).astype(np.int64), count - 1)


def _refuse_outside(values: NDArray[np.float64], edges: NDArray[np.float64]) -> None:
    outside = (values < edges[0]) | (values > edges[-1])
    if outside.any():
        raise LabelError(
            f"{int(outside.sum())} labels are outside the bins, {edges[0]:g} to {edges[-1]:g}; the labels range from "
            f"{values.min():g} to {values.max():g}; move the first or last edge"
        )


def check_bins(bins: object) -> Bins:
    """Return the setting `bins`, with edges as a tuple. Raises SettingError for an invalid setting.

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
        raise SettingError(
            f"bins={bins!r} must be 'auto', 'integer', a number of bins, or a list of at least two edges"
        )
    edges = tuple(float(edge) for edge in bins)
    if not all(low < high for low, high in pairwise(edges)) or not np.isfinite(edges).all():
        raise SettingError(f"bins={list(edges)} must be finite, increasing edges")
    return edges
