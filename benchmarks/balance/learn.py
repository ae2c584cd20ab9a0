"""One training: the same network and number of steps whatever the method, and its scores on every other part."""

from typing import Any

import keras
import numpy as np

import cinefeed as cf
from benchmarks.balance.data import Data
from benchmarks.balance.experiments import Training
from cinefeed.adapters.keras import FeedDataset
from cinefeed.data.sampling import Sampler
from cinefeed.feed.labels import Task
from cinefeed.models import cnn_rnn
from cinefeed.training.predictions import score


def train(data: Data, *, sampler: Sampler, training: Training, seed: int) -> dict[str, Any]:
    """Train, and return the targets and scores of each other part by its name.

    The weights of the last step are taken: an epoch chosen on a validation part would be another budget, and would
    favour the method that the part resembles.
    """
    task: Task = "binary" if data.classes else "regression"
    feed = cf.Feed(
        data.train.manifest(),
        target="label",
        classes=data.classes or None,
        task=task,
        clip=training.clip,
        frame=training.frame,
        transforms=training.transforms,
        sampler=sampler,
        batch_size=training.batch_size,
        seed=seed,
        workers=1,
        drop_last=True,  # a batch of another size is one more compilation
    )
    keras.utils.set_random_seed(seed)
    model = cnn_rnn(
        feed.spec,
        filters=training.filters,
        units=training.units,
        dense=training.units,
        seed=seed,
    )
    steps = training.epochs * len(feed)
    rate = keras.optimizers.schedules.CosineDecay(training.learning_rate, decay_steps=steps)
    loss = keras.losses.BinaryCrossentropy() if task == "binary" else keras.losses.MeanSquaredError()
    model.compile(optimizer=keras.optimizers.Adam(rate), loss=loss)
    dataset = FeedDataset(feed)
    history = model.fit(dataset, epochs=training.epochs, verbose=0, callbacks=[dataset.callback])
    scores = {}
    for name, part in {"val": data.val, **data.tests}.items():
        test_scores = score(model, feed.evaluation(part.manifest()))
        scores[name] = {"targets": test_scores.targets.tolist(), "scores": np.round(test_scores.values, 5).tolist()}
    return {"steps": steps, "loss": round(float(history.history["loss"][-1]), 5), "parts": scores}
