"""Label tables: read from CSV, Parquet or memory with ids left as text, made from folder names, and joined to videos."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from cinefeed.errors import ColumnError, SettingError, TableError, did_you_mean
from cinefeed.manifest.columns import FACTS, RESERVED, plain_table
from cinefeed.sources.open import EXTENSIONS, known_suffix

Unmatched = Literal["error", "ignore"]

_MISSING = ["", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null"]
_PATH_NAMES = ("path", "file", "filename", "file_name", "filepath", "file_path", "video", "video_path", "stem")
_ID_NAME = re.compile(r"(^|[_\-. ])ids?$|[a-z]I[Dd]$", re.IGNORECASE)
_LEADING_ZERO = r"^[+-]?0[0-9]"
_WHOLE = r"^[+-]?[0-9]{1,15}$"  # longer ones are ids: float64 would round them
# An exponent needs a sign or a point: 12345e67 is a hexadecimal id, 1e-05 and 1.5e3 are numbers.
_NUMBER = r"^[+-]?([0-9]+|([0-9]+\.[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[0-9]+[eE][+-][0-9]+|inf)$"
_DECIMAL_COMMA = r"^[+-]?([0-9]{1,3}(\.[0-9]{3})+|[0-9]+)(,[0-9]+)?([eE][+-]?[0-9]+)?$"
_THOUSANDS = r"^[+-]?[0-9]{1,3}(,[0-9]{3})+$"
_SEGMENTS = ("part", "start_seconds", "end_seconds")


def read_table(source: object) -> Any:
    """Return a table of labels: a CSV or Parquet file, or anything with `__arrow_c_stream__` (pandas, Polars, pyarrow).

    CSV may be UTF-8 or UTF-16, with a byte order mark, separated by `,` `;` tab or `|`, with decimal commas. A column
    becomes numbers only where nothing is lost by it: `007`, long digit strings and columns named id stay text.

    Raises TableError where the table cannot be read or has no rows.
    """
    if isinstance(source, str | Path):
        name, table = str(source), _read_file(Path(source))
    elif hasattr(source, "__arrow_c_stream__"):
        name = f"the {type(source).__name__}"
        table = pa.RecordBatchReader.from_stream(source).read_all()
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
    return pa.table(
        [_typed(table.column(i), name=each, comma=comma) for i, each in enumerate(names)], names=names
    )


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
    if every(_DECIMAL_COMMA) and len(with_comma):
        # "1,234" in a file separated by commas may be a thousand; then it stays text
        if comma or not pc.all(pc.match_substring_regex(with_comma, _THOUSANDS)).as_py():
            return pc.replace_substring(pc.replace_substring(column, ".", ""), ",", ".").cast(pa.float64())
    return column


def without_suffix(paths: Any) -> Any:
    """Return paths without the suffix of a known kind of video, `.nii.gz` taken as one."""
    suffixes = "|".join(re.escape(each) for each in sorted(EXTENSIONS, key=len, reverse=True))
    return pc.replace_substring_regex(paths, f"(?i)({suffixes})$", "")


def columns_of_paths(paths: Any, *, pattern: str) -> tuple[Any, Any]:
    """Return a text column for each name in `pattern`, and which paths follow it (Boolean).

    "{patient}/{study}/{view}" reads p1/s2/4ch.mp4, and p1/s2/4ch/clip3.mp4 too, as patient p1, study s2, view 4ch;
    "{_}" matches without making a column.
    """
    suffix = known_suffix(pattern)
    text = pattern[: len(pattern) - len(suffix)] if suffix else pattern
    names: list[str] = []
    expression = ""
    for literal, name in re.findall(r"([^{}]*)(?:\{([^{}]*)\})?", text.strip("/")):
        expression += re.escape(literal)
        if name == "_":
            expression += "[^/]+?"
        elif name:
            if not name.isidentifier() or name in names or name in FACTS or name == "path":
                raise SettingError(
                    f"path_columns={pattern!r}: {name!r} cannot be a column; use words of letters, each once, "
                    f"and none that a manifest has already ({', '.join(['path', *FACTS])})"
                )
            names.append(name)
            expression += f"(?P<{name}>[^/]+?)"
    if not names or re.sub(r"\{[^{}]*\}", "", text).strip("{}") != re.sub(r"\{[^{}]*\}", "", text):
        raise SettingError(f"path_columns={pattern!r} must name columns in braces, like '{{patient}}/{{study}}'")
    fields = pc.extract_regex(without_suffix(paths), f"^{expression}(?:/|$)")
    follows = fields.is_valid()
    fields = fields.combine_chunks() if isinstance(fields, pa.ChunkedArray) else fields
    return pa.table({name: pc.struct_field(fields, name).cast(pa.string()) for name in names}), follows


def _text(column: Any) -> Any:
    """Return keys as trimmed text, so that 7 finds "7"."""
    return pc.utf8_trim_whitespace(column.cast(pa.string()))


def _key_forms(paths: Any) -> Mapping[str, Any]:
    name = pc.replace_substring_regex(paths, "^.*/", "")
    return {
        "path": paths,
        "path without suffix": without_suffix(paths),
        "file name": name,
        "stem": without_suffix(name),
    }


def _path_keys(labels: Any, *, column: str, paths: Any, root: Path, name: str) -> tuple[Any, Any, str]:
    """Return the keys of videos and of labels in the form that finds the most, and that form's name."""
    keys = pc.replace_substring(_text(labels.column(column)), "\\", "/")
    keys = pc.replace_substring_regex(keys, "^" + re.escape(root.resolve().as_posix()) + "/", "")
    keys = pc.replace_substring_regex(keys, r"^(\./)+", "")
    forms = _key_forms(paths)
    found = {form: int(pc.sum(pc.is_in(keys, value_set=each.unique())).as_py() or 0) for form, each in forms.items()}
    form = max(found, key=lambda each: found[each])
    if form != "path":
        counts = forms[form].value_counts()
        shared = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
        shared = shared.filter(pc.is_in(shared, value_set=keys.unique()))
        if len(shared):
            raise TableError(
                f"{name} joined on {form}: {len(shared)} are shared by several videos (first: {first_names(shared)}); "
                f"write the path of each video, relative to {root}, in column {column!r}"
            )
    return forms[form], keys, form


