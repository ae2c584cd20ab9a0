"""Comparison of two models on the same units: differences of all metrics, with paired bootstrap intervals.

Overlapping intervals of two models do not imply that the models are equally good. Some patients are difficult for both
models, and this part of the variation cancels in the difference. Each resample therefore evaluates both models on the
same patients.
"""

from collections.abc import Mapping, Set
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.errors import LabelError, TableError
from cinefeed.metrics.basic import regression_metrics
from cinefeed.metrics.bootstrap import SAME_VALUE, Interval
from cinefeed.metrics.estimates import (
    CLASSIFICATION_METRICS,
    REGRESSION_METRICS,
    Resampling,
    class_values,
    few_clusters,
    number,
)
from cinefeed.metrics.predictions import Predictions, TargetColumns
from cinefeed.metrics.thresholds import ThresholdRule, choose_threshold
from cinefeed.metrics.units import Units, units_of
from cinefeed.metrics.weighted import weighted_classes, weighted_regression


def compare(
    a: Predictions,
    b: Predictions,
    *,
    part: str = "test",
    unit: str | None = None,
    cluster: str | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    thresholds: Mapping[str, Mapping[str, float]] | None = None,
    rules: Mapping[str, ThresholdRule] | None = None,
) -> dict[str, Any]:
    """Return, by target, the metrics a and b of two models, the difference (b - a), and its interval low to high.

    `same_scores` of a target is true if both models predict equal values for all units.
    If the interval does not contain 0, the choice of patients does not explain the difference. The interval does not
    include the variation between training seeds.

    Args:
        a: Predictions of the first model.
        b: Predictions of the second model, for the same videos and labels. A table with a single target that has no
            name (columns `target` and `score`) is compared with the single target of the other.
        part: The part to compare on.
        unit: The column that identifies the units, as in `assess`.
        cluster: The column that identifies the clusters, as in `assess`; it may be missing in one of the tables.
        resamples: Number of bootstrap resamples.
        level: Confidence level of the intervals, between 0 and 1.
        seed: Seed of the resamples.
        thresholds: Thresholds by model and target, such as {"a": {"sick": 0.4}}, for tables without the part "val".
            The threshold of other tables is optimized on "val". The default is 0.5.
        rules: How the thresholds of each model are optimized, such as {"a": "youden"}, as in `assess`; by default "f1".

    Raises TableError if the tables contain different videos, LabelError if they contain different labels.
    """
    resampling = Resampling(resamples=resamples, level=level, seed=seed)
    if len(a.targets) == len(b.targets) == 1:
        a, b = a.named(b.targets[0].name), b.named(a.targets[0].name)
    first, second = a.part(part), b.part(part)
    _check_same(
        "targets",
        {target.name for target in a.targets},
        {target.name for target in b.targets},
        advice="compare runs with the same targets; the columns of a table name them: target_<name>, "
        "score_<name>_<class>",
    )
    _check_same(
        f"videos in {part!r}",
        set(first.table["id"].to_pylist()),
        set(second.table["id"].to_pylist()),
        advice="compare runs with the same manifest and split; a table needs their ids in its column 'id'",
    )
    targets = {}
    for target in a.targets:
        other = b.target(target.name)
        if other.task == "multiclass" and {*target.classes} == {*other.classes}:  # each class has its own column
            columns_of = dict(zip(other.classes, other.scores, strict=True))
            other = replace(other, classes=target.classes, scores=tuple(map(columns_of.__getitem__, target.classes)))
        if target.classes != other.classes:
            raise LabelError(
                f"{target.name!r} has the classes {', '.join(target.classes) or '(regression)'} in a and "
                f"{', '.join(other.classes) or '(regression)'} in b; compare models with the same task and class order"
            )
        first_has_cluster = cluster is None or cluster in first.table.schema.names
        units = units_of(first, target, unit=unit, cluster=cluster if first_has_cluster else None)
        other_units = units_of(second, other, unit=unit, cluster=None if first_has_cluster else cluster)
        _check_pairs(units, other_units, target)
        if not first_has_cluster:
            units = replace(units, clusters=other_units.clusters)  # both have the same names in the same order
        model_thresholds = {}
        for model, predictions, columns in (("a", a, target), ("b", b, other)):
            frozen = None if "val" in predictions.parts else (thresholds or {}).get(model, {}).get(target.name)
            model_thresholds[model] = choose_threshold(
                predictions, columns, unit=unit, frozen=frozen, rule=(rules or {}).get(model, "f1")
            )[0]
        result: dict[str, Any] = {
            "task": target.task,
            "classes": list(target.classes),
            "units": len(units.names),
            "clusters": units.num_clusters,
            "videos": units.videos,
            "same_scores": np.array_equal(units.scores, other_units.scores),
        }
        if len(target.classes) == 2:
            result["thresholds"] = model_thresholds
        result["metrics"] = _differences(units, other_units, target.classes, model_thresholds, resampling)
        targets[target.name] = result
    return {
        "part": part,
        "unit": unit,
        "cluster": cluster or unit,
        "level": level,
        "resamples": resamples,
        "seed": seed,
        "targets": targets,
    }


