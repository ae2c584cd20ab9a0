"""From [data] with several targets, or the clips themselves, to rows, a feed and what a page shows of it."""

import json

import numpy as np
import pytest
from made_run import make_manifest, settings_for

from cinefeed.core.errors import LabelError, TableError
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.feed.feed import Feed
from cinefeed.feed.preview import sheet
from cinefeed.training.setup import build_feed, choose_rows, keep_flow
from cinefeed.video.clips import Clip, Frame

AGES = [None if row % 3 == 0 else float(row) for row in range(24)]
KINDS = [None if row % 2 == 0 else "ab"[row // 2 % 2] for row in range(24)]


@pytest.fixture
def rows(tmp_path):
    path = make_manifest(tmp_path / "v", years=AGES, view=KINDS, empty=["" if row else None for row in range(24)])
    return Manifest.read(path)


def settings(rows, *, inputs=None, **data):
    path = rows.root / "m.parquet"
    return settings_for(
        path,
        data={"target": ["years", "view"], "missing": "drop", **data},
        feed={"batch_size": 24, "inputs": inputs or {}},
    )


def test_of_several_targets_one_label_is_enough(rows):
    selection = choose_rows(rows, settings(rows))
    assert len(selection) == 20, "those of rows 0, 6, 12 and 18 have none"
    assert selection.history[-1] == ("with a 'years' or 'view' label", 20)
    with pytest.raises(LabelError, match=r"4 of 24 rows have no label in any of years, view \(first: v0\).*drop"):
        choose_rows(rows, settings(rows, missing="error"))
    one = choose_rows(rows, settings(rows, target="years"))
    assert len(one) == 16 and one.history[-1] == ("with a 'years' label", 16)
    assert len(choose_rows(rows, settings(rows, target="clip"))) == 24
    none = rows.take(np.array([0, 6]))
    with pytest.raises(TableError, match="none of 2 rows has a 'years' or 'view' label"):
        choose_rows(none, settings(rows))


def test_the_feed_masks_what_is_missing_the_first_target_too(rows):
    feed = build_feed(settings(rows), choose_rows(rows, settings(rows)))
    ages = [each for each in AGES if each is not None]
    assert feed.spec.target_mean == pytest.approx(np.mean(ages)) and "from 1 to 23" in feed.summary()
    batch = feed.batch(0)
    for place, name in enumerate(batch.ids):
        row = int(name[1:])
        assert batch.weights["years"][place] == (AGES[row] is not None)
        assert batch.weights["view"][place] == (KINDS[row] is not None)
    captions = dict(each.split(" · ") for each in sheet(feed, clips=24)[1])
    assert (captions["v1"], captions["v2"], captions["v3"]) == ("years 1, view a", "years 2", "view b")


def test_what_is_balanced_every_row_needs(rows):
    expected = {"clip": Clip(frames=4), "frame": Frame(height=8, width=8, channels=1), "workers": 0}
    sampled = settings_for(
        rows.root / "m.parquet",
        data={"target": ["years", "view"], "missing": "drop"},
        sampler={"name": "UniformLabels"},
    )
    missing = "UniformLabels balances the first target, 'years', which is missing in 4 of 20 rows"
    with pytest.raises(LabelError, match=missing):
        build_feed(sampled, choose_rows(rows, sampled))
    feed = Feed(rows, target=["age", "view"], on_error="replace", **expected)
    assert feed.batch(0).weights["view"].sum() <= 16
    lacking = Feed(rows, target=["years", "view"], on_error="replace", **expected)
    assert sorted(set(lacking._builder.groups[[0, 3, 6]].tolist())) == [-1], "rows without a label are alike"


def test_labels_are_kept_by_target(rows, tmp_path):
    feed = build_feed(settings(rows), choose_rows(rows, settings(rows)))
    keep_flow(tmp_path, feed=feed, counts=[], failures=[])
    labels = json.loads((tmp_path / "labels.json").read_text())
    assert sorted(labels["raw"]) == sorted(labels["fed"]) == [each for each in AGES if each is not None]
    view = labels["targets"]["view"]
    assert view["classes"] == ["a", "b"] and sorted(view["raw"]) == ["a"] * 6 + ["b"] * 6
    assert json.loads((tmp_path / "balance.json").read_text())["draws"] == 20


def test_clips_as_targets_have_no_labels_to_keep(rows, tmp_path):
    feed = build_feed(settings(rows, target="clip"), rows)
    keep_flow(tmp_path, feed=feed, counts=[], failures=[])
    assert sorted(each.name for each in tmp_path.glob("*.*")) == [
        "clips.npz",
        "failures.json",
        "flow.json",
        "pixels.json",
    ]
    assert sheet(feed)[1].tolist() == [str(name) for name in feed.batch(0).ids[:8]]


def test_covariates_and_weights_come_from_the_settings(rows):
    feed = build_feed(settings(rows, target="age", inputs={"covariates": ["sex"], "weight": "age"}), rows)
    assert feed.spec.covariates[0].categories == ("f", "m") and feed.settings.inputs.weight == "age"
    assert feed.evaluation(rows).batch(0).weights[:2].tolist() == [20.0, 21.0]
