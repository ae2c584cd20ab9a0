from pathlib import Path

import pyarrow as pa
import pytest

from cinefeed.core.errors import ColumnError, SettingError, SplitError, TableError
from cinefeed.data.manifest.labels import columns_of_paths, join_labels, part_names, split_table

ROOT = Path("/data/studies")


@pytest.fixture(autouse=True)
def _a_suffix_in_two_pieces(monkeypatch):
    monkeypatch.setattr("cinefeed.data.manifest.label_keys.extensions", lambda: {".mp4", ".nii.gz"})


def videos(*paths, **columns):
    return pa.table({"path": pa.array(paths), **columns})


def join(table, labels, *, on=None, unmatched="error"):
    joined, joined_on = join_labels(table, pa.table(labels), on=on, unmatched=unmatched, root=ROOT, name="labels.csv")
    return joined.to_pydict(), joined_on


def test_columns_of_folder_and_file_names():
    columns, is_match = columns_of_paths(
        pa.array(["007/s1/4ch.mp4", "p2/s.2/2ch/clip 3.nii.gz", "p3/x.mp4"]), pattern="{patient}/{study}/{view}"
    )
    assert is_match.to_pylist() == [True, True, False]
    assert columns.to_pydict() == {
        "patient": ["007", "p2", None],
        "study": ["s1", "s.2", None],
        "view": ["4ch", "2ch", None],
    }


def test_columns_within_one_name():
    columns, is_match = columns_of_paths(pa.array(["raw/p1_s2.v3.mp4"]), pattern="{_}/{patient}_{study}.v{version}.mp4")
    assert is_match.to_pylist() == [True]
    assert columns.to_pydict() == {"patient": ["p1"], "study": ["s2"], "version": ["3"]}


@pytest.mark.parametrize("pattern", ["study", "{a}/{a}", "{codec}/{view}", "{part}", "{a}/{b", "{a b}", "{}", "{_}"])
def test_a_bad_pattern_is_refused(pattern):
    with pytest.raises(SettingError, match="path_columns"):
        columns_of_paths(pa.array(["a/b.mp4"]), pattern=pattern)


@pytest.mark.parametrize(
    ("column", "keys", "form"),
    [
        ("path", ["b/2.mp4", "a/1.NII.GZ"], "path"),
        ("path", ["./b/2.mp4", "/data/studies/a/1.NII.GZ"], "path"),
        ("path", ["b\\2.mp4", "a\\1.NII.GZ"], "path"),
        ("file", ["b/2", "a/1"], "path without suffix"),
        ("FileName", ["2.mp4", "1.NII.GZ"], "file name"),
        ("stem", ["2", "1"], "stem"),
        ("stem", [2, 1], "stem"),
    ],
)
def test_a_label_names_its_video_in_any_form(column, keys, form):
    joined, joined_on = join(videos("a/1.NII.GZ", "b/2.mp4"), {column: keys, "age": [48, 61]})
    assert joined_on == form
    assert (joined["path"], joined["age"]) == (["a/1.NII.GZ", "b/2.mp4"], [61, 48])


def test_one_row_serves_many_videos():
    table = videos("p/s1/2ch.mp4", "p/s2/2ch.mp4", "p/s1/4ch.mp4", study=["007", "8", "007"])
    joined, joined_on = join(table, {"study": ["8", "007"], "age": [48, 61]}, on="study")
    assert joined_on == "study"
    assert joined == {"path": table["path"].to_pylist(), "study": ["007", "8", "007"], "age": [61, 48, 61]}


def test_numbers_join_to_text_of_folders():
    joined, _ = join(
        videos("7/a.mp4", "12/a.mp4", patient=["7", "12"]), {"patient": [12, 7], "age": [1, 2]}, on="patient"
    )
    assert joined["age"] == [2, 1]


def test_a_key_of_two_columns():
    table = videos("p1/s1.mp4", "p2/s1.mp4", patient=["p1", "p2"], study=["s1", "s1"])
    labels = {"study": ["s1", "s1"], "patient": ["p2", "p1"], "age": [2, 1]}
    joined, joined_on = join(table, labels, on=["patient", "study"])
    assert (joined["age"], joined_on) == ([1, 2], "patient + study")
    with pytest.raises(TableError, match=r"both have a column 'patient'; .* join on it too \(on=\('study', 'patient"):
        join(table, {"study": ["s1"], "patient": ["p2"]}, on="study")
    for on in (["path", "patient"], ["patient", "study=path"]):
        with pytest.raises(SettingError, match="join on it alone"):
            join(table, {"path": ["s1"], "study": ["s1"], "patient": ["p2"]}, on=on)


@pytest.mark.parametrize(("path_columns", "place"), [((), "the DICOM headers"), (["patient"], "path_columns")])
def test_a_column_of_both_tables_is_refused_with_its_place_and_a_way_that_works(path_columns, place):
    table, labels = videos("p1/s1.mp4", patient=["p1"]), pa.table({"path": ["p1/s1.mp4"], "patient": ["p2"]})
    with pytest.raises(TableError) as caught:
        join_labels(table, labels, on=None, unmatched="error", root=ROOT, name="a.csv", path_columns=path_columns)
    assert str(caught.value) == (
        f"a.csv and {place} both have a column 'patient'; rename it in the table, or leave it out there"
    )


