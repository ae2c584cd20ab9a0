"""How far scores and targets of a regression agree: limits of agreement, and the error by label bin.

The limits of agreement (Bland and Altman, "Statistical methods for assessing agreement between two methods of clinical
measurement", Lancet 1986) hold about 95 % of the differences, score less target, where these are normal: bias less and
plus 1.96 standard deviations. A model that regresses to the mean has a small MAE where labels are many and a large one
where they are few; the bins show it.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cinefeed.balance.strata import bin_strata
from cinefeed.metrics.basic import regression_metrics

_MOST_BINS = 10  # as many as a table or a figure shows at a glance


def limits_of_agreement(*, targets: ArrayLike, scores: ArrayLike) -> dict[str, float]:
    """Return bias and sd of score less target, and the limits `lower` and `upper`, bias -+ 1.96 sd; NaN of one sample.

    >>> found = limits_of_agreement(targets=[1.0, 2.0, 3.0], scores=[2.0, 2.0, 5.0])
    >>> {name: round(value, 2) for name, value in found.items()}
    {'bias': 1.0, 'sd': 1.0, 'lower': -0.96, 'upper': 2.96}
    """
    metrics = regression_metrics(targets=targets, scores=scores)
    bias, sd = metrics["bias"], metrics["sd"]
    return {"bias": bias, "sd": sd, "lower": bias - 1.96 * sd, "upper": bias + 1.96 * sd}


def error_by_bin(*, targets: ArrayLike, scores: ArrayLike) -> list[dict[str, Any]]:
    """Return low, high, count, mae and bias of each bin of the label, low to high; an empty bin is left out.

    The bins are equally wide: twice the cube root of the samples (the Rice rule), ten at most. Each holds its low edge,
    the last one its high edge, too.

    >>> for each in error_by_bin(targets=[20.0, 22.0, 60.0], scores=[30.0, 28.0, 55.0])[:1]:
    ...     each["low"], each["count"], each["mae"]
    (20.0, 2, 8.0)
    """
    regression_metrics(targets=targets, scores=scores)  # refuses what cannot be measured
    target, score = np.asarray(targets, np.float64), np.asarray(scores, np.float64).reshape(-1)
    strata = bin_strata(target, bins=min(_MOST_BINS, math.ceil(2 * len(target) ** (1 / 3))))
    assert strata.edges is not None
    assert strata.places is not None
    rows = []
    for number, place in enumerate(strata.places.astype(int).tolist()):
        wrong = (score - target)[strata.numbers == number]
        rows.append(
            {
                "low": float(strata.edges[place]),
                "high": float(strata.edges[place + 1]),
                "count": len(wrong),
                "mae": float(np.abs(wrong).mean()),
                "bias": float(wrong.mean()),
            }
        )
    return rows
