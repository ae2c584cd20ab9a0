"""A model's scores for every row of a feed, what they measure, and the table they are kept in."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cinefeed.feed.batch import Batch
from cinefeed.feed.feed import Feed
from cinefeed.feed.targets import FeedSpec
from cinefeed.metrics import classification_metrics, regression_metrics


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of a part, row by row: `values` is (n,), or (n, classes) for more than two classes."""

    ids: NDArray[np.str_]
    targets: NDArray[Any]  # label values, or class numbers
    values: NDArray[np.float64]


def score(model: keras.Model, feed: Feed, *, tick: Callable[[int], object] | None = None) -> Scores:
    """Return a model's scores for one epoch of an evaluation feed. `tick` is told the clips done, batch by batch."""
    ids, targets, values = [], [], []
    for batch in feed:
        ids.append(batch.ids)
        targets.append(batch.targets.copy())
        values.append(np.asarray(model.predict_on_batch(model_inputs(model, batch)), np.float64))
        if tick is not None:
            tick(len(batch.ids))
    scores = np.concatenate(values)
    return Scores(
        ids=np.concatenate(ids),
        targets=np.concatenate(targets),
        values=scores[:, 0] if scores.shape[1] == 1 else scores,
    )


def model_inputs(model: keras.Model, batch: Batch) -> dict[str, Any]:
    """Return those arrays of a batch that the model takes, by name."""
    every = batch.inputs(padded=True)
    return {each.name: every[each.name] for each in model.inputs}


def measure(spec: FeedSpec, scores: Scores) -> dict[str, Any]:
    """Return the metrics of a whole part, over all its rows at once.

    A mean over batches would be wrong: F1 of a batch without a positive is undefined, R2 of one batch is another R2.
    """
    if spec.task == "regression":
        return dict(regression_metrics(targets=scores.targets.astype(np.float64), scores=scores.values))
    return dict(classification_metrics(targets=scores.targets, scores=scores.values, classes=spec.classes))


def metric_names(spec: FeedSpec) -> list[str]:
    """Return the names of the single numbers that `measure` gives for a task."""
    count = max(len(spec.classes), 4)
    if spec.task == "regression":
        targets, values = np.arange(count), np.arange(count, dtype=np.float64)
    else:
        targets = np.arange(count) % len(spec.classes)
        values = np.eye(len(spec.classes))[targets]
        values = values[:, 1] if spec.task == "binary" else values
    found = measure(spec, Scores(ids=targets.astype(np.str_), targets=targets, values=values))
    return list(single_numbers(found))


def single_numbers(metrics: dict[str, Any]) -> dict[str, float]:
    """Return those metrics that are one number: what an epoch's line can hold."""
    kinds = (int, float, np.integer, np.floating)
    return {
        name: float(value)
        for name, value in metrics.items()
        if isinstance(value, kinds) and not isinstance(value, bool)
    }


def predictions_table(
    spec: FeedSpec, scores: Scores, *, paths: list[str], part: str, labelled: bool = True
) -> pa.Table:
    """Return scores as a table: id, path, split, target (value or class name), and `score` or `score_<class>`.

    A binary task has one column `score`, the probability of the second class.
    """
    columns: dict[str, Any] = {
        "id": pa.array(scores.ids.tolist(), pa.string()),
        "path": pa.array(paths, pa.string()),
        "split": pa.array([part] * len(paths), pa.string()),
    }
    if labelled and spec.task == "regression":
        columns["target"] = pa.array(scores.targets.astype(np.float64))
    elif labelled:
        columns["target"] = pa.array([spec.classes[each] for each in scores.targets], pa.string())
    if scores.values.ndim == 1:
        columns["score"] = pa.array(scores.values)
    else:
        columns.update({f"score_{name}": pa.array(scores.values[:, i]) for i, name in enumerate(spec.classes)})
    return pa.table(columns)
