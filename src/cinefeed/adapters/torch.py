"""Feed -> PyTorch tensors, for a plain training loop or Lightning. Keras is not needed."""

from collections.abc import Callable, Iterator, Mapping
from itertools import starmap
from typing import Any, Literal, get_args

from cinefeed.adapters.ahead import Ahead
from cinefeed.errors import MissingExtraError, SettingError, did_you_mean
from cinefeed.feed.batch import Batch
from cinefeed.feed.feed import Feed

try:
    import torch
except ImportError as error:
    raise MissingExtraError("torch", extra="torch") from error

Layout = Literal["BTHWC", "BTCHW", "BCTHW"]
Named = dict[str, torch.Tensor]
Item = tuple[Named, torch.Tensor | Named, torch.Tensor | Named]  # of several targets, each by name


def as_tensor(array: Any) -> Any:
    """Return an array as a tensor on the same memory, arrays by name as tensors by name.

    uint16, with which torch cannot calculate, becomes int32.

    >>> import numpy as np
    >>> as_tensor(np.zeros(3, np.uint8)).dtype
    torch.uint8
    """
    if isinstance(array, Mapping):
        return {name: as_tensor(each) for name, each in array.items()}
    if array.dtype.name == "uint16":
        array = array.astype("int32")
    if array.dtype.name == "bfloat16":  # which is not NumPy's own
        return torch.from_numpy(array.view("int16")).view(torch.bfloat16)
    return torch.from_numpy(array)


def model_inputs(batch: Batch, *, padded: bool) -> Named:
    """Return what a model is called with, by name: clips, covariates, and `valid` where clips may be padded."""
    return {name: as_tensor(array) for name, array in batch.inputs(padded=padded).items()}


class FeedLoader:
    """Iterates `(inputs, targets, weights)` as torch tensors, one epoch of the feed an iteration.

    `inputs["clips"]` is (batch, frames, height, width, channels), or in the order that `layout` names: "BTCHW" for a
    2-D network a frame, "BCTHW" for a 3-D one; the other orders are views, not copies. Of several views each is an
    input of its own, named in `feed.spec.clip_names`. Masks are `inputs["masks"]`, or the targets, in the same order of
    axes. Tensors look into the feed's memory, which is used again when they have died. With `device`, a CUDA one,
    batches are copied there ahead of their use, through pinned memory and on a stream of their own; with `pin_memory`
    they stay in pinned memory.

    `state_dict` and `load_state_dict` are those of the feed, so that a loader inside Lightning resumes in mid-epoch.

    for inputs, targets, weights in FeedLoader(feed):
        loss = (weights * criterion(model(inputs["clips"]), targets)).mean()
    """

    batch_sampler = None  # Lightning reads it of a validation loader that has a `sampler`

    def __init__(
        self,
        feed: Feed,
        *,
        layout: Layout = "BTHWC",
        device: str | torch.device | None = None,
        pin_memory: bool | None = None,
    ) -> None:
        if layout not in get_args(Layout):
            raise SettingError(f"layout={layout!r} is not a choice; {did_you_mean(layout, get_args(Layout))}")
        self.feed = feed
        self.device = None if device is None else torch.device(device)
        self.pin_memory = torch.cuda.is_available() if pin_memory is None else pin_memory
        self._order = ["BTHWC".index(axis) for axis in layout]
        self._stream: Any = None  # of torch.cuda; made with the first batch
        self._ahead = Ahead(feed, send=self._send) if self.device is not None and self.device.type == "cuda" else None

    def __len__(self) -> int:
        """Return the number of batches of the current epoch."""
        return len(self.feed)

    def __iter__(self) -> Iterator[Item]:
        """Return the batches of the next epoch, or of what is left of it after `load_state_dict`.

        As with the feed: an older iterator raises StaleIteratorError on its next use, and an epoch that was broken off
        is left for the next one.
        """
        if self._ahead is not None:
            return starmap(_arrived, self._ahead)
        return map(self._item, self.feed)  # which holds no batch while the next one is made

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch."""
        (self._ahead or self.feed).set_epoch(epoch)

    @property
    def sampler(self) -> "_Epochs":
        """What Lightning calls `set_epoch` of before each epoch, after a resume too. An evaluation stays at epoch 0."""
        return _Epochs(self)

    def state_dict(self) -> dict[str, Any]:
        """Return where the consumer stands, as plain data."""
        return (self._ahead or self.feed).state()

    def load_state_dict(self, state: Mapping[str, Any], *, exact: bool = True) -> None:
        """Go to where `state` stood: the next iteration begins with the batch after it; see `Feed.restore`."""
        (self._ahead or self.feed).restore(state, exact=exact)

    def _item(self, batch: Batch) -> Item:
        item = self._tensors(batch)
        return item if self.device is None else _moved(item, self.device)

    def _tensors(self, batch: Batch) -> Item:
        inputs = model_inputs(batch, padded=self.feed.spec.padded)
        spec, targets = self.feed.spec, as_tensor(batch.targets)
        pictures = [*spec.clip_names, *(["masks"] if spec.masks and spec.task != "mask" else [])]
        inputs |= {name: inputs[name].permute(self._order) for name in pictures}
        if spec.masks and spec.task == "mask":
            targets = targets.permute(self._order)
        item = inputs, targets, as_tensor(batch.weights)
        return _pinned(item) if self.pin_memory else item

    def _send(self, batch: Batch) -> tuple[Item, torch.cuda.Event]:
        """Begin to copy a batch to the device, on a stream of its own."""
        assert self.device is not None
        here = _pinned(self._tensors(batch))
        if self._stream is None:
            self._stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        with torch.cuda.stream(self._stream):
            there = _moved(here, self.device, non_blocking=True)
        return there, self._stream.record_event()


class _Epochs:
    def __init__(self, loader: FeedLoader) -> None:
        self._loader = loader

    def set_epoch(self, epoch: int) -> None:
        """Have the next iteration give an epoch; where it would do so anyway it keeps its place, after a resume too."""
        feed = self._loader.feed
        if feed.next_epoch != epoch and not feed.is_evaluation:
            self._loader.set_epoch(epoch)


def _arrived(item: Item, copied: torch.cuda.Event) -> Item:
    """Return a batch whose copy the device's current stream has been told to wait for."""

    def take(tensor: torch.Tensor) -> torch.Tensor:
        current = torch.cuda.current_stream(tensor.device)
        current.wait_event(copied)
        tensor.record_stream(current)  # or the allocator would give its memory to the copying stream too early
        return tensor

    arrived: Item = _each(item, take)
    return arrived


def _moved(item: Item, device: torch.device, *, non_blocking: bool = False) -> Item:
    moved: Item = _each(item, lambda tensor: tensor.to(device, non_blocking=non_blocking))
    return moved


def _pinned(item: Item) -> Item:
    pinned: Item = _each(item, lambda tensor: tensor.pin_memory())
    return pinned


def _each(item: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Return an item with every tensor in it changed."""
    if isinstance(item, tuple):
        return tuple(_each(part, change) for part in item)
    if isinstance(item, dict):
        return {name: _each(part, change) for name, part in item.items()}
    return change(item)
