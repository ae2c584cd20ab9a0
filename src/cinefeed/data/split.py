"""Grouped, stratified splits and folds of arrays, the same on every machine.

Groups are shuffled by raw Philox words. Stratum by stratum, and large groups first, each group is assigned to the part
with the largest deficit of rows. Deficits are carried over to the next stratum, in integers, so that a split depends
neither on the order of a sum nor on the order of the rows:

stratum a: 5 groups of one row, 0.6 / 0.2 / 0.2     t t t v e
stratum b: 3 groups of one row, 0.6 / 0.2 / 0.2     t t v           deficits: 0.6 rows for e, -0.4 rows for v
"""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cinefeed.core.errors import SplitError
from cinefeed.core.rng import Stage, permutation_for
from cinefeed.core.text import count_having
from cinefeed.data.label_types import Kind, class_name, label_type

PARTS = ("train", "val", "test")

_QUANTILES = 10


class Encoded(NamedTuple):
    """Values as numbers of the sorted distinct values; -1 for missing values."""

    codes: NDArray[np.int64]
    values: list[Any]


def encode(values: Any) -> Encoded:
    """Return the values as numbers, 0 for the smallest; independent of the order of rows.

    >>> encode(["b", "a", None, "b"])
    Encoded(codes=array([ 1,  0, -1,  1]), values=['a', 'b'])
    """
    array = _arrow(values)
    distinct = array.unique().drop_null()
    distinct = distinct.take(pc.array_sort_indices(distinct))
    codes = pc.fill_null(pc.index_in(array, value_set=distinct), -1)
    return Encoded(codes.to_numpy(zero_copy_only=False).astype(np.int64), distinct.to_pylist())


def assign_parts(
    *,
    groups: Any,
    labels: Any = None,
    fractions: Mapping[str, float | Fraction],
    seed: int,
    previous_parts: Any = None,
    group_name: str = "group",
    label_name: str = "label",
    kind: Kind | None = None,
) -> NDArray[np.int64]:
    """Return the part of each row, int64 (rows,), as the position of its name in `fractions`.

    No group is in two parts. Every class is in every part, if it has enough groups.

    Args:
        groups: Group of each row, such as the patient, (rows,).
        labels: Label of each row to stratify by, (rows,). Each part gets its share of each class (by the most frequent
            class of a group), or of each tenth of the groups in the order of their mean number; of fewer, larger ranges
            if there are fewer than 20 groups for each part.
        fractions: Share of each part by name, with a sum of one.
        seed: Seed of the split.
        previous_parts: Name of the part that each row already has, or None, (rows,). Their groups keep their parts.
        group_name: Name of the groups in messages.
        label_name: Name of the labels in messages.
        kind: Whether labels are classes or numbers; by default as in `label_types`.

    Raises SplitError if groups or labels are missing or do not allow the split.

    >>> groups = ["p1", "p1", "p2", "p3", "p4", "p5"]
    >>> assign_parts(groups=groups, fractions={"train": 0.6, "val": 0.2, "test": 0.2}, seed=7).tolist()
    [0, 0, 0, 0, 1, 2]
    """
    names = list(fractions)
    weights = _weights(fractions)
    group, sizes = _groups(groups, group_name)
    num_parts = sum(weight > 0 for weight in weights)
    if len(sizes) < num_parts:
        cross_validation = f", or cross-validate, so that each is tested once: train --folds {len(sizes)}"
        raise SplitError(
            f"{num_parts} parts need at least {num_parts} groups; there {_are(len(sizes), group_name)}; split by a "
            f"finer group, use fewer parts (a fraction of 0: --val 0){cross_validation * (len(sizes) > 1)}"
        )
    strata, required = _strata(labels, group, parts=num_parts, group_name=group_name, label_name=label_name, kind=kind)
    fixed = np.full(len(sizes), -1)
    if previous_parts is not None:
        fixed = _fixed_parts(previous_parts, group=group, names=names, group_name=group_name)
    parts = _assign(sizes=sizes, strata=strata, weights=weights, seed=seed, fixed=fixed, required=required)
    return parts[group.codes]


def assign_folds(
    *,
    groups: Any,
    labels: Any = None,
    folds: int,
    seed: int,
    group_name: str = "group",
    label_name: str = "label",
    kind: Kind | None = None,
) -> NDArray[np.int64]:
    """Return the fold of each row, int64 (rows,), from 0 to `folds` - 1.

    The arguments are those of `assign_parts`. Raises SplitError if groups or labels do not allow the folds.

    >>> sorted(assign_folds(groups=["a", "b", "c"], folds=3, seed=7).tolist())
    [0, 1, 2]
    """
    if isinstance(folds, bool) or not isinstance(folds, int) or folds < 2:
        raise SplitError(f"folds={folds!r} must be a whole number of at least 2")
    group, sizes = _groups(groups, group_name)
    if len(sizes) < folds:
        raise SplitError(
            f"{folds} folds need at least {folds} groups; there {_are(len(sizes), group_name)}; use at most "
            f"{len(sizes)} folds"
        )
    strata, required = _strata(labels, group, parts=folds, group_name=group_name, label_name=label_name, kind=kind)
    fixed = np.full(len(sizes), -1)
    parts = _assign(sizes=sizes, strata=strata, weights=[1] * folds, seed=seed, fixed=fixed, required=required)
    return parts[group.codes]


