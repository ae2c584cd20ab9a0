"""The text summary of a manifest: counts, formats, sizes, lengths, rates, damage and labels."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from cinefeed.core.text import format_bytes, format_count, one_line
from cinefeed.data.manifest.columns import label_names

_MAX_CLASSES = 6
_MAX_LETTERS = 24
_FORMAT_LETTERS = 40  # fits "ExplicitVRLittleEndian in dicom"


class Summary(NamedTuple):
    """A title, and rows of names and texts: of the samples and their metadata, and of the label columns.

    A row without a name continues the one above.
    """

    title: str
    rows: list[tuple[str, str]]
    labels: list[tuple[str, str]]

    def __str__(self) -> str:
        lines = [self.title, *(f"  {name:<10} {text}" if name else f"    {text}" for name, text in self.rows)]
        lines += ["  labels"] if self.labels else []
        lines += [f"    {name:<20} {text}" for name, text in self.labels]
        return "\n".join(map(one_line, lines))  # file names and values may contain any characters


def summarise(
    table: Any,
    *,
    root: str,
    history: Sequence[tuple[str, int]],
    not_read: Mapping[str, Mapping[str, Any]] | None = None,
    private: bool = False,
    verified: str | None = None,
) -> Summary:
    """Return the summary of a manifest, whose text `print(manifest)` shows."""
    files = num_files(table)
    where = "private: ids stand for paths" if private else f"root {root}"
    rows = []
    if len(history) > 1:
        rows.append(("history", " -> ".join(f"{step}: {count}" for step, count in history)))
    if not_read:
        rows.append(("not read", not_read_in_words(not_read)))
    is_probed = "num_frames" in table.schema.names
    name_column = "id" if private else "path"
    rows += _metadata(table, name_column=name_column, verified=verified) if is_probed else [("metadata", "not probed")]
    labels = [*label_names(table.schema.names), *(["split"] if "split" in table.schema.names else [])]
    return Summary(
        f"Manifest of {format_count(table.num_rows, 'sample')} in {format_count(files, 'file')}, {where}",
        rows,
        [(name, describe_column(table.column(name))) for name in labels],
    )


def num_files(samples: Any) -> int:
    """Return the number of files of a table of samples; each image of a series is one.

    >>> num_files(pa.table({"path": ["a.h5", "a.h5", "series"], "frame_files": [None, None, ["1.dcm", "2.dcm"]]}))
    3
    """
    paths = samples.column("path").combine_chunks()
    if "frame_files" not in samples.schema.names:
        return int(pc.count_distinct(paths).as_py())
    files = samples.column("frame_files").combine_chunks()
    folders = paths.take(pc.list_parent_indices(files))
    within = pc.binary_join_element_wise(folders, pc.list_flatten(files), "/")
    return int(pc.count_distinct(pa.concat_arrays([paths.filter(files.is_null()), within])).as_py())


def not_read_in_words(not_read: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a text about the files that a scan did not read: their number and first names by kind.

    >>> not_read_in_words({".avs": {"files": 5, "first": ["a.avs"]}, "link to nowhere": {"files": 1, "first": []}})
    '5 .avs (a.avs ...), 1 link to nowhere'
    """
    counts = []
    for kind, files in not_read.items():
        names = ", ".join(files["first"]) + (" ..." if len(files["first"]) < files["files"] else "")
        counts.append(f"{files['files']} {kind}" + (f" ({names})" if files["first"] else ""))
    return ", ".join(counts)


def describe_column(column: Any) -> str:
    """Return a text with the type of a column and its range or most frequent values.

    >>> import pyarrow as pa
    >>> describe_column(pa.chunked_array([["a", "b", "a", None]]))
    'text, 2 values: a 2, b 1; 1 missing'
    """
    missing = f"; {column.null_count} missing" if column.null_count else ""
    kind = column.type
    values = column.drop_null()
    if len(values) == 0:
        return f"empty{missing}"
    if pa.types.is_nested(kind):
        return f"{kind}{missing}"
    distinct = pc.count_distinct(values).as_py()
    if (pa.types.is_integer(kind) or pa.types.is_floating(kind)) and distinct > _MAX_CLASSES:
        low, high = pc.min_max(values).as_py().values()
        median = pc.quantile(values, 0.5)[0].as_py()
        return f"number, {low:.6g} to {high:.6g}, median {median:.6g}{missing}"
    name = "number" if pa.types.is_integer(kind) or pa.types.is_floating(kind) else ""
    name = name or ("boolean" if pa.types.is_boolean(kind) else "text" if pa.types.is_string(kind) else str(kind))
    return f"{name}, {format_count(distinct, 'value')}: {_frequent(values)}{missing}"