def _choose_keys(on: str | Sequence[str] | None, *, videos: Any, labels: Any, name: str) -> list[str]:
    names = labels.schema.names
    if on is None:
        lower = {each.lower(): each for each in reversed(names)}
        column = next((lower[each] for each in _PATH_NAMES if each in lower), None)
        if column is None:
            also = [each for each in names if each in videos.schema.names]
            raise ColumnError(
                f"{name} has no column 'path' or 'stem' (there are: {', '.join(names)}); "
                f"say which one names the videos, with on={(also or names)[0]!r} or another"
            )
        return [column]
    keys = [on] if isinstance(on, str) else list(on)
    for key in keys:
        if key not in names:
            raise ColumnError(f"{name} has no column {key!r} to join on; {did_you_mean(key, names)}")
    if len(keys) > 1:
        for key in keys:
            if key not in videos.schema.names:
                raise ColumnError(
                    f"the videos have no column {key!r} to join on; name it in path_columns; "
                    f"{did_you_mean(key, videos.schema.names)}"
                )
    return keys


def first_names(values: Any, *, count: int = 3) -> str:
    """Return the first few values, for a message.

    >>> import pyarrow as pa
    >>> first_names(pa.array(["a", "b", "c", "d"]))
    'a, b, c ...'
    """
    shown = ", ".join("(empty)" if each is None else str(each) for each in values[:count].to_pylist())
    return shown + " ..." if len(values) > count else shown


