"""Make the clips of one draw of the plan: read the source, select frames, apply transforms."""

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.errors import CinefeedError, FeedError
from cinefeed.core.rng import Stage, rng_for
from cinefeed.data.manifest.rows import Rows
from cinefeed.feed.decode import decode_once
from cinefeed.feed.disk_errors import disk_error
from cinefeed.feed.mask import read_masks
from cinefeed.transforms.base import Parameters
from cinefeed.transforms.compose import Compose
from cinefeed.transforms.fuse import kind_of
from cinefeed.transforms.nearest import render_masks
from cinefeed.video.clips import Clip
from cinefeed.video.metadata import VideoMetadata
from cinefeed.video.regions import VERSION, cropped, find_region
from cinefeed.video.timestamps import FrameTimes

Geometry = Literal["shared", "apart"]
Selection = tuple[NDArray[np.int64], NDArray[np.bool_]]  # the frames of a clip, and which are not padding
Seconds = tuple[float | None, float | None]  # within which a row's clips stay
Pixels = NDArray[Any]

_PAUSES = (0.1, 0.5)  # seconds, before a disk that gave an error is read again


class PlanEntry(NamedTuple):
    """An entry of the plan of an epoch: the row, and the address of its random choices."""

    row: int
    epoch: int
    position: int


class ClipParameters(NamedTuple):
    """The sampled parameters of a clip: its frames, which of them are not padding, and those of each transform."""

    frames: NDArray[np.int64]
    real: NDArray[np.bool_]
    parameters: list[Parameters]

    def as_dict(self) -> dict[str, Any]:
        """Return the frames and the parameters as plain data."""
        return {"frames": self.frames.tolist(), "transforms": self.parameters}


class ClipTimings(NamedTuple):
    """The seconds that one draw took, by stage, the number of repeated reads, and which decoder was used.

    `compiled` and `pyav` count the files of encoded video that each decoder read; see `decoder_choice`. `fetch` is the
    time that the worker waited for remote files, `requests` to `refetches` are of its process since the last clip.
    """

    read: float
    decode: float
    transform: float
    retried: int = 0
    compiled: int = 0
    pyav: int = 0
    fetch: float = 0.0
    requests: int = 0
    fetched_bytes: int = 0
    refetches: int = 0


