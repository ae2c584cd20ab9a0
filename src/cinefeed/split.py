"""Grouped, stratified splits and folds: arrays in, part numbers out; the same on every machine.

Groups are shuffled by raw Philox words and dealt, stratum by stratum and large ones first, to the part that lacks most
rows. What rounding leaves over in one stratum is carried to the next, in whole numbers, so that neither the order of a
sum nor the order of the rows changes a split:

stratum a: 5 groups of one row, 0.6 / 0.2 / 0.2     t t t v e
stratum b: 3 groups of one row, 0.6 / 0.2 / 0.2     t t v           carried: e lacks 0.6 of a row, v has 0.4 too many

Past 400 lines because what a split lacks is told beside how it is made, by the same codes of groups and labels.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cinefeed.errors import SplitError
from cinefeed.label_types import Kind, class_name, label_type
from cinefeed.rng import Stage, permutation_for
from cinefeed.text import format_percent

PARTS = ("train", "val", "test")

_QUANTILES = 10


class Encoded(NamedTuple):
    """Values as numbers of their sorted distinct values; -1 where there is none."""

    codes: NDArray[np.int64]
    values: list[Any]


def encode(values: Any) -> Encoded:
    """Return the values as numbers, 0 for the smallest, the same in whatever order the rows come.

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
    kept: Any = None,
    group_name: str = "group",
    label_name: str = "label",
    kind: Kind | None = None,
) -> NDArray[np.int64]:
    """Return the part of each row, int64 (rows,), as the position of its name in `fractions`.

    `groups` and `labels` are arrays with one value a row; no group comes in two parts. With `labels`, each part gets
    its share of each class (a group counts for its most frequent one) or of each tenth of a number's range (by the
    group's mean); every class is in every part, where its groups allow. `kind` says which of the two they are, by
    default as `label_types` has it. `kept` names the part that a row has already,
    or None: those groups stay, and only the others are dealt.

    >>> groups = ["p1", "p1", "p2", "p3", "p4", "p5"]
    >>> assign_parts(groups=groups, fractions={"train": 0.6, "val": 0.2, "test": 0.2}, seed=7).tolist()
    [0, 0, 0, 0, 1, 2]

    Raises SplitError where the groups or labels do not allow it.
    """
    names = list(fractions)
    weights = _weights(fractions)
    group, sizes = _groups(groups, group_name)
    used = sum(weight > 0 for weight in weights)
    if len(sizes) < used:
        raise SplitError(
            f"{used} parts were asked for, there {_are(len(sizes), group_name)}; split by a finer group, "
            f"ask for fewer parts (a fraction of 0: --val 0)"
            + (
                f", or cross-validate, so that each is tested once: train --folds {len(sizes)}"
                if len(sizes) > 1
                else ""
            )
        )
    strata, required = _strata(labels, group, parts=used, group_name=group_name, label_name=label_name, kind=kind)
    fixed = np.full(len(sizes), -1)
    if kept is not None:
        fixed = _fixed(kept, group=group, names=names, group_name=group_name)
    dealt = _deal(sizes=sizes, strata=strata, weights=weights, seed=seed, fixed=fixed, required=required)
    return dealt[group.codes]


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
    """Return the fold of each row, int64 (rows,), 0 to `folds` - 1; groups, labels, kind as in `assign_parts`.

    >>> sorted(assign_folds(groups=["a", "b", "c"], folds=3, seed=7).tolist())
    [0, 1, 2]
    """
    if isinstance(folds, bool) or not isinstance(folds, int) or folds < 2:
        raise SplitError(f"folds={folds!r} must be a whole number of at least 2")
    group, sizes = _groups(groups, group_name)
    if len(sizes) < folds:
        raise SplitError(
            f"{folds} folds were asked for, there {_are(len(sizes), group_name)}; ask for at most {len(sizes)} folds"
        )
    strata, required = _strata(labels, group, parts=folds, group_name=group_name, label_name=label_name, kind=kind)
    new = np.full(len(sizes), -1)
    return _deal(sizes=sizes, strata=strata, weights=[1] * folds, seed=seed, fixed=new, required=required)[group.codes]


def check_groups(*, groups: Any, parts: Any, group_name: str = "group") -> None:
    """Raise SplitError where a group comes in two parts."""
    group, _ = _groups(groups, group_name)
    part = encode(parts)
    first = np.full(len(group.values), -1)
    first[group.codes] = part.codes
    leaking = np.unique(group.codes[first[group.codes] != part.codes])
    if len(leaking):
        names = ", ".join(str(group.values[each]) for each in leaking[:3])
        raise SplitError(
            f"{len(leaking)} of {len(group.values)} values of {group_name!r} come in more than one part "
            f"(first: {names}); mend the split, or make a new one"
        )


