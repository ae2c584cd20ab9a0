"""A table of labels from CSV, Parquet or memory: numbers become numbers, ids stay text."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from cinefeed.errors import TableError
from cinefeed.manifest.columns import plain_table
from cinefeed.sources.limits import irregular_kind

_MISSING = ["", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null"]
_ID_NAME = re.compile(r"(^|[_\-. ])([iI][dD]s?|IDS)$|[a-z](ID|Id)$")
_LEADING_ZERO = r"^[+-]?0[0-9]"
_WHOLE = r"^[+-]?[0-9]{1,15}$"  # longer ones are ids: float64 would round them
# An exponent needs a sign or a point: 12345e67 is a hexadecimal id, 1e-05 and 1.5e3 are numbers.
_NUMBER = r"^[+-]?([0-9]+|([0-9]+\.[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[0-9]+[eE][+-][0-9]+|inf)$"
_DECIMAL_COMMA = r"^[+-]?([0-9]{1,3}(\.[0-9]{3})+|[0-9]+)(,[0-9]+)?([eE][+-]?[0-9]+)?$"
_THOUSANDS = r"^[+-]?[0-9]{1,3}(,[0-9]{3})+$"


def read_table(source: object) -> Any:
    """Return a table of labels: a CSV or Parquet file, a data frame (pandas, Polars, pyarrow), or columns by name.

    CSV may be UTF-8 or UTF-16, with a byte order mark, separated by `,` `;` tab or `|`, with decimal commas. A column
    becomes numbers only where nothing is lost by it: `007`, long digit strings and columns named id stay text.

    Raises TableError where the table cannot be read or has no rows.
    """
    if isinstance(source, str | Path):
        name, table = str(source), _read_file(Path(source))
    elif hasattr(source, "__arrow_c_stream__"):
        name = f"the {type(source).__name__}"
        table = pa.RecordBatchReader.from_stream(source).read_all()
    elif isinstance(source, Mapping):
        name = "the table"
        try:
            table = pa.table(dict(source))
        except (pa.ArrowException, TypeError) as error:
            raise TableError(f"the table cannot be used: {error}; give columns of equal length, by name") from error
    else:
        raise TableError(
            f"a table was asked for, found {type(source).__name__}; give a CSV or Parquet file, or a data frame of "
            f"pandas, Polars or pyarrow"
        )
    table = plain_table(table, name=name)
    if table.num_rows == 0:
        raise TableError(f"{name} has no rows; it needs a header and at least one row")
    return table


def _read_file(path: Path) -> Any:
    if kind := irregular_kind(path):
        raise TableError(f"{path} is {kind}, not a file; give a CSV or Parquet file")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise TableError(f"{path} cannot be read: {error.strerror}; check the path") from error
    if raw[:4] == b"PAR1":
        try:
            return pq.read_table(pa.BufferReader(raw))
        except pa.ArrowException as error:
            raise TableError(f"{path} is a broken Parquet file: {error}; write it again") from error
    return _read_csv(raw, name=str(path))


def _read_csv(raw: bytes, *, name: str) -> Any:
    try:
        if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raw = raw.decode("utf-16").encode()
        raw.decode()
    except UnicodeDecodeError as error:
        raise TableError(f"{name} is not UTF-8 text (byte {error.start}); save it as 'CSV UTF-8'") from error
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    first, _, rest = raw.partition(b"\n")
    separator = ""
    if first.lower().startswith(b"sep="):  # written by Excel for itself
        separator, raw = first.decode().strip()[4:5], rest
        first = rest.partition(b"\n")[0]
    header = re.sub(r'"[^"]*"', "", first.decode())
    separator = separator or max(",;\t|", key=header.count)
    if not header.strip():
        raise TableError(f"{name} is empty; it needs a header and at least one row")
    parse = pa.csv.ParseOptions(delimiter=separator, newlines_in_values=True)
    try:
        names = pa.csv.open_csv(pa.BufferReader(raw), parse_options=parse).schema.names
        convert = pa.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=_MISSING
        )
        table = pa.csv.read_csv(pa.BufferReader(raw), parse_options=parse, convert_options=convert)
    except pa.ArrowException as error:
        raise TableError(f"{name} is no CSV table: {error}; look at that line") from error
    names = [each.strip() for each in names]
    table = table.rename_columns(names)
    if names[0] == "":  # the index that pandas writes
        table, names = table.remove_column(0), names[1:]
    comma = separator != ","
    return pa.table([_typed(table.column(i), name=each, comma=comma) for i, each in enumerate(names)], names=names)


def _typed(column: Any, *, name: str, comma: bool) -> Any:
    """Return a text column as booleans or numbers where all of it is that, as text otherwise."""
    column = pc.utf8_trim_whitespace(column)
    values = column.drop_null()

    def every(pattern: str) -> bool:
        return bool(pc.all(pc.match_substring_regex(values, pattern)).as_py())

    if len(values) == 0 or _ID_NAME.search(name) or pc.any(pc.match_substring_regex(values, _LEADING_ZERO)).as_py():
        return column
    if pc.all(pc.is_in(pc.utf8_lower(values), value_set=pa.array(["true", "false"]))).as_py():
        return pc.equal(pc.utf8_lower(column), "true")
    if every(_WHOLE):
        return pc.replace_substring_regex(column, r"^\+", "").cast(pa.int64())
    if every(_NUMBER):
        return column.cast(pa.float64()) if not every(r"^\+?[0-9]+$") else column
    with_comma = values.filter(pc.match_substring(values, ","))
    # "1,234" in a file separated by commas may be a thousand; then it stays text
    sure = comma or not pc.all(pc.match_substring_regex(with_comma, _THOUSANDS)).as_py()
    if len(with_comma) and every(_DECIMAL_COMMA) and sure:
        return pc.replace_substring(pc.replace_substring(column, ".", ""), ",", ".").cast(pa.float64())
    return column
