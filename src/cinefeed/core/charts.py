"""Histograms and bars as HTML and SVG, in the colours of the surrounding text, without matplotlib."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cinefeed.core.html import text
from cinefeed.core.text import format_count

# Grey for the data, then Okabe and Ito's blue, vermilion and green; all are visible on light and dark.
COLOURS = ("#8A94A0", "#2F8FCB", "#D55E00", "#009E73")
_MOST_BARS, _MOST_BINS = 20, 60


def bars(names: Sequence[object], series: Mapping[str, ArrayLike]) -> str:
    """Return horizontal bars, one group per name, with a bar for each series; `series` maps its label to counts.

    The most frequent names come first if there are more than 20; the others are counted.
    """
    counts = {label: np.asarray(values, np.float64) for label, values in series.items()}
    order = np.arange(len(names))
    if len(names) > _MOST_BARS:
        order = np.argsort(-next(iter(counts.values())), kind="stable")[:_MOST_BARS]
    top = max((float(values.max(initial=0)) for values in counts.values()), default=0.0) or 1.0
    rows = []
    for place in order.tolist():
        lines = "".join(
            f'<span class="bar"><i style="width:{80 * values[place] / top:.2f}%;background:{colour}"></i>'
            f"{text(_number(values[place]))}</span>"
            for values, colour in zip(counts.values(), COLOURS, strict=False)
        )
        rows.append(f"<span>{text(_short(names[place]))}</span><span>{lines}</span>")
    more = format_count(len(names) - len(order), "more class") if len(names) > len(order) else ""
    rows += [f"<span>and {text(more)}</span><span></span>"] if more else []
    return f'<figure>{_key(series)}<div class="bars">{"".join(rows)}</div></figure>'


def histogram(values: Mapping[str, ArrayLike], *, edges: ArrayLike, name: str, whole: bool = False) -> str:
    """Return steps of counts between bin edges as SVG: the first series filled, the others as lines.

    Args:
        values: Label of each series, and its counts (bins,).
        edges: Bin edges, (bins + 1,).
        name: Name of the axis.
        whole: Whether each bin is one whole number, which is then in its middle.
    """
    limits, counts = np.asarray(edges, np.float64), [np.asarray(each, np.float64) for each in values.values()]
    top = max((float(each.max(initial=0)) for each in counts), default=0.0) or 1.0
    x = 100 * (limits - limits[0]) / ((limits[-1] - limits[0]) or 1.0)
    shapes = []
    for number, (each, colour) in enumerate(zip(counts, COLOURS, strict=False)):
        y = 100 * (1 - each / top)
        steps = " ".join(f"{left:.2f},{h:.2f} {right:.2f},{h:.2f}" for left, right, h in zip(x, x[1:], y, strict=False))
        line = f'fill="none" stroke="{colour}" stroke-width="2" vector-effect="non-scaling-stroke"'
        look = line if number else f'fill="{colour}" fill-opacity=".55"'
        shapes.append(f'<polyline points="0,100 {steps} 100,100" {look}/>')
    # Text is HTML: the shapes are stretched to the width, letters keep their size.
    ticks = "".join(
        f'<span style="left:{place:.2f}%">{text(label)}</span>' for place, label in _ticks(limits, whole=whole)
    )
    label = text(f"histogram of {name}")
    svg = (
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label="{label}">{"".join(shapes)}</svg>'
    )
    return (
        f'<figure>{_key(values)}<div class="chart"><span class="top">{text(_number(top))}</span>{svg}'
        f'<div class="ticks">{ticks}</div><div class="axis">{text(_short(name))}</div></div></figure>'
    )


def bin_edges(values: NDArray[Any]) -> tuple[NDArray[np.float64], bool]:
    """Return bin edges for numbers, and whether each bin is one whole number.

    >>> bin_edges(np.array([3.0, 5.0, 4.0]))
    (array([2.5, 3.5, 4.5, 5.5]), True)
    """
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    if high - low < _MOST_BINS and bool((values == np.floor(values)).all()):
        return np.arange(low - 0.5, high + 1.0), True
    count = int(np.clip(2 * values.size ** (1 / 3), 5, _MOST_BINS))  # the Rice rule
    return np.linspace(low, high if high > low else low + 1.0, count + 1), False


def _ticks(edges: NDArray[np.float64], *, whole: bool) -> list[tuple[float, str]]:
    """Return places in percent and labels of about five ticks: round numbers within the edges."""
    low, high = float(edges[0]), float(edges[-1])
    power = 10 ** np.floor(np.log10((high - low) / 5))
    step = next(power * factor for factor in (1, 2, 5, 10) if (high - low) / (power * factor) <= 7)
    step = max(step, 1.0) if whole else step
    numbers = np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step + 0.0  # -0.0 becomes 0.0
    return [(float(100 * (number - low) / (high - low)), f"{number:.6g}") for number in numbers]


def _key(series: Mapping[str, object]) -> str:
    keys = (
        f'<span><i style="background:{colour}"></i>{text(label)}</span>'
        for label, colour in zip(series, COLOURS, strict=False)
    )
    return f'<div class="key">{"".join(keys)}</div>' if len(series) > 1 else ""


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) or value >= 100 else f"{value:.3g}"


def _short(name: object, letters: int = 60) -> str:
    label = str(name)
    return label if len(label) <= letters else f"{label[: letters - 1]}…"
