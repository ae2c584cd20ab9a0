import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import pytest
import torch

import cinefeed as cf
from cinefeed.adapters.keras import FeedDataset


def make(manifest, **changes):
    settings = {
        "target": "age",
        "clip": cf.Clip(frames=4),
        "frame": cf.Frame(height=16, width=16, channels=1),
        "batch_size": 4,
        "transforms": [cf.Normalize()],
    }
    return cf.Feed(manifest, **{**settings, **changes})


def network(*, build=True):
    layers = [keras.layers.Flatten(), keras.layers.Dense(1)]
    if not build:
        return Named(layers)
    clips = keras.Input((4, 16, 16, 1), name="clips")
    value = clips
    for layer in layers:
        value = layer(value)
    return keras.Model(clips, value)


class Named(keras.Model):
    """A model that is built by its first batch."""

    def __init__(self, layers):
        super().__init__()
        self.parts = layers

    def call(self, inputs):
        value = inputs
        for layer in self.parts:
            value = layer(value)
        return value


class Recorder(FeedDataset):
    """Notes the targets of every batch that Keras takes; one batch alone is Keras building the model."""

    def __init__(self, feed):
        super().__init__(feed)
        self.requests = []

    @property
    def epochs(self):
        return [epoch for epoch in self.requests if len(epoch) > 1]

    def on_epoch_begin(self):
        super().on_epoch_begin()
        self.requests.append([])

    def __getitem__(self, index):
        inputs, targets = super().__getitem__(index)
        if self.requests:
            self.requests[-1].append(np.asarray(targets).tolist())
        return inputs, targets


def expected(manifest, epochs):
    feed = make(manifest)
    return [[batch.targets.tolist() for batch in feed] for _ in range(epochs)]


@pytest.mark.parametrize("build", [True, False])
def test_fit_gets_the_feeds_batches_in_the_feeds_order(manifest, build):
    dataset = Recorder(make(manifest))
    model = network(build=build)
    model.compile("sgd", "mse")
    model.fit(dataset, epochs=3, verbose=0)  # shuffle=True is Keras' default
    assert dataset.epochs == expected(manifest, 3)
    assert dataset.feed.epoch == 3


def test_fit_with_validation_and_initial_epoch(manifest):
    feed = make(manifest)
    dataset, val = Recorder(feed), Recorder(feed.evaluation(manifest))
    model = network()
    model.compile("sgd", "mse")
    model.fit(dataset, validation_data=val, epochs=4, initial_epoch=2, verbose=0, callbacks=[dataset.callback])
    assert dataset.epochs == expected(manifest, 4)[2:]
    assert [sum(len(batch) for batch in epoch) for epoch in val.epochs] == [11, 11]
    assert dataset.consumed == 3


def test_building_a_model_neither_consumes_nor_advances(manifest):
    dataset = Recorder(make(manifest))
    model = network(build=False)
    model.compile("sgd", "mse")
    model.fit(dataset, epochs=1, verbose=0)
    assert len(dataset.requests) == 2 and len(dataset.requests[0]) == 1, "Keras asked for one batch to build the model"
    assert dataset.epochs == expected(manifest, 1) and dataset.feed.epoch == 1


def test_one_batch_an_epoch(manifest):
    dataset = Recorder(make(manifest, batch_size=11))
    model = network(build=False)
    model.compile("sgd", "mse")
    model.fit(dataset, epochs=2, verbose=0, callbacks=[dataset.callback])
    feed = make(manifest, batch_size=11)
    assert dataset.requests[-2:] == [[batch.targets.tolist() for batch in feed] for _ in range(2)]


class StopAfter(keras.callbacks.Callback):
    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def on_train_batch_end(self, batch, logs=None):
        self.batches -= 1
        if self.batches == 0:
            self.model.stop_training = True


@pytest.mark.parametrize("followed", [True, False])
def test_an_epoch_that_was_stopped_is_left_unless_keras_repeats_it(manifest, followed):
    dataset = Recorder(make(manifest))
    model = network()
    model.compile("sgd", "mse")
    callbacks = [dataset.callback] if followed else []
    model.fit(dataset, epochs=2, verbose=0, callbacks=[StopAfter(2), *callbacks])
    assert dataset.feed.state()["draws"] == 8 and (dataset.feed.epoch, dataset.feed.next_epoch) == (0, 1)
    assert dataset.consumed == 2 * followed
    model.fit(dataset, epochs=1, verbose=0, callbacks=callbacks)
    assert dataset.epochs[-1] == expected(manifest, 2)[not followed]


