"""TOML <-> settings: one section per stage, all values checked before any work begins.

[data]        which manifest, which rows, which label        [sampler]  how labels are balanced
[data.split]  how the parts are made                         [feed]     batches, seed, workers
[clip]        which frames of a video (cinefeed.Clip)        [feed.mixing]  MixUp or CutMix, by name
[frame]       size and type of a frame (cinefeed.Frame)      [model]    the network and its options
                                                             [train]    run folder, epochs, learning rate, stopping
                                                             [evaluate] unit, clips a video, subgroups, intervals
[[transforms]]  the transforms of a clip, in order; OneOf, RandomOrder and Sometimes contain tables of their own:

    [[transforms]]
    name = "OneOf"
    transforms = [{name = "Blur", sigma = 2}, {name = "Noise", std = 0.1}]
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from importlib.metadata import EntryPoint
from inspect import isclass
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tomli_w

from cinefeed import transforms as catalogue
from cinefeed.config.settings import ModelSettings, Settings
from cinefeed.core.errors import SettingError, did_you_mean, listed_in_words
from cinefeed.core.plugins import invalid_plugin, load_plugin, plugins
from cinefeed.data.sampling import BalancedClasses, Natural, Sampler, UniformLabels
from cinefeed.feed.mixing import Mixing
from cinefeed.feed.settings import FeedOptions
from cinefeed.transforms.base import Transform
from cinefeed.transforms.call import Call
from cinefeed.transforms.mixing import CutMix, MixUp

Settled = TypeVar("Settled")

_SAMPLERS: dict[str, type] = {each.__name__: each for each in (Natural, BalancedClasses, UniformLabels)}
_MIXING: dict[str, type] = {each.__name__: each for each in (CutMix, MixUp)}  # they take a batch, no clip
_TRANSFORMS: dict[str, type] = {
    name: getattr(catalogue, name)
    for name in catalogue.__all__
    if name not in (*_MIXING, "Call") and is_dataclass(getattr(catalogue, name))
}
_PLAIN = ("data", "clip", "frame", "feed", "train", "evaluate")  # sections that are one dataclass each
_EMPTY: Mapping[str, Any] = MappingProxyType({})


def parse(table: Mapping[str, Any]) -> Settings:
    """Return the settings in a nested table, such as the content of a TOML file.

    Raises SettingError for an unknown name (with the nearest valid one), a missing setting, a value of another type,
    and a value out of range; the message begins with the section.

    >>> parse({"feed": {"batch_sise": 8}})
    Traceback (most recent call last):
    ...
    cinefeed.core.errors.SettingError: [feed] batch_sise is not a setting; did you mean 'batch_size'?
    """
    values: dict[str, Any] = {}
    missing = missing_settings(table)
    if len(missing) > 1:
        sections = {section: [name for other, name in missing if other == section] for section, _ in missing}
        names = ", ".join(f"[{section}] {listed_in_words(names)}" for section, names in sections.items())
        raise SettingError(f"{names} are missing; give each a value, or let 'cinefeed init' write the settings")
    for name in _PLAIN:
        values[name] = _build(_hints(Settings)[name], table.get(name, _EMPTY), section=name)
    values["model"] = _model(table.get("model", _EMPTY))
    values["sampler"] = _named(_samplers(), table.get("sampler", {"name": "Natural"}), section="sampler")
    values["transforms"] = _transforms(table)
    return Settings(**values)


def _transforms(table: Mapping[str, Any]) -> tuple[Transform, ...]:
    listed = table.get("transforms", ())
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        raise SettingError("[[transforms]] must be a list of tables, each headed [[transforms]] and with a name")
    return tuple(_named(_transform_kinds(), each, section="transforms") for each in listed)


def read_transforms(path: str | Path) -> tuple[Transform, ...]:
    """Return the transforms in a TOML file, and ignore the rest. Raises SettingError if there are none."""
    transforms = _transforms(read_table(path))
    if not transforms:
        raise SettingError(f"{path} has no [[transforms]]; write some, such as name = 'Rotate' and degrees = 10.0")
    return transforms


def missing_settings(table: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return section and name of each setting that has no default and no value; one of a split is `group`.

    Raises SettingError for a name that is not a setting.

    >>> missing_settings({"data": {"manifest": "m.parquet"}, "frame": {"height": 64}, "train": {"out": "runs/a"}})
    [('data', 'target'), ('data.split', 'group'), ('frame', 'width')]
    """
    _check_names(table, [each.name for each in fields(Settings)], where="", kind="section")
    for section in _PLAIN:  # a misspelt name first: what is missing is often what was misspelt
        allowed = [each.name for each in fields(_hints(Settings)[section])]
        _check_names(table.get(section, _EMPTY), allowed, where=f"[{section}] ")
    missing = []
    for section in _PLAIN:
        values = table.get(section, _EMPTY)
        for each in fields(_hints(Settings)[section]):
            is_required = each.default is MISSING and each.default_factory is MISSING
            if each.name == "split" and section == "data":
                split = values.get("split", _EMPTY)
                if isinstance(split, Mapping) and split.get("group") is None and split.get("column") is None:
                    missing.append(("data.split", "group"))
            elif is_required and each.name not in values:
                missing.append((section, each.name))
    return missing


