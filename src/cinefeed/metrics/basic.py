"""Targets and scores of a whole set -> metrics: arrays in, numbers out, by scikit-learn's definitions.

What a set does not define (R2 of one video, AUROC of one class) is NaN, with the reason beside it. In regression, bias
and sd are mean and standard deviation of score less target (n - 1). Of classes, sensitivity is the share of a class
that is found (recall), specificity the share of the rest that is left alone, balanced accuracy the mean sensitivity of
the classes, average precision the area under precision against recall without interpolation.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cinefeed.errors import LabelError

CLASS_METRICS = "f1 average_precision auroc balanced_accuracy sensitivity specificity accuracy".split()


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
    """Return r2, rmse, mae, pearson_r, bias (mean of score less target) and sd (theirs), in the label's units.

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
        "sd": np.std(score - target, ddof=1) if len(target) > 1 else np.nan,
    }
    reasons = {} if len(target) > 1 else {"sd": "one sample alone"}
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


def classification_metrics(
    *, targets: ArrayLike, scores: ArrayLike, classes: Sequence[str], threshold: float = 0.5
) -> Metrics:
    """Return f1, average_precision, auroc, balanced_accuracy, sensitivity, specificity and accuracy.

    `targets` (samples,) are class numbers. Of two classes, `scores` (samples,) is the probability of the second, the
    positive one, and `threshold` parts them. Of more, `scores` (samples, classes) are probabilities and the largest
    wins; all but accuracy are means over the classes that occur, each against the rest (macro). Raises LabelError where
    targets and scores do not fit the classes, or are not finite.

    >>> metrics = classification_metrics(targets=[0, 0, 1, 1], scores=[0.1, 0.6, 0.4, 0.9], classes=["well", "sick"])
    >>> metrics["auroc"], metrics["f1"]
    (0.75, 0.5)
    """
    from sklearn.metrics import accuracy_score

    target, score = class_scores(targets=targets, scores=scores, classes=classes)
    predicted = predicted_classes(score, threshold=threshold)
    if score.ndim == 1:
        each = [_against_rest(target == 1, score, predicted == 1, name=classes[1])]
        balanced = (each[0]["sensitivity"] + each[0]["specificity"]) / 2
    else:
        present = np.unique(target)
        each = [_against_rest(target == k, score[:, k], predicted == k, name=classes[k]) for k in present]
        balanced = float(np.mean([one["sensitivity"] for one in each])) if len(each) > 1 else np.nan
    values = {name: float(np.mean([one[name] for one in each])) for name in each[0]}
    values |= {"balanced_accuracy": balanced, "accuracy": accuracy_score(target, predicted)}
    reasons = dict.fromkeys(each[0].reasons, f"all targets are {classes[target[0]]!r}")
    if np.isnan(balanced):
        reasons["balanced_accuracy"] = reasons["auroc"]
    return Metrics({name: values[name] for name in CLASS_METRICS}, reasons=reasons)


def metrics_by_class(
    *, targets: ArrayLike, scores: ArrayLike, classes: Sequence[str], threshold: float = 0.5
) -> dict[str, Metrics]:
    """Return f1, average_precision, auroc, sensitivity and specificity of each class against the rest.

    The arguments are those of `classification_metrics`. Of two classes, the first has one less the score.

    >>> by_class = metrics_by_class(targets=[0, 0, 1, 1], scores=[0.1, 0.6, 0.7, 0.9], classes=["well", "sick"])
    >>> by_class["well"]["sensitivity"], by_class["sick"]["sensitivity"]
    (0.5, 1.0)
    """
    target, score = class_scores(targets=targets, scores=scores, classes=classes)
    predicted = predicted_classes(score, threshold=threshold)
    columns = np.stack([1 - score, score], axis=1) if score.ndim == 1 else score
    return {
        name: _against_rest(target == k, columns[:, k], predicted == k, name=name) for k, name in enumerate(classes)
    }


def _against_rest(
    truth: NDArray[np.bool_], score: NDArray[np.float64], predicted: NDArray[np.bool_], *, name: str
) -> Metrics:
    """Return the metrics of one class against the rest; without both of them, what is left of them."""
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
    """Return how often each true class (row) was taken for each class (column), int64 (classes, classes).

    >>> confusion_matrix(targets=[0, 1, 1], scores=[0.1, 0.2, 0.9], classes=["well", "sick"]).tolist()
    [[1, 0], [1, 1]]
    """
    target, score = class_scores(targets=targets, scores=scores, classes=classes)
    counts = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(counts, (target, predicted_classes(score, threshold=threshold)), 1)
    return counts


def predicted_classes(scores: NDArray[Any], *, threshold: float = 0.5) -> NDArray[np.int64]:
    """Return the class number that scores speak for: (samples,) from `threshold` on, (samples, classes) the largest.

    >>> predicted_classes(np.array([0.2, 0.5])).tolist()
    [0, 1]
    """
    return np.asarray(scores >= threshold if scores.ndim == 1 else scores.argmax(axis=1), np.int64)


def best_threshold(*, targets: ArrayLike, scores: ArrayLike) -> float:
    """Return the score of two classes from which calling a sample positive gives the best F1.

    It is one of the scores; of several that are as good, the nearest to 0.5, then the lower. Choose it on validation,
    and keep it: chosen on the set that is measured, F1 is too good. Raises LabelError without both classes.

    >>> best_threshold(targets=[0, 0, 1, 1], scores=[0.1, 0.3, 0.35, 0.8])
    0.35
    """
    from sklearn.metrics import precision_recall_curve

    target, score = class_scores(targets=targets, scores=scores, classes=("negative", "positive"))
    if len(np.unique(target)) < 2:
        raise LabelError("a threshold needs samples of both classes; all are of one: leave it at 0.5")
    precision, recall, thresholds = precision_recall_curve(target, score)
    precision, recall = precision[:-1], recall[:-1]  # the last point has no threshold
    sums = precision + recall
    f1 = np.divide(2 * precision * recall, sums, out=np.zeros_like(sums), where=sums > 0)
    best = thresholds[f1 >= f1.max() - 1e-12]  # ratios of the same counts differ in the last digit
    return float(min(best.tolist(), key=lambda each: (abs(each - 0.5), each)))


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
