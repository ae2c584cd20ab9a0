"""Regions of ultrasound images: selection of a region, and cropping of decoded planes."""

from collections.abc import Sequence

from cinefeed.core.errors import SourceError
from cinefeed.video.color import Colour as Colour
from cinefeed.video.metadata import Region
from cinefeed.video.planes import Planes

VERSION = "version"  # kind of the regions of features: the first is of the video, the others of augmented versions


def find_region(regions: Sequence[Region], region: str | int) -> Region:
    """Return the region with a number, or the first of a kind. Raises SourceError, with the kinds that exist.

    >>> find_region([Region(0, 0, 80, 60, "2d"), Region(0, 60, 80, 90, "pw")], "pw").top
    60
    """
    kinds = [each.kind for each in regions]
    if isinstance(region, int):
        if region < len(regions):
            return regions[region]
    elif region in kinds:
        return regions[kinds.index(region)]
    choices = f"its regions are {', '.join(f'{i}: {kind}' for i, kind in enumerate(kinds))}" if kinds else "it has none"
    raise SourceError(f"Frame(region={region!r}) was asked for, {choices}; exclude such rows, or remove the setting")


def cropped(planes: Planes, region: Region) -> Planes:
    """Return every frame cropped to a region: views, clipped to the frame.

    If chroma has fewer samples than luma, the region is extended to whole chroma samples. Raises SourceError if the
    region lies outside the frame, or the frame is not stored as it is displayed.

    >>> import numpy as np
    >>> from cinefeed.video.color import Colour
    >>> frame = np.arange(12, dtype=np.uint8).reshape(3, 4)
    >>> cropped(Planes([(frame,)], Colour(model="grey")), Region(1, 1, 3, 9, "2d")).frames[0][0].tolist()
    [[5, 6], [9, 10]]
    """
    colour = planes.colour
    if not planes.frames:
        return planes
    if colour.rotation or colour.mirrored or colour.aspect != 1:
        raise SourceError("frames that are rotated, mirrored or stretched for display cannot be cropped to a region")
    height, width = planes.frames[0][0].shape[:2]
    steps = [(_pixels_of(plane.shape[0], height), _pixels_of(plane.shape[1], width)) for plane in planes.frames[0]]
    down, across = max(step for step, _ in steps), max(step for _, step in steps)
    top, left = max(region.top, 0) // down * down, max(region.left, 0) // across * across
    bottom, right = min(-(-region.bottom // down) * down, height), min(-(-region.right // across) * across, width)
    if top >= bottom or left >= right:
        raise SourceError(f"{region} lies outside the frame of {height} x {width}")
    cuts = [(slice(top // v, -(-bottom // v)), slice(left // h, -(-right // h))) for v, h in steps]
    return planes._replace(
        frames=[tuple(plane[cut] for plane, cut in zip(frame, cuts, strict=True)) for frame in planes.frames]
    )


def _pixels_of(samples: int, size: int) -> int:
    """Return the number of pixels per sample along an axis, as `planes_to_array` resizes chroma."""
    return next(step for step in (1, 2, 4) if samples * step >= size)
