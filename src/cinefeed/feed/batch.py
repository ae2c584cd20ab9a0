"""A batch, from its draws to its arrays: memory leased, clips handed to workers, what cannot be read replaced."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cinefeed.balance import Plan
from cinefeed.errors import FeedError, SourceError
from cinefeed.feed.clip import Draw, Took
from cinefeed.feed.layout import Layout
from cinefeed.feed.ranks import Share
from cinefeed.feed.slots import Slot, Slots
from cinefeed.feed.stats import Meter
from cinefeed.feed.targets import Labels, clip_name
from cinefeed.feed.workers import Crew
from cinefeed.rng import Stage, words_for

OnError = Literal["raise", "replace"]
_ATTEMPTS = 64  # rows of a stratum that are tried in place of one that cannot be read


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One batch, in NumPy. Arrays may be held as long as you like; their memory is used again when they have died."""

    clips: Any  # (batch, frames, height, width, channels); of views that are not stacked, each by name
    targets: Any  # (batch,): float32, or class numbers, int64; of the task "clip" the clips; of several, each by name
    weights: Any  # (batch,): 0 where a row has no label, or is padding; of several targets, each by name
    ids: NDArray[np.str_]  # (batch,)
    valid: NDArray[np.bool_]  # (batch, frames): False where a frame is padding
    covariates: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)  # by name, (batch, size)

    @property
    def nbytes(self) -> int:
        """The size of the clips, in bytes."""
        return sum(array.nbytes for array in _by_name(self.clips).values())

    def inputs(self, *, padded: bool) -> dict[str, NDArray[Any]]:
        """Return what a model is called with, by name: the clips, the covariates, and `valid` where there is padding.

        The clips are `clips`, or of views that are not stacked one input each: `clips_2ch`, `clips_4ch`.
        """
        return _by_name(self.clips) | dict(self.covariates) | ({"valid": self.valid} if padded else {})


def _by_name(clips: Any) -> dict[str, NDArray[Any]]:
    """Return clips by the names of the inputs that they are."""
    if isinstance(clips, Mapping):
        return {clip_name(view): array for view, array in clips.items()}
    return {"clips": clips}


@dataclass(frozen=True, kw_only=True)
class Pending:
    """A slot under way: a batch, or all over which clips are spread."""

    epoch: int
    positions: range  # in the plan; fewer than `size` where the rest is padding
    size: int  # draws
    rows: NDArray[np.int64]  # one a position; others take the place of those that cannot be read
    slot: Slot
    clips: list[Future[Took]]


