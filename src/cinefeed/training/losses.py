"""Losses that Keras does not have, and class weights."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.errors import SettingError
from cinefeed.data import sampling
from cinefeed.data.label_types import class_names
from cinefeed.data.sampling import Natural
from cinefeed.feed.feed import Feed
from cinefeed.models.parts import targets_of
from cinefeed.training.keras_module import keras

_EPSILON = 1e-12  # added to the mean square: the square root has no finite gradient at 0


@keras.saving.register_keras_serializable(package="cinefeed")
class RootMeanSquaredError(keras.losses.MeanSquaredError):  # type: ignore[misc]  # keras is untyped
    """Root of a batch's mean squared error, in the label's units; the loss of the 2020 system.

    The mean is weighted, so that rows of weight 0, whose label is missing, do not decrease it.

    >>> loss = RootMeanSquaredError()
    >>> float(loss(np.zeros((2, 1), np.float32), np.array([[1.0], [7.0]], np.float32)))  # the root of (1 + 49) / 2
    5.0
    """

    def __init__(self, name: str = "rmse", reduction: str = "mean_with_sample_weight", dtype: Any = None) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Return the root of Keras' weighted mean squared error."""
        return keras.ops.sqrt(super().__call__(y_true, y_pred, sample_weight) + _EPSILON)


@keras.saving.register_keras_serializable(package="cinefeed")
class Focal(keras.losses.Loss):  # type: ignore[misc]  # keras is untyped
    """Cross-entropy times (1 - p)^2 for a probability p of the true class, which reduces the weight of easy rows.

    Lin et al., Focal loss for dense object detection, 2017, gamma = 2. Accepts class numbers or class probabilities.

    >>> loss = Focal()
    >>> p = np.array([[0.5, 0.25, 0.25]], np.float32)
    >>> round(float(loss(np.array([0]), p)), 4), round(float(loss(np.array([[1.0, 0.0, 0.0]], np.float32), p)), 4)
    (0.1733, 0.1733)
    """

    def __init__(self, name: str = "focal", reduction: str = "sum_over_batch_size", dtype: Any = None) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each row, (batch,)."""
        y_pred = keras.ops.clip(y_pred, 1e-7, 1 - 1e-7)
        if y_pred.shape[-1] == 1:
            positive = keras.ops.reshape(keras.ops.cast(y_true, y_pred.dtype), (-1, 1))
            shares = keras.ops.concatenate([1 - positive, positive], axis=-1)
            y_pred = keras.ops.concatenate([1 - y_pred, y_pred], axis=-1)
        elif len(y_true.shape) == len(y_pred.shape) and y_true.shape[-1] == y_pred.shape[-1]:
            shares = keras.ops.cast(y_true, y_pred.dtype)
        else:
            numbers = keras.ops.cast(keras.ops.reshape(y_true, (-1,)), "int32")
            shares = keras.ops.one_hot(numbers, y_pred.shape[-1], dtype=y_pred.dtype)
        return -keras.ops.sum(shares * keras.ops.square(1 - y_pred) * keras.ops.log(y_pred), axis=-1)


@keras.saving.register_keras_serializable(package="cinefeed")
class SmoothedCrossEntropy(keras.losses.CategoricalCrossentropy):  # type: ignore[misc]  # keras is untyped
    """Cross-entropy with label smoothing of several classes, for class numbers or class probabilities.

    Keras' SparseCategoricalCrossentropy, which takes class numbers, has no smoothing.

    >>> loss = SmoothedCrossEntropy(label_smoothing=0.2)
    >>> p = np.array([[0.8, 0.1, 0.1]], np.float32)
    >>> round(float(loss(np.array([0]), p)), 4), round(float(loss(np.array([[1.0, 0.0, 0.0]], np.float32), p)), 4)
    (0.5004, 0.5004)
    """

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each row, (batch,)."""
        classes = y_pred.shape[-1]
        if len(y_true.shape) < len(y_pred.shape) or y_true.shape[-1] != classes:
            numbers = keras.ops.cast(keras.ops.reshape(y_true, (-1,)), "int32")
            y_true = keras.ops.one_hot(numbers, classes, dtype=y_pred.dtype)
        return super().call(y_true, y_pred)


def class_weights(feed: Feed) -> dict[str, NDArray[np.float32]]:
    """Return the weights of classes by target: rows / (number of classes * rows of the class).

    All classes then have the same total weight, and a row has weight 1 on average. Raises SettingError if no target has
    classes, if the feed's sampler already balances, and if a class has no row.
    """
    if not isinstance(feed.sampler, Natural):
        raise SettingError(
            f"[train] class_weights = 'balanced' and [sampler] {feed.sampler} both balance; use one of the two"
        )
    weights = {}
    for target in targets_of(feed.spec):
        if not target.classes:
            continue
        labels = class_names(feed.manifest.column(target.name)).drop_null().to_numpy(zero_copy_only=False)
        by_class = sampling.class_weights(labels)
        missing = [name for name in target.classes if name not in by_class]
        if missing:
            raise SettingError(
                f"[train] class_weights: no training row has the class {missing[0]!r}; leave it out of the classes"
            )
        weights[target.name] = np.array([by_class[name] for name in target.classes], np.float32)
    if not weights:
        raise SettingError(
            "[train] class_weights = 'balanced' is for classes, and the target is a number: leave it out"
        )
    return weights


def weigh(targets: Any, weights: Any, factors: Mapping[str, NDArray[np.float32]], *, name: str) -> Any:
    """Return a batch's weights times the weight of each row's class; for class probabilities, times their mean weight.

    `factors` holds the weights of classes by target, and `name` is the target's name if there is only one.
    """
    if isinstance(targets, Mapping):
        return {each: weigh(targets[each], weights[each], factors, name=each) for each in targets}
    if name not in factors:
        return weights
    factor = factors[name]
    if targets.dtype.kind in "iu":
        return weights * factor[targets]
    shares = targets if targets.ndim > 1 else np.stack([1 - targets, targets], axis=-1)
    return weights * (shares @ factor)
