"""Cross-validation by patient: a run per fold, and out-of-fold predictions for every video.

fold1.parquet ...     the rows with their part in that fold        fold1/ ...           the runs, each a run folder
predictions.parquet   out of fold: each video once, with `fold`    assessment.json      of all out-of-fold predictions
folds.json            metrics by fold, mean and interval           metrics.json         the values of the assessment
settings.toml         settings of the cross-validation             failures.json        files that failed, with reasons
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cinefeed.config import Settings, SplitSettings
from cinefeed.core.errors import SettingError
from cinefeed.core.locks import FOLDER_LOCK, write_lock
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.manifest.parquet import read_parquet_table
from cinefeed.feed.labels import read_labels
from cinefeed.metrics.assess import flat_metrics
from cinefeed.metrics.basic import metric_range
from cinefeed.metrics.predictions import read_predictions
from cinefeed.metrics.thresholds import RULES
from cinefeed.training.auto import with_choices
from cinefeed.training.baselines import gather_baselines
from cinefeed.training.finish import (
    METRICS,
    PREDICTIONS,
    assess_table,
    keep_results,
    mean_priors,
    read_priors,
)
from cinefeed.training.run import (
    ASSESSMENT,
    BASELINES,
    check_out,
    read_rule_thresholds,
    read_run,
    read_thresholds,
    setting_differences,
    settings_of_run,
    write_json,
    write_settings,
)
from cinefeed.training.setup import build_feed, check_folds, choose_rows, unused_split, usable_rows

_OWN = (
    "settings.toml",
    "folds.json",
    "failures.json",
    "report.html",
    "methods.md",
    PREDICTIONS,
    ASSESSMENT,
    METRICS,
    BASELINES,
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FoldsResult:
    """Result of a cross-validation: the out-of-fold metrics of all videos, and statistics of the folds' metrics.

    `folds` has by metric the mean over the folds, `low`, `high`, `sd` and the number of folds that define it.
    `finished` is False if a training stopped on request: the same call resumes it.
    """

    folder: Path
    finished: bool
    metrics: Mapping[str, Any]
    folds: Mapping[str, Mapping[str, Any]]


def train_folds(
    settings: Settings, *, folds: int | None = None, train: Callable[..., object], overwrite: bool = False
) -> FoldsResult:
    """Train a run for each fold, by group, and measure every video by the run that was not trained on its patient.

    Each fold is the test part of one run; the share `val` of `[data.split]` of the other rows, by group, is its
    validation part. Finished folds are kept unless `overwrite`, so that the same call resumes after an interruption.

    The interval over folds treats them as independent samples (Student's t). Their training parts overlap, so it is
    too narrow (Bengio and Grandvalet, JMLR 2004); that of the assessment resamples patients instead, with fixed models.
    The threshold of two classes is the mean of the thresholds that the folds selected on their validation parts.

    Args:
        settings: Settings of the runs; `[train] out` is the folder of the folds.
        folds: Number of folds; by default `[train] folds`, or 5 if that is 0.
        train: Function that trains one run, `train(settings, overwrite=...)`, such as cinefeed.training.fit.train.
        overwrite: Train finished folds again.

    Raises SettingError for a split by a column, for a folder with other files, and if settings or rows differ from
    those of the existing folds; SplitError for too few groups; InUseError while another process writes the folder.
    """
    folds = folds or settings.train.folds or 5
    with write_lock(settings.train.out, folder=True):
        return _train_folds(settings, folds=folds, train=train, overwrite=overwrite)


def _train_folds(settings: Settings, *, folds: int, train: Callable[..., object], overwrite: bool) -> FoldsResult:
    folder = _check_folder(settings, folds=folds, overwrite=overwrite)
    rows, failures = usable_rows(choose_rows(Manifest.read(settings.data.manifest), settings))
    check_folds(rows, settings)
    if note := unused_split(rows, settings):
        _log.warning(note)
    folds_settings, settings = settings, _with_classes(settings, rows)
    manifests = fold_manifests(rows, settings, folds=folds)
    settings = _with_choices(settings, manifests[0])
    folds_settings = replace(folds_settings, model=settings.model, train=settings.train)
    runs = [_settings_of(settings, folder, number) for number in range(1, folds + 1)]
    for number, (run, manifest) in enumerate(zip(runs, manifests, strict=True), start=1):
        _check_rows(Path(run.data.manifest), manifest, number=number, overwrite=overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    summary = {"folds": folds, "group": settings.data.split.group or None, "rows": len(rows)}
    write_json(folder / "folds.json", summary)  # first: it marks the folder
    write_settings(folder, folds_settings)
    write_json(folder / "failures.json", failures)
    for run, manifest in zip(runs, manifests, strict=True):
        manifest.write(run.data.manifest)
    for run in runs:
        if overwrite or not _is_finished(run):
            train(run, overwrite=overwrite)
        else:
            with write_lock(run.train.out, folder=True):  # removes temporary files of a killed process
                check_out(run.train.out, overwrite=True)
        if not _is_finished(run):
            return FoldsResult(folder=folder, finished=False, metrics={}, folds={})
    return _gather(folder, runs, summary=summary)


def over_folds(values: Sequence[float], *, metric: str = "", level: float = 0.95) -> dict[str, Any]:
    """Return mean, standard deviation and Student's interval of a metric over folds, and the number of folds.

    The interval is cut off at the least and the greatest value that the metric can have; "" for no limit.

    >>> {name: round(value, 3) for name, value in over_folds([0.8, 0.9, 0.7]).items()}
    {'mean': 0.8, 'sd': 0.1, 'low': 0.552, 'high': 1.048, 'folds': 3}
    """
    from scipy.stats import t  # scikit-learn brings it

    count = len(values)
    blank: dict[str, Any] = {"mean": None, "sd": None, "low": None, "high": None, "folds": count}
    if count == 0:
        return blank
    mean = float(np.mean(values))
    if count == 1:
        return blank | {"mean": mean}
    sd = float(np.std(values, ddof=1))
    half = float(t.ppf((1 + level) / 2, count - 1)) * sd / count**0.5
    least, greatest = metric_range(metric) if metric else (-np.inf, np.inf)
    low, high = max(mean - half, least), min(mean + half, greatest)
    return {"mean": mean, "sd": sd, "low": low, "high": high, "folds": count}


def _check_folder(settings: Settings, *, folds: int, overwrite: bool) -> Path:
    """Return the folder of the folds if they may be written there. Raises SettingError otherwise."""
    folder = Path(settings.train.out)
    if not folder.is_dir():
        return folder
    names = {each.name for each in folder.iterdir() if not each.name.endswith(FOLDER_LOCK)}
    own_names = {*_OWN, *(name for name in names if name.startswith("fold"))}
    if names and ("folds.json" not in names or names - own_names):
        other = sorted(names - own_names) or sorted(names)
        raise SettingError(f"{folder} holds other files ({', '.join(other[:3])}); choose a new folder for the folds")
    if not names or overwrite or "settings.toml" not in names:
        return folder
    summary = json.loads((folder / "folds.json").read_text(encoding="utf-8"))
    if summary["folds"] != folds:
        raise SettingError(f"{folder} holds {summary['folds']} folds, and folds={folds}; choose another folder")
    differences = setting_differences(settings_of_run(folder), settings)
    if differences:
        sections = dict.fromkeys(f"[{section}]" for section, _ in differences)
        raise SettingError(
            f"{folder} was started with other settings in {', '.join(sections)}; "
            "choose another folder, or pass --overwrite (overwrite=True)"
        )
    return folder


def _check_rows(path: Path, part: Manifest, *, number: int, overwrite: bool) -> None:
    if not overwrite and path.is_file() and Manifest.read(path).fingerprint != part.fingerprint:
        raise SettingError(
            f"the rows of fold {number} differ from those in {path.parent}: the manifest has changed; choose another "
            "folder, or pass --overwrite (overwrite=True)"
        )


def _with_classes(settings: Settings, rows: Manifest) -> Settings:
    """Return settings that list the task and classes of each target: a fold may lack a rare class."""
    data = settings.data
    if data.targets == ("clip",) and "clip" not in rows.table.column_names:
        return settings
    labels = read_labels(
        rows.table, type_of=rows.label_type, target=data.target or None, task=data.task, classes=data.classes
    )
    targets = labels.several or {labels.name: labels.main}
    tasks: dict[str, Any] = {name: each.task for name, each in targets.items()}
    classes = {name: each.classes for name, each in targets.items() if each.classes}
    if not labels.several:
        return replace(settings, data=replace(data, task=tasks[labels.name], classes=classes.get(labels.name)))
    return replace(settings, data=replace(data, task=tasks, classes=classes))


def _with_choices(settings: Settings, fold: Manifest) -> Settings:
    """Return settings with values in place of "auto", from the training rows of the first fold, for all folds."""
    train = fold.parts().train
    feed = build_feed(settings, train)
    try:
        return with_choices(settings, feed.spec, videos=len(train), batches=len(feed))
    finally:
        feed.close()


def fold_manifests(rows: Manifest, settings: Settings, *, folds: int) -> list[Manifest]:
    """Return the rows of each fold's run, with their part in the column `split`."""
    split = settings.data.split
    options: dict[str, Any] = {"group": split.group or None, "stratify": split.stratify, "seed": split.seed}
    manifests = []
    for fold in rows.folds(folds, **options):
        rest = fold.train.split(val=split.val, test=0, **options)
        ids = {
            name: pa.table({"id": part.column("id")})
            for name, part in (("train", rest.train), ("val", rest.val), ("test", fold.val))
        }
        manifests.append(rows.with_split(ids, on="id"))
    return manifests


def _settings_of(settings: Settings, folder: Path, number: int) -> Settings:
    """Return the settings of one fold's run."""
    split = settings.data.split
    parts = SplitSettings(column="split", group=split.group, stratify=split.stratify)
    data = replace(settings.data, manifest=str(folder / f"fold{number}.parquet"), split=parts)
    return replace(settings, data=data, train=replace(settings.train, out=str(folder / f"fold{number}"), folds=0))


def _is_finished(settings: Settings) -> bool:
    return (Path(settings.train.out) / "run.json").is_file()


def _gather(folder: Path, run_settings: Sequence[Settings], *, summary: Mapping[str, Any]) -> FoldsResult:
    """Concatenate the test predictions of all folds, assess them, and write the results."""
    tables, runs, level = [], [], run_settings[0].evaluate.level
    for number, each in enumerate(run_settings, start=1):
        run = Path(each.train.out)
        table = read_parquet_table(run / PREDICTIONS)
        test_rows = table.filter(pc.equal(table["split"], "test"))
        tables.append(test_rows.append_column("fold", pa.array([number] * len(test_rows), pa.int32())))
        metrics = json.loads((run / METRICS).read_text(encoding="utf-8"))["test"]
        num_videos = len(set(test_rows["id"].to_pylist()))
        runs.append({"fold": number, "run": run.name, "rows": num_videos, "metrics": metrics})
    settings, spec, _ = read_run(run_settings[0].train.out)
    by_fold = [read_thresholds(each.train.out) for each in run_settings]
    names = {name for thresholds in by_fold for name in thresholds}
    by_target = {name: [each[name] for each in by_fold if name in each] for name in sorted(names)}
    thresholds = {name: float(np.mean(values)) for name, values in by_target.items()}
    by_rule = [read_rule_thresholds(each.train.out) for each in run_settings]
    rule_thresholds: dict[str, dict[str, float]] = {
        name: {rule: float(np.mean([each[name][rule] for each in by_rule if name in each])) for rule in RULES}
        for name in sorted({name for each in by_rule for name in each})
    }
    table = pa.concat_tables(tables)
    assessment = assess_table(
        table,
        settings=settings,
        spec=spec,
        thresholds=thresholds,
        rule_thresholds=rule_thresholds,
        priors=mean_priors([read_priors(each.train.out) for each in run_settings]),
    )
    keep_results(folder, table, assessment)
    gather_baselines(
        folder,
        [Path(each.train.out) for each in run_settings],
        settings=settings,
        predictions=None if spec.task == "clip" else read_predictions(folder / PREDICTIONS),
        thresholds=thresholds,
    )
    metric_names = dict.fromkeys(name for each in runs for name in each["metrics"])
    defined = {
        name: [each["metrics"][name] for each in runs if each["metrics"][name] is not None] for name in metric_names
    }
    statistics = {name: over_folds(values, metric=name, level=level) for name, values in defined.items()}
    write_json(folder / "folds.json", {**summary, "level": level, "runs": runs, "metrics": statistics})
    return FoldsResult(folder=folder, finished=True, metrics=flat_metrics(assessment)["test"], folds=statistics)
