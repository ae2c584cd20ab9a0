"""Markdown tables of the records of trainings, and the list of scores outside their bounds."""

from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.learning.tasks import DEMO, TASKS, Task, Trial

Records = Sequence[dict[str, Any]]


def spread(values: Sequence[float]) -> str:
    """Return the mean of some values and, for several, the minimum and the maximum.

    >>> spread([0.5]), spread([0.5, 0.75]), spread([883.9, 900.1])
    ('0.500', '0.625 (0.500 to 0.750)', '892 (884 to 900)')
    """
    digits = 0 if max(map(abs, values)) >= 100 else 3
    mean, least, most = (f"{each:.{digits}f}" for each in (sum(values) / len(values), min(values), max(values)))
    return mean if len(values) == 1 else f"{mean} ({least} to {most})"


def trials_with_records(records: Records) -> Iterator[tuple[Task, Trial, list[dict[str, Any]]]]:
    """Yield each trial with its records of the current settings."""
    for name, task in (*TASKS.items(), ("demo", DEMO)):
        for trial in task.trials:
            record_key = {"task": name, "trial": trial.name, "settings": task.settings(trial)}
            yield task, trial, [each for each in records if record_key.items() <= each.items()]


def failed(records: Records) -> list[str]:
    """Return a line for each training whose score is outside its bound."""
    return [
        f"{task.title}, {trial.name}, seed {each['seed']}: {task.metric} {each['value']:.3f}, must be {trial.must}"
        for task, trial, own_records in trials_with_records(records)
        for each in own_records
        if not trial.holds(each["value"])
    ]


def tables(records: Records) -> str:
    """Return a Markdown table for each task that has records."""
    by_task: dict[str, list[tuple[Task, Trial, list[dict[str, Any]]]]] = {}
    for task, trial, own_records in trials_with_records(records):
        if own_records:
            by_task.setdefault(task.title, []).append((task, trial, own_records))
    return "\n\n".join(_table(trials) for trials in by_task.values())


def _table(trials: Sequence[tuple[Task, Trial, list[dict[str, Any]]]]) -> str:
    """Return the table of a task: first the baselines, which need no training."""
    task = trials[0][0]
    every = [each for _, _, own_records in trials for each in own_records]
    baselines: dict[str, dict[int, float]] = {}
    for each in every:
        for name, value in each["baselines"].items():
            baselines.setdefault(name, {})[each["seed"]] = value
    rows = [["", f"test {task.metric}", "required", "met", "parameters"], ["---"] * 5]
    rows += [[name, spread(list(values.values())), "", "", ""] for name, values in baselines.items()]
    for _, trial, own_records in trials:
        values = [each["value"] for each in own_records]
        holds = "yes" if all(map(trial.holds, values)) else "**no**"
        rows.append([trial.name, spread(values), trial.must, holds, f"{own_records[0]['parameters']:,}"])
    lines = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    seeds = sorted({each["seed"] for each in every})
    note = f"{task.epochs} epochs, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}."
    return f"## {task.title}\n\n{task.question} {note}\n\n{lines}"
