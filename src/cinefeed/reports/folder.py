"""Readers of run folders and tables of predictions into `PageData`."""

import csv
import json
import tomllib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cinefeed.core.digests import is_text_changed, is_whole
from cinefeed.core.errors import CinefeedError, SettingError
from cinefeed.core.text import format_count, plural
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.quality.findings import LOOK_ALIKES
from cinefeed.metrics.predictions import Predictions, read_predictions
from cinefeed.reports.data import Counts, Doubt, Labels, PageData, Pictures, Pixels, label_edges

Doubts = tuple[list[Doubt], str]
_PARTS = ("train", "val", "test")
# Errors of reading a damaged file. Its section is left out, and the page gives the reason.
_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    AttributeError,
    zipfile.BadZipFile,
    pa.ArrowException,
    CinefeedError,
)


def run_data(folder: str | Path) -> PageData:
    """Return the page content of a run folder; a file that is missing or damaged leaves its section out.

    Raises SettingError if the folder is not that of a run.
    """
    path = Path(folder)
    if not any((path / name).is_file() for name in ("settings.toml", "folds.json")):
        raise SettingError(
            f"{path} is not a run folder: settings.toml is missing; give the --out of a 'cinefeed train'"
        )
    missing: dict[str, str] = {}
    cross_validation = (path / "folds.json").is_file()  # each fold has a run folder and a page of its own

    def read(
        section: str, name: str, reader: Callable[[Path], Any], default: Any, *, needed: bool = not cross_validation
    ) -> Any:
        if not (path / name).is_file():
            missing.update({section: f"{name} is not in the run folder"} if needed else {})
            return default
        try:
            return reader(path / name)
        except _UNREADABLE as error:
            missing[section] = f"{name} cannot be read ({type(error).__name__}: {error})"
        return default

    settings = read("settings", "settings.toml", _settings, "", needed=True)
    spec = read("spec", "spec.json", _spec, {})
    run = read("run", "run.json", _json, {})
    classes = tuple(spec.get("classes", ()))
    history = read("history", "history.csv", _history, {})
    clips, captions = read("clips", "clips.npz", _clips, (None, []))
    default_counts = (None, _private(settings) if settings else None, None)
    counts, private, verification = read(
        "counts", "manifest.parquet", lambda file: _counts(file, settings), default_counts
    )
    privacy_note = {True: "the data are private", False: "", None: "it is unknown whether the data are private"}[
        private
    ]
    if privacy_note and private is None and clips is not None:
        missing["clips"] = privacy_note
    assessment = read("assessment", "assessment.json", _assessment, None)
    predictions = None
    if spec.get("task") != "clip":  # the predictions of an autoencoder are errors, not scores beside a label
        predictions = read("predictions", "predictions.parquet", read_predictions, None)
    has_labels = not cross_validation and spec.get("task") not in ("clip", "mask")
    labels, other_labels = read(
        "labels", "labels.json", lambda file: _labels(file, settings), (None, {}), needed=has_labels
    )
    folds = read("folds", "folds.json", _json, None, needed=False)
    folders = [f"{fold['run']}/" for fold in (folds or {}).get("runs", [])] if cross_validation else [""]
    default_doubts: Doubts = (
        [],
        "leaks, copies and look-alikes between the parts: findings.json is missing or damaged",
    )
    checks = [
        read(f"findings{folder}", f"{folder}findings.json", partial(_doubts, folder), default_doubts, needed=False)
        for folder in folders
    ]
    first = predictions.targets[0] if predictions is not None else None
    return PageData(
        title=path.resolve().name,
        data=_data_name(settings),
        date=read("date", "log.jsonl", _date, "", needed=False),
        baselines=read("baselines", "baselines.json", _baselines, None, needed=False),
        kind="Cross-validation" if cross_validation else "Training run",
        target=spec.get("target", first.name if first is not None else ""),
        task=spec.get("task", first.task if first is not None else "regression"),
        classes=classes or (first.classes if first is not None else ()),
        summary=_folds_summary(folds) if cross_validation else _run_summary(run),
        key_figures=_run_figures(run, history),
        private=bool(private),
        doubts=[doubt for doubts, _ in checks for doubt in doubts],
        missing_checks="; ".join(dict.fromkeys(reason for _, reason in checks if reason)),
        flow=read("flow", "flow.json", _flow, ()),
        counts=counts,
        labels=labels,
        other_labels=other_labels,
        balance=read("balance", "balance.json", _json, None, needed=False),
        clips=None if privacy_note else clips,
        captions=captions,
        pixels=read("pixels", "pixels.json", _pixels, None),
        history=history,
        best_epoch=run.get("best_epoch"),
        assessment=assessment,
        predictions=predictions,
        folds=folds,
        worst=read("worst", "worst.npz", lambda file: _pictures(file, privacy_note), None),
        saliency=read("saliency", "saliency.npz", lambda file: _pictures(file, privacy_note), None),
        feed_stats=read("feed_stats", "feed_stats.json", _json, None),
        failures=read("failures", "failures.json", _json, None),
        verification=verification,
        settings=settings,
        run=run,
        versions=read("versions", "versions.json", _json, {}),
        missing=missing,
    )


