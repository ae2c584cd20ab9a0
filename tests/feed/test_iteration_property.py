"""Random settings and random uses of feeds, against a model of what each batch must hold.

The model knows the rule alone: a newer iterator takes over, an unfinished epoch is left for the next one, `set_epoch`
and `restore` are the ways to stay, an evaluation begins at its first batch. What a batch holds is arithmetic on the
plan: the addresses (epoch, index) of its clips, and by them their pixels.
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cinefeed as cf
from cinefeed.adapters.ahead import Ahead
from cinefeed.core.errors import FeedError

ROWS = np.random.default_rng(0).integers(0, 255, (9, 5, 8, 8), np.uint8)
LABELS = {"age": [float(row) for row in range(9)], "kind": ["ab"[row % 2] for row in range(9)]}
MANIFESTS = {
    rows: cf.Manifest.from_arrays(ROWS[:rows], {name: values[:rows] for name, values in LABELS.items()})
    for rows in range(2, 10)
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """The settings that decide what is fed, and those that must not matter: workers, prefetch, a batch run ahead."""

    rows: int
    draws: int  # of a rank's batch, or of the batches over which clips are spread
    clips: int = 1
    spread: bool = False
    drop_last: bool = False
    sampler: cf.Natural | cf.BalancedClasses = field(default_factory=cf.Natural)
    world_size: int = 1
    evaluation: bool = False
    workers: int = 0
    prefetch: int = 0
    ahead: bool = False

    def feed(self, *, kind=cf.Feed, rank=0, world_size=1, workers=0):
        feed = kind(
            MANIFESTS[self.rows],
            target="kind",
            clip=cf.Clip(frames=2),
            frame=cf.Frame(height=8, width=8, channels=1),
            transforms=[cf.Brightness(factor=0.2)],
            sampler=self.sampler,
            batch_size=self.draws if self.spread else self.draws * self.clips,
            clips_per_video=cf.ClipsPerVideo(count=self.clips, interleave=self.spread),
            drop_last=self.drop_last,
            return_parameters=True,
            seed=3,
            shard=cf.Shard(rank=rank, world_size=world_size),
            workers=cf.Workers(count=workers, prefetch=self.prefetch),
        )
        return feed.evaluation(feed.manifest) if self.evaluation else feed


@dataclass(eq=False)
class Token:
    """What the model knows of an iterator, or of one on each rank."""

    iterators: list
    begun: bool = False
    complete: bool = False


class Model:
    """Where the feeds of all ranks must stand, and what their next batch must hold."""

    def __init__(self, case):
        self.case, self.reference = case, case.feed()
        self.clips = case.clips
        self.drop_last = case.drop_last and not case.evaluation
        self.spread = case.spread and self.clips > 1 and not case.evaluation
        self.batch_size = self.reference.settings.batch_size
        self.draws = self.batch_size if self.spread else self.batch_size // self.clips
        self.world_size = case.world_size
        self.epoch, self.batch, self.begun = 0, 0, False
        self.current = None
        self.fed = Counter()  # rows of this epoch so far, those before a resume too

    @property
    def batches(self):
        """Number of batches of the same videos."""
        return self.clips if self.spread else 1

    def count(self, world_size):
        full, rest = divmod(len(self.plan(0)), self.draws * world_size)
        return (full + (rest > 0 and not self.drop_last)) * self.batches

    def plan(self, epoch):
        return self.reference.plan(epoch=epoch).rows.tolist()

    def following(self, epoch):
        return 0 if self.case.evaluation else epoch + 1

    def state(self):
        return self.epoch, self.batch * self.batch_size * self.world_size

    def take_over(self, token):
        if self.begun:
            self.go_to(self.following(self.epoch), 0)
        self.current = token

    def go_to(self, epoch, batch, fed=None):
        if (epoch, batch, False) == (self.epoch, self.batch, self.begun):
            return
        if batch and batch >= self.count(self.world_size):
            epoch, batch = self.following(epoch), 0
        if self.current is not None and self.current.begun:
            self.current = None
        self.epoch, self.batch, self.begun, self.fed = epoch, batch, False, Counter(fed if batch else None)

    def take(self, token):
        """Return the addresses that the next batches of all ranks hold together, or the error that is raised."""
        if token.complete:
            return StopIteration
        if token is not self.current:
            return FeedError
        token.begun = True
        count = self.count(self.world_size)
        if not count:
            self.finish(token)
            return StopIteration
        plan, globally = self.plan(self.epoch), self.draws * self.world_size
        buffer, number = divmod(self.batch, self.batches)
        places = range(buffer * globally, min((buffer + 1) * globally, len(plan)))
        clips = [number] if self.spread else range(self.clips)
        addresses = {(self.epoch, place * self.clips + clip, plan[place]) for place in places for clip in clips}
        self.fed.update(row for _, _, row in addresses)
        self.batch, self.begun = self.batch + 1, True
        if self.batch == count:
            if not self.drop_last:
                assert self.fed == Counter(plan * self.clips), "the model's epoch is not its plan"
            self.finish(token)
        return addresses

    def finish(self, token):
        token.complete, self.current = True, None
        self.epoch, self.batch, self.begun, self.fed = self.following(self.epoch), 0, False, Counter()


class FeedRun:
    """Does the same with the feeds of all ranks and with the model, and compares."""

    def __init__(self, case, kind=cf.Feed):
        self.case, self.kind = case, kind
        self.model = Model(case)
        self.tokens, self.states = [], []
        self.open(case.world_size)

    def open(self, world_size):
        self.feeds = [
            self.case.feed(kind=self.kind, rank=rank, world_size=world_size, workers=self.case.workers)
            for rank in range(world_size)
        ]
        self.sources = [Ahead(feed, send=lambda batch: batch) if self.case.ahead else feed for feed in self.feeds]

    def iterate(self):
        token = Token([iter(source) for source in self.sources])
        self.model.take_over(token)
        self.tokens.append(token)

    def take(self, back=0):
        """Take a batch from the newest iterators, or from those some places before."""
        if len(self.tokens) > back:
            token = self.tokens[-1 - back]
            expected = self.model.take(token)
            self.compare([self.next(iterator) for iterator in token.iterators], expected)

    def loop(self, limit):
        """Iterate over each feed in turn, up to a limit, as a `for` with a `break` does."""
        token = Token([])
        self.model.take_over(token)
        ranks = [list(islice(source, limit)) for source in self.sources]
        assert len({len(batches) for batches in ranks}) == 1, "ranks have other numbers of batches"
        for batches in zip(*ranks, strict=True):
            self.compare(batches, self.model.take(token))
        if len(ranks[0]) < limit:
            assert self.model.take(token) is StopIteration, "the epoch ended too early"

    def drop(self):
        """Have nobody hold the newest iterators."""
        if self.tokens:
            self.tokens.pop()

    def close(self):
        for feed in self.feeds if not self.case.ahead else []:
            feed.close()
        if not self.case.ahead and self.model.current is not None and self.model.current.begun:
            self.model.current = None

    def set_epoch(self, epoch):
        for source in self.sources:
            source.set_epoch(epoch)
        self.model.go_to(epoch, 0)

    def keep(self):
        states = [json.loads(json.dumps(source.state())) for source in self.sources]
        assert all(state == states[0] for state in states), "ranks stand at other places"
        self.states.append((states[0], self.model.batch, self.model.world_size, Counter(self.model.fed)))

    def restore(self, back):
        """Restore a state that was kept, in these feeds."""
        if len(self.states) > back:
            self.restored(*self.states[-1 - back])

    def resume(self, limit, world_size):
        """Break an epoch off, restore its state in new feeds, of any number of ranks, and go on."""
        self.loop(limit)
        self.keep()
        if not self.case.evaluation:  # which has one rank
            self.tokens, self.model.current = [], None
            self.model.world_size = world_size
            self.open(world_size)
            self.model.go_to(0, 0)
        self.restored(*self.states[-1])
        self.loop(99)

    def restored(self, state, batch, before, fed):
        model = self.model
        border = self.feeds[0].settings.batch_size * model.world_size * (1 if batch % model.batches else model.batches)
        possible = state["draws"] % border == 0 and (batch % model.batches == 0 or before == model.world_size)
        for source in self.sources:
            if possible:
                source.restore(state)
            else:
                with pytest.raises(FeedError):
                    source.restore(state)
        if possible:
            model.go_to(state["epoch"], state["draws"] // (model.batch_size * model.world_size), fed)

    @staticmethod
    def next(iterator):
        try:
            return next(iterator)
        except (FeedError, StopIteration) as error:
            return FeedError if isinstance(error, FeedError) else StopIteration

    def compare(self, batches, expected):
        if not isinstance(expected, set):
            assert all(batch is expected for batch in batches), f"{batches} in place of {expected}"
            return
        assert not any(isinstance(batch, type) for batch in batches), f"{batches} in place of {expected}"
        ids, fed = self.model.reference.manifest.column("id").to_pylist(), []
        for batch in batches:
            real = [(place, expectation) for place, expectation in enumerate(batch.parameters) if expectation]
            fed += [(expectation["epoch"], expectation["index"], expectation["row"]) for _, expectation in real]
            assert [str(name) for name in batch.ids if name] == [ids[expectation["row"]] for _, expectation in real]
            assert batch.valid.any(axis=1).sum() == len(real)
            for place, expectation in real[-1:]:
                replayed = self.model.reference.replay(expectation["epoch"], expectation["index"])
                assert np.array_equal(batch.clips[place], replayed.clips[0]), (
                    f"other pixels than those of {expectation}"
                )
        assert sorted(fed) == sorted(expected), "other clips than the plan says"

    def check(self):
        for source in self.sources:
            state = source.state()
            assert (state["epoch"], state["draws"]) == self.model.state()
        if not self.case.ahead:
            assert {feed.epoch for feed in self.feeds} == {self.model.epoch}
        assert {len(feed) for feed in self.feeds} == {self.model.count(self.model.world_size)}


def run(case, steps, kind=cf.Feed):
    running = FeedRun(case, kind)
    for name, *values in steps:
        getattr(running, name)(*values)
        running.check()


CASES = st.builds(
    Case,
    rows=st.integers(2, 9),
    draws=st.integers(1, 3),
    clips=st.sampled_from([1, 1, 2]),
    spread=st.booleans(),
    drop_last=st.booleans(),
    sampler=st.sampled_from([cf.Natural(), cf.Natural(shuffle=False), cf.BalancedClasses(length=7)]),
    world_size=st.sampled_from([1, 1, 2, 3]),
    evaluation=st.sampled_from([False, False, False, True]),
    workers=st.sampled_from([0, 0, 0, 0, 2]),
    prefetch=st.integers(0, 2),
    ahead=st.sampled_from([False, False, True]),
)
LIMITS = st.sampled_from([1, 2, 3, 1, 2, 99, 0])
STEPS = st.lists(
    st.one_of(
        st.just(("iterate",)),
        st.just(("take",)),
        st.tuples(st.just("take"), st.integers(0, 2)),
        st.tuples(st.just("loop"), LIMITS),
        st.tuples(st.just("loop"), LIMITS),
        st.tuples(st.just("loop"), LIMITS),
        st.sampled_from([("drop",), ("close",), ("keep",)]),
        st.tuples(st.just("set_epoch"), st.integers(0, 2)),
        st.tuples(st.just("restore"), st.integers(0, 1)),
        st.tuples(st.just("resume"), LIMITS, st.integers(1, 3)),
    ),
    min_size=10,
    max_size=16,
)


@settings(max_examples=150, derandomize=True, deadline=None, database=None)
@given(CASES, STEPS)
def test_every_row_is_fed_as_often_as_the_plan_says(case, steps):
    run(case, steps)


class Anew(cf.Feed):
    """Begins an unfinished epoch anew."""

    def __iter__(self):
        if self.state()["draws"]:
            self.set_epoch(self.epoch)
        return super().__iter__()


class Quiet(cf.Feed):
    """An older iterator ends as if its epoch were complete."""

    def __iter__(self):
        try:
            yield from super().__iter__()
        except FeedError:
            return


class Stays(cf.Feed):
    """Finishing an epoch does not lead to the next."""

    def __iter__(self):
        epoch = self.epoch
        for batch in super().__iter__():
            if self.epoch > epoch:
                self.set_epoch(epoch)
            yield batch


class Skips(cf.Feed):
    """An iterator that nobody used counts as an epoch."""

    used = True

    def __iter__(self):
        if not self.used:
            self.set_epoch(self.epoch + 1)
        self.used = False
        return self.noting(super().__iter__())

    def noting(self, batches):
        for batch in batches:
            self.used = True
            yield batch


class Drops(cf.Feed):
    """Restores to the batch after the one that follows."""

    def restore(self, state):
        super().restore({**state, "draws": state["draws"] + self.global_batch_size})
        return self


@pytest.mark.parametrize(
    ("kind", "steps"),
    [
        (Anew, [("loop", 1), ("loop", 1)]),
        (Quiet, [("iterate",), ("take",), ("iterate",), ("take",), ("take", 1)]),
        (Stays, [("loop", 99), ("loop", 1)]),
        (Skips, [("iterate",), ("iterate",), ("take",)]),
        (Drops, [("loop", 1), ("keep",), ("restore", 0), ("loop", 1)]),
    ],
)
def test_a_feed_that_breaks_the_rule_is_found(kind, steps):
    case = Case(rows=7, draws=1)
    run(case, steps)
    with pytest.raises(AssertionError):
        run(case, steps, kind)