@pytest.mark.parametrize("build", [True, False])
@pytest.mark.parametrize("followed", [True, False])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_short_epochs_are_different_ones(manifest, build, followed, steps):
    """`shuffle`, on which is Keras' default, and which changes nothing; epochs as long as Keras allows by then."""
    dataset = Recorder(make(manifest))
    model = network(build=build)
    model.compile("sgd", "mse")
    callbacks = [dataset.callback] if followed else []
    epochs = {1: 3, 2: 1, 3: 3}[steps]
    for _ in range(2 if steps == 2 else 1):
        model.fit(dataset, epochs=epochs, initial_epoch=0, steps_per_epoch=steps, verbose=0, callbacks=callbacks)
    whole = expected(manifest, 3)
    building = 1  # the first request, to build the model and its loss
    requests = dataset.requests[building:]
    if steps == 2:
        assert requests == [whole[0][:2], whole[0 if followed else 1][:2]]
    else:
        assert requests == [epoch[:steps] for epoch in whole]


def test_a_validation_of_few_steps_begins_at_the_first_row(manifest):
    feed = make(manifest)
    dataset, val = Recorder(feed), Recorder(feed.evaluation(manifest))
    model = network()
    model.compile("sgd", "mse")
    for steps in (1, 2):
        model.fit(dataset, validation_data=val, validation_steps=steps, epochs=2, verbose=0)
        ages = [[20.0 + row * row for row in rows] for rows in (range(4), range(4, 8))]
        assert val.requests[-2:] == [ages[:steps]] * 2
    assert val.feed.epoch == 0


def test_building_a_model_keeps_the_place_of_a_resume(manifest):
    before = make(manifest)
    batches = iter(before)
    next(batches)
    dataset = Recorder(make(manifest).restore(before.state()))
    model = network(build=False)
    model.compile("sgd", "mse")
    model.fit(dataset, epochs=1, steps_per_epoch=2, verbose=0)
    whole = expected(manifest, 1)[0]
    assert dataset.requests == [whole[1:2], whole[1:]]
    assert dataset.feed.epoch == 1


def test_what_moved_the_feed_meanwhile_stays(manifest):
    """Keras ends an epoch that was stopped when the next `fit` begins."""
    dataset = Recorder(make(manifest))
    model = network()
    model.compile("sgd", "mse")
    model.fit(dataset, epochs=1, verbose=0)
    model.fit(dataset, epochs=1, verbose=0, callbacks=[StopAfter(1)])
    dataset.feed.set_epoch(0)
    model.fit(dataset, epochs=1, verbose=0)
    assert dataset.requests[-1] == expected(manifest, 1)[0]


def test_early_stopping_after_whole_epochs(manifest):
    dataset = Recorder(make(manifest))
    model = network()
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.fit(
        dataset, epochs=9, verbose=0, callbacks=[keras.callbacks.EarlyStopping("loss", patience=1, min_delta=1e9)]
    )
    assert dataset.epochs == expected(manifest, 2)


def test_evaluate_and_predict(manifest):
    val = make(manifest).evaluation(manifest)
    model = network()
    model.compile("sgd", "mse")
    scores = model.predict(FeedDataset(val), verbose=0)[:, 0]
    loss = model.evaluate(FeedDataset(val), verbose=0)
    ages = np.array([20.0 + row * row for row in range(11)])
    assert scores.shape == (11,)
    assert loss == pytest.approx(np.mean((scores - ages) ** 2), rel=1e-4)


def test_torch_gets_tensors_without_a_copy(manifest):
    inputs, targets = FeedDataset(make(manifest))[5]
    assert isinstance(inputs, torch.Tensor) and isinstance(targets, torch.Tensor)


