"""The settings of a feed: frozen dataclasses, checked when they are made.

`cinefeed.Feed` takes their fields, sections of a settings file are them, the command line has an option for each field
with a help text, and a run folder stores them. A field that is marked as `runtime` changes no byte of a batch: a
feed's state and the resume of a run compare the other ones alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from cinefeed.core.arguments import check_arguments, in_words
from cinefeed.core.errors import ArgumentError, SettingError, did_you_mean
from cinefeed.core.text import parse_bytes
from cinefeed.data.sampling import Natural, Sampler
from cinefeed.feed.batch import OnError
from cinefeed.feed.clip_pipeline import Geometry
from cinefeed.feed.covariates import Covariate
from cinefeed.feed.labels import Task
from cinefeed.feed.mixing import Mixing
from cinefeed.feed.workers.pools import Backend
from cinefeed.transforms.base import Transform
from cinefeed.video.clips import Clip, Frame

Group = TypeVar("Group")


# Arguments that are used elsewhere, or have another name here, and what to do.
HINTS = {
    "target": "target='COLUMN' names the label, or None if clips have none: Feed(..., target='age')",
    "shuffle": "each epoch is in a new order, and feed.evaluation(...) keeps the order of the rows; leave it out",
    "augment": "give transforms=[...], such as transforms=[Rotate(degrees=25)]",
    "labels": "give target='COLUMN'; Manifest.scan(..., labels=TABLE) joins a table of labels",
    "label": "give target='COLUMN'",
    "num_workers": "did you mean 'workers'?",
    "balance": "give sampler=BalancedClasses() or sampler=UniformLabels()",
    "device": "give it to FeedLoader(feed, device=...) of cinefeed.adapters.torch",
    "layout": "give it to FeedLoader(feed, layout=...) of cinefeed.adapters.torch",
}


def option(default: Any, help: str, *, runtime: bool = False, flag: str | None = None) -> Any:
    """Return a dataclass field with the help text of its command line option, `--flag`, by default the field's name."""
    return field(default=default, metadata={"help": help, "runtime": runtime, "flag": flag})


def runtime_fields(kind: type) -> frozenset[str]:
    """Return the names of the fields of a settings dataclass that change no byte of a batch.

    >>> sorted(runtime_fields(FeedOptions))
    ['max_bad', 'return_parameters', 'shard', 'workers']
    """
    return frozenset(each.name for each in fields(kind) if each.metadata.get("runtime"))


@check_arguments()
@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """The inputs of a model beside the clips, and how views and masks become inputs.

    covariates: columns that a model reads beside the clips; numbers are standardised, categories are one-hot encoded
    weight:     column of sample weights, by which rows count in a loss
    views:      of rows with several videos (see `Manifest.pivot`), the views that are fed, by default all: at the same
                time points, or, if they differ in length, at the same share of what each leaves free. `batch.clips`
                holds each by name, and a model's inputs are `clips_2ch`, `clips_4ch` ... A frame is `valid` if it is
                valid in all views
    stack:      feed the views as channels of one clip
    geometry:   "shared" transforms the views of a clip alike, "apart" each with its own parameters
    mask:       column of paths of mask videos, relative to the manifest's root, each as long and as large as its
                video. Geometric and temporal transforms move them with their video, by the nearest pixel; other
                transforms leave them alone. Values are labels from 0 to 255, and 0 outside the moved frame. A model
                has them as the input `masks`, or as its targets if `target` is the same column
    """

    covariates: tuple[str | Covariate, ...] = option((), "Columns that are inputs of the model beside the clips: a,b.")
    weight: str | None = option(None, "Column with the weight of each row in the loss.")
    views: tuple[str, ...] | None = option(None, "Views to feed if rows have several videos: 2ch,4ch.")
    stack: bool = option(False, "Feed the views as channels of one clip.")
    geometry: Geometry = option(
        "shared", "Transform the views of a row with the same parameters (shared), or each with its own (apart)."
    )
    mask: str | None = option(None, "Column with the paths of mask videos.")

    def __post_init__(self) -> None:
        for name in ("covariates", "views"):
            _make_tuple(self, name, "columns" if name == "covariates" else "views")
        _check_choice("geometry", self.geometry, Geometry)
        names = [each.name if isinstance(each, Covariate) else each for each in self.covariates]
        if len(set(names)) < len(names):
            raise SettingError(f"covariates = {names!r} must be different columns")


