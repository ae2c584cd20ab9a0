"""Names and numbers as the page says them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

HEADLINES = ("r2", "mae", "auroc", "balanced_accuracy")  # the first two that there are open the page
_NAMES = {
    "r2": "R²",
    "rmse": "RMSE",
    "mae": "MAE",
    "pearson_r": "Pearson r",
    "f1": "F1",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "balanced_accuracy": "balanced accuracy",
    "ece": "calibration error (ECE)",
    "bias": "bias (predicted less true)",
    "sd": "SD of the differences",
}


class Cell(NamedTuple):
    """A number in words, and its interval, "" where it has none."""

    value: str
    interval: str = ""


def metric_name(metric: str) -> str:
    """Return what a metric is called within a sentence.

    >>> metric_name("r2"), metric_name("mean_error")
    ('R²', 'mean error')
    """
    return _NAMES.get(metric, metric.replace("_", " "))


def title(metric: str) -> str:
    """Return what a metric is called at the head of a row."""
    name = metric_name(metric)
    return name[:1].upper() + name[1:]


def say(value: object) -> str:
    """Return a number with the digits that a reader needs.

    >>> say(0.81234), say(61.2345), say(float("nan"))
    ('0.812', '61.23', 'not defined')
    """
    if not isinstance(value, int | float) or not np.isfinite(value):
        return "not defined"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.4g}"


def cell(measured: Mapping[str, Any] | None) -> Cell:
    """Return a metric of an assessment with its interval.

    >>> cell({"value": 0.8, "low": 0.7, "high": 0.9})
    Cell(value='0.800', interval='0.700 to 0.900')
    """
    if measured is None:
        return Cell("")
    low, high = measured.get("low"), measured.get("high")
    return Cell(say(measured.get("value")), "" if low is None or high is None else f"{say(low)} to {say(high)}")


def counted(number: int, name: str) -> str:
    """Return a number and what it counts.

    >>> counted(1, "video"), counted(1200, "study")
    ('1 video', '1,200 studies')
    """
    plural = name[:-1] + "ies" if name.endswith("y") and not name.endswith(("ay", "ey")) else name + "s"
    return f"{number:,} {name if number == 1 else plural}"
