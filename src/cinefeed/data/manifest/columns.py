"""Column names and types of a manifest, conversion of video metadata to columns and back, and relative paths.

More than 400 lines, because the list of columns and the two directions of their conversion change together.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cinefeed.core.errors import TableError, listed_in_words
from cinefeed.core.remote.address import RemoteRoot, Root, parse_root, without_secrets
from cinefeed.core.text import count_having
from cinefeed.data.label_types import class_names, is_number
from cinefeed.video.metadata import NO_DAMAGE, PackedMember, PixelValues, Region, VideoMetadata
from cinefeed.video.timestamps import FrameTimes, Timestamps

# Columns that define a sample. Seconds count from the container's start time, as in a player and in `ffmpeg -ss`; for
# arrays, image folders and DICOM they count from the first frame.
SAMPLE = {
    "id": pa.string(),
    "path": pa.string(),
    "part": pa.string(),
    "start_seconds": pa.float64(),
    "end_seconds": pa.float64(),
    "split": pa.string(),
}
# Metadata of a file, filled by a scan. manifest/identity defines size, time and hash of a sample of several files.
# Regular timestamps are stored as first, step and count; irregular ones are listed in `ticks`. Timestamps are the
# file's own, `start_time_seconds` is the start of its container on the same clock.
# `damaged` holds ranges of frames: first, last + 1, first of the next range ...
# `member_` columns are those of videos in packed shards (docs/packed.md); `path` is then the shard, `part` the member.
# A file whose timestamps are in seconds has `step_seconds`, or `seconds` if the steps differ.
METADATA_COLUMNS = {
    "size_bytes": pa.int64(),
    "mtime_ns": pa.int64(),
    "content_hash": pa.string(),
    "container": pa.string(),
    "codec": pa.string(),
    "pixel_format": pa.string(),
    "height": pa.int32(),
    "width": pa.int32(),
    "channels": pa.int32(),
    "bits": pa.int32(),
    "rotation": pa.int32(),
    "rate_hz": pa.float64(),
    "num_frames": pa.int32(),
    "header_frames": pa.int32(),
    "first_tick": pa.int64(),
    "step_ticks": pa.int64(),
    "tick_num": pa.int32(),
    "tick_den": pa.int32(),
    "ticks": pa.list_(pa.int64()),
    "start_time_seconds": pa.float64(),
    "step_seconds": pa.float64(),
    "seconds": pa.list_(pa.float64()),
    "key_frames": pa.list_(pa.int32()),
    "error": pa.string(),
    "damaged": pa.list_(pa.int32()),
    "conceals_damage": pa.bool_(),
    "mirrored": pa.bool_(),
    "aspect": pa.float64(),
    "video_stream": pa.int32(),
    "array_axes": pa.string(),
    "window_black": pa.float64(),
    "window_white": pa.float64(),
    "window_assumed": pa.bool_(),
    "spacing_down_mm": pa.float64(),
    "spacing_across_mm": pa.float64(),
    "image_regions": pa.string(),
    "frame_files": pa.list_(pa.string()),
    "header_tags": pa.string(),
    "member_offset": pa.int64(),
    "member_bytes": pa.int64(),
    "member_sha256": pa.string(),
    "member_traits": pa.string(),
    "value_min": pa.float64(),
    "value_max": pa.float64(),
    "value_low": pa.float64(),
    "value_high": pa.float64(),
    "nan_count": pa.int64(),
    "inf_count": pa.int64(),
}
# Columns of `PixelValues`, for files that do not define black and white (video/value_range.py).
VALUES = ("value_min", "value_max", "value_low", "value_high", "nan_count", "inf_count")
RESERVED = SAMPLE | METADATA_COLUMNS
SPACING = ("spacing_down_mm", "spacing_across_mm")  # which `with_column` may set: many formats do not store them
# Columns in which an empty value means that no fault was found: never add an empty one to a table that lacks it.
VERDICTS = ("error", "damaged", "header_frames", "header_tags", "size_bytes", "mtime_ns")
_MOST_NAMES = 30  # of label columns in a message
_PLAIN = "container codec pixel_format height width channels bits rotation header_frames error".split()
# Values that nearly all files have are stored as null, which needs no memory.
_DEFAULTS: dict[str, Any] = {
    "conceals_damage": False,
    "mirrored": False,
    "aspect": 1.0,
    "video_stream": 0,
    "array_axes": "",
    "window_assumed": False,
}


def column_hint(name: object, names: Sequence[str]) -> str:
    """Return a hint for a missing column: the nearest name, or the label columns and the number of other columns.

    >>> column_hint("sax", ["path", "width", "age", "sex"])
    "did you mean 'sex'?"
    >>> column_hint("label", ["path", "width", "age", "sex"])
    'there are: age, sex and 2 internal ones'
    """
    if not isinstance(name, str):
        single = name[0] if isinstance(name, list | tuple) and len(name) == 1 else None
        return f"did you mean {single!r}?" if single in names else "give the name of a column, which is a text"
    labels = label_names(names)
    if near := get_close_matches(name, names, n=1):
        return f"did you mean {near[0]!r}?"
    others = len(names) - len(labels)
    words = [*labels[:_MOST_NAMES], *([f"{len(labels) - _MOST_NAMES} more"] if len(labels) > _MOST_NAMES else [])]
    words += [f"{others} internal {'one' if others == 1 else 'ones'}"] if others else []
    return f"there are: {listed_in_words(words) if others else ', '.join(words)}"


def label_names(names: Iterable[str]) -> list[str]:
    """Return the names of label columns: those that neither define a sample nor hold metadata of a file."""
    return [name for name in names if name.partition(":")[0] not in RESERVED]  # "path:4ch" is the path of a view


def metadata_to_row(metadata: VideoMetadata) -> dict[str, Any]:
    """Return the metadata of a video as plain values, by column name."""
    ticks, times = metadata.ticks, metadata.times
    row: dict[str, Any] = {name: getattr(metadata, name) for name in _PLAIN}
    rare = {
        "mirrored": metadata.mirrored,
        "aspect": metadata.aspect,
        "video_stream": metadata.stream,
        "array_axes": metadata.axes,
    }
    rare |= {"window_assumed": metadata.window_assumed, "conceals_damage": metadata.conceals_damage}
    row |= {name: value for name, value in rare.items() if value != _DEFAULTS[name]}
    row["rate_hz"] = None if np.isnan(metadata.rate_hz) else float(metadata.rate_hz)
    row["num_frames"] = times.count
    row["key_frames"] = metadata.key_frames.tolist()
    if metadata.damaged.size:
        row["damaged"] = metadata.damaged.ravel().tolist()
    if ticks is not None:
        row["first_tick"], row["step_ticks"] = ticks.first, ticks.step
        row["tick_num"], row["tick_den"] = ticks.base
        row["ticks"] = None if ticks.listed is None else ticks.listed.tolist()
        row["start_time_seconds"] = start = metadata.start_time_seconds
        is_untimed = metadata.member is not None and metadata.member.is_untimed
        if not is_untimed and not np.array_equal(
            times.seconds(), ticks.times(start_seconds=start).seconds()
        ):  # AVI: decoding timestamps
            row["seconds"] = times.seconds().tolist()
    elif times.listed is not None or times.first_seconds != 0.0:
        row["seconds"] = times.seconds().tolist()
    elif not np.isnan(times.step_seconds):
        row["step_seconds"] = times.step_seconds
    if metadata.window is not None:
        row["window_black"], row["window_white"] = map(float, metadata.window)
    if metadata.values is not None:
        row |= {name: None if value != value else value for name, value in zip(VALUES, metadata.values, strict=True)}
    if metadata.spacing_mm is not None:
        row["spacing_down_mm"], row["spacing_across_mm"] = map(float, metadata.spacing_mm)
    if metadata.regions:
        row["image_regions"] = json.dumps(metadata.regions)
    if metadata.member is not None:
        row["member_offset"], row["member_bytes"] = metadata.member[:2]
        row["member_traits"] = metadata.member.traits or None
    if metadata.files:
        row["frame_files"] = list(metadata.files)
    if metadata.tags:
        row["header_tags"] = json.dumps(dict(metadata.tags))
    return row


_DIGESTS = ("content_hash", "member_sha256")
_MAX_TEXTS = 1000  # Python strings take ten times the memory


class _Texts(NamedTuple):
    """A text column with few distinct values: the index of each row's text, and the texts; None is a missing text."""

    numbers: NDArray[np.int16]
    texts: list[str | None]


