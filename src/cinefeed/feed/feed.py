"""Feed: a manifest in, batches out, in a fixed order, made on all cores."""

import logging
import os
import time
import weakref
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from cinefeed.balance import Natural, Plan, Sampler
from cinefeed.balance.strata import bin_strata
from cinefeed.clips import Clip, Frame
from cinefeed.errors import SettingError, UnfitError, did_you_mean
from cinefeed.feed.batch import Assembler, Batch, OnError
from cinefeed.feed.choose import Choice, choose_backend
from cinefeed.feed.clip import ClipMaker, Draw
from cinefeed.feed.covariates import Covariate, known_covariates, read_covariates, read_weights
from cinefeed.feed.describe import check_rows, describe_plan, describe_task, positive_is_second
from cinefeed.feed.line import Line
from cinefeed.feed.memory import spend
from cinefeed.feed.processes import ProcessCrew
from cinefeed.feed.ranks import Share, find_rank
from cinefeed.feed.slots import Slots, slot_bytes
from cinefeed.feed.state import State, read_state
from cinefeed.feed.stats import Meter, Stats
from cinefeed.feed.targets import FeedSpec, Task, read_labels
from cinefeed.feed.workers import Backend, Crew, InlineCrew, ThreadCrew, count_workers
from cinefeed.manifest.table import Manifest
from cinefeed.transforms.base import Transform, is_random
from cinefeed.transforms.compose import Compose

_log = logging.getLogger(__name__)
_TRIED = 64  # clips, at most, by which the backend is chosen


