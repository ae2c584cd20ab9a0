"""The report of a check: findings with severity and advice, pairs of duplicates, shortcuts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from cinefeed.core.text import format_count

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
LOOK_ALIKES = "near_duplicates_across_splits"  # unlike copies, these may be different videos
# Findings that make scores too good, or may do so if they are warnings.
DOUBTS = {
    "groups_across_splits",
    "files_across_splits",
    "copies_across_splits",
    LOOK_ALIKES,
    "label_predicted_by_file",
    "label_predicted_by_frames",
}
MAX_ROWS = 20  # rows listed in a finding; `count` counts all


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One problem or remark about a data set, with advice.

    error:    results would be wrong or too good; fix it before training
    warning:  inspect it, then decide
    note:     no action needed, or only in some cases
    """

    severity: Severity
    code: str  # stable, for programs
    title: str
    detail: str
    advice: str
    count: int = 0  # number of affected rows
    rows: tuple[int, ...] = ()  # the first of them, as indices of the manifest
    remarks: tuple[str, ...] = ()  # one per row of `rows`
    names: tuple[Mapping[str, str], ...] = ()  # how reports name `rows`: id, and path unless that is private

    @property
    def is_doubt(self) -> bool:
        """Whether scores of these parts are unreliable (an error), or may be (a warning)."""
        return self.severity != "note" and self.code in DOUBTS

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for JSON."""
        rows = [dict(name, remark=remark) for name, remark in zip(self.names, self.remarks, strict=True)]
        return {
            "severity": self.severity,
            "code": self.code,
            "title": self.title,
            "detail": self.detail,
            "advice": self.advice,
            "count": self.count,
            "rows": rows,
        }


def finding(
    severity: Severity,
    code: str,
    title: str,
    *,
    detail: str,
    advice: str,
    rows: Sequence[int] | Iterable[int] = (),
    remarks: Sequence[str] = (),
    count: int | None = None,
) -> Finding:
    """Return a finding that lists the first of its rows. `count` is by default the number of `rows`."""
    numbers = [int(row) for row in rows]
    words = list(remarks) or [""] * len(numbers)
    return Finding(
        severity=severity,
        code=code,
        title=title,
        detail=detail,
        advice=advice,
        count=len(numbers) if count is None else count,
        rows=tuple(numbers[:MAX_ROWS]),
        remarks=tuple(words[: len(numbers)][:MAX_ROWS]),
    )


def video_findings(
    remarks: Mapping[int, str], severity: Severity, code: str, title: str, *, detail: str, advice: str
) -> list[Finding]:
    """Return a finding about rows with a remark each, with their number before the title; [] without rows."""
    if not remarks:
        return []
    title = f"{format_count(len(remarks), 'video')} {title}"
    rows, words = list(remarks), list(remarks.values())
    return [finding(severity, code, title, detail=detail, advice=advice, rows=rows, remarks=words)]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two rows with (nearly) the same frames. `distance` is 0 for equal frames, about 1 for unrelated ones."""

    first: int
    second: int
    distance: float
    kind: Literal["copy", "near_duplicate"]  # the same bytes, or nearly the same frames
    across: bool  # in two parts of the split
    remarks: tuple[str, str]  # part, group and label of each
    names: tuple[Mapping[str, str], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for JSON."""
        rows = [dict(name, remark=remark) for name, remark in zip(self.names, self.remarks, strict=False)]
        return {"kind": self.kind, "distance": round(self.distance, 4), "across": self.across, "rows": rows}


@dataclass(frozen=True, kw_only=True)
class Shortcut:
    """How well one non-clinical column (site, codec, ...) predicts the label, by a cross-validated one-feature tree.

    `score` is the balanced accuracy for one class (`about`) against the others, or R2 for a number; `chance` is the
    score of guessing. If the labels of the groups are permuted, one score in fifty reaches `limit`, and a share of
    `p_value` reaches `score`.
    """

    name: str
    about: str
    measure: Literal["balanced accuracy", "R2"]
    score: float
    chance: float
    limit: float
    p_value: float

    @property
    def predicts_label(self) -> bool:
        """Whether the column predicts the label better than by chance."""
        return self.score > self.limit

    @property
    def share(self) -> float:
        """Position of the score between chance (0) and a perfect score (1)."""
        return (self.score - self.chance) / (1 - self.chance)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for JSON."""
        numbers = {name: round(getattr(self, name), 4) for name in ("score", "chance", "limit", "p_value")}
        return {
            "name": self.name,
            "about": self.about,
            "measure": self.measure,
            **numbers,
            "predicts_label": self.predicts_label,
        }


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """The result of a check. `print` shows the findings and the advice."""

    findings: tuple[Finding, ...]
    rows: int
    files: int
    rows_read: int  # rows with frames that were read
    target: str | None = None
    label: str = ""  # what the target is: "regression", "2 classes"
    group: str | None = None
    private: bool = False
    classes: Mapping[str, Mapping[str, int]] = field(
        default_factory=dict
    )  # counts of rows and groups per class, and of rows per part
    pairs: tuple[Pair, ...] = ()  # those across parts first, then by distance
    shortcuts: tuple[Shortcut, ...] = ()  # the strongest first
    shortcuts_left_out: str = ""  # classes that were not tested, and why
    groups: tuple[str, ...] = ()  # of each row: the group that a split must keep together, see `joined_groups`

    @property
    def ok(self) -> bool:
        """Whether there is no finding of severity "error"."""
        return self.number("error") == 0

    def number(self, severity: Severity) -> int:
        """Return the number of findings of a severity."""
        return sum(each.severity == severity for each in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for JSON."""
        return {
            "ok": self.ok,
            "rows": self.rows,
            "files": self.files,
            "rows_read": self.rows_read,
            "target": self.target,
            "label": self.label,
            "group": self.group,
            **{f"{severity}s": self.number(severity) for severity in SEVERITIES},
            "findings": [each.as_dict() for each in self.findings],
            "classes": {name: dict(counts) for name, counts in self.classes.items()},
            "pairs": [each.as_dict() for each in self.pairs],
            "shortcuts": [each.as_dict() for each in self.shortcuts],
            "shortcuts_left_out": self.shortcuts_left_out,
        }

    def summary(self) -> str:
        """Return one line: the data that were checked, and the number of findings per severity."""
        numbers = ", ".join(format_count(self.number(each), each) for each in SEVERITIES)
        columns = f", label {self.target}" if self.target else ""
        columns += f" ({self.label})" if self.label else ""
        columns += f", group {self.group}" if self.group else ""
        unread = f", {self.rows - self.rows_read:,} without a readable frame" if self.rows_read < self.rows else ""
        return f"{format_count(self.rows, 'row')} in {format_count(self.files, 'file')}{unread}{columns}: {numbers}"

    def __str__(self) -> str:
        lines = [self.summary()]
        for entry in self.findings:
            lines += ["", f"{entry.severity.upper()}: {entry.title}", f"  {entry.detail}"]
            for name, remark in list(zip(entry.names, entry.remarks, strict=True))[:5]:
                lines.append(f"    {row_name(name)}" + (f": {remark}" if remark else ""))
            if entry.count > len(entry.names[:5]) > 0:
                lines.append(f"    and {entry.count - len(entry.names[:5]):,} more")
        if self.shortcuts and not any(each.predicts_label for each in self.shortcuts):
            first, names = self.shortcuts[0], ", ".join(sorted(each.name for each in self.shortcuts))
            numbers = f"{first.name}, {first.measure} {first.score:.2f}, mark {first.limit:.2f}"
            lines += [
                "",
                f"None of {format_count(len(self.shortcuts), 'tested column')} ({names}) predicts {self.target} above "
                f"its mark; the strongest: {numbers}. Columns of the table are tested with --nuisance NAME.",
            ]
        problems = [each for each in self.findings if each.severity != "note"]
        lines += ["", "What to do, worst first:" if problems else "No action needed."]
        lines += [f"{i}. {each.title}: {each.advice}" for i, each in enumerate(problems, start=1)]
        return "\n".join(lines)


def sort_by_severity(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings sorted by severity. Those of one severity keep the order of the checks, the worst first."""
    return tuple(sorted(findings, key=lambda each: SEVERITIES.index(each.severity)))


def with_names(each: Finding, names: Sequence[Mapping[str, str]]) -> Finding:
    """Return a finding with the names of its rows."""
    return replace(each, names=tuple(names))


def row_name(name: Mapping[str, str]) -> str:
    """Return the name of a row: its path if that is not private, and its id if that is different.

    >>> row_name({"id": "a.mp4", "path": "a.mp4"}), row_name({"id": "v7", "path": "a.mp4"}), row_name({"id": "v7"})
    ('a.mp4', 'a.mp4 (v7)', 'v7')
    """
    path = name.get("path")
    if path is None or name["id"].startswith(path):
        return name["id"]
    return f"{path} ({name['id']})"
