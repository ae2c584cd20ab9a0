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
from cinefeed.manifest.columns import FACTS, plain_table

# What pandas takes for missing by default; "none" and "-" are values.
MISSING_MARKS = (
    "",
    *"NA N/A n/a <NA> #NA #N/A NaN nan -NaN -nan NULL null None 1.#IND -1.#IND 1.#QNAN -1.#QNAN".split(),
    "#N/A N/A",
)
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
    becomes numbers only where nothing is lost by it: `007`, long digit strings and columns named id stay text. The
    marks that pandas takes for a missing value (NA, NaN, None, null ...; not none, not -) are missing, in frames too.

    Raises TableError where the table cannot be read or has no rows, or a column mixes numbers and text.
    """
    if isinstance(source, str | Path):
        name, table = str(source), _read_file(Path(source))
    elif hasattr(source, "__arrow_c_stream__"):
        name = f"the {type(source).__name__}"
        try:
            table = pa.RecordBatchReader.from_stream(source).read_all()
        except (pa.ArrowException, TypeError) as error:
            _refuse_mixed(source, name=name)
            raise TableError(f"{name} cannot be used: {error}") from error
    elif isinstance(source, Mapping):
        name = "the table"
        try:
            table = pa.table(dict(source))
        except (pa.ArrowException, TypeError) as error:
            _refuse_mixed(source, name=name)
            raise TableError(f"the table cannot be used: {error}; give columns of equal length, by name") from error
    else:
        raise TableError(
            f"a table was asked for, found {type(source).__name__}; give a CSV or Parquet file, or a data frame of "
            f"pandas, Polars or pyarrow"
        )
    table = _without_marks(plain_table(table, name=name))
    if table.num_rows == 0:
        raise TableError(f"{name} has no rows; it needs a header and at least one row")
    return table


def _refuse_mixed(source: Any, *, name: str) -> None:
    """Raise TableError for the first column that Arrow has no type for, such as one of numbers and text."""
    for each in list(source):
        try:
            pa.array(source[each], from_pandas=True)
        except (pa.ArrowException, TypeError, ValueError) as error:
            kinds = sorted({type(value).__name__ for value in source[each] if value is not None and value == value})
            raise TableError(
                f"{name}: column {each!r} mixes {' and '.join(kinds)}; make it one type, "
                f"such as text: table[{each!r}] = table[{each!r}].astype(str)"
            ) from error


def _without_marks(table: Any) -> Any:
    """Return a table in which marks of a missing value are missing values, in columns of text that are no facts."""
    marks = pa.array(MISSING_MARKS)
    for place, name in enumerate(table.schema.names):
        column = table.column(place)
        if name in FACTS or not pa.types.is_string(column.type):
            continue
        is_mark = pc.is_in(column, value_set=marks)
        if pc.any(is_mark).as_py():
            table = table.set_column(place, name, pc.if_else(is_mark, pa.scalar(None, pa.string()), column))
    return table


def _read_file(path: Path) -> Any:
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
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
        )
        table = pa.csv.read_csv(pa.BufferReader(raw), parse_options=parse, convert_options=convert)
    except pa.ArrowException as error:
        raise TableError(f"{name} is no CSV table: {error}; look at that line") from error
    names = [each.strip() for each in names]
    table = table.rename_columns(names)
    if names[0] == "":  # the index that pandas writes
        table, names = table.remove_column(0), names[1:]
    comma = separator != ","
    columns = [pc.utf8_trim_whitespace(table.column(i)) for i in range(len(names))]
    table = _without_marks(pa.table(columns, names=names))
    return pa.table([_typed(table.column(i), name=each, comma=comma) for i, each in enumerate(names)], names=names)


def _typed(column: Any, *, name: str, comma: bool) -> Any:
    """Return a text column as booleans or numbers where all of it is that, as text otherwise."""
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