class Feed:
    """Feeds the videos of a manifest as batches: drawn by a sampler, cut to clips, transformed, in a fixed order.

    A batch is a pure function of manifest, settings, seed, epoch and index: the number of workers changes no byte.
    `iter(feed)` gives the batches of the current epoch; finishing them advances the epoch, breaking off does not.

    target: label column; None feeds clips alone (targets NaN or -1, weights 0); "clip" has the clips as targets.
    Of several names the first is balanced, and the others may have missing labels, of weight 0; batches then hold
    targets and weights by name, and `task` and `classes` may be given by name.
    task: "regression", "binary" or "multiclass"; by default numbers are a regression, text and booleans are classes.
    classes: names in the order of their numbers; sorted by default. The second of two is the positive one.
    workers: how many make clips; 0 makes them in the caller; "auto" is one a core.
    backend: "thread"; "process", which scales where frames are small, and costs a second to start (Linux); or "auto",
    which tries both ways for a second at the first batch, and keeps what it chose in `choice`.
    timeout_seconds: a clip that a worker process takes longer for is an error; threads cannot be stopped.
    prefetch: batches made ahead of the one in use; at an epoch's end they are the next epoch's, so that it begins
    without a wait. The workers rest between epochs, and end with the feed.
    drop_last: leave out a last batch that is not full.
    rank, world_size: which of several feeds this is; by default as torch.distributed or JAX are set up. Each makes its
    `batch_size` of every global batch; parts have the same length, by padding (weight 0, nothing valid) or `drop_last`.
    on_error: "raise", or "replace" a row that cannot be read by another of its class or label bin, up to the share
    `max_bad` of all rows.
    covariates: columns that a model reads beside the clips, numbers standardised, categories as zeros and a one.
    weight: column of sample weights, by which rows count in a loss.
    memory: a bound such as "2GB" on batches and open decoders together.

    >>> import cinefeed as cf, numpy as np, tempfile, pathlib, pyarrow as pa
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for name in "abc":
    ...     np.save(folder / f"{name}.npy", np.zeros((9, 20, 20), np.uint8))
    >>> table = pa.table({"path": ["a.npy", "b.npy", "c.npy"], "age": [31, 45, 60]})
    >>> feed = cf.Feed(
    ...     cf.Manifest.from_table(table, root=folder), target="age", clip=cf.Clip(frames=4),
    ...     frame=cf.Frame(height=16, width=16, channels=1), batch_size=2)
    >>> [batch.clips.shape for batch in feed]
    [(2, 4, 16, 16, 1), (1, 4, 16, 16, 1)]
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        target: str | Sequence[str] | None,
        clip: Clip,
        frame: Frame,
        task: Task | Mapping[str, Task] | None = None,
        classes: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        transforms: Sequence[Transform] = (),
        sampler: Sampler | None = None,
        batch_size: int = 16,
        seed: int = 0,
        workers: int | Literal["auto"] = "auto",
        backend: Backend | Literal["auto"] = "thread",
        prefetch: int | Literal["auto"] = "auto",
        drop_last: bool = False,
        timeout_seconds: float | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        on_error: OnError = "raise",
        max_bad: float = 0.01,
        memory: int | str | None = None,
        covariates: Sequence[str | Covariate] = (),
        weight: str | None = None,
    ) -> None:
        prefetch = 2 if prefetch == "auto" else prefetch  # one waits while one is made, whatever their size
        if batch_size < 1 or prefetch < 0:
            raise SettingError(f"batch_size={batch_size} must be at least 1, prefetch={prefetch} at least 0")
        if on_error not in get_args(OnError):
            raise SettingError(f"on_error={on_error!r} is not a choice; {did_you_mean(on_error, get_args(OnError))}")
        if not 0 <= max_bad <= 1:
            raise SettingError(f"max_bad={max_bad!r} must be a share of the rows, from 0 to 1")
        if backend not in (*get_args(Backend), "auto"):
            known = [*get_args(Backend), "auto"]
            raise SettingError(f"backend={backend!r} is not a backend; {did_you_mean(str(backend), known)}")
        check_rows(manifest)
        self.manifest = manifest
        self.clip = clip
        self.frame = frame
        self.transforms = tuple(transforms)
        self.batch_size = batch_size
        self.seed = seed
        self.backend = backend
        self.choice: Choice | None = None if backend == "auto" else Choice(backend, "as it was asked for")
        self.prefetch = prefetch
        self.drop_last = drop_last
        self.timeout_seconds = timeout_seconds
        self.on_error = on_error
        self.max_bad = max_bad
        self.memory = memory
        self.rank, self.world_size = find_rank(rank, world_size)
        self.workers = count_workers(workers)
        self._ids = manifest.column("id")
        table = manifest.table
        self.weight = weight
        labels = read_labels(table, target=target, task=task, classes=classes)
        self._targets = labels.main
        self.sampler = positive_is_second(sampler or Natural(), self._targets.classes)
        compose = Compose(self.transforms, frame=frame)
        main = labels.main.spec(labels.name)
        self.spec = FeedSpec(
            clip_shape=(clip.frames, frame.height, frame.width, frame.channels),
            dtype=compose.dtype,
            batch_size=batch_size,
            target=main.name,
            task=main.task,
            classes=main.classes,
            target_mean=main.mean,
            target_scale=main.scale,
            covariates=known_covariates(table, covariates),
            targets=tuple(each.spec(name) for name, each in labels.several.items()),
            padded=clip.short == "pad" or (self.world_size > 1 and not drop_last),
        )
        self._meter = Meter()
        self._maker = ClipMaker(rows=manifest.rows, clip=clip, compose=compose, channels=frame.channels, seed=seed)
        # Enough clips on the way that no worker is idle while a small batch is handed over.
        self._ahead = max(prefetch, -(-2 * self.workers // batch_size)) if self.workers else 0
        shape = (batch_size, *self.spec.clip_shape)
        limit = None
        if memory is not None:
            self.spending = spend(
                memory,
                slot_bytes=slot_bytes(shape, self.spec.dtype),
                needed=self._ahead + 2,  # one in the consumer's hands, and the next that it asks for
                workers=self.workers,
                table=table,
                frames=clip.frames,
            )
            limit = self.spending.slots
        self._assembler = Assembler(
            plan_of=lambda epoch: self.plan(epoch=epoch),
            share=Share(batch_size, self.rank, self.world_size, drop_last),
            slots=Slots(
                shape, dtype=self.spec.dtype, shared=backend != "thread" and hasattr(os, "memfd_create"), limit=limit
            ),
            labels=labels,
            ids=self._ids,
            weights=np.full(len(manifest), target is not None, np.float32)
            if weight is None
            else read_weights(table, weight),
            covariates=read_covariates(table, self.spec.covariates),
            groups=self._groups(),
            seed=seed,
            on_error=on_error,
            max_bad=max_bad,
        )
        self._epoch = 0
        self._start = 0  # the batch that the next iterator starts at
        self._handed = 0  # batches of the epoch that were handed out
        self._plans: dict[int, Plan] = {}
        self._deaths: list[str] = []  # of workers
        self._running: weakref.ref[Generator[Batch]] | None = None
        self._line: Line | None = None  # between two epochs
        self._goes_on = self.workers > 0  # into the next epoch, as training does; an evaluation may be the only one

    @property
    def labels(self) -> NDArray[Any]:
        """The label of every row, as the sampler sees it: float64 numbers, or class names."""
        return self._targets.labels

    def _groups(self) -> NDArray[np.int64]:
        """Return the class or the label bin of each row: a row that cannot be read gives its place to one alike."""
        if self.spec.task == "regression" and self.spec.target:
            return bin_strata(self.labels, bins=getattr(self.sampler, "bins", "auto")).numbers
        classes = self._targets.values if self.spec.classes else np.zeros(len(self.manifest))
        return classes.astype(np.int64)

    @property
    def epoch(self) -> int:
        """The epoch that `iter(feed)` gives."""
        return self._epoch

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch."""
        if epoch < 0:
            raise SettingError(f"epoch={epoch} must be at least 0")
        self._close()
        self._epoch, self._start, self._handed = epoch, 0, 0

    def plan(self, *, epoch: int | None = None) -> Plan:
        """Return the plan of an epoch, by default the current one: which rows are drawn, in which order."""
        epoch = self._epoch if epoch is None else epoch
        if epoch not in self._plans:
            while len(self._plans) > 1:  # two are in use where one epoch ends and the next begins
                del self._plans[next(iter(self._plans))]
            self._plans[epoch] = self.sampler.plan(self.labels, seed=self.seed, epoch=epoch, batch_size=self.batch_size)
        return self._plans[epoch]

    def __len__(self) -> int:
        """Return the number of batches of the current epoch."""
        return self._assembler.count(self._epoch)

    def batch(self, index: int, *, epoch: int | None = None) -> Batch:
        """Return one batch of an epoch, by default the current one, whatever the feed is doing otherwise."""
        epoch = self._epoch if epoch is None else epoch
        count = self._assembler.count(epoch)
        if not -count <= index < count:
            raise IndexError(f"batch {index} was asked for, epoch {epoch} has {count} batches")
        crew = InlineCrew(self._maker)
        pending = self._assembler.begin(index % count, epoch, crew, first_alone=False)
        return self._assembler.finish(pending, crew, Meter())

    def __getitem__(self, index: int) -> Batch:
        """Return one batch of the current epoch."""
        return self.batch(index)

    def __iter__(self) -> Iterator[Batch]:
        """Return the batches of the current epoch, made ahead by the workers. It closes an iterator still open."""
        self._close_running()
        running = self._run(self._epoch, self._start)
        self._start, self._handed = 0, self._start
        self._running = weakref.ref(running)
        return running

    def _close(self) -> None:
        self._close_running()
        if self._line is not None:
            self._line.crew.stop()
            self._line = None

    def _close_running(self) -> None:
        running = None if self._running is None else self._running()
        if running is not None:
            running.close()
        self._running = None

    def _run(self, epoch: int, start: int) -> Generator[Batch]:
        line, self._line = self._line or self._start_line(epoch, start), None
        kept = False
        mark = time.perf_counter()
        try:
            for _ in range(start, self._assembler.count(epoch)):
                asked = time.perf_counter()
                batch = line.take(epoch, meter=self._meter)
                self._handed += 1
                now = time.perf_counter()
                self._meter.add(
                    batches=1,
                    clips=len(batch.ids),
                    bytes=batch.clips.nbytes,
                    wait_seconds=now - asked,
                    elapsed_seconds=now - mark,
                )
                mark = now
                yield batch
                del batch  # or its slot could not come back while the next one is waited for
            line.end(epoch)
            if self._epoch == epoch:
                self._epoch, self._handed = epoch + 1, 0
                self._line, kept = line, True
        finally:
            if not kept:
                line.crew.stop()

    def _start_line(self, epoch: int, index: int) -> Line:
        crew = self._start_crew()
        warm = not self.workers
        goes_on = self._goes_on
        return Line(
            crew, assembler=self._assembler, epoch=epoch, index=index, ahead=self._ahead, goes_on=goes_on, warm=warm
        )

    def _start_crew(self) -> Crew:
        """Start the workers, of the kind asked for, or of the one that a short trial finds better."""
        if not self.workers:
            return InlineCrew(self._maker)
        if self.choice is None and self.timeout_seconds is not None and hasattr(os, "memfd_create"):
            self.choice = Choice("process", "processes alone can be stopped after timeout_seconds")
        if self.choice is None:
            rows = self.plan().rows[:_TRIED].tolist()
            draws = [Draw(row, self._epoch, position) for position, row in enumerate(rows)]
            self.choice = choose_backend(self._maker, draws, workers=self.workers)
            _log.info("backend='auto' chose %s", self.choice.why)
        if self.choice.backend == "process":
            try:
                return ProcessCrew(
                    self._maker,
                    count=self.workers,
                    shape=(self.batch_size, *self.spec.clip_shape),
                    deaths=self._deaths,
                    timeout_seconds=self.timeout_seconds,
                )
            except UnfitError as error:
                self.choice = Choice("thread", f"threads make the clips, for processes cannot: {error}")
                _log.warning("%s", self.choice.why)
        return ThreadCrew(self._maker, count=self.workers)

    def evaluation(self, part: Manifest, *, labelled: bool = True) -> "Feed":
        """Return a feed of `part` for validation, test or prediction.

        Same frame, class order and label scale; clips from the centre, no random transform, no balance, every row
        once and in order, the last batch kept. `labelled=False` needs no label column.
        """
        spec, several = self.spec, {each.name: each for each in self.spec.targets}
        feed = Feed(
            part,
            target=None if not labelled else list(several) or spec.target or None,
            task={name: each.task for name, each in several.items()} if labelled and several else spec.task,
            classes={name: each.classes for name, each in several.items() if each.classes}
            if labelled and several
            else spec.classes or None,
            clip=replace(self.clip, position="center" if self.clip.position == "random" else self.clip.position),
            frame=self.frame,
            transforms=[each for each in self.transforms if not is_random(each)],
            sampler=Natural(shuffle=False),
            batch_size=self.batch_size,
            seed=self.seed,
            workers=self.workers,
            backend=self.backend,
            prefetch=self.prefetch,
            timeout_seconds=self.timeout_seconds,
            rank=self.rank,
            world_size=self.world_size,
            on_error=self.on_error,
            max_bad=self.max_bad,
            memory=self.memory,
            covariates=self.spec.covariates,
            weight=self.weight if labelled else None,
        )
        feed._goes_on = False
        feed.spec = replace(
            feed.spec,
            target_mean=self.spec.target_mean,
            target_scale=self.spec.target_scale,
            targets=self.spec.targets if labelled else (),
        )
        return feed

    def summary(self) -> str:
        """Say in one line what is fed, and what balancing makes of it."""
        drawn = f"{self.sampler}: {describe_plan(self.plan())}"
        kinds = {"thread": "threads", "process": "processes", "auto": "threads or processes, by a trial"}
        kind = kinds["auto" if self.choice is None else self.choice.backend]
        return (
            f"{len(self.manifest)} samples, {describe_task(self.spec, self._targets)}; {drawn}; {len(self)} batches of "
            f"{self.batch_size} x {self.spec.clip_shape} {self.spec.dtype}; {self.workers} {kind}"
        )

    def stats(self) -> Stats:
        """Return where the time went so far."""
        bad = (f"row {row}: {why}" for row, why in sorted(self._assembler.bad.items()))
        return self._meter.stats(workers=self.workers, skipped=tuple(bad), deaths=tuple(self._deaths))

    def state(self) -> dict[str, Any]:
        """Return where the feed stands, as small JSON: a batch counts once it has been handed out.

        It counts the draws of all ranks, so that a state of four ranks serves two, or one, with the same `batch_size`.
        """
        return self._state().as_dict()

    def restore(self, state: Mapping[str, object]) -> Self:
        """Go to where `state` stood: the next `iter(feed)` starts with the batch after it.

        Raises FeedError where the state belongs to another manifest, seed or settings.
        """
        found = read_state(state, here=self._state(), draws=self._assembler.share.draws)
        self.set_epoch(found.epoch)
        self._start = self._handed = found.draws // self._assembler.share.draws
        return self

    def _state(self) -> State:
        settings = {
            name: repr(getattr(self, name))
            for name in ("clip", "frame", "transforms", "sampler", "batch_size", "drop_last", "on_error")
        }
        settings["target"] = repr((self.spec.target, self.spec.task, self.spec.classes, self.spec.targets))
        settings["columns"] = repr((self.spec.covariates, self.weight))
        epoch, draws = self._epoch, self._handed * self._assembler.share.draws
        if self._handed and self._handed == len(self):  # after the last batch is before the first of the next epoch
            epoch, draws = epoch + 1, 0
        return State(epoch=epoch, draws=draws, seed=self.seed, manifest=self.manifest.fingerprint, settings=settings)
