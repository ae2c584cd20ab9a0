"""Lines of a settings file: values with their reasons as comments."""

from dataclasses import dataclass
from typing import Any

import tomli_w


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A setting, or the header of a section, and the reason for its value."""

    name: str
    value: Any = None
    why: str = ""

    def __str__(self) -> str:
        why = comment(self.why)
        if self.name == "#":
            return why
        if self.value is None:
            return f"\n{self.name}" + (f"  {why}" if self.why else "")
        return f"{_toml(self.name, self.value)}  {why}"


def comment(text: str) -> str:
    r"""Return a comment of one line, without characters that TOML does not allow.

    >>> comment("two values: a\x07 20,\n b 20")
    '# two values: a 20, b 20'
    """
    return "# " + "".join(each for each in " ".join(text.split()) if each.isprintable())


def _toml(name: str, value: Any) -> str:
    """Return a setting as one line of TOML.

    >>> _toml("classes", ["no", "yes"])
    'classes = ["no", "yes"]'
    """
    if isinstance(value, list):  # tomli_w would write one line per value
        return f"{name} = [{', '.join(_toml('', each).removeprefix(' = ') for each in value)}]"
    return tomli_w.dumps({name or "x": value}).strip().removeprefix("" if name else "x")


def toml_key(name: str) -> str:
    """Return the name of a column as a TOML key.

    >>> toml_key("label"), toml_key("the label")
    ('label', '"the label"')
    """
    return tomli_w.dumps({name: 0}).removesuffix(" = 0\n")
