"""What a run knows of its own making, in sentences: settings and results as plain data in, text out."""

from collections.abc import Mapping
from typing import Any

from cinefeed.report.assessed import ordered
from cinefeed.report.data import PageData
from cinefeed.report.words import cell, counted, metric_name, say

Told = Mapping[str, Any]

_TASKS = {
    "regression": "a number (regression)",
    "binary": "one of two classes",
    "multiclass": "one of several classes",
    "clip": "the clip itself (autoencoder)",
    "mask": "a mask",
}


def task(page: PageData) -> str:
    """Say what kind of outcome is predicted, of several each by name."""
    several = page.scored.targets if page.scored is not None and len(page.scored.targets) > 1 else ()
    if several:
        return "; ".join(f"{each.name}, {_TASKS[each.task]}" for each in several)
    return _TASKS.get(page.task, page.task)


def classes(page: PageData) -> str:
    """Name the classes."""
    if not page.classes:
        return ""
    positive = f" (positive: {page.classes[1]})" if len(page.classes) == 2 else ""
    return f", in the order {', '.join(page.classes)}{positive}"


def rows(page: PageData) -> str:
    """Say how many rows a run used."""
    total = sum(numbers[-1] for _, numbers in page.counts.parts) if page.counts else 0
    return f", {counted(total, 'row')} used" if total else ""


def where(data: Told) -> str:
    """Say which rows were chosen."""
    chosen = [f"{column} is {' or '.join(map(str, values))}" for column, values in data.get("where", {}).items()]
    return f"Rows where {' and '.join(chosen)}." if chosen else "Every row of the manifest that can be read."


def preparation(told: Told) -> str:
    """Say what becomes of a video before any augmentation."""
    clip, frame = told.get("clip", {}), told.get("frame", {})
    words = f"Clips of {clip.get('frames', 16)} frames, stride {clip.get('stride', 1)}"
    if clip.get("rate_hz") or clip.get("rate"):
        words = f"Clips of {clip.get('frames', 16)} frames at {clip.get('rate_hz', clip.get('rate'))} a second"
    sides = f"{frame.get('height', '?')} x {frame.get('width', '?')}"
    channels = "grey" if frame.get("channels", 1) == 1 else f"{frame['channels']} channels"
    return f"{words}; frames of {sides} pixels, {channels}, fitted by {frame.get('fit', 'the default')}."


def covariates(data: Told) -> str:
    """Name the covariates."""
    names = data.get("covariates") or ()
    return f", and {', '.join(names)}" if names else ""


def counts(page: PageData) -> str:
    """Say what each part holds."""
    if page.counts is None:
        return "The numbers of each part are not kept."
    parts = (
        f"{part}: " + ", ".join(f"{number:,} {name}" for name, number in zip(page.counts.names, numbers, strict=True))
        for part, numbers in page.counts.parts
    )
    return "; ".join(parts) + "."


def failed(page: PageData) -> str:
    """Say how many files failed."""
    return f" {counted(len(page.failures), 'file')} failed, listed in the report." if page.failures else ""


def flow(page: PageData) -> str:
    """Say how many rows each step left."""
    return "; ".join(f"{step}: {number:,}" for step, number in page.flow) + "." if page.flow else "Not kept."


def split(page: PageData, given: Told) -> str:
    """Say how the parts were made."""
    if given.get("column"):
        words = f"Parts as the column {given['column']!r} says"
    else:
        words = f"Parts drawn by seed {given.get('seed', 0)}: {given.get('val', 0.15):.0%} validation, "
        words = (words + f"{given.get('test', 0.15):.0%} test, the rest training").replace("%", " %")
    group = given.get("group")
    apart = f"disjoint by {group}" if group else "disjoint by row only"
    alike = f", stratified by {given['stratify']}" if given.get("stratify") else ""
    chosen = "the epoch and the threshold" if len(page.classes) == 2 else "the epoch"
    return f"{words}; {apart}{alike}. Validation chooses {chosen}; test is used once, at the end."


def augmentation(told: Told) -> str:
    """Name the transforms in their order."""
    names = []
    for each in told.get("transforms", ()):
        options = ", ".join(f"{key} {value}" for key, value in each.items() if key != "name")
        names.append(f"{each.get('name', '?')} ({options})" if options else str(each.get("name", "?")))
    if not names:
        return "No transform of a clip; pixels are scaled in the first layer of the network."
    return f"In training only where random: {'; '.join(names)}. Parameters are drawn once a clip."


def model(page: PageData, given: Told, told: Told) -> str:
    """Say which network, and how it was trained."""
    train, feed = told.get("train", {}), told.get("feed", {})
    options = ", ".join(f"{key} {value}" for key, value in given.get("options", {}).items())
    size = f", {page.run['parameters']:,} parameters" if page.run.get("parameters") else ""
    words = f"{given.get('name', 'cnn_rnn')}{f' ({options})' if options else ''}{size}; Keras on {_backend(page)}. "
    words += f"Adam, learning rate {train.get('learning_rate', 1e-3)}, {train.get('schedule', 'constant')}; "
    words += f"loss {train.get('loss', 'auto')}; batches of {feed.get('batch_size', 16)}; at most "
    return words + f"{train.get('epochs', '?')} epochs; seed {feed.get('seed', 0)}."


