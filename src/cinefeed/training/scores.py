"""A model's scores for every row of a feed, what they measure, and the table they are kept in."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cinefeed.feed.batch import Batch
from cinefeed.feed.feed import Feed
from cinefeed.feed.targets import FeedSpec, TargetSpec
from cinefeed.manifest.table import Manifest
from cinefeed.metrics import classification_metrics, regression_metrics
from cinefeed.metrics.predictions import check_column_name, predictions_of, target_columns
from cinefeed.models.parts import targets_of

_FIXED = ("id", "path", "split", "clip")


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of a part, clip by clip; of several targets `targets`, `values` and `known` are by name.

    `values` is (clips,), or (clips, classes) for more than two classes; of the task "clip" it is the mean squared error
    of each clip that was given back, and there are no targets.
    """

    ids: NDArray[np.str_]
    targets: Any  # label values, or class numbers
    values: Any
    clip: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))  # which of its video, from 0
    known: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)  # of several targets: which rows have a label

    def of(self, target: str) -> "Scores":
        """Return one of several targets: its scores where it has a label."""
        rows = self.known[target]
        return Scores(
            ids=self.ids[rows],
            targets=self.targets[target][rows],
            values=self.values[target][rows],
            clip=self.clip[rows],
        )


def score(model: keras.Model, feed: Feed, *, tick: Callable[[int], object] | None = None) -> Scores:
    """Return a model's scores for one epoch of an evaluation feed. `tick` is told the clips done, batch by batch."""
    found = []
    for scores in score_batches(model, feed):
        found.append(scores)
        if tick is not None:
            tick(len(scores.ids))
    scores = _joined(found)
    return replace(scores, known=_known(feed, scores)) if isinstance(scores.targets, Mapping) else scores


def score_batches(model: keras.Model, feed: Feed, *, at_least: int = 1) -> Iterator[Scores]:
    """Yield a model's scores as an evaluation feed gives its batches, so many rows at once or more; no padding."""
    found: list[Scores] = []
    for batch in feed:
        found.append(_score(model, batch, task=feed.spec.task, clips=feed.settings.clips_per_video.count))
        if sum(len(each.ids) for each in found) >= at_least:
            yield _joined(found)
            found = []
    if found:
        yield _joined(found)


def _score(model: keras.Model, batch: Batch, *, task: str, clips: int) -> Scores:
    """Return the scores of one batch, copied: its memory is used again."""
    real = np.flatnonzero(batch.ids != "")
    output = model.predict_on_batch(model_inputs(model, batch))
    targets = np.zeros(len(batch.ids), np.float32) if task == "clip" else batch.targets
    if task == "clip":
        values: Any = _errors(output, batch.targets)
    else:
        values = {name: _head(each) for name, each in output.items()} if isinstance(output, Mapping) else _head(output)
    return Scores(
        ids=batch.ids[real],
        targets=_rows(targets, real),
        values=_rows(values, real),
        clip=(np.arange(len(batch.ids), dtype=np.int32) % clips)[real],
    )


def model_inputs(model: keras.Model, batch: Batch) -> dict[str, Any]:
    """Return those arrays of a batch that the model takes, by name."""
    every = batch.inputs(padded=True)
    return {each.name: every[each.name] for each in model.inputs}


def by_video(scores: Scores) -> Scores:
    """Return scores with those of the clips of a video averaged, in the order of the videos."""
    if not scores.clip.any():
        return scores
    ids, first, number = np.unique(scores.ids, return_index=True, return_inverse=True)
    order = np.argsort(first)
    places = np.argsort(order)[number]

    def mean(values: NDArray[Any]) -> NDArray[np.float64]:
        sums = np.zeros((len(ids), *values.shape[1:]))
        np.add.at(sums, places, values)
        return sums / np.bincount(places).reshape(-1, *[1] * (values.ndim - 1))

    rows = first[order]
    return Scores(
        ids=scores.ids[rows],
        targets=_rows(scores.targets, rows),
        values={name: mean(each) for name, each in scores.values.items()}
        if isinstance(scores.values, Mapping)
        else mean(scores.values),
        clip=np.zeros(len(ids), np.int32),
        known=_rows(scores.known, rows),
    )


def measure(spec: FeedSpec, scores: Scores) -> dict[str, Any]:
    """Return the metrics of a whole part, over all its videos at once; of several targets `<target>_<metric>`.

    A mean over batches would be wrong: F1 of a batch without a positive is undefined, R2 of one batch is another R2.
    """
    videos = by_video(scores)
    if spec.targets:
        found = {each.name: _measure(each, videos.of(each.name)) for each in spec.targets}
        return {f"{name}_{metric}": value for name, metrics in found.items() for metric, value in metrics.items()}
    return _measure(spec, videos)


def metric_names(spec: FeedSpec) -> list[str]:
    """Return the names of the single numbers that `measure` gives for a task."""
    found = {each.name: list(single_numbers(_measure(each, _made_up(each)))) for each in targets_of(spec)}
    if not spec.targets:
        return found[spec.target]
    return [f"{name}_{metric}" for name, metrics in found.items() for metric in metrics]


