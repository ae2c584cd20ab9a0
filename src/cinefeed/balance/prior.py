"""What the frequency of classes does: weights that make up for it, and probabilities that balancing changed, corrected.

A model that is trained on balanced draws learns the classes' frequencies with the rest, and says 50 % where the clinic
sees 5 %: over-sampling overestimates risk (Carriero et al., Statistics in Medicine 2024). Where balancing changed how
often the classes come, and nothing else, Bayes' rule takes it back:

    p(class | video)  ~  q(class | video) * raw share of the class / drawn share of the class

(Elkan, "The foundations of cost-sensitive learning", IJCAI 2001; Saerens et al., Neural Computation 2002). It changes
no ranking of two classes, so no AUROC; it makes probabilities mean what they say, as far as those of the model do.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cinefeed.balance.strata import label_array
from cinefeed.errors import LabelError


def class_weights(labels: ArrayLike) -> dict[object, float]:
    """Return the weight of each class that makes all classes count alike, with mean one over the rows.

    The weight of a class is rows / (classes x its rows): scikit-learn's "balanced".

    >>> class_weights(["sick", "well", "well", "well"])
    {'sick': 2.0, 'well': 0.6666666666666666}
    """
    values, counts = np.unique(label_array(labels), return_counts=True)
    weights = counts.sum() / (len(values) * counts)
    return dict(zip(values.tolist(), weights.tolist(), strict=True))


def correct_prior(probabilities: ArrayLike, *, drawn: ArrayLike, raw: ArrayLike) -> NDArray[np.float64]:
    """Return probabilities as they would be, had the classes been drawn as often as they are in the data.

    `probabilities` are (rows, classes), or (rows,) for the second of two classes, and come back so. `drawn` and `raw`
    (classes,) are counts or shares, in the order of the classes: how often the training drew each class, and how often
    it is in the data, or wherever else the model is used. Exact for classes that are balanced as wholes; near to it
    where rows within a class are drawn unequally (`group`). Raises LabelError where a class that occurs was never
    drawn, for nothing was learnt of it.

    >>> correct_prior([0.5, 0.9], drawn=[50, 50], raw=[90, 10]).round(3).tolist()
    [0.1, 0.5]
    >>> correct_prior([[0.2, 0.4, 0.4]], drawn=[1, 1, 1], raw=[2, 1, 1]).round(3).tolist()
    [[0.333, 0.333, 0.333]]
    """
    scores = np.asarray(probabilities, np.float64)
    one = scores.ndim == 1
    table = np.stack([1 - scores, scores], axis=1) if one else scores
    before, after = (_shares(each, name, table.shape) for each, name in ((drawn, "drawn"), (raw, "raw")))
    if not ((table >= 0) & (table <= 1)).all():
        raise LabelError("probabilities must lie from 0 to 1; give a model's probabilities, not its logits")
    lost = np.flatnonzero((before == 0) & (after > 0))
    if len(lost):
        raise LabelError(
            f"class {lost[0]} has a share of {after[lost[0]]:.3g} and was never drawn: a model cannot know it; "
            "train with a share above 0"
        )
    factors = np.divide(after, before, out=np.ones_like(before), where=before > 0)
    weighed = table * (factors / factors.max())
    sums = weighed.sum(axis=1, keepdims=True)
    corrected = np.divide(weighed, sums, out=table.copy(), where=sums > 0)  # all on a class that is not to come: kept
    return np.asarray(corrected[:, 1] if one else corrected)


def kept_prior(balance: Mapping[str, Any], *, classes: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Return `drawn` and `raw` for correct_prior from `BalanceReport.as_dict()`, in the order of `classes`.

    >>> kept = {"names": ["sick", "well"], "raw": [10, 90], "expected": [50.0, 50.0]}
    >>> {name: each.tolist() for name, each in kept_prior(kept, classes=["well", "sick"]).items()}
    {'drawn': [50.0, 50.0], 'raw': [90.0, 10.0]}
    """
    names = list(balance["names"])
    if set(names) - set(classes):
        raise LabelError(
            f"balanced were {', '.join(names[:8])}, the classes are {', '.join(classes[:8])}: "
            "probabilities of other classes cannot be corrected"
        )
    places = [names.index(each) if each in names else None for each in classes]
    return {
        name: np.array([0.0 if place is None else float(balance[key][place]) for place in places])
        for name, key in (("drawn", "expected"), ("raw", "raw"))
    }


def _shares(counts: ArrayLike, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    found = np.asarray(counts, np.float64)
    if len(shape) != 2 or found.shape != shape[1:]:
        raise LabelError(
            f"{name} has shape {found.shape}, probabilities {shape}: give one number a class, and probabilities as "
            "(rows, classes), or (rows,) for the second of two"
        )
    if not np.isfinite(found).all() or (found < 0).any() or found.sum() == 0:
        raise LabelError(f"{name}={found.tolist()} must be counts or shares, not all of them 0")
    return np.asarray(found / found.sum())
