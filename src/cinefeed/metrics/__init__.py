"""Metrics of targets and scores, as scikit-learn defines them, with intervals; assessments of tables of predictions.

`assess` evaluates one table of predictions and `compare` compares two. The metric functions take arrays, by keyword.
"""

from cinefeed.metrics.added import Metric
from cinefeed.metrics.agreement import error_by_bin, limits_of_agreement
from cinefeed.metrics.assess import assess, flat_metrics
from cinefeed.metrics.basic import (
    Metrics,
    class_scores,
    classification_metrics,
    confusion_matrix,
    metrics_by_class,
    predicted_classes,
    regression_metrics,
)
from cinefeed.metrics.calibration import calibration, calibration_by_class
from cinefeed.metrics.compare import compare
from cinefeed.metrics.predictions import (
    Predictions,
    TargetColumns,
    predictions_of,
    read_predictions,
    target_columns,
)
from cinefeed.metrics.thresholds import best_threshold
from cinefeed.metrics.units import Units, units_of

__all__ = [
    "Metric",
    "Metrics",
    "Predictions",
    "TargetColumns",
    "Units",
    "assess",
    "best_threshold",
    "calibration",
    "calibration_by_class",
    "class_scores",
    "classification_metrics",
    "compare",
    "confusion_matrix",
    "error_by_bin",
    "flat_metrics",
    "limits_of_agreement",
    "metrics_by_class",
    "predicted_classes",
    "predictions_of",
    "read_predictions",
    "regression_metrics",
    "target_columns",
    "units_of",
]
