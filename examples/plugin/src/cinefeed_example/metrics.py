"""A metric: a function of targets, scores and weights, and the tasks that it is for."""

import numpy as np
from numpy.typing import NDArray

from cinefeed.metrics import Metric


def concordance(*, targets: NDArray[np.float64], scores: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """Return Lin's concordance correlation coefficient, NaN if all targets and scores are equal."""
    target_mean, score_mean = np.average(targets, weights=weights), np.average(scores, weights=weights)
    covariance = np.average((targets - target_mean) * (scores - score_mean), weights=weights)
    variances = np.average((targets - target_mean) ** 2 + (scores - score_mean) ** 2, weights=weights)
    spread = variances + (target_mean - score_mean) ** 2
    return float(2 * covariance / spread) if spread > 0 else float("nan")


ccc = Metric(function=concordance, tasks=("regression",), limits=(-1.0, 1.0))
