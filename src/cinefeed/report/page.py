"""One self-contained HTML page: of a feed before training, or of a run."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import cinefeed
from cinefeed.errors import CinefeedError, MissingExtraError, SettingError
from cinefeed.feed.feed import Feed
from cinefeed.metrics import Metrics, classification_metrics, regression_metrics
from cinefeed.report.balance import balance_facts, balance_figure
from cinefeed.report.data import PageData, Predictions, feed_page, run_data
from cinefeed.report.figures import clips_sheet, feed_time_figure, labels_figure, learning_curves
from cinefeed.report.results import confusion_figure, pr_figure, predicted_vs_true, roc_figure
from cinefeed.report.style import data_uri
from cinefeed.training.run import write_atomically

_STAGES = ("read", "decode", "transform")
_HEADLINES = ("r2", "mae", "auroc", "balanced_accuracy")
_NAMES = {
    "r2": "R²",
    "rmse": "RMSE",
    "mae": "MAE",
    "pearson_r": "Pearson r",
    "f1": "F1",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "balanced_accuracy": "balanced accuracy",
}


def inspect_page(
    feed: Feed, *, out: str | Path, val: Feed | None = None, failures: Sequence[Mapping[str, str]] | None = None
) -> Path:
    """Write the page of a feed before any training: labels raw and as fed, augmented clips, files that failed.

    `failures` lists files (id, path, error) that were left out before the feed; without it, those rows of the feed's
    own manifest that a scan found damaged. Raises SettingError where `out` cannot be written, MissingExtraError
    without matplotlib and jinja2.
    """
    return write_report(feed_page(feed, val=val, failures=failures), out=Path(out))


def run_page(folder: str | Path, *, out: str | Path | None = None) -> Path:
    """Write the page of a run, by default as report.html in its folder; return where it is.

    A file that the folder lacks leaves its section out, and the page says so. Raises as `inspect_page`, and
    SettingError where `folder` holds no run.
    """
    return write_report(run_data(folder), out=Path(folder) / "report.html" if out is None else Path(out))


def write_report(page: PageData, *, out: Path) -> Path:
    """Write a page of a feed or a run."""
    return write_html(render(page), out=out)


def write_html(html: str, *, out: Path) -> Path:
    """Write a page, whole or not at all. Raises SettingError where it cannot be written."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, lambda partial: partial.write_text(html, encoding="utf-8"))
    except OSError as error:
        raise SettingError(f"{out} cannot be written: {error.strerror}; name another place") from error
    return out


class Figure(NamedTuple):
    """An SVG on the page, and as a file to save."""

    svg: Any  # jinja2's Markup: SVG is not escaped
    uri: str
    file: str
    caption: str


