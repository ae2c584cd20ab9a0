"""Labels of videos: made from folder names, or joined from a table on path, stem or any column."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cinefeed.errors import ColumnError, SettingError, SplitError, TableError, did_you_mean
from cinefeed.manifest.columns import FACTS
from cinefeed.manifest.reading import read_table
from cinefeed.sources.kinds import EXTENSIONS, known_suffix
from cinefeed.split import PARTS, encode

Unmatched = Literal["error", "ignore"]

_PATH_NAMES = ("path", "file", "filename", "file_name", "filepath", "file_path", "video", "video_path", "stem")
_JOINT = "\x1f"  # between the values of a key of several columns
_SEGMENTS = ("part", "start_seconds", "end_seconds")


_PART_NAMES = {name: name for name in PARTS} | {
    "training": "train",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "testing": "test",
}


def part_names(column: Any, *, name: str) -> Any:
    """Return a column of parts under their own names, so validation as val; null where a row has none.

    Raises SplitError for a name that is no part.
    """
    found = encode(column.cast(pa.string()))
    lower = [str(each).strip().lower() for each in found.values]
    for value, each in zip(found.values, lower, strict=True):
        if each not in _PART_NAMES:
            raise SplitError(f"{name} names a part {value!r}; {did_you_mean(each, PARTS)}")
    names = pa.array([*(_PART_NAMES[each] for each in lower), None], pa.string())
    return names.take(pa.array(found.codes % len(names)))  # -1, for no part, is the last


def split_table(tables: Mapping[str, object], *, on: str | None, videos: Any) -> Any:
    """Return one table, of the column that names the videos and of `split`, from one table a part."""
    if not tables:
        raise SplitError("no tables were given; name one a part, such as {'train': 'train.csv', 'test': 'test.csv'}")
    rows = []
    names = part_names(pa.array(list(tables)), name="the split").to_pylist()
    for part, source in zip(names, tables.values(), strict=True):
        table = read_table(source)
        key = choose_keys(on, videos=videos, labels=table, name=f"the table of {part}")[0]
        rows.append(
            pa.table({on or "path": table.column(key).cast(pa.string()), "split": pa.repeat(part, table.num_rows)})
        )
    return pa.concat_tables(rows)


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
    text = (pattern[: len(pattern) - len(suffix)] if suffix else pattern).strip("/")
    literals, names = re.split(r"\{[^{}]*\}", text), re.findall(r"\{([^{}]*)\}", text)
    if any(set("{}") & set(each) for each in literals) or not set(names) - {"_"}:
        raise SettingError(f"path_columns={pattern!r} must name columns in braces, like '{{patient}}/{{study}}'")
    expression = re.escape(literals[0])
    for name, literal in zip(names, literals[1:], strict=True):
        if not name.isidentifier() or (names.count(name) > 1 and name != "_") or name in FACTS or name == "path":
            raise SettingError(
                f"path_columns={pattern!r}: {name!r} cannot be a column; use a word of letters, once, "
                f"and none that a manifest has already ({', '.join(['path', *FACTS])})"
            )
        expression += ("[^/]+?" if name == "_" else f"(?P<{name}>[^/]+?)") + re.escape(literal)
    fields = pc.extract_regex(without_suffix(paths), f"^{expression}(?:/|$)")
    columns = {name: pc.struct_field(fields, name).cast(pa.string()) for name in names if name != "_"}
    return pa.table(columns), fields.is_valid()


def _text(column: Any) -> Any:
    """Return keys as trimmed text, so that 7 finds "7"."""
    return pc.utf8_trim_whitespace(column.combine_chunks().cast(pa.string()))


def _key_forms(paths: Any) -> Mapping[str, Any]:
    name = pc.replace_substring_regex(paths, "^.*/", "")
    return {
        "path": paths,
        "path without suffix": without_suffix(paths),
        "file name": name,
        "stem": without_suffix(name),
    }


def _path_keys(labels: Any, *, column: str, paths: Any, root: Path, name: str, private: bool) -> tuple[Any, Any, str]:
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
            first = first_names(shared, private=private)
            raise TableError(
                f"{name} joined on {form}: {len(shared)} are shared by several videos (first: {first}); "
                f"write the path of each video, relative to {root}, in column {column!r}"
            )
    return forms[form], keys, form


def choose_keys(on: str | Sequence[str] | None, *, videos: Any, labels: Any, name: str) -> list[str]:
    """Return the label columns to join on: those of `on`, or the one that names videos. Raises ColumnError."""
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


def first_names(values: Any, *, count: int = 3, private: bool = False) -> str:
    """Return the first few values, for a message; of private data none is named.

    >>> import pyarrow as pa
    >>> first_names(pa.array(["a", "b", "c", "d"]))
    'a, b, c ...'
    """
    if private:
        return "private"
    shown = ", ".join("(empty)" if each is None else str(each) for each in values[:count].to_pylist())
    shown = shown.replace(_JOINT, " + ")
    return shown + " ..." if len(values) > count else shown


def join_labels(
    videos: Any,
    labels: Any,
    *,
    on: str | Sequence[str] | None,
    unmatched: Unmatched,
    root: Path,
    name: str,
    private: bool = False,
) -> tuple[Any, str]:
    """Return the videos that have a label row, with its columns, in the order of the videos; and what was joined on.

    One label row may serve many videos. Several rows may serve one video where they name parts or seconds of it.
    Raises TableError where rows or videos find no partner, unless `unmatched="ignore"`, ColumnError for a key that is
    not there.
    """
    if unmatched not in get_args(Unmatched):
        raise SettingError(f"unmatched={unmatched!r} is not a choice; {did_you_mean(unmatched, get_args(Unmatched))}")
    keys = choose_keys(on, videos=videos, labels=labels, name=name)
    paths = videos.column("path").combine_chunks()
    if keys[0] == "path" or keys[0] not in videos.schema.names:
        video_keys, label_keys, joined_on = _path_keys(
            labels, column=keys[0], paths=paths, root=root, name=name, private=private
        )
    else:
        joined_on = " + ".join(keys)
        video_keys, label_keys = (
            pc.binary_join_element_wise(*[_text(each.column(key)) for key in keys], _JOINT) for each in (videos, labels)
        )
    _check_collisions(videos, labels, keys=keys, name=name)

    codes = (
        pa.concat_arrays([video_keys, label_keys])
        .dictionary_encode()
        .indices.fill_null(-1)
        .to_numpy(zero_copy_only=False)
    )
    video_codes, label_codes = codes[: len(paths)], codes[len(paths) :]
    order = np.argsort(label_codes, kind="stable")
    left = np.searchsorted(label_codes, video_codes, side="left", sorter=order)
    counts = np.searchsorted(label_codes, video_codes, side="right", sorter=order) - left
    counts[video_codes < 0] = 0
    if counts.max(initial=0) > 1 and not set(_SEGMENTS) & set(labels.schema.names):
        repeated = label_keys.take(pa.array(order[left[counts > 1]])).unique()
        raise TableError(
            f"{name} joined on {joined_on}: {len(repeated)} keys stand in several rows "
            f"(first: {first_names(repeated, private=private)}); keep one row each, or tell the rows apart "
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
        private=private,
    )
    video_rows = np.repeat(np.arange(len(paths)), counts)
    within = np.arange(len(video_rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    label_rows = order[left[video_rows] + within]
    joined = videos.take(pa.array(video_rows))
    for each in labels.schema.names:
        if each not in joined.schema.names:
            joined = joined.append_column(each, labels.column(each).take(pa.array(label_rows)))
    return joined, joined_on


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
    *,
    lonely_rows: Any,
    num_rows: int,
    lonely_videos: Any,
    num_videos: int,
    unmatched: Unmatched,
    what: str,
    private: bool,
) -> None:
    row, video = (first_names(each, private=private) for each in (lonely_rows, lonely_videos))
    if len(lonely_videos) == num_videos:
        raise TableError(
            f"{what}: none of {num_rows} rows matches any of {num_videos} videos (rows: {row}; videos: {video}); "
            f"choose the column with on="
        )
    faults = []
    if len(lonely_rows):
        faults.append(f"{len(lonely_rows)} of {num_rows} rows match no video (first: {row})")
    if len(lonely_videos):
        faults.append(f"{len(lonely_videos)} of {num_videos} videos have no row (first: {video})")
    if faults and unmatched == "error":
        raise TableError(f"{what}: {' and '.join(faults)}; mend them, or leave them out with unmatched='ignore'")
