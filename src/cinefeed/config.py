"""TOML <-> settings: one section a stage of the flow, every value checked before any work begins.

[data]        which manifest, which rows, which label        [sampler]  how labels are balanced
[data.split]  how the parts are made                         [feed]     batches, seed, workers
[clip]        which frames of a video (cinefeed.Clip)        [feed.mixing]  MixUp or CutMix, by name
[frame]       what a frame becomes (cinefeed.Frame)          [model]    the network and its options
                                                             [train]    run folder, epochs, learning rate, when to stop
[[transforms]]  what happens to a clip, in order; OneOf, RandomOrder and Sometimes hold tables of their own:

    [[transforms]]
    name = "OneOf"
    transforms = [{name = "Blur", sigma = 2}, {name = "Noise", std = 0.1}]
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from inspect import isclass
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import tomli_w

from cinefeed import transforms as catalogue
from cinefeed.balance import BalancedClasses, Natural, Sampler, UniformLabels
from cinefeed.clips import Clip, Frame
from cinefeed.errors import SettingError, did_you_mean
from cinefeed.feed.clip import Geometry
from cinefeed.feed.mixing import Mixing
from cinefeed.feed.workers import Backend
from cinefeed.transforms.base import Transform
from cinefeed.transforms.mixing import CutMix, MixUp

Label = str | int | float | bool
Settled = TypeVar("Settled")

_SAMPLERS: dict[str, type] = {each.__name__: each for each in (Natural, BalancedClasses, UniformLabels)}
_MIXING: dict[str, type] = {each.__name__: each for each in (CutMix, MixUp)}  # they take a batch, no clip
_TRANSFORMS: dict[str, type] = {
    name: getattr(catalogue, name)
    for name in catalogue.__all__
    if name not in _MIXING and is_dataclass(getattr(catalogue, name))
}
_EMPTY: Mapping[str, Any] = MappingProxyType({})


def _need(condition: bool, name: str, value: object, rule: str) -> None:
    if not condition:
        raise SettingError(f"{name} = {value!r} must be {rule}")


def _choose(name: str, value: str, choices: object) -> None:
    names = get_args(choices)
    if value not in names:
        raise SettingError(f"{name} = {value!r} is not a choice; {did_you_mean(value, names)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitSettings:
    """How the parts are made: by group, with shares for validation and test; or read from a `column`.

    `group` is the column whose values must not be in two parts (the patient); it has no default, and `group = false`
    says that every row stands for itself. With a `column` it may be left out; given, it is checked.
    """

    val: float = 0.15
    test: float = 0.15
    group: str | Literal[False] | None = None
    stratify: str | None = None
    seed: int = 0
    column: str | None = None

    def __post_init__(self) -> None:
        if self.column is not None:
            return
        if self.group is None:
            raise SettingError(
                "group is missing: name the column whose values must not be in two parts, the patient (--group), "
                "or write group = false where every row stands for itself (--no-group)"
            )
        _need(0 < self.val < 1, "val", self.val, "a share between 0 and 1")
        _need(0 < self.test < 1, "test", self.test, "a share between 0 and 1")
        _need(self.val + self.test < 1, "val + test", self.val + self.test, "less than 1, to leave rows to train with")
        _need(self.seed >= 0, "seed", self.seed, "0 or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSettings:
    """Which manifest, which of its rows, and the label column to learn.

    Rows without a label are an error, or left out, and counted, with `missing = "drop"`. `private` shows ids in place
    of paths, and no pictures; a manifest that was scanned so needs no word of it.
    """

    manifest: str
    target: str
    where: Mapping[str, tuple[Label, ...]] = field(default_factory=dict)
    missing: Literal["error", "drop"] = "error"
    private: bool = False
    task: Literal["regression", "binary", "multiclass"] | None = None
    classes: tuple[str, ...] | None = None
    split: SplitSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class FeedSettings:
    """Size of a batch, the seed of every random choice, and how many workers decode (0: the caller's own thread).

    `clips_per_video` clips are cut from each video that is opened, for one batch or `spread` over as many. Of rows
    with several views (Manifest.pivot) the `views` named are fed, by default all, apart or with `stack` as channels of
    one clip, and transformed alike (`geometry = "shared"`) or each by its own parameters ("apart"). `mask` is a column
    of paths of mask videos, `mixing` what mixes the rows of a batch. See cinefeed.Feed.
    """

    batch_size: int = 16
    seed: int = 0
    workers: int | Literal["auto"] = "auto"
    backend: Backend | Literal["auto"] = "thread"
    prefetch: int | Literal["auto"] = "auto"
    clips_per_video: int = 1
    spread: bool = False
    views: tuple[str, ...] | None = None
    stack: bool = False
    geometry: Geometry = "shared"
    mask: str | None = None
    mixing: Mixing | None = None

    def __post_init__(self) -> None:
        _need(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        clips = self.clips_per_video
        _need(clips >= 1, "clips_per_video", clips, "at least 1")
        whole = f"a multiple of clips_per_video = {clips}, so that it holds whole videos, or take spread = true"
        _need(self.spread or self.batch_size % clips == 0, "batch_size", self.batch_size, whole)
        _need(self.seed >= 0, "seed", self.seed, "0 or more")
        _need(self.workers == "auto" or self.workers >= 0, "workers", self.workers, "0 or more, or 'auto'")
        _need(self.prefetch == "auto" or self.prefetch >= 0, "prefetch", self.prefetch, "0 or more, or 'auto'")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSettings:
    """The network, by its name in cinefeed.models, and what it is called with."""

    name: str = "cnn_rnn"
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSettings:
    """Where to, how long, how fast, and when to stop.

    `out` is the run folder.
    The loss is in the label's units (mean squared error; `huber` is linear beyond one standard deviation of the
    training labels) or a cross-entropy. Adam's steps do not depend on the size of the loss, so one `learning_rate`
    serves ejection fractions of 60 and word starts of 0.6. `patience`, `reduce_lr_patience` and `f1_zero_patience`
    count epochs; 0 turns each off. `monitor` is a column of history.csv.
    """

    out: str
    epochs: int = 20
    learning_rate: float = 1e-3
    schedule: Literal["constant", "cosine"] = "constant"
    loss: Literal["auto", "mse", "huber"] = "auto"
    monitor: str = "val_loss"
    patience: int = 10
    reduce_lr_patience: int = 4
    reduce_lr_factor: float = 0.5
    f1_zero_patience: int = 10

    def __post_init__(self) -> None:
        _need(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        rate, factor = self.learning_rate, self.reduce_lr_factor
        _need(bool(np.isfinite(rate)) and rate > 0, "learning_rate", rate, "a positive number")
        _need(0 < factor < 1, "reduce_lr_factor", factor, "between 0 and 1")
        for name in ("patience", "reduce_lr_patience", "f1_zero_patience"):
            _need(getattr(self, name) >= 0, name, getattr(self, name), "0 (off) or a number of epochs")


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """All that a training run is made from: what `cinefeed train` was told, and what runs/x/settings.toml keeps.

    >>> settings = parse({"train": {"out": "runs/a"}, "data": {"manifest": "m.parquet", "target": "age",
    ...                   "split": {"group": "patient"}}, "frame": {"height": 64, "width": 64}})
    >>> settings.clip.frames, settings.data.split.group
    (16, 'patient')
    """

    data: DataSettings
    clip: Clip = field(default_factory=Clip)
    frame: Frame
    transforms: tuple[Transform, ...] = ()
    sampler: Sampler = field(default_factory=Natural)
    feed: FeedSettings = field(default_factory=FeedSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    train: TrainSettings


def parse(table: Mapping[str, Any]) -> Settings:
    """Return the settings that a nested table (a TOML file, read) says.

    Raises SettingError for a name that is no setting (with the nearest that is), a missing one, a value of another
    type, and a value out of range; the message begins with the section.

    >>> parse({"feed": {"batch_sise": 8}})
    Traceback (most recent call last):
    ...
    cinefeed.errors.SettingError: [feed] batch_sise is not a setting; did you mean 'batch_size'?
    """
    known = [each.name for each in fields(Settings)]
    _known_names(table, known, where="", kind="section")
    values: dict[str, Any] = {}
    plain = {name: _hints(Settings)[name] for name in ("data", "clip", "frame", "feed", "train")}
    for name, kind in plain.items():  # a misspelt name first: what is missing is often what was misspelt
        _known_names(table.get(name, _EMPTY), [each.name for each in fields(kind)], where=f"[{name}] ")
    for name in plain:
        values[name] = _build(_hints(Settings)[name], table.get(name, _EMPTY), section=name)
    values["model"] = _model(table.get("model", _EMPTY))
    values["sampler"] = _named(_SAMPLERS, table.get("sampler", {"name": "Natural"}), section="sampler")
    listed = table.get("transforms", ())
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        raise SettingError("[[transforms]] must be a list of tables, each headed [[transforms]] and with a name")
    values["transforms"] = tuple(_named(_TRANSFORMS, each, section="transforms") for each in listed)
    return Settings(**values)


def read_settings(path: str | Path) -> Settings:
    """Read a TOML file; raises SettingError with the file's name where it cannot serve."""
    return parse(read_table(path))


