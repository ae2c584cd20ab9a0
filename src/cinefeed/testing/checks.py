"""What every transform must pass, cinefeed's own and a user's."""

import copy
import json
from typing import Any

import numpy as np

from cinefeed.testing.sources import must
from cinefeed.transforms.base import ClipInfo, Geometric, Transform, output_dtype, writes_in_place
from cinefeed.transforms.field import pixel_centres
from cinefeed.transforms.levels import SIZES, PixelLevels

_TOPS = {"uint8": 255, "uint16": 65535, "float32": 255.0}
_SPACING_MM = (1.25, 0.75)


def check_transform(transform: Transform, *, channels: tuple[int, ...] = (1, 3, 4), seed: int = 0) -> None:
    """Check that a transform keeps its promises, else raise AssertionError that names the broken one.

    Parameters are plain data and the same for the same generator; applying them is pure, deterministic, keeps the
    shape, gives the type promised, makes no number that is not finite or, of pixels, below 0, treats all frames alike
    unless it says `alike = False`, and works on empty and one-frame clips, on uint8, uint16 and float32. Where there
    is `identity(info)`, these parameters leave a clip as it is, to the byte. A matrix can be inverted and makes
    nothing brighter than it was; a curve says of all values what `apply` makes of them; frame numbers stay within the
    video.

    >>> from cinefeed.transforms.geometry import Rotate
    >>> check_transform(Rotate(degrees=25), channels=(1,))
    """
    for count in channels:
        for dtype in map(np.dtype, _TOPS):
            for frames in (0, 1, 4):
                case = f"{transform!r}, {frames} frames, {count} channels, {dtype}"
                clip = _clip(frames, count, dtype, seed)
                parameters = _check_sample(transform, _info(clip), case, seed)
                _check_apply(transform, clip, parameters, case)
                _check_identity(transform, clip, case)
                if _has(transform, "curve") and dtype in SIZES and frames:
                    _check_curve(transform, clip, parameters, case)
            if getattr(transform, "alike", True):
                _check_frames_alike(transform, _clip(1, count, dtype, seed), seed)
    if isinstance(transform, Geometric):
        _check_matrix(transform, seed)
    if _has(transform, "source_points"):
        _check_points(transform, seed)
    if _has(transform, "indices"):
        _check_indices(transform, seed)
    if _has(transform, "select"):
        _check_select(transform, seed)


def _has(transform: object, method: str) -> bool:
    return callable(getattr(type(transform), method, None))


def _clip(frames: int, channels: int, dtype: np.dtype[Any], seed: int) -> Any:
    rng = np.random.default_rng([seed, channels])
    return (rng.random((frames, 12, 17, channels)) * _TOPS[dtype.name]).astype(dtype)


def _info(clip: Any) -> ClipInfo:
    frames, height, width, channels = clip.shape
    return ClipInfo(frames, height, width, channels, _SPACING_MM)


def _check_sample(transform: Transform, info: ClipInfo, case: str, seed: int) -> dict[str, Any]:
    parameters = transform.sample(np.random.default_rng(seed), info)
    again = transform.sample(np.random.default_rng(seed), info)
    must(isinstance(parameters, dict), f"{case}: sample() must return a dict, not {type(parameters).__name__}")
    must(json.loads(json.dumps(parameters)) == parameters, f"{case}: parameters are no plain data: {parameters!r}")
    must(parameters == again, f"{case}: the same generator drew {parameters!r}, then {again!r}")
    return parameters


def _check_apply(transform: Transform, clip: Any, parameters: dict[str, Any], case: str) -> None:
    before, drawn = clip.copy(), copy.deepcopy(parameters)
    result = transform.apply(clip, parameters)
    must(np.array_equal(clip, before), f"{case}: apply() changed its input")
    must(parameters == drawn, f"{case}: apply() changed its parameters")
    must(not np.shares_memory(result, clip) or result.size == 0, f"{case}: the result shares memory with the input")
    must(result.shape == clip.shape, f"{case}: the shape became {result.shape}")
    expected = output_dtype(transform, clip.dtype)
    must(result.dtype == expected, f"{case}: the type is {result.dtype}, promised was {expected}")
    must(bool(np.isfinite(result).all()), f"{case}: the result is not finite")
    if output_dtype(transform, np.dtype(np.uint8)) == np.uint8:  # pixels, not numbers scaled for a model
        must(bool((result >= 0).all()), f"{case}: pixels of 0 or more became {result.min(initial=0)}")
    if _has(transform, "matrix") or _has(transform, "source_points"):
        brightest = (result.max(initial=0), clip.max(initial=0))
        must(bool(brightest[0] <= brightest[1] * 1.00001), f"{case}: moving made {brightest[1]} into {brightest[0]}")
    must(np.array_equal(transform.apply(clip, parameters), result), f"{case}: a second time gave other pixels")
    clip.flags.writeable = False
    must(np.array_equal(transform.apply(clip, parameters), result), f"{case}: a read-only clip gave other pixels")
    if writes_in_place(transform):
        out = np.empty(clip.shape, expected)
        transform.apply(clip, parameters, out=out)  # type: ignore[call-arg]
        must(np.array_equal(out, result), f"{case}: out= gave other pixels")


