"""The page of transforms: each one alone, from weak to strong, on clips of a manifest, then all of them together."""

import base64
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from cinefeed.config import Settings
from cinefeed.core.errors import CinefeedError, SettingError
from cinefeed.core.rng import Stage, rng_for
from cinefeed.core.text import format_count
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.reports.formatting import page_heading
from cinefeed.reports.page import write_html
from cinefeed.reports.parameter_extremes import graded, meaning, parameters_in_words, single, summary
from cinefeed.reports.templates import from_template
from cinefeed.transforms.base import ClipInfo, Parameters, Transform
from cinefeed.transforms.compose import Compose
from cinefeed.transforms.fuse import compact_repr, kind_of
from cinefeed.video.clips import window_of
from cinefeed.video.regions import cropped, find_region
from cinefeed.video.source import Source

_CLIPS, _DRAWS = 3, 3  # of the whole chain
_FEW, _MANY = 3, 8  # frames of a clip on the page: first, middle and last; more if the transform changes time
_MOST_NUMBERS = 40  # of frames, in a caption

Frames = NDArray[Any]


class Picture(NamedTuple):
    """A clip on the page: its frames side by side as a data URI, "" if the data are private, and a caption."""

    uri: str
    name: str
    caption: str


class Part(NamedTuple):
    """One transform on the page."""

    title: str
    summary: str
    remark: str
    meaning: str
    in_time: bool
    pictures: Sequence[Picture]


class Chain(NamedTuple):
    """One video on the page, with all transforms applied."""

    title: str
    pictures: Sequence[Picture]


class Look:
    """The central clip of one open video, to which any transforms can be applied."""

    def __init__(self, source: Source, *, settings: Settings, window: tuple[float | None, float | None]) -> None:
        self.frame = settings.frame
        self._source, self._window = source, window
        clip, times = settings.clip, source.metadata.times
        fixed_clip = replace(
            clip,
            position="center" if clip.position == "random" else clip.position,
            short="repeat_last" if clip.short == "pad" else clip.short,
        )
        self._numbers, _ = fixed_clip.select(times, start_seconds=window[0], end_seconds=window[1])
        metadata, frame = source.metadata, self.frame
        self._region = None if frame.region is None else find_region(metadata.regions, frame.region)
        size = metadata.height, metadata.width
        if self._region is not None:
            size = self._region.bottom - self._region.top, self._region.right - self._region.left
        spacing = frame.target_spacing(*size, spacing_mm=metadata.spacing_mm)
        self.info = ClipInfo(len(self._numbers), frame.height, frame.width, frame.channels, spacing)

    def clip(self, transforms: Sequence[Transform], parameters: Sequence[Parameters]) -> tuple[Frames, list[int]]:
        """Return the clip, (frames, height, width, channels), and the numbers of its frames in the video."""
        first, count = window_of(self._source.metadata.times, *self._window)
        compose = Compose(transforms, frame=self.frame)
        numbers = compose.indices(self._numbers, parameters, count=count, first=first)
        planes = self._source.planes(numbers)
        if self._region is not None:
            planes = cropped(planes, self._region)
        frames = np.empty((*self.info[:4],), compose.dtype)
        compose.render(planes, frames, parameters, spacing_mm=self._source.metadata.spacing_mm)
        return frames, numbers.tolist()


def transforms_page(manifest: Manifest, *, settings: Settings, out: str | Path) -> Path:
    """Write a page that shows the effect of transforms on the clips of a manifest; return its path.

    Each transform is shown alone, at the low end, the middle and the high end of its parameters, on the central clip of
    the first video, after the preceding transforms that are not random. Then all transforms are applied to a few
    videos. For rows with several views the first view is shown. The page of a private manifest has no images. Raises
    SettingError if there is no transform or `out` cannot be written, MissingExtraError without jinja2, and the errors
    of reading the videos.
    """
    if not settings.transforms:
        raise SettingError("the settings have no transform to show; add [[transforms]] tables to the settings")
    html = render(manifest, settings=settings)
    return write_html(html, out=Path(out))


def render(manifest: Manifest, *, settings: Settings) -> str:
    """Return the page as HTML."""
    rows = np.unique(np.linspace(0, len(manifest) - 1, _CLIPS).round().astype(int)).tolist()
    videos = [_of_row(manifest, row, settings=settings, with_parts=row == rows[0]) for row in rows]
    clip, frame = settings.clip, settings.frame
    compose = Compose(settings.transforms, frame=frame)
    return from_template(
        "transforms.html",
        heading=page_heading(format_count(len(settings.transforms), "transform"), manifest),
        num_videos=len(manifest),
        transforms=settings.transforms,
        first=videos[0][1].title,
        view=next(iter(manifest.rows.views), ""),
        private=manifest.private,
        clip=f"{clip.frames} x {frame.height} x {frame.width} x {frame.channels}",
        before=frame.dtype,
        after=compose.dtype,
        steps=[line.partition(". ")[2] for line in compose.explain().splitlines()],
        parts=videos[0][0],
        chains=[chain for _, chain in videos],
    )


