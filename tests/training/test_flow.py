import json

import numpy as np
import pyarrow as pa
import pytest
from made_run import make_manifest, settings_for

from cinefeed.core.errors import SettingError, TableError
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.feed.batch import Batch
from cinefeed.feed.feed import Feed
from cinefeed.feed.preview import pixel_counts, sheet
from cinefeed.training.setup import check_evaluation, keep_flow, left_out, unused_split, usable_rows
from cinefeed.transforms.intensity_linear import Normalize
from cinefeed.video.clips import Clip, Frame


def feed_of(manifest, **changes):
    settings = {"target": "sick", "clip": Clip(frames=4), "frame": Frame(height=8, width=8, channels=1), "workers": 0}
    return Feed(manifest, **{**settings, **changes})


def probed(errors, frames):
    names = [f"{row}.npy" for row in range(len(errors))]
    table = pa.table(
        {"path": names, "error": pa.array(errors, pa.string()), "num_frames": pa.array(frames, pa.int32())}
    )
    return Manifest.from_table(table)


def test_rows_without_a_frame_are_left_out_and_damaged_ones_are_listed():
    selected = probed([None, "breaks after 3", "no video"], [9, 3, None])
    rows, failures = usable_rows(selected)
    assert left_out(selected, rows).startswith("1 of 3 rows has no frame that can be read, and is left out")
    assert left_out(rows, rows) == ""
    assert rows.column("path").to_pylist() == ["0.npy", "1.npy"]
    assert [each["error"] for each in failures] == [
        "breaks after 3; the row is used",
        "no video; the row is left out",
    ]
    assert rows.history[-1] == ("with frames that can be read", 2)
    with pytest.raises(TableError, match=r"none of 1 rows has a readable frame; 0.npy: no video"):
        usable_rows(probed(["no video"], [None]))


def test_a_column_split_that_is_not_used_is_named(tmp_path):
    rows = Manifest.from_arrays([np.zeros((2, 4, 4, 1), np.uint8)] * 3, {"split": ["train", None, "test"]})
    by_column = settings_for(tmp_path / "m.parquet", data={"split": {"column": "split"}})
    random = settings_for(tmp_path / "m.parquet")
    assert unused_split(rows, random).startswith("the column 'split' of the manifest is not used")
    assert unused_split(rows, by_column) == unused_split(rows.with_column("split", [None] * 3), random) == ""


def test_damaged_frames_are_listed_and_their_rows_stay():
    table = probed([None, "breaks after 30", None], [9, 30, 9]).table
    table = table.append_column("damaged", pa.array([[2, 4], [3, 8, 12, 13], None], pa.list_(pa.int32())))
    rows, failures = usable_rows(Manifest.from_table(table))
    assert len(rows) == 3
    assert [(each["path"], each["error"]) for each in failures] == [
        ("0.npy", "frames 2 to 3 are damaged; the row is used"),
        ("1.npy", "breaks after 30; frames 3 to 7, 12 to 12 are damaged; the row is used"),
    ]


def test_how_often_each_level_is_fed_is_counted_without_padding():
    def batch(clips, valid=None):
        valid = np.ones(clips.shape[:2], bool) if valid is None else valid
        return Batch(clips=clips, targets=None, weights=None, ids=None, valid=valid, covariates={})

    clips = np.array([[7, 7], [0, 255]], np.uint8).reshape(2, 2, 1, 1, 1)
    result = pixel_counts(batch(clips))
    assert result["counts"][[0, 7, 255]].tolist() == [1, 2, 1] and len(result["edges"]) == 257
    assert pixel_counts(batch(clips, np.array([[True, True], [False, True]])))["counts"][0] == 0
    deep = pixel_counts(batch(clips.astype(np.uint16) * 257))
    np.testing.assert_array_equal(deep["counts"], result["counts"])
    floats = pixel_counts(batch(clips.astype(np.float32) / 255))
    assert (floats["edges"][0], floats["edges"][-1], floats["counts"].sum()) == (0.0, 1.0, 4)
    assert pixel_counts(batch(np.zeros((1, 2, 1, 1, 1), np.float32)))["counts"].sum() == 2


def test_a_unit_that_rows_lack_is_refused_before_training(tmp_path):
    studies = ["s0", None, "s2", None, *(f"s{row}" for row in range(4, 24))]
    path = make_manifest(tmp_path / "v", study=studies, number=[float("nan"), *range(1, 24)])
    rows = Manifest.read(path)
    with pytest.raises(TableError, match=r"2 of 24 rows have no 'study' \(first: v1\).*fill it"):
        check_evaluation(rows, settings_for(path, evaluate={"unit": "study"}))
    with pytest.raises(TableError, match="1 of 24 rows has no 'number'"):
        check_evaluation(rows, settings_for(path, evaluate={"unit": "number"}))
    sick = settings_for(path, data={"target": "sick"}, evaluate={"unit": "patient", "subgroups": ["study"]})
    check_evaluation(rows, sick)


@pytest.mark.parametrize("name", ["clip", "fold", "target", "score", "target_age", "score_a"])
def test_columns_called_as_those_of_predictions_are_refused_before_training(tmp_path, name):
    path = make_manifest(tmp_path / "v", **{name: [f"g{row // 2}" for row in range(24)]})
    rows = Manifest.read(path)
    check_evaluation(rows, settings_for(path))
    for sections in (
        {"evaluate": {"unit": name}},
        {"evaluate": {"subgroups": ["sex", name]}},
        {"data": {"split": {"group": name}}},
    ):
        with pytest.raises(SettingError, match=f"{name!r} is a reserved column name"):
            check_evaluation(rows, settings_for(path, **sections))
    check_evaluation(rows, settings_for(path, data={"split": {"group": False}}))


def test_rows_that_were_never_probed_are_taken_as_they_are(manifest):
    assert usable_rows(manifest) == (manifest, [])


def test_what_a_page_shows_is_kept(manifest, tmp_path):
    feed = feed_of(manifest)
    keep_flow(tmp_path, feed=feed, counts=[("rows", 11)], failures=[{"id": "a", "path": "a", "error": "e"}])
    labels = json.loads((tmp_path / "labels.json").read_text())
    assert labels["classes"] == ["no", "yes"]
    assert sorted(labels["raw"]) == sorted(labels["fed"])
    assert json.loads((tmp_path / "flow.json").read_text()) == [["rows", 11]]
    assert json.loads((tmp_path / "balance.json").read_text())["draws"] == 11
    assert json.loads((tmp_path / "failures.json").read_text())[0]["error"] == "e"


def test_clips_of_a_sheet_are_bytes_with_captions(manifest):
    clips, captions = sheet(feed_of(manifest), clips=3)
    assert (clips.dtype, clips.shape) == (np.uint8, (3, 4, 8, 8, 1))
    assert all(caption.endswith((" · no", " · yes")) for caption in captions)
    stretched, captions = sheet(feed_of(manifest, target="age", transforms=[Normalize()]), clips=3)
    assert stretched.dtype == np.uint8
    assert stretched.max() == 255
    assert sheet(feed_of(manifest, target=None), clips=1)[1][0].count("·") == 0


def test_rows_without_a_frame_are_left_out_though_nothing_says_why(manifest):
    table = manifest.table.append_column("num_frames", pa.array([12] * 10 + [0], pa.int32()))
    rows, failures = usable_rows(Manifest.from_table(table, root=manifest.root))
    assert len(rows) == 10 and failures == [] and rows.verified is None
