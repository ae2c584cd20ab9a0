"""What a page shows, as plain data; and that of a feed before any training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cinefeed.balance.strata import bin_strata, check_bins
from cinefeed.feed.feed import Feed
from cinefeed.feed.targets import Task
from cinefeed.metrics.predictions import Predictions
from cinefeed.training.flow import pixel_counts, sheet


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Labels of the training rows as they are, and as one epoch feeds them: numbers, or class names."""

    raw: NDArray[Any]
    fed: NDArray[Any]
    classes: tuple[str, ...] = ()  # empty for numbers
    edges: NDArray[np.float64] | None = None  # of the bins that numbers are balanced by


@dataclass(frozen=True, kw_only=True)
class PartScores:
    """Targets and scores of one part, of a run without an assessment, as cinefeed.metrics takes them."""

    part: str
    targets: NDArray[Any]
    scores: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Clips of single videos with what is said of each, as training keeps them; `note` says why there are none.

    With `space` and `time` they have a saliency: what a clip's score loses where a cell, or a span, is hidden.
    """

    clips: NDArray[np.uint8]  # (clips, frames, height, width, channels)
    captions: Sequence[str] = ()
    ids: Sequence[str] = ()
    space: NDArray[np.float32] | None = None  # (clips, rows, columns)
    time: NDArray[np.float32] | None = None  # (clips, spans)
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """How often each level stands in the clips of one batch, as fed: `counts` between `edges`."""

    dtype: str
    edges: NDArray[np.float64]
    counts: NDArray[np.int64]

    @property
    def words(self) -> str:
        """What there is to say of them: how many levels are used, and what lies at the ends."""
        total = max(int(self.counts.sum()), 1)
        ends = f"{self.counts[0] / total:.1%} of the pixels have the lowest, {self.counts[-1] / total:.1%} the highest"
        return f"{np.count_nonzero(self.counts)} of {len(self.counts)} levels are used; {ends}."


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How much each part holds: the names of what is counted, and a row of numbers for each part."""

    names: Sequence[str]
    parts: Sequence[tuple[str, Sequence[int]]]


@dataclass(frozen=True, kw_only=True)
class PageData:
    """All that a page can show; what is None or empty is left out, and `missing` says why where it should be there."""

    title: str
    kind: str  # what the page is about, above the title
    target: str = ""
    task: Task = "regression"
    classes: tuple[str, ...] = ()
    summary: str = ""
    key_figures: Sequence[tuple[str, str]] = ()
    private: bool = False
    doubts: Sequence[tuple[str, str, str]] = ()  # what makes the scores untrustworthy: title, detail, advice
    not_looked_at: str = ""  # what of it is not known, and why
    flow: Sequence[tuple[str, int]] = ()
    counts: Counts | None = None
    labels: Labels | None = None  # of the target that is balanced
    others: Mapping[str, Labels] = field(default_factory=dict)  # of several targets, the rest of them
    balance: str = ""
    balanced: Mapping[str, Any] | None = None  # BalanceReport.as_dict()
    clips: NDArray[np.uint8] | None = None  # (clips, frames, height, width, channels)
    captions: Sequence[str] = ()
    pixels: Pixels | None = None  # of the first batch
    history: Mapping[str, Sequence[float]] = field(default_factory=dict)
    best_epoch: int | None = None  # counted from 1
    warnings: Sequence[str] = ()  # what makes the results worth less than they seem, at the head of the page
    assessment: Mapping[str, Any] | None = None  # as cinefeed.metrics.assess gives it
    scored: Predictions | None = None  # what it was made of
    predictions: Sequence[PartScores] = ()  # of a run without an assessment, as its metrics
    metrics: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    folds: Mapping[str, Any] | None = None
    worst: Pictures | None = None
    saliency: Pictures | None = None
    feed_stats: Mapping[str, Any] | None = None
    failures: Sequence[Mapping[str, str]] | None = None  # id, path, error
    verified: str | None = None  # how files were read when they were scanned; None: not known
    settings: str = ""
    run: Mapping[str, Any] = field(default_factory=dict)  # how it ended
    versions: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)  # section: why it is left out

    @property
    def folded(self) -> bool:
        """Whether it is of a cross-validation, whose folds.json may be damaged."""
        return self.folds is not None or "folds" in self.missing


def feed_page(feed: Feed, *, val: Feed | None = None, failures: Sequence[Mapping[str, str]] | None = None) -> PageData:
    """Return what there is to show of a feed before training."""
    spec = feed.spec
    labels, balance, balanced = None, "", None
    if spec.target:
        plan = feed.plan()
        drawn = np.bincount(plan.rows, minlength=len(feed.manifest))
        edges = None if spec.classes else label_edges(feed.labels, getattr(feed.sampler, "bins", "auto"))
        labels = Labels(raw=feed.labels, fed=feed.labels[plan.rows], classes=spec.classes, edges=edges)
        balance = _balance(str(feed.sampler), drawn)
        balanced = feed.balance().as_dict()
    batch = feed.batch(0)
    clips, captions = sheet(feed, batch)
    table = feed.manifest.table
    if failures is None and "error" in table.column_names:
        shown = pa.table({"id": table["id"], "path": feed.manifest.shown(), "error": table["error"]})
        bad = shown.filter(pc.is_valid(table["error"]))
        failures = bad.to_pylist()
    figures = [("videos", f"{len(feed.manifest):,}"), ("draws an epoch", f"{len(feed.plan()):,}")]
    figures += [("validation videos", f"{len(val.manifest):,}")] if val is not None else []
    if "num_frames" in table.column_names and pc.count(table["num_frames"]).as_py():
        figures.append(("frames", f"{pc.sum(table['num_frames']).as_py():,}"))
    if "size_bytes" in table.column_names and pc.count(table["size_bytes"]).as_py():
        figures.append(("megabytes", f"{pc.sum(table['size_bytes']).as_py() / 1e6:,.0f}"))
    return PageData(
        title=spec.target or "clips",
        kind="Data and feed, before training",
        target=spec.target,
        task=spec.task,
        classes=spec.classes,
        summary=feed.summary().partition("\n")[0],
        key_figures=figures,
        private=feed.manifest.private,
        flow=list(feed.manifest.history),
        labels=labels,
        balance=balance,
        balanced=balanced,
        clips=clips,
        captions=captions.tolist(),
        pixels=Pixels(**pixel_counts(batch)),
        failures=[] if failures is None else failures,
        verified=feed.manifest.verified,
    )


def _balance(sampler: str, drawn: NDArray[np.int64]) -> str:
    return (
        f"{sampler[:1].upper()}{sampler[1:]}: {len(drawn):,} videos, {drawn.sum():,} draws an epoch; "
        f"of one video at most {drawn.max()}, and {np.count_nonzero(drawn == 0):,} videos are not drawn in this epoch."
    )


def label_edges(labels: NDArray[Any], bins: Any) -> NDArray[np.float64] | None:
    """Return the bins' edges, or None where every whole value is its own bin."""
    return bin_strata(labels, bins=check_bins(bins)).edges
