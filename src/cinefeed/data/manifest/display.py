"""Manifests and splits as HTML for notebooks: metadata, labels as histograms, and a contact sheet of videos."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from cinefeed.core import html
from cinefeed.core.charts import bars, bin_edges, histogram
from cinefeed.core.errors import CinefeedError
from cinefeed.core.moving import as_levels, contact_sheet
from cinefeed.core.text import format_count
from cinefeed.data.label_types import class_names, is_number, why_no_label
from cinefeed.data.manifest.columns import label_names
from cinefeed.data.split_summary import Balance
from cinefeed.video.clips import window_of

CLIPS = 8  # at most, on a contact sheet
_CHARTS, _FRAMES = 12, 24  # at most: charts of a manifest, frames of a video
_CAPTION_LABELS = 3
_FEW_CLASSES, _ROWS_A_CLASS = 12, 10  # a column of more classes, of fewer rows each, such as patients, has no chart


def manifest_html(manifest: Any, *, clips: int = 0) -> str:
    """Return a manifest as HTML; `clips` is the number of videos on its contact sheet, which are opened."""
    summary = manifest.summary()
    parts = [html.facts([*summary.rows, *summary.labels])]
    charts = [chart for name in label_names(manifest.columns) if (chart := label_chart(name, {"": manifest}))]
    parts += charts[:_CHARTS]
    if len(charts) > _CHARTS:
        parts.append(html.note(f"{format_count(len(charts) - _CHARTS, 'more column')} without a chart here."))
    if clips and manifest.private:
        parts.append(html.note("The manifest is private, so no video is shown."))
    elif clips:
        rows_shown = np.unique(np.linspace(0, len(manifest) - 1, min(clips, len(manifest))).round().astype(int))
        pictures, captions = zip(*(_clip_of(manifest, row) for row in rows_shown.tolist()), strict=True)
        parts.append(contact_sheet(pictures, captions))
    return html.fragment(summary.title, *parts)


def parts_html(parts: Any) -> str:
    """Return the parts of a split as HTML: sizes, and the labels of each part."""
    balance: Balance = parts.balance
    total = max(sum(balance.rows), 1)
    head = ["part", "rows", "share", *([balance.group_name] if balance.group_name else [])]
    rows = [
        [part, f"{count:,}", f"{100 * count / total:.1f} %", *([f"{groups:,}"] if balance.group_name else [])]
        for part, count, groups in zip(balance.parts, balance.rows, balance.groups, strict=True)
    ]
    chart = ""
    if balance.label_name is not None:
        members = {name: getattr(parts, name) for name in balance.parts if len(getattr(parts, name))}
        chart = label_chart(balance.label_name, members, shares=True)
    warnings = [html.note(message, warning=True) for message in balance.warnings]
    return html.fragment(parts_title(parts), html.table(head, rows), chart, *warnings)


def parts_title(parts: Any) -> str:
    """Return the sizes of the parts of a split in one line."""
    sizes = ", ".join(f"{name} {len(getattr(parts, name)):,}" for name in ("train", "val", "test"))
    return f"Parts of {format_count(len(parts.all), 'sample')}: {sizes}"


def label_chart(name: str, manifests: Mapping[str, Any], *, shares: bool = False) -> str:
    """Return a histogram or bars of a label column, one series per manifest; "" if it has no chart.

    `shares` shows percentages of each manifest's rows, so that parts of different size can be compared.
    """
    columns = {key: manifest.column(name).drop_null() for key, manifest in manifests.items()}
    first, kind = next(iter(manifests.values())), next(iter(columns.values())).type
    if why_no_label(kind) or not any(map(len, columns.values())):
        return ""
    unit = " (% of each part)" if shares else ""
    if first.label_type(name).is_classes or not is_number(kind):
        texts = {key: class_names(column) for key, column in columns.items()}
        names = sorted({value for each in texts.values() for value in pc.unique(each).to_pylist()})
        if len(names) > _FEW_CLASSES and len(names) * _ROWS_A_CLASS > sum(map(len, texts.values())):
            return ""
        counts = {key: _class_counts(each, names, shares=shares) for key, each in texts.items()}
        return html.titled(name + unit, bars(names, _named(counts)))
    values = {key: column.to_numpy(zero_copy_only=False).astype(np.float64) for key, column in columns.items()}
    values = {key: each[np.isfinite(each)] for key, each in values.items()}
    edges, whole = bin_edges(np.concatenate([*values.values()]))
    binned = {key: _scaled(np.histogram(each, bins=edges)[0], shares=shares) for key, each in values.items()}
    return html.titled(name + unit, histogram(_named(binned), edges=edges, name=name, whole=whole))


def _named(series: Mapping[str, Any]) -> dict[str, Any]:
    """Return series with the label "rows" for a single one without a label."""
    return {key or "rows": values for key, values in series.items()}


def _class_counts(values: Any, names: list[str], *, shares: bool) -> NDArray[np.float64]:
    counted = values.value_counts()
    counts = dict(zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True))
    return _scaled(np.array([counts.get(name, 0) for name in names]), shares=shares)


def _scaled(counts: NDArray[Any], *, shares: bool) -> NDArray[np.float64]:
    return np.asarray(counts * (100 / max(counts.sum(), 1) if shares else 1.0), np.float64)


def _clip_of(manifest: Any, row: int) -> tuple[NDArray[np.uint8] | str, str]:
    """Return some frames of a row's video, evenly spaced, and a caption; an error as text in place of frames."""
    rows = manifest.rows
    view = next(iter(rows.views), "")
    caption = " · ".join([rows.display_name(row, view=view), *_labels_of(manifest, row)])
    try:
        with rows.open(row, view=view) as source:
            first, count = window_of(source.metadata.times, *rows.window(row, view=view))
            numbers = first + np.unique(np.linspace(0, count - 1, min(count, _FRAMES)).round().astype(np.int64))
            return as_levels(source.read(numbers)[np.newaxis])[0], f"{caption} · {format_count(count, 'frame')}"
    except (CinefeedError, OSError) as error:
        return rows.nameless(str(error), row, view=view), caption


def _labels_of(manifest: Any, row: int) -> Iterator[str]:
    for name in label_names(manifest.columns)[:_CAPTION_LABELS]:
        value = manifest.table.column(name)[row].as_py()
        if value is not None:
            yield f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
