"""The first sentence about a result: its metric, how certain it is, and the baselines that it does not beat.

A value alone misleads: an AUROC of 0.94 of 11 videos has no interval, and file properties may score as well.
"""

from collections.abc import Mapping
from typing import Any

from cinefeed.core.text import format_count, format_number, plural
from cinefeed.metrics.baselines import (
    CONSTANT,
    METRICS,
    baseline_phrase,
    guess_of,
    verdict_of_difference,
)
from cinefeed.metrics.bootstrap import SAME_VALUE
from cinefeed.metrics.names import estimate_text, metric_name

Plain = Mapping[str, Any]
_FIRST = ("test", "external")  # parts that are shown before the others
_PHRASES = {"worse": "below", "no better": "no better than", "unknown": "not shown to be better than"}


def ordered_parts(parts: Plain) -> list[str]:
    """Return the names of parts, the one with the headline result first.

    >>> ordered_parts({"val": {}, "test": {}})
    ['test', 'val']
    """
    return sorted(parts, key=lambda part: _FIRST.index(part) if part in _FIRST else len(_FIRST))


def compared_target(baselines: Plain | None, target: str, *, part: str) -> Plain | None:
    """Return the comparison of a target with baselines; None without one for this part."""
    if not baselines or baselines.get("note") or part != baselines["part"]:
        return None
    compared: Plain | None = baselines["targets"].get(target)
    return compared


def headline_sentences(assessment: Plain, *, baselines: Plain | None = None) -> dict[str, str]:
    """Return the first sentence about each target, measured on the test part if there is one.

    It has the deciding metric with its interval, the number of units, and each baseline that is not beaten.
    `baselines` is the content of baselines.json. Tasks without a deciding metric have no sentence.

    >>> result = {"task": "binary", "classes": ["no", "yes"], "units": 11}
    >>> result["metrics"] = {"auroc": {"value": 0.94, "low": None, "high": None, "reason": "few"}}
    >>> headline_sentences({"parts": {"test": {"label": result}}})
    {'label': 'AUROC 0.940 on 11 test videos: too few for an interval; not shown to be better than guessing.'}
    """
    part = next(iter(ordered_parts(assessment["parts"])), None)
    if part is None:
        return {}
    targets = assessment["parts"][part]
    sentences = {}
    for name, result in targets.items():
        if result["task"] in METRICS and METRICS[result["task"]][0] in result["metrics"]:
            head = f"{name}: " if len(targets) > 1 else ""
            compared = compared_target(baselines, name, part=part)
            sentences[name] = f"{head}{_sentence(result, compared, part=part, unit=assessment.get('unit'))}."
    return sentences


def size_text(result: Plain, *, part: str, unit: str | None) -> str:
    """Return the number of units of a result, and whether these are too few for an interval of the deciding metric.

    >>> result = {"task": "regression", "units": 4, "metrics": {"r2": {"value": 0.5, "low": None, "reason": "few"}}}
    >>> size_text(result, part="test", unit="patient")
    '4 test patients: too few for an interval'
    """
    units = f"{result['units']:,} {part} {unit or 'video' if result['units'] == 1 else plural(unit or 'video')}"
    estimate = result["metrics"][METRICS[result["task"]][0]]
    if not estimate.get("reason") or estimate.get("value") is None:
        return units
    return f"{units}: {estimate['reason'] if estimate['reason'] == SAME_VALUE else 'too few for an interval'}"


def baselines_not_beaten(compared: Plain | None) -> dict[str, list[tuple[str, float]]]:
    """Return names and scores of the baselines that a model does not beat, the best first, by the phrase for them."""
    if compared is None:
        return {}
    by_phrase: dict[str, list[tuple[str, float]]] = {}
    scores = {
        name: each["metrics"][compared["metric"]]["value"]
        for name, each in compared["baselines"].items()
        if each["metrics"][compared["metric"]]["value"] is not None
    }
    for name in sorted(scores, key=lambda name: -scores[name]):
        difference = compared["baselines"][name]["difference"]
        verdict = verdict_of_difference(difference)
        if verdict == "unknown" and (difference["difference"] or 0) < 0:
            verdict = "worse"
        if verdict != "better":
            by_phrase.setdefault(_PHRASES[verdict], []).append((name, scores[name]))
    return {phrase: by_phrase[phrase] for phrase in _PHRASES.values() if phrase in by_phrase}


def _sentence(result: Plain, compared: Plain | None, *, part: str, unit: str | None) -> str:
    task, metric = result["task"], METRICS[result["task"]][0]
    estimate = result["metrics"][metric]
    size = size_text(result, part=part, unit=unit)
    name = metric_name(metric)
    name = f"{name[:1].upper()}{name[1:]}"
    if estimate["value"] is None:
        return f"{name} is not defined on {size}"
    text = f"{name} {estimate_text(estimate)} on {size}"
    not_beaten = baselines_not_beaten(compared)
    for phrase, scores in not_beaten.items():
        names = [f"{baseline_phrase(each, task=task)} ({format_number(score)})" for each, score in scores]
        text += f"; {phrase} {', '.join(names)}"
    if compared is not None and not not_beaten:
        text += f"; better than {format_count(len(compared['baselines']), 'baseline')}"
    if compared is None:
        guess = guess_of(result)
        phrase = _PHRASES.get(guess.verdict, "better than") if guess is not None else "better than"
        text += f"; {phrase} {baseline_phrase(CONSTANT, task=task)}"
    return text
