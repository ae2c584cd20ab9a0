"""Items of methods.md: what a paper reports of a model, filled in from a run, or marked 'author:'.

`methods.md.j2` holds the text, `_values` the dictionary that fills it. Order and numbers of the items are those of
TRIPOD+AI (Collins et al., BMJ 2024;385:e078378); items for imaging alone are those of CLAIM (Tejani et al., 2024
update, Radiology: Artificial Intelligence 6(4):e240300). The wording is ours: read the statements themselves before
filling the items in.
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cinefeed.core.text import format_number, markdown_text, plural
from cinefeed.metrics.baselines import baseline_sentences
from cinefeed.metrics.headline import ordered_parts
from cinefeed.metrics.names import metric_name
from cinefeed.metrics.thresholds import RULE_NAMES
from cinefeed.reports.data import PageData
from cinefeed.reports.formatting import cell
from cinefeed.reports.results import resampled_unit
from cinefeed.reports.sealed import sealed, write_sealed
from cinefeed.reports.templates import from_template

_ITEM = re.compile(r"- \*\*(?P<name>.+?)\*\* \((?P<number>.+?)\)\. (?P<text>.*)")


class Item(NamedTuple):
    """One item of a reporting guideline: its number in TRIPOD+AI, or "CLAIM", its name, and its text."""

    number: str
    name: str
    text: str


class Methods(NamedTuple):
    """All items of a run, by section."""

    title: str
    sections: tuple[tuple[str, tuple[Item, ...]], ...]

    def markdown(self) -> str:
        """Return the items as Markdown, with a digest by which `keep_methods` detects an author's changes."""
        lines = [
            f"# Methods and results of {markdown_text(self.title)}",
            "",
            "Items of TRIPOD+AI (2024), with the items of CLAIM (2024 update) that are specific to imaging. Items that",
            "follow from the run are filled in; write the text of each `author:` yourself. An edited file is never",
            "overwritten.",
        ]
        for section, items in self.sections:
            lines += ["", f"## {section}", ""]
            lines += [f"- **{item.name}** ({item.number}). {markdown_text(item.text)}" for item in items]
        return sealed("\n".join(lines) + "\n")


def keep_methods(methods: Methods, path: Path) -> None:
    """Write methods.md, unless an author has changed the existing file.

    Raises SettingError if the file cannot be read or written.
    """
    write_sealed(methods.markdown(), path)


def recorded(text: str) -> str:
    """Return the part of an item that follows from the run, without what an author has to write.

    >>> recorded("Rows without a label are left out. author: why they lack it.")
    'Rows without a label are left out.'
    """
    return text.partition("author:")[0].strip()


def methods_of(page: PageData) -> Methods:
    """Return the items of a run."""
    filters = {"options": _options, "quoted": repr, "metric": lambda value: format_number(float(value))}
    text = from_template("methods.md.j2", filters=filters, **_values(page))
    sections: dict[str, list[Item]] = {}
    for line in re.sub(r" *\n +", " ", text).split("\n"):
        if line.startswith("## "):
            items = sections.setdefault(line[3:], [])
        elif match := _ITEM.fullmatch(line.rstrip()):
            items.append(Item(**match.groupdict()))
    return Methods(page.title, tuple((section, tuple(items)) for section, items in sections.items()))


def _values(page: PageData) -> dict[str, Any]:
    """Return the dictionary that fills `methods.md.j2`: the sections of settings.toml, the page, and what follows."""
    settings = tomllib.loads(page.settings) if page.settings else {}
    sections = {name: settings.get(name, {}) for name in ("data", "clip", "frame", "model", "sampler", "feed", "train")}
    sections["model"] = _model(sections["model"])
    data, train = sections["data"], sections["train"]
    assessment: Mapping[str, Any] = page.assessment or {"parts": {}}
    part = next(iter(ordered_parts(assessment["parts"])), None)
    measured: Mapping[str, Any] = {} if part is None else assessment["parts"][part]
    targets = _targets(page, measured)
    monitor = str(train.get("monitor", "val_loss"))
    by_validation = monitor.startswith("val_")
    has_threshold = any(len(target["classes"]) == 2 for target in targets)
    return {
        **sections,
        "split": data.get("split", {}),
        "transforms": settings.get("transforms", []),
        "page": page,
        "part": part,
        "clips_per_video": settings.get("evaluate", {}).get("clips", 1),
        "baselines": page.baselines,
        "versus": {name: baseline_sentences(each) for name, each in (page.baselines or {}).get("targets", {}).items()},
        "targets": targets,
        "several_columns": isinstance(data.get("target"), list),
        "row_count": sum(numbers[-1] for _, numbers in page.counts.parts) if page.counts else 0,
        "by_validation": by_validation,
        "monitor": page.run.get("monitor", monitor),
        "loss": _loss(train, targets),
        "choices": ["the epoch"] * by_validation + ["the threshold"] * has_threshold,
        "weighted": train.get("class_weights") == "balanced",
        "corrected": any(target.get("corrected") for target in measured.values()),
        "resampled": plural(resampled_unit(assessment)),
        "metric_names": dict.fromkeys(metric_name(name) for target in measured.values() for name in target["metrics"]),
        "subgroups": dict.fromkeys(column for target in measured.values() for column in target.get("subgroups") or {}),
        "class_counts": _class_counts(page),
        "performance": {
            name: [(metric_name(metric), cell(value)) for metric, value in target["metrics"].items()]
            for name, target in measured.items()
        },
    }


def _loss(train: Mapping[str, Any], targets: list[dict[str, Any]]) -> str:
    """Return the loss of a training, in words if it follows from the tasks."""
    loss = str(train.get("loss", "auto"))
    if loss != "auto":
        return loss.replace("_", "-")
    by_task = {bool(target["classes"]) for target in targets}
    return " and ".join("cross-entropy" if is_classes else "mean squared error" for is_classes in sorted(by_task))


def _model(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section [model] with its options in a table of their own, and files by their names.

    >>> _model({"name": "cnn3d", "weights": "/home/me/r3d_18.safetensors", "dense": 0})
    {'name': 'cnn3d', 'options': {'weights': 'r3d_18.safetensors', 'dense': 0}}
    """
    options = {
        name: Path(value).name if name == "weights" else value for name, value in section.items() if name != "name"
    }
    return {"name": section.get("name", "cnn_rnn"), "options": options}


def _targets(page: PageData, measured: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return name, task, classes, threshold and its rule of each target: as measured, or before that by the labels."""
    if measured:
        return [
            {
                "name": name,
                "task": target["task"],
                "classes": target["classes"],
                "threshold": target.get("threshold"),
                "rule": RULE_NAMES.get(str(target.get("threshold_rule")), ""),
            }
            for name, target in measured.items()
        ]
    columns: list[tuple[str, str, tuple[str, ...]]] = [(page.target or "the label", page.task, page.classes)]
    for name, labels in page.other_labels.items():
        task = "regression" if not labels.classes else "binary" if len(labels.classes) == 2 else "multiclass"
        columns.append((name, task, labels.classes))
    return [
        {"name": name, "task": task, "classes": classes, "threshold": None, "rule": ""}
        for name, task, classes in columns
    ]


def _class_counts(page: PageData) -> dict[str, int]:
    if page.labels is None:
        return {}
    names = page.labels.raw.astype(str)
    return {name: int((names == name).sum()) for name in page.labels.classes}


def _options(table: Mapping[str, Any]) -> str:
    """Return the options of a table of settings.

    >>> _options({"name": "Rotate", "degrees": 25})
    'degrees 25'
    """
    return ", ".join(f"{key} {value}" for key, value in table.items() if key != "name")
