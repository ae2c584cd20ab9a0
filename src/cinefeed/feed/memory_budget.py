"""A memory budget, and how a feed uses it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from cinefeed.core.errors import SettingError
from cinefeed.core.text import format_bytes, parse_bytes
from cinefeed.data.manifest.rows import view_names
from cinefeed.feed.batch_layout import BatchLayout

# A decoder also holds reference frames (16 at most in H.264) and tables.
_REFERENCE_FRAMES, _DECODER_BYTES = 17, 8_000_000


@dataclass(frozen=True, kw_only=True)
class MemoryBudget:
    """The parts of a memory budget, in bytes."""

    budget: int
    decoders: int  # of all workers together
    buffer_bytes: int  # one batch, or all batches of the same videos if they are interleaved
    buffers: int  # as many as fit into the rest
    batches: int = 1  # in a buffer

    def __str__(self) -> str:
        return (
            f"memory {format_bytes(self.budget)}: decoders {format_bytes(self.decoders)}, "
            f"{self.buffers * self.batches} batches of {format_bytes(self.buffer_bytes / self.batches)}"
        )


def divide_memory(
    memory: int | str | None, *, layout: BatchLayout, needed: int, workers: int, table: Any, frames: int
) -> MemoryBudget | None:
    """Return the parts of a memory budget, None without a budget.

    Raises SettingError if the budget is too small for the decoders and `needed` buffers.
    """
    if memory is None:
        return None
    budget = parse_bytes(memory)
    files = 2 if layout.masks else 1  # open at a time; a mask is as large as its video
    decoders = max(workers, 1) * files * decoder_bytes(table, frames=frames)
    buffer_bytes, batches = layout.nbytes, layout.batches
    buffers = (budget - decoders) // buffer_bytes
    if buffers < needed:
        least = decoders + needed * buffer_bytes
        raise SettingError(
            f"memory={memory!r} is too little: decoders take {format_bytes(decoders)}, and {needed * batches} batches "
            f"{format_bytes(buffer_bytes / batches)} each; give {format_bytes(least)} or more, or fewer workers, "
            "prefetch or batch_size"
        )
    return MemoryBudget(
        budget=budget, decoders=decoders, buffer_bytes=buffer_bytes, buffers=int(buffers), batches=batches
    )


def decoder_bytes(table: Any, *, frames: int) -> int:
    """Return the maximum bytes of one worker while it makes a clip: frames of the largest video, and the decoder."""
    largest, columns = 0.0, set(table.schema.names)
    for view in view_names(columns) or ("",):
        names = [f"{name}:{view}" if view else name for name in ("height", "width", "channels", "bits")]
        if columns.issuperset(names):
            height, width, channels, bits = (pc.fill_null(table[name], 0).to_numpy().astype(np.int64) for name in names)
            planes = np.where(channels == 1, 1.0, 1.5) * np.where(bits > 16, 4, np.where(bits > 8, 2, 1))
            largest = max(largest, float((height * width * planes).max(initial=0)))
    return int(largest * (frames + _REFERENCE_FRAMES)) + _DECODER_BYTES
