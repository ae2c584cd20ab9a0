"""The batches that a training run is fed: a feed's, from any place of an epoch, weighed by class where asked."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cinefeed.adapters.keras import FeedDataset
from cinefeed.feed.batch import Batch
from cinefeed.feed.feed import Feed
from cinefeed.training.losses import weigh


class TrainingSet(FeedDataset):
    """A FeedDataset that can stand within an epoch: `start` is its first batch for the `fit` that comes next.

    Keras asks once a `fit` how many batches an epoch has, so the rest of an epoch is a `fit` of its own (Checkpoint).
    `class_weights`, by target, is what a row of each class counts.
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
        """Whether batches have weights: those of the feed, or of classes."""
        return super().weighted or bool(self.class_weights)

    def on_epoch_begin(self) -> None:
        """Start the feed's current epoch, or go on within it where the feed was restored."""
        super().on_epoch_begin()
        if self.class_weights and self._batches is not None:
            self._batches = map(self._weighed, self._batches)

    def _weighed(self, batch: Batch) -> Batch:
        weights = weigh(batch.targets, batch.weights, self.class_weights, name=self.feed.spec.target)
        return replace(batch, weights=weights)
