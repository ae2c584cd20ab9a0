"""Covariates: columns of numbers or categories beside the video, on the scale of the training part."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cinefeed.core.arguments import check_arguments
from cinefeed.core.errors import ColumnError, LabelError, SettingError
from cinefeed.data.label_types import is_number, why_no_label
from cinefeed.data.manifest.columns import column_hint


@check_arguments()
@dataclass(frozen=True, kw_only=True)
class Covariate:
    """A column as a model input: a number, (value - mean) / scale, or one of `categories`, one-hot encoded.

    A missing number becomes 0, the mean; a missing category, or one that the training part lacks, all zeros.
    """

    name: str
    mean: float = 0.0
    scale: float = 1.0
    categories: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """The number of values of a sample."""
        return len(self.categories) or 1


def fit_covariates(table: Any, names: Sequence[str]) -> tuple[Covariate, ...]:
    """Return the covariates of columns of a training part, with their means and scales or their categories.

    Raises ColumnError for a missing column, LabelError for an empty one and one of dates, times or lists.

    >>> fit_covariates(pa.table({"sex": ["f", "m", "f"], "age": [30, 50, None]}), ["age", "sex"])
    (Covariate(name='age', mean=40.0, scale=10.0, categories=()), \
Covariate(name='sex', mean=0.0, scale=1.0, categories=('f', 'm')))
    """
    resolved = []
    for name in names:
        if name not in table.schema.names:
            raise ColumnError(f"covariates: there is no column {name!r}; {column_hint(name, table.schema.names)}")
        column = table.column(name).drop_null()
        if why_no_label(column.type):
            raise LabelError(
                f"covariate {name!r} holds {column.type}, and a covariate is one number or category a row: make a "
                "column of these, such as the days since a first date"
            )
        if len(column) == 0:
            raise LabelError(f"covariate {name!r} has no value in any row; leave it out")
        if is_number(column.type):
            values = column.to_numpy().astype(np.float64)
            resolved.append(Covariate(name=name, mean=float(values.mean()), scale=float(values.std()) or 1.0))
        else:
            categories = sorted(pc.unique(column.cast(pa.string())).to_pylist())
            resolved.append(Covariate(name=name, categories=tuple(categories)))
    return tuple(resolved)


def resolve_covariates(
    table: Any, covariates: Sequence[str | Covariate], *, inputs: Sequence[str]
) -> tuple[Covariate, ...]:
    """Return the covariates; those that are only named get their scale or categories from the table.

    `inputs` are the names of the other inputs of the model. Raises SettingError for a covariate of the same name.
    """
    fitted = {each.name: each for each in fit_covariates(table, [each for each in covariates if isinstance(each, str)])}
    resolved = tuple(fitted[each] if isinstance(each, str) else each for each in covariates)
    for each in resolved:
        if each.name in inputs:
            raise SettingError(f"a covariate cannot be called {each.name!r}, as that input is; rename the column")
    return resolved


def read_covariates(table: Any, covariates: Sequence[Covariate]) -> dict[str, NDArray[np.float32]]:
    """Return each covariate of every row, float32 (rows, size), by name.

    >>> sex = Covariate(name="sex", categories=("f", "m"))
    >>> read_covariates(pa.table({"sex": ["m", None]}), [sex])["sex"].tolist()
    [[0.0, 1.0], [0.0, 0.0]]
    """
    values = {}
    for each in covariates:
        if each.name not in table.schema.names:
            raise ColumnError(f"covariates: there is no column {each.name!r}; the training part has it")
        column = table.column(each.name).combine_chunks()
        if each.categories:
            numbers = pc.index_in(column.cast(pa.string()), value_set=pa.array(each.categories, pa.string()))
            places = pc.fill_null(numbers, len(each.categories)).to_numpy()
            values[each.name] = np.eye(len(each.categories) + 1, len(each.categories), dtype=np.float32)[places]
        else:
            if not is_number(column.type):
                raise LabelError(f"covariate {each.name!r} is {column.type} here, and a number in the training part")
            numbers = pc.fill_null(column.cast(pa.float64(), safe=False), each.mean).to_numpy(zero_copy_only=False)
            values[each.name] = ((numbers - each.mean) / each.scale).astype(np.float32)[:, None]
    return values


def read_weights(table: Any, name: str) -> NDArray[np.float32]:
    """Return a column of sample weights, float32 (rows,). Raises LabelError if one is missing or negative."""
    if name not in table.schema.names:
        raise ColumnError(f"weight={name!r}: there is no such column; {column_hint(name, table.schema.names)}")
    column = table.column(name).combine_chunks()
    if not is_number(column.type):
        raise LabelError(f"weight={name!r} is a column of {column.type}, numbers are needed")
    weights = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if len(wrong):
        raise LabelError(
            f"{len(wrong)} of {len(weights)} weights in {name!r} {'is' if len(wrong) == 1 else 'are'} missing, "
            f"negative or infinite (first: row {wrong[0]}, {column[int(wrong[0])]}); a row that should not count "
            "has weight 0"
        )
    return np.asarray(weights, np.float32)


def row_weights(
    table: Any, *, weight: str | None, of_labels: NDArray[np.float32] | None, labelled: bool
) -> NDArray[np.float32]:
    """Return the weight of each row in a loss: its weight in a column times that of its label; 0 without labels."""
    weights = np.full(table.num_rows, labelled, np.float32) if weight is None else read_weights(table, weight)
    return weights if of_labels is None else weights * of_labels
