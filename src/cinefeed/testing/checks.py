"""What every transform and sampler must pass, cinefeed's own and a user's."""

import copy
import json
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cinefeed.balance import Sampler
from cinefeed.testing.sources import must
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
    must(np.array_equal(transform.apply(clip, parameters), result), f"{case}: a second time gave other pixels")
    clip.flags.writeable = False
    must(np.array_equal(transform.apply(clip, parameters), result), f"{case}: a read-only clip gave other pixels")
    if writes_in_place(transform):
        out = np.empty(clip.shape, expected)
        transform.apply(clip, parameters, out=out)  # type: ignore[call-arg]
        must(np.array_equal(out, result), f"{case}: out= gave other pixels")


def _check_frames_alike(transform: Transform, clip: Any, seed: int) -> None:
    still = np.repeat(clip, 3, axis=0)
    parameters = transform.sample(np.random.default_rng(seed), ClipInfo(*still.shape))
    result = transform.apply(still, parameters)
    must(bool((result == result[:1]).all()), f"{transform!r}: three equal frames became different")


def _check_matrix(transform: Geometric, seed: int) -> None:
    parameters = transform.sample(np.random.default_rng(seed), ClipInfo(1, 12, 17, 1))
    matrix = transform.matrix(parameters, height=12, width=17)
    must(matrix.shape == (3, 3) and matrix.dtype == np.float64, f"{transform!r}: matrix() must be float64 (3, 3)")
    must(matrix[2].tolist() == [0, 0, 1], f"{transform!r}: matrix() must be affine")
    must(abs(np.linalg.det(matrix)) > 1e-9, f"{transform!r}: matrix() cannot be inverted")


def check_sampler(sampler: Sampler, *, labels: ArrayLike, epochs: int = 40) -> None:
    """Check that a sampler keeps its promises for these labels, else raise AssertionError that names the broken one.

    Expected draws add up to a whole number; a plan holds that many draws, each row as often as expected, rounded down
    or up; it is the same for the same address, with and without batches; over the epochs each row comes as often as
    expected.

    >>> from cinefeed.balance import BalancedClasses
    >>> check_sampler(BalancedClasses(), labels=["sick"] * 3 + ["well"] * 20)
    """
    expected = sampler.expected_draws(labels)
    rows = len(np.asarray(labels))
    must(expected.shape == (rows,), f"{sampler!r}: expected draws are {expected.shape}, the labels ({rows},)")
    must(abs(expected.sum() - round(expected.sum())) < 1e-6, f"{sampler!r}: expected draws add up to {expected.sum()}")
    strata, total = sampler.strata(labels), np.zeros(rows)
    for epoch in range(epochs):
        batch_size = None if epoch % 2 else 7
        case = f"{sampler!r}, epoch {epoch}, batch_size {batch_size}"
        plan = sampler.plan(labels, seed=5, epoch=epoch, batch_size=batch_size)
        again = sampler.plan(labels, seed=5, epoch=epoch, batch_size=batch_size)
        must(np.array_equal(plan.rows, again.rows), f"{case}: a second time gave another plan")
        must(len(plan) == round(expected.sum()), f"{case}: {len(plan)} draws, expected were {expected.sum():g}")
        must(np.array_equal(plan.strata, strata.numbers[plan.rows]), f"{case}: strata do not belong to the rows")
        drawn = np.bincount(plan.rows, minlength=rows)
        must(bool((drawn >= np.floor(expected + 1e-9)).all()), f"{case}: a row is drawn less than expected")
        must(bool((drawn <= np.ceil(expected - 1e-9)).all()), f"{case}: a row is drawn more than expected")
        total += drawn
    off = float(np.abs(total / epochs - expected).max())
    must(off < 6 / epochs, f"{sampler!r}: over {epochs} epochs a row is {off:.2f} draws an epoch off")
