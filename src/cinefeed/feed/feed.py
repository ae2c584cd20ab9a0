"""Feed: a manifest in, batches out, in a fixed order, made on all cores.

Past 400 lines, half of them settings and what they mean: the work is done in the files beside this one.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, Self

from numpy.typing import NDArray

from cinefeed.balance import BalanceReport, Natural, Plan, Sampler
from cinefeed.clips import Clip, Frame
from cinefeed.errors import SettingError
from cinefeed.feed.assemble import Assembler
from cinefeed.feed.batch import Batch, OnError
from cinefeed.feed.choose import Choice
from cinefeed.feed.clip import ClipMaker, Geometry
from cinefeed.feed.covariates import Covariate, known_covariates, read_covariates, row_weights
from cinefeed.feed.crews import start_crew
from cinefeed.feed.describe import (
    check_rows,
    describe_batch,
    describe_plan,
    describe_task,
    describe_workers,
    notices,
    positive_is_second,
)
from cinefeed.feed.evaluating import evaluation_settings
from cinefeed.feed.iteration import Epochs
from cinefeed.feed.layout import Layout
from cinefeed.feed.memory import spend
from cinefeed.feed.mixing import Mixing, check_mixing, is_soft
from cinefeed.feed.plans import Plans
from cinefeed.feed.ranks import Share, check_alone, find_rank
from cinefeed.feed.replay import replay_clip
from cinefeed.feed.settings import (
    check_callables,
    check_choices,
    check_numbers,
    choose_views,
    draws_globally,
    find_masks,
    sampler_groups,
    sampler_weights,
)
from cinefeed.feed.slots import Slots
from cinefeed.feed.state import State, between_batches, plan_fingerprint, read_state, settings_of
from cinefeed.feed.stats import Meter, Stats
from cinefeed.feed.targets import FeedSpec, Task, clip_name, read_labels
from cinefeed.feed.workers import Backend, InlineCrew, count_workers
from cinefeed.manifest.table import Manifest
from cinefeed.manifest.values import check_values
from cinefeed.transforms.base import Transform
from cinefeed.transforms.call import callable_name, calls_of
from cinefeed.transforms.compose import Compose

_log = logging.getLogger(__name__)


class Feed:
    """Feeds the videos of a manifest as batches: drawn by a sampler, cut to clips, transformed, in a fixed order.

    A batch is a pure function of manifest, settings, seed, epoch and index: the number of workers changes no byte.
    Each `iter(feed)` gives the batches of one epoch, and makes an older iterator raise StaleIteratorError. The next
    begins the next epoch, whether or not this one was finished, unless `set_epoch` or `restore` came between.

    target: label column; None feeds clips alone (targets NaN or -1, weights 0); "clip" has the clips as targets.
    Of several names the first is balanced; rows may lack labels, which have weight 0, but where the first is balanced
    every row needs that one. Batches then hold targets and weights by name, and `task` and `classes` may be given so.
    task: "regression", "binary" or "multiclass"; by default text, booleans and numbers that are all 0 or 1 are
    classes, other numbers a regression (see cinefeed.label_types).
    classes: names in the order of their numbers; sorted by default. The second of two is the positive one.
    workers: how many make clips; 0 makes them in the caller; "auto" is one a core.
    backend: "thread"; "process", which scales where frames are small, and costs a second to start (Linux); or "auto",
    which tries both ways for a second at the first batch, and keeps what it chose in `choice`.
    timeout_seconds: a clip that a worker process takes longer for is an error; threads cannot be stopped.
    prefetch: batches made ahead of the one in use; at an epoch's end they are the next epoch's, so that it begins
    without a wait. Processes wait for the next iteration, wherever that begins, and end with the feed or `close`.
    drop_last: leave out a last batch that is not full.
    rank, world_size: which of several feeds this is; by default as torch.distributed or JAX are set up. Each makes its
    `batch_size` of every global batch; parts have the same length, by padding (weight 0, nothing valid) or `drop_last`.
    on_error: "raise", or "replace" a row that cannot be read by another of its class or label bin, up to the share
    `max_bad` of all rows.
    covariates: columns that a model reads beside the clips, numbers standardised, categories as zeros and a one.
    weight: column of sample weights, by which rows count in a loss.
    memory: a bound such as "2GB" on batches and open decoders together.
    clips_per_video: clips of every video that is drawn, from one stretch of it that is decoded once and is twice as
    long as a clip; each has its own place there, and its own transforms. An epoch has as many times the clips. They
    share a batch, or with `spread` lie in as many batches one after the other, which then hold the same videos. With
    Clip(position="center") they are spread evenly over the video instead.
    views: of a manifest whose rows hold several (see `Manifest.pivot`), those that are fed, by default all; at the same
    time points, or where they differ in length at the same share of what each leaves free. `batch.clips` holds each by
    name, and a model's inputs are `clips_2ch`, `clips_4ch` ...; with `stack` the views are channels of one clip.
    A frame is `valid` where it is in all of them.
    geometry: "shared", so that the views of a clip are transformed alike, or "apart", each by its own parameters.
    mask: column of paths of mask videos, relative to the manifest's root, each as long and as large as its video. They
    follow it in time and place, by the nearest pixel, and nothing else touches them: labels from 0 to 255, 0 where the
    clip has moved away. A model has them as the input `masks`, or as its targets, with `target` the same column.
    mixing: `MixUp()` or `CutMix()` of cinefeed.transforms, by which the rows of a batch are mixed with each other, and
    their labels, weights and covariates with them. Classes become soft targets, see `FeedSpec.soft`.
    return_parameters: batches say in `parameters` how each row came about; see Batch. Files that were not scanned are
    opened once more for that.

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
        transforms: Sequence[Transform | Callable[..., Any]] = (),
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
        clips_per_video: int = 1,
        spread: bool = False,
        views: Sequence[str] | None = None,
        stack: bool = False,
        geometry: Geometry = "shared",
        mask: str | None = None,
        mixing: Mixing | None = None,
        return_parameters: bool = False,
    ) -> None:
        prefetch = 2 if prefetch == "auto" else prefetch  # one waits while one is made, whatever their size
        check_choices(on_error=on_error, backend=backend, geometry=geometry)
        check_numbers(
            batch_size=batch_size, prefetch=prefetch, max_bad=max_bad, clips_per_video=clips_per_video, spread=spread
        )
        check_rows(manifest)
        self.manifest = manifest
        self.clip = clip
        self.frame = frame
        self.batch_size = batch_size
        self.seed = seed
        self.backend = backend
        self.prefetch = prefetch
        self.drop_last = drop_last
        self.timeout_seconds = timeout_seconds
        self.on_error = on_error
        self.max_bad = max_bad
        self.memory = memory
        self.rank, self.world_size = find_rank(rank, world_size)
        self._rank_given = rank is not None
        self.workers = count_workers(workers)
        self.weight = weight
        self.mask, self.mixing, self.return_parameters = mask, mixing, return_parameters
        self.clips_per_video, self.spread, self.geometry = clips_per_video, spread and clips_per_video > 1, geometry
        table = manifest.table
        masks = find_masks(manifest, mask)
        labels = read_labels(table, type_of=manifest.label_type, target=target, task=task, classes=classes, mask=mask)
        self._targets = labels.main
        labels.check_balance(sampler or Natural())
        self.sampler = positive_is_second(sampler or Natural(), self._targets.classes)
        self._alike = sampler_groups(manifest, self.sampler)
        chosen = choose_views(manifest.rows.views, views=views, stack=stack, target=target)
        check_values(manifest, frame=frame, views=chosen, replaces=on_error == "replace")
        inputs = ("clips", "valid", *(["masks"] if mask else []), *map(clip_name, chosen))
        compose = Compose(transforms, frame=frame, frames=clip.frames)
        self.transforms = compose.transforms
        check_callables(compose.transforms, masks=mask is not None)
        self._maker = maker = ClipMaker(
            rows=manifest.rows,
            clip=clip,
            compose=compose,
            channels=frame.channels,
            seed=seed,
            clips=clips_per_video,
            views=chosen or ("",),
            geometry=geometry,
            stack=stack,
            masks=masks,
        )
        frames, height, width, channels = maker.shape[2:]
        of_labels = sampler_weights(self.sampler, self.labels, **self._alike) if labels.name else None
        pads_rows = self.world_size > 1 and not drop_last
        weighs = weight is not None or of_labels is not None or target is None or labels.have_gaps
        self.spec = FeedSpec(
            clip_shape=(frames, height, width, channels),
            dtype=maker.compose.dtype,
            batch_size=batch_size,
            **labels.described(),
            covariates=known_covariates(table, covariates, inputs=inputs),
            padded=clip.short == "pad" or pads_rows,
            views=chosen,
            stacked=stack,
            soft=is_soft(mixing, labels),
            masks=masks is not None,
            weighted=weighs or pads_rows,
            callables=tuple(callable_name(each.function) for each in calls_of(compose.transforms)),
        )
        check_mixing(mixing, labels=labels, spec=self.spec)
        if getattr(self.sampler, "shuffle", True):  # what an evaluation fills in, its training has said
            for notice in notices(manifest, clip, self.spec.covariates):
                _log.warning(notice)
        self._meter = Meter()
        draws = batch_size if self.spread else batch_size // clips_per_video
        self._layout = Layout(draws, maker.shape, maker.compose.dtype, self.spread, masks is not None)
        # Enough clips on the way that no worker is idle while a small batch is handed over.
        self._ahead = max(-(-prefetch // self._layout.batches), -(-2 * self.workers // draws)) if self.workers else 0
        self.spending = spend(
            memory,
            layout=self._layout,
            needed=self._ahead + 2,  # one in the consumer's hands, and the next that it asks for
            workers=self.workers,
            table=table,
            frames=clip.frames * clips_per_video,
        )
        only_processes = draws_globally(compose.transforms)
        shared = (backend != "thread" or bool(only_processes)) and hasattr(os, "memfd_create")
        self._plans = Plans(self.sampler, self.labels, seed=seed, batch_size=draws, alike=self._alike)
        self._assembler = Assembler(
            plan_of=self._plans.of,
            share=Share(draws, self.rank, self.world_size, drop_last),
            slots=Slots(self._layout, shared=shared, limit=None if self.spending is None else self.spending.slots),
            layout=self._layout,
            views=() if stack else chosen,
            labels=labels,
            ids=manifest.column("id"),
            weights=row_weights(table, weight=weight, of_labels=of_labels, labelled=target is not None),
            covariates=read_covariates(table, self.spec.covariates),
            groups=labels.groups(bins=getattr(self.sampler, "bins", "auto")),
            seed=seed,
            on_error=on_error,
            max_bad=max_bad,
            mixing=mixing,
            told=maker.told if return_parameters else None,
        )
        self._fingerprint = (-1, "")  # of the plan of an epoch
        self._deaths: list[str] = []  # of workers
        self._epochs = Epochs(
            assembler=self._assembler,
            meter=self._meter,
            start_crew=partial(
                start_crew,
                maker,
                workers=self.workers,
                layout=self._layout,
                deaths=self._deaths,
                timeout_seconds=timeout_seconds,
                only_processes=only_processes,
            ),
            choice=None if backend == "auto" else Choice(backend, "as it was asked for"),
            workers=self.workers,
            ahead=self._ahead,
        )

    @property
    def labels(self) -> NDArray[Any]:
        """The label of every row, as the sampler sees it: float64 numbers, or class names."""
        return self._targets.labels

    @property
    def choice(self) -> Choice | None:
        """The backend that makes the clips, and why; None until backend="auto" has chosen."""
        return self._epochs.choice

    @property
    def epoch(self) -> int:
        """The epoch of the batch that was handed out last, or the following one after the last batch of an epoch."""
        return self._epochs.epoch

    @property
    def next_epoch(self) -> int:
        """The epoch that the next `iter(feed)` gives: the one after `epoch` if that was begun and not finished."""
        return self._epochs.next_epoch

    @property
    def is_evaluation(self) -> bool:
        """Whether `evaluation` made this feed, so that each iteration gives epoch 0 from its first batch on."""
        return self._epochs.repeats

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch, which the next `iter(feed)` gives; an iterator under way becomes stale.

        At the start of that epoch already, the workers go on with what they began.
        """
        if epoch < 0:
            raise SettingError(f"epoch={epoch} must be at least 0")
        self._epochs.go_to(epoch, 0, by="set_epoch() moved the feed")

    def close(self) -> None:
        """End the workers, which wait for the next iteration otherwise; one after this starts others."""
        self._epochs.close()

    def plan(self, *, epoch: int | None = None) -> Plan:
        """Return the plan of an epoch, by default the current one: which rows are drawn, in which order."""
        return self._plans.of(self.epoch if epoch is None else epoch)

    def __len__(self) -> int:
        """Return the number of batches of the current epoch."""
        return self._assembler.count(self.epoch)

    def batch(self, index: int, *, epoch: int | None = None) -> Batch:
        """Return one batch of an epoch, by default the current one, whatever the feed is doing otherwise."""
        epoch = self.epoch if epoch is None else epoch
        count = self._assembler.count(epoch)
        if not -count <= index < count:
            raise IndexError(f"batch {index} was asked for, epoch {epoch} has {count} batches")
        crew = InlineCrew(self._maker)
        slot, number = divmod(index % count, self._layout.batches)
        pending = self._assembler.begin(slot, epoch, crew, first_alone=False)
        return self._assembler.finish(pending, crew, Meter())[number]

    def __getitem__(self, index: int) -> Batch:
        """Return one batch of the current epoch."""
        return self.batch(index)

    def replay(self, epoch: int, index: int) -> Batch:
        """Return one clip of an epoch as it was or will be fed, in a batch of its own, with its `parameters`.

        `index` is the clip's place in the epoch: that of its draw in `plan(epoch=epoch)`, which is the same on every
        rank, times `clips_per_video`, plus the number of the clip; a batch's `parameters` name it.
        """
        return replay_clip(self._assembler, epoch, index, InlineCrew(self._maker), told=self._maker.told)

    def __iter__(self) -> Iterator[Batch]:
        """Return the batches of `next_epoch`, made ahead by the workers.

        It takes over: an older iterator raises StaleIteratorError on its next use. An epoch of which some batches were
        handed out, but not all, is left, and the next one begins, as every iteration over a DataLoader is shuffled
        anew; `set_epoch` and `restore` are the ways to stay. The iterator takes its place at its first batch: one that
        was never used skips no epoch, and follows `set_epoch` and `restore`.

        Raises FeedError if torch.distributed or JAX has set up several ranks since the feed was made as the only one.
        """
        if not self._rank_given and self.world_size == 1:
            check_alone()
        return self._epochs.begin()

    def evaluation(self, part: Manifest, *, labelled: bool = True, clips: int | None = None) -> "Feed":
        """Return a feed of `part` for validation, test or prediction.

        Same frame, views, class order and label scale; no random transform, no balance, no mixing, every row once and
        in order, the last batch kept; each iteration begins with batch 0 of epoch 0. Of each row `clips`, by default
        `clips_per_video`, or 1 if all would be the same one: a single clip from the centre; several in the middle of
        their shares of what a clip leaves free, one row after the other.
        `labelled=False` needs no label column. Raises SettingError for several clips of a video where all of them would
        be the same one.
        """
        feed = Feed(part, **evaluation_settings(self, labelled=labelled, clips=clips))
        feed._epochs.repeats, feed._rank_given = True, self._rank_given
        feed.spec = replace(
            feed.spec,
            target_mean=self.spec.target_mean,
            target_scale=self.spec.target_scale,
            targets=self.spec.targets if labelled else (),
        )
        return feed

    @property
    def workers_ready(self) -> bool:
        """Whether the workers have all started. The first batch comes sooner: one is enough for it."""
        crew = None if self._epochs.latest_crew is None else self._epochs.latest_crew()
        return crew is not None and crew.ready

    def balance(self) -> BalanceReport:
        """Return what the sampler makes of the labels in the first epoch."""
        groups = self._alike.get("groups")
        return self.sampler.report(self.labels, groups=groups, seed=self.seed, batch_size=self._layout.draws)

    def summary(self) -> str:
        """Say in one line what is fed, and what balancing makes of it; each warning of the sampler is a line more."""
        drawn = f"{self.sampler}: {describe_plan(self.plan(), clips=self.clips_per_video)}"
        mixed = f", mixed by {self.mixing}" if self.mixing else ""
        mixed += f", changed by callables ({', '.join(self.spec.callables)})" if self.spec.callables else ""
        return (
            f"{len(self.manifest)} samples, {describe_task(self.spec, self._targets)}; {drawn}; {len(self)} batches of "
            f"{describe_batch(self.spec)}{mixed}; {describe_workers(self.workers, self.choice)}"
            + "".join(f"\nwarning: {warning}" for warning in self.balance().warnings)
        )

    def stats(self) -> Stats:
        """Return where the time went so far."""
        bad = (f"row {row}: {why}" for row, why in sorted(self._assembler.bad.items()))
        return self._meter.stats(workers=self.workers, skipped=tuple(bad), deaths=tuple(self._deaths))

    def state(self) -> dict[str, Any]:
        """Return where the feed stands, as small JSON: a batch counts once it has been handed out.

        It counts the draws of all ranks, so that a state of four ranks serves two, or one, with the same `batch_size`,
        and any number of ranks of whose global batches it is a border; see `restore`.
        """
        return self._state().as_dict()

    def restore(self, state: Mapping[str, object], *, exact: bool = True) -> Self:
        """Go to where `state` stood: the next `iter(feed)` starts with the batch after it.

        With another number of ranks the place may lie within a global batch. Then FeedError names the nearest borders
        and the numbers of ranks that it serves; with `exact=False` the feed goes back to the last border, and a log
        line says how many draws come again.

        Raises FeedError where the state belongs to another manifest, seed or settings.
        """
        draws, batches = self.batch_size * self.world_size, self._layout.batches
        place, repeated = read_state(
            state,
            here=self._state(planned=False),
            draws=draws,
            batches=batches,
            world_size=self.world_size,
            plan_of=self._plan_fingerprint,
            rows_of=lambda epoch: len(self.plan(epoch=epoch).rows),
            exact=exact,
        )
        if repeated:
            _log.warning(
                "restored at draw %d of epoch %d, the last border of %d ranks: %d draws come again",
                place.draws,
                place.epoch,
                self.world_size,
                repeated,
            )
        self._epochs.go_to(place.epoch, place.draws // draws, by="restore() moved the feed")
        self._assembler.bad.update((int(row), str(why)) for row, why in place.quarantine)
        return self

    def _state(self, *, planned: bool = True) -> State:
        settings, epoch, handed = settings_of(self), self.epoch, self._epochs.handed
        draws = handed * self.batch_size * self.world_size
        if handed % self._layout.batches:
            settings |= between_batches(self.world_size)
        return State(
            epoch=epoch,
            draws=draws,
            seed=self.seed,
            manifest=self.manifest.fingerprint,
            plan=self._plan_fingerprint(epoch) if planned else "",
            settings=settings,
            quarantine=[[row, why] for row, why in sorted(self._assembler.bad.items())],
        )

    def _plan_fingerprint(self, epoch: int) -> str:
        if epoch != self._fingerprint[0]:
            self._fingerprint = epoch, plan_fingerprint(self.plan(epoch=epoch))
        return self._fingerprint[1]
