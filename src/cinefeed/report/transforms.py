"""The page of a feed's transforms: each alone, weak to strong, on the user's own clips, then all of them together."""

import base64
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from cinefeed.clips import window_of
from cinefeed.config import Settings
from cinefeed.errors import CinefeedError, SettingError
from cinefeed.manifest.table import Manifest
from cinefeed.report.page import from_template, write_html
from cinefeed.report.strength import graded, meaning, parameters_in_words, single, summary
from cinefeed.rng import Stage, rng_for
from cinefeed.sources.base import Source
from cinefeed.sources.regions import chosen_region, cropped
from cinefeed.transforms.base import ClipInfo, Parameters, Transform
from cinefeed.transforms.compose import Compose
from cinefeed.transforms.fuse import compact_repr, kind_of

_CLIPS, _DRAWS = 3, 3  # of the whole chain
_FEW, _MANY = 3, 8  # frames shown of a clip: first, middle and last; more where time is what changes
_MOST_NUMBERS = 40  # of frames, in a caption

Frames = NDArray[Any]


class Picture(NamedTuple):
    """A clip on the page: its frames side by side as a link, "" where none may be shown, and what was done to it."""

    uri: str
    name: str
    words: str


class Part(NamedTuple):
    """One transform on the page."""

    title: str
    words: str
    remark: str
    meaning: str
    in_time: bool
    pictures: Sequence[Picture]


class Chain(NamedTuple):
    """One video on the page, as all transforms make it."""

    title: str
    pictures: Sequence[Picture]


class Look:
    """One video of a manifest, open: the clip from its middle, as any transforms make it."""

    def __init__(self, source: Source, *, settings: Settings, window: tuple[float | None, float | None]) -> None:
        self.frame = settings.frame
        self._source, self._window = source, window
        clip, times = settings.clip, source.facts.times
        steady = replace(
            clip,
            position="center" if clip.position == "random" else clip.position,
            short="repeat_last" if clip.short == "pad" else clip.short,
        )
        self._numbers, _ = steady.select(times, start_seconds=window[0], end_seconds=window[1])
        facts, frame = source.facts, self.frame
        self._region = None if frame.region is None else chosen_region(facts.regions, frame.region)
        size = facts.height, facts.width
        if self._region is not None:
            size = self._region.bottom - self._region.top, self._region.right - self._region.left
        spacing = frame.target_spacing(*size, spacing_mm=facts.spacing_mm)
        self.info = ClipInfo(len(self._numbers), frame.height, frame.width, frame.channels, spacing)

    def clip(self, transforms: Sequence[Transform], parameters: Sequence[Parameters]) -> tuple[Frames, list[int]]:
        """Return the clip, (frames, height, width, channels), and the numbers of its frames in the video."""
        first, count = window_of(self._source.facts.times, *self._window)
        compose = Compose(transforms, frame=self.frame)
        numbers = compose.indices(self._numbers, parameters, count=count, first=first)
        planes = self._source.planes(numbers)
        if self._region is not None:
            planes = cropped(planes, self._region)
        frames = np.empty((*self.info[:4],), compose.dtype)
        compose.render(planes, frames, parameters, spacing_mm=self._source.facts.spacing_mm)
        return frames, numbers.tolist()


def transforms_page(manifest: Manifest, *, settings: Settings, out: str | Path) -> Path:
    """Write a page that shows what the transforms of some settings do to the clips of a manifest.

    Each transform is shown alone, at the low end, the middle and the high end of what it draws, on the middle clip of
    the first video, after those before it that draw nothing; then all together on a few videos. Of rows with several
    views the first one is shown. A private manifest has no pictures. Raises SettingError where there is no transform
    or `out` cannot be written, MissingExtraError without jinja2, and as reading the videos does.
    """
    if not settings.transforms:
        raise SettingError("there is no transform to show; write [[transforms]] tables into the settings")
    html = render(manifest, settings=settings)
    return write_html(html, out=Path(out))


def render(manifest: Manifest, *, settings: Settings) -> str:
    """Return the page as HTML."""
    rows = np.unique(np.linspace(0, len(manifest) - 1, _CLIPS).round().astype(int)).tolist()
    shown = [_of_row(manifest, row, settings=settings, with_parts=row == rows[0]) for row in rows]
    clip, frame = settings.clip, settings.frame
    compose = Compose(settings.transforms, frame=frame)
    return from_template(
        "transforms.html",
        videos=len(manifest),
        transforms=settings.transforms,
        first=shown[0][1].title,
        view=next(iter(manifest.rows.views), ""),
        private=manifest.private,
        clip=f"{clip.frames} x {frame.height} x {frame.width} x {frame.channels}",
        before=frame.dtype,
        after=compose.dtype,
        steps=[line.partition(". ")[2] for line in compose.explain().splitlines()],
        parts=shown[0][0],
        chains=[chain for _, chain in shown],
    )


