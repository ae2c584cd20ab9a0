"""Matrices that fit a stored frame into the target frame, and turn it upright."""

from functools import lru_cache

import numpy as np

from cinefeed.transforms.resample import Matrix, invert
from cinefeed.video.clips import Frame
from cinefeed.video.color import Colour
from cinefeed.video.orientation import shown_size, square_size

Spacing = tuple[float, float] | None  # (down, across), in millimetres


@lru_cache(maxsize=256)
def fit_matrix(frame: Frame, colour: Colour, height: int, width: int, spacing_mm: Spacing) -> Matrix:
    """Return the map from a stored frame to the target without transforms. Computed per clip: 0.1 of 1.5 ms."""
    display_size = shown_size(height, width, aspect=colour.aspect, rotation=colour.rotation)
    forward = frame.matrix(*display_size, spacing_mm=spacing_mm) @ display_matrix(colour, height=height, width=width)
    forward.flags.writeable = False
    return forward


@lru_cache(maxsize=256)
def fit_inverse(frame: Frame, colour: Colour, height: int, width: int, spacing_mm: Spacing) -> Matrix:
    """Return the inverse of `fit_matrix`."""
    inverse = invert(fit_matrix(frame, colour, height, width, spacing_mm))
    inverse.flags.writeable = False
    return inverse


def display_matrix(colour: Colour, *, height: int, width: int) -> Matrix:
    """Return the map from a stored frame to the displayed frame: mirrored, with square pixels, upright.

    >>> display_matrix(Colour(model="grey", mirrored=True, aspect=2.0), height=2, width=3).tolist()
    [[-2.0, 0.0, 6.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    rows, columns = square_size(height, width, aspect=colour.aspect)
    square = np.diag([columns / width, rows / height, 1.0])
    if colour.mirrored:
        square = square @ np.array([[-1.0, 0.0, width], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    return quarter_turns(colour.rotation, height=rows, width=columns) @ square


def quarter_turns(rotation: int, *, height: int, width: int) -> Matrix:
    """Return the map that rotates a frame of `height` x `width` by `rotation` degrees counter-clockwise.

    >>> quarter_turns(90, height=2, width=3).tolist()
    [[0.0, 1.0, 0.0], [-1.0, 0.0, 3.0], [0.0, 0.0, 1.0]]
    """
    turns = {
        0: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
        90: [[0.0, 1.0, 0.0], [-1.0, 0.0, float(width)]],
        180: [[-1.0, 0.0, float(width)], [0.0, -1.0, float(height)]],
        270: [[0.0, -1.0, float(height)], [1.0, 0.0, 0.0]],
    }
    return np.array([*turns[rotation % 360], [0.0, 0.0, 1.0]])