def render(page: PageData) -> str:
    """Return the page as HTML that asks no network for anything."""
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise MissingExtraError("jinja2", extra="report") from error
    template = files("cinefeed.report").joinpath("template.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    metrics = _metric_table(page)
    return environment.from_string(template).render(
        page=page,
        headline=_headline(page),
        figures=_figures(page),
        results=[_result(page, each) for each in page.predictions],
        metrics=metrics,
        balance_facts=balance_facts(page.balanced) if page.balanced is not None else [],
        verdict=_verdict(page),
        version=cinefeed.__version__,
    )


def _figure(svg: str, name: str, caption: str = "") -> Figure:
    from markupsafe import Markup

    return Figure(Markup(svg), data_uri(svg), f"{name}.svg", caption)


def _figures(page: PageData) -> dict[str, Figure | None]:
    """Return the figures of data, training and feed by section; None where there is nothing to show."""
    found: dict[str, Figure | None] = dict.fromkeys(("labels", "balance", "clips", "curves", "time"))
    if page.labels is not None and len(page.labels.raw) and len(page.labels.fed):
        svg = labels_figure(
            page.labels.raw,
            fed=page.labels.fed,
            classes=page.labels.classes,
            edges=page.labels.edges,
            name=page.target or "label",
        )
        found["labels"] = _figure(svg, "labels", "Training labels as they are, and as one epoch feeds them.")
    if page.balanced is not None and len(page.balanced["names"]) > 1:
        svg = balance_figure(page.balanced, name=page.target or "label")
        found["balance"] = _figure(svg, "balance", "What balancing asks for and reaches, and what it costs in repeats.")
    if page.clips is not None and len(page.clips):
        found["clips"] = _figure(clips_sheet(page.clips, captions=page.captions), "clips", "Time runs to the right.")
    if any(page.history.values()):
        svg = learning_curves(page.history, best_epoch=page.best_epoch)
        found["curves"] = _figure(svg, "curves")
    stats = page.feed_stats or {}
    if stats.get("elapsed_seconds"):
        svg = feed_time_figure(
            {stage: float(stats.get(f"{stage}_seconds") or 0.0) for stage in _STAGES},
            wait_seconds=float(stats.get("wait_seconds") or 0.0),
            elapsed_seconds=float(stats["elapsed_seconds"]),
            workers=int(stats.get("workers", 1)),
        )
        found["time"] = _figure(svg, "time", "Shares of the time on the clock.")
    return found


def _result(page: PageData, part: Predictions) -> dict[str, Any]:
    """Return the figures of one part's predictions; where it does not allow one, a note says why."""
    name, targets, scores, classes = part.part, part.targets, part.scores, page.classes
    try:
        if page.task == "regression":
            svg = predicted_vs_true(targets, scores=scores, name=page.target or "label")
            return {"figures": [_figure(svg, f"predicted_{name}", f"{name}, {len(targets):,} videos")], "note": ""}
        svg = confusion_figure(targets, scores=scores, classes=classes)
        figures = [_figure(svg, f"confusion_{name}", f"{name}, {len(targets):,} videos")]
        reasons = classification_metrics(targets=targets, scores=scores, classes=classes).reasons
        if reasons:
            return {"figures": figures, "note": f"{name} has no ROC and precision-recall curves: {reasons['auroc']}."}
        curves = (("roc", "ROC", roc_figure), ("precision_recall", "precision and recall", pr_figure))
        for file, caption, draw in curves:
            svg = draw(targets, scores=scores, classes=classes)
            figures.append(_figure(svg, f"{file}_{name}", f"{name}, {caption}"))
        return {"figures": figures, "note": ""}
    except CinefeedError as error:
        return {"figures": [], "note": f"Figures of {name} are left out: {error}"}


def _measured(page: PageData) -> dict[str, Metrics]:
    """Return metrics by part from the predictions, for the reasons why one is not defined."""
    found = {}
    for part in page.predictions:
        try:
            found[part.part] = (
                regression_metrics(targets=part.targets, scores=part.scores)
                if page.task == "regression"
                else classification_metrics(targets=part.targets, scores=part.scores, classes=page.classes)
            )
        except CinefeedError:
            continue  # _result says it, beside the figures that it costs
    return found


def _metric_table(page: PageData) -> dict[str, Any]:
    measured = _measured(page)
    tables: Mapping[str, Mapping[str, Any]] = page.metrics or measured
    parts = list(tables)
    names = list(dict.fromkeys(name for table in tables.values() for name in table))
    rows = [(_title(name), [_say(tables[part].get(name)) for part in parts]) for name in names]
    reasons = [
        f"{_title(name)} is not defined for {part}: {reason}."
        for part, table in measured.items()
        for name, reason in table.reasons.items()
    ]
    return {"parts": parts, "rows": rows, "reasons": reasons}


def _title(metric: str) -> str:
    name = _NAMES.get(metric, metric.replace("_", " "))
    return name[:1].upper() + name[1:]


def _say(value: object) -> str:
    if not isinstance(value, int | float) or not np.isfinite(value):
        return "not defined"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.4g}"


def _headline(page: PageData) -> list[tuple[str, str]]:
    """Return the two numbers that the page opens with, of the test part where there is one."""
    tables: Mapping[str, Mapping[str, Any]] = page.metrics or _measured(page)
    part = "test" if "test" in tables else next(iter(tables), "")
    table = tables.get(part, {})
    return [(f"{part} {_NAMES[name]}", _say(table[name])) for name in _HEADLINES if table.get(name) is not None]


def _verdict(page: PageData) -> str:
    stats = page.feed_stats or {}
    words = str(stats.get("verdict", ""))
    if not words:
        return ""
    speed = f" It handed out {stats['clips_per_second']:,.0f} clips a second." if stats.get("clips_per_second") else ""
    return f"{words[0].upper()}{words[1:]}.{speed}"
