"""What every source, transform and sampler must pass, cinefeed's own and a user's."""

import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cinefeed.balance import Sampler
from cinefeed.errors import SourceError
from cinefeed.sources.base import Source, planes_to_array
from cinefeed.transforms.base import ClipInfo, Geometric, Transform, output_dtype, writes_in_place

_TOPS = {"uint8": 255, "uint16": 65535, "float32": 255.0}


def check_source(source: Source, *, reopen: Callable[[], Source] | None = None, seed: int = 0) -> None:
    """Check that a source keeps its promises; `reopen` returns the same file opened anew, for two checks more.

    Length and facts agree; frames asked for in any order, repeated, reversed or one by one equal those of one read in
    order; an index out of range and a closed source raise SourceError; planes fit the facts. A source of more than
    200 frames is checked on 200 of them in a row. The source is closed at the end. Raises AssertionError, which says
    what is wrong.
    """
    facts = source.facts
    _must(len(source) == facts.times.count > 0, f"len() is {len(source)}, facts.times.count {facts.times.count}")
    rng = np.random.Generator(np.random.Philox(key=seed))
    count = min(len(source), 200)
    start = int(rng.integers(0, len(source) - count + 1))
    whole = source.read(range(start, start + count))
    channels = whole.shape[-1]
    _must(
        whole.shape == (count, facts.height, facts.width, channels) and channels in (1, 3),
        f"read gives {whole.shape}, the facts say {count} frames of {facts.height} x {facts.width}",
    )
    _must(whole.dtype in (np.uint8, np.uint16, np.float32), f"read gives {whole.dtype}")
    for name, numbers in _requests(count, rng):
        got = source.read([start + number for number in numbers])
        _must(got.shape == (len(numbers), *whole.shape[1:]), f"{name}: {len(numbers)} frames asked, {got.shape} given")
        for place, number in enumerate(numbers):
            same = np.array_equal(got[place], whole[number], equal_nan=whole.dtype == np.float32)
            _must(same, f"{name}: frame {start + number} differs from the one read in order")
    _check_planes(source, whole[:2], start=start)
    for wrong in ([len(source)], [-1], [0, len(source) + 5]):
        _must(_refuses(source, wrong), f"index {wrong} of {len(source)} frames does not raise SourceError")
    source.close()
    source.close()
    _must(_refuses(source, [0]), "a closed source does not raise SourceError")
    if reopen is not None:
        with reopen() as again:
            same = np.array_equal(again.read([start + count - 1])[0], whole[-1], equal_nan=whole.dtype == np.float32)
            _must(same, f"frame {start + count - 1} differs after opening again")
        _must(_refuses(again, [0]), "leaving `with` does not close the source")