def _arrow(values: Any) -> Any:
    array = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, from_pandas=True)
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    return pc.if_else(pc.is_nan(array), None, array) if pa.types.is_floating(array.type) else array


def _are(count: int, group_name: str) -> str:
    return f"is 1 value of {group_name!r}" if count == 1 else f"are {count} values of {group_name!r}"


def _weights(fractions: Mapping[str, float | Fraction]) -> list[int]:
    """Return whole numbers in the ratio of the fractions, taken as the decimals that were written."""
    for name, value in fractions.items():
        if not (isinstance(value, int | float | Fraction) and not isinstance(value, bool) and 0 <= float(value) < 1):
            raise SplitError(f"{name}={value!r} must be a fraction of at least 0 and less than 1")
    exact = [Fraction(str(value)) for value in fractions.values()]
    if not exact or abs(sum(exact, Fraction(0)) - 1) > Fraction(1, 10**9):
        raise SplitError(f"the fractions {dict(fractions)} must add up to 1")
    denominator = math.lcm(*(each.denominator for each in exact))
    return [int(each * denominator) for each in exact]


def _groups(groups: Any, name: str) -> tuple[Encoded, NDArray[np.int64]]:
    group = encode(groups)
    if len(group.codes) == 0:
        raise SplitError("there are no rows to split; look at the filters before")
    missing = int((group.codes < 0).sum())
    if missing:
        raise SplitError(
            f"{missing} of {len(group.codes)} rows have no {name!r}, so they could leak from one part into another; "
            f"fill the column, or leave those rows out"
        )
    return group, np.bincount(group.codes)


