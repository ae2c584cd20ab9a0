"""Manifest: one row a sample, in columns: scanned, read, filtered, split and written.

Past 400 lines because it is one public class, with what each method promises; the work is done in the files beside it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cinefeed.errors import ColumnError, LabelError, SplitError, TableError, did_you_mean
from cinefeed.label_types import LabelType, is_number, label_type, why_no_label
from cinefeed.locks import with_write_lock, write_lock
from cinefeed.manifest.columns import (
    FACTS,
    VERDICTS,
    label_names,
    ordered,
    plain_table,
    relative_paths,
)
from cinefeed.manifest.combine import concatenated, with_values
from cinefeed.manifest.files import read_parquet, root_of, write_manifest
from cinefeed.manifest.find import describe_videos, find_videos, salt_fingerprint, salt_of, with_hashes
from cinefeed.manifest.fingerprint import fingerprint
from cinefeed.manifest.grouping import GROUP, groups_of_ids
from cinefeed.manifest.hiding import hide_paths
from cinefeed.manifest.ids import with_ids
from cinefeed.manifest.in_memory import arrays_table
from cinefeed.manifest.labels import Unmatched, check_parts, join_labels, part_names, split_table
from cinefeed.manifest.pivot import Missing, pivot_table
from cinefeed.manifest.reading import read_table
from cinefeed.manifest.rows import Rows
from cinefeed.manifest.scan import Progress, Verify, journal_path, probe_videos, scan_notes, with_split_of
from cinefeed.manifest.summary import summarise
from cinefeed.manifest.writing import SUFFIXES, table_suffix
from cinefeed.sources.base import DEFAULT_READING, Facts, Reading, Source
from cinefeed.split import PARTS, Balance, assign_folds, assign_parts, check_groups, measure_balance

# What a written manifest keeps, beside its history.
_NOTES = ("verify", "reading", "private", "label_types", "hashed", "not_read")


class Manifest:
    """The samples of a data set: a table with one row a sample, and the root that its paths are relative to.

    A sample is a video, or a part or a stretch of one; it has a unique `id`. Other columns are facts that a scan found
    (see `cinefeed.manifest.columns.FACTS`) and labels. A manifest never changes: each method returns a new one.

    >>> import pyarrow as pa
    >>> table = pa.table({"path": ["p1/a.mp4", "p2/b.mp4"], "view": ["4ch", "2ch"], "age": [61.0, 48.0]})
    >>> manifest = Manifest.from_table(table, root="studies")
    >>> len(manifest.where("view", ["4ch"])), manifest.path_of(1).as_posix()
    (1, 'studies/p2/b.mp4')
    """

    def __init__(
        self,
        table: Any,
        *,
        root: Path,
        history: Iterable[tuple[str, int]] = (),
        notes: Mapping[str, Any] | None = None,
        arrays: Sequence[NDArray[Any]] | None = None,
    ) -> None:
        self.table = table.combine_chunks()
        self.root = root
        self.history = list(history)
        self.notes = dict(notes or {})
        self._arrays = arrays

    @classmethod
    @with_write_lock("out")
    def scan(
        cls,
        folder: str | Path,
        *,
        labels: object | None = None,
        on: str | Sequence[str] | None = None,
        path_columns: str | None = None,
        unmatched: Unmatched = "error",
        verify: Verify = "decode",
        workers: int | None = None,
        out: str | Path | None = None,
        progress: Progress | Literal[False] | None = None,
        reading: Reading = DEFAULT_READING,
        private: bool = False,
        share_labels: bool = False,
    ) -> Self:
        """Return a manifest of every video under a folder, each probed once, in parallel.

        `labels` is a CSV, Parquet or JSON file or a data frame. Without `on` it names the videos in a column `path` (or
        `file`, `stem` ...), as path, path without suffix, file name or stem; `on` is another such column, or one or
        more columns that `path_columns` ("{patient}/{study}/{view}") makes from folder names, or DICOM headers have;
        "PatientID=patient" joins columns of different names. One label row may serve many videos of a patient. Columns
        `start_seconds` and `end_seconds` make samples of stretches of a video: they count from the container's start
        time, as a player and `ffmpeg -ss` do. Where a file holds many samples, a column `part` beside the path names
        each ("[5]", or 5, is row 5 of a stacked set); without it a row that would serve all of them is refused, or
        allowed with `share_labels=True`. Rows and videos without a partner are refused, or left out with
        `unmatched="ignore"`.

        `verify="decode"` decodes every frame, the only way to see where a file breaks; "packets" counts packets in
        files of which each is known to be a frame, and decodes the others.
        With `out` the manifest is written there; an interrupted scan then continues, and a later one opens only what
        changed in size or modification time, and leaves the column `split` as it was, empty for new samples.
        `progress(done, total)` is called after each file; without it a terminal shows a bar, and False shows nothing.

        `reading` says how files are read that leave a choice, such as the slice of a volume. The columns patient,
        study and series of DICOM files are hashed after the labels are joined, with `reading.salt`, or with one that is
        kept beside `out` ("m.parquet.salt", for the owner's eyes alone), so that a later scan gives the same hashes.
        `private=True` makes ids that tell nothing, and shows them in place of paths from then on, without pictures.

        A file without a known suffix is taken by how it begins; what is not read is in `not_read`. A folder with images
        that may be frames and masks is refused, unless `reading.frames` chooses.

        Raises TableError (no videos, frames and masks, no partner, `out` cannot be written), ColumnError, SettingError,
        and InUseError while another process writes `out`.
        """
        root, out = Path(folder), None if out is None else Path(out)
        if out is not None:
            table_suffix(out)
        videos, not_read = find_videos(root, reading=reading, private=private)
        secret = [name for name in ("patient", "study", "series") if name in videos.schema.names]
        samples, history = describe_videos(
            videos,
            root=root,
            labels=labels,
            on=on,
            path_columns=path_columns,
            unmatched=unmatched,
            not_read=sum(files["files"] for files in not_read.values()),
            private=private,
            share_labels=share_labels,
        )
        named_ids = "id" in samples.schema.names
        samples = with_ids(plain_table(samples, name="the scan"), name="the scan")
        hashed: dict[str, Any] = {}
        if secret or private:
            salt = salt_of(out) if reading.salt is None else reading.salt
            columns = [*secret, *([] if named_ids or not private else ["id"])]
            samples = with_hashes(samples, columns, salt=salt)
            hashed = {"columns": columns, "fingerprint": salt_fingerprint(salt)} if salt else {}
        if out is not None:
            samples = with_split_of(out, samples, hashed=hashed)
        table = probe_videos(
            samples,
            root=root,
            verify=verify,
            workers=workers,
            out=out,
            progress=progress,
            reading=reading,
            private=private,
        )
        notes: dict[str, Any] = {**scan_notes(verify, reading), "hashed": hashed}
        notes |= ({"private": True} if private else {}) | ({"not_read": not_read} if not_read else {})
        manifest = cls(ordered(table), root=root, history=history, notes=notes)
        if out is not None:
            manifest.write(out)
            journal_path(out).unlink(missing_ok=True)
        return manifest

    @classmethod
    def read(cls, path: str | Path, *, root: str | Path | None = None) -> Self:
        """Return a manifest that was written, or any Parquet table with a column `path`.

        Its root is found from the place of the manifest, so both can move together; `root` says where it is now.
        Raises TableError where the file cannot be read or has no rows.
        """
        path = Path(path)
        try:
            stored = read_parquet(path)
        except OSError as error:
            raise TableError(f"{path} cannot be read: {error}; 'cinefeed scan' writes manifests") from error
        except pa.ArrowException as error:
            advice = "'cinefeed scan' writes manifests"
            if path.suffix.lower() in SUFFIXES[1:]:
                advice = "it keeps neither types nor the root of paths: name the scan's Parquet file, or make a "
                advice += "manifest of the table with Manifest.from_table(path, root=FOLDER)"
            raise TableError(f"{path} is no Parquet file: {error}; {advice}") from error
        if not stored.notes:
            return cls.from_table(stored.table, root=path.parent if root is None else root)
        if stored.table.num_rows == 0:
            raise TableError(f"{path} has no rows; scan or filter again")
        history = [(step, rows) for step, rows in stored.notes["history"]]
        root = root_of(stored, path=path) if root is None else Path(root)
        notes = {name: stored.notes[name] for name in _NOTES if name in stored.notes}
        return cls(stored.table, root=root, history=history, notes=notes)

    @classmethod
    def from_table(cls, table: object, *, root: str | Path | None = None) -> Self:
        """Return a manifest of a table that has a column `path`: CSV, Parquet, pandas, Polars, pyarrow ...

        Relative paths are relative to `root` (by default the current folder), absolute ones are made so. Facts
        that the table lacks are found when a video is opened. Raises TableError and ColumnError.
        """
        found = read_table(table)
        names = found.schema.names
        if "path" not in names:
            raise ColumnError(f"a manifest needs a column 'path', one video a row; {did_you_mean('path', names)}")
        if "num_frames" not in names:
            check_parts(found, name="the table")
        paths, root = relative_paths(found.column("path"), None if root is None else Path(root))
        found = with_ids(found.set_column(names.index("path"), "path", paths), name="the table")
        if "num_frames" in found.schema.names:
            for name, kind in FACTS.items():
                if name not in found.schema.names and name not in VERDICTS:
                    found = found.append_column(name, pa.nulls(found.num_rows, kind))
        return cls(ordered(found), root=root, history=[("rows of the table", found.num_rows)])

    @classmethod
    def from_arrays(
        cls, x: NDArray[Any] | Sequence[NDArray[Any]], labels: object | None = None, *, axes: str | None = None
    ) -> Self:
        """Return a manifest of videos in memory: one array (samples, time, height, width[, channels]), or a list.

        `labels` is a table with a row a video, in their order, or one value a video, which is called label; `axes`
        names another order, as in "NHWT", of which N is the first. The arrays are not copied, and such a manifest
        cannot be written. Raises SourceError for a shape that is no video, or that could be one video in place of a
        set, such as (25, 3, 64, 64); TableError where there are more or fewer labels than videos.

        >>> import numpy as np
        >>> manifest = Manifest.from_arrays(np.zeros((3, 8, 16, 16), np.uint8), {"age": [31, 45, 60]})
        >>> len(manifest), manifest.facts(0).times.count
        (3, 8)
        """
        table, arrays = arrays_table(x, labels, axes=axes)
        return cls(table, root=Path(), history=[("videos in memory", len(arrays))], arrays=arrays)

    @classmethod
    def concat(cls, manifests: Sequence["Manifest"]) -> Self:
        """Return the rows of several manifests, one below the other; paths are relative to the folder above all roots.

        A label column that a manifest lacks is missing in its rows. Ids stay; if two manifests have one in common, ids
        that were made of paths are made anew. Raises TableError: nothing to join, an id that stays twice, types that
        cannot be joined, files and videos in memory, private and other manifests, scanned and unscanned ones, and
        columns that were hashed with different salts.

        >>> import numpy as np
        >>> clips = np.zeros((2, 8, 16, 16), np.uint8)
        >>> parts = [Manifest.from_arrays(clips, {"age": ages}) for ages in ([31, 45], [60, 7])]
        >>> Manifest.concat(parts).column("age").to_pylist()
        [31, 45, 60, 7]
        """
        return cls(**concatenated(manifests, kind=Manifest))

    def write(self, path: str | Path) -> None:
        """Write the manifest, whole or not at all: as Parquet, or as CSV or JSON for other programs, by its suffix.

        Raises SettingError for another suffix, TableError where it cannot be written, InUseError where another process
        writes it.
        """
        if self._arrays is not None:
            raise TableError(f"cannot write {path}: its videos are in memory alone; save them as .npy, and scan these")
        notes = {"history": self.history} | self.notes | {"label_types": self.label_types}
        with write_lock(path):
            write_manifest(self.table, path=Path(path), root=self.root, notes=notes)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __repr__(self) -> str:
        root = "private" if self.private else self.root.as_posix()
        return f"Manifest({len(self)} samples, root={root!r})"

    def __str__(self) -> str:
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

        Not with pixels, root or modification times, so that a copied data set keeps it.
        """
        return fingerprint(self.table)

    @property
    def labels(self) -> list[str]:
        """The names of the label columns."""
        return label_names(self.table.schema.names)

    @property
    def columns(self) -> list[str]:
        """The names of all columns, those of the videos first."""
        return list(self.table.schema.names)

    def column(self, name: str) -> Any:
        """Return a column as a pyarrow Array. Raises ColumnError, with the nearest name, where there is none."""
        if name not in self.table.schema.names:
            raise ColumnError(f"there is no column {name!r}; {did_you_mean(name, self.table.schema.names)}")
        return self.table.column(name).combine_chunks()

    def label_type(self, name: str) -> LabelType:
        """Return whether a label column is classes or numbers (see `cinefeed.label_types`).

        It is decided on the column as it was first scanned or read: filters, splits and files keep the answer. Raises
        ColumnError where there is no such column, LabelError where it holds lists, dates or times.
        """
        if why := why_no_label(self.column(name).type):
            raise LabelError(f"column {name!r} holds {why}")
        stored = self.notes.get("label_types", {}).get(name)
        return label_type(self.column(name)) if stored is None else LabelType.from_dict(stored)

    def with_task(self, name: str, task: str | None) -> Self:
        """Return the manifest with a label column taken as a task needs it, "regression" as numbers, or as classes."""
        if task is None or name not in self.table.schema.names:
            return self
        kind = LabelType(kind="numbers" if task == "regression" else "classes")
        notes = self.notes | {"label_types": self.label_types | {name: kind.as_dict()}}
        return type(self)(self.table, root=self.root, history=self.history, notes=notes, arrays=self._arrays)

    @cached_property
    def label_types(self) -> dict[str, Any]:
        """The types of those label columns of which the values decide; of the others the type of the column does."""
        schema = self.table.schema
        types = {name: each for name, each in self.notes.get("label_types", {}).items() if name in schema.names}
        open_ones = [name for name in self.labels if name not in types and is_number(schema.field(name).type)]
        return types | {name: label_type(self.table.column(name)).as_dict() for name in open_ones}

    @cached_property
    def rows(self) -> Rows:
        """The rows as a worker needs them: where each video lies, what is known of it, how it is opened."""
        return Rows(self.table, root=str(self.root), private=self.private, arrays=self._arrays)

    def path_of(self, row: int) -> Path:
        """Return where the file of a row is."""
        return self.rows.path_of(row)

    def relative_path(self, row: int) -> str:
        """Return the path of a row's file, relative to the root."""
        return self.rows.relative_path(row)

    @property
    def verified(self) -> Verify | None:
        """How all files were read when they were scanned: "decode", "packets", or None if that is not known."""
        if self._arrays is not None:
            return "decode"  # in memory, no frame can be missing
        verify = self.notes.get("verify")
        return verify if verify in get_args(Verify) and "error" in self.table.schema.names else None

    @property
    def not_read(self) -> dict[str, dict[str, Any]]:
        """The files that the scan left out, by what they are: how many (`files`) and the `first` names.

        Tables, text and hidden files are not among them. A private manifest has no names.
        """
        return dict(self.notes.get("not_read", {}))

    @property
    def private(self) -> bool:
        """Whether ids stand in for paths wherever a row is shown."""
        return bool(self.notes.get("private"))

    def salt_fingerprint(self, name: str) -> str | None:
        """Return the fingerprint of the salt that hashed a column, "" where it is as it was, None if that is not known.

        The values of two manifests can be compared where both are the same, and known.
        """
        values = self.column(name)
        hashed = self.notes.get("hashed") or {}
        if name in hashed.get("columns", ()):
            return str(hashed["fingerprint"])
        if "hashed" in self.notes or not pa.types.is_string(values.type):
            return ""
        looks_hashed = pc.all(pc.match_substring_regex(values, "^[0-9a-f]{16}$")).as_py()
        return None if looks_hashed else ""

    def as_private(self) -> Self:
        """Return the manifest with ids shown in place of paths, and no pictures; an id made of the path is hashed.

        The same in any manifest, and so without a salt: who guesses a path can tell. `scan(private=True)` has a salt.
        """
        table = hide_paths(self.table) if self._arrays is None else self.table  # in memory, paths are numbers
        not_read = {kind: files | {"first": []} for kind, files in self.not_read.items()}
        notes = self.notes | {"private": True, "label_types": self.label_types}
        notes |= {"not_read": not_read} if not_read else {}
        return type(self)(table, root=self.root, history=self.history, notes=notes, arrays=self._arrays)

    def shown(self) -> Any:
        """Return what names each row to a reader, a pyarrow Array: its path, or of a private manifest its id."""
        return self.column("id" if self.private else "path")

    def open(self, row: int, *, channels: int | None = None) -> Source:
        """Open the video of a row; see `open_source`."""
        return self.rows.open(row, channels=channels)

    def window(self, row: int) -> tuple[float | None, float | None]:
        """Return the start and end in seconds that a row's clip stays within, None where it is free."""
        return self.rows.window(row)

    def facts(self, row: int) -> Facts | None:
        """Return what the scan found of a row's file, or None where it was not probed or no frame can be read."""
        return self.rows.facts(row)

    def take(self, rows: Any, *, step: str | None = None) -> Self:
        """Return the manifest of some rows, given by number, in that order; `step` names it in the history."""
        table = self.table.take(pa.array(rows, pa.int64()))
        history = [*self.history, (step, table.num_rows)] if step else self.history
        return self._with_table(table, history=history)

    def head(self, n: int = 5) -> Self:
        """Return the first rows, all if there are fewer."""
        if isinstance(n, bool) or not isinstance(n, int) or n < 0:
            raise TableError(f"head(n={n!r}) must be a number of rows from 0")
        return self.take(range(min(n, len(self))))

    def to_pandas(self) -> Any:
        """Return all columns as a pandas DataFrame; pandas must be installed."""
        return self.table.to_pandas()

    def with_column(self, name: str, values: object) -> Self:
        """Return the manifest with a column of these values, one a row in their order, in place of one of that name.

        Whether it is classes or numbers is decided anew. Raises ColumnError for the name of a column that a scan fills,
        TableError for another number of values.

        >>> import pyarrow as pa
        >>> manifest = Manifest.from_table(pa.table({"path": ["a.mp4", "b.mp4"], "age": [61.0, 48.0]}))
        >>> manifest.with_column("old", [True, False]).where("old", True).column("age").to_pylist()
        [61.0]
        """
        table, notes = with_values(self.table, self.notes | {"label_types": self.label_types}, name, values)
        return type(self)(table, root=self.root, history=self.history, notes=notes, arrays=self._arrays)

    def where(self, column: str, values: Any) -> Self:
        """Return the rows whose column has one of these values; None stands for a missing one.

        Values may be given as text, as on a command line. Raises ColumnError for a column, TableError for a value that
        is not there.
        """
        found = self.column(column)
        wanted = [values] if isinstance(values, str) or not isinstance(values, Iterable) else list(values)
        try:
            value_set = pa.array([None if each is None else str(each) for each in wanted], pa.string())
            value_set = value_set.cast(found.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise TableError(f"column {column!r} is {found.type}, so no row of it is one of {wanted}") from error
        there = pc.is_in(value_set, value_set=found).to_pylist()
        absent = [each for each, is_there in zip(wanted, there, strict=True) if not is_there]
        if absent:
            known = found.drop_null().unique()[:1000].cast(pa.string()).to_pylist()
            raise TableError(f"no row has {column}={absent[0]!r}; {did_you_mean(str(absent[0]), known)}")
        rows = pc.indices_nonzero(pc.is_in(found, value_set=value_set))
        return self.take(rows, step=f"{column} is {' or '.join(map(str, wanted))}")

    def drop_missing(self, column: str) -> Self:
        """Return the rows that have a value in a column. Raises ColumnError, and TableError if no row has one."""
        rows = pc.indices_nonzero(self.column(column).is_valid())
        if len(rows) == 0:
            raise TableError(f"no row has a value in {column!r}; look at the table of labels")
        return self.take(rows, step=f"{column} is not missing")

    def readable(self) -> Self:
        """Return the rows whose file has a frame that can be read, or was not probed."""
        if "num_frames" not in self.table.schema.names:
            return self
        frames = self.column("num_frames").fill_null(1)
        return self.take(pc.indices_nonzero(pc.greater(frames, 0)), step="with frames that can be read")

    def pivot(self, *, by: str, within: str, missing: Missing = "raise") -> Self:
        """Return the views of a study side by side: one row a study, of which every value of `by` is a view.

        Columns of a video are there once a view, such as `path:2ch`, `num_frames:4ch`; `path` alone is the first
        view's, in sorted order. Labels and groups stay, and must agree within a study; one that only some of its videos
        have is the study's. The id is the study's own, or where paths are private that of its first view.

        A study that lacks a view is refused, or left out with `missing="drop"`. Raises TableError for one with two
        videos of a view, or whose videos differ in a label; ColumnError for a column that is not there.

        >>> import pyarrow as pa
        >>> table = pa.table({"path": ["s1/a.mp4", "s1/b.mp4"], "view": ["2ch", "4ch"], "study": ["s1", "s1"]})
        >>> Manifest.from_table(table).pivot(by="view", within="study").table.column_names
        ['id', 'path', 'study', 'path:2ch', 'path:4ch']
        """
        table, views = pivot_table(self.table, by=by, within=within, missing=missing, private=self.private)
        step = f"by {within}, with {by} {' and '.join(views)}"
        return self._with_table(table, history=[*self.history, (step, table.num_rows)])

    def split(
        self,
        *,
        val: float,
        test: float,
        group: str | None,
        stratify: str | None = None,
        seed: int = 0,
        keep: str | None = None,
    ) -> "Parts":
        """Return training, validation and test parts such that no value of `group` is in two of them.

        `group` is the column of patients or whatever must not leak; `group=None` says that each row stands alone.
        `stratify` gives every part its share of each class, or of each tenth of a number's range (see `label_type`).
        `keep="split"` leaves groups where that column has them, and deals only new ones. The same on any machine, in
        any order of the rows.

        Raises SplitError: fractions out of range, fewer groups than parts, a class with fewer groups than parts, one
        class only, missing groups or labels. ColumnError for a column that is not there.
        """
        for name, value in (("val", val), ("test", test)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
                raise SplitError(f"{name}={value!r} must be a fraction of at least 0 and less than 1")
        fractions = {"val": Fraction(str(val)), "test": Fraction(str(test))}
        rest = 1 - sum(fractions.values())
        if rest <= 0:
            raise SplitError(f"val={val} and test={test} leave nothing to train on; they must add up to less than 1")
        parts = assign_parts(
            groups=self.column(group or "id"),
            labels=None if stratify is None else self.column(stratify),
            fractions={"train": rest, **fractions},
            seed=seed,
            previous_parts=None if keep is None else part_names(self.column(keep), name=f"column {keep!r}"),
            group_name=group or "id",
            label_name=stratify or "",
            kind=None if stratify is None else self.label_type(stratify).kind,
        )
        return self._with_parts(pa.array(PARTS).take(pa.array(parts)), group=group, labels=stratify)

    def with_groups(self, groups: object) -> Self:
        """Return the manifest with the column `check_group` from a table of `id` and `check_group`.

        `cinefeed check --groups` writes such a table: samples of one patient and those that look alike have one group,
        so that a split with `group="check_group"` keeps them together. Raises ColumnError where the table lacks one of
        the columns, TableError where it lacks a row.
        """
        ids = self.column("id").cast(pa.string())
        return self._with_column(GROUP, groups_of_ids(groups, ids, private=self.private))

    def folds(self, k: int, *, group: str | None, stratify: str | None = None, seed: int = 0) -> list["Parts"]:
        """Return `k` pairs of training and validation parts; each row is once in a validation part.

        The test part of each is empty: split off a test set first. `all` has a column `fold`. Otherwise as `split`.
        """
        folds = assign_folds(
            groups=self.column(group or "id"),
            labels=None if stratify is None else self.column(stratify),
            folds=k,
            seed=seed,
            group_name=group or "id",
            label_name=stratify or "",
            kind=None if stratify is None else self.label_type(stratify).kind,
        )
        whole = self._with_column("fold", pa.array(folds))
        return [
            whole._with_parts(pa.array(PARTS).take(pa.array((folds == fold).astype(int))), group=group, labels=stratify)
            for fold in range(k)
        ]

    def parts(self, *, column: str = "split", group: str | None = None, stratify: str | None = None) -> "Parts":
        """Return the parts that a column names already: train, val and test (or training, validation, dev ...).

        With `group`, raises SplitError where one of its values is in two parts. `stratify` is a label to report on.
        """
        names = part_names(self.column(column), name=f"column {column!r}")
        if names.null_count:
            raise SplitError(
                f"{names.null_count} of {len(self)} rows have no part in {column!r}; "
                f"deal them out with split(keep={column!r}), or leave them out with where"
            )
        if group is not None:
            check_groups(groups=self.column(group), parts=names, group_name=group)
        return self._with_parts(names, group=group, labels=stratify)

    def with_split(
        self, tables: Mapping[str, object], *, on: str | None = None, unmatched: Unmatched = "error"
    ) -> Self:
        """Return the manifest with a column `split` from one table a part, such as {"train": "train.csv", ...}.

        Tables are read and joined like labels (see `scan`). Raises TableError for a row that two tables claim, or
        that has no partner, unless `unmatched="ignore"`.
        """
        claims = split_table(tables, on=on, videos=self.table)
        samples = self.table.drop_columns("split") if "split" in self.table.schema.names else self.table
        joined, joined_on = join_labels(
            samples, claims, on=on, unmatched=unmatched, root=self.root, name="the split", share_labels=True
        )
        history = [*self.history, (f"in a part of the split (joined on {joined_on})", joined.num_rows)]
        return self._with_table(ordered(joined), history=history)

    def _with_column(self, name: str, values: Any) -> Self:
        table = self.table.drop_columns(name) if name in self.table.schema.names else self.table
        return self._with_table(ordered(table.append_column(name, values)), history=self.history)

    def _with_table(self, table: Any, *, history: Iterable[tuple[str, int]]) -> Self:
        notes = self.notes | {"label_types": self.label_types}
        return type(self)(table, root=self.root, history=history, notes=notes, arrays=self._arrays)

    def _with_parts(self, names: Any, *, group: str | None, labels: str | None) -> "Parts":
        whole = self._with_column("split", names)
        numbers = pc.index_in(names, value_set=pa.array(PARTS)).to_numpy(zero_copy_only=False).astype(np.int64)
        balance = measure_balance(
            parts=numbers,
            names=PARTS,
            groups=None if group is None else self.column(group),
            labels=None if labels is None else self.column(labels),
            group_name=group,
            label_name=labels,
            kind=None if labels is None else self.label_type(labels).kind,
        )
        train, val, test = (
            whole.take(np.flatnonzero(numbers == number), step=f"{name} part") for number, name in enumerate(PARTS)
        )
        return Parts(train=train, val=val, test=test, all=whole, balance=balance)


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """The parts of a split, each a manifest with a column `split`, and `all` of them; `print` shows the balance.

    >>> import pyarrow as pa
    >>> table = pa.table({"path": [f"p{i}/a.mp4" for i in range(5)], "patient": [f"p{i}" for i in range(5)]})
    >>> train, val, test = Manifest.from_table(table).split(val=0.2, test=0.2, group="patient", seed=7)
    >>> len(train), len(val), len(test)
    (3, 1, 1)
    """

    train: Manifest
    val: Manifest
    test: Manifest
    all: Manifest
    balance: Balance

    def __iter__(self) -> Iterator[Manifest]:
        return iter((self.train, self.val, self.test))

    def __str__(self) -> str:
        return str(self.balance)
