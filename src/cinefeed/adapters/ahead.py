"""One batch is on its way to a device while the one before is in use."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from cinefeed.feed.batch import Batch
from cinefeed.feed.feed import Feed

Sent = TypeVar("Sent")


class Ahead(Generic[Sent]):
    """Runs a batch ahead of its consumer, and knows where the consumer stands, which is a batch behind the feed."""

    def __init__(self, feed: Feed, *, send: Callable[[Batch], Sent]) -> None:
        self.feed = feed
        self._send = send
        self._state: dict[str, Any] | None = None

    def __iter__(self) -> Iterator[Sent]:
        coming: list[tuple[Sent, dict[str, Any]]] = []
        self._state = self.feed.state()
        for batch in self.feed:
            coming.append((self._send(batch), self.feed.state()))
            del batch
            if len(coming) > 1:
                sent, self._state = coming.pop(0)
                yield sent
                del sent
        for sent, self._state in coming:
            yield sent
        self._state = None

    def state(self) -> dict[str, Any]:
        """Return where the consumer stands."""
        return self.feed.state() if self._state is None else self._state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go to where `state` stood."""
        self._state = None
        self.feed.restore(state)

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch."""
        self._state = None
        self.feed.set_epoch(epoch)
