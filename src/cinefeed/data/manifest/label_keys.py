"""Keys of the join between a label table and videos: a form of the path, or columns of both tables."""

import re
import shlex
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cinefeed.core.errors import ColumnError, SettingError, TableError, did_you_mean
from cinefeed.core.remote.address import Root
from cinefeed.data.manifest.columns import METADATA_COLUMNS, column_hint
from cinefeed.video.kinds import extensions

_PATH_NAMES = ("path", "file", "filename", "file_name", "filepath", "file_path", "video", "video_path", "stem")


JOINT = "\x1f"  # between the values of a key of several columns


def without_suffix(paths: Any) -> Any:
    """Return paths without the suffix of a supported format; `.nii.gz` is one suffix."""
    suffixes = "|".join(re.escape(each) for each in sorted(extensions(), key=len, reverse=True))
    return pc.replace_substring_regex(paths, f"(?i)({suffixes})$", "")


def as_text(column: Any) -> Any:
    """Return keys as trimmed text in composed Unicode (NFC): 7 equals "7", and file names of macOS match."""
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return pc.utf8_normalize(pc.utf8_trim_whitespace(column.cast(pa.string())), "NFC")


def key_forms(paths: Any) -> Mapping[str, Any]:
    """Return the forms in which a label table may name files, by their name in messages."""
    name = pc.replace_substring_regex(paths, "^.*/", "")
    return {
        "path": paths,
        "path without suffix": without_suffix(paths),
        "file name": name,
        "stem": without_suffix(name),
    }


def path_keys(labels: Any, *, column: str, paths: Any, root: Root, name: str, private: bool) -> tuple[Any, Any, str]:
    """Return the keys of videos and of labels in the form with the most matches, and the name of that form.

    Among forms with equally many matches the first one is used: as written, then without the folders before the root
    (the table may be from another machine), then ignoring case.
    """
    keys = pc.replace_substring(as_text(labels.column(column)), "\\", "/")
    keys = pc.replace_substring_regex(keys, "^" + re.escape(root.resolve().as_posix()) + "/", "")
    keys = pc.replace_substring_regex(keys, r"^(\./)+", "")
    forms = key_forms(as_text(paths))
    best, most, form = (forms["path"], keys), 0, "path"
    for lower in (False, True):
        for length in (0, *_foreign_roots(keys, root=root)):
            tails = pc.utf8_slice_codeunits(keys, length) if length else keys
            for kind, video_keys in forms.items():
                if length and kind not in ("path", "path without suffix"):
                    continue  # the folders of a row would be ignored
                pair = (pc.utf8_lower(video_keys), pc.utf8_lower(tails)) if lower else (video_keys, tails)
                count = int(pc.sum(pc.is_in(pair[1], value_set=pair[0].unique())).as_py() or 0)
                if count > most:
                    best, most = pair, count
                    form = kind + " below another root" * bool(length)
                    form += ", ignoring case" * lower
        if most == len(keys):
            break
    files = pa.table({"key": best[0], "path": paths}).group_by("key").aggregate([("path", "count_distinct")])
    shared = files.filter(pc.greater(files["path_count_distinct"], 1))["key"]  # parts of a file may have one key
    shared = shared.filter(pc.is_in(shared, value_set=best[1].unique()))
    if len(shared):
        first = first_names(shared, private=private)
        raise TableError(
            f"{name} joined on {form}: {len(shared)} keys match several videos (first: {first}); "
            f"write the path of each video, relative to {root}, in column {column!r}"
        )
    return *best, form


def _foreign_roots(keys: Any, *, root: Root) -> list[int]:
    """Return the lengths of common prefixes of all keys that may be the root on another machine, the longest first.

    For absolute paths these are all common folders; for relative paths, folders with the name of the root.

    >>> from pathlib import Path
    >>> _foreign_roots(pa.array(["D:/all/studies/p1/a.mp4", "D:/all/studies/p2/b.mp4"]), root=Path("/mnt/x"))
    [15, 7, 3]
    >>> _foreign_roots(pa.array(["studies/p1/a.mp4", "studies/p1/b.mp4"]), root=Path("/mnt/studies"))
    [8]
    """
    low, high = pc.min_max(keys).as_py().values()
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(low or "", high or "", strict=False))
    shared = "".join(letter for letter, _ in pairs)  # prefix of first and last in order: of all
    ends = [place + 1 for place, letter in enumerate(shared) if letter == "/"]
    if not re.match(r"/|[A-Za-z]:/", shared):
        ends = [end for end in ends if shared[: end - 1].rpartition("/")[2] == root.resolve().name]
    return ends[::-1]


