"""Options that several commands share, and how they become a table of settings."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import wraps
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from cinefeed.cli.cache import used_cache
from cinefeed.cli.inputs import check_path
from cinefeed.config import Settings, missing_settings, overlay, parse, read_table, with_groups
from cinefeed.core.errors import SettingError, listed_in_words
from cinefeed.data.manifest.encoded import feature_frame
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.feed.settings import FeedOptions

_REQUIRED = {
    ("data", "manifest"): "the manifest",
    ("data", "target"): "--target COLUMN",
    ("data.split", "group"): "--group COLUMN (or --no-group, or --split-column COLUMN)",
    ("frame", "height"): "--frame HEIGHTxWIDTHxCHANNELS",
    ("frame", "width"): "--frame HEIGHTxWIDTHxCHANNELS",
    ("train", "out"): "--out FOLDER",
}

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Run = Annotated[Path, typer.Argument(help="Run folder, the --out of 'cinefeed train'.")]
Where = Annotated[
    list[str] | None,
    typer.Option(
        help="Keep the rows with these values: COLUMN=VALUE[,VALUE ...], or without: COLUMN!=VALUE. May be repeated."
    ),
]
Group = Annotated[str | None, typer.Option(help="Column whose values must not be in two parts, such as the patient.")]
NoGroup = Annotated[bool, typer.Option("--no-group", help="Treat every row as independent of all others.")]
Private = Annotated[bool, typer.Option("--private", help="Show ids in place of paths everywhere, and no pictures.")]
Window = Annotated[
    str | None, typer.Option(help="Values that become black and white: LOW,HIGH. For floats and more than 8 bits.")
]
Stratify = Annotated[str | None, typer.Option(help="Column whose distribution is the same in all parts.")]
Threshold = Annotated[
    str | None,
    typer.Option(help="How the threshold of two classes is chosen on the validation part: f1 (default) or youden."),
]
AddedMetrics = Annotated[
    list[str] | None, typer.Option(help="Metrics of plug-ins to compute in addition to the built-in ones: a,b.")
]


@dataclass(frozen=True, kw_only=True)
class Flow:
    """What `train` and `inspect` are told of the flow from manifest to batch. None: not given."""

    manifest: Annotated[
        Path | None,
        typer.Argument(help="Manifest (Parquet) that 'cinefeed scan' wrote; may stand in --config instead."),
    ] = None
    config: Annotated[
        Path | None,
        typer.Option(help="Settings file (TOML), such as 'cinefeed init' writes. Options take precedence over it."),
    ] = None
    target: Annotated[
        list[str] | None,
        typer.Option(help="Label column to learn; several as a,b. 'clip' learns to reconstruct clips."),
    ] = None
    where: Where = None
    private: Private = False
    drop_missing: Annotated[
        bool, typer.Option("--drop-missing", help="Leave out rows without a label, in place of an error.")
    ] = False
    task: Annotated[
        list[str] | None,
        typer.Option(
            help="Task: regression, binary or multiclass. Default: from the labels. Several targets: TARGET=TASK."
        ),
    ] = None
    classes: Annotated[
        list[str] | None,
        typer.Option(help="Classes in order: a,b; the second of two is positive. Several targets: TARGET=a,b."),
    ] = None
    group: Group = None
    no_group: NoGroup = False
    stratify: Stratify = None
    val: Annotated[float | None, typer.Option(help="Fraction of the rows for validation.")] = None
    test: Annotated[float | None, typer.Option(help="Fraction of the rows for the test.")] = None
    split_column: Annotated[str | None, typer.Option(help="Column with the part of each row: train, val or test.")] = (
        None
    )
    frame: Annotated[
        str | None, typer.Option(help="Size and channels of a frame: HEIGHTxWIDTHxCHANNELS, such as 112x112x1.")
    ] = None
    window: Window = None
    frames: Annotated[int | None, typer.Option(help="Number of frames of a clip.")] = None
    stride: Annotated[int | None, typer.Option(help="Use every n-th frame of a video.")] = None
    rate: Annotated[float | None, typer.Option(help="Frames per second of a clip, in place of --stride.")] = None
    rotate: Annotated[
        float | None, typer.Option(help="Rotate training clips by random angles of up to this many degrees.")
    ] = None
    shift: Annotated[
        float | None, typer.Option(help="Shift training clips by random distances of up to this many pixels.")
    ] = None
    sampler: Annotated[
        str | None,
        typer.Option(help="Sampler of the training rows: Natural, BalancedClasses or UniformLabels; see --balance."),
    ] = None
    balance: Annotated[
        bool, typer.Option("--balance", help="Draw rare classes, or rare ranges of numbers, more often in training.")
    ] = False
    feed: Mapping[str, Any] = field(default_factory=dict)  # the options of FeedOptions that were given, by flag

    def table(self, **more: Mapping[str, Any]) -> dict[str, Any]:
        """Return the table of settings that the config file and the options over it say, without what was not given.

        `more` are further sections, laid over both.
        """
        if self.rate is not None and self.stride is not None:
            raise SettingError("--rate and --stride exclude each other; give one")
        if self.group is not None and self.no_group:
            raise SettingError("--group and --no-group exclude each other; give one")
        if self.sampler is not None and self.balance:
            raise SettingError("--sampler and --balance exclude each other; give one")
        split: dict[str, Any] = {
            "group": False if self.no_group else self.group,
            "stratify": self.stratify,
            "val": self.val,
            "test": self.test,
            "seed": self.feed.get("seed"),
        }
        if self.split_column is not None:
            split = {"column": self.split_column, "group": split["group"], "stratify": self.stratify}
        above = {
            "data": {
                "manifest": None if self.manifest is None else str(self.manifest),
                "target": target_of(self.target),
                "where": where_table(self.where or []),
                "missing": "drop" if self.drop_missing else None,
                "private": self.private or None,
                "task": by_target("--task", self.task),
                "classes": classes_of(self.classes),
                "split": split,
            },
            "clip": {"frames": self.frames, "stride": self.stride, "rate_hz": self.rate},
            "frame": frame_table(self.frame) | {"window": None if self.window is None else window_of(self.window)},
            "feed": feed_table(self.feed),
        }
        table = read_table(self.config) if self.config is not None else {}
        if isinstance(table.get("feed"), Mapping):
            table["feed"] = with_groups(table["feed"])  # else `--memory 2GB` would replace `workers = 4`
        table = overlay(overlay(table, _without_unset(above)), _without_unset(more))
        if "frame" not in table and "manifest" in table.get("data", {}):
            table |= features_of(table["data"]["manifest"])
        table["transforms"] = _transforms(table.get("transforms", []), rotate=self.rotate, shift=self.shift)
        if self.sampler is not None:
            table = overlay(table, {"sampler": {"name": self.sampler}})
        if self.balance:
            table = overlay(table, {"sampler": {"name": _balancing(table)}})
        return table

    def settings(self, **more: Mapping[str, Any]) -> Settings:
        """Return the settings that `table` describes.

        Raises SettingError for invalid settings, for missing ones, of which it names all, and for an absent manifest.
        """
        return self._parse(self.table(**more))

    def preview(self) -> tuple[Settings, bool]:
        """Return settings to look at batches without training, and whether they have a split.

        Without a target batches have no labels, and without a split all rows are fed.
        """
        table = self.table()
        is_split = bool(table.get("data", {}).get("split"))
        data: dict[str, Any] = {"target": ""} if is_split else {"target": "", "split": {"group": False}}
        defaults = {"data": data, "frame": {"height": 112, "width": 112}, "train": {"out": "unused"}}
        return self._parse(overlay(defaults, table)), is_split

    def _parse(self, table: Mapping[str, Any]) -> Settings:
        if missing := missing_settings(table):
            names = dict.fromkeys(_REQUIRED[each] for each in missing)
            place = "" if self.config is None else f" in {self.config} and on the command line"
            remedy = "" if self.config is not None else "; or give --config with settings that 'cinefeed init' writes"
            raise SettingError(f"missing{place}: {listed_in_words([*names])}{remedy}")
        settings = parse(table)
        if self.manifest is None:
            check_path(Path(settings.data.manifest), name="manifest", label="[data] manifest =")
        return settings


def feed_options(kind: type = FeedOptions) -> dict[str, tuple[tuple[str, ...], Any, str]]:
    """Return the place, the type and the help text of each option of the feed, by its flag.

    >>> feed_options()["backend"][0], feed_options()["workers"][0]
    (('workers', 'backend'), ('workers', 'count'))
    """
    options: dict[str, tuple[tuple[str, ...], Any, str]] = {}
    hints = get_type_hints(kind)
    for each in fields(kind):
        if "help" in each.metadata:
            options[each.metadata["flag"] or each.name] = ((each.name,), hints[each.name], each.metadata["help"])
        elif is_dataclass(hints[each.name]):
            for flag, (place, hint, text) in feed_options(hints[each.name]).items():
                options[flag] = ((each.name, *place), hint, text)
    return options


def feed_table(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section `[feed]` that the options of the feed make, from their values by flag.

    >>> feed_table({"workers": "4", "memory": "2GB", "views": ["2ch,4ch"], "seed": 7, "weight": None})
    {'workers': {'count': 4, 'memory': '2GB'}, 'inputs': {'views': ['2ch', '4ch']}, 'seed': 7}
    """
    table: dict[str, Any] = {}
    options = feed_options()
    for flag, value in values.items():
        if value is None:
            continue
        (*sections, name), _, _ = options[flag]
        section = table
        for each in sections:
            section = section.setdefault(each, {})
        number = isinstance(value, str) and flag in ("workers", "prefetch") and value.isdigit()
        section[name] = int(value) if number else listed(value) if isinstance(value, list) else value
    return table


