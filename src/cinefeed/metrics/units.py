"""From clips to the units that are measured: the scores of a video's clips are averaged, then those of its unit.

Three clips of one video are not three patients. A patient with twenty videos would count twenty times, and intervals
that take videos of one patient for independent are too narrow; so what is measured is one row a unit, and what is
resampled is its cluster, the patient.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cinefeed.errors import ColumnError, LabelError, TableError, did_you_mean
from cinefeed.metrics.predictions import Predictions, TargetColumns


@dataclass(frozen=True, kw_only=True)
class Units:
    """The units of one target: their names in sorted order, targets, scores, and the number of each one's cluster."""

    names: tuple[str, ...]
    targets: NDArray[Any]  # float64, or class numbers
    scores: NDArray[np.float64]  # (units,), or (units, classes) of more than two classes
    clusters: NDArray[np.int64]
    clips: int
    videos: int
    missing: int  # videos without a label, left out

    @property
    def num_clusters(self) -> int:
        """How many clusters there are."""
        return len(np.unique(self.clusters))


def cluster_of(table: pa.Table, *, unit: str | None, group: str | None) -> str | None:
    """Return the column that a bootstrap resamples: the patient, or None where a unit holds several of them.

    >>> table = pa.table({"id": ["a", "b"], "patient": ["p1", "p2"], "site": ["x", "x"]})
    >>> cluster_of(table, unit=None, group="patient"), cluster_of(table, unit="site", group="patient")
    ('patient', None)
    """
    if group is None or unit is None:
        return group
    counts = pa.table({"unit": table[unit], "group": table[group]}).group_by("unit")
    several = counts.aggregate([("group", "count_distinct")])["group_count_distinct"]
    return None if bool(pc.any(pc.greater(several, 1)).as_py()) else group


def units_of(
    predictions: Predictions, target: str | TargetColumns, *, unit: str | None = None, cluster: str | None = None
) -> Units:
    """Return the units of one target: a video each, or one for each value of the column `unit`.

    Clips of a video (rows of one id) are averaged first, then the videos of a unit, each counting alike; rows without
    a label are left out. `cluster` is the column that tells which units belong together, such as the patient; without
    it, each unit stands alone. Raises LabelError where a unit has two labels, TableError where a video has two units,
    a unit two clusters, or one of them none, ColumnError for a column that is not there.
    """
    columns = predictions.target(target) if isinstance(target, str) else target
    known = predictions.labelled(columns)
    everyone = _texts(predictions.table, "id")
    rows = predictions.table.filter(pa.array(known))
    targets, scores = predictions.arrays(columns)
    ids = everyone[known]
    missing = len(set(everyone.tolist()) - set(ids.tolist()))
    videos, of_video = np.unique(ids, return_inverse=True)
    video_targets = _alike(targets, of_video, videos, f"the video's clips differ in {columns.target!r}")
    video_scores = _means(scores, of_video, len(videos))
    if unit is None:
        names, of_unit = videos, np.arange(len(videos))
        unit_targets, unit_scores = video_targets, video_scores
    else:
        own = _alike(_texts(rows, unit), of_video, videos, f"a video has two values of {unit!r}", error=TableError)
        names, of_unit = np.unique(own, return_inverse=True)
        why = f"its videos differ in {columns.target!r}; take a smaller unit than {unit!r}, or mend the labels"
        unit_targets = _alike(video_targets, of_unit, names, why)
        unit_scores = _means(video_scores, of_unit, len(names))
    clusters = np.arange(len(names))
    if cluster is not None and cluster != unit:
        found = _alike(_texts(rows, cluster), of_unit[of_video], names, f"it has two values of {cluster!r}", TableError)
        clusters = np.unique(found, return_inverse=True)[1]
    return Units(
        names=tuple(names.tolist()),
        targets=unit_targets,
        scores=unit_scores,
        clusters=clusters.astype(np.int64),
        clips=len(ids),
        videos=len(videos),
        missing=missing,
    )


def _texts(table: pa.Table, name: str) -> NDArray[np.str_]:
    """Return a column as text; raises where it is not there or a row has none."""
    if name not in table.schema.names:
        raise ColumnError(f"the predictions have no column {name!r}; {did_you_mean(name, table.schema.names)}")
    column = table[name]
    if column.null_count:
        row = next(i for i, each in enumerate(column) if not each.is_valid)
        raise TableError(
            f"{column.null_count} of {len(column)} rows have no {name!r} (the first is {table['id'][row].as_py()}); "
            "fill it in the manifest, or leave those rows out"
        )
    return np.array(column.cast(pa.string()).to_pylist(), np.str_)


def _alike(
    values: NDArray[Any], groups: NDArray[Any], names: NDArray[Any], why: str, error: type[Exception] = LabelError
) -> NDArray[Any]:
    """Return the one value of each group; raises where a group has two."""
    first = np.full(len(names), len(values))
    np.minimum.at(first, groups, np.arange(len(values)))
    chosen = values[first] if len(names) else values[:0]
    other = np.flatnonzero(values != chosen[groups]) if len(names) else np.zeros(0, int)
    if len(other):
        group = groups[other[0]]
        bad = len(np.unique(groups[other]))
        more = f", and {bad - 1} more alike" if bad > 1 else ""
        raise error(f"{names[group]}: {why} ({chosen[group]} and {values[other[0]]}){more}")
    return chosen


def _means(scores: NDArray[np.float64], groups: NDArray[Any], count: int) -> NDArray[np.float64]:
    """Return the mean score of each group, of (rows,) or (rows, classes)."""
    sums = np.zeros((count, *scores.shape[1:]))
    np.add.at(sums, groups, scores)
    sizes = np.bincount(groups, minlength=count).astype(np.float64)
    return np.asarray(sums / sizes.reshape(-1, *[1] * (scores.ndim - 1)))
