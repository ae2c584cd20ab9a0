"""What copies and look-alikes do to a data set: they leak between parts, contradict each other, or just repeat."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cinefeed.check.alike import Near, near_pairs
from cinefeed.check.content import copies
from cinefeed.check.findings import Finding, Pair, finding
from cinefeed.check.groups import groups_of, parts_of
from cinefeed.check.look import Looks
from cinefeed.manifest.table import Manifest
from cinefeed.text import format_count

_LISTED_PAIRS = 1000


def duplicate_findings(
    manifest: Manifest, looks: Looks, *, target: str | None, group: str | None, workers: int
) -> tuple[list[Finding], list[Pair], list[list[int]]]:
    """Return what is to say of copies and look-alikes, the pairs (across parts first, then the nearest), and the sets.

    A set holds the rows that copies or look-alikes connect; a row may be in one set of each kind.
    """
    about = _About(manifest, target=target, group=group)
    same = copies(manifest, looks, workers=workers)
    prints = looks.prints
    followers = [row for rows in same for row in rows[1:]]
    if followers:
        prints = prints.copy()
        prints[followers] = 0  # the first of a set of copies stands for it
    near = near_pairs(prints)
    alike = _sets(near)
    pairs = [about.pair(rows[0], row, 0.0, "copy") for rows in same for row in rows[1:]]
    nearest = zip(near.first.tolist(), near.second.tolist(), near.distance.tolist(), strict=True)
    pairs += [about.pair(first, second, distance, "alike") for first, second, distance in nearest]
    pairs.sort(key=lambda pair: (not pair.across, pair.distance, pair.first, pair.second))
    found = [
        *_across(same, about, "copies_across_splits", "copies of one file", exact=True),
        *_across(alike, about, "alike_across_splits", "nearly the same pictures", exact=False),
        *_contradicting(same, about, "copies", target),
        *_contradicting(alike, about, "look-alikes", target),
        *_repeating(same, about, "copies", "copies of another file"),
        *_repeating(alike, about, "alike", "nearly the same pictures as another"),
    ]
    if near.cut:
        found.append(
            finding(
                "warning",
                "alike_cut",
                f"more than {len(near.first):,} pairs look alike",
                detail="The search for look-alikes was ended there: most of the videos show nearly the same.",
                advice="check a part of the rows with --where",
            )
        )
    return found, pairs[:_LISTED_PAIRS], [*same, *alike]


class _About:
    """What is known of each row besides its pictures: part, group and label."""

    def __init__(self, manifest: Manifest, *, target: str | None, group: str | None) -> None:
        groups, parts = groups_of(manifest, group), parts_of(manifest)
        self.parts = _texts(parts, len(manifest))
        self.groups = _texts(None if groups is None else groups.values, len(manifest))
        self.labels = _texts(None if target is None else manifest.column(target), len(manifest))
        self.is_split = parts is not None

    def remark(self, row: int) -> str:
        """Return what tells a row from one that looks the same."""
        group = None if self.groups[row] is None else f"group {self.groups[row]}"
        return ", ".join(each for each in (self.parts[row], group, self.labels[row]) if each is not None)

    def pair(self, first: int, second: int, distance: float, kind: Any) -> Pair:
        """Return a pair of rows with what is known of them."""
        across = len(self.distinct(self.parts, [first, second])) > 1
        remarks = (self.remark(first), self.remark(second))
        return Pair(first=first, second=second, distance=distance, kind=kind, across=across, remarks=remarks)

    @staticmethod
    def distinct(values: list[str | None], rows: list[int]) -> set[str]:
        """Return the different values that these rows have."""
        return {value for row in rows if (value := values[row]) is not None}

    def remarks(self, sets: list[list[int]]) -> list[str]:
        """Return a remark for each row of some sets."""
        return [f"set {i}: {self.remark(row)}".rstrip(": ") for i, rows in enumerate(sets, start=1) for row in rows]


def _texts(column: Any, count: int) -> list[str | None]:
    if column is None:
        return [None] * count
    return [None if value is None else str(value) for value in column.to_pylist()]


def _sets(near: Near) -> list[list[int]]:
    """Return sets of rows that are linked by pairs."""
    leader: dict[int, int] = {}

    def find(row: int) -> int:
        path = []
        while (above := leader.setdefault(row, row)) != row:
            path.append(row)
            row = above
        for each in path:
            leader[each] = row
        return row

    for first, second in zip(near.first.tolist(), near.second.tolist(), strict=True):
        low, high = sorted((find(first), find(second)))
        leader[high] = low
    sets: dict[int, list[int]] = {}
    for row in sorted(leader):
        sets.setdefault(find(row), []).append(row)
    return list(sets.values())


def _flat(sets: list[list[int]]) -> NDArray[np.int64]:
    return np.array([row for rows in sets for row in rows], np.int64)


def _across(sets: list[list[int]], about: _About, code: str, what: str, *, exact: bool) -> list[Finding]:
    sets = [rows for rows in sets if len(about.distinct(about.parts, rows)) > 1]
    if not sets:
        return []
    rows = _flat(sets)
    return [
        finding(
            "error",
            code,
            f"{format_count(len(rows), 'video')} in more than one part of the split, {what}",
            detail=f"{format_count(len(sets), 'set')} of videos that "
            + ("hold the same bytes" if exact else "show nearly the same in five frames")
            + ": what is tested was seen in training.",
            advice="keep one of each set, or split again by groups that keep a set together: 'cinefeed check MANIFEST "
            "--groups groups.csv', then 'cinefeed split MANIFEST --group-table groups.csv'",
            rows=rows,
            remarks=about.remarks(sets),
        )
    ]


def _contradicting(sets: list[list[int]], about: _About, what: str, target: str | None) -> list[Finding]:
    sets = [rows for rows in sets if len(about.distinct(about.labels, rows)) > 1]
    if not sets:
        return []
    rows = _flat(sets)
    exact = what == "copies"
    return [
        finding(
            "error" if exact else "warning",
            f"labels_of_{what.replace('-', '_')}_differ",
            f"{format_count(len(rows), 'video')} with another {target} than {'a copy' if exact else 'a look-alike'}",
            detail=f"{format_count(len(sets), 'set')} of {what} with different labels: "
            + (
                "the bytes are the same, so of each set at most one label can be right, unless a label belongs to a "
                "part of the video."
                if exact
                else "five frames of each are nearly the same. If they show one moment, one label is wrong; two takes "
                "of one person or scene can look so and differ rightly. Pictures alone do not tell."
            ),
            advice="look at them (--page shows the pairs); correct the labels that are wrong, or leave the videos out",
            rows=rows,
            remarks=about.remarks(sets),
        )
    ]


def _repeating(sets: list[list[int]], about: _About, code: str, what: str) -> list[Finding]:
    """Return sets that neither leak nor contradict each other: expected of one group, but not of two."""
    inside = [rows for rows in sets if all(len(about.distinct(each, rows)) < 2 for each in (about.parts, about.labels))]
    found = []
    for alone in (True, False):
        chosen = [rows for rows in inside if (len(about.distinct(about.groups, rows)) == 1) == alone]
        if not chosen:
            continue
        rows = _flat(chosen)
        extra = len(rows) - len(chosen)
        found.append(
            finding(
                "note" if alone else "warning",
                f"{code}_of_one_group" if alone else code,
                f"{format_count(extra, 'video')} with {what}"
                if code == "alike"
                else f"{format_count(extra, 'video')}, {what}",
                detail=format_count(len(chosen), "set")
                + (", each of one group. They count twice in training." if alone else _apart(about)),
                advice="keep one of each set" if alone else "keep one of each set, or give all of a set one group",
                rows=rows,
                remarks=about.remarks(chosen),
            )
        )
    return sorted(found, key=lambda each: each.severity == "note")


def _apart(about: _About) -> str:
    known = any(value is not None for value in about.groups)
    names = ", each of more than one group: one patient may have two names" if known else ""
    return f"{names}. " + ("All are in one part." if about.is_split else "A split may put them into two parts.")
