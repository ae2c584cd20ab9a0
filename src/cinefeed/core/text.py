"""Plurals, numbers as text, and escaping of file and column names for terminals and Markdown.

Names come from other people's files. A terminal interprets escape sequences, Markdown passes HTML through and loads
pictures, and a line break in a name forges a line. HTML pages escape in their templates.
"""

import math
import re
import unicodedata

from cinefeed.core.errors import SettingError

_UNITS = {"": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_CONTROL = ("Cc", "Cf", "Cs", "Zl", "Zp")  # control, text direction, lone surrogate, line and paragraph separators


def plural(noun: str) -> str:
    """Return the plural of an English noun.

    >>> [plural(noun) for noun in ("row", "class", "epoch", "study", "day", "series")]
    ['rows', 'classes', 'epochs', 'studies', 'days', 'series']
    """
    if noun.endswith(("ss", "x", "ch", "sh")) and noun != "epoch":
        return f"{noun}es"
    if noun.endswith("y") and not noun.endswith(("ay", "ey", "oy", "uy")):
        return f"{noun[:-1]}ies"
    return noun if noun.endswith("s") else f"{noun}s"


def format_count(number: int, noun: str) -> str:
    """Return a number with thousands separators and its noun, in the plural unless the number is 1.

    >>> format_count(1, "video"), format_count(1200, "class")
    ('1 video', '1,200 classes')
    """
    return f"{number:,} {noun if number == 1 else plural(noun)}"


def count_having(number: int, total: int, noun: str) -> str:
    """Return "3 of 10 rows have", in the singular for one row.

    >>> count_having(1, 4, "row"), count_having(1, 1, "video"), count_having(3, 1200, "row")
    ('1 of 4 rows has', '1 of 1 video has', '3 of 1,200 rows have')
    """
    return f"{number:,} of {format_count(total, noun)} {'has' if number == 1 else 'have'}"


def format_number(value: object) -> str:
    """Return a metric's value: three decimals below 10, else four significant digits.

    >>> format_number(0.81234), format_number(61.2345), format_number(float("nan"))
    ('0.812', '61.23', 'not defined')
    """
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "not defined"
    return f"{value:z.3f}" if abs(value) < 10 else f"{value:.4g}"  # z: no minus sign of 0.000


def format_percent(share: float, spec: str = ".0f") -> str:
    """Return a share of 1 as a percentage; `spec` is the format of the number.

    >>> format_percent(0.54), format_percent(0.125, ".3g")
    ('54 %', '12.5 %')
    """
    return f"{100 * share:{spec}} %"


def format_bytes(size: float) -> str:
    """Return a size in bytes in MB, from 1e9 bytes on in GB.

    >>> format_bytes(2_500_000), format_bytes(12.3e9)
    ('2.5 MB', '12.3 GB')
    """
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"


def parse_bytes(memory: int | str, *, name: str = "memory") -> int:
    """Return a number of bytes, as in "2GB", "500 MB" or "1GiB".

    >>> parse_bytes("2GB"), parse_bytes("1 GiB"), parse_bytes(1000)
    (2000000000, 1073741824, 1000)
    """
    if isinstance(memory, int) and not isinstance(memory, bool) and memory > 0:
        return memory
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", str(memory))
    if match is None or match[2] not in _UNITS or not float(match[1]):
        raise SettingError(f"{name}={memory!r} must be a number of bytes, such as '2GB', '500MB' or '1GiB'")
    return int(float(match[1]) * _UNITS[match[2]])


def format_duration(seconds: float) -> str:
    """Return a duration in ms, s, min or h, with two digits.

    >>> [format_duration(each) for each in (0.423, 3.14, 61, 754, 7200, 90_000)]
    ['423 ms', '3.1 s', '61 s', '13 min', '2 h', '25 h']
    """
    if seconds < 1:
        return f"{1e3 * seconds:.0f} ms"
    for limit, unit, name in ((100, 1, "s"), (100 * 60, 60, "min")):
        if seconds < limit:
            value = seconds / unit
            return f"{value:.0f} {name}" if value >= 10 else f"{value:.2g} {name}"
    hours = seconds / 3600
    return f"{hours:.0f} h" if hours >= 10 else f"{hours:.2g} h"


def one_line(text: str) -> str:
    r"""Return text with control characters and line breaks escaped, safe to print on one line of a terminal.

    >>> print(one_line("a\x1b[2Jb\nc\u202e é"))
    a\x1b[2Jb\nc\u202e é
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        letter.encode("unicode_escape").decode() if unicodedata.category(letter) in _CONTROL else letter
        for letter in text
    )


def terminal_text(text: str) -> str:
    r"""Return text of several lines, each safe to print on a terminal.

    >>> terminal_text("one\ntwo\x07")
    'one\ntwo\\x07'
    """
    return "\n".join(map(one_line, text.split("\n")))


def markdown_text(text: str) -> str:
    r"""Return text safe within one line of Markdown: HTML, links and pictures are escaped.

    >>> print(markdown_text("<b>![x](http://a)\n# &"))
    &lt;b&gt;!\[x\](http://a)\n# &amp;
    """
    escapes: dict[str, str | int | None] = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "[": "\\[", "]": "\\]"}
    return one_line(text).translate(str.maketrans(escapes))
