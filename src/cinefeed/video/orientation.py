"""Conversion of stored frames to displayed frames: mirrored, made square, rotated upright, always in this order.

Non-square pixels are made square by enlarging: the width if pixels are wider than high, else the height. No detail is
lost that way, and the stored size can be computed from the displayed size.
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

from cinefeed.video.color import Colour

# FFmpeg too ignores a difference of a hundredth in display size. YouTube's 426 x 240 is tagged 640:639.
_SQUARE = 0.01
_ABSURD = 4.0  # broadcast uses 1:2 to 2:1; beyond 4:1 a header is wrong


def square_or(aspect: Fraction | None) -> float:
    """Return the width of a stored pixel divided by its height: 1 if missing, nearly 1, or implausible.

    >>> square_or(Fraction(4, 3)), square_or(Fraction(640, 639)), square_or(Fraction(1, 5000)), square_or(None)
    (1.3333333333333333, 1.0, 1.0, 1.0)
    """
    ratio = float(aspect or 1)
    return ratio if 1 / _ABSURD <= ratio <= _ABSURD and abs(ratio - 1) > _SQUARE else 1.0


def square_size(height: int, width: int, *, aspect: float) -> tuple[int, int]:
    """Return height and width of a stored frame with square pixels.

    >>> square_size(288, 352, aspect=128 / 117), square_size(480, 704, aspect=0.5)
    ((288, 385), (960, 704))
    """
    return (height, round(width * aspect)) if aspect >= 1 else (round(height / aspect), width)


def shown_size(height: int, width: int, *, aspect: float, rotation: int) -> tuple[int, int]:
    """Return the displayed height and width of a frame stored as `height` x `width`."""
    height, width = square_size(height, width, aspect=aspect)
    return (width, height) if rotation % 180 else (height, width)


def stored_size(height: int, width: int, *, aspect: float, rotation: int) -> tuple[int, int]:
    """Return the stored height and width of a frame displayed as `height` x `width`.

    >>> stored_size(385, 288, aspect=128 / 117, rotation=90)
    (288, 352)
    """
    if rotation % 180:
        height, width = width, height
    return (height, round(width / aspect)) if aspect >= 1 else (round(height * aspect), width)


def upright(frame: NDArray[Any], colour: Colour, *, height: int, width: int) -> NDArray[Any]:
    """Return a stored frame (height, width, channels) as displayed, `height` x `width`."""
    rows, columns = (width, height) if colour.rotation % 180 else (height, width)
    if frame.shape[:2] != (rows, columns):  # one axis grows, so linear interpolation does not alias
        channels = frame.shape[2]
        frame = cv2.resize(frame, (columns, rows), interpolation=cv2.INTER_LINEAR).reshape(rows, columns, channels)
    return np.rot90(frame[:, ::-1] if colour.mirrored else frame, colour.rotation // 90)


def orientation(frame: av.VideoFrame) -> tuple[int, bool]:
    """Return the degrees counter-clockwise that rotate a frame upright, and whether it is mirrored first.

    A display matrix with another angle is rounded to the nearest quarter turn.
    """
    try:
        side_data: Any = frame.side_data  # wrongly typed as a mapping of str
    except ValueError:  # the frame has side data that this PyAV does not support
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
