"""The table of baselines of a page, from the content of baselines.json."""

from collections.abc import Mapping
from typing import Any

from cinefeed.core.text import format_count
from cinefeed.metrics.baselines import CONSTANT, METRICS, baseline_sentences
from cinefeed.reports.formatting import Cell, cell, title

Plain = Mapping[str, Any]
_NAMES = {
    CONSTANT: "Constant",
    "columns": "Nuisance columns",
    "thumbnail": "Thumbnail",
    "mean_frame": "Mean frame",
}


def baseline_table(baselines: Plain, target: str, *, unit: str = "video") -> dict[str, Any] | None:
    """Return summary, table, sentences and note of the baselines of a target; None if there are none.

    A row of the table is a name, the chosen model, and cells: metrics, and the difference (model - baseline).
    """
    compared = None if baselines.get("note") else baselines["targets"].get(target)
    if compared is None:
        return None
    metric, task = compared["metric"], compared["task"]
    rows = [("This model", "", [*(cell(compared["metrics"][each]) for each in METRICS[task]), Cell("")])]
    models = baselines.get("models", {}).get(target, {})
    for name, baseline in compared["baselines"].items():
        difference = baseline["difference"]
        values = [cell(baseline["metrics"][each]) for each in METRICS[task]]
        values.append(cell({**difference, "value": difference["difference"]}))
        rows.append((_NAMES.get(name, name), models.get(name, ""), values))
    return {
        "summary": f"{baselines['part']}, {format_count(compared['units'], unit)}; took {baselines['seconds']:.0f} s",
        "head": [*(title(each) for each in METRICS[task]), f"{title(metric)}, model - baseline"],
        "rows": rows,
        "sentences": [f"{text[:1].upper()}{text[1:]}." for text in baseline_sentences(compared)],
        "note": _explanation(baselines),
    }


def _explanation(baselines: Plain) -> str:
    """Return what the baselines use, as sentences."""
    notes = baselines.get("notes", {})
    columns = notes.get("columns", "")
    text = "Baselines are small models of scikit-learn, chosen and fitted on the training part. Nuisance columns: "
    text += f"{columns}. " if columns else "none. "
    text += "The thumbnail has 8 x 8 grey pixels of 5 frames of the video, their mean and its changes; the mean frame "
    text += "has 16 x 16. "
    images = notes.get("thumbnail", "")
    text += f"Thumbnails: {images}. " if images else ""
    if baselines.get("views"):
        text += f"Of the views {', '.join(baselines['views'])} they use {baselines['view']} alone. "
    of, rows = baselines.get("rows_of_manifest", 0), baselines["rows"]
    if of > rows:
        text += f"They use {rows:,} of {of:,} videos, of whole groups; the model is compared on the same. "
    return text + "Differences are paired: both are measured on the same resamples."
