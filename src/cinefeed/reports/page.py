"""Self-contained HTML pages of a feed before training, of a run, or of a table of predictions."""

import base64
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cinefeed.core.errors import SettingError
from cinefeed.core.locks import write_text
from cinefeed.core.moving import animated_webp
from cinefeed.feed.feed import Feed
from cinefeed.metrics.assess import assess
from cinefeed.metrics.headline import headline_sentences
from cinefeed.metrics.names import folds_note
from cinefeed.metrics.predictions import Task, read_predictions
from cinefeed.metrics.thresholds import ThresholdRule
from cinefeed.reports import results
from cinefeed.reports.animation import with_saliency
from cinefeed.reports.balance import balance_figure, balance_table
from cinefeed.reports.data import Labels, PageData, Pictures, feed_page
from cinefeed.reports.figures import clips_sheet, feed_time_figure, labels_figure, learning_curves, pixels_figure
from cinefeed.reports.folder import day_of, run_data, table_data
from cinefeed.reports.formatting import Cell, cell, title
from cinefeed.reports.methods import Methods, keep_methods, methods_of
from cinefeed.reports.style import Figure, on_page
from cinefeed.reports.templates import from_template

_STAGES = ("read", "decode", "transform")


def inspect_page(
    feed: Feed, *, out: str | Path, val: Feed | None = None, failures: Sequence[Mapping[str, str]] | None = None
) -> Path:
    """Write the page of a feed before training: labels raw and as fed, augmented clips, files that failed.

    `failures` lists files (id, path, error) that were left out before the feed; by default it is the rows of the feed's
    manifest that the scan reported as damaged. Raises SettingError if `out` cannot be written, and MissingExtraError
    without matplotlib and jinja2.
    """
    return write_report(feed_page(feed, val=val, failures=failures), out=Path(out))


def run_page(folder: str | Path, *, out: str | Path | None = None) -> Path:
    """Write the page of a run, by default as report.html in its folder; return its path.

    methods.md is written beside the page, unless an author has changed the existing one or the settings cannot be read.
    The section of a missing file is left out, and the page gives the reason. Raises the errors of `inspect_page`, and
    SettingError if `folder` is not that of a run.
    """
    page = run_data(folder)
    path = Path(folder) / "report.html" if out is None else Path(out)
    _check_suffix(path)
    if page.settings:  # without settings nearly every item would be a guess
        keep_methods(methods_of(page), path.with_name("methods.md"))
    return write_report(page, out=path)  # last: a run with a page is complete


def table_page(
    table: str | Path,
    *,
    out: str | Path | None = None,
    task: Task | Mapping[str, Task] | None = None,
    classes: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    unit: str | None = None,
    cluster: str | None = None,
    subgroups: Sequence[str] = (),
    rule: ThresholdRule = "f1",
) -> Path:
    """Write the page of a table of predictions (Parquet or CSV), by cinefeed or any other program; return its path.

    Args:
        table: The file, with the columns that `cinefeed.metrics.predictions.read_predictions` describes.
        out: Path of the page, by default beside the table.
        task: Task, or task by target; by default inferred from the columns.
        classes: Class names, or class names by target; by default inferred from the columns.
        unit: Column of the unit that counts once, by default the video.
        cluster: Column of the unit that bootstrap samples draw as a whole, such as the patient.
        subgroups: Columns by which metrics are computed separately.
        rule: How the threshold of two classes is chosen on the validation part: "f1" or "youden".

    Raises:
        TableError, ColumnError, LabelError: The table cannot be read or evaluated.
        SettingError: The page cannot be written.
    """
    path = Path(table)
    predictions = read_predictions(path, task=task, classes=classes)
    assessment = assess(predictions, unit=unit, cluster=cluster, subgroups=subgroups, rule=rule)
    page = table_data(predictions, assessment, name=path.name, date=day_of(path.stat().st_mtime))
    return write_report(page, out=path.with_suffix(".html") if out is None else Path(out))


def write_report(page: PageData, *, out: Path) -> Path:
    """Write a page of a feed or a run."""
    return write_html(render(page), out=out)


def write_html(html: str, *, out: Path) -> Path:
    """Write a page, whole or not at all. Raises SettingError if it cannot be written or its name is not *.html."""
    _check_suffix(out)
    write_text(html, out)
    return out


def _check_suffix(out: Path) -> None:
    if out.suffix.lower() not in (".html", ".htm"):
        raise SettingError(f"{out} cannot be written: a page is HTML; name it {out.stem}.html")


def render(page: PageData) -> str:
    """Return the page as HTML that loads nothing from a network."""
    figures = _figures(page)
    worst, saliency = _worst(page.worst), _saliency(page.saliency)
    methods = methods_of(page) if page.settings else None
    return from_template(
        "template.html",
        page=page,
        first_sentences=[]
        if page.assessment is None
        else [*headline_sentences(page.assessment, baselines=page.baselines).values()],
        headline=[] if page.assessment is None else results.headline(page.assessment, page.baselines),
        figures=figures,
        epoch_note=_epoch_note(page),
        has_pictures=bool(worst or saliency or figures["clips"]),
        results=None
        if page.assessment is None
        else results.results(
            page.assessment, page.predictions, folds=page.is_cross_validation, baselines=page.baselines
        ),
        folds=_folds(page.folds, page.assessment),
        worst=worst,
        several_targets=page.predictions is not None and len(page.predictions.targets) > 1,
        saliency=saliency,
        methods=methods,
        methods_uri=_as_file(methods) if methods else "",
        balance_table=balance_table(page.balance) if page.balance is not None else [],
        verdict=_verdict(page),
    )


