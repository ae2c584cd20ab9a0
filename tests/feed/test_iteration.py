"""Which iterator of a feed gives batches, and at which epoch and batch each begins."""

import gc
import os
import threading
from itertools import islice

import pytest

import cinefeed as cf
from cinefeed.core.errors import FeedError, SourceError, StaleIteratorError

FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no os.fork")


def make(manifest, **changes):
    settings = {
        "target": "age",
        "clip": cf.Clip(frames=4, stride=2),
        "frame": cf.Frame(height=16, width=16, channels=1),
        "transforms": [cf.Rotate(degrees=20), cf.Brightness(factor=0.2)],
        "batch_size": 2,
        "seed": 7,
        "workers": 2,
    }
    return cf.Feed(manifest, **{**settings, **changes})


def places(manifest, batches):
    """Return (epoch, index) of batches, by their pixels."""
    reference = make(manifest, workers=0)
    place_of = {
        reference.batch(index, epoch=epoch).clips.tobytes(): (epoch, index)
        for epoch in range(5)
        for index in range(len(reference))
    }
    return [place_of[batch.clips.tobytes()] for batch in batches]


def whole(epoch, start=0):
    return [(epoch, index) for index in range(start, 6)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_newer_iterator_takes_over_and_the_older_raises(manifest, workers):
    feed, read_batches = make(manifest, workers=workers), []
    message = r"ended after batch 3 of 6 of epoch 0: a newer iter\(\) of the feed took over.*use feed\.batch\(i\)"
    with pytest.raises(StaleIteratorError, match=message):
        for batch in feed:
            read_batches.append(batch)
            if len(read_batches) == 3:
                newer = iter(feed)
                read_batches.append(next(newer))
    assert places(manifest, [*read_batches, *newer]) == [*whole(0)[:3], *whole(1)]


def test_two_at_once_are_refused(manifest):
    feed = make(manifest)
    with pytest.raises(StaleIteratorError, match="ended before its first batch"):
        list(zip(feed, feed, strict=True))


def test_an_older_iterator_raises_each_time_and_a_complete_one_never(manifest):
    feed = make(manifest)
    complete = iter(feed)
    for _ in range(6):
        next(complete)
    older = iter(feed)
    next(older)
    iter(feed)
    for _ in range(2):
        with pytest.raises(StaleIteratorError):
            next(older)
        with pytest.raises(StopIteration):
            next(complete)


@pytest.mark.parametrize(
    ("move", "reason", "follows"),
    [
        (lambda feed, _: feed.set_epoch(3), r"set_epoch\(\) moved the feed", whole(3)),
        (lambda feed, _: feed.set_epoch(0), r"set_epoch\(\) moved the feed", whole(0)),
        (lambda feed, state: feed.restore(state), r"restore\(\) moved the feed", whole(0, 1)),
        (lambda feed, _: feed.close(), "the feed was closed", whole(1)),
    ],
)
def test_what_moves_a_feed_ends_the_loop_around_it_with_an_error(manifest, move, reason, follows):
    feed, state = make(manifest), None
    with pytest.raises(StaleIteratorError, match=f"after batch 2 of 6 of epoch 0: {reason}"):
        for number, _ in enumerate(feed):
            state = state or feed.state()
            if number == 1:
                move(feed, state)
    assert places(manifest, feed) == follows


def test_an_unfinished_epoch_is_left_for_the_next_one(manifest):
    feed, read_batches = make(manifest), []
    for _ in range(3):
        for batch in feed:
            read_batches.append(batch)
            if len(read_batches) % 2 == 0:
                break
    read_batches += islice(feed, 1)
    assert places(manifest, read_batches) == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (3, 0)]
    assert places(manifest, feed) == whole(4)
    assert (feed.epoch, feed.next_epoch) == (5, 5)


def test_a_state_keeps_the_old_place_until_the_next_iterator(manifest):
    feed = make(manifest)
    list(islice(feed, 2))
    state = feed.state()
    assert (feed.epoch, feed.next_epoch, state["epoch"], state["draws"]) == (0, 1, 0, 4)
    iter(feed)
    assert (feed.epoch, feed.next_epoch, feed.state()["epoch"], feed.state()["draws"]) == (1, 1, 1, 0)
    assert places(manifest, make(manifest).restore(state)) == whole(0, 2)
    assert places(manifest, feed) == whole(1)


def test_an_iterator_that_nobody_used_skips_no_epoch(manifest):
    feed = make(manifest)
    for _ in range(3):
        iter(feed)
    assert places(manifest, feed) == whole(0)
    prefetcher = feed._epochs._prefetcher
    iter(feed)
    assert feed._epochs._prefetcher is prefetcher, "what was made ahead is still of use"
    feed.restore(make(manifest).restore({**feed.state(), "draws": 6}).state())
    iter(feed)
    assert places(manifest, feed) == whole(1, 3)


def test_an_iterator_takes_its_place_at_its_first_batch(manifest):
    """Lightning makes the iterator, and sets the epoch after that."""
    feed = make(manifest)
    list(islice(feed, 4))
    state = feed.state()
    batches = iter(feed)
    feed.set_epoch(3)
    assert places(manifest, [next(batches)]) == [(3, 0)]
    batches = iter(feed)
    feed.restore(state)
    assert places(manifest, batches) == whole(0, 4)
    batches = iter(feed)
    feed.close()
    assert places(manifest, batches) == whole(1)


def test_a_resumed_epoch_that_is_broken_off_again_is_left_too(manifest):
    feed = make(manifest)
    list(islice(feed, 2))
    feed.restore(feed.state())
    assert places(manifest, islice(feed, 2)) == [(0, 2), (0, 3)]
    assert places(manifest, feed) == whole(1)


