"""The next draw that needs each row, by the plans of an epoch and the one after it."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cinefeed.data.sampling import Plan
from cinefeed.feed.shard import ShardPositions


class PlannedUses:
    """Where the ranks of a machine need rows, from a buffer of an epoch on. Plans are sorted once, when first needed.

    >>> import numpy as np
    >>> rows = [np.array([0, 1, 2]), np.array([1, 0, 2])]
    >>> plans = [Plan(rows=each, occurrence=np.zeros(3, int), strata=np.zeros(3, int)) for each in rows]
    >>> uses = PlannedUses(plans.__getitem__, ShardPositions(1), ranks=(0,), place=(0, 1), next_epoch=1)
    >>> uses.next_draws(np.array([0, 1, 2])).tolist()
    [4.0, 1.0, 2.0]
    """

    def __init__(
        self,
        plan_of: Callable[[int], Plan],
        share: ShardPositions,
        *,
        ranks: tuple[int, ...],
        place: tuple[int, int],
        next_epoch: int,
        previous: "PlannedUses | None" = None,
    ) -> None:
        self._plan_of, self._share, self._ranks = plan_of, share, ranks
        self._epoch, self._index, self._next_epoch = *place, next_epoch
        self._sorted: dict[int, tuple[NDArray[Any], NDArray[Any]]] = {}
        if previous is not None and previous._ranks == ranks:
            needed = (self._epoch, next_epoch)
            self._sorted = {epoch: each for epoch, each in previous._sorted.items() if epoch in needed}

    def next_draws(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        """Return the numbers of the next draws of some rows, counted from the epoch's start; infinity if none."""
        first = self._index * self._share.draws
        draws = self._after(self._epoch, rows, first)
        later = self._after(self._next_epoch, rows, 0) + len(self._plan_of(self._epoch).rows)
        return np.minimum(draws, later)

    def _after(self, epoch: int, rows: NDArray[Any], first: int) -> NDArray[np.float64]:
        """Return the first position of each row in an epoch's plan, from `first` on."""
        if epoch not in self._sorted:
            plan = self._plan_of(epoch).rows.astype(np.int64)
            positions = self._positions(len(plan))
            order = np.lexsort((positions, plan[positions]))
            self._sorted[epoch] = plan[positions][order], positions[order]
        sorted_rows, positions = self._sorted[epoch]
        # Rows and positions as one number, so that one search finds a row's first position from `first` on.
        scale = np.int64(len(self._plan_of(epoch).rows) + 1)
        places = np.searchsorted(sorted_rows * scale + positions, rows * scale + first)
        sorted_rows, positions = np.append(sorted_rows, -1), np.append(positions, 0)
        return np.where(sorted_rows[places] == rows, positions[places], np.inf)

    def _positions(self, draws: int) -> NDArray[np.int64]:
        """Return the positions of the ranks' draws in a plan of some draws."""
        if len(self._ranks) == self._share.world_size:
            return np.arange(draws, dtype=np.int64)
        shares = [self._share._replace(rank=rank) for rank in self._ranks]
        ranges = [share.positions(index, draws=draws)[0] for share in shares for index in range(share.count(draws))]
        return np.sort(np.concatenate([np.arange(each.start, each.stop, dtype=np.int64) for each in ranges]))
