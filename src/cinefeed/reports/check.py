"""The page of a check: findings by severity, near-duplicate pairs as images, and columns that predict the label."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from cinefeed.core.errors import CinefeedError
from cinefeed.core.text import format_count
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.quality.findings import SEVERITIES, CheckReport, Pair, Shortcut, row_name
from cinefeed.data.quality.frame_summaries import read_frames
from cinefeed.data.quality.near_duplicates import NEAR
from cinefeed.reports.formatting import page_heading
from cinefeed.reports.page import write_html
from cinefeed.reports.style import BLUE, GREY, INK, PALE, SERIES, VERMILION, new_figure, on_page, plain, to_svg
from cinefeed.reports.templates import from_template

_MOST_PAIRS = 12  # shown as images
_MOST_CLASSES = 40
_FRAMES, _HEIGHT, _MOST_WIDTH = 4, 96, 128  # of a video on the page: number of frames, and pixels


class Shown(NamedTuple):
    """A pair of videos on the page, with name, remark and image of each."""

    distance: str
    across: bool
    videos: Sequence[tuple[str, str, str]]  # name, remark, and image as a data URI, "" if there is none


def check_page(report: CheckReport, manifest: Manifest, *, out: str | Path) -> Path:
    """Write a check as one HTML page that opens without a network; return its path.

    The videos of near-duplicate pairs are opened again for their images; the page of a private check has no images.
    Raises SettingError if `out` cannot be written, and MissingExtraError without matplotlib and jinja2.
    """
    return write_html(render(report, manifest), out=Path(out))


def render(report: CheckReport, manifest: Manifest) -> str:
    """Return the page as HTML."""
    pairs = [_pair_on_page(pair, report, manifest) for pair in report.pairs[:_MOST_PAIRS]]
    return from_template(
        "check.html",
        filters={"row_name": row_name},
        report=report,
        heading=page_heading(report.target or "check", manifest),
        severities=SEVERITIES,
        near=NEAR,
        to_do=[finding for finding in report.findings if finding.severity != "note"],
        pairs=pairs,
        has_pictures=any(picture for pair in pairs for _, _, picture in pair.videos),
        shortcuts=on_page(shortcuts_figure(report.shortcuts), "shortcuts") if report.shortcuts else None,
        classes=on_page(classes_figure(report.classes, name=report.target or ""), "classes")
        if report.classes
        else None,
    )


def shortcuts_figure(shortcuts: Sequence[Shortcut]) -> str:
    """Return a bar for each column from chance to its score, with a mark at the limit of chance."""
    names = [shortcut.name + (f" ({shortcut.about})" if shortcut.measure != "R2" else "") for shortcut in shortcuts]
    chance, measure = shortcuts[0].chance, shortcuts[0].measure
    with new_figure(8.4, 0.9 + 0.29 * len(shortcuts)) as figure:
        axes = figure.add_subplot()
        for row, shortcut in enumerate(shortcuts):
            score, limit = max(shortcut.score, chance), shortcut.limit
            axes.barh(
                row, score - chance, left=chance, height=0.6, color=VERMILION if shortcut.predicts_label else PALE
            )
            axes.plot([limit, limit], [row - 0.4, row + 0.4], color=INK, linewidth=1.2)
            axes.text(max(score, limit) + 0.008, row, f"{shortcut.score:.2f}", va="center", fontsize=8)
        axes.axvline(chance, color=GREY, linewidth=1)
        axes.set_yticks(range(len(names)), [plain(name) for name in names])
        axes.set(xlim=(chance, 1.04), ylim=(len(names) - 0.4, -0.6))
        axes.set_xlabel("R²" if measure == "R2" else f"{measure} of the named class against all others")
        axes.grid(visible=False, axis="y")
        return to_svg(figure, name="shortcuts")


def classes_figure(classes: Mapping[str, Mapping[str, int]], *, name: str) -> str:
    """Return a bar of row counts for each class, divided into the parts of the split if there is one."""
    largest = sorted(classes.items(), key=lambda item: -item[1]["rows"])[:_MOST_CLASSES]
    parts = [key for key in largest[0][1] if key not in ("rows", "groups")]
    with new_figure(8.4, 0.9 + 0.32 * len(largest)) as figure:
        axes = figure.add_subplot()
        left = np.zeros(len(largest))
        for i, part in enumerate(parts or ["rows"]):
            values = np.array([counts[part] for _, counts in largest])
            colour = SERIES[i % len(SERIES)] if parts else BLUE
            axes.barh(range(len(largest)), values, left=left, height=0.6, color=colour, label=plain(part))
            left += values
        for row, (_, counts) in enumerate(largest):
            groups = f" in {format_count(counts['groups'], 'group')}" if "groups" in counts else ""
            text, offset = f"{counts['rows']:,}{groups}", {"xytext": (4, 0), "textcoords": "offset points"}
            axes.annotate(text, (counts["rows"], row), **offset, va="center", fontsize=8)
        axes.set_yticks(range(len(largest)), [plain(label) for label, _ in largest])
        axes.set_ylim(len(largest) - 0.4, -0.6)
        axes.margins(x=0.16)
        more = f" (the {_MOST_CLASSES} largest of {len(classes)} classes)" if len(classes) > len(largest) else ""
        axes.set_xlabel(f"rows per {plain(name)}{more}")
        axes.grid(visible=False, axis="y")
        if parts:
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(parts), borderaxespad=0)
        return to_svg(figure, name="classes")


def _pair_on_page(pair: Pair, report: CheckReport, manifest: Manifest) -> Shown:
    rows = (pair.first, pair.second)
    videos = [
        (row_name(name), remark, "" if report.private else _strip(manifest, row))
        for row, name, remark in zip(rows, pair.names, pair.remarks, strict=True)
    ]
    distance = "the same bytes" if pair.kind == "copy" else f"distance {pair.distance:.3f}"
    return Shown(distance, pair.across, videos)


def _strip(manifest: Manifest, row: int) -> str:
    """Return some frames of a video side by side, as a data URI of a PNG; "" if they cannot be read."""
    metadata = manifest.metadata(row)
    try:
        frames = read_frames(manifest, row, metadata, count=_FRAMES) if metadata is not None else None
    except (CinefeedError, OSError):  # the file has changed since the check read it
        frames = None
    if frames is None:
        return ""
    _, png = cv2.imencode(".png", np.concatenate([_small(frame) for frame in _as_bytes(frames)], axis=1))
    return "data:image/png;base64," + base64.b64encode(png.tobytes()).decode()


def _as_bytes(frames: NDArray[Any]) -> NDArray[np.uint8]:
    if frames.dtype == np.uint8:
        return frames
    values = np.nan_to_num(frames.astype(np.float32))
    low, high = float(values.min()), float(values.max())
    return np.asarray((values - low) * (255 / max(high - low, 1e-30)), np.uint8)


def _small(frame: NDArray[np.uint8]) -> NDArray[Any]:
    height, width = frame.shape
    scale = min(_HEIGHT / height, _MOST_WIDTH / width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    below = _HEIGHT - small.shape[0]
    return cv2.copyMakeBorder(small, 0, below, 0, 2, cv2.BORDER_CONSTANT, value=(255.0,))
