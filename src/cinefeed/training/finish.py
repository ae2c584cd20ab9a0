"""The end of a run: its scores, what they are worth, and the files that say so.

predictions.parquet   a row a clip of validation and test: label, score, patient (cinefeed.metrics.predictions)
assessment.json       every metric with its interval, by part and target (cinefeed.metrics.assess); of the same rows
metrics.json          the values alone, by part
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cinefeed.balance import Natural, prior_from_report
from cinefeed.config import EvaluateSettings, Settings
from cinefeed.feed.feed import Feed
from cinefeed.feed.targets import FeedSpec
from cinefeed.files import write_atomically
from cinefeed.label_types import class_names
from cinefeed.manifest.parquet import write_parquet_tables
from cinefeed.manifest.table import Manifest
from cinefeed.metrics.assess import assess, flat_metrics
from cinefeed.metrics.estimates import Resampling
from cinefeed.metrics.predictions import Predictions, predictions_of, target_columns
from cinefeed.metrics.units import cluster_of, units_of
from cinefeed.models.parts import targets_of
from cinefeed.training.run import ASSESSMENT, kept_assessment, plain, write_json
from cinefeed.training.scores import predictions_table, score

PREDICTIONS, METRICS = "predictions.parquet", "metrics.json"
Priors = dict[str, dict[str, NDArray[np.float64]]]


def finish_run(
    folder: str | Path, *, settings: Settings, model: keras.Model, feed: Feed, val: Feed, test: Feed
) -> dict[str, dict[str, Any]]:
    """Score validation and test with a trained model, keep predictions, assessment and metrics; return the metrics.

    `feed` is the one that the model was trained on; `val` and `test` are feeds for evaluation, which are made anew
    where `[evaluate]` asks for several clips of a video. Neither is ever balanced: where training was, the assessment
    has scores that are corrected by the draw frequencies beside those as they come.
    """
    clips, tables = settings.evaluate.clips, []
    for name, part in (("val", val), ("test", test)):
        fed = part if clips == 1 else part.evaluation(part.manifest, clips=clips)
        found = score(model, fed)
        tables.append(
            predictions_table(feed.spec, found, manifest=fed.manifest, part=name, columns=needed_columns(settings))
        )
    table = pa.concat_tables(tables)
    assessment = assess_table(table, settings=settings, spec=feed.spec, priors=priors_of(settings, feed))
    return keep_results(folder, table, assessment)


def keep_results(folder: str | Path, table: pa.Table, assessment: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Write predictions, assessment and metrics into a folder; return the metrics by part, NaN where undefined."""
    path = Path(folder)
    metrics = flat_metrics(assessment)
    write_atomically(path / PREDICTIONS, lambda partial: write_parquet_tables(partial, [table]))
    write_json(path / ASSESSMENT, assessment)
    write_json(path / METRICS, metrics)
    return {
        part: {name: float("nan") if value is None else value for name, value in found.items()}
        for part, found in metrics.items()
    }


def needed_columns(settings: Settings) -> list[str]:
    """Return the columns of the manifest that predictions carry: the unit, the patient, the subgroups."""
    group, asked = settings.data.split.group, settings.evaluate
    return list(dict.fromkeys(each for each in (group, asked.unit, *asked.subgroups) if each))


