"""A run folder, or a table of predictions -> what its page shows."""

import csv
import json
import tomllib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cinefeed.digests import is_text_changed, is_whole
from cinefeed.errors import CinefeedError, SettingError
from cinefeed.manifest.parquet import read_parquet_table
from cinefeed.manifest.table import Manifest
from cinefeed.metrics.predictions import Predictions, read_predictions
from cinefeed.report.data import Counts, Labels, PageData, PartScores, Pictures, Pixels, label_edges
from cinefeed.report.words import counted

Doubts = tuple[list[tuple[str, str, str]], str]
_PARTS = ("train", "val", "test")
# Damage that a reader of a broken file meets; each leaves its section out, and the page says so.
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
    """Read a run folder; a file that is missing or damaged leaves its section out. Raises SettingError for no run."""
    path = Path(folder)
    if not any((path / name).is_file() for name in ("settings.toml", "folds.json")):
        raise SettingError(f"{path} is no run folder: settings.toml is missing; give the --out of a 'cinefeed train'")
    missing: dict[str, str] = {}
    several = (path / "folds.json").is_file()  # runs within, each with a page of its own

    def read(
        section: str, name: str, reader: Callable[[Path], Any], default: Any, *, needed: bool = not several
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
    unknown = (None, _private(settings) if settings else None, None)
    counts, private, verified = read("counts", "manifest.parquet", lambda file: _counts(file, settings), unknown)
    hidden = {True: "the data are private", False: "", None: "nothing says whether the data are private"}[private]
    if hidden and private is None and clips is not None:
        missing["clips"] = hidden
    assessment = read("assessment", "assessment.json", _assessment, None, needed=False)
    scored, predictions, metrics = None, (), {}
    if assessment is not None and spec.get("task") == "clip":
        pass  # its predictions are errors, and no score beside a label
    elif assessment is not None:
        scored = read("predictions", "predictions.parquet", read_predictions, None)
    else:
        predictions = read("predictions", "predictions.parquet", lambda file: _part_scores(file, classes), ())
        metrics = read("metrics", "metrics.json", _json, {})
        if predictions and not metrics and not several:
            del missing["metrics"]  # the page measures the predictions
    shown = assessment is not None and not several  # older runs kept no pictures
    unlabelled = several or spec.get("task") in ("clip", "mask")
    labels, others = read(
        "labels", "labels.json", lambda file: _labels(file, settings), (None, {}), needed=not unlabelled
    )
    folds = read("folds", "folds.json", _json, None, needed=False)
    places = [f"{each['run']}/" for each in (folds or {}).get("runs", [])] if several else [""]
    unknown_doubts: Doubts = ([], "leaks, copies and look-alikes between the parts: findings.json is absent or damaged")
    checks = [
        read(f"findings{place}", f"{place}findings.json", partial(_doubts, place), unknown_doubts, needed=False)
        for place in places
    ]
    first = scored.targets[0] if scored is not None else None
    return PageData(
        title=path.resolve().name,
        kind="Cross-validation" if several else "Training run",
        target=spec.get("target", first.name if first is not None else ""),
        task=spec.get("task", first.task if first is not None else "regression"),
        classes=classes or (first.classes if first is not None else ()),
        summary=_folds_summary(folds) if several else _run_summary(run),
        key_figures=_run_figures(run, history),
        private=bool(private),
        doubts=[doubt for doubts, _ in checks for doubt in doubts],
        not_looked_at="; ".join(dict.fromkeys(reason for _, reason in checks if reason)),
        flow=read("flow", "flow.json", _flow, ()),
        counts=counts,
        labels=labels,
        others=others,
        balanced=read("balance", "balance.json", _json, None, needed=False),
        clips=None if hidden else clips,
        captions=captions,
        pixels=read("pixels", "pixels.json", _pixels, None),
        history=history,
        best_epoch=run.get("best_epoch"),
        assessment=assessment,
        scored=scored,
        predictions=predictions,
        metrics=metrics,
        folds=folds,
        worst=read("worst", "worst.npz", lambda file: _pictures(file, hidden), None, needed=shown),
        saliency=read("saliency", "saliency.npz", lambda file: _pictures(file, hidden), None, needed=shown),
        feed_stats=read("feed_stats", "feed_stats.json", _json, None),
        failures=read("failures", "failures.json", _json, None),
        verified=verified,
        settings=settings,
        run=run,
        versions=read("versions", "versions.json", _json, {}),
        missing=missing,
    )


def table_data(predictions: Predictions, assessment: Mapping[str, Any], *, name: str) -> PageData:
    """Return what there is to show of a table of predictions: results, and nothing else."""
    first = predictions.targets[0]
    rows = predictions.table.num_rows
    return PageData(
        title=name,
        kind="Predictions",
        target=first.name,
        task=first.task,
        classes=first.classes,
        summary=f"{rows:,} rows of a table of predictions, measured; of how they were made it says nothing.",
        assessment=assessment,
        scored=predictions,
        warnings=predictions.warnings,
    )


def _run_summary(run: Mapping[str, Any]) -> str:
    if not run:
        return "The run has not ended (run.json is not there): what it wrote so far is shown."
    features = f" It read features of {run['encoded_from']}, not frames." if run.get("encoded_from") else ""
    return (
        f"Ended because {run['stopped']}.{features} The weights kept are those of epoch {run['best_epoch']} of "
        f"{run['epochs']}, the best by {run['monitor']}; all results below are theirs."
    )


def _folds_summary(folds: Mapping[str, Any] | None) -> str:
    if not folds or not folds.get("runs"):
        return "The folds are not finished yet: the same command goes on with them."
    by = f" by {folds['group']}" if folds.get("group") else ""
    return (
        f"{folds['folds']} folds{by}: every video is measured by the model that did not see it in training. Each fold "
        f"has a page of its own, in {folds['runs'][0]['run']} and so on."
    )


def _run_figures(run: Mapping[str, Any], history: Mapping[str, Sequence[float]]) -> list[tuple[str, str]]:
    figures = []
    if "best_epoch" in run:
        figures.append(("best epoch", f"{run['best_epoch']} of {run['epochs']}"))
    elif history:
        figures.append(("epochs so far", str(len(next(iter(history.values()))))))
    if "seconds" in run:
        minutes, seconds = divmod(round(run["seconds"]), 60)
        figures.append(("training time", f"{minutes} min {seconds:02d} s"))
    if "parameters" in run:
        figures.append(("parameters", f"{run['parameters']:,}"))
    return figures


def _doubts(place: str, path: Path) -> Doubts:
    """Return what findings.json says: title, detail and advice of each finding, and what was not looked at."""
    findings = _json(path)
    where = f"{place[:-1]}: " if place else ""
    doubts = [(where + each["title"], str(each["detail"]), str(each["advice"])) for each in findings["findings"]]
    return doubts, str(findings["not_looked_at"])


def _assessment(path: Path) -> Any:
    found = _json(path)
    if not isinstance(found["parts"], dict):
        raise ValueError("its parts are no table")
    return found


def _counts(path: Path, settings: str) -> tuple[Counts | None, bool, str | None]:
    """Return what each part holds, whether the manifest is private (then no picture is shown), and `verified`."""
    manifest = Manifest.read(path)
    private = manifest.private or _private(settings)
    table, group = manifest.table, tomllib.loads(settings).get("data", {}).get("split", {}).get("group")
    if "split" not in table.schema.names:
        return None, private, manifest.verified
    columns = dict.fromkeys(name for name in (group, "study") if name in table.schema.names)
    parts = [each for each in pc.unique(table["split"]).to_pylist() if each is not None]
    parts.sort(key=lambda each: _PARTS.index(each) if each in _PARTS else len(_PARTS))
    chosen = [table.filter(pc.equal(table["split"], part)) for part in parts]
    views = any(name.startswith("path:") for name in table.schema.names)
    names = [*(counted(2, name)[2:] for name in columns), "rows of several views" if views else "videos"]
    rows = [[*(pc.count_distinct(each[name]).as_py() for name in columns), each.num_rows] for each in chosen]
    return Counts(names=names, parts=list(zip(parts, rows, strict=True))), private, manifest.verified


def _private(settings: str) -> bool:
    return bool(tomllib.loads(settings).get("data", {}).get("private"))


def _pictures(path: Path, hidden: str) -> Pictures:
    """Return clips with what is told of them, or no clip where `hidden` says why none may be shown."""
    with _arrays(path) as stored:
        clips, note = stored["clips"], str(stored["note"])
        if clips.ndim != 5 or clips.dtype != np.uint8:
            raise ValueError(f"clips are {clips.dtype} of shape {clips.shape}")
        if hidden and len(clips):
            clips, note = clips[:0], hidden
        if not len(clips):
            return Pictures(clips=clips, note=note)
        return Pictures(
            clips=clips,
            captions=[str(each) for each in stored["captions"]],
            ids=[str(each) for each in stored["ids"]],
            space=stored.get("space"),
            time=stored.get("time"),
            note=note,
        )


def _arrays(path: Path) -> Any:
    """Return the archive of a run; its digest is looked at first. Raises ValueError where that differs."""
    if not is_whole(path):
        raise ValueError("it is damaged: its digest differs")
    return np.load(path, allow_pickle=False)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _settings(path: Path) -> str:
    """Return the text of settings.toml. Raises ValueError where it is none, or was changed."""
    text = _text(path)
    if is_text_changed(text):
        raise ValueError("it is not as training wrote it: its digest differs")
    told = tomllib.loads(text)
    odd = [name for name, each in told.items() if not isinstance(each, dict) and name != "transforms"]
    odd += ["data.split"] * (not isinstance(told.get("data", {}).get("split", {}), dict))
    if odd:
        raise ValueError(f"{odd[0]} is no table")
    return text


def _json(path: Path) -> Any:
    return json.loads(_text(path))


def _spec(path: Path) -> Any:
    """Return a run's spec. Raises ValueError where it was changed."""
    if is_text_changed(_text(path)):
        raise ValueError("it is damaged: its digest differs")
    return _json(path)


def _flow(path: Path) -> list[tuple[str, int]]:
    return [(str(step), int(rows)) for step, rows in _json(path)]


def _labels(path: Path, settings: str) -> tuple[Labels, dict[str, Labels]]:
    """Return the labels of the target that is balanced, and of several targets those of the others."""
    found = _json(path)
    others = {name: _label(each, settings) for name, each in list(found.get("targets", {}).items())[1:]}
    return _label(found, settings), others


def _label(found: Mapping[str, Any], settings: str) -> Labels:
    raw, classes = np.asarray(found["raw"]), tuple(found.get("classes") or ())
    bins = tomllib.loads(settings).get("sampler", {}).get("bins", "auto")
    return Labels(
        raw=raw, fed=np.asarray(found["fed"]), classes=classes, edges=None if classes else label_edges(raw, bins)
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
    except ValueError:  # CSVLogger writes NA where an epoch lacks a column
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


def _part_scores(path: Path, classes: tuple[str, ...]) -> list[PartScores]:
    table = read_parquet_table(path)
    found = []
    for part in table["split"].unique().to_pylist():
        rows = table.filter(pc.equal(table["split"], part))
        targets = rows["target"].to_numpy(zero_copy_only=False)
        if classes:
            targets = np.array([classes.index(name) for name in targets])
        if "score" in rows.column_names:
            scores = rows["score"].to_numpy()
        else:
            scores = np.stack([rows[f"score_{name}"].to_numpy() for name in classes], axis=1)
        found.append(PartScores(part=part, targets=targets, scores=np.asarray(scores, np.float64)))
    return found
