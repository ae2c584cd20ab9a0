"""Labels that are missing, all the same, far out, rare, or spelt in two ways."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cinefeed.check.findings import Finding, finding
from cinefeed.check.groups import Groups, groups_of, parts_of
from cinefeed.label_types import LabelType, class_name
from cinefeed.manifest.table import Manifest
from cinefeed.split import PARTS, Encoded, encode
from cinefeed.text import format_count

# Robust z of a number: its distance from the median by that side's own median distance, 1.4826 of which are a standard
# deviation where the numbers are normal; 1 of 500 million lies beyond 6 then. Each side has its own, or a long tail
# would be all outliers.
_FAR = 6.0
_ROBUST = 1.4826
_SKEWED = 10  # times as many rows as the rarest class has


def label_findings(
    manifest: Manifest, *, target: str, group: str | None
) -> tuple[list[Finding], dict[str, dict[str, int]]]:
    """Return what is wrong with a label, and the rows and groups of each class (none for numbers)."""
    values = manifest.column(target)
    missing = np.flatnonzero(values.is_null(nan_is_null=True).to_numpy(zero_copy_only=False))
    found = _missing(missing, len(values), target)
    known = values.drop_null()
    if len(missing) == len(values):
        return found, {}
    if len(known.unique()) == 1:
        found.append(
            finding(
                "error",
                "label_constant",
                f"{target} is {known[0].as_py()} in every row",
                detail="Nothing can be learnt from a label that never changes.",
                advice="choose another --target, or other rows with --where",
                count=len(known),
            )
        )
    kind = manifest.label_type(target)
    if not kind.is_classes:
        return found + _far_out(values, target) + _like_classes(kind, target, count=len(known)), {}
    label, groups, parts = encode(values), groups_of(manifest, group), parts_of(manifest)
    classes = _count(label, groups, parts)
    return [*found, *_rare(classes, label, groups, parts, target), *_two_of_a_group(label, groups, target)], classes


def spelling_findings(manifest: Manifest, names: Iterable[str]) -> list[Finding]:
    """Return values of text columns that differ by case, spaces or hyphens alone: "Covid", "covid "."""
    found = []
    for name in dict.fromkeys(names):
        column = manifest.column(name)
        if not pa.types.is_string(column.type):
            continue
        values = encode(column)
        forms: dict[str, list[int]] = {}
        for code, value in enumerate(values.values):
            forms.setdefault(re.sub(r"[\s_-]+", " ", value).strip().casefold(), []).append(code)
        several = [codes for codes in forms.values() if len(codes) > 1]
        if not several:
            continue
        rows = np.flatnonzero(np.isin(values.codes, [code for codes in several for code in codes]))
        said = "; ".join(" = ".join(repr(values.values[code]) for code in codes) for codes in several[:5])
        found.append(
            finding(
                "warning",
                "spellings",
                f"{format_count(len(several), 'value')} of {name} spelt in more than one way",
                detail=f"{said}{' ...' if len(several) > 5 else ''}: each spelling counts as a value of its own.",
                advice="write each value in one way in the table of labels, and scan again",
                rows=rows,
                remarks=[repr(column[row].as_py()) for row in rows.tolist()],
            )
        )
    return found


def _missing(rows: NDArray[np.int64], count: int, target: str) -> list[Finding]:
    if len(rows) == 0:
        return []
    whole = len(rows) == count
    return [
        finding(
            "error" if whole else "warning",
            "labels_missing",
            f"{format_count(len(rows), 'row')} of {count:,} without {target}",
            detail="Training stops at a row without a label, unless such rows are left out.",
            advice="look at the table of labels" if whole else "fill them in, or train with --drop-missing",
            rows=rows,
        )
    ]


def _like_classes(kind: LabelType, target: str, *, count: int) -> list[Finding]:
    """Return the note on whole numbers that may be meant as classes."""
    if kind.grades is None:
        return []
    low, high = kind.grades
    return [
        finding(
            "note",
            "numbers_like_classes",
            f"{target} has the whole numbers {low} to {high}, each at least twice",
            detail="They are taken as numbers, for a regression; where they are classes, write --task multiclass.",
            advice="write --task multiclass, here and in training, where they are classes",
            count=count,
        )
    ]


def _far_out(values: Any, target: str) -> list[Finding]:
    numbers = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    endless = np.flatnonzero(np.isinf(numbers))
    found = []
    if len(endless):
        found.append(
            finding(
                "error",
                "labels_infinite",
                f"{format_count(len(endless), 'row')} with an infinite {target}",
                detail="A loss of them is infinite or undefined.",
                advice="mend them in the table of labels",
                rows=endless,
            )
        )
    known = numbers[np.isfinite(numbers)]
    median = np.median(known)
    z = np.zeros(len(numbers))
    for sign in (1, -1):
        side = sign * (known - median)
        spread = _ROBUST * np.median(side[side >= 0])
        if spread > 0:
            z = np.fmax(z, np.where(np.isfinite(numbers), sign * (numbers - median) / spread, 0.0))
    far = np.flatnonzero(z > _FAR)
    far = far[np.argsort(-z[far], kind="stable")]
    if len(far):
        found.append(
            finding(
                "warning",
                "labels_far_out",
                f"{format_count(len(far), 'row')} with a {target} far from the others",
                detail=f"The median is {median:.4g}; these lie more than {_FAR:g} robust standard deviations away. "
                f"They pull a mean squared error towards themselves.",
                advice="look whether they are slips, of unit or point; keep them where they are real",
                rows=far,
                remarks=[f"{target} {numbers[row]:.6g}" for row in far],
            )
        )
    return found


def _count(label: Encoded, groups: Groups | None, parts: Any | None) -> dict[str, dict[str, int]]:
    classes = {}
    codes = None if groups is None else groups.codes
    part = None if parts is None else encode(parts)
    for code, value in enumerate(label.values):
        rows = np.flatnonzero(label.codes == code)
        counts = {"rows": len(rows)}
        if codes is not None:
            counts["groups"] = len(np.unique(codes[rows]))
        if part is not None:
            counts |= {str(name): int((part.codes[rows] == i).sum()) for i, name in _in_order(part.values)}
        classes[class_name(value)] = counts
    return classes


def _in_order(names: list[Any]) -> list[tuple[int, Any]]:
    known = {name: i for i, name in enumerate(PARTS)}
    return sorted(enumerate(names), key=lambda each: (known.get(each[1], len(known)), str(each[1])))


def _rare(
    classes: Mapping[str, Mapping[str, int]], label: Encoded, groups: Groups | None, parts: Any | None, target: str
) -> list[Finding]:
    """Return classes that cannot be in every part, those that are not, and a long tail."""
    found = []
    unit = "rows" if groups is None else "groups"
    names = [] if parts is None else [name for _, name in _in_order(encode(parts).values)]
    needed = len(names) or len(PARTS)
    rare = {name: counts for name, counts in classes.items() if counts[unit] < needed}
    if rare:
        said = ", ".join(f"{name} ({format_count(counts[unit], unit[:-1])})" for name, counts in list(rare.items())[:8])
        found.append(
            finding(
                "warning",
                "classes_rare",
                f"{format_count(len(rare), 'class')} of {target} too rare for {needed} parts",
                detail=f"{said}: each part needs one at least to learn or to measure a class.",
                advice="merge them with another class, leave them out with --where, or collect more",
                rows=np.flatnonzero(np.isin(label.codes, [list(classes).index(name) for name in rare])),
            )
        )
    lacking = [(name, part) for name, counts in classes.items() for part in names if counts[str(part)] == 0]
    if lacking:
        said = ", ".join(f"{name} in {part}" for name, part in lacking[:8])
        found.append(
            finding(
                "warning",
                "classes_not_in_part",
                f"{format_count(len({name for name, _ in lacking}), 'class')} of {target} not in every part",
                detail=f"There is no {said}{' ...' if len(lacking) > 8 else ''}.",
                advice=f"split again with --stratify {target}",
            )
        )
    rows = [counts["rows"] for counts in classes.values()]
    if len(rows) > 1 and max(rows) >= _SKEWED * min(rows):
        found.append(
            finding(
                "note",
                "classes_skewed",
                f"the classes of {target} differ in size by {max(rows) / min(rows):.0f} times",
                detail=f"From {min(rows):,} to {max(rows):,} rows: a model may do well without the rare ones.",
                advice="train with --balance, and measure balanced accuracy",
            )
        )
    return found


def _two_of_a_group(label: Encoded, groups: Groups | None, target: str) -> list[Finding]:
    if groups is None:
        return []
    group = encode(groups.values)
    known = (group.codes >= 0) & (label.codes >= 0)
    pairs = np.unique(np.stack([group.codes[known], label.codes[known]]), axis=1)
    several = np.flatnonzero(np.bincount(pairs[0], minlength=len(group.values)) > 1)
    if len(several) == 0:
        return []
    rows = np.flatnonzero(np.isin(group.codes, several) & known)
    rows = rows[np.argsort(group.codes[rows], kind="stable")]
    return [
        finding(
            "note",
            "groups_of_two_labels",
            f"{len(several):,} of {format_count(len(group.values), 'value')} of {groups.name} with more than one "
            f"{target}",
            detail="That is as it should be where a label is of a view or moment, and a slip where it is of the group.",
            advice="look at them if the label is of the whole group",
            rows=rows,
            remarks=[f"{group.values[group.codes[row]]}: {label.values[label.codes[row]]}" for row in rows],
        )
    ]
