import json
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cinefeed.core.errors import ColumnError, DiskFullError, SplitError, TableError
from cinefeed.data.manifest.manifest import Manifest


def rows(count=12, **columns):
    numbers = np.arange(count)
    return pa.table({
        "path": [f"p{i // 2}/{i}.mp4" for i in numbers],
        "patient": [f"{i // 2:03d}" for i in numbers],
        "view": [("4ch", "2ch")[i % 2] for i in numbers],
        "age": numbers + 40.5,
        "grade": numbers % 3,
        "sick": numbers % 4 == 0,
        **columns,
    })  # fmt: skip


def manifest(count=12, **columns):
    return Manifest.from_table(rows(count, **columns), root="studies")


@pytest.mark.parametrize(("library", "kind"), [("pandas", "DataFrame"), ("polars", "DataFrame"), ("pyarrow", "table")])
def test_a_table_of_any_library(library, kind):
    make = getattr(pytest.importorskip(library), kind)
    made = Manifest.from_table(make(rows().to_pydict()), root="studies")
    assert made.table.equals(manifest().table)
    assert made.labels == ["patient", "view", "age", "grade", "sick"]
    assert made.column("id").to_pylist() == made.column("path").to_pylist()
    assert made.metadata(0) is None
    assert made.path_of(3).as_posix() == "studies/p1/3.mp4"


def test_absolute_paths_are_made_relative():
    paths = pa.table({"path": ["/data/b/x.mp4", "/data/a/y.mp4", "/data/ab.mp4"]})
    made = Manifest.from_table(paths)
    assert (made.root.as_posix(), made.column("path").to_pylist()) == ("/data", ["b/x.mp4", "a/y.mp4", "ab.mp4"])
    assert Manifest.from_table(paths, root="/").column("path").to_pylist()[0] == "data/b/x.mp4"
    with pytest.raises(TableError, match=r"/data/ab.mp4 is not under the root|/data/b/x.mp4 is not under the root"):
        Manifest.from_table(paths, root="/data/a")
    with pytest.raises(TableError, match="some paths are absolute"):
        Manifest.from_table(pa.table({"path": ["/data/a.mp4", "b.mp4"]}))


def test_tables_that_are_no_manifest():
    with pytest.raises(ColumnError, match="did you mean 'paths'"):
        Manifest.from_table(pa.table({"paths": ["a.mp4"]}))
    with pytest.raises(TableError, match="has no rows"):
        Manifest.from_table(pa.table({"path": pa.array([], pa.string())}))
    with pytest.raises(TableError, match="1 of 2 rows has no path"):
        Manifest.from_table(pa.table({"path": ["a.mp4", None]}))
    with pytest.raises(TableError, match=r"1 ids occur more than once \(first: a.mp4\)"):
        Manifest.from_table(pa.table({"path": ["a.mp4", "a.mp4"]}))
    with pytest.raises(TableError, match="1 have none"):
        Manifest.from_table(pa.table({"path": ["a.mp4", "a.mp4"], "id": ["1", None]}))


def test_one_path_may_come_in_several_samples():
    made = Manifest.from_table(
        pa.table({"path": ["a.mp4", "a.mp4"], "part": ["[0]", "[1]"], "start_seconds": [None, 1.5]})
    )
    assert made.column("id").to_pylist() == ["a.mp4#[0]", "a.mp4#[1]@1.5"]


def test_what_a_feed_asks_of_a_row():
    made = manifest(
        3, start_seconds=[None, 1, 2.5], end_seconds=[2, None, 3], num_frames=[4, 0, None], error=[None, "x", None]
    )
    assert made.relative_path(1) == "p0/1.mp4"
    assert [made.window(row) for row in range(3)] == [(None, 2.0), (1.0, None), (2.5, 3.0)]
    assert manifest(3).window(0) == (None, None)
    assert made.readable().column("path").to_pylist() == ["p0/0.mp4", "p1/2.mp4"]
    assert made.readable().history[-1] == ("with frames that can be read", 2)
    assert len(manifest(3).readable()) == 3


def test_where_keeps_its_count():
    result = manifest().where("view", ["4ch"]).where("grade", ["1", "2"])
    assert result.column("path").to_pylist() == ["p1/2.mp4", "p2/4.mp4", "p4/8.mp4", "p5/10.mp4"]
    assert result.history == [("rows of the table", 12), ("view is 4ch", 6), ("grade is 1 or 2", 4)]
    assert len(manifest().where("grade", [1])) == len(manifest().where("grade", 1)) == 4
    assert len(manifest().where("sick", ["true"])) == len(manifest().where("sick", [True])) == 3
    assert len(manifest().where("age", ["40.5", 41.5])) == 2
    assert len(manifest().where("view", "2ch")) == 6