def table_data(predictions: Predictions, assessment: Mapping[str, Any], *, name: str, date: str = "") -> PageData:
    """Return the page content of a table of predictions: results alone. `date` is that of the table."""
    first = predictions.targets[0]
    rows = predictions.table.num_rows
    return PageData(
        title=name,
        data=name,
        date=date,
        kind="Predictions",
        target=first.name,
        task=first.task,
        classes=first.classes,
        summary=f"Results of a table of {format_count(rows, 'row')} of predictions, whose origin is not recorded.",
        assessment=assessment,
        predictions=predictions,
        warnings=predictions.warnings,
    )


def _run_summary(run: Mapping[str, Any]) -> str:
    if not run:
        return "The run has not ended (run.json is missing). The page shows the files written so far."
    features = f" Its inputs are features of {run['encoded_from']}, not frames." if run.get("encoded_from") else ""
    return (
        f"Training ended because {run['stopped']}.{features} The weights are those of epoch {run['best_epoch']} of "
        f"{run['epochs']}, the best by {run['monitor']}; all results below are for these weights."
    )


def _folds_summary(folds: Mapping[str, Any] | None) -> str:
    if not folds or not folds.get("runs"):
        return "The folds are not finished yet. Run the same command again to continue."
    by = f" by {folds['group']}" if folds.get("group") else ""
    return (
        f"{folds['folds']} folds{by}: each video is scored by the model that was not trained on it. Each fold has its "
        f"own page, in {folds['runs'][0]['run']} and so on."
    )


def _run_figures(run: Mapping[str, Any], history: Mapping[str, Sequence[float]]) -> list[tuple[str, str]]:
    figures = []
    if "best_epoch" in run:
        figures.append((f"best epoch by {run['monitor']}", f"{run['best_epoch']} of {run['epochs']}"))
    elif history:
        figures.append(("epochs so far", str(len(next(iter(history.values()))))))
    if "seconds" in run:
        minutes, seconds = divmod(round(run["seconds"]), 60)
        figures.append(("training time", f"{minutes} min {seconds:02d} s"))
    if "parameters" in run:
        figures.append(("parameters", f"{run['parameters']:,}"))
    return figures


def _doubts(folder: str, path: Path) -> Doubts:
    """Return title, detail and advice of each finding in findings.json, and the checks that did not run."""
    content = _json(path)
    prefix = f"{folder[:-1]}: " if folder else ""
    doubts = []
    for each in content["findings"]:
        severity = "possible" if each.get("code") == LOOK_ALIKES else str(each["severity"])
        doubts.append(Doubt(prefix + each["title"], str(each["detail"]), str(each["advice"]), severity))
    return doubts, str(content["not_checked"])


def _assessment(path: Path) -> Any:
    assessment = _json(path)
    if not isinstance(assessment["parts"], dict):
        raise ValueError("its parts are not a table")
    return assessment


def _baselines(path: Path) -> Any:
    content = _json(path)
    if not content["note"]:  # raises KeyError for a file of another form
        content["part"], content["seconds"], content["rows"], content["targets"].items()
    return content


def _data_name(settings: str) -> str:
    """Return the name of the manifest, or of its folder if it is called manifest; "" if it is unknown."""
    path = Path(str(tomllib.loads(settings).get("data", {}).get("manifest", "")))
    return path.stem if path.stem != "manifest" else path.parent.name or path.stem


def _date(path: Path) -> str:
    """Return the day of the last event of a run, in UTC."""
    last = json.loads(_text(path).rstrip("\n").rpartition("\n")[2])
    return day_of(float(last["time"]))


