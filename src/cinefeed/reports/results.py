"""Results of a page: tables and figures of an assessment, for every target and part."""

from collections.abc import Mapping, Sequence
from typing import Any

from cinefeed.core.text import format_count, format_number, format_percent, plural
from cinefeed.metrics.baselines import CONSTANT, METRICS, baseline_phrase
from cinefeed.metrics.display import guess_sentence, reason_lines
from cinefeed.metrics.headline import baselines_not_beaten, compared_target, ordered_parts, size_text
from cinefeed.metrics.names import metric_name, positive_class_note
from cinefeed.metrics.predictions import Predictions
from cinefeed.metrics.thresholds import RULE_NAMES
from cinefeed.reports.agreement import forest_figure
from cinefeed.reports.baselines import baseline_table
from cinefeed.reports.formatting import HEADLINES, Cell, cell, title
from cinefeed.reports.part_figures import part_figures
from cinefeed.reports.style import on_page

Plain = Mapping[str, Any]

_IN_FOREST = {"regression": ("mae", "r2"), "binary": ("auroc",), "multiclass": ("balanced_accuracy", "auroc")}
_MANY = 8  # classes: a larger confusion matrix takes the full width
_THRESHOLD_SOURCES = {
    "val": "the one with the {rule} on the validation part",
    "frozen": "that of the training run, with the {rule} on its validation part",
    "0.5": "the default, as there is no validation part with both classes",
    "folds": "the mean over the folds, each with the {rule} on its own validation part",
}


def results(
    assessment: Plain, predictions: Predictions | None, *, folds: bool = False, baselines: Plain | None = None
) -> dict[str, Any]:
    """Return what a template needs to show an assessment.

    The dictionary holds `description`, `resampled_units` (what bootstrap samples draw), `parts`, and for each of
    `targets` a table over all parts and details by part. Without predictions the figures that need single scores are
    left out. `folds` is for a cross-validation, `baselines` is the content of baselines.json.
    """
    parts = ordered_parts(assessment["parts"])
    names = list(dict.fromkeys(name for part in parts for name in assessment["parts"][part]))
    return {
        "description": _description(assessment),
        "resampled_units": plural(resampled_unit(assessment)),
        "targets": [
            _target(assessment, name, parts, predictions, folds=folds)
            | {
                "baselines": baseline_table(baselines, name, unit=assessment.get("unit") or "video")
                if baselines
                else None
            }
            for name in names
        ],
        "no_baselines": (baselines or {}).get("note", ""),
        "parts": parts,
    }


def headline(assessment: Plain, baselines: Plain | None = None) -> list[tuple[str, str]]:
    """Return names and values of the figures at the head of the page, for the first part and target.

    These are the deciding metric, the best baseline that it does not beat, and one more metric. A result at the level
    of a guess is called so in place of the first, which stands beside it.
    """
    part = next(iter(ordered_parts(assessment["parts"])), None)
    if part is None or not assessment["parts"][part]:
        return []
    targets = assessment["parts"][part]
    name, result = next(iter(targets.items()))
    metrics = result["metrics"]
    deciding = METRICS.get(result["task"], HEADLINES)[0]
    of = f" of {name}" if len(targets) > 1 else ""
    figures = []
    names = dict.fromkeys((deciding, *HEADLINES))
    for metric in [metric for metric in names if metrics.get(metric, {}).get("value") is not None][:2]:
        value, interval = cell(metrics[metric])
        size = "" if metric != deciding else size_text(result, part=part, unit=assessment.get("unit"))
        label = f"{metric_name(metric)}{of}" + (f" on {size}" if size else f", {part}")
        figures.append((label + (f", {interval}" if interval else ""), value))
    compared = compared_target(baselines, name, part=part)
    sentence = guess_sentence(result, compared)
    if sentence:
        verdict, _, detail = sentence.partition(": ")
        figures[:1] = [(f"{part}{f' {name}' if of else ''}: {detail}", verdict.capitalize())]
    not_beaten = [pair for pairs in baselines_not_beaten(compared).values() for pair in pairs if pair[0] != CONSTANT]
    if not_beaten:
        baseline, score = max(not_beaten, key=lambda pair: pair[1])
        phrase = baseline_phrase(baseline, task=result["task"])
        figures.insert(1, (f"{metric_name(deciding)} of {phrase} alone", format_number(score)))
    return figures


def _description(assessment: Plain) -> str:
    """Return how scores are averaged and how intervals are computed, as sentences."""
    unit = assessment.get("unit")
    text = "Scores of several clips of a video are averaged"
    text += f", then those of the videos of a {unit}: each {unit} counts once." if unit else "; each video counts once."
    if assessment.get("resamples"):
        level = format_percent(assessment.get("level", 0.95), ".3g")
        text += (
            f" In brackets: the {level} interval of {assessment['resamples']:,} bootstrap samples, which include or "
        )
        text += f"leave out each {resampled_unit(assessment)} as a whole."
    return text + " No part is balanced or augmented."


def resampled_unit(assessment: Plain) -> str:
    """Return the name of the unit that bootstrap samples draw as a whole."""
    return str(assessment.get("cluster") or assessment.get("unit") or "video")


