"""The options --cache and --cache-bytes of all commands that read videos, which may be remote."""

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from cinefeed.core.remote.cache import CACHE, CACHE_BYTES
from cinefeed.core.text import parse_bytes
from cinefeed.feed.settings import Workers

_HELP = {each.name: each.metadata["help"] for each in fields(Workers) if each.name.startswith("cache")}
_OPTIONS = [
    inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[str | None, typer.Option(help=f"{text[:-1]}; default: {CACHE}{ending}.")],
    )
    for (name, text), ending in zip(_HELP.items(), ("", "_BYTES"), strict=True)
]


@contextmanager
def used_cache(cache: str | Path | None, cache_bytes: str | int | None) -> Iterator[None]:
    """Set the cache of remote files of this process, and of those that it starts; None changes nothing."""
    values = {} if cache is None else {CACHE: str(Path(cache).expanduser().absolute())}
    if cache_bytes is not None:
        values[CACHE_BYTES] = str(parse_bytes(cache_bytes, name="cache_bytes"))
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def with_cache(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options --cache and --cache-bytes behind its own."""

    @wraps(command)
    def called(*, cache: str | None, cache_bytes: str | None, **options: Any) -> None:
        with used_cache(cache, cache_bytes):
            command(**options)

    keyword = inspect.Parameter.KEYWORD_ONLY
    own = [each.replace(kind=keyword) for each in inspect.signature(command).parameters.values()]
    parameters = [*own, *_OPTIONS]
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads it
    called.__annotations__ = {each.name: each.annotation for each in parameters}
    return called
