"""What a feed gives: a batch of clips, with all that belongs to them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cinefeed.feed.targets import clip_name

OnError = Literal["raise", "replace"]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One batch, in NumPy. Arrays may be held as long as you like; their memory is used again when they have died.

    `targets` are (batch,): float32, or class numbers, int64; soft ones (`feed.spec.soft`) float32, of more than two
    classes (batch, classes); of the task "clip" the clips, of "mask" the masks; of several, each by name.

    `parameters` say how each row came about, where that was asked for, and of padding nothing:

    epoch, index   its address, for `feed.replay(epoch, index)`
    row            its row in the manifest
    frames         the numbers of the frames that it shows
    transforms     what each of the feed's transforms drew, in their order
    views          in place of these two, both of each view, where there are several
    mixing         what was drawn for the row where the batch was mixed
    """

    clips: Any  # (batch, frames, height, width, channels); of views that are not stacked, each by name
    targets: Any
    weights: Any  # (batch,): 0 where a row has no label, or is padding; of several targets, each by name
    ids: NDArray[np.str_]  # (batch,)
    valid: NDArray[np.bool_]  # (batch, frames): False where a frame is padding
    covariates: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)  # by name, (batch, size)
    # (batch, frames, height, width, 1); without masks it is empty
    masks: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    parameters: Sequence[Mapping[str, Any]] = ()

    @property
    def nbytes(self) -> int:
        """The size of the clips, in bytes."""
        return sum(array.nbytes for array in _by_name(self.clips).values())

    def inputs(self, *, padded: bool) -> dict[str, NDArray[Any]]:
        """Return what a model is called with, by name: clips, covariates, masks, and `valid` where there is padding.

        The clips are `clips`, or of views that are not stacked one input each: `clips_2ch`, `clips_4ch`. The masks are
        `masks`, unless they are the targets.
        """
        masks = {"masks": self.masks} if self.masks.size and self.masks is not self.targets else {}
        return _by_name(self.clips) | dict(self.covariates) | masks | ({"valid": self.valid} if padded else {})

    def row(self, place: int) -> "Batch":
        """Return one row, as a batch of its own on the same memory."""
        where = slice(place, place + 1)

        def cut(value: Any) -> Any:
            return {name: cut(each) for name, each in value.items()} if isinstance(value, Mapping) else value[where]

        arrays = {each.name: cut(getattr(self, each.name)) for each in fields(self)}
        arrays["ids"] = np.array(arrays["ids"].tolist(), np.str_)  # of the width of this id, not of the longest
        for name in ("clips", "masks"):  # as targets they are the same object: see `inputs`
            if self.targets is getattr(self, name):
                arrays["targets"] = arrays[name]
        return Batch(**arrays)


def _by_name(clips: Any) -> dict[str, NDArray[Any]]:
    """Return clips by the names of the inputs that they are."""
    if isinstance(clips, Mapping):
        return {clip_name(view): array for view, array in clips.items()}
    return {"clips": clips}