def test_where_finds_what_is_missing():
    made = manifest(4, finding=["a", None, None, "b"])
    assert len(made.where("finding", [None])) == 2
    assert len(made.where("finding", ["a", None])) == 3
    labelled = made.drop_missing("finding")
    assert labelled.column("finding").to_pylist() == ["a", "b"]
    assert labelled.history[-1] == ("finding is not missing", 2)
    with pytest.raises(TableError, match="no row has a value in 'finding'"):
        made.where("finding", [None]).drop_missing("finding")


def test_where_refuses_what_is_not_there():
    with pytest.raises(ColumnError, match="did you mean 'view'"):
        manifest().where("veiw", ["4ch"])
    with pytest.raises(TableError, match="no row has view='4cj'; did you mean '4ch'"):
        manifest().where("view", ["2ch", "4cj"])
    with pytest.raises(TableError, match="column 'grade' is int64"):
        manifest().where("grade", ["high"])
    with pytest.raises(TableError, match="no row has view=None"):
        manifest().where("view", [None])


def test_a_manifest_comes_back_as_it_was_written(tmp_path):
    made = manifest().where("view", ["4ch"])
    made.write(tmp_path / "new" / "m.parquet")
    again = Manifest.read(tmp_path / "new" / "m.parquet")
    assert again.table.equals(made.table)
    assert again.history == made.history
    assert again.root == (made.root.resolve())
    assert again.fingerprint == made.fingerprint
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["m.parquet"]


