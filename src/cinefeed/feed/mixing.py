"""Mix the rows of a finished batch with each other: clips, targets, weights, covariates, masks and `valid`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.arguments import in_words
from cinefeed.core.errors import SettingError
from cinefeed.feed.batch import Batch
from cinefeed.feed.labels import FeedSpec, Labels, Targets
from cinefeed.transforms.base import ClipInfo, Frames, Parameters
from cinefeed.transforms.mixing import MixUp


@runtime_checkable
class Mixing(Protocol):
    """Protocol of a mixing: `MixUp()` or `CutMix()` of cinefeed.transforms, or a custom one.

    All methods but `sample` are pure, and do not change rows beyond `size`. Parameters are plain data: lists by name,
    with one entry for each row.
    """

    def sample(self, rng: np.random.Generator, info: ClipInfo, *, size: int) -> Parameters:
        """Sample which of `size` rows are mixed with each other, and their shares."""
        ...

    def apply(self, clips: Frames, parameters: Parameters) -> Frames:
        """Return the mixed clips, of the same dtype."""
        ...

    def targets(self, targets: NDArray[Any], parameters: Parameters, *, task: Any, classes: int) -> NDArray[np.float32]:
        """Return mixed numbers, or shares of classes for class numbers."""
        ...

    def numbers(self, values: NDArray[Any], parameters: Parameters) -> NDArray[Any]:
        """Return other numbers of the rows, mixed, of the same dtype."""
        ...

    def valid(self, valid: NDArray[np.bool_], parameters: Parameters) -> NDArray[np.bool_]:
        """Return True only where all rows that are mixed into a row have True, (batch, ...)."""
        ...


def check_mixing(mixing: Mixing | None, *, labels: Labels, spec: FeedSpec) -> None:
    """Raise SettingError if the mixing cannot mix these clips, or its own error for labels that it has no rule for.

    So CutMix, which has no rule for numbers, is refused before a batch is made.
    """
    if mixing is None:
        return
    if isinstance(mixing, type) or not isinstance(mixing, Mixing):
        raise SettingError(f"mixing={in_words(mixing)} is not a mixing; give one such as MixUp() or CutMix()")
    if spec.masks and isinstance(mixing, MixUp):
        raise SettingError(
            f"mixing={mixing!r} would blend the numbers of two classes in a mask into that of a third; take CutMix()"
        )
    parameters = mixing.sample(np.random.Generator(np.random.Philox(0)), ClipInfo(*spec.clip_shape), size=1)
    for each in _with_labels(labels).values():
        soft_targets(mixing, np.zeros(1, each.values.dtype), each, parameters)


def is_soft(mixing: Mixing | None, labels: Labels) -> bool:
    """Return whether a mixing makes shares of class numbers."""
    return mixing is not None and any(each.classes for each in _with_labels(labels).values())


def mix_batch(
    mixing: Mixing,
    batch: Batch,
    *,
    rng: np.random.Generator,
    size: int,
    labels: Labels,
    has_label: Mapping[str, NDArray[np.bool_]],
) -> Batch:
    """Return a batch whose first `size` rows are mixed; its clips, masks and `valid` are changed in place.

    `has_label` holds, by name of target, which rows have a label: a mixture with one that has none has weight 0. A
    frame is valid if it is valid in both rows, and black otherwise.
    """
    clips = [*batch.clips.values()] if isinstance(batch.clips, Mapping) else [batch.clips]
    parameters = mixing.sample(rng, ClipInfo(*clips[0].shape[1:]), size=size)
    batch.valid[:] = mixing.valid(batch.valid, parameters)
    for pixels in [*clips, batch.masks] if batch.masks.size else clips:
        pixels[:size] = mixing.apply(pixels[:size], parameters)
        pixels[~batch.valid] = 0
    arrays: dict[str, Any] = {"weights": mixing.numbers(batch.weights, parameters)} if not labels.several else {}
    if labels.several:
        arrays["weights"] = {
            name: mixing.numbers(weights, parameters) * mixing.valid(has_label[name][:, None], parameters)[:, 0]
            for name, weights in batch.weights.items()
        }
        arrays["targets"] = {
            name: soft_targets(mixing, batch.targets[name], each, parameters) for name, each in labels.several.items()
        }
    elif _with_labels(labels):
        arrays["targets"] = soft_targets(mixing, batch.targets, labels.main, parameters)
    arrays["covariates"] = {name: mixing.numbers(values, parameters) for name, values in batch.covariates.items()}
    if batch.parameters:
        rows = [{name: each[place] for name, each in parameters.items()} for place in range(size)]
        mixed = [{**each, "mixing": row} for each, row in zip(batch.parameters, rows, strict=False)]
        arrays["parameters"] = [*mixed, *batch.parameters[size:]]
    return replace(batch, **arrays)


def soft_targets(mixing: Mixing, values: NDArray[Any], targets: Targets, parameters: Parameters) -> NDArray[np.float32]:
    """Return the targets of a batch mixed: numbers, or shares of classes."""
    return mixing.targets(values, parameters, task=targets.task, classes=len(targets.classes))


def _with_labels(labels: Labels) -> dict[str, Targets]:
    """Return the targets that are labels, by name: not clips or masks, which are mixed as images."""
    several = dict(labels.several) or ({labels.name: labels.main} if labels.name else {})
    return {name: each for name, each in several.items() if each.task not in ("clip", "mask")}
