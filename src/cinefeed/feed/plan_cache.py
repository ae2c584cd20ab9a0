"""The plans of a feed's epochs, each made once while it is in use."""

import threading
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from cinefeed.data.sampling import Plan, Sampler


class PlanCache:
    """Makes the plans of epochs, and keeps two: both are in use while one epoch ends and the next begins."""

    def __init__(
        self, sampler: Sampler, labels: NDArray[Any], *, seed: int, batch_size: int, group_kwargs: Mapping[str, Any]
    ) -> None:
        self._sampler, self._labels = sampler, labels
        self._options: dict[str, Any] = {"seed": seed, "batch_size": batch_size, **group_kwargs}
        self._lock = threading.Lock()
        self._cached_plans: dict[int, Plan] = {}

    def of(self, epoch: int) -> Plan:
        """Return the plan of an epoch: the rows in their order."""
        with self._lock:  # files are fetched ahead by another thread
            if epoch not in self._cached_plans:
                while len(self._cached_plans) > 1:
                    del self._cached_plans[next(iter(self._cached_plans))]
                self._cached_plans[epoch] = self._sampler.plan(self._labels, epoch=epoch, **self._options)
            return self._cached_plans[epoch]
