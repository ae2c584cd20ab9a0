"""Random settings of transforms: one grammar of numbers, ranges and choices, with validation and sampling."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from cinefeed.core.errors import ClipError, SettingError
from cinefeed.transforms.base import ClipInfo

RangeSpec = float | tuple[float, ...] | frozenset[float]
Axis = Literal["horizontal", "vertical", "both"]


@dataclass(frozen=True, slots=True)
class ParameterRange:
    """How one setting is drawn, once per clip, and its limits.

    Every random setting of every transform follows the same grammar:

    Rotate(degrees=25)            uniform from -25 to 25: a number is the largest distance from the neutral value
    Scale(factor=0.1)             uniform from 0.9 to 1.1: the neutral factor is 1
    Blur(sigma=2)                 uniform from 0 to 2: a sigma cannot be below 0 (`one_sided`)
    Window(level=40, width=400)   40 and 400: there is no neutral level (`neutral` is None)
    Rotate(degrees=(0, 25))       uniform from 0 to 25: a pair is the range itself
    Rotate(degrees=(0, 90, 180))  one of three: a list of three or more numbers is a choice
    Rotate(degrees={0, 180})      one of two: a set is a choice of any size
    """

    name: str
    neutral: float | None = 0.0
    lowest: float = -math.inf
    highest: float = math.inf
    positive: bool = False
    one_sided: bool = False

    def ends(self, spec: object) -> tuple[float, float]:
        """Return the smallest and the largest number that can be drawn.

        Raises SettingError if `spec` is not a number, pair or choice, or is not finite, reversed or out of bounds.
        """
        values = self._values(spec)
        if self._is_choice(spec):
            low, high = min(values), max(values)
        elif len(values) == 2:
            low, high = values
        elif self.neutral is None:
            low = high = values[0]
        else:
            low, high = self.neutral - (0.0 if self.one_sided else values[0]), self.neutral + values[0]
        if low > high:
            raise SettingError(f"{self.name}={spec!r} is in the wrong order; give (low, high)")
        if low < self.lowest or (self.positive and low <= 0):
            limit = "above 0" if self.positive else f"at least {self.lowest:g}"
            raise SettingError(f"{self.name}={spec!r} reaches down to {low:g}; it must be {limit}")
        if high > self.highest:
            raise SettingError(f"{self.name}={spec!r} reaches up to {high:g}; it must be at most {self.highest:g}")
        return float(low), float(high)

    def check(self, spec: object) -> None:
        """Raise SettingError if `spec` is invalid."""
        self.ends(spec)

    def draw(self, rng: np.random.Generator, spec: object) -> float:
        """Return a number drawn uniformly from the range, or one of a choice. A fixed number uses no random number."""
        if self._is_choice(spec):
            values = self._values(spec)
            return values[int(rng.integers(len(values)))]
        low, high = _ends(self, spec) if isinstance(spec, int | float | tuple) else self.ends(spec)
        return low if self.neutral is None and not isinstance(spec, tuple | list) else draw(rng, (low, high))

    def _is_choice(self, spec: object) -> bool:
        return isinstance(spec, set | frozenset) or (isinstance(spec, tuple | list) and len(spec) > 2)

    def _values(self, spec: object) -> list[float]:
        is_collection = isinstance(spec, tuple | list | set | frozenset)
        values: list[Any] = list(spec) if isinstance(spec, tuple | list | set | frozenset) else [spec]
        numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in values)
        too_few = not values or (isinstance(spec, tuple | list) and len(values) < 2)
        if not numbers or too_few or not all(math.isfinite(each) for each in values):
            raise SettingError(
                f"{self.name}={spec!r} must be a number, a pair (low, high), or three or more numbers to choose from"
            )
        if not is_collection and self.neutral is not None and values[0] < 0:
            raise SettingError(
                f"{self.name}={spec!r} must not be negative; for a one-sided range give a pair (low, high)"
            )
        return sorted(map(float, values)) if isinstance(spec, set | frozenset) else [float(each) for each in values]


@lru_cache(maxsize=256)
def _ends(limits: ParameterRange, spec: RangeSpec) -> tuple[float, float]:
    return limits.ends(spec)


def interval(
    name: str, spec: object, *, neutral: float = 0.0, lowest: float = -math.inf, positive: bool = False
) -> tuple[float, float]:
    """Return the lower and the upper end of the range of a setting; see ParameterRange.

    >>> interval("Scale(factor)", 0.25, neutral=1.0)
    (0.75, 1.25)
    """
    return ParameterRange(name, neutral=neutral, lowest=lowest, positive=positive).ends(spec)


def one_length(kind: str, settings: Mapping[str, RangeSpec | None], *, one_sided: bool = False) -> None:
    """Raise SettingError unless exactly one of `pixels`, `fraction` and `mm` is given, and is valid.

    >>> one_length("Shift", {"pixels": None, "fraction": 0.1, "mm": None})
    """
    given_names = [name for name, spec in settings.items() if spec is not None]
    if len(given_names) != 1:
        raise SettingError(
            f"{kind} takes exactly one of pixels, fraction and mm, as in {kind}(pixels=15) or {kind}(fraction=0.1)"
        )
    name = given_names[0]
    limits = _length(kind, name, one_sided)
    low, high = limits.ends(settings[name])
    if name == "fraction" and max(-low, high) > 1:
        raise SettingError(f"{kind}(fraction={settings[name]!r}) is larger than the frame; give fractions up to 1")


def draw_length(
    kind: str,
    settings: Mapping[str, RangeSpec | None],
    rng: np.random.Generator,
    info: ClipInfo,
    *,
    axis: int,
    one_sided: bool = False,
) -> float:
    """Return a length in pixels of the target frame, along axis 0 (down) or 1 (across).

    Raises ClipError if the setting is in millimetres and the pixel size of the row is unknown.
    """
    name = next(name for name, spec in settings.items() if spec is not None)
    value = _length(kind, name, one_sided).draw(rng, settings[name])
    if name == "fraction":
        return value * (info.height, info.width)[axis]
    if name == "mm":
        if info.spacing_mm is None:
            raise ClipError(
                f"{kind}(mm={settings[name]!r}) needs the pixel size, which is unknown for this row; give pixels or "
                "fraction, or fill the manifest's columns spacing_down_mm and spacing_across_mm"
            )
        return value / info.spacing_mm[axis]
    return value


@lru_cache(maxsize=256)
def _length(kind: str, name: str, one_sided: bool) -> ParameterRange:
    return ParameterRange(f"{kind}({name})", lowest=0.0 if one_sided else -math.inf, one_sided=one_sided)


def probability(name: str, value: object) -> float:
    """Return `value` if it is a number from 0 to 1, else raise SettingError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise SettingError(f"{name}={value!r} must be a number from 0 to 1")
    return float(value)


def draw(rng: np.random.Generator, ends: tuple[float, float]) -> float:
    """Return a number drawn uniformly between two ends."""
    return float(rng.uniform(*ends))
