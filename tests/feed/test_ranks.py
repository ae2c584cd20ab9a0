"""Several feeds, one a device: together they give the epoch's plan once, each as much as the others."""

import numpy as np
import pytest

import cinefeed as cf
from cinefeed.core.errors import FeedError, SettingError
from cinefeed.feed.shard import ShardPositions, find_shard


def make(manifest, *, rank, world_size, **changes):
    settings = {
        "target": "age",
        "clip": cf.Clip(frames=4, stride=2),
        "frame": cf.Frame(height=16, width=16, channels=1),
        "transforms": [cf.Rotate(degrees=20)],
        "batch_size": 2,
        "seed": 7,
        "workers": 0,
    }
    return cf.Feed(manifest, shard=cf.Shard(rank=rank, world_size=world_size), **{**settings, **changes})


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("draws", [0, 1, 5, 11, 12, 13, 24])
@pytest.mark.parametrize("drop_last", [False, True])
def test_parts_are_disjoint_equal_and_complete(world_size, draws, drop_last):
    shares = [ShardPositions(3, rank, world_size, drop_last) for rank in range(world_size)]
    counts = {share.count(draws) for share in shares}
    assert len(counts) == 1
    ids = []
    for index in range(counts.pop()):
        sizes = set()
        for share in shares:
            positions, size = share.positions(index, draws=draws)
            assert len(positions) <= size <= 3
            sizes.add(size)
            ids += positions
        assert len(sizes) == 1
    expected = draws - draws % (3 * world_size) if drop_last else draws
    assert sorted(ids) == list(range(expected))


def test_ranks_give_together_what_one_gives_alone(manifest):
    alone = {
        (str(batch.ids[i]), batch.clips[i].tobytes(), float(batch.targets[i]))
        for batch in make(manifest, rank=0, world_size=1)
        for i in range(len(batch.ids))
    }
    together, lengths, padding = set(), set(), 0
    for rank in range(3):
        feed = make(manifest, rank=rank, world_size=3)
        batches = list(feed)
        lengths.add((len(feed), len(batches), sum(len(batch.ids) for batch in batches)))
        assert feed.spec.padded
        for batch in batches:
            for i in range(len(batch.ids)):
                if batch.weights[i]:
                    assert batch.valid[i].all()
                    together.add((str(batch.ids[i]), batch.clips[i].tobytes(), float(batch.targets[i])))
                else:
                    padding += 1
                    assert not batch.valid[i].any() and not batch.clips[i].any() and not batch.ids[i]
                    assert np.isfinite(batch.targets[i])
    assert together == alone and len(alone) == 11
    assert len(lengths) == 1 and padding == 1


def test_every_rank_and_every_global_batch_is_balanced(manifest):
    sampler = cf.BalancedClasses(proportion=0.5)
    feeds = [make(manifest, rank=rank, world_size=2, target="sick", sampler=sampler, drop_last=True) for rank in (0, 1)]
    assert len(feeds[0]) >= 2
    for batch in [each for feed in feeds for each in feed]:
        assert batch.targets.tolist().count(1) == 1


def test_a_state_of_four_ranks_is_restored_on_two(manifest):
    four = [make(manifest, rank=rank, world_size=4, batch_size=1) for rank in range(4)]
    running = [iter(feed) for feed in four]
    for each in running:
        next(each)
    states = [feed.state() for feed in four]
    assert all(state == states[0] and state["draws"] == 4 for state in states)
    rest_of_four = {str(name) for each in running for batch in each for name in batch.ids if name}
    rest_of_two = {
        str(name)
        for rank in range(2)
        for batch in make(manifest, rank=rank, world_size=2, batch_size=1).restore(states[0])
        for name in batch.ids
        if name
    }
    assert rest_of_two == rest_of_four and len(rest_of_two) == 7
    with pytest.raises(
        FeedError, match=r"draw 4 of epoch 0, which is not the start.*of 3 ranks.*draw 3 and draw 6.*on 1, 2, 4 ranks;"
    ):
        make(manifest, rank=0, world_size=3, batch_size=1).restore(states[0])


@pytest.mark.parametrize(("rank", "world_size"), [(1, None), (None, 2), (2, 2), (-1, 2)])
def test_ranks_that_cannot_be(rank, world_size):
    with pytest.raises(SettingError, match=r"rank=.* must be at least 0|must be a whole number"):
        cf.Shard(rank=rank, world_size=world_size)


def test_the_rank_of_torch_is_found(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    assert find_shard(None) == cf.Shard(rank=1, world_size=3)
    assert find_shard(cf.Shard(rank=0, world_size=2)) == cf.Shard(rank=0, world_size=2)
