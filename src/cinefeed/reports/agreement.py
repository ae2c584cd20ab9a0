"""Figures of agreement, calibration and subgroups: functions from plain data of an assessment to SVG text."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cinefeed.reports.style import BLUE, GREY, INK, PALE, VERMILION, new_figure, plain, to_svg

_MOST_POINTS = 2000  # more points are stored as pixels
_MOST_ROWS = 40
_LIMITS = ("bias", "lower", "upper")


def bland_altman_figure(
    targets: ArrayLike, *, scores: ArrayLike, agreement: Mapping[str, float], name: str = "label"
) -> str:
    """Return a Bland-Altman plot: differences against means of truth and prediction, bias, limits of agreement.

    Bland and Altman, Statistical methods for assessing agreement between two methods of clinical measurement, 1986.
    """
    true, predicted = np.asarray(targets, np.float64), np.asarray(scores, np.float64)
    many = len(true) > _MOST_POINTS
    with new_figure(3.4, 3.4) as figure:
        axes = figure.add_subplot()
        axes.scatter(
            (true + predicted) / 2,
            predicted - true,
            s=6 if many else 16,
            color=BLUE,
            alpha=0.5,
            linewidths=0,
            rasterized=many,
        )
        axes.axhline(0, color=GREY, linewidth=1, dashes=(4, 3))
        for key, colour in (("upper", INK), ("bias", VERMILION), ("lower", INK)):
            if agreement.get(key) is not None:
                axes.axhline(agreement[key], color=colour, linewidth=1.2)
        bias, low, high = ("?" if agreement.get(key) is None else f"{agreement[key]:.3g}" for key in _LIMITS)
        axes.set_title(f"bias {bias} · limits {low} to {high}", fontsize=9)
        axes.set(xlabel=f"mean of true and predicted {plain(name)}", ylabel="predicted - true")
        axes.margins(y=0.12)
        return to_svg(figure, name="bland-altman")


def error_bins_figure(bins: Sequence[Mapping[str, Any]], *, name: str = "label") -> str:
    """Return the mean absolute error in each label bin, with the bias as a mark and the count as a number on top."""
    bins = [label_bin for label_bin in bins if label_bin["count"]]
    with new_figure(3.4, 3.4) as figure:
        axes = figure.add_subplot()
        left, right, errors, bias = (
            np.array([label_bin[key] for label_bin in bins], np.float64) for key in ("low", "high", "mae", "bias")
        )
        width = right - left
        axes.bar(left, errors, width, align="edge", color=PALE, edgecolor="white", label="MAE")
        on_top = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "top", "fontsize": 8, "color": GREY}
        for middle, label_bin in zip(left + width / 2, bins, strict=True):
            axes.text(middle, 0.99, f"{label_bin['count']:,}", **on_top)
        axes.plot(left + width / 2, bias, "o", color=BLUE, markersize=4, label="bias")
        axes.plot([], [], " ", label="top: number in each bin")
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.set(xlabel=f"true {plain(name)}", ylabel="error")
        axes.grid(visible=False, axis="x")
        axes.margins(y=0.18)
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=3,
            borderaxespad=0,
            fontsize=8,
            handlelength=1,
            columnspacing=1,
        )
        return to_svg(figure, name="bins")


def calibration_figure(
    calibrations: Mapping[str, Mapping[str, Any]], *, across: str = "predicted probability", up: str = "true share"
) -> str:
    """Return the observed share in each bin of the score for one or two calibrations by name, with their ECE.

    The area of a mark is the share of the samples in its bin.
    """
    with new_figure(3.2, 3.5) as figure:
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, dashes=(4, 3))
        styles = ((BLUE, "o"), (VERMILION, "s"))
        for (name, calibration), (colour, marker) in zip(calibrations.items(), styles, strict=False):
            bins = [score_bin for score_bin in calibration["bins"] if score_bin["count"]]
            score, share, count = (
                np.array([score_bin[key] for score_bin in bins], np.float64) for key in ("score", "share", "count")
            )
            ece = "" if calibration.get("ece") is None else f", ECE {calibration['ece']:.3f}"
            axes.plot(score, share, color=colour, linewidth=1.2, label=plain(name) + ece)
            size = 14 + 140 * count / max(count.sum(), 1)
            axes.scatter(score, share, s=size, color=colour, marker=marker, alpha=0.6, linewidths=0)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", xlabel=plain(across), ylabel=plain(up))
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.3, fontsize=8)
        return to_svg(figure, name="calibration")


def forest_figure(rows: Sequence[tuple[str, Mapping[str, Any]]], *, overall: float | None, name: str) -> str:
    """Return a forest plot of a metric: a point and an interval for each group, and a line at the overall value.

    `rows` are pairs of a group's name and {"value", "low", "high"}.
    """
    points = [(label, estimate) for label, estimate in rows if estimate.get("value") is not None][:_MOST_ROWS]
    with new_figure(8.4, 0.8 + 0.3 * len(points)) as figure:
        axes = figure.add_subplot()
        if overall is not None:
            axes.axvline(overall, color=GREY, linewidth=1, dashes=(4, 3), label=f"all: {overall:.3g}")
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0, fontsize=8)
        for row, (_, estimate) in enumerate(points):
            if estimate.get("low") is not None and estimate.get("high") is not None:
                axes.plot([estimate["low"], estimate["high"]], [row, row], color=BLUE, linewidth=1.6)
            axes.plot(estimate["value"], row, "s", color=BLUE, markersize=5)
        axes.set_yticks(range(len(points)), [plain(label) for label, _ in points])
        axes.set_ylim(len(points) - 0.4, -0.6)
        axes.set_xlabel(name)
        axes.grid(visible=False, axis="y")
        return to_svg(figure, name="forest")
