"""Two models on the same units: the difference of every metric, with a paired bootstrap interval.

Two intervals that overlap do not say that two models are alike: hard patients are hard for both, and that part of the
spread cancels in the difference. So each resample of patients measures both models on the same draws.
"""

from collections.abc import Mapping, Set
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cinefeed.errors import LabelError, TableError
from cinefeed.metrics.assess import choose_threshold
from cinefeed.metrics.basic import regression_metrics
from cinefeed.metrics.bootstrap import Interval
from cinefeed.metrics.estimates import CLASSIFICATION_METRICS, REGRESSION_METRICS, Resampling, class_values, number
from cinefeed.metrics.predictions import Predictions, TargetColumns
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
) -> dict[str, Any]:
    """Return, by target, the metrics of two models on one part: a, b, difference (b less a) and its low and high.

    `unit`, `cluster` and the rest are those of `assess`; one of the two tables may tell the clusters of both. Each
    model has the threshold that its own validation chose: by the part "val" of its table, or where that is absent as
    `thresholds` has it ({"a": {target: 0.4}}); 0.5 where nothing tells.
    Where the interval leaves out 0, the difference is more than the choice of patients explains; that of the training
    seed is not in it. Raises TableError where the two hold other videos, LabelError where they hold other labels.
    """
    resampling = Resampling(resamples=resamples, level=level, seed=seed)
    first, second = a.part(part), b.part(part)
    _same("targets", {each.name for each in a.targets}, {each.name for each in b.targets})
    _same(f"videos in {part!r}", set(first.table["id"].to_pylist()), set(second.table["id"].to_pylist()))
    targets = {}
    for target in a.targets:
        other = b.target(target.name)
        if target.classes != other.classes:
            raise LabelError(
                f"{target.name!r} has the classes {', '.join(target.classes) or 'of a regression'} in a and "
                f"{', '.join(other.classes) or 'of a regression'} in b; compare models of one task and one order"
            )
        here = cluster is None or cluster in first.table.schema.names
        units = units_of(first, target, unit=unit, cluster=cluster if here else None)
        others = units_of(second, other, unit=unit, cluster=None if here else cluster)
        _paired(units, others, target)
        units = units if here else replace(units, clusters=others.clusters)  # names are the same, in one order
        chosen = {}
        for name, each, columns in (("a", a, target), ("b", b, other)):
            kept = None if "val" in each.parts else (thresholds or {}).get(name, {}).get(target.name)
            chosen[name] = choose_threshold(each, columns, unit=unit, frozen=kept)[0]
        found: dict[str, Any] = {
            "task": target.task,
            "classes": list(target.classes),
            "units": len(units.names),
            "clusters": units.num_clusters,
        }
        if len(target.classes) == 2:
            found["thresholds"] = chosen
        found["metrics"] = _differences(units, others, target.classes, chosen, resampling)
        targets[target.name] = found
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
        of_a, of_b = weighted(a, thresholds["a"], weights), weighted(b, thresholds["b"], weights)
        return {name: of_b[name] - of_a[name] for name in names}

    values = [
        class_values(units, classes=classes, threshold=thresholds[name])[0]
        if classes
        else regression_metrics(targets=units.targets, scores=units.scores)
        for name, units in (("a", a), ("b", b))
    ]
    ranges = resampling.intervals(measure, a.clusters)
    return {name: _difference(values[0][name], values[1][name], ranges[name], _reason(name, *values)) for name in names}


def _difference(a: float, b: float, interval: Interval, reason: str) -> dict[str, Any]:
    return {
        "a": number(a),
        "b": number(b),
        "difference": number(b - a),
        "low": None if reason else number(interval.low),
        "high": None if reason else number(interval.high),
        "dropped": interval.dropped,
        "reason": reason or interval.reason or None,
    }


def _reason(name: str, a: Any, b: Any) -> str:
    return str(a.reasons.get(name) or b.reasons.get(name) or "")


def _same(what: str, a: Set[Any], b: Set[Any]) -> None:
    if a != b:
        only_a, only_b = sorted(map(str, a - b)), sorted(map(str, b - a))
        shown = ", ".join([*only_a, *only_b][:3])
        raise TableError(
            f"the {what} differ: {len(a & b)} in both, {len(only_a)} in a alone, {len(only_b)} in b alone ({shown} "
            "...); compare runs of one manifest and one split"
        )


def _paired(a: Units, b: Units, target: TargetColumns) -> None:
    """Refuse units that are not the same, or do not have the same labels."""
    _same(f"units with a {target.name!r} label", set(a.names), set(b.names))
    differ = a.targets != b.targets if target.classes else ~np.isclose(a.targets, b.targets)
    if differ.any():
        where = int(np.flatnonzero(differ)[0])
        raise LabelError(
            f"{int(differ.sum())} of {len(differ)} units have another {target.name!r} label in a than in b "
            f"(the first is {a.names[where]}: {a.targets[where]} and {b.targets[where]}); compare runs of one manifest"
        )
