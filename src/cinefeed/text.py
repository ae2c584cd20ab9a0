"""Names of other people's files and columns, made harmless for the medium that shows them.

A terminal obeys escape sequences, Markdown lets HTML through and loads pictures, and a line break forges a line. HTML
pages escape in their templates.
"""

import unicodedata

_OBEYED = ("Cc", "Cf", "Cs", "Zl", "Zp")  # control, direction of writing, half of a pair, line and paragraph ends


def one_line(text: str) -> str:
    r"""Return text that stays on its line of a terminal and only shows: what a terminal would obey is spelled out.

    >>> print(one_line("a\x1b[2Jb\nc\u202e é"))
    a\x1b[2Jb\nc\u202e é
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        letter.encode("unicode_escape").decode() if unicodedata.category(letter) in _OBEYED else letter
        for letter in text
    )


def terminal_text(text: str) -> str:
    r"""Return text of several lines of which each only shows.

    >>> terminal_text("one\ntwo\x07")
    'one\ntwo\\x07'
    """
    return "\n".join(map(one_line, text.split("\n")))


def markdown_text(text: str) -> str:
    r"""Return text within a line of Markdown, without HTML, links and pictures.

    >>> print(markdown_text("<b>![x](http://a)\n# &"))
    &lt;b&gt;!\[x\](http://a)\n# &amp;
    """
    escapes: dict[str, str | int | None] = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "[": "\\[", "]": "\\]"}
    return one_line(text).translate(str.maketrans(escapes))
