"""Checks that every transform must pass, cinefeed's own and a user's."""

import copy
import json
from typing import Any

import numpy as np

from cinefeed.transforms.base import ClipInfo, Geometric, Transform, output_dtype, writes_in_place

_TOPS = {"uint8": 255, "uint16": 65535, "float32": 255.0}


def check_transform(transform: Transform, *, channels: tuple[int, ...] = (1, 3, 4), seed: int = 0) -> None:
    """Check that a transform keeps its promises, else raise AssertionError that names the broken one.

    Parameters are plain data and the same for the same generator; applying them is pure, deterministic, keeps the
    shape, gives the type promised, treats all frames alike, and works on empty and one-frame clips, on uint8, uint16
    and float32.
    """
    for count in channels:
        for dtype in map(np.dtype, _TOPS):
            for frames in (0, 1, 4):
                case = f"{transform!r}, {frames} frames, {count} channels, {dtype}"
                clip = _clip(frames, count, dtype, seed)
                parameters = _check_sample(transform, ClipInfo(*clip.shape), case, seed)
                _check_apply(transform, clip, parameters, case)
            _check_frames_alike(transform, _clip(1, count, dtype, seed), seed)
    if isinstance(transform, Geometric):
        _check_matrix(transform, seed)


def _clip(frames: int, channels: int, dtype: np.dtype[Any], seed: int) -> Any:
    rng = np.random.default_rng([seed, channels])
    return (rng.random((frames, 12, 17, channels)) * _TOPS[dtype.name]).astype(dtype)


def _check_sample(transform: Transform, info: ClipInfo, case: str, seed: int) -> dict[str, Any]:
    parameters = transform.sample(np.random.default_rng(seed), info)
    again = transform.sample(np.random.default_rng(seed), info)
    assert isinstance(parameters, dict), f"{case}: sample() must return a dict, not {type(parameters).__name__}"
    assert json.loads(json.dumps(parameters)) == parameters, f"{case}: parameters are no plain data: {parameters!r}"
    assert parameters == again, f"{case}: the same generator drew {parameters!r}, then {again!r}"
    return parameters


def _check_apply(transform: Transform, clip: Any, parameters: dict[str, Any], case: str) -> None:
    before, drawn = clip.copy(), copy.deepcopy(parameters)
    result = transform.apply(clip, parameters)
    assert np.array_equal(clip, before), f"{case}: apply() changed its input"
    assert parameters == drawn, f"{case}: apply() changed its parameters"
    assert not np.shares_memory(result, clip) or result.size == 0, f"{case}: the result shares memory with the input"
    assert result.shape == clip.shape, f"{case}: the shape became {result.shape}"
    expected = output_dtype(transform, clip.dtype)
    assert result.dtype == expected, f"{case}: the type is {result.dtype}, promised was {expected}"
    assert np.isfinite(result).all(), f"{case}: the result is not finite"
    assert np.array_equal(transform.apply(clip, parameters), result), f"{case}: a second time gave other pixels"
    clip.flags.writeable = False
    assert np.array_equal(transform.apply(clip, parameters), result), f"{case}: a read-only clip gave other pixels"
    if writes_in_place(transform):
        out = np.empty(clip.shape, expected)
        transform.apply(clip, parameters, out=out)  # type: ignore[call-arg]
        assert np.array_equal(out, result), f"{case}: out= gave other pixels"


def _check_frames_alike(transform: Transform, clip: Any, seed: int) -> None:
    still = np.repeat(clip, 3, axis=0)
    parameters = transform.sample(np.random.default_rng(seed), ClipInfo(*still.shape))
    result = transform.apply(still, parameters)
    assert (result == result[:1]).all(), f"{transform!r}: three equal frames became different"


def _check_matrix(transform: Geometric, seed: int) -> None:
    parameters = transform.sample(np.random.default_rng(seed), ClipInfo(1, 12, 17, 1))
    matrix = transform.matrix(parameters, height=12, width=17)
    assert matrix.shape == (3, 3) and matrix.dtype == np.float64, f"{transform!r}: matrix() must be float64 (3, 3)"
    assert matrix[2].tolist() == [0, 0, 1], f"{transform!r}: matrix() must be affine"
    assert abs(np.linalg.det(matrix)) > 1e-9, f"{transform!r}: matrix() cannot be inverted"
