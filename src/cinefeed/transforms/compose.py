"""Rendering of clips: planes to the target frame in one interpolation, then colour, then the other transforms."""

import math
from collections.abc import Callable, Collection, Sequence
from difflib import get_close_matches
from functools import lru_cache, reduce
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cinefeed.core import html
from cinefeed.core.arguments import check_arguments, in_words
from cinefeed.core.errors import ArgumentError, SettingError, SourceError
from cinefeed.core.scratch import scratch
from cinefeed.core.text import format_count
from cinefeed.transforms import __all__ as TRANSFORM_NAMES
from cinefeed.transforms.base import ClipInfo, Frames, Parameters, Transform, output_dtype
from cinefeed.transforms.call import Call, as_transform, tried
from cinefeed.transforms.field import lanes_at, resample_at
from cinefeed.transforms.fit import Spacing, fit_inverse, fit_matrix
from cinefeed.transforms.fuse import (
    Part,
    Step,
    apply_one,
    apply_pointwise,
    compact_repr,
    fuse_maps,
    group_steps,
    kind_of,
    may_retime,
    select_parts,
)
from cinefeed.transforms.intensity_linear import Normalize
from cinefeed.transforms.resample import CropBox, Lanes, Matrix, invert, lanes_of, resample, whole_pixel_shift
from cinefeed.transforms.yuv import lanes_to_rgb
from cinefeed.video.clips import Frame
from cinefeed.video.color import Colour, cut_to_rgb, lacks_window, to_pixels, window_missing, with_window
from cinefeed.video.pixel_levels import SIZES
from cinefeed.video.planes import ContiguousPlanes, Planes
from cinefeed.video.value_range import ValueSampler, suggest_window

_Group = Sequence[NDArray[Any]] | NDArray[Any]  # planes of one size
_TYPES = (*SIZES, np.dtype(np.float32))  # dtypes that transforms accept


