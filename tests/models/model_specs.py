"""Feed specs, clips and labels for tests of networks."""

import dataclasses

import numpy as np

from cinefeed.feed.labels import FeedSpec

SPEC = FeedSpec(
    clip_shape=(5, 32, 24, 1),
    dtype=np.dtype("uint8"),
    batch_size=4,
    target="age",
    task="regression",
    target_mean=56.0,
    target_scale=11.0,
)
TASKS = {
    "regression": SPEC,
    "binary": dataclasses.replace(SPEC, task="binary", classes=("no", "yes"), target_mean=0.0, target_scale=1.0),
    "multiclass": dataclasses.replace(SPEC, task="multiclass", classes=("a", "b", "c")),
}
LOSSES = {"regression": "mse", "binary": "binary_crossentropy", "multiclass": "sparse_categorical_crossentropy"}


def clips_of(spec, *, number=4, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (number, *spec.clip_shape)).astype(spec.dtype)


def labels_of(spec):
    return np.array([30.0, 50.0, 60.0, 70.0], np.float32) if spec.task == "regression" else np.array([0, 1, 1, 0])


def trained(model, spec, *, steps=3):
    """Return the model after a few steps: the last layer of a regression and the means of batch norm are 0 at first."""
    model.compile(optimizer="adam", loss=LOSSES[spec.task])
    inputs = {"clips": clips_of(spec)}
    if spec.padded:
        inputs["valid"] = np.ones((4, spec.clip_shape[0]), np.bool_)
    for _ in range(steps):
        assert np.isfinite(model.train_on_batch(inputs, labels_of(spec)))
    return model


def predict(model, clips, **others):
    return model.predict({"clips": clips, **others}, verbose=0)


def half_padded(spec, *, valid=3):
    """Return two batches with black and with noise in padding frames, and equal valid frames."""
    mask = np.ones((4, spec.clip_shape[0]), np.bool_)
    mask[:, valid:] = False
    black = clips_of(spec, seed=4)
    black[:, valid:] = 0
    noise = black.copy()
    noise[:, valid:] = clips_of(spec, seed=5)[:, valid:]
    return {"clips": black, "valid": mask}, {"clips": noise, "valid": mask}


def padding_changes_nothing(build, spec, *, targets=None, loss=None):
    """Assert that noise in padding frames reaches neither a training step nor a score."""
    black, noise = half_padded(spec)
    targets = labels_of(spec) if targets is None else targets
    first, second = build(), build()
    for model, inputs in ((first, black), (second, noise)):
        model.compile(optimizer="adam", loss=loss or LOSSES[spec.task])
        for _ in range(2):
            model.train_on_batch(inputs, targets)
    assert all(np.array_equal(one, two) for one, two in zip(first.get_weights(), second.get_weights(), strict=True))
    scores = first.predict(black, verbose=0)
    assert np.array_equal(first.predict(noise, verbose=0), scores)
    everything = np.ones_like(noise["valid"])
    assert np.abs(first.predict({**noise, "valid": everything}, verbose=0) - scores).max() > 1e-3
    nothing = np.zeros_like(everything)  # padding rows of a batch
    assert np.isfinite(first.predict({**noise, "valid": nothing}, verbose=0)).all()
