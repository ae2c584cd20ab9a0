"""Names of metrics, and table cells with their intervals, as pages show them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from cinefeed.core.text import format_number
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.metrics.names import metric_name

HEADLINES = ("r2", "mae", "auroc", "balanced_accuracy")  # the first two that are defined stand at the head of a page


class Cell(NamedTuple):
    """A table cell: a value as text, and its interval, "" if there is none."""

    value: str
    interval: str = ""


def title(metric: str) -> str:
    """Return a metric's name at the head of a row or column."""
    name = metric_name(metric)
    return name[:1].upper() + name[1:]


def cell(estimate: Mapping[str, Any] | None) -> Cell:
    """Return the cell of a metric of an assessment.

    >>> cell({"value": 0.8, "low": 0.7, "high": 0.9})
    Cell(value='0.800', interval='0.700 to 0.900')
    """
    if estimate is None:
        return Cell("")
    low, high = estimate.get("low"), estimate.get("high")
    interval = "" if low is None or high is None else f"{format_number(low)} to {format_number(high)}"
    return Cell(format_number(estimate.get("value")), interval)


def page_heading(subject: str, manifest: Manifest) -> str:
    """Return the heading of a page about a manifest: its subject, the folder of the data unless private, and today."""
    data = "" if manifest.private else manifest.root.name
    return " · ".join(text for text in (subject, data, datetime.now(UTC).strftime("%Y-%m-%d")) if text)
