"""check_feed passes what is right, and each promise has a feed that breaks it, which it finds."""

import json
import weakref
from contextlib import suppress
from dataclasses import replace
from itertools import islice

import numpy as np
import pyarrow as pa
import pytest

import cinefeed as cf
from cinefeed.core.errors import FeedError
from cinefeed.data.sampling.plan import Plan
from cinefeed.testing import check_feed
from cinefeed.transforms import CutMix, MixUp

SETTINGS = {
    "target": "age",
    "clip": cf.Clip(frames=4, stride=2),
    "frame": cf.Frame(height=16, width=16, channels=1),
    "transforms": [cf.Rotate(degrees=20), cf.Brightness(factor=0.2)],
    "batch_size": 2,
    "seed": 7,
    "workers": 1,
}


SINGLE = cf.Shard(rank=0, world_size=1)


def make(manifest, kind=cf.Feed, **changes):
    return kind(manifest, **{**SETTINGS, **changes})


def finds(feed, message, **options):
    with pytest.raises(AssertionError, match=message):
        check_feed(feed, **options)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"workers": 0},
        {"batch_size": 11},
        {"batch_size": 50},
        {"batch_size": 3, "drop_last": True, "workers": cf.Workers(count=1, prefetch=0)},
        {"clip": cf.Clip(frames=16, short="pad"), "transforms": [cf.Normalize()]},
        {"target": None},
        {"target": "clip"},
        {"target": "sick", "sampler": cf.BalancedClasses(length=23)},
        {
            "target": ["age", "sick", "score"],
            "inputs": cf.Inputs(covariates=["age", "sick"]),
            "sampler": cf.UniformLabels(bins=3),
        },
        {"shard": cf.Shard(rank=1, world_size=2)},
        {"clips_per_video": 2, "batch_size": 4},
        {"clips_per_video": cf.ClipsPerVideo(count=3, interleave=True), "drop_last": True},
        {"mixing": MixUp(), "return_parameters": True},
        {"mixing": CutMix(), "target": "sick", "clip": cf.Clip(frames=16, short="pad")},
        {"workers": cf.Workers(count=1, memory="10.1MB"), "frame": cf.Frame(height=256, width=256, channels=1)},
        pytest.param(
            {"workers": cf.Workers(count=2, backend="process")}, marks=pytest.mark.slow
        ),  # eleven worker pools
    ],
    ids=str,
)
def test_what_is_right_passes(manifest, changes):
    scores = pa.array([None if row % 3 else float(row) for row in range(11)])
    check_feed(
        make(cf.Manifest.from_table(manifest.table.append_column("score", scores), root=manifest.root), **changes)
    )


def test_a_feed_that_is_made_again_passes_and_stands_where_it_stood(manifest):
    feed = make(manifest)
    feed.set_epoch(3)
    batches = iter(feed)
    next(batches)
    state = feed.state()
    check_feed(feed, make=lambda **changes: make(manifest, **changes))
    assert feed.state() == state == json.loads(json.dumps(state)) and state["draws"] == 2


def test_an_evaluation_passes(manifest):
    check_feed(make(manifest).evaluation(manifest))


def test_a_file_that_is_replaced_passes(manifest):
    (manifest.root / "03.npy").write_bytes(b"")
    feed = make(manifest, on_error="replace", max_bad=0.1)
    check_feed(feed)
    assert len(feed.stats().skipped) == 1


def test_of_a_long_epoch_both_ends_are_checked(manifest):
    places = set()

    class Noting(cf.Feed):
        def batch(self, index, *, epoch=None):
            places.add(index)
            return super().batch(index, epoch=epoch)

    check_feed(make(manifest, Noting, target="sick", sampler=cf.BalancedClasses(length=120)))
    assert places == {*range(20), *range(40, 61), -1, -61}