def _requests(count: int, rng: np.random.Generator) -> list[tuple[str, list[int]]]:
    last = count - 1
    return [
        ("first", [0]),
        ("last", [last]),
        ("none", []),
        ("reversed", list(range(last, max(last - 20, -1), -1))),
        ("repeated", [last // 2] * 3 + [0, 0]),
        ("strided", list(range(0, count, 3))[:20]),
        *((f"random {i}", rng.integers(0, count, 8).tolist()) for i in range(4)),
        *((f"single {i}", [int(rng.integers(0, count))]) for i in range(4)),
    ]


def _check_planes(source: Source, frames: NDArray[Any], *, start: int) -> None:
    facts, planes = source.facts, source.planes(range(start, start + len(frames)))
    _must(len(planes.frames) == len(frames), "planes gives another number of frames than asked")
    expected = {"grey": 1, "yuv": 3, "rgb": 1}[planes.colour.model]
    stored = (facts.width, facts.height) if facts.rotation % 180 else (facts.height, facts.width)
    for parts in planes.frames:
        _must(len(parts) == expected, f"a {planes.colour.model} frame has {len(parts)} planes, not {expected}")
        _must(parts[0].shape[:2] == stored, f"the first plane is {parts[0].shape}, the facts say {stored} as stored")
    array = planes_to_array(planes, channels=frames.shape[-1], height=facts.height, width=facts.width)
    _must(np.array_equal(array, frames, equal_nan=array.dtype == np.float32), "planes and read disagree")


def _refuses(source: Source, indices: list[int]) -> bool:
    try:
        source.read(indices)
    except SourceError:
        return True
    return False


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
    _must(isinstance(parameters, dict), f"{case}: sample() must return a dict, not {type(parameters).__name__}")
    _must(json.loads(json.dumps(parameters)) == parameters, f"{case}: parameters are no plain data: {parameters!r}")
    _must(parameters == again, f"{case}: the same generator drew {parameters!r}, then {again!r}")
    return parameters


def _check_apply(transform: Transform, clip: Any, parameters: dict[str, Any], case: str) -> None:
    before, drawn = clip.copy(), copy.deepcopy(parameters)
    result = transform.apply(clip, parameters)
    _must(np.array_equal(clip, before), f"{case}: apply() changed its input")
    _must(parameters == drawn, f"{case}: apply() changed its parameters")
    _must(not np.shares_memory(result, clip) or result.size == 0, f"{case}: the result shares memory with the input")
    _must(result.shape == clip.shape, f"{case}: the shape became {result.shape}")
    expected = output_dtype(transform, clip.dtype)
    _must(result.dtype == expected, f"{case}: the type is {result.dtype}, promised was {expected}")
    _must(bool(np.isfinite(result).all()), f"{case}: the result is not finite")
    _must(np.array_equal(transform.apply(clip, parameters), result), f"{case}: a second time gave other pixels")
    clip.flags.writeable = False
    _must(np.array_equal(transform.apply(clip, parameters), result), f"{case}: a read-only clip gave other pixels")
    if writes_in_place(transform):
        out = np.empty(clip.shape, expected)
        transform.apply(clip, parameters, out=out)  # type: ignore[call-arg]
        _must(np.array_equal(out, result), f"{case}: out= gave other pixels")


def _check_frames_alike(transform: Transform, clip: Any, seed: int) -> None:
    still = np.repeat(clip, 3, axis=0)
    parameters = transform.sample(np.random.default_rng(seed), ClipInfo(*still.shape))
    result = transform.apply(still, parameters)
    _must(bool((result == result[:1]).all()), f"{transform!r}: three equal frames became different")


def _check_matrix(transform: Geometric, seed: int) -> None:
    parameters = transform.sample(np.random.default_rng(seed), ClipInfo(1, 12, 17, 1))
    matrix = transform.matrix(parameters, height=12, width=17)
    _must(matrix.shape == (3, 3) and matrix.dtype == np.float64, f"{transform!r}: matrix() must be float64 (3, 3)")
    _must(matrix[2].tolist() == [0, 0, 1], f"{transform!r}: matrix() must be affine")
    _must(abs(np.linalg.det(matrix)) > 1e-9, f"{transform!r}: matrix() cannot be inverted")


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
    _must(expected.shape == (rows,), f"{sampler!r}: expected draws are {expected.shape}, the labels ({rows},)")
    _must(abs(expected.sum() - round(expected.sum())) < 1e-6, f"{sampler!r}: expected draws add up to {expected.sum()}")
    strata, total = sampler.strata(labels), np.zeros(rows)
    for epoch in range(epochs):
        batch_size = None if epoch % 2 else 7
        case = f"{sampler!r}, epoch {epoch}, batch_size {batch_size}"
        plan = sampler.plan(labels, seed=5, epoch=epoch, batch_size=batch_size)
        again = sampler.plan(labels, seed=5, epoch=epoch, batch_size=batch_size)
        _must(np.array_equal(plan.rows, again.rows), f"{case}: a second time gave another plan")
        _must(len(plan) == round(expected.sum()), f"{case}: {len(plan)} draws, expected were {expected.sum():g}")
        _must(np.array_equal(plan.strata, strata.numbers[plan.rows]), f"{case}: strata do not belong to the rows")
        drawn = np.bincount(plan.rows, minlength=rows)
        _must(bool((drawn >= np.floor(expected + 1e-9)).all()), f"{case}: a row is drawn less than expected")
        _must(bool((drawn <= np.ceil(expected - 1e-9)).all()), f"{case}: a row is drawn more than expected")
        total += drawn
    off = float(np.abs(total / epochs - expected).max())
    _must(off < 6 / epochs, f"{sampler!r}: over {epochs} epochs a row is {off:.2f} draws an epoch off")


def _must(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)
