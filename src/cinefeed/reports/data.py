"""Content of a page as plain data, and how it is read from a feed before training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cinefeed.core.text import format_bytes, format_count, format_percent
from cinefeed.data.manifest.summary import bytes_on_disk
from cinefeed.data.sampling.strata import bin_strata, check_bins
from cinefeed.feed.feed import Feed
from cinefeed.feed.labels import Task
from cinefeed.feed.preview import pixel_counts, sheet
from cinefeed.metrics.predictions import Predictions


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Labels of the training rows, and of the draws of one epoch: numbers, or class names."""

    raw: NDArray[Any]
    fed: NDArray[Any]
    classes: tuple[str, ...] = ()  # empty for numbers
    edges: NDArray[np.float64] | None = None  # of the sampler's bins, for numbers


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Clips of single videos with captions; `note` is the reason if there are none.

    `space` and `time` are saliency: the change of a clip's score when a cell, or a span of time, is hidden.
    """

    clips: NDArray[np.uint8]  # (clips, frames, height, width, channels)
    captions: Sequence[str] = ()
    ids: Sequence[str] = ()
    space: NDArray[np.float32] | None = None  # (clips, rows, columns)
    time: NDArray[np.float32] | None = None  # (clips, spans)
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """Histogram of the pixel values in the clips of one batch, as fed: `counts` between `edges`."""

    dtype: str
    edges: NDArray[np.float64]
    counts: NDArray[np.int64]

    @property
    def summary(self) -> str:
        """The number of levels in use, or of bins if a bin has several levels, and the shares of both ends."""
        total = max(int(self.counts.sum()), 1)
        lowest, highest = (format_percent(self.counts[end] / total, ".1f") for end in (0, -1))
        bins = "levels" if self.dtype == "uint8" else f"bins of {self.edges[1] - self.edges[0]:.4g}"
        return (
            f"{np.count_nonzero(self.counts)} of {len(self.counts)} {bins} are used; "
            f"{lowest} of the pixels are in the lowest, {highest} in the highest."
        )


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Sizes of the parts: the units that are counted, and the numbers of each part in their order."""

    names: Sequence[str]
    parts: Sequence[tuple[str, Sequence[int]]]


class Doubt(NamedTuple):
    """A reason not to trust the scores (an error of the check), or to read them with care (a warning).

    The severity of look-alike videos is "possible": they may be different ones.
    """

    title: str
    detail: str
    advice: str
    severity: str = "error"


@dataclass(frozen=True, kw_only=True)
class PageData:
    """Content of a page. Empty fields are left out; `missing` gives the reason for a section that should be there."""

    title: str  # name of the run or the table
    kind: str  # such as "Training run", shown above the title
    data: str = ""  # name of the manifest
    date: str = ""  # of the results, such as 2026-03-01
    target: str = ""
    task: Task = "regression"
    classes: tuple[str, ...] = ()
    summary: str = ""
    key_figures: Sequence[tuple[str, str]] = ()
    private: bool = False
    doubts: Sequence[Doubt] = ()
    missing_checks: str = ""  # checks for such reasons that did not run, and why
    flow: Sequence[tuple[str, int]] = ()
    counts: Counts | None = None
    labels: Labels | None = None  # of the first target, the one that the sampler balances
    other_labels: Mapping[str, Labels] = field(default_factory=dict)  # of the other targets
    sampler_summary: str = ""
    balance: Mapping[str, Any] | None = None  # BalanceReport.as_dict()
    clips: NDArray[np.uint8] | None = None  # (clips, frames, height, width, channels)
    captions: Sequence[str] = ()
    pixels: Pixels | None = None  # of the first batch
    history: Mapping[str, Sequence[float]] = field(default_factory=dict)
    best_epoch: int | None = None  # counted from 1
    warnings: Sequence[str] = ()  # limits of the results, shown at the head of the page
    baselines: Mapping[str, Any] | None = None  # baselines.json: a comparison with simple models
    assessment: Mapping[str, Any] | None = None  # returned by cinefeed.metrics.assess
    predictions: Predictions | None = None  # that the assessment was computed from
    folds: Mapping[str, Any] | None = None
    worst: Pictures | None = None
    saliency: Pictures | None = None
    feed_stats: Mapping[str, Any] | None = None
    failures: Sequence[Mapping[str, str]] | None = None  # id, path, error
    verification: str | None = None  # how the scan read the files: "decode" or "packets"; None: unknown
    settings: str = ""
    run: Mapping[str, Any] = field(default_factory=dict)  # run.json: how the run ended
    versions: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)  # section: the reason why it is left out

    @property
    def heading(self) -> str:
        """Target, data and date; the name of the run or the table if none of these is known."""
        several = self.predictions.targets if self.predictions is not None else ()
        target = ", ".join(each.name for each in several) if len(several) > 1 else self.target
        target = target if target != "target" else ""
        return " · ".join(text for text in (target, self.data, self.date) if text) or self.title

    @property
    def is_cross_validation(self) -> bool:
        """Whether the page is of a cross-validation, even if its folds.json is damaged."""
        return self.folds is not None or "folds" in self.missing


