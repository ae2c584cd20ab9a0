"""The class Feed, which returns the videos of a manifest as batches.

More than 400 lines, because it lists all settings and public methods; the other modules of this package do the work.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

from numpy.typing import NDArray

from cinefeed.core.arguments import check_arguments, expect, expect_integer, in_words
from cinefeed.core.errors import ArgumentError, SettingError, UnpicklableError
from cinefeed.core.html import display, display_page
from cinefeed.core.text import parse_bytes
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.manifest.values import check_values
from cinefeed.data.sampling import BalanceReport, Plan, Sampler
from cinefeed.feed.batch import Batch, OnError
from cinefeed.feed.batch_builder import BatchBuilder
from cinefeed.feed.batch_layout import BatchLayout
from cinefeed.feed.clip_pipeline import ClipPipeline
from cinefeed.feed.covariates import read_covariates, resolve_covariates, row_weights
from cinefeed.feed.describe import (
    check_rows,
    describe_batch,
    describe_plan,
    describe_task,
    describe_workers,
    notices,
    positive_is_second,
)
from cinefeed.feed.display import CLIPS, feed_html, feed_repr, feed_title
from cinefeed.feed.evaluation import evaluation_settings
from cinefeed.feed.fetch_ahead import FetchAhead
from cinefeed.feed.inputs import (
    check_callables,
    choose_views,
    draws_globally,
    find_masks,
    sampler_groups,
    sampler_weights,
)
from cinefeed.feed.iteration import Epochs
from cinefeed.feed.labels import FeedSpec, Task, clip_name, read_labels
from cinefeed.feed.memory_budget import divide_memory
from cinefeed.feed.mixing import Mixing, check_mixing, is_soft
from cinefeed.feed.plan_cache import PlanCache
from cinefeed.feed.prefetch import buffers_ahead
from cinefeed.feed.replay import replay_clip
from cinefeed.feed.settings import HINTS, ClipsPerVideo, FeedSettings, Inputs, Shard, Workers, batch_settings
from cinefeed.feed.shard import ShardPositions, check_alone, find_shard
from cinefeed.feed.state import State, between_batches, plan_fingerprint, read_state
from cinefeed.feed.stats import Stats, StatsRecorder
from cinefeed.feed.workers.autotune import BackendChoice, count_workers
from cinefeed.feed.workers.buffers import BufferPool
from cinefeed.feed.workers.pool_factory import start_pool
from cinefeed.feed.workers.pools import InlinePool
from cinefeed.transforms.base import Transform
from cinefeed.transforms.call import callable_name, calls_of
from cinefeed.transforms.compose import Compose
from cinefeed.video.clips import Clip, Frame

_log = logging.getLogger(__name__)


@check_arguments(hints=HINTS)
class Feed:
    """Feeds the videos of a manifest as batches: rows drawn by a sampler, cut to clips, transformed, in a fixed order.

    A batch is a pure function of manifest, settings, seed, epoch and index; the number of workers does not change it.
    Each `iter(feed)` iterates over one epoch, and ends an older iterator, which raises StaleIteratorError on its next
    use. The next `iter(feed)` begins the next epoch, even if this one was not finished, unless `set_epoch` or `restore`
    is called before.

    The arguments are the fields of `cinefeed.feed.settings.FeedSettings`, and are documented there.

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
        mixing: Mixing | None = None,
        sampler: Sampler | None = None,
        batch_size: int = 16,
        drop_last: bool = False,
        seed: int = 0,
        inputs: Inputs = Inputs(),
        clips_per_video: int | ClipsPerVideo = 1,
        workers: int | Literal["auto"] | Workers = "auto",
        shard: Shard | None = None,
        on_error: OnError = "raise",
        max_bad: float = 0.01,
        return_parameters: bool = False,
    ) -> None:
        options = {name: value for name, value in locals().items() if name not in ("self", "manifest")}
        self._set_up(manifest, FeedSettings(**options))

    @classmethod
    def from_settings(cls, manifest: Manifest, settings: FeedSettings) -> Self:
        """Return the feed of a manifest with these settings."""
        return cls(manifest, **{each.name: getattr(settings, each.name) for each in fields(settings)})

    def _set_up(self, manifest: Manifest, settings: FeedSettings, *, trained: FeedSpec | None = None) -> None:
        """Create all parts of the feed. For an evaluation, `trained` has the label scale of the training feed."""
        inputs, workers, clips, frame = settings.inputs, settings.workers, settings.clips_per_video, settings.frame
        if not isinstance(manifest, Manifest):
            raise ArgumentError(
                f"a feed needs a Manifest, found {in_words(manifest)}: use Manifest.read(path) for a file, "
                "Manifest.scan(folder) for a folder, and parts.train, parts.val or parts.test for a split"
            )
        check_rows(manifest)
        self.manifest, table = manifest, manifest.table
        self.shard = find_shard(settings.shard)
        self.worker_count = count_workers(workers.count)
        folder = None if workers.cache is None else Path(workers.cache).expanduser()
        limit = None if workers.cache_bytes is None else parse_bytes(workers.cache_bytes)
        rows = manifest.rows.with_cache(folder, limit)
        masks = find_masks(manifest, inputs.mask)
        if masks is not None and rows.remote is not None:
            masks.remote = rows.remote
        labels = read_labels(
            table,
            type_of=manifest.label_type,
            target=settings.target,
            task=settings.task,
            classes=settings.classes,
            mask=inputs.mask,
        )
        self._targets = labels.main
        labels.check_balance(settings.sampler)
        self.sampler = positive_is_second(settings.sampler, self._targets.classes)
        self._group_kwargs = sampler_groups(manifest, self.sampler)
        views = choose_views(manifest.rows.views, views=inputs.views, stack=inputs.stack, target=settings.target)
        check_values(manifest, frame=frame, views=views, replaces=settings.on_error == "replace")
        compose = Compose(settings.transforms, frame=frame, frames=settings.clip.frames)
        check_callables(compose.transforms, masks=inputs.mask is not None)
        self._pipeline = pipeline = ClipPipeline(
            rows=rows,
            clip=settings.clip,
            compose=compose,
            channels=frame.channels,
            seed=settings.seed,
            clips=clips.count,
            views=views or ("",),
            geometry=inputs.geometry,
            stack=inputs.stack,
            masks=masks,
        )
        frames, height, width, channels = pipeline.shape[2:]
        input_names = ("clips", "valid", *(["masks"] if inputs.mask else []), *map(clip_name, views))
        of_labels = sampler_weights(self.sampler, self.labels, **self._group_kwargs) if labels.name else None
        has_labels = settings.target is not None
        pads_rows = self.shard.world_size > 1 and not settings.drop_last
        weighs_rows = inputs.weight is not None or of_labels is not None or not has_labels or labels.have_gaps
        self.spec = FeedSpec(
            clip_shape=(frames, height, width, channels),
            dtype=pipeline.compose.dtype,
            batch_size=settings.batch_size,
            **labels.described(),
            covariates=resolve_covariates(table, inputs.covariates, inputs=input_names),
            padded=settings.clip.short == "pad" or pads_rows,
            views=views,
            stacked=inputs.stack,
            soft=is_soft(settings.mixing, labels),
            masks=masks is not None,
            weighted=weighs_rows or pads_rows,
            callables=tuple(callable_name(each.function) for each in calls_of(compose.transforms)),
        )
        if trained is not None:
            self.spec = replace(
                self.spec,
                target_mean=trained.target_mean,
                target_scale=trained.target_scale,
                targets=trained.targets if has_labels else (),
            )
        check_mixing(settings.mixing, labels=labels, spec=self.spec)
        # As the manifest decided them: the same for the evaluations of this feed, and compared by its state.
        self.settings = replace(
            settings,
            **self.spec.target_settings(labelled=has_labels),
            transforms=compose.transforms,
            sampler=self.sampler,
            inputs=replace(inputs, views=views or None, covariates=self.spec.covariates),
        )
        if getattr(self.sampler, "shuffle", True):  # an evaluation fills in what its training feed logged
            for notice in notices(manifest, settings.clip, self.spec.covariates):
                _log.warning(notice)
        self._meter = StatsRecorder()
        draws = settings.batch_size if clips.interleave else settings.batch_size // clips.count
        self._layout = BatchLayout(draws, pipeline.shape, pipeline.compose.dtype, clips.interleave, masks is not None)
        count = self.worker_count
        self._ahead = buffers_ahead(workers.prefetch, workers=count, draws=draws, batches=self._layout.batches)
        self.memory_budget = divide_memory(
            workers.memory,
            layout=self._layout,
            needed=self._ahead + 2,  # the batch that the consumer holds, and the next one
            workers=count,
            table=table,
            frames=settings.clip.frames * clips.count,
        )
        only_processes = draws_globally(compose.transforms)
        shared = (workers.backend != "thread" or bool(only_processes)) and hasattr(os, "memfd_create")
        self._plans = PlanCache(
            self.sampler, self.labels, seed=settings.seed, batch_size=draws, group_kwargs=self._group_kwargs
        )
        self._builder = BatchBuilder(
            plan_of=self._plans.of,
            share=ShardPositions(draws, self.shard.rank, self.shard.world_size, settings.drop_last),
            buffers=BufferPool(
                self._layout, shared=shared, limit=None if self.memory_budget is None else self.memory_budget.buffers
            ),
            layout=self._layout,
            views=() if inputs.stack else views,
            labels=labels,
            ids=manifest.column("id"),
            weights=row_weights(table, weight=inputs.weight, of_labels=of_labels, labelled=settings.target is not None),
            covariates=read_covariates(table, self.spec.covariates),
            groups=labels.groups(bins=getattr(self.sampler, "bins", "auto")),
            seed=settings.seed,
            on_error=settings.on_error,
            max_bad=settings.max_bad,
            mixing=settings.mixing,
            clip_parameters=pipeline.clip_parameters if settings.return_parameters else None,
        )
        self._fingerprint = (-1, "")  # of the plan of an epoch
        self._deaths: list[str] = []  # of workers
        fetch_ahead = None
        if rows.remote is not None:
            sources = [*((rows, view) for view in views or ("",)), *([] if masks is None else [(masks, "")])]
            share, plan_of = self._builder.share, self._plans.of
            fetch_ahead = FetchAhead(rows.remote, sources, plan_of=plan_of, share=share, meter=self._meter)
        self._epochs = Epochs(
            builder=self._builder,
            meter=self._meter,
            start_pool=partial(
                start_pool,
                pipeline,
                workers=count,
                layout=self._layout,
                deaths=self._deaths,
                timeout_seconds=workers.timeout_seconds,
                only_processes=only_processes,
            ),
            choice=None if workers.backend == "auto" else BackendChoice(workers.backend, "set by backend="),
            workers=count,
            ahead=self._ahead,
            fetch_ahead=fetch_ahead,
        )

    def __repr__(self) -> str:
        return feed_repr(self)

    def __reduce__(self) -> Any:
        """Raise UnpicklableError: a feed has workers, buffers and a position."""
        raise UnpicklableError(
            "a feed cannot be pickled or copied, because it has workers and buffers; make it in the process that uses "
            "it, Feed(Manifest.read(path), ...), and move its position with feed.state() and feed.restore(state)"
        )

    def _repr_html_(self) -> str:
        return feed_html(self)

    def show(self, *, clips: int = CLIPS, out: str | Path | None = None) -> Path | None:
        """Show what is fed: settings, labels in the data and as balancing feeds them, fused transforms, moving clips.

        In a notebook it is displayed below the cell. Elsewhere a page is written, to the file `out` or to a temporary
        file whose path is printed. The first batch is made for the clips; those of a private manifest are not shown.

        Args:
            clips: Number of clips; 0 makes no batch.
            out: Page to write, also from a notebook.

        Returns the path of the page, None in a notebook. Raises SettingError if `out` cannot be written.
        """
        clips = expect_integer(clips, name="show: clips", remedy="show(clips=0) makes no batch")
        return display(feed_html(self, clips=clips), title=feed_title(self), out=out)

    def preview(self, *, val: "Feed | None" = None, out: str | Path | None = None) -> Path | None:
        """Show the page of `cinefeed inspect`: labels, balancing, clips, pixel values and files that failed.

        It is shown as `show` shows, in a notebook within a frame. `val` is an evaluation feed whose size is counted.
        Raises MissingExtraError without matplotlib and jinja2 (the extra `report`), SettingError if `out` cannot be
        written.
        """
        return display_page("inspect", self, val=val, title=feed_title(self), out=out)

    @property
    def compose(self) -> Compose:
        """The transforms of a clip, fused; `compose.explain()` lists the steps."""
        return self._pipeline.compose

    @property
    def labels(self) -> NDArray[Any]:
        """The label of every row, as passed to the sampler: float64 numbers, or class names."""
        return self._targets.labels

    @property
    def global_batch_size(self) -> int:
        """The number of clips in one batch of all ranks together."""
        return self.settings.batch_size * self.shard.world_size

    @property
    def choice(self) -> BackendChoice | None:
        """The backend of the workers, and the reason; None until `backend="auto"` has measured it."""
        return self._epochs.choice

    @property
    def epoch(self) -> int:
        """The epoch of the batch that was returned last; after the last batch of an epoch, the next epoch."""
        return self._epochs.epoch

    @property
    def next_epoch(self) -> int:
        """The epoch of the next `iter(feed)`: the one after `epoch` if `epoch` was begun and not finished."""
        return self._epochs.next_epoch

    @property
    def is_evaluation(self) -> bool:
        """Whether `evaluation` created this feed; each iteration then starts with the first batch of epoch 0."""
        return self._epochs.repeats

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch, over which the next `iter(feed)` iterates. A running iteration becomes stale.

        If the feed is already there, batches that were made ahead are kept.
        """
        epoch = _epoch(epoch)
        self._epochs.go_to(epoch, 0, by="set_epoch() moved the feed")

    def __enter__(self) -> Self:
        """Return the feed; `close` is called at the end of the block."""
        return self

    def __exit__(self, *error: object) -> None:
        """Call `close`."""
        self.close()

    def close(self) -> None:
        """Stop the workers, which otherwise wait for the next iteration. A later iteration starts new workers."""
        self._epochs.close()

    def plan(self, *, epoch: int | None = None) -> Plan:
        """Return the plan of an epoch, by default the current one: the rows in the order in which they are drawn."""
        return self._plans.of(self.epoch if epoch is None else _epoch(epoch))

    def __len__(self) -> int:
        """Return the number of batches of the current epoch."""
        return self._builder.count(self.epoch)

    def batch(self, index: int, *, epoch: int | None = None) -> Batch:
        """Return one batch of an epoch, by default the current one. A running iteration is not affected.

        Raises IndexError if the epoch has no batch of this number.
        """
        epoch = self.epoch if epoch is None else _epoch(epoch)
        index = expect_integer(index, name="feed.batch: index", remedy="feed.batch(0) is the first batch")
        count = self._builder.count(epoch)
        if not -count <= index < count:
            raise IndexError(f"batch {index} was requested, but epoch {epoch} has {count} batches")
        worker_pool = InlinePool(self._pipeline)
        buffer, number = divmod(index % count, self._layout.batches)
        pending = self._builder.begin(buffer, epoch, worker_pool, first_alone=False)
        return self._builder.finish(pending, worker_pool, StatsRecorder())[number]

    def __getitem__(self, index: int) -> Batch:
        """Return one batch of the current epoch.

        Raises ArgumentError if a DataLoader or a Subset of torch asks, which would collate batches, or get the same
        clips in every epoch.
        """
        if str(sys._getframe(1).f_globals.get("__name__")).startswith("torch.utils.data"):
            raise ArgumentError(
                "torch's DataLoader asks this feed for items, and a feed makes whole batches, other ones in each "
                "epoch; use cinefeed.adapters.torch.FeedLoader(feed) instead, and split the manifest, not the feed"
            )
        return self.batch(index)

    def replay(self, epoch: int, index: int) -> Batch:
        """Return one clip of an epoch, as in the batch of the feed, as a batch of size 1 with its `parameters`.

        `index` is the number of the clip in the epoch, which is also in the `parameters` of a batch: the position of
        its draw in `plan(epoch=epoch)`, which is the same on every rank, times `clips_per_video`, plus the number of
        the clip within the draw.
        """
        return replay_clip(
            self._builder, epoch, index, InlinePool(self._pipeline), clip_parameters=self._pipeline.clip_parameters
        )

    def __iter__(self) -> Iterator[Batch]:
        """Return an iterator over the batches of `next_epoch`, which the workers make ahead.

        An older iterator raises StaleIteratorError on its next use. An unfinished epoch is abandoned: the iterator
        starts with the next epoch, unless `set_epoch` or `restore` is called before. The position is determined when
        the first batch is requested, so an unused iterator skips no epoch, and `set_epoch` and `restore` apply to it.

        Raises FeedError if torch.distributed or JAX has set up several ranks since this feed was created for one rank.
        """
        if self.settings.shard is None and self.shard.world_size == 1:
            check_alone()
        return self._epochs.begin()

    def evaluation(
        self, part: Manifest, *, labelled: bool = True, clips: int | None = None, shard: Shard | None = None
    ) -> "Feed":
        """Return a feed of `part` for validation, test or prediction.

        Frame, views, class order and label scale are those of this feed. There are no random transforms, no balancing
        and no mixing: each row appears once, in order, also in the last, smaller batch. Each iteration starts with
        batch 0 of epoch 0.

        part:      the rows to evaluate
        labelled:  False if `part` has no label column
        clips:     number of clips per row, by default `clips_per_video`. One clip is cut from the centre; of several,
                   each is at the centre of its part when the possible start positions are divided into equal parts.
                   With Clip(position="start") or "spread" the one clip is that of training
        shard:     by default that of this feed; Shard(rank=0, world_size=1) returns all rows

        Raises SettingError if `clips` is less than 1, or if all clips of a row would be the same.
        """
        expect(labelled, bool, name="feed.evaluation: labelled", remedy="labelled=False is for rows without labels")
        feed = Feed.__new__(Feed)
        settings = evaluation_settings(self.settings, spec=self.spec, labelled=labelled, clips=clips)
        feed._set_up(part, replace(settings, shard=shard or settings.shard), trained=self.spec)
        feed._epochs.repeats = True
        return feed

    @property
    def workers_ready(self) -> bool:
        """Whether all workers have started. The first batch needs only one of them."""
        worker_pool = None if self._epochs.latest_pool is None else self._epochs.latest_pool()
        return worker_pool is not None and worker_pool.ready

    def balance(self) -> BalanceReport:
        """Return the report of the sampler for the labels of this feed, in the first epoch."""
        groups = self._group_kwargs.get("groups")
        return self.sampler.report(self.labels, groups=groups, seed=self.settings.seed, batch_size=self._layout.draws)

    def summary(self) -> str:
        """Return one line that describes rows, task, plan, batches and workers, and one line per sampler warning."""
        plan = f"{self.sampler}: {describe_plan(self.plan(), clips=self.settings.clips_per_video.count)}"
        mixed = f", mixed by {self.settings.mixing}" if self.settings.mixing else ""
        mixed += f", changed by callables ({', '.join(self.spec.callables)})" if self.spec.callables else ""
        return (
            f"{len(self.manifest)} samples, {describe_task(self.spec, self._targets)}; {plan}; {len(self)} batches of "
            f"{describe_batch(self.spec)}{mixed}; {describe_workers(self.worker_count, self.choice)}"
            + "".join(f"\nwarning: {warning}" for warning in self.balance().warnings)
        )

    def stats(self) -> Stats:
        """Return the time spent in each stage so far, with the rows that could not be read."""
        bad = (f"row {row}: {why}" for row, why in sorted(self._builder.bad.items()))
        in_files = self.manifest.rows.arrays is None
        return self._meter.stats(
            workers=self.worker_count,
            is_packed=self.manifest.is_packed if in_files else None,
            skipped=tuple(bad),
            deaths=tuple(self._deaths),
        )

    def state(self) -> dict[str, Any]:
        """Return the position of the feed as small JSON: after the last batch that was returned.

        The position is counted in draws of all ranks, so a state can be restored on another number of ranks if the
        position is a multiple of their global batch, for example on two or one after four; see `restore`.
        """
        return self._state().as_dict()

    def restore(self, state: Mapping[str, object], *, exact: bool = True) -> Self:
        """Go to the position of `state`: the next `iter(feed)` starts with the batch after it. Returns the feed.

        With another number of ranks the position may be within a global batch. FeedError then states the nearest
        valid positions and the possible numbers of ranks; with `exact=False` the feed goes back to the last valid
        position, and logs how many draws are repeated.

        Raises FeedError if the state belongs to another manifest, seed or settings, or has a value that no state has.
        """
        expect(
            state, Mapping, name="feed.restore(state)", remedy="give that of feed.state(), with json.load() from a file"
        )
        expect(exact, bool, name="feed.restore: exact", remedy="exact=False goes back to the start of a global batch")
        draws, batches, ranks = self.global_batch_size, self._layout.batches, self.shard.world_size
        place, repeated = read_state(
            state,
            here=self._state(planned=False),
            draws=draws,
            batches=batches,
            world_size=ranks,
            plan_of=self._plan_fingerprint,
            rows_of=lambda epoch: len(self.plan(epoch=epoch).rows),
            clips=self.settings.clips_per_video.count,
            exact=exact,
        )
        if repeated:
            _log.warning(
                "restored at draw %d of epoch %d, the last global batch of %d ranks: %d draws are repeated",
                place.draws,
                place.epoch,
                ranks,
                repeated,
            )
        self._epochs.go_to(place.epoch, place.draws // draws, by="restore() moved the feed")
        self._builder.bad.update((int(row), str(why)) for row, why in place.quarantine)
        return self

    def _state(self, *, planned: bool = True) -> State:
        settings, epoch, handed = batch_settings(self.settings), self.epoch, self._epochs.handed
        draws = handed * self.global_batch_size
        if handed % self._layout.batches:
            settings |= between_batches(self.shard.world_size)
        return State(
            epoch=epoch,
            draws=draws,
            seed=self.settings.seed,
            manifest=self.manifest.fingerprint,
            plan=self._plan_fingerprint(epoch) if planned else "",
            settings=settings,
            quarantine=[[row, why] for row, why in sorted(self._builder.bad.items())],
        )

    def _plan_fingerprint(self, epoch: int) -> str:
        if epoch != self._fingerprint[0]:
            self._fingerprint = epoch, plan_fingerprint(self.plan(epoch=epoch))
        return self._fingerprint[1]


def _epoch(epoch: object) -> int:
    """Return the number of an epoch. Raises SettingError if it is not a whole number of at least 0."""
    number = expect_integer(epoch, name="epoch", remedy="the first epoch is 0")
    if number < 0:
        raise SettingError(f"epoch={number} must be at least 0")
    return number