@check_arguments()
class Compose:
    """A sequence of transforms, fused with each other and with the fit of the frame.

    The decoded frames are read once: the fit, the rotation from the file's metadata and the geometric transforms up to
    the first other transform are one map and one interpolation. Geometric transforms after an intensity transform are
    one more interpolation. Adjacent pointwise transforms, including Normalize, are one look-up table. Transforms of
    time are applied first, at any place in the list: see `indices`. A callable
    becomes a `Call`, which is tried on a clip of noise with `frames` frames.

    >>> from cinefeed.transforms.geometry import Rotate, Shift
    >>> from cinefeed.transforms.intensity_linear import Brightness, Normalize
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
            if isinstance(transform, type):
                name = transform.__name__
                raise SettingError(f"transforms[{number}] is the class {name}; give an instance, {name}(...)")
            if hasattr(transform, "targets"):
                raise SettingError(f"transforms[{number}] is {each!r}, which mixes batches; pass it as mixing={each!r}")
            if not isinstance(transform, Transform):
                names = {name.lower(): name for name in TRANSFORM_NAMES} if isinstance(transform, str) else {}
                near = get_close_matches(str(transform).lower(), names, n=1)
                hint = f"did you mean {names[near[0]]}(...)? " if near else ""
                raise ArgumentError(
                    f"transforms[{number}] is {in_words(transform)}, which has no sample() and apply(); {hint}"
                    f"give instances of transforms such as Rotate(degrees=25), or a callable that takes a clip"
                )
            if dtype not in _TYPES and kind_of(transform) != "time":
                raise SettingError(
                    f"transforms[{number}] is {transform!r}, after one that returns {dtype}; transforms take "
                    f"{', '.join(map(str, _TYPES))}; move the one that returns {dtype} to the end"
                )
            if isinstance(transform, Normalize):
                transform.check_input(frame.channels, dtype)
            transform = tried(transform, (frames, frame.height, frame.width, frame.channels), dtype)
            dtype = output_dtype(transform, dtype)
            ready.append(transform)
        self.transforms = tuple(ready)
        self.frame = frame
        self.retimes = any(map(may_retime, self.transforms))  # whether `indices` may change anything

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of rendered clips: that of the frame, unless a transform such as Normalize changes it."""
        return reduce(lambda dtype, each: output_dtype(each, dtype), self.transforms, np.dtype(self.frame.dtype))

    def sample(
        self, rng: np.random.Generator, *, frames: int, spacing_mm: tuple[float, float] | None = None
    ) -> list[Parameters]:
        """Return the parameters of one clip of `frames` frames: one plain dict per transform.

        `spacing_mm` is the pixel size of the target, (down, across), or None if unknown (see `Frame.target_spacing`).
        """
        info = ClipInfo(frames, self.frame.height, self.frame.width, self.frame.channels, spacing_mm)
        return [transform.sample(rng, info) for transform in self.transforms]

    def indices(
        self, indices: NDArray[np.int64], parameters: Sequence[Parameters], *, count: int, first: int = 0
    ) -> NDArray[np.int64]:
        """Return the frame indices after the transforms of time.

        They stay within the `count` frames that start at `first`. Pass `indices` without padding frames.
        """
        if len(indices) == 0:
            return indices
        for transform, own_parameters in select_parts(self.transforms, parameters):
            if kind_of(transform) == "time":
                indices = transform.indices(indices - first, own_parameters, count) + first
        return indices

    def render(
        self,
        planes: Planes,
        out: Frames,
        parameters: Sequence[Parameters],
        *,
        spacing_mm: tuple[float, float] | None = None,
    ) -> None:
        """Render a clip from decoded planes into `out`, (frames, height, width, channels) of `dtype`.

        `planes` are those of the frames from `indices`. `spacing_mm` is the pixel size of the displayed video, (down,
        across), which Frame(spacing_mm=...) needs.

        Raises SourceError if the frames differ in size or a pixel is NaN or infinite, ClipError if a pixel size is
        needed and unknown, SettingError if a window is needed and there is none (see Frame).
        """
        if len(parameters) != len(self.transforms):
            raise SettingError(
                f"{len(parameters)} sets of parameters for {len(self.transforms)} transforms; pass those of sample()"
            )
        if not planes.frames:
            return
        if planes.colour.open_scale:
            planes = _with_frame_window(planes, self.frame)
        steps = group_steps(select_parts(self.transforms, parameters))
        leading_moves = steps.pop(0).parts if steps and steps[0].kind == "geometry" else []
        direct = not steps and out.flags.c_contiguous
        clip = out if direct else scratch("fitted", out.shape, self.frame.dtype)
        self._fit(planes, clip, leading_moves, spacing_mm)
        for step in steps:
            last = step is steps[-1]
            clip = self._apply(step, clip, out if last and out.flags.c_contiguous else None)
        if clip is not out:
            np.copyto(out, clip, casting="no")

    def explain(self) -> str:
        """Return a numbered list of the steps that are applied to a clip, with the transforms that are fused.

        A choice is listed as one transform. If its members are of several kinds, the selected ones are fused per clip.
        """
        lines = (f"{', '.join(names)}{': ' * bool(how)}{how}" for names, how in self.steps())
        return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, start=1))

    def steps(self) -> list[tuple[list[str], str]]:
        """Return the steps of `explain`: the transforms that are fused into each, and how they are computed."""
        nothing: Parameters = {}
        steps = group_steps((each, nothing) for each in self.transforms)
        leading_moves = steps.pop(0).parts if steps and steps[0].kind == "geometry" else []
        frame, dtype = self.frame, np.dtype(self.frame.dtype)
        scale = frame.fit if frame.spacing_mm is None else f"{frame.spacing_mm:g} mm per pixel,"
        size = f"fit ({scale} {'' if frame.spacing_mm else 'to '}{frame.height} x {frame.width})"
        lines = [
            ([compact_repr(each)], "frames selected before they are read")
            for each in self.transforms
            if kind_of(each) == "time"
        ]
        lines.append(([size, *(compact_repr(each) for each, _ in leading_moves)], "one interpolation"))
        window = "" if frame.window is None else ", black to white {:g} to {:g}".format(*frame.window)
        lines.append(([f"{format_count(frame.channels, 'channel')}, {dtype}{window}"], ""))
        for step in steps:
            input_dtype = dtype
            dtype = reduce(lambda kind, part: output_dtype(part[0], kind), step.parts, dtype)
            how = {"geometry": "one interpolation", "pointwise": "", "other": ""}[step.kind]
            if isinstance(step.parts[0][0], Call):
                how = step.parts[0][0].described
            if step.kind == "pointwise" and len(step.parts) > 1:
                how = "one look-up table" if input_dtype in SIZES else "one after the other"
                how += f", to {dtype}" if dtype != input_dtype else ""
            lines.append(([compact_repr(each) for each, _ in step.parts], how))
        return lines

    def __repr__(self) -> str:
        transforms = ", ".join(map(compact_repr, self.transforms))
        return f"Compose([{transforms}], frame={compact_repr(self.frame)})"

    def _repr_html_(self) -> str:
        title = f"Compose of {format_count(len(self.transforms), 'transform')}"
        return html.fragment(title, html.steps(self.steps()))

    def show(self, *, out: str | Path | None = None) -> Path | None:
        """Show the steps of `explain`; in a notebook below the cell, elsewhere as a page, see `Manifest.show`."""
        return html.display(self._repr_html_(), title="Compose", out=out)

    def _fit(self, planes: Planes, clip: Frames, leading_moves: Sequence[Part], spacing_mm: Spacing) -> None:
        """Map the planes to the target frame, moved by the leading geometric transforms, and convert their colour."""
        colour, groups = planes.colour, _of_one_size(planes)
        first_plane = groups[0][0]
        height, width = first_plane.shape[:2]
        points = None
        if leading_moves:
            move, points = fuse_maps(leading_moves, height=self.frame.height, width=self.frame.width)
            inverse = invert(move @ fit_matrix(self.frame, colour, height, width, spacing_mm))
        else:
            inverse = fit_inverse(self.frame, colour, height, width, spacing_mm)
        if _needs_no_conversion(colour, first_plane.dtype, clip):
            _resample(groups[0], inverse, points, out=clip)
            return
        corner = whole_pixel_shift(inverse) if points is None else None
        if corner is not None and clip.shape[3] == 3 and _is_croppable(planes):
            box = CropBox(*corner, *clip.shape[1:3])
            if box.fits_in(height, width):
                cut_to_rgb(groups, colour, top=box.top, left=box.left, out=clip)
                return
        moves = _moves(groups, colour, inverse)
        size = clip.shape[1:3]
        if colour.model == "yuv" and clip.shape[3] == 3:
            luma, chroma = (
                _lanes(each, points, size=size, use=use) for each, use in zip(moves, ("luma", "chroma"), strict=True)
            )
            lanes_to_rgb(luma, chroma, colour, dtype=first_plane.dtype, out=clip)
            return
        samples, inverse, options = moves[0]  # luma only, or all channels
        plane = samples[0]
        if corner == (0, 0) and isinstance(samples, np.ndarray) and samples.shape[1:3] == size:
            target_pixels = samples
        else:
            target_pixels = np.empty((len(samples), *size, plane.shape[2] if plane.ndim == 3 else 1), plane.dtype)
            _resample(samples, inverse, points, out=target_pixels, **options)
            target_pixels = target_pixels if plane.ndim == 3 else target_pixels[..., 0]
        to_pixels([target_pixels], colour, channels=self.frame.channels, out=clip)

    def _apply(self, step: Step, clip: Frames, out: Frames | None) -> Frames:
        if step.kind == "pointwise":
            return apply_pointwise(step.parts, clip, out)
        if step.kind == "other":
            return apply_one(step.parts[0], clip, out)
        result = out if out is not None and out.dtype == clip.dtype else np.empty(clip.shape, clip.dtype)
        forward, points = fuse_maps(step.parts, height=self.frame.height, width=self.frame.width)
        _resample(list(clip), invert(forward), points, out=result)
        return result


