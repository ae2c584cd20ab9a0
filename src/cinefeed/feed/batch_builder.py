"""Build batches: lease memory, hand the clips to workers, replace rows that cannot be read, collect the arrays."""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.errors import FeedError, SourceError
from cinefeed.core.rng import Stage, rng_for, words_for
from cinefeed.data.sampling import Plan
from cinefeed.feed.batch import Batch, OnError
from cinefeed.feed.batch_layout import BatchLayout
from cinefeed.feed.clip_pipeline import ClipTimings, PlanEntry
from cinefeed.feed.labels import Labels
from cinefeed.feed.mixing import Mixing, mix_batch
from cinefeed.feed.shard import ShardPositions
from cinefeed.feed.stats import StatsRecorder
from cinefeed.feed.workers.buffers import BatchBuffer, BufferPool
from cinefeed.feed.workers.pools import WorkerPool
from cinefeed.video.ffmpeg.decoder import decoder_choice

_ATTEMPTS = 64  # number of rows of a stratum that may be tried in place of one that cannot be read


@dataclass(frozen=True, kw_only=True)
class Pending:
    """A buffer whose clips are being made: one batch, or all batches of the same videos if they are interleaved."""

    epoch: int
    positions: range  # in the plan; fewer than `size` if the rest is padding
    size: int  # draws
    rows: NDArray[np.int64]  # one for each position; those that cannot be read are replaced
    buffer: BatchBuffer
    clips: list[Future[ClipTimings]]


