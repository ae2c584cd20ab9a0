"""Training settings, validated on construction: one dataclass per section."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np

from cinefeed.core.errors import SettingError, did_you_mean
from cinefeed.data.sampling import Natural, Sampler
from cinefeed.feed.settings import FeedOptions, FeedSettings
from cinefeed.metrics.added import load_metrics
from cinefeed.metrics.thresholds import ThresholdRule
from cinefeed.transforms.base import Transform
from cinefeed.video.clips import Clip, Frame

Label = str | int | float | bool
LabelTask = Literal["regression", "binary", "multiclass"]


def _need(condition: bool, name: str, value: object, rule: str) -> None:
    if not condition:
        raise SettingError(f"{name} = {value!r} must be {rule}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitSettings:
    """How the parts are made: by group, with shares for validation and test; or read from a `column`.

    `group` is the column whose values must not be in two parts (the patient). It has no default; `group = false` treats
    all rows as independent. With a `column` it may be left out; if it is set, the parts are checked against it.
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
    """The manifest, the selection of its rows, and the targets: one label column, or several; the first is balanced.

    With `target = "clip"` the targets are the clips themselves, for the autoencoder. `task` and `classes` are a value,
    or a table by target. `where` has the values of columns that rows must have; `"view!" = ["2ch"]` leaves rows out.
    Rows without a label are an error; with `missing = "drop"` they are left out and counted. With several targets a row
    needs at least one label, and missing ones are left out of the loss. `private` shows ids in place of paths, and no
    pictures; it is not needed for a manifest that was scanned with --private.
    """

    manifest: str
    target: str | tuple[str, ...]
    where: Mapping[str, tuple[Label, ...]] = field(default_factory=dict)
    missing: Literal["error", "drop"] = "error"
    private: bool = False
    task: LabelTask | Mapping[str, LabelTask] | None = None
    classes: tuple[str, ...] | Mapping[str, tuple[str, ...]] | None = None
    split: SplitSettings

    def __post_init__(self) -> None:
        if not isinstance(self.target, str) and len(self.target) == 1:
            object.__setattr__(self, "target", self.target[0])  # a list of one is one
        named = self.targets
        _need(bool(named) or self.target == "", "target", list(self.target), "a label column, or a list of them")
        _need(len(set(named)) == len(named), "target", list(named), "different columns")
        if len(named) > 1 and "clip" in named:
            raise SettingError("target: the clips are a target of their own, not one of several; leave 'clip' out")
        for name, table in (("task", self.task), ("classes", self.classes)):
            if isinstance(table, Mapping):
                for each in table:
                    if each not in named:
                        raise SettingError(f"{name}: {each!r} is no target; {did_you_mean(str(each), named)}")
            elif table is not None and len(named) > 1:
                raise SettingError(
                    f"{name} = {table!r} is for one target, here are {len(named)}; give a table, such as "
                    f"{name} = {{{named[0]} = {'[...]' if name == 'classes' else repr(table)}}}"
                )

    @property
    def targets(self) -> tuple[str, ...]:
        """The names of the targets; empty if clips are fed without labels."""
        return ((self.target,) if self.target else ()) if isinstance(self.target, str) else self.target


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSettings:
    """The network: a name in cinefeed.models, or of a plug-in, and its keyword arguments.

    "auto" chooses it, and its options, from the size of the clips and the number of training videos
    (cinefeed.config.recipe); options without a name are those of cnn_rnn.
    """

    name: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name == "auto" and self.options:
            object.__setattr__(self, "name", "cnn_rnn")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSettings:
    """The run folder, number of epochs, loss, learning rate and early stopping.

    `out` is the run folder. A checkpoint to resume from is written there every `save_minutes` within an epoch, and at
    the end of each epoch (0: at the end only). `monitor` is a column of history.csv.

    The loss of a regression is computed from labels that are not scaled: mean squared error ("auto", "mse"), its root
    over a batch ("rmse"), "mae", or "huber", which is linear beyond one standard deviation of the training labels. The
    loss of classes is cross-entropy ("auto", "cross_entropy"), or "focal", which gives hard samples more weight. With
    several targets the setting applies to those whose kind it fits. `class_weights = "balanced"` weights each row by
    the inverse frequency of its class among the training labels.

    With `epochs = "auto"` a training has about 1,500 steps, and 10 to 100 epochs; `learning_rate = "auto"` is that of
    the network: 3e-3 with normalisation, 1e-3 for most others. The size of Adam's steps does not depend on the scale of
    the loss, so one rate suits ejection fractions of 60 and word starts of 0.6. It rises over `warmup_epochs`, at most
    all but the last; then with schedule "plateau" it is multiplied by `reduce_lr_factor` after `reduce_lr_patience`
    epochs without improvement, with "cosine" it decreases to 0, with "constant" it does not change.

    `clip_norm` is the maximum norm of all gradients together; 0: no maximum. A backbone that is `frozen` at the start
    ([model]) is trained with the rest after `unfreeze_epoch` epochs, with `unfreeze_learning_rate`. With `layer_decay`
    below 1, the rate of each block of a pretrained encoder is that factor times the rate of the block after it.

    `threads` is the number of CPU threads of the network, with Keras on torch: "auto" is the value of OMP_NUM_THREADS
    if it is set, else one for a small network and one per core for others; on a GPU it changes nothing. The number is
    stored with the run, because it may change the last bits of a loss.

    `weight_decay` above 0 makes the optimiser AdamW: all weights but biases and those of normalisation shrink each step
    by this share of the learning rate. `label_smoothing` moves this share of each class label to all classes alike, for
    cross-entropy; losses of validation are smoothed too.

    `patience`, `reduce_lr_patience` and `f1_zero_patience` count epochs; 0 turns each off. An epoch without an
    improvement of `monitor` by more than `min_improvement`, in its own unit, counts for `patience`. "auto" is 10, but 0
    with the schedule "cosine", which needs all epochs, and on a validation part of fewer than 30 units, whose noise
    would stop the training, unless `monitor` is "loss". `f1_zero_patience` monitors `val_f1`, which exists for a single
    target with classes only.

    `tensorboard` also writes the curves for TensorBoard. `folds` is the number of folds of a cross-validation by group;
    0 trains a single run.
    """

    out: str
    epochs: int | Literal["auto"] = "auto"
    learning_rate: float | Literal["auto"] = "auto"
    schedule: Literal["plateau", "cosine", "constant"] = "plateau"
    warmup_epochs: int = 0
    loss: Literal["auto", "mse", "rmse", "mae", "huber", "cross_entropy", "focal"] = "auto"
    class_weights: Literal["none", "balanced"] = "none"
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"
    threads: int | Literal["auto"] = "auto"
    clip_norm: float = 0.0
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    unfreeze_epoch: int = 0
    unfreeze_learning_rate: float = 1e-4
    layer_decay: float = 1.0
    monitor: str = "val_loss"
    patience: int | Literal["auto"] = "auto"
    min_improvement: float = 0.0
    reduce_lr_patience: int = 4
    reduce_lr_factor: float = 0.5
    f1_zero_patience: int = 10
    save_minutes: float = 10.0
    tensorboard: bool = False
    folds: int = 0

    def __post_init__(self) -> None:
        _need(self.epochs == "auto" or self.epochs >= 1, "epochs", self.epochs, "at least 1, or 'auto'")
        _need(self.folds == 0 or self.folds >= 2, "folds", self.folds, "0 (a single run) or at least 2")
        _need(self.threads == "auto" or self.threads >= 1, "threads", self.threads, "1 or more, or 'auto'")
        for name in ("learning_rate", "unfreeze_learning_rate"):
            rate = getattr(self, name)
            _need(rate == "auto" or (bool(np.isfinite(rate)) and rate > 0), name, rate, "a positive number")
        _need(0 < self.layer_decay <= 1, "layer_decay", self.layer_decay, "above 0 and at most 1")
        _need(0 < self.reduce_lr_factor < 1, "reduce_lr_factor", self.reduce_lr_factor, "between 0 and 1")
        _need(
            self.patience == "auto" or self.patience >= 0,
            "patience",
            self.patience,
            "'auto', 0 (off) or a number of epochs",
        )
        for name in ("reduce_lr_patience", "f1_zero_patience"):
            _need(getattr(self, name) >= 0, name, getattr(self, name), "0 (off) or a number of epochs")
        _need(0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "0 (off) or a share below 1")
        _need(self.warmup_epochs >= 0, "warmup_epochs", self.warmup_epochs, "0 (off) or a number of epochs")
        value, is_below = self.unfreeze_epoch, self.epochs == "auto" or self.unfreeze_epoch < self.epochs
        rule = f"0 (off) or a number of epochs below epochs = {self.epochs}"
        _need(value >= 0 and is_below, "unfreeze_epoch", value, rule)
        for name in ("clip_norm", "weight_decay", "min_improvement", "save_minutes"):
            value = getattr(self, name)
            _need(bool(np.isfinite(value)) and value >= 0, name, value, "0 (off) or a positive number")


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateSettings:
    """How a trained run is evaluated.

    `unit` is the column by which scores are averaged and counted, such as the study or the patient; by default each
    video is a unit. The scores of `clips` clips of a video, evenly spaced, are averaged. `subgroups` are columns; the
    metrics are also computed for each of their values. Intervals have the confidence `level`, from `resamples`
    bootstrap samples by patient (the column `group` of the split), if there is one. `baselines` evaluates a constant,
    nuisance columns and thumbnails on the same split, for at most 2,000 videos. `threshold` is how the threshold of two
    classes is chosen on the validation part: "f1" for the best F1, "youden" for the best Youden's J (sensitivity +
    specificity - 1). `metrics` are metrics of plug-ins that are computed too.
    """

    unit: str | None = None
    clips: int = 1
    subgroups: tuple[str, ...] = ()
    resamples: int = 1000
    level: float = 0.95
    baselines: bool = True
    threshold: ThresholdRule = "f1"
    metrics: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _need(self.clips >= 1, "clips", self.clips, "at least 1")
        _need(self.resamples >= 1, "resamples", self.resamples, "at least 1; 1000 is usual")
        _need(0 < self.level < 1, "level", self.level, "between 0 and 1, such as 0.95")
        load_metrics(self.metrics)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """All settings of a training run, as in a settings file and in settings.toml of a run folder.

    >>> from cinefeed.config import parse
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
    feed: FeedOptions = field(default_factory=FeedOptions)
    model: ModelSettings = field(default_factory=ModelSettings)
    train: TrainSettings
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)

    def __post_init__(self) -> None:
        for name in self.feed.inputs.covariates:
            if name in self.data.targets:
                raise SettingError(f"[feed.inputs] covariates: {name!r} is the target; leave it out of the covariates")

    def feed_settings(self) -> FeedSettings:
        """Return the settings of the training feed, which are in several sections."""
        options = {each.name: getattr(self.feed, each.name) for each in fields(FeedOptions)}
        return FeedSettings(
            target=self.data.target or None,
            task=self.data.task,
            classes=self.data.classes,
            clip=self.clip,
            frame=self.frame,
            transforms=self.transforms,
            sampler=self.sampler,
            **options,
        )
