"""Feeds with every transform and sampler, and what their epochs hold as text, for tests here and in other processes."""

import hashlib
from collections.abc import Mapping
from dataclasses import fields

import numpy as np

import cinefeed as cf
from cinefeed import transforms as ct

TRANSFORMS = [
    cf.Rotate(degrees=25),
    cf.Shift(pixels=4),
    cf.Scale(factor=0.1),
    cf.Flip(),
    cf.Brightness(factor=0.2),
    cf.Contrast(factor=0.2),
    cf.Normalize(),
]
# The rest of the catalogue, in an order that fuses some of them; colour is needed.
CATALOGUE = [
    ct.Speed(factor=0.2),
    ct.Jitter(frames=1),
    ct.FrameDrop(share=0.2),
    ct.Sometimes(transform=ct.Reverse()),
    ct.PhaseShift(fraction=0.2),
    ct.Pad(pixels=2),
    ct.Shear(degrees=5),
    ct.Elastic(pixels=3),
    ct.OneOf(transforms=(ct.RandomResizedCrop(), ct.Resize(height=32, width=40))),
    ct.Gamma(gamma=0.2),
    ct.RandomOrder(transforms=(ct.Window(level=(100, 140), width=(150, 250)), ct.ClipPercentiles(), ct.Equalize())),
    ct.Saturation(factor=0.3),
    ct.Noise(std=0.05),
    ct.Speckle(std=0.1, fresh="clip"),
    ct.Blur(sigma=1),
    ct.CutOut(size=0.3),
    ct.SectorMask(degrees=80),
    ct.Normalize(mode="standard"),
]
SAMPLERS = {
    "natural": {"sampler": cf.Natural()},
    "in order": {"sampler": cf.Natural(shuffle=False)},
    "uniform": {"sampler": cf.UniformLabels()},
    "balanced": {"sampler": cf.BalancedClasses(), "target": "name"},
}


def make(manifest, *, sampler="natural", **changes):
    """Return a feed of a manifest with the label columns `number` and `name`."""
    settings = {
        "target": "number",
        "clip": cf.Clip(frames=8, short="pad"),
        "frame": cf.Frame(height=48, width=48, channels=1),
        "transforms": TRANSFORMS,
        "batch_size": 8,
        "seed": 7,
        "workers": 0,
    }
    return cf.Feed(manifest, **{**settings, **SAMPLERS[sampler], **changes})


def digest(*values):
    """Return a digest of arrays, by their types, shapes and bytes; of a batch, or of arrays by name, of all of them."""
    whole = hashlib.sha256()
    for value in values:
        if isinstance(value, cf.Batch):
            value = {each.name: getattr(value, each.name) for each in fields(value)}
        if isinstance(value, Mapping):
            text = " ".join(f"{name}={digest(array)}" for name, array in value.items())
            whole.update(text.encode())
        else:
            array = np.ascontiguousarray(value)
            whole.update(f"{array.dtype} {array.shape} ".encode() + array.tobytes())
    return whole.hexdigest()


def epochs(feed, count=2):
    """Return the digests of the batches of some epochs, a list an epoch."""
    return [[digest(batch) for batch in feed] for _ in range(count)]


def items(loader, count=2):
    """Return the same of an adapter that iterates `(inputs, targets, weights)`."""
    return [[digest(*item) for item in loader] for _ in range(count)]


def keras_digest(item):
    """Return the digest of a FeedDataset's item as of `(inputs by name, targets, weights)`."""
    inputs, targets, *weights = item
    inputs = inputs if isinstance(inputs, Mapping) else {"clips": inputs}
    return digest(inputs, targets, *(weights or [np.ones(len(targets), np.float32)]))


def as_items(feed, count=2):
    """Return what `items` should give of each adapter of a feed with padded clips."""
    return [
        [digest({"clips": each.clips, "valid": each.valid}, each.targets, each.weights) for each in feed]
        for _ in range(count)
    ]