def join_labels(
    videos: Any,
    labels: Any,
    *,
    on: str | Sequence[str] | None,
    unmatched: Unmatched,
    root: Path,
    name: str,
) -> tuple[Any, str]:
    """Return the videos that have a label row, with its columns, in the order of the videos; and what was joined on.

    One label row may serve many videos. Several rows may serve one video where they name parts or seconds of it.
    Raises TableError where rows or videos find no partner, unless `unmatched="ignore"`, ColumnError for a key that is
    not there.
    """
    if unmatched not in get_args(Unmatched):
        raise SettingError(f"unmatched={unmatched!r} is not a choice; {did_you_mean(unmatched, get_args(Unmatched))}")
    keys = _choose_keys(on, videos=videos, labels=labels, name=name)
    paths = videos.column("path")
    if keys[0] == "path" or keys[0] not in videos.schema.names:
        video_keys, label_keys, joined_on = _path_keys(labels, column=keys[0], paths=paths, root=root, name=name)
    else:
        joined_on = " + ".join(keys)
        video_keys, label_keys = (
            pc.binary_join_element_wise(*[_text(each.column(key)) for key in keys], "\x1f") for each in (videos, labels)
        )
    _check_collisions(videos, labels, keys=keys, name=name)

    both = pa.concat_arrays([each.combine_chunks() for each in map(_chunked, (video_keys, label_keys))])
    codes = both.dictionary_encode().indices.fill_null(-1).to_numpy(zero_copy_only=False)
    video_codes, label_codes = codes[: len(paths)], codes[len(paths) :]
    order = np.argsort(label_codes, kind="stable")
    left = np.searchsorted(label_codes, video_codes, side="left", sorter=order)
    counts = np.searchsorted(label_codes, video_codes, side="right", sorter=order) - left
    counts[video_codes < 0] = 0
    if counts.max(initial=0) > 1 and not set(_SEGMENTS) & set(labels.schema.names):
        repeated = label_keys.take(pa.array(order[left[counts > 1]])).unique()
        raise TableError(
            f"{name} joined on {joined_on}: {len(repeated)} keys stand in several rows "
            f"(first: {first_names(repeated).replace(chr(0x1F), ' + ')}); keep one row each, or tell the rows apart "
            f"by part, start_seconds or end_seconds"
        )
    lonely = pa.array(~np.isin(label_codes, video_codes) | (label_codes < 0))
    _refuse_unmatched(
        lonely_rows=label_keys.filter(lonely),
        num_rows=labels.num_rows,
        lonely_videos=paths.filter(pa.array(counts == 0)),
        num_videos=len(paths),
        unmatched=unmatched,
        what=f"{name} joined on {joined_on}",
    )
    video_rows = np.repeat(np.arange(len(paths)), counts)
    within = np.arange(len(video_rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    label_rows = order[left[video_rows] + within]
    joined = videos.take(pa.array(video_rows))
    for each in labels.schema.names:
        if each not in joined.schema.names:
            joined = joined.append_column(each, labels.column(each).take(pa.array(label_rows)))
    return joined, joined_on


def _chunked(values: Any) -> Any:
    return values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values])


def _check_collisions(videos: Any, labels: Any, *, keys: list[str], name: str) -> None:
    for each in labels.schema.names:
        if each in FACTS:
            raise TableError(f"{name}: column {each!r} is also what a scan finds of the file; rename it in the table")
        if each in videos.schema.names and each not in keys and each != "path":
            raise TableError(
                f"{name} and path_columns both have a column {each!r}; join on it too (on={[*keys, each]!r}), "
                f"or call one of them something else"
            )


def _refuse_unmatched(
    *, lonely_rows: Any, num_rows: int, lonely_videos: Any, num_videos: int, unmatched: Unmatched, what: str
) -> None:
    if len(lonely_videos) == num_videos:
        raise TableError(
            f"{what}: none of {num_rows} rows matches any of {num_videos} videos (rows: "
            f"{first_names(lonely_rows)}; videos: {first_names(lonely_videos)}); choose the column with on="
        )
    faults = []
    if len(lonely_rows):
        faults.append(f"{len(lonely_rows)} of {num_rows} rows match no video (first: {first_names(lonely_rows)})")
    if len(lonely_videos):
        faults.append(f"{len(lonely_videos)} of {num_videos} videos have no row (first: {first_names(lonely_videos)})")
    if faults and unmatched == "error":
        raise TableError(f"{what}: {' and '.join(faults)}; mend them, or leave them out with unmatched='ignore'")


__all__ = ["RESERVED", "Unmatched", "columns_of_paths", "first_names", "join_labels", "read_table", "without_suffix"]