def _annotation(hint: Any, text: str) -> Any:
    """Return what typer makes an option of: its type, by that of the setting, and its help text."""
    kinds = [each for each in (get_args(hint) or (hint,)) if each is not NoneType]
    if kinds == [bool]:
        return Annotated[bool | None, typer.Option(help=text)]
    if any(get_origin(each) is tuple or each is Ellipsis for each in kinds):
        return Annotated[list[str] | None, typer.Option(help=text)]
    kind = kinds[0] if kinds in ([int], [float]) else str
    return Annotated[kind | None, typer.Option(help=text)]


def with_flow(command: Callable[..., None], *, without: Sequence[str] = ()) -> Callable[..., None]:
    """Give a command the options of `Flow` and of the feed ahead of its own, and call it with them as one `flow`.

    `without` are options of the feed that the command has no use for.
    """
    hints = get_type_hints(Flow, include_extras=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    shared = [
        inspect.Parameter(each.name, keyword, default=each.default, annotation=hints[each.name])
        for each in fields(Flow)
        if each.name != "feed"
    ]
    of_feed = [
        inspect.Parameter(flag, keyword, default=None, annotation=_annotation(hint, text))
        for flag, (_, hint, text) in feed_options().items()
        if flag not in without
    ]
    own = [each for name, each in inspect.signature(command).parameters.items() if name != "flow"]

    @wraps(command)
    def called(**options: Any) -> None:
        feed = {each.name: options.pop(each.name) for each in of_feed}
        flow = Flow(**{each.name: options.pop(each.name) for each in shared}, feed=feed)
        with used_cache(feed.get("cache"), feed.get("cache_bytes")):
            command(flow, **options)

    parameters = [*shared, *of_feed, *(each.replace(kind=keyword) for each in own)]
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads it
    called.__annotations__ = {each.name: each.annotation for each in parameters}
    return called


def listed(words: list[str]) -> list[str]:
    """Return what `--covariates age,sex --covariates site` says: the option may be repeated, and hold several.

    >>> listed(["age,sex", "site"])
    ['age', 'sex', 'site']
    """
    return [each.strip() for word in words for each in word.split(",")]


def target_of(words: list[str] | None) -> str | list[str] | None:
    """Return what `--target` says: a column, or a list of them.

    >>> target_of(["age"]), target_of(["age,sex"])
    ('age', ['age', 'sex'])
    """
    names = None if words is None else listed(words)
    return names[0] if names is not None and len(names) == 1 else names


def by_target(option: str, values: list[str] | None) -> str | dict[str, str] | None:
    """Return what `--task` or `--classes` says: a value, or one by target.

    >>> by_target("--task", ["sex=binary"]), by_target("--task", ["binary"])
    ({'sex': 'binary'}, 'binary')
    """
    if values is None:
        return None
    pairs = [value.partition("=") for value in values]
    if len(pairs) == 1 and not pairs[0][1]:
        return values[0]
    for name, equals, value in pairs:
        if not equals or not name or not value:
            raise SettingError(f"{option} {name!r} must be TARGET=VALUE where there are several")
    return {name: value for name, _, value in pairs}


def classes_of(values: list[str] | None) -> list[str] | dict[str, list[str]] | None:
    """Return what `--classes` says: names in order, or such a list by target.

    >>> classes_of(["no,yes"]), classes_of(["sick=no,yes"])
    (['no', 'yes'], {'sick': ['no', 'yes']})
    """
    names = by_target("--classes", values)
    if isinstance(names, dict):
        return {name: value.split(",") for name, value in names.items()}
    return None if names is None else names.split(",")


def features_of(manifest: str) -> dict[str, Any]:
    """Return the `[frame]` that a manifest of features needs (`cinefeed encode`), and nothing for one of videos."""
    if not Path(manifest).is_file():  # who reads it says so
        return {}
    frame = feature_frame(Manifest.read(manifest))
    return {"frame": dict(frame)} if frame else {}


def where_table(conditions: list[str]) -> dict[str, list[str]]:
    """Return what `--where column=value,value` says, by column.

    >>> where_table(["view!=4ch", "label=regular,pneumonia"])
    {'view!': ['4ch'], 'label': ['regular', 'pneumonia']}
    """
    table = {}
    for condition in conditions:
        column, equals, values = condition.partition("=")
        if not equals or not column or not values:
            raise SettingError(f"--where {condition!r} must be COLUMN=VALUE or COLUMN=VALUE,VALUE")
        table[column] = values.split(",")
    return table


def frame_table(size: str | None) -> dict[str, int]:
    """Return what `--frame 112x112x1` says; channels may be left out.

    >>> frame_table("112x96x1")
    {'height': 112, 'width': 96, 'channels': 1}
    """
    if size is None:
        return {}
    numbers = size.lower().split("x")
    if len(numbers) not in (2, 3) or not all(each.isdigit() for each in numbers):
        raise SettingError(f"--frame {size!r} must be HEIGHTxWIDTHxCHANNELS, such as 112x112x1")
    return dict(zip(("height", "width", "channels"), map(int, numbers), strict=False))


def window_of(text: str) -> tuple[float, float]:
    """Return the two numbers that `--window 12,1016` names.

    >>> window_of("12,1016"), window_of("-0.5,1e3")
    ((12.0, 1016.0), (-0.5, 1000.0))
    """
    try:
        low, high = map(float, text.split(","))
    except ValueError as error:
        raise SettingError(f"--window {text!r} must be two numbers, LOW,HIGH, such as 12,1016") from error
    return low, high


def _without_unset(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table without unset values, at any depth."""
    cleaned = {name: _without_unset(value) if isinstance(value, Mapping) else value for name, value in table.items()}
    return {name: value for name, value in cleaned.items() if value is not None and value != {}}


def _transforms(listed: Any, *, rotate: float | None, shift: float | None) -> Any:
    """Return a list of transforms with rotation and shift as the options say; those come first, in that order."""
    new: list[dict[str, Any]] = []
    if rotate is not None:
        new.append({"name": "Rotate", "degrees": rotate})
    if shift is not None:
        new.append({"name": "Shift", "pixels": shift})
    if not new or not isinstance(listed, list):
        return listed
    names = {each["name"] for each in new}
    return [*new, *(each for each in listed if not (isinstance(each, Mapping) and each.get("name") in names))]


def _balancing(table: Mapping[str, Any]) -> str:
    """Return the sampler that balances a target: by class, or to uniform labels for a regression."""
    data = table.get("data", {})
    target, task, classes = (data.get(name) for name in ("target", "task", "classes"))
    target = target[0] if isinstance(target, list) and target else target  # the one that is balanced
    task, classes = (each.get(target) if isinstance(each, Mapping) else each for each in (task, classes))
    if task is None and classes is None and "manifest" in data and isinstance(target, str):
        task = None if Manifest.read(data["manifest"]).label_type(target).is_classes else "regression"
    return "UniformLabels" if task == "regression" else "BalancedClasses"
