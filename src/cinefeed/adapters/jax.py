"""Feed -> JAX arrays, on one device or sharded over several."""

from collections.abc import Iterator, Mapping
from typing import Any

from cinefeed.adapters.ahead import Ahead
from cinefeed.errors import FeedError, MissingExtraError
from cinefeed.feed.batch import Batch
from cinefeed.feed.feed import Feed

try:
    import jax
except ImportError as error:
    raise MissingExtraError("jax", extra="jax") from error

Item = tuple[dict[str, jax.Array], Any, Any]  # targets and weights: an array, or of several targets each by name


class FeedIterator:
    """Iterates `(inputs, targets, weights)` as JAX arrays, one epoch of the feed an iteration.

    `inputs["clips"]` is (batch, frames, height, width, channels); of several views each is an input of its own, named
    in `feed.spec.clip_names`, and masks are `inputs["masks"]` unless they are the targets. Each batch is sent to its
    devices while the one before is in use. `sharding` says where its rows go, such as
    `NamedSharding(mesh, PartitionSpec("data"))`; with several processes each feeds its own rank, and what comes out are
    global arrays. A batch that does not divide over the devices is an error: give the feed `drop_last=True`, or a
    `batch_size` that does.

    for inputs, targets, weights in FeedIterator(feed):
        state, loss = step(state, inputs["clips"], targets, weights)
    """

    def __init__(self, feed: Feed, *, sharding: jax.sharding.Sharding | None = None) -> None:
        self.feed = feed
        self.sharding = sharding
        self._ahead = Ahead(feed, send=self._arrays)

    def __len__(self) -> int:
        """Return the number of batches of the current epoch."""
        return len(self.feed)

    def __iter__(self) -> Iterator[Item]:
        """Return the batches of the next epoch, or of what is left of it after `restore`.

        As with the feed: an older iterator raises StaleIteratorError on its next use, and an epoch that was broken off
        is left for the next one.
        """
        return iter(self._ahead)

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch."""
        self._ahead.set_epoch(epoch)

    def state(self) -> dict[str, Any]:
        """Return where the consumer stands, as small JSON."""
        return self._ahead.state()

    def restore(self, state: Mapping[str, Any], *, exact: bool = True) -> None:
        """Go to where `state` stood: the next iteration begins with the batch after it; see `Feed.restore`."""
        self._ahead.restore(state, exact=exact)

    def _arrays(self, batch: Batch) -> Item:
        inputs = {name: self._put(array) for name, array in batch.inputs(padded=self.feed.spec.padded).items()}
        return inputs, self._put(batch.targets), self._put(batch.weights)

    def _put(self, array: Any) -> Any:
        if isinstance(array, Mapping):
            return {name: self._put(each) for name, each in array.items()}
        # A copy of our own: on a CPU JAX may go on looking into memory that the feed uses again.
        if self.sharding is None:
            return jax.numpy.array(array, copy=True)
        make: Any = jax.make_array_from_process_local_data
        try:
            shared: jax.Array = make(self.sharding, array.copy())
        except ValueError as error:
            raise FeedError(
                f"a batch of {len(array)} rows does not divide over the devices of {self.sharding}; give the feed "
                f"drop_last=True, or a batch_size that does ({error})"
            ) from error
        return shared
