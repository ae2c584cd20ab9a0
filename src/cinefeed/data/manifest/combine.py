"""Concatenation of manifests, and columns with given values."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cinefeed.core.arguments import in_words
from cinefeed.core.errors import ColumnError, TableError
from cinefeed.core.remote.address import RemoteRoot
from cinefeed.data.manifest.columns import RESERVED, SPACING, VERDICTS, ordered, plain_table
from cinefeed.data.manifest.ids import with_ids
from cinefeed.data.manifest.output_folders import MAX_NAMES
from cinefeed.data.manifest.read_table import read_table
from cinefeed.data.manifest.rows import view_names

_SPLIT = "split"  # the only column of a sample that can be replaced


def concatenated(manifests: Sequence[Any], *, kind: type) -> dict[str, Any]:
    """Return the constructor arguments of a Manifest of all rows; see `Manifest.concat`."""
    parts = list(manifests) if isinstance(manifests, Iterable) else [None]
    if not parts or not all(isinstance(each, kind) for each in parts):
        raise TableError(f"concat: expected a list of one or more manifests, found {in_words(manifests)}")
    in_memory = {each.rows.arrays is not None for each in parts}
    private = {each.private for each in parts}
    if len(in_memory) > 1 or len(private) > 1:
        differing = "files and videos in memory" if len(in_memory) > 1 else "private manifests and others"
        raise TableError(f"concat: {differing} cannot be joined; save the arrays as .npy, or use as_private()")
    tables, roots = [each.table for each in parts], [each.root for each in parts]
    _check_alike(tables)
    if len({*roots}) > 1 and any(isinstance(each, RemoteRoot) for each in roots):
        raise TableError(
            f"concat: the roots {' and '.join(map(str, dict.fromkeys(roots)))} differ, and one is remote; read the "
            "manifests with the same root, and paths below it"
        )
    root = roots[0] if len({*roots}) == 1 else Path(os.path.commonpath([each.absolute() for each in roots]))
    if in_memory == {True}:
        rooted = _renumbered(tables, counts=[len(each.rows.arrays) for each in parts])
    else:
        rooted = [_below(table, each, root) for table, each in zip(tables, roots, strict=True)]
    try:
        joined = pa.concat_tables(rooted, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise TableError(f"concat: a column has types that cannot be joined ({error}); cast or rename it") from error
    if len(pc.unique(joined.column("id"))) < joined.num_rows:
        if private == {True}:
            raise TableError("concat: private manifests have an id in common; check that their videos differ")
        joined = _with_new_ids(tables, rooted, joined)
    arrays = [array for each in parts for array in each.rows.arrays or ()]
    return {
        "table": ordered(plain_table(with_ids(joined, name="concat"), name="concat")),
        "root": root,
        "history": [(f"rows of {len(parts)} manifests", joined.num_rows)],
        "notes": _notes([each.notes | {"label_types": each.label_types} for each in parts], tables),
        "arrays": arrays or None,
    }


def _notes(notes: Sequence[Mapping[str, Any]], tables: Sequence[Any]) -> dict[str, Any]:
    """Return the notes of the joined manifest: notes that are equal in all, and the files that none of them read.

    Raises TableError if columns were hashed with different salts, so that one patient has two hashes.
    """
    first, joined_notes = notes[0], dict[str, Any]()
    for name in ("reading", "private", "hashed"):
        if name in first and all(each.get(name) == first[name] for each in notes):
            joined_notes[name] = first[name]
    if all("verify" in each for each in notes):
        joined_notes["verify"] = "decode" if all(each["verify"] == "decode" for each in notes) else "packets"
    if "hashed" not in joined_notes:
        names = {name for each in notes for name in (each.get("hashed") or {}).get("columns", ()) if name != "id"}
        for name in sorted(names):
            if sum(name in table.schema.names for table in tables) > 1:
                raise TableError(
                    f"concat: {name!r} was hashed with different salts, so one {name} has several hashes and a split "
                    "cannot keep its rows together; scan all folders with the same ReadOptions(salt=...)"
                )
    not_read: dict[str, dict[str, Any]] = {}
    for kind, files in ((kind, files) for each in notes for kind, files in each.get("not_read", {}).items()):
        before = not_read.get(kind, {"files": 0, "first": []})
        first_names = [*before["first"], *files["first"]][:MAX_NAMES]
        not_read[kind] = {"files": before["files"] + files["files"], "first": first_names}
    types = [each["label_types"] for each in notes]
    agreed = {
        name: kind
        for each in types
        for name, kind in each.items()
        if all(other.get(name, kind) == kind for other in types)
    }
    return joined_notes | {"label_types": agreed} | ({"not_read": not_read} if not_read else {})


def with_values(table: Any, notes: Mapping[str, Any], name: str, values: object) -> tuple[Any, dict[str, Any]]:
    """Return the table with a column of these values, and the notes without those of the replaced column.

    See `Manifest.with_column`.
    """
    if not isinstance(name, str) or not name:
        raise ColumnError(f"with_column: the name of a column must be text, found {name!r}")
    if name not in (_SPLIT, *SPACING) and name.partition(":")[0] in RESERVED:
        raise ColumnError(f"with_column: {name!r} is a reserved column, which a scan fills; use another name")
    if isinstance(values, str) or not (hasattr(values, "__len__") or hasattr(values, "__arrow_c_stream__")):
        raise TableError(
            f"with_column: expected one value per row, found {in_words(values)}; give a list of {table.num_rows} values"
        )
    column = plain_table(read_table({name: values}), name="with_column").column(name)
    if len(column) != table.num_rows:
        raise TableError(
            f"with_column: {len(column)} values for {table.num_rows} rows; give one value per row, in row order"
        )
    if name in SPACING and not pc.all(pc.and_(pc.greater(column, 0), pc.is_finite(column))).as_py():
        raise TableError(
            f"with_column: {name!r} is the size of a pixel in mm; give numbers above 0, or None if unknown"
        )
    remaining = table.drop_columns(name) if name in table.schema.names else table
    changed = {**notes, "label_types": {key: kind for key, kind in notes["label_types"].items() if key != name}}
    hashed = notes.get("hashed") or {}
    if name in hashed.get("columns", ()):
        changed["hashed"] = {**hashed, "columns": [each for each in hashed["columns"] if each != name]}
    return ordered(remaining.append_column(name, column)), changed


def _check_alike(tables: Sequence[Any]) -> None:
    """Raise TableError if views differ, or if a manifest lacks a column whose empty values have a meaning."""
    views = [view_names(table.schema.names) for table in tables]
    if len({*views}) > 1:
        raise TableError(
            f"concat: rows hold different views, {' and '.join(map(str, dict.fromkeys(views)))}; pivot afterwards"
        )
    for name in ("num_frames", *VERDICTS):
        has_column = [name in {each.partition(":")[0] for each in table.schema.names} for table in tables]
        if any(has_column) and not all(has_column):
            raise TableError(
                f"concat: manifest {has_column.index(False)} has no column {name!r}, which others have, so its rows "
                "would appear to be without faults; scan all of them, or none"
            )


def _below(table: Any, old: Any, root: Any) -> Any:
    """Return a table with paths relative to a folder above its own root."""
    if old == root:
        return table
    prefix = os.path.relpath(old.absolute(), root.absolute())
    if prefix == ".":
        return table
    for name in table.schema.names:
        if name.partition(":")[0] == "path":
            paths = pc.binary_join_element_wise(Path(prefix).as_posix(), table.column(name), "/")
            table = table.set_column(table.schema.names.index(name), name, paths)
    return table


def _renumbered(tables: Sequence[Any], *, counts: Sequence[int]) -> list[Any]:
    """Return tables of videos in memory whose paths are indices in the joined list; `counts` are videos per table."""
    renumbered, first = [], 0
    for table, count in zip(tables, counts, strict=True):
        indices = pa.array([f"{first + int(path):06d}" for path in table.column("path").to_pylist()], pa.string())
        renumbered.append(table.set_column(table.schema.names.index("path"), "path", indices))
        first += count
    return renumbered


def _with_new_ids(before: Sequence[Any], rooted: Sequence[Any], joined: Any) -> Any:
    """Return the rows with ids that were derived from old paths replaced by ids of the new paths."""
    ids: list[str] = []
    for old, new in zip(before, rooted, strict=True):
        old_ids = with_ids(old.drop_columns("id"), name="concat").column("id").to_pylist()
        new_ids = with_ids(new.drop_columns("id"), name="concat").column("id").to_pylist()
        current = old.column("id").to_pylist()
        rows = zip(current, old_ids, new_ids, strict=True)
        ids += [new_id if current_id == old_id else current_id for current_id, old_id, new_id in rows]
    return joined.set_column(joined.schema.names.index("id"), "id", pa.array(ids, pa.string()))