class Wrong(cf.Feed):
    """Changes every batch, in whichever way it is asked for."""

    def wrong(self, batch, index, epoch):
        return batch

    def batch(self, index, *, epoch=None):
        epoch = self.epoch if epoch is None else epoch
        batch = super().batch(index, epoch=epoch)
        return self.wrong(batch, index % len(self), epoch)

    def __iter__(self):
        batches = super().__iter__()
        epoch, start = self.epoch, self.state()["draws"] // self.settings.batch_size
        for index, batch in enumerate(batches, start):
            yield self.wrong(batch, index, epoch)


def wrong_batches(change):
    """Return a kind of feed of which `change` makes the arrays that are wrong, from a batch and its index."""

    class Kind(Wrong):
        def wrong(self, batch, index, epoch):
            return replace(batch, **change(batch, index))

    return Kind


def with_values(array, where, value):
    changed = array.copy()
    changed[where] = value
    return changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda batch, _: {"clips": batch.clips.astype(np.float32)}, "clips are float32 .* by feed.spec uint8"),
        (lambda batch, _: {"clips": batch.clips[:, :3]}, r"clips are uint8 \(2, 3, 16, 16, 1\), by feed.spec"),
        (lambda batch, _: {"targets": batch.targets.astype(np.float64)}, "targets are float64"),
        (lambda batch, _: {"targets": {"age": batch.targets}}, r"has .*targets\[age\].* expected"),
        (lambda batch, _: {"weights": batch.weights[:, None]}, r"weights are float32 \(2, 1\)"),
        (lambda batch, _: {"covariates": {"age": batch.weights}}, r"has .*covariates\[age\]"),
        (lambda batch, _: {"ids": np.array(["v0"] * 9)}, "has 9 rows, batch_size is 2"),
        (lambda batch, _: {name: getattr(batch, name)[:1] for name in ("clips", "ids")}, "1 rows, but is not the last"),
        (lambda batch, _: {"ids": batch.ids[::-1]}, "does not have the rows of the plan in their order"),
        (lambda batch, _: {"ids": np.array(["v98", "v99"][: len(batch.ids)])}, "'v98'.*not among its draws"),
        (lambda batch, _: {"ids": with_values(batch.ids, 0, "")}, "a padding row are not 0"),
        (lambda batch, _: {"targets": batch.targets + 1}, "targets are not the labels of its rows"),
        (lambda batch, _: {"targets": batch.targets * np.nan}, "targets with weights above 0 are not valid labels"),
        (lambda batch, _: {"weights": -batch.weights}, "weights are negative"),
        (lambda batch, _: {"valid": with_values(batch.valid, 0, False)}, "a row has no valid frame"),
        (
            lambda batch, _: {"valid": with_values(batch.valid, (0, 1), False)},
            "frames that are not valid are not zeros",
        ),
    ],
)
def test_wrong_arrays_are_found(manifest, change, message):
    finds(make(manifest, wrong_batches(change), transforms=[cf.Brightness(factor=(1.2, 1.3))]), message)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "a padding row are not 0"),
        (("weights",), "a padding row has valid frames"),
        (("weights", "valid"), "frames that are not valid are not zeros"),
        (("weights", "valid", "clips"), "spec.padded is False"),
    ],
)
def test_padding_that_is_not_marked_is_found(manifest, names, message):
    """The first row of each batch becomes padding, one of its marks after the other."""

    def change(batch, _):
        changes = {"ids": with_values(batch.ids, 0, "")}
        return changes | {name: with_values(getattr(batch, name), 0, 0) for name in names}

    finds(make(manifest, wrong_batches(change)), message)
    if len(names) == 3:
        feed = make(manifest, wrong_batches(change), clip=cf.Clip(frames=4, short="pad"))
        finds(feed, "has padding rows, but there are no other ranks")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda plan: {"rows": np.where(plan.rows == 3, 4, plan.rows)}, "a second plan of epoch 0 has other rows"),
        (lambda plan: {"occurrence": plan.occurrence[1:]}, "have different lengths"),
        (lambda plan: {"occurrence": plan.occurrence + 1}, "`occurrence` does not count"),
        (lambda plan: {"strata": plan.strata + 1}, "`strata` are not those of its rows"),
    ],
)
def test_a_wrong_plan_is_found(manifest, change, message):
    class Kind(cf.Feed):
        def plan(self, *, epoch=None):
            return replace(super().plan(epoch=epoch), **change(super().plan(epoch=epoch)))

    finds(make(manifest, Kind), message)


