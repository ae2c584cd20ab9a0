"""One draw -> one clip in its slot: source, clip, transforms in one place, for every kind of worker."""

import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cinefeed.clips import Clip
from cinefeed.errors import CinefeedError, FeedError
from cinefeed.feed.stats import Meter
from cinefeed.manifest.rows import Rows
from cinefeed.rng import Stage, rng_for
from cinefeed.transforms.compose import Compose


class Draw(NamedTuple):
    """One place of an epoch's plan: the row drawn, and the address of its random choices."""

    row: int
    epoch: int
    position: int


@dataclass(frozen=True, kw_only=True)
class ClipMaker:
    """Makes the clip of a draw: a pure function of its row, settings, seed and draw."""

    rows: Rows
    clip: Clip
    compose: Compose
    channels: int
    seed: int
    meter: Meter

    def make(self, draw: Draw, out: NDArray[Any], valid: NDArray[np.bool_]) -> None:
        """Write the clip into `out` (frames, height, width, channels) and what is no padding into `valid` (frames,).

        An error names the row and the path.
        """
        try:
            self._make(draw, out, valid)
        except Exception as error:
            where, what = f"row {draw.row}, {self.rows.shown(draw.row)}", self.rows.nameless(str(error), draw.row)
            if isinstance(error, CinefeedError):
                error.args = (f"{where}: {what}",)
                raise
            raise FeedError(f"{where}: {type(error).__name__}: {what}") from error

    def _make(self, draw: Draw, out: NDArray[Any], valid: NDArray[np.bool_]) -> None:
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
            decoded = time.perf_counter()
            parameters = self.compose.sample(self._rng(Stage.AUGMENT, draw), frames=len(indices))
            self.compose.render(planes, out, parameters)
        out[~valid] = 0
        self.meter.add(
            read_seconds=opened - began,
            decode_seconds=decoded - opened,
            transform_seconds=time.perf_counter() - decoded,
        )

    def _rng(self, stage: Stage, draw: Draw) -> np.random.Generator:
        return rng_for(self.seed, stage=stage, epoch=draw.epoch, position=draw.position)
