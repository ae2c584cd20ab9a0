"""Results of a run folder without an assessment, as they were kept before there was one: no intervals, no units."""

from collections.abc import Mapping
from typing import Any

from cinefeed.errors import CinefeedError
from cinefeed.metrics import Metrics, classification_metrics, regression_metrics
from cinefeed.report.data import PageData, PartScores
from cinefeed.report.results import confusion_figure, pr_figure, predicted_vs_true, roc_figure
from cinefeed.report.style import on_page
from cinefeed.report.words import HEADLINES, metric_name, say, title


def result(page: PageData, part: PartScores) -> dict[str, Any]:
    """Return the figures of one part's predictions; where it does not allow one, a note says why."""
    name, targets, scores, classes = part.part, part.targets, part.scores, page.classes
    try:
        if page.task == "regression":
            svg = predicted_vs_true(targets, scores=scores, name=page.target or "label")
            return {"figures": [on_page(svg, f"predicted_{name}", f"{name}, {len(targets):,} videos")], "note": ""}
        svg = confusion_figure(targets, scores=scores, classes=classes)
        figures = [on_page(svg, f"confusion_{name}", f"{name}, {len(targets):,} videos")]
        reasons = classification_metrics(targets=targets, scores=scores, classes=classes).reasons
        if reasons:
            return {"figures": figures, "note": f"{name} has no ROC and precision-recall curves: {reasons['auroc']}."}
        curves = (("roc", "ROC", roc_figure), ("precision_recall", "precision and recall", pr_figure))
        for file, caption, draw in curves:
            svg = draw(targets, scores=scores, classes=classes)
            figures.append(on_page(svg, f"{file}_{name}", f"{name}, {caption}"))
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


def metric_table(page: PageData) -> dict[str, Any]:
    """Return the metrics of all parts, and why one is not defined."""
    measured = _measured(page)
    tables: Mapping[str, Mapping[str, Any]] = page.metrics or measured
    parts = list(tables)
    names = list(dict.fromkeys(name for table in tables.values() for name in table))
    rows = [(title(name), [say(tables[part].get(name)) for part in parts]) for name in names]
    reasons = [
        f"{title(name)} is not defined for {part}: {reason}."
        for part, table in measured.items()
        for name, reason in table.reasons.items()
    ]
    return {"parts": parts, "rows": rows, "reasons": reasons}


def headline(page: PageData) -> list[tuple[str, str]]:
    """Return the two numbers that the page opens with, of the test part where there is one."""
    tables: Mapping[str, Mapping[str, Any]] = page.metrics or _measured(page)
    part = "test" if "test" in tables else next(iter(tables), "")
    table = tables.get(part, {})
    return [(f"{part} {metric_name(name)}", say(table[name])) for name in HEADLINES if table.get(name) is not None]
