"""The model card of an exported network: README.md in the layout of Hugging Face, from the files of its run.

The text of data, training and evaluation is that of methods.md (`methods_of`), without what an author has to write.
What no file records is a line that begins with "To fill in".
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from cinefeed.core.text import format_count, markdown_text, one_line
from cinefeed.metrics.baselines import baseline_sentences
from cinefeed.metrics.display import guess_sentence, reason_lines
from cinefeed.metrics.headline import compared_target, headline_sentences, ordered_parts
from cinefeed.reports.data import PageData
from cinefeed.reports.folder import run_data
from cinefeed.reports.formatting import cell, title
from cinefeed.reports.methods import methods_of, recorded
from cinefeed.reports.sealed import sealed, write_sealed

CARD = "README.md"
_LIBRARIES = {".onnx": "onnx", ".keras": "keras"}
_IDS = {"r2": "r_squared", "auroc": "roc_auc", "sensitivity": "recall", "pearson_r": "pearsonr"}  # on Hugging Face
_TASKS = {"regression": "video-regression", "clip": "video-autoencoder", "mask": "video-segmentation"}
_DATA = ("Outcome and reference standard", "Predictors", "Missing data", "Use of the data", "Flow of participants")
_TRAINING = (
    "Preparation of the data",
    "Handling of predictors",
    "Model and training",
    "First weights",
    "Choice of the final model",
    "Class imbalance",
    "Output of the model",
)
_NO_MATTER = {"data": ("manifest",), "train": ("out",), "feed": ("workers",)}  # paths, and what changes no result


def write_card(run: str | Path, *, model: str | Path, verification: str = "") -> Path | None:
    """Write the model card of a run as README.md beside its exported network; return its path.

    Args:
        run: The run folder.
        model: The exported file, .onnx or .keras.
        verification: How the file was verified, a sentence.

    A README.md that somebody wrote or edited is kept, and None returned. Raises SettingError if `run` is not a run
    folder or the file cannot be written, and MissingExtraError without jinja2.
    """
    path = Path(model).with_name(CARD)
    text = model_card(run_data(run), spec=_spec(Path(run)), model=Path(model).name, verification=verification)
    return path if write_sealed(sealed(text), path) else None


def model_card(page: PageData, *, spec: Mapping[str, Any], model: str, verification: str = "") -> str:
    """Return the model card of a run as Markdown, with a head of YAML; `spec` is the content of its spec.json."""
    items = {item.name: recorded(item.text) for _, section in methods_of(page).sections for item in section}
    data = _data_name(page)
    lines = [*_head(page, data=data, model=model), "", f"# {markdown_text(_heading(page))}", ""]
    lines += [
        f"A network that predicts {markdown_text(_outcome(page))} from video. `cinefeed export` wrote this card from "
        f"the files of the training run {markdown_text(page.title)}. What they do not record is marked **To fill in**.",
        "",
        "## Intended use",
        "",
        "**To fill in:** intended users and use, population, and uses that are out of scope. No file of the run states "
        "them.",
        "",
        "## Network",
        "",
        *_network(page, spec, model=model, verification=verification),
        "",
        "## Data",
        "",
        f"- **Source.** {markdown_text(data)}. **To fill in:** origin of the data, consent, and access.",
        *_counts(page),
        *_texts(items, _DATA),
        "",
        "## Training",
        "",
        *_texts(items, _TRAINING),
        "",
        "## Evaluation",
        "",
        *_evaluation(page, items),
        "",
        "## Limits",
        "",
        *_limits(page),
        "",
        "## Licence",
        "",
        "**To fill in:** the licence of the weights, here and as `license:` in the head of this file. cinefeed itself "
        "is under the MIT licence, which does not extend to the weights.",
        "",
        "## Settings and versions",
        "",
        "```toml",
        *_settings(page.settings).splitlines(),
        "```",
        "",
        ", ".join(markdown_text(f"{name} {value}") for name, value in page.versions.items()) or "No versions recorded.",
    ]
    return "\n".join(lines) + "\n"


def _head(page: PageData, *, data: str, model: str) -> list[str]:
    """Return the YAML at the head of a card; texts are quoted as in JSON, which YAML reads."""
    is_classes = page.task in ("binary", "multiclass")
    task = "video-classification" if is_classes else _TASKS.get(page.task, page.task)
    results = []
    for part, target, metrics in _measured(page):
        values = {name: each["value"] for name, each in metrics.items() if each.get("value") is not None}
        if values:
            results += [
                "  - task:",
                f"      type: {task}",
                f"      name: {_quoted(f'{target} from video')}",
                "    dataset:",
                f"      type: {_quoted(data)}",
                f"      name: {_quoted(data)}",
                f"      split: {_quoted(part)}",
                "    metrics:",
            ]
            for name, value in values.items():
                text = f"{title(name)}{_interval(metrics[name])}"
                results += [
                    f"    - type: {_IDS.get(name, name)}",
                    f"      value: {value!r}",
                    f"      name: {_quoted(text)}",
                ]
    head = [
        "---",
        "# license: to fill in",
        f"library_name: {_LIBRARIES.get(Path(model).suffix, 'cinefeed')}",
        *(["pipeline_tag: video-classification"] if is_classes else []),
        "tags:",
        *(f"- {tag}" for tag in ("cinefeed", "video", page.task)),
    ]
    ids = dict.fromkeys(_IDS.get(name, name) for _, _, metrics in _measured(page) for name in metrics)
    head += ["metrics:", *(f"- {name}" for name in ids)] if ids else []
    head += ["model-index:", f"- name: {_quoted(page.title)}", "  results:", *results] if results else []
    return [*head, "---"]


def _measured(page: PageData) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Return part, target and metrics of each result of the part that counts: the test part, if there is one."""
    parts = (page.assessment or {}).get("parts", {})
    part = next(iter(ordered_parts(parts)), None)
    return [] if part is None else [(part, name, result["metrics"]) for name, result in parts[part].items()]


