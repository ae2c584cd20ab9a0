"""Fetch remote files in the order of the plan, ahead of the workers that read them, into the cache of the machine."""

import math
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial

import numpy as np

from cinefeed.core.remote.cache import Hold
from cinefeed.core.remote.files import Member, RemoteFiles
from cinefeed.data.manifest.rows import Rows
from cinefeed.data.sampling import Plan
from cinefeed.feed.planned_uses import PlannedUses
from cinefeed.feed.shard import ShardPositions
from cinefeed.feed.state import plan_fingerprint
from cinefeed.feed.stats import StatsRecorder

_DRAWS = 256  # looked ahead at most: each file that is held needs a file descriptor
_IN_FLIGHT = 128  # members that are fetched at the same time, by 32 requests: neighbours in a shard share one

Place = tuple[int, int]  # epoch, and number of a buffer of batches in it


class FetchAhead:
    """Fetches the files of coming buffers, in order, and holds them until their buffer is complete.

    All feeds of a machine that share a cache hold half of it together, in equal parts, so that each can go on. When
    space is needed, files that no process holds are removed. The ranks of a machine share the plan: the file that they
    need last is removed first.

    `sources` are the rows and view names of videos and masks. The methods are called by the thread of the consumer.
    """

    def __init__(
        self,
        files: RemoteFiles,
        sources: Sequence[tuple[Rows, str]],
        *,
        plan_of: Callable[[int], Plan],
        share: ShardPositions,
        meter: StatsRecorder,
    ) -> None:
        self._files, self._sources, self._plan_of, self._share = files, sources, plan_of, share
        self._meter = meter
        self._lock = threading.RLock()
        self._begun: deque[Place] = deque()  # buffers that the workers are making
        self._next: Place | None = None  # the buffer that is expected to begin
        self._order: Iterator[tuple[Place, int, Member]] = iter(())
        self._entries: deque[tuple[Place, Member]] = deque()  # draws whose files are fetched or held, in order
        self._counts: Counter[Member] = Counter()  # of each member in these entries
        self._holds: dict[Member, Hold] = {}
        self._in_flight: dict[Member, Future[tuple[Hold, bool]]] = {}
        self._upcoming: tuple[Place, int, Member] | None = None  # the next draw, which did not fit yet
        self._misses: set[Member] = set()  # of these, those that were not in the cache
        self._bytes = 0  # of the members in `_counts`
        self._sizes: dict[Member, int] = {}  # of these members
        self._largest = 0  # size so far, for files of unknown size
        self._budget = 0
        self._rows_of: dict[str, set[int]] = {}  # by key in the cache
        self._plan_id = ""
        self._registration: Hold | None = None
        self._uses: PlannedUses | None = None
        files.next_uses = self._next_uses

    def begin(self, place: Place, *, following: Place | None, next_epoch: int, goes_on: bool) -> None:
        """Record that the workers begin a buffer, and fetch those after it; `following` is the next one to begin.

        `next_epoch` is the epoch after this one; with `goes_on`, its buffers are fetched after those of this one.
        """
        # Without the lock: the thread of the requests takes it while it has locked the cache.
        if self._registration is None:
            self._plan_id = plan_fingerprint(self._plan_of(place[0]))
            self._registration = self._files.cache.register({"plan": self._plan_id, "rank": self._share.rank})
            self._files.cache.recount()
        feeds = self._files.cache.registered()
        ranks = {int(feed["rank"]) for feed in feeds if feed["plan"] == self._plan_id} | {self._share.rank}
        with self._lock:
            if place != self._next:
                self._release_all()
                self._order = self._members(place, goes_on=goes_on)
                self._upcoming = next(self._order, None)
            self._budget = self._files.cache.limit // (2 * max(len(feeds), 1))
            self._uses = PlannedUses(
                self._plan_of,
                self._share,
                ranks=tuple(sorted(ranks)),
                place=place,
                next_epoch=next_epoch,
                previous=self._uses,
            )
            self._begun.append(place)
            self._next = following
            self._fetch_more()

    def finish(self) -> None:
        """Record that the oldest buffer is complete: its files may be removed from the cache."""
        with self._lock:
            if self._begun:
                place = self._begun.popleft()
                hits = misses = 0
                while self._entries and self._entries[0][0] <= place:
                    member = self._entries.popleft()[1]
                    hits, misses = hits + (member not in self._misses), misses + (member in self._misses)
                    self._misses.discard(member)
                    self._forget(member)
                while self._upcoming is not None and self._upcoming[0] <= place:  # a worker fetched it
                    self._upcoming = next(self._order, None)
                    misses += 1
                self._meter.add(cache_hits=hits, cache_misses=misses)
                self._fetch_more()
        self.count()

    def stop(self) -> None:
        """End all fetches, and release all files. `begin` starts again."""
        self._files.cancel()
        with self._lock:
            self._release_all()
            self._next = None
            registration, self._registration = self._registration, None
        if registration is not None:
            registration.path.unlink(missing_ok=True)
            registration.release()

    def count(self) -> None:
        """Add the requests and bytes since the last call to the stats."""
        self._meter.add(**self._files.take_counters())

    def _members(self, place: Place, *, goes_on: bool) -> Iterator[tuple[Place, int, Member]]:
        """Yield the buffer, row and member of all draws from a place on, in the order in which they are needed."""
        epoch, first = place
        while True:
            rows = self._plan_of(epoch).rows
            for index in range(first, self._share.count(len(rows))):
                positions, _ = self._share.positions(index, draws=len(rows))
                for row in rows[positions.start : positions.stop].tolist():
                    for source, view in self._sources:
                        yield (epoch, index), row, source.member(row, view=view)
            if not goes_on:
                return
            epoch, first = epoch + 1, 0

    def _fetch_more(self) -> None:
        """Start fetches until this feed's part of the cache is in use; the rest is for fetches of the workers."""
        while len(self._in_flight) < _IN_FLIGHT and len(self._entries) < _DRAWS and self._upcoming is not None:
            place, row, member = self._upcoming
            size = self._files.size(member) or self._largest or self._budget
            if member not in self._counts and self._bytes + size > self._budget:
                return
            self._upcoming = next(self._order, None)
            self._entries.append((place, member))
            self._counts[member] += 1
            if self._counts[member] > 1:
                self._rows_of.setdefault(self._files.key(member), set()).add(row)
                continue
            self._set_size(member, size)
            future = self._in_flight[member] = self._files.start(member)
            future.add_done_callback(partial(self._end_fetch, member, row))

    def _end_fetch(self, member: Member, row: int, future: "Future[tuple[Hold, bool]]") -> None:
        with self._lock:
            is_needed = self._in_flight.get(member) is future
            if is_needed:
                del self._in_flight[member]
            if future.cancelled() or future.exception() is not None:
                return  # the worker that needs it tries again, and raises the error of its row
            hold, is_present = future.result()
            self._rows_of.setdefault(self._files.key(member), set()).add(row)
            if is_needed:
                self._misses |= set() if is_present else {member}
                self._holds[member] = hold
                self._set_size(member, self._files.size(member))
                self._largest = max(self._largest, self._sizes[member])
                self._fetch_more()
            else:
                hold.release()

    def _forget(self, member: Member) -> None:
        """Release a member, and its part of the budget, if no other draw that was looked at needs it."""
        self._counts[member] -= 1
        if self._counts[member] > 0:
            return
        del self._counts[member]
        self._set_size(member, 0)
        del self._sizes[member]
        self._in_flight.pop(member, None)
        hold = self._holds.pop(member, None)
        if hold is not None:
            hold.release()

    def _set_size(self, member: Member, size: int) -> None:
        self._bytes += size - self._sizes.get(member, 0)
        self._sizes[member] = size

    def _release_all(self) -> None:
        while self._entries:
            self._forget(self._entries.popleft()[1])
        self._begun.clear()
        self._misses.clear()
        self._order, self._upcoming = iter(()), None

    def _next_uses(self, keys: Sequence[str]) -> Sequence[float]:
        """Return for each key in the cache the number of the next draw that needs it; the cache is locked."""
        with self._lock:
            present = {key.removeprefix(".") for key in keys}
            self._rows_of = {key: rows for key, rows in self._rows_of.items() if key in present}
            uses, rows = self._uses, [sorted(self._rows_of.get(key, ())) for key in keys]
        if uses is None:
            return [math.inf] * len(keys)
        flat = np.array([row for each in rows for row in each], np.int64)
        draws = iter(uses.next_draws(flat).tolist())
        return [min((next(draws) for _ in each), default=math.inf) for each in rows]
