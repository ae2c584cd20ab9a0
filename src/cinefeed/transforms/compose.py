"""From decoded planes to the target frame: fit and geometry in one interpolation, colour, then the other transforms."""

import math
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache, reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cinefeed.clips import Frame
from cinefeed.errors import SettingError, SourceError
from cinefeed.scratch import scratch
from cinefeed.sources.base import Colour, Planes, Stacked
from cinefeed.sources.colour import cut_to_rgb, lacks_window, to_pixels, window_missing, with_window
from cinefeed.sources.display import shown_size, square_size
from cinefeed.sources.values import ValueSampler, suggest_window
from cinefeed.transforms.base import ClipInfo, Frames, Parameters, Transform, output_dtype
from cinefeed.transforms.call import Call, as_transform, tried
from cinefeed.transforms.field import lanes_at, resample_at
from cinefeed.transforms.fuse import (
    Part,
    Step,
    apply_one,
    apply_pointwise,
    chosen,
    kind_of,
    may_retime,
    one_map,
    said,
    steps,
)
from cinefeed.transforms.levels import SIZES
from cinefeed.transforms.warp import Lanes, Matrix, Window, inverted, lanes_of, resample, whole_move
from cinefeed.transforms.yuv import lanes_to_rgb

_Group = Sequence[NDArray[Any]] | NDArray[Any]  # planes of one size
_TYPES = (*SIZES, np.dtype(np.float32))  # what transforms take


