"""What balancing did, as a figure and as figures: a sampler's report as plain data in, SVG and words out."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cinefeed.report.style import BLUE, GREY, INK, ORANGE, PALE, SKY, new_figure, plain, to_svg

_MOST_CLASSES = 40  # bars on one page
_MEASURES = {"class": "total variation", "bin": "Kolmogorov-Smirnov"}


def balance_figure(balance: Mapping[str, Any], *, name: str = "label") -> str:
    """Return two panels: how labels are distributed, raw, asked for and reached; and how often a video comes for it.

    `balance` is what `BalanceReport.as_dict()` gives, `name` the label's. Left are shares of the epoch, in per cent, of
    each class or label bin; right the expected draws of a video there, and the least and most that a plan drew. Where
    the balance is by weights, right are weights.
    """
    return _of_bins(balance, name) if balance.get("bounds") else _of_classes(balance, name)


def balance_facts(balance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a table beside the figure says: a name and a value each.

    >>> from cinefeed.balance import BalancedClasses
    >>> report = BalancedClasses().report(["sick"] + ["well"] * 7)
    >>> for name, value in balance_facts(report.as_dict()):
    ...     print(f"{name}: {value}")
    videos, and draws an epoch: 8, 8
    total variation to the target, raw and reached: 0.375, 0.000
    effective sample size of an epoch: 3.5
    most draws of one video: 4
    videos not drawn in this epoch: 3
    """
    distance, weighted = balance["distance"], balance["by"] == "weights"
    facts = [("videos, and draws an epoch", f"{balance['rows']:,}, {balance['draws']:,}")]
    for aim in ("target", "uniform"):
        if f"raw to {aim}" in distance:
            shown = f"{distance[f'raw to {aim}']:.3f}, {distance[f'reached to {aim}']:.3f}"
            where = "the target" if aim == "target" else "uniform labels"
            facts.append((f"{_MEASURES[balance['kind']]} to {where}, raw and reached", shown))
    facts.append(("effective sample size of an epoch", _short(balance["effective_rows"])))
    if weighted:
        return [*facts, ("largest weight", _short(balance["largest_weight"]))]
    facts.append(("most draws of one video", f"{balance['largest_repeat']:,}"))
    facts.append(("videos not drawn in this epoch", f"{balance['never_drawn']:,}"))
    if "group" in balance["deviation"]:
        facts.append(("draws by which a group is off its share, at most", _short(balance["deviation"]["group"])))
    return facts


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def _shares(balance: Mapping[str, Any]) -> dict[str, NDArray[np.float64]]:
    """Return the shares in per cent of each stratum: raw, target and reached."""
    found = {name: np.asarray(balance[name], np.float64) for name in ("raw", "target", "reached")}
    return {name: 100 * each / each.sum() for name, each in found.items()}


def _a_video(balance: Mapping[str, Any]) -> dict[str, NDArray[np.float64]]:
    """Return the draws, or the weight, of a video in each stratum: expected, and the least and most of a plan."""
    expected = np.asarray(balance["expected"], np.float64) / np.asarray(balance["raw"], np.float64)
    if balance["by"] == "weights":
        return {"expected": expected, "fewest": expected, "most": expected}
    drawn = {name: np.asarray(balance[name], np.float64) for name in ("fewest", "most")}
    return {"expected": expected, **drawn}


