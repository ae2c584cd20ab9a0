"""HTML fragments for notebooks, and pages with them for a browser: escaped, without scripts or external resources."""

import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from cinefeed.core.locks import write_text
from cinefeed.core.text import one_line

# Functions that write pages, by name. The package `cinefeed` fills it: methods upstream of `reports` call them by name.
page_writers: dict[str, Callable[..., Path]] = {}

# Themes of notebooks align tables to the right, with stripes. Text has the colour of the theme, and greys are
# translucent, so that they are visible on light and dark.
_STYLE = """
.cinefeed { max-width: 900px; font: 14px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: inherit; }
.cinefeed * { box-sizing: border-box; }
.cinefeed .title { margin: 0 0 6px; font-weight: 600; overflow-wrap: anywhere; }
.cinefeed .note { margin: 6px 0; opacity: .72; font-size: 13px; overflow-wrap: anywhere; }
.cinefeed .warning { margin: 6px 0; padding: 4px 10px; border-left: 3px solid #d55e00; overflow-wrap: anywhere; }
.cinefeed .scroll { overflow-x: auto; }
.cinefeed table { margin: 4px 0 10px; border-collapse: collapse; font-size: 13px; background: none; }
.cinefeed th, .cinefeed td { padding: 2px 14px 2px 0; border: 0; border-bottom: 1px solid rgba(128, 128, 128, .3);
  text-align: left !important; vertical-align: top; color: inherit; font-variant-numeric: tabular-nums; }
.cinefeed tr { background: none !important; }
.cinefeed td { white-space: normal; min-width: 3em; }
.cinefeed td:last-child:not(.number) { overflow-wrap: anywhere; min-width: 8em; }
.cinefeed th { font-weight: 600; white-space: nowrap; }
.cinefeed .facts th { font-weight: 400; opacity: .72; }
.cinefeed .number { text-align: right !important; white-space: nowrap; }
.cinefeed ol { margin: 4px 0 10px; padding-left: 24px; }
.cinefeed .step { display: inline-block; margin: 1px 4px 1px 0; padding: 0 7px; border-radius: 4px;
  border: 1px solid rgba(128, 128, 128, .4); font-family: ui-monospace, Consolas, monospace; font-size: 12px;
  overflow-wrap: anywhere; }
.cinefeed figure { margin: 10px 0; }
.cinefeed figure, .cinefeed .together, .cinefeed tr { break-inside: avoid; }
.cinefeed figcaption { font-size: 12px; line-height: 1.35; overflow-wrap: anywhere; }
.cinefeed .clips { display: grid; gap: 12px;
  grid-template-columns: repeat(auto-fill, minmax(min(var(--least, 150px), 100%), 1fr)); }
.cinefeed .clips figure { margin: 0; min-width: 0; }
.cinefeed .clips img { display: block; width: 100%; max-width: 320px; height: auto; margin: 0 0 3px; }
.cinefeed .bars { display: grid; grid-template-columns: fit-content(40%) 1fr; gap: 5px 10px; max-width: 640px;
  font-size: 13px; align-items: center; }
.cinefeed .bars > span { overflow-wrap: anywhere; }
.cinefeed .bar { display: flex; align-items: center; gap: 6px; height: 15px; font-size: 12px; white-space: nowrap; }
.cinefeed .bar i, .cinefeed .key i { display: inline-block; height: 11px; flex: none; border-radius: 2px;
  print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.cinefeed .key { margin: 8px 0 4px; font-size: 12px; }
.cinefeed .key i { width: 11px; margin: 0 5px -1px 0; }
.cinefeed .key span { margin-right: 16px; }
.cinefeed .chart { position: relative; max-width: 640px; padding: 0 14px 0 46px; font-size: 12px; line-height: 1.3; }
.cinefeed .chart .top { position: absolute; left: 0; top: -2px; width: 40px; text-align: right; }
.cinefeed .chart svg { display: block; width: 100%; height: 150px; border-bottom: 1px solid rgba(128, 128, 128, .7); }
.cinefeed .chart .ticks { position: relative; height: 18px; }
.cinefeed .chart .ticks span { position: absolute; transform: translateX(-50%); }
.cinefeed .chart .axis { text-align: center; overflow-wrap: anywhere; }
"""
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>:root {{ color-scheme: light dark; }} body {{ margin: 24px auto; max-width: 900px; padding: 0 16px;
  background: Canvas; color: CanvasText; }} @media print {{ body {{ margin: 0; max-width: none; }} }}</style>
