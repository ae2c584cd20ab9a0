"""JAX arrays from a feed. JAX runs in processes of its own, with as many devices as a test needs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("jax")

HEAD = """
import sys
import numpy as np, jax, pyarrow as pa
import cinefeed as cf
from cinefeed.adapters.jax import FeedIterator

table = pa.table({"path": [f"{row:02}.npy" for row in range(11)], "age": [20.0 + row * row for row in range(11)]})
manifest = cf.Manifest.from_table(table, root=sys.argv[1])

def make(**changes):
    settings = {"clip": cf.Clip(frames=4), "frame": cf.Frame(height=16, width=16, channels=1), "batch_size": 4}
    return cf.Feed(manifest, target="age", **{**settings, **changes})
"""
SAME = """
iterator = FeedIterator(make())
assert len(iterator) == 3
try:
    iterator[0]
except cf.CinefeedError as error:
    assert "an item of a FeedIterator was requested" in str(error)
else:
    raise AssertionError("a DataLoader of torch would get items")
for epoch in range(2):
    expected = make()
    expected.set_epoch(epoch)
    pairs = list(zip(iterator, expected, strict=True))
    assert len(pairs) == 3
    for (inputs, targets, weights), batch in pairs:
        assert isinstance(inputs["clips"], jax.Array) and list(inputs) == ["clips"]
        assert np.array_equal(inputs["clips"], batch.clips) and np.array_equal(targets, batch.targets)
        assert np.array_equal(weights, batch.weights)
assert iterator.feed.epoch == 2
"""
RESUME = """
feed = make()
iterator = FeedIterator(feed)
expected = [np.asarray(inputs["clips"]) for _ in range(2) for inputs, _, _ in iterator]
for taken in range(1, 6):
    iterator, seen = FeedIterator(make()), 0
    while seen < taken:
        for inputs, _, _ in iterator:
            seen += 1
            if seen == taken:
                state = iterator.state()
                break
    again = FeedIterator(make())
    again.restore(state)
    rest = []
    while len(rest) < 6 - taken:
        rest += [np.asarray(inputs["clips"]) for inputs, _, _ in again]
    for one, other in zip(rest, expected[taken:], strict=False):
        assert np.array_equal(one, other), taken
"""
TAKES_OVER = """
from itertools import islice
from cinefeed.core.errors import StaleIteratorError
feed = make(workers=2)
iterator = FeedIterator(feed)
places = [(epoch, index) for epoch in range(4) for index in range(3)]
expected = {feed.batch(index, epoch=epoch).clips.tobytes(): (epoch, index) for epoch, index in places}
seen = [np.asarray(inputs["clips"]).tobytes() for _ in range(2) for inputs, _, _ in islice(iterator, 2)]
assert [expected[clips] for clips in seen] == [(0, 0), (0, 1), (1, 0), (1, 1)], [expected[clips] for clips in seen]
iterator.set_epoch(1)
older = iter(iterator)
for _ in range(2):  # the feed has given its last batch, its consumer has not been given it
    next(older)
assert iterator.state()["draws"] == 8 and feed.state()["epoch"] == 2
newer = iter(iterator)
for _ in range(2):
    try:
        next(older)
    except StaleIteratorError as error:
        assert "use feed.batch(i)" in str(error)
    else:
        raise AssertionError("the older iterator gives batches")
assert iterator.state()["epoch"] == 2
assert [expected[np.asarray(inputs["clips"]).tobytes()] for inputs, _, _ in newer] == [(2, 0), (2, 1), (2, 2)]
try:
    list(zip(iterator, iterator))
except StaleIteratorError:
    pass
else:
    raise AssertionError("two at once")
"""
SHARDED = """
from jax.sharding import Mesh, NamedSharding, PartitionSpec
assert jax.device_count() == 2
sharding = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
for (inputs, targets, _), batch in zip(FeedIterator(make(drop_last=True), sharding=sharding), make(drop_last=True)):
    assert inputs["clips"].sharding == sharding and len(inputs["clips"].addressable_shards) == 2
    assert inputs["clips"].addressable_shards[0].data.shape == (2, 4, 16, 16, 1)
    assert np.array_equal(inputs["clips"], batch.clips) and np.array_equal(targets, batch.targets)
batches = iter(FeedIterator(make(), sharding=sharding))
for message in ("a batch of 3 rows cannot be divided", "ended before its epoch did: an error was raised"):
    try:
        list(batches)
    except cf.CinefeedError as error:
        assert message in str(error), error
    else:
        raise AssertionError("a tail of 3 on 2 devices")
"""
VIEWS = """
table = pa.table({"path": [f"{row:02}.npy" for row in range(10)], "study": [f"s{row // 2}" for row in range(10)],
                  "view": ["2ch", "4ch"] * 5, "age": [20.0 + row // 2 for row in range(10)]})
manifest = cf.Manifest.from_table(table, root=sys.argv[1]).pivot(by="view", within="study")
for changes in ({}, {"inputs": cf.Inputs(stack=True)}, {"clips_per_video": 2},
                {"clips_per_video": cf.ClipsPerVideo(count=2, interleave=True)}):
    feed, iterator = make(**changes), FeedIterator(make(workers=1, **changes))
    names = {"2ch": "clips_2ch", "4ch": "clips_4ch"}
    assert len(iterator) == len(feed)
    for (inputs, targets, weights), batch in zip(iterator, feed, strict=True):
        views = batch.clips if not feed.spec.stacked else {"": batch.clips}
        assert list(inputs) == [names.get(view, "clips") for view in views] == list(feed.spec.clip_names)
        for view, clips in views.items():
            assert np.array_equal(inputs[names.get(view, "clips")], clips)
        assert np.array_equal(targets, batch.targets) and np.array_equal(weights, batch.weights)
"""


def run(code, manifest, *, devices=1):
    flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", HEAD + code, manifest.root],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | flags,
        cwd=Path(__file__).parent,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_same_samples_as_the_feed(manifest):
    run(SAME, manifest)


def test_a_state_knows_where_the_consumer_stands_though_the_feed_is_ahead(manifest):
    run(RESUME, manifest)


def test_a_newer_iterator_takes_over_and_leaves_an_unfinished_epoch(manifest):
    run(TAKES_OVER, manifest)


def test_rows_are_sharded_over_devices(manifest):
    run(SHARDED, manifest, devices=2)


def test_views_and_several_clips_of_a_video(manifest):
    run(VIEWS, manifest)


def test_a_wrong_sample_is_found(manifest):
    with pytest.raises(AssertionError, match="AssertionError"):
        run(SAME.replace('inputs["clips"], batch.clips', 'inputs["clips"] + 1, batch.clips'), manifest)
