"""What a run knows of its own making, in sentences: settings and results as plain data in, text out."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

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


class _Target(NamedTuple):
    """What is known of one target."""

    name: str
    task: str
    classes: Sequence[str]
    threshold: float | None = None


def _targets(page: PageData) -> list[_Target]:
    """Return all targets: of what was measured, or of the labels where nothing is yet."""
    if page.assessment is not None and page.assessment["parts"]:
        measured = page.assessment["parts"][ordered(page.assessment["parts"])[0]]
        return [_Target(name, each["task"], each["classes"], each.get("threshold")) for name, each in measured.items()]
    others = [_Target(name, _task_of(each.classes), each.classes) for name, each in page.others.items()]
    return [_Target(page.target or "the label", page.task, page.classes), *others]


def _task_of(classes: Sequence[str]) -> str:
    if not classes:
        return "regression"
    return "binary" if len(classes) == 2 else "multiclass"


def task(page: PageData) -> str:
    """Say what kind of outcome is predicted, and its classes, of several each by name."""
    targets = _targets(page)
    said = [_TASKS.get(each.task, each.task) + _classes(each.classes) for each in targets]
    if len(targets) == 1:
        return said[0]
    return "; ".join(f"{each.name}, {words}" for each, words in zip(targets, said, strict=True))


def _classes(names: Sequence[str]) -> str:
    if not names:
        return ""
    positive = f" (positive: {names[1]})" if len(names) == 2 else ""
    return f", in the order {', '.join(names)}{positive}"


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
    if clip.get("position") == "spread":
        words = f"Clips of {clip.get('frames', 16)} frames, spread evenly over the whole video"
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


def missing(page: PageData, data: Told) -> str:
    """Say what became of rows without a label, and of files that cannot be read."""
    several = isinstance(data.get("target"), list)
    if data.get("missing") == "drop":
        words = (
            f"Rows without {'any' if several else 'a'} label are left out{', and counted below' if page.flow else ''}."
        )
    else:
        words = f"No row without {'any' if several else 'a'} label was accepted."
    if several:
        words += " A row may lack some of its labels: those have no part in the loss, nor in the metrics."
    return words + failed(page)


def flow(page: PageData) -> str:
    """Say how many rows each step left."""
    return "; ".join(f"{step}: {number:,}" for step, number in page.flow) + "." if page.flow else "Not kept."


def split(page: PageData, given: Told, train: Told) -> str:
    """Say how the parts were made, and what they served for."""
    if page.folded:
        number = (page.folds or {}).get("folds", "Several")
        words = f"{number} folds drawn by seed {given.get('seed', 0)}, each the test part of one model; "
        words += f"of its other rows {given.get('val', 0.15):.0%} are validation, the rest training".replace("%", " %")
    elif given.get("column"):
        words = f"Parts as the column {given['column']!r} says"
    else:
        words = f"Parts drawn by seed {given.get('seed', 0)}: {given.get('val', 0.15):.0%} validation, "
        words = (words + f"{given.get('test', 0.15):.0%} test, the rest training").replace("%", " %")
    group = given.get("group")
    apart = f"disjoint by {group}" if group else "disjoint by row only"
    alike = f", stratified by {given['stratify']}" if given.get("stratify") else ""
    chosen = ["the epoch"] if _by_validation(train) else []
    chosen += ["the threshold"] if any(len(each.classes) == 2 for each in _targets(page)) else []
    chooses = f"Validation chooses {' and '.join(chosen) or 'nothing'}"
    return f"{words}; {apart}{alike}. {chooses}; test is used once, at the end."


def _by_validation(train: Told) -> bool:
    return str(train.get("monitor", "val_loss")).startswith("val_")


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
    threads = page.versions.get("threads")
    with_threads = "" if threads is None else f", {threads} {'thread' if threads == '1' else 'threads'}"
    return page.versions.get("backend", "an unknown backend") + (f", {device}" if device else "") + with_threads


def weights(given: Told) -> str:
    """Say what training began with."""
    file = given.get("options", {}).get("weights")
    return f"From {file}." if file else "At random, by the seed."


def final(page: PageData, train: Told) -> str:
    """Say which epoch's weights are kept."""
    if page.folded:
        chosen = "that its own validation part chose" if _by_validation(train) else "of the least training loss"
        return f"In each fold, the epoch {chosen}; the fold's own page says which."
    if "best_epoch" not in page.run:
        return "The run has not ended."
    monitor = page.run.get("monitor", train.get("monitor", "val_loss"))
    best = f"the best by {monitor}" if _by_validation({"monitor": monitor}) else "that of the least training loss"
    return (
        f"Weights of epoch {page.run['best_epoch']} of {page.run['epochs']}, {best}; "
        f"training ended because {page.run['stopped']}."
    )


def imbalance(page: PageData, told: Told) -> str:
    """Say how labels were balanced, and what was done about it afterwards."""
    sampler = told.get("sampler", {})
    name = sampler.get("name", "Natural")
    weighed = told.get("train", {}).get("class_weights") == "balanced"
    if name == "Natural" and not weighed:
        return "Nothing was balanced: each video once an epoch."
    options = ", ".join(f"{key} {value}" for key, value in sampler.items() if key != "name")
    words = f"Training draws by {name}{f' ({options})' if options else ''}; validation and test are as they are."
    if weighed:
        words = (
            "Each video once an epoch; in the loss each row weighs the more the rarer its class is among the training "
            "labels. Validation and test are as they are."
        )
    elif page.balanced is not None:
        words += f" Most draws of one video in an epoch: {page.balanced.get('largest_repeat', '?')}."
    corrected = _measured(page)
    if any(each.get("corrected") for each in corrected):
        words += (
            f" Probabilities are also shown corrected by the frequencies of the {'classes' if weighed else 'draws'}."
        )
    return words


def output(page: PageData) -> str:
    """Say what the model puts out, and how classes are told by it, target by target."""
    return " ".join(_output(each, several=len(_targets(page)) > 1) for each in _targets(page))


def _output(target: _Target, *, several: bool) -> str:
    of = f" of {target.name}" if several else ""
    if target.task in ("clip", "mask"):
        return f"{_TASKS[target.task][:1].upper()}{_TASKS[target.task][1:]}."
    if not target.classes:
        return f"A number in the unit of {target.name}."
    if len(target.classes) > 2:
        return f"A probability of each class{of}; the largest is predicted."
    threshold = f"; threshold {target.threshold:.3g}" if target.threshold is not None else ""
    return f"The probability of {target.classes[1]}{of}{threshold}."


def measures(page: PageData) -> str:
    """Name the metrics, the unit, and how intervals were made."""
    assessment = page.assessment
    if assessment is None:
        return "Metrics of whole parts, every video once; no intervals."
    names = dict.fromkeys(metric_name(name) for each in _measured(page) for name in each["metrics"])
    unit = assessment.get("unit") or "video"
    drawn = assessment.get("cluster") or unit
    return (
        f"{', '.join(names)}; one score a {unit}. Intervals: {assessment.get('level', 0.95):.0%}, bias-corrected "
        f"(BCa), of {assessment.get('resamples', 0):,} bootstrap samples of {counted(2, drawn)[2:]}.".replace("%", " %")
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