@pytest.mark.parametrize(
    ("rows", "occurrence", "message"),
    [
        ([0, 1, 1, 2], [0, 0, 1, 0], "row 1 is drawn 2 times, 1 expected"),
        (list(range(10)), [0] * 10, "row 10 is drawn 0 times, 1 expected"),
        (list(range(12)), [0] * 12, "rows are not all from 0 to 10"),
    ],
)
def test_a_row_twice_or_never_is_found(manifest, rows, occurrence, message):
    class Sampler(cf.Natural):
        def plan(self, labels, *, seed=0, epoch=0, batch_size=None):
            return Plan(rows=np.array(rows), occurrence=np.array(occurrence), strata=np.zeros(len(rows), np.int64))

    finds(make(manifest, sampler=Sampler()), message)


def test_another_share_than_the_sampler_promises_is_found(manifest):
    class Sampler(cf.BalancedClasses):
        def plan(self, labels, *, seed=0, epoch=0, batch_size=None):
            plan = cf.Natural().plan(labels, seed=seed, epoch=epoch)
            return replace(plan, strata=self.strata(labels).numbers[plan.rows])

    finds(make(manifest, target="sick", sampler=Sampler()), r"stratum 0 is drawn 8 times, 5\.5 expected")


def test_a_sampler_with_a_generator_of_its_own_is_found(manifest):
    rng = np.random.default_rng(0)

    class Sampler(cf.Natural):
        def plan(self, labels, *, seed=0, epoch=0, batch_size=None):
            return super().plan(labels, seed=int(rng.integers(99)), epoch=epoch)

    finds(make(manifest, sampler=Sampler()), "a second plan of epoch 0 has other rows")


def test_a_wrong_length_is_found(manifest):
    class Kind(cf.Feed):
        def __len__(self):
            return 5

    finds(make(manifest, Kind), "11 draws are 6 batches, len")
    finds(make(manifest, batch_size=12, drop_last=True), "nothing can be checked")


def test_wrong_answers_to_an_index_are_found(manifest):
    class First(cf.Feed):
        def batch(self, index, *, epoch=None):
            return super().batch(max(index, 0), epoch=epoch)

    class Around(cf.Feed):
        def batch(self, index, *, epoch=None):
            return super().batch(index % len(self), epoch=epoch)

    finds(make(manifest, First), r"batch\(-1\) is not the last")
    finds(make(manifest, Around), r"batch\(6\) of 6 batches does not raise")


class Iterated(Wrong):
    """Is wrong in iterations alone."""

    def batch(self, index, *, epoch=None):
        return cf.Feed.batch(self, index, epoch=epoch)


