"""One clip of an epoch, made again from its address."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from cinefeed.errors import SettingError
from cinefeed.feed.assemble import Assembler
from cinefeed.feed.batch import Batch
from cinefeed.feed.clip import Draw
from cinefeed.feed.stats import Meter
from cinefeed.feed.workers import Crew


def replay_clip(
    assembler: Assembler, epoch: int, index: int, crew: Crew, *, told: Callable[[Draw], list[dict[str, Any]]]
) -> Batch:
    """Return a batch of the one clip that has this address, and its parameters; see `Feed.replay`.

    Where batches are mixed, the clip's whole batch is made for it.
    """
    for name, value in (("epoch", epoch), ("index", index)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
            raise SettingError(f"replay({name}={value!r}) must be a whole number of at least 0")
    epoch, index = int(epoch), int(index)
    clips, draws = assembler.layout.shape[0], len(assembler.plan_of(epoch).rows)
    if index >= draws * clips:
        raise IndexError(f"clip {index} was asked for, epoch {epoch} has {draws * clips} clips, from 0 on")
    position, clip = divmod(index, clips)
    positions, size = range(position, position + 1), 1
    if assembler.mixing is not None:
        positions, size = assembler.share.around(position, draws=draws)
    telling = replace(assembler, told=told)
    pending = telling.begin_at(positions, size, epoch, crew, first_alone=False)
    batches = telling.finish(pending, crew, Meter())
    place = position - positions.start
    if assembler.layout.spread:
        return batches[clip].row(place)
    return batches[0].row(place * clips + clip)
