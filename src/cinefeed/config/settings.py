"""What a training run is told: one dataclass a section, every value checked at birth."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from cinefeed.balance import Natural, Sampler
from cinefeed.clips import Clip, Frame
from cinefeed.errors import SettingError
from cinefeed.feed.clip import Geometry
from cinefeed.feed.mixing import Mixing
from cinefeed.feed.workers import Backend
from cinefeed.transforms.base import Transform

Label = str | int | float | bool


def _need(condition: bool, name: str, value: object, rule: str) -> None:
    if not condition:
        raise SettingError(f"{name} = {value!r} must be {rule}")


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
