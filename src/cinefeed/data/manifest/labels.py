"""Labels of videos from folder names, or from a table joined on path, stem or other columns."""

import logging
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cinefeed.core.errors import SettingError, SplitError, TableError, did_you_mean
from cinefeed.core.remote.address import Root
from cinefeed.core.text import count_having, format_count
from cinefeed.data.manifest.columns import METADATA_COLUMNS
from cinefeed.data.manifest.label_keys import (
    JOINT,
    as_text,
    choose_keys,
    conflicting_rows,
    first_names,
    key_forms,
    path_keys,
    proposed_join,
    without_suffix,
)
from cinefeed.data.manifest.read_table import read_table
from cinefeed.data.split import PARTS, encode
from cinefeed.video.kinds import known_suffix

Unmatched = Literal["error", "ignore"]

_log = logging.getLogger(__name__)

_SEGMENTS = ("part", "start_seconds", "end_seconds")

_PART_NAMES = {name: name for name in PARTS} | {
    "training": "train",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "testing": "test",
}


def part_names(column: Any, *, name: str) -> Any:
    """Return a column of parts with their standard names, such as val for validation; null if a row has no part.

    Raises SplitError for a name that is not a part.
    """
    encoded = encode(column.cast(pa.string()))
    lower = [str(each).strip().lower() for each in encoded.values]
    for value, part in zip(encoded.values, lower, strict=True):
        if part not in _PART_NAMES:
            raise SplitError(f"{name} names a part {value!r}; {did_you_mean(part, PARTS)}")
    names = pa.array([*(_PART_NAMES[each] for each in lower), None], pa.string())
    return names.take(pa.array(encoded.codes % len(names)))  # -1 (no part) takes the last, None


def split_table(tables: Mapping[str, object], *, on: str | None, videos: Any) -> Any:
    """Return one table with the column that names the videos and `split`, from one table per part."""
    if not tables:
        raise SplitError("there are no tables; give one per part, such as {'train': 'train.csv', 'test': 'test.csv'}")
    rows = []
    names = part_names(pa.array(list(tables)), name="the split").to_pylist()
    for part, source in zip(names, tables.values(), strict=True):
        table = read_table(source)
        key, _ = choose_keys(on, videos=videos, labels=table, name=f"the table of {part}")[0]
        rows.append(
            pa.table(
                {
                    (on or "path").partition("=")[0]: table.column(key).cast(pa.string()),
                    "split": pa.repeat(part, table.num_rows),
                }
            )
        )
    return pa.concat_tables(rows)


def columns_of_paths(paths: Any, *, pattern: str) -> tuple[Any, Any]:
    """Return a text column for each name in `pattern`, and whether each path matches it (Boolean).

    "{patient}/{study}/{view}" matches p1/s2/4ch.mp4 and p1/s2/4ch/clip3.mp4 as patient p1, study s2, view 4ch;
    "{_}" matches without a column.
    """
    suffix = known_suffix(pattern)
    text = (pattern[: len(pattern) - len(suffix)] if suffix else pattern).strip("/")
    literals, names = re.split(r"\{[^{}]*\}", text), re.findall(r"\{([^{}]*)\}", text)
    if any(set("{}") & set(each) for each in literals) or not set(names) - {"_"}:
        raise SettingError(f"path_columns={pattern!r} must name columns in braces, like '{{patient}}/{{study}}'")
    expression = re.escape(literals[0])
    for name, literal in zip(names, literals[1:], strict=True):
        if (
            not name.isidentifier()
            or (names.count(name) > 1 and name != "_")
            or name in METADATA_COLUMNS
            or name in ("path", "part")
        ):
            raise SettingError(
                f"path_columns={pattern!r}: {name!r} cannot be a column; use an identifier that occurs once and is "
                f"not a reserved column name ({', '.join(['path', 'part', *METADATA_COLUMNS])})"
            )
        expression += ("[^/]+?" if name == "_" else f"(?P<{name}>[^/]+?)") + re.escape(literal)
    fields = pc.extract_regex(without_suffix(paths), f"^{expression}(?:/|$)")
    columns = {name: pc.struct_field(fields, name).cast(pa.string()) for name in names if name != "_"}
    return pa.table(columns), fields.is_valid()