def choose_keys(on: str | Sequence[str] | None, *, videos: Any, labels: Any, name: str) -> list[tuple[str, str]]:
    """Return pairs of columns to join on, of labels and of videos: those of `on`, or the column that names videos.

    "PatientID=patient" joins two columns of different names. A column that the videos lack is matched with their
    paths. Raises ColumnError, and SettingError for the path with other columns.
    """
    names = labels.schema.names
    if on is None:
        lower = {each.lower(): each for each in reversed(names)}
        column = next((lower[each] for each in _PATH_NAMES if each in lower), None)
        if column is None:
            proposed = proposed_join(videos, labels) or names[0]
            raise ColumnError(
                f"{name} has no column 'path' or 'stem' (its columns: {', '.join(names)}); give the column that names "
                f"the videos with on={proposed!r} (--on {shlex.quote(proposed)}) or another; if its first line is a "
                "video, add a header line, such as 'path,label' (for a frame's index: reset_index())"
            )
        return [(column, "path")]
    pairs = []
    for key in [on] if isinstance(on, str) else list(on):
        of_labels, equals, of_videos = (key, "", "") if key in names else key.partition("=")
        if of_labels not in names:
            raise ColumnError(f"{name} has no column {of_labels!r} to join on; {did_you_mean(of_labels, names)}")
        if equals and of_videos not in videos.schema.names:
            raise ColumnError(
                f"the videos have no column {of_videos!r} to join on; {column_hint(of_videos, videos.schema.names)}"
            )
        pairs.append((of_labels, of_videos or (of_labels if of_labels in videos.schema.names else "path")))
    if len(pairs) > 1:
        for key, other in pairs:
            if key == "path" or f"{key}=path" in (on or ""):
                raise SettingError(
                    f"on={tuple(on)!r}: the path of a video cannot be combined with other columns; join on it alone "
                    f"(on={key!r})"
                )
            if other == "path":
                raise ColumnError(
                    f"the videos have no column {key!r} to join on; name it in path_columns, or give the column of "
                    f"the videos as '{key}=COLUMN'; {column_hint(key, videos.schema.names)}"
                )
    return pairs


def proposed_join(videos: Any, labels: Any) -> str:
    """Return the value of `on` with the most matches between both tables; "" if no two columns match."""
    matches: dict[str, int] = {}
    for other in videos.schema.names:
        if other in METADATA_COLUMNS or not pa.types.is_string(videos.schema.field(other).type):
            continue
        forms = (
            key_forms(as_text(videos.column(other))).values() if other == "path" else [as_text(videos.column(other))]
        )
        for name in labels.schema.names:
            kind = labels.schema.field(name).type
            if pa.types.is_nested(kind) or pa.types.is_floating(kind):
                continue
            keys = as_text(labels.column(name)).drop_null()
            count = max(int(pc.sum(pc.is_in(keys, value_set=form.unique())).as_py() or 0) for form in forms)
            if 2 * count > len(keys) > 0:
                matches[name if other in ("path", name) else f"{name}={other}"] = count
    return max(matches, key=lambda each: matches[each], default="")


def first_names(values: Any, *, count: int = 3, private: bool = False) -> str:
    """Return the first few values, for a message; "private" for private data.

    >>> import pyarrow as pa
    >>> first_names(pa.array(["a", "b", "c", "d"]))
    'a, b, c ...'
    """
    if private:
        return "private"
    text = ", ".join("(empty)" if each is None else str(each) for each in values[:count].to_pylist())
    text = text.replace(JOINT, " + ")
    return text + " ..." if len(values) > count else text


def conflicting_rows(labels: Any, keys: Any, repeated: Any, *, private: bool) -> str:
    """Return the columns and values in which rows with the same key differ, for up to three keys, as a clause.

    >>> table = pa.table({"path": ["a", "a", "b", "b"], "grade": ["low", "high", "low", "low"]})
    >>> conflicting_rows(table, table["path"], pa.array(["a", "b"]), private=False)
    "; rows of one key differ: a has grade 'low' and 'high'"
    """
    names = [field.name for field in labels.schema if not pa.types.is_nested(field.type)]
    rows = labels.select(names).append_column(JOINT, keys).filter(pc.is_in(keys, value_set=repeated))
    every_value = pc.CountOptions(mode="all")
    counts = rows.group_by(JOINT).aggregate([(name, "count_distinct", every_value) for name in names])
    texts = []
    for name in names:
        differing = counts.filter(pc.greater(counts[f"{name}_count_distinct"], 1))[JOINT].unique()
        for key in differing[:3].to_pylist():
            values = rows.filter(pc.equal(rows[JOINT], key))[name].unique().to_pylist()
            texts.append(f"{key.replace(JOINT, ' + ')} has {name} {' and '.join(map(repr, values[:3]))}")
    if not texts:
        return ", whose columns are all equal"
    return "; rows of one key differ" + ("" if private else f": {', '.join(texts[:3])}")