class Compose:
    """The transforms of a clip as one: drawn together, neighbours fused with each other and with the frame's fit.

    Whatever the transforms are, the decoded frames are read once: the fit, the rotation of the file's metadata and the
    geometric transforms up to the first other one are one map and one interpolation. Geometric transforms after an
    intensity transform are one more. Neighbouring pointwise transforms, a Normalize among them, are one look-up table.
    Those of time come first, wherever they stand: see `indices`. A callable is taken as `Call`, and tried on a clip of
    noise with `frames` frames.

    >>> from cinefeed.transforms.geometry import Rotate, Shift
    >>> from cinefeed.transforms.intensity import Brightness, Normalize
    >>> compose = Compose([Rotate(degrees=25), Shift(pixels=15), Brightness(factor=0.2), Normalize()],
    ...                   frame=Frame(height=112, width=112, channels=1))
    >>> print(compose.explain())
    1. fit (crop to 112 x 112), Rotate(degrees=25), Shift(pixels=15): one interpolation
    2. 1 channel, uint8
    3. Brightness(factor=0.2), Normalize(): one look-up table, to float32
    >>> parameters = compose.sample(np.random.default_rng(0), frames=16)
    >>> [sorted(each) for each in parameters]
    [['degrees'], ['down', 'right'], ['factor'], []]
    """

    def __init__(self, transforms: Sequence[Transform | Callable[..., Any]], *, frame: Frame, frames: int = 8) -> None:
        ready: list[Transform] = []
        dtype = np.dtype(frame.dtype)
        for number, each in enumerate(transforms):
            transform = as_transform(each)
            if isinstance(transform, type) or not isinstance(transform, Transform):
                raise SettingError(
                    f"transforms[{number}] is {transform!r}, which has no sample() and apply(); "
                    f"give transforms such as Rotate(degrees=25), or a callable that takes a clip"
                )
            if dtype not in _TYPES and kind_of(transform) != "time":
                raise SettingError(
                    f"transforms[{number}] is {transform!r}, after one that makes {dtype}; transforms take "
                    f"{', '.join(map(str, _TYPES))}, so {dtype} is for the last"
                )
            transform = tried(transform, (frames, frame.height, frame.width, frame.channels), dtype)
            dtype = output_dtype(transform, dtype)
            ready.append(transform)
        self.transforms = tuple(ready)
        self.frame = frame
        self.retimes = any(map(may_retime, self.transforms))  # whether `indices` may change anything

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the clips that come out: the frame's, unless a transform such as Normalize changes it."""
        return reduce(lambda dtype, each: output_dtype(each, dtype), self.transforms, np.dtype(self.frame.dtype))

    def sample(
        self, rng: np.random.Generator, *, frames: int, spacing_mm: tuple[float, float] | None = None
    ) -> list[Parameters]:
        """Draw the parameters of one clip of `frames` frames: a plain dict a transform.

        `spacing_mm` is the size of a pixel of the target, (down, across), where it is known (`Frame.target_spacing`).
        """
        info = ClipInfo(frames, self.frame.height, self.frame.width, self.frame.channels, spacing_mm)
        return [transform.sample(rng, info) for transform in self.transforms]

    def indices(
        self, indices: NDArray[np.int64], parameters: Sequence[Parameters], *, count: int, first: int = 0
    ) -> NDArray[np.int64]:
        """Return the frames that a clip shows once the transforms of time have chosen, of those that it was to show.

        They stay within the `count` frames from `first` on. Frames that are padding are left out of `indices`.
        """
        if len(indices) == 0:
            return indices
        for transform, drawn in chosen(self.transforms, parameters):
            if kind_of(transform) == "time":
                indices = transform.indices(indices - first, drawn, count) + first
        return indices

    def render(
        self,
        planes: Planes,
        out: Frames,
        parameters: Sequence[Parameters],
        *,
        spacing_mm: tuple[float, float] | None = None,
    ) -> None:
        """Make a clip of decoded planes and write it into `out`, (frames, height, width, channels) of `dtype`.

        `spacing_mm` is the size of a pixel of the video as shown, (down, across), which a Frame(spacing_mm=...) needs.
        The transforms of time have been applied already, by choosing the planes. Raises SourceError where the frames
        differ in size or a pixel is NaN or infinite, ClipError where the size of a pixel is needed and not known,
        SettingError where a window is needed and there is none (see Frame).
        """
        if len(parameters) != len(self.transforms):
            raise SettingError(
                f"{len(parameters)} sets of parameters for {len(self.transforms)} transforms; take sample()'s"
            )
        if not planes.frames:
            return
        if planes.colour.open_scale:
            planes = _ready(planes, self.frame)
        todo = steps(chosen(self.transforms, parameters))
        leading = todo.pop(0).parts if todo and todo[0].kind == "geometry" else []
        direct = not todo and out.flags.c_contiguous
        clip = out if direct else scratch("fitted", out.shape, self.frame.dtype)
        self._fit(planes, clip, leading, spacing_mm)
        for step in todo:
            last = step is todo[-1]
            clip = self._apply(step, clip, out if last and out.flags.c_contiguous else None)
        if clip is not out:
            np.copyto(out, clip, casting="no")

    def explain(self) -> str:
        """Return, line by line, what is done to a clip and what was fused.

        A choice stands for all that it may choose; where these are of several kinds, they are fused once chosen.
        """
        nothing: Parameters = {}
        todo = steps((each, nothing) for each in self.transforms)
        leading = todo.pop(0).parts if todo and todo[0].kind == "geometry" else []
        frame, dtype = self.frame, np.dtype(self.frame.dtype)
        scale = frame.fit if frame.spacing_mm is None else f"{frame.spacing_mm:g} mm a pixel,"
        size = f"fit ({scale} {'' if frame.spacing_mm else 'to '}{frame.height} x {frame.width})"
        lines = [
            f"{said(each)}: frames chosen before they are read" for each in self.transforms if kind_of(each) == "time"
        ]
        lines.append(", ".join([size, *(said(each) for each, _ in leading)]) + ": one interpolation")
        window = "" if frame.window is None else ", black to white {:g} to {:g}".format(*frame.window)
        lines.append(f"{frame.channels} channel{'s' if frame.channels > 1 else ''}, {dtype}{window}")
        for step in todo:
            before = dtype
            dtype = reduce(lambda kind, part: output_dtype(part[0], kind), step.parts, dtype)
            how = {"geometry": ": one interpolation", "pointwise": "", "other": ""}[step.kind]
            if isinstance(step.parts[0][0], Call):
                how = f": {step.parts[0][0].described}"
            if step.kind == "pointwise" and len(step.parts) > 1:
                how = ": one look-up table" if before in SIZES else ": one after the other"
                how += f", to {dtype}" if dtype != before else ""
            lines.append(", ".join(said(each) for each, _ in step.parts) + how)
        return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, start=1))

    def _fit(
        self, planes: Planes, clip: Frames, leading: Sequence[Part], spacing_mm: tuple[float, float] | None
    ) -> None:
        """Bring the planes to the target frame, moved by the leading geometric transforms, and convert their colour."""
        colour, groups = planes.colour, _of_one_size(planes)
        stored = groups[0][0]
        height, width = stored.shape[:2]
        points = None
        if leading:
            move, points = one_map(leading, height=self.frame.height, width=self.frame.width)
            inverse = inverted(move @ _fitted(self.frame, colour, height, width, spacing_mm))
        else:
            inverse = _unmoved(self.frame, colour, height, width, spacing_mm)
        if _as_they_are(colour, stored.dtype, clip):
            _resample(groups[0], inverse, points, out=clip)
            return
        corner = whole_move(inverse) if points is None else None
        if corner is not None and clip.shape[3] == 3 and _can_be_cut(planes):
            window = Window(*corner, *clip.shape[1:3])
            if window.lies_in(height, width):
                cut_to_rgb(groups, colour, top=window.top, left=window.left, out=clip)
                return
        moves = _moves(groups, colour, inverse)
        size = clip.shape[1:3]
        if colour.model == "yuv" and clip.shape[3] == 3:
            luma, chroma = (
                _lanes(each, points, size=size, use=use) for each, use in zip(moves, ("luma", "chroma"), strict=True)
            )
            lanes_to_rgb(luma, chroma, colour, dtype=stored.dtype, out=clip)
            return
        samples, inverse, options = moves[0]  # luma alone, or all that there is
        plane = samples[0]
        if corner == (0, 0) and isinstance(samples, np.ndarray) and samples.shape[1:3] == size:
            resampled = samples
        else:
            resampled = np.empty((len(samples), *size, plane.shape[2] if plane.ndim == 3 else 1), plane.dtype)
            _resample(samples, inverse, points, out=resampled, **options)
            resampled = resampled if plane.ndim == 3 else resampled[..., 0]
        to_pixels([resampled], colour, channels=self.frame.channels, out=clip)

    def _apply(self, step: Step, clip: Frames, out: Frames | None) -> Frames:
        if step.kind == "pointwise":
            return apply_pointwise(step.parts, clip, out)
        if step.kind == "other":
            return apply_one(step.parts[0], clip, out)
        moved = out if out is not None and out.dtype == clip.dtype else np.empty(clip.shape, clip.dtype)
        forward, points = one_map(step.parts, height=self.frame.height, width=self.frame.width)
        _resample(list(clip), inverted(forward), points, out=moved)
        return moved


