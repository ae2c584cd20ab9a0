"""The assessment of a table of predictions, as plain data: the content of `assessment.json` in a run folder.

Scores of clips are averaged to scores of units, and each metric has an interval from resampling clusters. For two
classes, the threshold is the one with the best F1 or Youden's J on the validation part, or a frozen threshold of an
earlier run. It is never optimized on the part that is assessed, except for the validation part itself. If training was
balanced, the assessment also contains the metrics of scores corrected by the draw frequencies.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cinefeed.core.errors import ColumnError, SettingError, did_you_mean
from cinefeed.data.sampling.prior import correct_prior
from cinefeed.metrics.added import Metric, for_task, load_metrics
from cinefeed.metrics.agreement import error_by_bin, limits_of_agreement
from cinefeed.metrics.calibration import calibration, calibration_by_class
from cinefeed.metrics.estimates import Resampling, estimates, flat, number
from cinefeed.metrics.predictions import Predictions, TargetColumns
from cinefeed.metrics.subgroups import subgroup_metrics
from cinefeed.metrics.thresholds import (
    ThresholdRule,
    check_rule,
    choose_threshold,
    operating_points,
    validation_thresholds,
)
from cinefeed.metrics.units import Units, units_of

Priors = Mapping[str, Mapping[str, ArrayLike]]


def assess(
    predictions: Predictions,
    *,
    unit: str | None = None,
    cluster: str | None = None,
    thresholds: Mapping[str, float] | None = None,
    rule: ThresholdRule = "f1",
    rule_thresholds: Mapping[str, Mapping[str, float]] | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    subgroups: Sequence[str] = (),
    priors: Priors | None = None,
    metrics: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the metrics of every part of a table of predictions, by target, as plain data for JSON.

    Undefined values are None, with a reason. Intervals reflect the choice of patients for one trained model and its
    threshold; they do not include the variation between training runs.

    Args:
        predictions: The table of predictions.
        unit: The column that identifies the units to assess; None for videos (`id`).
        cluster: The column that identifies the clusters to resample; None for units.
        thresholds: Frozen thresholds by target. Without one, the threshold is optimized on the part "val"; it is 0.5
            if that part is missing or does not contain both classes.
        rule: How the threshold is optimized: "f1" for the best F1, "youden" for the best Youden's J.
        rule_thresholds: Frozen thresholds of each rule by target, such as {"sick": {"f1": 0.4, "youden": 0.3}}, at
            which the operating points are computed; by default those of the part "val".
        resamples: Number of bootstrap resamples.
        level: Confidence level of the intervals, between 0 and 1.
        seed: Seed of the resamples.
        subgroups: Columns to compute subgroup metrics for.
        priors: Class counts `draws` and `raw` by target, as returned by `sampling.prior.prior_from_report`.
        metrics: Metrics of plug-ins to compute too, for all units of a part and the targets whose task they support.

    Raises LabelError for invalid labels or scores, ColumnError for a missing column, and SettingError for an unknown
    target, rule or metric, an invalid threshold or invalid resampling settings.
    """
    check_rule(rule, name="rule")
    added = load_metrics(metrics)
    resampling = Resampling(resamples=resamples, level=level, seed=seed)
    names = [target.name for target in predictions.targets]
    settings_by_target: dict[str, Mapping[str, Any] | None] = {
        "thresholds": thresholds,
        "rule_thresholds": rule_thresholds,
        "priors": priors,
    }
    for setting, by_target in settings_by_target.items():
        for name in by_target or ():
            if name not in names:
                raise SettingError(f"{setting} name a target {name!r}; {did_you_mean(name, names)}")
    columns = predictions.table.schema.names
    for column in (unit, cluster, *subgroups):
        if column is not None and column not in columns:
            raise ColumnError(f"the predictions have no column {column!r}; {did_you_mean(column, columns)}")
    target_thresholds = {
        target.name: choose_threshold(
            predictions, target, unit=unit, frozen=(thresholds or {}).get(target.name), rule=rule
        )
        for target in predictions.targets
        if len(target.classes) == 2
    }
    by_rule = {
        target.name: (rule_thresholds or {}).get(target.name) or validation_thresholds(predictions, target, unit=unit)
        for target in predictions.targets
    }
    parts: dict[str, dict[str, Any]] = {}
    for part in predictions.parts:
        rows = predictions.part(part)
        parts[part] = {}
        for target in predictions.targets:
            units = units_of(rows, target, unit=unit, cluster=cluster)
            name = target.name
            result = _assess_units(
                units,
                target,
                target_thresholds.get(name),
                (priors or {}).get(name),
                resampling,
                for_task(added, target.task),
            )
            if by_rule[name]:
                result |= {"threshold_rule": rule, "operating_points": operating_points(units, target, by_rule[name])}
            result["subgroups"] = {
                column: subgroup_metrics(
                    rows,
                    target,
                    by=column,
                    unit=unit,
                    cluster=cluster,
                    threshold=result.get("threshold", 0.5),
                    resampling=resampling,
                )
                for column in subgroups
            }
            parts[part][name] = result
    return {
        "unit": unit,
        "cluster": cluster or unit,
        "level": level,
        "resamples": resamples,
        "seed": seed,
        "parts": parts,
    }


