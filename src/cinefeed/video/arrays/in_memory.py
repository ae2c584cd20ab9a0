"""Arrays in memory as sources, without copying."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cinefeed.core.errors import SourceError
from cinefeed.video.arrays.array_frames import ArrayFrames, known_axes, sample_metadata
from cinefeed.video.arrays.axes import axes_of, channels_last, index_of
from cinefeed.video.metadata import VideoMetadata

_WHERE = "an array in memory"
_CHOOSE = "choose with Manifest.from_arrays(x, axes=...)"


class MemorySource(ArrayFrames):
    """A video in an array: (time, height, width), or with 1 (grey) or 3 (RGB) channels as last axis.

    `metadata` are those of `array_metadata`; `name` replaces the path in errors. Dtypes are treated as in a `.npy`
    file; planes of uint8, uint16 and float32 are views into the array, so change it only while nothing is reading.

    >>> with MemorySource(np.arange(24, dtype=np.uint8).reshape(6, 2, 2)) as source:
    ...     source.read([5, 0])[:, 0, 0, 0].tolist()
    [20, 0]
    """

    def __init__(
        self,
        array: ArrayLike,
        *,
        channels: int | None = None,
        metadata: VideoMetadata | None = None,
        name: str = _WHERE,
    ) -> None:
        super().__init__(name, metadata=metadata if metadata is not None else array_metadata(array), channels=channels)
        self._array: NDArray[Any] | None = np.asarray(array)
        self._axes = known_axes(self.metadata, self._array.shape, self._array.dtype, where=name)

    def _numbers(self, number: int) -> NDArray[Any]:
        assert self._array is not None
        return channels_last(self._array[index_of(self._axes, {}, number)], self._axes)

    def close(self) -> None:
        """Release the array; planes that were returned remain valid."""
        super().close()
        self._array = None


def check_stack(shape: Sequence[int], *, declared: str | None) -> None:
    """Raise SourceError if an array given as a set of videos has the shape of one video, or is ambiguous."""
    if declared is None and len(shape) == 4:
        axes = axes_of(shape, declared=None, where=_WHERE, choose=_CHOOSE)
        if axes != "NTHW":
            raise SourceError(
                f"{_WHERE}: has shape {tuple(shape)}, which is one video, {axes}, but a set of videos is needed; put "
                f"it in a list, or declare axes='NTHW' if its frames are {shape[-1]} pixels wide"
            )


def array_metadata(array: ArrayLike, *, axes: str | None = None) -> VideoMetadata:
    """Return the metadata of a video in memory; `axes` as in ReadOptions, of this one video.

    >>> array_metadata(np.zeros((48, 64, 10), np.uint16), axes="HWT").times.count
    10

    Raises SourceError for any other shape, or if the numbers are not integers or floats.
    """
    array = np.asarray(array)
    letters = axes_of(array.shape, declared=axes, where=_WHERE, choose=_CHOOSE)
    if "N" in letters:
        raise SourceError(
            f"{_WHERE}: has shape {array.shape}, read as {letters}, a set of samples; pass one sample at a time"
        )
    return sample_metadata(array.shape, letters, array.dtype, container="memory", where=_WHERE)
