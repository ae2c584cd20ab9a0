"""Figures of data, training and feed: functions from arrays to SVG text, without files and frameworks."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from cinefeed.core.text import format_count, format_percent
from cinefeed.metrics.names import metric_name
from cinefeed.reports.style import BLUE, GREEN, GREY, INK, ORANGE, PALE, SKY, new_figure, plain, to_svg

_MOST_CLASSES = 40  # bars on one page


def labels_figure(
    raw: ArrayLike,
    *,
    fed: ArrayLike,
    classes: Sequence[str] = (),
    edges: NDArray[np.float64] | None = None,
    name: str = "label",
) -> str:
    """Return the labels of the rows and of the draws of an epoch: overlaid histograms, or bars by class.

    `edges` are the bin edges for numbers. Pass those of the sampler if it has bins, so that its effect is visible.
    """
    raw, fed = np.asarray(raw), np.asarray(fed)
    return _class_bars(raw, fed, classes) if classes else _histograms(raw, fed, edges, name)


def _histograms(raw: NDArray[Any], fed: NDArray[Any], edges: NDArray[np.float64] | None, name: str) -> str:
    low, high = float(raw.min()), float(raw.max())
    if edges is None or edges[0] == edges[-1]:
        whole = bool((raw == np.floor(raw)).all()) and high - low <= 60
        edges = np.arange(low - 0.5, high + 1) if whole else np.linspace(low, high if high > low else low + 1, 31)
    with new_figure(8.4, 3.1) as figure:
        axes = figure.add_subplot()
        axes.hist(raw, bins=edges, color=PALE, label=f"data ({len(raw):,} videos)")
        axes.hist(fed, bins=edges, color=BLUE, alpha=0.25, histtype="stepfilled")
        axes.hist(fed, bins=edges, color=BLUE, histtype="step", linewidth=1.8, label=f"as fed ({len(fed):,} draws)")
        axes.set(xlabel=plain(name), ylabel="in one epoch")
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.grid(visible=False, axis="x")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)
        return to_svg(figure, name="labels")


def _class_bars(raw: NDArray[Any], fed: NDArray[Any], classes: Sequence[str]) -> str:
    names = [str(name) for name in classes][:_MOST_CLASSES]
    counts = [np.array([np.count_nonzero(labels.astype(str) == name) for name in names]) for labels in (raw, fed)]
    with new_figure(8.4, 0.9 + 0.45 * len(names)) as figure:
        axes = figure.add_subplot()
        places = np.arange(len(names))
        kinds = ((-0.19, counts[0], PALE, f"data ({len(raw):,} videos)"), (0.19, counts[1], BLUE, ""))
        for shift, values, colour, label in kinds:
            bars = axes.barh(places + shift, values, 0.36, color=colour, label=label or f"as fed ({len(fed):,} draws)")
            axes.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
        axes.set_yticks(places, [plain(name) for name in names])
        axes.set_ylim(len(names) - 0.45, -0.55)
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.08)
        more = f" (the first {_MOST_CLASSES} of {len(classes)} classes)" if len(classes) > len(names) else ""
        axes.set_xlabel("in one epoch" + more)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)
        return to_svg(figure, name="labels")


def pixels_figure(counts: NDArray[np.int64], *, edges: NDArray[np.float64], dtype: str) -> str:
    """Return a histogram of pixel values as fed: the share of the pixels at each level, on a logarithmic axis.

    On a linear axis the black border of the images would dominate.
    """
    shares = counts / max(int(counts.sum()), 1)
    with new_figure(8.4, 2.4) as figure:
        axes = figure.add_subplot()
        axes.stairs(shares, edges, color=BLUE, fill=True, alpha=0.25)
        axes.stairs(shares, edges, color=BLUE, linewidth=1.2)
        least = float(shares[shares > 0].min(initial=1.0))
        axes.set(yscale="log", ylim=(least / 2, 1.0), xlim=(edges[0], edges[-1]))
        axes.set(xlabel=f"level as fed ({plain(dtype)})", ylabel="share of the pixels")
        axes.yaxis.set_major_formatter(lambda share, _: format_percent(share, ".4g"))
        axes.grid(visible=False, axis="x")
        return to_svg(figure, name="pixels")


def clips_sheet(clips: NDArray[np.uint8], *, captions: Sequence[str], frames: int = 6) -> str:
    """Return some frames of each clip side by side; `clips` is uint8 (clips, frames, height, width, channels).

    The SVG is built without matplotlib, which would store every grey pixel as four bytes.
    """
    count, length, height, width, channels = clips.shape
    indices = np.unique(np.linspace(0, length - 1, min(frames, length)).round().astype(int))
    gap = max(width // 40, 1)
    across = len(indices) * (width + gap) - gap
    columns = min(count, max(1, min(4, round(14 * height / across)), 2 if count > 1 else 1))
    scale = (880 - 14 * (columns - 1)) / columns / across
    cell_width, cell_height = across * scale + 14, height * scale + 26
    parts = []
    for i, clip in enumerate(clips):
        strip = np.full((height, across, channels), 255, np.uint8)
        for column, k in enumerate(indices):
            strip[:, column * (width + gap) : column * (width + gap) + width] = clip[k]
        _, png = cv2.imencode(".png", strip[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
        left, top = i % columns * cell_width, i // columns * cell_height
        caption = escape(_shortened(captions[i], across * scale)) if i < len(captions) else ""
        style = f'x="{left:.1f}" font-family="sans-serif" font-size="11" fill="{INK}"'
        parts.append(
            f'<text {style} y="{top + 11:.1f}">{caption}</text>'
            f'<image x="{left:.1f}" y="{top + 16:.1f}" width="{across * scale:.1f}" height="{height * scale:.1f}" '
            f'preserveAspectRatio="none" href="data:image/png;base64,{base64.b64encode(png.tobytes()).decode()}"/>'
        )
    down = -(-count // columns) * cell_height
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 880 {down:.1f}">{"".join(parts)}</svg>'


def _shortened(caption: str, width: float) -> str:
    """Return a caption of `width` units of the sheet: the middle of its first part, the name, is left out.

    >>> _shortened("a_long_name_of_a_video.mp4 · sick", 140)
    'a_long…eo.mp4 · sick'
    """
    most = int(width / 7)  # of a letter of font size 11, on average
    if len(caption) <= most:
        return caption
    name, separator, rest = caption.partition(" · ")
    keep = max(most - len(separator + rest) - 1, 9)
    name = name if len(name) <= keep + 1 else f"{name[: keep // 2]}…{name[-(keep - keep // 2) :]}"
    text = name + separator + rest
    return text if len(text) <= most else f"{text[: most - 1]}…"


def learning_curves(history: Mapping[str, Sequence[float]], *, best_epoch: int | None = None) -> str:
    """Return a panel for the loss and for each metric over epochs, numbered from 1; the best epoch is marked."""
    panels: dict[str, list[str]] = {}
    for name in history:
        panels.setdefault(name.removeprefix("val_"), []).append(name)
    rate = panels.pop("learning_rate", None)  # the last panel, for comparison with kinks in the others
    if rate:
        panels["learning_rate"] = rate
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    with new_figure(8.4, 2.1 * rows) as figure:
        for i, (title, names) in enumerate(panels.items()):
            axes = figure.add_subplot(rows, columns, i + 1)
            for name in sorted(names):
                values = np.asarray(history[name], np.float64)
                epochs = np.arange(1, len(values) + 1)
                colour, label = (BLUE, "validation") if name.startswith("val_") else (GREY, "training")
                axes.plot(epochs, values, color=colour, label=label, marker="o" if len(values) < 3 else None)
                if best_epoch is not None and name.startswith("val_") and best_epoch <= len(values):
                    axes.plot(best_epoch, values[best_epoch - 1], "o", color=BLUE, markersize=5)
            if best_epoch is not None:
                axes.axvline(best_epoch, color=PALE, linewidth=1, zorder=0)
            axes.set_title(metric_name(title))
            axes.xaxis.get_major_locator().set_params(integer=True)
            if i >= len(panels) - columns:
                axes.set_xlabel("epoch")
            if len(names) > 1:
                axes.legend(loc="upper right", fontsize=8)  # "best" takes seconds for many epochs
            if title == "learning_rate":
                axes.set_ylim(bottom=0)
                axes.yaxis.set_major_formatter("{x:g}")
        return to_svg(figure, name="curves")


def feed_time_figure(stages: Mapping[str, float], *, wait_seconds: float, elapsed_seconds: float, workers: int) -> str:
    """Return two bars: the time of the workers by stage, and the share of the time that the consumer waited.

    `stages` are seconds of work by stage, summed over all workers; the other arguments are elapsed seconds.
    """
    total = max(workers, 1) * elapsed_seconds
    work = [*stages.items(), ("idle", max(total - sum(stages.values()), 0.0))]
    use = [("waits for the feed", wait_seconds), ("computes", max(elapsed_seconds - wait_seconds, 0.0))]
    bars = {
        format_count(workers, "worker"): (work, (SKY, BLUE, GREEN, PALE)),
        "model": (use, (ORANGE, PALE)),
    }
    with new_figure(8.4, 1.9) as figure:
        axes = figure.add_subplot()
        for row, (parts, colours) in enumerate(bars.values()):
            whole = sum(seconds for _, seconds in parts) or 1.0
            left = free = 0.0
            for (name, seconds), colour in zip(parts, colours, strict=True):
                axes.barh(row, seconds / whole, left=left, height=0.46, color=colour, edgecolor="white", linewidth=1)
                text = f"{plain(name)} {seconds / whole:.0%}"
                axes.text(max(left, free), row + 0.26, text, va="top", fontsize=8)
                free = max(left, free) + 0.0115 * len(text)  # the largest share of the width of one letter
                left += seconds / whole
        axes.set_yticks(range(len(bars)), list(bars))
        axes.set(xlim=(0, 1), ylim=(len(bars) - 0.35, -0.35))
        axes.xaxis.set_major_formatter("{x:.0%}")
        axes.grid(visible=False, axis="y")
        return to_svg(figure, name="time")
