"""methods.md: what a paper must say of a model, filled where the run knows it, and 'author:' where it cannot.

The order and the numbers are those of TRIPOD+AI (Collins et al., BMJ 2024;385:e078378), the items that only imaging has
those of CLAIM (Tejani et al., 2024 update, Radiology: Artificial Intelligence 6(4):e240300), named in our own words:
read the statements themselves before filling them in.
"""

import hashlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cinefeed.errors import SettingError
from cinefeed.files import write_atomically
from cinefeed.report import facts
from cinefeed.report.data import PageData
from cinefeed.report.words import counted
from cinefeed.text import markdown_text

_SEAL = "<!-- written by cinefeed, and written anew as long as nobody changes it: "


class Item(NamedTuple):
    """One thing to report: where it stands in TRIPOD+AI or CLAIM, its name, and what is known of it."""

    number: str
    name: str
    text: str


class Methods(NamedTuple):
    """All items of a run, by section."""

    title: str
    sections: tuple[tuple[str, tuple[Item, ...]], ...]

    def markdown(self) -> str:
        """Return them as Markdown, sealed with a digest by which `keep_methods` sees whether an author changed it."""
        lines = [
            f"# Methods and results of {markdown_text(self.title)}",
            "",
            "By the items of TRIPOD+AI (2024), and CLAIM (2024 update) where only imaging asks for them. What the run",
            "knows is filled in. Each `author:` is for you: write there, and the file is yours: never written over.",
        ]
        for section, items in self.sections:
            lines += ["", f"## {section}", ""]
            lines += [f"- **{each.name}** ({each.number}). {markdown_text(each.text)}" for each in items]
        text = "\n".join(lines) + "\n"
        return f"{text}\n{_SEAL}{_digest(text)} -->\n"


def keep_methods(methods: Methods, path: Path) -> None:
    """Write methods.md, unless an author has changed the one that is there. Raises SettingError where it cannot be."""
    try:
        if path.is_file():  # of an author's editor it may be in another encoding: then it is no text of ours, and stays
            text, _, seal = path.read_text(encoding="utf-8", errors="replace").partition(f"\n{_SEAL}")
            if seal.strip() != f"{_digest(text)} -->":
                return
        write_atomically(path, lambda partial: partial.write_text(methods.markdown(), encoding="utf-8"))
    except OSError as error:
        raise SettingError(f"{path} cannot be written: {error.strerror}; name another place") from error


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _columns(data: Mapping[str, Any], page: PageData) -> str:
    target = data.get("target", page.target)
    return f"The columns {', '.join(target)}" if isinstance(target, list) else f"The column {target}"


