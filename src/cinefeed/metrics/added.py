"""Metrics of plug-ins, which an assessment adds to its own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.arguments import check_arguments
from cinefeed.core.errors import SettingError, did_you_mean, listed_in_words
from cinefeed.core.plugins import invalid_plugin, load_plugin, plugins
from cinefeed.metrics.basic import CLASS_METRICS, set_range

OWN_METRICS = ("r2", "rmse", "mae", "pearson_r", "bias", "sd", *CLASS_METRICS, "ece", "mse")


@check_arguments()
@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric of a plug-in.

    function:  takes `targets` (units,), `scores` and `weights` (units,) as arrays, by keyword, and returns a number,
               NaN if it is undefined. A unit with weight 2 counts twice; the weights are 1, or those of a bootstrap
               resample. In a regression, targets and scores are float64 (units,). Of classes, targets are their
               numbers, and scores the probability of the positive one, (units,), or of all, (units, classes)
    tasks:     the tasks that it is defined for: "regression", "binary", "multiclass"
    limits:    the least and the greatest value that it can have

    >>> def weighted_mae(*, targets, scores, weights):
    ...     return np.average(abs(targets - scores), weights=weights)
    >>> Metric(function=weighted_mae, tasks=("regression",), limits=(0, np.inf)).tasks
    ('regression',)
    """

    function: Callable[..., float]
    tasks: tuple[Literal["regression", "binary", "multiclass"], ...]
    limits: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        tasks = ("regression", "binary", "multiclass")
        if not self.tasks or isinstance(self.tasks, str) or not {*self.tasks} <= {*tasks}:
            raise SettingError(f"Metric(tasks={self.tasks!r}) must be some of {listed_in_words(tasks)}")

    def values(self, *, targets: NDArray[Any], scores: NDArray[Any], weights: NDArray[Any]) -> NDArray[np.float64]:
        """Return the metric for each of several weightings, float64 (resamples,); `weights` are (resamples, units)."""
        results = [float(self.function(targets=targets, scores=scores, weights=each)) for each in weights]
        return np.asarray(results, np.float64)


def load_metrics(names: Sequence[str]) -> dict[str, Metric]:
    """Return metrics of plug-ins by name. Raises SettingError for an unknown name, and PluginError."""
    available = plugins("metrics", builtin=OWN_METRICS)
    metrics = {}
    for name in names:
        if name in OWN_METRICS:
            raise SettingError(f"metrics: {name!r} is always computed; name those of plug-ins, or leave it out")
        if name not in available:
            raise SettingError(
                f"metrics: {name!r} is not a metric of an installed plug-in; {did_you_mean(name, available)}"
            )
        metric = load_plugin(available[name])
        if not isinstance(metric, Metric):
            raise invalid_plugin(available[name], "a cinefeed.metrics.Metric")
        set_range(name, metric.limits)
        metrics[name] = metric
    return metrics


def for_task(metrics: Mapping[str, Metric], task: str) -> dict[str, Metric]:
    """Return the metrics that are defined for a task."""
    return {name: metric for name, metric in metrics.items() if task in metric.tasks}
