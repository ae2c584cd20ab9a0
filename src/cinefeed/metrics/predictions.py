"""The table of predictions: one row a clip, with its label and its scores, of cinefeed or of any other program.

    id      path         split  clip  patient  target   score
    a1      a1.mp4       test   0     p7       sick     0.81
    a1      a1.mp4       test   1     p7       sick     0.64

Regression and two classes have one column `score`, of two classes the probability of the second; more classes have
`score_<class>`. Several targets have `target_<name>`, and `score_<name>` or `score_<name>_<class>`. A label is a number
or the name of a class, and null where it is missing. Of cinefeed's own tables the schema says which targets there are;
of others it is inferred from the columns.
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

from cinefeed.errors import ColumnError, LabelError, SettingError, TableError, did_you_mean
from cinefeed.label_types import class_names, is_number, label_type
from cinefeed.manifest.parquet import read_parquet_table
from cinefeed.manifest.reading import read_table

Task = Literal["regression", "binary", "multiclass"]
_NOTES = b"cinefeed"
_ORDER = ("train", "val", "test", "external", "predict")


@dataclass(frozen=True, kw_only=True)
class TargetColumns:
    """One target of a table: its name and task, and the columns that hold its labels and its scores."""

    name: str
    task: Task
    classes: tuple[str, ...]
    target: str
    scores: tuple[str, ...]


def target_columns(name: str, *, task: Task, classes: Sequence[str] = (), several: bool = False) -> TargetColumns:
    """Return how the columns of a target are named in cinefeed's tables, where it is alone or one of several.

    >>> target_columns("view", task="multiclass", classes=["2ch", "4ch"], several=True).scores
    ('score_view_2ch', 'score_view_4ch')
    """
    tail = f"_{name}" if several else ""
    scores = tuple(f"score{tail}_{each}" for each in classes) if task == "multiclass" else (f"score{tail}",)
    return TargetColumns(name=name, task=task, classes=tuple(classes), target=f"target{tail}", scores=scores)


def check_carried(name: str) -> None:
    """Raise SettingError where a table of predictions cannot carry a manifest's column: it has one of that name itself.

    >>> check_carried("patient")
    """
    if name in ("clip", "fold", "target", "score") or name.startswith(("target_", "score_")):
        raise SettingError(f"the column {name!r} is called as one of the predictions' own; rename it")


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """A table of predictions and what its columns mean; it has the columns `id` and `split` at least."""

    table: pa.Table
    targets: tuple[TargetColumns, ...]
    warnings: tuple[str, ...] = ()  # why they may be worth less than they seem: the first thing that a reader is shown

    @property
    def parts(self) -> list[str]:
        """The parts in the table: train, val, test, external, predict, then any others."""
        found = pc.unique(self.table["split"]).to_pylist()
        return [each for each in _ORDER if each in found] + [each for each in found if each not in _ORDER]

    def part(self, name: str) -> "Predictions":
        """Return the rows of one part. Raises TableError where there is none."""
        if name not in self.parts:
            raise TableError(f"there are no predictions of the part {name!r}; {did_you_mean(name, self.parts)}")
        return replace(self, table=self.table.filter(pc.equal(self.table["split"], name)))

    def target(self, name: str) -> TargetColumns:
        """Return the columns of a target by its name."""
        for each in self.targets:
            if each.name == name:
                return each
        raise ColumnError(f"there is no target {name!r}; {did_you_mean(name, [each.name for each in self.targets])}")

    def labelled(self, target: str | TargetColumns) -> NDArray[np.bool_]:
        """Return which rows have a label of a target, bool (rows,)."""
        columns = self.target(target) if isinstance(target, str) else target
        if columns.target not in self.table.schema.names:
            return np.zeros(self.table.num_rows, np.bool_)
        return ~np.asarray(pc.is_null(self.table[columns.target], nan_is_null=True))

    def arrays(self, target: str | TargetColumns) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Return targets and scores of the rows with a label: what every function of metrics takes.

        Targets are float64, or class numbers, int64; scores are (rows,), or (rows, classes) of more than two classes.
        Raises LabelError where a label is of no known class, or a score is missing, not finite or no probability.
        """
        columns = self.target(target) if isinstance(target, str) else target
        rows = pa.array(np.flatnonzero(self.labelled(columns)))
        if len(rows) == 0:
            return np.zeros(0, np.int64 if columns.classes else np.float64), np.zeros((0, *_width(columns)))
        chosen = self.table.take(rows)
        scores = np.stack([_score(chosen, name, bool(columns.classes)) for name in columns.scores], axis=1)
        labels = chosen[columns.target]
        if columns.classes:
            numbers = pc.index_in(class_names(labels), value_set=pa.array(columns.classes, pa.string()))
            unknown = np.flatnonzero(np.asarray(pc.is_null(numbers)))
            if len(unknown):
                first = class_names(labels)[int(unknown[0])].as_py()
                raise LabelError(
                    f"{columns.target!r} of {len(unknown)} rows is of no known class ({_where(chosen, unknown)}: "
                    f"{first!r}); {did_you_mean(first, columns.classes)}"
                )
            targets: NDArray[Any] = np.asarray(numbers).astype(np.int64)
        else:
            targets = _numbers(labels, columns.target)
            _refuse(chosen, ~np.isfinite(targets), f"an infinite label in {columns.target!r}", "correct the label")
        return targets, scores if _width(columns) else scores[:, 0]


