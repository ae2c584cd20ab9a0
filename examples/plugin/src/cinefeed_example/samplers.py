"""A sampler: which stratum a row belongs to, and the share of each stratum in an epoch."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cinefeed.core.errors import LabelError
from cinefeed.data.sampling import Balancing, Strata


@dataclass(frozen=True, kw_only=True)
class SquareRoot(Balancing):
    """Draw classes in proportion to the square root of their counts: rare ones more often, but not as often as others.

    >>> SquareRoot().expected_draws(["sick"] * 1 + ["well"] * 9).round(2).tolist()[:2]
    [2.5, 0.83]
    """

    def strata(self, labels: ArrayLike) -> Strata:
        """Return the class of each row. Raises LabelError for missing labels, and if there are none."""
        array = np.asarray(labels)
        if array.ndim != 1 or not len(array):
            raise LabelError(f"labels must be one value per row; found an array of shape {array.shape}")
        if any(label is None or label != label or label in (np.inf, -np.inf) for label in array.tolist()):
            raise LabelError("rows without a label cannot be balanced; leave them out with manifest.drop_missing")
        names, numbers = np.unique(array, return_inverse=True)
        return Strata(numbers.astype(np.int64), tuple(map(str, names.tolist())))

    def shares(self, strata: Strata) -> NDArray[np.float64]:
        """Return the share of each class, with a sum of one."""
        roots = np.sqrt(strata.counts)
        return self._mixed(roots / roots.sum(), strata)

    def __str__(self) -> str:
        return f"classes by the square root of their counts{self._options()}"
