"""Parquet files with damage detection: a checksum per page, and for manifests a digest of the whole content.

Page checksums cover values only, not the footer (types, names, notes) and not page headers. Flipped bits there gave
another table without an error, so a manifest also stores a digest of its columns and notes.
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cinefeed.core.errors import TableError
from cinefeed.data.manifest.fingerprint import digest_values

NOTES, DIGEST = b"cinefeed", b"cinefeed.digest"  # keys in the footer
_PLAIN = (pa.types.is_string, pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating)


def read_parquet_table(source: Path | bytes, *, name: str = "") -> Any:
    """Return the table of a Parquet file, or of its bytes, after verification of page checksums and digest.

    A table without a digest (predictions, or of another program) is returned without that check. Raises TableError if
    the digest differs, OSError, and ArrowException for damage that Parquet itself detects, or another format.
    """
    name = name or (str(source) if isinstance(source, Path) else "the table")
    with pa.OSFile(str(source)) if isinstance(source, Path) else pa.BufferReader(source) as file:
        has_digest = _names_digest(file)
        try:
            with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
                table = parquet.read()  # pq.read_table cuts long tables into chunks, and took twice as long
                categories = _categories(parquet.metadata.metadata or {})
        except (OSError, pa.ArrowException):
            raise
        except Exception as error:  # of many types, such as UnicodeDecodeError for a name
            raise TableError(f"{name} is a damaged Parquet file: {error}; copy it again") from error
    if has_digest:
        _check_digest(table, name=name)
    for column in categories:
        index = table.schema.get_field_index(column)
        table = table.set_column(index, column, table.column(index).dictionary_encode())
    return table


def _categories(metadata: Mapping[bytes, bytes]) -> list[str]:
    """Return the columns that were written as categories; Parquet returns categories of numbers as numbers."""
    if b"ARROW:schema" not in metadata:
        return []
    schema = pa.ipc.read_schema(pa.BufferReader(base64.b64decode(metadata[b"ARROW:schema"])))
    return [field.name for field in schema if pa.types.is_dictionary(field.type)]


def write_parquet_tables(path: Path, tables: Iterable[Any]) -> None:
    """Write tables of one schema, one after the other, into one Parquet file with a checksum on every page."""
    rest = iter(tables)
    first = next(rest)
    with pq.ParquetWriter(path, first.schema, compression="zstd", write_page_checksum=True) as writer:
        writer.write_table(first)
        for table in rest:
            writer.write_table(table)


def with_digest(table: Any, notes: bytes) -> Any:
    """Return a table whose schema contains notes, and a digest of the notes and all columns."""
    return table.replace_schema_metadata({NOTES: notes, DIGEST: table_digest(table, notes)})


def table_digest(table: Any, notes: bytes) -> bytes:
    """Return 32 hexadecimal digits that change with any value, type, name or position of a column, and the notes.

    >>> table = pa.table({"path": ["a.mp4"], "age": [61]})
    >>> table_digest(table, b"") == table_digest(table.rename_columns(["path", "agf"]), b"")
    False
    """
    digest = hashlib.blake2b(repr((len(notes), table.num_rows)).encode() + notes, digest_size=16)
    for name in table.schema.names:
        column = table.column(name)
        digest.update(repr((name, _kind(column.type), column.null_count)).encode())
        digest_values(digest, column.chunks)
    return digest.hexdigest().encode()


def _kind(column_type: Any) -> str:
    """Return the name of a type without details that Parquet may change: names of list items, units of times."""
    if pa.types.is_list(column_type):
        return f"list of {_kind(column_type.value_type)}"
    return str(column_type) if any(is_plain(column_type) for is_plain in _PLAIN) else "text"


def _check_digest(table: Any, *, name: str) -> None:
    metadata = table.schema.metadata or {}
    try:
        if metadata.get(DIGEST) == table_digest(table, metadata.get(NOTES, b"")):
            return
    except (pa.ArrowException, ValueError):  # such as text that is not UTF-8
        pass
    raise TableError(
        f"{name} is damaged, or another program changed it: its digest differs; copy it again, or scan again. If the "
        "change is intended, make a manifest of the table: Manifest.from_table(table, root=FOLDER)"
    )


def _names_digest(file: Any) -> bool:
    """Return whether the footer contains the key of a digest, even if damage makes the key unreadable for Parquet."""
    size = file.size()
    file.seek(max(size - 8, 0))
    length = int.from_bytes(file.read(4), "little")
    file.seek(max(size - 8 - length, 0))
    is_named = DIGEST in file.read()
    file.seek(0)
    return is_named
