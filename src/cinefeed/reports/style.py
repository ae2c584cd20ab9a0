"""Style of all figures: colours that colour-blind readers can distinguish, few lines, text as SVG text."""

import base64
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from cinefeed.core.errors import MissingExtraError

# Okabe and Ito, Color Universal Design (2008), blue first; grey is for reference lines.
BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7"
SERIES = (BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE)
GREY, PALE, INK, FAINT = "#8A94A0", "#CBD2D9", "#1F2933", "#E4E7EB"

_LOOK: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib, and is wider than browser fonts: no overlaps
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8.0,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.formatter.useoffset": False,  # "1e-5+1.554e-1" above an axis is hard to read
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 3.0,
    "ytick.major.size": 0.0,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "figure.facecolor": "white",
    "svg.fonttype": "none",
}


@contextmanager
def new_figure(width: float, height: float) -> Iterator[Any]:
    """Yield a matplotlib Figure of `width` x `height` inches in this style, without pyplot's global list of figures."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", extra="report") from error
    with matplotlib.rc_context(_LOOK):
        yield Figure(figsize=(width, height), layout="constrained")


def to_svg(figure: Any, *, name: str) -> str:
    """Return a figure as an SVG document, without a date and with ids that differ between the figures of a page."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({**_LOOK, "svg.hashsalt": name}), warnings.catch_warnings():
        # Text is stored as text: the browser supplies glyphs that matplotlib's font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="svg", dpi=144, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    return re.sub(
        r'\bid="((?:figure|axes|patch|text|line2d|matplotlib|xtick|ytick|legend|PathCollection)[^"]*)"', "", svg
    )


def data_uri(svg: str) -> str:
    """Return an SVG as a data URI."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


class Figure(NamedTuple):
    """An SVG on the page, and as a file to download."""

    svg: Any  # jinja2's Markup, which templates do not escape
    uri: str
    file: str
    caption: str


def on_page(svg: str, name: str, caption: str = "") -> Figure:
    """Return an SVG for a page, with `name`.svg as its file name."""
    try:
        from markupsafe import Markup
    except ModuleNotFoundError as error:
        raise MissingExtraError("jinja2", extra="report") from error
    return Figure(Markup(svg), data_uri(svg), f"{name}.svg", caption)


def plain(text: object) -> str:
    r"""Return text without matplotlib formulas, shortened to fit an axis.

    >>> print(plain("cost in $"))
    cost in \$
    """
    label = str(text)
    label = f"\u200b{label}" if label.startswith("_") else label  # zero width: legends skip labels that begin with _
    return (label if len(label) <= 40 else label[:39] + "…").replace("$", r"\$")
