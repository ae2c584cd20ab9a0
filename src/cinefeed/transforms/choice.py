"""Transforms made of others: one of several, one sometimes, several in a random order.

What is chosen is drawn once a clip and applied like any other: neighbours are still fused (see fuse).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cinefeed.errors import SettingError
from cinefeed.transforms.base import ClipInfo, Frames, Parameters, Transform, output_dtype
from cinefeed.transforms.drawing import probability
from cinefeed.transforms.levels import SIZES

Selection = list[tuple[Transform, Parameters]]


class _Choice:
    """What the choices share: they apply what was chosen, and nothing else."""

    __slots__ = ()

    @property
    def members(self) -> tuple[Transform, ...]:
        raise NotImplementedError

    def select(self, parameters: Parameters) -> Selection:
        raise NotImplementedError

    @property
    def alike(self) -> bool:
        """Whether each of them treats all frames the same."""
        return all(getattr(each, "alike", True) for each in self.members)

    def apply(self, frames: Frames, parameters: Parameters) -> Frames:
        """Return the frames as the chosen transforms leave them, one after the other."""
        changed = frames
        for transform, member_parameters in self.select(parameters):
            changed = transform.apply(changed, member_parameters)
        return frames.copy() if changed is frames else changed

    def _check_dtypes(self) -> None:
        """Raise SettingError where a clip's type would hang on what is chosen."""
        for member in self.members:
            for dtype in (*SIZES, np.dtype(np.float32)):
                if output_dtype(member, dtype) != dtype:
                    raise SettingError(
                        f"{type(self).__name__} cannot hold {member!r}, which makes {output_dtype(member, dtype)} of "
                        f"{dtype}: all clips of a batch are of one type; put it after, where it always runs"
                    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Sometimes(_Choice):
    """Apply a transform to a share of the clips, and leave the others alone.

    >>> from cinefeed.transforms.texture import Blur
    >>> sometimes = Sometimes(transform=Blur(sigma=2), probability=0.25)
    >>> rng = np.random.default_rng(0)
    >>> sum(sometimes.sample(rng, ClipInfo(16, 8, 8, 1))["applied"] for _ in range(1000))
    250
    """

    transform: Transform
    probability: float = 0.5

    def __post_init__(self) -> None:
        _check_members("Sometimes", [self.transform])
        probability("Sometimes(probability)", self.probability)
        self._check_dtypes()

    @property
    def members(self) -> tuple[Transform, ...]:
        """The one transform."""
        return (self.transform,)

    def sample(self, rng: np.random.Generator, info: ClipInfo) -> Parameters:
        """Draw whether, and the transform's own parameters in any case."""
        applied = bool(rng.random() < self.probability)
        return {"applied": applied, "parameters": self.transform.sample(rng, info)}

    def identity(self, info: ClipInfo) -> Parameters:
        """Return that it is not applied."""
        return {"applied": False, "parameters": {}}

    def select(self, parameters: Parameters) -> Selection:
        """Return the transform, or nothing."""
        return [(self.transform, parameters["parameters"])] if parameters["applied"] else []


@dataclass(frozen=True, kw_only=True, slots=True)
class OneOf(_Choice):
    """Apply one of several transforms, each as likely, or as `weights` say.

    >>> from cinefeed.transforms.geometry import Rotate, Shift
    >>> choice = OneOf(transforms=(Rotate(degrees=25), Shift(pixels=5)), weights=(3, 1))
    >>> choice.sample(np.random.default_rng(1), ClipInfo(16, 8, 8, 1))["choice"]
    0
    """

    transforms: tuple[Transform, ...]
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        _check_members("OneOf", self.transforms)
        if self.weights is not None:
            weights: Any = np.asarray(self.weights)
            numbers = weights.dtype.kind in "iuf" and weights.shape == (len(self.transforms),)
            if not numbers or not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() <= 0:
                raise SettingError(
                    f"OneOf(weights={self.weights!r}) must be {len(self.transforms)} numbers, one a transform, of 0 or "
                    "more, not all 0"
                )
        self._check_dtypes()

    @property
    def members(self) -> tuple[Transform, ...]:
        """All of them."""
        return tuple(self.transforms)

    def sample(self, rng: np.random.Generator, info: ClipInfo) -> Parameters:
        """Draw which, then its own parameters."""
        weights: NDArray[np.float64] = np.asarray(self.weights or [1.0] * len(self.transforms), np.float64)
        number = int(np.searchsorted(np.cumsum(weights), rng.random() * weights.sum(), side="right"))
        number = min(number, len(self.transforms) - 1)
        return {"choice": number, "parameters": self.transforms[number].sample(rng, info)}

    def select(self, parameters: Parameters) -> Selection:
        """Return the one that was drawn."""
        return [(self.transforms[parameters["choice"]], parameters["parameters"])]


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomOrder(_Choice):
    """Apply all of several transforms, in an order drawn anew for each clip.

    >>> from cinefeed.transforms.geometry import Rotate, Scale
    >>> order = RandomOrder(transforms=(Rotate(degrees=25), Scale(factor=0.2)))
    >>> order.sample(np.random.default_rng(1), ClipInfo(16, 8, 8, 1))["order"]
    [0, 1]
    """

    transforms: tuple[Transform, ...]

    def __post_init__(self) -> None:
        _check_members("RandomOrder", self.transforms)
        self._check_dtypes()

    @property
    def members(self) -> tuple[Transform, ...]:
        """All of them."""
        return tuple(self.transforms)

    def sample(self, rng: np.random.Generator, info: ClipInfo) -> Parameters:
        """Draw the order, then the parameters of each."""
        order = rng.permutation(len(self.transforms)).tolist()
        return {"order": order, "parameters": [each.sample(rng, info) for each in self.transforms]}

    def select(self, parameters: Parameters) -> Selection:
        """Return all, in the order that was drawn."""
        return [(self.transforms[number], parameters["parameters"][number]) for number in parameters["order"]]


def _check_members(kind: str, members: Sequence[object]) -> None:
    listed = members if isinstance(members, tuple | list) else []
    if not listed or any(isinstance(each, type) or not isinstance(each, Transform) for each in listed):
        raise SettingError(f"{kind} holds transforms such as Rotate(degrees=25), at least one; found {members!r}")
