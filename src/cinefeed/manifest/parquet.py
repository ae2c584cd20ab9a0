"""Parquet in which damage is found: a checksum on every page, and for a manifest a digest of all that it holds.

Page checksums cover the values only: not the footer (types, names, notes), not the headers of pages. Bits flipped there
gave another table without an error, so a manifest keeps a digest of its columns and notes beside them.
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cinefeed.errors import TableError
from cinefeed.manifest.fingerprint import digest_values

NOTES, DIGEST = b"cinefeed", b"cinefeed.digest"  # keys in the footer
_PLAIN = (pa.types.is_string, pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating)


def read_parquet_table(source: Path | bytes, *, name: str = "") -> Any:
    """Return the table of a Parquet file, or of its bytes, with the checksum of each page and its digest verified.

    A table without a digest, of another program or of predictions, is taken as it is. Raises TableError for one that
    is not what was written, OSError, and ArrowException for damage that Parquet itself finds, or another format.
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
        except Exception as error:  # of many kinds, such as UnicodeDecodeError of a name
            raise TableError(f"{name} is a damaged Parquet file: {error}; copy it again") from error
    if has_digest:
        _check_digest(table, name=name)
    for column in categories:
        place = table.schema.get_field_index(column)
        table = table.set_column(place, column, table.column(place).dictionary_encode())
    return table


def _categories(metadata: Mapping[bytes, bytes]) -> list[str]:
    """Return the columns that were written as categories: those of numbers come back from Parquet as numbers."""
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
    """Return a table whose schema keeps notes, and a digest of them and of all columns."""
    return table.replace_schema_metadata({NOTES: notes, DIGEST: table_digest(table, notes)})


def table_digest(table: Any, notes: bytes) -> bytes:
    """Return 32 hexadecimal digits that change with any value, type, name or place of a column, and with the notes.

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
    """Return a type without what Parquet may change: the name of a list's items, the unit of a time."""
    if pa.types.is_list(column_type):
        return f"list of {_kind(column_type.value_type)}"
    return str(column_type) if any(is_plain(column_type) for is_plain in _PLAIN) else "text"


def _check_digest(table: Any, *, name: str) -> None:
    metadata = table.schema.metadata or {}
    try:
        if metadata.get(DIGEST) == table_digest(table, metadata.get(NOTES, b"")):
            return
    except (pa.ArrowException, ValueError):  # such as text that is no UTF-8
        pass
    raise TableError(
        f"{name} is damaged, or another program changed it: its digest differs; copy it again, or scan again. After a "
        "change on purpose, make a manifest of the table: Manifest.from_table(table, root=FOLDER)"
    )


def _names_digest(file: Any) -> bool:
    """Return whether the footer names a digest, also where it can no longer be found by its key."""
    size = file.size()
    file.seek(max(size - 8, 0))
    length = int.from_bytes(file.read(4), "little")
    file.seek(max(size - 8 - length, 0))
    is_named = DIGEST in file.read()
    file.seek(0)
    return is_named
