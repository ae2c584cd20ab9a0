"""How many threads compute a network, that a run keeps the number, and that it goes on with it."""

import json

import keras
import numpy as np
import pytest
import torch

from cinefeed.core.errors import SettingError
from cinefeed.feed.labels import FeedSpec
from cinefeed.models import cnn_rnn
from cinefeed.training import threads
from cinefeed.training.threads import (
    choose_threads,
    forward_flop,
    read_threads,
    restored_threads,
    use_threads,
    with_threads_of_run,
)


def spec_of(side, *, batch_size=8):
    return FeedSpec(
        clip_shape=(4, side, side, 1), dtype=np.dtype("uint8"), batch_size=batch_size, target="age", task="regression"
    )


@pytest.fixture
def four_cores(monkeypatch):
    monkeypatch.setattr(threads, "usable_cores", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def test_a_small_network_has_one_thread_and_a_large_one_a_thread_a_core(four_cores, monkeypatch):
    spec = spec_of(32)
    model = cnn_rnn(spec, filters=[4, 4], units=4)
    assert choose_threads(model, spec) == 1
    monkeypatch.setattr(threads, "_SMALL_FLOP", forward_flop(model, spec))
    assert choose_threads(model, spec) == 4
    assert choose_threads(model, spec_of(32, batch_size=7)) == 1, "the operations are those of a batch"
    assert choose_threads(model, spec, setting=3) == 3


def test_the_user_s_number_of_openmp_threads_stays(four_cores, monkeypatch):
    spec = spec_of(32)
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
    monkeypatch.setattr(threads, "_SMALL_FLOP", 0)
    assert choose_threads(cnn_rnn(spec, filters=[4, 4], units=4), spec) == torch.get_num_threads()


def test_operations_are_counted():
    spec = spec_of(16, batch_size=3)
    inputs = keras.Input((4, 16, 16, 1), dtype="uint8", name="clips")
    pixels = keras.layers.Flatten()(keras.ops.cast(inputs, "float32"))
    model = keras.Model({"clips": inputs}, keras.layers.Dense(5, use_bias=False)(pixels))
    assert forward_flop(model, spec) == 2 * (4 * 16 * 16 * 5) * 3


def test_the_number_is_kept_and_used_and_then_put_back(tmp_path):
    before = torch.get_num_threads()
    assert read_threads(tmp_path) is None
    (tmp_path / threads.VERSIONS).write_text(json.dumps({"threads": str(before + 1)}))
    assert read_threads(tmp_path) == before + 1

    @with_threads_of_run
    def measure(run, *, twice):
        return twice * torch.get_num_threads()

    assert measure(tmp_path, twice=2) == 2 * (before + 1)
    assert torch.get_num_threads() == before
    with pytest.raises(KeyError), restored_threads():
        use_threads(before + 2)
        raise KeyError
    assert torch.get_num_threads() == before


def test_a_number_of_threads_is_at_least_one():
    from cinefeed.config.settings import TrainSettings

    assert TrainSettings(out="run").threads == "auto"
    with pytest.raises(SettingError, match="threads = 0 must be 1 or more"):
        TrainSettings(out="run", threads=0)
