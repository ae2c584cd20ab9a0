"""Class weights, and the correction of predicted probabilities for balanced training.

A model trained on balanced draws also learns the class frequencies of the draws. It may predict 50 % for a disease with
a prevalence of 5 %: over-sampling overestimates risk (Carriero et al., Statistics in Medicine 2024). If balancing
changed only the class frequencies, Bayes' rule corrects the probabilities:

    p(class | video)  ~  q(class | video) * share of the class in the data / share of the class in the draws

(Elkan, "The foundations of cost-sensitive learning", IJCAI 2001; Saerens et al., Neural Computation 2002). For two
classes, the correction preserves the ranking and therefore AUROC. The corrected probabilities are calibrated if the
model was calibrated on its training draws.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from cinefeed.core.errors import LabelError
from cinefeed.data.label_types import class_names
from cinefeed.data.sampling.strata import label_array


def class_weights(labels: ArrayLike, *, classes: Sequence[object] | None = None) -> dict[object, float]:
    """Return class weights that give all classes the same total weight, with a mean of one over the rows.

    The weight of a class is rows / (classes x rows of the class), as for scikit-learn's `class_weight="balanced"`. With
    `classes`, such as `feed.spec.classes`, the keys are the numbers of the classes in the batches of a feed, for Keras'
    `fit(class_weight=...)`. Raises LabelError if a label is not one of them.

    >>> class_weights(["sick", "well", "well", "well"])
    {'sick': 2.0, 'well': 0.6666666666666666}
    >>> class_weights(["sick", "well", "well", "well"], classes=("well", "sick"))
    {1: 2.0, 0: 0.6666666666666666}
    """
    values, counts = np.unique(label_array(labels), return_counts=True)
    weights = counts.sum() / (len(values) * counts)
    keys = values.tolist()
    if classes is not None:
        names, numbers = class_names(pa.array(keys)).to_pylist(), class_names(pa.array(classes)).to_pylist()
        unknown = [name for name in names if name not in numbers]
        if unknown:
            raise LabelError(f"the label {unknown[0]!r} is not one of classes={tuple(classes)!r}; list all classes")
        keys = [numbers.index(name) for name in names]
    return dict(zip(keys, weights.tolist(), strict=True))


def correct_prior(probabilities: ArrayLike, *, draws: ArrayLike, raw: ArrayLike) -> NDArray[np.float64]:
    """Return probabilities corrected from the class frequencies of the training draws to those of the data.

    The correction is exact if each class is balanced as a whole, and approximate if rows within a class are drawn
    unequally (`group`).

    Args:
        probabilities: (rows, classes), or (rows,) for the second of two classes. The result has the same shape.
        draws: (classes,) counts or shares of each class in the training draws.
        raw: (classes,) counts or shares of each class in the data, or in the population the model is used for.

    Raises LabelError if a class with a share in the data was never drawn, because the model has not learned it, and
    for invalid probabilities or counts.

    >>> correct_prior([0.5, 0.9], draws=[50, 50], raw=[90, 10]).round(3).tolist()
    [0.1, 0.5]
    >>> correct_prior([[0.2, 0.4, 0.4]], draws=[1, 1, 1], raw=[2, 1, 1]).round(3).tolist()
    [[0.333, 0.333, 0.333]]
    """
    scores = np.asarray(probabilities, np.float64)
    is_flat = scores.ndim == 1
    table = np.stack([1 - scores, scores], axis=1) if is_flat else scores
    draw_shares, raw_shares = (_shares(counts, name, table.shape) for counts, name in ((draws, "draws"), (raw, "raw")))
    if not ((table >= 0) & (table <= 1)).all():
        raise LabelError("probabilities must be from 0 to 1; give the model's probabilities, not its logits")
    missing = np.flatnonzero((draw_shares == 0) & (raw_shares > 0))
    if len(missing):
        raise LabelError(
            f"class {missing[0]} has a share of {raw_shares[missing[0]]:.3g} in the data but was never drawn, so the "
            "model has not learned it; train with a share above 0"
        )
    factors = np.divide(raw_shares, draw_shares, out=np.ones_like(draw_shares), where=draw_shares > 0)
    products = table * (factors / factors.max())
    sums = products.sum(axis=1, keepdims=True)
    # unchanged if the whole probability is on a class with a share of 0 in the data
    corrected = np.divide(products, sums, out=table.copy(), where=sums > 0)
    return np.asarray(corrected[:, 1] if is_flat else corrected)


def prior_from_report(balance: Mapping[str, Any], *, classes: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Return `draws` and `raw` for `correct_prior` from `BalanceReport.as_dict()`, in the order of `classes`.

    Raises LabelError if the report contains other classes.

    >>> balance = {"names": ["sick", "well"], "raw": [10, 90], "expected": [50.0, 50.0]}
    >>> {name: counts.tolist() for name, counts in prior_from_report(balance, classes=["well", "sick"]).items()}
    {'draws': [50.0, 50.0], 'raw': [90.0, 10.0]}
    """
    names = list(balance["names"])
    if set(names) - set(classes):
        raise LabelError(
            f"cannot correct probabilities of {', '.join(classes[:8])}; the balanced classes are "
            f"{', '.join(names[:8])}; give the classes of the balanced target"
        )
    numbers = [names.index(name) if name in names else None for name in classes]
    return {
        name: np.array([0.0 if number is None else float(balance[key][number]) for number in numbers])
        for name, key in (("draws", "expected"), ("raw", "raw"))
    }


def _shares(counts: ArrayLike, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    values = np.asarray(counts, np.float64)
    if len(shape) != 2 or values.shape != shape[1:]:
        raise LabelError(
            f"{name} has shape {values.shape} and probabilities {shape}; give one number per class, and probabilities "
            "as (rows, classes), or (rows,) for the second of two classes"
        )
    if not np.isfinite(values).all() or (values < 0).any() or values.sum() == 0:
        raise LabelError(f"{name}={values.tolist()} must be counts or shares, with at least one above 0")
    return np.asarray(values / values.sum())
