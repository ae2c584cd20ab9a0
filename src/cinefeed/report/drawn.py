"""The figures of one part of one target: each is drawn, or a note says why it is not."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cinefeed.errors import CinefeedError
from cinefeed.metrics.predictions import Predictions
from cinefeed.metrics.units import Units, units_of
from cinefeed.report.agreement import bland_altman_figure, calibration_figure, error_bins_figure
from cinefeed.report.results import confusion_figure, pr_figure, predicted_vs_true, roc_figure
from cinefeed.report.style import Figure, on_page

Plain = Mapping[str, Any]
Draw = Callable[..., None]


def part_figures(
    part: str, measured: Plain, name: str, predictions: Predictions | None, unit: str | None, *, tail: str = ""
) -> tuple[list[Figure], str]:
    """Return the figures of a part, and why some are left out; `tail` tells the files of several targets apart.

    What needs every score is drawn of the predictions, a point a unit; the rest of what was measured.
    """
    shown: list[Figure] = []
    notes: list[str] = []
    if measured["task"] == "clip":
        return shown, ""

    def draw(file: str, caption: str, make: Callable[..., str], *given: Any, **options: Any) -> None:
        try:
            shown.append(on_page(make(*given, **options), f"{file}_{part}{tail}", f"{part}, {caption}"))
        except (CinefeedError, ValueError) as error:
            notes.append(f"The figure of {caption} is left out: {error}.")

    units = None
    if predictions is None or part not in predictions.parts:
        notes.append(f"There are no predictions of {part}, so that the figures of single scores are left out.")
    else:
        try:
            found = units_of(predictions.part(part), name, unit=unit)
            units = found if len(found.names) else None
        except CinefeedError as error:
            notes.append(f"The figures of single scores are left out: {error}.")
    if measured["task"] == "regression":
        _of_numbers(draw, units, measured, name="label" if name == "target" else name)
    else:
        _of_classes(draw, units, measured)
        if units is not None and len(set(units.targets.tolist())) == 1:
            notes.append(f"{part} has no ROC and precision-recall curves: it holds one class.")
    return shown, " ".join(notes)


def _of_numbers(draw: Draw, units: Units | None, measured: Plain, *, name: str) -> None:
    if units is not None:
        given: dict[str, Any] = {"scores": units.scores, "name": name}
        draw("predicted", "predicted against true", predicted_vs_true, units.targets, **given)
        if measured.get("agreement"):
            given["agreement"] = measured["agreement"]
            draw("bland_altman", "limits of agreement", bland_altman_figure, units.targets, **given)
    if any(each["count"] for each in measured.get("bins") or ()):
        draw("error_bins", "error by label, and how many are there", error_bins_figure, measured["bins"], name=name)


def _of_classes(draw: Draw, units: Units | None, measured: Plain) -> None:
    classes, threshold = measured["classes"], measured.get("threshold")
    if units is not None:
        given: dict[str, Any] = {"scores": units.scores, "classes": classes, "threshold": threshold}
        words = f"confusion at {threshold:.3g}" if threshold is not None else "confusion"
        draw("confusion", words, confusion_figure, units.targets, **given)
        if len(np.unique(units.targets)) > 1:
            draw("roc", "ROC", roc_figure, units.targets, **given)
            draw("precision_recall", "precision and recall", pr_figure, units.targets, **given)
    both = {"as scored": measured.get("calibration"), "corrected": (measured.get("corrected") or {}).get("calibration")}
    shown = {name: each for name, each in both.items() if each and any(one["count"] for one in each["bins"])}
    if shown:
        binary = len(classes) == 2
        across = f"predicted probability of {classes[1]}" if binary else "probability of the predicted class"
        up = f"share of {classes[1]}" if binary else "share that is right"
        draw("calibration", "calibration", calibration_figure, shown, across=across, up=up)
