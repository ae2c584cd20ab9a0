"""Reading of label tables from CSV, Parquet, JSON or data frames, with type detection that keeps ids as text."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from cinefeed.core.errors import TableError
from cinefeed.data.manifest.columns import METADATA_COLUMNS, plain_table
from cinefeed.data.manifest.parquet import read_parquet_table
from cinefeed.video.kinds import known_suffix
from cinefeed.video.limits import irregular_kind

# The missing-value marks of pandas; "none" and "-" are values.
MISSING_MARKS = (
    "",
    *"NA N/A n/a <NA> #NA #N/A NaN nan -NaN -nan NULL null None 1.#IND -1.#IND 1.#QNAN -1.#QNAN".split(),
    "#N/A N/A",
)
_OTHERS = {
    b"PK\x03\x04": "an Excel workbook or another archive",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"\x1f\x8b": "compressed",
    b"ARROW1": "an Arrow or Feather file",
    b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle",
}
_ID_NAME = re.compile(r"(^|[_\-. ])([iI][dD]s?|IDS)$|[a-z](ID|Id)$")
_LEADING_ZERO = r"^[+-]?0[0-9]"
_WHOLE = r"^[+-]?[0-9]{1,15}$"  # longer ones are ids: float64 would round them
# An exponent needs a sign or a point: 12345e67 is a hexadecimal id, 1e-05 and 1.5e3 are numbers.
_NUMBER = r"^[+-]?([0-9]+|([0-9]+\.[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[0-9]+[eE][+-][0-9]+|inf)$"
_DECIMAL_COMMA = r"^[+-]?([0-9]{1,3}(\.[0-9]{3})+|[0-9]+)(,[0-9]+)?([eE][+-]?[0-9]+)?$"
_THOUSANDS = r"^[+-]?[0-9]{1,3}(,[0-9]{3})+$"


def read_table(source: object) -> Any:
    """Return a table of labels from a CSV, Parquet or JSON file, a data frame (pandas, Polars, pyarrow) or a mapping.

    CSV may be UTF-8 or UTF-16, with a byte order mark, separated by `,` `;` tab or `|`, with decimal commas; a list of
    paths without a header may have one label after each path. JSON is a list of rows, one row per line, or columns. A
    column is converted to numbers only if nothing is lost: `007`, long digit strings and columns named id stay text.
    The missing-value marks of pandas (NA, NaN, None, null ...; not none, not -) are missing, also in data frames.

    Raises TableError if the table cannot be read or has no rows, or a column mixes numbers and text.
    """
    if isinstance(source, str | Path):
        name, table = str(source), _read_file(Path(source))
    elif hasattr(source, "__arrow_c_stream__"):
        name = f"the {type(source).__name__}"
        try:
            table = pa.RecordBatchReader.from_stream(source).read_all()
        except (pa.ArrowException, TypeError) as error:
            if not hasattr(source, "columns"):  # only pandas has columns of mixed types
                raise TableError(f"{name} cannot be used: {error}") from error
            frame: Any = source
            frame = frame.copy()
            for column, values in _without_mixed_marks(source, name=name).items():
                frame[column] = values
            table = pa.RecordBatchReader.from_stream(frame).read_all()
        except ValueError as error:  # pandas: two columns with the same name
            raise TableError(f"{name} cannot be used: {error}; rename all but one") from error
    elif isinstance(source, Mapping):
        name, table = "the table", _from_columns(source, name="the table")
    else:
        raise TableError(
            f"expected a table, found {type(source).__name__}; give a CSV, Parquet or JSON file, or a data frame of "
            f"pandas, Polars or pyarrow"
        )
    table = _without_marks(plain_table(table, name=name))
    if table.num_rows == 0:
        raise TableError(f"{name} has no rows; it needs a header and at least one row")
    return table


def _from_columns(columns: Mapping[str, Any], *, name: str) -> Any:
    try:
        return pa.table(dict(columns) | _without_mixed_marks(columns, name=name))
    except (pa.ArrowException, TypeError) as error:
        raise TableError(f"{name} cannot be used: {error}; give columns of equal length, by name") from error


def _without_mixed_marks(source: Any, *, name: str) -> dict[str, NDArray[Any]]:
    """Return the columns that Arrow cannot convert, such as [61, "NA"], with missing-value marks replaced by None.

    Raises TableError for a column that mixes numbers and other text.
    """
    columns = {}
    for column in list(source):
        try:
            pa.array(source[column])
        except (pa.ArrowException, TypeError, ValueError):
            values = [None if str(value) in MISSING_MARKS else value for value in source[column]]
            columns[column] = np.fromiter(values, object, len(values))  # pandas would make floats of a list
            try:
                pa.array(columns[column], from_pandas=True)
            except (pa.ArrowException, TypeError, ValueError) as error:
                kinds = sorted({type(value).__name__ for value in values if value is not None})
                raise TableError(
                    f"{name}: column {column!r} mixes {' and '.join(kinds)}; convert it to one type, "
                    f"such as text: table[{column!r}] = table[{column!r}].astype(str)"
                ) from error
    return columns


def _without_marks(table: Any) -> Any:
    """Return a table with missing-value marks replaced by null, in text columns that are not metadata."""
    marks = pa.array(MISSING_MARKS)
    for index, name in enumerate(table.schema.names):
        column = table.column(index)
        if name in METADATA_COLUMNS or not pa.types.is_string(column.type):
            continue
        is_mark = pc.is_in(column, value_set=marks)
        if pc.any(is_mark).as_py():
            table = table.set_column(index, name, pc.if_else(is_mark, pa.scalar(None, pa.string()), column))
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
            return read_parquet_table(raw, name=str(path))
        except pa.ArrowException as error:
            raise TableError(f"{path} is a damaged Parquet file: {error}; write it again") from error
    return _read_csv(raw, name=str(path))


def _text_of(raw: bytes, *, name: str) -> bytes:
    """Return the text of a file as UTF-8, without a byte order mark. Raises TableError if it is not text."""
    for beginning, kind in _OTHERS.items():
        if raw.startswith(beginning):
            raise TableError(f"{name} is {kind}, but a table must be CSV, Parquet or JSON; save it as 'CSV UTF-8'")
    try:
        if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raw = raw.decode("utf-16").encode()
        raw.decode()
    except UnicodeDecodeError as error:
        letter = raw[error.start : error.start + 1].decode("cp1252", errors="replace")
        raise TableError(
            f"{name} is not UTF-8 text (byte {error.start} is 0x{raw[error.start]:02X}, in Windows-1252 {letter!r}); "
            "Excel's format 'CSV' uses the code page of the computer: save it as 'CSV UTF-8', or read it with "
            "pandas.read_csv(..., encoding='cp1252') and give the data frame"
        ) from error
    if b"\0" in raw:
        raise TableError(
            f"{name} contains zero bytes, so it is not a text file, or it is UTF-16 without a byte order mark; save "
            "it as 'CSV UTF-8'"
        )
    raw = re.sub(rb"\A\s*\n", b"", raw.removeprefix(b"\xef\xbb\xbf"))  # empty lines before the header
    return raw if b"\n" in raw else raw.replace(b"\r", b"\n")  # line ends of old Macs


def _read_json(text: str, *, name: str) -> Any:
    """Return the columns of JSON: a list of rows, one object per line, columns by name, or rows by video path."""
    try:
        try:
            content = json.loads(text)
        except ValueError:
            content = [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError as error:
        raise TableError(f"{name} is not a JSON table: {error}; correct that line") from error
    if isinstance(content, dict) and content and all(known_suffix(key) for key in content):  # rows by video path
        content = [{"path": key, **(row if isinstance(row, dict) else {"label": row})} for key, row in content.items()]
    if isinstance(content, dict) and all(isinstance(values, dict | list) for values in content.values()):
        # columns as lists, or as values by row (pandas)
        return {key: [*values.values()] if isinstance(values, dict) else values for key, values in content.items()}
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise TableError(
            f"{name} is not a JSON table; give a list with one object per video, columns by name, or labels by the "
            "path of each video with its suffix"
        )
    columns = dict.fromkeys(key for row in content for key in row)
    return {key: [row.get(key) for row in content] for key in columns}


def _without_header(first: str, *, name: str) -> list[str]:
    """Return the column names of a list that begins with a video, such as "a.mp4 3"; [] if there is a header."""
    fields = [each.strip().strip('"') for each in re.split(r"[,;\t|]", first.strip())]
    words = fields[0].split()
    if len(fields) == 1 and not known_suffix(fields[0]):  # separated by blanks, which the path may contain too
        end = next((index for index, word in enumerate(words, start=1) if known_suffix(word)), 0)
        fields = [" ".join(words[:end]), *words[end:]]
    if not any(known_suffix(each) for each in fields):
        return []
    if len(fields) > 2 or not known_suffix(fields[0]):
        raise TableError(
            f"{name} has no header: its first line is {first.strip()[:80]!r}; add a line with the column names, "
            "such as 'path,label'"
        )
    return ["path", "label"][: len(fields)]


def _read_csv(raw: bytes, *, name: str) -> Any:
    raw = _text_of(raw, name=name)
    if raw.lstrip()[:1] in (b"{", b"["):
        return _from_columns(_read_json(raw.decode(), name=name), name=name)
    first, _, rest = raw.partition(b"\n")
    separator = ""
    if first.lower().startswith(b"sep="):  # written by Excel
        separator, raw = first.decode().strip()[4:5], rest
        first = rest.partition(b"\n")[0]
    header = re.sub(r'"[^"]*"', "", first.decode())
    headerless = _without_header(first.decode(), name=name)
    separator = separator or max(",;\t| ", key=lambda each: (each != " " and each in header, header.count(each)))
    if separator == " " and not headerless and header.split()[:1] != ["path"]:
        separator = ","  # one column, with a blank in its name
    if not header.strip():
        raise TableError(f"{name} is empty; it needs a header and at least one row")
    if headerless:
        if separator == " ":  # paths may contain blanks: split at the last one
            raw = re.sub(rb"(?m)[ \t]+(?=[^ \t\r\n]+[ \t]*\r?$)", b"\t", raw) if len(headerless) > 1 else raw
            separator = "\t"
        raw = separator.join(headerless).encode() + b"\n" + raw
    parse = pa.csv.ParseOptions(delimiter=separator, newlines_in_values=True)
    try:
        names = pa.csv.open_csv(pa.BufferReader(raw), parse_options=parse).schema.names
        convert = pa.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
        )
        table = pa.csv.read_csv(pa.BufferReader(raw), parse_options=parse, convert_options=convert)
    except pa.ArrowException as error:
        raise TableError(f"{name} is not a CSV table: {error}; correct that line") from error
    names = [each.strip() for each in names]
    table = table.rename_columns(names)
    if names[0] == "":  # the index written by pandas
        table, names = table.remove_column(0), names[1:]
    comma = separator != ","
    columns = [pc.utf8_trim_whitespace(table.column(i)) for i in range(len(names))]
    table = _without_marks(pa.table(columns, names=names))
    return pa.table([_typed(table.column(i), name=each, comma=comma) for i, each in enumerate(names)], names=names)


def _typed(column: Any, *, name: str, comma: bool) -> Any:
    """Return a text column as booleans or numbers if all values are, otherwise as text."""
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
    # "1,234" in a file separated by commas may be a thousands separator; then it stays text
    is_decimal = comma or not pc.all(pc.match_substring_regex(with_comma, _THOUSANDS)).as_py()
    if len(with_comma) and every(_DECIMAL_COMMA) and is_decimal:
        return pc.replace_substring(pc.replace_substring(column, ".", ""), ",", ".").cast(pa.float64())
    return column
