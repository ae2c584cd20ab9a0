"""The views, masks and sampler inputs of a feed, read from a manifest and checked before a file is opened."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cinefeed.core.errors import ColumnError, SettingError, TableError, did_you_mean
from cinefeed.core.text import count_having
from cinefeed.data.manifest.columns import column_hint
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.manifest.rows import Rows
from cinefeed.data.sampling import Sampler
from cinefeed.feed.mask import mask_rows
from cinefeed.transforms.base import Transform
from cinefeed.transforms.call import calls_of


def check_callables(transforms: Sequence[Transform], *, masks: bool) -> None:
    """Raise SettingError for a callable that may move pixels, if there are masks: they would have to move too."""
    for each in calls_of(transforms) if masks else ():
        if not each.keeps_place:
            raise SettingError(
                f"{each!r} is a callable, which masks cannot follow; if it moves no pixel say so with "
                "cinefeed.transforms.Call(function=..., keeps_place=True), else take a transform of cinefeed's"
            )


def draws_globally(transforms: Sequence[Transform]) -> str:
    """Return why threads cannot make the clips, "" if they can."""
    named = [repr(each) for each in calls_of(transforms) if each.is_random and each.draws == "global"]
    if not named:
        return ""
    return f"{', '.join(named)} draws from global random generators, which threads share with the rest of the program"


def choose_views(available: Sequence[str], *, views: Sequence[str] | None, stack: bool, target: Any) -> tuple[str, ...]:
    """Return the views that are fed, of those `available` in each row; none if a row is one video.

    >>> choose_views(["2ch", "4ch"], views=None, stack=False, target="age")
    ('2ch', '4ch')
    """
    if not available:
        if views is not None or stack:
            raise SettingError(
                f"views={views!r} and stack={stack} are for rows of several videos, here a row is one; "
                "put them side by side with manifest.pivot(by='view', within='study')"
            )
        return ()
    selected_views = tuple(available) if views is None else (views,) if isinstance(views, str) else tuple(views)
    for view in selected_views:
        if view not in available:
            raise SettingError(
                f"views={selected_views!r}: there is no view {view!r}; {did_you_mean(str(view), available)}"
            )
    if not selected_views or len(set(selected_views)) < len(selected_views):
        raise SettingError(
            f"views={selected_views!r} must name one view or more, each once; there are: {', '.join(available)}"
        )
    if target == "clip" and not stack:
        raise SettingError(
            "target='clip' has one clip a row as its target, views are several; take inputs=Inputs(stack=True)"
        )
    return selected_views


def find_masks(manifest: Manifest, column: str | None) -> Rows | None:
    """Return the mask videos of all rows, from a column of paths; None if no column is named.

    Raises ColumnError if the column is missing or holds no paths, TableError if a row has no path, SettingError if
    rows hold several videos.
    """
    if column is None:
        return None
    table, views = manifest.table, manifest.rows.views
    if views:
        raise SettingError(
            f"mask={column!r} is for rows of one video, here a row holds {', '.join(views)}; feed one view with "
            "manifest.where(...) in place of pivot(...)"
        )
    if column not in table.schema.names:
        raise ColumnError(f"mask={column!r}: there is no such column; {column_hint(column, table.schema.names)}")
    paths = table.column(column)
    if not (pa.types.is_string(paths.type) or pa.types.is_large_string(paths.type)):
        raise ColumnError(f"mask={column!r} is a column of {paths.type}, paths of mask videos are needed")
    lacking = np.flatnonzero(np.asarray(pc.equal(pc.fill_null(paths, ""), "")))
    if len(lacking):
        first = ", ".join(f"row {row}, {manifest.rows.display_name(row)}" for row in lacking[:3])
        raise TableError(
            f"{count_having(len(lacking), len(paths), 'row')} no mask in {column!r}: {first}"
            f"{' ...' * (len(lacking) > 3)}; leave them out with manifest.drop_missing({column!r})"
        )
    return mask_rows(table.column("id"), paths, root=str(manifest.root), private=manifest.private)


def sampler_groups(manifest: Manifest, sampler: Sampler) -> dict[str, NDArray[Any]]:
    """Return the keyword arguments of a sampler beside the labels: the groups, if it names their column."""
    column = getattr(sampler, "group", None)
    return {} if column is None else {"groups": np.array(manifest.column(column).to_pylist(), dtype=object)}


def sampler_weights(sampler: Sampler, labels: NDArray[Any], **groups: NDArray[Any]) -> NDArray[np.float32] | None:
    """Return the sample weight of each row, float32 (rows,), if the sampler weighs rows, else None.

    A custom sampler needs no method `sample_weights`.
    """
    weigh = getattr(sampler, "sample_weights", None)
    return None if weigh is None else weigh(labels, **groups)
