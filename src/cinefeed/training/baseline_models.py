"""Baselines of scikit-learn: a constant, and small models of nuisance columns or thumbnails of a video.

Each model is chosen among a few in cross-validation over the groups of the training part, by the metric that decides
the comparison, and is then fitted to the whole training part. Validation and test are not used.
"""

import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.quality.frame_summaries import duration
from cinefeed.data.quality.shortcuts import FILE_COLUMNS
from cinefeed.data.split import assign_folds, encode
from cinefeed.metrics import classification_metrics, regression_metrics
from cinefeed.metrics.baselines import METRICS

_FOLDS = 3
_MOST_VALUES = 32  # of a text column; rarer values have no column of their own
_ALPHAS = (1.0, 10.0, 100.0, 1000.0, 10000.0)
_STRENGTHS = (0.001, 0.01, 0.1, 1.0)


class Target(NamedTuple):
    """The labels of some rows: numbers, or class numbers, where `has_label`; the others are arbitrary."""

    name: str
    task: Any
    classes: tuple[str, ...]
    labels: NDArray[Any]
    has_label: NDArray[np.bool_]


class Fitted(NamedTuple):
    """Scores of all rows, (rows,) or (rows, classes) for more than two classes, and the chosen model in words."""

    scores: NDArray[np.float64]
    model: str


def constant_scores(target: Target, *, train: NDArray[np.bool_]) -> Fitted:
    """Return the mean of the training labels, or the share of each class, for every row."""
    labels = target.labels[train & target.has_label]
    if not target.classes:
        return Fitted(np.full(len(train), float(labels.mean())), f"mean of training, {labels.mean():.4g}")
    shares = np.bincount(labels, minlength=len(target.classes)) / len(labels)
    scores = np.tile(shares, (len(train), 1))
    return Fitted(scores[:, 1] if len(shares) == 2 else scores, "class shares of training")