def check_groups(*, groups: Any, parts: Any, group_name: str = "group") -> None:
    """Raise SplitError if a group is in two parts."""
    group, _ = _groups(groups, group_name)
    part = encode(parts)
    first = np.full(len(group.values), -1)
    first[group.codes] = part.codes
    leaking = np.unique(group.codes[first[group.codes] != part.codes])
    if len(leaking):
        names = ", ".join(str(group.values[code]) for code in leaking[:3])
        raise SplitError(
            f"{len(leaking)} of {len(group.values)} values of {group_name!r} are in more than one part "
            f"(first: {names}); correct the split, or make a new one"
        )


def _arrow(values: Any) -> Any:
    array = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, from_pandas=True)
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    return pc.if_else(pc.is_nan(array), None, array) if pa.types.is_floating(array.type) else array


def _are(count: int, group_name: str) -> str:
    return f"is 1 value of {group_name!r}" if count == 1 else f"are {count} values of {group_name!r}"


def _weights(fractions: Mapping[str, float | Fraction]) -> list[int]:
    """Return integers in the ratio of the fractions, which are interpreted as decimals."""
    for name, value in fractions.items():
        if not (isinstance(value, int | float | Fraction) and not isinstance(value, bool) and 0 <= float(value) < 1):
            raise SplitError(f"{name}={value!r} must be a fraction of at least 0 and less than 1")
    exact = [Fraction(str(value)) for value in fractions.values()]
    if not exact or abs(sum(exact, Fraction(0)) - 1) > Fraction(1, 10**9):
        raise SplitError(f"the fractions {dict(fractions)} must sum to 1")
    denominator = math.lcm(*(fraction.denominator for fraction in exact))
    return [int(fraction * denominator) for fraction in exact]


def _groups(groups: Any, name: str) -> tuple[Encoded, NDArray[np.int64]]:
    group = encode(groups)
    if len(group.codes) == 0:
        raise SplitError("there are no rows to split; check the filters")
    missing = int((group.codes < 0).sum())
    if missing:
        raise SplitError(
            f"{count_having(missing, len(group.codes), 'row')} no {name!r}, so rows of one group could be in two "
            f"parts; fill the column, or leave those rows out with manifest.drop_missing({name!r}) (--drop-missing)"
        )
    return group, np.bincount(group.codes)


