"""The batch of a feed: clips, targets, weights, covariates and masks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.html import display
from cinefeed.core.text import format_count
from cinefeed.feed.display import CLIPS, batch_html, batch_repr
from cinefeed.feed.labels import FeedSpec, clip_name

OnError = Literal["raise", "replace"]


@dataclass(frozen=True, kw_only=True, repr=False)
class Batch:
    """One batch, in NumPy. Arrays may be kept; their memory is reused only after they were deleted.

    `targets` are (batch,): float32, or int64 class numbers. Soft targets (`feed.spec.soft`) are float32, and (batch,
    classes) for more than two classes. For the task "clip" they are the clips, for "mask" the masks. Several targets
    are a mapping by name.

    `parameters` describe how each row was made, if the feed has `return_parameters`; for padding they are empty:

    epoch, index   the address of the clip, for `feed.replay(epoch, index)`
    row            its row in the manifest
    frames         the numbers of its frames in the video
    transforms     the parameters of each transform, in their order
    views          `frames` and `transforms` of each view instead, if there are several views
    mixing         the parameters of the row, if the batch was mixed
    """

    clips: Any  # (batch, frames, height, width, channels); a mapping by name for views that are not stacked
    targets: Any
    weights: Any  # (batch,): 0 if a row has no label, or is padding; a mapping by name for several targets
    ids: NDArray[np.str_]  # (batch,)
    valid: NDArray[np.bool_]  # (batch, frames): False where a frame is padding
    covariates: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)  # by name, (batch, size)
    # (batch, frames, height, width, 1); without masks it is empty
    masks: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    parameters: Sequence[Mapping[str, Any]] = ()

    def arrays(self) -> dict[str, Any]:
        """Return all arrays by name, without those that are another one: targets may be the clips or the masks."""
        arrays: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name != "parameters" and not any(value is other for other in arrays.values()):
                arrays[each.name] = value
        return arrays

    def __repr__(self) -> str:
        return batch_repr(self.arrays(), rows=len(self.ids))

    def _repr_html_(self) -> str:
        return batch_html(self)

    def show(self, *, clips: int = CLIPS, spec: FeedSpec | None = None, out: str | Path | None = None) -> Path | None:
        """Show the arrays, and the first clips as they move; see `Manifest.show` for where it is shown.

        The clips are shown even if the manifest is private. `spec`, that of the feed, names classes and views.
        """
        html = batch_html(self, clips=clips, spec=spec)
        return display(html, title=f"Batch of {format_count(len(self.ids), 'row')}", out=out)

    @property
    def nbytes(self) -> int:
        """The size of the clips, in bytes."""
        return sum(array.nbytes for array in _by_name(self.clips).values())

    def inputs(self, *, padded: bool) -> dict[str, NDArray[Any]]:
        """Return the inputs of a model by name: clips, covariates, masks, and `valid` if `padded`.

        The clips are `clips`, or one input for each view that is not stacked: `clips_2ch`, `clips_4ch`. The masks are
        `masks`, unless they are the targets.
        """
        masks = {"masks": self.masks} if self.masks.size and self.masks is not self.targets else {}
        return _by_name(self.clips) | dict(self.covariates) | masks | ({"valid": self.valid} if padded else {})

    def row(self, place: int) -> "Batch":
        """Return one row as a batch, which shares its memory."""
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
    """Return clips by the names of their model inputs."""
    if isinstance(clips, Mapping):
        return {clip_name(view): array for view, array in clips.items()}
    return {"clips": clips}