def check_unmatched(unmatched: object) -> None:
    """Raise SettingError if a value is not one of Unmatched."""
    if unmatched not in get_args(Unmatched):
        hint = did_you_mean(str(unmatched), get_args(Unmatched))
        raise SettingError(f"unmatched={unmatched!r} is not a choice; {hint}")


def join_labels(
    videos: Any,
    labels: Any,
    *,
    on: str | Sequence[str] | None,
    unmatched: Unmatched,
    root: Root,
    name: str,
    private: bool = False,
    share_labels: bool = False,
    path_columns: Sequence[str] = (),
) -> tuple[Any, str]:
    """Return the videos that have a label row, with its columns, in the order of the videos; and a text about the join.

    The text has the name of the key and, with `unmatched="ignore"`, the number of rows without a video.

    `path_columns` are the columns of the videos from their paths; others are from DICOM headers, for messages.

    One label row may match many videos. A row that names a file matches several samples in it only with
    `share_labels`. Several rows may match one video if they name parts or seconds of it.
    Raises TableError if rows or videos have no match, unless `unmatched="ignore"`, and ColumnError for a missing key.
    """
    check_unmatched(unmatched)
    keys = choose_keys(on, videos=videos, labels=labels, name=name)
    paths = videos.column("path").combine_chunks()
    check_parts(labels, name=name)
    if "part" in labels.schema.names and "part" not in videos.schema.names:
        raise TableError(
            f"{name}: the column 'part' identifies samples within a file, and each file here is one sample; rename "
            "the column, for example to body_part, or leave it out"
        )
    if keys[0][1] == "path":
        video_keys, label_keys, joined_on = path_keys(
            labels, column=keys[0][0], paths=paths, root=root, name=name, private=private
        )
        if by_part := "part" in videos.schema.names and "part" in labels.schema.names:
            video_keys, label_keys = _with_parts(video_keys, videos), _with_parts(label_keys, labels)
            joined_on += " + part"
    else:
        by_part = False
        joined_on = " + ".join(one if one == other else f"{one}={other}" for one, other in keys)
        label_keys = pc.binary_join_element_wise(*[as_text(labels.column(one)) for one, _ in keys], JOINT)
        video_keys = pc.binary_join_element_wise(*[as_text(videos.column(other)) for _, other in keys], JOINT)
    # drop keys that have another name in the videos: there, those of persons are hashed
    labels = labels.drop_columns([one for one, other in keys if other not in ("path", one)])
    _check_collisions(videos, labels, keys=keys, by_part=by_part, path_columns=path_columns, name=name)

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
        conflicts = conflicting_rows(labels, label_keys, repeated, private=private)
        raise TableError(
            f"{name} joined on {joined_on}: {len(repeated)} keys occur in several rows "
            f"(first: {first_names(repeated, private=private)}){conflicts}; keep one row per key, or distinguish the "
            f"rows by part, start_seconds or end_seconds"
        )
    is_unmatched = pa.array(~np.isin(label_codes, video_codes) | (label_codes < 0))
    if counts.max(initial=0) == 0 and not private:
        _refuse_all(videos, labels, label_keys, video_keys, keys=keys, what=f"{name} joined on {joined_on}")
    by_path = keys[0][1] == "path"
    unmatched_rows = label_keys.filter(is_unmatched)
    advice = ""
    if len(unmatched_rows):
        forms = [*key_forms(as_text(paths)).values()] if by_path else [video_keys]
        advice = _zeros_advice(unmatched_rows, forms)
    _report_unmatched(
        unmatched_rows=unmatched_rows,
        num_rows=labels.num_rows,
        unmatched_videos=paths.filter(pa.array(counts == 0)),
        num_videos=len(paths),
        values=None if by_path else video_keys.unique(),
        advice=advice,
        has_key=on is not None,
        unmatched=unmatched,
        what=f"{name} joined on {joined_on}",
        private=private,
    )
    if len(unmatched_rows):
        joined_on += f"; {format_count(labels.num_rows, 'row')}, {len(unmatched_rows)} without a video"
    video_rows = np.repeat(np.arange(len(paths)), counts)
    within = np.arange(len(video_rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    label_rows = order[left[video_rows] + within]
    joined = videos.take(pa.array(video_rows))
    if keys[0][1] == "path" and not share_labels:
        _refuse_shared(joined, label_rows, name=f"{name} joined on {joined_on}", private=private)
    for column in labels.schema.names:
        if column not in joined.schema.names:
            joined = joined.append_column(column, labels.column(column).take(pa.array(label_rows)))
    return joined, joined_on


def _with_parts(keys: Any, table: Any) -> Any:
    """Return keys of files joined with the part of each row; a number is a row of a stacked array."""
    parts = pc.replace_substring_regex(as_text(table.column("part")), "^([0-9]+)$", r"[\1]")
    return pc.binary_join_element_wise(keys, pc.fill_null(parts, ""), JOINT)


def _refuse_shared(joined: Any, label_rows: NDArray[np.int64], *, name: str, private: bool) -> None:
    """Raise TableError if one label row matches several samples of one file; samples of a folder have several files."""
    is_file = np.ones(joined.num_rows, np.bool_)
    if "frame_files" in joined.schema.names:
        is_file = joined.column("frame_files").is_null().to_numpy(zero_copy_only=False)
    num_samples = np.bincount(label_rows[is_file], minlength=label_rows.max(initial=-1) + 1)
    shared = np.flatnonzero(is_file & (num_samples[label_rows] > 1))
    if len(shared):
        files = joined.column("path").take(pa.array(shared)).unique()
        raise TableError(
            f"{name}: {len(files)} files hold several samples, and have one row of labels for all of them (first: "
            f"{first_names(files, private=private)}, {num_samples[label_rows[shared[0]]]} samples); declare the axes "
            f"if the file is one video (--axes), name each sample in a column 'part', or use the row for all samples "
            f"(share_labels=True, --share-labels)"
        )


def _check_collisions(
    videos: Any,
    labels: Any,
    *,
    keys: Sequence[tuple[str, str]],
    by_part: bool,
    path_columns: Sequence[str],
    name: str,
) -> None:
    joined = [one for one, _ in keys]
    for column in labels.schema.names:
        if column in METADATA_COLUMNS:
            raise TableError(f"{name}: column {column!r} is a reserved column name of the scan; rename it in the table")
        if column == "path" or column in joined or (by_part and column == "part"):
            continue
        if column in videos.schema.names:
            place = "path_columns" if column in path_columns else "the DICOM headers"
            pairs = tuple(one if one == other else f"{one}={other}" for one, other in keys)
            too = "" if keys[0][1] == "path" else f", or join on it too (on={(*pairs, column)!r})"
            raise TableError(
                f"{name} and {place} both have a column {column!r}; rename it in the table, or leave it out there{too}"
            )


def _report_unmatched(
    *,
    unmatched_rows: Any,
    num_rows: int,
    unmatched_videos: Any,
    num_videos: int,
    values: Any | None,
    advice: str,
    has_key: bool,
    unmatched: Unmatched,
    what: str,
    private: bool,
) -> None:
    """Raise TableError if nothing matches, or for rows and videos without a match; log these if they are ignored.

    `values` are the keys of the videos, None if these are their paths; `advice` is about the rows without a match, ""
    if there is none.
    """
    row, video = (first_names(each, private=private) for each in (unmatched_rows, unmatched_videos))
    if len(unmatched_videos) == num_videos:
        videos = video if values is None else first_names(values, private=private)
        other = "correct the values, or join on another column (on=)" if has_key else "name the column with on="
        raise TableError(
            f"{what}: none of {num_rows} rows matches any of {num_videos} videos (rows: {row}; videos: {videos}); "
            f"{advice or other}"
        )
    faults = []
    if len(unmatched_rows):
        match = "matches" if len(unmatched_rows) == 1 else "match"
        faults.append(f"{len(unmatched_rows)} of {format_count(num_rows, 'row')} {match} no video (first: {row})")
    if len(unmatched_videos):
        faults.append(f"{count_having(len(unmatched_videos), num_videos, 'video')} no row (first: {video})")
    if faults and unmatched == "ignore":
        _log.warning("%s: %s; left out%s", what, " and ".join(faults), advice and f"; {advice}")
    elif faults:
        raise TableError(
            f"{what}: {' and '.join(faults)}; {advice and f'{advice}; '}correct them, or leave them out with "
            "unmatched='ignore' (--unmatched ignore)"
        )


def _zeros_advice(rows: Any, forms: Sequence[Any]) -> str:
    """Return advice about rows that match a form of the videos' keys if leading zeros are ignored; "" for none."""
    counts = [
        pc.sum(pc.is_in(_without_zeros(rows.drop_null()), value_set=_without_zeros(form).unique())).as_py() or 0
        for form in forms
    ]
    return (
        f"{format_count(max(counts), 'row')} would match without leading zeros, which a spreadsheet drops unless the "
        "column has the format text: write the values as those of the videos"
        if any(counts)
        else ""
    )


def _without_zeros(keys: Any) -> Any:
    return pc.replace_substring_regex(keys, f"(^|{JOINT}|/)0+([0-9])", r"\1\2")


def _refuse_all(
    videos: Any, labels: Any, label_keys: Any, video_keys: Any, *, keys: Sequence[tuple[str, str]], what: str
) -> None:
    """Raise TableError, if no row matches any video, that names another way to join with matches."""
    proposed = proposed_join(videos, labels)
    if proposed and proposed != keys[0][0]:
        raise TableError(
            f"{what}: none of {len(label_keys)} rows matches any of {len(video_keys)} videos; most values match with "
            f"on={proposed!r} (--on {shlex.quote(proposed)})"
        )
    if pc.any(pc.is_in(pc.utf8_lower(label_keys), value_set=pc.utf8_lower(video_keys).unique())).as_py():
        raise TableError(
            f"{what}: none of {len(label_keys)} rows matches any of {len(video_keys)} videos, but some match if case "
            "is ignored; use the same case in both"
        )
    names = pc.replace_substring_regex(label_keys, "^.*/", "")
    by_name = int(pc.sum(pc.is_in(names, value_set=pc.replace_substring_regex(video_keys, "^.*/", ""))).as_py() or 0)
    if keys[0][1] == "path" and by_name:
        raise TableError(
            f"{what}: none of {len(label_keys)} rows matches any of {len(video_keys)} videos by path (rows: "
            f"{first_names(label_keys)}; videos: {first_names(video_keys)}); {by_name} match by file name alone: if "
            f"these are correct, keep only file names in column {keys[0][0]!r}"
        )


_PART = re.compile(r"\d+|/.*|\[\d+\]|slice=\d+|plane-\d+(-repeat-\d+)?")


def check_parts(labels: Any, *, name: str) -> None:
    """Raise TableError if a column `part` holds other values than parts of files."""
    if "part" not in labels.schema.names:
        return
    values = [str(each) for each in labels.column("part").unique().to_pylist() if each is not None]
    other = next((each for each in values if not _PART.fullmatch(each)), None)
    if other is not None:
        raise TableError(
            f"{name}: the column 'part' holds {other!r}, but it must identify a part of a file, such as '/name', "
            "'[5]' or 'slice=4'; rename the column, for example to body_part"
        )