def single_numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return those metrics that are one number: what an epoch's line can hold."""
    kinds = (int, float, np.integer, np.floating)
    return {
        name: float(value)
        for name, value in metrics.items()
        if isinstance(value, kinds) and not isinstance(value, bool)
    }


def predictions_table(
    spec: FeedSpec,
    scores: Scores,
    *,
    manifest: Manifest,
    part: str,
    columns: Sequence[str] = (),
    labelled: bool = True,
) -> pa.Table:
    """Return scores as a table, a row a clip: id, path, split, clip, columns of the manifest, labels and scores.

    See cinefeed.metrics.predictions for how the columns of the targets are named. `columns` are those that evaluation
    needs beside them, such as the patient; the rows of the manifest are found by their id. Of the task "clip" the one
    `score` is the error of the clip. Raises SettingError for a column that is called as one of the table's own.
    """
    rows = _places(manifest, scores.ids)
    table: dict[str, Any] = {
        "id": pa.array(scores.ids.tolist(), pa.string()),
        "path": manifest.shown().cast(pa.string()).take(rows),
        "split": pa.array([part] * len(rows), pa.string()),
        "clip": pa.array(scores.clip, pa.int32()),
    }
    for name in columns:
        check_column_name(name)
        if name not in _FIXED:
            table[name] = manifest.column(name).take(rows)
    if spec.task == "clip":
        return pa.table({**table, "score": pa.array(scores.values, pa.float64())})
    asked = targets_of(spec)
    described = []
    for each in asked:
        task: Any = each.task
        where = target_columns(each.name, task=task, classes=each.classes, several=bool(spec.targets))
        values = scores.values[each.name] if spec.targets else scores.values
        if labelled:
            targets = scores.targets[each.name] if spec.targets else scores.targets
            table[where.target] = _labels(each, targets, known=scores.known.get(each.name))
        for place, name in enumerate(where.scores):
            table[name] = pa.array(values[:, place] if values.ndim > 1 else values, pa.float64())
        described.append(where)
    return predictions_of(pa.table(table), described).table


def _labels(target: TargetSpec, values: NDArray[Any], *, known: NDArray[np.bool_] | None) -> pa.Array:
    missing = None if known is None else ~known
    if not target.classes:
        return pa.array(values.astype(np.float64), pa.float64(), mask=missing)
    return pa.array(np.array(target.classes, object)[values], pa.string(), mask=missing)


def _measure(target: TargetSpec | FeedSpec, scores: Scores) -> dict[str, Any]:
    if target.task == "clip":
        return {"mse": float(np.mean(scores.values))}
    if target.task == "regression":
        return dict(regression_metrics(targets=scores.targets.astype(np.float64), scores=scores.values))
    classes = target.classes
    return dict(classification_metrics(targets=scores.targets, scores=scores.values, classes=classes))


def _made_up(target: TargetSpec) -> Scores:
    """Return scores of a task that can be measured: what is measured is known before there is a model."""
    count = max(len(target.classes), 4)
    targets: NDArray[Any] = np.arange(count)
    values = targets.astype(np.float64)
    if target.classes:
        targets = targets % len(target.classes)
        values = np.eye(len(target.classes))[targets]
        values = values[:, 1] if target.task == "binary" else values
    return Scores(ids=targets.astype(np.str_), targets=targets, values=values)


def _head(output: Any) -> NDArray[np.float64]:
    """Return what one head of a model says: (clips,), or (clips, classes)."""
    values = np.asarray(output, np.float64)
    return values[:, 0] if values.shape[1] == 1 else values


def _errors(output: Any, clips: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mean squared error of each clip, as cinefeed.models.ClipLoss has it."""
    difference = np.asarray(output, np.float32) - clips.astype(np.float32)
    return np.asarray(np.square(difference).reshape(len(difference), -1).mean(axis=1, dtype=np.float64))


def _known(feed: Feed, scores: Scores) -> dict[str, NDArray[np.bool_]]:
    """Return by name of target which rows have a label; a weight of 0 may also be one that a table gives."""
    rows = _places(feed.manifest, scores.ids)
    return {
        name: ~np.asarray(feed.manifest.column(name).is_null(nan_is_null=True).take(rows)) for name in scores.targets
    }


def _places(manifest: Manifest, ids: NDArray[np.str_]) -> pa.Array:
    """Return the rows of a manifest that have these ids."""
    return pc.index_in(pa.array(ids.tolist(), pa.string()), value_set=manifest.column("id").cast(pa.string()))


def _rows(values: Any, rows: NDArray[np.int64]) -> Any:
    """Return some rows, of arrays by name as of one."""
    return {name: each[rows] for name, each in values.items()} if isinstance(values, Mapping) else values[rows]


def _joined(parts: Sequence[Scores]) -> Scores:
    def join(arrays: Sequence[Any]) -> Any:
        if isinstance(arrays[0], Mapping):
            return {name: np.concatenate([each[name] for each in arrays]) for name in arrays[0]}
        return np.concatenate(arrays)

    return Scores(**{each.name: join([getattr(one, each.name) for one in parts]) for each in fields(Scores)})
