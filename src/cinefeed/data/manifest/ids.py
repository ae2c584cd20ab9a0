"""Unique ids of samples, and checks of their start and end seconds."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cinefeed.core.errors import TableError


def with_ids(table: Any, *, name: str) -> Any:
    """Return the table with a column `id`; if absent, it is derived from path, part and seconds.

    Raises TableError if an id is missing or occurs twice, or if the seconds of a sample are invalid.
    """
    names = table.schema.names
    if "id" not in names:
        ids = table.column("path")
        for column, mark in (("part", "#"), ("start_seconds", "@"), ("end_seconds", "-")):
            if column in names:
                text = pc.binary_join_element_wise(mark, table.column(column).cast(pa.string()), "")
                ids = pc.binary_join_element_wise(ids, pc.fill_null(text, ""), "")
        table = table.append_column("id", ids)
    ids = table.column("id")
    counts = ids.value_counts()
    repeated = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    if ids.null_count or len(repeated):
        raise TableError(
            f"{name}: each sample needs a unique id; {ids.null_count} have none, {len(repeated)} ids occur more than "
            f"once (first: {repeated[0] if len(repeated) else None}); correct the ids, rename a column 'id' that is "
            f"something else, or distinguish samples of one file by part, start_seconds or end_seconds"
        )
    _check_seconds(table, name=name)
    return table


def _check_seconds(table: Any, *, name: str) -> None:
    """Raise TableError if a sample starts before its video, or does not end after its start."""
    start, end = (
        table.column(each).cast(pa.float64()) if each in table.schema.names else pa.nulls(len(table), pa.float64())
        for each in ("start_seconds", "end_seconds")
    )
    start = pc.fill_null(start, 0.0)
    faults = {
        "starts before its video, at which seconds begin to count": pc.less(start, 0.0),
        "ends at its start, and has no frame": pc.equal(start, end),
        "ends before it starts": pc.greater(start, end),
    }
    for fault, is_faulty in faults.items():
        rows = pc.indices_nonzero(pc.fill_null(is_faulty, False))
        if len(rows):
            row = rows[0].as_py()
            seconds = f"start_seconds {start[row]}, end_seconds {end[row]}"
            raise TableError(f"{name}: sample {table.column('id')[row]} {fault} ({seconds}); correct its seconds")