def _words(balance: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return the labels of raw and reached, and of the right panel's axis."""
    weighted = balance["by"] == "weights"
    reached = "reached, by weights" if weighted else f"reached ({balance['draws']:,} draws)"
    return (
        f"raw ({balance['rows']:,} videos)",
        reached,
        "weight of a video" if weighted else "draws of a video an epoch",
    )


def _of_bins(balance: Mapping[str, Any], name: str) -> str:
    bounds = np.asarray(balance["bounds"], np.float64)
    shares, video, words = _shares(balance), _a_video(balance), _words(balance)
    with new_figure(8.4, 3.1) as figure:
        left, right = figure.subplots(1, 2)
        for key, look in (
            ("raw", {"color": PALE, "fill": True, "label": words[0]}),
            ("reached", {"color": BLUE, "fill": True, "alpha": 0.2}),
            ("reached", {"color": BLUE, "linewidth": 1.6, "label": words[1]}),
            ("target", {"color": INK, "linewidth": 1.1, "linestyle": (0, (2, 2)), "label": "target"}),
        ):
            left.stairs(*_steps(shares[key], bounds), **look)
        left.set(xlabel=plain(name), ylabel="share of an epoch (%)", ylim=(0, None))
        middle = bounds.mean(axis=1)
        right.vlines(
            middle, video["fewest"], video["most"], color=SKY, linewidth=4, alpha=0.6, label="drawn, least to most"
        )
        right.plot(middle, video["expected"], "o", color=BLUE, markersize=3.2, label="expected")
        right.axhline(1, color=GREY, linewidth=1, dashes=(4, 3), label="without balancing")
        _times(right.yaxis, right, video)
        right.set(xlabel=plain(name), ylabel=words[2], xlim=left.get_xlim())
        for axes in (left, right):
            axes.grid(visible=False, axis="x")
        _legends(left, right, weighted=balance["by"] == "weights")
        return to_svg(figure, name="balance")


def _steps(values: NDArray[np.float64], bounds: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return heights and edges of a staircase, with nothing where there is no bin."""
    heights: list[NDArray[np.float64]] = [values[:1]]
    edges = [bounds[0]]
    gaps = bounds[1:, 0] > bounds[:-1, 1] * (1 + 1e-12) + 1e-12
    for k in range(1, len(values)):
        heights.append(np.array([0.0, values[k]]) if gaps[k - 1] else values[k : k + 1])
        edges.append(bounds[k] if gaps[k - 1] else bounds[k, 1:])
    return np.concatenate(heights), np.concatenate(edges)


def _of_classes(balance: Mapping[str, Any], name: str) -> str:
    names = [plain(each) for each in balance["names"]][:_MOST_CLASSES]
    count = len(names)
    shares, video = ({key: each[:count] for key, each in found(balance).items()} for found in (_shares, _a_video))
    words, places = _words(balance), np.arange(count)
    with new_figure(8.4, 1.4 + 0.42 * count) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        left.barh(places - 0.19, shares["raw"], 0.36, color=PALE, label=words[0])
        left.barh(places + 0.19, shares["reached"], 0.36, color=BLUE, label=words[1])
        left.vlines(
            shares["target"],
            places - 0.42,
            places + 0.42,
            color=INK,
            linewidth=1.3,
            linestyle=(0, (2, 1.5)),
            label="target",
        )
        left.set_yticks(places, names)
        left.set(xlabel="share of an epoch (%)", ylim=(count - 0.4, -0.6), ylabel=plain(name))
        right.hlines(
            places, video["fewest"], video["most"], color=SKY, linewidth=7, alpha=0.6, label="drawn, least to most"
        )
        right.plot(video["expected"], places, "o", color=BLUE, markersize=5, label="expected")
        right.axvline(1, color=GREY, linewidth=1, dashes=(4, 3), label="without balancing")
        _times(right.xaxis, right, video)
        more = f" (the first {count} of {len(balance['names'])} classes)" if len(balance["names"]) > count else ""
        right.set_xlabel(words[2] + more)
        for axes in (left, right):
            axes.grid(visible=False, axis="y")
        _legends(left, right, weighted=balance["by"] == "weights")
        return to_svg(figure, name="balance")


def _times(axis: Any, axes: Any, video: Mapping[str, NDArray[np.float64]]) -> None:
    """Scale an axis of draws: from nought, by logarithm beyond one where the largest would flatten all others."""
    top = float(max(video["most"].max(), video["expected"].max(), 1.0))
    across = axis is axes.xaxis
    if top > 12:
        (axes.set_xscale if across else axes.set_yscale)("symlog", linthresh=1, linscale=0.5)
        ticks = [each for each in (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10_000, 100_000) if each <= 1.5 * top]
        axis.set_ticks(ticks, [f"{each:,}" for each in ticks])
        axis.minorticks_off()
    (axes.set_xlim if across else axes.set_ylim)(0, top * (1.3 if top > 12 else 1.08))


def _legends(left: Any, right: Any, *, weighted: bool) -> None:
    look = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0, "fontsize": 8, "handlelength": 1.4}
    for axes in (left, right):
        found = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        shown = {label: each for label, each in found.items() if not (weighted and label.startswith("drawn"))}
        order = sorted(shown, key=lambda label: label.startswith(("target", "without")))
        axes.legend([shown[label] for label in order], order, ncols=2, **look)


def chance_figure(ks: Mapping[str, NDArray[np.float64]], *, expected: float) -> str:
    """Return the distance of fed labels to uniform ones, epoch by epoch, of two ways to draw.

    `ks` has Kolmogorov-Smirnov distances (epochs,) by the name of the way, ours first; `expected` is that of the
    expected draws themselves, the least that a plan can be asked for.
    """
    with new_figure(8.4, 2.6) as figure:
        axes = figure.add_subplot()
        for (way, values), colour in zip(reversed(list(ks.items())), (ORANGE, BLUE), strict=True):
            label = f"{way}: {values.mean():.4f} ± {values.std():.4f}"
            axes.plot(np.arange(len(values)), values, "o-", color=colour, markersize=3, linewidth=1, label=label)
        axes.axhline(expected, color=INK, linewidth=1, dashes=(2, 2), label=f"expected draws: {expected:.4f}")
        axes.set(xlabel="epoch", ylabel="KS distance to uniform", ylim=(0, None))
        axes.grid(visible=False, axis="x")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0, fontsize=8)
        return to_svg(figure, name="chance")
