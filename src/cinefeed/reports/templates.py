"""Jinja templates of this package: filling one, and writing the result to a file."""

from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

import cinefeed
from cinefeed.core.errors import MissingExtraError
from cinefeed.core.text import format_count, format_percent, one_line


def from_template(name: str, *, filters: Mapping[str, Callable[..., Any]] | None = None, **values: Any) -> str:
    """Return a template of this package filled with values; a name that is missing among them is an error.

    Values in HTML are escaped as HTML. In a `.md.j2` template control characters and line breaks are escaped, so that
    no value can start a new line. The filters `count`, `percent` and `thousands` format numbers; `filters` adds more.
    """
    try:
        from jinja2 import Environment, FunctionLoader, StrictUndefined
    except ModuleNotFoundError as error:
        raise MissingExtraError("jinja2", extra="report") from error
    folder = files("cinefeed.reports")
    markdown = name.endswith(".md.j2")
    environment = Environment(
        loader=FunctionLoader(lambda file: folder.joinpath(file).read_text(encoding="utf-8")),
        autoescape=not markdown,
        finalize=(lambda value: one_line(str(value))) if markdown else None,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=markdown,
    )
    environment.filters.update(count=format_count, percent=format_percent, thousands="{:,}".format)
    environment.filters.update(filters or {})
    return environment.get_template(name).render(version=cinefeed.__version__, **values)