def read_settings(path: str | Path) -> Settings:
    """Return the settings in a TOML file. Raises SettingError if they are invalid or the file cannot be read."""
    return parse(read_table(path))


def read_table(path: str | Path) -> dict[str, Any]:
    """Return the content of a TOML file without checks, for `overlay`. Raises SettingError if it cannot be read."""
    try:
        table: dict[str, Any] = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        return table
    except OSError as error:
        raise SettingError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"{path} is not TOML: {error}{_toml_hint(path)}") from error


def _toml_hint(path: str | Path) -> str:
    """Return what to do about the usual mistakes of a TOML file: text without quotes, and backslashes in paths."""
    for number, line in enumerate(Path(path).read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        name, equals, value = (part.strip() for part in line.partition("="))
        try:
            tomllib.loads(line)
        except tomllib.TOMLDecodeError:
            if equals and "\\" in value:
                return f"; line {number}: write paths with / or in single quotes"
            if equals and re.fullmatch(r"[^\W\d][\w./-]*", value):
                return f'; line {number}: text needs quotes, {name} = "{value}"'
    return ""


def to_table(settings: Settings) -> dict[str, Any]:
    """Return settings as a nested table, from which `parse` makes the same settings; unset values are left out."""
    table: dict[str, Any] = _plain(settings)
    table["model"].update(table["model"].pop("options", {}))
    return table


def to_toml(settings: Settings) -> str:
    """Return settings as TOML, including defaults."""
    return tomli_w.dumps(to_table(settings))


def overlay(table: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table with the values of another: sections are merged, all other values are replaced.

    A section whose `name` changes is replaced, because the options of a sampler are those of that sampler alone.

    >>> overlay({"feed": {"seed": 1, "workers": 2}}, {"feed": {"seed": 7}})
    {'feed': {'seed': 7, 'workers': 2}}
    """
    merged = dict(table)
    for name, value in above.items():
        below = merged.get(name)
        renamed = isinstance(value, Mapping) and isinstance(below, Mapping) and value.get("name", below.get("name"))
        if isinstance(value, Mapping) and isinstance(below, Mapping) and renamed == below.get("name", renamed):
            merged[name] = overlay(below, value)
        else:
            merged[name] = value
    return merged


def with_groups(feed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section `[feed]` with each group of settings as a table: `workers = 4` is its `count`.

    >>> with_groups({"seed": 7, "workers": 4})
    {'seed': 7, 'workers': {'count': 4}}
    """
    groups = {name: fields(hint)[0].name for name, hint in _hints(FeedOptions).items() if is_dataclass(hint)}
    return {
        name: {groups[name]: value} if name in groups and not isinstance(value, Mapping) else value
        for name, value in feed.items()
    }


def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _check_names(table: object, allowed: Sequence[str], *, where: str, kind: str = "setting") -> None:
    if not isinstance(table, Mapping):
        raise SettingError(f"{where}must be a section with settings, found {table!r}")
    for name in table:
        if name not in allowed and kind == "section" and (section := _section_of(str(name))):
            raise SettingError(f"{name} is a setting of [{section}]; write it below the line [{section}]")
        if name not in allowed:
            raise SettingError(f"{where}{name} is not a {kind}; {did_you_mean(str(name), allowed)}")


def _section_of(name: str) -> str | None:
    """Return the section that has a setting, such as "train" for "epochs"."""
    return next((each for each in _PLAIN if name in {setting.name for setting in fields(_hints(Settings)[each])}), None)


def _build(kind: type[Settled], table: Any, *, section: str) -> Settled:
    """Return a settings dataclass from its section."""
    where = f"[{section}] "
    settings = [each for each in fields(kind) if each.init]  # type: ignore[arg-type]  # every Settled is a dataclass
    _check_names(table, [each.name for each in settings], where=where)
    table = with_groups(table) if kind is FeedOptions else table
    values = {}
    for each in settings:
        hint = _hints(kind)[each.name]
        if isclass(hint) and hint.__module__ in (Settings.__module__, FeedOptions.__module__):  # a section of its own
            values[each.name] = _build(hint, table.get(each.name, _EMPTY), section=f"{section}.{each.name}")
        elif each.name in table:
            values[each.name] = _typed(table[each.name], hint, where + each.name)
        elif each.default is MISSING and each.default_factory is MISSING:
            raise SettingError(f"{where}{each.name} is missing; give it a value")
    try:
        return kind(**values)
    except SettingError as error:
        raise SettingError(f"{where}{_in_toml(str(error), kind)}") from error


def _in_toml(message: str, kind: type) -> str:
    """Return the message of a settings class with the setting as TOML writes it: `Clip(frames)=0` is `frames = 0`."""
    message = re.sub(rf"^{kind.__name__}\((\w+)\)=", r"\1 = ", message)
    return re.sub(rf"^{kind.__name__}\((\w+)=(.*?)\)(?= must|:)", r"\1 = \2", message)


def _samplers() -> dict[str, type | EntryPoint]:
    return {**_SAMPLERS, **plugins("samplers", builtin=_SAMPLERS)}


def _transform_kinds() -> dict[str, type | EntryPoint]:
    return {**_TRANSFORMS, **plugins("transforms", builtin=catalogue.__all__)}


def _plugin_class(plugin: EntryPoint) -> type:
    """Return the class of a plug-in, whose settings are the fields of a dataclass. Raises PluginError."""
    value: type = load_plugin(plugin)
    is_sampler = plugin.group.endswith("samplers")
    fits = isclass(value) and is_dataclass(value)
    if not fits or not (issubclass(value, Sampler) if is_sampler else hasattr(value, "sample")):
        kind = "cinefeed.data.sampling.Sampler" if is_sampler else "the protocol cinefeed.transforms.Transform"
        raise invalid_plugin(plugin, f"a dataclass of {kind}")
    if value.__name__ != plugin.name:
        raise invalid_plugin(plugin, f"named like its class, {value.__name__}, by which settings are written")
    return value


def _named(kinds: Mapping[str, type | EntryPoint], table: Any, *, section: str) -> Any:
    """Return the object that a section names, made with the other settings of the section."""
    if isinstance(table, str):
        raise SettingError(f"{section} = {table!r} must be a section: write [{section}], and name = {table!r} below it")
    if not isinstance(table, Mapping) or not isinstance(table.get("name"), str):
        raise SettingError(f"[{section}] needs a name: one of {', '.join(sorted(kinds))}")
    name = table["name"]
    if name in _MIXING and section.startswith("transforms"):
        raise SettingError(f"[{section}] {name} mixes the clips of a batch: write it as [feed.mixing], name = {name!r}")
    if name not in kinds:
        raise SettingError(f"[{section}] name = {name!r} is not known; {did_you_mean(name, kinds)}")
    rest = {key: value for key, value in table.items() if key != "name"}
    kind = kinds[name]
    return _build(_plugin_class(kind) if isinstance(kind, EntryPoint) else kind, rest, section=f"{section}: {name}")


def _model(table: Any) -> ModelSettings:
    if not isinstance(table, Mapping):
        raise SettingError(f"[model] must be a section with settings, found {table!r}")
    options = {key: value for key, value in table.items() if key != "name"}
    return ModelSettings(name=_typed(table.get("name", "auto"), str, "[model] name"), options=options)


def _typed(value: Any, hint: Any, where: str) -> Any:
    """Return a TOML value as the type of a field: lists become tuples, whole numbers become floats."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if hint is Transform:  # one within another: "[transforms: OneOf] transforms" -> "transforms: OneOf"
        return _named(_transform_kinds(), value, section=where[1:].partition("]")[0])
    if hint is Mixing:
        return _named(_MIXING, value, section="feed.mixing")
    if origin is Literal:
        if value not in inner:
            raise SettingError(f"{where} = {value!r} is not a choice; {did_you_mean(str(value), inner)}")
        return value
    if origin in (Union, UnionType):
        kinds = [each for each in inner if each is not NoneType]
        intended_kind = _intended_kind(value, kinds)
        for each in kinds:
            try:
                return _typed(value, each, where)
            except SettingError:
                if each == intended_kind:
                    raise
    elif origin is tuple or (isclass(origin) and issubclass(origin, Sequence)):
        element_kinds = (
            inner[:1] * len(value) if inner[1:] in ((), (...,)) and isinstance(value, list | tuple) else inner
        )
        if isinstance(value, list | tuple) and len(element_kinds) == len(value):
            return tuple(_typed(each, kind, where) for each, kind in zip(value, element_kinds, strict=True))
    elif origin is frozenset:
        if isinstance(value, Mapping) and list(value) == ["one_of"] and isinstance(value["one_of"], list | tuple):
            return frozenset(_typed(each, inner[0], where) for each in value["one_of"])
    elif isclass(origin) and issubclass(origin, Mapping):
        if isinstance(value, Mapping):
            return {
                _typed(key, inner[0], where): _typed(each, inner[1], f"{where}.{key}") for key, each in value.items()
            }
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif isclass(hint) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    example = f", such as [{value!r}]" if _is_list(hint) and isinstance(value, str | int | float) else ""
    raise SettingError(f"{where} = {_literal(value)} must be {_say(hint)}{example}")


def _is_list(hint: Any) -> bool:
    origin = get_origin(hint)
    return origin is tuple or (isclass(origin) and issubclass(origin, Sequence))


def _literal(value: Any) -> str:
    """Return a value as TOML writes it.

    >>> _literal(True), _literal("auto")
    ('true', "'auto'")
    """
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _intended_kind(value: Any, kinds: Sequence[Any]) -> Any:
    """Return the one of several types that a value probably has, for the clearest error; None if it is unclear."""
    if len(kinds) == 1:
        return kinds[0]
    tables = [each for each in kinds if isclass(get_origin(each)) and issubclass(get_origin(each), Mapping)]
    same_form = tables if isinstance(value, Mapping) else [each for each in kinds if each not in tables]
    one = same_form[0] if len(same_form) == 1 else None
    return one if one in tables or get_origin(one) is Literal else None


def _say(hint: Any) -> str:
    """Return the description of a type for an error."""
    kinds: dict[Any, str] = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    kinds |= {NoneType: "unset", Transform: "a table with the name of a transform", Mixing: "a table with a name"}
    origin, inner = get_origin(hint), [each for each in get_args(hint) if each not in (NoneType, ...)]
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_say(each) for each in inner))
    if origin is Literal:
        words = [_literal(each) for each in inner]
        return words[0] if len(words) == 1 else f"one of {', '.join(words)}"
    if isclass(origin) and issubclass(origin, Mapping):
        return "a table"
    if origin is frozenset:
        return "{one_of = [...]}"
    if inner:
        return "a list, each " + " or ".join(dict.fromkeys(_say(each) for each in inner))
    return kinds.get(hint, str(hint))


def _plain(value: Any) -> Any:
    """Return dataclasses as tables, tuples as lists and sets as {one_of = ...}, without unset values."""
    if isinstance(value, Call):
        raise SettingError(f"{value!r} is code, which no settings hold: give callables to a Feed in Python")
    if is_dataclass(value):
        values = {each.name: getattr(value, each.name) for each in fields(value) if each.init}
        named: dict[str, Any] = {"name": type(value).__name__} if isinstance(value, Sampler | Transform) else {}
        return named | {name: _plain(each) for name, each in values.items() if each is not None}
    if isinstance(value, Transform):
        raise SettingError(f"{value!r} cannot be written as TOML; make it a dataclass with its settings as fields")
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items() if each is not None}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, set | frozenset):
        return {"one_of": sorted(value)}
    return value
