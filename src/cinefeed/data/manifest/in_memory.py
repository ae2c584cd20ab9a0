"""Tables of videos that are arrays in memory."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cinefeed.core.arguments import in_words
from cinefeed.core.errors import ArgumentError, TableError
from cinefeed.data.manifest.columns import METADATA_COLUMNS, metadata_to_row, ordered, plain_table
from cinefeed.data.manifest.ids import with_ids
from cinefeed.data.manifest.read_table import read_table
from cinefeed.video.arrays.in_memory import array_metadata, check_stack


def arrays_table(
    x: NDArray[Any] | Sequence[NDArray[Any]], labels: object | None, *, axes: str | None
) -> tuple[Any, list[NDArray[Any]]]:
    """Return a table with one row per video, whose path is its index, and the videos; see `Manifest.from_arrays`."""
    if isinstance(x, str | os.PathLike):
        raise ArgumentError(f"Manifest.from_arrays takes arrays, found {in_words(x)}; files: Manifest.scan(folder)")
    if isinstance(x, np.ndarray):
        check_stack(x.shape, declared=axes)
    arrays = [np.asarray(each) for each in x]
    if not arrays:
        raise TableError("there are no videos: x is empty; give at least one")
    metadata = [array_metadata(each, axes=None if axes is None else axes.replace("N", "")) for each in arrays]
    names = [f"{number:06d}" for number in range(len(arrays))]
    rows = [metadata_to_row(each) for each in metadata]
    table = pa.table(
        {"path": names}
        | {name: pa.array([row.get(name) for row in rows], METADATA_COLUMNS[name]) for name in METADATA_COLUMNS}
    )
    if labels is not None:
        if getattr(labels, "ndim", None) == 1 and not hasattr(labels, "iloc"):  # a tensor; a Series has its own types
            labels = np.asarray(labels)
        is_column = isinstance(labels, np.ndarray | list | tuple) or getattr(labels, "ndim", None) == 1
        label_table = read_table({"label": labels} if is_column else labels)
        if label_table.num_rows != len(arrays):
            raise TableError(
                f"{label_table.num_rows} rows of labels for {len(arrays)} videos; give one per video, in order"
            )
        for name in label_table.schema.names:
            if name in table.schema.names:
                raise TableError(f"the labels have a column {name!r}, which is a reserved column name; rename it")
            table = table.append_column(name, label_table.column(name))
    return ordered(with_ids(plain_table(table, name="the labels"), name="the labels")), arrays
