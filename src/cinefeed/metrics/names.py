"""Names of metrics within a sentence, and values with their interval as text."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from cinefeed.core.text import format_number

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
    "bias": "bias (predicted - true)",
    "sd": "SD of the differences",
}


def metric_name(metric: str) -> str:
    """Return a metric's name within a sentence.

    >>> metric_name("r2"), metric_name("mean_error")
    ('R²', 'mean error')
    """
    return _NAMES.get(metric, metric.replace("_", " "))


def estimate_text(estimate: Mapping[str, Any] | None) -> str:
    """Return a metric's value and its interval.

    >>> estimate_text({"value": 0.8, "low": 0.7, "high": 0.9})
    '0.800 (0.700 to 0.900)'
    """
    if not estimate:
        return ""
    low, high = estimate.get("low"), estimate.get("high")
    interval = "" if low is None or high is None else f" ({format_number(low)} to {format_number(high)})"
    return format_number(estimate.get("value")) + interval


def folds_note(parts: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Return why the mean over folds differs from the value of all folds together; "" without two classes.

    `parts` are those of an assessment.

    >>> folds_note({"test": {"ef": {"classes": []}}})
    ''
    """
    if not any(len(target["classes"]) == 2 for targets in parts.values() for target in targets.values()):
        return ""
    return (
        "Metrics of predicted classes, such as accuracy and F1, differ between the mean over the folds and all folds "
        "together: each fold has the threshold of its own validation part, and all together have the mean of these "
        "thresholds."
    )


def positive_class_note(classes: Sequence[str], *, of: str = "") -> str:
    """Return which of two classes the sensitivity is about, and how to swap them; "" for any other number of classes.

    `of` is the target, where there are several.

    >>> positive_class_note(["ill", "well"])
    'positive class: well (sensitivity is the share of well that is recognised, specificity that of ill); to swap them, train, or evaluate a table, with --classes well,ill'
    """  # noqa: E501
    if len(classes) != 2:
        return ""
    negative, positive = classes
    swap = shlex.quote(f"{of}={positive},{negative}" if of else f"{positive},{negative}")
    return (
        f"positive class{f' of {of}' if of else ''}: {positive} (sensitivity is the share of {positive} that is "
        f"recognised, specificity that of {negative}); to swap them, train, or evaluate a table, with --classes {swap}"
    )
