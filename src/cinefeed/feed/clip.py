"""One draw -> its clips in their slot: source, clip, transforms in one place, for every kind of worker."""

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cinefeed.clips import Clip, Times
from cinefeed.errors import CinefeedError, FeedError
from cinefeed.feed.decode import decode_once
from cinefeed.feed.disk import disk_error
from cinefeed.feed.mask import read_masks
from cinefeed.manifest.rows import Rows
from cinefeed.rng import Stage, rng_for
from cinefeed.sources.base import Facts
from cinefeed.sources.regions import chosen_region, cropped
from cinefeed.transforms.base import Parameters
from cinefeed.transforms.compose import Compose
from cinefeed.transforms.fuse import kind_of
from cinefeed.transforms.nearest import render_masks

Geometry = Literal["shared", "apart"]
Chosen = tuple[NDArray[np.int64], NDArray[np.bool_]]  # the frames of a clip, and which are no padding
Seconds = tuple[float | None, float | None]  # within which a row's clips stay
Pixels = NDArray[Any]

_PAUSES = (0.1, 0.5)  # seconds, before a disk that gave an error is read again


class Draw(NamedTuple):
    """One place of an epoch's plan: the row drawn, and the address of its random choices."""

    row: int
    epoch: int
    position: int


class Drawn(NamedTuple):
    """What was drawn for a clip: which frames it shows, which of them are no padding, what each transform drew."""

    frames: NDArray[np.int64]
    real: NDArray[np.bool_]
    parameters: list[Parameters]

    def as_dict(self) -> dict[str, Any]:
        """Return the frames and the parameters as plain data."""
        return {"frames": self.frames.tolist(), "transforms": self.parameters}


class Took(NamedTuple):
    """Seconds that one draw took, by stage, how often the disk had to be read again, and which decoder read it.

    Of the files of encoded video, `compiled` were read by compiled code and `pyav` by PyAV; see `decoder_choice`.
    """

    read: float
    decode: float
    transform: float
    retried: int = 0
    compiled: int = 0
    pyav: int = 0


