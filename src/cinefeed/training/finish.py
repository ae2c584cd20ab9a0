"""The end of a run: scores of validation and test, their assessment, and the files of both.

predictions.parquet   a row per clip of validation and test: label, score, patient (cinefeed.metrics.predictions)
assessment.json       metrics of these rows with confidence intervals, by part and target (cinefeed.metrics.assess)
metrics.json          the values of the metrics alone, by part
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cinefeed.config import EvaluateSettings, Settings
from cinefeed.core.files import write_atomically
from cinefeed.data.label_types import class_names
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.manifest.parquet import write_parquet_tables
from cinefeed.data.sampling import Natural, prior_from_report
from cinefeed.feed.feed import Feed
from cinefeed.feed.labels import FeedSpec
from cinefeed.metrics.assess import assess, flat_metrics
from cinefeed.metrics.estimates import Resampling
from cinefeed.metrics.predictions import Predictions, predictions_of, target_columns
from cinefeed.metrics.units import cluster_of, units_of
from cinefeed.models.parts import targets_of
from cinefeed.training.keras_module import keras
from cinefeed.training.predictions import Scores, predictions_table
from cinefeed.training.ranks import feed_of_rank, score_by_ranks
from cinefeed.training.run import ASSESSMENT, plain, read_assessment, write_json

PREDICTIONS, METRICS = "predictions.parquet", "metrics.json"
Priors = dict[str, dict[str, NDArray[np.float64]]]


def finish_run(
    folder: str | Path, *, settings: Settings, model: keras.Model, feed: Feed, val: Feed, test: Feed
) -> dict[str, dict[str, Any]]:
    """Score validation and test with a trained model, write predictions, assessment and metrics; return the metrics.

    `feed` is the training feed of the model; `val` and `test` are evaluation feeds, and are replaced by new ones if
    `[evaluate]` sets several clips per video. Neither is ever balanced: if training was, the assessment also has scores
    that are corrected by the draw frequencies.
    """
    tables = []
    for name, part, scores in zip(("val", "test"), (val, test), score_parts(model, settings, val, test), strict=True):
        assert scores is not None, "rank 0 has the scores of all ranks"
        tables.append(
            predictions_table(feed.spec, scores, manifest=part.manifest, part=name, columns=needed_columns(settings))
        )
    table = pa.concat_tables(tables)
    assessment = assess_table(table, settings=settings, spec=feed.spec, priors=priors_of(settings, feed))
    return keep_results(folder, table, assessment)


def score_parts(model: keras.Model, settings: Settings, *parts: Feed) -> list[Scores | None]:
    """Return the scores of evaluation feeds; with several ranks all must call it, and rank 0 has the scores."""
    clips = settings.evaluate.clips
    feeds = [part if clips == 1 else part.evaluation(part.manifest, clips=clips) for part in parts]
    return [score_by_ranks(model, feed_of_rank(each)) for each in feeds]


def keep_results(folder: str | Path, table: pa.Table, assessment: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Write predictions, assessment and metrics into a folder; return the metrics by part, NaN where undefined."""
    path = Path(folder)
    metrics = flat_metrics(assessment)
    write_atomically(path / PREDICTIONS, lambda partial: write_parquet_tables(partial, [table]))
    write_json(path / ASSESSMENT, assessment)
    write_json(path / METRICS, metrics)
    return {
        part: {name: float("nan") if value is None else value for name, value in values.items()}
        for part, values in metrics.items()
    }


def needed_columns(settings: Settings) -> list[str]:
    """Return the columns of the manifest that a table of predictions contains: unit, patient, subgroups."""
    group, evaluate = settings.data.split.group, settings.evaluate
    return list(dict.fromkeys(column for column in (group, evaluate.unit, *evaluate.subgroups) if column))


def assess_table(
    table: pa.Table,
    *,
    settings: Settings,
    spec: FeedSpec,
    priors: Priors | None = None,
    thresholds: Mapping[str, float] | None = None,
    rule_thresholds: Mapping[str, Mapping[str, float]] | None = None,
) -> dict[str, Any]:
    """Return the assessment of a run's predictions with the settings of `[evaluate]`; see metrics.assess."""
    evaluate = settings.evaluate
    cluster = cluster_of(table, unit=evaluate.unit, group=settings.data.split.group or None)
    if spec.task == "clip":
        return _assess_clips(table, evaluate, cluster=cluster)
    targets = [
        # the task "clip", which predictions do not support, has returned above
        target_columns(each.name, task=each.task, classes=each.classes, several=bool(spec.targets))  # type: ignore[arg-type]
        for each in targets_of(spec)
    ]
    assessment = assess(
        Predictions(table=table, targets=tuple(targets)),
        unit=evaluate.unit,
        cluster=cluster,
        thresholds=thresholds,
        rule=evaluate.threshold,
        rule_thresholds=rule_thresholds,
        resamples=evaluate.resamples,
        level=evaluate.level,
        subgroups=evaluate.subgroups,
        priors=priors or None,
        metrics=evaluate.metrics,
    )
    return {**assessment, "priors": plain(priors or {})}