def predictions_of(table: pa.Table, targets: Sequence[TargetColumns]) -> Predictions:
    """Return a table as predictions, its schema naming the targets, so that `read_predictions` needs no guess.

    Keep it with `pq.write_table(predictions.table, path)`. Raises ColumnError for a column that is not there.
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
    """Return a table of predictions whose schema keeps warnings about them, which `read_predictions` hands on."""
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
    """Read a table of predictions, Parquet or CSV, of cinefeed or of any other program.

    A table that does not say what it holds is taken by its columns: text is classes, in the order of their names or of
    the `score_<class>` columns; numbers that are all 0 or 1 are two classes, others a regression. `task` and
    `classes` overrule that, for one target or by the name of each. Without a column `id`, a row is its number; without
    `split`, all rows are the part "external". Raises ColumnError for a column that is not there, LabelError for labels
    that do not fit their scores, TableError for a table that cannot be read.
    """
    if not task and not classes and (own := _described(Path(path))):
        return predictions_of(read_parquet_table(Path(path)), own)
    table = read_table(path)
    if "id" not in table.schema.names:
        table = table.append_column("id", pa.array([str(row) for row in range(table.num_rows)], pa.string()))
    if "split" not in table.schema.names:
        table = table.append_column("split", pa.array(["external"] * table.num_rows, pa.string()))
    if table["split"].null_count:
        raise TableError(
            f"{table['split'].null_count} rows of {path} have no 'split'; fill it, or leave the column out"
        )
    names = table.schema.names
    found = [each.removeprefix("target_") for each in names if each.startswith("target_")]
    several = "target" not in names and bool(found)
    if not several and "target" not in names:
        raise ColumnError(f"{path} has no column 'target'; {did_you_mean('target', names)}")
    asked = found if several else ["target"]
    tasks: dict[str, Any] = dict(task) if isinstance(task, Mapping) else dict.fromkeys(asked, task)
    orders: dict[str, Any] = dict(classes) if isinstance(classes, Mapping) else dict.fromkeys(asked, classes)
    for each in [*tasks, *orders]:
        if each not in asked:
            raise SettingError(f"task and classes name a target {each!r}; {did_you_mean(each, asked)}")
    targets = [_inferred(table, each, asked, several, tasks.get(each), orders.get(each)) for each in asked]
    return predictions_of(table, targets)


def _described(path: Path) -> list[TargetColumns]:
    """Return the targets that a table of cinefeed's own names in its schema, or none."""
    try:
        with path.open("rb") as file:
            if file.read(4) != b"PAR1":
                return []
        schema = pq.read_schema(path)
        listed = _notes_of(schema)["targets"] if _NOTES in (schema.metadata or {}) else []
    except OSError:
        return []  # read_table says what is wrong with it
    except (pa.ArrowException, ValueError, KeyError, TypeError) as error:
        raise TableError(f"{path} does not say which targets it holds ({error}); write it again") from error
    return [target_columns(**each, several=len(listed) > 1) for each in listed]


