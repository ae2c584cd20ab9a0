"""The targets of a feed: task, order of the classes, and the labels as numbers."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cinefeed.core.errors import ColumnError, LabelError, SettingError, did_you_mean
from cinefeed.core.text import count_having
from cinefeed.data.label_types import LabelType, class_names, is_number, task_hint
from cinefeed.data.manifest.columns import column_hint
from cinefeed.data.sampling import BalancedClasses, Natural, Sampler, UniformLabels
from cinefeed.data.sampling.strata import bin_strata
from cinefeed.feed.covariates import Covariate

_UNKNOWN = (
    "correct these labels, leave those rows out with where (--where), or train with all classes listed (--classes)"
)
_log = logging.getLogger(__name__)

Task = Literal["regression", "binary", "multiclass", "clip", "mask"]


@dataclass(frozen=True, kw_only=True)
class TargetSpec:
    """One of several targets: its name, task, classes, and the scale of its labels, as in FeedSpec."""

    name: str
    task: Task
    classes: tuple[str, ...] = ()
    mean: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True, kw_only=True)
class FeedSpec:
    """Describes the batches of a feed: shapes, dtypes, task and scale of the labels. Models are built from it.

    clip_shape:    (frames, height, width, channels) of one clip. With several views it is the shape of each view; with
                   `stacked`, the views are the channels of one clip, one view after the other
    target_mean, target_scale:  mean and standard deviation of the labels of the training part before balancing; 0 and
                   1 for classes
    task:          "regression", "binary", "multiclass", "clip" (the targets are the clips), "mask" (the masks)
    soft:          whether targets are shares of classes, float32: (batch, classes), or for a binary task (batch,), the
                   share of the second class. Losses of class numbers cannot be used
    masks:         whether there is an input `masks`, uint8 (frames, height, width, 1); False if they are the targets
    weighted:      whether weights can differ from 1, by a column, a sampler, missing labels or padding rows
    """

    clip_shape: tuple[int, int, int, int]
    dtype: np.dtype[np.generic]
    batch_size: int
    target: str
    task: Task
    classes: tuple[str, ...] = ()
    target_mean: float = 0.0
    target_scale: float = 1.0
    padded: bool = False  # clips can have padding frames, which `valid` marks
    covariates: tuple[Covariate, ...] = ()
    targets: tuple[TargetSpec, ...] = ()  # all targets if there are several; the balanced one is the first
    views: tuple[str, ...] = ()  # if a row has several videos
    stacked: bool = False
    soft: bool = False
    masks: bool = False
    weighted: bool = False
    callables: tuple[str, ...] = ()  # names of transforms that are user-defined functions

    @property
    def clip_names(self) -> tuple[str, ...]:
        """The names of the inputs with clips: "clips", or one for each view, such as "clips_2ch" and "clips_4ch"."""
        return ("clips",) if self.stacked or not self.views else tuple(clip_name(view) for view in self.views)

    def target_settings(self, *, labelled: bool) -> dict[str, Any]:
        """Return the settings `target`, `task` and `classes` for a feed of another part; no target if unlabelled."""
        if not (labelled and self.targets):
            return {
                "target": (self.target or None) if labelled else None,
                "task": self.task,
                "classes": self.classes or None,
            }
        return {
            "target": [each.name for each in self.targets],
            "task": {each.name: each.task for each in self.targets},
            "classes": {each.name: each.classes for each in self.targets if each.classes},
        }


def clip_name(view: str) -> str:
    """Return the name of the input with the clips of a view."""
    return f"clips_{view}"


@dataclass(frozen=True, kw_only=True)
class Targets:
    """A label column as the targets of a task: `values` are float32, or int64 class numbers; 0 for a missing label."""

    task: Task
    classes: tuple[str, ...]
    values: NDArray[np.float32] | NDArray[np.int64]
    has_label: NDArray[np.bool_] | None = None  # which rows have a label; None if all have one

    @property
    def labels(self) -> NDArray[np.generic]:
        """The labels that are passed to a sampler: numbers (float64), or class names."""
        if not self.classes:
            return self.values.astype(np.float64)
        return np.array(self.classes)[self.values]

    @property
    def present(self) -> NDArray[Any]:
        """The values of the rows that have a label."""
        return self.values if self.has_label is None else self.values[self.has_label]

    def spec(self, name: str) -> TargetSpec:
        """Return the description of this target for a model."""
        values = self.present
        if self.task != "regression" or not np.isfinite(values).all():
            return TargetSpec(name=name, task=self.task, classes=self.classes)
        mean, scale = float(np.mean(values, dtype=np.float64)), float(np.std(values, dtype=np.float64))
        return TargetSpec(name=name, task=self.task, mean=mean, scale=scale or 1.0)

    @classmethod
    def unknown(cls, count: int, *, task: Task, classes: tuple[str, ...]) -> "Targets":
        """Return targets for rows without labels: NaN, or class number -1."""
        if task in ("regression", "clip", "mask"):
            return cls(task=task, classes=(), values=np.full(count, np.nan, np.float32))
        return cls(task=task, classes=classes, values=np.full(count, -1, np.int64))


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The targets of a feed: the balanced one, and if there are several, all by name."""

    name: str  # of the balanced target; "" without a target
    main: Targets
    several: Mapping[str, Targets] = field(default_factory=dict)

    @property
    def have_gaps(self) -> bool:
        """Whether a label is missing in some row, and so has weight 0."""
        return any(each.has_label is not None and not each.has_label.all() for each in self.several.values())

    def described(self) -> dict[str, Any]:
        """Return the fields of a FeedSpec that describe the targets."""
        main = self.main.spec(self.name)
        return {
            "target": main.name,
            "task": main.task,
            "classes": main.classes,
            "target_mean": main.mean,
            "target_scale": main.scale,
            "targets": tuple(each.spec(name) for name, each in self.several.items()),
        }

    def groups(self, *, bins: Any) -> NDArray[np.int64]:
        """Return the class or label bin of each row: a row that cannot be read is replaced by one of its group."""
        main = self.main
        if main.task == "regression" and self.name:
            numbers = bin_strata(main.present.astype(np.float64), bins=bins).numbers
        else:
            numbers = (main.present if main.classes else np.zeros(len(main.present))).astype(np.int64)
        if main.has_label is None:
            return numbers
        groups = np.full(len(main.has_label), -1, np.int64)  # rows without a label are one group
        groups[main.has_label] = numbers
        return groups

    def check_balance(self, sampler: Sampler) -> None:
        """Raise LabelError if the sampler does not fit the type of the labels, or if labels are missing."""
        kinds = {BalancedClasses: "classes", UniformLabels: "numbers"}
        balanced = next((kind for each, kind in kinds.items() if isinstance(sampler, each)), None)
        if self.name and balanced == "classes" and self.main.task == "regression":
            raise LabelError(
                f"{type(sampler).__name__} balances classes, but {self.name!r} contains numbers (a regression): use "
                "UniformLabels, or, if the numbers are classes, task='multiclass' (--task multiclass)"
            )
        if self.name and balanced == "numbers" and self.main.classes:
            raise LabelError(
                f"{type(sampler).__name__} balances numbers, but {self.name!r} has {len(self.main.classes)} classes "
                f"({', '.join(self.main.classes[:4])}{' ...' * (len(self.main.classes) > 4)}): use BalancedClasses, "
                "or, if the classes are numbers, task='regression' (--task regression)"
            )
        lacking = 0 if self.main.has_label is None else int((~self.main.has_label).sum())
        if lacking and not isinstance(sampler, Natural):
            raise LabelError(
                f"{type(sampler).__name__} balances the first target, {self.name!r}, which is missing in {lacking} of "
                f"{len(self.main.values)} rows; put a target first that all rows have, or leave out those rows with "
                f"manifest.drop_missing({self.name!r})"
            )


