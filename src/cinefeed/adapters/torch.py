"""Adapter of a Feed for PyTorch: batches as tensors, for a plain training loop or Lightning. Keras is not needed."""

from collections.abc import Callable, Iterator, Mapping
from itertools import starmap
from typing import Any, Literal, NoReturn, get_args

from cinefeed.adapters.ahead import ADAPTER_HINTS, Ahead, adapter_repr, refuse_items, require_feed
from cinefeed.adapters.tensors import as_tensor
from cinefeed.core.arguments import check_arguments, expect, in_words
from cinefeed.core.errors import MissingExtraError, SettingError, did_you_mean
from cinefeed.feed.batch import Batch
from cinefeed.feed.feed import Feed

try:
    import torch
except ModuleNotFoundError as error:
    raise MissingExtraError("torch", extra="torch") from error

BatchAxes = Literal["BTHWC", "BTCHW", "BCTHW"]
Named = dict[str, torch.Tensor]
Item = tuple[Named, torch.Tensor | Named, torch.Tensor | Named]  # with several targets: mappings by name


def model_inputs(batch: Batch, *, padded: bool) -> Named:
    """Return the inputs of a model by name: clips, covariates, and `valid` if clips may be padded."""
    return {name: as_tensor(array) for name, array in batch.inputs(padded=padded).items()}


