"""One self-contained HTML page: of a feed before training, of a run, or of a table of predictions."""

import base64
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import cinefeed
from cinefeed.errors import MissingExtraError, SettingError
from cinefeed.feed.feed import Feed
from cinefeed.files import write_atomically
from cinefeed.metrics.assess import assess
from cinefeed.metrics.predictions import Task, read_predictions
from cinefeed.report import assessed, unassessed
from cinefeed.report.balance import balance_facts, balance_figure
from cinefeed.report.data import Labels, PageData, Pictures, feed_page
from cinefeed.report.figures import clips_sheet, feed_time_figure, labels_figure, learning_curves, pixels_figure
from cinefeed.report.folder import run_data, table_data
from cinefeed.report.methods import Methods, keep_methods, methods_of
from cinefeed.report.moving import moving, with_saliency
from cinefeed.report.style import Figure, on_page
from cinefeed.report.words import Cell, cell, title

_STAGES = ("read", "decode", "transform")


def inspect_page(
    feed: Feed, *, out: str | Path, val: Feed | None = None, failures: Sequence[Mapping[str, str]] | None = None
) -> Path:
    """Write the page of a feed before any training: labels raw and as fed, augmented clips, files that failed.

    `failures` lists files (id, path, error) that were left out before the feed; without it, those rows of the feed's
    own manifest that a scan found damaged. Raises SettingError where `out` cannot be written, MissingExtraError
    without matplotlib and jinja2.
    """
    return write_report(feed_page(feed, val=val, failures=failures), out=Path(out))


def run_page(folder: str | Path, *, out: str | Path | None = None) -> Path:
    """Write the page of a run, by default as report.html in its folder; return where it is.

    methods.md is written beside it, unless an author has worked on the one that is there, or the settings cannot be
    read. A file that the folder lacks
    leaves its section out, and the page says so. Raises as `inspect_page`, and SettingError where `folder` holds no
    run.
    """
    page = run_data(folder)
    path = write_report(page, out=Path(folder) / "report.html" if out is None else Path(out))
    if page.settings:  # without them nearly all of it would be a guess
        keep_methods(methods_of(page), path.with_name("methods.md"))
    return path


def table_page(
    table: str | Path,
    *,
    out: str | Path | None = None,
    task: Task | Mapping[str, Task] | None = None,
    classes: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    unit: str | None = None,
    cluster: str | None = None,
    subgroups: Sequence[str] = (),
) -> Path:
    """Write the page of a table of predictions (Parquet or CSV), of cinefeed or of any other program.

    `unit` is the column of what counts once, by default the video; `cluster` that of what intervals draw as a whole,
    the patient. `task` and `classes` overrule what the columns say. By default the page is beside the table. Raises
    what reading and measuring raise: TableError, ColumnError, LabelError.
    """
    path = Path(table)
    predictions = read_predictions(path, task=task, classes=classes)
    assessment = assess(predictions, unit=unit, cluster=cluster, subgroups=subgroups)
    page = table_data(predictions, assessment, name=path.name)
    return write_report(page, out=path.with_suffix(".html") if out is None else Path(out))


def write_report(page: PageData, *, out: Path) -> Path:
    """Write a page of a feed or a run."""
    return write_html(render(page), out=out)


def write_html(html: str, *, out: Path) -> Path:
    """Write a page, whole or not at all. Raises SettingError where it cannot be written, or is not named as a page."""
    if out.suffix.lower() not in (".html", ".htm"):
        raise SettingError(f"{out} cannot be written: a page is HTML; name it {out.stem}.html")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, lambda partial: partial.write_text(html, encoding="utf-8"))
    except OSError as error:
        raise SettingError(f"{out} cannot be written: {error.strerror}; name another place") from error
    return out


def render(page: PageData) -> str:
    """Return the page as HTML that asks no network for anything."""
    figures = _figures(page)
    worst, saliency = _worst(page.worst), _saliency(page.saliency)
    methods = methods_of(page) if page.settings else None
    quoted = assessed.headline(page.assessment) if page.assessment is not None else unassessed.headline(page)
    return from_template(
        "template.html",
        page=page,
        headline=quoted,
        figures=figures,
        pictured=bool(worst or saliency or figures["clips"]),
        assessed=assessed.results(page.assessment, page.scored, folds=page.folded)
        if page.assessment is not None
        else None,
        results=[unassessed.result(page, each) for each in page.predictions],
        metrics=unassessed.metric_table(page),
        folds=_folds(page.folds),
        worst=worst,
        several=page.scored is not None and len(page.scored.targets) > 1,
        saliency=saliency,
        methods=methods,
        methods_uri=_as_file(methods) if methods else "",
        balance_facts=balance_facts(page.balanced) if page.balanced is not None else [],
        verdict=_verdict(page),
    )


