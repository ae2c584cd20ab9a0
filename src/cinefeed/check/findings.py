"""What a check hands over: findings, each with what to do about it, worst first."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from cinefeed.text import format_count

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
# What makes a score better than it is. Labels that the file tells are so only if that is no luck: as an error.
DOUBTS = {
    "groups_across_splits",
    "files_across_splits",
    "copies_across_splits",
    "alike_across_splits",
    "label_told_by_file",
}
SHOWN_ROWS = 20  # rows that a finding names; `count` counts all


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong, or worth knowing, and what to do about it.

    error:    results would be wrong or too good: mend it before training
    warning:  look at it, and decide
    note:     nothing to do, or only in some cases
    """

    severity: Severity
    code: str  # stable, for programs
    title: str
    detail: str
    advice: str
    count: int = 0  # rows concerned
    rows: tuple[int, ...] = ()  # the first of them, as numbers in the manifest
    remarks: tuple[str, ...] = ()  # one a row of `rows`
    names: tuple[Mapping[str, str], ...] = ()  # what a reader sees of `rows`: id, and path unless that is private

    @property
    def is_doubt(self) -> bool:
        """Whether a score of these parts cannot be trusted."""
        return self.severity == "error" and self.code in DOUBTS

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
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
    """Return a finding that keeps the first of its rows; `count` is by default how many were given."""
    numbers = [int(row) for row in rows]
    words = list(remarks) or [""] * len(numbers)
    return Finding(
        severity=severity,
        code=code,
        title=title,
        detail=detail,
        advice=advice,
        count=len(numbers) if count is None else count,
        rows=tuple(numbers[:SHOWN_ROWS]),
        remarks=tuple(words[: len(numbers)][:SHOWN_ROWS]),
    )


def video_findings(
    remarks: Mapping[int, str], severity: Severity, code: str, title: str, *, detail: str, advice: str
) -> list[Finding]:
    """Return a finding about these rows, with a remark on each and their number before the title; [] without rows."""
    if not remarks:
        return []
    title = f"{format_count(len(remarks), 'video')} {title}"
    rows, words = list(remarks), list(remarks.values())
    return [finding(severity, code, title, detail=detail, advice=advice, rows=rows, remarks=words)]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two rows that show the same. `distance` is 0 for the same pictures, 1 for unlike ones."""

    first: int
    second: int
    distance: float
    kind: Literal["copy", "alike"]  # the same bytes, or nearly the same pictures
    across: bool  # in two parts of the split
    remarks: tuple[str, str]  # part, group and label of each
    names: tuple[Mapping[str, str], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        rows = [dict(name, remark=remark) for name, remark in zip(self.names, self.remarks, strict=False)]
        return {"kind": self.kind, "distance": round(self.distance, 4), "across": self.across, "rows": rows}


@dataclass(frozen=True, kw_only=True)
class Shortcut:
    """How well one column that is no medicine predicts the label, by a one-feature tree, cross-validated by group.

    The score is the balanced accuracy of telling one class (`about`) from the others, or R2 of a number; `chance` is
    what guessing reaches. Of labels dealt by chance to the groups, one of fifty reaches `limit`, and a share of `luck`
    the score.
    """

    name: str
    about: str
    measure: Literal["balanced accuracy", "R2"]
    score: float
    chance: float
    limit: float
    luck: float

    @property
    def tells(self) -> bool:
        """Whether the label can be told from it, beyond luck."""
        return self.score > self.limit

    @property
    def share(self) -> float:
        """How far the score lies between chance (0) and certainty (1)."""
        return (self.score - self.chance) / (1 - self.chance)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        numbers = {name: round(getattr(self, name), 4) for name in ("score", "chance", "limit", "luck")}
        return {"name": self.name, "about": self.about, "measure": self.measure, **numbers, "tells": self.tells}


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What a check found; `print` shows it, and ends with what to do."""

    findings: tuple[Finding, ...]
    rows: int
    files: int
    read: int  # rows of which frames were read
    target: str | None = None
    label: str = ""  # what the target is: "regression", "2 classes"
    group: str | None = None
    private: bool = False
    classes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # rows and groups of each, and rows by part
    pairs: tuple[Pair, ...] = ()  # the nearest first, those across parts before the others
    shortcuts: tuple[Shortcut, ...] = ()  # the strongest first
    shortcuts_left_out: str = ""  # what was not asked for, and why
    groups: tuple[str, ...] = ()  # of each row: what a split must keep together, see `joined_groups`

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong: no error was found."""
        return self.number("error") == 0

    def number(self, severity: Severity) -> int:
        """Return how many findings have this severity."""
        return sum(each.severity == severity for each in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return {
            "ok": self.ok,
            "rows": self.rows,
            "files": self.files,
            "read": self.read,
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
        """Return one line: what was checked, and how many findings of each kind there are."""
        numbers = ", ".join(format_count(self.number(each), each) for each in SEVERITIES)
        about = f", label {self.target}" if self.target else ""
        about += f" ({self.label})" if self.label else ""
        about += f", group {self.group}" if self.group else ""
        return f"{format_count(self.rows, 'row')} in {format_count(self.files, 'file')}{about}: {numbers}"

    def __str__(self) -> str:
        lines = [self.summary()]
        for each in self.findings:
            lines += ["", f"{each.severity.upper()}: {each.title}", f"  {each.detail}"]
            for name, remark in list(zip(each.names, each.remarks, strict=True))[:5]:
                lines.append(f"    {row_name(name)}" + (f": {remark}" if remark else ""))
            if each.count > len(each.names[:5]) > 0:
                lines.append(f"    and {each.count - len(each.names[:5]):,} more")
        wrong = [each for each in self.findings if each.severity != "note"]
        lines += ["", "What to do, worst first:" if wrong else "Nothing needs to be done."]
        lines += [f"{i}. {each.title}: {each.advice}" for i, each in enumerate(wrong, start=1)]
        return "\n".join(lines)


def ranked(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings worst first; those as bad stay in the order in which the checks run, which is that of harm."""
    return tuple(sorted(findings, key=lambda each: SEVERITIES.index(each.severity)))


def named(each: Finding, names: Sequence[Mapping[str, str]]) -> Finding:
    """Return a finding with what a reader sees of its rows."""
    return replace(each, names=tuple(names))


def row_name(name: Mapping[str, str]) -> str:
    """Return the name of a row on one line: its path where it may be shown, and its id where that says more.

    >>> row_name({"id": "a.mp4", "path": "a.mp4"}), row_name({"id": "v7", "path": "a.mp4"}), row_name({"id": "v7"})
    ('a.mp4', 'a.mp4 (v7)', 'v7')
    """
    path = name.get("path")
    if path is None or name["id"].startswith(path):
        return name["id"]
    return f"{path} ({name['id']})"
