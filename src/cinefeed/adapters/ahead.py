"""One batch is on its way to a device while the one before is in use."""

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
        self._send = send
        self._state: dict[str, Any] | None = None  # of the consumer, while it is behind the feed
        self._batches: Iterator[Batch] | None = None  # of the iteration that is not stale
        self._begun = False  # it has given a batch

    def __iter__(self) -> Iterator[Sent]:
        self._batches = batches = iter(
            self.feed
        )  # here, not at the first batch: an older iterator is stale from now on
        self._state, self._begun = None, False
        return self._run(batches)

    def _run(self, batches: Iterator[Batch]) -> Iterator[Sent]:
        self._check(batches)
        self._state, self._begun = self.feed.state(), True
        coming: list[tuple[Sent, dict[str, Any]]] = []
        for batch in batches:
            coming.append((self._send(batch), self.feed.state()))
            del batch
            if len(coming) > 1:
                sent, self._state = coming.pop(0)
                yield sent
                del sent
                self._check(batches)
        for sent, self._state in coming:
            yield sent
        if self._batches is batches:
            self._state = None

    def state(self) -> dict[str, Any]:
        """Return where the consumer stands."""
        return self.feed.state() if self._state is None else self._state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go to where `state` stood."""
        self.feed.restore(state)
        self._leave()

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch."""
        self.feed.set_epoch(epoch)
        self._leave()

    def _leave(self) -> None:
        """End an iteration under way. The feed may have given all of its batches, and the consumer lack one."""
        self._state = None
        if self._begun:
            self._batches = None

    def _check(self, batches: Iterator[Batch]) -> None:
        if self._batches is not batches:
            raise StaleIteratorError(f"this iterator ended before its epoch did: another took its place; {ADVICE}")
