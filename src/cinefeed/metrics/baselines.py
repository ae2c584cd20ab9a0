"""Comparison of a model with a guess and with baselines: paired differences, and one sentence for each.

A high score alone means little: if most labels are equal, or an 8 x 8 image of the first frame shows the label, a
network that has learnt nothing has a high score. A model is therefore judged by its difference to a baseline on the
same units, with the interval of that difference.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from cinefeed.core.text import format_number
from cinefeed.metrics.assess import assess
from cinefeed.metrics.bootstrap import SAME_VALUE
from cinefeed.metrics.compare import compare
from cinefeed.metrics.predictions import Predictions, predictions_of
from cinefeed.metrics.thresholds import ThresholdRule, choose_threshold

Plain = Mapping[str, Any]
Verdict = Literal["better", "no better", "worse", "unknown"]
METRICS = {  # the first decides
    "regression": ("r2", "mae"),
    "binary": ("auroc", "balanced_accuracy"),
    "multiclass": ("balanced_accuracy", "accuracy"),
}
CONSTANT = "constant"
_PHRASES = {"columns": "the nuisance columns", "thumbnail": "the thumbnail", "mean_frame": "the mean frame"}
_UNITS = {"r2": "R²", "auroc": "points of AUROC", "balanced_accuracy": "points of balanced accuracy"}


class Guess(NamedTuple):
    """A result compared with that of a guess: the deciding metric, the verdict, and the reason if it is unknown."""

    metric: str
    verdict: Verdict
    reason: str = ""


def verdict_of(value: float | None, *, low: float | None, high: float | None) -> Verdict:
    """Return how a model compares with a baseline, by the interval of the difference (model - baseline).

    >>> verdict_of(0.2, low=0.1, high=0.3), verdict_of(0.2, low=-0.1, high=0.5), verdict_of(0.2, low=None, high=None)
    ('better', 'no better', 'unknown')
    """
    if value is None or low is None or high is None:
        return "unknown"
    return "better" if low > 0 else "worse" if high < 0 else "no better"


def guess_of(result: Plain, compared: Plain | None = None) -> Guess | None:
    """Return whether a part's result is better than a guess; None for a task without labels.

    The guess is the mean or the most frequent class. With a comparison of `compare_baselines` it is that of the
    training labels. Otherwise it is that of the assessed labels themselves, whose R2 is 0, AUROC 0.5, and balanced
    accuracy 1 divided by the number of classes, in all resamples: the interval of the metric decides.

    >>> metrics = {"auroc": {"value": 0.6, "low": 0.4, "high": 0.8}}
    >>> guess_of({"task": "binary", "classes": ["no", "yes"], "metrics": metrics})
    Guess(metric='auroc', verdict='no better', reason='')
    """
    if result["task"] not in METRICS:
        return None
    metric = METRICS[result["task"]][0]
    if compared is not None and CONSTANT in compared["baselines"]:
        difference = compared["baselines"][CONSTANT]["difference"]
        return Guess(metric, verdict_of_difference(difference), difference["reason"] or "")
    estimate = result["metrics"].get(metric) or {}
    value, low, high, reason = (estimate.get(key) for key in ("value", "low", "high", "reason"))
    if value is not None and reason == SAME_VALUE:
        low = high = value
    counts = result.get("counts") or {}
    present = sum(1 for count in counts.values() if count) or len(result["classes"])
    chance = {"r2": 0.0, "auroc": 0.5}.get(metric, 1 / max(present, 1))
    low, high = (None if each is None else each - chance for each in (low, high))
    return Guess(metric, verdict_of(value, low=low, high=high), reason or "")


def verdict_of_difference(difference: Plain) -> Verdict:
    """Return the verdict of a difference (model - baseline) of `compare_baselines`."""
    return verdict_of(difference["difference"], low=difference["low"], high=difference["high"])


def compare_baselines(
    model: Predictions,
    baselines: Mapping[str, Predictions],
    *,
    part: str = "test",
    thresholds: Mapping[str, float] | None = None,
    rule: ThresholdRule = "f1",
    unit: str | None = None,
    cluster: str | None = None,
    resamples: int = 1000,
    level: float = 0.95,
) -> dict[str, Any]:
    """Return, by target, the metrics of a model and of each baseline, and their paired differences, as plain data.

    All are measured on the same units: the videos of `part` that the baselines score, which may be fewer than the
    model's. Each target has `task`, `metric` (the one that decides), `units`, the `metrics` of the model, and
    `baselines`; each has its `metrics`, and the `difference` (model - baseline, with low, high and reason).

    Args:
        model: Predictions of the model.
        baselines: Predictions of each baseline by name, such as "thumbnail".
        part: The part to compare on.
        thresholds: Thresholds of the model by target, for two classes. Those of the baselines, and by default that of
            the model, are optimized on the part "val".
        rule: How thresholds are optimized, as in `assess`.
        unit: The column that identifies the units, as in `assess`.
        cluster: The column that identifies the clusters, as in `assess`.
        resamples: Number of bootstrap resamples.
        level: Confidence level of the intervals.

    Raises the errors of `compare`.
    """
    options: dict[str, Any] = {"unit": unit, "cluster": cluster, "resamples": resamples, "level": level}
    of_model = _thresholds(model, unit=unit, rule=rule) | dict(thresholds or {})
    compared: dict[str, Any] = {}
    for name, baseline in baselines.items():
        same_rows = _rows_of(model, baseline, part=part)
        if not compared:
            compared = {
                target: {**content, "metric": METRICS[content["task"]][0], "baselines": {}}
                for target, content in _metrics(same_rows, part=part, thresholds=of_model, **options).items()
            }
        differences = compare(baseline, same_rows, part=part, thresholds={"b": of_model}, rules={"a": rule}, **options)[
            "targets"
        ]
        of_baseline = _metrics(baseline, part=part, thresholds=_thresholds(baseline, unit=unit, rule=rule), **options)
        for target, content in compared.items():
            content["baselines"][name] = {
                "metrics": of_baseline[target]["metrics"],
                "difference": differences[target]["metrics"][content["metric"]],
            }
    return compared


def _rows_of(model: Predictions, baseline: Predictions, *, part: str) -> Predictions:
    """Return the model's predictions of the videos of a part that a baseline scores."""
    ids = baseline.part(part).table["id"]
    rows = model.part(part).table
    return Predictions(table=rows.filter(pc.is_in(rows["id"], value_set=pa.array(ids.unique()))), targets=model.targets)


