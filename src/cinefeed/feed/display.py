"""Feeds and batches as text and HTML: shapes and ranges, labels as they are and as they are fed, steps, clips."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cinefeed.core import html
from cinefeed.core.charts import bars, bin_edges, histogram
from cinefeed.core.moving import contact_sheet
from cinefeed.core.text import format_count, one_line
from cinefeed.data.sampling import Natural
from cinefeed.data.sampling.strata import bin_strata
from cinefeed.feed.contact_sheet import captions, pictures
from cinefeed.feed.describe import describe_batch, describe_task, describe_workers
from cinefeed.feed.inputs import sampler_weights
from cinefeed.transforms.fuse import compact_repr

CLIPS = 8  # on a contact sheet
_MOST_BINS = 100


def array_rows(arrays: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Yield name, shape, dtype and values of each array of a batch; those of a mapping have names of their own."""
    for name, array in arrays.items():
        if isinstance(array, Mapping):
            yield from array_rows({f"{name}[{key!r}]": each for key, each in array.items()})
        elif array.size or name in ("clips", "ids"):
            yield name, str(array.shape), _dtype_name(array), _values(array)


def batch_repr(arrays: Mapping[str, Any], *, rows: int) -> str:
    """Return a batch as text, one line for each array."""
    table = list(array_rows(arrays))
    widths = [max((len(cells[place]) for cells in table), default=0) for place in range(3)]
    lines = (
        "  ".join([*(cell.ljust(width) for cell, width in zip(cells, widths, strict=False)), cells[3]]).rstrip()
        for cells in table
    )
    return "\n".join([f"Batch of {format_count(rows, 'row')}", *(f"  {one_line(line)}" for line in lines)])


def batch_html(batch: Any, *, clips: int = 0, spec: Any = None) -> str:
    """Return a batch as HTML: its arrays, and a contact sheet of its first clips."""
    parts = [html.table(("", "shape", "dtype", "values"), array_rows(batch.arrays()), numbers=4)]
    if clips:
        parts.append(clips_html(batch, spec, clips=clips))
    return html.fragment(f"Batch of {format_count(len(batch.ids), 'row')}", *parts)


def clips_html(batch: Any, spec: Any, *, clips: int) -> str:
    """Return a contact sheet of the first clips of a batch."""
    stacked = len(spec.views) if spec is not None and spec.stacked else 0
    sheet = pictures(batch.clips, stacked=stacked, count=clips)
    if sheet.shape[-1] not in (1, 3):
        return html.note(f"Clips of {sheet.shape[-1]} channels are not shown: the channels may be views.")
    return contact_sheet(list(sheet), captions(batch.ids, batch.targets, batch.weights, spec, count=clips))


def feed_rows(feed: Any) -> list[tuple[str, str]]:
    """Return names and texts that describe a feed, without its plan, so that they take no time."""
    spec, settings = feed.spec, feed.settings
    extra = [("mixing", str(settings.mixing or ""))]
    extra += [("covariates", ", ".join(each.name for each in spec.covariates))]
    return [
        ("target", describe_task(spec, feed._targets)),
        ("sampler", str(settings.sampler)),
        ("batch", describe_batch(spec)),
        ("transforms", ", ".join(map(compact_repr, feed.compose.transforms))),
        *((name, value) for name, value in extra if value),
        ("workers", describe_workers(feed.worker_count, feed.choice)),
        ("epoch", str(feed.epoch)),
    ]


def feed_title(feed: Any) -> str:
    """Return a feed in one line."""
    kind = "Evaluation feed" if feed.is_evaluation else "Feed"
    target = f", target {feed.spec.target!r}" if feed.spec.target else ", without a target"
    return f"{kind} of {format_count(len(feed.manifest), 'sample')}{target}"


def feed_repr(feed: Any) -> str:
    """Return a feed as text of a few lines."""
    rows = [(name, text) for name, text in feed_rows(feed) if text]
    return "\n".join([one_line(feed_title(feed)), *(f"  {name:<11} {one_line(_cut(text))}" for name, text in rows)])