def _of_row(manifest: Manifest, row: int, *, settings: Settings, with_parts: bool) -> tuple[list[Part], Chain]:
    """Return each transform alone on the clip of one row, if `with_parts`, and all transforms on it."""
    rows = manifest.rows
    view = next(iter(rows.views), "")
    try:
        with rows.open(row, channels=settings.frame.channels, view=view) as source:
            look = Look(source, settings=settings, window=rows.window(row, view=view))
            parts = _parts(look, settings.transforms, private=rows.private) if with_parts else []
            return parts, _chain(look, settings, row, title=rows.display_name(row, view=view), private=rows.private)
    except CinefeedError as error:
        error.args = (f"row {row}, {rows.display_name(row, view=view)}: {rows.nameless(str(error), row, view=view)}",)
        raise


def _parts(look: Look, transforms: Sequence[Transform], *, private: bool) -> list[Part]:
    parts: list[Part] = []
    before: list[tuple[Transform, Parameters]] = []  # transforms without randomness: later ones may need their output
    for transform in transforms:
        for member, remark in single([transform]):
            strengths = graded(member, look.info)
            chains = [("original", [*before], "")]
            chains += [
                (name, [*before, (member, parameters)], parameters_in_words(parameters) or "no random parameters")
                for name, parameters in strengths
            ]
            in_time = kind_of(member) == "time"
            pictures = _pictures(look, chains, in_time=in_time, private=private)
            texts = _plain(summary(member)), remark, _plain(meaning(member))
            parts.append(Part(compact_repr(member), *texts, in_time, pictures))
        if not hasattr(transform, "members") and len(strengths) == 1:
            before.append((transform, strengths[0][1]))
    return parts


def _chain(look: Look, settings: Settings, row: int, *, title: str, private: bool) -> Chain:
    transforms = settings.transforms
    chains: list[tuple[str, list[tuple[Transform, Parameters]], str]] = [("original", [], "")]
    for number in range(_DRAWS):
        rng = rng_for(settings.feed.seed, stage=Stage.AUGMENT, position=row * _DRAWS + number)
        pairs = [(transform, transform.sample(rng, look.info)) for transform in transforms]
        caption = " · ".join(
            f"{type(transform).__name__} {parameters_in_words(parameters)}"
            for transform, parameters in _applied(pairs)
            if parameters
        )
        chains.append((f"draw {number + 1}", pairs, caption))
    in_time = any(kind_of(transform) == "time" for transform, _ in single(transforms))
    return Chain(title, _pictures(look, chains, in_time=in_time, private=private))


def _applied(pairs: Any) -> Any:
    """Yield transforms with their parameters; a choice is replaced by its selected members."""
    for transform, parameters in pairs:
        if hasattr(transform, "select"):
            yield from _applied(transform.select(parameters))
        else:
            yield transform, parameters


def _pictures(
    look: Look,
    chains: Sequence[tuple[str, list[tuple[Transform, Parameters]], str]],
    *,
    in_time: bool,
    private: bool,
) -> list[Picture]:
    """Return a picture for each chain, all with the black and white levels of the first, the original."""
    if private:
        return [Picture("", name, caption) for name, _, caption in chains[1:]]
    pictures: list[Picture] = []
    original: Frames | None = None
    for name, pairs, text in chains:
        caption = [text] if text else []
        frames, numbers = look.clip([transform for transform, _ in pairs], [parameters for _, parameters in pairs])
        original = frames if original is None else original
        black, white = _black_and_white(frames if frames.dtype != original.dtype else original)
        if frames.dtype != original.dtype:
            least, most = (float(end(np.nan_to_num(frames.astype(np.float32)))) for end in (np.min, np.max))
            caption.append(f"{frames.dtype} from {least:.3g} to {most:.3g}")
        if in_time:
            more = " ..." if len(numbers) > _MOST_NUMBERS else ""
            caption.append(f"frames {' '.join(map(str, numbers[:_MOST_NUMBERS]))}{more}")
        strip = _strip(frames, black, white, _MANY if in_time else _FEW)
        pictures.append(Picture(strip, name, " · ".join(caption)))
    return pictures


def _black_and_white(frames: Frames) -> tuple[float, float]:
    """Return the levels shown as black and white: 0 and 255 for uint8, else min(0, minimum) and the maximum."""
    if frames.dtype == np.uint8 or not frames.size:
        return 0.0, 255.0
    values = np.nan_to_num(frames.astype(np.float32))
    return min(float(values.min()), 0.0), float(values.max())


def _strip(frames: Frames, black: float, white: float, most: int) -> str:
    """Return at most `most` frames of a clip side by side, the first and the last included, as a data URI of a PNG."""
    count, height, width, channels = frames.shape
    indices = np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int))
    values = np.nan_to_num(frames[indices].astype(np.float32))
    pixels = np.clip((values - black) * (255 / max(white - black, 1e-30)) + 0.5, 0, 255).astype(np.uint8)
    gap = max(width // 40, 1)
    strip = np.full((height, len(indices) * (width + gap) - gap, channels), 255, np.uint8)
    for column, frame in enumerate(pixels):
        strip[:, column * (width + gap) : column * (width + gap) + width] = frame
    _, png = cv2.imencode(".png", strip[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    return "data:image/png;base64," + base64.b64encode(png.tobytes()).decode()


def _plain(text: str) -> str:
    return text.replace("`", "")
