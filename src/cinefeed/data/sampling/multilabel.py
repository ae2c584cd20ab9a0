"""Strata of multi-label rows: the stratum of a row is the rarest of its labels."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cinefeed.core.errors import LabelError
from cinefeed.data.label_types import class_name
from cinefeed.data.sampling.strata import Strata, class_strata, label_array

NONE = "none"  # the stratum of rows without labels

LabelSets = Sequence[frozenset[str]]


def parse_label_sets(labels: ArrayLike, *, separator: str | None = None) -> LabelSets | None:
    """Return the set of labels of each row, or None if each row has a single label.

    Rows are lists of labels, or text that is split at `separator`. Raises LabelError if `separator` is given and the
    labels are not text.

    >>> [sorted(each) for each in parse_label_sets(["edema; effusion", "edema", ""], separator=";")]
    [['edema', 'effusion'], ['edema'], []]
    """
    if separator is None:
        rows: Any = labels if isinstance(labels, Sequence | np.ndarray) else []
        are_lists = len(rows) > 0 and all(isinstance(row, _LISTS) for row in rows)
        return [_names(row) for row in rows] if are_lists else None
    array = label_array(labels)
    if array.dtype.kind != "U":
        raise LabelError(f"separator={separator!r} needs text labels; found {array.dtype}; leave separator out")
    texts, numbers = np.unique(array, return_inverse=True)
    distinct_sets = [_names(part.strip() for part in text.split(separator)) for text in texts.tolist()]
    return [distinct_sets[number] for number in numbers.tolist()]


_LISTS = (list, tuple, set, frozenset, np.ndarray)


def _names(values: Iterable[object]) -> frozenset[str]:
    return frozenset(class_name(value) for value in values if value is not None and value != "")


def rarest_strata(label_sets: LabelSets) -> Strata:
    """Return strata by the rarest label of each row; rows without labels form the stratum "none".

    Balancing these strata over-samples rare labels, together with the frequent labels of the same rows (over-sampling
    by label rarity: Charte et al., Neurocomputing 2015).

    >>> strata = rarest_strata([frozenset("ab"), frozenset("a"), frozenset()])
    >>> [strata.names[number] for number in strata.numbers]
    ['b', 'a', 'none']
    """
    counts = count_labels(label_sets)
    rank = {label: k for k, label in enumerate(sorted(counts, key=lambda label: (counts[label], label)))}
    return class_strata([min(labels, key=rank.__getitem__) if labels else NONE for labels in label_sets])


def count_labels(label_sets: LabelSets, weights: NDArray[np.float64] | None = None) -> dict[str, float]:
    """Return the number of rows with each label, or the sum of their `weights` (rows,).

    >>> count_labels([frozenset("ab"), frozenset("a")])
    {'a': 2, 'b': 1}
    """
    counts: Counter[str] = Counter()
    row_weights = [1] * len(label_sets) if weights is None else weights.tolist()
    for labels, weight in zip(label_sets, row_weights, strict=True):
        for label in labels:
            counts[label] += weight
    return dict(sorted(counts.items()))