def nuisance_features(manifest: Manifest, *, view: str = "") -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return properties of the files that say nothing of the images, (rows, features), and the names of the columns.

    Columns are those of a scan (container, codec, size, rate, number of frames) and the duration in seconds. Text has
    a feature per value. Columns without a difference are left out.
    """
    features, names = [], []
    for name, column in _columns(manifest, view):
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            values = np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))[:, np.newaxis]
        else:
            codes = encode(column.cast(pa.string())).codes
            counts = np.bincount(codes + 1)[1:]
            frequent = np.argsort(-counts, kind="stable")[:_MOST_VALUES]
            values = (codes[:, np.newaxis] == frequent).astype(np.float64)
        values = values[:, [len(np.unique(each)) > 1 for each in values.T]]
        if values.shape[1]:
            features.append(values)
            names.append(name)
    return np.hstack([np.zeros((len(manifest), 0)), *features]), tuple(names)


def _columns(manifest: Manifest, view: str) -> Iterator[tuple[str, Any]]:
    for name in FILE_COLUMNS:
        in_table = f"{name}:{view}" if view else name
        if in_table in manifest.table.schema.names:
            yield name, manifest.column(in_table)
    seconds = np.full(len(manifest), np.nan)
    for row in range(len(manifest)):
        if (metadata := manifest.rows.metadata(row, view=view)) is not None:
            seconds[row] = duration(metadata.times, *manifest.rows.window(row, view=view))
    yield "duration", pa.array(seconds)


def fit(
    features: NDArray[Any], target: Target, *, train: NDArray[np.bool_], groups: NDArray[np.int64], trees: bool
) -> Fitted:
    """Return the scores of the best small model of some features, trained on the rows `train` that have a label.

    Args:
        features: (rows, features); NaN is replaced by the mean.
        target: Labels of all rows.
        train: Whether a row is in the training part, bool (rows,).
        groups: Group number of each row, which is not split in the cross-validation.
        trees: Whether a random forest is among the models: for few features of different kinds.
    """
    rows = np.flatnonzero(train & target.has_label)
    labels, inputs = target.labels[rows], features[rows]
    if target.classes and len(np.unique(labels)) == 1:
        return constant_scores(target, train=train)
    models = list(_models(target, trees=trees))
    folds = _folds(groups[rows])
    best = len(models) // 2  # with too few groups for a cross-validation
    if folds is not None:
        best = int(np.argmax([_score(model, inputs, target, labels, folds) for _, model in models]))
    name, model = models[best]
    return Fitted(_fitted_scores(model, inputs, labels, features, target), name)


def _models(target: Target, *, trees: bool) -> Iterator[tuple[str, Any]]:
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.svm import LinearSVC

    forest = {"n_estimators": 100, "min_samples_leaf": 3, "random_state": 0}
    # several classes are compared by balanced accuracy, where each class counts the same
    weight = "balanced" if len(target.classes) > 2 else None
    if not target.classes:
        for alpha in _ALPHAS:
            yield f"ridge, alpha {alpha:g}", Ridge(alpha=alpha)
    else:
        for strength in _STRENGTHS:
            yield (
                f"logistic regression, C {strength:g}",
                LogisticRegression(C=strength, class_weight=weight, max_iter=300),
            )
        for strength in _STRENGTHS[:3]:
            yield (
                f"linear SVC, C {strength:g}",
                LinearSVC(C=strength, class_weight=weight, random_state=0),
            )
    if trees:
        yield (
            "random forest",
            (
                RandomForestClassifier(**forest, class_weight=weight)
                if target.classes
                else RandomForestRegressor(**forest)
            ),
        )


def _folds(groups: NDArray[np.int64]) -> NDArray[np.int64] | None:
    count = len(np.unique(groups))
    return None if count < 2 * _FOLDS else assign_folds(groups=groups, folds=_FOLDS, seed=0)


def _score(model: Any, inputs: NDArray[Any], target: Target, labels: NDArray[Any], folds: NDArray[np.int64]) -> float:
    """Return the metric that decides, of scores out of fold; the lowest number if it is not defined."""
    scores = np.zeros((len(labels), len(target.classes)) if len(target.classes) > 2 else len(labels))
    for fold in range(_FOLDS):
        inside, outside = folds == fold, folds != fold
        scores[inside] = _fitted_scores(model, inputs[outside], labels[outside], inputs[inside], target)
    if not target.classes:
        metrics: Mapping[str, float] = regression_metrics(targets=labels, scores=scores)
    else:
        metrics = classification_metrics(targets=labels, scores=scores, classes=target.classes)
    value = metrics[METRICS[target.task][0]]
    return value if np.isfinite(value) else -np.inf


def _fitted_scores(
    model: Any, inputs: NDArray[Any], labels: NDArray[Any], all_inputs: NDArray[Any], target: Target
) -> NDArray[np.float64]:
    """Return the scores of all inputs by a model that is fitted to some."""
    from sklearn.base import clone
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    present = np.unique(labels) if target.classes else labels[:0]
    if len(present) == 1:
        values = np.ones((len(all_inputs), 1))
    else:
        pipeline = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler(), clone(model))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # of a model that is one of several to choose from
            pipeline.fit(inputs, labels)
        if not target.classes:
            return np.asarray(pipeline.predict(all_inputs), np.float64)
        if hasattr(model, "predict_proba"):
            values = pipeline.predict_proba(all_inputs)
        else:
            values = _probabilities(pipeline.decision_function(all_inputs))
    scores = np.zeros((len(all_inputs), len(target.classes)))
    scores[:, present] = values
    return scores[:, 1] if len(target.classes) == 2 else scores


def _probabilities(decisions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return numbers from 0 to 1 in the order of decision values, (rows, classes); their sum is 1."""
    from scipy.special import softmax

    columns = np.stack([-decisions, decisions], axis=1) if decisions.ndim == 1 else decisions
    return np.asarray(softmax(columns, axis=1), np.float64)
