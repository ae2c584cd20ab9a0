"""The views of a study side by side, and every way in which they do not fit."""

import numpy as np
import pyarrow as pa
import pytest

import cinefeed as cf
from cinefeed.core.errors import ColumnError, SettingError, TableError

ROWS = {
    "path": ["s2/4.npy", "s1/2.npy", "s2/2.npy", "s1/4.npy", "s3/2.npy", "s3/4.npy"],
    "study": ["s2", "s1", "s2", "s1", "s3", "s3"],
    "view": ["4ch", "2ch", "2ch", "4ch", "2ch", "4ch"],
    "patient": ["p1", "p1", "p1", "p1", "p2", "p2"],
    "age": [61, 48, None, 48, 70, 70],
}


def make(tmp_path=None, **changes):
    return cf.Manifest.from_table(pa.table({**ROWS, **changes}), root=tmp_path)


def test_one_row_a_study_in_the_order_of_their_first_videos():
    result = make().pivot(by="view", within="study")
    assert result.table.select(["id", "path:2ch", "path:4ch", "patient", "age"]).to_pylist() == [
        {"id": "s2", "path:2ch": "s2/2.npy", "path:4ch": "s2/4.npy", "patient": "p1", "age": 61},
        {"id": "s1", "path:2ch": "s1/2.npy", "path:4ch": "s1/4.npy", "patient": "p1", "age": 48},
        {"id": "s3", "path:2ch": "s3/2.npy", "path:4ch": "s3/4.npy", "patient": "p2", "age": 70},
    ]
    assert result.rows.views == ("2ch", "4ch") and "view" not in result.table.column_names
    assert result.column("path").to_pylist() == ["s2/2.npy", "s1/2.npy", "s3/2.npy"]
    assert result.history[-1] == ("by study, with view 2ch and 4ch", 3)


def test_ids_do_not_hang_on_the_order_of_the_rows():
    turned = make().take([5, 4, 3, 2, 1, 0]).pivot(by="view", within="study")
    assert sorted(turned.column("id").to_pylist()) == ["s1", "s2", "s3"]
    assert turned.where("study", ["s1"]).table.equals(
        make().pivot(by="view", within="study").where("study", ["s1"]).table
    )


def test_facts_parts_and_seconds_are_those_of_each_view(tmp_path):
    for row, path in enumerate(ROWS["path"]):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        np.save(tmp_path / path, np.full((5 + row, 8 + row, 9, 1), row, np.uint8))
    scanned = cf.Manifest.scan(tmp_path, labels=pa.table(ROWS), progress=False)
    seconds = [None if row % 2 else 0.1 for row in range(6)]
    whole = cf.Manifest(scanned.table.append_column("start_seconds", pa.array(seconds)), root=tmp_path)
    rows = whole.pivot(by="view", within="study").rows
    videos = {whole.relative_path(row): row for row in range(6)}
    for row in range(3):
        for view in rows.views:
            video = videos[rows.relative_path(row, view=view)]
            assert rows.metadata(row, view=view).height == whole.metadata(video).height
            assert rows.metadata(row, view=view).times.count == whole.metadata(video).times.count
            assert rows.window(row, view=view) == whole.window(video)
            with rows.open(row, view=view) as source:
                assert source.read([0])[0, 0, 0, 0] == ROWS["path"].index(rows.relative_path(row, view=view))
        assert rows.metadata(row).height == rows.metadata(row, view="2ch").height, "the first view, where none is named"


def test_it_is_written_read_split_and_has_a_fingerprint_that_a_copy_keeps(tmp_path):
    result = make(tmp_path).pivot(by="view", within="study")
    result.write(tmp_path / "m.parquet")
    again = cf.Manifest.read(tmp_path / "m.parquet")
    assert again.table.equals(result.table) and again.fingerprint == result.fingerprint
    stamped = cf.Manifest(make().table.append_column("mtime_ns", pa.array(range(6))), root=tmp_path)
    assert stamped.pivot(by="view", within="study").fingerprint == result.fingerprint
    other = make(path=[*ROWS["path"][:5], "s3/5.npy"]).pivot(by="view", within="study")
    assert other.fingerprint != result.fingerprint
    parts = result.split(val=0.0, test=0.5, group="patient", seed=7)
    assert sorted(map(len, (parts.train, parts.test))) == [1, 2]