class _Move(NamedTuple):
    """Planes of one size, and the map by which they are sampled."""

    samples: _Group
    inverse: Matrix
    options: dict[str, Any]  # the value of black, and the height and width of a plane, which may be fractions


def _moves(groups: Sequence[_Group], colour: Colour, inverse: Matrix) -> list[_Move]:
    """Return the maps for luma and chroma. `inverse` maps the target to luma."""
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
    """Return the value of black in a plane, the scale from luma to the plane, and the options for sampling it."""
    # Chroma is centre-sited, as in MPEG-1, JPEG and OpenCV: its sample k covers the pixels that it represents.
    # H.264 places it half a pixel further left, but FFmpeg's `scale` (5.1 and 8.1) ignores that: compared with it,
    # centred chroma is at most 2 levels off in the files of formats/, left-sited up to 120 (test_swscale.py).
    down, across = (_subsampling(luma_size, chroma_size) for luma_size, chroma_size in zip(luma, plane, strict=True))
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


def _with_frame_window(planes: Planes, frame: Frame) -> Planes:
    """Return planes of an open scale with the frame's window. Raises if there is none, or a pixel is not finite."""
    samples = {id(each[0]): each[0] for each in list(planes.frames)}.values()  # repeats share memory
    if next(iter(samples)).dtype.kind == "f":
        _check_finite(samples)
    colour = with_window(planes.colour, frame.window)
    if lacks_window(colour, frame.dtype):
        sampler = ValueSampler(len(planes.frames))
        for number in sampler.numbers:
            sampler.add(number, planes.frames[number][0])
        values = sampler.values()
        assert values is not None
        contents = f"this clip holds numbers of {colour.bits} bits, from {values.minimum:g} to {values.maximum:g}"
        raise window_missing(frame.dtype, contents, suggest_window([(values.low, values.high)]))
    return planes._replace(colour=colour)


