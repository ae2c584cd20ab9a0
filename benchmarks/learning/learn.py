"""One training, and its metric on the test part."""

from typing import Any

import keras
import numpy as np

import cinefeed as cf
from benchmarks.learning.data import FRAMES, SIDE, Data
from benchmarks.learning.tasks import DiscTask, Task, Trial
from cinefeed.adapters.keras import FeedDataset
from cinefeed.metrics import classification_metrics, regression_metrics

DIGITS = 4  # of a score: another order of summation changes the seventh digit, which would break ties


def train(data: Data, *, task: DiscTask, trial: Trial, seed: int) -> dict[str, Any]:
    """Train a trial's network; return its metric on the test part and its number of parameters.

    The weights of the last step are used, so that no part is needed to select an epoch.
    """
    feed = cf.Feed(
        data.train,
        target=task.target,
        clip=cf.Clip(frames=FRAMES, position="start"),
        frame=cf.Frame(height=SIDE, width=SIDE, channels=1),
        batch_size=task.batch_size,
        seed=seed,
        workers=1,
        drop_last=True,  # on JAX a batch of another size needs another compilation
        **trial.feed,
    )
    keras.utils.set_random_seed(seed)
    model = getattr(cf.models, trial.model)(feed.spec, seed=seed, **trial.options)
    rate = keras.optimizers.schedules.CosineDecay(task.learning_rate, decay_steps=task.epochs * len(feed))
    losses = {
        "binary": keras.losses.BinaryCrossentropy,
        "regression": keras.losses.MeanSquaredError,
        "clip": cf.models.ClipLoss,
    }
    model.compile(optimizer=keras.optimizers.Adam(rate), loss=losses[feed.spec.task]())
    dataset = FeedDataset(feed)
    model.fit(dataset, epochs=task.epochs, verbose=0, callbacks=[dataset.callback])
    return {task.metric: measure(model, feed.evaluation(data.test), task=task), "parameters": model.count_params()}


def measure(model: keras.Model, feed: cf.Feed, *, task: Task) -> float:
    """Return the task's metric over all rows of a part."""
    targets, scores = [], []
    for batch in feed:
        targets.append(np.array(batch.targets))
        scores.append(np.asarray(model.predict_on_batch(batch.inputs(padded=feed.spec.padded)), np.float64))
    target, score = np.concatenate(targets), np.concatenate(scores)
    if feed.spec.task == "clip":
        return float(np.mean((score - target) ** 2))
    rounded_scores = np.round(score[:, 0], DIGITS)
    if feed.spec.task == "regression":
        return float(regression_metrics(targets=target.astype(np.float64), scores=rounded_scores)[task.metric])
    return float(classification_metrics(targets=target, scores=rounded_scores, classes=feed.spec.classes)[task.metric])