</head><body><main>{body}</main></body></html>
"""


# Words of a script that is written from right to left. Without isolation, numbers after a name move to the next one.
_LETTER = r"[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]"
_RIGHT_TO_LEFT = re.compile(rf"{_LETTER}+(?: {_LETTER}+)*")


def text(value: object) -> str:
    r"""Return a value as HTML text, with control characters made visible.

    >>> print(text("<b>\x07"))
    &lt;b&gt;\x07
    """
    return _RIGHT_TO_LEFT.sub(r"<bdi>\g<0></bdi>", escape(one_line(str(value))))


def fragment(title: str, *parts: str) -> str:
    """Return parts, which are HTML, below a title, which is text, with the style that they need."""
    return f'<style>{_STYLE}</style><div class="cinefeed"><p class="title">{text(title)}</p>{"".join(parts)}</div>'


def facts(rows: Iterable[tuple[str, object]]) -> str:
    """Return a table of names and values, without rows that have no value."""
    lines = (f"<tr><th>{text(name)}</th><td>{text(value)}</td></tr>" for name, value in rows if str(value))
    return f'<div class="scroll"><table class="facts">{"".join(lines)}</table></div>'


def table(head: Sequence[object], rows: Iterable[Sequence[object]], *, numbers: int | None = None) -> str:
    """Return a table; columns from number `numbers` on are numbers, by default those after the first."""
    first = 1 if numbers is None else numbers

    def row(cells: Sequence[object], tag: str) -> str:
        marks = (' class="number"' if place >= first else "" for place in range(len(cells)))
        return "".join(f"<{tag}{mark}>{text(cell)}</{tag}>" for mark, cell in zip(marks, cells, strict=True))

    lines = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in rows)
    return f'<div class="scroll"><table><tr>{row(head, "th")}</tr>{lines}</table></div>'


def steps(lines: Iterable[tuple[Sequence[str], str]]) -> str:
    """Return a numbered list of steps: the names that each step combines, and how it is computed."""
    items = []
    for names, how in lines:
        chips = " ".join(f'<span class="step">{text(name)}</span>' for name in names)
        items.append(f"<li>{chips} {text(how)}</li>")
    return f"<ol>{''.join(items)}</ol>"


def note(words: str, *, warning: bool = False) -> str:
    """Return a line of text as HTML, "" if the text is empty."""
    return f'<p class="{"warning" if warning else "note"}">{text(words)}</p>' if words else ""


def titled(words: str, content: str) -> str:
    """Return content below a line of text; both stay on one page in print."""
    return f'<div class="together">{note(words)}{content}</div>'


def in_notebook() -> bool:
    """Return whether the program runs in a Jupyter kernel, which displays HTML."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


def display(html: str, *, title: str, out: str | Path | None) -> Path | None:
    """Show HTML: in the notebook, or as a page in the file `out`, or elsewhere in a new temporary file.

    Returns the path of the file, None in a notebook. A temporary file lies in a folder of its owner only, and its path
    is printed. Raises SettingError if `out` cannot be written.
    """
    if out is None and in_notebook():
        show_in_notebook(html)
        return None
    page = _PAGE.format(title=text(title), body=html)
    path = temporary_page(title) if out is None else Path(out)
    write_text(page, path)
    return path


def display_page(writer: str, *args: Any, title: str, out: str | Path | None, **options: Any) -> Path | None:
    """Show the page of one of `page_writers` for these arguments, as `display` does; in a notebook, in a frame."""
    write = page_writers[writer]
    if out is not None or not in_notebook():
        return write(*args, out=temporary_page(title) if out is None else Path(out), **options)
    with tempfile.TemporaryDirectory() as folder:
        page = write(*args, out=Path(folder, "page.html"), **options).read_text(encoding="utf-8")
    show_in_notebook(framed(page))
    return None


def temporary_page(title: str) -> Path:
    """Return the path of a page to be written, in a new folder that only its owner can open, and print it."""
    name = "".join(letter if letter.isalnum() else "-" for letter in title.partition(" ")[0].partition("(")[0].lower())
    path = Path(tempfile.mkdtemp(prefix="cinefeed-"), f"{name}.html")
    print(f"{one_line(title)}: open {path} in a browser")
    return path


def show_in_notebook(html: str) -> None:
    """Display HTML below the cell that runs."""
    from IPython.display import HTML, display  # the kernel has it

    display(HTML(html))


def updating_display() -> Callable[[str], None]:
    """Return a function that shows HTML below the running cell of a notebook, in place of what it showed before."""
    from IPython.display import HTML, display  # the kernel has it

    handle = display(HTML(""), display_id=True)

    def update(html: str) -> None:
        handle.update(HTML(html))

    return update


def framed(page: str, *, height: int = 800) -> str:
    """Return a whole page as a frame for a notebook. The page keeps its own style and cannot run scripts."""
    style = f"width: 100%; height: {height}px; border: 1px solid rgba(128, 128, 128, .4); background: #fff"
    return f'<div><iframe sandbox="allow-downloads" style="{style}" srcdoc="{escape(page)}"></iframe></div>'