def _differences(
    a: Units, b: Units, classes: tuple[str, ...], thresholds: dict[str, float], resampling: Resampling
) -> dict[str, dict[str, Any]]:
    names = CLASSIFICATION_METRICS if classes else REGRESSION_METRICS
    if not a.names:
        blank = dict.fromkeys(("a", "b", "difference", "low", "high"))
        return {name: {**blank, "dropped": 0, "reason": "no labels"} for name in names}

    def weighted(units: Units, threshold: float, weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        data: dict[str, Any] = {"targets": units.targets, "scores": units.scores, "weights": weights}
        if not classes:
            return weighted_regression(**data)
        return weighted_classes(**data, classes=classes, threshold=threshold)[0]

    def measure(weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        metrics_a, metrics_b = weighted(a, thresholds["a"], weights), weighted(b, thresholds["b"], weights)
        return {name: metrics_b[name] - metrics_a[name] for name in names}

    values = [
        class_values(units, classes=classes, threshold=thresholds[model])[0]
        if classes
        else regression_metrics(targets=units.targets, scores=units.scores)
        for model, units in (("a", a), ("b", b))
    ]
    ranges = resampling.intervals(measure, a.clusters)
    few = few_clusters(a, classes=classes) if classes else {}
    for (of, name), reason in few.items():
        if not of:
            ranges[name] = replace(ranges[name], low=np.nan, high=np.nan, reason=reason)
    return {name: _difference(values[0][name], values[1][name], ranges[name], _reason(name, *values)) for name in names}


def _difference(a: float, b: float, interval: Interval, reason: str) -> dict[str, Any]:
    return {
        "a": number(a),
        "b": number(b),
        "difference": number(b - a),
        "low": None if reason else number(interval.low),
        "high": None if reason else number(interval.high),
        "dropped": interval.dropped,
        "reason": reason or (interval.reason if interval.reason != SAME_VALUE else "") or None,
    }


def _reason(name: str, a: Any, b: Any) -> str:
    return str(a.reasons.get(name) or b.reasons.get(name) or "")


def _check_same(what: str, a: Set[Any], b: Set[Any], *, advice: str) -> None:
    if a != b:
        only_a, only_b = _examples(a - b), _examples(b - a)
        raise TableError(f"the {what} differ: {len(a & b)} in both, {only_a} only in a, {only_b} only in b; {advice}")


def _examples(names: Set[Any]) -> str:
    """Return the number of names, and the first three.

    >>> _examples({"age"}), _examples({1, 2, 3, 4}), _examples(set())
    ('1 (age)', '4 (1, 2, 3 ...)', '0')
    """
    first = ", ".join(sorted(map(str, names))[:3]) + " ..." * (len(names) > 3)
    return f"{len(names)} ({first})" if names else "0"


def _check_pairs(a: Units, b: Units, target: TargetColumns) -> None:
    """Raise TableError if the units differ, LabelError if their labels differ."""
    _check_same(
        f"units with a {target.name!r} label", set(a.names), set(b.names), advice="compare runs with the same manifest"
    )
    differs = a.targets != b.targets if target.classes else ~np.isclose(a.targets, b.targets)
    if differs.any():
        first = int(np.flatnonzero(differs)[0])
        raise LabelError(
            f"{int(differs.sum())} of {len(differs)} units have different {target.name!r} labels in a and b (the first "
            f"is {a.names[first]}: {a.targets[first]} and {b.targets[first]}); compare runs with the same manifest"
        )
