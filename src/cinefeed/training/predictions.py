"""Scores of a model for every row of a feed, their metrics, and the table of predictions."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cinefeed.data.manifest.manifest import Manifest
from cinefeed.feed.batch import Batch
from cinefeed.feed.feed import Feed
from cinefeed.feed.labels import FeedSpec, TargetSpec
from cinefeed.metrics import classification_metrics, predicted_classes, regression_metrics
from cinefeed.metrics.predictions import check_column_name, predictions_of, target_columns
from cinefeed.models.parts import targets_of
from cinefeed.training.keras_module import keras

_FIXED = ("id", "path", "split", "clip")


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of a part, a row per clip; with several targets `targets`, `values` and `has_label` are mappings by name.

    `values` is (clips,), or (clips, classes) for more than two classes; for the task "clip" it is the mean squared
    error of each reconstructed clip, and there are no targets.
    """

    ids: NDArray[np.str_]
    targets: Any  # label values, or class numbers
    values: Any
    clip: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))  # number within its video, from 0
    has_label: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)  # with several targets only

    def of(self, target: str) -> "Scores":
        """Return the scores of one of several targets, for the rows that have its label."""
        rows = self.has_label[target]
        return Scores(
            ids=self.ids[rows],
            targets=self.targets[target][rows],
            values=self.values[target][rows],
            clip=self.clip[rows],
        )


def score(model: keras.Model, feed: Feed, *, tick: Callable[[int], object] | None = None) -> Scores:
    """Return a model's scores for one epoch of an evaluation feed. `tick` is called with the clips of each batch."""
    parts = []
    for scores in score_batches(model, feed):
        parts.append(scores)
        if tick is not None:
            tick(len(scores.ids))
    scores = concatenate(parts)
    return replace(scores, has_label=_has_label(feed, scores)) if isinstance(scores.targets, Mapping) else scores


def score_batches(model: keras.Model, feed: Feed, *, at_least: int = 1) -> Iterator[Scores]:
    """Yield a model's scores for the batches of an evaluation feed, `at_least` rows at once, without padding."""
    parts: list[Scores] = []
    for batch in feed:
        parts.append(_score(model, batch, task=feed.spec.task, clips=feed.settings.clips_per_video.count))
        if sum(len(scores.ids) for scores in parts) >= at_least:
            yield concatenate(parts)
            parts = []
    if parts:
        yield concatenate(parts)


def _score(model: keras.Model, batch: Batch, *, task: str, clips: int) -> Scores:
    """Return the scores of one batch, as copies: the memory of a batch is reused."""
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
    """Return the arrays of a batch that are inputs of the model, by name."""
    arrays = batch.inputs(padded=True)
    return {each.name: arrays[each.name] for each in model.inputs}


def by_video(scores: Scores) -> Scores:
    """Return scores averaged over the clips of each video, in the order of the videos."""
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
        has_label=_rows(scores.has_label, rows),
    )


def measure(spec: FeedSpec, scores: Scores) -> dict[str, Any]:
    """Return the metrics of a whole part, over all its videos at once; with several targets `<target>_<metric>`.

    A mean over batches would be wrong: the F1 of a batch without a positive is undefined, and the R2 of a batch is not
    that of the part.
    """
    videos = by_video(scores)
    if spec.targets:
        by_target = {target.name: _measure(target, videos.of(target.name)) for target in spec.targets}
        return {f"{name}_{metric}": value for name, metrics in by_target.items() for metric, value in metrics.items()}
    return _measure(spec, videos)


def metric_names(spec: FeedSpec) -> list[str]:
    """Return the names of the metrics of `measure` that are single numbers, for a task."""
    by_target = {each.name: list(single_numbers(_measure(each, _example_scores(each)))) for each in targets_of(spec)}
    if not spec.targets:
        return by_target[spec.target]
    return [f"{name}_{metric}" for name, metrics in by_target.items() for metric in metrics]