def flat_metrics(assessment: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """Return metric values by part, without intervals: the content of metrics.json.

    Keys are metric names, or `<target>_<metric>` if there are several targets.
    """
    return {
        part: {
            f"{name}_{metric}" if len(targets) > 1 else metric: value
            for name, result in targets.items()
            for metric, value in flat(result["metrics"]).items()
        }
        for part, targets in assessment["parts"].items()
    }


def _assess_units(
    units: Units,
    target: TargetColumns,
    threshold: tuple[float, str] | None,
    prior: Mapping[str, ArrayLike] | None,
    resampling: Resampling,
    added: Mapping[str, Metric],
) -> dict[str, Any]:
    """Return the assessment of one target in one part, without subgroups."""
    result: dict[str, Any] = {
        "task": target.task,
        "classes": list(target.classes),
        "clips": units.clips,
        "videos": units.videos,
        "units": len(units.names),
        "clusters": units.num_clusters,
        "missing": units.missing,
    }
    if not target.classes:
        result |= estimates(units, resampling=resampling, added=added)
        data: dict[str, Any] = {"targets": units.targets, "scores": units.scores}
        result["bins"] = error_by_bin(**data) if units.names else []
        limits = limits_of_agreement(**data) if units.names else dict.fromkeys(("bias", "sd", "lower", "upper"), np.nan)
        return result | {"agreement": {name: number(value) for name, value in limits.items()}, "corrected": None}
    value, origin = threshold or (0.5, "0.5")
    counts = np.bincount(units.targets, minlength=len(target.classes)).tolist()
    result["counts"] = dict(zip(target.classes, counts, strict=True))
    result |= _class_estimates(units, target, value, resampling, added)
    if threshold is not None:
        result |= {"threshold": value, "threshold_from": origin}
    result["corrected"] = None
    if prior is not None and units.names:
        corrected_units = replace(units, scores=correct_prior(units.scores, **prior))
        # a threshold optimized on uncorrected scores is corrected like the scores; the default 0.5 stays 0.5
        corrected_threshold = value if origin == "0.5" else float(correct_prior([value], **prior)[0])
        result["corrected"] = _class_estimates(corrected_units, target, corrected_threshold, resampling, added)
        if threshold is not None:
            result["corrected"]["threshold"] = corrected_threshold
    return result


def _class_estimates(
    units: Units, target: TargetColumns, threshold: float, resampling: Resampling, added: Mapping[str, Metric]
) -> dict[str, Any]:
    """Return the class metrics with intervals, and the calibration overall and by class."""
    data: dict[str, Any] = {"targets": units.targets, "scores": units.scores, "classes": target.classes}
    empty: dict[str, Any] = {"ece": None, "bins": []}
    return estimates(units, classes=target.classes, threshold=threshold, resampling=resampling, added=added) | {
        "calibration": calibration(**data) if units.names else empty,
        "calibration_by_class": calibration_by_class(**data) if units.names else {},
    }
