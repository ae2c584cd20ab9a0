"""Feed -> keras.utils.PyDataset, for `fit`, `evaluate` and `predict` on any backend."""

from collections.abc import Iterator
from typing import Any

from cinefeed.errors import keras_missing
from cinefeed.feed.batch import Batch
from cinefeed.feed.feed import Feed

try:
    import keras
except ImportError as error:
    raise keras_missing(error) from error


class FeedDataset(keras.utils.PyDataset):  # type: ignore[misc]  # keras is untyped
    """A feed as Keras wants it: `model.fit(FeedDataset(feed), validation_data=FeedDataset(feed.evaluation(val)))`.

    Each batch is `(inputs, targets)`, or `(inputs, targets, weights)` if something weighs the rows
    (`feed.spec.weighted`), so that `fit(class_weight=...)` works if nothing does. Inputs are an array if there is one,
    the clips. Several are a dictionary: `clips`, or one a view (`feed.spec.clip_names`), covariates, `masks` unless
    they are the targets, and `valid` where clips are padded. `named=True` makes it a dictionary always, for a model
    that looks its input up by name. Weights of pictures (the tasks "clip" and "mask") are (batch, 1, 1, 1), one for
    all pixels of a row.

    The feed makes its batches ahead, on its own workers and in its own order, so `workers` is 1 here and the index
    that Keras asks for, which it shuffles, is ignored: between `on_epoch_begin` and `on_epoch_end` each request gives
    the next batch. A request outside an epoch gives the first one again and again.

    Each of Keras' epochs is an iteration over the feed: one that was shortened, by `steps_per_epoch` or because
    training stopped, is left for the feed's next epoch, and an evaluation begins at its first batch each time. Keras
    asks for one batch to build a model, in an epoch of its own: the feed goes back to where it was. So an epoch of a
    single batch, unless it follows on another, is taken for that request.

    Add `dataset.callback` to `fit(callbacks=...)` to have Keras' epochs decide which of the feed's is given: with
    `initial_epoch=`, with epochs of a single batch, and in a `fit` that repeats an epoch which was stopped. It also
    counts what was trained on (`consumed`, batches of the current epoch).
    """

    def __init__(self, feed: Feed, *, named: bool = False) -> None:
        super().__init__(workers=1, use_multiprocessing=False)
        self.feed = feed
        self.named = named
        self.consumed = 0
        self._batches: Iterator[Batch] | None = None
        self._began: dict[str, Any] = {}  # the feed's state
        self._given = 0
        self._single = False  # the epoch before had one batch

    def __len__(self) -> int:
        """Return the number of batches of the current epoch."""
        return len(self.feed)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """Return the epoch's next batch, `(inputs, targets)` or `(inputs, targets, weights)`, whatever the index."""
        if self._batches is None:
            batch = self.feed.batch(0)
        else:
            batch = next(self._batches)
            self._given += 1
        item = self._item(batch)
        if keras.config.backend() != "torch":
            return item
        from cinefeed.adapters.torch import as_tensor  # an extra: Keras copies NumPy batches, and leaves tensors alone

        return tuple(map(as_tensor, item))

    def _item(self, batch: Batch) -> tuple[Any, ...]:
        spec = self.feed.spec
        inputs: Any = batch.inputs(padded=spec.padded)
        if len(inputs) == 1 and not self.named:
            (inputs,) = inputs.values()
        if not self.weighted:
            return inputs, batch.targets
        weights = batch.weights
        # Keras multiplies the error of each pixel by a weight, and aligns the last axes where their numbers differ.
        return inputs, batch.targets, weights.reshape(-1, 1, 1, 1) if spec.task in ("clip", "mask") else weights

    @property
    def weighted(self) -> bool:
        """Whether batches have weights."""
        return self.feed.spec.weighted

    def on_epoch_begin(self) -> None:
        """Start the feed's next epoch."""
        self.consumed = self._given = 0
        self._batches = iter(self.feed)
        self._began = self.feed.state()

    def on_epoch_end(self) -> None:
        """End the epoch: the feed stands after the last batch that was given, or where it was before a single one."""
        if self._batches is None:
            return
        self._batches = None
        unfinished = self.feed.epoch == self._began["epoch"] != self.feed.next_epoch
        single = unfinished and self._given == 1 and not self.consumed
        if single and not self._single:
            self.feed.restore(self._began)
        self._single = single

    @property
    def callback(self) -> keras.callbacks.Callback:
        """A callback that ties the feed's epoch to Keras' own, and counts the batches trained on."""
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
