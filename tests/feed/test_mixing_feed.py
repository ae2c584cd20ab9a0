"""Mixing in a feed: the recipe of the mixing itself, at the address of each batch, and labels that follow."""

import json
from collections import Counter
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from epoch_digests import digest, epochs

import cinefeed as cf
from cinefeed.core.errors import LabelError, SettingError
from cinefeed.core.rng import Stage, rng_for
from cinefeed.testing import check_feed
from cinefeed.transforms import CutMix, MixUp
from cinefeed.transforms.base import ClipInfo

SETTINGS = {
    "target": "sick",
    "clip": cf.Clip(frames=4, stride=2),
    "frame": cf.Frame(height=16, width=16, channels=1),
    "transforms": [cf.Rotate(degrees=20)],
    "batch_size": 4,
    "seed": 7,
    "workers": 0,
}


@pytest.fixture
def made(manifest):
    """With three classes, numbers of which some rows have none, and weights."""
    table = manifest.table.append_column("kind", pa.array(["abc"[row % 3] for row in range(11)]))
    table = table.append_column("score", pa.array([None if row % 3 == 1 else float(row) for row in range(11)]))
    return cf.Manifest(table.append_column("importance", pa.array(np.arange(1.0, 12.0))), root=manifest.root)


def make(manifest, **changes):
    return cf.Feed(manifest, **{**SETTINGS, "mixing": MixUp(alpha=1.0), **changes})


@pytest.mark.parametrize("mixing", [MixUp(alpha=1.0), CutMix()], ids=repr)
@pytest.mark.parametrize("target", ["sick", "kind"])
def test_a_batch_is_the_recipe_of_its_mixing(made, mixing, target):
    settings = {"target": target, "inputs": cf.Inputs(weight="importance", covariates=["age", "kind"])}
    feed, plain = make(made, mixing=mixing, **settings), make(made, mixing=None, **settings)
    for index in range(3):
        mixed, batch = feed.batch(index, epoch=1), plain.batch(index, epoch=1)
        rng = rng_for(7, stage=Stage.MIX, epoch=1, position=4 * index)
        parameters = mixing.sample(rng, ClipInfo(4, 16, 16, 1), size=len(batch.ids))
        assert (mixed.clips == mixing.apply(batch.clips, parameters)).all() and (mixed.clips != batch.clips).any()
        soft = mixing.targets(batch.targets, parameters, task=plain.spec.task, classes=len(plain.spec.classes))
        assert mixed.targets.dtype == np.float32 and (mixed.targets == soft).all()
        assert mixed.targets.shape == ((len(batch.ids), 3) if target == "kind" else (len(batch.ids),))
        assert (mixed.weights == mixing.numbers(batch.weights, parameters)).all()
        for name, values in batch.covariates.items():
            assert (mixed.covariates[name] == mixing.numbers(values, parameters)).all()
        assert (mixed.ids == batch.ids).all()
    assert feed.spec.soft and not plain.spec.soft and f"mixed by {mixing}" in feed.summary()


def test_numbers_are_blended_or_refused(made):
    feed = make(made, target="age")
    targets = np.concatenate([batch.targets for batch in feed])
    assert targets.dtype == np.float32 and not feed.spec.soft
    assert not set(targets.tolist()) <= set(feed.labels.tolist())
    assert feed.labels.min() <= targets.min() and targets.max() <= feed.labels.max()
    with pytest.raises(LabelError, match="does not mix numbers"):
        make(made, target="age", mixing=CutMix())
    assert make(made, target="age", mixing=CutMix(regression="blend"))[0].targets.dtype == np.float32


def test_without_labels_clips_alone_are_mixed(made):
    unlabelled = make(made, target=None, mixing=CutMix())[0]
    assert np.isnan(unlabelled.targets).all() and not unlabelled.weights.any()
    assert (unlabelled.clips != make(made, target=None, mixing=None)[0].clips).any()
    batch = make(made, target="clip")[0]
    assert batch.targets is batch.clips


def test_of_several_targets_a_blend_with_a_missing_label_does_not_count(made):
    settings = {"target": ["kind", "score"], "return_parameters": True}
    feed, plain = make(made, **settings), make(made, mixing=None, **settings)
    counted = Counter()
    for mixed, batch in zip(feed, plain, strict=True):
        partners = [row_parameters["mixing"]["partners"] for row_parameters in mixed.parameters]
        has_label = (batch.weights["score"] > 0) & (batch.weights["score"][partners] > 0)
        assert ((mixed.weights["score"] > 0) == has_label).all() and (mixed.weights["kind"] == 1).all()
        assert mixed.targets["kind"].shape == (len(batch.ids), 3) and mixed.targets["score"].dtype == np.float32
        counted.update(has_label.tolist())
    assert counted[True] and counted[False] and feed.spec.soft


