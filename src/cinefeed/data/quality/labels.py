"""Findings about labels: missing, constant, outlying or rare ones, and values with several spellings."""

import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cinefeed.core.text import format_count
from cinefeed.data.label_types import LabelType, class_name
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.quality.findings import Finding, finding
from cinefeed.data.quality.groups import Groups, groups_of, parts_of
from cinefeed.data.split import PARTS, Encoded, encode

# Robust z-score of a number: its distance from the median, divided by 1.4826 times the median distance on that side of
# the median (the standard deviation of normal numbers, of which 1 in 500 million lies beyond 6). Each side has its own
# scale; otherwise all numbers in a long tail would be outliers.
_FAR = 6.0
_ROBUST = 1.4826
_MOST_VALUES, _FEWEST_ROWS, _UNITS_PER_VALUE = 32, 20, 3  # of a column that has one label per value
_SKEWED = 10  # ratio of the sizes of the largest and the smallest class


def label_findings(
    manifest: Manifest, *, target: str, group: str | None
) -> tuple[list[Finding], dict[str, dict[str, int]]]:
    """Return findings about a label, and the counts of rows and groups per class (empty for numbers)."""
    values = manifest.column(target)
    missing = np.flatnonzero(values.is_null(nan_is_null=True).to_numpy(zero_copy_only=False))
    findings = _missing_findings(missing, len(values), target)
    present_values = values.drop_null()
    if len(missing) == len(values):
        return findings, {}
    if len(present_values.unique()) == 1:
        findings.append(
            finding(
                "error",
                "label_constant",
                f"{target} is {present_values[0].as_py()} in every row",
                detail="A model cannot learn from a constant label.",
                advice="select another --target, or other rows with --where",
                count=len(present_values),
            )
        )
    kind = manifest.label_type(target)
    if not kind.is_classes:
        return findings + _outlier_findings(values, target) + _grade_findings(
            kind, target, count=len(present_values)
        ), {}
    label, groups, parts = encode(values), groups_of(manifest, group), parts_of(manifest)
    classes = _count(label, groups, parts)
    if kind.others:  # that each number is a rare class has this reason
        return [*findings, _text_finding(kind, values, target)], classes
    return [
        *findings,
        *_rarity_findings(classes, label, groups, parts, target),
        *_mixed_group_findings(label, groups, target),
    ], classes


def spelling_findings(manifest: Manifest, names: Iterable[str]) -> list[Finding]:
    """Return findings about values of text columns that differ only in case, spaces, hyphens or leading zeros.

    Such as "Covid" and "covid ", or "0037" and "37".
    """
    findings = []
    for name in dict.fromkeys(names):
        column = manifest.column(name)
        if not pa.types.is_string(column.type):
            continue
        values = encode(column)
        forms: dict[str, list[int]] = {}
        for code, value in enumerate(values.values):
            text = re.sub(r"[\s_-]+", " ", value).strip().casefold()
            forms.setdefault(re.sub(r"(?<![\d.,])0+(?=\d)", "", text), []).append(code)
        variants = [codes for codes in forms.values() if len(codes) > 1]
        if not variants:
            continue
        rows = np.flatnonzero(np.isin(values.codes, [code for codes in variants for code in codes]))
        examples = "; ".join(" = ".join(repr(values.values[code]) for code in codes) for codes in variants[:5])
        findings.append(
            finding(
                "warning",
                "spellings",
                f"{format_count(len(variants), 'value')} of {name} with more than one spelling",
                detail=f"{examples}{' ...' if len(variants) > 5 else ''}: each spelling is a separate value.",
                advice="use one spelling per value in the table of labels, and scan again",
                rows=rows,
                remarks=[repr(column[row].as_py()) for row in rows.tolist()],
            )
        )
    return findings


def _missing_findings(rows: NDArray[np.int64], count: int, target: str) -> list[Finding]:
    if len(rows) == 0:
        return []
    is_whole_column = len(rows) == count
    return [
        finding(
            "error" if is_whole_column else "warning",
            "labels_missing",
            f"{format_count(len(rows), 'row')} of {count:,} without {target}",
            detail="Training stops at a row without a label, unless such rows are left out.",
            advice="check the table of labels" if is_whole_column else "fill them in, or train with --drop-missing",
            rows=rows,
        )
    ]


