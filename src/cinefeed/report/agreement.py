"""Figures of how far scores can be trusted: plain data of an assessment in, one SVG text out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cinefeed.report.style import BLUE, GREY, INK, PALE, VERMILION, new_figure, plain, to_svg

_MOST_POINTS = 2000  # beyond, a scatter is stored as pixels
_MOST_ROWS = 40
_LIMITS = ("bias", "lower", "upper")


def bland_altman_figure(
    targets: ArrayLike, *, scores: ArrayLike, agreement: Mapping[str, float], name: str = "label"
) -> str:
    """Return differences against means of truth and prediction, with bias and limits of agreement.

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
    """Return the mean absolute error in each bin of the label, the bias as a mark, and the number there."""
    shown = [each for each in bins if each["count"]]
    with new_figure(3.4, 3.4) as figure:
        axes = figure.add_subplot()
        left = np.array([each["low"] for each in shown], np.float64)
        width = np.array([each["high"] for each in shown], np.float64) - left
        errors = [each["mae"] for each in shown]
        bars = axes.bar(left, errors, width, align="edge", color=PALE, edgecolor="white", label="MAE")
        axes.bar_label(bars, [f"{each['count']:,}" for each in shown], padding=2, fontsize=8, color=GREY)
        axes.plot(left + width / 2, [each["bias"] for each in shown], "o", color=BLUE, markersize=4, label="bias")
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.set(xlabel=f"true {plain(name)}", ylabel="error")
        axes.grid(visible=False, axis="x")
        axes.margins(y=0.14)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0, fontsize=8)
        return to_svg(figure, name="bins")


def calibration_figure(
    calibrations: Mapping[str, Mapping[str, Any]], *, across: str = "predicted probability", up: str = "true share"
) -> str:
    """Return the share that is so in each bin of the score, of one or two calibrations by name, with their ECE.

    A mark's area is the share of the samples that the bin holds.
    """
    with new_figure(3.2, 3.5) as figure:
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, dashes=(4, 3))
        looks = ((BLUE, "o"), (VERMILION, "s"))
        for (name, each), (colour, marker) in zip(calibrations.items(), looks, strict=False):
            bins = [one for one in each["bins"] if one["count"]]
            score, share, count = (
                np.array([one[key] for one in bins], np.float64) for key in ("score", "share", "count")
            )
            ece = "" if each.get("ece") is None else f", ECE {each['ece']:.3f}"
            axes.plot(score, share, color=colour, linewidth=1.2, label=plain(name) + ece)
            size = 14 + 140 * count / max(count.sum(), 1)
            axes.scatter(score, share, s=size, color=colour, marker=marker, alpha=0.6, linewidths=0)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", xlabel=plain(across), ylabel=plain(up))
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.3, fontsize=8)
        return to_svg(figure, name="calibration")


def forest_figure(rows: Sequence[tuple[str, Mapping[str, Any]]], *, overall: float | None, name: str) -> str:
    """Return a metric of several groups, a point and its interval each; the line is that of all.

    `rows` are a group's name and its {"value", "low", "high"}.
    """
    shown = [(label, each) for label, each in rows if each.get("value") is not None][:_MOST_ROWS]
    with new_figure(8.4, 0.8 + 0.3 * len(shown)) as figure:
        axes = figure.add_subplot()
        if overall is not None:
            axes.axvline(overall, color=GREY, linewidth=1, dashes=(4, 3), label=f"all: {overall:.3g}")
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0, fontsize=8)
        for place, (_, each) in enumerate(shown):
            if each.get("low") is not None and each.get("high") is not None:
                axes.plot([each["low"], each["high"]], [place, place], color=BLUE, linewidth=1.6)
            axes.plot(each["value"], place, "s", color=BLUE, markersize=5)
        axes.set_yticks(range(len(shown)), [plain(label) for label, _ in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_xlabel(name)
        axes.grid(visible=False, axis="y")
        return to_svg(figure, name="forest")
