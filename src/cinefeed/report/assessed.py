"""An assessment -> tables and figures of a page: every target and part of it, and all that was measured there."""

from collections.abc import Mapping, Sequence
from typing import Any

from cinefeed.metrics.predictions import Predictions
from cinefeed.report.agreement import forest_figure
from cinefeed.report.drawn import part_figures
from cinefeed.report.style import on_page
from cinefeed.report.words import HEADLINES, Cell, cell, counted, metric_name, say, title

Plain = Mapping[str, Any]

_FIRST = ("test", "external")  # parts that a reader looks for first
_IN_FOREST = {"regression": ("mae", "r2"), "binary": ("auroc",), "multiclass": ("balanced_accuracy", "auroc")}
_MANY = 8  # classes: a confusion of more takes the whole width
_CHOSEN = {
    "val": "chosen on the validation part, where F1 is best",
    "frozen": "that of the training run, and not chosen here",
    "0.5": "as there is no validation part to choose one on",
    "folds": "the mean of those that the folds chose, each on its own validation part",
}


def results(assessment: Plain, predictions: Predictions | None, *, folds: bool = False) -> dict[str, Any]:
    """Return what the page shows of an assessment; without predictions the figures that need every score are left out.

    The result holds `words`, what the intervals draw, and of each of `targets` its table over all parts, and details
    part by part. `folds` says that it is of a cross-validation.
    """
    parts = ordered(assessment["parts"])
    names = list(dict.fromkeys(name for part in parts for name in assessment["parts"][part]))
    return {
        "words": _how(assessment),
        "drawn": counted(2, _drawn(assessment))[2:],
        "targets": [_target(assessment, name, parts, predictions, folds=folds) for name in names],
        "parts": parts,
    }


def ordered(parts: Plain) -> list[str]:
    """Return the names of parts, the one that results are quoted of first."""
    return sorted(parts, key=lambda part: _FIRST.index(part) if part in _FIRST else len(_FIRST))


def headline(assessment: Plain) -> list[tuple[str, str]]:
    """Return the two numbers that the page opens with: of the first part and target."""
    part = next(iter(ordered(assessment["parts"])), None)
    if part is None or not assessment["parts"][part]:
        return []
    targets = assessment["parts"][part]
    name = next(iter(targets))
    metrics = targets[name]["metrics"]
    found = []
    for metric in [each for each in HEADLINES if metrics.get(each, {}).get("value") is not None][:2]:
        shown = cell(metrics[metric])
        words = f"{part} {metric_name(metric)}" + (f" of {name}" if len(targets) > 1 else "")
        found.append((words + (f", {shown.interval}" if shown.interval else ""), shown.value))
    return found


def _how(assessment: Plain) -> str:
    """Say in words what a number stands for, and what its interval."""
    unit = assessment.get("unit")
    words = "Scores of several clips of a video are averaged"
    words += f", then those of the videos of a {unit}: each {unit} counts once" if unit else "; each video counts once"
    if assessment.get("resamples"):
        level = f"{100 * assessment.get('level', 0.95):.3g} %"
        words += (
            f". In brackets, the {level} interval of {assessment['resamples']:,} bootstrap samples, in which every "
        )
        words += f"{_drawn(assessment)} is drawn, or left out, as a whole"
    return words + ". Nothing is balanced or augmented."


def _drawn(assessment: Plain) -> str:
    """Name what a bootstrap sample draws."""
    return str(assessment.get("cluster") or assessment.get("unit") or "video")


def _target(
    assessment: Plain, name: str, parts: Sequence[str], predictions: Predictions | None, *, folds: bool
) -> dict[str, Any]:
    measured = {part: assessment["parts"][part][name] for part in parts if name in assessment["parts"][part]}
    metrics = list(dict.fromkeys(metric for each in measured.values() for metric in each["metrics"]))
    unit = assessment.get("unit")
    counts = [("clips", "clips"), ("videos", "videos"), ("units", unit), ("clusters", assessment.get("cluster"))]
    rows = [
        (
            words if key in ("clips", "videos") else counted(2, words)[2:],
            [f"{each.get(key, 0):,}" for each in measured.values()],
        )
        for key, words in counts
        if words
    ]
    if any(each.get("missing") for each in measured.values()):
        rows.append(("without a label", [f"{each.get('missing', 0):,}" for each in measured.values()]))
    if unit and unit == assessment.get("cluster"):
        rows = [row for place, row in enumerate(rows) if row[0] not in [before[0] for before in rows[:place]]]
    return {
        "name": name,
        "task": next(iter(measured.values()))["task"],
        "many": len(next(iter(measured.values()))["classes"]) > _MANY,
        "parts": list(measured),
        "counts": rows,
        "rows": [
            (title(metric), [cell(each["metrics"].get(metric)) for each in measured.values()]) for metric in metrics
        ],
        "reasons": [line for part, each in measured.items() for line in _reasons(part, each["metrics"])],
        "details": [_details(part, each, name, predictions, unit, folds=folds) for part, each in measured.items()],
    }