@dataclass(frozen=True, kw_only=True)
class Assembler:
    """Begins batches, and ends them."""

    plan_of: Callable[[int], Plan]
    share: Share
    slots: Slots
    layout: Layout
    views: tuple[str, ...]  # names of the views where each is an array of its own
    labels: Labels
    ids: Any  # a pyarrow Array
    weights: NDArray[np.float32]  # of each row
    covariates: Mapping[str, NDArray[np.float32]]  # by name, (rows, size)
    groups: NDArray[np.int64]  # of each row, its class or label bin
    seed: int
    on_error: OnError
    max_bad: float
    bad: dict[int, str] = field(default_factory=dict)  # rows that cannot be read, and why

    def count(self, epoch: int) -> int:
        """Return the number of batches of an epoch."""
        return self.slots_of(epoch) * self.layout.batches

    def slots_of(self, epoch: int) -> int:
        """Return the number of slots that an epoch takes."""
        return self.share.count(len(self.plan_of(epoch).rows))

    def begin(self, index: int, epoch: int, crew: Crew, *, first_alone: bool) -> Pending:
        """Hand the draws of a slot to the workers; with `first_alone` the others wait for the first."""
        plan = self.plan_of(epoch)
        positions, size = self.share.positions(index, draws=len(plan.rows))
        slot = self.slots.lease()
        rows = plan.rows[positions.start : positions.stop].astype(np.int64)
        pending = Pending(epoch=epoch, positions=positions, size=size, rows=rows, slot=slot, clips=[])
        slot.valid[:] = True
        slot.clips[len(rows) : size], slot.valid[len(rows) : size] = 0, False
        for place in range(len(rows)):
            pending.clips.append(crew.submit(Draw(int(rows[place]), epoch, positions[place]), slot, place))
            if first_alone and not place:
                wait(pending.clips)
        return pending

    def finish(self, pending: Pending, crew: Crew, meter: Meter) -> list[Batch]:
        """Wait for the clips of a slot, and return its batches. Raises a clip's error, unless it can be replaced."""
        took = [self._result(pending, place, crew) for place in range(len(pending.clips))]
        if took:
            read, decode, transform, retried = (sum(each) for each in zip(*took, strict=True))
            meter.add(read_seconds=read, decode_seconds=decode, transform_seconds=transform, retried=retried)
        began = time.perf_counter()
        batches = [self._batch(pending, number) for number in range(self.layout.batches)]
        meter.add(assemble_seconds=time.perf_counter() - began)
        return batches

    def _batch(self, pending: Pending, number: int) -> Batch:
        """Return one batch of a slot."""
        slot, times = pending.slot, self.layout.shape[0] // self.layout.batches
        rows, size = np.repeat(pending.rows, times), pending.size * times
        arrays, valid = self.layout.batch(slot.clips, slot.valid, number=number, draws=pending.size)
        clips = dict(zip(self.views, arrays, strict=True)) if self.views else arrays[0]

        def of_rows(values: NDArray[Any]) -> NDArray[Any]:
            """Return what each place of the batch has of a column; padding has zeros."""
            column = np.zeros((size, *values.shape[1:]), values.dtype)
            column[: len(rows)] = values[rows]
            return column

        return Batch(
            clips=clips,
            targets={name: of_rows(each.values) for name, each in self.labels.several.items()}
            or (clips if self.labels.main.task == "clip" else of_rows(self.labels.main.values)),
            weights={
                name: of_rows(self.weights) * of_rows(np.asarray(each.known))
                for name, each in self.labels.several.items()
            }
            or of_rows(self.weights),
            ids=np.array([*self.ids.take(rows).to_pylist(), *[""] * (size - len(rows))], dtype=np.str_),
            valid=valid,
            covariates={name: of_rows(values) for name, values in self.covariates.items()},
        )

    def _result(self, pending: Pending, place: int, crew: Crew) -> Took:
        """Return what a clip took, once one is made; rows that cannot be read are passed over, where that is wanted."""
        future, plan, position = pending.clips[place], self.plan_of(pending.epoch), pending.positions[place]
        stand_ins = None
        while True:
            try:
                return future.result()
            except SourceError as error:
                if self.on_error == "raise":
                    raise
                self._condemn(int(pending.rows[place]), error)
                stand_ins = stand_ins or self._stand_ins(plan, pending.epoch, position)
                row = next(stand_ins, None)
                if row is None:
                    raise FeedError(
                        f"{error}; no other row that could take its place can be read either; run 'cinefeed check'"
                    ) from error
            pending.rows[place] = row
            future = crew.submit(Draw(row, pending.epoch, position), pending.slot, place)

    def _condemn(self, row: int, error: SourceError) -> None:
        """Note a row that cannot be read, and stop where there are too many."""
        self.bad[row] = str(error)
        allowed = math.ceil(self.max_bad * len(self.ids))
        if len(self.bad) > allowed:
            first = "; ".join(list(self.bad.values())[:3])
            raise FeedError(
                f"{len(self.bad)} of {len(self.ids)} rows cannot be read, more than max_bad={self.max_bad:g} allows "
                f"({allowed}): {first}; run 'cinefeed check', or raise max_bad"
            ) from error

    def _stand_ins(self, plan: Plan, epoch: int, position: int) -> Iterator[int]:
        """Yield the rows that take a place in turn: others of the same class, or of the same label bin, by chance.

        Where a bin of a continuous label is used up, the rows with the nearest labels follow. A function of the address
        (seed, epoch, position) alone. What is known of bad rows does not come into it: a file that breaks in its middle
        can still serve a clip of its beginning, so to pass over it would make a batch depend on what was fed before.
        """
        row = int(plan.rows[position])
        drawn = np.unique(plan.rows)
        drawn = drawn[drawn != row]
        alike = self.groups[drawn] == self.groups[row]
        near = drawn[alike]
        words = words_for(self.seed, stage=Stage.REPLACE, epoch=epoch, position=position, count=len(near))
        others = drawn[~alike] if self.labels.main.task == "regression" else drawn[:0]
        distance = np.abs(self.labels.main.values[others] - self.labels.main.values[row])
        order = [*near[np.argsort(words, kind="stable")], *others[np.argsort(distance, kind="stable")]]
        yield from map(int, order[:_ATTEMPTS])
