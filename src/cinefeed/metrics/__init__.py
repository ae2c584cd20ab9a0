"""Targets and scores of a whole set -> metrics: arrays in, numbers out, by scikit-learn's definitions."""

from cinefeed.metrics.basic import (
    Metrics,
    class_scores,
    classification_metrics,
    confusion_matrix,
    predicted_classes,
    regression_metrics,
)

__all__ = [
    "Metrics",
    "class_scores",
    "classification_metrics",
    "confusion_matrix",
    "predicted_classes",
    "regression_metrics",
]
