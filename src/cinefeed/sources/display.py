"""From a frame as stored to the frame as shown: mirrored, with square pixels, turned upright; always in this order.

Pixels that are not square become so by enlarging: the width of what is stored with pixels wider than high, else the
height. No detail is lost that way, and the size as stored can be told from the size as shown.
"""

import math
import struct
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
from av.sidedata.sidedata import Type
from numpy.typing import NDArray

from cinefeed.sources.colour import Colour

# FFmpeg too leaves a display size that differs by a hundredth at that. YouTube's 426 x 240 is tagged 640:639.
_SQUARE = 0.01
_ABSURD = 4.0  # broadcast knows 1:2 to 2:1; beyond 4:1 a header is wrong


def square_or(aspect: Fraction | None) -> float:
    """Return the width of a stored pixel by its height: 1 where the file says nothing, nearly 1, or nonsense.

    >>> square_or(Fraction(4, 3)), square_or(Fraction(640, 639)), square_or(Fraction(1, 5000)), square_or(None)
    (1.3333333333333333, 1.0, 1.0, 1.0)
    """
    ratio = float(aspect or 1)
    return ratio if 1 / _ABSURD <= ratio <= _ABSURD and abs(ratio - 1) > _SQUARE else 1.0


def square_size(height: int, width: int, *, aspect: float) -> tuple[int, int]:
    """Return height and width of a stored frame once its pixels are square.

    >>> square_size(288, 352, aspect=128 / 117), square_size(480, 704, aspect=0.5)
    ((288, 385), (960, 704))
    """
    return (height, round(width * aspect)) if aspect >= 1 else (round(height / aspect), width)


def shown_size(height: int, width: int, *, aspect: float, rotation: int) -> tuple[int, int]:
    """Return height and width as shown of a frame of `height` x `width` as stored."""
    height, width = square_size(height, width, aspect=aspect)
    return (width, height) if rotation % 180 else (height, width)


def stored_size(height: int, width: int, *, aspect: float, rotation: int) -> tuple[int, int]:
    """Return height and width as stored of a frame that is `height` x `width` as shown.

    >>> stored_size(385, 288, aspect=128 / 117, rotation=90)
    (288, 352)
    """
    if rotation % 180:
        height, width = width, height
    return (height, round(width / aspect)) if aspect >= 1 else (round(height * aspect), width)


def upright(frame: NDArray[Any], colour: Colour, *, height: int, width: int) -> NDArray[Any]:
    """Return a stored frame (height, width, channels) as shown, `height` x `width`."""
    rows, columns = (width, height) if colour.rotation % 180 else (height, width)
    if frame.shape[:2] != (rows, columns):  # one axis grows, so linear interpolation does not alias
        channels = frame.shape[2]
        frame = cv2.resize(frame, (columns, rows), interpolation=cv2.INTER_LINEAR).reshape(rows, columns, channels)
    return np.rot90(frame[:, ::-1] if colour.mirrored else frame, colour.rotation // 90)


def orientation(frame: av.VideoFrame) -> tuple[int, bool]:
    """Return the degrees counter-clockwise that turn a frame upright, and whether it is mirrored before.

    A display matrix that turns by another angle counts as the nearest quarter turn.
    """
    try:
        side_data: Any = frame.side_data  # typed as a mapping of str, which it is not
    except ValueError:  # the frame carries side data of a kind that this PyAV has no name for
        return round(frame.rotation / 90) * 90 % 360, False
    matrix = side_data.get(Type.DISPLAYMATRIX)
    return _quarter_turn(bytes(matrix)) if matrix is not None else (0, False)


def _quarter_turn(matrix: bytes) -> tuple[int, bool]:
    """Read FFmpeg's display matrix: x' = a x + c y, y' = b x + d y, with y downwards.

    >>> _quarter_turn(struct.pack("=9i", 0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30))
    (270, False)
    """
    a, b, _, c, d, *_ = struct.unpack("=9i", matrix[:36])
    mirrored = a * d - b * c < 0
    if mirrored:
        a, b = -a, -b
    return round(math.degrees(math.atan2(-b, a)) / 90) * 90 % 360, mirrored
