"""The masks of a row: a second video beside the first, as long and as large, whose pixels are labels from 0 to 255."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cinefeed.errors import CinefeedError, ColumnError, SettingError, SourceError, TableError, did_you_mean
from cinefeed.feed.decode import decode_once
from cinefeed.manifest.rows import Rows
from cinefeed.manifest.table import Manifest
from cinefeed.sources.base import Colour, Facts, Planes, Region, cropped
from cinefeed.sources.colour import to_pixels


def find_masks(manifest: Manifest, column: str | None) -> Rows | None:
    """Return where the mask of each row is, by a column of paths; None where no column is named.

    Raises ColumnError for a column that is not there or holds no paths, TableError where a row has none, SettingError
    where rows hold several videos.
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
        raise ColumnError(f"mask={column!r}: there is no such column; {did_you_mean(column, table.schema.names)}")
    paths = table.column(column)
    if not (pa.types.is_string(paths.type) or pa.types.is_large_string(paths.type)):
        raise ColumnError(f"mask={column!r} is a column of {paths.type}, paths of mask videos are needed")
    lacking = np.flatnonzero(np.asarray(pc.equal(pc.fill_null(paths, ""), "")))
    if len(lacking):
        first = ", ".join(f"row {row}, {manifest.rows.shown(row)}" for row in lacking[:3])
        raise TableError(
            f"{len(lacking)} of {len(paths)} rows have no mask in {column!r}: {first}{' ...' * (len(lacking) > 3)}; "
            f"leave them out with manifest.known({column!r})"
        )
    return mask_rows(table.column("id"), paths, root=str(manifest.root), private=manifest.private)


def mask_rows(ids: Any, paths: Any, *, root: str, private: bool) -> Rows:
    """Return rows whose videos are masks. Nothing is known of the files: each is looked at when it is opened."""
    return Rows(pa.table({"id": ids, "path": paths}), root=root, private=private)


def read_masks(
    rows: Rows, row: int, clips: Sequence[NDArray[np.int64]], *, video: Facts, region: Region | None
) -> list[Planes]:
    """Return the labels of several clips' frames, uint8 planes as stored, and only of a region where one is named.

    Raises SourceError where the mask is not as long and, as shown, as large as the video, or holds no labels.
    """
    try:
        with rows.open(row, channels=1) as source:
            theirs, ours = (
                f"{each.times.count} frames of {each.height} x {each.width}" for each in (source.facts, video)
            )
            if theirs != ours:
                raise SourceError(f"it has {theirs}, the video {ours}; make one mask for each frame, of its size")
            planes = decode_once(source, clips)
            return [as_labels(each if region is None else cropped(each, region)) for each in planes]
    except CinefeedError as error:
        error.args = (f"its mask {rows.shown(row)}: {rows.nameless(str(error), row)}",)
        raise


def as_labels(planes: Planes) -> Planes:
    """Return planes as labels, uint8 (height, width): numbers as stored, whatever window the file names.

    Of video in limited range, as most files of a video encoder are, 16 is 0 and 235 is 255. Raises SourceError for
    colours, fractions and numbers beyond 0 to 255.

    >>> as_labels(Planes([(np.array([[0, 3]], np.uint16),)], Colour(model="grey", bits=16))).frames[0][0].tolist()
    [[0, 3]]
    """
    colour = planes.colour
    made: dict[int, tuple[NDArray[np.uint8]]] = {}
    frames = list(planes.frames)  # each an object that stays, to be known by
    for frame in frames:  # repeats may share memory
        if id(frame) not in made:
            made[id(frame)] = (_labels(frame[0], colour),)
    plain = replace(colour, model="grey", bits=8, full_range=True, window=None)
    return Planes([made[id(frame)] for frame in frames], plain)


def _labels(plane: NDArray[Any], colour: Colour) -> NDArray[np.uint8]:
    if plane.ndim == 3:
        if (plane != plane[..., :1]).any():
            raise SourceError("it holds colours, where one number a pixel is needed; store the labels as grey levels")
        plane = plane[..., 0]
    if not colour.full_range and colour.model != "rgb":
        expanded = np.empty((*plane.shape, 1), np.uint8)
        to_pixels([plane], replace(colour, window=None), channels=1, out=expanded)
        return expanded[..., 0]
    if plane.dtype != np.uint8:
        wrong = plane[~((plane >= 0) & (plane <= 255) & (plane == np.floor(plane)))]
        if wrong.size:
            raise SourceError(f"it holds {wrong[0]:g}, labels are whole numbers from 0 to 255")
    return np.ascontiguousarray(plane, np.uint8)