@dataclass(frozen=True, kw_only=True)
class BatchBuilder:
    """Starts batches and completes them."""

    plan_of: Callable[[int], Plan]
    share: ShardPositions
    buffers: BufferPool
    layout: BatchLayout
    views: tuple[str, ...]  # names of the views if each has its own array
    labels: Labels
    ids: Any  # a pyarrow Array
    weights: NDArray[np.float32]  # of each row
    covariates: Mapping[str, NDArray[np.float32]]  # by name, (rows, size)
    groups: NDArray[np.int64]  # of each row, its class or label bin
    seed: int
    on_error: OnError
    max_bad: float
    mixing: Mixing | None = None
    clip_parameters: Callable[[PlanEntry], list[dict[str, Any]]] | None = None  # if batches have parameters
    bad: dict[int, str] = field(default_factory=dict)  # rows that cannot be read, and why

    def count(self, epoch: int) -> int:
        """Return the number of batches of an epoch."""
        return self.num_buffers(epoch) * self.layout.batches

    def num_buffers(self, epoch: int) -> int:
        """Return the number of buffers of an epoch."""
        return self.share.count(len(self.plan_of(epoch).rows))

    def begin(self, index: int, epoch: int, worker_pool: WorkerPool, *, first_alone: bool) -> Pending:
        """Hand the draws of a buffer to the workers; with `first_alone`, the first clip is made before the others."""
        positions, size = self.share.positions(index, draws=len(self.plan_of(epoch).rows))
        return self.begin_at(positions, size, epoch, worker_pool, first_alone=first_alone)

    def begin_at(
        self, positions: range, size: int, epoch: int, worker_pool: WorkerPool, *, first_alone: bool
    ) -> Pending:
        """Hand the draws at some positions of the plan to the workers, for a buffer of `size` draws."""
        plan = self.plan_of(epoch)
        buffer = self.buffers.lease()
        rows = plan.rows[positions.start : positions.stop].astype(np.int64)
        pending = Pending(epoch=epoch, positions=positions, size=size, rows=rows, buffer=buffer, clips=[])
        buffer.valid[:] = True
        buffer.clips[len(rows) : size], buffer.valid[len(rows) : size] = 0, False
        if buffer.masks is not None:
            buffer.masks[len(rows) : size] = 0
        draws = {place: PlanEntry(row, epoch, positions[place]) for place, row in enumerate(rows.tolist())}
        if first_alone and draws:
            pending.clips.extend(worker_pool.submit({0: draws.pop(0)}, buffer))
            wait(pending.clips)
        pending.clips.extend(worker_pool.submit(draws, buffer))
        return pending

    def finish(self, pending: Pending, worker_pool: WorkerPool, meter: StatsRecorder) -> list[Batch]:
        """Wait for the clips of a buffer, and return its batches. Raises a clip's error, unless it can be replaced."""
        wait(pending.clips, return_when=FIRST_EXCEPTION)  # woken once a buffer, not once a clip
        try:
            timings = [self._result(pending, place, worker_pool) for place in range(len(pending.clips))]
        except BaseException:
            pending.clips.clear()  # one has the error, and the error has this frame
            raise
        if timings:
            whole = ClipTimings(*(sum(each) for each in zip(*timings, strict=True)))
            meter.add(
                **{f"{stage}_seconds": getattr(whole, stage) for stage in ("fetch", "read", "decode", "transform")}
            )
            counts = ("retried", "compiled", "pyav", "requests", "fetched_bytes", "refetches")
            meter.add(**{name: getattr(whole, name) for name in counts})
            if whole.pyav:
                decoder_choice()  # logs why once: worker processes do not
        began = time.perf_counter()
        batches = [self._batch(pending, number) for number in range(self.layout.batches)]
        meter.add(assemble_seconds=time.perf_counter() - began)
        return batches

    def _batch(self, pending: Pending, number: int) -> Batch:
        """Return one batch of a buffer."""
        buffer, times = pending.buffer, self.layout.shape[0] // self.layout.batches
        rows, size = np.repeat(pending.rows, times), pending.size * times
        arrays, valid = self.layout.batch(buffer.clips, buffer.valid, number=number, draws=pending.size)
        clips = dict(zip(self.views, arrays, strict=True)) if self.views else arrays[0]

        def of_rows(values: NDArray[Any]) -> NDArray[Any]:
            """Return the values of a column for each place of the batch; zeros for padding."""
            column = np.zeros((size, *values.shape[1:]), values.dtype)
            column[: len(rows)] = values[rows]
            return column

        has_label = {name: of_rows(np.asarray(each.has_label)) for name, each in self.labels.several.items()}
        optional: dict[str, Any] = {}
        if buffer.masks is not None:
            optional["masks"] = self.layout.pieces(buffer.masks, number=number, draws=pending.size)[0]
        if self.clip_parameters is not None:
            optional["parameters"] = self._parameters(pending, number)
        pictures = {"clip": clips, "mask": optional.get("masks")}.get(self.labels.main.task)
        batch = Batch(
            clips=clips,
            targets={name: of_rows(each.values) for name, each in self.labels.several.items()}
            or (of_rows(self.labels.main.values) if pictures is None else pictures),
            weights={name: of_rows(self.weights) * each for name, each in has_label.items()} or of_rows(self.weights),
            ids=np.array([*(self.ids[row].as_py() for row in rows.tolist()), *[""] * (size - len(rows))], np.str_),
            valid=valid,
            covariates={name: of_rows(values) for name, values in self.covariates.items()},
            **optional,
        )
        if self.mixing is None:
            return batch
        first = pending.positions.start * self.layout.shape[0] + number
        rng = rng_for(self.seed, stage=Stage.MIX, epoch=pending.epoch, position=first)
        return mix_batch(self.mixing, batch, rng=rng, size=len(rows), labels=self.labels, has_label=has_label)

    def _parameters(self, pending: Pending, number: int) -> list[dict[str, Any]]:
        """Return the parameters of each row of a batch; of padding, an empty dict.

        They are sampled again from the address of the clip, which costs a fraction of making the clip.
        """
        assert self.clip_parameters is not None
        parameters: list[dict[str, Any]] = []
        clips, epoch = self.layout.shape[0], pending.epoch
        for row, position in zip(pending.rows.tolist(), pending.positions, strict=True):
            clip_parameters = self.clip_parameters(PlanEntry(row, epoch, position))
            for clip in [number] if self.layout.interleaved else range(clips):
                address = {"epoch": epoch, "index": position * clips + clip, "row": row}
                parameters.append(address | clip_parameters[clip])
        size = pending.size * (clips // self.layout.batches)
        return parameters + [{} for _ in range(size - len(parameters))]

    def _result(self, pending: Pending, place: int, worker_pool: WorkerPool) -> ClipTimings:
        """Return the timings of a clip; with on_error="replace", rows that cannot be read are replaced."""
        future, plan, position = pending.clips[place], self.plan_of(pending.epoch), pending.positions[place]
        stand_ins = None
        # A raised or caught error refers to this frame: it would hold the buffer until cycles are collected.
        while isinstance(error := future.exception(), SourceError) and self.on_error == "replace":
            self._condemn(int(pending.rows[place]), error)
            stand_ins = stand_ins or self._stand_ins(plan, pending.epoch, position)
            row = next(stand_ins, None)
            if row is None:
                raise FeedError(
                    f"{error}; no other row that could take its place can be read either; run 'cinefeed check'"
                ) from error
            pending.rows[place] = row
            (future,) = worker_pool.submit({place: PlanEntry(row, pending.epoch, position)}, pending.buffer)
        try:
            return future.result()
        finally:
            del future, error

    def _condemn(self, row: int, error: SourceError) -> None:
        """Record a row that cannot be read. Raises FeedError if there are too many."""
        self.bad[row] = str(error)
        if len(self.bad) / len(self.ids) > self.max_bad:
            first = "; ".join(list(self.bad.values())[:3])
            raise FeedError(
                f"{len(self.bad)} of {len(self.ids)} rows cannot be read, more than max_bad={self.max_bad:g} of all "
                f"rows: {first}; run 'cinefeed check', or raise max_bad"
            ) from error

    def _stand_ins(self, plan: Plan, epoch: int, position: int) -> Iterator[int]:
        """Yield the rows to try in place of a bad one: others of the same class or label bin, in random order.

        After the last row of a bin of a continuous label, the rows with the nearest labels follow. The order depends on
        the address (seed, epoch, position) alone, not on the bad rows so far: a file with a damaged middle can still
        give a clip of its beginning, so if it were left out, a batch would depend on what was fed before.
        """
        row = int(plan.rows[position])
        candidates = np.unique(plan.rows)
        candidates = candidates[candidates != row]
        in_group = self.groups[candidates] == self.groups[row]
        near = candidates[in_group]
        words = words_for(self.seed, stage=Stage.REPLACE, epoch=epoch, position=position, count=len(near))
        others = candidates[~in_group] if self.labels.main.task == "regression" else candidates[:0]
        distance = np.abs(self.labels.main.values[others] - self.labels.main.values[row])
        order = [*near[np.argsort(words, kind="stable")], *others[np.argsort(distance, kind="stable")]]
        yield from map(int, order[:_ATTEMPTS])
