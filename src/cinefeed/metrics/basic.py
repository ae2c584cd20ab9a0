"""Targets and scores of a whole set -> metrics: arrays in, numbers out, by scikit-learn's definitions.

What a set does not define (R2 of one video, AUROC of one class) is NaN, with the reason beside it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cinefeed.errors import LabelError


class Metrics(dict[str, float]):
    """Metrics by name; `reasons` says of each that is NaN why it is.

    >>> metrics = regression_metrics(targets=[1.0], scores=[2.0])
    >>> metrics["mae"], metrics["r2"], metrics.reasons["r2"]
    (1.0, nan, 'one sample alone')
    """

    def __init__(self, values: dict[str, float], *, reasons: dict[str, str]) -> None:
        super().__init__({name: float(value) for name, value in values.items()})
        self.reasons = reasons


def regression_metrics(*, targets: ArrayLike, scores: ArrayLike) -> Metrics:
    """Return r2, rmse, mae, pearson_r and bias (mean of score less target), in the label's units.

    `targets` and `scores` are (samples,). Raises LabelError where they do not match or are not finite.

    >>> metrics = regression_metrics(targets=[1.0, 2.0, 3.0], scores=[1.0, 2.0, 4.0])
    >>> round(metrics["r2"], 3), round(metrics["bias"], 3)
    (0.5, 0.333)
    """
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    target, score = _same_length(np.asarray(targets, np.float64), np.asarray(scores, np.float64))
    _finite("targets", target)
    _finite("scores", score)
    if score.ndim != 1:
        raise LabelError(f"regression has one score a sample; found scores of shape {score.shape}")
    values = {
        "r2": np.nan,
        "rmse": root_mean_squared_error(target, score),
        "mae": mean_absolute_error(target, score),
        "pearson_r": np.nan,
        "bias": np.mean(score - target),
    }
    reasons = {}
    flat = "one sample alone" if len(target) == 1 else "all targets are equal" if np.ptp(target) == 0 else ""
    if flat:
        reasons["r2"] = flat
    else:
        values["r2"] = r2_score(target, score)
    if flat or np.ptp(score) == 0:
        reasons["pearson_r"] = flat or "all scores are equal"
    else:
        values["pearson_r"] = np.corrcoef(target, score)[0, 1]
    return Metrics(values, reasons=reasons)


def classification_metrics(*, targets: ArrayLike, scores: ArrayLike, classes: Sequence[str]) -> Metrics:
    """Return f1, average_precision, auroc, balanced_accuracy and accuracy.

    `targets` (samples,) are class numbers. Of two classes, `scores` (samples,) is the probability of the second, the
    positive one, and 0.5 parts them. Of more, `scores` (samples, classes) are probabilities and the largest wins; F1,
    average precision and AUROC, one class against the rest, are means over the classes that occur. Raises LabelError
    where targets and scores do not fit the classes, or are not finite.

    >>> metrics = classification_metrics(targets=[0, 0, 1, 1], scores=[0.1, 0.6, 0.4, 0.9], classes=["well", "sick"])
    >>> metrics["auroc"], metrics["f1"]
    (0.75, 0.5)
    """
    from sklearn.metrics import accuracy_score, average_precision_score, f1_score, recall_score, roc_auc_score

    target, score = class_scores(targets=targets, scores=scores, classes=classes)
    predicted = predicted_classes(score)
    present = np.unique(target)
    values = {"f1": np.nan, "average_precision": np.nan, "auroc": np.nan, "balanced_accuracy": np.nan}
    reasons = {}
    if len(present) == 1:
        reasons = dict.fromkeys(values, f"all targets are {classes[present[0]]!r}")
    elif score.ndim == 1:
        values["f1"] = f1_score(target, predicted, zero_division=0)
        values["average_precision"] = average_precision_score(target, score)
        values["auroc"] = roc_auc_score(target, score)
    else:
        values["f1"] = f1_score(target, predicted, labels=present, average="macro", zero_division=0)
        values["average_precision"] = np.mean([average_precision_score(target == k, score[:, k]) for k in present])
        values["auroc"] = np.mean([roc_auc_score(target == k, score[:, k]) for k in present])
    if len(present) > 1:
        # recall over the classes that occur is balanced accuracy, whose own function warns where others are predicted
        values["balanced_accuracy"] = recall_score(target, predicted, labels=present, average="macro", zero_division=0)
    values["accuracy"] = accuracy_score(target, predicted)
    return Metrics(values, reasons=reasons)


def confusion_matrix(*, targets: ArrayLike, scores: ArrayLike, classes: Sequence[str]) -> NDArray[np.int64]:
    """Return how often each true class (row) was taken for each class (column), int64 (classes, classes).

    >>> confusion_matrix(targets=[0, 1, 1], scores=[0.1, 0.2, 0.9], classes=["well", "sick"]).tolist()
    [[1, 0], [1, 1]]
    """
    target, score = class_scores(targets=targets, scores=scores, classes=classes)
    counts = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(counts, (target, predicted_classes(score)), 1)
    return counts


def predicted_classes(scores: NDArray[Any]) -> NDArray[np.int64]:
    """Return the class number that scores (samples,) or (samples, classes) speak for: 0.5 or more, or the largest.

    >>> predicted_classes(np.array([0.2, 0.5])).tolist()
    [0, 1]
    """
    return np.asarray(scores >= 0.5 if scores.ndim == 1 else scores.argmax(axis=1), np.int64)


def class_scores(
    *, targets: ArrayLike, scores: ArrayLike, classes: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return class numbers (samples,) and their scores, checked: (samples,) of two classes, else (samples, classes).

    >>> class_scores(targets=[0, 1], scores=[[0.9, 0.1], [0.3, 0.7]], classes=["well", "sick"])[1].tolist()
    [0.1, 0.7]
    """
    target, score = _same_length(np.asarray(targets), np.asarray(scores, np.float64))
    _finite("scores", score)
    if len(classes) < 2:
        raise LabelError(f"classification needs two classes or more; found {list(classes)}")
    if target.dtype.kind not in "biu" or (target.astype(np.int64) < 0).any() or (target >= len(classes)).any():
        raise LabelError(
            f"targets must be class numbers from 0 to {len(classes) - 1} ({', '.join(classes)}); "
            f"found {target.dtype} from {target.min()} to {target.max()}"
        )
    if len(classes) == 2 and score.ndim == 2 and score.shape[1] == 2:
        score = score[:, 1]
    wanted = (len(target),) if len(classes) == 2 else (len(target), len(classes))
    if score.shape != wanted:
        raise LabelError(
            f"{len(classes)} classes and {len(target)} samples need scores of {wanted}; found {score.shape}"
        )
    return target.astype(np.int64), score


def _same_length(targets: NDArray[Any], scores: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    if scores.ndim == 2 and scores.shape[1] == 1:
        scores = scores[:, 0]
    if targets.ndim != 1 or len(targets) == 0 or len(targets) != len(scores):
        raise LabelError(
            f"metrics need one target and one score for each sample; found targets of shape {targets.shape} "
            f"and scores of shape {scores.shape}"
        )
    return targets, scores


def _finite(name: str, values: NDArray[np.float64]) -> None:
    bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
    if len(bad):
        raise LabelError(
            f"{len(bad)} of {len(values)} {name} are NaN or infinite (the first is sample {bad[0]}); "
            "a model that diverged puts such scores out: lower the learning rate, or normalise its input"
            if name == "scores"
            else f"{len(bad)} of {len(values)} {name} are NaN or infinite (the first is sample {bad[0]}); "
            "leave such rows out of the manifest"
        )