def darker(batch):
    return replace(batch, clips=batch.clips // 2)


def test_another_batch_by_its_index_is_found(manifest):
    class Kind(Iterated):
        def wrong(self, batch, index, epoch):
            return darker(batch) if index == 4 else batch

    finds(make(manifest, Kind), r"batch 4 differs from batch\(4\): clips")


def test_random_access_that_disturbs_an_iteration_is_found(manifest):
    class Lost(Iterated):
        skip = 0

        def batch(self, index, *, epoch=None):
            self.skip = 1
            return super().batch(index, epoch=epoch)

        def __iter__(self):
            self.skip = 0
            for batch in super().__iter__():
                if self.skip:
                    self.skip = 0
                else:
                    yield batch

    class Ahead(Wrong):
        running = False

        def wrong(self, batch, index, epoch):
            return darker(batch) if self.running and index == 5 else batch

        def __iter__(self):
            self.running = True
            yield from cf.Feed.__iter__(self)
            self.running = False

    finds(make(manifest, Lost), r"batch 1 differs from batch\(1\)")
    finds(make(manifest, Ahead), r"batch\(5\) differs during an iteration: clips")


def test_an_epoch_that_is_too_short_or_too_long_is_found(manifest):
    class Short(Iterated):
        def __iter__(self):
            yield from islice(super().__iter__(), 5)

    class Long(cf.Feed):
        def __iter__(self):
            yield from super().__iter__()
            yield self.batch(0)

    finds(make(manifest, Short), r"batch 5 differs from batch\(5\): there is no batch")
    finds(make(manifest, Long), "there are batches after the 6 of the epoch")


def test_an_epoch_that_is_not_the_next_is_found(manifest):
    class Stays(cf.Feed):
        def __iter__(self):
            epoch = self.epoch
            yield from super().__iter__()
            self.set_epoch(epoch)

    class Early(cf.Feed):
        def __iter__(self):
            yield from super().__iter__()

        @property
        def epoch(self):
            return super().epoch + bool(self._epochs.handed)

    class Stale(Iterated):
        def wrong(self, batch, index, epoch):
            return cf.Feed.batch(self, index, epoch=0) if epoch else batch

    class Hasty(cf.Feed):
        def __iter__(self):
            try:
                yield from super().__iter__()
            finally:
                if self.next_epoch != self.epoch:
                    self.set_epoch(self.epoch + 1)

    finds(make(manifest, Stays), "the epoch is 0 after finishing 0")
    finds(make(manifest, Early), "the epoch is 1 after batch 0 of 6 of epoch 0")
    finds(make(manifest, Stale), "epoch 0 is not followed by batch 0 of epoch 1")
    finds(make(manifest, Hasty), "the epoch is 1 after an unfinished iteration of epoch 0")


def test_an_unfinished_epoch_that_is_not_left_is_found(manifest):
    class Anew(cf.Feed):
        def __iter__(self):
            if self.next_epoch != self.epoch:
                self.set_epoch(self.epoch)
            return super().__iter__()

    class GoesOn(cf.Feed):
        def __iter__(self):
            if self.next_epoch != self.epoch:
                self.restore(self.state())
            return super().__iter__()

    message = "the unfinished epoch 0 is not followed by batch 0 of epoch 1"
    finds(make(manifest, Anew), message)
    finds(make(manifest, GoesOn), message)


def test_an_unfinished_epoch_that_cannot_be_kept_is_found(manifest):
    class Restores(cf.Feed):
        def restore(self, state):
            return self if state == self.state() else super().restore(state)

    class SetsEpoch(cf.Feed):
        def set_epoch(self, epoch):
            if epoch != self.epoch:
                super().set_epoch(epoch)

    class Counts(cf.Feed):
        """An evaluation whose epochs advance."""

        def evaluation(self, part):
            feed = super().evaluation(part)
            feed._epochs._following = lambda epoch: epoch + 1
            return feed

    finds(make(manifest, Restores), r"restore\(\) does not stay in an unfinished epoch: clips")
    finds(make(manifest, SetsEpoch), r"set_epoch\(\) does not restart an unfinished epoch: clips")
    finds(make(manifest, Counts).evaluation(manifest), "the epoch is 1 after finishing 0, not 0")


def test_an_older_iterator_that_does_not_raise_is_found(manifest):
    class Quiet(cf.Feed):
        def __iter__(self):
            with suppress(FeedError):
                yield from super().__iter__()

    class Both(cf.Feed):
        def __iter__(self):
            try:
                yield from super().__iter__()
            except FeedError:
                yield self.batch(0)

    finds(make(manifest, Quiet), "an iterator ends as after a complete epoch, although a newer one replaced it")
    finds(make(manifest, Both), "an iterator returns batches, although a newer one replaced it")


def test_other_bytes_the_second_time_are_found(manifest):
    class Kind(Iterated):
        begun = 0

        def wrong(self, batch, index, epoch):
            self.begun += index == 0 and epoch == 0
            return darker(batch) if self.begun == 2 and index == 3 else batch

    finds(make(manifest, Kind), "batch 3 of epoch 0 differs in a second iteration: clips")


def test_memory_that_is_used_again_too_early_is_found(manifest):
    class Reuses(cf.Feed):
        def __iter__(self):
            buffers = {}
            for batch in super().__iter__():
                clips = buffers.setdefault(batch.clips.shape, np.empty_like(batch.clips))
                clips[:] = batch.clips
                yield replace(batch, clips=clips)

    class Leases(Iterated):
        """Takes its memory back with the batch, though arrays of it are held."""

        def wrong(self, batch, index, epoch):
            copy = replace(batch, clips=batch.clips.copy())
            weakref.finalize(copy, copy.clips.fill, 0)
            return copy

    finds(make(manifest, Reuses), "clips of batch 0 changed while it was held")
    finds(make(manifest, Leases), "clips of batch 0 changed while it was held")
    finds(
        make(manifest, Reuses, workers=cf.Workers(count=1, memory="9MB")), "clips of batch 0 changed while it was held"
    )


def test_a_state_that_is_no_json_is_found(manifest):
    def kind(change):
        class Kind(cf.Feed):
            def state(self):
                return super().state() | change(super().state())

        return Kind

    finds(make(manifest, kind(lambda state: {"draws": np.int64(state["draws"])})), "not JSON")
    finds(make(manifest, kind(lambda state: {"extra": (1, 2)})), "differs after writing and reading it as JSON")


def test_a_state_that_leads_elsewhere_is_found(manifest):
    class Behind(cf.Feed):
        """Counts the batches made, not those handed out."""

        def state(self):
            state = super().state()
            return state | {"draws": min(state["draws"] + 2, 10)} if state["draws"] else state

    class Forgets(cf.Feed):
        def restore(self, state):
            self.set_epoch(state["epoch"])
            return self

    class Repeats(cf.Feed):
        """Begins the next epoch at the restored place too."""

        def __iter__(self):
            start = self._epochs.start
            yield from super().__iter__()
            if start:
                self._epochs.go_to(self.epoch, start, by="a fault")

    class Stays(cf.Feed):
        """Begins an epoch that was finished anew."""

        def state(self):
            state = super().state()
            before = max(state["epoch"] - 1, 0)
            return state if state["draws"] else state | {"epoch": before, "plan": self._plan_fingerprint(before)}

    finds(make(manifest, Behind), "after 1 of 6 batches: batch 1 does not follow")
    finds(make(manifest, Forgets), "after 1 of 6 batches: batch 1 does not follow")
    finds(make(manifest, Repeats), "after 1 of 6 batches: batch 0 of the next epoch does not follow")
    finds(make(manifest, Stays), "after 6 of 6 batches: batch 0 of the next epoch does not follow")


def test_batches_given_again_after_a_resume_are_found(manifest):
    class Kind(cf.Feed):
        def __iter__(self):
            again = bool(self._epochs.start)
            yield from super().__iter__()
            if again:
                yield self.batch(0, epoch=0)

    finds(make(manifest, Kind), "earlier batches follow")


def test_a_state_that_another_feed_cannot_take_is_found(manifest):
    class Kind(cf.Feed):
        places = {}  # noqa: RUF012  # of each feed alone

        def state(self):
            self.places[id(self)] = super().state()["draws"]
            return super().state()

        def restore(self, state):
            return super().restore({**state, "draws": state["draws"] * (id(self) in self.places)})

    finds(
        make(manifest, Kind),
        "after 1 of 6 batches: batch 1 does not follow",
        make=lambda **changes: make(manifest, Kind, **changes),
    )


@pytest.mark.parametrize(
    ("wrong_for", "error_text"),
    [
        (lambda feed: feed.worker_count == 0, "count=0, backend='thread', prefetch='auto'"),
        (
            lambda feed: feed.worker_count == 1 and feed.settings.workers.prefetch == 0,
            "count=1, backend='thread', prefetch=0",
        ),
        (
            lambda feed: feed.worker_count == 2 and feed.settings.workers.prefetch == 3,
            "count=2, backend='thread', prefetch=3",
        ),
        (lambda feed: feed.settings.workers.backend == "process", "count=1, backend='process', prefetch=3"),
        (
            lambda feed: feed.settings.workers.backend == "process" and feed.worker_count == 2,
            "count=2, backend='process', prefetch=0",
        ),
    ],
)
def test_bytes_that_hang_on_the_workers_are_found(manifest, wrong_for, error_text):
    class Kind(Iterated):
        def wrong(self, batch, index, epoch):
            return darker(batch) if wrong_for(self) and index == 5 else batch

    message = rf"batch 5 differs with Workers\({error_text}, memory"
    finds(make(manifest, Kind), message, make=lambda **changes: make(manifest, Kind, **changes))


def test_ranks_that_are_no_parts_of_the_whole_are_found(manifest):
    class Same(cf.Feed):
        """Each rank does all of the work."""

        def __init__(self, manifest, *, shard=None, **settings):
            super().__init__(manifest, **settings)

    class Own(cf.Feed):
        """Each rank has random choices of its own."""

        def __init__(self, manifest, *, seed=7, **settings):
            super().__init__(manifest, seed=seed, **settings)
            self._pipeline = replace(self._pipeline, seed=seed + self.shard.rank)

    class Uneven(cf.Feed):
        def __init__(self, manifest, *, shard=SINGLE, **settings):
            first = shard.rank * 8
            rows = manifest.take(range(first, min(first + 8, 11))) if shard.world_size == 2 else manifest
            super().__init__(rows, shard=SINGLE, **settings)

    class Shorter(Wrong):
        def wrong(self, batch, index, epoch):
            if self.shard.rank == 0:
                return batch
            names = ("clips", "targets", "weights", "ids", "valid")
            return replace(batch, **{name: getattr(batch, name)[:1] for name in names})

    for kind, message in (
        (Same, "ranks: two ranks lack 0 rows of one rank, and have 11 others"),
        (Own, "ranks: two ranks lack [1-9]"),
        (Uneven, "ranks: one has 4 batches, the other 2"),
        (Shorter, "ranks: batch 0 has 2 rows on one, 1 on the other"),
    ):
        finds(
            make(manifest, kind),
            message,
            make=lambda kind=kind, **changes: make(manifest, kind, **{**changes, "workers": 0}),
        )


@pytest.mark.parametrize("spread", [False, True])
def test_clips_of_other_videos_than_the_plan_says_are_found(manifest, spread):
    """Each clip in the place of another, each video once too little, and a batch too few."""
    settings = {"clips_per_video": cf.ClipsPerVideo(count=2, interleave=spread), "batch_size": 4}

    class Turned(Wrong):
        def wrong(self, batch, index, epoch):
            return replace(batch, ids=batch.ids[::-1], targets=batch.targets[::-1])

    class Short(cf.Feed):
        def __len__(self):
            return super().__len__() // 2

    class Alone(Wrong):
        """Each video of a batch is there once, then another."""

        def wrong(self, batch, index, epoch):
            return replace(batch, ids=np.roll(batch.ids, 1))

    finds(make(manifest, Turned, **settings), "does not have the rows of the plan in their order")
    finds(make(manifest, Short, **settings), r"11 draws are 6 batches, len\(feed\) is 3")
    finds(make(manifest, Alone, **settings), "does not have the rows of the plan in their order")


def test_views_that_are_not_those_of_the_spec_are_found(manifest):
    columns = {"study": [f"s{row // 2}" for row in range(10)], "view": ["a", "b"] * 5}
    table = manifest.take(range(10)).table.select(["id", "path"])
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    pivoted = cf.Manifest(table, root=manifest.root).pivot(by="view", within="study")

    def kind(change):
        return wrong_batches(lambda batch, _: {"clips": change(dict(batch.clips), batch.valid)})

    settings = {"target": None}
    check_feed(make(pivoted, **settings))
    finds(make(pivoted, kind(lambda clips, _: {"a": clips["a"]}), **settings), r"has .*, expected .*'clips\[b\]'")
    finds(make(pivoted, kind(lambda clips, _: clips["a"]), **settings), r"expected .*'clips\[b\]'")
    finds(
        make(pivoted, kind(lambda clips, _: clips | {"b": clips["b"][..., 0]}), **settings),
        r"clips\[b\] are uint8 \(2, 4, 16, 16\), by feed.spec",
    )
    clip = cf.Clip(frames=16, short="pad")
    filled = kind(lambda clips, valid: clips | {"b": np.where(valid[..., None, None, None], clips["b"], np.uint8(9))})
    finds(make(pivoted, filled, clip=clip, **settings), "frames that are not valid are not zeros")


def with_masks(manifest):
    """Return the manifest with the videos as their own masks."""
    return cf.Manifest(manifest.table.append_column("mask", manifest.column("path")), root=manifest.root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda batch, _: {"masks": batch.masks[..., 0]}, r"masks are uint8 \(2, 4, 16, 16\), by feed.spec"),
        (lambda batch, _: {"masks": batch.masks.astype(np.int64)}, "masks are int64"),
        (lambda batch, _: {"masks": np.zeros(0, np.uint8)}, "has .* expected .*'masks'"),
        (lambda batch, _: {"masks": np.full_like(batch.masks, 1)}, "frames that are not valid are not zeros"),
    ],
)
def test_wrong_masks_are_found(manifest, change, message):
    settings = {"inputs": cf.Inputs(mask="mask"), "clip": cf.Clip(frames=4, stride=4, short="pad")}
    check_feed(make(with_masks(manifest), **settings))
    finds(make(with_masks(manifest), wrong_batches(change), **settings), message)