class _Lists(NamedTuple):
    """A column of lists of numbers: the concatenated values, and the start of each row's list."""

    starts: NDArray[np.int32]
    values: NDArray[Any]
    missing: NDArray[np.bool_] | None


def metadata_columns(table: Any) -> dict[str, Any] | None:
    """Return the metadata columns as NumPy arrays if possible; None if no file was probed.

    They are read ten times as fast as Arrow columns. Columns without missing values are views.
    """
    if "num_frames" not in table.schema.names:
        return None
    # content_hash is read only if a file's time changed, and a million distinct texts cannot be read fast.
    names = [name for name in METADATA_COLUMNS if name in table.schema.names and name not in _DIGESTS]
    columns = {name: _in_one_piece(table.column(name)) for name in names}
    return {name: _quick(column) for name, column in columns.items() if column.null_count < len(column)}


def _quick(column: Any) -> Any:
    """Return a column in the form from which a single row is read fastest."""
    kind, missing = column.type, column.null_count > 0
    if pa.types.is_string(kind):
        coded = column.dictionary_encode(null_encoding="encode")  # null gets a code too
        if len(coded.dictionary) > _MAX_TEXTS:
            return column
        return _Texts(_numbers(coded.indices).astype(np.int16), coded.dictionary.to_pylist())
    if pa.types.is_list(kind) and _is_number(kind.value_type):
        gaps = _numbers(column.is_null().cast(pa.uint8())).astype(np.bool_) if missing else None
        return _Lists(_numbers(column.offsets), _numbers(column.values), gaps)
    return column if missing or not _is_number(kind) else _numbers(column)


