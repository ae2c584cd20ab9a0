import gc
import json
from itertools import islice

import numpy as np
import pytest
import torch

import cinefeed as cf
from cinefeed.adapters.tensors import as_tensor
from cinefeed.adapters.torch import FeedLoader
from cinefeed.core.errors import ArgumentError, SettingError, StaleIteratorError


def make(manifest, **changes):
    settings = {"clip": cf.Clip(frames=4), "frame": cf.Frame(height=16, width=16, channels=1), "batch_size": 4}
    return cf.Feed(manifest, target="age", **{**settings, **changes})


def test_the_same_samples_as_the_feed(manifest):
    loader = FeedLoader(make(manifest))
    assert len(loader) == 3
    assert repr(loader) == f"FeedLoader(layout='BTHWC', device=None, pin_memory={loader.pin_memory})\n{loader.feed!r}"
    for (inputs, targets, weights), batch in zip(loader, make(manifest), strict=True):
        assert np.array_equal(inputs["clips"].numpy(), batch.clips) and list(inputs) == ["clips"]
        assert np.array_equal(targets.numpy(), batch.targets) and np.array_equal(weights.numpy(), batch.weights)
    assert loader.feed.epoch == 1


def test_the_rows_of_an_evaluation_are_in_the_order_of_its_part(manifest):
    """Ids can so be joined to the scores of a loader, which yields none; see docs/feed.md."""
    part = manifest.take([7, 2, 9, 0, 5])
    ids, ages = part.column("id").to_pylist(), part.column("age").to_pylist()
    feeds = [make(manifest, batch_size=2, shard=cf.Shard(rank=rank, world_size=2)) for rank in (0, 1)]
    for feed in (make(manifest, sampler=cf.UniformLabels(bins=3), batch_size=2), *feeds):
        loader = FeedLoader(feed.evaluation(part, clips=1, shard=cf.Shard(rank=0, world_size=1)))
        assert np.concatenate([targets for _, targets, _ in loader]).tolist() == ages
    of_ranks = [[batch.ids.tolist() for batch in feed.evaluation(part)] for feed in feeds]
    assert of_ranks == [[ids[:2], ids[4:]], [ids[2:4], [""]]]  # padding has no id


def test_a_data_loader_of_torch_is_refused(manifest):
    """With batch_size=None it would return the same clips in every epoch, since it never moves the epoch."""
    feed = make(manifest, workers=0)
    for dataset in (feed, torch.utils.data.Subset(feed, [0])):
        for batch_size in (None, 1, 2):
            with pytest.raises(ArgumentError, match=r"whole batches.*FeedLoader\(feed\)"):
                next(iter(torch.utils.data.DataLoader(dataset, batch_size=batch_size)))
    loader = FeedLoader(feed)
    for dataset in (loader, torch.utils.data.Subset(loader, [0])):
        for batch_size in (None, 1, 2):
            with pytest.raises(ArgumentError, match=r"a FeedLoader was requested.* in place of torch's DataLoader"):
                next(iter(torch.utils.data.DataLoader(dataset, batch_size=batch_size)))


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


def test_bfloat16_is_torchs_own(manifest):
    feed = make(manifest, transforms=[cf.Normalize(mode="range", high=255, dtype="bfloat16")])
    (inputs, _, _), batch = next(iter(FeedLoader(feed))), feed.batch(0)
    assert inputs["clips"].dtype == torch.bfloat16
    assert np.array_equal(inputs["clips"].float().numpy(), batch.clips.astype(np.float32)) and batch.clips.any()


@pytest.mark.parametrize(("layout", "shape"), [("BTCHW", (4, 4, 1, 16, 16)), ("BCTHW", (4, 1, 4, 16, 16))])
def test_a_layout_is_a_view(manifest, layout, shape):
    (inputs, _, _), batch = next(iter(FeedLoader(make(manifest), layout=layout))), make(manifest)[0]
    assert inputs["clips"].shape == shape and inputs["clips"].untyped_storage().nbytes() >= batch.clips.nbytes
    axes = ["BTHWC".index(axis) for axis in layout]
    assert np.array_equal(inputs["clips"].numpy(), batch.clips.transpose(axes))


