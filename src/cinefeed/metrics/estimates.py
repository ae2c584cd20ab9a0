"""Metrics of units with bootstrap intervals, or reasons for missing intervals, as plain data."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cinefeed.metrics.added import Metric
from cinefeed.metrics.basic import CLASS_METRICS, Metrics, classification_metrics, metrics_by_class, regression_metrics
from cinefeed.metrics.bootstrap import MIN_CLUSTERS, Interval, check_resampling, intervals
from cinefeed.metrics.calibration import calibration, calibration_by_class
from cinefeed.metrics.units import Units
from cinefeed.metrics.weighted import weighted_classes, weighted_regression

REGRESSION_METRICS = ("r2", "rmse", "mae", "pearson_r", "bias", "sd")
CLASSIFICATION_METRICS = (*CLASS_METRICS, "ece")
Estimates = dict[str, dict[str, Any]]
_NO_METRICS: Mapping[str, Metric] = {}


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """Settings of bootstrap intervals: number of resamples, confidence level (between 0 and 1), and seed."""

    resamples: int = 1000
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise SettingError for settings out of range."""
        check_resampling(resamples=self.resamples, level=self.level)

    def intervals(self, measure: Any, clusters: NDArray[np.int64]) -> dict[Any, Interval]:
        """Return the interval of each metric of `measure`; see `bootstrap.intervals`."""
        return intervals(measure, clusters=clusters, resamples=self.resamples, level=self.level, seed=self.seed)


