"""Frames for several clips of one video, each decoded once."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cinefeed.video.planes import Planes
from cinefeed.video.source import Source


def decode_once(source: Source, clips: Sequence[NDArray[np.int64]]) -> list[Planes]:
    """Return the planes of several clips, each frame decoded once, even if several clips have it."""
    if len(clips) == 1:
        return [source.planes(clips[0])]
    frame_indices = np.unique(np.concatenate(clips))
    planes = source.planes(frame_indices)
    places = (np.searchsorted(frame_indices, indices).tolist() for indices in clips)
    return [planes._replace(frames=[planes.frames[place] for place in each]) for each in places]