def _grade_findings(kind: LabelType, target: str, *, count: int) -> list[Finding]:
    """Return a note about whole numbers that may be classes."""
    if kind.grades is None:
        return []
    low, high = kind.grades
    return [
        finding(
            "note",
            "numbers_like_classes",
            f"{target} has the whole numbers {low} to {high}, each at least twice",
            detail="They are used as numbers, for a regression.",
            advice="if they are classes, pass --task multiclass, here and in training",
            count=count,
        )
    ]


def _text_finding(kind: LabelType, values: Any, target: str) -> Finding:
    """Return a warning about text that is not numbers because of a few values."""
    rows = np.flatnonzero(np.isin(np.array(values.to_pylist(), object), kind.others))
    return finding(
        "warning",
        "numbers_as_text",
        f"{target} is text, but {kind.others_in_words}",
        detail="Because of these, each number is a class, and a regression is not possible.",
        advice="write them as numbers in the table of labels, or leave them empty, and scan again; if all values are "
        "classes, pass --task multiclass, here and in training",
        rows=rows,
        remarks=[repr(values[row].as_py()) for row in rows.tolist()],
    )


def _outlier_findings(values: Any, target: str) -> list[Finding]:
    numbers = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    infinite_rows = np.flatnonzero(np.isinf(numbers))
    findings = []
    if len(infinite_rows):
        findings.append(
            finding(
                "error",
                "labels_infinite",
                f"{format_count(len(infinite_rows), 'row')} with an infinite {target}",
                detail="They make the loss infinite or undefined.",
                advice="correct them in the table of labels",
                rows=infinite_rows,
            )
        )
    finite_numbers = numbers[np.isfinite(numbers)]
    median = np.median(finite_numbers)
    z = np.zeros(len(numbers))
    for sign in (1, -1):
        side = sign * (finite_numbers - median)
        deviation = _ROBUST * np.median(side[side >= 0])
        if deviation > 0:
            z = np.fmax(z, np.where(np.isfinite(numbers), sign * (numbers - median) / deviation, 0.0))
    outliers = np.flatnonzero(z > _FAR)
    outliers = outliers[np.argsort(-z[outliers], kind="stable")]
    if len(outliers):
        findings.append(
            finding(
                "warning",
                "labels_far_out",
                f"{format_count(len(outliers), 'row')} with an outlying {target}",
                detail=f"The median is {median:.4g}; these are more than {_FAR:g} robust standard deviations from it. "
                f"They have a large influence on a mean squared error.",
                advice="check them for errors of unit or decimal point; keep them if they are right",
                rows=outliers,
                remarks=[f"{target} {numbers[row]:.6g}" for row in outliers],
            )
        )
    return findings


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
            counts |= {str(name): int((part.codes[rows] == i).sum()) for i, name in _ordered_parts(part.values)}
        classes[class_name(value)] = counts
    return classes


def _ordered_parts(names: list[Any]) -> list[tuple[int, Any]]:
    order = {name: i for i, name in enumerate(PARTS)}
    return sorted(enumerate(names), key=lambda each: (order.get(each[1], len(order)), str(each[1])))