def estimates(
    units: Units,
    *,
    classes: Sequence[str] = (),
    threshold: float = 0.5,
    resampling: Resampling,
    added: Mapping[str, Metric] = _NO_METRICS,
) -> dict[str, Any]:
    """Return `metrics`, and for classes `by_class`: value, low, high, dropped and reason of each metric.

    `added` are metrics of plug-ins, which follow the others in `metrics`. Undefined values are None. `reason` explains
    a missing value or a missing interval. `dropped` is the number of resamples for which the metric is undefined.
    """
    own = _own_estimates(units, classes=classes, threshold=threshold, resampling=resampling)
    if not units.names:
        return own | {"metrics": own["metrics"] | _none([*added])}

    def measure(weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        return {
            name: metric.values(targets=units.targets, scores=units.scores, weights=weights)
            for name, metric in added.items()
        }

    values = {name: float(result[0]) for name, result in measure(np.ones((1, len(units.names)))).items()}
    metrics = Metrics(values, reasons=dict.fromkeys(added, "its function returned no number"))
    ranges = resampling.intervals(measure, units.clusters) if added else {}
    return own | {"metrics": own["metrics"] | {name: _estimate(name, metrics, ranges[name]) for name in added}}


def _own_estimates(
    units: Units, *, classes: Sequence[str], threshold: float, resampling: Resampling
) -> dict[str, dict[str, Any]]:
    if not classes:
        if not units.names:
            return {"metrics": _none(REGRESSION_METRICS)}
        values = regression_metrics(targets=units.targets, scores=units.scores)
        ranges = resampling.intervals(
            lambda weights: weighted_regression(targets=units.targets, scores=units.scores, weights=weights),
            units.clusters,
        )
        return {"metrics": {name: _estimate(name, values, ranges[name]) for name in REGRESSION_METRICS}}
    if not units.names:
        of_one_class = tuple(name for name in CLASSIFICATION_METRICS if name not in ("balanced_accuracy", "accuracy"))
        return {"metrics": _none(CLASSIFICATION_METRICS), "by_class": {name: _none(of_one_class) for name in classes}}
    whole, by_class = class_values(units, classes=classes, threshold=threshold)
    few = few_clusters(units, classes=classes)

    def measure(weights: NDArray[np.float64]) -> dict[tuple[str, str], NDArray[np.float64]]:
        macro, by_label = weighted_classes(
            targets=units.targets, scores=units.scores, classes=classes, threshold=threshold, weights=weights
        )
        labels_and_metrics = [("", macro), *by_label.items()]
        return {(label, name): values for label, metrics in labels_and_metrics for name, values in metrics.items()}

    ranges = resampling.intervals(measure, units.clusters)
    ranges |= {key: replace(ranges[key], reason=reason) for key, reason in few.items()}
    return {
        "metrics": {name: _estimate(name, whole, ranges["", name]) for name in CLASSIFICATION_METRICS},
        "by_class": {
            label: {name: _estimate(name, values, ranges[label, name]) for name in values}
            for label, values in by_class.items()
        },
    }


def few_clusters(units: Units, *, classes: Sequence[str]) -> dict[tuple[str, str], str]:
    """Return why metrics have no interval because a class, or all others, are a single cluster.

    Resamples include this cluster or are undefined, so its part of the uncertainty is missing: the sensitivity of a
    class of one video would have the interval (1, 1). Keys are class ("" for the metrics over all) and metric. Empty if
    there are too few clusters for any interval, which is the reason then.
    """
    if units.num_clusters < MIN_CLUSTERS:
        return {}
    reasons: dict[str, tuple[str, str]] = {}  # class: why sensitivity, and why specificity has no interval
    for k, name in enumerate(classes):
        sides = (units.targets == k, f"the class {name!r} has"), (units.targets != k, f"all but {name!r} have")
        numbers = [len(np.unique(units.clusters[rows])) for rows, _ in sides]
        first, second = (
            f"{text} only 1 unit to resample" if number == 1 else ""
            for (_, text), number in zip(sides, numbers, strict=True)
        )
        reasons[name] = first, second
    present = [classes[k] for k in np.unique(units.targets)]
    averaged = [classes[1]] if len(classes) == 2 else present
    reasons[""] = tuple(next((reasons[each][side] for each in averaged if reasons[each][side]), "") for side in (0, 1))  # type: ignore[assignment]
    few: dict[tuple[str, str], str] = {}
    for name, (sensitivity, specificity) in reasons.items():
        either = sensitivity or specificity
        by_metric = dict.fromkeys(("f1", "average_precision", "auroc"), either)
        by_metric |= {"sensitivity": sensitivity, "specificity": specificity}
        by_metric |= {"balanced_accuracy": either} if not name else {}
        few |= {(name, metric): reason for metric, reason in by_metric.items() if reason}
    return few


def class_values(units: Units, *, classes: Sequence[str], threshold: float) -> tuple[Metrics, dict[str, Metrics]]:
    """Return the metrics of units and those of each class, including the expected calibration error."""
    data: dict[str, Any] = {"targets": units.targets, "scores": units.scores, "classes": classes}
    whole = classification_metrics(**data, threshold=threshold)
    whole["ece"] = calibration(**data)["ece"]
    by_class = metrics_by_class(**data, threshold=threshold)
    for name, result in calibration_by_class(**data).items():
        by_class[name]["ece"] = result["ece"]
    return whole, by_class


def number(value: float) -> float | None:
    """Return a number for JSON: None if it is NaN or infinite."""
    return float(value) if math.isfinite(value) else None


def _estimate(name: str, values: Metrics, interval: Interval) -> dict[str, Any]:
    value = number(values[name])
    if value is None:
        return {"value": None, "low": None, "high": None, "dropped": 0, "reason": values.reasons[name]}
    return {
        "value": value,
        # the interval contains the value computed by weighted sums, which may differ in the last digit
        "low": None if interval.reason else min(interval.low, value),
        "high": None if interval.reason else max(interval.high, value),
        "dropped": interval.dropped,
        "reason": interval.reason or None,
    }


def _none(names: Sequence[str]) -> Estimates:
    return {name: {"value": None, "low": None, "high": None, "dropped": 0, "reason": "no labels"} for name in names}


def flat(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    """Return the values of metrics without intervals.

    >>> flat({"r2": {"value": 0.5, "low": 0.25, "high": 0.75}})
    {'r2': 0.5}
    """
    return {name: metric["value"] for name, metric in metrics.items()}