class _Move(NamedTuple):
    """Planes of one size, and how they are sampled."""

    samples: _Group
    inverse: Matrix
    options: dict[str, Any]  # what is black, and the height and width of a plane, which need not be whole


def _moves(groups: Sequence[_Group], colour: Colour, inverse: Matrix) -> list[_Move]:
    """Return how luma and chroma are sampled, where `inverse` maps the target to luma."""
    luma, moves = groups[0][0].shape[:2], []
    for number, samples in enumerate(groups):
        plane = samples[0]
        fill, scale, options = _sampling(colour, luma, plane.shape[:2], number > 0)
        if colour.window is not None and not _can_hold(plane.dtype, fill):
            samples = [each.astype(np.float32) for each in samples]
        moves.append(_Move(samples, inverse * scale, options))
    return moves


@lru_cache(maxsize=256)
def _sampling(
    colour: Colour, luma: tuple[int, int], plane: tuple[int, int], chroma: bool
) -> tuple[float, Matrix, dict[str, Any]]:
    """Return what is black in a plane, the scale from luma to it, and how it is sampled."""
    # Chroma is centre-sited, as in MPEG-1, JPEG and OpenCV: its sample k covers the pixels that it stands for.
    # H.264 places it half a pixel further left, but FFmpeg's `scale` (5.1 and 8.1) does not look: from it,
    # centred chroma is at most 2 levels off in the files of formats/, left-sited up to 120 (test_swscale.py).
    down, across = (_subsampling(whole, part) for whole, part in zip(luma, plane, strict=True))
    scale = np.array([[1 / across], [1 / down], [1.0]])
    scale.flags.writeable = False
    fill = _black(colour, chroma=chroma)
    return fill, scale, {"fill": fill, "extent": (luma[0] / down, luma[1] / across)}


