"""Errors of the library in the words of the command line: options in place of settings and arguments."""

import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from cinefeed.cli.options import feed_options
from cinefeed.core.errors import ColumnError

_FLAGS = {  # of settings whose option has another name
    ("data", "split", "column"): "--split-column",
    ("clip", "rate_hz"): "--rate",
    ("frame", "height"): "--frame",
    ("frame", "width"): "--frame",
    ("frame", "channels"): "--frame",
    ("model", "name"): "--model",
    ("sampler", "name"): "--sampler",
    ("transforms", "degrees"): "--rotate",
    ("transforms", "pixels"): "--shift",
}
_SETTING = re.compile(r"\[([\w.]+)(?:: \w+)?\] (\w+) = ")
_PAIR = re.compile(r"^\((-?[\d.]+), (-?[\d.]+)\)")  # of --window
_TWICE = re.compile(r"(?:\b\w+ ?= ?(?:'[^']*'|\w+)|\bwhere) \((--[\w-]+[^()]*)\)")  # group=False (--no-group)
_TWICE_AFTER = re.compile(r"(--[\w-]+(?: \S+)?) \(\w+=\w+\)")  # --overwrite (overwrite=True)
_ARGUMENT = re.compile(r"(?<!has )(?<![\w'.])(\w+)=('[^']*'|\([^()]*\)|-?\d[\w.]*|True|False|(?=[\s,;)]|$))")
_DROPPED = re.compile(r"(?:manifest\.)?drop_missing\('[^']*'\)")
_COLUMN = re.compile(r"(?:\w+: )?((?:there is|[^ ]+ has) no column '(.*?)')")


def in_command_line(error: Exception, text: str, *, options: Mapping[str, str], arguments: Sequence[str]) -> str:
    """Return the text of an error for a command line.

    `options` are the options of the command by the name of their argument, `arguments` the words of the command line.

    >>> in_command_line(ValueError(), "on='path' needs a table; give labels= too",
    ...                 options={"on": "--on", "labels": "--labels"}, arguments=["--on", "path"])
    '--on path needs a table; give --labels too'
    """
    flags_in_use = {word.partition("=")[0] for word in arguments if word.startswith("--")}
    if isinstance(error, ColumnError) and (match := _COLUMN.match(text)):
        place = next(_places(match[2], arguments), None)
        return text if place is None else f"{place}: {text[match.start(1) :]}"
    if match := _SETTING.match(text):
        flag = _flag((*match[1].split("."), match[2]))
        if flag in flags_in_use:
            rest = _PAIR.sub(r"\1,\2", text[match.end() :])
            text = f"--frame: {match[2]} = {rest}" if flag == "--frame" else f"{flag} {rest}"
    text = _TWICE_AFTER.sub(r"\1", _TWICE.sub(r"\1", text))
    if "drop_missing" in options:
        text = _DROPPED.sub(options["drop_missing"], text)
    return _ARGUMENT.sub(lambda match: _option(match, options), text)


def _flag(place: tuple[str, ...]) -> str:
    """Return the option of a setting, such as `--workers` of `[feed.workers] count`."""
    for flag, (setting, _, _) in feed_options().items():
        if place == ("feed", *setting):
            return f"--{flag.replace('_', '-')}"
    return _FLAGS.get(place, f"--{place[-1].replace('_', '-')}")


def _option(match: re.Match[str], options: Mapping[str, str]) -> str:
    """Return `name=value` as an option and its value; unchanged if the command has no such option."""
    flag, value = options.get("rate" if match[1] == "rate_hz" else match[1]), match[2]
    if flag is None:
        return match[0]
    if value in ("", "True"):
        return flag
    if value == "False":
        return f"--no-{flag[2:]}"
    if value[0] == "(":
        value = ",".join(part.strip().strip("'") for part in value[1:-1].split(",") if part.strip())
    number = re.fullmatch(r"(-?\d+)\.0", value)
    return f"{flag} {number[1] if number else shlex.quote(value.strip(chr(39)))}"


def _places(column: str, arguments: Sequence[str]) -> Iterator[str]:
    """Yield the places where a column is named: options first, then settings of the file of --config."""
    words = [part for word in arguments for part in (word.split("=", 1) if word.startswith("--") else [word])]
    for flag, value in pairwise(words):
        if flag.startswith("--") and column in (name for part in value.split(",") for name in (part, *part.split("="))):
            yield f"{flag} {value}"
    if "--config" in words[:-1]:
        try:
            table = tomllib.loads(Path(words[words.index("--config") + 1]).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        for section, values in table.items():
            yield from _settings(section, values, column)


def _settings(section: str, values: Any, column: str) -> Iterator[str]:
    if not isinstance(values, Mapping):
        return
    for name, value in values.items():
        if value == column or (isinstance(value, list) and column in value):
            yield f"[{section}] {name} = {value!r}"
        elif name == column:
            yield f"[{section}] {name}"
        else:
            yield from _settings(f"{section}.{name}", value, column)
