"""Arrays in memory as sources: views, nothing is copied."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cinefeed.errors import SourceError
from cinefeed.sources.axes import axes_of, channels_last, index_of
from cinefeed.sources.base import Facts
from cinefeed.sources.plain import PlainFrames, known_axes, plain_facts

_WHERE = "an array in memory"


class MemorySource(PlainFrames):
    """A video that is an array: (time, height, width), or with 1 (grey) or 3 (RGB) channels at its end.

    `facts` are those of `memory_facts`; `name` stands for the path in errors. Types are treated as those of a `.npy`
    file; planes of uint8, uint16 and float32 are views into the array, so change it only while nothing reads.

    >>> with MemorySource(np.arange(24, dtype=np.uint8).reshape(6, 2, 2)) as source:
    ...     source.read([5, 0])[:, 0, 0, 0].tolist()
    [20, 0]
    """

    def __init__(
        self, array: ArrayLike, *, channels: int | None = None, facts: Facts | None = None, name: str = _WHERE
    ) -> None:
        super().__init__(name, facts=facts if facts is not None else memory_facts(array), channels=channels)
        self._array: NDArray[Any] | None = np.asarray(array)
        self._axes = known_axes(self.facts, self._array.shape, self._array.dtype, where=name)

    def _numbers(self, number: int) -> NDArray[Any]:
        assert self._array is not None
        return channels_last(self._array[index_of(self._axes, {}, number)], self._axes)

    def close(self) -> None:
        """Let go of the array; planes already handed over stay valid."""
        super().close()
        self._array = None


def check_stack(shape: Sequence[int], *, declared: str | None) -> None:
    """Raise SourceError where an array that should be a set of videos has the shape of one, or several readings."""
    if declared is None and len(shape) == 4:
        axes = axes_of(shape, declared=None, where=_WHERE)
        if axes != "NTHW":
            raise SourceError(
                f"{_WHERE}: has shape {tuple(shape)}, which is one video, {axes}, where a set of them is needed; put "
                f"it in a list, or declare axes='NTHW' if its frames are {shape[-1]} pixels wide"
            )


def memory_facts(array: ArrayLike, *, axes: str | None = None) -> Facts:
    """Return the facts of a video in memory; `axes` as in Reading, of this one video.

    >>> memory_facts(np.zeros((48, 64, 10), np.uint16), axes="HWT").times.count
    10

    Raises SourceError for another shape, or numbers that are no integers or floats.
    """
    array = np.asarray(array)
    letters = axes_of(array.shape, declared=axes, where=_WHERE)
    if "N" in letters:
        raise SourceError(
            f"{_WHERE}: has shape {array.shape}, read as {letters}, a set of samples; hand over one of them at a time"
        )
    return plain_facts(array.shape, letters, array.dtype, container="memory", where=_WHERE)