def read_labels(
    table: Any,
    *,
    type_of: Callable[[str], LabelType],
    target: str | Sequence[str] | None,
    task: Task | Mapping[str, Task] | None,
    classes: Sequence[str] | Mapping[str, Sequence[str]] | None,
    mask: str | None = None,
) -> Labels:
    """Read the label columns of a manifest's table; see FeedSettings for the arguments.

    `type_of` returns the type of a column (`Manifest.label_type`); `task` and `classes` take precedence. If the target
    is the column `mask`, the masks are the targets. Raises ColumnError for a missing column, LabelError for invalid
    labels, SettingError if `task` or `classes` has a name that is not a target.
    """
    several = () if target is None or isinstance(target, str) else tuple(target)
    name = several[0] if several else target if isinstance(target, str) else ""
    tasks: dict[str, Task | None] = dict(task) if isinstance(task, Mapping) else {name: task}
    orders = {each: tuple(order) for each, order in classes.items()} if isinstance(classes, Mapping) else {}
    if classes is not None and not isinstance(classes, Mapping):
        orders = {name: tuple(classes)}
    for each in {*tasks, *orders} - {name, *several}:
        raise SettingError(f"task and classes name a target {each!r}; {did_you_mean(each, several or [name])}")
    if mask in several:
        raise SettingError(
            f"the masks in {mask!r} cannot be one of several targets; make them the only target, or an input"
        )
    for each in several or [name]:
        if each not in table.schema.names and each not in ("", "clip"):
            raise ColumnError(f"there is no column {each!r}; {column_hint(each, table.schema.names)}")

    def read(each: str, reader: Callable[..., Targets]) -> Targets:
        column, ids = (table.column(one).combine_chunks() for one in (each, "id"))
        order, task_of_name, kind = orders.get(each), tasks.get(each), type_of(each)
        is_classes = order is not None or kind.is_classes
        if task_of_name is None and order is None and (notice := kind.notice(each)):
            _log.warning(notice)
        return reader(column, name=each, ids=ids, task=task_of_name, classes=order, is_classes=is_classes)

    if not name:
        main = Targets.unknown(table.num_rows, task=tasks.get(name) or "regression", classes=orders.get(name, ()))
    elif name == mask and not several:
        main = Targets.unknown(table.num_rows, task="mask", classes=())
    elif name == "clip" and name not in table.schema.names:
        main = Targets.unknown(table.num_rows, task="clip", classes=())
    elif several:
        labels = {each: read(each, read_masked) for each in several}
        return Labels(name=name, main=labels[name], several=labels)
    else:
        main = read(name, read_targets)
    return Labels(name=name, main=main)