@check_arguments(hints=ADAPTER_HINTS)
class FeedLoader:
    """Iterates `(inputs, targets, weights)` as torch tensors; each iteration is one epoch of the feed.

    `inputs["clips"]` is (batch, frames, height, width, channels), or has the order of axes in `layout`: "BTCHW" for a
    2-D network per frame, "BCTHW" for a 3-D network; the other orders are views, not copies. With several views each is
    a separate input, named in `feed.spec.clip_names`. `inputs["valid"]` is there only if a batch can have padding
    (`feed.spec.padded`): with `Clip(short="pad")`, and on several ranks, whose last batches are filled up. Masks are
    `inputs["masks"]`, or the targets, in the same order of axes. Tensors share memory with the feed, which reuses it
    once no tensor references it. With a CUDA `device`, batches are copied to it ahead of use, through pinned memory and
    on a separate stream; with `pin_memory` and no device they are in pinned memory.

    `state_dict` and `load_state_dict` save and restore the feed's position, so that a loader in Lightning resumes
    within an epoch.

    No ids are yielded. With one rank and one clip per row, `FeedLoader(feed.evaluation(part, clips=1))` yields the rows
    in the order of `part.column("id")`; the batches of the feed itself have `ids`.

    criterion = torch.nn.CrossEntropyLoss(reduction="none")
    for inputs, targets, weights in FeedLoader(feed):
        loss = (weights * criterion(model(inputs["clips"]), targets)).mean()
    """

    batch_sampler = None  # Lightning reads it if a validation loader has a `sampler`

    def __init__(
        self,
        feed: Feed,
        *,
        layout: BatchAxes = "BTHWC",
        device: str | torch.device | None = None,
        pin_memory: bool | None = None,
    ) -> None:
        require_feed(feed, name="FeedLoader")
        if layout not in get_args(BatchAxes):
            raise SettingError(f"layout={layout!r} is not a choice; {did_you_mean(str(layout), get_args(BatchAxes))}")
        if pin_memory is not None:
            expect(pin_memory, bool, name="FeedLoader: pin_memory", remedy="leave it out to pin only with a GPU")
        if pin_memory:
            _check_pinning()
        self.feed = feed
        self.device = None if device is None else _device(device)
        self.pin_memory = torch.cuda.is_available() if pin_memory is None else pin_memory
        self._order = ["BTHWC".index(axis) for axis in layout]
        self._stream: Any = None  # of torch.cuda; made with the first batch
        self._ahead = Ahead(feed, send=self._send) if self.device is not None and self.device.type == "cuda" else None

    def __repr__(self) -> str:
        layout = "".join("BTHWC"[axis] for axis in self._order)
        return adapter_repr(self, layout=layout, device=self.device and str(self.device), pin_memory=self.pin_memory)

    def __len__(self) -> int:
        """Return the number of batches of the current epoch."""
        return len(self.feed)

    def __iter__(self) -> Iterator[Item]:
        """Return an iterator over the next epoch, or over the rest of an epoch after `load_state_dict`.

        As with the feed, an older iterator raises StaleIteratorError on its next use, and the rest of an incomplete
        epoch is skipped.
        """
        if self._ahead is not None:
            return starmap(_wait_for_copy, self._ahead)
        return map(self._item, self.feed)  # `map` keeps no reference to a batch while the next one is made

    def __getitem__(self, index: int) -> NoReturn:
        """Raise ArgumentError: a DataLoader of torch, which requests items, cannot wrap the loader."""
        refuse_items(self)

    def set_epoch(self, epoch: int) -> None:
        """Move to the start of an epoch."""
        (self._ahead or self.feed).set_epoch(epoch)

    @property
    def sampler(self) -> "_Epochs":
        """Object whose `set_epoch` Lightning calls before each epoch. An evaluation stays at epoch 0."""
        return _Epochs(self)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the consumer as plain data."""
        return (self._ahead or self.feed).state()

    def load_state_dict(self, state: Mapping[str, Any], *, exact: bool = True) -> None:
        """Move to the position of `state`: the next iteration starts with the batch after it; see `Feed.restore`."""
        (self._ahead or self.feed).restore(state, exact=exact)

    def _item(self, batch: Batch) -> Item:
        item = self._tensors(batch)
        return item if self.device is None else _to_device(item, self.device)

    def _tensors(self, batch: Batch) -> Item:
        inputs = model_inputs(batch, padded=self.feed.spec.padded)
        spec, targets = self.feed.spec, as_tensor(batch.targets)
        pictures = [*spec.clip_names, *(["masks"] if spec.masks and spec.task != "mask" else [])]
        inputs |= {name: inputs[name].permute(self._order) for name in pictures}
        if spec.masks and spec.task == "mask":
            targets = targets.permute(self._order)
        item = inputs, targets, as_tensor(batch.weights)
        return _pin(item) if self.pin_memory else item

    def _send(self, batch: Batch) -> tuple[Item, torch.cuda.Event]:
        """Start to copy a batch to the device, on a separate stream."""
        assert self.device is not None
        item = _pin(self._tensors(batch))
        if self._stream is None:
            self._stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        with torch.cuda.stream(self._stream):
            item = _to_device(item, self.device, non_blocking=True)
        return item, self._stream.record_event()


def _check_pinning() -> None:
    """Raise SettingError if torch cannot pin memory here, because it finds no GPU."""
    try:
        torch.empty(1).pin_memory()
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise SettingError(
            f"FeedLoader(pin_memory=True) cannot be used: {reason}; leave out pin_memory= to pin only with a GPU"
        ) from error


def _device(device: str | torch.device) -> torch.device:
    """Return a device that can hold tensors here. Raises SettingError if it does not exist or is not available."""
    available = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    advice = f"available here: {', '.join(available)}"
    advice += "" if len(available) > 1 else "; leave out device= to get tensors in memory"
    try:
        place = torch.device(device)
        if place.type != "cuda":
            torch.empty(0, device=place)
        elif (place.index is not None and place.index >= len(available) - 1) or len(available) == 1:
            raise RuntimeError("torch finds no such CUDA device")
    except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        reason = "torch has no such device" if reason.startswith("Expected one of") else reason
        hint = "did you mean 'cuda'? " if device == "gpu" else ""
        raise SettingError(f"FeedLoader(device={in_words(device)}) cannot be used: {reason}; {hint}{advice}") from error
    return place


class _Epochs:
    def __init__(self, loader: FeedLoader) -> None:
        self._loader = loader

    def set_epoch(self, epoch: int) -> None:
        """Move to the start of an epoch, unless it is the next one already: a restored position within it is kept."""
        feed = self._loader.feed
        if feed.next_epoch != epoch and not feed.is_evaluation:
            self._loader.set_epoch(epoch)


def _wait_for_copy(item: Item, copy_event: torch.cuda.Event) -> Item:
    """Make the current stream of the device wait for the copy of a batch, and return the batch."""

    def wait(tensor: torch.Tensor) -> torch.Tensor:
        stream = torch.cuda.current_stream(tensor.device)
        stream.wait_event(copy_event)
        tensor.record_stream(stream)  # or the allocator would return its memory to the copying stream too early
        return tensor

    result: Item = _map_tensors(item, wait)
    return result


def _to_device(item: Item, device: torch.device, *, non_blocking: bool = False) -> Item:
    result: Item = _map_tensors(item, lambda tensor: tensor.to(device, non_blocking=non_blocking))
    return result


def _pin(item: Item) -> Item:
    result: Item = _map_tensors(item, lambda tensor: tensor.pin_memory())
    return result


def _map_tensors(item: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Return an item with a function applied to every tensor in it."""
    if isinstance(item, tuple):
        return tuple(_map_tensors(part, function) for part in item)
    if isinstance(item, dict):
        return {name: _map_tensors(part, function) for name, part in item.items()}
    return function(item)