def read_table(path: str | Path) -> dict[str, Any]:
    """Read a TOML file as it stands, unchecked, so that a command line can be laid over it."""
    try:
        table: dict[str, Any] = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        return table
    except OSError as error:
        raise SettingError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"{path} is not TOML: {error}") from error


def to_table(settings: Settings) -> dict[str, Any]:
    """Return settings as a nested table that `parse` reads back to the same settings; unset values are left out."""
    table: dict[str, Any] = _plain(settings)
    table["model"].update(table["model"].pop("options", {}))
    return table


def to_toml(settings: Settings) -> str:
    """Return settings as TOML, every default spelled out."""
    return tomli_w.dumps(to_table(settings))


def overlay(table: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table with another laid over it: sections merge, anything else is replaced.

    A section whose `name` changes starts afresh: the options of one sampler mean nothing to the next.

    >>> overlay({"feed": {"seed": 1, "workers": 2}}, {"feed": {"seed": 7}})
    {'feed': {'seed': 7, 'workers': 2}}
    """
    merged = dict(table)
    for name, value in above.items():
        below = merged.get(name)
        renamed = isinstance(value, Mapping) and isinstance(below, Mapping) and value.get("name", below.get("name"))
        if isinstance(value, Mapping) and isinstance(below, Mapping) and renamed == below.get("name"):
            merged[name] = overlay(below, value)
        else:
            merged[name] = value
    return merged


def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _known_names(table: object, known: Sequence[str], *, where: str, kind: str = "setting") -> None:
    if not isinstance(table, Mapping):
        raise SettingError(f"{where}must be a section with settings, found {table!r}")
    for name in table:
        if name not in known:
            raise SettingError(f"{where}{name} is not a {kind}; {did_you_mean(str(name), known)}")


def _build(kind: type[Settled], table: Any, *, section: str) -> Settled:
    """Return a settings dataclass from its section."""
    where = f"[{section}] "
    known = [each for each in fields(kind) if each.init]  # type: ignore[arg-type]
    _known_names(table, [each.name for each in known], where=where)
    values = {}
    for each in known:
        hint = _hints(kind)[each.name]
        if isclass(hint) and hint.__module__ == __name__:  # a section within a section says itself what it lacks
            values[each.name] = _build(hint, table.get(each.name, _EMPTY), section=f"{section}.{each.name}")
        elif each.name in table:
            values[each.name] = _typed(table[each.name], hint, where + each.name)
        elif each.default is MISSING and each.default_factory is MISSING:
            raise SettingError(f"{where}{each.name} is missing; give it a value")
    try:
        return kind(**values)
    except SettingError as error:
        raise SettingError(f"{where}{error}") from error


def _named(kinds: Mapping[str, type], table: Any, *, section: str) -> Any:
    """Return what a section's `name` stands for, built from the rest of the section."""
    if not isinstance(table, Mapping) or not isinstance(table.get("name"), str):
        raise SettingError(f"[{section}] needs a name: one of {', '.join(sorted(kinds))}")
    name = table["name"]
    if name in _MIXING and kinds is _TRANSFORMS:
        raise SettingError(f"[{section}] {name} mixes the clips of a batch: write it as [feed.mixing], name = {name!r}")
    if name not in kinds:
        raise SettingError(f"[{section}] name = {name!r} is not known; {did_you_mean(name, kinds)}")
    rest = {key: value for key, value in table.items() if key != "name"}
    return _build(kinds[name], rest, section=f"{section}: {name}")


def _model(table: Any) -> ModelSettings:
    if not isinstance(table, Mapping):
        raise SettingError(f"[model] must be a section with settings, found {table!r}")
    options = {key: value for key, value in table.items() if key != "name"}
    return ModelSettings(name=_typed(table.get("name", "cnn_rnn"), str, "[model] name"), options=options)


def _typed(value: Any, hint: Any, where: str) -> Any:
    """Return a TOML value as the type that a field declares: lists become tuples, whole numbers serve as floats."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if hint is Transform:  # one within another: "[transforms: OneOf] transforms" -> "transforms: OneOf"
        return _named(_TRANSFORMS, value, section=where[1:].partition("]")[0])
    if hint is Mixing:
        return _named(_MIXING, value, section="feed.mixing")
    if origin is Literal:
        if value not in inner:
            raise SettingError(f"{where} = {value!r} is not a choice; {did_you_mean(str(value), inner)}")
        return value
    if origin in (Union, UnionType):
        kinds = [each for each in inner if each is not NoneType]
        for each in kinds:
            try:
                return _typed(value, each, where)
            except SettingError:
                if len(kinds) == 1:
                    raise
    elif origin is tuple or (isclass(origin) and issubclass(origin, Sequence)):
        wanted = inner[:1] * len(value) if inner[1:] in ((), (...,)) and isinstance(value, list | tuple) else inner
        if isinstance(value, list | tuple) and len(wanted) == len(value):
            return tuple(_typed(each, kind, where) for each, kind in zip(value, wanted, strict=True))
    elif origin is frozenset:
        if isinstance(value, Mapping) and list(value) == ["one_of"] and isinstance(value["one_of"], list | tuple):
            return frozenset(_typed(each, inner[0], where) for each in value["one_of"])
    elif isclass(origin) and issubclass(origin, Mapping):
        if isinstance(value, Mapping):
            return {_typed(key, inner[0], where): _typed(each, inner[1], where) for key, each in value.items()}
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif isclass(hint) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise SettingError(f"{where} = {value!r} must be {_say(hint)}")


def _say(hint: Any) -> str:
    """Return a type in a user's words."""
    words: dict[Any, str] = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    words |= {NoneType: "unset", Transform: "a table with the name of a transform", Mixing: "a table with a name"}
    origin, inner = get_origin(hint), [each for each in get_args(hint) if each not in (NoneType, ...)]
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_say(each) for each in inner))
    if origin is Literal:
        return "one of " + ", ".join(str(each) for each in inner)
    if isclass(origin) and issubclass(origin, Mapping):
        return "a table"
    if origin is frozenset:
        return "{one_of = [...]}"
    if inner:
        return "a list, each " + " or ".join(dict.fromkeys(_say(each) for each in inner))
    return words.get(hint, str(hint))


def _plain(value: Any) -> Any:
    """Return dataclasses as tables, tuples as lists, sets as what is one of them, without what is unset."""
    if is_dataclass(value):
        shown = {each.name: getattr(value, each.name) for each in fields(value) if each.init}
        named: dict[str, Any] = {"name": type(value).__name__} if isinstance(value, Sampler | Transform) else {}
        return named | {name: _plain(each) for name, each in shown.items() if each is not None}
    if isinstance(value, Transform):
        raise SettingError(f"{value!r} cannot be written as TOML; make it a dataclass with its settings as fields")
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items() if each is not None}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, set | frozenset):
        return {"one_of": sorted(value)}
    return value
