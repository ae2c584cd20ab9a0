"""What a label table and the videos are joined on: a path in one of its forms, a stem, or columns of both."""

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cinefeed.errors import ColumnError, TableError, did_you_mean
from cinefeed.manifest.columns import FACTS
from cinefeed.sources.kinds import extensions

_PATH_NAMES = ("path", "file", "filename", "file_name", "filepath", "file_path", "video", "video_path", "stem")


JOINT = "\x1f"  # between the values of a key of several columns


def without_suffix(paths: Any) -> Any:
    """Return paths without the suffix of a known kind of video, `.nii.gz` taken as one."""
    suffixes = "|".join(re.escape(each) for each in sorted(extensions(), key=len, reverse=True))
    return pc.replace_substring_regex(paths, f"(?i)({suffixes})$", "")


def as_text(column: Any) -> Any:
    """Return keys as trimmed text in composed Unicode (NFC), so that 7 finds "7", and a name of a Mac the same name."""
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return pc.utf8_normalize(pc.utf8_trim_whitespace(column.cast(pa.string())), "NFC")


def key_forms(paths: Any) -> Mapping[str, Any]:
    """Return the forms in which a label table may name files, by what they are called in messages."""
    name = pc.replace_substring_regex(paths, "^.*/", "")
    return {
        "path": paths,
        "path without suffix": without_suffix(paths),
        "file name": name,
        "stem": without_suffix(name),
    }


def path_keys(labels: Any, *, column: str, paths: Any, root: Path, name: str, private: bool) -> tuple[Any, Any, str]:
    """Return the keys of videos and of labels in the form that finds the most, and that form's name.

    The plainest form wins: as written, without the folders that the table has before the root (it may be of another
    machine), without regard to upper and lower case.
    """
    keys = pc.replace_substring(as_text(labels.column(column)), "\\", "/")
    keys = pc.replace_substring_regex(keys, "^" + re.escape(root.resolve().as_posix()) + "/", "")
    keys = pc.replace_substring_regex(keys, r"^(\./)+", "")
    forms = key_forms(as_text(paths))
    best, most, form = (forms["path"], keys), 0, "path"
    for lower in (False, True):
        for length in (0, *_foreign_roots(keys, root=root)):
            tails = pc.utf8_slice_codeunits(keys, length) if length else keys
            for kind, each in forms.items():
                if length and kind not in ("path", "path without suffix"):
                    continue  # the folders of a row would not count at all
                pair = (pc.utf8_lower(each), pc.utf8_lower(tails)) if lower else (each, tails)
                count = int(pc.sum(pc.is_in(pair[1], value_set=pair[0].unique())).as_py() or 0)
                if count > most:
                    best, most = pair, count
                    form = kind + " below another root" * bool(length)
                    form += ", upper and lower case taken alike" * lower
        if most == len(keys):
            break
    files = pa.table({"key": best[0], "path": paths}).group_by("key").aggregate([("path", "count_distinct")])
    shared = files.filter(pc.greater(files["path_count_distinct"], 1))["key"]  # parts of one file may share a key
    shared = shared.filter(pc.is_in(shared, value_set=best[1].unique()))
    if len(shared):
        first = first_names(shared, private=private)
        raise TableError(
            f"{name} joined on {form}: {len(shared)} are shared by several videos (first: {first}); "
            f"write the path of each video, relative to {root}, in column {column!r}"
        )
    return *best, form