def _lanes(move: _Move, points: NDArray[np.float64] | None, *, size: tuple[int, int], use: str) -> Lanes:
    samples, inverse, options = move
    if points is None:
        return lanes_of(samples, inverse, size=size, use=use, **options)
    return lanes_at(samples, inverse, points, use=use, **options)


def _resample(
    frames: Sequence[NDArray[Any]] | NDArray[Any], inverse: Matrix, points: NDArray[np.float64] | None, **options: Any
) -> None:
    if points is None:
        resample(frames, inverse, **options)
    else:
        resample_at(frames, inverse, points, **options)


@lru_cache(maxsize=256)
def _fitted(frame: Frame, colour: Colour, height: int, width: int, spacing_mm: tuple[float, float] | None) -> Matrix:
    """Return the map from a stored frame to the target where no transform moves it: 0.1 ms of a clip's 1.5."""
    shown = shown_size(height, width, aspect=colour.aspect, rotation=colour.rotation)
    forward = frame.matrix(*shown, spacing_mm=spacing_mm) @ as_shown(colour, height=height, width=width)
    forward.flags.writeable = False
    return forward


@lru_cache(maxsize=256)
def _unmoved(frame: Frame, colour: Colour, height: int, width: int, spacing_mm: tuple[float, float] | None) -> Matrix:
    """Return the inverse of `_fitted`."""
    inverse = inverted(_fitted(frame, colour, height, width, spacing_mm))
    inverse.flags.writeable = False
    return inverse


def as_shown(colour: Colour, *, height: int, width: int) -> Matrix:
    """Return the map from a stored frame, `height` x `width`, to the frame as shown: mirrored, square pixels, upright.

    >>> as_shown(Colour(model="grey", mirrored=True, aspect=2.0), height=2, width=3).tolist()
    [[-2.0, 0.0, 6.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    rows, columns = square_size(height, width, aspect=colour.aspect)
    square = np.diag([columns / width, rows / height, 1.0])
    if colour.mirrored:
        square = square @ np.array([[-1.0, 0.0, width], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    return quarter_turns(colour.rotation, height=rows, width=columns) @ square


def quarter_turns(rotation: int, *, height: int, width: int) -> Matrix:
    """Return the map from a frame, `height` x `width`, to the upright one, `rotation` degrees counter-clockwise.

    >>> quarter_turns(90, height=2, width=3).tolist()
    [[0.0, 1.0, 0.0], [-1.0, 0.0, 3.0], [0.0, 0.0, 1.0]]
    """
    turns = {
        0: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
        90: [[0.0, 1.0, 0.0], [-1.0, 0.0, float(width)]],
        180: [[-1.0, 0.0, float(width)], [0.0, -1.0, float(height)]],
        270: [[0.0, -1.0, float(height)], [1.0, 0.0, 0.0]],
    }
    return np.array([*turns[rotation % 360], [0.0, 0.0, 1.0]])


def _ready(planes: Planes, frame: Frame) -> Planes:
    """Return planes of an open scale with the frame's window. Raises where there is none, or a pixel is no number."""
    samples = {id(each[0]): each[0] for each in list(planes.frames)}.values()  # repeats share memory
    if next(iter(samples)).dtype.kind == "f":
        _refuse_not_finite(samples)
    colour = with_window(planes.colour, frame.window)
    if lacks_window(colour, frame.dtype):
        sampler = ValueSampler(len(planes.frames))
        for number in sampler.numbers:
            sampler.add(number, planes.frames[number][0])
        values = sampler.values()
        assert values is not None
        what = f"this clip holds numbers of {colour.bits} bits, from {values.minimum:g} to {values.maximum:g}"
        raise window_missing(frame.dtype, what, suggest_window([(values.low, values.high)]))
    return planes._replace(colour=colour)