def test_a_manifest_moves_with_its_videos_or_without(tmp_path):
    home = tmp_path / "home"
    (home / "studies" / "p0").mkdir(parents=True)
    (home / "studies" / "p0" / "0.mp4").touch()
    Manifest.from_table(rows(2), root=home / "studies").write(home / "m.parquet")
    shutil.copy(home / "m.parquet", tmp_path / "alone.parquet")
    assert Manifest.read(tmp_path / "alone.parquet").root == home / "studies"
    home.rename(tmp_path / "moved")
    assert Manifest.read(tmp_path / "moved" / "m.parquet").root == tmp_path / "moved" / "studies"
    assert Manifest.read(tmp_path / "moved" / "m.parquet", root="/x/y").root.as_posix() == "/x/y"


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "m.parquet"
    manifest().write(path)
    before = path.read_bytes()

    def full(writer, table):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(DiskFullError, match=r"m\.parquet cannot be written: the disk is full"):
        manifest(3).write(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m.parquet"]  # noqa: PTH208


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(TableError, match="cannot be written"):
        manifest().write(tmp_path / "file" / "m.parquet")


def test_files_that_are_no_manifest(tmp_path):
    with pytest.raises(TableError, match="cannot be read"):
        Manifest.read(tmp_path / "none.parquet")
    (tmp_path / "m.parquet").write_text("no Parquet")
    with pytest.raises(TableError, match="is not a Parquet file"):
        Manifest.read(tmp_path / "m.parquet")
    manifest().take([]).write(tmp_path / "m.parquet")
    with pytest.raises(TableError, match="has no rows"):
        Manifest.read(tmp_path / "m.parquet")


def test_a_parquet_table_of_another_hand(tmp_path):
    rows(3).to_pandas().to_parquet(tmp_path / "m.parquet")
    made = Manifest.read(tmp_path / "m.parquet")
    assert (made.root, len(made)) == (tmp_path, 3)


def test_split_is_stored_and_reported():
    parts = manifest(40).split(val=0.2, test=0.2, group="patient", stratify="sick", seed=7)
    assert [len(part) for part in parts] == [24, 8, 8]
    assert parts.train.column("split").unique().to_pylist() == ["train"]
    assert parts.train.history[-1] == ("train part", 24)
    assert sum(map(len, parts)) == len(parts.all)
    patients = [set(part.column("patient").to_pylist()) for part in parts]
    assert not (patients[0] & patients[1] or patients[0] & patients[2] or patients[1] & patients[2])
    assert parts.balance.as_dict()["val"] == {"rows": 8, "groups": 4, "classes": {"False": 6, "True": 2}}
    assert str(parts).splitlines()[2] == "val       8  20.0 %        4   6 (75 %)  2 (25 %)"


def test_a_split_needs_its_group_and_fractions():
    with pytest.raises(TypeError, match="group"):
        manifest().split(val=0.1, test=0.1)
    with pytest.raises(ColumnError, match="did you mean 'patient'"):
        manifest().split(val=0.1, test=0.1, group="patien")
    for val, test in ((0.5, 0.5), (-0.1, 0.1), (1.0, 0.1), (float("nan"), 0.1), (True, 0.1), ("a", 0.1)):
        with pytest.raises(SplitError, match=r"leave no rows for training|must be a fraction"):
            manifest().split(val=val, test=test, group=None)
    with pytest.raises(SplitError, match="val=0 and test=0 split nothing off; give at least one"):
        manifest().split(val=0.0, test=0, group=None)
    with pytest.raises(SplitError, match="3 parts need at least 3 groups; there is 1 value of 'id'"):
        manifest(1).split(val=0.1, test=0.1, group=None)


def test_a_split_without_test_has_an_empty_one():
    parts = manifest().split(val=0.25, test=0, group=None)
    assert [len(part) for part in parts] == [9, 3, 0]
    assert parts.balance.parts == ("train", "val")


def test_folds():
    folds = manifest(20).folds(5, group="patient", stratify="age", seed=7)
    assert [len(fold.val) for fold in folds] == [4] * 5
    held_out = pa.concat_tables([fold.val.table for fold in folds])
    assert sorted(held_out.column("id").to_pylist()) == sorted(manifest(20).column("id").to_pylist())
    for number, fold in enumerate(folds):
        assert not set(fold.train.column("patient").to_pylist()) & set(fold.val.column("patient").to_pylist())
        assert fold.val.column("fold").unique().to_pylist() == [number]
        assert len(fold.test) == 0
    json.dumps([fold.balance.as_dict() for fold in folds], allow_nan=False)


def test_a_split_of_a_column():
    names = ["TRAIN"] * 8 + ["Validation"] * 2 + ["test"] * 2
    parts = manifest(Split=names).parts(column="Split", group="patient", stratify="age")
    assert [len(part) for part in parts] == [8, 2, 2]
    assert parts.all.column("split").unique().to_pylist() == ["train", "val", "test"]
    with pytest.raises(SplitError, match="1 of 6 values of 'patient' are in more than one part"):
        manifest(Split=["test", *names[1:]]).parts(column="Split", group="patient")
    with pytest.raises(SplitError, match="1 of 12 rows has no part"):
        manifest(Split=[None, *names[1:]]).parts(column="Split")
    with pytest.raises(ColumnError, match="no column 'split'"):
        manifest().parts()


def test_a_split_of_one_table_a_part(tmp_path):
    (tmp_path / "train.csv").write_text("path,label\n" + "".join(f"p{i // 2}/{i},x\n" for i in range(8)))
    (tmp_path / "test.csv").write_text("file\n" + "".join(f"p{i // 2}/{i}\n" for i in range(8, 12)))
    tables = {"training": tmp_path / "train.csv", "test": tmp_path / "test.csv"}
    made = manifest().with_split(tables)
    assert made.column("split").to_pylist() == ["train"] * 8 + ["test"] * 4
    assert made.history[-1] == ("in a part of the split (joined on path without suffix)", 12)
    assert [len(part) for part in made.with_split(tables).parts()] == [8, 0, 4]
    with pytest.raises(TableError, match="4 of 12 videos have no row"):
        manifest().with_split({"train": tmp_path / "train.csv"})
    assert len(manifest().with_split({"train": tmp_path / "train.csv"}, unmatched="ignore")) == 8
    with pytest.raises(TableError, match="8 keys occur in several rows"):
        manifest().with_split({**tables, "val": tmp_path / "train.csv"})
    patients = {
        "train": pa.table({"patient": ["000", "001", "002"]}),
        "test": pa.table({"patient": ["003", "004", "005"]}),
    }
    assert manifest().with_split(patients, on="patient").column("split").to_pylist() == ["train"] * 6 + ["test"] * 6


def test_what_a_manifest_says():
    made = manifest(
        12,
        num_frames=[0, 28, *[30] * 10],
        width=[None, *[640] * 11],
        height=[None, *[480] * 11],
        channels=[None, *[3] * 11],
        bits=[None, *[8] * 11],
        rate_hz=[None, 12.5, *[25.0] * 10],
        codec=[None, *["h264"] * 11],
        container=[None, *["mp4"] * 11],
        size_bytes=[1000] * 12,
        error=["no video", "breaks after 28 frames", *[None] * 10],
        free=["a text that is far too long to be shown in one line", *[None] * 11],
    )
    text = str(made.where("view", ["4ch", "2ch"]))
    for line in (
        "Manifest of 12 samples in 12 files, root studies",
        "rows of the table: 12 -> view is 4ch or 2ch: 12",
        "h264 in mp4 11",
        "640 x 480 (width x height), 8 bit",
        "28 to 30, 328 in all",
        "12.5 to 25 frames a second",
        "0.012 MB",
        "damaged    2 rows",
        "p0/1.mp4: 28 frames can be read; breaks after 28 frames",
        "text, 2 values: 2ch 6, 4ch 6",
        "number, 40.5 to 51.5, median 46",
        "boolean, 2 values: false 9, true 3",
        "a text that is far t ... 1; 11 missing",
    ):
        assert line in text, text
    assert "not probed" in str(manifest())
    columns = "patient, view, age, grade, sick, free"
    assert repr(made) == f"Manifest(12 samples, root='studies', labels: {columns})"
    assert "0 samples" in str(made.take([]))
