"""Regression and classification metrics of arrays, as scikit-learn defines them.

Undefined metrics (R2 of one video, AUROC of one class) are NaN, with a reason. In regression, bias and sd are the mean
and standard deviation (n - 1) of score minus target. In classification, sensitivity is the recall of a class,
specificity the recall of the other classes, balanced accuracy the mean sensitivity over classes, and average precision
the area under the precision-recall curve without interpolation.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cinefeed.core.errors import LabelError

# Values that a metric can have; those of classes, and the calibration error, are from 0 to 1.
_RANGES = {"r2": (-np.inf, 1.0), "pearson_r": (-1.0, 1.0), "bias": (-np.inf, np.inf)}
_RANGES |= dict.fromkeys(("rmse", "mae", "sd", "mse"), (0.0, np.inf))
CLASS_METRICS = "f1 average_precision auroc balanced_accuracy sensitivity specificity accuracy".split()
DIVERGENCE_ADVICE = "the model may have diverged: lower the learning rate, or normalize its input"


class Metrics(dict[str, float]):
    """Metrics by name; `reasons` explains each NaN value.

    >>> metrics = regression_metrics(targets=[1.0], scores=[2.0])
    >>> metrics["mae"], metrics["r2"], metrics.reasons["r2"]
    (1.0, nan, 'only one sample')
    """

    def __init__(self, values: dict[str, float], *, reasons: dict[str, str]) -> None:
        super().__init__({name: float(value) for name, value in values.items()})
        self.reasons = reasons


def regression_metrics(*, targets: ArrayLike, scores: ArrayLike) -> Metrics:
    """Return r2, rmse, mae, pearson_r, and bias and sd of score minus target, in units of the label.

    `targets` and `scores` are (samples,). Raises LabelError if their lengths differ or a value is not finite.

    >>> metrics = regression_metrics(targets=[1.0, 2.0, 3.0], scores=[1.0, 2.0, 4.0])
    >>> round(metrics["r2"], 3), round(metrics["bias"], 3)
    (0.5, 0.333)
    """
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    target, score = _same_length(np.asarray(targets, np.float64), np.asarray(scores, np.float64))
    _check_finite("targets", target)
    _check_finite("scores", score)
    if score.ndim != 1:
        raise LabelError(f"regression needs one score per sample; found scores of shape {score.shape}")
    values = {
        "r2": np.nan,
        "rmse": root_mean_squared_error(target, score),
        "mae": mean_absolute_error(target, score),
        "pearson_r": np.nan,
        "bias": np.mean(score - target),
        "sd": np.std(score - target, ddof=1) if len(target) > 1 else np.nan,
    }
    reasons = {} if len(target) > 1 else {"sd": "only one sample"}
    no_variance = "only one sample" if len(target) == 1 else "all targets are equal" if np.ptp(target) == 0 else ""
    if no_variance:
        reasons["r2"] = no_variance
    else:
        values["r2"] = r2_score(target, score)
    if no_variance or np.ptp(score) == 0:
        reasons["pearson_r"] = no_variance or "all scores are equal"
    else:
        values["pearson_r"] = np.clip(np.corrcoef(target, score)[0, 1], -1, 1)
    return Metrics(values, reasons=reasons)


def metric_range(metric: str) -> tuple[float, float]:
    """Return the least and the greatest value that a metric can have; `metric` may begin with the name of a target.

    >>> metric_range("age_pearson_r"), metric_range("auroc")
    ((-1.0, 1.0), (0.0, 1.0))
    """
    return next(
        (limits for name, limits in _RANGES.items() if metric == name or metric.endswith(f"_{name}")), (0.0, 1.0)
    )


def set_range(metric: str, limits: tuple[float, float]) -> None:
    """Set the least and the greatest value that a metric of a plug-in can have."""
    _RANGES[metric] = limits


def classification_metrics(
    *, targets: ArrayLike, scores: ArrayLike, classes: Sequence[str], threshold: float = 0.5
) -> Metrics:
    """Return f1, average_precision, auroc, balanced_accuracy, sensitivity, specificity and accuracy.

    `targets` (samples,) are class numbers. For two classes, `scores` (samples,) is the probability of the second,
    positive class, and a sample is positive from `threshold` on. For more classes, `scores` (samples, classes) are
    probabilities, and the class with the largest one is predicted; all metrics except accuracy are macro averages over
    the classes that occur, each against the rest.

    Raises LabelError if targets or scores do not match the classes, or are not finite.

    >>> metrics = classification_metrics(targets=[0, 0, 1, 1], scores=[0.1, 0.6, 0.4, 0.9], classes=["well", "sick"])
    >>> metrics["auroc"], metrics["f1"]
    (0.75, 0.5)
    """
    from sklearn.metrics import accuracy_score

    target, score = class_scores(targets=targets, scores=scores, classes=classes)
    predicted = predicted_classes(score, threshold=threshold)
    if score.ndim == 1:
        by_class = [_one_vs_rest(target == 1, score, predicted == 1, name=classes[1])]
        balanced_accuracy = (by_class[0]["sensitivity"] + by_class[0]["specificity"]) / 2
    else:
        present = np.unique(target)
        by_class = [_one_vs_rest(target == k, score[:, k], predicted == k, name=classes[k]) for k in present]
        sensitivities = [metrics["sensitivity"] for metrics in by_class]
        balanced_accuracy = float(np.mean(sensitivities)) if len(by_class) > 1 else np.nan
    values = {name: float(np.mean([metrics[name] for metrics in by_class])) for name in by_class[0]}
    values |= {"balanced_accuracy": balanced_accuracy, "accuracy": accuracy_score(target, predicted)}
    reasons = dict.fromkeys(by_class[0].reasons, f"all targets are {classes[target[0]]!r}")
    if np.isnan(balanced_accuracy):
        reasons["balanced_accuracy"] = reasons["auroc"]
    return Metrics({name: values[name] for name in CLASS_METRICS}, reasons=reasons)


def metrics_by_class(
    *, targets: ArrayLike, scores: ArrayLike, classes: Sequence[str], threshold: float = 0.5
) -> dict[str, Metrics]:
    """Return f1, average_precision, auroc, sensitivity and specificity of each class against the rest.

    The arguments are those of `classification_metrics`. For two classes, the score of the first is 1 - `scores`.

    >>> by_class = metrics_by_class(targets=[0, 0, 1, 1], scores=[0.1, 0.6, 0.7, 0.9], classes=["well", "sick"])
    >>> by_class["well"]["sensitivity"], by_class["sick"]["sensitivity"]
    (0.5, 1.0)
    """
    target, score = class_scores(targets=targets, scores=scores, classes=classes)
    predicted = predicted_classes(score, threshold=threshold)
    columns = np.stack([1 - score, score], axis=1) if score.ndim == 1 else score
    return {name: _one_vs_rest(target == k, columns[:, k], predicted == k, name=name) for k, name in enumerate(classes)}


def _one_vs_rest(
    truth: NDArray[np.bool_], score: NDArray[np.float64], predicted: NDArray[np.bool_], *, name: str
) -> Metrics:
    """Return the metrics of one class against the rest; NaN for those that need samples of both."""
    from sklearn.metrics import average_precision_score, f1_score, recall_score, roc_auc_score

    values = dict.fromkeys(("f1", "average_precision", "auroc", "sensitivity", "specificity"), np.nan)
    reasons = {}
    if truth.any() and not truth.all():
        values["f1"] = f1_score(truth, predicted, zero_division=0)
        values["average_precision"] = average_precision_score(truth, score)
        values["auroc"] = roc_auc_score(truth, score)
    else:
        reason = f"all targets are {name!r}" if truth.any() else f"no target is {name!r}"
        reasons = dict.fromkeys(("f1", "average_precision", "auroc"), reason)
        reasons["specificity" if truth.any() else "sensitivity"] = reason
    if truth.any():
        values["sensitivity"] = recall_score(truth, predicted, zero_division=0)
    if not truth.all():
        values["specificity"] = recall_score(~truth, ~predicted, zero_division=0)
    return Metrics(values, reasons=reasons)


def confusion_matrix(
    *, targets: ArrayLike, scores: ArrayLike, classes: Sequence[str], threshold: float = 0.5
) -> NDArray[np.int64]:
    """Return how often each true class (row) was predicted as each class (column), int64 (classes, classes).

    >>> confusion_matrix(targets=[0, 1, 1], scores=[0.1, 0.2, 0.9], classes=["well", "sick"]).tolist()
    [[1, 0], [1, 1]]
    """
    target, score = class_scores(targets=targets, scores=scores, classes=classes)
    counts = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(counts, (target, predicted_classes(score, threshold=threshold)), 1)
    return counts


def predicted_classes(scores: NDArray[Any], *, threshold: float = 0.5) -> NDArray[np.int64]:
    """Return predicted class numbers, int64 (samples,).

    Scores (samples,) are positive from `threshold` on; scores (samples, classes) predict the class with the largest.

    >>> predicted_classes(np.array([0.2, 0.5])).tolist()
    [0, 1]
    """
    return np.asarray(scores >= threshold if scores.ndim == 1 else scores.argmax(axis=1), np.int64)


def class_scores(
    *, targets: ArrayLike, scores: ArrayLike, classes: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return validated class numbers (samples,) and scores: (samples,) for two classes, else (samples, classes).

    Raises LabelError if targets or scores do not match the classes, or a score is not finite.

    >>> class_scores(targets=[0, 1], scores=[[0.9, 0.1], [0.3, 0.7]], classes=["well", "sick"])[1].tolist()
    [0.1, 0.7]
    """
    target, score = _same_length(np.asarray(targets), np.asarray(scores, np.float64))
    _check_finite("scores", score)
    if len(classes) < 2:
        raise LabelError(f"classification needs at least two classes; found {list(classes)}")
    if target.dtype.kind not in "biu" or (target.astype(np.int64) < 0).any() or (target >= len(classes)).any():
        raise LabelError(
            f"targets must be class numbers from 0 to {len(classes) - 1} ({', '.join(classes)}); "
            f"found {target.dtype} from {target.min()} to {target.max()}"
        )
    if len(classes) == 2 and score.ndim == 2 and score.shape[1] == 2:
        score = score[:, 1]
    expected_shape = (len(target),) if len(classes) == 2 else (len(target), len(classes))
    if score.shape != expected_shape:
        raise LabelError(
            f"{len(classes)} classes and {len(target)} samples need scores of {expected_shape}; found {score.shape}"
        )
    return target.astype(np.int64), score


def _same_length(targets: NDArray[Any], scores: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    if scores.ndim == 2 and scores.shape[1] == 1:
        scores = scores[:, 0]
    if targets.ndim != 1 or len(targets) == 0 or len(targets) != len(scores):
        raise LabelError(
            f"metrics need one target and one score per sample; found targets of shape {targets.shape} "
            f"and scores of shape {scores.shape}"
        )
    return targets, scores


def _check_finite(name: str, values: NDArray[np.float64]) -> None:
    rows = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
    if len(rows):
        advice = DIVERGENCE_ADVICE if name == "scores" else "leave such rows out of the manifest"
        raise LabelError(
            f"{len(rows)} of {len(values)} {name} are NaN or infinite (the first is sample {rows[0]}); {advice}"
        )