def test_an_unknown_layout(manifest):
    with pytest.raises(SettingError, match="did you mean 'BTCHW'"):
        FeedLoader(make(manifest), layout="BTCWH")
    with pytest.raises(SettingError, match="layout=None is not a choice"):
        FeedLoader(make(manifest), layout=None)


def test_memory_is_pinned_only_with_a_gpu(manifest, monkeypatch):
    with pytest.raises(ArgumentError, match=r"pin_memory must be a bool, found 'yes'; leave it out"):
        FeedLoader(make(manifest), pin_memory="yes")

    def refuse(tensor):
        raise RuntimeError("Cannot access accelerator device when none is available.")

    monkeypatch.setattr(torch.Tensor, "pin_memory", refuse)
    with pytest.raises(
        SettingError, match=r"pin_memory=True\) cannot be used: Cannot access .*; leave out pin_memory="
    ):
        FeedLoader(make(manifest), pin_memory=True)


@pytest.mark.parametrize("batches_read", range(1, 6))
def test_a_loader_resumes_after_the_batch_that_was_taken(manifest, batches_read):
    loader = FeedLoader(make(manifest))
    expected = [inputs["clips"].clone() for _ in range(2) for inputs, _, _ in loader]
    loader, total = FeedLoader(make(manifest)), 0
    while total < batches_read:
        for _ in loader:
            total += 1
            if total == batches_read:
                state = json.loads(json.dumps(loader.state_dict()))
                break
    again = FeedLoader(make(manifest))
    again.load_state_dict(state)
    rest = []
    while len(rest) < 6 - batches_read:
        rest += [inputs["clips"].clone() for inputs, _, _ in again]
    assert all(torch.equal(one, other) for one, other in zip(rest, expected[batches_read:], strict=False))


@pytest.mark.parametrize("device", [None, "meta"])
def test_a_newer_iterator_takes_over(manifest, device):
    loader = FeedLoader(make(manifest), device=device)
    with pytest.raises(StaleIteratorError, match=r"use feed\.batch"):
        list(zip(loader, loader, strict=True))
    with pytest.raises(StaleIteratorError, match="after batch 1 of 3 of epoch 0"):
        for _ in loader:
            next(iter(loader))
    assert loader.feed.epoch == 1


def test_a_loop_that_was_broken_off_is_left_for_the_next_epoch(manifest):
    loader = FeedLoader(make(manifest))
    clips = [inputs["clips"].clone() for _ in range(3) for inputs, _, _ in islice(loader, 2)]
    feed = make(manifest)
    expected = [feed.batch(index, epoch=epoch).clips for epoch in range(3) for index in range(2)]
    assert all(np.array_equal(one, other) for one, other in zip(clips, expected, strict=True))
    state = loader.state_dict()
    assert (state["epoch"], state["draws"]) == (2, 8)
    iter(loader)
    assert (loader.state_dict()["epoch"], loader.state_dict()["draws"]) == (3, 0)


@pytest.mark.parametrize("device", [None, "meta"])
def test_no_batch_is_held_while_the_next_is_made(manifest, device):
    loader = FeedLoader(make(manifest, workers=cf.Workers(count=0, prefetch=0)), device=device)
    gc.disable()
    try:
        for _ in range(3):
            for item in loader:
                del item
        assert loader.feed._builder.buffers.size == 1
    finally:
        gc.enable()


def test_a_device_of_another_kind_gets_its_batches(manifest):
    for inputs, targets, weights in FeedLoader(make(manifest), device="meta"):
        assert {inputs["clips"].device.type, targets.device.type, weights.device.type} == {"meta"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_batches_are_copied_ahead_to_a_cuda_device(manifest):
    loader = FeedLoader(make(manifest), device="cuda")
    states = []
    for (inputs, targets, _), batch in zip(loader, make(manifest), strict=True):
        states.append(loader.state_dict()["draws"])
        assert inputs["clips"].device.type == "cuda"
        assert np.array_equal(inputs["clips"].cpu().numpy(), batch.clips)
        assert np.array_equal(targets.cpu().numpy(), batch.targets)
    assert states == [4, 8, 0]