def _strata(
    labels: Any, group: Encoded, *, parts: int, group_name: str, label_name: str, kind: Kind | None
) -> tuple[NDArray[np.int64], bool]:
    """Return the stratum of each group, and whether each stratum has to come in every part."""
    count = len(group.values)
    if labels is None:
        return np.zeros(count, np.int64), False
    array = _arrow(labels)
    if array.null_count:
        raise SplitError(
            f"{array.null_count} of {len(array)} rows have no {label_name!r} to stratify by; "
            f"leave them out with known({label_name!r}), or choose another column"
        )
    if (kind or label_type(array).kind) == "classes":
        return _class_strata(encode(array), group, parts=parts, group_name=group_name, label_name=label_name), True
    values = array.cast(pa.float64(), safe=False).to_numpy()
    order = np.lexsort((values, group.codes))  # a sum in sorted order does not depend on the order of the rows
    sums = np.bincount(group.codes[order], weights=values[order])
    means = sums / np.bincount(group.codes)
    ranked = np.sort(means)
    if ranked[0] == ranked[-1]:
        raise SplitError(f"{label_name!r} is {ranked[0]:g} for every {group_name!r}; leave out stratify")
    bins = max(1, min(_QUANTILES, count // (2 * parts)))
    edges = np.unique(ranked[np.arange(1, bins) * count // bins])
    return np.searchsorted(edges, means, side="right").astype(np.int64), False


def _class_strata(label: Encoded, group: Encoded, *, parts: int, group_name: str, label_name: str) -> NDArray[np.int64]:
    if len(label.values) == 1:
        raise SplitError(f"{label_name!r} has one class only, {label.values[0]!r}; leave out stratify")
    width = len(label.values)
    pairs, rows = np.unique(group.codes * width + label.codes, return_counts=True)
    pair_group, pair_class = pairs // width, pairs % width
    holders = np.bincount(pair_class, minlength=width)
    if holders.min() < parts:
        rare = int(np.argmin(holders))
        raise SplitError(
            f"class {class_name(label.values[rare])!r} of {label_name!r} has {holders[rare]} {group_name!r}, {parts} "
            "parts need one each; leave the class out with where (--where), merge it, ask for fewer parts (--val 0), "
            "or leave out stratify"
        )
    # the most frequent class of a group; of two as frequent ones, the one that fewer groups have
    order = np.lexsort((-pair_class, -holders[pair_class], rows, pair_group))
    strata = np.zeros(len(group.values), np.int64)
    strata[pair_group[order]] = pair_class[order]
    # A class that is nowhere the most frequent takes its groups from the others, the rarest class last: it wins.
    for each in np.argsort(-holders, kind="stable"):
        if (strata == each).sum() < parts:
            strata[pair_group[pair_class == each]] = each
    return strata


def _fixed(kept: Any, *, group: Encoded, names: Sequence[str], group_name: str) -> NDArray[np.int64]:
    """Return the part that each group has already, -1 for a new one."""
    array = _arrow(kept)
    given = array.is_valid().to_numpy(zero_copy_only=False)
    parts = pc.index_in(array, value_set=pa.array(names)).fill_null(-1).to_numpy(zero_copy_only=False)
    unknown = given & (parts < 0)
    if unknown.any():
        raise SplitError(
            f"the split to keep has a part {array[int(np.argmax(unknown))].as_py()!r}; there are: {', '.join(names)}"
        )
    if given.any():
        held = pa.array(group.values).take(pa.array(group.codes[given]))
        check_groups(groups=held, parts=array.drop_null(), group_name=group_name)
    fixed = np.full(len(group.values), -1)
    fixed[group.codes[given]] = parts[given]
    return fixed


def _deal(
    *,
    sizes: NDArray[np.int64],
    strata: NDArray[np.int64],
    weights: list[int],
    seed: int,
    fixed: NDArray[np.int64],
    required: bool,
) -> NDArray[np.int64]:
    """Return the part of each group. All sums are whole numbers: rows times the sum of the weights."""
    whole = sum(weights)
    used = [part for part, weight in enumerate(weights) if weight]
    result = fixed.copy()
    shuffled = permutation_for(seed, stage=Stage.SPLIT, count=len(sizes))
    # Large groups first, by powers of two: within one, chance decides, or every seed would give the same split.
    magnitude = np.frexp(sizes.astype(np.float64))[1]
    order = shuffled[np.lexsort((-magnitude[shuffled], strata[shuffled]))]
    lacking = [0] * len(weights)
    for members in np.split(order, np.flatnonzero(np.diff(strata[order])) + 1):
        rows = int(sizes[members].sum())
        old = members[fixed[members] >= 0]
        taken = np.bincount(fixed[old], weights=sizes[old], minlength=len(weights)).astype(np.int64).tolist()
        lacking = [
            each + weight * rows - whole * have for each, weight, have in zip(lacking, weights, taken, strict=True)
        ]
        new = members[fixed[members] < 0]
        dealt = []
        for size in sizes[new].tolist():
            part = lacking.index(max(lacking))
            lacking[part] -= whole * size
            dealt.append(part)
        result[new] = dealt
        if required:
            _fill_empty(result, members=members, new=new, sizes=sizes, used=used, lacking=lacking, whole=whole)
    new = shuffled[fixed[shuffled] < 0]
    _fill_empty(result, members=shuffled, new=new, sizes=sizes, used=used, lacking=lacking, whole=whole)
    return result


def _fill_empty(
    result: NDArray[np.int64],
    *,
    members: NDArray[np.int64],
    new: NDArray[np.int64],
    sizes: NDArray[np.int64],
    used: list[int],
    lacking: list[int],
    whole: int,
) -> None:
    """Give each part without a group of these the smallest new one of the part that has most groups, in place."""
    for part in used:
        counts = np.bincount(result[members], minlength=len(lacking))
        donor = int(np.argmax(counts))
        gifts = new[result[new] == donor]
        if counts[part] or counts[donor] < 2 or not len(gifts):
            continue
        gift = gifts[int(np.argmin(sizes[gifts]))]
        result[gift] = part
        lacking[part] -= whole * int(sizes[gift])
        lacking[donor] += whole * int(sizes[gift])


def unseen_classes(*, labels: Any, parts: Any) -> dict[str, dict[str, NDArray[np.int64]]]:
    """Return the classes that no training row has: by class and part the rows that have it.

    >>> unseen_classes(labels=["a", "b", "rare"], parts=["train", "train", "test"])
    {'rare': {'test': array([2])}}
    """
    label, part = encode(labels), encode(parts)
    if "train" not in part.values:
        return {}
    train = part.codes == part.values.index("train")
    unseen: dict[str, dict[str, NDArray[np.int64]]] = {}
    for code in np.setdiff1d(label.codes[label.codes >= 0], label.codes[train]).tolist():
        rows = label.codes == code
        places = {name: np.flatnonzero(rows & (part.codes == number)) for number, name in enumerate(part.values)}
        unseen[class_name(label.values[code])] = {name: each for name, each in places.items() if len(each)}
    return unseen


@dataclass(frozen=True, kw_only=True)
class Balance:
    """What balance a split reached: rows, groups and labels of each part. `print` shows it as a table."""

    parts: tuple[str, ...]
    rows: tuple[int, ...]
    groups: tuple[int, ...]
    group_name: str | None = None
    label_name: str | None = None
    classes: dict[str, tuple[int, ...]] = field(default_factory=dict)  # rows of each class, one a part
    quartiles: tuple[tuple[float, ...], ...] = ()  # smallest, quarter, median, three quarters, largest, one a part
    means: tuple[float, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What stands in the way of learning from these parts, a line each."""
        lines = []
        train = self.parts.index("train") if "train" in self.parts else None
        if train is not None and self.group_name and self.groups[train] == 1:
            lines.append(
                f"the training part has 1 value of {self.group_name!r}, from which nothing can be learnt for others; "
                "name a finer group, or cross-validate, so that each is tested once: train --folds "
                f"{min(max(sum(self.groups), 2), 5)}"
            )
        for name, counts in self.classes.items():
            if train is not None and counts[train] == 0:
                places = " and ".join(f"{self.parts[k]} ({count})" for k, count in enumerate(counts) if count)
                lines.append(
                    f"class {name!r} of {self.label_name!r} is in {places} alone, so training does not know it; split "
                    f"with --stratify {self.label_name}, or leave it out with --where"
                )
        return tuple(lines)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, one entry a part, for JSON."""
        result: dict[str, Any] = {}
        for number, part in enumerate(self.parts):
            entry: dict[str, Any] = {"rows": self.rows[number], "groups": self.groups[number]}
            if self.classes:
                entry["classes"] = {name: counts[number] for name, counts in self.classes.items()}
            if self.quartiles:
                known = not math.isnan(self.means[number])  # JSON has no NaN
                entry["mean"] = self.means[number] if known else None
                entry["quartiles"] = list(self.quartiles[number]) if known else None
            result[part] = entry
        return result

    def __str__(self) -> str:
        total = sum(self.rows)
        table = [["part", "rows", "share", *([self.group_name] if self.group_name else [])]]
        table[0] += [str(name) for name in self.classes]
        table[0] += [f"{self.label_name} mean", "min", "25 %", "median", "75 %", "max"] if self.quartiles else []
        for number, part in enumerate(self.parts):
            rows = self.rows[number]
            line = [part, str(rows), format_percent(rows / total, ".1f")]
            line += [str(self.groups[number])] if self.group_name else []
            line += [
                f"{counts[number]} ({format_percent(counts[number] / max(rows, 1))})"
                for counts in self.classes.values()
            ]
            if self.quartiles:
                line += [f"{each:.4g}" for each in (self.means[number], *self.quartiles[number])]
            table.append(line)
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(
                [line[0].ljust(widths[0]), *(each.rjust(w) for each, w in zip(line[1:], widths[1:], strict=True))]
            )
            for line in table
        ]
        return "\n".join([*lines, *(f"warning: {each}" for each in self.warnings)])


def measure_balance(
    *,
    parts: NDArray[np.int64],
    names: Sequence[str],
    groups: Any = None,
    labels: Any = None,
    group_name: str | None = None,
    label_name: str | None = None,
    kind: Kind | None = None,
) -> Balance:
    """Return the balance of a split, given as the position in `names` of each row's part; empty parts are left out."""
    filled, parts = np.unique(parts, return_inverse=True)
    names = [names[each] for each in filled]
    rows = tuple(np.bincount(parts, minlength=len(names)).tolist())
    counts = rows
    if groups is not None:
        group = encode(groups)
        pairs = np.unique(parts * max(len(group.values), 1) + group.codes)
        counts = tuple(np.bincount(pairs // max(len(group.values), 1), minlength=len(names)).tolist())
    classes: dict[str, tuple[int, ...]] = {}
    quartiles: tuple[tuple[float, ...], ...] = ()
    means: tuple[float, ...] = ()
    if labels is not None and (kind or label_type(labels).kind) == "classes":
        label = encode(labels)
        for code, value in enumerate(label.values):
            classes[class_name(value)] = tuple(np.bincount(parts[label.codes == code], minlength=len(names)).tolist())
    elif labels is not None:
        values = _arrow(labels).cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        each = [values[(parts == number) & ~np.isnan(values)] for number in range(len(names))]
        each = [known if len(known) else np.array([np.nan]) for known in each]
        quartiles = tuple(tuple(np.quantile(known, [0, 0.25, 0.5, 0.75, 1]).tolist()) for known in each)
        means = tuple(float(known.mean()) for known in each)
    return Balance(
        parts=tuple(names),
        rows=rows,
        groups=counts,
        group_name=group_name,
        label_name=label_name,
        classes=classes,
        quartiles=quartiles,
        means=means,
    )
