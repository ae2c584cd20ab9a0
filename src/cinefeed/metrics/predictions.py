"""Tables of predictions: one row per clip with its label and scores, written by cinefeed or another program.

    id      path         split  clip  patient  target   score
    a1      a1.mp4       test   0     p7       sick     0.81
    a1      a1.mp4       test   1     p7       sick     0.64

Regression and two classes have one column `score`; for two classes it is the probability of the second. More classes
have one column `score_<class>` each. Several targets have columns `target_<name>`, and `score_<name>` or
`score_<name>_<class>`. A label is a number or the name of a class; a missing label is null. The schema of cinefeed's
tables contains the targets; for other tables they are inferred from the columns.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cinefeed.core.errors import ColumnError, LabelError, SettingError, TableError, did_you_mean
from cinefeed.core.text import count_having
from cinefeed.data.label_types import class_names, is_number, label_type, task_hint
from cinefeed.data.manifest.parquet import read_parquet_table
from cinefeed.data.manifest.read_table import read_table
from cinefeed.metrics.basic import DIVERGENCE_ADVICE

Task = Literal["regression", "binary", "multiclass"]
_NOTES = b"cinefeed"
_ROUNDING = 0.005  # of a score: it may be rounded to two decimals, or computed in bfloat16
_ORDER = ("train", "val", "test", "external", "predict")


@dataclass(frozen=True, kw_only=True)
class TargetColumns:
    """One target of a table: name, task, classes, and the columns of its labels and scores."""

    name: str
    task: Task
    classes: tuple[str, ...]
    target: str
    scores: tuple[str, ...]


def target_columns(name: str, *, task: Task, classes: Sequence[str] = (), several: bool = False) -> TargetColumns:
    """Return the column names of a target in cinefeed's tables; `several` if the table has several targets.

    >>> target_columns("view", task="multiclass", classes=["2ch", "4ch"], several=True).scores
    ('score_view_2ch', 'score_view_4ch')
    """
    suffix = f"_{name}" if several else ""
    scores = tuple(f"score{suffix}_{each}" for each in classes) if task == "multiclass" else (f"score{suffix}",)
    return TargetColumns(name=name, task=task, classes=tuple(classes), target=f"target{suffix}", scores=scores)


def check_column_name(name: str) -> None:
    """Raise SettingError if a manifest column has a name that is reserved in tables of predictions.

    >>> check_column_name("patient")
    """
    if name in ("clip", "fold", "target", "score") or name.startswith(("target_", "score_")):
        raise SettingError(f"{name!r} is a reserved column name in tables of predictions; rename the column")


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """A table of predictions with at least the columns `id` and `split`, and its targets."""

    table: pa.Table
    targets: tuple[TargetColumns, ...]
    warnings: tuple[str, ...] = ()  # reasons to distrust the predictions; reports print them first

    @property
    def parts(self) -> list[str]:
        """The parts in the table: train, val, test, external, predict, then any others."""
        parts = pc.unique(self.table["split"]).to_pylist()
        return [each for each in _ORDER if each in parts] + [each for each in parts if each not in _ORDER]

    def part(self, name: str) -> "Predictions":
        """Return the predictions of one part. Raises TableError if there are none."""
        if name not in self.parts:
            raise TableError(f"there are no predictions of the part {name!r}; {did_you_mean(name, self.parts)}")
        return replace(self, table=self.table.filter(pc.equal(self.table["split"], name)))

    def target(self, name: str) -> TargetColumns:
        """Return the columns of a target. Raises ColumnError for an unknown target."""
        for target in self.targets:
            if target.name == name:
                return target
        raise ColumnError(f"there is no target {name!r}; {did_you_mean(name, [each.name for each in self.targets])}")

    def named(self, name: str) -> "Predictions":
        """Return the predictions with a name for the single target of a table whose columns do not name it."""
        if len(self.targets) == 1 and self.targets[0].name == "target":
            return replace(self, targets=(replace(self.targets[0], name=name),))
        return self

    def labelled(self, target: str | TargetColumns) -> NDArray[np.bool_]:
        """Return whether each row has a label of a target, bool (rows,)."""
        columns = self.target(target) if isinstance(target, str) else target
        if columns.target not in self.table.schema.names:
            return np.zeros(self.table.num_rows, np.bool_)
        return ~np.asarray(pc.is_null(self.table[columns.target], nan_is_null=True))

    def arrays(self, target: str | TargetColumns) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Return targets and scores of the rows with a label, as the metric functions expect them.

        Targets are float64, or class numbers as int64. Scores are (rows,), or (rows, classes) for more than two
        classes. Raises LabelError for a label that is not one of the classes, and for a score that is missing, not
        finite or not a probability; the probabilities of all classes sum to 1.
        """
        columns = self.target(target) if isinstance(target, str) else target
        rows = pa.array(np.flatnonzero(self.labelled(columns)))
        if len(rows) == 0:
            return np.zeros(0, np.int64 if columns.classes else np.float64), np.zeros((0, *_width(columns)))
        table = self.table.take(rows)
        scores = np.stack([_scores(table, name, bool(columns.classes)) for name in columns.scores], axis=1)
        if columns.task == "multiclass":
            _refuse_sums(table, scores)
        labels = table[columns.target]
        if columns.classes:
            numbers = pc.index_in(class_names(labels), value_set=pa.array(columns.classes, pa.string()))
            unknown = np.flatnonzero(np.asarray(pc.is_null(numbers)))
            if len(unknown):
                first = class_names(labels)[int(unknown[0])].as_py()
                raise LabelError(
                    f"{count_having(len(unknown), len(table), 'row')} an unknown class in {columns.target!r} "
                    f"({_row_ids(table, unknown)}: {first!r}); {did_you_mean(first, columns.classes)}"
                )
            targets: NDArray[Any] = np.asarray(numbers).astype(np.int64)
        else:
            targets = _numbers(labels, columns.target)
            _refuse(table, ~np.isfinite(targets), f"an infinite label in {columns.target!r}", "correct the label")
        return targets, scores if _width(columns) else scores[:, 0]


