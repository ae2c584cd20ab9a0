"""Make one clip of an epoch again from its address."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from cinefeed.core.errors import SettingError
from cinefeed.feed.batch import Batch
from cinefeed.feed.batch_builder import BatchBuilder
from cinefeed.feed.clip_pipeline import PlanEntry
from cinefeed.feed.stats import StatsRecorder
from cinefeed.feed.workers.pools import WorkerPool


def replay_clip(
    builder: BatchBuilder,
    epoch: int,
    index: int,
    worker_pool: WorkerPool,
    *,
    clip_parameters: Callable[[PlanEntry], list[dict[str, Any]]],
) -> Batch:
    """Return a batch of the one clip with this address, with its parameters; see `Feed.replay`.

    If batches are mixed, the whole batch of the clip is made.
    """
    for name, value in (("epoch", epoch), ("index", index)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
            raise SettingError(f"replay({name}={value!r}) must be a whole number of at least 0")
    epoch, index = int(epoch), int(index)
    clips, draws = builder.layout.shape[0], len(builder.plan_of(epoch).rows)
    if index >= draws * clips:
        raise IndexError(f"clip {index} was requested, but epoch {epoch} has {draws * clips} clips, numbered from 0")
    position, clip = divmod(index, clips)
    positions, size = range(position, position + 1), 1
    if builder.mixing is not None:
        positions, size = builder.share.around(position, draws=draws)
    builder = replace(builder, clip_parameters=clip_parameters)
    pending = builder.begin_at(positions, size, epoch, worker_pool, first_alone=False)
    batches = builder.finish(pending, worker_pool, StatsRecorder())
    place = position - positions.start
    if builder.layout.interleaved:
        return batches[clip].row(place)
    return batches[0].row(place * clips + clip)
