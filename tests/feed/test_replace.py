"""Rows that cannot be read: named, replaced by the same others whatever else happens, and not too many."""

import json

import numpy as np
import pytest

import cinefeed as cf
from cinefeed.core.errors import FeedError, SettingError, SourceError


def make(manifest, **changes):
    settings = {
        "target": "sick",
        "clip": cf.Clip(frames=4, stride=2),
        "frame": cf.Frame(height=16, width=16, channels=1),
        "batch_size": 4,
        "seed": 7,
        "workers": 2,
        "on_error": "replace",
        "max_bad": 0.5,
    }
    return cf.Feed(manifest, **{**settings, **changes})


def content(batches):
    return [(batch.ids.tolist(), batch.targets.tolist(), batch.clips.tobytes()) for batch in batches]


@pytest.fixture
def damaged(manifest):
    for row in (0, 3):
        (manifest.root / f"{row:02}.npy").write_bytes(b"\x93NUMPY is cut off")
    return manifest


def test_by_default_it_is_an_error(damaged):
    with pytest.raises(SourceError, match=r"row [03], 0[03]\.npy"):
        list(make(damaged, on_error="raise"))


@pytest.mark.parametrize("epoch", range(3))
def test_the_place_of_a_bad_row_goes_to_one_of_its_class(damaged, epoch):
    feed = make(damaged)
    feed.set_epoch(epoch)
    plan, labels = feed.plan(), feed.labels
    batches = list(feed)
    ids = [str(name) for batch in batches for name in batch.ids]
    assert len(ids) == len(plan.rows)
    for row, name in zip(plan.rows.tolist(), ids, strict=True):
        assert labels[int(name[1:])] == labels[row]
        assert name == f"v{row}" or row in (0, 3)
    assert not {"v0", "v3"} & set(ids)
    targets = np.concatenate([batch.targets for batch in batches])
    assert [feed.spec.classes[target] for target in targets] == [labels[int(name[1:])] for name in ids]
    assert [text.split(":")[0] for text in feed.stats().skipped] == ["row 0", "row 3"]


@pytest.mark.parametrize("labelled", [True, False])
def test_an_evaluation_never_replaces(damaged, labelled):
    """The score of another row would count twice, and that of the bad row would be missing without a word."""
    with pytest.raises(SourceError, match=r"row [03], 0[03]\.npy"):
        list(make(damaged).evaluation(damaged, labelled=labelled))


def test_what_was_fed_before_changes_no_byte(damaged):
    straight = make(damaged)
    epochs = [content(straight), content(straight)]
    for workers, backend in ((0, "thread"), (1, "thread"), (2, "process")):
        feed = make(damaged, workers=cf.Workers(count=workers, backend=backend))
        assert content([feed.batch(index, epoch=1) for index in reversed(range(3))]) == epochs[1][::-1]
        assert content(feed) == epochs[0]


def test_rows_in_quarantine_go_on_to_count_after_a_resume(damaged):
    feed = make(damaged)
    straight = [*content(feed), *content(feed)]
    state = json.loads(json.dumps(feed.state()))
    assert [row for row, _ in state["quarantine"]] == [0, 3] and state["epoch"] == 2
    later = make(damaged).restore(state)
    assert later.stats().skipped == feed.stats().skipped and later.state() == state
    back = make(damaged).restore({**state, "epoch": 0, "plan": make(damaged).state()["plan"]})
    assert content(back) == straight[:3], "what is known of bad rows changes no byte"
    with pytest.raises(FeedError, match="2 of 11 rows cannot be read"):
        (damaged.root / "04.npy").write_bytes(b"\x93NUMPY is cut off")
        list(make(damaged, max_bad=0.01).restore(state))


def test_too_many_bad_rows_stop_the_feed(damaged):
    with pytest.raises(FeedError, match=r"1 of 11 rows cannot be read, more than max_bad=0\.01 of all rows: row"):
        list(make(damaged, max_bad=0.01))


@pytest.mark.parametrize(("max_bad", "allowed"), [(2 / 11, 2), (0.18, 1), (1 / 11, 1), (0.09, 0), (0, 0)])
def test_the_share_of_bad_rows_is_not_rounded(damaged, max_bad, allowed):
    feed = make(damaged, max_bad=max_bad, workers=0)
    if allowed == 2:
        list(feed)
    else:
        with pytest.raises(FeedError, match=f"{allowed + 1} of 11 rows cannot be read"):
            list(feed)


def test_a_class_of_which_nothing_can_be_read(manifest):
    sick = [row for row, each in enumerate(make(manifest).labels) if each == "yes"]
    for row in sick:
        (manifest.root / f"{row:02}.npy").write_bytes(b"\x93NUMPY is cut off")
    with pytest.raises(FeedError, match="no other row that could take its place can be read either"):
        list(make(manifest))


def test_a_continuous_label_is_replaced_by_one_of_its_bin_else_the_nearest(damaged):
    feed = make(damaged, target="age", sampler=cf.UniformLabels(bins=(0, 25, 40, 200), length="natural"))
    ages = feed.labels
    rows = feed.plan().rows.tolist()
    numbers = [int(name[1:]) for batch in feed for name in batch.ids]
    assert 0 in rows and 3 in rows
    for row, stand_in in zip(rows, numbers, strict=True):
        if row in (0, 3):
            assert abs(ages[stand_in] - ages[row]) <= 30 and stand_in not in (0, 3)
        else:
            assert stand_in == row


def test_settings_out_of_range(manifest):
    with pytest.raises(SettingError, match="did you mean 'replace'"):
        make(manifest, on_error="replaced")
    with pytest.raises(SettingError, match="max_bad = 2"):
        make(manifest, max_bad=2)