def _thresholds(predictions: Predictions, *, unit: str | None, rule: ThresholdRule) -> dict[str, float]:
    """Return the thresholds of the targets with two classes, optimized on the part "val"."""
    targets = [target for target in predictions.targets if len(target.classes) == 2]
    return {target.name: choose_threshold(predictions, target, unit=unit, rule=rule)[0] for target in targets}


def _metrics(predictions: Predictions, *, part: str, thresholds: Mapping[str, float], **options: Any) -> dict[str, Any]:
    """Return the task, the number of units and the metrics of METRICS in a part, by target."""
    alone = predictions_of(predictions.part(part).table, predictions.targets)
    return {
        name: {
            "task": result["task"],
            "units": result["units"],
            "metrics": {metric: result["metrics"][metric] for metric in METRICS[result["task"]]},
        }
        for name, result in assess(alone, thresholds=thresholds, **options)["parts"][part].items()
    }


def baseline_phrase(name: str, *, task: str) -> str:
    """Return the name of a baseline within a sentence.

    >>> baseline_phrase("constant", task="regression"), baseline_phrase("mean_frame", task="binary")
    ('guessing the mean', 'the mean frame')
    """
    if name == CONSTANT:
        return "guessing the mean" if task == "regression" else "guessing"
    return _PHRASES.get(name, name)


def baseline_sentences(target: Plain) -> list[str]:
    """Return a sentence for each baseline of a target of `compare_baselines`; those without an interval share one."""
    task, sentences = target["task"], []
    unknown: dict[str, list[str]] = {}
    for name, baseline in target["baselines"].items():
        difference = baseline["difference"]
        if verdict_of_difference(difference) == "unknown":
            reason = difference["reason"] or "the difference is not defined"
            unknown.setdefault(reason, []).append(baseline_phrase(name, task=task))
        else:
            sentences.append(baseline_sentence(name, difference, task=task))
    return [*sentences, *(f"not compared with {', '.join(names)}: {reason}" for reason, names in unknown.items())]


def baseline_sentence(name: str, difference: Plain, *, task: str) -> str:
    """Return one sentence on the difference of a model and a baseline, which has an interval.

    >>> difference = {"difference": 0.121, "low": 0.052, "high": 0.19, "reason": None}
    >>> baseline_sentence("thumbnail", difference, task="binary")
    'better than the thumbnail by 12 points of AUROC (5 to 19)'
    >>> baseline_sentence("constant", difference | {"low": -0.1}, task="regression")
    'no better than guessing the mean: the difference is 0.121 R² (-0.100 to 0.190)'
    """
    phrase = baseline_phrase(name, task=task)
    metric = METRICS[task][0]
    verdict = verdict_of_difference(difference)
    size, low, high = (_amount(difference[key], metric) for key in ("difference", "low", "high"))
    interval = "" if low == high else f" ({low} to {high})"
    if verdict == "no better":
        return f"no better than {phrase}: the difference is {size} {_UNITS[metric]}{interval}"
    if verdict == "worse":
        size, low, high = (_amount(-difference[key], metric) for key in ("difference", "high", "low"))
        interval = "" if low == high else f" ({low} to {high})"
    return f"{verdict} than {phrase} by {size} {_UNITS[metric]}{interval}"


def _amount(value: float, metric: str) -> str:
    """Return a difference in the unit of its metric. It is 0 only if the difference is: its sign decides the verdict.

    >>> _amount(0.121, "auroc"), _amount(-0.002, "auroc"), _amount(-0.00006, "r2"), _amount(0.0, "r2")
    ('12', '-0.2', '-6e-05', '0.000')
    """
    scaled = value if metric == "r2" else 100 * value
    text = format_number(value) if metric == "r2" else f"{round(scaled)}"
    return f"{scaled:.1g}" if value and text.strip("-0.") == "" else text
