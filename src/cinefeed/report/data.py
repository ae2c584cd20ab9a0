"""What a page shows, as plain data: taken from a run folder, or from a feed before any training."""

import csv
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cinefeed.balance.strata import bin_strata, check_bins
from cinefeed.errors import SettingError
from cinefeed.feed.feed import Feed
from cinefeed.feed.targets import Task
from cinefeed.training.flow import sheet

# Damage that a reader of a broken file meets; each leaves its section out, and the page says so.
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, pa.ArrowException)


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Labels of the training rows as they are, and as one epoch feeds them: numbers, or class names."""

    raw: NDArray[Any]
    fed: NDArray[Any]
    classes: tuple[str, ...] = ()  # empty for numbers
    edges: NDArray[np.float64] | None = None  # of the bins that numbers are balanced by


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Targets and scores of one part: numbers, or class numbers and probabilities as cinefeed.metrics takes them."""

    part: str
    targets: NDArray[Any]
    scores: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class PageData:
    """All that a page can show; what is None or empty is left out, and `missing` says why where it should be there."""

    title: str
    kind: str  # what the page is about, above the title
    target: str = ""
    task: Task = "regression"
    classes: tuple[str, ...] = ()
    summary: str = ""
    key_figures: Sequence[tuple[str, str]] = ()
    flow: Sequence[tuple[str, int]] = ()
    labels: Labels | None = None
    balance: str = ""
    balanced: Mapping[str, Any] | None = None  # BalanceReport.as_dict()
    clips: NDArray[np.uint8] | None = None  # (clips, frames, height, width, channels)
    captions: Sequence[str] = ()
    history: Mapping[str, Sequence[float]] = field(default_factory=dict)
    best_epoch: int | None = None  # counted from 1
    predictions: Sequence[Predictions] = ()
    metrics: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    feed_stats: Mapping[str, Any] | None = None
    failures: Sequence[Mapping[str, str]] | None = None  # id, path, error
    settings: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)  # section: why it is left out


def feed_page(feed: Feed, *, val: Feed | None = None, failures: Sequence[Mapping[str, str]] | None = None) -> PageData:
    """Return what there is to show of a feed before training."""
    spec = feed.spec
    labels, balance, balanced = None, "", None
    if spec.target:
        plan = feed.plan()
        drawn = np.bincount(plan.rows, minlength=len(feed.manifest))
        edges = None if spec.classes else _edges(feed.labels, getattr(feed.sampler, "bins", "auto"))
        labels = Labels(raw=feed.labels, fed=feed.labels[plan.rows], classes=spec.classes, edges=edges)
        balance = _balance(str(feed.sampler), drawn)
        balanced = feed.balance().as_dict()
    clips, captions = sheet(feed)
    table = feed.manifest.table
    if failures is None and "error" in table.column_names:
        shown = pa.table({"id": table["id"], "path": feed.manifest.shown(), "error": table["error"]})
        bad = shown.filter(pc.is_valid(table["error"]))
        failures = bad.to_pylist()
    figures = [("videos", f"{len(feed.manifest):,}"), ("draws an epoch", f"{len(feed.plan()):,}")]
    figures += [("validation videos", f"{len(val.manifest):,}")] if val is not None else []
    if "num_frames" in table.column_names and pc.count(table["num_frames"]).as_py():
        figures.append(("frames", f"{pc.sum(table['num_frames']).as_py():,}"))
    if "size_bytes" in table.column_names and pc.count(table["size_bytes"]).as_py():
        figures.append(("megabytes", f"{pc.sum(table['size_bytes']).as_py() / 1e6:,.0f}"))
    return PageData(
        title=spec.target or "clips",
        kind="Data and feed, before training",
        target=spec.target,
        task=spec.task,
        classes=spec.classes,
        summary=feed.summary().partition("\n")[0],
        key_figures=figures,
        flow=list(feed.manifest.history),
        labels=labels,
        balance=balance,
        balanced=balanced,
        clips=clips,
        captions=captions.tolist(),
        failures=failures,
    )


