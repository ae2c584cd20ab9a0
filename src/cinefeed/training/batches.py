"""The Keras data set of a training run: batches of a feed from any position of an epoch, with class weights."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cinefeed.adapters.keras import FeedDataset
from cinefeed.feed.batch import Batch
from cinefeed.feed.feed import Feed
from cinefeed.training.losses import weigh


class TrainingSet(FeedDataset):
    """A FeedDataset that can start within an epoch: `start` is the first batch of the next `fit`.

    Keras reads the number of batches of an epoch once per `fit`, so the rest of an epoch takes a `fit` of its own
    (see Checkpoint). `class_weights` holds the weight of each class, by target.
    """

    def __init__(self, feed: Feed, *, class_weights: Mapping[str, NDArray[np.float32]] | None = None) -> None:
        super().__init__(feed, named=True)
        self.start = 0
        self.class_weights = dict(class_weights or {})

    def __len__(self) -> int:
        """Return the number of batches from `start` to the end of the feed's epoch."""
        return len(self.feed) - self.start

    @property
    def weighted(self) -> bool:
        """Whether batches have weights: sample weights of the feed or class weights."""
        return super().weighted or bool(self.class_weights)

    def on_epoch_begin(self) -> None:
        """Start the feed's current epoch, or continue within it if the feed was restored."""
        super().on_epoch_begin()
        if self.class_weights and self._batches is not None:
            self._batches = map(self._apply_class_weights, self._batches)

    def _apply_class_weights(self, batch: Batch) -> Batch:
        weights = weigh(batch.targets, batch.weights, self.class_weights, name=self.feed.spec.target)
        return replace(batch, weights=weights)
