"""Pivoting of a manifest from one row per video to one row per study with several views."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cinefeed.core.errors import ColumnError, SettingError, TableError, did_you_mean
from cinefeed.core.text import count_having
from cinefeed.data.manifest.columns import METADATA_COLUMNS, column_hint, ordered
from cinefeed.data.manifest.ids import with_ids
from cinefeed.data.manifest.rows import view_names
from cinefeed.data.split import encode

Missing = Literal["raise", "drop"]

# Columns of a single video; a DICOM series is one view.
_VIDEO_COLUMNS = ["path", "part", "start_seconds", "end_seconds", "series", *METADATA_COLUMNS]
_MAX_NAMES = 3  # studies in a message


def pivot_table(table: Any, *, by: str, within: str, missing: Missing, private: bool) -> tuple[Any, list[str]]:
    """Return a table with one row per study, in order of first occurrence, and its views; see `Manifest.pivot`."""
    names = table.schema.names
    for role, name in (("by", by), ("within", within)):
        if name not in names:
            raise ColumnError(f"pivot({role}={name!r}): there is no such column; {column_hint(name, names)}")
    if missing not in get_args(Missing):
        raise SettingError(f"pivot(missing={missing!r}) is not a choice; {did_you_mean(missing, get_args(Missing))}")
    if view_names(names):
        raise TableError(
            f"pivot: the rows have the views {', '.join(view_names(names))} already; pivot the manifest of the videos"
        )
    videos = table.column("id" if private else "path")
    for name in (by, within):
        lacking = np.flatnonzero(table.column(name).is_null(nan_is_null=True))
        if len(lacking):
            first = _first(lacking, lambda row: str(videos[row]))
            raise TableError(
                f"{count_having(len(lacking), len(videos), 'video')} no {name!r} ({first}); leave them out first"
            )
    encoded = encode(table.column(by).cast(pa.string()))
    views, studies = encoded.values, _by_first(encode(table.column(within)).codes)
    cells = _cells(studies, encoded.codes, count=len(views))

    def study_name(study: int) -> str:
        """Return the name of a study for messages; for private data the id of one of its videos."""
        row = int(cells[study].max())
        return str(table.column("id" if private else within)[row])

    keys = studies * len(views) + encoded.codes
    if len(keys) != len(np.unique(keys)):
        duplicates = np.flatnonzero(np.bincount(keys) > 1)

        def describe(key: int) -> str:
            rows = _first(np.flatnonzero(keys == key), lambda row: str(videos[row]))
            return f"{views[key % len(views)]} of {study_name(key // len(views))}: {rows}"

        raise TableError(
            f"{len(duplicates)} views have more than one video in their {within}: {_first(duplicates, describe, '; ')};"
            " keep one of each, or distinguish them by another column"
        )
    lacking = np.flatnonzero((cells < 0).any(axis=1))
    if len(lacking) and missing == "raise":

        def missing_views(study: int) -> str:
            return f"{study_name(study)} lacks {', '.join(views[view] for view in np.flatnonzero(cells[study] < 0))}"

        raise TableError(
            f"{len(lacking)} of {len(cells)} rows by {within!r} lack a view: {_first(lacking, missing_views, '; ')}; "
            "missing='drop' leaves them out"
        )
    complete = np.flatnonzero((cells >= 0).all(axis=1))
    if not len(complete):
        raise TableError(f"no {within} has all of the views {', '.join(views)}; select fewer of them with where()")
    firsts = pa.array(cells[complete, 0])
    ids = table.column("id" if private else within).take(firsts).cast(pa.string())
    columns = {"id": ids, "path": table.column("path").take(firsts)}
    columns |= _study_columns(table, cells, complete, by=by, study_name=study_name, private=private)
    for number, view in enumerate(views):
        part = table.select([name for name in _VIDEO_COLUMNS if name in names]).take(pa.array(cells[complete, number]))
        columns |= {f"{each}:{view}": part[each] for each in part.column_names if part[each].null_count < len(complete)}
    return with_ids(ordered(pa.table(columns)), name="the pivoted table"), views


def _by_first(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the codes renumbered in order of first occurrence.

    >>> _by_first(np.array([2, 0, 2, 1])).tolist()
    [0, 1, 0, 2]
    """
    _, firsts = np.unique(codes, return_index=True)
    return np.argsort(np.argsort(firsts))[codes]


def _cells(studies: NDArray[np.int64], views: NDArray[np.int64], *, count: int) -> NDArray[np.int64]:
    """Return the row of each view of each study, int64 (studies, views); -1 for a missing view."""
    cells = np.full((int(studies.max(initial=-1)) + 1, count), -1, np.int64)
    cells[studies, views] = np.arange(len(studies))
    return cells


def _study_columns(
    table: Any,
    cells: NDArray[np.int64],
    complete: NDArray[np.int64],
    *,
    by: str,
    study_name: Callable[[int], str],
    private: bool,
) -> dict[str, Any]:
    """Return the columns with one value per study: labels, groups, the part of the split.

    Raises TableError if the videos of a study have different values.
    """
    columns, differing = {}, []
    for name in table.schema.names:
        if name in ("id", by, *_VIDEO_COLUMNS):
            continue
        column = table.column(name).combine_chunks()
        plain = column
        if pa.types.is_nested(column.type):
            plain = pa.array([None if each is None else str(each) for each in column.to_pylist()], pa.string())
        codes = encode(plain).codes[cells[complete]]
        view_indices = codes.argmax(axis=1)  # of a view with a value; -1 is a missing value
        study_codes = codes[np.arange(len(complete)), view_indices]
        conflicts = np.flatnonzero(((codes != study_codes[:, None]) & (codes >= 0)).any(axis=1))
        if len(conflicts):
            first = int(complete[conflicts[0]])
            values = [plain[int(row)].as_py() for row in cells[first]]
            text = "" if private else f" has {', '.join(map(str, dict.fromkeys(values)))}"
            differing.append(f"{name!r} in {len(conflicts)} (first: {study_name(first)}{text})")
        columns[name] = column.take(pa.array(cells[complete, view_indices]))
    if differing:
        raise TableError(
            f"the videos of one row must have the same labels and groups; they differ in {'; '.join(differing)}. "
            "Leave such columns out, or correct their values: Manifest.from_table(manifest.table.drop_columns([...]))"
        )
    return columns


def _first(numbers: NDArray[np.int64], describe: Callable[[int], str], separator: str = ", ") -> str:
    """Return the descriptions of the first few numbers, with dots if there are more."""
    first: Sequence[int] = numbers[:_MAX_NAMES].tolist()
    return separator.join(describe(number) for number in first) + " ..." * (len(numbers) > len(first))