def _in_one_piece(column: Any) -> Any:
    """Return a column as one array, without a copy if it is one already; combine_chunks() would copy it."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _numbers(array: Any) -> NDArray[Any]:
    """Return an array of numbers, as a view if none is missing; to_numpy() would import pandas if it is installed."""
    if array.null_count:
        return np.asarray(array.to_numpy(zero_copy_only=False))
    kind = {"double": "float64", "float": "float32", "halffloat": "float16"}.get(str(array.type), str(array.type))
    if not len(array):
        return np.zeros(0, kind)
    return np.frombuffer(array.buffers()[1], kind)[array.offset : array.offset + len(array)]


def _is_number(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def fact_value(columns: dict[str, Any], row: int, name: str, otherwise: Any = None) -> Any:
    """Return one value of `metadata_columns`; the column must not hold lists of numbers."""
    column = columns.get(name)  # None: missing in all rows
    if column is None:
        return otherwise
    if isinstance(column, np.ndarray):
        return column.item(row)
    value = column.texts[column.numbers.item(row)] if isinstance(column, _Texts) else column[row].as_py()
    return otherwise if value is None else value


def row_to_metadata(columns: dict[str, Any], row: int) -> VideoMetadata | None:
    """Return the metadata of one row of `metadata_columns`, or None if the file was not probed or has no frame."""
    value = partial(fact_value, columns, row)

    def listed(name: str) -> Any:
        column = columns.get(name)
        if column is None or (column.missing is not None and column.missing[row]):
            return None
        return column.values[column.starts.item(row) : column.starts.item(row + 1)]

    count = value("num_frames")
    if not count:
        return None
    ticks, seconds, member = None, listed("seconds"), _member(columns, value)
    if (denominator := value("tick_den")) is not None:
        ticks = Timestamps(
            value("first_tick"), value("step_ticks"), count, (value("tick_num"), denominator), listed("ticks")
        )
    if seconds is not None:
        times = FrameTimes(float(seconds[0]), float("nan"), count, seconds)
    elif member is not None and member.is_untimed:
        times = FrameTimes(0.0, float("nan"), count)
    elif ticks is not None:
        times = ticks.times(start_seconds=value("start_time_seconds", 0.0))
    else:
        times = FrameTimes(0.0, value("step_seconds", float("nan")), count)
    key_frames, damaged = listed("key_frames"), listed("damaged")
    return VideoMetadata(
        height=value("height"),
        width=value("width"),
        channels=value("channels"),
        bits=value("bits"),
        times=times,
        rate_hz=value("rate_hz", float("nan")),
        container=value("container", ""),
        codec=value("codec", ""),
        pixel_format=value("pixel_format", ""),
        rotation=value("rotation", 0),
        header_frames=value("header_frames", 0),
        ticks=ticks,
        start_time_seconds=value("start_time_seconds", 0.0),
        key_frames=np.zeros(0, np.int32) if key_frames is None else key_frames,
        error=value("error"),
        damaged=NO_DAMAGE if damaged is None else damaged.reshape(-1, 2),
        conceals_damage=value("conceals_damage", False),
        mirrored=value("mirrored", False),
        aspect=value("aspect", 1.0),
        stream=value("video_stream", 0),
        axes=value("array_axes", ""),
        window=_pair(value("window_black"), value("window_white")),
        window_assumed=value("window_assumed", False),
        values=_values(columns, value),
        spacing_mm=_pair(value("spacing_down_mm"), value("spacing_across_mm")),
        regions=tuple(Region(*fields) for fields in json.loads(value("image_regions", "[]")))
        if "image_regions" in columns
        else (),
        member=member,
        files=tuple(value("frame_files", ())),
        tags=json.loads(value("header_tags", "{}")) if "header_tags" in columns else {},
    )


def _values(columns: Mapping[str, Any], value: Callable[..., Any]) -> PixelValues | None:
    """Return the pixel values that a scan measured; None if it did not, or if their columns are absent (see Rows)."""
    if "nan_count" not in columns or (nan_count := value("nan_count")) is None:
        return None
    least, most, low, high = (float(value(name, np.nan)) for name in VALUES[:4])
    return PixelValues(least, most, low, high, int(nan_count), int(value("inf_count", 0)))


def _member(columns: Mapping[str, Any], value: Callable[..., Any]) -> PackedMember | None:
    if "member_offset" not in columns or (offset := value("member_offset")) is None:
        return None
    return PackedMember(offset, value("member_bytes"), value("member_traits", ""))


def _pair(first: float | None, second: float | None) -> tuple[float, float] | None:
    return None if first is None or second is None else (first, second)


def plain(column: Any) -> Any:
    """Return a column in the simplest Arrow type for its values: text as string, lists as list, NaN as null."""
    kind = column.type
    if pa.types.is_dictionary(kind) and column.null_count == len(column):
        return pa.nulls(len(column), pa.string())
    if pa.types.is_dictionary(kind):  # categories are classes, also if they are numbers
        coded = column.combine_chunks()
        values = class_names(coded.dictionary) if is_number(kind.value_type) else plain(coded.dictionary)
        return pa.chunked_array([values.take(coded.indices)])
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or pa.types.is_null(kind):
        return column.cast(pa.string())
    if pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return column.cast(pa.list_(kind.value_type))
    if pa.types.is_decimal(kind):
        return column.cast(pa.float64())
    if pa.types.is_float16(kind):
        return plain(column.cast(pa.float32()))
    if pa.types.is_floating(kind):
        return pc.if_else(pc.is_nan(column), pa.scalar(None, kind), column)
    return column


def plain_table(table: Any, *, name: str) -> Any:
    """Return a table in plain types, with reserved columns in the types that a manifest uses.

    Raises TableError if a name occurs twice, a column holds neither text nor numbers (periods, intervals, objects of
    Polars), or a reserved column has values of another type.
    """
    names = table.schema.names
    duplicates = sorted({column_name for column_name in names if names.count(column_name) > 1})
    if duplicates:
        raise TableError(f"{name} has more than one column named {duplicates[0]!r}; rename all but one")
    columns = {}
    for column_name in names:
        if column_name.startswith("__index_level_"):  # pandas: an index without a name
            continue
        column = table.column(column_name)
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if isinstance(kind, pa.BaseExtensionType) or pa.types.is_fixed_size_binary(kind):  # periods, intervals, objects
            raise TableError(
                f"{name}: column {column_name!r} holds {kind}, which is neither text nor numbers; convert it in the "
                "table, or leave it out"
            )
        is_reserved = column_name in RESERVED
        column = column if pa.types.is_null(column.type) and is_reserved else plain(column)
        if is_reserved and column.type != RESERVED[column_name]:
            try:
                if pa.types.is_list(RESERVED[column_name]) and pa.types.is_string(column.type):  # JSON within CSV
                    column = pa.array([text and json.loads(text) for text in column.to_pylist()])
                column = column.cast(RESERVED[column_name])
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
                raise TableError(
                    f"{name}: column {column_name!r} is {column.type}, but a manifest needs {RESERVED[column_name]} "
                    f"there ({error}); rename the column, or correct its values"
                ) from error
        columns[column_name] = column
    return pa.table(columns)


def ordered(table: Any) -> Any:
    """Return the table with the columns of the sample first, then the metadata, then the labels."""
    names = table.schema.names
    return table.select([*(name for name in RESERVED if name in names), *(n for n in names if n not in RESERVED)])


def relative_paths(paths: Any, root: Root | None) -> tuple[Any, Root]:
    """Return paths relative to a root, and the root; if None, the root is the common folder of all absolute paths.

    Raises TableError if a path is missing or outside the root.
    """
    if paths.null_count:
        raise TableError(
            f"{count_having(paths.null_count, len(paths), 'row')} no path; leave them out, or fill the column"
        )
    if isinstance(root, RemoteRoot) or pc.any(pc.match_substring(paths, "://")).as_py():
        return _remote_paths(paths, root)
    absolute = pc.starts_with(paths, "/")
    if not pc.any(absolute).as_py():
        return paths, Path() if root is None else root
    if root is None:
        # A prefix of the first and the last path in sorted order is a prefix of all.
        low, high = pc.min_max(paths).as_py().values()
        if not pc.all(absolute).as_py():
            raise TableError(
                f"some paths are absolute ({high}), others are relative ({low}); give root=, or write all the same way"
            )
        root = Path(os.path.commonpath([Path(low).parent, Path(high).parent]))
    prefix = root.absolute().as_posix().rstrip("/") + "/"
    outside = pc.and_not(absolute, pc.starts_with(paths, prefix))
    if pc.any(outside).as_py():
        stray = paths.filter(outside)[0].as_py()
        raise TableError(f"{stray} is not under the root {root}; give a root that contains all videos")
    return pc.if_else(absolute, pc.utf8_slice_codeunits(paths, len(prefix)), paths), root


def _remote_paths(paths: Any, root: Root | None) -> tuple[Any, Root]:
    """Return paths relative to a remote root, and the root; if None, it is the common folder of all addresses."""
    if root is None:
        low, high = pc.min_max(paths).as_py().values()
        length = next((n for n, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
        root = parse_root(low[:length].rpartition("/")[0])
    if pc.any(pc.match_substring_regex(paths, r"[?&](sig|signature|token|X-[A-Za-z]+-Signature)=")).as_py():
        raise TableError("some paths hold signatures, which would be stored in the manifest; leave out all after '?'")
    prefix = f"{root}/"
    outside = pc.and_not(pc.match_substring_regex(paths, "^(/|[a-z0-9]+://)"), pc.starts_with(paths, prefix))
    if pc.any(outside).as_py():
        stray = without_secrets(paths.filter(outside)[0].as_py())
        raise TableError(f"{stray} is not under the root {root}; give a root that contains all videos")
    return pc.replace_substring_regex(paths, "^" + re.escape(prefix), ""), root
