"""Removal of paths from a table, for manifests that show ids instead."""

import re
from typing import Any

import pyarrow as pa

from cinefeed.data.manifest.find import hashed_id


def hide_paths(table: Any) -> Any:
    """Return the table with ids that were derived from paths hashed, and without paths in errors."""
    paths = table.column("path").to_pylist()
    for name in {"id", "error"} & {*table.column_names}:
        texts = zip(table.column(name).cast(pa.string()).to_pylist(), paths, strict=True)
        hidden = pa.array([text and _hidden(text, path, is_id=name == "id") for text, path in texts], pa.string())
        table = table.set_column(table.column_names.index(name), name, hidden)
    return table


def _hidden(text: str, path: str, *, is_id: bool) -> str:
    if is_id:  # compared without suffixes: features have one more than their video, and keep its id
        return hashed_id(text, salt="id") if text.startswith(re.sub(r"\.[^/]*$", "", path)) else text
    return re.sub(rf"\S*{re.escape(path)}", "the file", text)
