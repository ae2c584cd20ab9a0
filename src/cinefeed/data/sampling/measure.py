"""Distances between distributions, and the effective number of rows of an epoch, computed on arrays."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def ks_distance(values: ArrayLike, *, first: ArrayLike, second: ArrayLike) -> float:
    """Return the Kolmogorov-Smirnov distance, 0 to 1, between two distributions over the same labels.

    `values` are labels (rows,); `first` and `second` (rows,) are the weights of each label. The distance is the largest
    difference between the cumulative shares at any label.

    >>> ks_distance([10, 20, 30, 40], first=[1, 1, 1, 1], second=[0, 0, 2, 2])
    0.5
    """
    order = np.argsort(np.asarray(values), kind="stable")
    sorted_values = np.asarray(values)[order]
    is_last = np.append(sorted_values[1:] != sorted_values[:-1], True)  # equal labels are one step
    gap = _cumulative_shares(first, order) - _cumulative_shares(second, order)
    return float(np.abs(gap[is_last]).max())


def ks_to_uniform(values: ArrayLike, *, weights: ArrayLike, low: float, high: float) -> float:
    """Return the Kolmogorov-Smirnov distance, 0 to 1, between labels and the uniform distribution on [low, high].

    `weights` (rows,) are the weights of each label. The distance is never 0, because labels are discrete.

    >>> ks_to_uniform([1.0, 3.0], weights=[1, 1], low=0, high=4)
    0.25
    """
    order = np.argsort(np.asarray(values), kind="stable")
    uniform = np.clip((np.asarray(values, np.float64)[order] - low) / (high - low), 0, 1)
    after = _cumulative_shares(weights, order)
    before = np.append(0.0, after[:-1])
    return float(max(np.abs(after - uniform).max(), np.abs(before - uniform).max()))


def total_variation(first: ArrayLike, second: ArrayLike) -> float:
    """Return the total variation distance, 0 to 1, between two distributions over classes.

    `first` and `second` (classes,) are counts or shares. The distance is the share that would have to move between
    classes to make them equal.

    >>> total_variation([90, 10], [50, 50])
    0.4
    """
    one, other = np.asarray(first, np.float64), np.asarray(second, np.float64)
    return float(np.abs(one / one.sum() - other / other.sum()).sum() / 2)


def effective_rows(draws: ArrayLike) -> float:
    """Return the effective sample size (Kish, Survey Sampling, 1965): (sum of draws)**2 / sum of draws**2.

    `draws` (rows,) are expected draws or weights. If all rows have equal draws, the result is the number of rows.

    >>> effective_rows([1, 1, 1, 1]), effective_rows([0, 0, 4, 4])
    (4.0, 2.0)
    """
    expected = np.asarray(draws, np.float64)
    return float(expected.sum() ** 2 / np.square(expected).sum())


def _cumulative_shares(weights: ArrayLike, order: NDArray[np.int64]) -> NDArray[np.float64]:
    sums = np.cumsum(np.asarray(weights, np.float64)[order])
    return np.asarray(sums / sums[-1])
