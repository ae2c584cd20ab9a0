"""Transfer of the next batch to a device while the current one is in use."""

import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, NoReturn, TypeVar

from cinefeed.core.arguments import expect
from cinefeed.core.errors import ArgumentError, StaleIteratorError
from cinefeed.feed.batch import Batch
from cinefeed.feed.feed import Feed
from cinefeed.feed.iteration import ADVICE
from cinefeed.feed.settings import HINTS

Sent = TypeVar("Sent")


ADAPTER_HINTS = {
    name: f"it is a setting of the feed: Feed(..., {name}=...)"
    for name in ("batch_size", "seed", "drop_last", "workers", "sampler", "transforms")
} | {"num_workers": "workers are a setting of the feed: Feed(..., workers=...)", "shuffle": HINTS["shuffle"]}


def require_feed(feed: object, *, name: str) -> None:
    """Raise ArgumentError unless an adapter is given a Feed."""
    advice = "make one with Feed(manifest, target=..., clip=..., frame=...)"
    expect(feed, Feed, name=f"{name}(feed)", remedy=advice)


def refuse_items(adapter: object) -> NoReturn:
    """Raise ArgumentError for an item of an adapter, such as a DataLoader or a Subset of torch requests."""
    name = type(adapter).__name__
    raise ArgumentError(
        f"an item of a {name} was requested, and it has none: it is used in place of torch's DataLoader, not within "
        f"one; iterate over it, as in 'for batch in loader', and split the manifest, not the {name}"
    )


def adapter_repr(adapter: Any, **options: object) -> str:
    """Return the options of an adapter, and below them its feed."""
    listed = ", ".join(f"{name}={value!r}" for name, value in options.items())
    return f"{type(adapter).__name__}({listed})\n{adapter.feed!r}"


class Ahead(Generic[Sent]):
    """Iterates a feed with one batch in transfer, and tracks the consumer's state, one batch behind the feed's."""

    def __init__(self, feed: Feed, *, send: Callable[[Batch], Sent]) -> None:
        self.feed = feed
        self.send = send
        self.consumer_state: dict[str, Any] | None = None  # while the consumer is behind the feed
        self._iterator: weakref.ref[AheadIterator[Sent]] | None = None

    def __iter__(self) -> Iterator[Sent]:
        iterator = AheadIterator(self, iter(self.feed))
        self.consumer_state, self._iterator = None, weakref.ref(iterator)
        return iterator

    def state(self) -> dict[str, Any]:
        """Return the state of the consumer."""
        return self.feed.state() if self.consumer_state is None else self.consumer_state

    def restore(self, state: Mapping[str, Any], *, exact: bool = True) -> None:
        """Move to the position of `state`; see `Feed.restore`."""
        self.feed.restore(state, exact=exact)
        self._end_iteration()

    def set_epoch(self, epoch: int) -> None:
        """Move to the start of an epoch."""
        self.feed.set_epoch(epoch)
        self._end_iteration()

    def is_current(self, iterator: "AheadIterator[Sent]") -> bool:
        """Return whether an iterator is the newest and was not ended by `restore` or `set_epoch`."""
        return self._iterator is not None and self._iterator() is iterator

    def _end_iteration(self) -> None:
        """End a started iteration, even if the feed has yielded all batches and the consumer still lacks one."""
        self.consumer_state = None
        iterator = None if self._iterator is None else self._iterator()
        if iterator is not None and iterator.started:
            self._iterator = None


class AheadIterator(Iterator[Sent]):
    """Yields the result of `send` for each batch, after it has sent the next batch."""

    def __init__(self, ahead: Ahead[Sent], batches: Iterator[Batch]) -> None:
        self.started = False
        self._ahead = ahead
        self._batches = batches
        self._queue: deque[tuple[Sent, dict[str, Any]]] = deque()  # each with the feed's state after it
        self._complete = False
        self._failed = False  # a batch could not be sent, and is lost

    def __next__(self) -> Sent:
        """Return the result of `send` for the next batch."""
        ahead = self._ahead
        if self._complete:
            raise StopIteration
        if self._failed or not ahead.is_current(self):
            reason = "an error was raised" if self._failed else "another took its place"
            raise StaleIteratorError(f"this iterator ended before its epoch did: {reason}; {ADVICE}")
        if not self.started:
            self.started, ahead.consumer_state = True, ahead.feed.state()
        try:
            while len(self._queue) < 2 and (batch := next(self._batches, None)) is not None:
                self._queue.append((ahead.send(batch), ahead.feed.state()))
                del batch
        except BaseException:
            self._failed = True
            raise
        self._complete = len(self._queue) < 2
        if not self._queue:  # an epoch without a batch
            ahead.consumer_state = None
            raise StopIteration
        item, state = self._queue.popleft()
        ahead.consumer_state = None if self._complete else state
        return item