def _refuse_not_finite(samples: Collection[NDArray[Any]]) -> None:
    # A sum is NaN or infinite wherever a number is: 0.05 ms for 16 x 150 x 150, where isfinite() takes 0.15. One of
    # finite numbers may be infinite too, so what it suspects is looked at.
    with np.errstate(all="ignore"):
        suspects = [each for each in samples if not np.isfinite(each.sum())]
    wrong = sum(int((~np.isfinite(each)).sum()) for each in suspects)
    if wrong:
        total = sum(each.size for each in samples)
        raise SourceError(
            f"{wrong:,} of the {total:,} pixels of a clip are NaN or infinite, from which nothing can be learnt; write "
            "numbers there, or leave the row out"
        )


def _as_they_are(colour: Colour, dtype: np.dtype[Any], clip: NDArray[Any]) -> bool:
    """Return whether stored pixels are already what the target holds, so that they need no conversion."""
    layout = {"grey": 1, "rgb": 3}.get(colour.model) == clip.shape[3]
    full = colour.full_range or colour.model == "rgb"
    plain = layout and full and colour.window is None
    return plain and dtype == clip.dtype and colour.bits == 8 * dtype.itemsize


def _can_be_cut(planes: Planes) -> bool:
    """Return whether `cut_to_rgb` reads these: YUV of whole numbers, frames alike, chroma halved at most."""
    if planes.colour.model != "yuv":
        return False
    luma, blue, red = planes.frames[0]
    halved = all(
        2 * part - whole in (0, 1) or part == whole for whole, part in zip(luma.shape, blue.shape, strict=True)
    )
    if isinstance(planes.frames, Stacked):
        return halved
    kinds = {tuple((plane.shape, plane.strides, plane.dtype) for plane in frame) for frame in planes.frames}
    return halved and len(kinds) == 1 and all(plane.strides[1] == plane.itemsize for plane in (luma, blue, red))


def _of_one_size(planes: Planes) -> Sequence[_Group]:
    """Return the planes that can be sampled together: the first of each frame, and both chroma planes."""
    frames = planes.frames
    if isinstance(frames, Stacked):
        return frames.groups
    firsts = [frame[0] for frame in frames]
    others = [frame[number] for number in range(1, len(frames[0])) for frame in frames]
    return [firsts, others] if others else [firsts]


def _subsampling(whole: int, part: int) -> int:
    """Return how many pixels one sample of a plane stands for: 1, 2 or 4. Odd sizes are rounded up: 141 / 2 -> 71."""
    return next((step for step in (1, 2, 4) if -(-whole // step) == part), max(round(whole / part), 1))


def _black(colour: Colour, *, chroma: bool) -> float:
    """Return the sample that becomes black: 128 for 8-bit chroma, 16 for luma of limited range, a window's black."""
    if colour.window is not None:
        black, white = colour.window
        return math.floor(black) if black <= white else math.ceil(black)
    step = 2.0 ** (colour.bits - 8) if colour.bits < 32 else 0.0
    if chroma:
        return 128 * step
    return 0.0 if colour.full_range or colour.model == "rgb" else 16 * step


def _can_hold(dtype: np.dtype[Any], sample: float) -> bool:
    """Return whether a plane can hold what is black: a window may begin below or above all that is stored."""
    return dtype.kind == "f" or 0 <= sample <= np.iinfo(dtype).max
