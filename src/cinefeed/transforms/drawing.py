"""What a setting may be, and how it is drawn: one grammar of numbers, ranges and choices for all transforms."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from cinefeed.errors import ClipError, SettingError
from cinefeed.transforms.base import ClipInfo

RangeSpec = float | tuple[float, ...] | frozenset[float]
Axis = Literal["horizontal", "vertical", "both"]


@dataclass(frozen=True, slots=True)
class Limits:
    """One setting: how it is drawn, once a clip, and how far it may go.

    Every setting that is drawn follows one grammar, whatever the transform:

    Rotate(degrees=25)            evenly from -25 to 25: a number is the distance from doing nothing, to both sides
    Scale(factor=0.1)             evenly from 0.9 to 1.1, for a factor of 1 does nothing
    Blur(sigma=2)                 evenly from 0 to 2, for there is no blur below 0 (`one_sided`)
    Window(level=40, width=400)   40 and 400, for no level does nothing (`neutral` is None)
    Rotate(degrees=(0, 25))       evenly from 0 to 25: a pair is the two ends themselves
    Rotate(degrees=(0, 90, 180))  one of three: a list of three or more is a choice
    Rotate(degrees={0, 180})      one of two: a set is a choice too, of any number
    """

    name: str
    neutral: float | None = 0.0
    lowest: float = -math.inf
    highest: float = math.inf
    positive: bool = False
    one_sided: bool = False

    def ends(self, spec: object) -> tuple[float, float]:
        """Return the least and the largest number that can be drawn.

        Raises SettingError where it is no number, pair or choice, not finite, upside down, or out of bounds.
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
            raise SettingError(f"{self.name}={spec!r} has its ends the wrong way round; give (low, high)")
        if low < self.lowest or (self.positive and low <= 0):
            limit = "above 0" if self.positive else f"at {self.lowest:g} or more"
            raise SettingError(f"{self.name}={spec!r} reaches down to {low:g}; it must stay {limit}")
        if high > self.highest:
            raise SettingError(f"{self.name}={spec!r} reaches up to {high:g}; it must stay at {self.highest:g} or less")
        return float(low), float(high)

    def check(self, spec: object) -> None:
        """Raise SettingError where nothing could be drawn."""
        self.ends(spec)

    def draw(self, rng: np.random.Generator, spec: object) -> float:
        """Return a number drawn evenly between the ends, or one of a choice; a fixed number takes no draw."""
        if self._is_choice(spec):
            values = self._values(spec)
            return values[int(rng.integers(len(values)))]
        low, high = _ends(self, spec) if isinstance(spec, int | float | tuple) else self.ends(spec)
        return low if self.neutral is None and not isinstance(spec, tuple | list) else draw(rng, (low, high))

    def _is_choice(self, spec: object) -> bool:
        return isinstance(spec, set | frozenset) or (isinstance(spec, tuple | list) and len(spec) > 2)

    def _values(self, spec: object) -> list[float]:
        many = isinstance(spec, tuple | list | set | frozenset)
        values: list[Any] = list(spec) if isinstance(spec, tuple | list | set | frozenset) else [spec]
        numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in values)
        too_few = not values or (isinstance(spec, tuple | list) and len(values) < 2)
        if not numbers or too_few or not all(math.isfinite(each) for each in values):
            raise SettingError(
                f"{self.name}={spec!r} must be a number, a pair (low, high), or three or more numbers to choose from"
            )
        if not many and self.neutral is not None and values[0] < 0:
            raise SettingError(f"{self.name}={spec!r} must not be negative; for one side alone give a pair (low, high)")
        return sorted(map(float, values)) if isinstance(spec, set | frozenset) else [float(each) for each in values]


@lru_cache(maxsize=256)
def _ends(limits: Limits, spec: RangeSpec) -> tuple[float, float]:
    return limits.ends(spec)


def interval(
    name: str, spec: object, *, neutral: float = 0.0, lowest: float = -math.inf, positive: bool = False
) -> tuple[float, float]:
    """Return the lower and the upper end of what a setting is drawn from; see Limits.

    >>> interval("Scale(factor)", 0.25, neutral=1.0)
    (0.75, 1.25)
    """
    return Limits(name, neutral=neutral, lowest=lowest, positive=positive).ends(spec)


def one_length(kind: str, settings: Mapping[str, RangeSpec | None], *, one_sided: bool = False) -> None:
    """Raise SettingError unless exactly one of `pixels`, `fraction` and `mm` is given, and can be drawn from.

    >>> one_length("Shift", {"pixels": None, "fraction": 0.1, "mm": None})
    """
    given_names = [name for name, spec in settings.items() if spec is not None]
    if len(given_names) != 1:
        raise SettingError(
            f"{kind} takes pixels or fraction or mm, one of the three; as {kind}(pixels=15), {kind}(fraction=0.1)"
        )
    name = given_names[0]
    limits = _length(kind, name, one_sided)
    low, high = limits.ends(settings[name])
    if name == "fraction" and max(-low, high) > 1:
        raise SettingError(f"{kind}(fraction={settings[name]!r}) goes beyond the frame; give fractions up to 1")


def draw_length(
    kind: str,
    settings: Mapping[str, RangeSpec | None],
    rng: np.random.Generator,
    info: ClipInfo,
    *,
    axis: int,
    one_sided: bool = False,
) -> float:
    """Return a length in pixels of the target, along axis 0 (down) or 1 (across).

    Raises ClipError where millimetres are asked for and the row does not tell the size of its pixels.
    """
    name = next(name for name, spec in settings.items() if spec is not None)
    value = _length(kind, name, one_sided).draw(rng, settings[name])
    if name == "fraction":
        return value * (info.height, info.width)[axis]
    if name == "mm":
        if info.spacing_mm is None:
            raise ClipError(
                f"{kind}(mm={settings[name]!r}) needs the size of a pixel, which this row does not tell; give pixels "
                "or fraction, or fill the manifest's columns spacing_down_mm and spacing_across_mm"
            )
        return value / info.spacing_mm[axis]
    return value


@lru_cache(maxsize=256)
def _length(kind: str, name: str, one_sided: bool) -> Limits:
    return Limits(f"{kind}({name})", lowest=0.0 if one_sided else -math.inf, one_sided=one_sided)


def probability(name: str, value: object) -> float:
    """Return `value` where it lies within 0 and 1, else raise SettingError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise SettingError(f"{name}={value!r} must be a number from 0 to 1")
    return float(value)


def draw(rng: np.random.Generator, ends: tuple[float, float]) -> float:
    """Return a number drawn evenly between two ends."""
    return float(rng.uniform(*ends))
