"""Findings about exact copies and near-duplicates: leaks between parts, conflicting labels, repetition."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.text import format_count
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.quality.exact_duplicates import copies
from cinefeed.data.quality.findings import LOOK_ALIKES, Finding, Pair, finding
from cinefeed.data.quality.frame_summaries import FrameSummaries
from cinefeed.data.quality.groups import groups_of, parts_of
from cinefeed.data.quality.near_duplicates import NearPairs, near_pairs
from cinefeed.data.split import PARTS

_LISTED_PAIRS = 1000
_MANY_ROWS, _MOST_PAIRS = 0.25, 0.5  # shares from which near-duplicates are the look of a data set, and not copies


def duplicate_findings(
    manifest: Manifest, summaries: FrameSummaries, *, target: str | None, group: str | None, workers: int
) -> tuple[list[Finding], list[Pair], list[list[int]]]:
    """Return findings about copies and near-duplicates, their pairs, and the sets of connected rows.

    Pairs are sorted: those across parts of the split first, then by distance. A row may be in one set of copies and in
    one of near-duplicates.
    """
    context = _RowContext(manifest, target=target, group=group)
    copy_sets = copies(manifest, summaries, workers=workers)
    prints = summaries.prints
    followers = [row for rows in copy_sets for row in rows[1:]]
    if followers:
        prints = prints.copy()
        prints[followers] = 0  # the first of a set of copies represents it
    near = near_pairs(prints)
    all_alike = _all_look_alike(near, context)
    near_sets = [] if all_alike else _linked_sets(near)
    pairs = [context.pair(rows[0], row, 0.0, "copy") for rows in copy_sets for row in rows[1:]]
    nearest = zip(near.first.tolist(), near.second.tolist(), near.distance.tolist(), strict=True)
    pairs += [context.pair(first, second, distance, "near_duplicate") for first, second, distance in nearest]
    pairs.sort(key=lambda pair: (not pair.across, pair.distance, pair.first, pair.second))
    findings = [
        *_leak_findings(copy_sets, context, "copies_across_splits", "copies of one file", exact=True),
        *_leak_findings(near_sets, context, LOOK_ALIKES, "nearly the same frames", exact=False),
        *_conflict_findings(copy_sets, context, "copies", target),
        *_conflict_findings(near_sets, context, "near-duplicates", target),
        *_repeat_findings(copy_sets, context, "copies", "copies of another file"),
        *_repeat_findings(near_sets, context, "near_duplicates", "nearly the same frames as another"),
    ]
    if all_alike:
        rows = np.union1d(near.first, near.second)
        findings.append(
            finding(
                "note",
                "videos_look_alike",
                f"{format_count(len(rows), 'video')} with nearly the same frames as another, most with another label",
                detail="The videos of this data set look so similar that near-duplicates cannot be distinguished from "
                "other videos. Copies of whole files are still found, by their content.",
                advice="make sure by other means that no video is in the data set twice, under another id",
            )
        )
    if near.truncated:
        findings.append(
            finding(
                "warning",
                "near_duplicates_truncated",
                f"more than {len(near.first):,} pairs of near-duplicates",
                detail="The search stopped at this number: most of the videos show nearly the same frames.",
                advice="check a part of the rows with --where",
            )
        )
    return findings, pairs[:_LISTED_PAIRS], [*copy_sets, *near_sets]


class _RowContext:
    """Part, group and label of each row, as text."""

    def __init__(self, manifest: Manifest, *, target: str | None, group: str | None) -> None:
        groups, parts = groups_of(manifest, group), parts_of(manifest)
        self.parts = _texts(parts, len(manifest))
        self.groups = _texts(None if groups is None else groups.values, len(manifest))
        self.labels = _texts(None if target is None else manifest.column(target), len(manifest))
        self.is_split = parts is not None

    def remark(self, row: int) -> str:
        """Return part, group and label of a row, to compare it with its duplicates."""
        group = None if self.groups[row] is None else f"group {self.groups[row]}"
        return ", ".join(each for each in (self.parts[row], group, self.labels[row]) if each is not None)

    def pair(self, first: int, second: int, distance: float, kind: Any) -> Pair:
        """Return a pair of rows with their remarks."""
        across = len(self.distinct(self.parts, [first, second])) > 1
        remarks = (self.remark(first), self.remark(second))
        return Pair(first=first, second=second, distance=distance, kind=kind, across=across, remarks=remarks)

    @staticmethod
    def distinct(values: list[str | None], rows: list[int]) -> set[str]:
        """Return the distinct values of these rows."""
        return {value for row in rows if (value := values[row]) is not None}

    def by_part(self, rows: list[int]) -> list[int]:
        """Return the rows with one of each part first, in the order train, val, test."""
        first_rows = {self.parts[row]: row for row in reversed(rows)}
        chosen_rows = [first_rows[part] for part in sorted(first_rows, key=_part_rank) if part is not None]
        return [*chosen_rows, *(row for row in rows if row not in chosen_rows)]

    def remarks(self, sets: list[list[int]]) -> list[str]:
        """Return a remark for each row of the sets."""
        return [f"set {i}: {self.remark(row)}".rstrip(": ") for i, rows in enumerate(sets, start=1) for row in rows]


def _part_rank(part: str | None) -> tuple[int, str]:
    return (PARTS.index(part) if part in PARTS else len(PARTS), part or "")


def _all_look_alike(near: NearPairs, context: _RowContext) -> bool:
    """Return whether many rows have a near-duplicate, and most of these pairs have different labels, unlike copies."""
    rows = np.union1d(near.first, near.second)
    labels = np.array([label or "" for label in context.labels])
    first, second = labels[near.first], labels[near.second]
    differ = (first != second) & (first != "") & (second != "")
    return bool(len(rows) > _MANY_ROWS * len(labels) and differ.mean() > _MOST_PAIRS)


def _texts(column: Any, count: int) -> list[str | None]:
    if column is None:
        return [None] * count
    return [None if value is None else str(value) for value in column.to_pylist()]


def _linked_sets(near: NearPairs) -> list[list[int]]:
    """Return the sets of rows that are connected by pairs."""
    leader: dict[int, int] = {}

    def find(row: int) -> int:
        path = []
        while (above := leader.setdefault(row, row)) != row:
            path.append(row)
            row = above
        for ancestor in path:
            leader[ancestor] = row
        return row

    for first, second in zip(near.first.tolist(), near.second.tolist(), strict=True):
        low, high = sorted((find(first), find(second)))
        leader[high] = low
    sets: dict[int, list[int]] = {}
    for row in sorted(leader):
        sets.setdefault(find(row), []).append(row)
    return list(sets.values())


def _all_rows(sets: list[list[int]]) -> NDArray[np.int64]:
    return np.array([row for rows in sets for row in rows], np.int64)


def _leak_findings(sets: list[list[int]], context: _RowContext, code: str, noun: str, *, exact: bool) -> list[Finding]:
    sets = [context.by_part(rows) for rows in sets if len(context.distinct(context.parts, rows)) > 1]
    if not sets:
        return []
    sets.sort(key=lambda rows: _part_rank(context.parts[rows[0]]))  # those of the training part first
    rows = _all_rows(sets)
    parts = [" and ".join(sorted(context.distinct(context.parts, each), key=_part_rank)) for each in sets]
    return [
        finding(
            "error",
            code,
            f"{format_count(len(rows), 'video')} in more than one part of the split, {noun}",
            detail=f"{format_count(len(sets), 'set')} of videos that "
            + ("have the same bytes" if exact else "are nearly the same in five frames")
            + f". {'They are' if exact else 'One video may be'} in two parts: {', '.join(dict.fromkeys(parts))}.",
            advice="keep one of each set, or split again by groups that keep a set together: 'cinefeed check --groups "
            "groups.csv' on the manifest (of a run: its manifest.parquet), then 'cinefeed split "
            "--group-table groups.csv'",
            rows=rows,
            remarks=context.remarks(sets),
        )
    ]


def _conflict_findings(sets: list[list[int]], context: _RowContext, noun: str, target: str | None) -> list[Finding]:
    sets = [rows for rows in sets if len(context.distinct(context.labels, rows)) > 1]
    if not sets:
        return []
    rows = _all_rows(sets)
    exact = noun == "copies"
    return [
        finding(
            "error" if exact else "warning",
            f"labels_of_{noun.replace('-', '_')}_differ",
            f"{format_count(len(rows), 'video')} with another {target} than "
            + ("a copy" if exact else "a near-duplicate"),
            detail=f"{format_count(len(sets), 'set')} of {noun} with different labels: "
            + (
                "the bytes are the same, so at most one label of each set can be right, unless the labels describe "
                "parts of the video."
                if exact
                else "five frames of each are nearly the same. If they show the same moment, one label is wrong. Two "
                "recordings of one person or scene can look the same and correctly have different labels. The frames "
                "alone cannot decide this."
            ),
            advice="inspect them (--page shows the pairs); correct wrong labels, or leave the videos out",
            rows=rows,
            remarks=context.remarks(sets),
        )
    ]


def _repeat_findings(sets: list[list[int]], context: _RowContext, code: str, noun: str) -> list[Finding]:
    """Return findings about sets without leaks or conflicting labels: a note for one group, a warning for several."""
    harmless_sets = [
        rows for rows in sets if all(len(context.distinct(each, rows)) < 2 for each in (context.parts, context.labels))
    ]
    findings = []
    for one_group in (True, False):
        selected_sets = [
            rows for rows in harmless_sets if (len(context.distinct(context.groups, rows)) == 1) == one_group
        ]
        if not selected_sets:
            continue
        rows = _all_rows(selected_sets)
        extra = len(rows) - len(selected_sets)
        findings.append(
            finding(
                "note" if one_group else "warning",
                f"{code}_of_one_group" if one_group else code,
                f"{format_count(len(rows), 'video')} with {noun}"
                if code == "near_duplicates"
                else f"{format_count(extra, 'video')}, {noun}",
                detail=f"{format_count(len(selected_sets), 'set')} of {format_count(len(rows), 'video')} in all"
                + (
                    ", each of one group. They count twice in training."
                    if one_group
                    else _group_detail(context, selected_sets)
                ),
                advice="keep one of each set" if one_group else "keep one of each set, or assign each set to one group",
                rows=rows,
                remarks=context.remarks(selected_sets),
            )
        )
    return sorted(findings, key=lambda each: each.severity == "note")


def _group_detail(context: _RowContext, sets: list[list[int]]) -> str:
    several = sum(len(context.distinct(context.groups, rows)) > 1 for rows in sets)
    if several == len(sets):
        names = ", each of more than one group: one patient may have two names"
    elif several:
        names = f", {several} of more than one group (one patient may have two names), the others without a group"
    else:
        names = ", without a group" if any(context.groups) else ""
    return f"{names}. " + ("Each set is in one part." if context.is_split else "A split may put them into two parts.")
