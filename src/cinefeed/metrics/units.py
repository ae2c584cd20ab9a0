"""Aggregation of clip scores: averages over the clips of a video, then over the videos of a unit.

Metrics are computed on one row per unit, such as the patient, and the bootstrap resamples clusters. Otherwise a patient
with twenty videos would count twenty times, and intervals that treat videos of one patient as independent would be too
narrow.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cinefeed.core.errors import ColumnError, LabelError, TableError, did_you_mean
from cinefeed.core.text import count_having
from cinefeed.metrics.predictions import Predictions, TargetColumns


@dataclass(frozen=True, kw_only=True)
class Units:
    """The units of one target: names in sorted order, targets, scores, and cluster numbers."""

    names: tuple[str, ...]
    targets: NDArray[Any]  # float64, or class numbers
    scores: NDArray[np.float64]  # (units,), or (units, classes) for more than two classes
    clusters: NDArray[np.int64]
    clips: int
    videos: int
    missing: int  # number of excluded videos, which have no label

    @property
    def num_clusters(self) -> int:
        """The number of clusters."""
        return len(np.unique(self.clusters))


def cluster_of(table: pa.Table, *, unit: str | None, group: str | None) -> str | None:
    """Return the column to resample: `group`, or None if a unit contains several groups.

    >>> table = pa.table({"id": ["a", "b"], "patient": ["p1", "p2"], "site": ["x", "x"]})
    >>> cluster_of(table, unit=None, group="patient"), cluster_of(table, unit="site", group="patient")
    ('patient', None)
    """
    if group is None or unit is None:
        return group
    counts = pa.table({"unit": table[unit], "group": table[group]}).group_by("unit")
    groups_per_unit = counts.aggregate([("group", "count_distinct")])["group_count_distinct"]
    return None if bool(pc.any(pc.greater(groups_per_unit, 1)).as_py()) else group


def units_of(
    predictions: Predictions, target: str | TargetColumns, *, unit: str | None = None, cluster: str | None = None
) -> Units:
    """Return the units of one target: one per video, or one per value of the column `unit`.

    Scores are averaged over the clips of a video (rows with one id), then over the videos of a unit with equal weights.
    Rows without a label are excluded. `cluster` is the column of clusters, such as the patient; without it, each unit
    is a cluster.

    Raises LabelError if a unit has two labels; TableError if a video has two units, a unit has two clusters, or a row
    has no unit or cluster; ColumnError for a missing column.
    """
    columns = predictions.target(target) if isinstance(target, str) else target
    has_label = predictions.labelled(columns)
    all_ids = _texts(predictions.table, "id")
    rows = predictions.table.filter(pa.array(has_label))
    targets, scores = predictions.arrays(columns)
    ids = all_ids[has_label]
    missing = len(set(all_ids.tolist()) - set(ids.tolist()))
    videos, video_of_row = np.unique(ids, return_inverse=True)
    video_targets = _group_values(targets, video_of_row, videos, f"the video's clips differ in {columns.target!r}")
    video_scores = _group_means(scores, video_of_row, len(videos))
    if unit is None:
        names, unit_of_video = videos, np.arange(len(videos))
        unit_targets, unit_scores = video_targets, video_scores
    else:
        problem = f"the video has two values of {unit!r}"
        video_units = _group_values(_texts(rows, unit), video_of_row, videos, problem, error=TableError)
        names, unit_of_video = np.unique(video_units, return_inverse=True)
        problem = f"its videos differ in {columns.target!r}; use a smaller unit than {unit!r}, or correct the labels"
        unit_targets = _group_values(video_targets, unit_of_video, names, problem)
        unit_scores = _group_means(video_scores, unit_of_video, len(names))
    clusters = np.arange(len(names))
    if cluster is not None and cluster != unit:
        problem = f"the unit has two values of {cluster!r}"
        unit_clusters = _group_values(_texts(rows, cluster), unit_of_video[video_of_row], names, problem, TableError)
        clusters = np.unique(unit_clusters, return_inverse=True)[1]
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
    """Return a column as text. Raises ColumnError for a missing column, TableError for a missing value."""
    if name not in table.schema.names:
        raise ColumnError(f"the predictions have no column {name!r}; {did_you_mean(name, table.schema.names)}")
    column = table[name]
    if column.null_count:
        row = next(i for i, value in enumerate(column) if not value.is_valid)
        raise TableError(
            f"{count_having(column.null_count, len(column), 'row')} no {name!r} (the first is "
            f"{table['id'][row].as_py()}); fill it in the manifest, or leave those rows out"
        )
    return np.array(column.cast(pa.string()).to_pylist(), np.str_)


def _group_values(
    values: NDArray[Any], groups: NDArray[Any], names: NDArray[Any], problem: str, error: type[Exception] = LabelError
) -> NDArray[Any]:
    """Return the common value of each group; raises `error` if a group has two values."""
    first = np.full(len(names), len(values))
    np.minimum.at(first, groups, np.arange(len(values)))
    group_values = values[first] if len(names) else values[:0]
    differing = np.flatnonzero(values != group_values[groups]) if len(names) else np.zeros(0, int)
    if len(differing):
        group = groups[differing[0]]
        count = len(np.unique(groups[differing]))
        more = f", and {count - 1} more" if count > 1 else ""
        raise error(f"{names[group]}: {problem} ({group_values[group]} and {values[differing[0]]}){more}")
    return group_values


def _group_means(scores: NDArray[np.float64], groups: NDArray[Any], count: int) -> NDArray[np.float64]:
    """Return the mean score of each group; scores are (rows,) or (rows, classes)."""
    sums = np.zeros((count, *scores.shape[1:]))
    np.add.at(sums, groups, scores)
    sizes = np.bincount(groups, minlength=count).astype(np.float64)
    return np.asarray(sums / sizes.reshape(-1, *[1] * (scores.ndim - 1)))