def _reasons(part: str, metrics: Plain) -> list[str]:
    """Return why metrics of a part have no interval, a line a reason.

    >>> _reasons("val", {"f1": {"reason": "one class"}, "auroc": {"reason": "one class"}, "ece": {}})
    ['No interval for F1, AUROC of val: one class.']
    """
    by_reason: dict[str, list[str]] = {}
    for metric, each in metrics.items():
        if each.get("reason"):
            by_reason.setdefault(each["reason"], []).append(title(metric))
    return [f"No interval for {', '.join(names)} of {part}: {reason}." for reason, names in by_reason.items()]


def _details(
    part: str, measured: Plain, name: str, predictions: Predictions | None, unit: str | None, *, folds: bool
) -> dict[str, Any]:
    """Return figures and tables of one part of one target."""
    several = predictions is not None and len(predictions.targets) > 1
    tail = f"_{name}" if several else ""
    figures, note = part_figures(part, measured, name, predictions, unit, tail=tail)
    threshold = measured.get("threshold")
    words = f"{counted(measured['units'], unit or 'video')}."
    if threshold is not None:
        source = str(measured.get("threshold_from"))
        chosen = _CHOSEN.get("folds" if folds and source == "frozen" else source, "")
        words += f" The threshold is {threshold:.3g}" + (f", {chosen}." if chosen else ".")
    by_class = measured.get("by_class") or {}
    return {
        "part": part,
        "words": words,
        "figures": figures,
        "note": note,
        "by_class": _of_classes(by_class, measured.get("counts") or {}) if by_class else None,
        "corrected": _corrected(measured),
        "subgroups": [
            _subgroup(f"{part}{tail}", column, rows, measured)
            for column, rows in (measured.get("subgroups") or {}).items()
        ],
    }


def _table(rows: Sequence[tuple[str, Plain]]) -> dict[str, Any]:
    """Return a table of metrics, a row for each name; two groups of a column may have the same."""
    metrics = list(dict.fromkeys(metric for _, each in rows for metric in each))
    return {
        "head": ["ECE" if metric == "ece" else title(metric) for metric in metrics],
        "rows": [(name, [cell(each.get(metric)) for metric in metrics]) for name, each in rows],
    }


def _of_classes(by_class: Mapping[str, Plain], counts: Mapping[str, int]) -> dict[str, Any]:
    table = _table(list(by_class.items()))
    return {
        "head": ["number", *table["head"]],
        "rows": [
            (name, [Cell(f"{counts[name]:,}" if name in counts else ""), *cells]) for name, cells in table["rows"]
        ],
    }


def _corrected(measured: Plain) -> dict[str, Any] | None:
    """Return metrics as scored, and corrected by how often balancing drew each class."""
    corrected = measured.get("corrected")
    if not corrected:
        return None
    rows = [
        (title(metric), [cell(measured["metrics"].get(metric)), cell(each)])
        for metric, each in corrected["metrics"].items()
    ]
    both = [each.get("calibration", {}).get("ece") for each in (measured, corrected)]
    if not any(name == title("ece") for name, _ in rows):
        rows.append((title("ece"), [Cell(say(each)) for each in both]))
    if corrected.get("threshold") is not None:
        rows.append(("Threshold", [Cell(say(each.get("threshold"))) for each in (measured, corrected)]))
    return {"head": ["as scored", "corrected"], "rows": rows}


def _group(row: Plain) -> str:
    return "not known" if row["value"] is None else str(row["value"])


def _subgroup(part: str, column: str, rows: Sequence[Plain], measured: Plain) -> dict[str, Any]:
    table = _table([(_group(each), each["metrics"]) for each in rows])
    table["rows"] = [
        (name, [Cell(f"{each['units']:,}"), *cells]) for (name, cells), each in zip(table["rows"], rows, strict=True)
    ]
    table["head"] = ["number", *table["head"]]
    metric = next((one for one in _IN_FOREST[measured["task"]] if one in measured["metrics"]), None)
    figure = None
    if metric is not None and len(rows) > 1:
        points = [(f"{_group(each)} ({each['units']:,})", each["metrics"].get(metric, {})) for each in rows]
        if any(each.get("value") is not None for _, each in points):
            overall = measured["metrics"][metric].get("value")
            svg = forest_figure(points, overall=overall, name=title(metric))
            figure = on_page(svg, f"subgroups_{column}_{part}", f"{title(metric)} by {column}")
    return {"column": column, "table": table, "figure": figure}
