"""Metrics of one set of units for many weightings at once, as used by the bootstrap.

A bootstrap resample is the set of units with integer weights. All metrics are sums over units, so a thousand resamples
are a few matrix products (about a second) instead of a thousand calls of scikit-learn (minutes). Tests check that unit
weights give the results of `metrics.basic`, and other weights those of scikit-learn's `sample_weight`. Metrics that are
undefined for a resample are NaN.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cinefeed.metrics.calibration import BINS, bin_numbers, class_columns, confidences

Floats = NDArray[np.float64]
ByMetric = dict[str, Floats]


def weighted_regression(*, targets: ArrayLike, scores: ArrayLike, weights: Floats) -> ByMetric:
    """Return each metric of `regression_metrics`, (resamples,), for `weights` (resamples, units)."""
    target, score = np.asarray(targets, np.float64), np.asarray(scores, np.float64)
    errors = score - target
    t, s = target - target.mean(), score - score.mean()  # centered: sums of squares lose fewer digits
    total = weights.sum(axis=1)
    squares_t, squares_s = _centered_products(weights, t, t, total), _centered_products(weights, s, s, total)
    squared_errors = weights @ errors**2
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "r2": _nan_unless(squares_t > 0, 1 - squared_errors / squares_t),
            "rmse": np.sqrt(squared_errors / total),
            "mae": weights @ np.abs(errors) / total,
            "pearson_r": _nan_unless(
                (squares_t > 0) & (squares_s > 0),
                np.clip(_centered_products(weights, t, s, total) / np.sqrt(squares_t * squares_s), -1, 1),
            ),
            "bias": weights @ errors / total,
            "sd": _nan_unless(total > 1, np.sqrt(_centered_products(weights, errors, errors, total) / (total - 1))),
        }


def weighted_classes(
    *, targets: ArrayLike, scores: ArrayLike, classes: Sequence[str], threshold: float, weights: Floats
) -> tuple[ByMetric, dict[str, ByMetric]]:
    """Return the metrics of `classification_metrics` with ece, and those of each class against the rest.

    Each metric is (resamples,), for `weights` (resamples, units). As in `classification_metrics`, macro averages of
    three or more classes are over the classes that occur, here in each resample: with three videos of each of 30
    classes nine of ten resamples have none of some class.
    """
    target, columns = class_columns(targets=targets, scores=scores, classes=classes)
    is_binary = len(classes) == 2
    predicted = (columns[:, 1] >= threshold).astype(np.int64) if is_binary else columns.argmax(axis=1)
    total = weights.sum(axis=1)
    by_class = {
        name: _one_vs_rest(target == k, columns[:, k], predicted == k, weights) for k, name in enumerate(classes)
    }
    names = ("f1", "average_precision", "auroc", "sensitivity", "specificity")
    if is_binary:
        positive = by_class[classes[1]]
        macro = {name: positive[name] for name in names}
        macro["balanced_accuracy"] = (positive["sensitivity"] + positive["specificity"]) / 2
    else:
        occurs = np.stack([weights @ (target == k) > 0 for k in range(len(classes))])  # (classes, resamples)
        macro = {
            name: np.where(occurs, [by_class[each][name] for each in classes], 0).sum(axis=0) / occurs.sum(axis=0)
            for name in names
        }
        macro["balanced_accuracy"] = _nan_unless(occurs.sum(axis=0) > 1, macro["sensitivity"])
    macro["accuracy"] = weights @ (target == predicted) / total
    confidence, outcome = confidences(targets=targets, scores=scores, classes=classes)
    macro["ece"] = _ece(confidence, outcome, weights)
    return macro, by_class


def _one_vs_rest(truth: NDArray[np.bool_], score: Floats, predicted: NDArray[np.bool_], weights: Floats) -> ByMetric:
    positives, negatives = weights @ truth, weights @ ~truth
    true_positives, false_positives = weights @ (truth & predicted), weights @ (~truth & predicted)
    both = (positives > 0) & (negatives > 0)
    auroc, average_precision = _rank_metrics(truth, score, weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "f1": _nan_unless(both, 2 * true_positives / (positives + true_positives + false_positives)),
            "average_precision": _nan_unless(both, average_precision),
            "auroc": _nan_unless(both, auroc),
            "sensitivity": _nan_unless(positives > 0, true_positives / positives),
            "specificity": _nan_unless(negatives > 0, 1 - false_positives / negatives),
            "ece": _ece(score, truth, weights),
        }


def _rank_metrics(truth: NDArray[np.bool_], score: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Return AUROC and average precision by ranks; samples of equal score form one group."""
    order = np.argsort(-score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=np.inf))
    sorted_weights = weights[:, order]
    group_totals = np.add.reduceat(sorted_weights, starts, axis=1)
    positives = np.add.reduceat(sorted_weights * truth[order], starts, axis=1)
    true_positives, predicted_positives = np.cumsum(positives, axis=1), np.cumsum(group_totals, axis=1)
    negatives, false_positives = group_totals - positives, predicted_positives - true_positives
    with np.errstate(divide="ignore", invalid="ignore"):
        # negatives with lower scores than a group, and half of the negatives in the group
        below = false_positives[:, -1:] - false_positives + negatives / 2
        auroc = (positives * below).sum(axis=1) / (true_positives[:, -1] * false_positives[:, -1])
        precision = np.divide(
            true_positives, predicted_positives, out=np.zeros_like(true_positives), where=predicted_positives > 0
        )
        # rounding errors of the sums may exceed 1
        return np.minimum(auroc, 1), np.minimum((positives * precision).sum(axis=1) / true_positives[:, -1], 1)


def _ece(confidence: Floats, outcome: NDArray[np.bool_], weights: Floats) -> Floats:
    gaps = np.zeros((len(confidence), BINS))
    gaps[np.arange(len(confidence)), bin_numbers(confidence)] = confidence - outcome
    return np.asarray(np.abs(weights @ gaps).sum(axis=1) / weights.sum(axis=1))


def _centered_products(weights: Floats, a: Floats, b: Floats, total: Floats) -> Floats:
    """Return the weighted sum of (a - mean) * (b - mean); exactly 0 if a is b and only rounding error remains."""
    products = weights @ (a * b)
    centered = products - (weights @ a) * (weights @ b) / total
    if a is b:
        centered = np.where(centered <= 1e-12 * products, 0.0, centered)
    return np.asarray(centered)


def _nan_unless(defined: Any, values: Any) -> Floats:
    return np.asarray(np.where(defined, values, np.nan))
