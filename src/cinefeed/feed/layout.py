"""How the clips of a slot lie in memory: as batches want them, and as those who make them do."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Layout(NamedTuple):
    """The memory of a slot: so many draws, each of several clips, of one view or more.

    Who makes clips sees (draws, clips, views, frames, height, width, channels). A batch is one piece of memory a view:

    clips in one batch   views, draws, clips, frames ...     batch of 2 x 3 clips: a0 a1 a2 b0 b1 b2
    clips spread         clips, views, draws, frames ...     three batches:        a0 b0 | a1 b1 | a2 b2

    >>> layout = Layout(draws=2, shape=(3, 1, 4, 8, 8, 1), spread=True)
    >>> layout.batches, layout.arrays(np.zeros(layout.nbytes, np.uint8))[0].shape
    (3, (2, 3, 1, 4, 8, 8, 1))
    """

    draws: int
    shape: tuple[int, ...]  # of a draw: clips, views, frames, height, width, channels
    dtype: np.dtype[Any] = np.dtype(np.uint8)
    spread: bool = False  # the clips of a draw lie in as many batches

    @property
    def batches(self) -> int:
        """The number of batches in a slot."""
        return self.shape[0] if self.spread else 1

    @property
    def clip_bytes(self) -> int:
        """The size of all clips."""
        return self.draws * int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """The size of a slot: the clips, and a byte a frame of each clip that says if it is valid."""
        clips, _, frames = self.shape[:3]
        return self.clip_bytes + self.draws * clips * frames

    def arrays(self, memory: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return the clips, (draws, *shape), and which of their frames are valid, (draws, clips, frames)."""
        clips, views, *rest = self.shape
        pixels, mask = memory[: self.clip_bytes].view(self.dtype), memory[self.clip_bytes :].view(np.bool_)
        if self.spread:
            valid = mask.reshape(clips, self.draws, rest[0]).swapaxes(0, 1)
            return np.moveaxis(pixels.reshape(clips, views, self.draws, *rest), 2, 0), valid
        valid = mask.reshape(self.draws, clips, rest[0])
        return np.moveaxis(pixels.reshape(views, self.draws, clips, *rest), 0, 2), valid

    def batch(
        self, clips: NDArray[Any], valid: NDArray[np.bool_], *, number: int, draws: int
    ) -> tuple[list[NDArray[Any]], NDArray[np.bool_]]:
        """Return one batch of a slot's arrays, its first `draws` alone: views on the clips by view, and on `valid`."""
        if self.spread:
            return [clips[:draws, number, view] for view in range(self.shape[1])], valid[:draws, number]
        pieces = [clips[:draws, :, view] for view in range(self.shape[1])]
        whole = (draws * self.shape[0], *self.shape[2:])
        return [piece.reshape(whole) for piece in pieces], valid[:draws].reshape(whole[:2])