def _network(page: PageData, spec: Mapping[str, Any], *, model: str, verification: str) -> list[str]:
    names = ["clips"] if not spec.get("views") or spec.get("stacked") else [f"clips_{view}" for view in spec["views"]]
    shape = " x ".join(map(str, spec.get("clip_shape", ())))
    inputs = [
        f"`{name}` (batch x {shape}: frames, height, width, channels), {spec.get('dtype', '?')}" for name in names
    ]
    inputs += [f"`{each['name']}`" for each in spec.get("covariates", ())]
    inputs += ["`valid` (batch x frames), True for frames that are not padding"] if spec.get("padded") else []
    lines = [f"- **File.** `{markdown_text(model)}`. {verification}".rstrip(), f"- **Inputs.** {'; '.join(inputs)}."]
    if page.run.get("parameters"):
        lines.append(f"- **Parameters.** {page.run['parameters']:,}.")
    if page.run.get("encoded_from"):
        lines.append(
            f"- **Features.** Inputs are features of {markdown_text(str(page.run['encoded_from']))}, not frames."
        )
    return lines


def _counts(page: PageData) -> list[str]:
    if page.counts is None:
        return ["- **Parts.** Their sizes are not recorded."]
    names = [markdown_text(name) for name in page.counts.names]
    lines = ["", f"| part | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}"]
    rows = [f"| {part} | {' | '.join(f'{number:,}' for number in numbers)} |" for part, numbers in page.counts.parts]
    return [*lines, *rows, ""]


def _texts(items: Mapping[str, str], names: Sequence[str]) -> list[str]:
    return [f"- **{name}.** {markdown_text(items[name])}" for name in names if items.get(name)]


def _evaluation(page: PageData, items: Mapping[str, str]) -> list[str]:
    assessment = page.assessment or {"parts": {}}
    results = headline_sentences(assessment, baselines=page.baselines).values()
    lines = [f"- **Result.** {markdown_text(each)}" for each in results]
    lines += _texts(items, ("Measures of performance", "Fairness"))
    units = assessment.get("unit") or "video"
    for part in ordered_parts(assessment["parts"]):
        for target, result in assessment["parts"][part].items():
            size = format_count(result["units"], units)
            lines += ["", f"### {markdown_text(f'{target}, {part}: {size}')}", ""]
            lines += ["| metric | value | interval |", "| --- | ---: | --- |"]
            for metric, estimate in result["metrics"].items():
                value, interval = cell(estimate)
                lines.append(f"| {title(metric)} | {value} | {interval} |")
            compared = compared_target(page.baselines, target, part=part)
            sentences = [] if compared is None else [f"The model is {each}." for each in baseline_sentences(compared)]
            lines += ["", *(f"- {markdown_text(each)}" for each in sentences)] if sentences else []
    if page.assessment is None:
        lines.append("- No evaluation is recorded.")
    elif page.baselines is None or page.baselines.get("note"):
        note = (page.baselines or {}).get("note") or "none were computed"
        lines += ["", f"- No baselines: {markdown_text(note)}."]
    return lines


def _limits(page: PageData) -> list[str]:
    """Return the limits that the files of a run show."""
    lines = ["All parts are from one data set. **To fill in:** results on data of other places, devices and times."]
    parts = (page.assessment or {}).get("parts", {})
    for part in ordered_parts(parts):
        for target, result in parts[part].items():
            if sentence := guess_sentence(result, compared_target(page.baselines, target, part=part)):
                lines.append(f"{target}, {part}: {sentence}.")
            lines += reason_lines(result["metrics"], of=f"{target}, {part}")
    lines += [f"{doubt.title}: {doubt.detail}" for doubt in page.doubts]
    lines += [f"Not checked: {page.missing_checks}."] if page.missing_checks else []
    lines += [*page.warnings]
    if page.failures:
        count = format_count(len(page.failures), "file")
        lines.append(f"{count} could not be read to the end; those without any readable frame are left out.")
    return [f"- {each if each.startswith('All parts') else markdown_text(each)}" for each in lines]


def _settings(text: str) -> str:
    """Return settings without folders of this machine, and without what changes no result."""
    table = tomllib.loads(text) if text else {}
    for section, names in _NO_MATTER.items():
        for name in names:
            table.get(section, {}).pop(name, None)
    if "weights" in table.get("model", {}):
        table["model"]["weights"] = Path(table["model"]["weights"]).name
    return tomli_w.dumps(table).strip()


def _heading(page: PageData) -> str:
    return f"{_outcome(page)} from video" if page.target else page.title


def _outcome(page: PageData) -> str:
    names = [target for _, target, _ in _measured(page)] or [page.target or "a label"]
    return ", ".join("the clip itself" if page.task == "clip" else name for name in names)


def _data_name(page: PageData) -> str:
    return "private data" if page.private or not page.data else page.data


def _interval(estimate: Mapping[str, Any]) -> str:
    interval = cell(estimate).interval
    return f" ({interval})" if interval else ""


def _quoted(text: str) -> str:
    return json.dumps(one_line(text), ensure_ascii=False)


def _spec(run: Path) -> dict[str, Any]:
    path = run / "spec.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
