"""Escaping of untrusted names (of files, columns, ...) for terminals and Markdown.

A terminal executes escape sequences, Markdown renders HTML and loads images, and a line break can forge a line. HTML
pages are escaped by their templates.
"""

import unicodedata

# Unicode categories: control, format (such as writing direction), surrogate, line and paragraph separator.
_ESCAPED_CATEGORIES = ("Cc", "Cf", "Cs", "Zl", "Zp")


def one_line(text: str) -> str:
    r"""Return text as one line that is safe to print on a terminal: control characters are escaped.

    >>> print(one_line("a\x1b[2Jb\nc\u202e é"))
    a\x1b[2Jb\nc\u202e é
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        letter.encode("unicode_escape").decode() if unicodedata.category(letter) in _ESCAPED_CATEGORIES else letter
        for letter in text
    )


def terminal_text(text: str) -> str:
    r"""Return text of several lines, each of which is safe to print on a terminal.

    >>> terminal_text("one\ntwo\x07")
    'one\ntwo\\x07'
    """
    return "\n".join(map(one_line, text.split("\n")))


def markdown_text(text: str) -> str:
    r"""Return text as part of one line of Markdown, without HTML, links and images.

    >>> print(markdown_text("<b>![x](http://a)\n# &"))
    &lt;b&gt;!\[x\](http://a)\n# &amp;
    """
    escapes: dict[str, str | int | None] = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "[": "\\[", "]": "\\]"}
    return one_line(text).translate(str.maketrans(escapes))