def predictions_of(table: pa.Table, targets: Sequence[TargetColumns]) -> Predictions:
    """Return a table as predictions, with the targets in its schema, so that `read_predictions` need not infer them.

    Write it with `pq.write_table(predictions.table, path)`. Raises ColumnError for a missing column.
    """
    for name in ("id", "split", *(score for each in targets for score in each.scores)):
        if name not in table.schema.names:
            raise ColumnError(f"predictions need a column {name!r}; {did_you_mean(name, table.schema.names)}")
    warnings = _notes_of(table.schema).get("warnings", [])
    notes = {
        "targets": [{"name": each.name, "task": each.task, "classes": list(each.classes)} for each in targets],
        "warnings": warnings,
    }
    described = table.replace_schema_metadata({_NOTES: json.dumps(notes).encode()})
    return Predictions(table=described, targets=tuple(targets), warnings=tuple(warnings))


def with_warnings(table: pa.Table, warnings: Sequence[str]) -> pa.Table:
    """Return a table of predictions with warnings in its schema; `read_predictions` reads them."""
    notes = _notes_of(table.schema) | {"warnings": list(warnings)}
    return table.replace_schema_metadata({_NOTES: json.dumps(notes).encode()})


def _notes_of(schema: pa.Schema) -> dict[str, Any]:
    return dict(json.loads((schema.metadata or {}).get(_NOTES, b"{}")))


