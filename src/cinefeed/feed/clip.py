"""One draw -> one clip in its slot: source, clip, transforms in one place, for every kind of worker."""

import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cinefeed.clips import Clip
from cinefeed.errors import CinefeedError, FeedError
from cinefeed.manifest.rows import Rows
from cinefeed.rng import Stage, rng_for
from cinefeed.sources.base import chosen_region, cropped
from cinefeed.transforms.compose import Compose


class Draw(NamedTuple):
    """One place of an epoch's plan: the row drawn, and the address of its random choices."""

    row: int
    epoch: int
    position: int


class Took(NamedTuple):
    """Seconds that one clip took, by stage."""

    read: float
    decode: float
    transform: float


@dataclass(frozen=True, kw_only=True)
class ClipMaker:
    """Makes the clip of a draw: a pure function of its row, settings, seed and draw."""

    rows: Rows
    clip: Clip
    compose: Compose
    channels: int
    seed: int

    def make(self, draw: Draw, out: NDArray[Any], valid: NDArray[np.bool_]) -> Took:
        """Write the clip into `out` (frames, height, width, channels) and what is no padding into `valid` (frames,).

        An error names the row and the path.
        """
        try:
            return self._make(draw, out, valid)
        except Exception as error:
            where, what = f"row {draw.row}, {self.rows.shown(draw.row)}", self.rows.nameless(str(error), draw.row)
            if isinstance(error, CinefeedError):
                error.args = (f"{where}: {what}",)
                raise
            raise FeedError(f"{where}: {type(error).__name__}: {what}") from error

    def _make(self, draw: Draw, out: NDArray[Any], valid: NDArray[np.bool_]) -> Took:
        began = time.perf_counter()
        with self.rows.open(draw.row, channels=self.channels) as source:
            opened = time.perf_counter()
            start_seconds, end_seconds = self.rows.window(draw.row)
            indices, valid[:] = self.clip.select(
                source.facts.times,
                rng=self._rng(Stage.CLIP, draw) if self.clip.position == "random" else None,
                start_seconds=start_seconds,
                end_seconds=end_seconds,
            )
            planes = source.planes(indices)
            if self.compose.frame.region is not None:
                planes = cropped(planes, chosen_region(source.facts.regions, self.compose.frame.region))
            decoded = time.perf_counter()
            parameters = self.compose.sample(self._rng(Stage.AUGMENT, draw), frames=len(indices))
            self.compose.render(planes, out, parameters)
        out[~valid] = 0
        return Took(opened - began, decoded - opened, time.perf_counter() - decoded)

    def _rng(self, stage: Stage, draw: Draw) -> np.random.Generator:
        return rng_for(self.seed, stage=stage, epoch=draw.epoch, position=draw.position)
