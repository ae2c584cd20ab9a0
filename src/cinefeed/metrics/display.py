"""Metrics as text for people: names, and an assessment as lines of a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from cinefeed.core.text import format_count, format_number
from cinefeed.metrics.baselines import CONSTANT, baseline_phrase, baseline_sentences, guess_of
from cinefeed.metrics.headline import compared_target, headline_sentences, ordered_parts
from cinefeed.metrics.names import estimate_text, metric_name, positive_class_note
from cinefeed.metrics.thresholds import RULE_NAMES

Plain = Mapping[str, Any]
_IN_SUBGROUPS = {
    "regression": ("r2", "mae", "bias"),
    "binary": ("auroc", "sensitivity", "specificity"),
    "multiclass": ("balanced_accuracy", "accuracy"),
}


def reason_lines(metrics: Plain, *, of: str = "") -> list[str]:
    """Return why metrics are undefined or have no interval, one sentence per reason.

    >>> reason_lines({"f1": {"value": 1, "reason": "few"}, "auroc": {"value": None, "reason": "one class"}}, of="val")
    ['No interval for F1 of val: few.', 'AUROC of val: not defined, one class.']
    """
    by_reason: dict[tuple[bool, str], list[str]] = {}
    for metric, estimate in metrics.items():
        if estimate.get("reason"):
            by_reason.setdefault((estimate.get("value") is None, estimate["reason"]), []).append(metric_name(metric))
    lines, suffix = [], f" of {of}" if of else ""
    for (undefined, reason), names in by_reason.items():
        all_metrics = len(names) == len(metrics) and len(names) > 1
        text = f"all metrics{suffix}" if all_metrics else ", ".join(names) + suffix
        if undefined:
            lines.append(f"{text[:1].upper()}{text[1:]}: not defined, {reason}.")
        else:
            lines.append(f"No interval for {text}: {reason}.")
    return lines


def guess_sentence(result: Plain, compared: Plain | None = None) -> str:
    """Return one sentence if a part's result is not better than a guess, "" otherwise; see `guess_of`.

    >>> metrics = {"r2": {"value": 0.006, "low": -0.03, "high": 0.04}}
    >>> guess_sentence({"task": "regression", "classes": [], "metrics": metrics})
    'no better than guessing the mean: R² 0.006 (-0.030 to 0.040)'
    """
    guess = guess_of(result, compared)
    if guess is None or guess.verdict not in ("no better", "worse"):
        return ""
    estimate = estimate_text(result["metrics"].get(guess.metric))
    phrase = baseline_phrase(CONSTANT, task=result["task"])
    return f"no better than {phrase}: {metric_name(guess.metric)} {estimate}"


def assessment_lines(assessment: Plain, *, baselines: Plain | None = None) -> list[str]:
    """Return an assessment as lines: the headline, and by target a table, reasons for missing intervals, and subgroups.

    `baselines` is the content of baselines.json, which the headline names if the result is not better.
    """
    parts = assessment["parts"]
    names = list(dict.fromkeys(name for targets in parts.values() for name in targets))
    lines = [*headline_sentences(assessment, baselines=baselines).values()]
    for name in names:
        results = {part: targets[name] for part, targets in parts.items() if name in targets}
        lines += [name] if len(names) > 1 else []
        lines += _target_lines(results, assessment)
        if note := positive_class_note(next(iter(results.values()))["classes"], of=name if len(names) > 1 else ""):
            lines.append(note)
        for part in ordered_parts(results)[1:]:  # the headline is about the first
            sentence = guess_sentence(results[part], compared_target(baselines, name, part=part))
            lines += [f"{part}: {sentence}"] if sentence else []
    return lines


def baseline_lines(content: Plain, *, duration: bool = True) -> list[str]:
    """Return the content of baselines.json as a line for each baseline, and with `duration` how long they took."""
    if not content:
        return []
    if content["note"]:
        return [f"no baselines: {content['note']}"]
    lines: list[str] = []
    for name, target in content["targets"].items():
        part = content["part"] + (f" {name}" if len(content["targets"]) > 1 else "")
        metric = target["metric"]
        scores = {"model": target, **target["baselines"]}
        values = [
            f"{baseline_phrase(each, task=target['task'])} {format_number(score['metrics'][metric]['value'])}"
            for each, score in scores.items()
        ]
        lines.append(f"{part}, {metric_name(metric)}: {', '.join(values)}")
        lines += [f"{part}: {sentence}" for sentence in baseline_sentences(target)]
    if not duration:  # an earlier command computed them
        return lines
    return [*lines, f"baselines took {content['seconds']:.0f} s for {format_count(content['rows'], 'video')}"]


def operating_point_lines(result: Plain, *, of: str = "") -> list[str]:
    """Return a line for the threshold of each rule, the one in use first; none without two classes.

    >>> point = {"rule": "youden", "threshold": 0.3, "sensitivity": 0.9, "specificity": 0.8}
    >>> operating_point_lines({"operating_points": [point], "threshold_rule": "youden"}, of="test")
    ["test, threshold 0.300 (Youden's J on val, used above): sensitivity 0.900, specificity 0.800"]
    """
    points = result.get("operating_points") or []
    lines = []
    for point in sorted(points, key=lambda point: point["rule"] != result.get("threshold_rule")):
        use = ", used above" if point["rule"] == result.get("threshold_rule") else ""
        values = [
            f"{metric_name(name)} {format_number(point[name])}" for name in point if name not in ("rule", "threshold")
        ]
        where = f"{of}, " if of else ""
        threshold = f"threshold {format_number(point['threshold'])} ({RULE_NAMES[point['rule']]} on val{use})"
        lines.append(f"{where}{threshold}: {', '.join(values)}")
    return lines


def _target_lines(results: Mapping[str, Plain], assessment: Plain) -> list[str]:
    metrics = list(dict.fromkeys(metric for result in results.values() for metric in result["metrics"]))
    rows = [["", *(f"{part}, {_size(result, assessment)}" for part, result in results.items())]]
    rows += [
        [metric, *(estimate_text(result["metrics"].get(metric)) for result in results.values())] for metric in metrics
    ]
    lines = _table(rows)
    for part, result in results.items():
        lines += reason_lines(result["metrics"], of=part if len(results) > 1 else "")
    for part, result in results.items():
        lines += operating_point_lines(result, of=part if len(results) > 1 else "")
    for part, result in results.items():
        for column, groups in (result.get("subgroups") or {}).items():
            lines += _subgroup_lines(column, groups, result, part=part if len(results) > 1 else "")
    return lines


def _size(result: Plain, assessment: Plain) -> str:
    """Return the units that are measured, and videos and clips if there are more of them.

    >>> _size({"units": 2, "videos": 3, "clips": 6}, {"unit": "study"})
    '2 studies, 3 videos, 6 clips'
    """
    unit = assessment.get("unit") or "video"
    texts = [format_count(result["units"], unit)]
    if assessment.get("unit") and result["videos"] != result["units"]:
        texts.append(format_count(result["videos"], "video"))
    if result["clips"] != result["videos"]:
        texts.append(format_count(result["clips"], "clip"))
    return ", ".join(texts)


def _subgroup_lines(column: str, groups: Sequence[Plain], result: Plain, *, part: str) -> list[str]:
    metrics = [metric for metric in _IN_SUBGROUPS.get(result["task"], ()) if metric in result["metrics"]]
    rows = [[f"by {column}{f', {part}' if part else ''}", "number", *metrics]]
    for group in groups:
        values = [estimate_text(group["metrics"].get(metric)) for metric in metrics]
        rows.append([str(group["value"] if group["value"] is not None else "unknown"), f"{group['units']:,}", *values])
    reasons: dict[str, list[str]] = {}
    for row, group in zip(rows[1:], groups, strict=True):
        for metric in metrics:
            if reason := group["metrics"].get(metric, {}).get("reason"):
                names = reasons.setdefault(reason, [])
                names += [row[0]] if row[0] not in names else []
    return [*_table(rows), *(f"{', '.join(names)}: {reason}." for reason, names in reasons.items())]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of text as lines with aligned columns."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
