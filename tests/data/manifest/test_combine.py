import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import cinefeed as cf
from cinefeed.core.errors import ColumnError, TableError
from cinefeed.data.manifest.manifest import Manifest


def folder(tmp_path, name, *, rows=2, first=0, **labels):
    root = tmp_path / name
    root.mkdir()
    for row in range(rows):
        np.save(root / f"{row}.npy", np.full((6, 16, 16), 10 * (first + row), np.uint8))
    table = {"path": [f"{row}.npy" for row in range(rows)], **labels}
    return Manifest.scan(root, labels=pa.table(table) if labels else None, progress=False)


def test_rows_of_two_folders_are_fed(tmp_path):
    one = folder(tmp_path, "one", age=[31.0, 45.0], sick=["no", "yes"])
    two = folder(tmp_path, "two", rows=3, first=2, age=[60, 7, 8])
    both = Manifest.concat([one, two])
    assert (len(both), both.root) == (5, tmp_path)
    assert both.column("age").to_pylist() == [31, 45, 60, 7, 8]
    assert both.column("sick").to_pylist() == ["no", "yes", None, None, None]
    assert both.column("id").to_pylist() == ["one/0.npy", "one/1.npy", "two/0.npy", "two/1.npy", "two/2.npy"]
    assert both.verified == "decode" and both.history == [("rows of 2 manifests", 5)]
    frame = cf.Frame(height=16, width=16, channels=1)
    batch = cf.Feed(both, target="age", clip=cf.Clip(frames=2), frame=frame, sampler=cf.Natural(shuffle=False))[0]
    assert batch.clips[:, 0, 0, 0, 0].tolist() == [0, 10, 20, 30, 40]
    for each in (both, one):  # of lists, Parquet gives back a type of another name
        each.write(tmp_path / "m.parquet")
        assert Manifest.read(tmp_path / "m.parquet").fingerprint == each.fingerprint


def test_ids_stay_where_they_can(tmp_path):
    one, two = folder(tmp_path, "one"), folder(tmp_path, "two")
    own = one.table.set_column(0, "id", pa.array(["a", "b"]))
    named = Manifest(own, root=one.root, notes=one.notes)
    assert Manifest.concat([named, two]).column("id").to_pylist() == ["a", "b", "0.npy", "1.npy"]
    with pytest.raises(TableError, match="2 ids occur more than once"):
        Manifest.concat([named, Manifest(own, root=two.root, notes=two.notes)])
    with pytest.raises(TableError, match="2 ids occur more than once"):
        Manifest.concat([one, one])


def test_videos_in_memory():
    steps = np.arange(3, dtype=np.uint8)[:, None, None, None]
    clips = [np.full((3, 6, 16, 16), level, np.uint8) + steps for level in (10, 20)]
    parts = [Manifest.from_arrays(each, [1.0, 2.0, 3.0]) for each in clips]
    both = Manifest.concat([parts[0].take([2, 0]), parts[1]])
    levels = [int(both.open(row).read([0])[0, 0, 0, 0]) for row in range(5)]
    assert levels == [12, 10, 20, 21, 22]
    assert len({*both.column("id").to_pylist()}) == 5


def test_what_cannot_be_joined(tmp_path):
    one, two = folder(tmp_path, "one", age=[1.0, 2.0]), folder(tmp_path, "two", age=["old", "young"])
    with pytest.raises(TableError, match=r"types that cannot be joined.*age"):
        Manifest.concat([one, two])
    with pytest.raises(TableError, match="expected a list of one or more manifests"):
        Manifest.concat([])
    with pytest.raises(TableError, match="expected a list of one or more manifests"):
        Manifest.concat(one)
    unscanned = Manifest.from_table({"path": ["0.npy", "1.npy"]}, root=two.root)
    with pytest.raises(TableError, match="manifest 1 has no column 'num_frames'"):
        Manifest.concat([one, unscanned])
    with pytest.raises(TableError, match="private manifests and others"):
        Manifest.concat([one, two.as_private()])
    with pytest.raises(TableError, match="files and videos in memory"):
        Manifest.concat([one, Manifest.from_arrays(np.zeros((2, 6, 16, 16), np.uint8))])


