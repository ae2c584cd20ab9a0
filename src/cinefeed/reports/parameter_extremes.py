"""Parameters of transforms at their weakest, middle and strongest, and their descriptions as text."""

import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from cinefeed.core.text import format_percent
from cinefeed.transforms.base import ClipInfo, Parameters, Transform
from cinefeed.transforms.choice import OneOf, RandomOrder, Sometimes

_SHARES = {"low": 0.0, "middle": 0.5, "high": 1.0}
_CHANGES = re.compile(r"(?<!nothing )\bchanges?\b|\bvanish|\bthe label\b|\blabel follows")
_MOST_NUMBERS = 4  # of a list, in a caption


class _Graded(np.random.Generator):
    """A generator whose scalars lie at a fixed share of their range; arrays are random as usual.

    A rotation by up to 25 degrees is -25, 0 or 25, and an elastic field keeps its shape while its strength changes.
    """

    def __init__(self, share: float) -> None:
        super().__init__(np.random.PCG64(0))
        self._share = share

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        """Return the number at the share between both ends."""
        return super().uniform(low, high, size) if size is not None else low + self._share * (high - low)

    def random(self, size: Any = None, *rest: Any, **options: Any) -> Any:
        """Return 0 at the share 1 and almost 1 at the share 0: an event with a probability occurs at high shares."""
        return super().random(size, *rest, **options) if size is not None else min(1 - self._share, 1 - 2**-53)

    def integers(self, low: Any, high: Any = None, size: Any = None, *rest: Any, **options: Any) -> Any:
        """Return the integer at the share between both ends."""
        if size is not None:
            return super().integers(low, high, size, *rest, **options)
        least, end = (0, low) if high is None else (low, high)
        return least + int(self._share * (end - 1 - least) + 0.5)


def graded(transform: Transform, info: ClipInfo) -> list[tuple[str, Parameters]]:
    """Return a transform's parameters at the low end, the middle and the high end of their range, without duplicates.

    >>> from cinefeed.transforms.geometry import Flip, Rotate
    >>> graded(Rotate(degrees=25), ClipInfo(16, 64, 64, 1))
    [('low', {'degrees': -25.0}), ('middle', {'degrees': 0.0}), ('high', {'degrees': 25.0})]
    >>> [name for name, _ in graded(Flip(), ClipInfo(16, 64, 64, 1))]
    ['low', 'high']
    """
    parameters = {name: transform.sample(_Graded(share), info) for name, share in _SHARES.items()}
    different: list[str] = []
    for name in ("low", "high", "middle"):  # the middle is the first to be left out
        if all(parameters[name] != parameters[other] for other in different):
            different.append(name)
    if len(different) == 1:
        return [("always", parameters["low"])]
    return [(name, parameters[name]) for name in _SHARES if name in different]


def single(transforms: Iterable[Transform], remark: str = "") -> Iterator[tuple[Transform, str]]:
    """Yield every transform, the members of choices one by one, with a remark on when it is applied.

    >>> from cinefeed.transforms.geometry import Rotate
    >>> [remark for _, remark in single([Sometimes(transform=Rotate(degrees=3), probability=0.3)])]
    ['in 30 % of clips']
    """
    for transform in transforms:
        members: Sequence[Transform] | None = getattr(transform, "members", None)
        if members is None:
            yield transform, remark
            continue
        for number, member in enumerate(members):
            condition = _condition(transform, number, len(members))
            yield from single([member], f"{remark}, then {condition}" if remark else condition)


def _condition(choice: object, number: int, count: int) -> str:
    if isinstance(choice, Sometimes):
        return f"in {format_percent(choice.probability, '.3g')} of clips"
    if isinstance(choice, OneOf):
        weights = choice.weights or [1.0] * count
        return f"one of {count} ({format_percent(weights[number] / sum(weights), '.3g')})"
    return f"one of {count} in a random order" if isinstance(choice, RandomOrder) else f"by {type(choice).__name__}"


def meaning(transform: object) -> str:
    """Return the sentences of a transform's docstring on changes of sizes, rates or labels; "" if there are none.

    >>> from cinefeed.transforms.temporal import Speed
    >>> meaning(Speed(factor=0.2))
    'Rates change, such as a heart rate or a walking speed, and so does any label that depends on them.'
    """
    paragraphs = (inspect.getdoc(type(transform)) or "").partition(">>>")[0].split("\n\n")
    sentences = (each for text in paragraphs for each in re.split(r"(?<=[.:]) (?=[A-Z`])", " ".join(text.split())))
    return " ".join(text for text in sentences if _CHANGES.search(text) and text != summary(transform))


def summary(transform: object) -> str:
    """Return the first sentence of a transform's docstring."""
    text = " ".join((inspect.getdoc(type(transform)) or "").partition("\n\n")[0].split())
    return "" if text.startswith(type(transform).__name__ + "(") else text  # a dataclass without a docstring


def parameters_in_words(parameters: Parameters) -> str:
    """Return parameters as a caption: short numbers, the range of long lists, no seeds.

    >>> parameters_in_words({"factor": 0.8333333, "horizontal": True, "lost": [True, False, False], "seed": 7})
    'factor 0.833, horizontal yes, lost 1 of 3'
    >>> parameters_in_words({"across": [[0.5, -3.25], [1.0, 2.0], [0.0, 0.0]]})
    'across -3.25 to 2'
    """
    return ", ".join(f"{name} {_format(value)}" for name, value in parameters.items() if name != "seed")


def _format(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value + 0.0:.3g}"
    if not isinstance(value, list | tuple):
        return str(value)
    flat = np.array(value).ravel().tolist() if value else []
    if not flat:
        return "none"
    if all(isinstance(item, bool) for item in flat):
        return f"{sum(flat)} of {len(flat)}"
    if len(flat) <= _MOST_NUMBERS or not all(isinstance(item, int | float) for item in flat):
        return " ".join(map(_format, flat))
    return f"{_format(min(flat))} to {_format(max(flat))}"
