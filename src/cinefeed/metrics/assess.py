"""All that is measured of a table of predictions, as plain data: what `assessment.json` of a run holds.

Scores of clips become those of units, and every metric comes with an interval that resamples clusters. Of two classes,
the threshold is chosen on validation (best F1), or given, frozen by the run that chose it; it is never chosen on the
part that is measured, validation itself apart. Where training was balanced, scores are corrected by the draw
frequencies too, and both are shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cinefeed.balance.prior import correct_prior
from cinefeed.errors import ColumnError, SettingError, did_you_mean
from cinefeed.metrics.agreement import error_by_bin, limits_of_agreement
from cinefeed.metrics.basic import best_threshold
from cinefeed.metrics.calibration import calibration, calibration_by_class
from cinefeed.metrics.estimates import Resampling, estimates, flat, number
from cinefeed.metrics.predictions import Predictions, TargetColumns
from cinefeed.metrics.subgroups import subgroup_metrics
from cinefeed.metrics.units import Units, units_of

Priors = Mapping[str, Mapping[str, ArrayLike]]


def assess(
    predictions: Predictions,
    *,
    unit: str | None = None,
    cluster: str | None = None,
    thresholds: Mapping[str, float] | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    subgroups: Sequence[str] = (),
    priors: Priors | None = None,
) -> dict[str, Any]:
    """Return what every part of a table of predictions is worth, target by target, as plain data for JSON.

    `unit` is the column whose values are measured, the video (id) where it is None, and `cluster` the one that is
    resampled, the unit where it is None. `thresholds` by target are frozen ones; without, the part "val" chooses, and
    without it or without both classes in it, it is 0.5. `subgroups` are columns, and `priors` are by target the counts
    `drawn` and `raw` of the classes, as `balance.prior.kept_prior` gives them. What is not defined is None, with a
    reason. Intervals take the model and its threshold as they are: another training is not in them.

    Raises LabelError for labels or scores that cannot be measured, ColumnError for a column that is not there, and
    SettingError for a target, threshold or resampling that does not serve.
    """
    resampling = Resampling(resamples=resamples, level=level, seed=seed)
    names = [each.name for each in predictions.targets]
    for what, given in (("thresholds", thresholds), ("priors", priors)):
        for name in given or ():
            if name not in names:
                raise SettingError(f"{what} name a target {name!r}; {did_you_mean(name, names)}")
    columns = predictions.table.schema.names
    for column in (unit, cluster, *subgroups):
        if column is not None and column not in columns:
            raise ColumnError(f"the predictions have no column {column!r}; {did_you_mean(column, columns)}")
    chosen = {
        each.name: choose_threshold(predictions, each, unit=unit, frozen=(thresholds or {}).get(each.name))
        for each in predictions.targets
        if len(each.classes) == 2
    }
    parts: dict[str, dict[str, Any]] = {}
    for part in predictions.parts:
        rows = predictions.part(part)
        parts[part] = {}
        for target in predictions.targets:
            units = units_of(rows, target, unit=unit, cluster=cluster)
            found = _measured(units, target, chosen.get(target.name), (priors or {}).get(target.name), resampling)
            found["subgroups"] = {
                column: subgroup_metrics(
                    rows,
                    target,
                    by=column,
                    unit=unit,
                    cluster=cluster,
                    threshold=found.get("threshold", 0.5),
                    resampling=resampling,
                )
                for column in subgroups
            }
            parts[part][target.name] = found
    return {
        "unit": unit,
        "cluster": cluster or unit,
        "level": level,
        "resamples": resamples,
        "seed": seed,
        "parts": parts,
    }


def choose_threshold(
    predictions: Predictions, target: TargetColumns, *, unit: str | None = None, frozen: float | None = None
) -> tuple[float, str]:
    """Return the threshold of a target of two classes, and where it is from: "frozen", "val" or "0.5"."""
    if frozen is not None:
        if not 0 <= frozen <= 1:
            raise SettingError(f"the threshold of {target.name!r} is {frozen}; probabilities lie from 0 to 1")
        return float(frozen), "frozen"
    if "val" in predictions.parts:
        units = units_of(predictions.part("val"), target, unit=unit)
        if len(np.unique(units.targets)) == 2:
            return best_threshold(targets=units.targets, scores=units.scores), "val"
    return 0.5, "0.5"


def flat_metrics(assessment: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """Return the values alone, by part: metric, or of several targets `<target>_<metric>`: what metrics.json holds."""
    return {
        part: {
            f"{name}_{metric}" if len(targets) > 1 else metric: value
            for name, found in targets.items()
            for metric, value in flat(found["metrics"]).items()
        }
        for part, targets in assessment["parts"].items()
    }


def _measured(
    units: Units,
    target: TargetColumns,
    threshold: tuple[float, str] | None,
    prior: Mapping[str, ArrayLike] | None,
    resampling: Resampling,
) -> dict[str, Any]:
    """Return what one part says of one target, without its subgroups."""
    found: dict[str, Any] = {
        "task": target.task,
        "classes": list(target.classes),
        "clips": units.clips,
        "videos": units.videos,
        "units": len(units.names),
        "clusters": units.num_clusters,
        "missing": units.missing,
    }
    if not target.classes:
        found |= estimates(units, resampling=resampling)
        data: dict[str, Any] = {"targets": units.targets, "scores": units.scores}
        found["bins"] = error_by_bin(**data) if units.names else []
        limits = limits_of_agreement(**data) if units.names else dict.fromkeys(("bias", "sd", "lower", "upper"), np.nan)
        return found | {"agreement": {name: number(value) for name, value in limits.items()}, "corrected": None}
    at, source = threshold or (0.5, "0.5")
    counts = np.bincount(units.targets, minlength=len(target.classes)).tolist()
    found["counts"] = dict(zip(target.classes, counts, strict=True))
    found |= _of_classes(units, target, at, resampling)
    if threshold is not None:
        found |= {"threshold": at, "threshold_from": source}
    found["corrected"] = None
    if prior is not None and units.names:
        corrected = replace(units, scores=correct_prior(units.scores, **prior))
        # a threshold that was chosen on scores as they come goes with them; 0.5 means 0.5 of either
        moved = at if source == "0.5" else float(correct_prior([at], **prior)[0])
        found["corrected"] = _of_classes(corrected, target, moved, resampling)
        if threshold is not None:
            found["corrected"]["threshold"] = moved
    return found


def _of_classes(units: Units, target: TargetColumns, threshold: float, resampling: Resampling) -> dict[str, Any]:
    data: dict[str, Any] = {"targets": units.targets, "scores": units.scores, "classes": target.classes}
    empty: dict[str, Any] = {"ece": None, "bins": []}
    return estimates(units, classes=target.classes, threshold=threshold, resampling=resampling) | {
        "calibration": calibration(**data) if units.names else empty,
        "calibration_by_class": calibration_by_class(**data) if units.names else {},
    }
