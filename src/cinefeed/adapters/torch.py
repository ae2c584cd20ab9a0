"""Feed -> PyTorch tensors, for a plain training loop. Keras is not needed."""

from collections.abc import Iterator
from typing import Any

from cinefeed.errors import MissingExtraError
from cinefeed.feed.batch import Batch
from cinefeed.feed.feed import Feed

try:
    import torch
except ImportError as error:
    raise MissingExtraError("torch", extra="torch") from error


def as_tensor(array: Any) -> torch.Tensor:
    """Return an array as a tensor on the same memory; uint16, with which torch cannot calculate, becomes int32.

    >>> import numpy as np
    >>> as_tensor(np.zeros(3, np.uint8)).dtype
    torch.uint8
    """
    if array.dtype.name == "uint16":
        array = array.astype("int32")
    return torch.from_numpy(array)


def model_inputs(batch: Batch, *, padded: bool) -> dict[str, torch.Tensor]:
    """Return what a model is called with: `clips`, covariates by name, and `valid` where clips may be padded."""
    named = {"clips": batch.clips, **batch.covariates}
    if padded:
        named["valid"] = batch.valid
    return {name: as_tensor(array) for name, array in named.items()}


class FeedLoader:
    """Iterates `(inputs, targets, weights)` as torch tensors, one epoch of the feed an iteration.

    `inputs["clips"]` is (batch, frames, height, width, channels). Tensors look into the feed's memory without a copy,
    which is used again when they have died; with `pin_memory` they are copied to pinned memory, for CUDA.

    for inputs, targets, weights in FeedLoader(feed):
        loss = (weights * criterion(model(inputs["clips"]), targets)).mean()
    """

    def __init__(self, feed: Feed, *, pin_memory: bool | None = None) -> None:
        self.feed = feed
        self.pin_memory = torch.cuda.is_available() if pin_memory is None else pin_memory

    def __len__(self) -> int:
        """Return the number of batches of the current epoch."""
        return len(self.feed)

    def __iter__(self) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]]:
        """Return the batches of the current epoch."""
        for batch in self.feed:
            inputs = model_inputs(batch, padded=self.feed.spec.padded)
            targets, weights = as_tensor(batch.targets), as_tensor(batch.weights)
            del batch
            if self.pin_memory:
                inputs = {name: tensor.pin_memory() for name, tensor in inputs.items()}
                targets, weights = targets.pin_memory(), weights.pin_memory()
            yield inputs, targets, weights
            del inputs, targets, weights  # or their memory could not come back while the next batch is waited for

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch."""
        self.feed.set_epoch(epoch)