def _metadata(table: Any, *, name_column: str, verified: str | None) -> list[tuple[str, str]]:
    readable = table.filter(pc.fill_null(pc.greater(table.column("num_frames"), 0), False))
    lines = []
    if readable.num_rows:
        formats = pc.binary_join_element_wise(
            *[pc.fill_null(readable.column(name), "") for name in ("codec", "container")], " in "
        )
        pixels = pc.binary_join_element_wise(
            pc.cast(readable.column("width"), pa.string()), pc.cast(readable.column("height"), pa.string()), " x "
        )
        area = pc.multiply(pc.cast(readable.column("width"), pa.int64()), readable.column("height"))
        small, large = (pixels[pc.index(area, edge).as_py()].as_py() for edge in pc.min_max(area).as_py().values())
        grey = pc.sum(pc.equal(readable.column("channels"), 1)).as_py()
        bits = _and(sorted(readable.column("bits").drop_null().unique().to_pylist()))
        lines += [
            ("formats", _frequent(formats, letters=_FORMAT_LETTERS)),
            ("size", f"{small if small == large else f'{small} to {large}'} (width x height), {bits} bit"),
            ("colour", f"{grey} grey, {readable.num_rows - grey} colour"),
            ("frames", _range(readable.column("num_frames")) + f", {pc.sum(readable.column('num_frames'))} in all"),
        ]
        lines += _values(readable)
        rates = readable.column("rate_hz").drop_null()
        lines.append(("rate", f"{_range(rates)} frames a second" if len(rates) else "unknown"))
        irregular = readable.num_rows - readable.column("ticks").null_count
        if irregular:
            lines.append(("times", f"irregular in {irregular}"))
    if size := bytes_on_disk(table):  # videos in memory have none
        lines.append(("bytes", format_bytes(size)))
    has_ranges = "damaged" in table.schema.names
    is_damaged = table.column("error").is_valid()
    damaged = table.filter(pc.or_(is_damaged, table.column("damaged").is_valid()) if has_ranges else is_damaged)
    none = "not checked: frames were not decoded" if verified == "packets" else "none"
    lines.append(("damaged", format_count(damaged.num_rows, "row") if damaged.num_rows else none))
    columns = [name_column, "num_frames", "error", *["damaged"] * has_ranges]
    for row in damaged.slice(0, 3).select(columns).to_pylist():
        frames = [f"frames {frames_in_words(row['damaged'])} are damaged"] if row.get("damaged") else []
        words = "; ".join([*frames, *([row["error"]] if row["error"] else [])])
        lines.append(("", f"{row[name_column]}: {row['num_frames']} frames can be read; {words}"))
    if damaged.num_rows > 3:
        lines.append(("", f"and {damaged.num_rows - 3} more"))
    return lines


def bytes_on_disk(table: Any) -> int:
    """Return the bytes of the files of all rows; a file that holds several samples is counted once.

    >>> import pyarrow as pa
    >>> bytes_on_disk(pa.table({"path": ["a.npy", "a.npy", "b.npy"], "size_bytes": [6, 6, 2]}))
    8
    """
    names = {"path", "frame_files", "member_offset"} & {*table.schema.names}  # a folder or a shard has several samples
    files = pa.table({name: table.column(name) for name in sorted(names)} | {"bytes": table.column("size_bytes")})
    if "frame_files" in names:
        column = files.schema.names.index("frame_files")
        files = files.set_column(column, "frame_files", pc.binary_join(files.column(column), "\n"))
    return pc.sum(files.group_by(sorted(names)).aggregate([("bytes", "max")]).column("bytes_max")).as_py() or 0


def frames_in_words(ranges: Sequence[int]) -> str:
    """Return a text with the first and last frame of each range; `ranges` holds first and last + 1 of each.

    >>> frames_in_words([3, 8, 12, 13])
    '3 to 7, 12 to 12'
    """
    return ", ".join(f"{first} to {end - 1}" for first, end in zip(ranges[::2], ranges[1::2], strict=True))


def _values(readable: Any) -> list[tuple[str, str]]:
    """Return a line with the value range of files that do not define black and white, and rows with NaN or infinity."""
    if "value_min" not in readable.schema.names:
        return []
    measured = readable.filter(readable.column("value_min").is_valid())
    wrong = pc.add(*(pc.fill_null(readable.column(name), 0) for name in ("nan_count", "inf_count")))
    wrong_rows = pc.sum(pc.greater(wrong, 0)).as_py() or 0
    words = []
    if measured.num_rows:
        least, most = pc.min(measured.column("value_min")).as_py(), pc.max(measured.column("value_max")).as_py()
        words.append(
            f"{least:.6g} to {most:.6g} in {format_count(measured.num_rows, 'row')} of floats or more than 8 bits"
        )
    if wrong_rows:
        words.append(f"NaN or infinite in {format_count(wrong_rows, 'row')}")
    return [("values", "; ".join(words))] if words else []


def _range(values: Any) -> str:
    low, high = pc.min_max(values).as_py().values()
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"


def _and(values: Sequence[object]) -> str:
    """Return values as a list in words.

    >>> _and([8]), _and([8, 12, 16])
    ('8', '8, 12 and 16')
    """
    words = [str(value) for value in values]
    return " and ".join([*([", ".join(words[:-1])] if words[1:] else []), *words[-1:]])


def _frequent(values: Any, *, letters: int = _MAX_LETTERS) -> str:
    counts = values.value_counts()
    names, numbers = counts.field("values").cast(pa.string()), counts.field("counts")
    order = pc.sort_indices(
        pa.table({"name": names, "count": numbers}), sort_keys=[("count", "descending"), ("name", "ascending")]
    )[:_MAX_CLASSES]
    text = ", ".join(f"{_short(names[i.as_py()].as_py(), letters)} {numbers[i.as_py()]}" for i in order)
    return text + (f" and {len(names) - _MAX_CLASSES} more" if len(names) > _MAX_CLASSES else "")


def _short(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - 4] + " ..."
