"""Calibration of probabilities: expected calibration error and reliability bins.

A model is calibrated if, for example, 70 % of the videos with a score of 0.7 belong to the class. Scores are grouped
into ten bins of equal width. The expected calibration error (ECE) is the mean over samples of the absolute difference
between the mean score and the share of the class in their bin (Naeini et al., "Obtaining well calibrated probabilities
using Bayesian binning", AAAI 2015). For two classes, the score is the probability of the second class. For more
classes, it is the largest probability, and the share is the accuracy of that prediction (Guo et al., "On calibration
of modern neural networks", ICML 2017). Bin edges are those of scikit-learn's `calibration_curve`: a bin includes its
upper edge.

A model trained on balanced draws is miscalibrated by construction. `sampling.prior.correct_prior` corrects its
probabilities; report the calibration of both.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cinefeed.core.errors import LabelError
from cinefeed.metrics.basic import class_scores

BINS = 10


def calibration(*, targets: ArrayLike, scores: ArrayLike, classes: Sequence[str]) -> dict[str, Any]:
    """Return `ece` and the non-empty `bins`: low, high, count, score (mean) and share (of the class).

    The arguments are those of `classification_metrics`. Raises LabelError if a score is not a probability.

    >>> result = calibration(targets=[0, 0, 1, 1], scores=[0.1, 0.3, 0.35, 1.0], classes=["well", "sick"])
    >>> round(result["ece"], 4), [each["count"] for each in result["bins"]]
    (0.2625, [1, 1, 1, 1])
    """
    return _reliability(*confidences(targets=targets, scores=scores, classes=classes))


def calibration_by_class(*, targets: ArrayLike, scores: ArrayLike, classes: Sequence[str]) -> dict[str, Any]:
    """Return `ece` and `bins` of each class against the rest."""
    target, columns = class_columns(targets=targets, scores=scores, classes=classes)
    return {name: _reliability(columns[:, k], target == k) for k, name in enumerate(classes)}


def confidences(
    *, targets: ArrayLike, scores: ArrayLike, classes: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the confidence of each sample, float64 (samples,), and whether its outcome occurred, bool (samples,).

    For two classes, the outcome is the second class. For more, it is the class with the largest probability.

    >>> confidence, outcome = confidences(targets=[2], scores=[[0.2, 0.5, 0.3]], classes=["a", "b", "c"])
    >>> confidence.tolist(), outcome.tolist()
    ([0.5], [False])
    """
    target, columns = class_columns(targets=targets, scores=scores, classes=classes)
    if len(classes) == 2:
        return columns[:, 1], target == 1
    return columns.max(axis=1), columns.argmax(axis=1) == target


def class_columns(
    *, targets: ArrayLike, scores: ArrayLike, classes: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return class numbers (samples,) and the probabilities of all classes (samples, classes).

    Raises LabelError if a score is not a probability.
    """
    target, score = class_scores(targets=targets, scores=scores, classes=classes)
    if not ((score >= 0) & (score <= 1)).all():
        raise LabelError(
            f"calibration needs probabilities; found scores from {score.min():.3g} to {score.max():.3g}; "
            "give the model's probabilities, not its logits"
        )
    return target, np.stack([1 - score, score], axis=1) if score.ndim == 1 else score


def bin_numbers(confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the bin number of each probability, 0 to 9. Bins include their upper edge; the first also includes 0.

    >>> bin_numbers(np.array([0.0, 0.1, 0.11, 1.0])).tolist()
    [0, 0, 1, 9]
    """
    return np.searchsorted(_edges()[1:-1], confidence, side="left").astype(np.int64)


def _edges() -> NDArray[np.float64]:
    return np.linspace(0.0, 1.0, BINS + 1)


def _reliability(confidence: NDArray[np.float64], outcome: NDArray[np.bool_]) -> dict[str, Any]:
    numbers, edges = bin_numbers(confidence), _edges()
    counts = np.bincount(numbers, minlength=BINS)
    score = np.bincount(numbers, weights=confidence, minlength=BINS)
    share = np.bincount(numbers, weights=outcome, minlength=BINS)
    bins = [
        {
            "low": float(edges[k]),
            "high": float(edges[k + 1]),
            "count": int(counts[k]),
            "score": float(score[k] / counts[k]),
            "share": float(share[k] / counts[k]),
        }
        for k in np.flatnonzero(counts)
    ]
    return {"ece": float(np.abs(score - share).sum() / len(confidence)), "bins": bins}