def feed_html(feed: Any, *, clips: int = 0) -> str:
    """Return a feed as HTML; with `clips`, the first batch of the epoch is made and its first clips are shown."""
    plan = feed.plan()
    draws = np.bincount(plan.rows, minlength=len(feed.manifest))
    never, most = int((draws == 0).sum()), int(draws.max(initial=0))
    balance = f"{len(plan.rows):,} draws an epoch in {format_count(len(feed), 'batch')}"
    if not isinstance(feed.settings.sampler, Natural):
        balance += f", of one sample at most {most}; {format_count(never, 'sample')} not in this epoch"
    rows = feed_rows(feed)
    rows.insert(2, ("plan", balance))
    parts = [html.facts(rows), _labels_chart(feed, plan.rows), html.steps(feed.compose.steps())]
    parts += [html.note(warning, warning=True) for warning in feed.balance().warnings]
    if clips and feed.manifest.private:
        parts.append(html.note("The manifest is private, so no clip is shown."))
    elif clips:
        parts.append(html.note("The first clips of the epoch, as they are fed"))
        parts.append(clips_html(feed.batch(0), feed.spec, clips=clips))
    return html.fragment(feed_title(feed), *parts)


def _labels_chart(feed: Any, rows: NDArray[np.int64]) -> str:
    """Return the labels of the rows, and what an epoch of draws makes of them: its shares of classes or bins."""
    targets, spec = feed._targets, feed.spec
    if not spec.target or spec.task in ("clip", "mask"):
        return ""
    has_label = np.ones(len(targets.values), np.bool_) if targets.has_label is None else targets.has_label
    fed = rows[has_label[rows]]
    weights = sampler_weights(feed.sampler, feed.labels, **feed._group_kwargs)
    totals = None if weights is None else weights[fed]
    how = f"{len(fed):,} draws" if totals is None else "by weight"
    names = f"data ({int(has_label.sum()):,} rows)", f"as fed ({how})"
    values = targets.values
    if spec.classes:
        raw = np.bincount(values[has_label], minlength=len(spec.classes))
        reached = np.bincount(values[fed], weights=totals, minlength=len(spec.classes))
        chart = bars(spec.classes, dict(zip(names, (raw, reached), strict=True)))
    else:
        numbers = values.astype(np.float64)
        edges, whole = _bins(feed.sampler, numbers[has_label])
        raw, reached = (
            np.histogram(numbers[places], bins=edges, weights=factors)[0]
            for places, factors in ((has_label, None), (fed, totals))
        )
        chart = histogram(dict(zip(names, (raw, reached), strict=True)), edges=edges, name=spec.target, whole=whole)
    return html.titled(f"{spec.target}, in the data and in one epoch", chart)


def _bins(sampler: Any, labels: NDArray[np.float64]) -> tuple[NDArray[np.float64], bool]:
    """Return the bin edges of a sampler, so that its effect is visible, or general ones if it has none or many."""
    edges, whole = bin_edges(labels)
    own = bin_strata(labels, bins=sampler.bins).edges if hasattr(sampler, "bins") and not whole else None
    return (own, False) if own is not None and len(own) <= _MOST_BINS else (edges, whole)


def _dtype_name(array: Any) -> str:
    return "text" if array.dtype.kind in "US" else str(array.dtype)


def _values(array: Any) -> str:
    """Return the range of an array in words, or its first texts."""
    if array.size == 0:
        return ""
    if array.dtype.kind in "US":
        names = [repr(str(name)) for name in array.ravel()[:3]]
        return _cut(", ".join(names) + (" ..." if array.size > 3 else ""), 60)
    if array.dtype.kind == "b":
        count = int(np.count_nonzero(array))
        return f"all {bool(count)}" if count in (0, array.size) else f"{count} of {array.size} True"
    numbers = array if array.dtype.kind in "iu" else array.astype(np.float32, copy=False)
    low, high = numbers.min(), numbers.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        finite = numbers[np.isfinite(numbers)]
        bad = f"{array.size - finite.size} NaN or infinite"
        return f"{finite.min():.4g} to {finite.max():.4g}, {bad}" if finite.size else bad
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"


def _cut(text: str, letters: int = 150) -> str:
    return text if len(text) <= letters else f"{text[: letters - 4]} ..."