@check_arguments()
@dataclass(frozen=True, kw_only=True, slots=True)
class Workers:
    """The workers that make the clips. None of these settings changes a byte of a batch.

    count:    number of workers; 0 makes the clips in the caller; "auto" is one a core
    backend:  "thread"; "process", which scales if frames are small, and takes a second to start (Linux); or "auto",
              which times threads for a second at the first batch, takes processes if threads scale badly, and stores
              the reason in `feed.choice`
    prefetch: batches made ahead of the one in use, "auto" is 2; more if they have fewer draws than twice the number of
              workers. At the end of an epoch those of the next, so that it starts without a wait. Processes stay for
              the next iteration, and end with the feed or `feed.close()`
    memory:   a bound such as "2GB" on batches and open decoders together
    timeout_seconds: a clip that takes a worker process longer is an error; threads cannot be stopped
    cache:    folder on a local disk for remote files (docs/remote.md), by default in that for temporary files; the
              processes and ranks of a machine share it. The environment variable CINEFEED_CACHE takes precedence
    cache_bytes: a bound such as "50GB" on these files, by default half of what the disk has free;
              CINEFEED_CACHE_BYTES takes precedence
    """

    count: int | Literal["auto"] = option(
        "auto", "Number of workers that make clips. 0: none; auto: one per core.", flag="workers"
    )
    backend: Backend | Literal["auto"] = option("thread", "Kind of workers: thread, process or auto.")
    prefetch: int | Literal["auto"] = option("auto", "Number of batches made ahead of the current one.")
    memory: int | str | None = option(None, "Limit of the memory of batches and open decoders together, such as 2GB.")
    timeout_seconds: float | None = option(None, "Seconds after which an unfinished clip is an error.")
    cache: str | Path | None = option(None, "Folder on a local disk for remote files.")
    cache_bytes: int | str | None = option(None, "Limit of the remote files in the cache, such as 50GB.")

    def __post_init__(self) -> None:
        _check_count("workers", self.count, least=0, auto=True)
        _check_count("prefetch", self.prefetch, least=0, auto=True)
        _check_choice("backend", self.backend, Backend, "auto")
        if self.memory is not None:
            parse_bytes(self.memory)
        if self.timeout_seconds is not None and not self.timeout_seconds > 0:
            raise SettingError(f"timeout_seconds = {self.timeout_seconds!r} must be more than 0")
        if self.cache is not None:
            object.__setattr__(self, "cache", str(self.cache))
        if self.cache_bytes is not None:
            parse_bytes(self.cache_bytes, name="cache_bytes")


@check_arguments()
@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """Which of several feeds this is: each makes its `batch_size` rows of every global batch.

    All ranks have the same number of batches, by padding (weight 0, nothing valid) or by `drop_last`.
    """

    rank: int
    world_size: int

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise SettingError(f"rank={self.rank!r} must be at least 0 and less than world_size={self.world_size!r}")


@check_arguments()
@dataclass(frozen=True, kw_only=True, slots=True)
class ClipsPerVideo:
    """Several clips of every video that is drawn, from one stretch that is decoded once and is twice as long as a clip.

    count:      clips of a video; each has its own place in the stretch and its own transforms. An epoch has as many
                times the clips. With Clip(position="center") they are distributed evenly over the video instead
    interleave: put the clips of a video into as many batches, one after the other, which then hold the same videos;
                otherwise they share a batch
    """

    count: int = option(1, "Number of clips from each drawn video, which is decoded once.", flag="clips_per_video")
    interleave: bool = option(False, "Put the clips of a video into different batches.")

    def __post_init__(self) -> None:
        _check_count("clips_per_video", self.count, least=1)
        if self.count == 1:
            object.__setattr__(self, "interleave", False)  # one clip has one batch, either way


