"""Selection of the frames of a clip, and the target frame. Arithmetic only: no video is opened here."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.arguments import check_arguments, in_words
from cinefeed.core.errors import ClipError, SettingError, did_you_mean
from cinefeed.video.timestamps import FrameTimes

Position = Literal["random", "center", "start", "spread"]
Short = Literal["repeat_last", "loop", "pad", "error"]
Fit = Literal["crop", "pad", "stretch", "none"]
PixelType = Literal["uint8", "uint16", "float32"]
RegionKind = Literal["2d", "colour", "pw", "cw", "m-mode", "other", "version"]

# Timestamps are multiples of a tick, so their sums have rounding errors only; a microsecond is far below any tick.
_TOLERANCE_SECONDS = 1e-6


def _check_choice(name: str, value: str, choices: object) -> None:
    names = get_args(choices)
    if value not in names:
        nearest = did_you_mean(getattr(value, "__name__", str(value)), names)
        raise SettingError(f"{name}={in_words(value)} is not a choice; {nearest}")


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise SettingError(f"{name}={value!r} must be a whole number of at least 1")


@check_arguments(hints=dict.fromkeys(("fps", "rate", "frame_rate"), "did you mean 'rate_hz'?"))
@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """Selection of the frames of a clip: their number, stride (or rate) and position in the video.

    frames=3, stride=2, position="start", in a video of 8:   F.F.F...   -> [0, 2, 4]
    frames=3, stride=2, position="center":                   .F.F.F..   -> [1, 3, 5]
    frames=4, position="spread":                             F.F.F.F.   -> [0, 2, 4, 6]   frame floor(i n / frames)

    `rate_hz` selects frames by time in place of `stride`: the frame that is displayed at each tick of that rate.
    `position="spread"` covers the whole video, so that 20 or 30 phases of one heart cycle become 25. `short` is for
    videos shorter than the clip, here 3 frames for a clip of 5:

    repeat_last: 0 1 2 2 2      loop: 0 1 2 0 1      pad: 0 1 2 - - (zeros, not valid)      error: raises ClipError

    >>> Clip(frames=3, stride=2, position="center").select(FrameTimes(0.0, 0.04, 8))[0].tolist()
    [1, 3, 5]
    """

    frames: int = 16
    stride: int = 1
    rate_hz: float | None = None
    position: Position = "random"
    short: Short = "repeat_last"

    def __post_init__(self) -> None:
        _check_positive("Clip(frames)", self.frames)
        _check_positive("Clip(stride)", self.stride)
        _check_choice("Clip(position)", self.position, Position)
        _check_choice("Clip(short)", self.short, Short)
        if self.rate_hz is not None:
            if not (np.isfinite(self.rate_hz) and self.rate_hz > 0):
                raise SettingError(f"Clip(rate_hz={self.rate_hz!r}) must be a positive number of frames per second")
            if self.stride != 1:
                raise SettingError("Clip takes stride or rate_hz, not both; leave one out")
        if self.position == "spread" and (self.stride != 1 or self.rate_hz is not None):
            raise SettingError("Clip(position='spread') covers the whole video; leave out stride and rate_hz")

    def select(
        self,
        times: FrameTimes,
        *,
        rng: np.random.Generator | None = None,
        share: float = 0.5,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the frame indices of one clip, int64 (frames,), and which are not padding, bool (frames,).

        Args:
            times: times of the frames of the video.
            rng: random generator, needed for `position="random"` only.
            share: place of the clip with `position="center"`, from 0 (start) to 1 (end); 0.5 is the centre.
            start_seconds: first time of the clip, counted from the container's start time, as by `ffmpeg -ss`.
            end_seconds: end of the clip; its frames have times below it.

        Raises ClipError if there is no frame, or too few with `short="error"`.
        """
        first, count = window_of(times, start_seconds, end_seconds)
        if count == 0:
            raise ClipError(
                f"there is no frame between {start_seconds} and {end_seconds} s: the video has {times.count} frames"
                + ("" if times.count == 0 else _extent(times))
            )
        if self.position == "spread":
            if count < self.frames and self.short == "error":
                raise self._too_short(self.frames, count)
            indices = np.arange(self.frames) * count // self.frames
            return indices + first, np.ones(self.frames, np.bool_)
        slack_share = share if self.position == "center" else 0.0
        if self.position == "random":
            if rng is None:
                raise SettingError("Clip(position='random') needs rng=; see cinefeed.core.rng.rng_for")
            slack_share = float(rng.random())
        if self.rate_hz is not None:
            return self._by_time(times, first, count, slack_share)
        span = (self.frames - 1) * self.stride + 1
        start = (
            min(int(slack_share * (count - span + 1)), count - span)
            if self.position == "random"
            else int(slack_share * (count - span))
        )
        start = max(start, 0)
        if start + span <= count:
            indices = np.arange(first + start, first + start + span, self.stride, dtype=np.int64)
            return indices, np.ones(self.frames, np.bool_)
        if self.short == "error":
            raise self._too_short(span, count)
        numbers = np.arange(self.frames, dtype=np.int64)
        available_count = -(-(count - start) // self.stride)
        numbers = numbers % available_count if self.short == "loop" else np.minimum(numbers, available_count - 1)
        valid = np.arange(self.frames) < available_count if self.short == "pad" else np.ones(self.frames, np.bool_)
        return first + start + numbers * self.stride, valid

    def _by_time(
        self, times: FrameTimes, first: int, count: int, slack_share: float
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        assert self.rate_hz is not None
        seconds = times.seconds()[first : first + count]
        length = float(seconds[-1] - seconds[0])
        offsets = np.arange(self.frames) / self.rate_hz
        offsets = offsets + max(length - offsets[-1], 0.0) * slack_share
        valid = offsets <= length + _TOLERANCE_SECONDS
        if not valid.all():
            if self.short == "error":
                raise ClipError(
                    f"{self.frames} frames at {self.rate_hz} Hz span {(self.frames - 1) / self.rate_hz:.3f} s, "
                    f"the video lasts {length:.3f} s; use fewer frames, a higher rate_hz, or another short="
                )
            available_count = int(valid.sum())
            offsets = (
                offsets[np.arange(self.frames) % available_count]
                if self.short == "loop"
                else np.minimum(offsets, offsets[available_count - 1])
            )
        indices = np.searchsorted(seconds, seconds[0] + offsets + _TOLERANCE_SECONDS, side="right") - 1
        return indices + first, valid if self.short == "pad" else np.ones(self.frames, np.bool_)

    def _too_short(self, span: int, count: int) -> ClipError:
        return ClipError(
            f"a clip of {self.frames} frames, stride {self.stride}, spans {span} frames, the video has {count}; "
            f"use fewer frames, or short='repeat_last', 'loop' or 'pad'"
        )


def why_too_short(clip: Clip, times: FrameTimes, start_seconds: float | None, end_seconds: float | None) -> str:
    """Return why a video, or a stretch of it, is shorter than a clip; "" if it is not.

    >>> why_too_short(Clip(frames=3, rate_hz=10), FrameTimes(0.0, 0.1, 2), None, None)
    '3 frames at 10 Hz span 0.200 s, the video lasts 0.100 s'
    """
    position: Position = "start" if clip.position == "random" else clip.position
    try:
        replace(clip, short="error", position=position).select(
            times, start_seconds=start_seconds, end_seconds=end_seconds
        )
    except ClipError as error:
        return str(error).split(";")[0]
    return ""


def _validate_window(window: object) -> tuple[float, float]:
    ends = tuple(window) if isinstance(window, tuple | list) else ()
    plain = all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends)
    if len(ends) != 2 or not plain or not np.isfinite(ends).all() or ends[0] >= ends[1]:
        raise SettingError(
            f"Frame(window={window!r}) must be two finite numbers, the smaller one first: the values of black and white"
        )
    return float(ends[0]), float(ends[1])


def window_of(times: FrameTimes, start_seconds: float | None, end_seconds: float | None) -> tuple[int, int]:
    """Return the first frame within a time window, and the number of frames in it."""
    if start_seconds is None and end_seconds is None:
        return 0, times.count
    seconds = times.seconds()
    low = 0 if start_seconds is None else int(np.searchsorted(seconds, start_seconds - _TOLERANCE_SECONDS))
    high = times.count if end_seconds is None else int(np.searchsorted(seconds, end_seconds - _TOLERANCE_SECONDS))
    return low, max(high - low, 0)


def _extent(times: FrameTimes) -> str:
    seconds = times.seconds()
    return f", from {seconds[0]:.3f} to {seconds[-1]:.3f} s"


@check_arguments(hints=dict.fromkeys(("size", "shape"), "give height= and width=, as in Frame(height=112, width=112)"))
@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """The target frame: its height, width, channels and dtype, and how other frames are fitted to it.

    Values of `fit`:

    crop:    scaled to cover the target, centred, cropped
    pad:     scaled to fit into the target, centred, zeros around it
    stretch: height and width scaled separately
    none:    not scaled, centred, cropped or padded

    `spacing_mm` is the pixel size of the target; it replaces the scale of `fit`, which has no effect and must be "crop"
    or "none".
    `Frame(height=150, width=150, spacing_mm=1.5)` shows 225 x 225 mm of every video, centred, cropped or padded with
    zeros, in one interpolation, so that sizes do not depend on the scanner. It needs the pixel size of each row (the
    manifest's columns spacing_down_mm and spacing_across_mm).

    `region` first crops to one region of an ultrasound image: the first one of a kind ("2d", "colour", "pw", "cw",
    "m-mode" or "other"), or the number of the region, from 0. The regions of features with augmented versions (kind
    "version") are these versions: a training feed draws one for each clip, an evaluation has the first, the original.

    `window` are the values of black and white, in the numbers of the files after any rescale. They become 0 and the
    full scale of `dtype` (255 for float32, which keeps fractions); values outside are clipped. A window applies to
    numbers without a fixed scale: floats, signed integers, and grey of more than 8 bits. As uint8 they need a window
    (floats and signed integers as uint16 too), unless the file has one (DICOM's VOI), which `window` overrides. A file
    that is displayed inverted (MONOCHROME1) stays inverted. 8-bit frames and colour video have a fixed scale and do not
    change. With dtype="float32" and no window, float and 16-bit numbers keep their stored values.

    >>> Frame(height=112, width=112, channels=1).matrix(224, 448).tolist()
    [[0.5, 0.0, -56.0], [0.0, 0.5, 0.0], [0.0, 0.0, 1.0]]
    """

    height: int
    width: int
    channels: int = 3
    fit: Fit = "crop"
    dtype: PixelType = "uint8"
    region: str | int | None = None
    spacing_mm: float | None = None
    window: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        _check_positive("Frame(height)", self.height)
        _check_positive("Frame(width)", self.width)
        if self.channels not in (1, 3):
            raise SettingError(f"Frame(channels={self.channels!r}) must be 1 (grey) or 3 (RGB)")
        _check_choice("Frame(fit)", self.fit, Fit)
        _check_choice("Frame(dtype)", self.dtype, PixelType)
        if isinstance(self.region, str):
            _check_choice("Frame(region)", self.region, RegionKind)
        elif self.region is not None and (type(self.region) is not int or self.region < 0):
            raise SettingError(f"Frame(region={self.region!r}) must be a kind of region, or a number of at least 0")
        if self.spacing_mm is not None:
            number = isinstance(self.spacing_mm, int | float) and not isinstance(self.spacing_mm, bool)
            if not number or not 0 < self.spacing_mm < float("inf"):
                raise SettingError(f"Frame(spacing_mm={self.spacing_mm!r}) must be a positive number of millimetres")
            if self.fit in ("pad", "stretch"):
                raise SettingError(
                    f"Frame takes spacing_mm or fit={self.fit!r}, not both, because each sets the scale; leave one out"
                )
        if self.window is not None:
            object.__setattr__(self, "window", _validate_window(self.window))

    def matrix(self, height: int, width: int, *, spacing_mm: tuple[float, float] | None = None) -> NDArray[np.float64]:
        """Return the map from a frame of `height` x `width` to the target, float64 (3, 3).

        It maps (x, y, 1) in pixels; the corner of the first pixel is (0, 0) and its centre (0.5, 0.5).
        `spacing_mm` is the pixel size of that frame, (down, across). Raises ClipError if the target has a pixel size
        and that of the frame is unknown.
        """
        down, across = self.height / height, self.width / width
        if self.spacing_mm is not None:
            if spacing_mm is None:
                raise ClipError(
                    f"Frame(spacing_mm={self.spacing_mm:g}) needs the pixel size, which is unknown for this row; fill "
                    "the manifest's columns spacing_down_mm and spacing_across_mm, or leave such rows out"
                )
            down, across = spacing_mm[0] / self.spacing_mm, spacing_mm[1] / self.spacing_mm
        elif self.fit == "crop":
            down = across = max(down, across)
        elif self.fit == "pad":
            down = across = min(down, across)
        elif self.fit == "none":
            down = across = 1.0
        left, top = (self.width - across * width) / 2, (self.height - down * height) / 2
        unscaled = self.fit == "none" or (self.spacing_mm is not None and down == across == 1.0)
        if unscaled:  # a shift by half a pixel would blur the copy
            left, top = float(np.floor(left)), float(np.floor(top))
        return np.array([[across, 0.0, left], [0.0, down, top], [0.0, 0.0, 1.0]])

    def target_spacing(
        self, height: int, width: int, *, spacing_mm: tuple[float, float] | None
    ) -> tuple[float, float] | None:
        """Return the pixel size of the target, (down, across), for a frame of `height` x `width`; None if unknown.

        >>> Frame(height=112, width=112).target_spacing(224, 448, spacing_mm=(0.5, 0.5))
        (1.0, 1.0)
        """
        if self.spacing_mm is not None:
            return self.spacing_mm, self.spacing_mm
        if spacing_mm is None:
            return None
        matrix = self.matrix(height, width)
        return float(spacing_mm[0] / matrix[1, 1]), float(spacing_mm[1] / matrix[0, 0])