def test_wrong_shares_of_classes_are_found(manifest):
    settings = {"target": "sick", "mixing": MixUp(alpha=1.0)}
    finds(
        make(manifest, wrong_batches(lambda batch, _: {"targets": batch.targets + 1}), **settings),
        "are not valid labels",
    )
    hard = wrong_batches(lambda batch, _: {"targets": (batch.targets > 0.5).astype(np.int64)})
    finds(make(manifest, hard, **settings), r"targets are int64 \(2,\), by feed.spec float32")


def test_a_replay_of_another_clip_is_found(manifest):
    class Darker(cf.Feed):
        def replay(self, epoch, index):
            return darker(super().replay(epoch, index))

    class Next(cf.Feed):
        def replay(self, epoch, index):
            return super().replay(epoch, index + 1)

    class Silent(cf.Feed):
        def replay(self, epoch, index):
            return replace(super().replay(epoch, index), parameters=())

    finds(make(manifest, Darker, return_parameters=True), "replay: clip [0-9]+ differs from that of the batch: clips")
    finds(make(manifest, Next), r"replay\(0, 0\) has the address .*'index': 1")
    finds(make(manifest, Silent), "replay: it returns no parameters")


def test_wrong_parameters_are_found(manifest):
    class Kind(Iterated):
        def wrong(self, batch, index, epoch):
            return replace(batch, parameters=batch.parameters[::-1])

    short = wrong_batches(lambda batch, _: {"parameters": batch.parameters[:1]})
    finds(make(manifest, short, return_parameters=True), "batch 0 has parameters of 1 rows, but 2 rows")
    finds(make(manifest, Kind, return_parameters=True), r"batch 0 differs from batch\(0\): parameters")


def test_a_feed_that_make_makes_otherwise_is_found(manifest):
    feed = make(manifest)
    finds(
        feed,
        "make.. returns a different feed: batch 0 differs",
        make=lambda **changes: make(manifest, seed=8, **changes),
    )
    finds(feed, "make.. returns the feed itself", make=lambda **changes: feed)
