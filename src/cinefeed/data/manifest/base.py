"""The base class of Manifest: its table, access to columns, label types and videos, and selection of rows."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self, get_args

import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cinefeed.core.arguments import check_arguments, expect_integer, in_words
from cinefeed.core.errors import ArgumentError, ColumnError, LabelError, SettingError, TableError, did_you_mean
from cinefeed.core.html import display
from cinefeed.core.remote.address import Root
from cinefeed.core.text import format_count, one_line
from cinefeed.data.label_types import TASKS, LabelType, is_number, label_type, task_hint, why_no_label
from cinefeed.data.manifest.columns import column_hint, label_names
from cinefeed.data.manifest.display import CLIPS, manifest_html
from cinefeed.data.manifest.fingerprint import fingerprint
from cinefeed.data.manifest.hiding import hide_paths
from cinefeed.data.manifest.rows import Rows
from cinefeed.data.manifest.scan import Verify
from cinefeed.data.manifest.summary import Summary, summarise
from cinefeed.video.metadata import VideoMetadata
from cinefeed.video.source import Source

_MOST_LABELS = 8  # named in a repr
_HINTS = {
    "root": "make a manifest with Manifest.scan(folder), Manifest.read(path) or Manifest.from_table(table)",
    "values": "give the values of the rows that stay: manifest.where('view', ['4ch'])",
    "column": "name a column: manifest.drop_missing('age')",
}


@check_arguments(hints={"*": "give the column, then values: manifest.where('view', ['4ch'])", **_HINTS})
class ManifestTable:
    """A table with one row per sample, and the root of its relative paths. Use `Manifest`."""

    def __init__(
        self,
        table: Any,
        *,
        root: Root,
        history: Iterable[tuple[str, int]] = (),
        notes: Mapping[str, Any] | None = None,
        arrays: Sequence[NDArray[Any]] | None = None,
    ) -> None:
        self.table = table.combine_chunks()
        self.root = root
        self.history = list(history)
        self.notes = dict(notes or {})
        self._arrays = arrays

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __repr__(self) -> str:
        root = "private" if self.private else self.root.as_posix()
        labels = self.labels[:_MOST_LABELS]
        more = f" and {len(self.labels) - len(labels)} more" if len(self.labels) > len(labels) else ""
        columns = f", labels: {one_line(', '.join(labels))}{more}" if labels else ""
        return f"Manifest({format_count(len(self), 'sample')}, root={root!r}{columns})"

    def __str__(self) -> str:
        return str(self.summary())

    def _repr_html_(self) -> str:
        return manifest_html(self)

    def show(self, *, clips: int = CLIPS, out: str | Path | None = None) -> Path | None:
        """Show the metadata, the labels as histograms, and a contact sheet of moving clips of a few videos.

        In a notebook it is displayed below the cell. Elsewhere a page is written, to the file `out` or to a temporary
        file whose path is printed. The videos are opened; those of a private manifest are not shown.

        Args:
            clips: Number of videos, evenly spaced over the rows; 0 opens none.
            out: Page to write, also from a notebook.

        Returns the path of the page, None in a notebook. Raises SettingError if `out` cannot be written.
        """
        clips = expect_integer(clips, name="show: clips", remedy="show(clips=0) opens no video")
        return display(manifest_html(self, clips=clips), title=repr(self).partition(", root")[0] + ")", out=out)

    def summary(self) -> Summary:
        """Return the title, metadata and labels that `print` shows, as names and texts."""
        return summarise(
            self.table,
            root=self.root.as_posix(),
            history=self.history,
            not_read=self.not_read,
            private=self.private,
            verified=self.verified,
        )

    @cached_property
    def fingerprint(self) -> str:
        """32 hexadecimal digits that change with rows, relative paths, sizes, frame index or labels.

        Pixels, root and modification times are ignored, so a copied data set has the same digits.
        """
        return fingerprint(self.table)

    @property
    def labels(self) -> list[str]:
        """The names of the label columns."""
        return label_names(self.table.schema.names)

    @property
    def columns(self) -> list[str]:
        """The names of all columns; those of samples and files come first."""
        return list(self.table.schema.names)

    def column(self, name: str) -> Any:
        """Return a column as a pyarrow Array. Raises ColumnError, with the nearest name, if it does not exist."""
        if name not in self.table.schema.names:
            raise ColumnError(f"there is no column {name!r}; {column_hint(name, self.table.schema.names)}")
        return self.table.column(name).combine_chunks()

    def label_type(self, name: str) -> LabelType:
        """Return whether a label column is classes or numbers (see `cinefeed.data.label_types`).

        It is determined on the column as first scanned or read, and kept by filters, splits and files. Raises
        ColumnError if the column does not exist, LabelError if it holds lists, dates or times.
        """
        if why := why_no_label(self.column(name).type):
            raise LabelError(f"column {name!r} holds {why}")
        stored = self.notes.get("label_types", {}).get(name)
        return label_type(self.column(name)) if stored is None else LabelType.from_dict(stored)

    @cached_property
    def label_types(self) -> dict[str, Any]:
        """The stored types of label columns, and those of numeric ones, which depend on the values."""
        schema = self.table.schema
        types = {name: kind for name, kind in self.notes.get("label_types", {}).items() if name in schema.names}
        numeric = [name for name in self.labels if name not in types and is_number(schema.field(name).type)]
        return types | {name: label_type(self.table.column(name)).as_dict() for name in numeric}

    @cached_property
    def rows(self) -> Rows:
        """The part of the manifest that workers need: path and metadata of each video, and opening it."""
        return Rows(self.table, root=str(self.root), private=self.private, arrays=self._arrays)

    def path_of(self, row: int) -> Path:
        """Return the path of a row's file, including the root; of a remote file, its place in the cache."""
        return self.rows.path_of(_row(row))

    def relative_path(self, row: int) -> str:
        """Return the path of a row's file, relative to the root."""
        return self.rows.relative_path(_row(row))

    @property
    def verified(self) -> Verify | None:
        """How all files were verified by the scan: "decode", "packets", or None if unknown."""
        if self._arrays is not None:
            return "decode"  # in memory, all frames are present
        verify = self.notes.get("verify")
        return verify if verify in get_args(Verify) and "error" in self.table.schema.names else None

    @property
    def not_read(self) -> dict[str, dict[str, Any]]:
        """The files that the scan did not read, by kind: their number (`files`) and the `first` names.

        Tables, text and hidden files are not counted. A private manifest has no names.
        """
        return dict(self.notes.get("not_read", {}))

    @property
    def private(self) -> bool:
        """Whether ids are shown in place of paths."""
        return bool(self.notes.get("private"))

    @property
    def is_packed(self) -> bool:
        """Whether videos are in packed shards (`cinefeed pack`)."""
        names = self.table.schema.names
        return "member_offset" in names and self.table.column("member_offset").null_count < len(self)

    def salt_fingerprint(self, name: str) -> str | None:
        """Return the fingerprint of the salt that a column was hashed with, "" if it was not hashed, None if unknown.

        The values of two manifests can be compared if both fingerprints are equal and not None.
        """
        values = self.column(name)
        hashed = self.notes.get("hashed") or {}
        if name in hashed.get("columns", ()):
            return str(hashed["fingerprint"])
        if "hashed" in self.notes or not pa.types.is_string(values.type):
            return ""
        looks_hashed = pc.all(pc.match_substring_regex(values, "^[0-9a-f]{16}$")).as_py()
        return None if looks_hashed else ""

    def display_names(self) -> Any:
        """Return the display name of each row as a pyarrow Array: its path, or its id if the manifest is private."""
        if self.private or not self.is_packed:
            return self.column("id" if self.private else "path")
        members = pc.if_else(
            self.column("member_offset").is_valid(), pc.binary_join_element_wise("", self.column("part"), "::"), ""
        )
        return pc.binary_join_element_wise(self.column("path"), pc.fill_null(members, ""), "")

    def open(self, row: int, *, channels: int | None = None) -> Source:
        """Open the video of a row; see `open_video`."""
        return self.rows.open(_row(row), channels=channels)

    def window(self, row: int) -> tuple[float | None, float | None]:
        """Return the start and end in seconds that limit the clips of a row; None if there is no limit."""
        return self.rows.window(_row(row))

    def metadata(self, row: int) -> VideoMetadata | None:
        """Return the metadata of a row's video, or None if it was not probed or no frame can be read."""
        return self.rows.metadata(_row(row))

    def with_task(self, name: str, task: str | None) -> Self:
        """Return the manifest with the label type of a task: numbers for "regression", classes for others.

        Raises ColumnError for a missing column, SettingError for another task.
        """
        if task is None:
            return self
        self.column(name)
        if task not in TASKS:
            raise SettingError(f"task={task!r} is not a task; {task_hint(task, TASKS)}")
        kind = LabelType(kind="numbers" if task == "regression" else "classes")
        notes = self.notes | {"label_types": self.label_types | {name: kind.as_dict()}}
        return type(self)(self.table, root=self.root, history=self.history, notes=notes, arrays=self._arrays)

    def as_private(self) -> Self:
        """Return the manifest with ids shown in place of paths, and no pictures; ids derived from paths are hashed.

        The hash has no salt, to be the same in all manifests, so a guess of a path can be verified.
        `scan(private=True)` uses a salt.
        """
        table = hide_paths(self.table) if self._arrays is None else self.table  # in memory, paths are numbers
        not_read = {kind: files | {"first": []} for kind, files in self.not_read.items()}
        notes = self.notes | {"private": True, "label_types": self.label_types}
        notes |= {"not_read": not_read} if not_read else {}
        return type(self)(table, root=self.root, history=self.history, notes=notes, arrays=self._arrays)

    def take(self, rows: Any, *, step: str | None = None) -> Self:
        """Return the rows with these indices, in that order; `step` is the text for the history."""
        try:
            numbers = pa.array(rows, pa.int64())
        except (pa.ArrowException, TypeError) as error:
            raise ArgumentError(f"take: expected a list of row numbers, found {in_words(rows)}") from error
        table = self.table.take(numbers)
        history = [*self.history, (step, table.num_rows)] if step else self.history
        return self._with_table(table, history=history)

    def head(self, n: int = 5) -> Self:
        """Return the first `n` rows, or all if there are fewer."""
        n = expect_integer(n, name="head: n", remedy="head(5) has the first five rows")
        if n < 0:
            raise TableError(f"head(n={n!r}) must be an integer of at least 0")
        return self.take(range(min(n, len(self))))

    def to_pandas(self) -> Any:
        """Return all columns as a pandas DataFrame; pandas must be installed."""
        return self.table.to_pandas()

    def where(self, column: str, values: Any) -> Self:
        """Return the rows whose column has one of these values; None is a missing value.

        With `!` after the name of the column, return the rows that have none of these values; rows without a value are
        kept. Values may be text, as on a command line. Raises ColumnError if the column, TableError if a value does not
        exist or no row is left.

        >>> from cinefeed import Manifest
        >>> manifest = Manifest.from_table({"path": ["a", "b", "c"], "view": ["2ch", "4ch", None]})
        >>> [manifest.where(name, "2ch").column("path").to_pylist() for name in ("view", "view!")]
        [['a'], ['b', 'c']]
        """
        excludes = column.endswith("!") and column not in self.table.column_names
        column = column.removesuffix("!") if excludes else column
        column_values = self.column(column)
        selection = [values] if isinstance(values, str) or not isinstance(values, Iterable) else list(values)
        try:
            value_set = pa.array([None if each is None else str(each) for each in selection], pa.string())
            value_set = value_set.cast(column_values.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise TableError(
                f"column {column!r} is {column_values.type}, so no row is one of {selection}; give values of that type"
            ) from error
        is_present = pc.is_in(value_set, value_set=column_values).to_pylist()
        absent = [value for value, present in zip(selection, is_present, strict=True) if not present]
        if absent:
            candidates = column_values.drop_null().unique()[:1000].cast(pa.string()).to_pylist()
            raise TableError(f"no row has {column}={absent[0]!r}; {did_you_mean(str(absent[0]), candidates)}")
        selected = pc.is_in(column_values, value_set=value_set)
        rows = pc.indices_nonzero(pc.invert(selected) if excludes else selected)
        if len(rows) == 0:
            raise TableError(
                f"no row is left without {column}={', '.join(map(str, selection))}; keep some of its values"
            )
        return self.take(rows, step=f"{column} is {'not ' * excludes}{' or '.join(map(str, selection))}")

    def drop_missing(self, column: str) -> Self:
        """Return the rows that have a value in a column. Raises ColumnError, and TableError if no row has one."""
        rows = pc.indices_nonzero(self.column(column).is_valid())
        if len(rows) == 0:
            raise TableError(f"no row has a value in {column!r}; look at the table of labels")
        return self.take(rows, step=f"{column} is not missing")

    def readable(self) -> Self:
        """Return the rows whose file has a readable frame, or was not probed."""
        if "num_frames" not in self.table.schema.names:
            return self
        frames = self.column("num_frames").fill_null(1)
        return self.take(pc.indices_nonzero(pc.greater(frames, 0)), step="with frames that can be read")

    def _with_table(self, table: Any, *, history: Iterable[tuple[str, int]]) -> Self:
        notes = self.notes | {"label_types": self.label_types}
        return type(self)(table, root=self.root, history=history, notes=notes, arrays=self._arrays)


def _row(row: object) -> int:
    return expect_integer(row, name="row", remedy="rows are counted from 0")
