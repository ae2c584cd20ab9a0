"""Bootstrap confidence intervals that resample whole clusters, such as patients.

A resample draws as many clusters as there are, with replacement, and includes all units of each drawn cluster (cluster
bootstrap: Field and Welsh, Journal of the Royal Statistical Society B 2007). Random numbers are raw Philox words with
one address per resample, so the same seed gives the same interval on every machine.

Resamples of some metrics are biased. For example, a calibration error of 0.095 had resamples from 0.100 to 0.245,
because a resample has fewer distinct units per bin. A percentile interval would not contain the value itself. The
intervals are therefore corrected for bias and skewness (BCa: Efron, Journal of the American Statistical Association
1987). If the bias is too large for this correction, there is no interval, and a reason is given.

In 200 simulated studies, 95 % intervals for AUROC contained the true value in 96 % of studies with 100 patients and in
94 % with 30 patients (percentile intervals: 95 % and 92 %). There is no interval for fewer than ten clusters.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.errors import SettingError
from cinefeed.core.rng import Stage, words_for

Key = TypeVar("Key", bound=Hashable)
MIN_CLUSTERS = 10
SAME_VALUE = "all resamples have the same value, which shows no uncertainty"
_JACKKNIFE_GROUPS = 200  # leaving out each of 10,000 clusters alone would take ten times as long as the resamples
_ROUNDING = 1e-9
_MAX_WEIGHTS = 2_000_000  # in memory at a time: 16 MB


@dataclass(frozen=True, kw_only=True)
class Interval:
    """The interval of a metric, which contains its value, or the reason for a missing interval."""

    low: float
    high: float
    dropped: int  # number of resamples for which the metric is undefined
    reason: str = ""


def cluster_weights(clusters: NDArray[np.int64], *, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Yield how often each unit occurs in each resample, float64 (resamples, units), in blocks of resamples.

    >>> next(cluster_weights(np.array([0, 0, 1, 2]), resamples=3, seed=1)).tolist()
    [[0.0, 0.0, 2.0, 1.0], [1.0, 1.0, 0.0, 2.0], [1.0, 1.0, 0.0, 2.0]]
    """
    names, numbers = np.unique(clusters, return_inverse=True)
    count = len(names)
    block = max(1, _MAX_WEIGHTS // max(len(clusters), 1))
    for start in range(0, resamples, block):
        cluster_counts = np.stack(
            [
                np.bincount(
                    (words_for(seed, stage=Stage.BOOTSTRAP, count=count, position=k) % np.uint64(count)).astype(int),
                    minlength=count,
                )
                for k in range(start, min(start + block, resamples))
            ]
        )
        yield cluster_counts.astype(np.float64)[:, numbers]


def intervals(
    measure: Callable[[NDArray[np.float64]], Mapping[Key, NDArray[np.float64]]],
    *,
    clusters: NDArray[np.int64],
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[Key, Interval]:
    """Return the confidence interval of each metric.

    `low` and `high` are NaN and `reason` is not empty if a metric is undefined in more than half of the resamples, if
    nearly all resamples are on one side of its value, or if there are fewer than ten clusters. If all resamples have
    the value, `low` and `high` are the value, and `reason` is SAME_VALUE: a sensitivity of 1 is not known exactly, but
    a difference of two models may be.

    Args:
        measure: Function from weights (resamples, units) to values (resamples,) of each metric.
        clusters: Cluster number of each unit, int64 (units,).
        resamples: Number of resamples.
        level: Confidence level, between 0 and 1.
        seed: Seed of the resamples.

    Raises SettingError for settings out of range.
    """
    check_resampling(resamples=resamples, level=level)
    blocks = [measure(weights) for weights in cluster_weights(clusters, resamples=resamples, seed=seed)]
    count = len(np.unique(clusters))
    if count < MIN_CLUSTERS:
        reason = f"an interval needs at least {MIN_CLUSTERS} units to resample; found {count}"
        dropped = {key: sum(int((~np.isfinite(block[key])).sum()) for block in blocks) for key in blocks[0]}
        return {key: Interval(low=np.nan, high=np.nan, dropped=dropped[key], reason=reason) for key in dropped}
    values = measure(np.ones((1, len(clusters))))
    jackknife = [measure(weights) for weights in _jackknife_weights(clusters)]
    return {
        key: _interval(
            np.concatenate([block[key] for block in blocks]),
            value=float(values[key][0]),
            jackknife_values=np.concatenate([block[key] for block in jackknife]),
            level=level,
        )
        for key in values
    }


def check_resampling(*, resamples: int, level: float) -> None:
    """Raise SettingError for resampling settings out of range."""
    if resamples < 1:
        raise SettingError(f"resamples={resamples} is too small; use several hundred, usually 1000")
    if not 0 < level < 1:
        raise SettingError(f"level={level} must be between 0 and 1; give the confidence level, such as 0.95")


def _jackknife_weights(clusters: NDArray[np.int64]) -> Iterator[NDArray[np.float64]]:
    """Yield weights that leave out one cluster at a time, or one group of clusters if there are many."""
    numbers = np.unique(clusters, return_inverse=True)[1] % _JACKKNIFE_GROUPS
    block = max(1, _MAX_WEIGHTS // len(clusters))
    count = int(numbers.max()) + 1
    for start in range(0, count, block):
        yield (numbers != np.arange(start, min(start + block, count))[:, np.newaxis]).astype(np.float64)


def _interval(
    values: NDArray[np.float64], *, value: float, jackknife_values: NDArray[np.float64], level: float
) -> Interval:
    """Return the BCa interval of a metric from its resampled values, its value and its jackknife values."""
    from scipy.stats import norm  # scikit-learn depends on it

    defined = values[np.isfinite(values)]
    dropped = len(values) - len(defined)
    none = Interval(low=np.nan, high=np.nan, dropped=dropped)
    if dropped * 2 > len(values):
        cause = "for example because they contain one class or one value only"
        return replace(none, reason=f"undefined in {dropped} of {len(values)} resamples, {cause}")
    if not np.isfinite(value):
        return replace(none, reason="undefined for all units together")
    rounding = _ROUNDING * max(1.0, abs(value))
    if np.abs(defined - value).max() <= rounding:
        return Interval(low=value, high=value, dropped=dropped, reason=SAME_VALUE)
    below, above = float((defined < value - rounding).mean()), float((defined > value + rounding).mean())
    tails = norm.ppf([(1 - level) / 2, (1 + level) / 2])
    bias = float(norm.ppf((below + 1 - above) / 2))
    if not tails[0] <= bias <= tails[1]:  # a BCa interval would not contain the value, whatever the skewness
        side, share = ("above", above) if bias < 0 else ("below", below)
        return replace(none, reason=f"the resamples are biased: {share:.1%} of them are {side} the value")
    shifts = bias + tails
    stretch = 1 - _acceleration(jackknife_values) * shifts
    if stretch.min() <= 0:
        return replace(none, reason="the resamples are too skewed: a few units determine the value")
    low, high = np.quantile(defined, norm.cdf(bias + shifts / stretch))
    # a quantile of few resamples is interpolated between two of them, so it may just miss the value
    return Interval(low=min(float(low), value), high=max(float(high), value), dropped=dropped)


def _acceleration(jackknife_values: NDArray[np.float64]) -> float:
    """Return the BCa acceleration: the change of a metric's standard error with its value, by jackknife."""
    defined = jackknife_values[np.isfinite(jackknife_values)]
    influence = defined.mean() - defined if len(defined) else defined
    squares = float((influence**2).sum())
    return float((influence**3).sum()) / (6 * squares**1.5) if squares > 0 else 0.0
