"""The class Manifest: a table with one row per sample, with methods to scan, read, filter, split and write it.

The file is a little longer than 400 lines, because of the docstrings of its public methods: each calls the module that
does the work.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cinefeed.core.arguments import Hints, check_arguments, expect, expect_integer, in_words, require_local
from cinefeed.core.errors import ArgumentError, ColumnError, SplitError, TableError, did_you_mean
from cinefeed.core.html import display
from cinefeed.core.locks import with_write_lock, write_lock
from cinefeed.core.remote.address import RemoteRoot, parse_root
from cinefeed.core.text import count_having
from cinefeed.data.manifest.base import ManifestTable
from cinefeed.data.manifest.columns import (
    METADATA_COLUMNS,
    VERDICTS,
    ordered,
    relative_paths,
)
from cinefeed.data.manifest.combine import concatenated, with_values
from cinefeed.data.manifest.discover import discover_samples
from cinefeed.data.manifest.display import parts_html, parts_title
from cinefeed.data.manifest.files import PACKED_MANIFEST, check_shards, read_parquet, root_of, write_manifest
from cinefeed.data.manifest.find import salt_path, stored_salt
from cinefeed.data.manifest.group_candidates import likely_group
from cinefeed.data.manifest.grouping import GROUP, groups_of_ids
from cinefeed.data.manifest.ids import with_ids
from cinefeed.data.manifest.in_memory import arrays_table
from cinefeed.data.manifest.labels import Unmatched, check_parts, check_unmatched, join_labels, part_names, split_table
from cinefeed.data.manifest.pivot import Missing, pivot_table
from cinefeed.data.manifest.read_table import read_table
from cinefeed.data.manifest.remote import opened_root, without_tags
from cinefeed.data.manifest.scan import Progress, Verify, journal_path, probe_videos, with_split_of
from cinefeed.data.manifest.write_table import SUFFIXES, table_suffix
from cinefeed.data.split import PARTS, assign_folds, assign_parts, check_groups
from cinefeed.data.split_summary import Balance, measure_balance
from cinefeed.video.read_options import DEFAULT_READ_OPTIONS, ReadOptions

_HINTS: Hints = {
    "val": "val and test are shares of the rows, such as 0.15; the rest is for training",
    "group": lambda manifest: (
        "group='COLUMN' names the patient, or None if all rows are independent: split(..., "
        f"group={likely_group(manifest)!r})"
    ),
    "label": "give labels=TABLE, a file or data frame with one row per video",
    "k": lambda manifest: f"give the number of folds: folds(5, group={likely_group(manifest)!r})",
}
# Notes that are read from a manifest file, besides its history.
_NOTES = ("verify", "reading", "private", "label_types", "hashed", "not_read", "packed", "encoder", "videos")

_ONE_FOLDER = "give the folder of the videos; Manifest.concat([...]) joins the manifests of several folders"


class _OfClass(classmethod):  # type: ignore[type-arg]
    """A class method that raises if it is called on an instance, whose rows it would ignore."""

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return super().__get__(instance, owner)

        def refuse(*args: object, **kwargs: object) -> None:
            raise ArgumentError(
                "concat is called on the class, and joins only the manifests in its list; write "
                "Manifest.concat([manifest, other])"
            )

        return refuse


@check_arguments(hints=_HINTS)
class Manifest(ManifestTable):
    """The samples of a data set: a table with one row per sample, and the root of its relative paths.

    A sample is a video, or a part or a time range of one; it has a unique `id`. Other columns are the metadata that a
    scan collected (see `cinefeed.data.manifest.columns.METADATA_COLUMNS`) and labels. A manifest is immutable: each
    method returns a new one.

    >>> import pyarrow as pa
    >>> table = pa.table({"path": ["p1/a.mp4", "p2/b.mp4"], "view": ["4ch", "2ch"], "age": [61.0, 48.0]})
    >>> manifest = Manifest.from_table(table, root="studies")
    >>> len(manifest.where("view", ["4ch"])), manifest.path_of(1).as_posix()
    (1, 'studies/p2/b.mp4')
    """

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
        reading: ReadOptions = DEFAULT_READ_OPTIONS,
        private: bool = False,
        share_labels: bool = False,
    ) -> Self:
        """Return a manifest of all videos in a folder, each probed once, in parallel.

        Args:
            folder: Searched with all its subfolders; or a remote address such as "s3://bucket/clips" (docs/remote.md).
                Files are recognised by suffix, or else by their first bytes. Files that are not read are listed in
                `not_read`.
            labels: CSV, Parquet or JSON file, or a data frame. Columns `start_seconds` and `end_seconds` define samples
                that are time ranges of a video; they count from the container's start time, as in `ffmpeg -ss`.
                If files hold several samples, a column `part` identifies them ("[5]", or 5, is row 5 of a stacked
                array).
            on: Column of `labels` that names the videos, by default `path`, `file`, `stem` ...: their path, path
                without suffix, file name or stem. Or one or more columns that also exist in `path_columns` or DICOM
                headers; "PatientID=patient" joins columns of different names. One label row may match many videos.
            path_columns: Columns from folder names, such as "{patient}/{study}/{view}".
            unmatched: "error" raises for rows and videos without a match, "ignore" leaves them out.
            verify: "decode" decodes all frames, the only way to detect damage; "packets" counts packets if each packet
                is one frame, and decodes other files.
            workers: Number of threads, by default one per core.
            out: File to write. An interrupted scan continues, and a later scan opens only files with a changed size or
                modification time; it keeps the column `split`, empty for new samples.
            progress: Called as `progress(done, total)` after each file; None shows a bar on a terminal, False nothing.
            reading: Options for reading files, such as the slice of a volume or the images that are frames. The columns
                patient, study and series of DICOM files are hashed after the join, with `reading.salt`, or with a salt
                in a file beside `out` ("m.parquet.salt", readable by its owner only), so later scans give the same
                hashes.
            private: Hash ids, and show them in place of paths from then on, without pictures.
            share_labels: Allow one label row that names a file to match several samples in it.

        Raises TableError (no videos, images that may be frames and masks, no match, `out` cannot be written),
        ColumnError, SettingError, and InUseError while another process writes `out`.
        """
        expect(folder, (str, os.PathLike), name="Manifest.scan(folder)", remedy=_ONE_FOLDER)
        expect(reading, ReadOptions, name="reading", remedy="give reading=ReadOptions(...)")
        if workers is not None:
            workers = expect_integer(workers, name="Manifest.scan: workers", remedy="leave it out to use every core")
        check_unmatched(unmatched)
        require_local(labels, out, error=TableError)
        root, out = parse_root(folder), None if out is None else Path(out)
        if out is not None:
            table_suffix(out)
        files = opened_root(root)
        discovery = discover_samples(
            files,
            labels=labels,
            on=on,
            path_columns=path_columns,
            unmatched=unmatched,
            verify=verify,
            reading=reading,
            private=private,
            share_labels=share_labels,
            make_salt=lambda: stored_salt(None if out is None else salt_path(out)),
        )
        samples = discovery.samples
        if out is not None:
            samples = with_split_of(out, samples, hashed=discovery.notes["hashed"])
        table = probe_videos(
            samples,
            root=files,
            verify=verify,
            workers=workers,
            out=out,
            progress=progress,
            reading=reading,
            private=private,
        )
        manifest = cls(ordered(table), root=root, history=discovery.history, notes=discovery.notes)
        if out is not None:
            manifest.write(out)
            journal_path(out).unlink(missing_ok=True)
        return manifest

    @classmethod
    def read(cls, path: str | Path, *, root: str | Path | None = None) -> Self:
        """Return the manifest in a file, or a manifest of any Parquet table with a column `path`.

        Its root is stored relative to the file, so both can be moved together; `root` overrides it. `path` may be the
        folder of a packed data set. Raises TableError if the file cannot be read or has no rows, or if a packed shard
        is missing or cut off.
        """
        expect(path, (str, os.PathLike), name="Manifest.read(path)", remedy="Manifest.from_table(table) takes tables")
        require_local(path, error=TableError)
        path = Path(path)
        if path.is_dir() and (path / PACKED_MANIFEST).is_file():
            path /= PACKED_MANIFEST
        try:
            stored = read_parquet(path)
        except OSError as error:
            raise TableError(f"{path} cannot be read: {error}; 'cinefeed scan' writes manifests") from error
        except pa.ArrowException as error:
            advice = "'cinefeed scan' writes manifests"
            if path.suffix.lower() in SUFFIXES[1:]:
                advice = "this format has neither types nor the root of paths: give the scan's Parquet file, or make a "
                advice += "manifest of the table with Manifest.from_table(path, root=FOLDER)"
            raise TableError(f"{path} is not a Parquet file: {error}; {advice}") from error
        if not stored.notes:
            return cls.from_table(stored.table, root=path.parent if root is None else root)
        if stored.table.num_rows == 0:
            raise TableError(f"{path} has no rows; scan or filter again")
        history = [(step, rows) for step, rows in stored.notes["history"]]
        table, own = stored.table, root_of(stored, path=path)
        place = own if root is None else parse_root(root)
        if place != own and isinstance(place, RemoteRoot):
            table = without_tags(table)
        notes = {name: stored.notes[name] for name in _NOTES if name in stored.notes}
        if isinstance(place, Path):
            check_shards(table, root=place)
        return cls(table, root=place, history=history, notes=notes)

    @classmethod
    def from_table(cls, table: object, *, root: str | Path | None = None) -> Self:
        """Return a manifest of a table with a column `path`: CSV, Parquet, pandas, Polars, pyarrow ...

        Relative paths are relative to `root` (by default the current folder), absolute paths are converted. Metadata
        that the table lacks is read when a video is opened. Raises TableError and ColumnError.
        """
        require_local(table, error=TableError)
        samples = read_table(table)
        names = samples.schema.names
        if "path" not in names:
            raise ColumnError(f"a manifest needs a column 'path', one video per row; {did_you_mean('path', names)}")
        if "num_frames" not in names:
            check_parts(samples, name="the table")
        paths, place = relative_paths(samples.column("path"), None if root is None else parse_root(root))
        samples = with_ids(samples.set_column(names.index("path"), "path", paths), name="the table")
        if "num_frames" in samples.schema.names:
            for name, kind in METADATA_COLUMNS.items():
                if name not in samples.schema.names and name not in VERDICTS:
                    samples = samples.append_column(name, pa.nulls(samples.num_rows, kind))
        return cls(ordered(samples), root=place, history=[("rows of the table", samples.num_rows)])

    @classmethod
    def from_arrays(
        cls, x: NDArray[Any] | Sequence[NDArray[Any]], labels: object | None = None, *, axes: str | None = None
    ) -> Self:
        """Return a manifest of videos in memory: one array (samples, time, height, width[, channels]), or a list.

        `labels` is a table with one row per video, in order, or one value per video for a column `label`. `axes`
        gives another order of axes, such as "NHWT"; N must be the first. The arrays are not copied, and the manifest
        cannot be written. Raises SourceError for a shape that is not a set of videos, or that may be a single video,
        such as (25, 3, 64, 64); TableError if the numbers of labels and videos differ.

        >>> import numpy as np
        >>> manifest = Manifest.from_arrays(np.zeros((3, 8, 16, 16), np.uint8), {"age": [31, 45, 60]})
        >>> len(manifest), manifest.metadata(0).times.count
        (3, 8)
        """
        table, arrays = arrays_table(x, labels, axes=axes)
        return cls(table, root=Path(), history=[("videos in memory", len(arrays))], arrays=arrays)

    @classmethod
    def concat(cls, manifests: Sequence["Manifest"]) -> Self:
        """Return the concatenated rows of several manifests; paths are relative to the common folder of all roots.

        A label column that a manifest lacks is missing in its rows. Ids are kept, but if an id occurs in two manifests,
        ids derived from paths are derived again from the new paths. Raises TableError for an empty list, an id that
        still occurs twice, column types that cannot be joined, columns that were hashed with different salts, and a mix
        of files and videos in memory, of private and other, or of scanned and other manifests.

        >>> import numpy as np
        >>> clips = np.zeros((2, 8, 16, 16), np.uint8)
        >>> parts = [Manifest.from_arrays(clips, {"age": ages}) for ages in ([31, 45], [60, 7])]
        >>> Manifest.concat(parts).column("age").to_pylist()
        [31, 45, 60, 7]
        """
        return cls(**concatenated(manifests, kind=Manifest))

    concat = _OfClass(concat.__func__)  # type: ignore[assignment, attr-defined]  # m.concat([other]) would drop m

    def write(self, path: str | Path) -> None:
        """Write the manifest atomically as Parquet, or as CSV or JSON for other programs, by its suffix.

        Raises SettingError for another suffix, TableError if it cannot be written, DiskFullError, and InUseError while
        another process writes it.
        """
        require_local(path, error=TableError)
        if self._arrays is not None:
            raise TableError(f"cannot write {path}: its videos are in memory; save them as .npy and scan those files")
        notes = {"history": self.history} | self.notes | {"label_types": self.label_types}
        with write_lock(path):
            write_manifest(self.table, path=Path(path), root=self.root, notes=notes)

    def with_column(self, name: str, values: object) -> Self:
        """Return the manifest with a column of these values, one per row, which replaces a column of the same name.

        Its label type is determined again. Columns that a scan fills are reserved, except `spacing_down_mm` and
        `spacing_across_mm`, the size of a pixel, which many formats do not store. Raises ColumnError for a reserved
        column name, TableError if the number of values is not the number of rows.

        >>> import pyarrow as pa
        >>> manifest = Manifest.from_table(pa.table({"path": ["a.mp4", "b.mp4"], "age": [61.0, 48.0]}))
        >>> manifest.with_column("old", [True, False]).where("old", True).column("age").to_pylist()
        [61.0]
        """
        table, notes = with_values(self.table, self.notes | {"label_types": self.label_types}, name, values)
        return type(self)(table, root=self.root, history=self.history, notes=notes, arrays=self._arrays)

    def pivot(self, *, by: str, within: str, missing: Missing = "raise") -> Self:
        """Return a manifest with one row per study and several views; the values of column `by` are the views.

        `within` is the column of studies. Columns of a video occur once per view, such as `path:2ch`, `num_frames:4ch`;
        `path` is that of the first view in sorted order. Labels and groups must be equal within a study; values missing
        in some of its videos are ignored. The id is the name of the study, or the id of its first view if the manifest
        is private.

        Raises TableError for a study that lacks a view, unless `missing="drop"` leaves it out, that has two videos of
        a view, or whose videos differ in a label; ColumnError for a missing column.

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
        """Return training, validation and test parts; no value of `group` occurs in two parts.

        Args:
            val: Fraction of the rows for validation, at least 0 and less than 1.
            test: Fraction of the rows for the test, likewise; not both are 0.
            group: Column of patients, or of other units that must not leak; None if all rows are independent.
            stratify: Label column; every part gets its share of each class, or of each tenth of the groups in the order
                of a number (see `label_type`); of fewer, larger ranges if there are few groups.
            seed: Seed of the split. The result is the same on any machine and for any order of the rows.
            keep: Column of an earlier split; groups keep their part in it, and only new groups are assigned.

        Raises SplitError for fractions out of range, fewer groups than parts, a class with fewer groups than parts, a
        single class, a number that is equal for all groups, and missing groups or labels; ColumnError for a missing
        column.
        """
        self._check_columns(group=group, stratify=stratify, keep=keep)
        seed = expect_integer(seed, name="Manifest.split: seed")
        for name, value in (("val", val), ("test", test)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
                raise SplitError(f"{name}={value!r} must be a fraction of at least 0 and less than 1")
        fractions = {"val": Fraction(str(val)), "test": Fraction(str(test))}
        rest = 1 - sum(fractions.values())
        if rest <= 0:
            raise SplitError(f"val={val} and test={test} leave no rows for training; their sum must be less than 1")
        if rest == 1:
            raise SplitError("val=0 and test=0 split nothing off; give at least one of them a fraction above 0")
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

        `cinefeed check --groups` writes such a table: samples of one patient and similar samples have the same group,
        so a split with `group="check_group"` keeps them together. Raises ColumnError if the table lacks one of the
        columns, TableError if it lacks a row.
        """
        ids = self.column("id").cast(pa.string())
        return self._with_column(GROUP, groups_of_ids(groups, ids, private=self.private))

    def folds(self, k: int, *, group: str | None, stratify: str | None = None, seed: int = 0) -> list["Parts"]:
        """Return `k` pairs of training and validation parts; each row is in one validation part.

        Test parts are empty: split off a test set first. `all` has a column `fold`. Other parameters are those of
        `split`.
        """
        self._check_columns(group=group, stratify=stratify)
        seed = expect_integer(seed, name="Manifest.folds: seed")
        folds = assign_folds(
            groups=self.column(group or "id"),
            labels=None if stratify is None else self.column(stratify),
            folds=int(k) if isinstance(k, np.integer) else k,
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
        """Return the parts that are named in a column: train, val and test (or training, validation, dev ...).

        Raises SplitError if a value of `group` occurs in two parts, or if a row has no part. `stratify` is a label
        column for the balance report.
        """
        names = part_names(self.column(column), name=f"column {column!r}")
        if names.null_count:
            raise SplitError(
                f"{count_having(names.null_count, len(self), 'row')} no part in {column!r}; "
                f"assign them with split(keep={column!r}), or leave them out with where"
            )
        if group is not None:
            check_groups(groups=self.column(group), parts=names, group_name=group)
        return self._with_parts(names, group=group, labels=stratify)

    def with_split(
        self, tables: Mapping[str, object], *, on: str | None = None, unmatched: Unmatched = "error"
    ) -> Self:
        """Return the manifest with a column `split` from one table per part, such as {"train": "train.csv", ...}.

        Tables are read and joined like labels (see `scan`). Raises TableError for a row that is in two tables, or
        that has no match, unless `unmatched="ignore"`.
        """
        split_rows = split_table(tables, on=on, videos=self.table)
        samples = self.table.drop_columns("split") if "split" in self.table.schema.names else self.table
        joined, joined_on = join_labels(
            samples,
            split_rows,
            on=on,
            unmatched=unmatched,
            root=self.root,
            name="the split",
            private=self.private,
            share_labels=True,
        )
        history = [*self.history, (f"in a part of the split (joined on {joined_on})", joined.num_rows)]
        return self._with_table(ordered(joined), history=history)

    def _with_column(self, name: str, values: Any) -> Self:
        table = self.table.drop_columns(name) if name in self.table.schema.names else self.table
        return self._with_table(ordered(table.append_column(name, values)), history=self.history)

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

    def _check_columns(self, **names: object) -> None:
        """Raise ArgumentError unless each argument is the name of a column or None."""
        for name, value in names.items():
            if isinstance(value, str | None):
                continue
            hint = {"stratify": "give a label column, or None"}.get(name)
            if name == "group":
                hint = f"give the column of patients, group={likely_group(self)!r}, or None if all rows are independent"
            single = value[0] if isinstance(value, list | tuple) and len(value) == 1 else None
            if isinstance(single, str):
                hint = f"did you mean {name}={single!r}?"
            hint = hint or "give the column of an earlier split, such as 'split', or None"
            raise ArgumentError(f"{name}={in_words(value)} is not the name of a column; {hint}")


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Parts:
    """The parts of a split, each a manifest with a column `split`, and `all` rows; `print` shows the balance.

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

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}={len(getattr(self, name))}" for name in PARTS)
        return f"Parts({sizes} samples)"

    def _repr_html_(self) -> str:
        return parts_html(self)

    def show(self, *, out: str | Path | None = None) -> Path | None:
        """Show the sizes of the parts, and the labels of each part if the split is stratified; see `Manifest.show`."""
        return display(parts_html(self), title=parts_title(self), out=out)

    def __str__(self) -> str:
        return str(self.balance)