def test_several_rows_for_one_video_need_parts_or_seconds():
    labels = {"path": ["a.mp4", "a.mp4", "b.mp4"], "label": ["x", "y", "x"]}
    with pytest.raises(
        TableError, match=r"1 keys .*first: a.mp4\); rows of one key differ: a.mp4 has label 'x' and 'y'"
    ):
        join(videos("a.mp4", "b.mp4"), labels)
    with pytest.raises(TableError, match=r"first: a\.mp4.*whose columns are all equal; keep one row per key"):
        join(videos("a.mp4", "b.mp4"), labels | {"label": ["x", "x", "x"]})
    joined, _ = join(videos("a.mp4", "b.mp4"), labels | {"start_seconds": [0.0, 2.0, 0.0]})
    assert joined["path"] == ["a.mp4", "a.mp4", "b.mp4"]
    assert joined["label"] == ["x", "y", "x"]


def test_unmatched_rows_and_videos_are_counted_and_named(caplog):
    table, labels = videos("a.mp4", "b.mp4", "c.mp4"), {"path": ["b.mp4", "x.mp4", "y.mp4", None], "age": [1, 2, 3, 4]}
    with pytest.raises(TableError) as caught:
        join(table, labels)
    assert "3 of 4 rows match no video (first: x.mp4, y.mp4, (empty))" in str(caught.value)
    assert "2 of 3 videos have no row (first: a.mp4, c.mp4)" in str(caught.value)
    assert caplog.text == ""
    joined, text = join(table, labels, unmatched="ignore")
    assert (joined, text) == ({"path": ["b.mp4"], "age": [1]}, "path; 4 rows, 3 without a video")
    assert "3 of 4 rows match no video (first: x.mp4, y.mp4, (empty)) and 2 of 3 videos have no row" in caplog.text
    caplog.clear()
    join_labels(table, pa.table(labels), on=None, unmatched="ignore", root=ROOT, name="labels.csv", private=True)
    assert "3 of 4 rows" in caplog.text and ".mp4" not in caplog.text


def test_nothing_matches():
    with pytest.raises(TableError, match="none of 1 rows matches any of 1 videos"):
        join(videos("a.mp4"), {"path": ["x.mp4"], "age": [1]}, unmatched="ignore")


@pytest.mark.parametrize(
    ("labels", "on", "parts"),
    [
        ({"patient": ["37", "5"]}, "patient", ("rows: 37, 5; videos: 0037, 0042", "1 row would match without leading")),
        ({"patient": ["x"]}, "patient", ("rows: x; videos: 0037, 0042", "or join on another column (on=)")),
        ({"path": ["x"]}, None, ("rows: x; videos: 0037/01.mp4, 0042/02.mp4", "name the column with on=")),
        ({"path": ["1.mp4"]}, None, ("rows: 1.mp4", "1 row would match without leading zeros")),
        ({"patient": ["37", "0042"]}, "patient", ("1 of 2 rows matches no", "1 row would match without leading zeros")),
    ],
)
def test_rows_without_a_match_show_the_values_of_the_key_and_lost_zeros(labels, on, parts):
    with pytest.raises(TableError) as caught:
        join(videos("0037/01.mp4", "0042/02.mp4", patient=["0037", "0042"]), labels, on=on)
    assert all(part in str(caught.value) for part in parts)


def test_a_stem_that_two_videos_share_is_refused():
    with pytest.raises(TableError, match=r"joined on stem: 1 keys match several videos \(first: 1\)"):
        join(videos("a/1.mp4", "b/1.mp4"), {"stem": ["1"], "age": [61]})


def test_missing_columns_name_the_nearest():
    table = videos("p/a.mp4", study=["p"])
    with pytest.raises(ColumnError, match="did you mean 'study_id'"):
        join(table, {"study_id": ["p"]}, on="studi_id")
    with pytest.raises(ColumnError, match="on='study'"):
        join(table, {"age": [61], "study": ["p"]})
    with pytest.raises(ColumnError, match="the videos have no column 'view'"):
        join(table, {"study": ["p"], "view": ["4ch"]}, on=["study", "view"])
    with pytest.raises(TableError, match="'height' is a reserved column name"):
        join(table, {"study": ["p"], "height": [180]}, on="study")
    with pytest.raises(SettingError, match="did you mean 'ignore'"):
        join(table, {"study": ["p"]}, on="study", unmatched="ignor")


def test_part_names():
    column = pa.array(["TRAIN", "valid", None, "test ", "dev"])
    assert part_names(column, name="x").to_pylist() == ["train", "val", None, "test", "val"]
    with pytest.raises(SplitError, match=r"names a part 'trian'; did you mean 'train'"):
        part_names(pa.array(["trian"]), name="x")
    with pytest.raises(SplitError, match="no tables"):
        split_table({}, on=None, videos=videos("a.mp4"))
