"""Whether probabilities mean what they say: of the videos scored 0.7, seven in ten should be of the class.

Scores are put into ten bins of equal width. The expected calibration error is the mean over the samples of the distance
between the mean score and the share of the class in their bin (Naeini et al., "Obtaining well calibrated probabilities
using Bayesian binning", AAAI 2015). Of two classes the score is the probability of the second; of more, that of the
class with the largest one, and the share is how often this is right (Guo et al., "On calibration of modern neural
networks", ICML 2017). Edges are those of scikit-learn's `calibration_curve`: a bin holds its upper one.

A model that was trained on balanced draws is badly calibrated by construction: `balance.prior.correct_prior` puts it
right, and both calibrations belong in a report.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cinefeed.errors import LabelError
from cinefeed.metrics.basic import class_scores

BINS = 10


def calibration(*, targets: ArrayLike, scores: ArrayLike, classes: Sequence[str]) -> dict[str, Any]:
    """Return `ece` and the `bins` that have a sample: low, high, count, score (mean) and share (of the class).

    Targets and scores are those of `classification_metrics`; raises LabelError for scores that are no probabilities.

    >>> found = calibration(targets=[0, 0, 1, 1], scores=[0.1, 0.3, 0.35, 1.0], classes=["well", "sick"])
    >>> round(found["ece"], 4), [each["count"] for each in found["bins"]]
    (0.2625, [1, 1, 1, 1])
    """
    confidence, right = confidences(targets=targets, scores=scores, classes=classes)
    return _reliability(confidence, right)


def calibration_by_class(*, targets: ArrayLike, scores: ArrayLike, classes: Sequence[str]) -> dict[str, Any]:
    """Return `ece` and `bins` of each class against the rest, by the class's own probability."""
    target, columns = class_columns(targets=targets, scores=scores, classes=classes)
    return {name: _reliability(columns[:, k], target == k) for k, name in enumerate(classes)}


def confidences(
    *, targets: ArrayLike, scores: ArrayLike, classes: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the probability that calibration is about, (samples,), and whether it came true.

    >>> confidence, right = confidences(targets=[2], scores=[[0.2, 0.5, 0.3]], classes=["a", "b", "c"])
    >>> confidence.tolist(), right.tolist()
    ([0.5], [False])
    """
    target, columns = class_columns(targets=targets, scores=scores, classes=classes)
    if len(classes) == 2:
        return columns[:, 1], target == 1
    return columns.max(axis=1), columns.argmax(axis=1) == target


def class_columns(
    *, targets: ArrayLike, scores: ArrayLike, classes: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return class numbers and the probability of every class, (samples, classes), of two classes as well."""
    target, score = class_scores(targets=targets, scores=scores, classes=classes)
    if not ((score >= 0) & (score <= 1)).all():
        raise LabelError(
            f"calibration needs probabilities; found scores from {score.min():.3g} to {score.max():.3g}: "
            "give a model's probabilities, not its logits"
        )
    return target, np.stack([1 - score, score], axis=1) if score.ndim == 1 else score


def bin_numbers(confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the bin of each probability, 0 to 9: a bin holds its upper edge, the first one 0, too.

    >>> bin_numbers(np.array([0.0, 0.1, 0.11, 1.0])).tolist()
    [0, 0, 1, 9]
    """
    return np.searchsorted(_edges()[1:-1], confidence, side="left").astype(np.int64)


def _edges() -> NDArray[np.float64]:
    return np.linspace(0.0, 1.0, BINS + 1)


def _reliability(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> dict[str, Any]:
    numbers, edges = bin_numbers(confidence), _edges()
    counts = np.bincount(numbers, minlength=BINS)
    score = np.bincount(numbers, weights=confidence, minlength=BINS)
    share = np.bincount(numbers, weights=right, minlength=BINS)
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