def _backend(page: PageData) -> str:
    device = page.versions.get("device")
    return page.versions.get("backend", "an unknown backend") + (f", {device}" if device else "")


def weights(given: Told) -> str:
    """Say what training began with."""
    file = given.get("options", {}).get("weights")
    return f"From {file}." if file else "At random, by the seed."


def final(page: PageData, train: Told) -> str:
    """Say which epoch's weights are kept."""
    if page.folds is not None:
        return "In each fold, the epoch that its own validation part chose; the fold's own page says which."
    if "best_epoch" not in page.run:
        return "The run has not ended."
    return (
        f"Weights of epoch {page.run['best_epoch']} of {page.run['epochs']}, the best by "
        f"{page.run.get('monitor', train.get('monitor', 'val_loss'))}; training ended because {page.run['stopped']}."
    )


def imbalance(page: PageData, told: Told) -> str:
    """Say how labels were balanced, and what was done about it afterwards."""
    sampler = told.get("sampler", {})
    name = sampler.get("name", "Natural")
    if name == "Natural":
        return "Nothing was balanced: each video once an epoch."
    options = ", ".join(f"{key} {value}" for key, value in sampler.items() if key != "name")
    words = f"Training draws by {name}{f' ({options})' if options else ''}; validation and test are as they are."
    if page.balanced is not None:
        words += f" Most draws of one video in an epoch: {page.balanced.get('largest_repeat', '?')}."
    corrected = _measured(page)
    if any(each.get("corrected") for each in corrected):
        words += " Probabilities are also shown corrected by the frequencies of the draws."
    return words


def output(page: PageData) -> str:
    """Say what the model puts out, and how classes are told by it."""
    if not page.classes:
        return f"A number in the unit of {page.target or 'the label'}."
    threshold = next((each["threshold"] for each in _measured(page) if each.get("threshold") is not None), None)
    if len(page.classes) > 2:
        return "A probability of each class; the largest is predicted."
    return f"The probability of {page.classes[1]}" + (f"; threshold {threshold:.3g}." if threshold is not None else ".")


def measures(page: PageData) -> str:
    """Name the metrics, the unit, and how intervals were made."""
    assessment = page.assessment
    if assessment is None:
        return "Metrics of whole parts, every video once; no intervals."
    names = dict.fromkeys(metric_name(name) for each in _measured(page) for name in each["metrics"])
    unit = assessment.get("unit") or "video"
    drawn = assessment.get("cluster") or unit
    return (
        f"{', '.join(names)}; one score a {unit}. Intervals: {assessment.get('level', 0.95):.0%}, percentiles of "
        f"{assessment.get('resamples', 0):,} bootstrap samples of {drawn}s.".replace("%", " %")
    )


def fairness(page: PageData) -> str:
    """Say which subgroups were measured."""
    columns = dict.fromkeys(column for each in _measured(page) for column in each.get("subgroups") or {})
    if not columns:
        return "author: no subgroups were measured; name columns in [evaluate] subgroups."
    return f"Measured apart by {', '.join(columns)}, in the report. author: why these, and what was done."


def labels(page: PageData) -> str:
    """Say how many of each label, or how they lie, training had."""
    if page.labels is None or not len(page.labels.raw):
        return "Not kept."
    raw = page.labels.raw
    if page.labels.classes:
        text = raw.astype(str)
        return "Training: " + ", ".join(f"{name} {(text == name).sum():,}" for name in page.labels.classes) + "."
    mean, low, high = (say(float(each)) for each in (raw.mean(), raw.min(), raw.max()))
    return f"Training: {len(raw):,} labels, mean {mean}, {low} to {high}."


def performance(page: PageData) -> str:
    """Quote the metrics of the part that results are quoted of."""
    if page.assessment is None:
        return "In the report."
    part = next(iter(ordered(page.assessment["parts"])), None)
    if part is None:
        return "Nothing was measured."
    said = []
    for name, each in page.assessment["parts"][part].items():
        numbers = []
        for metric, measured in each["metrics"].items():
            shown = cell(measured)
            numbers.append(f"{metric_name(metric)} {shown.value}" + (f" ({shown.interval})" if shown.interval else ""))
        said.append(f"{name}, {part}: {', '.join(numbers)}")
    return ". ".join(said) + "."


def _measured(page: PageData) -> list[Told]:
    """Return what was measured of the first part, target by target."""
    if page.assessment is None:
        return []
    part = next(iter(ordered(page.assessment["parts"])), None)
    return [] if part is None else list(page.assessment["parts"][part].values())
