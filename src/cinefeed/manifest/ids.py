"""The id of each sample, and the seconds of its video that it covers."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cinefeed.errors import TableError


def with_ids(table: Any, *, name: str) -> Any:
    """Return the table with a column `id`, made of path, part and seconds where there is none.

    Raises TableError where an id is missing or comes twice, or the seconds of a sample hold no frame.
    """
    names = table.schema.names
    if "id" not in names:
        ids = table.column("path")
        for each, mark in (("part", "#"), ("start_seconds", "@"), ("end_seconds", "-")):
            if each in names:
                text = pc.binary_join_element_wise(mark, table.column(each).cast(pa.string()), "")
                ids = pc.binary_join_element_wise(ids, pc.fill_null(text, ""), "")
        table = table.append_column("id", ids)
    ids = table.column("id")
    counts = ids.value_counts()
    twice = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    if ids.null_count or len(twice):
        raise TableError(
            f"{name}: each sample needs an id of its own; {ids.null_count} have none, {len(twice)} ids come more than "
            f"once (first: {twice[0] if len(twice) else None}); mend the ids, rename a column 'id' of another meaning, "
            f"or tell samples of one file apart by part, start_seconds or end_seconds"
        )
    _check_seconds(table, name=name)
    return table


def _check_seconds(table: Any, *, name: str) -> None:
    """Raise TableError where a sample starts before the video does, or does not end after its start."""
    start, end = (
        table.column(each).cast(pa.float64()) if each in table.schema.names else pa.nulls(len(table), pa.float64())
        for each in ("start_seconds", "end_seconds")
    )
    start = pc.fill_null(start, 0.0)
    faults = {
        "starts before its video does, and seconds count from there": pc.less(start, 0.0),
        "ends where it starts, and has no frame": pc.equal(start, end),
        "ends before it starts": pc.greater(start, end),
    }
    for fault, is_faulty in faults.items():
        rows = pc.indices_nonzero(pc.fill_null(is_faulty, False))
        if len(rows):
            row = rows[0].as_py()
            seconds = f"start_seconds {start[row]}, end_seconds {end[row]}"
            raise TableError(f"{name}: sample {table.column('id')[row]} {fault} ({seconds}); mend its seconds")