def _balance(sampler: str, drawn: NDArray[np.int64]) -> str:
    return (
        f"{sampler[:1].upper()}{sampler[1:]}: {len(drawn):,} videos, {drawn.sum():,} draws an epoch; "
        f"of one video at most {drawn.max()}, and {np.count_nonzero(drawn == 0):,} videos are not drawn in this epoch."
    )


def _edges(labels: NDArray[Any], bins: Any) -> NDArray[np.float64] | None:
    """Return the bins' edges, or None where every whole value is its own bin."""
    return bin_strata(labels, bins=check_bins(bins)).edges


def run_data(folder: str | Path) -> PageData:
    """Read a run folder; a file that is missing or damaged leaves its section out. Raises SettingError for no run."""
    path = Path(folder)
    if not (path / "settings.toml").is_file():
        raise SettingError(f"{path} is no run folder: settings.toml is missing; give the --out of a 'cinefeed train'")
    missing: dict[str, str] = {}

    def read(section: str, name: str, reader: Callable[[Path], Any], default: Any) -> Any:
        try:
            return reader(path / name)
        except FileNotFoundError:
            missing[section] = f"{name} is not in the run folder"
        except _UNREADABLE as error:
            missing[section] = f"{name} cannot be read ({type(error).__name__}: {error})"
        return default

    settings = read("settings", "settings.toml", _text, "")
    spec = read("spec", "spec.json", _json, {})
    run = read("run", "run.json", _json, {})
    classes = tuple(spec.get("classes", ()))
    history = read("history", "history.csv", _history, {})
    clips, captions = read("clips", "clips.npz", _clips, (None, []))
    predictions = read("predictions", "predictions.parquet", lambda file: _predictions(file, classes), ())
    metrics = read("metrics", "metrics.json", _json, {})
    if predictions and not metrics:
        del missing["metrics"]  # the page measures the predictions
    stats = read("feed_stats", "feed_stats.json", _json, None)
    return PageData(
        title=path.resolve().name,
        kind="Training run",
        target=spec.get("target", ""),
        task=spec.get("task", "regression"),
        classes=classes,
        summary=_run_summary(run),
        key_figures=_run_figures(run, history),
        flow=read("flow", "flow.json", _flow, ()),
        labels=read("labels", "labels.json", lambda file: _labels(file, settings), None),
        balanced=read("balance", "balance.json", _json, None),
        clips=clips,
        captions=captions,
        history=history,
        best_epoch=run.get("best_epoch"),
        predictions=predictions,
        metrics=metrics,
        feed_stats=stats,
        failures=read("failures", "failures.json", _json, None),
        settings=settings,
        versions=read("versions", "versions.json", _json, {}),
        missing=missing,
    )


def _run_summary(run: Mapping[str, Any]) -> str:
    if not run:
        return "The run has not ended (run.json is not there): what it wrote so far is shown."
    return (
        f"Ended because {run['stopped']}. The weights kept are those of epoch {run['best_epoch']} of {run['epochs']}, "
        f"the best by {run['monitor']}; all results below are theirs."
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


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _json(path: Path) -> Any:
    return json.loads(_text(path))


def _flow(path: Path) -> list[tuple[str, int]]:
    return [(str(step), int(rows)) for step, rows in _json(path)]


def _labels(path: Path, settings: str) -> Labels:
    found = _json(path)
    raw, classes = np.asarray(found["raw"]), tuple(found.get("classes") or ())
    bins = tomllib.loads(settings).get("sampler", {}).get("bins", "auto")
    return Labels(raw=raw, fed=np.asarray(found["fed"]), classes=classes, edges=None if classes else _edges(raw, bins))


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
    with np.load(path, allow_pickle=False) as stored:
        clips = stored["clips"]
        if clips.ndim != 5 or clips.dtype != np.uint8:
            raise ValueError(f"clips are {clips.dtype} of shape {clips.shape}")
        return clips, [str(caption) for caption in stored["captions"]]


def _predictions(path: Path, classes: tuple[str, ...]) -> list[Predictions]:
    table = pq.read_table(path)
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
        found.append(Predictions(part=part, targets=targets, scores=np.asarray(scores, np.float64)))
    return found
