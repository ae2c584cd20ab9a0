"""Figure and table of a sampler's `BalanceReport`, given as plain data."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cinefeed.reports.style import BLUE, GREY, INK, ORANGE, PALE, SKY, new_figure, plain, to_svg

_MOST_CLASSES = 40  # bars on one page
_MEASURES = {"class": "total variation", "bin": "Kolmogorov-Smirnov"}


def balance_figure(balance: Mapping[str, Any], *, name: str = "label") -> str:
    """Return two panels as SVG: the distribution of the labels, and the draws of a video.

    Left: the share of an epoch, in percent, of each class or label bin, in the data, as target and as reached. Right:
    the expected draws of a video of that class or bin, with the range over the videos of a plan; or its weight, if
    balancing is by weights. `balance` is `BalanceReport.as_dict()`, `name` the label's name.
    """
    return _of_bins(balance, name) if balance.get("bounds") else _of_classes(balance, name)


def balance_table(balance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the rows of the table beside the figure, as pairs of name and value.

    >>> from cinefeed.data.sampling import BalancedClasses
    >>> report = BalancedClasses().report(["sick"] + ["well"] * 7)
    >>> for name, value in balance_table(report.as_dict()):
    ...     print(f"{name}: {value}")
    videos, and draws per epoch: 8, 8
    total variation to the target, raw and reached: 0.375, 0.000
    effective sample size of an epoch: 3.5
    most draws of one video: 4
    videos without a draw in this epoch: 3
    """
    distance, weighted = balance["distance"], balance["by"] == "weights"
    rows = [("videos, and draws per epoch", f"{balance['rows']:,}, {balance['draws']:,}")]
    for aim in ("target", "uniform"):
        if f"raw to {aim}" in distance:
            distances = f"{distance[f'raw to {aim}']:.3f}, {distance[f'reached to {aim}']:.3f}"
            reference = "the target" if aim == "target" else "uniform labels"
            rows.append((f"{_MEASURES[balance['kind']]} to {reference}, raw and reached", distances))
    rows.append(("effective sample size of an epoch", _short(balance["effective_rows"])))
    if weighted:
        return [*rows, ("largest weight", _short(balance["largest_weight"]))]
    rows.append(("most draws of one video", f"{balance['largest_repeat']:,}"))
    rows.append(("videos without a draw in this epoch", f"{balance['never_drawn']:,}"))
    if "group" in balance["deviation"]:
        rows.append(("largest deviation of a group from its share, in draws", _short(balance["deviation"]["group"])))
    return rows


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def _shares(balance: Mapping[str, Any]) -> dict[str, NDArray[np.float64]]:
    """Return the shares in percent of each stratum: raw, target and reached."""
    counts = {name: np.asarray(balance[name], np.float64) for name in ("raw", "target", "reached")}
    return {name: 100 * values / values.sum() for name, values in counts.items()}


def _draws_per_video(balance: Mapping[str, Any]) -> dict[str, NDArray[np.float64]]:
    """Return the draws, or the weight, of a video in each stratum: expected, and the range over a plan."""
    expected = np.asarray(balance["expected"], np.float64) / np.asarray(balance["raw"], np.float64)
    if balance["by"] == "weights":
        return {"expected": expected, "fewest": expected, "most": expected}
    extremes = {name: np.asarray(balance[name], np.float64) for name in ("fewest", "most")}
    return {"expected": expected, **extremes}