def methods_of(page: PageData) -> Methods:
    """Return the items of a run, filled as far as it goes."""
    told = tomllib.loads(page.settings) if page.settings else {}
    data, train = told.get("data", {}), told.get("train", {})
    split, model = data.get("split", {}), told.get("model", {})
    sections = (
        (
            "Title, abstract and introduction",
            (
                Item(
                    "1",
                    "Title",
                    f"author: the outcome ({page.target or 'the label'}), the population, a network that reads video.",
                ),
                Item("2", "Abstract", "author: as TRIPOD+AI for abstracts asks."),
                Item(
                    "3a-c",
                    "Background",
                    "author: the clinical question, who would use the answer and when, what models exist, "
                    "and which groups of patients are known to be served worse.",
                ),
                Item(
                    "4",
                    "Objectives",
                    "author: development, evaluation, or both; CLAIM: prospective or retrospective, and the goal.",
                ),
            ),
        ),
        (
            "Methods: data",
            (
                Item(
                    "5a",
                    "Source of data",
                    f"The manifest {data.get('manifest', 'of the run')}"
                    f"{facts.rows(page)}. author: registry, trial or routine care, and why these data.",
                ),
                Item("5b", "Dates", "author: first and last examination."),
                Item("6a", "Setting", "author: centres, countries, and the level of care."),
                Item("6b", "Who is included", facts.where(data) + " author: criteria before the data came here."),
                Item("6c", "Treatments", "author: where they matter for the outcome."),
                Item("7", "Preparation of the data", facts.preparation(told)),
                Item("CLAIM", "Acquisition", "author: scanners or probes, protocol, views, who acquired them."),
                Item(
                    "CLAIM",
                    "De-identification",
                    ("Ids stand for paths, and the report has no pictures. " if page.private else "")
                    + "author: how, and how burned-in text was dealt with.",
                ),
                Item(
                    "8a-c",
                    "Outcome and reference standard",
                    f"{_columns(data, page)}: {facts.task(page)}. "
                    "author: how it was measured, by whom, blinded to what; CLAIM: how far annotators agree.",
                ),
                Item("9a-c", "Predictors", f"The pixels of the video{facts.covariates(data)}."),
                Item("10", "Sample size", f"{facts.counts(page)} author: why it suffices."),
                Item("11", "Missing data", facts.missing(page, data)),
            ),
        ),
        (
            "Methods: model",
            (
                Item("12a", "Use of the data", facts.split(page, split, train)),
                Item("12b", "Handling of predictors", facts.augmentation(told)),
                Item("12c", "Model and training", facts.model(page, model, told)),
                Item("CLAIM", "First weights", facts.weights(model)),
                Item("CLAIM", "Choice of the final model", facts.final(page, train)),
                Item("12d", "Differences between clusters", "author: centres or devices, where there are several."),
                Item("13", "Class imbalance", facts.imbalance(page, told)),
                Item("15", "Output of the model", facts.output(page)),
                Item(
                    "16",
                    "Training against evaluation data",
                    "Both are parts of one manifest. author: where an external set differs.",
                ),
            ),
        ),
        (
            "Methods: evaluation",
            (
                Item("12e", "Measures of performance", facts.measures(page)),
                Item(
                    "12f-g",
                    "Updating, and predictions on other data",
                    "The model was not updated. Elsewhere `cinefeed evaluate` measures it, its threshold frozen.",
                ),
                Item("14", "Fairness", facts.fairness(page)),
                Item(
                    "CLAIM",
                    "Explanation of single predictions",
                    f"Occlusion over space and time on {counted(len(page.saliency.clips), 'test video')}: see the page."
                    if page.saliency is not None and len(page.saliency.clips)
                    else "author: none is kept.",
                ),
                Item("17", "Ethics", "author: committee, approval number, consent."),
            ),
        ),
        (
            "Open science",
            (
                Item("18a-d", "Funding, interests, protocol, registration", "author:"),
                Item(
                    "18e",
                    "Data",
                    f"Fingerprint of the manifest: {page.run.get('fingerprint', 'not kept')}. author: access.",
                ),
                Item(
                    "18f",
                    "Code",
                    "cinefeed (MIT). The run folder holds settings, weights, predictions, versions: "
                    + "; ".join(f"{name} {value}" for name, value in page.versions.items())
                    + ".",
                ),
                Item("19", "Patients and the public", "author: how they took part."),
            ),
        ),
        (
            "Results",
            (
                Item("20a", "Flow of participants", facts.flow(page) + " author: times of follow-up."),
                Item(
                    "20b-c",
                    "Characteristics of each part",
                    f"{facts.counts(page)} author: age, sex, and what else describes them.",
                ),
                Item("21", "Number and outcomes for each analysis", facts.labels(page)),
                Item("22", "Full model", "best.weights.h5 with settings.toml; the report shows all settings."),
                Item("23a", "Performance", facts.performance(page)),
                Item("23b", "Performance by cluster", "author: where there are several centres."),
                Item("24", "Updating", "None."),
                Item(
                    "CLAIM",
                    "Failures",
                    f"In the report: the {counted(len(page.worst.clips), 'worst test video')}."
                    if page.worst is not None and len(page.worst.clips)
                    else "author: look at the worst predictions.",
                ),
            ),
        ),
        (
            "Discussion",
            (
                Item("25", "Interpretation", "author: with fairness in mind."),
                Item("26", "Limitations", "author: representativeness, sample size, overfitting, missing data."),
                Item(
                    "27a-c",
                    "Use",
                    "author: how poor input is handled, who must look at what, and what is to be studied next.",
                ),
            ),
        ),
    )
    return Methods(page.title, sections)
