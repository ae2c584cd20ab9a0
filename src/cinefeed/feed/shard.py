"""Distribute the draws of an epoch over ranks."""

import sys
from typing import NamedTuple

from cinefeed.core.errors import FeedError
from cinefeed.feed.settings import Shard


class ShardPositions(NamedTuple):
    """The part of every global batch that one rank makes.

    A global batch is `world_size` batches of the plan, one for each rank, so that the sampler balances each:

    rank 0   0 1 2 | 6 7 8 | 12 13      batch_size 3, world_size 2, 16 draws: the rest is shared out evenly
    rank 1   3 4 5 | 9 10 11 | 14 15
    """

    batch_size: int
    rank: int = 0
    world_size: int = 1
    drop_last: bool = False

    @property
    def draws(self) -> int:
        """The number of draws of a global batch."""
        return self.batch_size * self.world_size

    def count(self, draws: int) -> int:
        """Return the number of batches, the same on every rank."""
        full, rest = divmod(draws, self.draws)
        return full + (rest > 0 and not self.drop_last)

    def positions(self, index: int, *, draws: int) -> tuple[range, int]:
        """Return the positions of one batch in the plan, and its size; if it is larger, the rest is padding.

        >>> ShardPositions(3, rank=1, world_size=2).positions(2, draws=15)
        (range(14, 15), 2)
        """
        start = index * self.draws
        size = min(self.batch_size, -(-(draws - start) // self.world_size))
        first = min(start + self.rank * size, draws)
        return range(first, min(first + size, draws)), size

    def around(self, position: int, *, draws: int) -> tuple[range, int]:
        """Return the positions of the batch that holds `position`, on any rank, and its size.

        >>> ShardPositions(3, rank=1, world_size=2).around(13, draws=15)
        (range(12, 14), 2)
        """
        index = position // self.draws
        _, size = self.positions(index, draws=draws)
        return self._replace(rank=(position - index * self.draws) // size).positions(index, draws=draws)


def find_shard(shard: Shard | None) -> Shard:
    """Return a shard as given, else that of torch.distributed or JAX if one is set up.

    >>> find_shard(None)
    Shard(rank=0, world_size=1)
    """
    if shard is not None:
        return shard
    rank, world_size = _initialised()
    return Shard(rank=rank, world_size=world_size)


def check_alone() -> None:
    """Raise FeedError if there are several ranks: a feed that was made as the only one gives each rank all rows."""
    rank, world_size = _initialised()
    if world_size > 1:
        raise FeedError(
            f"this process is rank {rank} of {world_size}, and the feed was made before that was set up, so that each "
            "rank would be fed all rows: make the feed after init_process_group (in Lightning in setup() or "
            "train_dataloader(), with accelerate after Accelerator()), or give it shard=Shard(rank=..., world_size=...)"
        )


def _initialised() -> tuple[int, int]:
    """Return rank and world size of torch.distributed or JAX if imported and initialised, else (0, 1)."""
    distributed = getattr(sys.modules.get("torch"), "distributed", None)
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    jax = sys.modules.get("jax")
    if jax is not None and jax.distributed.is_initialized():
        return jax.process_index(), jax.process_count()
    return 0, 1
