"""What the comparison has beside cinefeed's own samplers: classes of a continuous label."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

import cinefeed as cf
from cinefeed.data.sampling import Strata
from cinefeed.data.sampling.strata import class_strata

# Reduced, mildly reduced and normal ejection fraction, as heart-failure guidelines part them (per cent).
CLASSES_AT = (40.0, 50.0)


@dataclass(frozen=True, kw_only=True)
class BinnedClasses(cf.BalancedClasses):
    """Classes that a continuous label falls into, in equal shares: how over-sampling meets a regression elsewhere.

    >>> BinnedClasses().expected_draws([30.0, 45.0, 60.0, 61.0]).round(2).tolist()
    [1.33, 1.33, 0.67, 0.67]
    """

    at: tuple[float, ...] = CLASSES_AT

    def strata(self, labels: ArrayLike) -> Strata:
        """Return the class that each label lies in."""
        return class_strata(np.digitize(np.asarray(labels, np.float64), self.at))
