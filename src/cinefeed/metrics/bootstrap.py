"""Bootstrap intervals that resample whole clusters: the patients, not their videos.

A resample draws as many clusters as there are, with replacement, and takes all units of each, as often as it was drawn
(the cluster bootstrap: Field and Welsh, Journal of the Royal Statistical Society B 2007). Draws come from raw Philox
words with an address for each resample: the same seed gives the same interval on every machine.

Resamples of some metrics are biased: a calibration error of 0.095 has resamples from 0.100 to 0.245, because fewer
different units fill each bin. Their percentiles would be an interval that leaves its own value out. So the percentiles
are those that correct for bias and skewness (BCa: Efron, Journal of the American Statistical Association 1987). If the
bias is beyond what that can correct, there is no interval, and the reason is given.

Of 200 simulated studies, intervals of 95 % for AUROC contained the truth in 96 % with 100 patients and in 94 % with 30
(percentiles of the same resamples: 95 and 92 %). Below ten clusters there is none.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cinefeed.errors import SettingError
from cinefeed.rng import Stage, words_for

Key = TypeVar("Key", bound=Hashable)
LEAST_CLUSTERS = 10
_GROUPS = 200  # of clusters, for the skewness: leaving out each of 10,000 clusters would cost ten times the resamples
_ROUNDING = 1e-9
_CELLS = 2_000_000  # weights held at once: 16 MB


@dataclass(frozen=True, kw_only=True)
class Interval:
    """The interval of a metric, which contains its value, or the reason why there is none."""

    low: float
    high: float
    dropped: int  # resamples that do not define the metric
    reason: str = ""


def cluster_weights(clusters: NDArray[np.int64], *, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Yield how often each unit is in each resample, float64 (resamples, units), a block of resamples at a time.

    >>> next(cluster_weights(np.array([0, 0, 1, 2]), resamples=3, seed=1)).tolist()
    [[0.0, 0.0, 2.0, 1.0], [1.0, 1.0, 0.0, 2.0], [1.0, 1.0, 0.0, 2.0]]
    """
    names, numbers = np.unique(clusters, return_inverse=True)
    count = len(names)
    block = max(1, _CELLS // max(len(clusters), 1))
    for start in range(0, resamples, block):
        here = range(start, min(start + block, resamples))
        drawn = np.stack(
            [
                np.bincount(
                    (words_for(seed, stage=Stage.BOOTSTRAP, count=count, position=k) % np.uint64(count)).astype(int),
                    minlength=count,
                )
                for k in here
            ]
        )
        yield drawn.astype(np.float64)[:, numbers]


def intervals(
    measure: Callable[[NDArray[np.float64]], Mapping[Key, NDArray[np.float64]]],
    *,
    clusters: NDArray[np.int64],
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[Key, Interval]:
    """Return the interval of each metric that `measure` gives for weights (resamples, units), as (resamples,) each.

    If a metric is undefined in more than half of the resamples, if nearly all resamples lie on one side of its value,
    or if there are fewer than ten clusters, low and high are NaN and `reason` is not empty. Raises SettingError for
    settings out of range.
    """
    check_resampling(resamples=resamples, level=level)
    blocks = [measure(weights) for weights in cluster_weights(clusters, resamples=resamples, seed=seed)]
    count = len(np.unique(clusters))
    if count < LEAST_CLUSTERS:
        reason = f"an interval needs {LEAST_CLUSTERS} units to resample; there are {count}"
        dropped = {key: sum(int((~np.isfinite(each[key])).sum()) for each in blocks) for key in blocks[0]}
        return {key: Interval(low=np.nan, high=np.nan, dropped=dropped[key], reason=reason) for key in dropped}
    whole = measure(np.ones((1, len(clusters))))
    left_out = [measure(weights) for weights in _leaving_out(clusters)]
    return {
        key: _interval(
            np.concatenate([each[key] for each in blocks]),
            value=float(whole[key][0]),
            left_out=np.concatenate([each[key] for each in left_out]),
            level=level,
        )
        for key in whole
    }


def check_resampling(*, resamples: int, level: float) -> None:
    """Raise SettingError where an interval cannot be made so."""
    if resamples < 1:
        raise SettingError(f"resamples={resamples} is too few; an interval needs some hundred, 1000 is usual")
    if not 0 < level < 1:
        raise SettingError(f"level={level} is no share; give the share that the interval holds, such as 0.95")


def _leaving_out(clusters: NDArray[np.int64]) -> Iterator[NDArray[np.float64]]:
    """Yield the weights of the jackknife: all units but those of one cluster, or of one group of many clusters."""
    numbers = np.unique(clusters, return_inverse=True)[1] % _GROUPS
    block = max(1, _CELLS // len(clusters))
    count = int(numbers.max()) + 1
    for start in range(0, count, block):
        yield (numbers != np.arange(start, min(start + block, count))[:, np.newaxis]).astype(np.float64)


def _interval(values: NDArray[np.float64], *, value: float, left_out: NDArray[np.float64], level: float) -> Interval:
    """Return the BCa interval of a metric from its resamples, its value and its jackknife values."""
    from scipy.stats import norm  # scikit-learn depends on it

    defined = values[np.isfinite(values)]
    dropped = len(values) - len(defined)
    none = Interval(low=np.nan, high=np.nan, dropped=dropped)
    if dropped * 2 > len(values):
        why = "such as those that lack a class or hold one value"
        return replace(none, reason=f"{dropped} of {len(values)} resamples do not define it, {why}")
    if not np.isfinite(value):
        return replace(none, reason="it is not defined for all units together")
    rounding = _ROUNDING * max(1.0, abs(value))
    below, above = float((defined < value - rounding).mean()), float((defined > value + rounding).mean())
    tails = norm.ppf([(1 - level) / 2, (1 + level) / 2])
    bias = float(norm.ppf((below + 1 - above) / 2))
    if not tails[0] <= bias <= tails[1]:  # BCa cannot contain the value then, whatever the skewness
        side, share = ("above", above) if bias < 0 else ("below", below)
        return replace(none, reason=f"{share:.1%} of the resamples lie {side} the value: they are biased")
    shifts = bias + tails
    stretch = 1 - _acceleration(left_out) * shifts
    if stretch.min() <= 0:
        return replace(none, reason="a few units decide its value: the resamples are too skewed")
    low, high = np.quantile(defined, norm.cdf(bias + shifts / stretch))
    # the quantile of a few resamples lies between two of them, and may miss the value by less than their distance
    return Interval(low=min(float(low), value), high=max(float(high), value), dropped=dropped)


def _acceleration(left_out: NDArray[np.float64]) -> float:
    """Return how the spread of a metric changes with its value, from what it is without each cluster."""
    defined = left_out[np.isfinite(left_out)]
    influence = defined.mean() - defined if len(defined) else defined
    squares = float((influence**2).sum())
    return float((influence**3).sum()) / (6 * squares**1.5) if squares > 0 else 0.0