@check_arguments(label="")
@dataclass(frozen=True, kw_only=True)
class FeedOptions:
    """The settings of a feed that belong to the section `[feed]` of a settings file.

    batch_size: number of clips in a batch
    drop_last:  leave out the last batch of an epoch if it is not full
    seed:       seed of all random choices
    inputs:     covariates, weights, views and masks; see Inputs
    clips_per_video: see ClipsPerVideo; a number is its `count`
    mixing:     `MixUp()` or `CutMix()` of cinefeed.transforms, which mixes the rows of a batch with each other, and
                their labels, weights and covariates with them. Classes become soft targets, see `FeedSpec.soft`
    workers:    see Workers; a number, or "auto", is its `count`
    shard:      see Shard; by default that of torch.distributed or JAX, if one of them is initialised
    on_error:   "raise" an error for a row that cannot be read, or "replace" it by another row of its class or label
                bin. Rows that a scan found unreadable are refused with both: leave them out with `manifest.readable()`
    max_bad:    share of all rows that may be replaced
    return_parameters: store in `Batch.parameters` how each row was made. Files that were not scanned are then opened
                twice
    """

    batch_size: int = option(16, "Number of clips in a batch.")
    drop_last: bool = option(False, "Leave out the last batch of an epoch if it is not full.")
    seed: int = option(0, "Random seed of split, clips, augmentation and weights.")
    inputs: Inputs = field(default_factory=Inputs)
    clips_per_video: ClipsPerVideo = field(default_factory=ClipsPerVideo)
    mixing: Mixing | None = None
    workers: Workers = field(default_factory=Workers, metadata={"runtime": True})
    shard: Shard | None = field(default=None, metadata={"runtime": True})
    on_error: OnError = option(
        "raise", "If a row cannot be read: raise an error, or replace the row by one of its class."
    )
    max_bad: float = option(0.01, "Fraction of the rows that may be replaced.", runtime=True)
    return_parameters: bool = field(default=False, metadata={"runtime": True})

    def __post_init__(self) -> None:
        _make_group(self, "inputs", Inputs)
        _make_group(self, "clips_per_video", ClipsPerVideo)
        _make_group(self, "workers", Workers)
        _check_kind("shard", self.shard, Shard, "Shard(rank=0, world_size=2)", optional=True)
        _check_count("batch_size", self.batch_size, least=1)
        _check_count("seed", self.seed, least=0)
        if self.seed >= 2**64:
            raise SettingError(f"seed = {self.seed} must be at most 2**64-1")
        _check_choice("on_error", self.on_error, OnError)
        if not 0 <= self.max_bad <= 1:
            raise SettingError(f"max_bad = {self.max_bad!r} must be a share of the rows, from 0 to 1")
        clips = self.clips_per_video
        if self.batch_size % clips.count and not clips.interleave:
            raise SettingError(
                f"batch_size = {self.batch_size} does not hold whole videos of clips_per_video = {clips.count}; take a "
                "multiple of it, or interleave = true"
            )


@check_arguments(label="")
@dataclass(frozen=True, kw_only=True)
class FeedSettings(FeedOptions):
    """All settings of a feed.

    target:     label column. None feeds clips without labels (targets are NaN or -1, weights 0); "clip" uses the clips
                as targets. With several columns, batches hold targets and weights by name, the sampler balances the
                first column, and a missing label has weight 0; a sampler that balances needs all labels of the first
    task:       "regression", "binary" or "multiclass"; for several targets, a mapping from target to task. By default,
                text, booleans and numbers that are all 0 or 1 are classes, and other numbers are a regression (see
                cinefeed.data.label_types)
    classes:    names of the classes in the order of their numbers, by default sorted; for several targets, a mapping
                from target to names. In a binary task, the second class is the positive one
    clip:       which frames of a video make a clip
    frame:      size, channels and type of a frame
    transforms: applied to each clip, in order
    sampler:    which rows an epoch has, and how often; by default Natural(), each once
    """

    target: str | tuple[str, ...] | None
    task: Task | Mapping[str, Task] | None = None
    classes: tuple[str, ...] | Mapping[str, Sequence[str]] | None = None
    clip: Clip
    frame: Frame
    transforms: tuple[Transform | Callable[..., Any], ...] = ()
    sampler: Sampler = field(default_factory=Natural)

    def __post_init__(self) -> None:
        super().__post_init__()
        length = self.clip if isinstance(self.clip, int) else 16
        _check_kind("clip", self.clip, Clip, f"Clip(frames={length})")
        _check_kind("frame", self.frame, Frame, _frame_example(self.frame))
        if self.sampler is None:
            object.__setattr__(self, "sampler", Natural())
        if isinstance(self.sampler, type) or not (hasattr(self.sampler, "plan") and hasattr(self.sampler, "strata")):
            raise ArgumentError(f"sampler={in_words(self.sampler)} is not a sampler; {_sampler_advice(self.sampler)}")
        _make_tuple(self, "transforms", "transforms")
        if not isinstance(self.target, str | None):
            _make_tuple(self, "target", "columns", instead="the name of a column, None or ")
        if not isinstance(self.classes, Mapping | None):
            _make_tuple(self, "classes", "names")