def _check_identity(transform: Any, clip: Any, case: str) -> None:
    if not _has(transform, "identity"):
        return
    parameters = transform.identity(_info(clip))
    must(json.loads(json.dumps(parameters)) == parameters, f"{case}: identity() is no plain data: {parameters!r}")
    same = np.array_equal(transform.apply(clip, parameters), clip)
    must(same, f"{case}: identity() is {parameters!r}, and the clip is not as it was")


def _check_curve(transform: Any, clip: Any, parameters: dict[str, Any], case: str) -> None:
    size, channels = SIZES[clip.dtype], clip.shape[3]
    values = np.arange(size, dtype=clip.dtype).reshape(1, 1, size, 1)
    mapped = transform.curve(values, parameters, PixelLevels(clip))
    must(mapped.shape[1:3] == (1, size), f"{case}: curve() made {mapped.shape} of {values.shape}")
    must(mapped.shape[0] in (1, len(clip)), f"{case}: curve() made {mapped.shape[0]} curves for {len(clip)} frames")
    must(mapped.shape[3] in (1, channels), f"{case}: curve() made {mapped.shape[3]} of {channels} channels")
    table = np.broadcast_to(mapped, (len(clip), 1, size, channels))
    frames = np.arange(len(clip)).reshape(-1, 1, 1, 1)
    looked_up = table[frames, 0, clip, np.arange(channels)]
    must(np.array_equal(looked_up, transform.apply(clip, parameters)), f"{case}: curve() and apply() differ")


def _check_frames_alike(transform: Transform, clip: Any, seed: int) -> None:
    still = np.repeat(clip, 3, axis=0)
    parameters = transform.sample(np.random.default_rng(seed), _info(still))
    result = transform.apply(still, parameters)
    must(bool((result == result[:1]).all()), f"{transform!r}: three equal frames became different")


def _check_matrix(transform: Geometric, seed: int) -> None:
    parameters = transform.sample(np.random.default_rng(seed), ClipInfo(1, 12, 17, 1, _SPACING_MM))
    matrix = transform.matrix(parameters, height=12, width=17)
    must(matrix.shape == (3, 3) and matrix.dtype == np.float64, f"{transform!r}: matrix() must be float64 (3, 3)")
    must(matrix[2].tolist() == [0, 0, 1], f"{transform!r}: matrix() must be affine")
    must(abs(np.linalg.det(matrix)) > 1e-9, f"{transform!r}: matrix() cannot be inverted")


def _check_points(transform: Any, seed: int) -> None:
    parameters = transform.sample(np.random.default_rng(seed), ClipInfo(1, 12, 17, 1, _SPACING_MM))
    centres = pixel_centres(12, 17)
    points = transform.source_points(centres.copy(), parameters, height=12, width=17)
    must(points.shape == centres.shape and points.dtype == np.float64, f"{transform!r}: points must be float64")
    must(bool(np.isfinite(points).all()), f"{transform!r}: points must be finite")
    half = transform.source_points(centres[:, ::2].copy(), parameters, height=12, width=17)
    must(np.allclose(half, points[:, ::2]), f"{transform!r}: a point's source depends on the other points")


def _check_indices(transform: Any, seed: int) -> None:
    for count, asked in ((1, [0]), (9, [0, 2, 4, 6, 8]), (40, [3, 4, 5]), (3, [0, 1, 2, 0, 1]), (5, [4, 4, 4])):
        case = f"{transform!r}, frames {asked} of {count}"
        for number in range(8):
            indices = np.array(asked, np.int64)
            parameters = transform.sample(np.random.default_rng([seed, number]), ClipInfo(len(asked), 12, 17, 1))
            found = transform.indices(indices, parameters, count)
            must(indices.tolist() == asked, f"{case}: indices() changed its input")
            must(found.dtype == np.int64 and found.shape == indices.shape, f"{case}: indices() gave {found!r}")
            must(bool(((found >= 0) & (found < count)).all()), f"{case}: indices() left the video: {found.tolist()}")
            if _has(transform, "identity"):
                same = transform.indices(indices, transform.identity(ClipInfo(len(asked), 12, 17, 1)), count)
                must(same.tolist() == asked, f"{case}: identity() gave {same.tolist()}")


def _check_select(transform: Any, seed: int) -> None:
    for number in range(8):
        parameters = transform.sample(np.random.default_rng([seed, number]), ClipInfo(4, 12, 17, 3, _SPACING_MM))
        for member, _ in transform.select(parameters):
            must(any(member is each for each in transform.members), f"{transform!r}: {member!r} is not of its members")
