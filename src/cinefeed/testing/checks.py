"""Conformance check for transforms, built-in or custom."""

import copy
import json
from typing import Any

import numpy as np

from cinefeed.testing.sources import must
from cinefeed.transforms.base import ClipInfo, Geometric, Transform, output_dtype, writes_in_place
from cinefeed.transforms.field import pixel_centres
from cinefeed.video.pixel_levels import SIZES, PixelLevels

_TOPS = {"uint8": 255, "uint16": 65535, "float32": 255.0}
_SPACING_MM = (1.25, 0.75)


def check_transform(transform: Transform, *, channels: tuple[int, ...] = (1, 3, 4), seed: int = 0) -> None:
    """Check that a transform fulfils the protocol, else raise AssertionError that names the failed check.

    sample:     parameters are plain data, and the same for the same random generator
    apply:      is pure and deterministic, keeps the shape, returns the declared dtype, finite numbers and no negative
                pixels; works on clips of 0, 1 and 4 frames, of uint8, uint16 and float32
    frames:     equal frames stay equal, unless `same_for_all_frames` is False
    identity:   `identity(info)`, if there is one, leaves a clip unchanged, to the byte
    fusion:     a matrix has an inverse, and moving makes no pixel brighter; a curve maps each value as `apply` does;
                frame indices stay within the video

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
            if getattr(transform, "same_for_all_frames", True):
                _check_equal_frames(transform, _clip(1, count, dtype, seed), seed)
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


def _is_plain(parameters: Any) -> bool:
    """Return whether parameters are the same after JSON: a NumPy array or number is not plain data."""
    try:
        return bool(json.loads(json.dumps(parameters)) == parameters)
    except TypeError:
        return False


def _check_sample(transform: Transform, info: ClipInfo, case: str, seed: int) -> dict[str, Any]:
    parameters = transform.sample(np.random.default_rng(seed), info)
    second_sample = transform.sample(np.random.default_rng(seed), info)
    must(isinstance(parameters, dict), f"{case}: sample() must return a dict, not {type(parameters).__name__}")
    must(_is_plain(parameters), f"{case}: parameters are not plain data: {parameters!r}")
    must(parameters == second_sample, f"{case}: the same generator gave {parameters!r}, then {second_sample!r}")
    return parameters


def _check_apply(transform: Transform, clip: Any, parameters: dict[str, Any], case: str) -> None:
    clip_before, parameters_before = clip.copy(), copy.deepcopy(parameters)
    result = transform.apply(clip, parameters)
    must(np.array_equal(clip, clip_before), f"{case}: apply() changed its input")
    must(parameters == parameters_before, f"{case}: apply() changed its parameters")
    must(not np.shares_memory(result, clip) or result.size == 0, f"{case}: the result shares memory with the input")
    must(result.shape == clip.shape, f"{case}: the shape became {result.shape}")
    expected_dtype = output_dtype(transform, clip.dtype)
    must(result.dtype == expected_dtype, f"{case}: the dtype is {result.dtype}, expected {expected_dtype}")
    must(bool(np.isfinite(result).all()), f"{case}: the result is not finite")
    if output_dtype(transform, np.dtype(np.uint8)) == np.uint8:  # pixels, not numbers scaled for a model
        must(bool((result >= 0).all()), f"{case}: pixels of at least 0 became {result.min(initial=0)}")
    if _has(transform, "matrix") or _has(transform, "source_points"):
        brightest = (result.max(initial=0), clip.max(initial=0))
        must(bool(brightest[0] <= brightest[1] * 1.00001), f"{case}: moving turned {brightest[1]} into {brightest[0]}")
    must(np.array_equal(transform.apply(clip, parameters), result), f"{case}: a second call gave other pixels")
    clip.flags.writeable = False
    must(np.array_equal(transform.apply(clip, parameters), result), f"{case}: a read-only clip gave other pixels")
    if writes_in_place(transform):
        out = np.empty(clip.shape, expected_dtype)
        transform.apply(clip, parameters, out=out)  # type: ignore[call-arg]
        must(np.array_equal(out, result), f"{case}: out= gave other pixels")


def _check_identity(transform: Any, clip: Any, case: str) -> None:
    if not _has(transform, "identity"):
        return
    parameters = transform.identity(_info(clip))
    must(_is_plain(parameters), f"{case}: identity() is not plain data: {parameters!r}")
    unchanged = np.array_equal(transform.apply(clip, parameters), clip)
    must(unchanged, f"{case}: the parameters of identity(), {parameters!r}, changed the clip")


def _check_curve(transform: Any, clip: Any, parameters: dict[str, Any], case: str) -> None:
    size, channels = SIZES[clip.dtype], clip.shape[3]
    values = np.arange(size, dtype=clip.dtype).reshape(1, 1, size, 1)
    mapped_values = transform.curve(values, parameters, PixelLevels(clip))
    must(mapped_values.shape[1:3] == (1, size), f"{case}: curve() turned {values.shape} into {mapped_values.shape}")
    must(
        mapped_values.shape[0] in (1, len(clip)),
        f"{case}: curve() returned {mapped_values.shape[0]} curves for {len(clip)} frames",
    )
    must(
        mapped_values.shape[3] in (1, channels),
        f"{case}: curve() returned {mapped_values.shape[3]} channels for {channels}",
    )
    table = np.broadcast_to(mapped_values, (len(clip), 1, size, channels))
    frames = np.arange(len(clip)).reshape(-1, 1, 1, 1)
    table_result = table[frames, 0, clip, np.arange(channels)]
    must(np.array_equal(table_result, transform.apply(clip, parameters)), f"{case}: curve() and apply() differ")


def _check_equal_frames(transform: Transform, clip: Any, seed: int) -> None:
    still = np.repeat(clip, 3, axis=0)
    parameters = transform.sample(np.random.default_rng(seed), _info(still))
    result = transform.apply(still, parameters)
    must(bool((result == result[:1]).all()), f"{transform!r}: three equal frames became different")


def _check_matrix(transform: Geometric, seed: int) -> None:
    parameters = transform.sample(np.random.default_rng(seed), ClipInfo(1, 12, 17, 1, _SPACING_MM))
    matrix = transform.matrix(parameters, height=12, width=17)
    must(matrix.shape == (3, 3) and matrix.dtype == np.float64, f"{transform!r}: matrix() must be float64 (3, 3)")
    must(matrix[2].tolist() == [0, 0, 1], f"{transform!r}: matrix() must be affine")
    must(abs(np.linalg.det(matrix)) > 1e-9, f"{transform!r}: matrix() has no inverse")


def _check_points(transform: Any, seed: int) -> None:
    parameters = transform.sample(np.random.default_rng(seed), ClipInfo(1, 12, 17, 1, _SPACING_MM))
    centres = pixel_centres(12, 17)
    points = transform.source_points(centres.copy(), parameters, height=12, width=17)
    must(points.shape == centres.shape and points.dtype == np.float64, f"{transform!r}: points must be float64")
    must(bool(np.isfinite(points).all()), f"{transform!r}: points must be finite")
    half = transform.source_points(centres[:, ::2].copy(), parameters, height=12, width=17)
    must(np.allclose(half, points[:, ::2]), f"{transform!r}: the source of a point depends on other points")


def _check_indices(transform: Any, seed: int) -> None:
    for count, requested_indices in (
        (1, [0]),
        (9, [0, 2, 4, 6, 8]),
        (40, [3, 4, 5]),
        (3, [0, 1, 2, 0, 1]),
        (5, [4, 4, 4]),
    ):
        case = f"{transform!r}, frames {requested_indices} of {count}"
        for number in range(8):
            indices = np.array(requested_indices, np.int64)
            info = ClipInfo(len(requested_indices), 12, 17, 1)
            parameters = transform.sample(np.random.default_rng([seed, number]), info)
            result = transform.indices(indices, parameters, count)
            must(indices.tolist() == requested_indices, f"{case}: indices() changed its input")
            must(result.dtype == np.int64 and result.shape == indices.shape, f"{case}: indices() gave {result!r}")
            must(bool(((result >= 0) & (result < count)).all()), f"{case}: indices() left the video: {result.tolist()}")
            if _has(transform, "identity"):
                unchanged = transform.indices(indices, transform.identity(info), count)
                must(unchanged.tolist() == requested_indices, f"{case}: identity() gave {unchanged.tolist()}")


def _check_select(transform: Any, seed: int) -> None:
    for number in range(8):
        parameters = transform.sample(np.random.default_rng([seed, number]), ClipInfo(4, 12, 17, 3, _SPACING_MM))
        for member, _ in transform.select(parameters):
            must(
                any(member is each for each in transform.members),
                f"{transform!r}: select() returned {member!r}, which is not in `members`",
            )
