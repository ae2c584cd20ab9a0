"""Metrics of subgroups: one per value of a column, such as sex, site, device or the quartiles of age.

A model may be good on average and bad for some subgroups. The units of a subgroup contain its rows only: a patient with
videos of two devices is in both subgroups, each time with the videos of that device. Small subgroups have wide
intervals or none. Overlapping intervals do not imply that two subgroups are equal.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cinefeed.core.errors import ColumnError, did_you_mean
from cinefeed.data.label_types import is_number
from cinefeed.metrics.estimates import Resampling, estimates
from cinefeed.metrics.predictions import Predictions, TargetColumns
from cinefeed.metrics.units import units_of

_MAX_VALUES = 8  # numeric columns with more distinct values are grouped by quartile
_MAX_GROUPS = 20  # the rarest values beyond are merged into one group: hundreds of rows are not readable


def subgroup_metrics(
    predictions: Predictions,
    target: TargetColumns,
    *,
    by: str,
    unit: str | None = None,
    cluster: str | None = None,
    threshold: float = 0.5,
    resampling: Resampling,
) -> list[dict[str, Any]]:
    """Return value, units, clusters and metrics of each subgroup, in the order of the values.

    Args:
        predictions: The table of predictions.
        target: The target to assess.
        by: The column whose values define the subgroups.
        unit: The column that identifies the units; None for videos.
        cluster: The column that identifies the clusters; None for units.
        threshold: The decision threshold for two classes.
        resampling: Settings of the intervals.

    Raises ColumnError for a missing column, and the errors of `units_of`.
    """
    if by not in predictions.table.schema.names:
        raise ColumnError(
            f"there is no column {by!r} for subgroups; {did_you_mean(by, predictions.table.schema.names)}"
        )
    names, numbers = group_rows(predictions.table[by])
    subgroups = []
    for k, name in enumerate(names):
        rows = replace(predictions, table=predictions.table.filter(pa.array(numbers == k)))
        units = units_of(rows, target, unit=unit, cluster=cluster)
        metrics = estimates(units, classes=target.classes, threshold=threshold, resampling=resampling)["metrics"]
        subgroups.append({"value": name, "units": len(units.names), "clusters": units.num_clusters, "metrics": metrics})
    return subgroups


def group_rows(column: Any) -> tuple[list[str | None], NDArray[np.int64]]:
    """Return the group names of a column and the group number of each row, int64 (rows,).

    A numeric column with more than eight values is grouped by quartile. If there are more than twenty groups otherwise,
    the rarest are merged into one. Rows without a value form the group None.

    >>> names, numbers = group_rows(pa.array(["f", "m", None, "f"]))
    >>> names, numbers.tolist()
    (['f', 'm', None], [0, 1, 2, 0])
    """
    has_value = ~np.asarray(pc.is_null(column, nan_is_null=True))
    present = column.filter(pa.array(has_value))
    distinct = pc.unique(present)
    numbers = np.full(len(has_value), -1, np.int64)
    if is_number(column.type) and len(distinct) > _MAX_VALUES:
        values = np.asarray(present.cast(pa.float64(), safe=False))
        edges = np.unique(np.quantile(values, [0.25, 0.5, 0.75]))
        quartiles = np.searchsorted(edges, values, side="left")
        nonempty, numbers[has_value] = np.unique(quartiles, return_inverse=True)
        ranges = [values[quartiles == k] for k in nonempty]
        names: list[str | None] = [f"{_format(each.min(), 4)} to {_format(each.max(), 4)}" for each in ranges]
    else:
        order = sorted(distinct.to_pylist())
        names = [_format(value, 6) if isinstance(value, float) else str(value) for value in order]
        number_of = {value: k for k, value in enumerate(order)}
        numbers[has_value] = [number_of[value] for value in present.to_pylist()]
        if len(names) > _MAX_GROUPS:
            names, numbers = _merge_rarest(names, numbers)
    if not has_value.all():
        numbers[~has_value] = len(names)
        names = [*names, None]
    return names, numbers


def _format(value: float, digits: int) -> str:
    """Return a number with `digits` significant digits, but never without digits before the point (dates, ids).

    >>> _format(36.55555, 4), _format(20150131, 4)
    ('36.56', '20150131')
    """
    return f"{value:.0f}" if 10 ** (digits - 1) <= abs(value) < 1e15 else f"{value:.{digits}g}"


def _merge_rarest(names: list[str | None], numbers: NDArray[np.int64]) -> tuple[list[str | None], NDArray[np.int64]]:
    """Keep the most frequent groups and merge the others into one."""
    counts = np.bincount(numbers[numbers >= 0], minlength=len(names))
    frequent = np.sort(np.argsort(-counts, kind="stable")[: _MAX_GROUPS - 1])
    new_numbers = np.full(len(names) + 1, len(frequent))
    new_numbers[frequent] = np.arange(len(frequent))
    new_numbers[-1] = -1  # rows without a value
    return [*(names[k] for k in frequent), f"{len(names) - len(frequent)} others"], new_numbers[numbers]
