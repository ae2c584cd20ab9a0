"""Intensity transforms that are not a function of the pixel's value alone: saturation, noise, speckle, blur."""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from cinefeed.core.arguments import check_arguments
from cinefeed.core.compiled import compiled, round_like
from cinefeed.core.errors import SettingError, did_you_mean
from cinefeed.transforms.base import TOPS, ClipInfo, Frames, Parameters, bottom_of
from cinefeed.transforms.drawing import ParameterRange, RangeSpec
from cinefeed.video.pixel_levels import PixelLevels

Fresh = Literal["frame", "clip"]

_SATURATION = ParameterRange("Saturation(factor)", neutral=1.0, lowest=0.0)
_NOISE = ParameterRange("Noise(std)", lowest=0.0, one_sided=True)
_SPECKLE = ParameterRange("Speckle(std)", lowest=0.0, one_sided=True)
_SIGMA = ParameterRange("Blur(sigma)", lowest=0.0, highest=64.0, one_sided=True)


@check_arguments()
@dataclass(frozen=True, kw_only=True, slots=True)
class Saturation:
    """Multiply the clip's colour saturation by a random factor. A factor of 0 gives grey.

    `factor=a` draws from 1 - a to 1 + a, `factor=(low, high)` from low to high. Grey clips are not affected. It changes
    the meaning if colours are measurements, as in Doppler.

    >>> Saturation(factor=1.0).apply(np.array([[[[200, 100, 0]]]], np.uint8), {"factor": 0.0}).ravel().tolist()
    [119, 119, 119]
    """

    factor: RangeSpec

    def __post_init__(self) -> None:
        _SATURATION.check(self.factor)

    def sample(self, rng: np.random.Generator, info: ClipInfo) -> Parameters:
        """Draw the factor."""
        return {"factor": _SATURATION.draw(rng, self.factor)}

    def identity(self, info: ClipInfo) -> Parameters:
        """Return a factor of 1."""
        return {"factor": 1.0}

    def apply(self, frames: Frames, parameters: Parameters, *, out: NDArray[Any] | None = None) -> Frames:
        """Return the frames with changed saturation, with the same dtype."""
        result = np.empty(frames.shape, frames.dtype) if out is None else out
        if frames.shape[3] < 3 or frames.size == 0 or parameters["factor"] == 1.0:
            np.copyto(result, frames)
            return result
        channels = frames.shape[3]
        planes = np.empty((channels, frames.size // channels), frames.dtype)
        cv2.split(np.ascontiguousarray(frames).reshape(1, -1, channels), list(planes[:, None]))
        bottom, top = bottom_of(PixelLevels(planes)), TOPS[frames.dtype]
        saturate(planes, np.float32(parameters["factor"]), np.float32(bottom), np.float32(top))
        cv2.merge(list(planes[:, None]), result.reshape(1, -1, channels))
        return result


class _Noisy:
    """Base class of noise and speckle: random numbers from a seed, drawn for each frame or the same in all."""

    __slots__ = ()
    fresh: Fresh

    @property
    def same_for_all_frames(self) -> bool:
        """Whether all frames get the same noise."""
        return self.fresh == "clip"

    def _check(self, limits: ParameterRange, std: RangeSpec) -> None:
        limits.check(std)
        if self.fresh not in get_args(Fresh):
            kind = type(self).__name__
            raise SettingError(
                f"{kind}(fresh={self.fresh!r}) is not a choice; {did_you_mean(str(self.fresh), get_args(Fresh))}"
            )

    def identity(self, info: ClipInfo) -> Parameters:
        """Return a strength of 0."""
        return {"std": 0.0, "seed": 0}

    def _noisy(self, frames: Frames, seed: int, *, shift: float, gain: float, out: NDArray[Any] | None) -> Frames:
        result = np.empty(frames.shape, frames.dtype) if out is None else out
        shape, fresh = (len(frames), math.prod(frames.shape[1:])), self.fresh == "frame"
        add_noise(
            np.ascontiguousarray(frames).reshape(shape),
            np.uint64(seed),
            fresh,
            np.float32(shift),
            np.float32(gain),
            np.float32(bottom_of(PixelLevels(frames))),
            np.float32(TOPS[frames.dtype]),
            result.reshape(shape),
        )
        return result


@check_arguments()
@dataclass(frozen=True, kw_only=True, slots=True)
class Noise(_Noisy):
    """Add normal noise of a random strength, independent in every pixel and channel.

    `std` is its standard deviation as a share of white (255, 65535, or for float32 the maximum of the clip): `std=a`
    draws from 0 to a, `std=(low, high)` from low to high. The result is clipped to the range of the dtype; float32
    frames are clipped at 0 only, and not at all if a value of the clip is below 0. `fresh="frame"` draws new noise for
    each frame, as a detector produces it; `fresh="clip"` repeats one pattern in all frames.

    >>> frames = np.full((2, 8, 8, 1), 100, np.uint8)
    >>> noisy = Noise(std=0.1, fresh="clip").apply(frames, {"std": 0.1, "seed": 3})
    >>> bool((noisy[0] == noisy[1]).all()), bool((noisy[0] == 100).all())
    (True, False)
    """

    std: RangeSpec
    fresh: Fresh = "frame"

    def __post_init__(self) -> None:
        self._check(_NOISE, self.std)

    def sample(self, rng: np.random.Generator, info: ClipInfo) -> Parameters:
        """Draw the strength, and the seed of the noise."""
        return {"std": _NOISE.draw(rng, self.std), "seed": int(rng.integers(2**53))}

    def apply(self, frames: Frames, parameters: Parameters, *, out: NDArray[Any] | None = None) -> Frames:
        """Return the frames with noise added, with the same dtype."""
        top = TOPS[frames.dtype]
        white = float(PixelLevels(frames).frame_max().max(initial=0.0)) if math.isinf(top) else top
        return self._noisy(frames, parameters["seed"], shift=parameters["std"] * white, gain=0.0, out=out)


@check_arguments()
@dataclass(frozen=True, kw_only=True, slots=True)
class Speckle(_Noisy):
    """Multiply every pixel by a random number near 1: noise that grows with brightness, as in coherent imaging.

    `std` is the standard deviation of those numbers: `std=a` draws from 0 to a, `std=(low, high)` from low to high.
    The result is clipped as that of Noise. `fresh="frame"` draws new speckle for each frame; `fresh="clip"` repeats one
    pattern in all frames.

    >>> frames = np.array([0, 100], np.uint8).reshape(1, 1, 2, 1)
    >>> Speckle(std=0.5).apply(frames, {"std": 0.5, "seed": 1}).ravel().tolist()[0]
    0
    """

    std: RangeSpec
    fresh: Fresh = "frame"

    def __post_init__(self) -> None:
        self._check(_SPECKLE, self.std)

    def sample(self, rng: np.random.Generator, info: ClipInfo) -> Parameters:
        """Draw the strength, and the seed of the speckle."""
        return {"std": _SPECKLE.draw(rng, self.std), "seed": int(rng.integers(2**53))}

    def apply(self, frames: Frames, parameters: Parameters, *, out: NDArray[Any] | None = None) -> Frames:
        """Return the frames with speckle, with the same dtype."""
        return self._noisy(frames, parameters["seed"], shift=0.0, gain=parameters["std"], out=out)


@check_arguments()
@dataclass(frozen=True, kw_only=True, slots=True)
class Blur:
    """Blur every frame with a Gaussian of random width. Pixels beyond the edge are mirrored.

    `sigma` is its standard deviation in pixels of the target frame: `sigma=a` draws from 0 to a, `sigma=(low, high)`
    from low to high.

    >>> frames = np.array([0, 0, 255, 0, 0], np.uint8).reshape(1, 1, 5, 1)
    >>> Blur(sigma=1).apply(frames, {"sigma": 0.0}).ravel().tolist()
    [0, 0, 255, 0, 0]
    """

    sigma: RangeSpec

    def __post_init__(self) -> None:
        _SIGMA.check(self.sigma)

    def sample(self, rng: np.random.Generator, info: ClipInfo) -> Parameters:
        """Draw sigma, in pixels."""
        return {"sigma": _SIGMA.draw(rng, self.sigma)}

    def identity(self, info: ClipInfo) -> Parameters:
        """Return a sigma of 0."""
        return {"sigma": 0.0}

    def apply(self, frames: Frames, parameters: Parameters) -> Frames:
        """Return the blurred frames, with the same dtype."""
        sigma = parameters["sigma"]
        result = frames.copy()
        if sigma > 0:
            size = 2 * math.ceil(3 * sigma) + 1
            for frame in result:
                frame[:] = cv2.GaussianBlur(frame, (size, size), sigma).reshape(frame.shape)
        return result


@compiled
def saturate(planes: NDArray[Any], factor: np.float32, bottom: np.float32, top: np.float32) -> None:
    """Scale the differences of red, green and blue, `planes` (3, pixels), from their grey by `factor`, in place.

    Grey is that of BT.601, as in JPEG. Splitting, this loop and merging by OpenCV take 0.4 ms for 16 x 112 x 112; a
    loop over interleaved pixels took 1.0.
    """
    reds, greens, blues = planes[0], planes[1], planes[2]
    rest = np.float32(1) - factor
    for k in range(reds.size):
        red, green, blue = np.float32(reds[k]), np.float32(greens[k]), np.float32(blues[k])
        grey = rest * (np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue)
        reds[k] = round_like(min(max(red * factor + grey, bottom), top), planes)
        greens[k] = round_like(min(max(green * factor + grey, bottom), top), planes)
        blues[k] = round_like(min(max(blue * factor + grey, bottom), top), planes)


@compiled
def _hash(number: np.uint64) -> np.uint64:
    # The last step of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): every input bit affects every output bit.
    number = (number ^ (number >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    number = (number ^ (number >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return number ^ (number >> np.uint64(31))


@compiled
def add_noise(
    pixels: NDArray[Any],
    seed: np.uint64,
    fresh: bool,
    shift: np.float32,
    gain: np.float32,
    bottom: np.float32,
    top: np.float32,
    out: NDArray[Any],
) -> None:
    """Write `pixels + n * (shift + gain * pixels)` into `out`, both (frames, size), for nearly normal numbers n.

    Each n is the scaled sum of the eight bytes of a hashed counter: mean 0, standard deviation 1, at most 4.9. With
    `fresh` each frame gets other numbers. NumPy's normal numbers alone took 6 ms for 16 x 112 x 112 x 3.
    """
    frames, size = pixels.shape
    step, bytes_of = np.uint64(0x9E3779B97F4A7C15), np.uint64(0x00FF00FF00FF00FF)
    begin = _hash(seed * step + step)
    for f in range(frames):
        values, to = pixels[f], out[f]
        counter = begin + (np.uint64(f) * np.uint64(size) * step if fresh else np.uint64(0))
        for k in range(size):
            word = _hash(counter + np.uint64(k) * step)
            pairs = (word & bytes_of) + ((word >> np.uint64(8)) & bytes_of)
            total = np.int32((pairs * np.uint64(0x0001000100010001)) >> np.uint64(48))
            number = np.float32(total - np.int32(1020)) * np.float32(1 / 209.02153)
            value = np.float32(values[k])
            to[k] = round_like(min(max(value + number * (shift + gain * value), bottom), top), out)