def assess_table(
    table: pa.Table,
    *,
    settings: Settings,
    spec: FeedSpec,
    priors: Priors | None = None,
    thresholds: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Return what a table of a run's predictions is worth, as `[evaluate]` asks for it; see metrics.assess."""
    asked = settings.evaluate
    cluster = cluster_of(table, unit=asked.unit, group=settings.data.split.group or None)
    if spec.task == "clip":
        return _assess_clips(table, asked, cluster=cluster)
    described = [
        # "clip", which is no task of a table, has left above
        target_columns(each.name, task=each.task, classes=each.classes, several=bool(spec.targets))  # type: ignore[arg-type]
        for each in targets_of(spec)
    ]
    found = assess(
        Predictions(table=table, targets=tuple(described)),
        unit=asked.unit,
        cluster=cluster,
        thresholds=thresholds,
        resamples=asked.resamples,
        level=asked.level,
        subgroups=asked.subgroups,
        priors=priors or None,
    )
    return {**found, "priors": plain(priors or {})}


def priors_of(settings: Settings, feed: Feed) -> Priors:
    """Return by target how often training drew (or weighed) each class and how many rows it has, where they differ.

    With them scores are corrected (balance.correct_prior). Of a class that was never drawn nothing can be said.
    """
    found: Priors = {}
    if settings.train.class_weights == "balanced":
        for target in targets_of(feed.spec):
            if target.classes:
                labels = class_names(feed.manifest.column(target.name)).to_pylist()
                counts = np.array([labels.count(name) for name in target.classes], np.float64)
                found[target.name] = {"draws": np.ones(len(counts)), "raw": counts}
    elif feed.spec.classes and not isinstance(feed.sampler, Natural):
        balance = feed.balance().as_dict()
        if balance["kind"] == "class" and set(balance["names"]) <= set(feed.spec.classes):
            found[feed.spec.target] = prior_from_report(balance, classes=feed.spec.classes)
    return {name: each for name, each in found.items() if _differ(**each)}


def _differ(draws: NDArray[np.float64], raw: NDArray[np.float64]) -> bool:
    lost = bool(((draws == 0) & (raw > 0)).any())
    return not lost and not np.allclose(draws / draws.sum(), raw / raw.sum(), atol=1e-6)


def kept_priors(folder: str | Path) -> Priors:
    """Return by target how often a run's training drew each class, and how many rows it has; none if as often."""
    found = kept_assessment(folder).get("priors") or {}
    return {name: {key: np.array(counts, np.float64) for key, counts in each.items()} for name, each in found.items()}


def mean_priors(several: Sequence[Priors]) -> Priors:
    """Return the mean shares over the folds, of those targets that were balanced in each."""
    names = [name for name in several[0] if all(name in each for each in several)]
    return {
        name: {
            key: np.mean([each[name][key] / each[name][key].sum() for each in several], axis=0)
            for key in several[0][name]
        }
        for name in names
    }


def with_evaluation(settings: Settings, **changes: Any) -> Settings:
    """Return settings with some of `[evaluate]` changed; None leaves one as it is."""
    given = {name: value for name, value in changes.items() if value is not None}
    return replace(settings, evaluate=replace(settings.evaluate, **given)) if given else settings


def _assess_clips(table: pa.Table, asked: EvaluateSettings, *, cluster: str | None) -> dict[str, Any]:
    """Return the error of clips that were given back, as `assess` has it for scores; there are no subgroups."""
    resampling, parts = Resampling(resamples=asked.resamples, level=asked.level), {}
    error = target_columns("clip", task="regression")
    whole = predictions_of(table.append_column("target", pa.array(np.zeros(table.num_rows))), [error])
    for part in whole.parts:
        units = units_of(whole.part(part), error, unit=asked.unit, cluster=cluster)
        measured = partial(_mean_error, units.scores)
        interval = resampling.intervals(measured, units.clusters)["mse"]
        low, high = (None if interval.reason else each for each in (interval.low, interval.high))
        value = {"value": float(units.scores.mean()), "low": low, "high": high, "reason": interval.reason or None}
        parts[part] = {
            "clip": {
                "task": "clip",
                "classes": [],
                "clips": units.clips,
                "videos": units.videos,
                "units": len(units.names),
                "clusters": units.num_clusters,
                "missing": units.missing,
                "metrics": {"mse": value | {"dropped": interval.dropped}},
                "corrected": None,
                "subgroups": {},
            }
        }
    about = {"unit": asked.unit, "cluster": cluster or asked.unit, "level": asked.level, "resamples": asked.resamples}
    return {**about, "seed": resampling.seed, "parts": parts}


def _mean_error(errors: NDArray[np.float64], weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    return {"mse": weights @ errors / weights.sum(axis=1)}


def seen_patients(manifest: Manifest, *, own: Manifest, group: str) -> list[str]:
    """Return the values of `group` that a manifest shares with a run's training and validation rows, sorted."""
    used = own.table.filter(pc.is_in(own.table["split"], value_set=pa.array(["train", "val"])))
    return sorted(_names(manifest.column(group)) & _names(used[group]))


def _names(column: Any) -> set[str]:
    return set(pc.unique(column.drop_null().cast(pa.string())).to_pylist())
