"""Agreement of regression scores and targets: limits of agreement, and the error by label bin.

The limits of agreement (Bland and Altman, "Statistical methods for assessing agreement between two methods of clinical
measurement", Lancet 1986) are the bias minus and plus 1.96 standard deviations. They contain about 95 % of the
differences (score minus target) if these are normally distributed. A model that regresses to the mean has a small MAE
for frequent labels and a large MAE for rare labels; the error by bin shows this.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cinefeed.data.sampling.strata import bin_strata
from cinefeed.metrics.basic import regression_metrics

_MAX_BINS = 10  # more are hard to read in a table or a figure


def limits_of_agreement(*, targets: ArrayLike, scores: ArrayLike) -> dict[str, float]:
    """Return `bias` and `sd` of score minus target, and the limits `lower` and `upper` (bias -+ 1.96 sd).

    For a single sample, `sd`, `lower` and `upper` are NaN.

    >>> limits = limits_of_agreement(targets=[1.0, 2.0, 3.0], scores=[2.0, 2.0, 5.0])
    >>> {name: round(value, 2) for name, value in limits.items()}
    {'bias': 1.0, 'sd': 1.0, 'lower': -0.96, 'upper': 2.96}
    """
    metrics = regression_metrics(targets=targets, scores=scores)
    bias, sd = metrics["bias"], metrics["sd"]
    return {"bias": bias, "sd": sd, "lower": bias - 1.96 * sd, "upper": bias + 1.96 * sd}


def error_by_bin(*, targets: ArrayLike, scores: ArrayLike) -> list[dict[str, Any]]:
    """Return low, high, count, mae and bias of each label bin, in increasing order, without empty bins.

    The bins have equal width. Their number is twice the cube root of the number of samples (the Rice rule), at most
    ten. Each bin includes its low edge; the last bin also includes its high edge.

    >>> first_bin = error_by_bin(targets=[20.0, 22.0, 60.0], scores=[30.0, 28.0, 55.0])[0]
    >>> first_bin["low"], first_bin["count"], first_bin["mae"]
    (20.0, 2, 8.0)
    """
    regression_metrics(targets=targets, scores=scores)  # raises LabelError for invalid input
    target, score = np.asarray(targets, np.float64), np.asarray(scores, np.float64).reshape(-1)
    strata = bin_strata(target, bins=min(_MAX_BINS, math.ceil(2 * len(target) ** (1 / 3))))
    assert strata.edges is not None
    assert strata.places is not None
    rows = []
    for stratum, bin_number in enumerate(strata.places.astype(int).tolist()):
        errors = (score - target)[strata.numbers == stratum]
        rows.append(
            {
                "low": float(strata.edges[bin_number]),
                "high": float(strata.edges[bin_number + 1]),
                "count": len(errors),
                "mae": float(np.abs(errors).mean()),
                "bias": float(errors.mean()),
            }
        )
    return rows
