"""Videos in memory as a manifest."""

import numpy as np
import pandas as pd
import pytest

import cinefeed as cf
from cinefeed.core.errors import SourceError, TableError


def videos(count=5, frames=9):
    """Return (count, frames, 12, 16), uint8: every pixel of frame f of video v is 20 v + f."""
    numbers = 20 * np.arange(count)[:, None] + np.arange(frames)
    return np.broadcast_to(numbers[:, :, None, None], (count, frames, 12, 16)).astype(np.uint8)


def feed(manifest, target, **changes):
    settings = {"clip": cf.Clip(frames=3, position="start"), "frame": cf.Frame(height=8, width=8, channels=1)}
    return cf.Feed(manifest, target=target, batch_size=2, sampler=cf.Natural(shuffle=False), **settings, **changes)


@pytest.mark.parametrize("x", [videos(), list(videos())], ids=["array", "list"])
def test_each_video_is_fed_with_its_label(x):
    manifest = cf.Manifest.from_arrays(x, {"age": [31.0, 45, 60, 20, 33]})
    for batches in (
        list(feed(manifest, "age")),
        list(feed(manifest, "age", workers=cf.Workers(backend="process", count=1))),
    ):
        ages = [age for batch in batches for age in batch.targets]
        firsts = [clip[0, 4, 4, 0] for batch in batches for clip in batch.clips]
        assert ages == [31, 45, 60, 20, 33] and firsts == [0, 20, 40, 60, 80]


def test_filters_and_splits_keep_rows_and_arrays_together():
    manifest = cf.Manifest.from_arrays(videos(20), {"sick": ["yes", "no"] * 10, "patient": [*range(20)]})
    selection = manifest.where("sick", ["no"])
    assert [int(batch.clips[0, 0, 0, 0, 0]) % 256 for batch in feed(selection, None)] == [
        20 * row % 256 for row in (1, 5, 9, 13, 17)
    ]
    parts = manifest.split(val=0.2, test=0.2, group="patient", seed=1)
    for part in parts:
        for row in range(len(part)):
            with part.open(row) as source:
                assert source.read([2])[0, 0, 0, 0] == (20 * part.column("patient")[row].as_py() + 2) % 256


def test_one_value_a_video_is_its_label():
    manifest = cf.Manifest.from_arrays(videos(), np.arange(5.0))
    assert manifest.column("label").to_pylist() == [0, 1, 2, 3, 4]


def test_another_order_of_axes():
    manifest = cf.Manifest.from_arrays(np.moveaxis(videos(), 1, 3), axes="NHWT")
    assert manifest.metadata(0).times.count == 9
    with manifest.open(3) as source:
        assert source.read([4])[0, 0, 0, 0] == 64


def test_videos_of_many_lengths():
    manifest = cf.Manifest.from_arrays([video[: 4 + number] for number, video in enumerate(videos())])
    assert manifest.column("num_frames").to_pylist() == [4, 5, 6, 7, 8]


def test_what_cannot_be():
    with pytest.raises(TableError, match="4 rows of labels for 5 videos"):
        cf.Manifest.from_arrays(videos(), {"age": [1, 2, 3, 4]})
    with pytest.raises(TableError, match="'path'"):
        cf.Manifest.from_arrays(videos(), {"path": ["a"] * 5})
    with pytest.raises(TableError, match="no videos"):
        cf.Manifest.from_arrays([])
    with pytest.raises(SourceError, match="shape"):
        cf.Manifest.from_arrays(np.zeros((5, 12)))
    with pytest.raises(TableError, match="in memory"):
        cf.Manifest.from_arrays(videos()).write("m.parquet")


@pytest.mark.parametrize("labels", [pd.Series([61, "NA", 3], dtype=object), [61, None, 3], (61, "", 3)])
def test_a_column_of_labels_may_have_missing_marks(labels):
    manifest = cf.Manifest.from_arrays(np.zeros((3, 6, 8, 8), np.uint8), labels)
    assert manifest.column("label").to_pylist() == [61, None, 3]


def test_a_series_keeps_that_it_is_of_categories():
    manifest = cf.Manifest.from_arrays(np.zeros((3, 6, 8, 8), np.uint8), pd.Series([3, 5, 3], dtype="category"))
    assert manifest.label_type("label").is_classes


def test_a_tensor_is_a_column_of_labels():
    class Tensor:
        ndim = 1

        def __array__(self, dtype=None, copy=None):
            return np.array([1.5, 2.5, 3.5])

    manifest = cf.Manifest.from_arrays(np.zeros((3, 6, 8, 8), np.uint8), Tensor())
    assert manifest.column("label").to_pylist() == [1.5, 2.5, 3.5]


def test_a_summary_has_no_bytes_of_files():
    assert "bytes" not in str(cf.Manifest.from_arrays(np.zeros((3, 6, 8, 8), np.uint8)))