def _target(
    assessment: Plain, name: str, parts: Sequence[str], predictions: Predictions | None, *, folds: bool
) -> dict[str, Any]:
    by_part = {part: assessment["parts"][part][name] for part in parts if name in assessment["parts"][part]}
    results = list(by_part.values())
    metrics = list(dict.fromkeys(metric for result in results for metric in result["metrics"]))
    unit, cluster = assessment.get("unit"), assessment.get("cluster")
    counts = {"clips": "clips", "videos": "videos"}
    counts |= {"units": plural(unit)} if unit else {}
    counts |= {"clusters": plural(cluster)} if cluster and cluster != unit else {}
    several_targets = len(next(iter(assessment["parts"].values()))) > 1
    note = positive_class_note(results[0]["classes"], of=name if several_targets else "")
    counts |= {"missing": "without a label"} if any(result.get("missing") for result in results) else {}
    return {
        "name": name,
        "task": results[0]["task"],
        "positive_class": f"{note[:1].upper()}{note[1:]}." if note else "",
        "many": len(results[0]["classes"]) > _MANY,
        "parts": list(by_part),
        "counts": [(label, [f"{result.get(key, 0):,}" for result in results]) for key, label in counts.items()],
        "rows": [(title(metric), [cell(result["metrics"].get(metric)) for result in results]) for metric in metrics],
        "reasons": [line for part, result in by_part.items() for line in reason_lines(result["metrics"], of=part)],
        "details": [_details(part, result, name, predictions, unit, folds=folds) for part, result in by_part.items()],
    }


def _details(
    part: str, result: Plain, name: str, predictions: Predictions | None, unit: str | None, *, folds: bool
) -> dict[str, Any]:
    """Return figures and tables of one part of one target."""
    several_targets = predictions is not None and len(predictions.targets) > 1
    suffix = f"_{name}" if several_targets else ""
    figures, note = part_figures(part, result, name, predictions, unit, suffix=suffix)
    threshold = result.get("threshold")
    summary = f"{format_count(result['units'], unit or 'video')}."
    if threshold is not None:
        source = str(result.get("threshold_from"))
        rule = RULE_NAMES.get(str(result.get("threshold_rule")), "best F1").replace("Youden's J", "best Youden's J")
        explanation = _THRESHOLD_SOURCES.get("folds" if folds and source == "frozen" else source, "").format(rule=rule)
        summary += f" The threshold is {threshold:.3g}" + (f", {explanation}." if explanation else ".")
    by_class = result.get("by_class") or {}
    return {
        "part": part,
        "summary": summary,
        "figures": figures,
        "note": note,
        "by_class": _class_table(by_class, result.get("counts") or {}) if by_class else None,
        "operating_points": _operating_points(result),
        "corrected": _corrected_table(result),
        "subgroups": [
            _subgroup(f"{part}{suffix}", column, rows, result)
            for column, rows in (result.get("subgroups") or {}).items()
        ],
    }


def _table(rows: Sequence[tuple[str, Plain]]) -> dict[str, Any]:
    """Return a table of metrics with one row per pair of name and estimates; names may repeat."""
    metrics = list(dict.fromkeys(metric for _, estimates in rows for metric in estimates))
    return {
        "head": ["ECE" if metric == "ece" else title(metric) for metric in metrics],
        "rows": [(name, [cell(estimates.get(metric)) for metric in metrics]) for name, estimates in rows],
    }


def _class_table(by_class: Mapping[str, Plain], counts: Mapping[str, int]) -> dict[str, Any]:
    table = _table(list(by_class.items()))
    return {
        "head": ["number", *table["head"]],
        "rows": [
            (name, [Cell(f"{counts[name]:,}" if name in counts else ""), *cells]) for name, cells in table["rows"]
        ],
    }


def _operating_points(result: Plain) -> dict[str, Any] | None:
    """Return the metrics at the threshold of each rule, the one in use marked; None without such thresholds."""
    points = result.get("operating_points")
    if not points:
        return None
    names = [name for name in points[0] if name != "rule"]
    in_use = result.get("threshold_rule")
    return {
        "head": [title(name) for name in names],
        "rows": [
            (
                RULE_NAMES[point["rule"]] + (" (in use)" if point["rule"] == in_use else ""),
                [Cell(format_number(point[name])) for name in names],
            )
            for point in points
        ],
    }


def _corrected_table(result: Plain) -> dict[str, Any] | None:
    """Return metrics of the scores, and of the scores corrected for the class frequencies of balanced training."""
    corrected = result.get("corrected")
    if not corrected:
        return None
    rows = [
        (title(metric), [cell(result["metrics"].get(metric)), cell(estimate)])
        for metric, estimate in corrected["metrics"].items()
    ]
    both = (result, corrected)
    if not any(name == title("ece") for name, _ in rows):
        rows.append((title("ece"), [Cell(format_number(each.get("calibration", {}).get("ece"))) for each in both]))
    if corrected.get("threshold") is not None:
        rows.append(("Threshold", [Cell(format_number(each.get("threshold"))) for each in both]))
    return {"head": ["as scored", "corrected"], "rows": rows}


def _group_name(row: Plain) -> str:
    return "unknown" if row["value"] is None else str(row["value"])


def _subgroup(part: str, column: str, rows: Sequence[Plain], result: Plain) -> dict[str, Any]:
    table = _table([(_group_name(row), row["metrics"]) for row in rows])
    table["rows"] = [
        (name, [Cell(f"{row['units']:,}"), *cells]) for (name, cells), row in zip(table["rows"], rows, strict=True)
    ]
    table["head"] = ["number", *table["head"]]
    metric = next((metric for metric in _IN_FOREST[result["task"]] if metric in result["metrics"]), None)
    figure = None
    if metric is not None and len(rows) > 1:
        points = [(f"{_group_name(row)} ({row['units']:,})", row["metrics"].get(metric, {})) for row in rows]
        if any(estimate.get("value") is not None for _, estimate in points):
            overall = result["metrics"][metric].get("value")
            svg = forest_figure(points, overall=overall, name=title(metric))
            figure = on_page(svg, f"subgroups_{column}_{part}", f"{title(metric)} by {column}")
    return {"column": column, "table": table, "figure": figure}