def day_of(seconds: float) -> str:
    """Return the date of a time in seconds, in UTC.

    >>> day_of(0)
    '1970-01-01'
    """
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def _counts(path: Path, settings: str) -> tuple[Counts | None, bool, str | None]:
    """Return the sizes of the parts, whether the data are private, and how the scan read the files."""
    manifest = Manifest.read(path)
    private = manifest.private or _private(settings)
    table, group = manifest.table, tomllib.loads(settings).get("data", {}).get("split", {}).get("group")
    if "split" not in table.schema.names:
        return None, private, manifest.verified
    columns = dict.fromkeys(name for name in (group, "study") if name in table.schema.names)
    parts = [part for part in pc.unique(table["split"]).to_pylist() if part is not None]
    parts.sort(key=lambda part: _PARTS.index(part) if part in _PARTS else len(_PARTS))
    tables = [table.filter(pc.equal(table["split"], part)) for part in parts]
    views = any(name.startswith("path:") for name in table.schema.names)
    names: list[str] = []
    numbers: list[list[int]] = [[] for _ in tables]
    for name in columns:
        values = [rows[name] for rows in tables]
        names.append(plural(name))
        missing = any(column.null_count for column in values)
        names += [f"{'rows' if views else 'videos'} without a {name}"] if missing else []
        for row, column in zip(numbers, values, strict=True):
            row += [pc.count_distinct(column).as_py(), *([column.null_count] if missing else [])]
    names.append("rows of several views" if views else "videos")
    numbers = [[*row, rows.num_rows] for row, rows in zip(numbers, tables, strict=True)]
    return Counts(names=names, parts=list(zip(parts, numbers, strict=True))), private, manifest.verified


def _private(settings: str) -> bool:
    return bool(tomllib.loads(settings).get("data", {}).get("private"))


def _pictures(path: Path, privacy_note: str) -> Pictures:
    """Return clips with their captions, or none if `privacy_note` gives a reason."""
    with _arrays(path) as stored:
        clips, note = stored["clips"], str(stored["note"])
        if clips.ndim != 5 or clips.dtype != np.uint8:
            raise ValueError(f"clips are {clips.dtype} of shape {clips.shape}")
        if privacy_note and len(clips):
            clips, note = clips[:0], privacy_note
        if not len(clips):
            return Pictures(clips=clips, note=note)
        return Pictures(
            clips=clips,
            captions=[str(caption) for caption in stored["captions"]],
            ids=[str(name) for name in stored["ids"]],
            space=stored.get("space"),
            time=stored.get("time"),
            note=note,
        )


def _arrays(path: Path) -> Any:
    """Return an archive of a run. Raises ValueError if its digest differs."""
    if not is_whole(path):
        raise ValueError("the file is damaged: its digest differs")
    return np.load(path, allow_pickle=False)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _settings(path: Path) -> str:
    """Return the text of settings.toml. Raises ValueError if it was changed, or if a section is not a table."""
    text = _text(path)
    if is_text_changed(text):
        raise ValueError("the file was changed after training: its digest differs")
    settings = tomllib.loads(text)
    faulty = [name for name, section in settings.items() if not isinstance(section, dict) and name != "transforms"]
    faulty += ["data.split"] * (not isinstance(settings.get("data", {}).get("split", {}), dict))
    if faulty:
        raise ValueError(f"{faulty[0]} is not a table")
    return text


def _json(path: Path) -> Any:
    return json.loads(_text(path))


def _spec(path: Path) -> Any:
    """Return the spec of a run. Raises ValueError if the file was changed."""
    if is_text_changed(_text(path)):
        raise ValueError("the file was changed after training: its digest differs")
    return _json(path)


def _flow(path: Path) -> list[tuple[str, int]]:
    return [(str(step), int(rows)) for step, rows in _json(path)]


def _labels(path: Path, settings: str) -> tuple[Labels, dict[str, Labels]]:
    """Return the labels of the first target, and those of the others by name."""
    content = _json(path)
    others = {name: _label(table, settings) for name, table in list(content.get("targets", {}).items())[1:]}
    return _label(content, settings), others


def _label(table: Mapping[str, Any], settings: str) -> Labels:
    raw, classes = np.asarray(table["raw"]), tuple(table.get("classes") or ())
    bins = tomllib.loads(settings).get("sampler", {}).get("bins", "auto")
    return Labels(
        raw=raw, fed=np.asarray(table["fed"]), classes=classes, edges=None if classes else label_edges(raw, bins)
    )


def _history(path: Path) -> dict[str, list[float]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        name: [_number(row[name]) for row in rows] for name in (rows[0] if rows else {}) if name not in ("epoch", None)
    }


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:  # CSVLogger writes NA if an epoch lacks a column
        return float("nan")


def _clips(path: Path) -> tuple[NDArray[np.uint8], list[str]]:
    with _arrays(path) as stored:
        clips = stored["clips"]
        if clips.ndim != 5 or clips.dtype != np.uint8:
            raise ValueError(f"clips are {clips.dtype} of shape {clips.shape}")
        return clips, [str(caption) for caption in stored["captions"]]


def _pixels(path: Path) -> Pixels:
    stored = _json(path)
    pixels = Pixels(
        dtype=str(stored["dtype"]),
        edges=np.asarray(stored["edges"], np.float64),
        counts=np.asarray(stored["counts"], np.int64),
    )
    if pixels.counts.ndim != 1 or pixels.edges.shape != (len(pixels.counts) + 1,) or not len(pixels.counts):
        raise ValueError(f"{pixels.counts.shape} counts between {pixels.edges.shape} edges")
    return pixels