def single_numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics that are single numbers, which logs of an epoch can hold."""
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
    """Return a table of predictions, a row per clip: id, path, split, clip, columns of the manifest, labels and scores.

    See cinefeed.metrics.predictions for the names of the columns of targets. `columns` are other columns of the
    manifest that evaluation needs, such as the patient; rows are matched by id. For the task "clip" the column `score`
    is the error of the clip. Raises SettingError for a column with a reserved name.
    """
    rows = _places(manifest, scores.ids)
    table: dict[str, Any] = {
        "id": pa.array(scores.ids.tolist(), pa.string()),
        "path": manifest.display_names().cast(pa.string()).take(rows),
        "split": pa.array([part] * len(rows), pa.string()),
        "clip": pa.array(scores.clip, pa.int32()),
    }
    for name in columns:
        check_column_name(name)
        if name not in _FIXED:
            table[name] = manifest.column(name).take(rows)
    if spec.task == "clip":
        return pa.table({**table, "score": pa.array(scores.values, pa.float64())})
    all_columns = []
    for target in targets_of(spec):
        task: Any = target.task
        target_names = target_columns(target.name, task=task, classes=target.classes, several=bool(spec.targets))
        values = scores.values[target.name] if spec.targets else scores.values
        if labelled:
            labels = scores.targets[target.name] if spec.targets else scores.targets
            table[target_names.target] = _labels(target, labels, has_label=scores.has_label.get(target.name))
        for number, name in enumerate(target_names.scores):
            table[name] = pa.array(values[:, number] if values.ndim > 1 else values, pa.float64())
        all_columns.append(target_names)
    return predictions_of(pa.table(table), all_columns).table


def with_predicted_classes(
    table: pa.Table, spec: FeedSpec, scores: Scores, *, thresholds: Mapping[str, float]
) -> pa.Table:
    """Return a table of predictions with the predicted class of each target of classes; see `predict`."""
    for target in targets_of(spec):
        if target.classes:
            values = scores.values[target.name] if spec.targets else scores.values
            numbers = predicted_classes(values, threshold=thresholds.get(target.name, 0.5))
            name = f"predicted_{target.name}" if spec.targets else "predicted"
            table = table.append_column(name, pa.array(np.array(target.classes, object)[numbers], pa.string()))
    return table


def _labels(target: TargetSpec, values: NDArray[Any], *, has_label: NDArray[np.bool_] | None) -> pa.Array:
    missing = None if has_label is None else ~has_label
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


def _example_scores(target: TargetSpec) -> Scores:
    """Return made-up scores of a task, which give the names of its metrics before there is a model."""
    count = max(len(target.classes), 4)
    targets: NDArray[Any] = np.arange(count)
    values = targets.astype(np.float64)
    if target.classes:
        targets = targets % len(target.classes)
        values = np.eye(len(target.classes))[targets]
        values = values[:, 1] if target.task == "binary" else values
    return Scores(ids=targets.astype(np.str_), targets=targets, values=values)


def _head(output: Any) -> NDArray[np.float64]:
    """Return the output of one head of a model, (clips,) or (clips, classes)."""
    values = np.asarray(output, np.float64)
    return values[:, 0] if values.shape[1] == 1 else values


def _errors(output: Any, clips: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mean squared error of each clip, as cinefeed.models.ClipLoss computes it."""
    difference = np.asarray(output, np.float32) - clips.astype(np.float32)
    return np.asarray(np.square(difference).reshape(len(difference), -1).mean(axis=1, dtype=np.float64))


def _has_label(feed: Feed, scores: Scores) -> dict[str, NDArray[np.bool_]]:
    """Return by target which rows have a label; weights do not show it, since a sample weight may be 0 too."""
    rows = _places(feed.manifest, scores.ids)
    return {
        name: ~np.asarray(feed.manifest.column(name).is_null(nan_is_null=True).take(rows)) for name in scores.targets
    }


def _places(manifest: Manifest, ids: NDArray[np.str_]) -> pa.Array:
    """Return the rows of a manifest that have these ids."""
    return pc.index_in(pa.array(ids.tolist(), pa.string()), value_set=manifest.column("id").cast(pa.string()))


def _rows(values: Any, rows: NDArray[np.int64]) -> Any:
    """Return some rows of an array, or of each array of a mapping."""
    return {name: each[rows] for name, each in values.items()} if isinstance(values, Mapping) else values[rows]


def concatenate(parts: Sequence[Scores]) -> Scores:
    """Return the scores of several parts as one."""

    def joined(arrays: Sequence[Any]) -> Any:
        if isinstance(arrays[0], Mapping):
            return {name: np.concatenate([each[name] for each in arrays]) for name in arrays[0]}
        return np.concatenate(arrays)

    return Scores(**{each.name: joined([getattr(part, each.name) for part in parts]) for each in fields(Scores)})