def test_the_spec_decides_on_names_and_weights(manifest):
    table = manifest.table.append_column("size", pa.array([1.0, 2.0, *[0.0] * 9]))
    table = table.append_column("height", pa.array([None, *range(10)], pa.float64()))
    whole = cf.Manifest.from_table(table, root=manifest.root)

    def item(**changes):
        return FeedDataset(make(whole, **changes))[0]

    assert len(item()) == len(item(target="sick")) == len(item(target=["age", "sick"])) == len(item(target="clip")) == 2
    for weighed in (
        {"inputs": cf.Inputs(weight="size")},
        {"target": "sick", "sampler": cf.BalancedClasses(by="weights")},
        {"target": ["age", "height"]},
        {"target": None},
        {"shard": cf.Shard(rank=0, world_size=2), "clip": cf.Clip(frames=4)},
    ):
        assert len(item(**weighed)) == 3, weighed
    assert len(item(shard=cf.Shard(rank=0, world_size=2), drop_last=True)) == 2
    assert list(FeedDataset(make(whole), named=True)[0][0]) == ["clips"]
    assert list(item(inputs=cf.Inputs(covariates=["size"]))[0]) == ["clips", "size"]
    assert list(item(clip=cf.Clip(frames=14, short="pad"))[0]) == ["clips", "valid"]
    assert item(target="clip", inputs=cf.Inputs(weight="size"))[2].shape == (4, 1, 1, 1)


def test_class_weights_that_meet_weights_are_refused(manifest):
    table = manifest.table.append_column("size", pa.array([1.0] * 11))
    feed = make(cf.Manifest.from_table(table, root=manifest.root), target="sick", inputs=cf.Inputs(weight="size"))
    model = network()
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="class_weight"):
        model.fit(FeedDataset(feed), class_weight={0: 1.0, 1: 2.0}, verbose=0)


def test_a_model_with_a_mask_gets_it(manifest):
    feed = make(manifest, clip=cf.Clip(frames=14, short="pad"))
    clips, valid = keras.Input((14, 16, 16, 1), name="clips"), keras.Input((14,), dtype="bool", name="valid")
    counted = keras.ops.sum(keras.ops.cast(valid, "float32"), axis=1, keepdims=True)
    model = keras.Model({"clips": clips, "valid": valid}, counted + 0 * keras.ops.sum(clips, axis=(1, 2, 3)))
    assert model.predict(FeedDataset(feed.evaluation(manifest)), verbose=0).tolist() == [[12.0]] * 11


JAX = """
import json, sys
import keras, numpy as np, cinefeed as cf
from cinefeed.adapters.keras import FeedDataset
assert keras.config.backend() == "jax"
manifest = cf.Manifest.read(sys.argv[1])
feed = cf.Feed(manifest, target="age", clip=cf.Clip(frames=4), frame=cf.Frame(height=16, width=16, channels=1),
               batch_size=4, transforms=[cf.Normalize()])
class Recorder(FeedDataset):
    labels_by_epoch = []
    def on_epoch_begin(self):
        super().on_epoch_begin()
        self.labels_by_epoch.append([])
    def __getitem__(self, index):
        batch = super().__getitem__(index)
        self.labels_by_epoch[-1].append(batch[1].tolist())
        return batch
clips = keras.Input((4, 16, 16, 1), name="clips")
model = keras.Model(clips, keras.layers.Dense(1)(keras.layers.Flatten()(clips)))
model.compile("sgd", "mse")
dataset = Recorder(feed)
model.fit(dataset, epochs=2, verbose=0, callbacks=[dataset.callback])
assert model.predict(FeedDataset(feed.evaluation(manifest)), verbose=0).shape == (11, 1)
print(json.dumps(dataset.labels_by_epoch))
"""


def test_jax_gets_the_same_batches(manifest, tmp_path):
    path = tmp_path / "m.parquet"
    manifest.write(path)
    done = subprocess.run(
        [sys.executable, "-c", JAX, str(path)],
        env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(Path(cf.__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    digests = json.loads(done.stdout.splitlines()[-1])
    assert [epoch for epoch in digests if len(epoch) > 1] == expected(manifest, 2)


@pytest.mark.parametrize("backend", ["torch", pytest.param("jax", marks=pytest.mark.slow)])  # JAX compiles for 30 s
def test_networks_as_others_write_them(manifest, tmp_path, backend):
    path = tmp_path / "m.parquet"
    manifest.write(path)
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("keras_networks.py"), str(path)],
        env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(Path(cf.__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
