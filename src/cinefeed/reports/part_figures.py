"""Figures of one part of one target, with notes on those that are left out."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cinefeed.core.errors import CinefeedError
from cinefeed.metrics.predictions import Predictions
from cinefeed.metrics.thresholds import RULE_NAMES
from cinefeed.metrics.units import Units, units_of
from cinefeed.reports.agreement import bland_altman_figure, calibration_figure, error_bins_figure
from cinefeed.reports.prediction_figures import confusion_figure, pr_figure, predicted_vs_true, roc_figure
from cinefeed.reports.style import Figure, on_page

Plain = Mapping[str, Any]
Draw = Callable[..., None]


def part_figures(
    part: str, result: Plain, name: str, predictions: Predictions | None, unit: str | None, *, suffix: str = ""
) -> tuple[list[Figure], str]:
    """Return the figures of a part, and the reasons why some are left out.

    Figures of single scores are drawn from the predictions, one point per unit, the others from `result`, the part's
    entry in the assessment. `suffix` is appended to the file names.
    """
    figures: list[Figure] = []
    notes: list[str] = []
    if result["task"] == "clip":
        return figures, ""

    def draw(file: str, caption: str, make: Callable[..., str], *args: Any, **options: Any) -> None:
        try:
            figures.append(on_page(make(*args, **options), f"{file}_{part}{suffix}", f"{part}, {caption}"))
        except (CinefeedError, ValueError) as error:
            notes.append(f"The figure of {caption} is left out: {error}.")

    units = None
    if predictions is None or part not in predictions.parts:
        notes.append(f"The figures of single scores are left out: there are no predictions of {part}.")
    else:
        try:
            part_units = units_of(predictions.part(part), name, unit=unit)
            units = part_units if len(part_units.names) else None
        except CinefeedError as error:
            notes.append(f"The figures of single scores are left out: {error}.")
    if result["task"] == "regression":
        _draw_regression(draw, units, result, name="label" if name == "target" else name)
    else:
        _draw_classes(draw, units, result)
        if units is not None and len(set(units.targets.tolist())) == 1:
            notes.append(f"{part} has no ROC and precision-recall curves: all its labels are of one class.")
    return figures, " ".join(notes)


def _draw_regression(draw: Draw, units: Units | None, result: Plain, *, name: str) -> None:
    if units is not None:
        options: dict[str, Any] = {"scores": units.scores, "name": name}
        draw("predicted", "predicted against true", predicted_vs_true, units.targets, **options)
        if result.get("agreement"):
            options["agreement"] = result["agreement"]
            draw("bland_altman", "limits of agreement", bland_altman_figure, units.targets, **options)
    if any(label_bin["count"] for label_bin in result.get("bins") or ()):
        draw("error_bins", "error by label, with counts", error_bins_figure, result["bins"], name=name)


def _draw_classes(draw: Draw, units: Units | None, result: Plain) -> None:
    classes, threshold = result["classes"], result.get("threshold")
    if units is not None:
        options: dict[str, Any] = {"scores": units.scores, "classes": classes, "threshold": threshold}
        caption = f"confusion at {threshold:.3g}" if threshold is not None else "confusion"
        draw("confusion", caption, confusion_figure, units.targets, **options)
        if len(np.unique(units.targets)) > 1:
            marks = {RULE_NAMES[point["rule"]]: point["threshold"] for point in result.get("operating_points") or ()}
            if not marks and threshold is not None:
                marks = {"": threshold}
            options = {"scores": units.scores, "classes": classes, "marks": marks}
            draw("roc", "ROC", roc_figure, units.targets, **options)
            draw("precision_recall", "precision and recall", pr_figure, units.targets, **options)
    both = {"as scored": result.get("calibration"), "corrected": (result.get("corrected") or {}).get("calibration")}
    calibrations = {
        name: calibration
        for name, calibration in both.items()
        if calibration and any(score_bin["count"] for score_bin in calibration["bins"])
    }
    if calibrations:
        binary = len(classes) == 2
        across = f"predicted probability of {classes[1]}" if binary else "probability of the predicted class"
        up = f"share of {classes[1]}" if binary else "share of correct predictions"
        draw("calibration", "calibration", calibration_figure, calibrations, across=across, up=up)