def read_masked(
    column: pa.ChunkedArray,
    *,
    name: str,
    ids: pa.ChunkedArray,
    task: Task | None,
    classes: tuple[str, ...] | None,
    is_classes: bool,
) -> Targets:
    """Read a label column with missing labels; see `read_targets`."""
    has_label = np.asarray(pc.invert(pc.is_null(column, nan_is_null=True)))
    rows = pa.array(np.flatnonzero(has_label))
    if len(rows) == 0:
        raise LabelError(f"no row has a {name!r} label; leave that target out")
    targets = read_targets(
        column.take(rows), name=name, ids=ids.take(rows), task=task, classes=classes, is_classes=is_classes
    )
    values = np.zeros(len(has_label), targets.values.dtype)
    values[has_label] = targets.values
    return Targets(task=targets.task, classes=targets.classes, values=values, has_label=has_label)


def read_targets(
    column: pa.ChunkedArray,
    *,
    name: str,
    ids: pa.ChunkedArray,
    task: Task | None,
    classes: tuple[str, ...] | None,
    is_classes: bool,
) -> Targets:
    """Read a label column as targets of `task`; None selects the task by `is_classes` and the number of classes.

    `classes` defines the order of the class numbers: by default numbers ascend, and other classes are sorted by name.
    In a binary task the second class is the positive one. Raises LabelError if a label is missing, not finite, or not
    one of `classes`.
    """
    if task is not None and task not in get_args(Task):
        raise SettingError(f"task={task!r} is not a task; {task_hint(task, get_args(Task))}")
    kind = column.type
    missing = pc.is_null(column, nan_is_null=True)
    if len(column) and pc.all(missing).as_py():
        raise LabelError(
            f"none of {len(column)} rows has a {name!r} label; check the label table, and the column that joins it"
        )
    _refuse(
        missing,
        ids,
        f"no {name!r} label",
        f"leave those rows out with manifest.drop_missing({name!r}) (--drop-missing), or give them a label",
    )
    if task is None:
        task = None if is_classes else "regression"
    if task == "regression":
        if not is_number(kind) and not pa.types.is_boolean(kind):
            raise LabelError(f"{name!r} is {kind}, a regression needs numbers; use task='multiclass'")
        values = pc.cast(column, pa.float64(), safe=False).to_numpy()
        _refuse(pa.array(~np.isfinite(values)), ids, f"an infinite {name!r} label", "correct the label")
        return Targets(task=task, classes=(), values=values.astype(np.float32))
    text = class_names(column)
    if classes is not None:
        names = tuple(str(each) for each in classes)
    elif is_number(kind):  # 2 before 10
        names = tuple(dict.fromkeys(class_names(pc.unique(column).sort()).to_pylist()))
    else:
        names = tuple(sorted(pc.unique(text).to_pylist()))
    if len(set(names)) < 2:
        raise LabelError(
            f"{name!r} has {len(set(names))} class ({', '.join(names)}); a classification needs two or more: "
            "label more, or use task='regression'"
        )
    numbers = pc.index_in(text, value_set=pa.array(names, pa.string()))
    is_unknown = pc.is_null(numbers)
    if pc.any(is_unknown).as_py():
        first = text.filter(is_unknown)[0].as_py()
        hint = did_you_mean(first, names)
        what = f"a {name!r} label, such as {first!r}, that is none of {', '.join(names)}"
        _refuse(is_unknown, ids, what, f"{f'{hint} ' if hint.endswith('?') else ''}{_UNKNOWN}")
    if task == "binary" and len(names) != 2:
        raise LabelError(
            f"{name!r} has {len(names)} classes ({', '.join(names[:8])}), a binary task has two; "
            "choose them with where(), or use task='multiclass'"
        )
    resolved_task: Task = task or ("binary" if len(names) == 2 else "multiclass")
    return Targets(task=resolved_task, classes=names, values=numbers.to_numpy().astype(np.int64))


def _refuse(faulty: pa.Array | pa.ChunkedArray, ids: pa.ChunkedArray, what: str, advice: str) -> None:
    mask = np.asarray(faulty)
    if mask.any():
        rows = np.flatnonzero(mask)
        first = ", ".join(f"row {row} ({ids[int(row)].as_py()})" for row in rows[:3])
        raise LabelError(
            f"{count_having(len(rows), len(mask), 'row')} {what}: {first}{' ...' * (len(rows) > 3)}; {advice}"
        )