def _axis_labels(balance: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return the legend labels of raw and reached, and the axis label of the right panel."""
    weighted = balance["by"] == "weights"
    reached = "reached, by weights" if weighted else f"reached ({balance['draws']:,} draws)"
    return (
        f"raw ({balance['rows']:,} videos)",
        reached,
        "weight of a video" if weighted else "draws of a video per epoch",
    )


def _of_bins(balance: Mapping[str, Any], name: str) -> str:
    bounds = np.asarray(balance["bounds"], np.float64)
    shares, video, texts = _shares(balance), _draws_per_video(balance), _axis_labels(balance)
    with new_figure(8.4, 3.1) as figure:
        left, right = figure.subplots(1, 2)
        for key, style in (
            ("raw", {"color": PALE, "fill": True, "label": texts[0]}),
            ("reached", {"color": BLUE, "fill": True, "alpha": 0.2}),
            ("reached", {"color": BLUE, "linewidth": 1.6, "label": texts[1]}),
            ("target", {"color": INK, "linewidth": 1.1, "linestyle": (0, (2, 2)), "label": "target"}),
        ):
            left.stairs(*_steps(shares[key], bounds), **style)
        left.set(xlabel=plain(name), ylabel="share of an epoch (%)", ylim=(0, None))
        middle = bounds.mean(axis=1)
        right.vlines(
            middle, video["fewest"], video["most"], color=SKY, linewidth=4, alpha=0.6, label="range of the draws"
        )
        right.plot(middle, video["expected"], "o", color=BLUE, markersize=3.2, label="expected")
        right.axhline(1, color=GREY, linewidth=1, dashes=(4, 3), label="without balancing")
        _scale_draws(right.yaxis, right, video)
        right.set(xlabel=plain(name), ylabel=texts[2], xlim=left.get_xlim())
        for axes in (left, right):
            axes.grid(visible=False, axis="x")
        _legends(left, right, weighted=balance["by"] == "weights")
        return to_svg(figure, name="balance")


def _steps(values: NDArray[np.float64], bounds: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return heights and edges of a staircase, with a height of 0 between bins that are apart."""
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
    shares, video = (
        {key: values[:count] for key, values in read(balance).items()} for read in (_shares, _draws_per_video)
    )
    texts, places = _axis_labels(balance), np.arange(count)
    with new_figure(8.4, 1.4 + 0.42 * count) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        left.barh(places - 0.19, shares["raw"], 0.36, color=PALE, label=texts[0])
        left.barh(places + 0.19, shares["reached"], 0.36, color=BLUE, label=texts[1])
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
            places, video["fewest"], video["most"], color=SKY, linewidth=7, alpha=0.6, label="range of the draws"
        )
        right.plot(video["expected"], places, "o", color=BLUE, markersize=5, label="expected")
        right.axvline(1, color=GREY, linewidth=1, dashes=(4, 3), label="without balancing")
        _scale_draws(right.xaxis, right, video)
        more = f" (the first {count} of {len(balance['names'])} classes)" if len(balance["names"]) > count else ""
        right.set_xlabel(texts[2] + more)
        for axes in (left, right):
            axes.grid(visible=False, axis="y")
        _legends(left, right, weighted=balance["by"] == "weights")
        return to_svg(figure, name="balance")


def _scale_draws(axis: Any, axes: Any, video: Mapping[str, NDArray[np.float64]]) -> None:
    """Scale an axis of draws from 0; above 1 logarithmically if the largest value would compress the others."""
    top = float(max(video["most"].max(), video["expected"].max(), 1.0))
    across = axis is axes.xaxis
    if top > 12:
        (axes.set_xscale if across else axes.set_yscale)("symlog", linthresh=1, linscale=0.5)
        ticks = [tick for tick in (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10_000, 100_000) if tick <= 1.5 * top]
        axis.set_ticks(ticks, [f"{tick:,}" for tick in ticks])
        axis.minorticks_off()
    (axes.set_xlim if across else axes.set_ylim)(0, top * (1.3 if top > 12 else 1.08))


def _legends(left: Any, right: Any, *, weighted: bool) -> None:
    style = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0, "fontsize": 8, "handlelength": 1.4}
    for axes in (left, right):
        handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        if weighted:
            handles.pop("range of the draws", None)
        order = sorted(handles, key=lambda label: label.startswith(("target", "without")))
        axes.legend([handles[label] for label in order], order, ncols=2, **style)


def chance_figure(ks: Mapping[str, NDArray[np.float64]], *, expected: float) -> str:
    """Return the distance between fed labels and uniform labels, by epoch, for two sampling methods.

    `ks` maps the name of each method, ours first, to Kolmogorov-Smirnov distances (epochs,); `expected` is the distance
    of the expected draws, the lower bound for a plan.
    """
    with new_figure(8.4, 2.6) as figure:
        axes = figure.add_subplot()
        for (method, values), colour in zip(reversed(list(ks.items())), (ORANGE, BLUE), strict=True):
            label = f"{method}: {values.mean():.4f} ± {values.std():.4f}"
            axes.plot(np.arange(len(values)), values, "o-", color=colour, markersize=3, linewidth=1, label=label)
        axes.axhline(expected, color=INK, linewidth=1, dashes=(2, 2), label=f"expected draws: {expected:.4f}")
        axes.set(xlabel="epoch", ylabel="KS distance to uniform", ylim=(0, None))
        axes.grid(visible=False, axis="x")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0, fontsize=8)
        return to_svg(figure, name="chance")
