"""Nearest-neighbour sampling of masks, with the same moves as the clip's frames, so that labels are never mixed.

Only geometric transforms apply to a mask. All moves of a clip, including those after an intensity transform, become
one look-up of pixels, computed once for all frames.
"""

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.errors import SourceError
from cinefeed.transforms.base import Parameters
from cinefeed.transforms.compose import Compose
from cinefeed.transforms.field import map_points, pixel_centres
from cinefeed.transforms.fit import display_matrix
from cinefeed.transforms.fuse import group_steps, select_parts, undo_moves
from cinefeed.transforms.resample import invert
from cinefeed.video.orientation import shown_size
from cinefeed.video.planes import Planes

_TOLERANCE = 1e-6  # pixels, as in kernels.blend: rounding of matrices must not cut off an edge


def render_masks(
    compose: Compose,
    planes: Planes,
    out: NDArray[np.uint8],
    parameters: list[Parameters],
    *,
    spacing_mm: tuple[float, float] | None = None,
) -> None:
    """Write the masks of a clip into `out`, (frames, height, width, 1), moved as its frames by `compose.render`.

    `planes` hold one plane of labels per frame, uint8 (height, width). Pixels outside the mask become 0. A target pixel
    takes the label of the pixel that contains its centre, so that whole-pixel moves, flips and quarter turns are exact.
    `spacing_mm` is the pixel size of the displayed video, (down, across). Raises SourceError if the masks of the frames
    differ in size.

    >>> from cinefeed.video.clips import Frame
    >>> from cinefeed.video.color import Colour
    >>> from cinefeed.transforms.geometry import Rotate
    >>> compose, out = Compose([Rotate(degrees=90)], frame=Frame(height=2, width=2)), np.empty((1, 2, 2, 1), np.uint8)
    >>> labels = Planes([(np.array([[1, 2], [3, 4]], np.uint8),)], Colour(model="grey"))
    >>> render_masks(compose, labels, out, [{"degrees": 90.0}])
    >>> out[0, ..., 0].tolist()
    [[2, 4], [1, 3]]
    """
    if not planes.frames:
        return
    frame, stored_size = compose.frame, planes.frames[0][0].shape
    points = pixel_centres(frame.height, frame.width)
    visible = np.ones(points.shape[1:], np.bool_)
    for number, step in reversed([*enumerate(group_steps(select_parts(compose.transforms, parameters)))]):
        if step.kind == "geometry":
            points = undo_moves(step.parts, points, height=frame.height, width=frame.width)
            if number:  # these moves applied to target pixels, cut at the edge; the first moves are fused with the fit
                visible &= _inside(points, frame.height, frame.width)
                points = np.asarray(_pixels(points, frame.height, frame.width) + 0.5, np.float64)
    display_size = shown_size(*stored_size, aspect=planes.colour.aspect, rotation=planes.colour.rotation)
    fit = frame.matrix(*display_size, spacing_mm=spacing_mm) @ display_matrix(
        planes.colour, height=stored_size[0], width=stored_size[1]
    )
    points = map_points(points, invert(fit))
    visible &= _inside(points, *stored_size)
    across, down = _pixels(points, *stored_size)
    cells = down * stored_size[1] + across
    for (labels,), target in zip(planes.frames, out, strict=True):
        if labels.shape != stored_size:
            raise SourceError(
                f"the frames of a mask differ in size: {stored_size} and {labels.shape}, (height, width); "
                "write them in one size"
            )
        target[..., 0] = np.where(visible, labels.reshape(-1)[cells], 0)


def _pixels(points: NDArray[np.float64], height: int, width: int) -> NDArray[np.intp]:
    """Return the pixels that contain points, across and down; edge pixels for points outside the frame."""
    last = np.array([width - 1, height - 1]).reshape(2, 1, 1)
    return np.asarray(np.floor((points + _TOLERANCE).clip(0, last)), np.intp)


def _inside(points: NDArray[np.float64], height: int, width: int) -> NDArray[np.bool_]:
    """Return which points lie in a frame, including its edges."""
    x, y = points
    within = (x >= -_TOLERANCE) & (x <= width + _TOLERANCE) & (y >= -_TOLERANCE) & (y <= height + _TOLERANCE)
    return np.asarray(within)
