"""The same metrics for every value of a column: sex, site, device, the quarters of age.

A model may be good on average and bad for some. The units of a subgroup are made of its rows alone, so that a patient
with videos of two devices is in both, each time by the videos of that device. Small groups have wide intervals, or
none; that two intervals overlap does not say that two groups do not differ.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cinefeed.errors import ColumnError, did_you_mean
from cinefeed.metrics.estimates import Resampling, estimates
from cinefeed.metrics.predictions import Predictions, TargetColumns
from cinefeed.metrics.units import units_of

_MOST_VALUES = 8  # numbers of more values than this are put into quarters
_MOST_GROUPS = 20  # beyond, the rest is one group: a table of hundreds says nothing


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
    """Return value, units, clusters and metrics of each subgroup by a column, in the order of the values.

    Raises ColumnError where there is no such column, and what `units_of` raises.
    """
    if by not in predictions.table.schema.names:
        raise ColumnError(
            f"there is no column {by!r} for subgroups; {did_you_mean(by, predictions.table.schema.names)}"
        )
    names, numbers = group_rows(predictions.table[by])
    found = []
    for k, name in enumerate(names):
        rows = replace(predictions, table=predictions.table.filter(pa.array(numbers == k)))
        units = units_of(rows, target, unit=unit, cluster=cluster)
        metrics = estimates(units, classes=target.classes, threshold=threshold, resampling=resampling)["metrics"]
        found.append({"value": name, "units": len(units.names), "clusters": units.num_clusters, "metrics": metrics})
    return found


def group_rows(column: Any) -> tuple[list[str | None], NDArray[np.int64]]:
    """Return the names of a column's groups, and the number of each row's; rows without a value are the group None.

    Numbers of more than eight values are put into quarters of equally many rows; of more than twenty texts, the
    rarest are one group.

    >>> names, numbers = group_rows(pa.array(["f", "m", None, "f"]))
    >>> names, numbers.tolist()
    (['f', 'm', None], [0, 1, 2, 0])
    """
    known = ~np.asarray(pc.is_null(column, nan_is_null=True))
    kind = column.type
    distinct = pc.unique(column.filter(pa.array(known)))
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    numbers = np.full(len(known), -1, np.int64)
    if numeric and len(distinct) > _MOST_VALUES:
        values = np.asarray(column.filter(pa.array(known)).cast(pa.float64(), safe=False))
        edges = np.unique(np.quantile(values, [0.25, 0.5, 0.75]))
        numbers[known] = np.searchsorted(edges, values, side="left")
        used = np.unique(numbers[known])
        spans = [values[numbers[known] == k] for k in used]
        names: list[str | None] = [f"{_said(each.min(), 4)} to {_said(each.max(), 4)}" for each in spans]
        numbers[known] = np.searchsorted(used, numbers[known])
    else:
        order = sorted(distinct.to_pylist())
        names = [_said(each, 6) if isinstance(each, float) else str(each) for each in order]
        places = {value: k for k, value in enumerate(order)}
        numbers[known] = [places[each] for each in column.filter(pa.array(known)).to_pylist()]
        if len(names) > _MOST_GROUPS:
            names, numbers = _rest(names, numbers)
    if not known.all():
        numbers[~known] = len(names)
        names = [*names, None]
    return names, numbers


def _said(value: float, digits: int) -> str:
    """Return a number of so many digits, or more where it has more before the point: dates and ids stay whole.

    >>> _said(36.55555, 4), _said(20150131, 4)
    ('36.56', '20150131')
    """
    return f"{value:.0f}" if 10 ** (digits - 1) <= abs(value) < 1e15 else f"{value:.{digits}g}"


def _rest(names: list[str | None], numbers: NDArray[np.int64]) -> tuple[list[str | None], NDArray[np.int64]]:
    """Keep the most frequent groups, and make the others one."""
    counts = np.bincount(numbers[numbers >= 0], minlength=len(names))
    kept = np.sort(np.argsort(-counts, kind="stable")[: _MOST_GROUPS - 1])
    places = np.full(len(names) + 1, len(kept))  # the last is that of rows without a value, -1
    places[kept] = np.arange(len(kept))
    places[-1] = -1
    return [*(names[k] for k in kept), f"{len(names) - len(kept)} others"], places[numbers]
