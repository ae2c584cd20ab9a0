"""The metrics of many weightings of one set at once, which is what a bootstrap of it is.

A resample draws some units twice and others not at all: it is the set with whole weights. All its metrics are sums over
units, so that a thousand resamples are a few products of arrays rather than a thousand calls of scikit-learn (which
takes minutes for what takes a second here). Weights of one give the same numbers as `metrics.basic`, and any weights
the same as scikit-learn's `sample_weight`; tests hold both. What a resample does not define is NaN.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cinefeed.metrics.calibration import BINS, bin_numbers, class_columns, confidences

Floats = NDArray[np.float64]
ByMetric = dict[str, Floats]


def weighted_regression(*, targets: ArrayLike, scores: ArrayLike, weights: Floats) -> ByMetric:
    """Return each metric of `regression_metrics` for every row of `weights` (resamples, units), as (resamples,)."""
    target, score = np.asarray(targets, np.float64), np.asarray(scores, np.float64)
    wrong = score - target
    t, s = target - target.mean(), score - score.mean()  # near 0: sums of squares lose fewer digits
    total = weights.sum(axis=1)
    spread_t, spread_s = _spread(weights, t, t, total), _spread(weights, s, s, total)
    squares = weights @ wrong**2
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "r2": _defined(1 - squares / spread_t, spread_t > 0),
            "rmse": np.sqrt(squares / total),
            "mae": weights @ np.abs(wrong) / total,
            "pearson_r": _defined(
                _spread(weights, t, s, total) / np.sqrt(spread_t * spread_s), (spread_t > 0) & (spread_s > 0)
            ),
            "bias": weights @ wrong / total,
            "sd": _defined(np.sqrt(_spread(weights, wrong, wrong, total) / (total - 1)), total > 1),
        }


def weighted_classes(
    *, targets: ArrayLike, scores: ArrayLike, classes: Sequence[str], threshold: float, weights: Floats
) -> tuple[ByMetric, dict[str, ByMetric]]:
    """Return the metrics of `classification_metrics` with ece, and those of each class against the rest, likewise.

    Means over classes are over those that occur in the whole set; of a resample that lacks one, they are undefined.
    """
    target, columns = class_columns(targets=targets, scores=scores, classes=classes)
    two = len(classes) == 2
    predicted = (columns[:, 1] >= threshold).astype(np.int64) if two else columns.argmax(axis=1)
    total = weights.sum(axis=1)
    by_class = {
        name: _against_rest(target == k, columns[:, k], predicted == k, weights) for k, name in enumerate(classes)
    }
    present = [classes[k] for k in np.unique(target)]
    counted = by_class[classes[1]] if two else None
    macro = {
        name: counted[name] if counted else np.mean([by_class[each][name] for each in present], axis=0)
        for name in ("f1", "average_precision", "auroc", "sensitivity", "specificity")
    }
    sensitivities = [by_class[each]["sensitivity"] for each in present]
    macro["balanced_accuracy"] = np.mean(sensitivities, axis=0) if len(present) > 1 else np.full(len(weights), np.nan)
    macro["accuracy"] = weights @ (target == predicted) / total
    confidence, right = confidences(targets=targets, scores=scores, classes=classes)
    macro["ece"] = _ece(confidence, right, weights)
    return macro, by_class


def _against_rest(truth: NDArray[np.bool_], score: Floats, predicted: NDArray[np.bool_], weights: Floats) -> ByMetric:
    positives, negatives = weights @ truth, weights @ ~truth
    hits, alarms = weights @ (truth & predicted), weights @ (~truth & predicted)
    both = (positives > 0) & (negatives > 0)
    auroc, precision = _ranked(truth, score, weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "f1": _defined(2 * hits / (positives + hits + alarms), both),
            "average_precision": _defined(precision, both),
            "auroc": _defined(auroc, both),
            "sensitivity": _defined(hits / positives, positives > 0),
            "specificity": _defined(1 - alarms / negatives, negatives > 0),
            "ece": _ece(score, truth, weights),
        }


def _ranked(truth: NDArray[np.bool_], score: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Return AUROC and average precision by ranks; samples of equal score are passed at once."""
    order = np.argsort(-score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=np.inf))
    sorted_weights = weights[:, order]
    every = np.add.reduceat(sorted_weights, starts, axis=1)
    positive = np.add.reduceat(sorted_weights * truth[order], starts, axis=1)
    found, passed = np.cumsum(positive, axis=1), np.cumsum(every, axis=1)
    negative, alarms = every - positive, passed - found
    with np.errstate(divide="ignore", invalid="ignore"):
        below = alarms[:, -1:] - alarms + negative / 2  # negatives under each group, and half of those within
        auroc = (positive * below).sum(axis=1) / (found[:, -1] * alarms[:, -1])
        precision = np.divide(found, passed, out=np.zeros_like(found), where=passed > 0)
        return auroc, (positive * precision).sum(axis=1) / found[:, -1]


def _ece(confidence: Floats, right: NDArray[np.bool_], weights: Floats) -> Floats:
    gaps = np.zeros((len(confidence), BINS))
    gaps[np.arange(len(confidence)), bin_numbers(confidence)] = confidence - right
    return np.asarray(np.abs(weights @ gaps).sum(axis=1) / weights.sum(axis=1))


def _spread(weights: Floats, a: Floats, b: Floats, total: Floats) -> Floats:
    """Return the sum of products about the means; exactly 0 where rounding alone would be left of it."""
    squares = weights @ (a * b)
    found = squares - (weights @ a) * (weights @ b) / total
    if a is b:
        found = np.where(found <= 1e-12 * squares, 0.0, found)
    return np.asarray(found)


def _defined(values: Any, where: Any) -> Floats:
    return np.asarray(np.where(where, values, np.nan))
