"""How every figure looks: colours that colour-blind readers tell apart, few lines, text that stays text."""

import base64
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from cinefeed.errors import MissingExtraError

# Okabe and Ito, Color Universal Design (2008), the blue first; grey is for what is only there to compare with.
BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7"
SERIES = (BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE)
GREY, PALE, INK, FAINT = "#8A94A0", "#CBD2D9", "#1F2933", "#E4E7EB"

_LOOK: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, and wider than what a browser takes: nothing will overlap
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
    """Give a matplotlib Figure of `width` x `height` inches in this style, without pyplot's global list of figures."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", extra="report") from error
    with matplotlib.rc_context(_LOOK):
        yield Figure(figsize=(width, height), layout="constrained")


def to_svg(figure: Any, *, name: str) -> str:
    """Return a figure as an SVG document: no date in it, and ids that differ between figures of one page."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({**_LOOK, "svg.hashsalt": name}), warnings.catch_warnings():
        # The text stays text: a browser finds the letters that matplotlib's font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="svg", dpi=144, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    return re.sub(
        r'\bid="((?:figure|axes|patch|text|line2d|matplotlib|xtick|ytick|legend|PathCollection)[^"]*)"', "", svg
    )


def data_uri(svg: str) -> str:
    """Return an SVG as a link that needs no network."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


class Figure(NamedTuple):
    """An SVG on the page, and as a file to save."""

    svg: Any  # jinja2's Markup: SVG is not escaped
    uri: str
    file: str
    caption: str


def on_page(svg: str, name: str, caption: str = "") -> Figure:
    """Return an SVG as a page shows it, saved as `name`.svg."""
    try:
        from markupsafe import Markup
    except ImportError as error:
        raise MissingExtraError("jinja2", extra="report") from error
    return Figure(Markup(svg), data_uri(svg), f"{name}.svg", caption)


def plain(text: object) -> str:
    r"""Return text in which matplotlib finds no formula, and which is short enough for an axis.

    >>> print(plain("cost in $"))
    cost in \$
    """
    words = str(text)
    words = f"\u200b{words}" if words.startswith("_") else words  # of no width: legends leave out what begins with _
    return (words if len(words) <= 40 else words[:39] + "…").replace("$", r"\$")
