"""Atomic writing of tables as Parquet, CSV or JSON, by the suffix of the file."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from cinefeed.core.errors import SettingError
from cinefeed.core.files import write_atomically, write_errors
from cinefeed.core.locks import write_lock
from cinefeed.data.manifest.columns import plain
from cinefeed.data.manifest.parquet import write_parquet_tables

SUFFIXES = (".parquet", ".csv", ".json")


def table_suffix(path: Path) -> str:
    """Return the suffix of a table file in lower case. Raises SettingError for an unsupported suffix.

    >>> table_suffix(Path("scores.CSV"))
    '.csv'
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise SettingError(
            f"{path} cannot be written: the suffix of a table must be .parquet, .csv or .json; "
            f"name it {path.stem}.parquet, {path.stem}.csv or {path.stem}.json"
        )
    return suffix


def write_table(path: Path, tables: Iterable[Any]) -> None:
    """Write tables of one schema, one after the other, as one table in the format of the suffix.

    Parquet keeps all types. In CSV and JSON a date is text and NaN is missing; a list in CSV is JSON. JSON is a list
    with one object per row. Raises SettingError for another suffix, or if the file cannot be written; DiskFullError.
    """
    write = {".parquet": write_parquet_tables, ".csv": _write_csv, ".json": _write_json}[table_suffix(path)]

    def write_durably(partial: Path) -> None:
        write(partial, iter(tables))
        with partial.open("rb+") as file:
            os.fsync(file.fileno())  # otherwise a crash of the machine can leave an empty file

    with write_errors(path, advice="choose another folder"), write_lock(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, write_durably)


def _write_csv(path: Path, tables: Iterator[Any]) -> None:
    first = _flat(next(tables))
    with pa.csv.CSVWriter(path, first.schema) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(_flat(table))


def _write_json(path: Path, tables: Iterator[Any]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        comma = "\n"
        for table in tables:
            for row in _without_nan(table).to_pylist():
                file.write(comma + json.dumps(row, ensure_ascii=False, default=str))
                comma = ",\n"
        file.write("\n]\n")


def _without_nan(table: Any) -> Any:
    """Return a table in plain types, with numbers that are not finite, which JSON lacks, replaced by null."""
    columns = {}
    for name in table.schema.names:
        column = plain(table.column(name))
        if pa.types.is_floating(column.type):
            column = pc.if_else(pc.is_finite(column), column, pa.scalar(None, column.type))
        columns[name] = column
    return pa.table(columns)


def _flat(table: Any) -> Any:
    """Return a table for CSV: lists and objects are converted to JSON text."""
    columns = {}
    for name in table.schema.names:
        column = plain(table.column(name))
        if pa.types.is_nested(column.type):
            texts = [None if each is None else json.dumps(each, default=str) for each in column.to_pylist()]
            column = pa.array(texts, pa.string())
        columns[name] = column
    return pa.table(columns)
