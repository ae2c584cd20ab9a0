"""The views of a study side by side: from one video a row to one study a row."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cinefeed.errors import ColumnError, SettingError, TableError, did_you_mean
from cinefeed.manifest.columns import FACTS, ordered
from cinefeed.manifest.ids import with_ids
from cinefeed.manifest.rows import view_names
from cinefeed.split import encode

Missing = Literal["raise", "drop"]

# What each video has of its own; a DICOM series is one view.
_OF_A_VIDEO = ["path", "part", "start_seconds", "end_seconds", "series", *FACTS]
_NAMED = 3  # studies in a message


def pivot_table(table: Any, *, by: str, within: str, missing: Missing, private: bool) -> tuple[Any, list[str]]:
    """Return a table of one row a study, in the order in which they first come, and its views; see `Manifest.pivot`."""
    names = table.schema.names
    for role, name in (("by", by), ("within", within)):
        if name not in names:
            raise ColumnError(f"pivot({role}={name!r}): there is no such column; {did_you_mean(name, names)}")
    if missing not in get_args(Missing):
        raise SettingError(f"pivot(missing={missing!r}) is not a choice; {did_you_mean(missing, get_args(Missing))}")
    if view_names(names):
        raise TableError(f"its rows hold the views {', '.join(view_names(names))} already; pivot the videos themselves")
    videos = table.column("id" if private else "path")
    for name in (by, within):
        lacking = np.flatnonzero(table.column(name).is_null(nan_is_null=True))
        if len(lacking):
            first = _first(lacking, lambda row: str(videos[row]))
            raise TableError(f"{len(lacking)} of {len(videos)} videos have no {name!r} ({first}); leave them out first")
    encoded = encode(table.column(by).cast(pa.string()))
    views, studies = encoded.values, _by_first(encode(table.column(within)).codes)
    cells = _cells(studies, encoded.codes, count=len(views))

    def named(study: int) -> str:
        """Return what names a study to a reader: of private data the id of one of its videos."""
        row = int(cells[study].max())
        return str(table.column("id" if private else within)[row])

    keys = studies * len(views) + encoded.codes
    if len(keys) != len(np.unique(keys)):
        twice = np.flatnonzero(np.bincount(keys) > 1)

        def told(cell: int) -> str:
            rows = np.flatnonzero(keys == cell)
            return (
                f"{views[cell % len(views)]} of {named(cell // len(views))}: {_first(rows, lambda r: str(videos[r]))}"
            )

        raise TableError(
            f"{len(twice)} views have more than one video in their {within}: {_first(twice, told, '; ')}; "
            "keep one of each, or tell them apart by another column"
        )
    lacking = np.flatnonzero((cells < 0).any(axis=1))
    if len(lacking) and missing == "raise":

        def lacks(study: int) -> str:
            return f"{named(study)} lacks {', '.join(views[view] for view in np.flatnonzero(cells[study] < 0))}"

        raise TableError(
            f"{len(lacking)} of {len(cells)} rows by {within!r} lack a view: {_first(lacking, lacks, '; ')}; "
            "missing='drop' leaves them out"
        )
    kept = np.flatnonzero((cells >= 0).all(axis=1))
    if not len(kept):
        raise TableError(f"no {within} has all of the views {', '.join(views)}; keep fewer of them with where()")
    firsts = pa.array(cells[kept, 0])
    ids = table.column("id" if private else within).take(firsts).cast(pa.string())
    columns = {"id": ids, "path": table.column("path").take(firsts)}
    columns |= _of_studies(table, cells, kept, by=by, named=named, private=private)
    for number, view in enumerate(views):
        part = table.select([name for name in _OF_A_VIDEO if name in names]).take(pa.array(cells[kept, number]))
        columns |= {f"{each}:{view}": part[each] for each in part.column_names if part[each].null_count < len(kept)}
    return with_ids(ordered(pa.table(columns)), name="the pivoted table"), views


def _by_first(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the codes numbered in the order in which they first come.

    >>> _by_first(np.array([2, 0, 2, 1])).tolist()
    [0, 1, 0, 2]
    """
    _, firsts = np.unique(codes, return_index=True)
    return np.argsort(np.argsort(firsts))[codes]


def _cells(studies: NDArray[np.int64], views: NDArray[np.int64], *, count: int) -> NDArray[np.int64]:
    """Return the row of each view of each study, int64 (studies, views), -1 where there is none."""
    cells = np.full((int(studies.max(initial=-1)) + 1, count), -1, np.int64)
    cells[studies, views] = np.arange(len(studies))
    return cells


def _of_studies(
    table: Any,
    cells: NDArray[np.int64],
    kept: NDArray[np.int64],
    *,
    by: str,
    named: Callable[[int], str],
    private: bool,
) -> dict[str, Any]:
    """Return the columns that the videos of a study agree in: labels, groups, the part of the split.

    Raises TableError where they do not.
    """
    columns, differing = {}, []
    for name in table.schema.names:
        if name in ("id", by, *_OF_A_VIDEO):
            continue
        column = table.column(name).combine_chunks()
        plain = column
        if pa.types.is_nested(column.type):
            plain = pa.array([None if each is None else str(each) for each in column.to_pylist()], pa.string())
        values = encode(plain).codes[cells[kept]]
        pick = values.argmax(axis=1)  # a value that is missing, -1, says nothing against the others
        known = values[np.arange(len(kept)), pick]
        wrong = np.flatnonzero(((values != known[:, None]) & (values >= 0)).any(axis=1))
        if len(wrong):
            found = [plain[int(row)].as_py() for row in cells[kept[wrong[0]]]]
            shown = "" if private else f" has {', '.join(map(str, dict.fromkeys(found)))}"
            differing.append(f"{name!r} in {len(wrong)} (first: {named(int(kept[wrong[0]]))}{shown})")
        columns[name] = column.take(pa.array(cells[kept, pick]))
    if differing:
        raise TableError(
            f"the videos of one row must agree in what is not of a single view; they differ in {'; '.join(differing)}. "
            "Leave such columns out, or mend their values: Manifest.from_table(manifest.table.drop_columns([...]))"
        )
    return columns


def _first(numbers: NDArray[np.int64], told: Callable[[int], str], mark: str = ", ") -> str:
    """Return what is told of the first few, and dots where there are more."""
    shown: Sequence[int] = numbers[:_NAMED].tolist()
    return mark.join(told(each) for each in shown) + " ..." * (len(numbers) > len(shown))
