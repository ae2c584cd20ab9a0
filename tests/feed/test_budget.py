"""A budget of memory bounds batches and decoders, and says how."""

from dataclasses import replace
from functools import partial

import pyarrow as pa
import pytest
from slow_transforms import Nap

import cinefeed as cf
from cinefeed.core.errors import FeedError, SettingError
from cinefeed.core.text import parse_bytes
from cinefeed.feed.memory_budget import decoder_bytes
from cinefeed.feed.prefetch import buffers_ahead

BUFFER_BYTES = 4 * 4 * 64 * 64 + 4 * 4  # pixels of a batch, and the mask of its frames


one_worker = partial(cf.Workers, count=1, prefetch=1)


def make(manifest, **changes):
    settings = {
        "target": "age",
        "clip": cf.Clip(frames=4, stride=2),
        "frame": cf.Frame(height=64, width=64, channels=1),
        "batch_size": 4,
        "workers": one_worker(),
    }
    return cf.Feed(manifest, **{**settings, **changes})


@pytest.mark.parametrize("wrong", ["2 cats", "-1GB", "", 0, True, "0GB"])
def test_what_is_no_number_of_bytes(wrong):
    with pytest.raises(SettingError, match="must be a number of bytes"):
        parse_bytes(wrong)


def test_the_budget_is_spent_on_decoders_and_batches(manifest):
    decoder = decoder_bytes(manifest.table, frames=4)
    feed = make(manifest, workers=one_worker(memory=decoder + 4 * BUFFER_BYTES))
    assert (feed.memory_budget.decoders, feed.memory_budget.buffer_bytes, feed.memory_budget.buffers) == (
        decoder,
        BUFFER_BYTES,
        4,
    )
    assert "4 batches of 0.0656 MB" in str(feed.memory_budget)


def test_too_little_is_refused_with_what_would_do(manifest):
    decoder = decoder_bytes(manifest.table, frames=4)
    with pytest.raises(SettingError, match=r"is too little: decoders take 8 MB, and 3 batches 0\.0656 MB each; give"):
        make(manifest, workers=one_worker(memory=decoder + 2 * BUFFER_BYTES))


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_holding_more_than_the_budget_is_an_error(manifest, backend):
    feed = make(
        manifest, workers=one_worker(memory=decoder_bytes(manifest.table, frames=4) + 4 * BUFFER_BYTES, backend=backend)
    )
    held = []
    with pytest.raises(FeedError, match="all 4 batches that the memory budget allows are held"):
        for _ in range(3):
            held += list(feed)


def test_holding_one_at_a_time_fits_over_many_epochs(manifest):
    feed = make(manifest, workers=one_worker(memory=decoder_bytes(manifest.table, frames=4) + 4 * BUFFER_BYTES))
    assert sum(len(batch.ids) for _ in range(10) for batch in feed) == 110


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_breaking_off_gives_back_what_is_under_way(manifest, backend):
    workers = cf.Workers(count=2, prefetch=2, backend=backend)
    buffers = buffers_ahead(2, workers=2, draws=4, batches=1) + 2  # no more than it needs
    memory = 2 * decoder_bytes(manifest.table, frames=4) + buffers * BUFFER_BYTES
    feed = make(manifest, workers=replace(workers, memory=memory), transforms=[Nap(seconds=0.02)])
    for number in range(8):
        feed.set_epoch(number % 3)
        batch = next(iter(feed))
        assert batch.clips.tobytes() == feed.batch(0).clips.tobytes()
        del batch


def test_a_decoder_takes_as_much_as_its_largest_video():
    columns = {"height": [100, 200], "width": [100, 200], "channels": [3, 1], "bits": [8, 16], "num_frames": [9, 9]}
    assert decoder_bytes(pa.table(columns), frames=3) == 200 * 200 * 2 * 20 + 8_000_000
    assert decoder_bytes(pa.table({"path": ["a"]}), frames=3) == 8_000_000