def _inferred(
    table: pa.Table, name: str, names: list[str], several: bool, task: Task | None, classes: Sequence[str] | None
) -> TargetColumns:
    """Return the columns of one target of another program's table."""
    if task is not None and task not in get_args(Task):
        raise SettingError(f"task={task!r} is not a task; {did_you_mean(str(task), get_args(Task))}")
    target, score = (f"target_{name}", f"score_{name}") if several else ("target", "score")
    columns = table.schema.names
    # of the targets "a" and "a_b", score_a_b_c is that of the longer name
    longer = [f"score_{each}_" for each in names if several and each.startswith(f"{name}_")]
    own = [each for each in columns if each.startswith(f"{score}_") and not each.startswith(tuple(longer))]
    own = [each for each in own if not several or each.removeprefix("score_") not in names]
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
                f"{target!r} has {len(order)} classes ({', '.join(order[:8])}) and one column {score!r}, which is the "
                f"probability of the second of two: name both with classes=, or give a column {score}_<class> for each"
            )
        return TargetColumns(name=name, task="binary", classes=order, target=target, scores=(score,))
    if not own or task == "regression":
        raise ColumnError(f"there is no column {score!r} for {target!r}; {did_you_mean(score, columns)}")
    order = tuple(classes) if classes is not None else tuple(each.removeprefix(f"{score}_") for each in own)
    wanted = tuple(f"{score}_{each}" for each in order)
    for each in [*wanted, *(f"{score}_{label}" for label in class_labels)]:
        if each not in wanted or each not in columns:
            raise ColumnError(f"there is no column {each!r} for {target!r}; {did_you_mean(each, own)}")
    if len(order) == 2:
        return TargetColumns(name=name, task="binary", classes=order, target=target, scores=wanted[1:])
    return TargetColumns(name=name, task="multiclass", classes=order, target=target, scores=wanted)


def _width(columns: TargetColumns) -> tuple[int, ...]:
    return (len(columns.scores),) if len(columns.scores) > 1 else ()


def _numbers(column: Any, name: str) -> NDArray[np.float64]:
    """Return a column as float64, NaN where a value is missing."""
    try:
        return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(), np.float64)
    except (pa.ArrowException, ValueError) as error:
        raise LabelError(f"the column {name!r} is {column.type}, and must hold numbers ({error})") from error


def _score(table: pa.Table, name: str, probability: bool) -> NDArray[np.float64]:
    """Return a column of scores, refusing those that cannot be measured."""
    values = _numbers(table[name], name)
    _refuse(
        table,
        ~np.isfinite(values),
        f"no finite score in {name!r}",
        "a model that diverged puts such scores out: lower the learning rate, or normalise its input",
    )
    if probability:
        outside = (values < 0) | (values > 1)
        _refuse(
            table,
            outside,
            f"a score in {name!r} that is no probability",
            "classes need scores from 0 to 1; for numbers write task='regression'",
        )
    return values


def _refuse(table: pa.Table, faulty: NDArray[np.bool_], what: str, advice: str) -> None:
    if faulty.any():
        rows = np.flatnonzero(faulty)
        raise LabelError(f"{len(rows)} of {len(faulty)} rows have {what} ({_where(table, rows)}); {advice}")


def _where(table: pa.Table, rows: NDArray[np.int64]) -> str:
    """Return the ids of the first few rows."""
    return ", ".join(str(table["id"][int(row)].as_py()) for row in rows[:3]) + " ..." * (len(rows) > 3)
