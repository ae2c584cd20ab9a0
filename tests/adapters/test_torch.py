import gc

import numpy as np
import torch

import cinefeed as cf
from cinefeed.adapters.torch import FeedLoader, as_tensor


def make(manifest, **changes):
    settings = {"clip": cf.Clip(frames=4), "frame": cf.Frame(height=16, width=16, channels=1), "batch_size": 4}
    return cf.Feed(manifest, target="age", **{**settings, **changes})


def test_the_same_samples_as_the_feed(manifest):
    loader = FeedLoader(make(manifest))
    assert len(loader) == 3
    for (inputs, targets, weights), batch in zip(loader, make(manifest), strict=True):
        assert np.array_equal(inputs["clips"].numpy(), batch.clips) and list(inputs) == ["clips"]
        assert np.array_equal(targets.numpy(), batch.targets) and np.array_equal(weights.numpy(), batch.weights)
    assert loader.feed.epoch == 1


def test_tensors_look_into_the_feeds_memory(manifest):
    feed = make(manifest, workers=0)
    inputs, _, _ = next(iter(FeedLoader(feed)))
    gc.collect()
    held = inputs["clips"].clone()
    for _ in range(3):
        list(FeedLoader(feed))
    assert torch.equal(inputs["clips"], held)


def test_padded_clips_come_with_their_mask(manifest):
    inputs, _, _ = next(iter(FeedLoader(make(manifest, clip=cf.Clip(frames=14, short="pad")))))
    assert inputs["valid"].dtype == torch.bool and inputs["valid"].sum(1).tolist() == [12] * 4


def test_uint16_becomes_a_type_that_torch_calculates_with():
    assert as_tensor(np.array([60000], np.uint16)).tolist() == [60000]
    assert as_tensor(np.array([60000], np.uint16)).dtype == torch.int32


def test_a_plain_loop_learns(manifest):
    feed = make(manifest, transforms=[cf.Normalize(mode="range", low=0, high=255)])
    loader = FeedLoader(feed)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4 * 16 * 16, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        total = 0.0
        for inputs, targets, weights in loader:
            error = model(inputs["clips"])[:, 0] - targets
            loss = (weights * error**2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        losses.append(total)
    assert losses[-1] < 0.1 * losses[0]
    assert feed.epoch == 60
