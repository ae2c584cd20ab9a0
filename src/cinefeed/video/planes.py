"""Decoded planes of frames, and how they become arrays."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from cinefeed.core.errors import SourceError
from cinefeed.video.clips import PixelType
from cinefeed.video.color import Colour, lacks_window, to_pixels
from cinefeed.video.orientation import upright


class ContiguousPlanes(Sequence[tuple[NDArray[Any], ...]]):
    """Frames of `Planes` at equal distances in memory, so that all of them can be processed at once.

    `groups` are arrays of C-contiguous planes: the first planes of n frames, (n, height, width), followed by any
    further planes of equal size, one kind after the other: blue and red difference as (2 n, height, width).

    >>> ContiguousPlanes([np.zeros((2, 4, 4)), np.arange(4.0).reshape(4, 1, 1)])[1][2].tolist()
    [[3.0]]
    """

    def __init__(self, groups: Sequence[NDArray[Any]]) -> None:
        self.groups = groups

    def __len__(self) -> int:
        return len(self.groups[0])

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        number = range(len(self))[place]
        return tuple(plane for group in self.groups for plane in group[number :: len(self)])

    def select(self, places: NDArray[np.intp]) -> "ContiguousPlanes":
        """Return the frames at these indices, copied."""
        count, selected = len(self), list[NDArray[Any]]()
        for group in self.groups:
            kinds = group.reshape(-1, count, *group.shape[1:])[:, places]
            selected.append(kinds.reshape(-1, *group.shape[1:]))
        return ContiguousPlanes(selected)


class Planes(NamedTuple):
    """Frames as a decoder returns them: `frames[i]` is the tuple of planes of the i-th requested frame.

    Planes are uint8, uint16 or float32, and views if the decoder allows it: rows may be padded, and repeated frames may
    share memory. A yuv source with one channel returns luma only, with model "grey".
    """

    frames: Sequence[tuple[NDArray[np.generic], ...]]
    colour: Colour


def planes_to_array(
    planes: Planes, *, channels: int, height: int, width: int, dtype: PixelType | None = None
) -> NDArray[Any]:
    """Return frames as displayed and converted, (n, height, width, channels).

    `dtype` is that of the result, scaled as in `to_pixels`; by default the stored depth: up to 8 bits become uint8, up
    to 16 bits uint16 at full scale, float32 stays. Chroma is resized to the size of luma by linear interpolation, with
    evenly spaced sample centres; non-square pixels are made square by linear interpolation.
    """
    colour = planes.colour
    if dtype is not None and lacks_window(colour, dtype):
        raise SourceError(
            f"pixels as {dtype} were asked for, but these numbers ({colour.bits} bits) do not define black and white; "
            "read them as stored (dtype=None), or with ReadOptions(window='percentiles')"
        )
    out_dtype = dtype or ("uint8" if colour.bits == 8 else "float32" if colour.bits == 32 else "uint16")
    out = np.empty((len(planes.frames), height, width, channels), out_dtype)
    as_stored = not (colour.rotation or colour.mirrored or colour.aspect != 1)
    for frame, target in zip(planes.frames, out, strict=True):
        same = frame[:1] if channels == 1 else (frame[0], *(_spread(plane, frame[0].shape) for plane in frame[1:]))
        pixels = target if as_stored else np.empty((*frame[0].shape[:2], channels), out_dtype)
        to_pixels(same, colour, channels=channels, out=pixels)
        if not as_stored:
            target[:] = upright(pixels, colour, height=height, width=width)
    return out


def _spread(chroma: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return chroma at the size of luma; for odd sizes the chroma planes are rounded up."""
    # A chroma sample is centred on its pixels, whatever the codec: see Compose._fit.
    height, width = shape[0], shape[1]
    down = next(factor for factor in (1, 2, 4) if chroma.shape[0] * factor >= height)
    across = next(factor for factor in (1, 2, 4) if chroma.shape[1] * factor >= width)
    if down == across == 1:
        return chroma
    size = (chroma.shape[1] * across, chroma.shape[0] * down)
    return cv2.resize(chroma, size, interpolation=cv2.INTER_LINEAR)[:height, :width]