def from_template(name: str, *, filters: Mapping[str, Callable[..., str]] | None = None, **given: Any) -> str:
    """Fill one of this room's templates; text is escaped, and a name that is not given is an error."""
    try:
        from jinja2 import Environment, FunctionLoader, StrictUndefined
    except ImportError as error:
        raise MissingExtraError("jinja2", extra="report") from error
    folder = files("cinefeed.report")
    loader = FunctionLoader(lambda file: folder.joinpath(file).read_text(encoding="utf-8"))
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters.update(filters or {})
    return environment.get_template(name).render(version=cinefeed.__version__, **given)


def _figures(page: PageData) -> dict[str, Any]:
    """Return the figures of data, training and feed by section, None where there is nothing; of labels a list."""
    found: dict[str, Any] = dict.fromkeys(("balance", "clips", "pixels", "curves", "time"))
    of_targets = {page.target: page.labels, **page.others}
    found["labels"] = [
        _labels(name, each, tail=f"_{name}" if page.others else "")
        for name, each in of_targets.items()
        if each is not None and len(each.raw) and len(each.fed)
    ]
    if page.balanced is not None and len(page.balanced["names"]) > 1:
        svg = balance_figure(page.balanced, name=page.target or "label")
        found["balance"] = on_page(svg, "balance", "What balancing asks for and reaches, and what it costs in repeats.")
    if page.clips is not None and len(page.clips):
        found["clips"] = on_page(clips_sheet(page.clips, captions=page.captions), "clips", "Time runs to the right.")
    if page.pixels is not None and page.pixels.counts.any():
        svg = pixels_figure(page.pixels.counts, edges=page.pixels.edges, dtype=page.pixels.dtype)
        found["pixels"] = on_page(svg, "pixels", f"All pixels of the first batch. {page.pixels.words}")
    if any(page.history.values()):
        svg = learning_curves(page.history, best_epoch=page.best_epoch)
        found["curves"] = on_page(svg, "curves")
    stats = page.feed_stats or {}
    if stats.get("elapsed_seconds"):
        svg = feed_time_figure(
            {stage: float(stats.get(f"{stage}_seconds") or 0.0) for stage in _STAGES},
            wait_seconds=float(stats.get("wait_seconds") or 0.0),
            elapsed_seconds=float(stats["elapsed_seconds"]),
            workers=int(stats.get("workers", 1)),
        )
        found["time"] = on_page(svg, "time", "Shares of the time on the clock.")
    return found


def _labels(name: str, labels: Labels, *, tail: str) -> Figure:
    svg = labels_figure(labels.raw, fed=labels.fed, classes=labels.classes, edges=labels.edges, name=name or "label")
    return on_page(svg, f"labels{tail}", "Training labels as they are, and as one epoch feeds them.")


def _worst(pictures: Pictures | None) -> list[tuple[str, str, str]]:
    """Return picture, name and caption of each of the worst videos."""
    if pictures is None or not len(pictures.clips):
        return []
    return [
        (moving(clip), name, caption)
        for clip, name, caption in zip(pictures.clips, pictures.ids, pictures.captions, strict=True)
    ]


def _saliency(pictures: Pictures | None) -> list[tuple[str, str, str]]:
    if pictures is None or not len(pictures.clips) or pictures.space is None or pictures.time is None:
        return []
    found = []
    for i, clip in enumerate(pictures.clips):
        space, time = pictures.space[i], pictures.time[i]
        cell, span = max(space.ravel(), key=abs), max(time.ravel(), key=abs)
        words = f"{pictures.captions[i]} · the deepest cell moves it by {-cell:+.3g}, the deepest span by {-span:+.3g}"
        found.append((moving(with_saliency(clip, space=space, time=time)), pictures.ids[i], words))
    return found


def _folds(folds: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the table of a cross-validation: the mean over the folds, then each of them."""
    if not folds or not folds.get("runs"):
        return None
    runs, mean = folds["runs"], folds["metrics"]
    return {
        "head": ["mean", *(f"fold {each['fold']}" for each in runs)],
        "rows": [
            ("videos", [Cell(""), *(Cell(f"{each['rows']:,}") for each in runs)]),
            *(
                (
                    title(name),
                    [
                        cell({**found, "value": found["mean"]}),
                        *(cell({"value": each["metrics"].get(name)}) for each in runs),
                    ],
                )
                for name, found in mean.items()
            ),
        ],
    }


def _as_file(methods: Methods) -> str:
    """Return methods.md as a link that needs no network."""
    return "data:text/markdown;charset=utf-8;base64," + base64.b64encode(methods.markdown().encode()).decode()


def _verdict(page: PageData) -> str:
    stats = page.feed_stats or {}
    words = str(stats.get("verdict", ""))
    if not words:
        return ""
    speed = f" It handed out {stats['clips_per_second']:,.0f} clips a second." if stats.get("clips_per_second") else ""
    return f"{words[0].upper()}{words[1:]}.{speed}"