def _foreign_roots(keys: Any, *, root: Path) -> list[int]:
    """Return the lengths of what all keys begin with and which may be the root by another name, the longest first.

    Of absolute paths that is any of the folders that they share; of relative ones a folder that is called as the root.

    >>> _foreign_roots(pa.array(["D:/all/studies/p1/a.mp4", "D:/all/studies/p2/b.mp4"]), root=Path("/mnt/x"))
    [15, 7, 3]
    >>> _foreign_roots(pa.array(["studies/p1/a.mp4", "studies/p1/b.mp4"]), root=Path("/mnt/studies"))
    [8]
    """
    low, high = pc.min_max(keys).as_py().values()
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(low or "", high or "", strict=False))
    shared = "".join(letter for letter, _ in pairs)  # what the first and the last of sorted keys share, all share
    ends = [place + 1 for place, letter in enumerate(shared) if letter == "/"]
    if not re.match(r"/|[A-Za-z]:/", shared):
        ends = [end for end in ends if shared[: end - 1].rpartition("/")[2] == root.resolve().name]
    return ends[::-1]


def choose_keys(on: str | Sequence[str] | None, *, videos: Any, labels: Any, name: str) -> list[tuple[str, str]]:
    """Return the columns to join on, each of labels and of videos: those of `on`, or the one that names videos.

    "PatientID=patient" joins two columns of different names; a column that the videos lack names their files. Raises
    ColumnError.
    """
    names = labels.schema.names
    if on is None:
        lower = {each.lower(): each for each in reversed(names)}
        column = next((lower[each] for each in _PATH_NAMES if each in lower), None)
        if column is None:
            proposed = proposed_join(videos, labels) or names[0]
            raise ColumnError(
                f"{name} has no column 'path' or 'stem' (there are: {', '.join(names)}); "
                f"say which one names the videos, with on={proposed!r} (--on {proposed}) or another; if its first line "
                "is a video already, write a header above it, such as 'path,label' (a frame's index: reset_index())"
            )
        return [(column, "path")]
    pairs = []
    for key in [on] if isinstance(on, str) else list(on):
        of_labels, equals, of_videos = (key, "", "") if key in names else key.partition("=")
        if of_labels not in names:
            raise ColumnError(f"{name} has no column {of_labels!r} to join on; {did_you_mean(of_labels, names)}")
        if equals and of_videos not in videos.schema.names:
            raise ColumnError(
                f"the videos have no column {of_videos!r} to join on; {did_you_mean(of_videos, videos.schema.names)}"
            )
        pairs.append((of_labels, of_videos or (of_labels if of_labels in videos.schema.names else "path")))
    if len(pairs) > 1:
        for key, other in pairs:
            if other == "path":
                raise ColumnError(
                    f"the videos have no column {key!r} to join on; name it in path_columns, or the column that it "
                    f"is as '{key}=COLUMN'; {did_you_mean(key, videos.schema.names)}"
                )
    return pairs


def proposed_join(videos: Any, labels: Any) -> str:
    """Return what to join on by the values of both tables, as `on` takes it; "" where no two columns share any."""
    matches: dict[str, int] = {}
    for other in videos.schema.names:
        if other in FACTS or not pa.types.is_string(videos.schema.field(other).type):
            continue
        forms = (
            key_forms(as_text(videos.column(other))).values() if other == "path" else [as_text(videos.column(other))]
        )
        for each in labels.schema.names:
            kind = labels.schema.field(each).type
            if pa.types.is_nested(kind) or pa.types.is_floating(kind):
                continue
            keys = as_text(labels.column(each)).drop_null()
            count = max(int(pc.sum(pc.is_in(keys, value_set=form.unique())).as_py() or 0) for form in forms)
            if 2 * count > len(keys) > 0:
                matches[each if other in ("path", each) else f"{each}={other}"] = count
    return max(matches, key=lambda each: matches[each], default="")


def first_names(values: Any, *, count: int = 3, private: bool = False) -> str:
    """Return the first few values, for a message; of private data none is named.

    >>> import pyarrow as pa
    >>> first_names(pa.array(["a", "b", "c", "d"]))
    'a, b, c ...'
    """
    if private:
        return "private"
    text = ", ".join("(empty)" if each is None else str(each) for each in values[:count].to_pylist())
    text = text.replace(JOINT, " + ")
    return text + " ..." if len(values) > count else text
