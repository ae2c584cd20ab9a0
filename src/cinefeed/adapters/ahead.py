"""One batch is on its way to a device while the one before is in use."""

import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from cinefeed.errors import StaleIteratorError
from cinefeed.feed.batch import Batch
from cinefeed.feed.feed import Feed
from cinefeed.feed.iteration import ADVICE

Sent = TypeVar("Sent")


class Ahead(Generic[Sent]):
    """Runs a batch ahead of its consumer, and knows where the consumer stands, which is a batch behind the feed."""

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
        """Return where the consumer stands."""
        return self.feed.state() if self.consumer_state is None else self.consumer_state

    def restore(self, state: Mapping[str, Any], *, exact: bool = True) -> None:
        """Go to where `state` stood; see `Feed.restore`."""
        self.feed.restore(state, exact=exact)
        self._leave()

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch."""
        self.feed.set_epoch(epoch)
        self._leave()

    def gives_to(self, iterator: "AheadIterator[Sent]") -> bool:
        """Return whether an iterator is the newest, and no `restore` or `set_epoch` has ended it."""
        return self._iterator is not None and self._iterator() is iterator

    def _leave(self) -> None:
        """End an iteration under way: the feed may have given all of its batches while the consumer lacks one."""
        self.consumer_state = None
        iterator = None if self._iterator is None else self._iterator()
        if iterator is not None and iterator.begun:
            self._iterator = None


class AheadIterator(Iterator[Sent]):
    """Gives what was sent of each batch, and has the next one sent before."""

    def __init__(self, ahead: Ahead[Sent], batches: Iterator[Batch]) -> None:
        self.begun = False
        self._ahead = ahead
        self._batches = batches
        self._coming: deque[tuple[Sent, dict[str, Any]]] = deque()  # each with the feed's state after it
        self._complete = False
        self._failed = False  # the batch that could not be sent is lost

    def __next__(self) -> Sent:
        """Return the next batch, as it was sent."""
        ahead = self._ahead
        if self._complete:
            raise StopIteration
        if self._failed or not ahead.gives_to(self):
            reason = "an error was raised" if self._failed else "another took its place"
            raise StaleIteratorError(f"this iterator ended before its epoch did: {reason}; {ADVICE}")
        if not self.begun:
            self.begun, ahead.consumer_state = True, ahead.feed.state()
        try:
            while len(self._coming) < 2 and (batch := next(self._batches, None)) is not None:
                self._coming.append((ahead.send(batch), ahead.feed.state()))
                del batch
        except BaseException:
            self._failed = True
            raise
        self._complete = len(self._coming) < 2
        if not self._coming:  # an epoch without a batch
            ahead.consumer_state = None
            raise StopIteration
        sent, state = self._coming.popleft()
        ahead.consumer_state = None if self._complete else state
        return sent
