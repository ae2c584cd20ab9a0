"""Adapter of a Feed for Keras: a keras.utils.PyDataset for `fit`, `evaluate` and `predict` on any backend."""

from collections.abc import Iterator
from typing import Any

from cinefeed.adapters.ahead import ADAPTER_HINTS, adapter_repr, require_feed
from cinefeed.core.arguments import check_arguments, expect
from cinefeed.core.errors import keras_missing
from cinefeed.feed.batch import Batch
from cinefeed.feed.feed import Feed

try:
    import keras
except ImportError as error:
    raise keras_missing(error) from None


@check_arguments(hints=ADAPTER_HINTS)
class FeedDataset(keras.utils.PyDataset):  # type: ignore[misc]  # keras is untyped
    """A Keras data set of a feed: `model.fit(FeedDataset(feed), validation_data=FeedDataset(feed.evaluation(val)))`.

    Each batch is `(inputs, targets)`, or `(inputs, targets, weights)` if rows have weights (`feed.spec.weighted`);
    without weights `fit(class_weight=...)` can be used. A single input, the clips, is an array. Several inputs are a
    dictionary: `clips`, or one entry per view (`feed.spec.clip_names`), covariates, `masks` unless they are the
    targets, and `valid` if a batch can have padding (`feed.spec.padded`: `Clip(short="pad")`, or several ranks). With
    `named=True` inputs are always a dictionary, for a model that reads its input by name. Weights for the tasks "clip"
    and "mask" are (batch, 1, 1, 1), one for all pixels of a row.

    The feed prefetches batches with its own workers and in its own order, so `workers` is 1 here and the index that
    Keras passes, which is shuffled, is ignored: between `on_epoch_begin` and `on_epoch_end` each request returns the
    next batch. Requests outside an epoch all return the first batch.

    Each epoch of Keras is an iteration over the feed. After an epoch that was shortened, by `steps_per_epoch` or
    because training stopped, the feed continues with its next epoch; an evaluation always starts at its first batch. To
    build a model, Keras requests one batch in a separate epoch, after which the feed returns to its previous position.
    An epoch of a single batch is therefore treated as such a request, unless it follows another one.

    Add `dataset.callback` to `fit(callbacks=...)` to select the feed's epoch by the epoch of Keras: this is needed with
    `initial_epoch=`, with epochs of a single batch, and in a `fit` that repeats an epoch that was stopped. The callback
    also counts the batches of the current epoch that were trained on (`consumed`).
    """

    def __init__(self, feed: Feed, *, named: bool = False) -> None:
        require_feed(feed, name="FeedDataset")
        expect(named, bool, name="FeedDataset: named", remedy="named=True gives inputs by name")
        super().__init__(workers=1, use_multiprocessing=False)
        self.feed = feed
        self.named = named
        self.consumed = 0
        self._batches: Iterator[Batch] | None = None
        self._start_state: dict[str, Any] = {}  # of the feed, at the start of the epoch
        self._num_returned = 0
        self._single = False  # the previous epoch had one batch

    def __repr__(self) -> str:
        return adapter_repr(self, named=self.named)

    def __len__(self) -> int:
        """Return the number of batches of the current epoch."""
        return len(self.feed)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """Return the next batch of the epoch, `(inputs, targets)` or `(inputs, targets, weights)`, for any index."""
        if self._batches is None:
            batch = self.feed.batch(0)
        else:
            batch = next(self._batches)
            self._num_returned += 1
        item = self._item(batch)
        if keras.config.backend() != "torch":
            return item
        from cinefeed.adapters.tensors import as_tensor

        return tuple(map(as_tensor, item))

    def _item(self, batch: Batch) -> tuple[Any, ...]:
        spec = self.feed.spec
        inputs: Any = batch.inputs(padded=spec.padded)
        if len(inputs) == 1 and not self.named:
            (inputs,) = inputs.values()
        if not self.weighted:
            return inputs, batch.targets
        weights = batch.weights
        # Keras multiplies the error of each pixel by a weight, and aligns the last axes of arrays of other rank.
        return inputs, batch.targets, weights.reshape(-1, 1, 1, 1) if spec.task in ("clip", "mask") else weights

    @property
    def weighted(self) -> bool:
        """Whether batches have weights."""
        return self.feed.spec.weighted

    def on_epoch_begin(self) -> None:
        """Start the feed's next epoch."""
        self.consumed = self._num_returned = 0
        self._batches = iter(self.feed)
        self._start_state = self.feed.state()

    def on_epoch_end(self) -> None:
        """End the epoch: the feed stays after the last returned batch, or moves back to before a single one."""
        if self._batches is None:
            return
        self._batches = None
        unfinished = self.feed.epoch == self._start_state["epoch"] != self.feed.next_epoch
        single = unfinished and self._num_returned == 1 and not self.consumed
        if single and not self._single:
            self.feed.restore(self._start_state)
        self._single = single

    @property
    def callback(self) -> keras.callbacks.Callback:
        """A callback that sets the feed's epoch to that of Keras, and counts the batches that were trained on."""
        return _FollowEpochs(self)


class _FollowEpochs(keras.callbacks.Callback):  # type: ignore[misc]  # keras is untyped
    def __init__(self, dataset: FeedDataset) -> None:
        super().__init__()
        self.dataset = dataset

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        if self.dataset.feed.next_epoch != epoch:
            self.dataset.feed.set_epoch(epoch)

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        self.dataset.consumed = batch + 1
