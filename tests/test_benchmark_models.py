"""The models benchmark compares one network with itself: folded, frame by frame, and by hand in PyTorch."""

from importlib import import_module
from pathlib import Path

import keras
import numpy as np
import pytest
import torch

SHAPE = (3, 68, 67, 1)  # an even and an odd side: "same" pads them each in its own way


@pytest.fixture
def networks(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1])
    models = import_module("benchmarks.models")
    keras.utils.set_random_seed(0)
    folded, distributed = models.reference_cnn_lstm(SHAPE), models.time_distributed(SHAPE)
    distributed.set_weights(folded.get_weights())
    by_hand = models.ByHand(SHAPE)
    clips = torch.from_numpy(np.random.default_rng(0).random((2, *SHAPE), np.float32))
    return models, folded, distributed, by_hand, clips


def test_all_three_are_the_same_network_once_they_have_the_same_weights(networks):
    models, *three, clips = networks
    assert models.differences(*three, clips)["by hand"] > 1e-2
    models.give_weights(three[-1], three[0])
    assert max(models.differences(*three, clips).values()) < 1e-4
    sizes = [sum(int(np.prod(each.shape)) for each in model.trainable_weights) for model in three[:2]]
    assert sizes == [sum(each.numel() for each in three[-1].parameters() if each.requires_grad)] * 2


def test_a_step_has_the_same_loss_but_for_dropout_and_trains(networks):
    models, *three, clips = networks
    models.give_weights(three[-1], three[0])
    targets = torch.full((2, 1), 30.0)  # far from the first predictions, so that dropout moves the loss by little
    ways = models.steps(*three, clips, targets)
    assert list(ways) == ["folded", "TimeDistributed", "by hand"]
    losses = {name: float(step()) for name, step in ways.items()}
    assert list(losses.values()) == pytest.approx([losses["by hand"]] * 3, rel=0.05)
    before = [each.detach().clone() for each in three[-1].parameters()]
    ways["by hand"]()
    assert any(not torch.equal(old, new) for old, new in zip(before, three[-1].parameters(), strict=True))