def batch_settings(settings: FeedSettings) -> dict[str, str]:
    """Return as text all settings that the batches of a feed depend on, beside its seed, by name.

    >>> settings = FeedSettings(target="age", clip=Clip(), frame=Frame(height=8, width=8), workers=3)
    >>> batch_settings(settings)["batch_size"], "workers" in batch_settings(settings)
    ('16', False)
    """
    texts: dict[str, str] = {}
    for each in fields(settings):
        value = getattr(settings, each.name)
        if each.name == "seed" or each.metadata.get("runtime"):
            continue
        if isinstance(value, Inputs | ClipsPerVideo):
            texts |= {f"{each.name}.{inner.name}": repr(getattr(value, inner.name)) for inner in fields(value)}
        else:
            texts[each.name] = repr(value)
    return texts


def _make_group(settings: Any, name: str, kind: type) -> None:
    """Put a single value, in place of a group of settings, into the first field of the group."""
    value = getattr(settings, name)
    if isinstance(value, kind):
        return
    if is_dataclass(value) or isinstance(value, type) or (kind is Inputs and not isinstance(value, str | list | tuple)):
        raise ArgumentError(f"{name}={in_words(value)} must be {kind.__name__}(...){_as_fields(kind, value)}")
    object.__setattr__(settings, name, kind(**{fields(kind)[0].name: value}))


def _as_fields(kind: type, value: Any) -> str:
    """Return a hint with a mapping as the arguments of a settings class, "" for any other value."""
    if not isinstance(value, Mapping) or not {*value} <= {each.name for each in fields(kind)}:
        return ""
    return f"; did you mean {kind.__name__}({', '.join(f'{name}={each!r}' for name, each in value.items())})?"


def _make_tuple(settings: Any, name: str, content: str, *, instead: str = "") -> None:
    value = getattr(settings, name)
    if isinstance(value, tuple) or (value is None and name == "views"):
        return
    if isinstance(value, str) and name == "views":
        value = (value,)
    if isinstance(value, str) or not isinstance(value, Sequence):
        single = isinstance(value, str) or (name == "transforms" and hasattr(value, "apply"))
        hint = f"; did you mean {name}=[{value!r}]?" if single else f"; give {name}=[] for none" * (value is None)
        raise ArgumentError(f"{name}={in_words(value)} must be {instead}a list of {content}{hint}")
    object.__setattr__(settings, name, tuple(value))


def _check_kind(name: str, value: object, kind: type, example: str, *, optional: bool = False) -> None:
    if not isinstance(value, kind) and not (optional and value is None):
        raise ArgumentError(f"{name}={in_words(value)} must be a {kind.__name__}, such as {example}")


def _frame_example(value: object) -> str:
    """Return an example of a Frame: for a size, such as (56, 56, 3) or 112, the frame of that size."""
    sizes = [value] * 2 if type(value) is int else list(value) if isinstance(value, tuple | list) else []
    if len(sizes) not in (2, 3) or not all(type(each) is int and each > 0 for each in sizes):
        sizes = [112, 112]
    names = ("height", "width", "channels")
    return f"Frame({', '.join(f'{name}={size}' for name, size in zip(names, sizes, strict=False))})"


def _sampler_advice(value: object) -> str:
    """Return what to give in place of a value that is not a sampler: a name, a class or a sampler of torch."""
    name = value if isinstance(value, str) else value.__name__ if isinstance(value, type) else ""
    if name in ("Natural", "BalancedClasses", "UniformLabels"):
        return f"give one such as {name}()"
    if any(kind.__module__.startswith("torch.utils.data") for kind in type(value).__mro__):
        return (
            "a sampler of torch draws indices, a feed plans whole epochs: give BalancedClasses() or UniformLabels() in "
            "place of weights, Natural() for each row once"
        )
    return "give one such as BalancedClasses(), UniformLabels() or Natural()"


def _check_choice(name: str, value: object, choices: Any, *more: str) -> None:
    allowed = [*get_args(choices), *more]
    if value not in allowed:
        raise SettingError(f"{name}={in_words(value)} is not a choice; {did_you_mean(str(value), allowed)}")


def _check_count(name: str, value: object, *, least: int, auto: bool = False) -> None:
    if (auto and value == "auto") or (type(value) is int and value >= least):
        return
    raise SettingError(f"{name} = {value!r} must be a whole number of at least {least}{', or auto' if auto else ''}")


for _group, _kind in {
    "inputs": Inputs,
    "workers": Workers,
    "clips_per_video": ClipsPerVideo,
    "shard": Shard,
    "clip": Clip,
    "frame": Frame,
}.items():
    for _field in fields(_kind):
        HINTS.setdefault(
            _field.name, f"it is an argument of {_kind.__name__}: {_group}={_kind.__name__}({_field.name}=...)"
        )