def test_ids_of_patients_by_other_salts(tmp_path):
    def hashed(name, salt):
        manifest = folder(tmp_path, name, patient=["a", "b"])
        notes = manifest.notes | {"hashed": {"columns": ["patient"], "fingerprint": salt}}
        return Manifest(manifest.table, root=manifest.root, notes=notes)

    one, two, other = hashed("one", "x"), hashed("two", "x"), hashed("other", "y")
    assert Manifest.concat([one, two]).salt_fingerprint("patient") == "x"
    with pytest.raises(TableError, match="'patient' was hashed with different salts"):
        Manifest.concat([one, other])
    plain = other.with_column("patient", ["c", "d"])
    assert plain.salt_fingerprint("patient") == ""


def test_whether_labels_are_classes_is_decided_on_all(tmp_path):
    one, two = folder(tmp_path, "one", grade=[0, 1]), folder(tmp_path, "two", grade=[2, 7])
    assert one.label_type("grade").is_classes
    assert not two.label_type("grade").is_classes and not Manifest.concat([one, two]).label_type("grade").is_classes
    assert Manifest.concat([one, one.with_column("grade", [1, 1]).take([])]).label_type("grade").is_classes


def test_head_columns_and_pandas(tmp_path):
    manifest = folder(tmp_path, "one", rows=7, age=[float(age) for age in range(7)])
    assert len(manifest.head()) == 5 and manifest.head(2).column("age").to_pylist() == [0, 1]
    assert len(manifest.head(99)) == 7 and len(manifest.head(0)) == 0
    with pytest.raises(TableError, match="at least 0"):
        manifest.head(-1)
    assert manifest.columns[:2] == ["id", "path"] and manifest.columns[-1] == "age"
    frame = manifest.to_pandas()
    assert (
        isinstance(frame, pd.DataFrame) and frame["age"].tolist() == list(range(7)) and list(frame) == manifest.columns
    )


def test_a_column_of_ones_own(tmp_path):
    manifest = folder(tmp_path, "one", age=[31.0, 45.0])
    for values in (
        [True, False],
        np.array([True, False]),
        pd.Series([True, False], index=[7, 3]),
        pa.array([True, False]),
    ):
        assert manifest.with_column("old", values).column("old").to_pylist() == [True, False]
    assert manifest.columns[-1] == "age" and manifest.label_type("age").kind == "numbers"
    classes = manifest.with_column("age", [1, 0])
    assert classes.label_type("age").is_classes and classes.column("age").to_pylist() == [1, 0]
    assert classes.fingerprint != manifest.fingerprint and json.dumps(classes.notes)
    assert len(manifest.with_column("split", ["train", "val"]).parts().val) == 1
    for name in ("path", "id", "num_frames", "path:2ch"):
        with pytest.raises(ColumnError, match="a reserved column"):
            manifest.with_column(name, [1, 2])
    with pytest.raises(ColumnError, match="must be text"):
        manifest.with_column(3, [1, 2])
    with pytest.raises(TableError, match="3 values for 2 rows"):
        manifest.with_column("new", [1, 2, 3])


def test_the_size_of_a_pixel_that_a_format_does_not_store():
    clips = np.random.default_rng(0).integers(0, 255, (3, 5, 20, 20), dtype=np.uint8)
    manifest = Manifest.from_arrays(clips, {"age": [31, 45, 60]})
    options = {"target": "age", "clip": cf.Clip(frames=4, position="start"), "workers": 0}
    with pytest.raises(ValueError, match="spacing"):
        cf.Feed(manifest, frame=cf.Frame(height=10, width=10, channels=1, spacing_mm=1.5), **options).batch(0)
    for name in ("spacing_down_mm", "spacing_across_mm"):
        with pytest.raises(TableError, match="above 0"):
            manifest.with_column(name, [1.5, 0.0, 1.5])
        manifest = manifest.with_column(name, [1.5, 1.5, 3.0])
    feed = cf.Feed(manifest, frame=cf.Frame(height=10, width=10, channels=1, spacing_mm=1.5), **options)
    rows = {int(name): clip[..., 0] for name, clip in zip(feed.batch(0).ids, feed.batch(0).clips, strict=True)}
    assert np.array_equal(rows[0], clips[0, :4, 5:15, 5:15]), "15 mm from the middle of 30 mm"
    assert not np.array_equal(rows[2], clips[2, :4, 5:15, 5:15]), "of 60 mm"