def test_the_end_of_an_epoch_is_the_start_of_the_next(manifest):
    """Of eleven draws two ranks of two give eight, four ranks give eight in one batch each: then nothing is left."""
    two = make(manifest, shard=cf.Shard(rank=0, world_size=2), drop_last=True, workers=0)
    next(iter(two))
    batches = iter(two.restore(two.state()))
    next(batches)
    assert (two.state()["epoch"], two.state()["draws"]) == (1, 0)
    one = make(manifest, shard=cf.Shard(rank=0, world_size=1), drop_last=True, workers=0)
    list(islice(one, 4))
    assert (one.state()["epoch"], one.state()["draws"]) == (0, 8)
    four = make(manifest, shard=cf.Shard(rank=3, world_size=4), drop_last=True, workers=0).restore(one.state())
    assert (four.epoch, len(four), len(list(four)), four.epoch) == (1, 1, 1, 2)


def test_after_an_error_in_the_loop_the_next_epoch_follows(manifest):
    feed = make(manifest)
    with pytest.raises(ZeroDivisionError) as caught:
        for _ in feed:
            raise ZeroDivisionError  # whose traceback holds the iterator
    assert places(manifest, feed) == whole(1)
    assert caught.value is not None


def test_an_iterator_that_failed_does_not_pass_for_a_complete_one(manifest):
    row = int(make(manifest).plan().rows[4])  # of the third batch
    path = manifest.root / f"{row:02}.npy"
    good = path.read_bytes()
    path.write_bytes(b"")
    feed = make(manifest, workers=0)
    batches = iter(feed)
    list(islice(batches, 2))
    with pytest.raises(SourceError):
        next(batches)
    with pytest.raises(StaleIteratorError, match="after batch 2 of 6 of epoch 0: it raised SourceError"):
        next(batches)
    path.write_bytes(good)
    assert places(manifest, feed.restore(feed.state())) == whole(0, 2)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_evaluation_begins_at_its_first_batch(manifest, workers):
    feed = make(manifest, workers=workers).evaluation(manifest)
    ids = [str(name) for name in manifest.column("id").to_pylist()]

    def numbers(limit=None):
        return [str(name) for batch in islice(feed, limit) for name in batch.ids]

    assert numbers(2) == ids[:4] and numbers(1) == ids[:2] and numbers() == ids
    assert (feed.epoch, feed.next_epoch, feed.state()["draws"], feed.is_evaluation) == (0, 0, 0, True)
    feed.set_epoch(3)
    assert numbers(2) == ids[:4] and feed.epoch == 3
    feed.restore(feed.state())
    assert numbers() == ids[4:] and feed.epoch == 0 and numbers() == ids
    assert not make(manifest).is_evaluation


def test_what_was_dropped_is_made_by_no_worker_later(manifest):
    gc.collect()
    before = {*threading.enumerate()}  # those of other tests may end meanwhile
    feed = make(manifest, workers=cf.Workers(count=2, prefetch=4))
    for _ in range(3):
        list(islice(feed, 1))
        assert {*threading.enumerate()} <= before, "threads end with the iteration, not with the feed"
    leased = feed._epochs.builder.buffers
    assert leased.free == leased.size
    assert places(manifest, feed) == whole(3)


def test_ranks_stay_in_the_same_epoch(manifest):
    feeds = [make(manifest, shard=cf.Shard(rank=rank, world_size=3), batch_size=1, workers=rank) for rank in range(3)]
    for limit in (1, 4, 2, 3):
        assert [len(list(islice(feed, limit))) for feed in feeds] == [limit] * 3
        assert len({(feed.epoch, feed.next_epoch) for feed in feeds}) == 1
        assert all(feed.state() == feeds[0].state() for feed in feeds)
    assert feeds[0].next_epoch == 4


def test_threads_that_iterate_over_one_feed(manifest):
    """One is given a whole epoch, the others an error, and nobody a batch twice."""
    feed = make(manifest)
    ends, lock = [], threading.Lock()
    meeting = threading.Barrier(4)

    def consume():
        meeting.wait()
        place_lists = []
        try:
            for batch in feed:
                place_lists.append(batch)
            end = "complete"
        except StaleIteratorError:
            end = "stale"
        with lock:
            ends.append((end, place_lists))

    threads = [threading.Thread(target=consume) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(ends) == 4
    place_lists = [places(manifest, batches) for end, batches in ends if batches]
    for each in place_lists:
        assert each == whole(each[0][0])[: len(each)]
    assert len({each[0][0] for each in place_lists}) == len(place_lists), "an epoch for each that was given a batch"
    assert all(len(batches) == 6 for end, batches in ends if end == "complete")
    assert any(end == "complete" for end, _ in ends)


def test_threads_share_one_iterator(manifest):
    batches, read_batches, lock = iter(make(manifest)), [], threading.Lock()

    def consume():
        for batch in batches:
            with lock:
                read_batches.append(batch)

    threads = [threading.Thread(target=consume) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sorted(places(manifest, read_batches)) == whole(0)


@FORKS
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_fork_cannot_go_on_with_its_parents_iterator(manifest):
    """It would wait for workers that it does not have."""
    feed = make(manifest)
    batches = iter(feed)
    next(batches)
    child = os.fork()
    if not child:
        status = 1
        try:
            next(batches)
        except FeedError as error:
            status = 0 if "belongs to the parent" in str(error) else 2
            status = status or (3 if len(list(feed)) != 6 else 0)
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert places(manifest, batches) == whole(0, 1)