def _epoch_note(page: PageData) -> str:
    """Return how metrics of an epoch differ from those of the tables, "" if they do not."""
    evaluate = tomllib.loads(page.settings).get("evaluate", {}) if page.settings else {}
    per_epoch, in_tables = [], []
    if evaluate.get("clips", 1) > 1:
        per_epoch.append("one clip per video")
        in_tables.append(f"the mean score of {evaluate['clips']} clips")
    results = [
        result for targets in (page.assessment or {"parts": {}})["parts"].values() for result in targets.values()
    ]
    if any(result.get("threshold_from") in ("val", "frozen") for result in results):
        per_epoch.append("the threshold 0.5")
        in_tables.append("the threshold of the run")
    if unit := evaluate.get("unit"):
        per_epoch.append("each video by itself")
        in_tables.append(f"the mean score of the videos of a {unit}")
    if not per_epoch:
        return ""
    return f"They differ from the tables. Per epoch: {', '.join(per_epoch)}; in the tables: {', '.join(in_tables)}."


def _figures(page: PageData) -> dict[str, Any]:
    """Return the figures of data, training and feed by section, None if there is none; of labels a list."""
    figures: dict[str, Any] = dict.fromkeys(("balance", "clips", "pixels", "curves", "time"))
    labels_by_target = {page.target: page.labels, **page.other_labels}
    figures["labels"] = [
        _labels_figure(name, labels, suffix=f"_{name}" if page.other_labels else "")
        for name, labels in labels_by_target.items()
        if labels is not None and len(labels.raw) and len(labels.fed)
    ]
    if page.balance is not None and len(page.balance["names"]) > 1:
        svg = balance_figure(page.balance, name=page.target or "label")
        figures["balance"] = on_page(svg, "balance", "Left: shares of the labels. Right: draws of a video in an epoch.")
    if page.clips is not None and len(page.clips):
        svg = clips_sheet(page.clips, captions=page.captions)
        figures["clips"] = on_page(svg, "clips", "Time runs from left to right.")
    if page.pixels is not None and page.pixels.counts.any():
        svg = pixels_figure(page.pixels.counts, edges=page.pixels.edges, dtype=page.pixels.dtype)
        figures["pixels"] = on_page(svg, "pixels", f"All pixels of the first batch. {page.pixels.summary}")
    if any(page.history.values()):
        svg = learning_curves(page.history, best_epoch=page.best_epoch)
        figures["curves"] = on_page(svg, "curves")
    stats = page.feed_stats or {}
    if stats.get("elapsed_seconds"):
        svg = feed_time_figure(
            {stage: float(stats.get(f"{stage}_seconds") or 0.0) for stage in _STAGES},
            wait_seconds=float(stats.get("wait_seconds") or 0.0),
            elapsed_seconds=float(stats["elapsed_seconds"]),
            workers=int(stats.get("workers", 1)),
        )
        figures["time"] = on_page(svg, "time", "Shares of the elapsed time.")
    return figures


def _labels_figure(name: str, labels: Labels, *, suffix: str) -> Figure:
    svg = labels_figure(labels.raw, fed=labels.fed, classes=labels.classes, edges=labels.edges, name=name or "label")
    return on_page(svg, f"labels{suffix}", "Training labels, and labels of the draws of one epoch.")


def _worst(pictures: Pictures | None) -> list[tuple[str, str, str]]:
    """Return animation, name and caption of each of the worst videos."""
    if pictures is None or not len(pictures.clips):
        return []
    return [
        (animated_webp(clip), name, caption)
        for clip, name, caption in zip(pictures.clips, pictures.ids, pictures.captions, strict=True)
    ]


def _saliency(pictures: Pictures | None) -> list[tuple[str, str, str]]:
    """Return animation, name and caption of each video with a saliency map."""
    if pictures is None or not len(pictures.clips) or pictures.space is None or pictures.time is None:
        return []
    animations = []
    for i, clip in enumerate(pictures.clips):
        space, time = pictures.space[i], pictures.time[i]
        cell, span = max(space.ravel(), key=abs), max(time.ravel(), key=abs)
        caption = f"{pictures.captions[i]} · change of the score: cell {-cell:+.3g}, span {-span:+.3g}"
        animations.append((animated_webp(with_saliency(clip, space=space, time=time)), pictures.ids[i], caption))
    return animations


def _folds(folds: Mapping[str, Any] | None, assessment: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the table of a cross-validation, the mean over the folds, then each fold, and a note on the mean."""
    if not folds or not folds.get("runs"):
        return None
    runs = folds["runs"]
    rows = [("videos", [Cell(""), *(Cell(f"{run['rows']:,}") for run in runs)])]
    for name, estimate in folds["metrics"].items():
        of_runs = [cell({"value": run["metrics"].get(name)}) for run in runs]
        rows.append((title(name), [cell({**estimate, "value": estimate["mean"]}), *of_runs]))
    note = folds_note((assessment or {}).get("parts", {}))
    return {"head": ["mean", *(f"fold {run['fold']}" for run in runs)], "rows": rows, "note": note}


def _as_file(methods: Methods) -> str:
    """Return methods.md as a data URI."""
    return "data:text/markdown;charset=utf-8;base64," + base64.b64encode(methods.markdown().encode()).decode()


def _verdict(page: PageData) -> str:
    """Return which of feed and model is the bottleneck, and the feed's throughput, as sentences."""
    stats = page.feed_stats or {}
    verdict = str(stats.get("verdict", ""))
    if not verdict:
        return ""
    speed = f" Throughput: {stats['clips_per_second']:,.0f} clips/s." if stats.get("clips_per_second") else ""
    return f"{verdict[0].upper()}{verdict[1:]}.{speed}"
