"""A state of some ranks on another number of them: exact, or refused with the nearest borders, or back to the last."""

import re
from collections import Counter

import numpy as np
import pytest

import cinefeed as cf
from cinefeed.core.errors import FeedError

ROWS = 23


@pytest.fixture(scope="module")
def videos():
    return cf.Manifest.from_arrays(np.zeros((ROWS, 6, 16, 16), np.uint8), {"age": np.arange(ROWS, dtype=float)})


def make(videos, **settings):
    return cf.Feed(
        videos,
        target="age",
        clip=cf.Clip(frames=2),
        frame=cf.Frame(height=4, width=4, channels=1),
        workers=0,
        **settings,
    )


def ranks_of(videos, number, **settings):
    return [make(videos, shard=cf.Shard(rank=rank, world_size=number), **settings) for rank in range(number)]


def ids(batches):
    return Counter(str(name) for batch in batches for name in batch.ids if name)


def random_case(rng):
    clips = int(rng.choice([1, 1, 2, 3]))
    interleave = bool(clips > 1 and rng.integers(2))
    batch_size = int(rng.integers(1, 4)) * (1 if interleave else clips)
    settings = {
        "batch_size": batch_size,
        "clips_per_video": cf.ClipsPerVideo(count=clips, interleave=interleave),
        "seed": int(rng.integers(9)),
    }
    return settings, int(rng.integers(1, 6)), int(rng.integers(1, 6))


@pytest.mark.parametrize("seed", range(40))
def test_every_clip_once_or_refused_or_as_often_again_as_the_log_says(videos, seed, caplog):
    rng = np.random.default_rng([17, seed])
    settings, before, after = random_case(rng)
    feeds = ranks_of(videos, before, **settings)
    num_batches = int(rng.integers(0, len(feeds[0])))
    counts: Counter[str] = Counter()
    for feed in feeds:
        batches = iter(feed)
        counts += ids([next(batches) for _ in range(num_batches)])
    states = [feed.state() for feed in feeds]
    assert all(state == states[0] for state in states)
    others = ranks_of(videos, after, **settings)
    everything = Counter(dict.fromkeys(map(str, videos.column("id").to_pylist()), settings["clips_per_video"].count))

    try:
        rest = sum((ids(feed.restore(states[0])) for feed in others), Counter())
        assert counts + rest == everything
        return
    except FeedError as error:
        refusal = str(error)
    assert after != before
    place, low, high = (int(re.search(f"{words} (\\d+)", refusal)[1]) for words in ("at draw", "are draw", "and draw"))
    assert low < place < high and (high - low) % (after * settings["batch_size"]) == 0
    serving = {int(each) for each in re.search(r"Restore it on ([\d, ]+) ranks", refusal)[1].split(",")}
    for number in range(1, 6):
        feed = make(videos, shard=cf.Shard(rank=0, world_size=number), **settings)
        if number in serving:
            assert feed.restore(states[0]).state()["draws"] == place
        else:
            with pytest.raises(FeedError, match="not the start of a global batch"):
                feed.restore(states[0])

    rest = sum((ids(feed.restore(states[0], exact=False)) for feed in others), Counter())
    assert not everything - (counts + rest), "none is lost"
    again = (counts + rest - everything).total()
    assert 0 < again <= place - low
    assert (
        f"restored at draw {low} of epoch 0, the last global batch of {after} ranks: {again} draws are repeated"
        in caplog.text
    )


def test_the_cases_have_all_three_outcomes(videos):
    """Of the random cases above some are exact on other ranks, and some are refused."""
    outcomes = Counter()
    for seed in range(40):
        rng = np.random.default_rng([17, seed])
        settings, before, after = random_case(rng)
        feed = make(videos, shard=cf.Shard(rank=0, world_size=before), **settings)
        num_batches, batches = int(rng.integers(0, len(feed))), iter(feed)
        for _ in range(num_batches):
            next(batches)
        try:
            make(videos, shard=cf.Shard(rank=0, world_size=after), **settings).restore(feed.state())
            outcomes["exact" if before != after and num_batches else "plain"] += 1
        except FeedError:
            outcomes["refused"] += 1
    assert min(outcomes[name] for name in ("exact", "plain", "refused")) >= 5


def test_the_torch_loader_goes_back_on_request(videos):
    torch = pytest.importorskip("torch")
    from cinefeed.adapters.torch import FeedLoader

    state = {**make(videos, shard=cf.Shard(rank=0, world_size=1), batch_size=2).state(), "draws": 6}
    loader = FeedLoader(make(videos, shard=cf.Shard(rank=0, world_size=2), batch_size=2))
    with pytest.raises(
        FeedError, match=r"draw 6 of epoch 0, which is not the start.*nearest are draw 4 and draw 8.*on 1, 3 ranks;"
    ):
        loader.load_state_dict(state)
    loader.load_state_dict(state, exact=False)
    assert loader.state_dict()["draws"] == 4
    _, targets, _ = next(iter(loader))
    assert targets.shape == torch.Size([2])


def test_the_jax_iterator_goes_back_on_request(videos):
    pytest.importorskip("jax")
    from cinefeed.adapters.jax import FeedIterator

    state = {**make(videos, shard=cf.Shard(rank=0, world_size=1), batch_size=2).state(), "draws": 6}
    batches = FeedIterator(make(videos, shard=cf.Shard(rank=0, world_size=2), batch_size=2))
    with pytest.raises(FeedError, match="nearest are draw 4 and draw 8"):
        batches.restore(state)
    batches.restore(state, exact=False)
    assert batches.state()["draws"] == 4