def test_each_view_is_mixed_alike(made):
    columns = {"study": [f"s{row // 2}" for row in range(10)], "view": ["a", "b"] * 5}
    table = made.take(range(10)).table.select(["id", "path"])
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    pivoted = cf.Manifest(table, root=made.root).pivot(by="view", within="study")
    settings = {"target": None, "batch_size": 5, "return_parameters": True}
    mixed, plain = make(pivoted, **settings)[0], make(pivoted, mixing=None, **settings)[0]
    parameters = {
        name: [row_parameters["mixing"][name] for row_parameters in mixed.parameters] for name in ("partners", "shares")
    }
    for view, clips in plain.clips.items():
        assert (mixed.clips[view] == MixUp().apply(clips, parameters)).all()
    check_feed(make(pivoted, **settings))


def test_a_frame_is_valid_where_it_is_in_both(made):
    table = pa.table({"id": ["a", "b", "c"], "path": ["a.npy", "b.npy", "c.npy"], "sick": ["no", "yes", "no"]})
    for name, count in (("a", 3), ("b", 5), ("c", 9)):
        np.save(made.root / f"{name}.npy", np.full((count, 16, 16), 200, np.uint8))
    short = cf.Manifest(table, root=made.root)
    feed = make(short, clip=cf.Clip(frames=8, short="pad"), batch_size=3, return_parameters=True, transforms=[])
    lengths = {"a": 3, "b": 5, "c": 8}
    distinct_lengths = set()
    for epoch in range(4):
        batch = feed.batch(0, epoch=epoch)
        own = [lengths[each] for each in batch.ids]
        partners = [row_parameters["mixing"]["partners"] for row_parameters in batch.parameters]
        assert batch.valid.sum(axis=1).tolist() == [min(n, own[p]) for n, p in zip(own, partners, strict=True)]
        assert not batch.clips[~batch.valid].any() and (batch.clips[batch.valid] == 200).all()
        distinct_lengths.update(partners)
    assert len(distinct_lengths) == 3


@pytest.mark.parametrize(
    "changes", [{}, {"clips_per_video": cf.ClipsPerVideo(count=2, interleave=True)}, {"clips_per_video": 2}], ids=str
)
def test_the_same_bytes_from_threads_and_after_a_resume(made, changes):
    make_one = partial(make, made, mixing=CutMix(), **changes)
    expected = epochs(make_one())
    assert epochs(make_one(workers=cf.Workers(count=2, prefetch=3))) == expected
    assert len({each for epoch in expected for each in epoch}) == 2 * len(expected[0])
    feed = make_one(workers=1)
    batches = iter(feed)
    digests = [digest(next(batches))]
    state = json.loads(json.dumps(feed.state()))
    assert digests + [digest(batch) for batch in make_one().restore(state)] == expected[0]
    assert [digest(make_one().batch(index)) for index in range(len(expected[0]))] == expected[0]


def test_the_same_bytes_from_processes(made):
    assert epochs(make(made, workers=cf.Workers(count=2, backend="process"))) == epochs(make(made))


def test_two_ranks_mix_as_one_does(made):
    alone = [digest(batch) for batch in make(made, batch_size=2)]
    for rank in (0, 1):
        feed = make(made, batch_size=2, shard=cf.Shard(rank=rank, world_size=2), drop_last=True)
        assert [digest(batch) for batch in feed] == alone[rank::2][:2]
    padded = make(made, batch_size=2, shard=cf.Shard(rank=1, world_size=2))
    last = padded[-1]
    assert last.ids.tolist()[-1] == "" and last.weights[-1] == 0 and not last.clips[-1].any()


@pytest.mark.parametrize(
    "changes",
    [
        {"target": "kind", "mixing": CutMix()},
        {"target": ["kind", "score"], "return_parameters": True},
        {"clips_per_video": cf.ClipsPerVideo(count=2, interleave=True), "return_parameters": True},
        {"clip": cf.Clip(frames=16, short="pad"), "shard": cf.Shard(rank=1, world_size=2)},
    ],
    ids=str,
)
def test_a_checked_feed(made, changes):
    check_feed(make(made, **changes))


@pytest.mark.slow
def test_a_feed_that_is_made_again(made):
    check_feed(make(made, batch_size=2), make=lambda **changes: make(made, **{"batch_size": 2, **changes}))


def test_an_evaluation_does_not_mix(made):
    evaluation = make(made).evaluation(made)
    assert evaluation.settings.mixing is None and not evaluation.spec.soft and evaluation[0].targets.dtype == np.int64
    plain = make(made, mixing=None).evaluation(made)
    assert epochs(evaluation, 1) == epochs(plain, 1)


def test_a_state_knows_of_the_mixing(made):
    assert make(made).state()["settings"]["mixing"] == "MixUp(alpha=1.0, regression='blend')"
    assert make(made, mixing=None).state()["settings"]["mixing"] == "None"


@pytest.mark.parametrize("wrong", [MixUp, 0.2, cf.Rotate(degrees=5)], ids=repr)
def test_what_is_no_mixing(made, wrong):
    with pytest.raises(SettingError, match=r"is not a mixing; give one such as MixUp\(\)"):
        make(made, mixing=wrong)


def test_clips_are_written_where_they_lie(made):
    """Mixed or not, a batch takes the memory of its buffer and no more."""
    feed = make(made)
    buffer = feed._builder.buffers.lease()
    address = buffer.clips.ctypes.data
    del buffer
    assert feed[0].clips.ctypes.data == address
