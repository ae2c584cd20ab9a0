"""Transforms that select among others: one of several, one with a probability, several in random order.

The selection is sampled once per clip. Selected transforms are fused with adjacent ones, as all others (see fuse).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.arguments import check_arguments
from cinefeed.core.errors import SettingError
from cinefeed.transforms.base import ClipInfo, Frames, Parameters, Transform, output_dtype
from cinefeed.transforms.drawing import probability
from cinefeed.video.pixel_levels import SIZES

Selection = list[tuple[Transform, Parameters]]


class _Choice:
    """Base class: applies the selected transforms one after the other."""

    __slots__ = ()

    @property
    def members(self) -> tuple[Transform, ...]:
        raise NotImplementedError

    def select(self, parameters: Parameters) -> Selection:
        raise NotImplementedError

    @property
    def same_for_all_frames(self) -> bool:
        """Whether each member treats all frames of a clip the same."""
        return all(getattr(each, "same_for_all_frames", True) for each in self.members)

    def apply(self, frames: Frames, parameters: Parameters) -> Frames:
        """Return the frames after the selected transforms."""
        result = frames
        for transform, member_parameters in self.select(parameters):
            result = transform.apply(result, member_parameters)
        return frames.copy() if result is frames else result

    def _check_dtypes(self) -> None:
        """Raise SettingError if the dtype of a clip depended on the selection."""
        for member in self.members:
            for dtype in (*SIZES, np.dtype(np.float32)):
                if output_dtype(member, dtype) != dtype:
                    raise SettingError(
                        f"{type(self).__name__} cannot hold {member!r}, which turns {dtype} into "
                        f"{output_dtype(member, dtype)}: all clips of a batch have one dtype; move it after the "
                        f"{type(self).__name__}"
                    )


@check_arguments()
@dataclass(frozen=True, kw_only=True, slots=True)
class Sometimes(_Choice):
    """Apply a transform to each clip with a probability.

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
        """The transform, as a tuple of one."""
        return (self.transform,)

    def sample(self, rng: np.random.Generator, info: ClipInfo) -> Parameters:
        """Draw whether to apply the transform, and its parameters in either case."""
        applied = bool(rng.random() < self.probability)
        return {"applied": applied, "parameters": self.transform.sample(rng, info)}

    def identity(self, info: ClipInfo) -> Parameters:
        """Return parameters that do not apply the transform."""
        return {"applied": False, "parameters": {}}

    def select(self, parameters: Parameters) -> Selection:
        """Return the transform with its parameters, or an empty list."""
        return [(self.transform, parameters["parameters"])] if parameters["applied"] else []


@check_arguments()
@dataclass(frozen=True, kw_only=True, slots=True)
class OneOf(_Choice):
    """Apply one of several transforms, drawn with equal probability or in proportion to `weights`.

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
                    f"OneOf(weights={self.weights!r}) must be {len(self.transforms)} numbers, one per transform, each "
                    "at least 0, and not all 0"
                )
        self._check_dtypes()

    @property
    def members(self) -> tuple[Transform, ...]:
        """All transforms."""
        return tuple(self.transforms)

    def sample(self, rng: np.random.Generator, info: ClipInfo) -> Parameters:
        """Draw the number of a transform, then its parameters."""
        weights: NDArray[np.float64] = np.asarray(self.weights or [1.0] * len(self.transforms), np.float64)
        number = int(np.searchsorted(np.cumsum(weights), rng.random() * weights.sum(), side="right"))
        number = min(number, len(self.transforms) - 1)
        return {"choice": number, "parameters": self.transforms[number].sample(rng, info)}

    def select(self, parameters: Parameters) -> Selection:
        """Return the selected transform with its parameters."""
        return [(self.transforms[parameters["choice"]], parameters["parameters"])]


@check_arguments()
@dataclass(frozen=True, kw_only=True, slots=True)
class RandomOrder(_Choice):
    """Apply several transforms in an order that is drawn for each clip.

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
        """All transforms."""
        return tuple(self.transforms)

    def sample(self, rng: np.random.Generator, info: ClipInfo) -> Parameters:
        """Draw the order, then the parameters of each transform."""
        order = rng.permutation(len(self.transforms)).tolist()
        return {"order": order, "parameters": [each.sample(rng, info) for each in self.transforms]}

    def select(self, parameters: Parameters) -> Selection:
        """Return all transforms with their parameters, in the sampled order."""
        return [(self.transforms[number], parameters["parameters"][number]) for number in parameters["order"]]


def _check_members(kind: str, members: Sequence[object]) -> None:
    member_list = members if isinstance(members, tuple | list) else []
    if not member_list or any(isinstance(each, type) or not isinstance(each, Transform) for each in member_list):
        raise SettingError(f"{kind} takes one or more transforms such as Rotate(degrees=25); found {members!r}")
