"""Read mask videos: as long and as large as the video of the row, with labels from 0 to 255 as pixels."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cinefeed.core.errors import CinefeedError, SourceError
from cinefeed.data.manifest.rows import Rows
from cinefeed.feed.decode import decode_once
from cinefeed.video.color import Colour, to_pixels
from cinefeed.video.metadata import Region, VideoMetadata
from cinefeed.video.planes import Planes
from cinefeed.video.regions import cropped


def mask_rows(ids: Any, paths: Any, *, root: str, private: bool) -> Rows:
    """Return rows whose videos are masks. There is no metadata of the files: each is probed when it is opened."""
    return Rows(pa.table({"id": ids, "path": paths}), root=root, private=private)


def read_masks(
    rows: Rows, row: int, clips: Sequence[NDArray[np.int64]], *, video: VideoMetadata, region: Region | None
) -> list[Planes]:
    """Return the labels of the frames of several clips as uint8 planes, cropped to a region if one is given.

    Raises SourceError if the mask differs from the video in length or size, or if it does not hold labels.
    """
    try:
        with rows.open(row, channels=1) as source:
            theirs, ours = (
                f"{each.times.count} frames of {each.height} x {each.width}" for each in (source.metadata, video)
            )
            if theirs != ours:
                raise SourceError(f"it has {theirs}, the video {ours}; make one mask for each frame, of its size")
            planes = decode_once(source, clips)
            return [as_labels(each if region is None else cropped(each, region)) for each in planes]
    except CinefeedError as error:
        error.args = (f"its mask {rows.display_name(row)}: {rows.nameless(str(error), row)}",)
        raise


def as_labels(planes: Planes) -> Planes:
    """Return planes as labels, uint8 (height, width): the stored numbers; the window of the file is ignored.

    In video of limited range, as most video encoders write, 16 becomes 0 and 235 becomes 255. Raises SourceError for
    colours, fractions and numbers outside 0 to 255.

    >>> as_labels(Planes([(np.array([[0, 3]], np.uint16),)], Colour(model="grey", bits=16))).frames[0][0].tolist()
    [[0, 3]]
    """
    colour = planes.colour
    labels_by_id: dict[int, tuple[NDArray[np.uint8]]] = {}
    frames = list(planes.frames)  # kept as objects, so that their ids are unique
    for frame in frames:  # repeats may share memory
        if id(frame) not in labels_by_id:
            labels_by_id[id(frame)] = (_labels(frame[0], colour),)
    plain = replace(colour, model="grey", bits=8, full_range=True, window=None, open_scale=False)
    return Planes([labels_by_id[id(frame)] for frame in frames], plain)


def _labels(plane: NDArray[Any], colour: Colour) -> NDArray[np.uint8]:
    if plane.ndim == 3:
        if (plane != plane[..., :1]).any():
            raise SourceError("it holds colours, but one number per pixel is needed; store the labels as grey levels")
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
