"""Comparison of the parts of a split: rows, groups and labels of each part."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cinefeed.core.text import format_count, format_percent
from cinefeed.data.label_types import Kind, class_name, label_type
from cinefeed.data.split import _arrow, encode

_MAX_COLUMNS, _MAX_LINES = 8, 30  # classes that are columns, and lines of a table


def unseen_classes(*, labels: Any, parts: Any) -> dict[str, dict[str, NDArray[np.int64]]]:
    """Return the row numbers of classes that do not occur in the training part, by class and part.

    >>> unseen_classes(labels=["a", "b", "rare"], parts=["train", "train", "test"])
    {'rare': {'test': array([2])}}
    """
    label, part = encode(labels), encode(parts)
    if "train" not in part.values:
        return {}
    train = part.codes == part.values.index("train")
    unseen: dict[str, dict[str, NDArray[np.int64]]] = {}
    for code in np.setdiff1d(label.codes[label.codes >= 0], label.codes[train]).tolist():
        of_class = label.codes == code
        rows = {name: np.flatnonzero(of_class & (part.codes == number)) for number, name in enumerate(part.values)}
        unseen[class_name(label.values[code])] = {name: numbers for name, numbers in rows.items() if len(numbers)}
    return unseen


@dataclass(frozen=True, kw_only=True)
class Balance:
    """The balance of a split: rows, groups and labels of each part. `print` displays it as a table."""

    parts: tuple[str, ...]
    rows: tuple[int, ...]
    groups: tuple[int, ...]
    group_name: str | None = None
    label_name: str | None = None
    classes: dict[str, tuple[int, ...]] = field(default_factory=dict)  # rows of each class in each part
    quartiles: tuple[tuple[float, ...], ...] = ()  # minimum, 25 %, median, 75 % and maximum of each part
    means: tuple[float, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Problems of training on these parts, one message each."""
        messages = []
        train = self.parts.index("train") if "train" in self.parts else None
        if train is not None and self.group_name and self.groups[train] == 1:
            messages.append(
                f"the training part has only 1 value of {self.group_name!r}, so a model cannot generalize to others; "
                "use a finer group, or cross-validate, so that each is tested once: train --folds "
                f"{min(max(sum(self.groups), 2), 5)}"
            )
        for name, counts in self.classes.items():
            if train is not None and counts[train] == 0:
                others = " and ".join(f"{self.parts[k]} ({count})" for k, count in enumerate(counts) if count)
                messages.append(
                    f"class {name!r} of {self.label_name!r} is only in {others}, so a model cannot learn it; split "
                    f"with --stratify {shlex.quote(str(self.label_name))}, or leave it out with --where"
                )
        return tuple(messages)

    def as_dict(self) -> dict[str, Any]:
        """Return the balance as plain data for JSON, one entry per part."""
        result: dict[str, Any] = {}
        for number, part in enumerate(self.parts):
            entry: dict[str, Any] = {"rows": self.rows[number], "groups": self.groups[number]}
            if self.classes:
                entry["classes"] = {name: counts[number] for name, counts in self.classes.items()}
            if self.quartiles:
                is_defined = not math.isnan(self.means[number])  # JSON has no NaN
                entry["mean"] = self.means[number] if is_defined else None
                entry["quartiles"] = list(self.quartiles[number]) if is_defined else None
            result[part] = entry
        return result

    def __str__(self) -> str:
        total = sum(self.rows)
        columns = self.classes if len(self.classes) <= _MAX_COLUMNS else {}
        table = [["part", "rows", "share", *([self.group_name] if self.group_name else []), *map(str, columns)]]
        table[0] += [f"{self.label_name} mean", "min", "25 %", "median", "75 %", "max"] if self.quartiles else []
        for number, part in enumerate(self.parts):
            cells = [part, str(self.rows[number]), format_percent(self.rows[number] / total, ".1f")]
            cells += [str(self.groups[number])] if self.group_name else []
            cells += [self._class_cell(counts, number) for counts in columns.values()]
            if self.quartiles:
                cells += [f"{value:.4g}" for value in (self.means[number], *self.quartiles[number])]
            table.append(cells)
        classes = [] if columns else self._class_lines()
        return "\n".join([*_aligned(table), *classes, *(f"warning: {message}" for message in self.warnings)])

    def _class_cell(self, counts: Sequence[int], part: int) -> str:
        return f"{counts[part]} ({format_percent(counts[part] / max(self.rows[part], 1))})"

    def _class_lines(self) -> list[str]:
        """Return a table with a line per class, the most frequent first; the rarest beyond a limit are one line."""
        order = sorted(self.classes.items(), key=lambda item: -sum(item[1]))
        lines = _aligned(
            [
                [str(self.label_name), *self.parts],
                *(
                    [str(name), *(self._class_cell(counts, part) for part in range(len(self.parts)))]
                    for name, counts in order[:_MAX_LINES]
                ),
            ]
        )
        if rest := [sum(counts) for _, counts in order[_MAX_LINES:]]:
            rows = f"{rest[-1]} to {rest[0]} rows" if rest[-1] < rest[0] else format_count(rest[0], "row")
            lines.append(f"and {len(rest)} more, with {rows} each")
        return ["", *lines] if lines[1:] else []


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Return a table as lines: the first column to the left, the others to the right.

    >>> _aligned([["part", "rows"], ["train", "12"]])
    ['part   rows', 'train    12']
    """
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join([first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(cells, widths[1:], strict=True))])
        for first, *cells in table
    ]


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
    """Return the balance of a split; empty parts are left out.

    `parts` (rows,) is the position in `names` of the part of each row. The other arguments are those of `assign_parts`.
    """
    nonempty, parts = np.unique(parts, return_inverse=True)
    names = [names[number] for number in nonempty]
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
        part_values = [values[(parts == number) & ~np.isnan(values)] for number in range(len(names))]
        part_values = [present if len(present) else np.array([np.nan]) for present in part_values]
        quartiles = tuple(tuple(np.quantile(present, [0, 0.25, 0.5, 0.75, 1]).tolist()) for present in part_values)
        means = tuple(float(present.mean()) for present in part_values)
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