def _check_finite(samples: Collection[NDArray[Any]]) -> None:
    # The sum is NaN or infinite if any number is: 0.05 ms for 16 x 150 x 150, isfinite() takes 0.15. The sum of finite
    # numbers may be infinite too, so frames with such a sum are checked by isfinite().
    with np.errstate(all="ignore"):
        suspect_frames = [each for each in samples if not np.isfinite(each.sum())]
    num_not_finite = sum(int((~np.isfinite(each)).sum()) for each in suspect_frames)
    if num_not_finite:
        total = sum(each.size for each in samples)
        raise SourceError(
            f"{num_not_finite:,} of the {total:,} pixels of a clip are NaN or infinite, which would make the loss NaN; "
            "write numbers there, or leave the row out"
        )


def _needs_no_conversion(colour: Colour, dtype: np.dtype[Any], clip: NDArray[Any]) -> bool:
    """Return whether stored pixels already have the colours, range and dtype of the target."""
    layout = {"grey": 1, "rgb": 3}.get(colour.model) == clip.shape[3]
    full = colour.full_range or colour.model == "rgb"
    plain = layout and full and colour.window is None
    return plain and dtype == clip.dtype and colour.bits == 8 * dtype.itemsize


def _is_croppable(planes: Planes) -> bool:
    """Return whether `cut_to_rgb` supports these planes: integer YUV of one layout, chroma at most halved."""
    if planes.colour.model != "yuv":
        return False
    luma, blue, red = planes.frames[0]
    sizes = zip(luma.shape, blue.shape, strict=True)
    is_halved = all(2 * half - full in (0, 1) or half == full for full, half in sizes)
    if isinstance(planes.frames, ContiguousPlanes):
        return is_halved
    kinds = {tuple((plane.shape, plane.strides, plane.dtype) for plane in frame) for frame in planes.frames}
    return is_halved and len(kinds) == 1 and all(plane.strides[1] == plane.itemsize for plane in (luma, blue, red))


def _of_one_size(planes: Planes) -> Sequence[_Group]:
    """Return the planes that can be sampled together: the first of each frame, and both chroma planes."""
    frames = planes.frames
    if isinstance(frames, ContiguousPlanes):
        return frames.groups
    first_planes = [frame[0] for frame in frames]
    chroma_planes = [frame[number] for number in range(1, len(frames[0])) for frame in frames]
    return [first_planes, chroma_planes] if chroma_planes else [first_planes]


def _subsampling(luma: int, chroma: int) -> int:
    """Return the number of pixels per sample of a plane: 1, 2 or 4. Odd sizes are rounded up: 141 / 2 -> 71."""
    return next((step for step in (1, 2, 4) if -(-luma // step) == chroma), max(round(luma / chroma), 1))


def _black(colour: Colour, *, chroma: bool) -> float:
    """Return the value of black: 128 for 8-bit chroma, 16 for luma of limited range, or that of a window."""
    if colour.window is not None:
        black, white = colour.window
        return math.floor(black) if black <= white else math.ceil(black)
    step = 2.0 ** (colour.bits - 8) if colour.bits < 32 else 0.0
    if chroma:
        return 128 * step
    return 0.0 if colour.full_range or colour.model == "rgb" else 16 * step


def _can_hold(dtype: np.dtype[Any], sample: float) -> bool:
    """Return whether a plane's dtype can hold the value of black: a window may start outside its range."""
    return dtype.kind == "f" or 0 <= sample <= np.iinfo(dtype).max