@dataclass(frozen=True, kw_only=True)
class ClipPipeline:
    """Makes the clips of a draw: a pure function of its row, settings, seed and draw.

    `clips` are cut from one stretch of the video, twice as long as a clip, which is decoded once; each has its place
    in it, and its own transform parameters. With the position "center" they are distributed evenly over the video.
    `views` are the videos of a row ("" if there is only one), as separate arrays, or as channels with `stack`. `masks`
    are second videos of the rows, to which geometric and temporal transforms are applied as to the first.

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
        """The shape of the clips of a draw: (clips, views, frames, height, width, channels)."""
        frame, views = self.compose.frame, len(self.views)
        apart, channels = (1, views * frame.channels) if self.stack else (views, frame.channels)
        return self.clips, apart, self.clip.frames, frame.height, frame.width, channels

    def make(
        self, draw: PlanEntry, out: Pixels, valid: NDArray[np.bool_], masks: NDArray[np.uint8] | None = None
    ) -> ClipTimings:
        """Write the clips into `out`, of `shape`, and which frames are valid in all views into `valid` (clips, frames).

        `masks`, if there are any, has the shape of `out` with one channel. An error names the row and the path. After
        an error of the disk the row is tried again, then FeedError is raised.
        """
        valid[:] = True
        timings = []
        for number, view in enumerate(self.views):
            channels = slice(number * self.channels, (number + 1) * self.channels)
            target = out[:, 0, ..., channels] if self.stack else out[:, number]
            timings.append(
                self._make_with_retries(draw, view, target, valid, None if masks is None else masks[:, number])
            )
        if not valid.all():
            for pixels in (out,) if masks is None else (out, masks):
                np.moveaxis(pixels, 1, 2)[~valid] = 0
        if len(timings) == 1:
            return timings[0]
        return ClipTimings(*(sum(each) for each in zip(*timings, strict=True)))

    def clip_parameters(self, draw: PlanEntry) -> list[dict[str, Any]]:
        """Return the parameters of each clip as plain data, see `ClipParameters.as_dict`; for several views, by name.

        The metadata in the manifest is enough; a file that was not scanned is opened, but none of its frames is read.
        """
        plain_data: list[dict[str, Any]] = [{} for _ in range(self.clips)]
        for view in self.views:
            metadata = self.rows.metadata(draw.row, view=view)
            if metadata is None:
                with self.rows.open(draw.row, channels=self.channels, view=view) as source:
                    metadata = source.metadata
            for data, clip in zip(plain_data, self.sample_clips(draw, view, metadata), strict=True):
                data.update({"views": {**data.get("views", {}), view: clip.as_dict()}} if view else clip.as_dict())
        return plain_data

    def sample_clips(self, draw: PlanEntry, view: str, metadata: VideoMetadata) -> list[ClipParameters]:
        """Return the sampled parameters of each clip of a view."""
        frame, window = self.compose.frame, self.rows.window(draw.row, view=view)
        size = metadata.height, metadata.width
        if frame.region is not None:
            region = find_region(metadata.regions, frame.region)
            size = region.bottom - region.top, region.right - region.left
        spacing = frame.target_spacing(*size, spacing_mm=metadata.spacing_mm)
        parameters = [self._parameters(draw, number, view, spacing) for number in range(self.clips)]
        selections = self._retimed(self._choose(draw, metadata.times, window), parameters, metadata.times, window)
        return [ClipParameters(*each, values) for each, values in zip(selections, parameters, strict=True)]

    def _make_with_retries(
        self, draw: PlanEntry, view: str, out: Pixels, valid: NDArray[np.bool_], masks: NDArray[np.uint8] | None
    ) -> ClipTimings:
        """Make the clips of one view; try again if the disk gives an error."""
        retried = 0
        while True:
            try:
                timings = self._make(draw, view, out, valid, masks)
                return timings._replace(retried=retried) if retried else timings
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
                        del (
                            named,
                            of_the_disk,
                        )  # the error refers to this frame, which would hold the memory of the clip
            time.sleep(_PAUSES[retried])
            retried += 1

    def _named(self, error: Exception, of_the_disk: OSError | None, draw: PlanEntry, view: str) -> Exception:
        """Return an error of cinefeed with the row and the path."""
        where = f"row {draw.row}, {self.rows.display_name(draw.row, view=view)}"
        what = self.rows.nameless(str(of_the_disk or error), draw.row, view=view)
        if of_the_disk is not None:
            return FeedError(
                f"{where}: the disk gave an error {len(_PAUSES) + 1} times: {what}; check the disk or the network, "
                "then resume from the state of the feed"
            )
        if isinstance(error, CinefeedError):
            error.args = (f"{where}: {what}",)
            return error
        return FeedError(f"{where}: {type(error).__name__}: {what}")

    def _make(
        self, draw: PlanEntry, view: str, out: Pixels, valid: NDArray[np.bool_], masks: NDArray[np.uint8] | None
    ) -> ClipTimings:
        began = time.perf_counter()
        region_name = self.compose.frame.region
        with self.rows.open(draw.row, channels=self.channels, view=view) as source:
            fetched = getattr(source, "fetch_seconds", 0.0)
            opened = time.perf_counter()
            metadata = source.metadata
            clip_parameters = self.sample_clips(draw, view, metadata)
            region = None if region_name is None else find_region(metadata.regions, self._region(draw, metadata))
            frames = [each.frames for each in clip_parameters]
            planes = decode_once(source, frames)
            if region is not None:
                planes = [cropped(each, region) for each in planes]
            labels = []
            if masks is not None and self.masks is not None:
                labels = read_masks(self.masks, draw.row, frames, video=metadata, region=region)
            decoded = time.perf_counter()
            decoder = getattr(source, "decoder", None)
            spacing = {"spacing_mm": metadata.spacing_mm}
            for number, each in enumerate(planes):
                self.compose.render(each, out[number], clip_parameters[number].parameters, **spacing)
                valid[number] &= clip_parameters[number].real
            for number, each in enumerate(labels):
                assert masks is not None
                render_masks(self.compose, each, masks[number], clip_parameters[number].parameters, **spacing)
        counters = {} if self.rows.remote is None else self.rows.remote.take_counters()
        return ClipTimings(
            opened - began - fetched,
            decoded - opened,
            time.perf_counter() - decoded,
            compiled=int(decoder == "compiled"),
            pyav=int(decoder == "PyAV"),
            fetch=fetched,
            **counters,
        )

    def _choose(self, draw: PlanEntry, times: FrameTimes, window: Seconds) -> list[Selection]:
        """Return the frames of each clip. All views have the same random numbers, so the same time points."""
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
        # One more frame if frames are selected by time: a tick may be later than the last frame that it shows.
        last = min(int(covered.max()) + (self.clip.rate_hz is not None), times.count - 1)
        first, selections = int(covered.min()), []
        part = part_of(times, first, last - first + 1)
        for number in range(self.clips):
            rng = self._rng(Stage.CLIP, draw, number) if number else rng
            indices, real = select(part, rng=rng)
            selections.append((indices + first, real))
        return selections

    def _retimed(
        self, selections: list[Selection], parameters: list[list[Parameters]], times: FrameTimes, window: Seconds
    ) -> list[Selection]:
        """Return the frames after the transforms of time, which select among the frames of the row; padding stays."""
        if not self.compose.retimes:
            return selections
        first, count = 0, times.count
        if window != (None, None):
            every = Clip(frames=times.count, position="spread").select(
                times, start_seconds=window[0], end_seconds=window[1]
            )[0]
            first, count = int(every[0]), int(every[-1] - every[0]) + 1
        retimed = []
        for (indices, real), values in zip(selections, parameters, strict=True):
            new_indices = indices.copy()
            new_indices[real] = self.compose.indices(indices[real], values, count=count, first=first)
            retimed.append((new_indices, real))
        return retimed

    def _parameters(
        self, draw: PlanEntry, number: int, view: str, spacing_mm: tuple[float, float] | None
    ) -> list[Parameters]:
        """Sample the parameters of a clip: those of the first view or, with geometry "apart", the view's own.

        Transforms of time always have the parameters of the first view.
        """

        def sample(place: int) -> list[Parameters]:
            rng = self._rng(Stage.AUGMENT, draw, number, place)
            return self.compose.sample(rng, frames=self.clip.frames, spacing_mm=spacing_mm)

        place = self.views.index(view)
        if self.geometry == "shared" or not place:
            return sample(0)
        pairs = zip(self.compose.transforms, sample(0), sample(place), strict=True)
        return [first if kind_of(each) == "time" else own for each, first, own in pairs]

    def _region(self, draw: PlanEntry, metadata: VideoMetadata) -> str | int:
        """Return the frame's region; of features with augmented versions one of them, drawn by address."""
        region = self.compose.frame.region
        assert region is not None
        versions = [number for number, each in enumerate(metadata.regions) if each.kind == VERSION]
        return (
            versions[int(self._rng(Stage.VERSION, draw).integers(len(versions)))]
            if region == VERSION and versions
            else region
        )

    def _rng(self, stage: Stage, draw: PlanEntry, number: int = 0, view: int = 0) -> np.random.Generator:
        position = (draw.position * self.clips + number) * len(self.views) + view
        return rng_for(self.seed, stage=stage, epoch=draw.epoch, position=position)


def part_of(times: FrameTimes, first: int, count: int) -> FrameTimes:
    """Return the times of some frames of a video.

    >>> part_of(FrameTimes(0.0, 0.5, 9), 4, 2).seconds().tolist()
    [2.0, 2.5]
    """
    listed = None if times.listed is None else times.listed[first : first + count]
    return FrameTimes(times.first_seconds + first * times.step_seconds, times.step_seconds, count, listed)
