"""Thresholds of two classes: by the best F1 or Youden's J on the validation part, and what each does in other parts."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from cinefeed.core.errors import LabelError, SettingError
from cinefeed.metrics.basic import class_scores, classification_metrics
from cinefeed.metrics.estimates import number
from cinefeed.metrics.predictions import Predictions, TargetColumns
from cinefeed.metrics.units import Units, units_of

ThresholdRule = Literal["f1", "youden"]
RULES: tuple[ThresholdRule, ...] = get_args(ThresholdRule)
RULE_NAMES: Mapping[str, str] = {"f1": "best F1", "youden": "Youden's J"}
POINT_METRICS = ("sensitivity", "specificity", "f1", "balanced_accuracy", "accuracy")


def check_rule(rule: str, *, name: str = "threshold") -> None:
    """Raise SettingError if a rule is unknown."""
    if rule not in RULES:
        raise SettingError(f"{name} = {rule!r} must be 'f1' (the best F1) or 'youden' (Youden's J)")


def best_threshold(*, targets: ArrayLike, scores: ArrayLike, rule: ThresholdRule = "f1") -> float:
    """Return the best threshold for two classes; a sample is positive if its score is at least that.

    The rule "f1" maximizes F1, "youden" Youden's J: sensitivity + specificity - 1. The threshold is one of the scores;
    of several equally good ones, the one nearest to 0.5, then the lower one. Optimize it on validation data: on the
    data that is evaluated, the metrics would be too optimistic.

    Raises LabelError if only one class occurs, and SettingError for an unknown rule.

    >>> best_threshold(targets=[0, 0, 1, 1], scores=[0.1, 0.3, 0.35, 0.8])
    0.35
    >>> best_threshold(targets=[0, 1, 0, 1], scores=[0.1, 0.2, 0.3, 0.6], rule="youden")
    0.6
    """
    check_rule(rule, name="rule")
    target, score = class_scores(targets=targets, scores=scores, classes=("negative", "positive"))
    positive = target == 1
    if positive.all() or not positive.any():
        raise LabelError("a threshold needs samples of both classes; found one class only; leave the threshold at 0.5")
    candidates = np.unique(score)
    true_positives, false_positives = (
        len(group) - np.searchsorted(np.sort(group), candidates) for group in (score[positive], score[~positive])
    )
    if rule == "f1":
        merit = 2 * true_positives / (true_positives + false_positives + positive.sum())
    else:
        merit = true_positives / positive.sum() - false_positives / (~positive).sum()
    best = candidates[merit >= merit.max() - 1e-12]  # ratios of the same counts differ in the last digit
    return float(min(best.tolist(), key=lambda threshold: (abs(threshold - 0.5), threshold)))


def choose_threshold(
    predictions: Predictions,
    target: TargetColumns,
    *,
    unit: str | None = None,
    frozen: float | None = None,
    rule: ThresholdRule = "f1",
) -> tuple[float, str]:
    """Return the threshold of a two-class target and its origin: "frozen", "val" or "0.5"."""
    if frozen is not None:
        if not 0 <= frozen <= 1:
            raise SettingError(f"the threshold of {target.name!r} is {frozen}; give a probability from 0 to 1")
        return float(frozen), "frozen"
    by_rule = validation_thresholds(predictions, target, unit=unit)
    return (by_rule[rule], "val") if by_rule else (0.5, "0.5")


def validation_thresholds(
    predictions: Predictions, target: TargetColumns, *, unit: str | None = None
) -> dict[str, float]:
    """Return the threshold of each rule on the part "val"; {} if that part is missing or lacks one of two classes."""
    if "val" not in predictions.parts or len(target.classes) != 2:
        return {}
    units = units_of(predictions.part("val"), target, unit=unit)
    if len(np.unique(units.targets)) < 2:
        return {}
    return {rule: best_threshold(targets=units.targets, scores=units.scores, rule=rule) for rule in RULES}


def operating_points(units: Units, target: TargetColumns, thresholds: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return the metrics at the threshold of each rule, as plain data; undefined values are None."""
    if not units.names:
        return []
    points = []
    for rule, threshold in thresholds.items():
        metrics = classification_metrics(
            targets=units.targets, scores=units.scores, classes=target.classes, threshold=threshold
        )
        values = {name: number(metrics[name]) for name in POINT_METRICS}
        points.append({"rule": rule, "threshold": threshold, **values})
    return points
