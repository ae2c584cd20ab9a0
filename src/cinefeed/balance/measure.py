"""How far two distributions are apart, and how many rows a balanced epoch is worth. Arrays in, a number out."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def ks_distance(values: ArrayLike, *, first: ArrayLike, second: ArrayLike) -> float:
    """Return the Kolmogorov-Smirnov distance, 0 to 1, of two distributions on the same labels.

    `values` are labels (rows,), `first` and `second` (rows,) how often each one comes. The distance is the greatest
    difference of the shares at or below a label.

    >>> ks_distance([10, 20, 30, 40], first=[1, 1, 1, 1], second=[0, 0, 2, 2])
    0.5
    """
    order = np.argsort(np.asarray(values), kind="stable")
    placed = np.asarray(values)[order]
    last = np.append(placed[1:] != placed[:-1], True)  # equal labels are one step
    gap = _cumulated(first, order) - _cumulated(second, order)
    return float(np.abs(gap[last]).max())


def ks_to_uniform(values: ArrayLike, *, weights: ArrayLike, low: float, high: float) -> float:
    """Return the Kolmogorov-Smirnov distance, 0 to 1, of labels to the uniform distribution from `low` to `high`.

    `weights` (rows,) say how often each label comes. Some distance is left whatever is drawn: labels are points.

    >>> ks_to_uniform([1.0, 3.0], weights=[1, 1], low=0, high=4)
    0.25
    """
    order = np.argsort(np.asarray(values), kind="stable")
    uniform = np.clip((np.asarray(values, np.float64)[order] - low) / (high - low), 0, 1)
    after = _cumulated(weights, order)
    before = np.append(0.0, after[:-1])
    return float(max(np.abs(after - uniform).max(), np.abs(before - uniform).max()))


def total_variation(first: ArrayLike, second: ArrayLike) -> float:
    """Return the total variation, 0 to 1, of two distributions over classes, given as counts or shares (classes,).

    It is the share that would have to move from one class to another.

    >>> total_variation([90, 10], [50, 50])
    0.4
    """
    one, other = np.asarray(first, np.float64), np.asarray(second, np.float64)
    return float(np.abs(one / one.sum() - other / other.sum()).sum() / 2)


def effective_rows(draws: ArrayLike) -> float:
    """Return how many rows drawn equally often are worth the same: (sum of draws)**2 / sum of draws**2.

    Kish's effective sample size (Survey Sampling, 1965); `draws` (rows,) are expected draws, or weights.

    >>> effective_rows([1, 1, 1, 1]), effective_rows([0, 0, 4, 4])
    (4.0, 2.0)
    """
    expected = np.asarray(draws, np.float64)
    return float(expected.sum() ** 2 / np.square(expected).sum())


def _cumulated(weights: ArrayLike, order: NDArray[np.int64]) -> NDArray[np.float64]:
    sums = np.cumsum(np.asarray(weights, np.float64)[order])
    return np.asarray(sums / sums[-1])
