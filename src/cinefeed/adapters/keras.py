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

    Inputs are named: `clips`, or one a view (`feed.spec.clip_names`), covariates, `masks` unless they are the targets,
    and `valid` where clips are padded.

    The feed makes its batches ahead, on its own workers and in its own order, so `workers` is 1 here and the index
    that Keras asks for, which it shuffles, is ignored: between `on_epoch_begin` and `on_epoch_end` each request gives
    the next batch. A request outside an epoch, as Keras makes to build a model, gives the first one again and again.
    A complete epoch advances the feed; one that was stopped does not, and the next starts it anew.

    Add `dataset.callback` to `fit(callbacks=...)` where Keras counts the epochs (`initial_epoch=`), and where an epoch
    has one batch only, which cannot be told from the request that builds a model: it sets the feed's epoch by Keras'
    own, and counts what was really trained on (`consumed`, batches of the current epoch).
    """

    def __init__(self, feed: Feed) -> None:
        super().__init__(workers=1, use_multiprocessing=False)
        self.feed = feed
        self.consumed = 0
        self._batches: Iterator[Batch] | None = None
        self._given = 0

    def __len__(self) -> int:
        """Return the number of batches of the current epoch."""
        return len(self.feed)

    def __getitem__(self, index: int) -> tuple[dict[str, Any], Any, Any]:
        """Return the epoch's next batch, `({"clips": ...}, targets, weights)`, whatever the index."""
        if self._batches is None:
            batch = self.feed.batch(0)
        else:
            batch = next(self._batches)
            self._given += 1
        inputs = batch.inputs(padded=self.feed.spec.padded)
        if keras.config.backend() != "torch":
            return inputs, batch.targets, batch.weights
        from cinefeed.adapters.torch import as_tensor  # an extra: Keras copies NumPy batches, and leaves tensors alone

        tensors = {name: as_tensor(array) for name, array in inputs.items()}
        return tensors, as_tensor(batch.targets), as_tensor(batch.weights)

    def on_epoch_begin(self) -> None:
        """Start the feed's current epoch."""
        self.consumed = self._given = 0
        self._batches = iter(self.feed)

    def on_epoch_end(self) -> None:
        """End the epoch: a feed that has given its last batch stands at the next one."""
        self._batches = None

    @property
    def callback(self) -> keras.callbacks.Callback:
        """A callback that ties the feed's epoch to Keras' own, and counts the batches trained on."""
        return _FollowEpochs(self)


class _FollowEpochs(keras.callbacks.Callback):  # type: ignore[misc]  # keras is untyped
    def __init__(self, dataset: FeedDataset) -> None:
        super().__init__()
        self.dataset = dataset

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        if self.dataset.feed.epoch != epoch:
            self.dataset.feed.set_epoch(epoch)

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        self.dataset.consumed = batch + 1