def _strata(
    labels: Any, group: Encoded, *, parts: int, group_name: str, label_name: str, kind: Kind | None
) -> tuple[NDArray[np.int64], bool]:
    """Return the stratum of each group, and whether each stratum has to be in every part."""
    count = len(group.values)
    if labels is None:
        return np.zeros(count, np.int64), False
    array = _arrow(labels)
    if array.null_count:
        raise SplitError(
            f"{count_having(array.null_count, len(array), 'row')} no {label_name!r} to stratify by; "
            f"leave them out with manifest.drop_missing({label_name!r}) (--drop-missing), or use another column"
        )
    if (kind or label_type(array).kind) == "classes":
        return _class_strata(encode(array), group, parts=parts, group_name=group_name, label_name=label_name), True
    values = array.cast(pa.float64(), safe=False).to_numpy()
    order = np.lexsort((values, group.codes))  # a sum in sorted order does not depend on the order of the rows
    sums = np.bincount(group.codes[order], weights=values[order])
    means = sums / np.bincount(group.codes)
    sorted_means = np.sort(means)
    if sorted_means[0] == sorted_means[-1]:
        raise SplitError(f"{label_name!r} is {sorted_means[0]:g} for every {group_name!r}; leave out stratify")
    bins = max(1, min(_QUANTILES, count // (2 * parts)))
    edges = np.unique(sorted_means[np.arange(1, bins) * count // bins])
    return np.searchsorted(edges, means, side="right").astype(np.int64), False


def _class_strata(label: Encoded, group: Encoded, *, parts: int, group_name: str, label_name: str) -> NDArray[np.int64]:
    if len(label.values) == 1:
        raise SplitError(f"{label_name!r} has one class only, {label.values[0]!r}; leave out stratify")
    width = len(label.values)
    pairs, rows = np.unique(group.codes * width + label.codes, return_counts=True)
    pair_group, pair_class = pairs // width, pairs % width
    group_counts = np.bincount(pair_class, minlength=width)
    if group_counts.min() < parts:
        rarest = int(np.argmin(group_counts))
        raise SplitError(
            f"class {class_name(label.values[rarest])!r} of {label_name!r} has {group_counts[rarest]} {group_name!r}, "
            f"but {parts} parts need one each; leave the class out with where (--where), merge it, use fewer parts "
            "(--val 0), or leave out stratify"
        )
    # the most frequent class of a group; if two are equally frequent, the one with fewer groups
    order = np.lexsort((-pair_class, -group_counts[pair_class], rows, pair_group))
    strata = np.zeros(len(group.values), np.int64)
    strata[pair_group[order]] = pair_class[order]
    # A class that is the most frequent one in too few groups gets all groups that contain it. The rarest class is
    # assigned last, so it has precedence.
    for code in np.argsort(-group_counts, kind="stable"):
        if (strata == code).sum() < parts:
            strata[pair_group[pair_class == code]] = code
    return strata


def _fixed_parts(previous_parts: Any, *, group: Encoded, names: Sequence[str], group_name: str) -> NDArray[np.int64]:
    """Return the previous part of each group, -1 for new groups."""
    array = _arrow(previous_parts)
    is_old = array.is_valid().to_numpy(zero_copy_only=False)
    parts = pc.index_in(array, value_set=pa.array(names)).fill_null(-1).to_numpy(zero_copy_only=False)
    is_unknown = is_old & (parts < 0)
    if is_unknown.any():
        name = array[int(np.argmax(is_unknown))].as_py()
        raise SplitError(f"the split to keep has an unknown part {name!r}; the parts are: {', '.join(names)}")
    if is_old.any():
        old_groups = pa.array(group.values).take(pa.array(group.codes[is_old]))
        check_groups(groups=old_groups, parts=array.drop_null(), group_name=group_name)
    fixed = np.full(len(group.values), -1)
    fixed[group.codes[is_old]] = parts[is_old]
    return fixed


def _assign(
    *,
    sizes: NDArray[np.int64],
    strata: NDArray[np.int64],
    weights: list[int],
    seed: int,
    fixed: NDArray[np.int64],
    required: bool,
) -> NDArray[np.int64]:
    """Return the part of each group. Sums are integers, in units of 1 / (sum of the weights) rows."""
    total_weight = sum(weights)
    nonempty = [part for part, weight in enumerate(weights) if weight]
    parts = fixed.copy()
    shuffled = permutation_for(seed, stage=Stage.SPLIT, count=len(sizes))
    # Large groups first, by power of two. Groups of the same power are in random order, so that the seed matters.
    magnitude = np.frexp(sizes.astype(np.float64))[1]
    order = shuffled[np.lexsort((-magnitude[shuffled], strata[shuffled]))]
    deficits = [0] * len(weights)
    for members in np.split(order, np.flatnonzero(np.diff(strata[order])) + 1):
        rows = int(sizes[members].sum())
        old = members[fixed[members] >= 0]
        old_rows = np.bincount(fixed[old], weights=sizes[old], minlength=len(weights)).astype(np.int64).tolist()
        deficits = [
            deficit + weight * rows - total_weight * part_rows
            for deficit, weight, part_rows in zip(deficits, weights, old_rows, strict=True)
        ]
        new = members[fixed[members] < 0]
        new_parts = []
        for size in sizes[new].tolist():
            part = deficits.index(max(deficits))
            deficits[part] -= total_weight * size
            new_parts.append(part)
        parts[new] = new_parts
        if required:
            _fill_empty(
                parts, members=members, new=new, sizes=sizes, nonempty=nonempty, deficits=deficits, unit=total_weight
            )
    new = shuffled[fixed[shuffled] < 0]
    _fill_empty(parts, members=shuffled, new=new, sizes=sizes, nonempty=nonempty, deficits=deficits, unit=total_weight)
    return parts


def _fill_empty(
    parts: NDArray[np.int64],
    *,
    members: NDArray[np.int64],
    new: NDArray[np.int64],
    sizes: NDArray[np.int64],
    nonempty: list[int],
    deficits: list[int],
    unit: int,
) -> None:
    """Move a group to each part without one of the `members`: the smallest new group of the part with most groups.

    `parts` and `deficits` are changed in place. `nonempty` are the parts that must have a group.
    """
    for part in nonempty:
        counts = np.bincount(parts[members], minlength=len(deficits))
        source = int(np.argmax(counts))
        candidates = new[parts[new] == source]
        if counts[part] or counts[source] < 2 or not len(candidates):
            continue
        smallest = candidates[int(np.argmin(sizes[candidates]))]
        parts[smallest] = part
        deficits[part] -= unit * int(sizes[smallest])
        deficits[source] += unit * int(sizes[smallest])