def test_videos_in_memory_are_found_by_their_view():
    arrays = [np.full((4, 8, 8), row, np.uint8) for row in range(6)]
    labels = {name: ROWS[name] for name in ("study", "view")}
    rows = cf.Manifest.from_arrays(arrays, labels).pivot(by="view", within="study").rows
    with rows.open(1, view="4ch") as source:
        assert source.read([0])[0, 0, 0, 0] == 3


def test_a_private_manifest_stays_private():
    table = pa.table({**ROWS, "id": [f"#{row}" for row in range(6)]})
    private = cf.Manifest.from_table(table).as_private()
    result = private.pivot(by="view", within="study")
    assert result.private and result.column("id").to_pylist() == ["#2", "#1", "#4"]
    assert result.rows.display_name(0, view="4ch") == "#2 (view 4ch)"
    with pytest.raises(TableError) as caught:
        private.take(range(1, 6)).pivot(by="view", within="study")
    assert "#2 lacks 4ch" in str(caught.value) and "s2" not in str(caught.value)
    with pytest.raises(TableError) as caught:
        cf.Manifest.from_table(table.set_column(4, "age", [[1, 2, 3, 4, 5, 6]])).as_private().pivot(
            by="view", within="study"
        )
    assert "'age' in 3 (first: #2)" in str(caught.value)


def test_a_view_that_is_missing():
    few = make().take([0, 1, 2, 4, 5])
    with pytest.raises(TableError, match="1 of 3 rows by 'study' lack a view: s1 lacks 4ch; missing='drop'"):
        few.pivot(by="view", within="study")
    assert few.pivot(by="view", within="study", missing="drop").column("id").to_pylist() == ["s2", "s3"]
    with pytest.raises(TableError, match="no study has all of the views 2ch, 4ch"):
        make().take([0, 1]).pivot(by="view", within="study", missing="drop")


def test_two_videos_of_one_view():
    with pytest.raises(
        TableError, match=r"1 views have more than one video in their study: 2ch of s2: s2/4\.npy, s2/2"
    ):
        make(view=["2ch", *ROWS["view"][1:]]).pivot(by="view", within="study")


def test_labels_that_differ_within_a_study_are_named():
    with pytest.raises(
        TableError, match=r"'patient' in 2 \(first: s2 has p1, p2\); 'age' in 1 \(first: s3 has 70, 71\)"
    ):
        make(age=[61, 48, 61, 48, 70, 71], patient=["p2", "p2", "p1", "p1", "p2", "p2"]).pivot(
            by="view", within="study"
        )
    listed = make(codes=[["a"], ["b"], ["a"], ["b"], [], []]).pivot(by="view", within="study")
    assert listed.column("codes").to_pylist() == [["a"], ["b"], []]
    series = make(series=[f"x{row}" for row in range(6)]).pivot(by="view", within="study")
    assert series.column("series:4ch").to_pylist() == ["x0", "x3", "x5"], "a series is one view"


def test_what_cannot_be():
    with pytest.raises(ColumnError, match=r"pivot\(by='vieuw'\): there is no such column; did you mean 'view'"):
        make().pivot(by="vieuw", within="study")
    with pytest.raises(SettingError, match="did you mean 'drop'"):
        make().pivot(by="view", within="study", missing="dropp")
    with pytest.raises(TableError, match=r"1 of 6 videos has no 'view' \(s2/4\.npy\)"):
        make(view=[None, *ROWS["view"][1:]]).pivot(by="view", within="study")
    with pytest.raises(TableError, match="have the views 2ch, 4ch already"):
        make().pivot(by="view", within="study").pivot(by="patient", within="study")
