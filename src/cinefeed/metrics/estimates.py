"""The metrics of some units, each with its bootstrap interval, or with the reason why it has none, as plain data."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cinefeed.metrics.basic import CLASS_METRICS, Metrics, classification_metrics, metrics_by_class, regression_metrics
from cinefeed.metrics.bootstrap import Interval, check_resampling, intervals
from cinefeed.metrics.calibration import calibration, calibration_by_class
from cinefeed.metrics.units import Units
from cinefeed.metrics.weighted import weighted_classes, weighted_regression

REGRESSION_METRICS = ("r2", "rmse", "mae", "pearson_r", "bias", "sd")
CLASSIFICATION_METRICS = (*CLASS_METRICS, "ece")
Estimates = dict[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """How intervals are made: how many resamples, the share that an interval holds, and the seed of the draws."""

    resamples: int = 1000
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what makes no interval."""
        check_resampling(resamples=self.resamples, level=self.level)

    def intervals(self, measure: Any, clusters: NDArray[np.int64]) -> dict[Any, Interval]:
        """Return the interval of each metric of `measure`; see `bootstrap.intervals`."""
        return intervals(measure, clusters=clusters, resamples=self.resamples, level=self.level, seed=self.seed)


def estimates(
    units: Units, *, classes: Sequence[str] = (), threshold: float = 0.5, resampling: Resampling
) -> dict[str, Any]:
    """Return `metrics`, and of classes `by_class`: of each metric value, low, high, dropped and reason.

    A value that is not defined is None, and `reason` says why; so it is where the value stands but has no interval.
    `dropped` counts the resamples that do not define it.
    """
    if not classes:
        if not units.names:
            return {"metrics": _none(REGRESSION_METRICS)}
        values = regression_metrics(targets=units.targets, scores=units.scores)
        found = resampling.intervals(
            lambda weights: weighted_regression(targets=units.targets, scores=units.scores, weights=weights),
            units.clusters,
        )
        return {"metrics": {name: _estimate(name, values, found[name]) for name in REGRESSION_METRICS}}
    if not units.names:
        each = tuple(name for name in CLASSIFICATION_METRICS if name not in ("balanced_accuracy", "accuracy"))
        return {"metrics": _none(CLASSIFICATION_METRICS), "by_class": {name: _none(each) for name in classes}}
    whole, by_class = class_values(units, classes=classes, threshold=threshold)

    def measure(weights: NDArray[np.float64]) -> dict[tuple[str, str], NDArray[np.float64]]:
        macro, each = weighted_classes(
            targets=units.targets, scores=units.scores, classes=classes, threshold=threshold, weights=weights
        )
        every = [("", macro), *each.items()]
        return {(label, name): values for label, metrics in every for name, values in metrics.items()}

    ranges = resampling.intervals(measure, units.clusters)
    return {
        "metrics": {name: _estimate(name, whole, ranges["", name]) for name in CLASSIFICATION_METRICS},
        "by_class": {
            label: {name: _estimate(name, values, ranges[label, name]) for name in values}
            for label, values in by_class.items()
        },
    }


def class_values(units: Units, *, classes: Sequence[str], threshold: float) -> tuple[Metrics, dict[str, Metrics]]:
    """Return the metrics of units, and those of each class, with the calibration error among them."""
    data: dict[str, Any] = {"targets": units.targets, "scores": units.scores, "classes": classes}
    whole = classification_metrics(**data, threshold=threshold)
    whole["ece"] = calibration(**data)["ece"]
    each = metrics_by_class(**data, threshold=threshold)
    for name, found in calibration_by_class(**data).items():
        each[name]["ece"] = found["ece"]
    return whole, each


def number(value: float) -> float | None:
    """Return a number as JSON takes it: None where it is NaN or infinite."""
    return float(value) if math.isfinite(value) else None


def _estimate(name: str, values: Metrics, interval: Interval) -> dict[str, Any]:
    value = number(values[name])
    if value is None:
        return {"value": None, "low": None, "high": None, "dropped": 0, "reason": values.reasons[name]}
    return {
        "value": value,
        # the interval contains the value as weighted sums give it, which differs in the last digit
        "low": None if interval.reason else min(interval.low, value),
        "high": None if interval.reason else max(interval.high, value),
        "dropped": interval.dropped,
        "reason": interval.reason or None,
    }


def _none(names: Sequence[str]) -> Estimates:
    return {name: {"value": None, "low": None, "high": None, "dropped": 0, "reason": "no labels"} for name in names}


def flat(found: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    """Return the values of metrics alone.

    >>> flat({"r2": {"value": 0.5, "low": 0.25, "high": 0.75}})
    {'r2': 0.5}
    """
    return {name: each["value"] for name, each in found.items()}