@dataclass(frozen=True, kw_only=True)
class ClipMaker:
    """Makes the clips of a draw: a pure function of its row, settings, seed and draw.

    `clips` are cut from one stretch of the video, twice as long as a clip, which is opened and decoded once; each has
    its own place in it, and its own parameters of the transforms. With the position "center" they are spread evenly:
    each lies in the middle of its share of what a clip leaves free. `views` are the videos of a row ("" is the only
    one), put apart, or as channels with `stack`. `masks` are second videos of the rows, which follow the first in all
    that is done to time and place.

    Every random choice has the address of its clip: (seed, stage, epoch, position x clips + clip), and with several
    views x views + view.
    """

    rows: Rows
    clip: Clip
    compose: Compose
    channels: int
    seed: int
    clips: int = 1
    views: tuple[str, ...] = ("",)
    geometry: Geometry = "shared"
    stack: bool = False
    masks: Rows | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of what a draw makes: (clips, views, frames, height, width, channels)."""
        frame, views = self.compose.frame, len(self.views)
        apart, channels = (1, views * frame.channels) if self.stack else (views, frame.channels)
        return self.clips, apart, self.clip.frames, frame.height, frame.width, channels

    def make(self, draw: Draw, out: Pixels, valid: NDArray[np.bool_], masks: NDArray[np.uint8] | None = None) -> Took:
        """Write the clips into `out`, of `shape`, and what is no padding in any view into `valid` (clips, frames).

        `masks` are given where there are any: as `out`, of one channel. An error names the row and the path. One of
        the disk is tried again, then it is a FeedError.
        """
        valid[:] = True
        took = []
        for number, view in enumerate(self.views):
            channels = slice(number * self.channels, (number + 1) * self.channels)
            target = out[:, 0, ..., channels] if self.stack else out[:, number]
            took.append(self._patiently(draw, view, target, valid, None if masks is None else masks[:, number]))
        if not valid.all():
            for pixels in (out,) if masks is None else (out, masks):
                np.moveaxis(pixels, 1, 2)[~valid] = 0
        if len(took) == 1:
            return took[0]
        return Took(*(sum(each) for each in zip(*took, strict=True)))

    def told(self, draw: Draw) -> list[dict[str, Any]]:
        """Return what is drawn for each clip, as plain data: see `Drawn.as_dict`; of several views each by name.

        What the manifest knows of a file is enough; one that was not scanned is opened, and none of its frames read.
        """
        found: list[dict[str, Any]] = [{} for _ in range(self.clips)]
        for view in self.views:
            facts = self.rows.facts(draw.row, view=view)
            if facts is None:
                with self.rows.open(draw.row, channels=self.channels, view=view) as source:
                    facts = source.facts
            for told, drawn in zip(found, self.drawn(draw, view, facts), strict=True):
                told.update({"views": {**told.get("views", {}), view: drawn.as_dict()}} if view else drawn.as_dict())
        return found

    def drawn(self, draw: Draw, view: str, facts: Facts) -> list[Drawn]:
        """Return what is drawn for each clip of a view, of whose file the facts are known."""
        frame, window = self.compose.frame, self.rows.window(draw.row, view=view)
        size = facts.height, facts.width
        if frame.region is not None:
            region = chosen_region(facts.regions, frame.region)
            size = region.bottom - region.top, region.right - region.left
        spacing = frame.target_spacing(*size, spacing_mm=facts.spacing_mm)
        parameters = [self._parameters(draw, number, view, spacing) for number in range(self.clips)]
        chosen = self._retimed(self._choose(draw, facts.times, window), parameters, facts.times, window)
        return [Drawn(*each, drawn) for each, drawn in zip(chosen, parameters, strict=True)]

    def _patiently(
        self, draw: Draw, view: str, out: Pixels, valid: NDArray[np.bool_], masks: NDArray[np.uint8] | None
    ) -> Took:
        """Make the clips of one view, and again where the disk gives an error."""
        retried = 0
        while True:
            try:
                took = self._make(draw, view, out, valid, masks)
                return took._replace(retried=retried) if retried else took
            except Exception as error:
                of_the_disk = disk_error(error, self.rows.path_of(draw.row, view=view))
                if of_the_disk is None and self.masks is not None:
                    of_the_disk = disk_error(error, self.masks.path_of(draw.row))
                if of_the_disk is None or retried == len(_PAUSES):
                    named = self._named(error, of_the_disk, draw, view)
                    try:
                        if named is error:
                            raise
                        raise named from error
                    finally:
                        del named, of_the_disk  # or the error, which knows this frame, would hold the clip's memory
            time.sleep(_PAUSES[retried])
            retried += 1

    def _named(self, error: Exception, of_the_disk: OSError | None, draw: Draw, view: str) -> Exception:
        """Return an error as one of ours, with the row and the path."""
        where = f"row {draw.row}, {self.rows.shown(draw.row, view=view)}"
        what = self.rows.nameless(str(of_the_disk or error), draw.row, view=view)
        if of_the_disk is not None:
            return FeedError(
                f"{where}: the disk gave an error {len(_PAUSES) + 1} times: {what}; look at the disk or the network, "
                "then go on from where the feed stood"
            )
        if isinstance(error, CinefeedError):
            error.args = (f"{where}: {what}",)
            return error
        return FeedError(f"{where}: {type(error).__name__}: {what}")

    def _make(
        self, draw: Draw, view: str, out: Pixels, valid: NDArray[np.bool_], masks: NDArray[np.uint8] | None
    ) -> Took:
        began = time.perf_counter()
        wanted = self.compose.frame.region
        with self.rows.open(draw.row, channels=self.channels, view=view) as source:
            opened = time.perf_counter()
            facts = source.facts
            drawn = self.drawn(draw, view, facts)
            region = None if wanted is None else chosen_region(facts.regions, wanted)
            planes = decode_once(source, [each.frames for each in drawn])
            if region is not None:
                planes = [cropped(each, region) for each in planes]
            labels = []
            if masks is not None and self.masks is not None:
                clips = [each.frames for each in drawn]
                labels = read_masks(self.masks, draw.row, clips, video=facts, region=region)
            decoded = time.perf_counter()
            decoder = getattr(source, "decoder", None)
            spacing = {"spacing_mm": facts.spacing_mm}
            for number, each in enumerate(planes):
                self.compose.render(each, out[number], drawn[number].parameters, **spacing)
                valid[number] &= drawn[number].real
            for number, each in enumerate(labels):
                assert masks is not None
                render_masks(self.compose, each, masks[number], drawn[number].parameters, **spacing)
        compiled, pyav = int(decoder == "compiled"), int(decoder == "PyAV")
        return Took(opened - began, decoded - opened, time.perf_counter() - decoded, compiled=compiled, pyav=pyav)

    def _choose(self, draw: Draw, times: Times, window: Seconds) -> list[Chosen]:
        """Return the frames of each clip. Each view draws the same numbers, so all are at the same time points."""
        start, end = window
        select = partial(self.clip.select, start_seconds=start, end_seconds=end)
        if self.clip.position == "center":
            return [select(times, share=(number + 0.5) / self.clips) for number in range(self.clips)]
        if self.clip.position != "random":
            return [select(times)] * self.clips
        rng = self._rng(Stage.CLIP, draw)
        if self.clips == 1:
            return [select(times, rng=rng)]
        stretch = replace(self.clip, frames=2 * self.clip.frames, short="repeat_last")
        covered, _ = stretch.select(times, rng=rng, start_seconds=start, end_seconds=end)
        # One frame more where frames are picked by time: a tick may lie after the last that it shows.
        last = min(int(covered.max()) + (self.clip.rate_hz is not None), times.count - 1)
        first, chosen = int(covered.min()), []
        part = part_of(times, first, last - first + 1)
        for number in range(self.clips):
            rng = self._rng(Stage.CLIP, draw, number) if number else rng
            indices, real = select(part, rng=rng)
            chosen.append((indices + first, real))
        return chosen

    def _retimed(
        self, chosen: list[Chosen], parameters: list[list[Parameters]], times: Times, window: Seconds
    ) -> list[Chosen]:
        """Return the frames once the transforms of time have chosen among those of the row; padding stays."""
        if not self.compose.retimes:
            return chosen
        first, count = 0, times.count
        if window != (None, None):
            every = Clip(frames=times.count, position="spread").select(
                times, start_seconds=window[0], end_seconds=window[1]
            )[0]
            first, count = int(every[0]), int(every[-1] - every[0]) + 1
        found = []
        for (indices, real), drawn in zip(chosen, parameters, strict=True):
            shown = indices.copy()
            shown[real] = self.compose.indices(indices[real], drawn, count=count, first=first)
            found.append((shown, real))
        return found

    def _parameters(
        self, draw: Draw, number: int, view: str, spacing_mm: tuple[float, float] | None
    ) -> list[Parameters]:
        """Draw a clip's parameters: as of the first view, or, apart, the view's own but for the transforms of time."""

        def drawn(place: int) -> list[Parameters]:
            rng = self._rng(Stage.AUGMENT, draw, number, place)
            return self.compose.sample(rng, frames=self.clip.frames, spacing_mm=spacing_mm)

        place = self.views.index(view)
        if self.geometry == "shared" or not place:
            return drawn(0)
        pairs = zip(self.compose.transforms, drawn(0), drawn(place), strict=True)
        return [first if kind_of(each) == "time" else own for each, first, own in pairs]

    def _rng(self, stage: Stage, draw: Draw, number: int = 0, view: int = 0) -> np.random.Generator:
        position = (draw.position * self.clips + number) * len(self.views) + view
        return rng_for(self.seed, stage=stage, epoch=draw.epoch, position=position)


def part_of(times: Times, first: int, count: int) -> Times:
    """Return the times of some frames of a video.

    >>> part_of(Times(0.0, 0.5, 9), 4, 2).seconds().tolist()
    [2.0, 2.5]
    """
    listed = None if times.listed is None else times.listed[first : first + count]
    return Times(times.first_seconds + first * times.step_seconds, times.step_seconds, count, listed)