def feed_page(feed: Feed, *, val: Feed | None = None, failures: Sequence[Mapping[str, str]] | None = None) -> PageData:
    """Return the content of the page of a feed before training."""
    spec = feed.spec
    labels, sampler_summary, balance = None, "", None
    if spec.target:
        plan = feed.plan()
        draws = np.bincount(plan.rows, minlength=len(feed.manifest))
        edges = None if spec.classes else label_edges(feed.labels, getattr(feed.sampler, "bins", "auto"))
        labels = Labels(raw=feed.labels, fed=feed.labels[plan.rows], classes=spec.classes, edges=edges)
        sampler_summary = _sampler_summary(str(feed.sampler), draws)
        balance = feed.balance().as_dict()
    batch = feed.batch(0)
    clips, captions = sheet(feed, batch)
    table = feed.manifest.table
    if failures is None and "error" in table.column_names:
        files = pa.table({"id": table["id"], "path": feed.manifest.display_names(), "error": table["error"]})
        failures = files.filter(pc.is_valid(table["error"])).to_pylist()
    figures = [("videos", f"{len(feed.manifest):,}"), ("draws an epoch", f"{len(feed.plan()):,}")]
    figures += [("validation videos", f"{len(val.manifest):,}")] if val is not None else []
    if "num_frames" in table.column_names and pc.count(table["num_frames"]).as_py():
        figures.append(("frames", f"{pc.sum(table['num_frames']).as_py():,}"))
    if "size_bytes" in table.column_names and pc.count(table["size_bytes"]).as_py():
        figures.append(("size of the files", format_bytes(bytes_on_disk(table))))
    return PageData(
        title=spec.target or "clips",
        data="" if feed.manifest.private else feed.manifest.root.name,
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        kind="Data and feed, before training",
        target=spec.target,
        task=spec.task,
        classes=spec.classes,
        summary=feed.summary().partition("\n")[0],
        key_figures=figures,
        private=feed.manifest.private,
        flow=list(feed.manifest.history),
        labels=labels,
        sampler_summary=sampler_summary,
        balance=balance,
        clips=clips,
        captions=captions.tolist(),
        pixels=Pixels(**pixel_counts(batch)),
        failures=[] if failures is None else failures,
        verification=feed.manifest.verified,
    )


def _sampler_summary(sampler: str, draws: NDArray[np.int64]) -> str:
    return (
        f"{sampler[:1].upper()}{sampler[1:]}: {format_count(len(draws), 'video')}, {draws.sum():,} draws an epoch, "
        f"at most {draws.max()} of one video; {format_count(int((draws == 0).sum()), 'video')} without a draw in "
        "this epoch."
    )


def label_edges(labels: NDArray[Any], bins: Any) -> NDArray[np.float64] | None:
    """Return the bin edges, or None if every integer value is a bin."""
    return bin_strata(labels, bins=check_bins(bins)).edges