def priors_of(settings: Settings, feed: Feed) -> Priors:
    """Return by target the draws (or weights) and the rows of each class in training, if their shares differ.

    They are used to correct scores (balance.correct_prior), which is impossible for a class that was never drawn.
    """
    priors: Priors = {}
    if settings.train.class_weights == "balanced":
        for target in targets_of(feed.spec):
            if target.classes:
                labels = class_names(feed.manifest.column(target.name)).to_pylist()
                counts = np.array([labels.count(name) for name in target.classes], np.float64)
                priors[target.name] = {"draws": np.ones(len(counts)), "raw": counts}
    elif feed.spec.classes and not isinstance(feed.sampler, Natural):
        balance = feed.balance().as_dict()
        if balance["kind"] == "class" and set(balance["names"]) <= set(feed.spec.classes):
            priors[feed.spec.target] = prior_from_report(balance, classes=feed.spec.classes)
    return {name: prior for name, prior in priors.items() if _can_correct(**prior)}


def _can_correct(draws: NDArray[np.float64], raw: NDArray[np.float64]) -> bool:
    """Return whether the shares of draws and rows differ, and every class with rows was drawn."""
    is_lost = bool(((draws == 0) & (raw > 0)).any())
    return not is_lost and not np.allclose(draws / draws.sum(), raw / raw.sum(), atol=1e-6)


def read_priors(folder: str | Path) -> Priors:
    """Return by target the draws and the rows of each class in a run's training; {} if their shares are the same."""
    priors = read_assessment(folder).get("priors") or {}
    return {name: {key: np.array(counts, np.float64) for key, counts in each.items()} for name, each in priors.items()}


def mean_priors(priors: Sequence[Priors]) -> Priors:
    """Return the mean shares over folds, for the targets that were balanced in every fold."""
    names = [name for name in priors[0] if all(name in fold for fold in priors)]
    return {
        name: {
            key: np.mean([fold[name][key] / fold[name][key].sum() for fold in priors], axis=0)
            for key in priors[0][name]
        }
        for name in names
    }


def with_evaluation(settings: Settings, **changes: Any) -> Settings:
    """Return settings with changed fields of `[evaluate]`; None leaves a field unchanged."""
    values = {name: value for name, value in changes.items() if value is not None}
    return replace(settings, evaluate=replace(settings.evaluate, **values)) if values else settings


def _assess_clips(table: pa.Table, evaluate: EvaluateSettings, *, cluster: str | None) -> dict[str, Any]:
    """Return the reconstruction error of clips in the form that `assess` returns; there are no subgroups."""
    resampling, parts = Resampling(resamples=evaluate.resamples, level=evaluate.level), {}
    error = target_columns("clip", task="regression")
    whole = predictions_of(table.append_column("target", pa.array(np.zeros(table.num_rows))), [error])
    for part in whole.parts:
        units = units_of(whole.part(part), error, unit=evaluate.unit, cluster=cluster)
        statistic = partial(_mean_error, units.scores)
        interval = resampling.intervals(statistic, units.clusters)["mse"]
        low, high = (None if interval.reason else bound for bound in (interval.low, interval.high))
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
    about = {
        "unit": evaluate.unit,
        "cluster": cluster or evaluate.unit,
        "level": evaluate.level,
        "resamples": evaluate.resamples,
    }
    return {**about, "seed": resampling.seed, "parts": parts}


def _mean_error(errors: NDArray[np.float64], weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    return {"mse": weights @ errors / weights.sum(axis=1)}


def shared_patients(manifest: Manifest, *, own: Manifest, group: str) -> list[str]:
    """Return the sorted values of `group` that a manifest shares with a run's training and validation rows."""
    run_rows = own.table.filter(pc.is_in(own.table["split"], value_set=pa.array(["train", "val"])))
    return sorted(_names(manifest.column(group)) & _names(run_rows[group]))


def _names(column: Any) -> set[str]:
    return set(pc.unique(column.drop_null().cast(pa.string())).to_pylist())
