"""Plug-ins: readers, transforms, samplers, models, metrics and codecs of other packages.

A package names them as entry points in its metadata, which are read without importing the package:

    [project.entry-points."cinefeed.transforms"]
    Vignette = "cinefeed_example.transforms:Vignette"

The metadata of installed packages are read when a name or a suffix is looked up for the first time, and a plug-in is
imported when it is used.
"""

from collections.abc import Collection
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any, Literal, get_args

from cinefeed.core.errors import PluginError

Kind = Literal["readers", "transforms", "samplers", "models", "metrics", "codecs"]
_GROUP = "cinefeed."


def plugins(kind: Kind, *, builtin: Collection[str]) -> MappingProxyType[str, EntryPoint]:
    """Return the installed plug-ins of a kind by name, without importing them.

    Raises PluginError if one has the name of a built-in.
    """
    entries = _installed()[kind]
    for name in entries.keys() & set(builtin):
        raise invalid_plugin(entries[name], "renamed, because cinefeed has this name itself")
    return entries


def load_plugin(plugin: EntryPoint) -> Any:
    """Return the object of a plug-in. Raises PluginError if its import fails."""
    try:
        return plugin.load()
    except Exception as error:
        raise PluginError(
            f"{describe_plugin(plugin)} cannot be imported: {type(error).__name__}: {error}; install another version "
            "of its package, or uninstall it"
        ) from error


def invalid_plugin(plugin: EntryPoint, rule: str) -> PluginError:
    """Return the error for a plug-in that must be something else, `rule`."""
    return PluginError(f"{describe_plugin(plugin)} must be {rule}; correct its package, or uninstall it")


def plugin_versions(*kinds: Kind) -> dict[str, str]:
    """Return the version of each installed package with plug-ins of some kinds, by default of all, by its name."""
    entries = (plugin for kind in kinds or get_args(Kind) for plugin in _installed()[kind].values())
    packages = {plugin.dist.name: plugin.dist.version for plugin in entries if plugin.dist is not None}
    return dict(sorted(packages.items()))


def plugin_names() -> dict[Kind, list[str]]:
    """Return the names of all installed plug-ins by kind, such as {"samplers": ["Third"], ...}."""
    return {kind: sorted(entries) for kind, entries in _installed().items()}


def describe_plugin(plugin: EntryPoint) -> str:
    """Return a description of a plug-in: its name, its package and its entry point.

    >>> describe_plugin(EntryPoint("Third", "example:Third", "cinefeed.samplers"))
    "the plug-in 'Third' of an unknown package (entry point cinefeed.samplers: Third = example:Third)"
    """
    package = "an unknown package" if plugin.dist is None else f"{plugin.dist.name} {plugin.dist.version}"
    return f"the plug-in {plugin.name!r} of {package} (entry point {plugin.group}: {plugin.name} = {plugin.value})"


@cache
def _installed() -> dict[Kind, MappingProxyType[str, EntryPoint]]:
    """Return the entry points of all installed packages by kind and name. Raises PluginError for a name of two."""
    by_kind: dict[Kind, MappingProxyType[str, EntryPoint]] = {}
    groups: Any = entry_points()  # has other types in other versions of Python
    for kind in get_args(Kind):
        entries: dict[str, EntryPoint] = {}
        for entry in groups.select(group=_GROUP + kind):
            other = entries.setdefault(entry.name, entry)
            if other != entry:
                raise invalid_plugin(entry, f"renamed, because this is also the name of {describe_plugin(other)}")
        by_kind[kind] = MappingProxyType(entries)
    return by_kind
