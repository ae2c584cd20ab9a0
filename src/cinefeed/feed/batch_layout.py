"""The memory layout of the clips of a buffer, for batches and for the workers that write them."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class BatchLayout(NamedTuple):
    """The memory of a buffer: a number of draws, each with one or more clips of one or more views.

    Workers write arrays (draws, clips, views, frames, height, width, channels). A batch is contiguous for each view:

    clips in one batch   views, draws, clips, frames ...     batch of 2 x 3 clips: a0 a1 a2 b0 b1 b2
    interleaved          clips, views, draws, frames ...     three batches:        a0 b0 | a1 b1 | a2 b2

    After the clips come one byte for each frame, whether it is valid, and the `masks`, laid out as one-channel clips.

    >>> layout = BatchLayout(draws=2, shape=(3, 1, 4, 8, 8, 1), interleaved=True)
    >>> layout.batches, layout.arrays(np.zeros(layout.nbytes, np.uint8))[0].shape
    (3, (2, 3, 1, 4, 8, 8, 1))
    """

    draws: int
    shape: tuple[int, ...]  # of a draw: clips, views, frames, height, width, channels
    dtype: np.dtype[Any] = np.dtype(np.uint8)
    interleaved: bool = False  # each clip of a draw is in another batch
    masks: bool = False  # each clip has masks, uint8

    @property
    def batches(self) -> int:
        """The number of batches in a buffer."""
        return self.shape[0] if self.interleaved else 1

    @property
    def clip_bytes(self) -> int:
        """The size of all clips."""
        return self.draws * int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """The size of a buffer: the clips, one byte for each frame of a clip, and the masks."""
        return self._before_masks + self._mask_bytes

    @property
    def _before_masks(self) -> int:
        clips, _, frames = self.shape[:3]
        return self.clip_bytes + self.draws * clips * frames

    @property
    def _mask_bytes(self) -> int:
        return self.draws * int(np.prod(self.shape[:-1], dtype=np.int64)) if self.masks else 0

    def arrays(self, memory: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return the clips, (draws, *shape), and which of their frames are valid, (draws, clips, frames)."""
        clips, _, frames = self.shape[:3]
        pixels, flags = memory[: self.clip_bytes].view(self.dtype), memory[self.clip_bytes : self._before_masks]
        shape = (clips, self.draws, frames) if self.interleaved else (self.draws, clips, frames)
        valid = flags.view(np.bool_).reshape(shape)
        return self._by_draw(pixels, self.shape[-1]), valid.swapaxes(0, 1) if self.interleaved else valid

    def masks_in(self, memory: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """Return the masks, (draws, clips, views, frames, height, width, 1), or None."""
        return self._by_draw(memory[self._before_masks :], 1) if self.masks else None

    def _by_draw(self, pixels: NDArray[Any], channels: int) -> NDArray[Any]:
        clips, views, *rest = self.shape[:-1]
        if self.interleaved:
            return np.moveaxis(pixels.reshape(clips, views, self.draws, *rest, channels), 2, 0)
        return np.moveaxis(pixels.reshape(views, self.draws, clips, *rest, channels), 0, 2)

    def batch(
        self, clips: NDArray[Any], valid: NDArray[np.bool_], *, number: int, draws: int
    ) -> tuple[list[NDArray[Any]], NDArray[np.bool_]]:
        """Return one batch of a buffer, its first `draws` only: the clips of each view, and `valid`, without a copy."""
        if self.interleaved:
            return self.pieces(clips, number=number, draws=draws), valid[:draws, number]
        whole = valid[:draws].reshape(draws * self.shape[0], self.shape[2])
        return self.pieces(clips, number=number, draws=draws), whole

    def pieces(self, clips: NDArray[Any], *, number: int, draws: int) -> list[NDArray[Any]]:
        """Return the clips of one batch, or its masks: a view on them for each view of a row."""
        views = range(self.shape[1])
        if self.interleaved:
            return [clips[:draws, number, view] for view in views]
        whole = (draws * self.shape[0], *clips.shape[3:])
        return [clips[:draws, :, view].reshape(whole) for view in views]
