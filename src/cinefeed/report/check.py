"""The page of a check: findings worst first, pairs that look alike as pictures, and what gives the label away."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from cinefeed.check.alike import NEAR
from cinefeed.check.findings import SEVERITIES, CheckReport, Pair, Shortcut, counted, row_name
from cinefeed.check.look import read_frames
from cinefeed.errors import CinefeedError
from cinefeed.manifest.table import Manifest
from cinefeed.report.page import from_template, write_html
from cinefeed.report.style import BLUE, GREY, INK, PALE, SERIES, VERMILION, new_figure, on_page, plain, to_svg

_MOST_PAIRS = 12  # shown as pictures
_MOST_CLASSES = 40
_FRAMES, _HEIGHT, _WIDEST = 4, 96, 128  # of a video on the page, in pixels


class Shown(NamedTuple):
    """A pair on the page: two strips of frames with names and remarks."""

    distance: str
    across: bool
    videos: Sequence[tuple[str, str, str]]  # name, remark, picture as a link, "" where none may or can be shown


def check_page(report: CheckReport, manifest: Manifest, *, out: str | Path) -> Path:
    """Write a check as one HTML page that opens without a network; return where it is.

    The videos of the pairs shown are opened once more for their pictures; the page of a private check has none. Raises
    SettingError where `out` cannot be written, MissingExtraError without matplotlib and jinja2.
    """
    return write_html(render(report, manifest), out=Path(out))


def render(report: CheckReport, manifest: Manifest) -> str:
    """Return the page as HTML."""
    pairs = [_shown(pair, report, manifest) for pair in report.pairs[:_MOST_PAIRS]]
    return from_template(
        "check.html",
        filters={"row_name": row_name, "counted": counted},
        report=report,
        severities=SEVERITIES,
        near=NEAR,
        to_do=[each for each in report.findings if each.severity != "note"],
        pairs=pairs,
        pictured=any(picture for pair in pairs for _, _, picture in pair.videos),
        shortcuts=on_page(shortcuts_figure(report.shortcuts), "shortcuts") if report.shortcuts else None,
        classes=on_page(classes_figure(report.classes, name=report.target or ""), "classes")
        if report.classes
        else None,
    )


def shortcuts_figure(shortcuts: Sequence[Shortcut]) -> str:
    """Return a bar for each column, from chance to its score; beyond the mark it is more than luck."""
    names = [each.name + (f" ({each.about})" if each.measure != "R2" else "") for each in shortcuts]
    chance, measure = shortcuts[0].chance, shortcuts[0].measure
    with new_figure(8.4, 0.9 + 0.29 * len(shortcuts)) as figure:
        axes = figure.add_subplot()
        for place, each in enumerate(shortcuts):
            score = max(each.score, chance)
            axes.barh(place, score - chance, left=chance, height=0.6, color=VERMILION if each.predicts_label else PALE)
            axes.plot([each.limit, each.limit], [place - 0.4, place + 0.4], color=INK, linewidth=1.2)
            axes.text(max(score, each.limit) + 0.008, place, f"{each.score:.2f}", va="center", fontsize=8)
        axes.axvline(chance, color=GREY, linewidth=1)
        axes.set_yticks(range(len(names)), [plain(name) for name in names])
        axes.set(xlim=(chance, 1.04), ylim=(len(names) - 0.4, -0.6))
        axes.set_xlabel("R²" if measure == "R2" else f"{measure} of the class named, against the others")
        axes.grid(visible=False, axis="y")
        return to_svg(figure, name="shortcuts")


def classes_figure(classes: Mapping[str, Mapping[str, int]], *, name: str) -> str:
    """Return a bar of rows for each class, cut into the parts of the split where there is one."""
    shown = sorted(classes.items(), key=lambda each: -each[1]["rows"])[:_MOST_CLASSES]
    parts = [key for key in shown[0][1] if key not in ("rows", "groups")]
    with new_figure(8.4, 0.9 + 0.32 * len(shown)) as figure:
        axes = figure.add_subplot()
        left = np.zeros(len(shown))
        for i, part in enumerate(parts or ["rows"]):
            values = np.array([counts[part] for _, counts in shown])
            colour = SERIES[i % len(SERIES)] if parts else BLUE
            axes.barh(range(len(shown)), values, left=left, height=0.6, color=colour, label=plain(part))
            left += values
        for place, (_, counts) in enumerate(shown):
            groups = f" in {counted(counts['groups'], 'group')}" if "groups" in counts else ""
            words, beside = f"{counts['rows']:,}{groups}", {"xytext": (4, 0), "textcoords": "offset points"}
            axes.annotate(words, (counts["rows"], place), **beside, va="center", fontsize=8)
        axes.set_yticks(range(len(shown)), [plain(each) for each, _ in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.margins(x=0.16)
        more = f" (the {_MOST_CLASSES} largest of {len(classes)} classes)" if len(classes) > len(shown) else ""
        axes.set_xlabel(f"rows of each {plain(name)}{more}")
        axes.grid(visible=False, axis="y")
        if parts:
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(parts), borderaxespad=0)
        return to_svg(figure, name="classes")


def _shown(pair: Pair, report: CheckReport, manifest: Manifest) -> Shown:
    rows = (pair.first, pair.second)
    videos = [
        (row_name(name), remark, "" if report.private else _strip(manifest, row))
        for row, name, remark in zip(rows, pair.names, pair.remarks, strict=True)
    ]
    distance = "the same bytes" if pair.kind == "copy" else f"distance {pair.distance:.3f}"
    return Shown(distance, pair.across, videos)


def _strip(manifest: Manifest, row: int) -> str:
    """Return a few frames side by side as a link to a PNG within the page."""
    facts = manifest.facts(row)
    try:
        frames = read_frames(manifest, row, facts, count=_FRAMES) if facts is not None else None
    except (CinefeedError, OSError):  # it was read a moment ago; the page does without
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
    scale = min(_HEIGHT / height, _WIDEST / width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    below = _HEIGHT - small.shape[0]
    return cv2.copyMakeBorder(small, 0, below, 0, 2, cv2.BORDER_CONSTANT, value=(255.0,))
