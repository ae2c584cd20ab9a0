"""Rows that carry several labels: the stratum of a row is the rarest label that it carries."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cinefeed.balance.strata import Strata, class_strata, label_array
from cinefeed.errors import LabelError
from cinefeed.label_types import class_name

NONE = "none"  # the stratum of rows that carry no label

Carried = Sequence[frozenset[str]]


def carried_labels(labels: ArrayLike, *, separator: str | None = None) -> Carried | None:
    """Return the labels that each row carries, or None where each row has one: lists of them, or text to be parted.

    >>> [sorted(each) for each in carried_labels(["edema; effusion", "edema", ""], separator=";")]
    [['edema', 'effusion'], ['edema'], []]
    """
    if separator is None:
        rows: Any = labels if isinstance(labels, Sequence | np.ndarray) else []
        listed = len(rows) > 0 and all(isinstance(each, _LISTS) for each in rows)
        return [_names(each) for each in rows] if listed else None
    array = label_array(labels)
    if array.dtype.kind != "U":
        raise LabelError(f"separator={separator!r} parts text, the labels are {array.dtype}; leave it out")
    texts, numbers = np.unique(array, return_inverse=True)
    parted = [_names(part.strip() for part in text.split(separator)) for text in texts.tolist()]
    return [parted[number] for number in numbers.tolist()]


_LISTS = (list, tuple, set, frozenset, np.ndarray)


def _names(values: Iterable[object]) -> frozenset[str]:
    return frozenset(class_name(value) for value in values if value is not None and value != "")


def rarest_strata(carried: Carried) -> Strata:
    """Return the rarest label of each row, by how many rows carry it; rows that carry none are a class of their own.

    Balanced so, a rare label comes often, and a frequent one that it appears with comes with it (Charte et al.,
    Neurocomputing 2015, over-sample by the rarity of labels).

    >>> strata = rarest_strata([frozenset("ab"), frozenset("a"), frozenset()])
    >>> [strata.names[number] for number in strata.numbers]
    ['b', 'a', 'none']
    """
    rows = count_carried(carried)
    order = {label: place for place, label in enumerate(sorted(rows, key=lambda label: (rows[label], label)))}
    return class_strata([min(each, key=order.__getitem__) if each else NONE for each in carried])


def count_carried(carried: Carried, weights: NDArray[np.float64] | None = None) -> dict[str, float]:
    """Return how many rows carry each label, each row counted once, or as often as `weights` (rows,) say.

    >>> count_carried([frozenset("ab"), frozenset("a")])
    {'a': 2, 'b': 1}
    """
    found: Counter[str] = Counter()
    for labels, count in zip(carried, [1] * len(carried) if weights is None else weights.tolist(), strict=True):
        for label in labels:
            found[label] += count
    return dict(sorted(found.items()))
