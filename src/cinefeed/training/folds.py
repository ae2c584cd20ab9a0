"""Cross-validation by patient: a run a fold, then the predictions for every video by the model that did not see it.

fold1.parquet ...     the rows with their part in that fold        fold1/ ...           the runs, each a run folder
predictions.parquet   out of fold: each video once, with `fold`    assessment.json      what these are worth, together
folds.json            the folds' own metrics, mean and interval    metrics.json         the values of the assessment
settings.toml         what was asked for                           failures.json        files that failed, and why
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cinefeed.config import Settings, SplitSettings, to_table
from cinefeed.errors import SettingError
from cinefeed.feed.targets import read_labels
from cinefeed.files import full_disk_explained
from cinefeed.locks import FOLDER_LOCK, write_lock
from cinefeed.manifest.encoded import made_by_a_run
from cinefeed.manifest.parquet import read_parquet_table
from cinefeed.manifest.table import Manifest
from cinefeed.metrics.assess import flat_metrics
from cinefeed.training.finish import (
    METRICS,
    PREDICTIONS,
    assess_table,
    keep_results,
    kept_priors,
    mean_priors,
)
from cinefeed.training.flow import check_evaluation, choose_rows, usable_rows
from cinefeed.training.run import (
    ASSESSMENT,
    check_out,
    kept_thresholds,
    read_run,
    settings_of_run,
    write_json,
    write_settings,
)

_OWN = ("settings.toml", "folds.json", "failures.json", "report.html", "methods.md", PREDICTIONS, ASSESSMENT, METRICS)


@dataclass(frozen=True, kw_only=True)
class FoldsResult:
    """What cross-validation came to: the metrics of all videos out of fold, and those of the folds.

    `folds` has by metric the mean over the folds, `low`, `high`, `sd` and how many folds define it. `finished` is
    False where a training was told to stop: the same call goes on.
    """

    folder: Path
    finished: bool
    metrics: Mapping[str, Any]
    folds: Mapping[str, Mapping[str, Any]]


def train_folds(
    settings: Settings, *, folds: int = 5, train: Callable[..., object], overwrite: bool = False
) -> FoldsResult:
    """Train a run for each fold, by group, and measure every video by the run that did not see its patient.

    Each fold is the test part of one run; of the other rows the share `val` of `[data.split]`, by group, is its
    validation part. `train(settings, overwrite=...)` trains one run, such as cinefeed.training.fit.train. Folds that
    are finished are left as they are, so that the same call goes on after a break, unless `overwrite`.

    The interval over folds takes them for independent samples (Student's t). Their training parts overlap, so it is
    too narrow (Bengio and Grandvalet, JMLR 2004); that of the assessment resamples patients instead, with the models
    as they are. The threshold of two classes is the mean of those that the folds chose on their validation parts.

    Raises SettingError for a split that names a column already, for a folder that holds something else, and where
    settings or rows are no longer those that the folds were begun with; SplitError where there are too few groups;
    InUseError while another process writes the folder.
    """
    with full_disk_explained(Path(settings.train.out)), write_lock(settings.train.out, folder=True):
        return _train_folds(settings, folds=folds, train=train, overwrite=overwrite)


def _train_folds(settings: Settings, *, folds: int, train: Callable[..., object], overwrite: bool) -> FoldsResult:
    split = settings.data.split
    if split.column is not None:
        raise SettingError(
            f"folds deal all rows anew, and [data.split] takes the parts from the column {split.column!r}: name the "
            "group instead, and leave out what should stay a test set with where"
        )
    folder = _check_folder(settings, folds=folds, overwrite=overwrite)
    rows, failures = usable_rows(choose_rows(Manifest.read(settings.data.manifest), settings))
    if made_by_a_run(rows):
        raise SettingError(
            "the rows are features of a run's network, which has learnt from some of them: each fold would test on "
            "what it has seen. Train folds on the videos, or on features of a backbone that none of them has trained"
        )
    check_evaluation(rows, settings)
    asked, settings = settings, _with_classes(settings, rows)
    parts = _deal(rows, settings, folds=folds)
    own = [_settings_of(settings, folder, number) for number in range(1, folds + 1)]
    for number, (each, part) in enumerate(zip(own, parts, strict=True), start=1):
        _check_rows(Path(each.data.manifest), part, number=number, overwrite=overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    begun = {"folds": folds, "group": split.group or None, "rows": len(rows)}
    write_json(folder / "folds.json", begun)  # first: the folder is known by it
    write_settings(folder, asked)
    write_json(folder / "failures.json", failures)
    for each, part in zip(own, parts, strict=True):
        part.write(each.data.manifest)
    for each in own:
        if overwrite or not _is_finished(each):
            train(each, overwrite=overwrite)
        else:
            with write_lock(each.train.out, folder=True):  # removes what a kill has left
                check_out(each.train.out, overwrite=True)
        if not _is_finished(each):
            return FoldsResult(folder=folder, finished=False, metrics={}, folds={})
    return _gather(folder, own, begun=begun)


def over_folds(values: Sequence[float], *, level: float = 0.95) -> dict[str, Any]:
    """Return mean, standard deviation and Student's interval of a metric over folds, and how many define it.

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
    return {"mean": mean, "sd": sd, "low": mean - half, "high": mean + half, "folds": count}


def _check_folder(settings: Settings, *, folds: int, overwrite: bool) -> Path:
    """Return where the folds go, if nothing stands in the way."""
    folder = Path(settings.train.out)
    if not folder.is_dir():
        return folder
    there = {each.name for each in folder.iterdir() if not each.name.endswith(FOLDER_LOCK)}
    ours = {*_OWN, *(name for name in there if name.startswith("fold"))}
    if there and ("folds.json" not in there or there - ours):
        other = sorted(there - ours) or sorted(there)
        raise SettingError(f"{folder} holds other files ({', '.join(other[:3])}); name a new folder for the folds")
    if not there or overwrite or "settings.toml" not in there:
        return folder
    before = json.loads((folder / "folds.json").read_text(encoding="utf-8"))
    if before["folds"] != folds:
        raise SettingError(f"{folder} holds {before['folds']} folds, {folds} are asked for; name another folder")
    kept, asked = to_table(settings_of_run(folder)), to_table(settings)
    differing = [name for name in asked if asked[name] != kept.get(name)]
    if differing:
        raise SettingError(
            f"{folder} was begun with other settings in {', '.join(f'[{name}]' for name in differing)}; "
            "name another folder, or pass --overwrite (overwrite=True)"
        )
    return folder


def _check_rows(path: Path, part: Manifest, *, number: int, overwrite: bool) -> None:
    if not overwrite and path.is_file() and Manifest.read(path).fingerprint != part.fingerprint:
        raise SettingError(
            f"the rows of fold {number} are no longer those that {path.parent} was begun with: the manifest has "
            "changed; name another folder, or pass --overwrite (overwrite=True)"
        )


def _with_classes(settings: Settings, rows: Manifest) -> Settings:
    """Return settings that name each target's task and classes: a fold may lack a rare one."""
    data = settings.data
    if data.targets == ("clip",) and "clip" not in rows.table.column_names:
        return settings
    labels = read_labels(
        rows.table, type_of=rows.label_type, target=data.target or None, task=data.task, classes=data.classes
    )
    found = labels.several or {labels.name: labels.main}
    tasks: dict[str, Any] = {name: each.task for name, each in found.items()}
    classes = {name: each.classes for name, each in found.items() if each.classes}
    if not labels.several:
        return replace(settings, data=replace(data, task=tasks[labels.name], classes=classes.get(labels.name)))
    return replace(settings, data=replace(data, task=tasks, classes=classes))


def _deal(rows: Manifest, settings: Settings, *, folds: int) -> list[Manifest]:
    """Return the rows of each fold's run, with their part in the column `split`."""
    split = settings.data.split
    by: dict[str, Any] = {"group": split.group or None, "stratify": split.stratify, "seed": split.seed}
    dealt = []
    for each in rows.folds(folds, **by):
        rest = each.train.split(val=split.val, test=0, **by)
        ids = {
            name: pa.table({"id": part.column("id")})
            for name, part in (("train", rest.train), ("val", rest.val), ("test", each.val))
        }
        dealt.append(rows.with_split(ids, on="id"))
    return dealt


def _settings_of(settings: Settings, folder: Path, number: int) -> Settings:
    """Return the settings of one fold's run."""
    split = settings.data.split
    parts = SplitSettings(column="split", group=split.group, stratify=split.stratify)
    data = replace(settings.data, manifest=str(folder / f"fold{number}.parquet"), split=parts)
    return replace(settings, data=data, train=replace(settings.train, out=str(folder / f"fold{number}")))


def _is_finished(settings: Settings) -> bool:
    return (Path(settings.train.out) / "run.json").is_file()


def _gather(folder: Path, own: Sequence[Settings], *, begun: Mapping[str, Any]) -> FoldsResult:
    """Put the folds' predictions of their test parts together, and say what they are worth."""
    tables, runs, level = [], [], own[0].evaluate.level
    for number, each in enumerate(own, start=1):
        run = Path(each.train.out)
        table = read_parquet_table(run / PREDICTIONS)
        tested = table.filter(pc.equal(table["split"], "test"))
        tables.append(tested.append_column("fold", pa.array([number] * len(tested), pa.int32())))
        metrics = json.loads((run / METRICS).read_text(encoding="utf-8"))["test"]
        runs.append({"fold": number, "run": run.name, "rows": len(set(tested["id"].to_pylist())), "metrics": metrics})
    settings, spec, _ = read_run(own[0].train.out)
    thresholds = [kept_thresholds(each.train.out) for each in own]
    names = {name for each in thresholds for name in each}
    chosen = {name: [each[name] for each in thresholds if name in each] for name in sorted(names)}
    table = pa.concat_tables(tables)
    assessment = assess_table(
        table,
        settings=settings,
        spec=spec,
        thresholds={name: float(np.mean(values)) for name, values in chosen.items()},
        priors=mean_priors([kept_priors(each.train.out) for each in own]),
    )
    keep_results(folder, table, assessment)
    every = dict.fromkeys(name for each in runs for name in each["metrics"])
    defined = {name: [each["metrics"][name] for each in runs if each["metrics"][name] is not None] for name in every}
    found = {name: over_folds(values, level=level) for name, values in defined.items()}
    write_json(folder / "folds.json", {**begun, "level": level, "runs": runs, "metrics": found})
    return FoldsResult(folder=folder, finished=True, metrics=flat_metrics(assessment)["test"], folds=found)