def _of_row(manifest: Manifest, row: int, *, settings: Settings, with_parts: bool) -> tuple[list[Part], Chain]:
    """Return what the page shows of one video: each transform alone if `with_parts`, and all of them."""
    rows = manifest.rows
    view = next(iter(rows.views), "")
    try:
        with rows.open(row, channels=settings.frame.channels, view=view) as source:
            look = Look(source, settings=settings, window=rows.window(row, view=view))
            parts = _parts(look, settings.transforms, private=rows.private) if with_parts else []
            return parts, _chain(look, settings, row, title=rows.shown(row, view=view), private=rows.private)
    except CinefeedError as error:
        error.args = (f"row {row}, {rows.shown(row, view=view)}: {rows.nameless(str(error), row, view=view)}",)
        raise


def _parts(look: Look, transforms: Sequence[Transform], *, private: bool) -> list[Part]:
    parts: list[Part] = []
    before: list[tuple[Transform, Parameters]] = []  # those that draw nothing: a later one may count on them
    for transform in transforms:
        for each, remark in single([transform]):
            ways = graded(each, look.info)
            chains = [("as it is", [*before], "")]
            chains += [
                (name, [*before, (each, drawn)], parameters_in_words(drawn) or "nothing is drawn")
                for name, drawn in ways
            ]
            in_time = kind_of(each) == "time"
            pictures = _pictures(look, chains, in_time=in_time, private=private)
            parts.append(
                Part(compact_repr(each), _plain(summary(each)), remark, _plain(meaning(each)), in_time, pictures),
            )
        if not hasattr(transform, "members") and len(ways) == 1:
            before.append((transform, ways[0][1]))
    return parts


def _chain(look: Look, settings: Settings, row: int, *, title: str, private: bool) -> Chain:
    transforms = settings.transforms
    chains: list[tuple[str, list[tuple[Transform, Parameters]], str]] = [("as it is", [], "")]
    for number in range(_DRAWS):
        rng = rng_for(settings.feed.seed, stage=Stage.AUGMENT, position=row * _DRAWS + number)
        drawn = [each.sample(rng, look.info) for each in transforms]
        words = " · ".join(
            f"{type(each).__name__} {parameters_in_words(own)}"
            for each, own in _applied(zip(transforms, drawn, strict=True))
            if own
        )
        chains.append((f"draw {number + 1}", [*zip(transforms, drawn, strict=True)], words))
    in_time = any(kind_of(each) == "time" for each, _ in single(transforms))
    return Chain(title, _pictures(look, chains, in_time=in_time, private=private))


def _applied(pairs: Any) -> Any:
    """Yield transforms with their parameters, what choices chose in their place."""
    for transform, drawn in pairs:
        if hasattr(transform, "select"):
            yield from _applied(transform.select(drawn))
        else:
            yield transform, drawn


def _pictures(
    look: Look,
    chains: Sequence[tuple[str, list[tuple[Transform, Parameters]], str]],
    *,
    in_time: bool,
    private: bool,
) -> list[Picture]:
    """Return a picture for each name and chain, all between the same black and white; the first is to compare with."""
    if private:
        return [Picture("", name, words) for name, _, words in chains[1:]]
    pictures: list[Picture] = []
    plain: Frames | None = None
    for name, pairs, words in chains:
        frames, numbers = look.clip([each for each, _ in pairs], [drawn for _, drawn in pairs])
        plain = frames if plain is None else plain
        black, white = _ends(frames if frames.dtype != plain.dtype else plain)
        if frames.dtype != plain.dtype:
            least, most = (float(end(np.nan_to_num(frames.astype(np.float32)))) for end in (np.min, np.max))
            words = " · ".join(each for each in (words, f"{frames.dtype} from {least:.3g} to {most:.3g}") if each)
        if in_time:
            more = " ..." if len(numbers) > _MOST_NUMBERS else ""
            listed = f"frames {' '.join(map(str, numbers[:_MOST_NUMBERS]))}{more}"
            words = " · ".join(each for each in (words, listed) if each)
        pictures.append(Picture(_strip(frames, black, white, _MANY if in_time else _FEW), name, words))
    return pictures


def _ends(frames: Frames) -> tuple[float, float]:
    """Return what is shown black and white: of bytes 0 and 255, of others 0, or what is below, and the largest."""
    if frames.dtype == np.uint8 or not frames.size:
        return 0.0, 255.0
    values = np.nan_to_num(frames.astype(np.float32))
    return min(float(values.min()), 0.0), float(values.max())


def _strip(frames: Frames, black: float, white: float, most: int) -> str:
    """Return some frames of a clip side by side, the first and the last among them, as a link to a PNG in the page."""
    count, height, width, channels = frames.shape
    shown = np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int))
    values = np.nan_to_num(frames[shown].astype(np.float32))
    pixels = np.clip((values - black) * (255 / max(white - black, 1e-30)) + 0.5, 0, 255).astype(np.uint8)
    gap = max(width // 40, 1)
    strip = np.full((height, len(shown) * (width + gap) - gap, channels), 255, np.uint8)
    for place, frame in enumerate(pixels):
        strip[:, place * (width + gap) : place * (width + gap) + width] = frame
    _, png = cv2.imencode(".png", strip[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    return "data:image/png;base64," + base64.b64encode(png.tobytes()).decode()


def _plain(text: str) -> str:
    return text.replace("`", "")
