"""Adapter of a Feed for JAX: batches as arrays on one device, or sharded over several."""

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from cinefeed.adapters.ahead import ADAPTER_HINTS, Ahead, adapter_repr, refuse_items, require_feed
from cinefeed.core.arguments import check_arguments
from cinefeed.core.errors import FeedError, MissingExtraError
from cinefeed.feed.batch import Batch
from cinefeed.feed.feed import Feed

try:
    import jax
except ModuleNotFoundError as error:
    raise MissingExtraError("jax", extra="jax") from error

Item = tuple[dict[str, jax.Array], Any, Any]  # targets and weights: an array, or with several targets a mapping


@check_arguments(hints=ADAPTER_HINTS)
class FeedIterator:
    """Iterates `(inputs, targets, weights)` as JAX arrays; each iteration is one epoch of the feed.

    `inputs["clips"]` is (batch, frames, height, width, channels). With several views each is a separate input, named in
    `feed.spec.clip_names`. `inputs["valid"]` is there only if a batch can have padding (`feed.spec.padded`): with
    `Clip(short="pad")`, and on several ranks, whose last batches are filled up. Masks are `inputs["masks"]` unless they
    are the targets. Each batch is sent to its devices while the previous one is in use. `sharding` distributes the rows
    of a batch over devices, such as `NamedSharding(mesh, PartitionSpec("data"))`; with several processes each passes
    the rows of its own rank, and the results are global arrays. A batch that cannot be divided over the devices is an
    error: set `drop_last=True` of the feed, or a `batch_size` that can be divided.

    for inputs, targets, weights in FeedIterator(feed):
        state, loss = step(state, inputs["clips"], targets, weights)
    """

    def __init__(self, feed: Feed, *, sharding: jax.sharding.Sharding | None = None) -> None:
        require_feed(feed, name="FeedIterator")
        self.feed = feed
        self.sharding = sharding
        self._ahead = Ahead(feed, send=self._arrays)

    def __repr__(self) -> str:
        return adapter_repr(self, sharding=self.sharding)

    def __len__(self) -> int:
        """Return the number of batches of the current epoch."""
        return len(self.feed)

    def __iter__(self) -> Iterator[Item]:
        """Return an iterator over the next epoch, or over the rest of an epoch after `restore`.

        As with the feed, an older iterator raises StaleIteratorError on its next use, and the rest of an incomplete
        epoch is skipped.
        """
        return iter(self._ahead)

    def __getitem__(self, index: int) -> NoReturn:
        """Raise ArgumentError: a DataLoader of torch, which requests items, cannot wrap the iterator."""
        refuse_items(self)

    def set_epoch(self, epoch: int) -> None:
        """Move to the start of an epoch."""
        self._ahead.set_epoch(epoch)

    def state(self) -> dict[str, Any]:
        """Return the state of the consumer, small and serialisable as JSON."""
        return self._ahead.state()

    def restore(self, state: Mapping[str, Any], *, exact: bool = True) -> None:
        """Move to the position of `state`: the next iteration starts with the batch after it; see `Feed.restore`."""
        self._ahead.restore(state, exact=exact)

    def _arrays(self, batch: Batch) -> Item:
        inputs = {name: self._put(array) for name, array in batch.inputs(padded=self.feed.spec.padded).items()}
        return inputs, self._put(batch.targets), self._put(batch.weights)

    def _put(self, array: Any) -> Any:
        if isinstance(array, Mapping):
            return {name: self._put(each) for name, each in array.items()}
        # A copy: on a CPU a JAX array may share memory that the feed reuses.
        if self.sharding is None:
            return jax.numpy.array(array, copy=True)
        make_array: Any = jax.make_array_from_process_local_data
        try:
            global_array: jax.Array = make_array(self.sharding, array.copy())
        except ValueError as error:
            raise FeedError(
                f"a batch of {len(array)} rows cannot be divided over the devices of {self.sharding} ({error}); set "
                f"drop_last=True of the feed, or a batch_size that can be divided"
            ) from error
        return global_array