def read_predictions(
    path: str | Path,
    *,
    task: Task | Mapping[str, Task] | None = None,
    classes: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
) -> Predictions:
    """Read a table of predictions, Parquet or CSV, written by cinefeed or another program.

    If the schema does not contain the targets, they are inferred from the columns: text labels are classes, in the
    order of their names or of the `score_<class>` columns; numbers that are all 0 or 1 are two classes; other numbers
    are a regression. `task` and `classes` override this, for one target or by target name. Without a column `id`, the
    row number is the id. Without a column `split`, all rows are the part "external".

    Raises ColumnError for a missing column, LabelError for labels that do not match their scores, TableError for a
    table that cannot be read.
    """
    if not task and not classes and (schema_targets := _schema_targets(Path(path))):
        return predictions_of(read_parquet_table(Path(path)), schema_targets)
    table = read_table(path)
    if "id" not in table.schema.names:
        table = table.append_column("id", pa.array([str(row) for row in range(table.num_rows)], pa.string()))
    if "split" not in table.schema.names:
        table = table.append_column("split", pa.array(["external"] * table.num_rows, pa.string()))
    if table["split"].null_count:
        raise TableError(
            f"{path}: {count_having(table['split'].null_count, len(table), 'row')} no 'split'; "
            "fill it, or leave the column out"
        )
    names = table.schema.names
    target_names = [name.removeprefix("target_") for name in names if name.startswith("target_")]
    several = "target" not in names and bool(target_names)
    if not several and "target" not in names:
        raise ColumnError(
            f"{path} has no column 'target'; a table needs the labels in 'target', and in 'score' the number or the "
            "probability of the second of two classes, or in 'score_<class>' that of each class; with several targets "
            f"these are target_<name>, score_<name> and score_<name>_<class>; {did_you_mean('target', names)}"
        )
    if not several:
        target_names = ["target"]
    tasks: dict[str, Any] = dict(task) if isinstance(task, Mapping) else dict.fromkeys(target_names, task)
    orders: dict[str, Any] = dict(classes) if isinstance(classes, Mapping) else dict.fromkeys(target_names, classes)
    for name in [*tasks, *orders]:
        if name not in target_names:
            raise SettingError(f"task and classes name a target {name!r}; {did_you_mean(name, target_names)}")
    targets = [
        _infer_target(table, name, target_names, several, tasks.get(name), orders.get(name)) for name in target_names
    ]
    return predictions_of(table, targets)


def _schema_targets(path: Path) -> list[TargetColumns]:
    """Return the targets in the schema of a table written by cinefeed; empty for other tables."""
    try:
        with path.open("rb") as file:
            if file.read(4) != b"PAR1":
                return []
        schema = pq.read_schema(path)
        if _NOTES not in (schema.metadata or {}):
            return []
        notes = _notes_of(schema)
        is_manifest = "root" in notes
        listed = [] if is_manifest else notes["targets"]
    except OSError:
        return []  # read_table raises a better message
    except (pa.ArrowException, ValueError, KeyError, TypeError) as error:
        raise TableError(f"cannot read the targets in the schema of {path} ({error}); write the table again") from error
    if is_manifest:
        raise SettingError(
            f"{path} is a manifest, not a table of predictions; give a run folder, and this manifest with manifest="
        )
    return [target_columns(**each, several=len(listed) > 1) for each in listed]