def telling_findings(manifest: Manifest, *, target: str, group: str | None, nuisance: Iterable[str]) -> list[Finding]:
    """Return a note about label columns with few values, each of which has one class of `target`.

    A column with fewer than three groups per value, such as another name of the patient, is not one. Nor are those of
    `nuisance`, which are tested.
    """
    labels = manifest.column(target)
    if not manifest.label_type(target).is_classes or labels.null_count == len(labels):
        return []
    label, groups = encode(labels).codes, groups_of(manifest, group)
    codes = np.arange(len(label)) if groups is None else groups.codes
    columns = []
    for name in manifest.labels:
        column = manifest.column(name)
        if name in (target, group, *nuisance) or pa.types.is_nested(column.type):
            continue
        values = encode(column.cast(pa.string())).codes
        rows = (values >= 0) & (label >= 0)
        count = len(np.unique(values[rows]))
        if rows.sum() < _FEWEST_ROWS or not 1 < count <= _MOST_VALUES or len(np.unique(label[rows])) < 2:
            continue
        num_labels, num_groups = (
            len(np.unique(np.stack([values, each])[:, rows], axis=1).T) for each in (label, codes)
        )
        if num_labels == count and num_groups >= _UNITS_PER_VALUE * count:
            columns.append(f"{name} ({format_count(count, 'value')} in {format_count(int(rows.sum()), 'row')})")
    if not columns:
        return []
    return [
        finding(
            "note",
            "columns_give_label",
            f"each value of {', '.join(columns)} has one {target}",
            detail="A site, device or protocol of this kind would be a shortcut: --nuisance NAME tests it. A code that "
            "is written after the label, or the label in other words, is none.",
            advice="test those with --nuisance that can show in the frames",
        )
    ]


def _rarity_findings(
    classes: Mapping[str, Mapping[str, int]], label: Encoded, groups: Groups | None, parts: Any | None, target: str
) -> list[Finding]:
    """Return findings about classes that are too rare for the parts, absent from a part, or of very different size."""
    findings = []
    unit = "rows" if groups is None else "groups"
    names = [] if parts is None else [name for _, name in _ordered_parts(encode(parts).values)]
    num_parts = len(names) or len(PARTS)
    rare = {name: counts for name, counts in classes.items() if counts[unit] < num_parts}
    if rare:
        examples = ", ".join(
            f"{name} ({format_count(counts[unit], unit[:-1])})" for name, counts in list(rare.items())[:8]
        )
        findings.append(
            finding(
                "warning",
                "classes_rare",
                f"{format_count(len(rare), 'class')} of {target} too rare for {num_parts} parts",
                detail=f"{examples}: each part needs at least one to learn or measure a class.",
                advice="merge rare classes with another one, leave them out with --where, or collect more data",
                rows=np.flatnonzero(np.isin(label.codes, [list(classes).index(name) for name in rare])),
            )
        )
    absent = [(name, part) for name, counts in classes.items() for part in names if counts[str(part)] == 0]
    if absent:
        examples = ", ".join(f"{name} in {part}" for name, part in absent[:8])
        findings.append(
            finding(
                "warning",
                "classes_not_in_part",
                f"{format_count(len({name for name, _ in absent}), 'class')} of {target} not in every part",
                detail=f"There is no {examples}{' ...' if len(absent) > 8 else ''}.",
                advice=f"split again with --stratify {shlex.quote(target)}",
            )
        )
    rows = [counts["rows"] for counts in classes.values()]
    if len(rows) > 1 and max(rows) >= _SKEWED * min(rows):
        findings.append(
            finding(
                "note",
                "classes_skewed",
                f"the classes of {target} differ in size by {max(rows) / min(rows):.0f} times",
                detail=f"They have {min(rows):,} to {max(rows):,} rows: a model may score well without the rare ones.",
                advice="train with --balance, and measure balanced accuracy",
            )
        )
    return findings


def _mixed_group_findings(label: Encoded, groups: Groups | None, target: str) -> list[Finding]:
    if groups is None:
        return []
    group = encode(groups.values)
    has_both = (group.codes >= 0) & (label.codes >= 0)
    pairs = np.unique(np.stack([group.codes[has_both], label.codes[has_both]]), axis=1)
    mixed = np.flatnonzero(np.bincount(pairs[0], minlength=len(group.values)) > 1)
    if len(mixed) == 0:
        return []
    rows = np.flatnonzero(np.isin(group.codes, mixed) & has_both)
    rows = rows[np.argsort(group.codes[rows], kind="stable")]
    return [
        finding(
            "note",
            "groups_of_two_labels",
            f"{len(mixed):,} of {format_count(len(group.values), 'value')} of {groups.name} with more than one "
            f"{target}",
            detail="This is expected if a label describes a view or moment, and an error if it describes the group.",
            advice="inspect them if the label describes the whole group",
            rows=rows,
            remarks=[f"{group.values[group.codes[row]]}: {label.values[label.codes[row]]}" for row in rows],
        )
    ]