def _infer_target(
    table: pa.Table, name: str, names: list[str], several: bool, task: Task | None, classes: Sequence[str] | None
) -> TargetColumns:
    """Return the columns of one target in a table of another program."""
    if task is not None and task not in get_args(Task):
        raise SettingError(f"task={task!r} is not a task; {task_hint(task, get_args(Task))}")
    target, score = (f"target_{name}", f"score_{name}") if several else ("target", "score")
    columns = table.schema.names
    # with targets "a" and "a_b", the column score_a_b_c belongs to the longer name
    longer = tuple(f"score_{each}_" for each in names if several and each.startswith(f"{name}_"))
    own = [
        column
        for column in columns
        if column.startswith(f"{score}_")
        and not column.startswith(longer)
        and not (several and column.removeprefix("score_") in names)
    ]
    kind = table[target].type
    class_labels = pc.unique(class_names(table[target].drop_null())).to_pylist()
    if score in columns and task != "multiclass":
        if task is None:
            task = "binary" if classes is not None or label_type(table[target]).is_classes else "regression"
        if task == "regression":
            if not is_number(kind) and not pa.types.is_boolean(kind):
                raise LabelError(f"{target!r} is {kind}, a regression needs numbers; use task='binary'")
            return TargetColumns(name=name, task=task, classes=(), target=target, scores=(score,))
        order = (
            tuple(classes) if classes is not None else ("0", "1") if is_number(kind) else tuple(sorted(class_labels))
        )
        if len(order) != 2:
            raise LabelError(
                f"{target!r} has {len(order)} classes ({', '.join(order[:8])}) but only one column {score!r}, the "
                f"probability of the second of two classes; name both classes with classes=, or add a column "
                f"{score}_<class> for each class"
            )
        return TargetColumns(name=name, task="binary", classes=order, target=target, scores=(score,))
    if not own or task == "regression":
        alone = next((each for each in columns if several and len(names) == 1 and each.startswith("score")), None)
        advice = f"rename it to 'target', for scores such as {alone!r}" if alone else did_you_mean(score, columns)
        raise ColumnError(f"there is no column {score!r} or '{score}_<class>' for {target!r}; {advice}")
    order = tuple(classes) if classes is not None else tuple(each.removeprefix(f"{score}_") for each in own)
    score_columns = tuple(f"{score}_{each}" for each in order)
    for column in [*score_columns, *(f"{score}_{label}" for label in class_labels)]:
        if column not in score_columns or column not in columns:
            raise ColumnError(f"there is no column {column!r} for {target!r}; {did_you_mean(column, own)}")
    if len(order) == 2:
        _refuse_sums(table, np.stack([_numbers(table[column], column) for column in score_columns], axis=1))
        return TargetColumns(name=name, task="binary", classes=order, target=target, scores=score_columns[1:])
    return TargetColumns(name=name, task="multiclass", classes=order, target=target, scores=score_columns)


def _width(columns: TargetColumns) -> tuple[int, ...]:
    return (len(columns.scores),) if len(columns.scores) > 1 else ()


def _numbers(column: Any, name: str) -> NDArray[np.float64]:
    """Return a column as float64; missing values are NaN."""
    try:
        return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(), np.float64)
    except (pa.ArrowException, ValueError) as error:
        raise LabelError(f"the column {name!r} must contain numbers; found {column.type} ({error})") from error


def _scores(table: pa.Table, name: str, is_probability: bool) -> NDArray[np.float64]:
    """Return a column of scores. Raises LabelError for a score that is not finite or not a probability."""
    values = _numbers(table[name], name)
    _refuse(table, ~np.isfinite(values), f"no finite score in {name!r}", DIVERGENCE_ADVICE)
    if is_probability:
        _refuse(
            table,
            (values < 0) | (values > 1),
            f"a score in {name!r} that is not a probability",
            "classes need scores from 0 to 1: apply softmax to logits, or sigmoid for two classes; for numbers use "
            "task='regression'",
        )
    return values


def _refuse_sums(table: pa.Table, scores: NDArray[np.float64]) -> None:
    """Raise LabelError if the scores of all classes, (rows, classes), do not sum to 1 in a row."""
    sums = scores.sum(axis=1)
    faulty = np.abs(sums - 1) > _ROUNDING * (scores.shape[1] + 1)
    if faulty.any():
        first = f"class scores that do not sum to 1, the first to {sums[np.flatnonzero(faulty)[0]]:.3g}"
        _refuse(table, faulty, first, "divide the scores of each row by their sum; for logits use softmax")


def _refuse(table: pa.Table, faulty: NDArray[np.bool_], what: str, advice: str) -> None:
    if faulty.any():
        rows = np.flatnonzero(faulty)
        raise LabelError(f"{count_having(len(rows), len(faulty), 'row')} {what} ({_row_ids(table, rows)}); {advice}")


def _row_ids(table: pa.Table, rows: NDArray[np.int64]) -> str:
    """Return the ids of the first three rows."""
    return ", ".join(str(table["id"][int(row)].as_py()) for row in rows[:3]) + " ..." * (len(rows) > 3)
