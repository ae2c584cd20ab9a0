"""What every source must pass, cinefeed's own and a user's."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cinefeed.clips import Times
from cinefeed.errors import SourceError
from cinefeed.manifest.columns import FACTS, fact_columns, facts_to_row, row_to_facts
from cinefeed.sources.base import Facts, Planes, Source, planes_to_array

_FRAMES, _BYTES = 200, 2**27  # read of one source, whichever is less: 128 MB are 41 frames of 1024 x 1024 RGB
_THREADS = 4
_PARTS = {"grey": 1, "yuv": 3, "rgb": 1}  # planes a frame


def check_source(source: Source, *, reopen: Callable[[], Source] | None = None, seed: int = 0) -> None:
    """Check that a source keeps its promises, else raise AssertionError that names the broken one.

    length:    len() and the facts agree
    frames:    asked for in any order, repeated, reversed, by list or array, they equal those of one read in order
    history:   what was read before, or refused, changes neither later frames nor planes already handed out
    refusal:   an index out of range raises SourceError, and so does a closed source
    layout:    shape and type are those of the facts; planes and pixels agree
    closing:   twice is harmless; planes already handed out stay valid
    reopening: the facts survive the columns of a manifest, so that a file is opened again without a second look

    `reopen` returns the same file opened anew, best from `kept_facts(source.facts)` as a feed does it. It adds that
    a source whose first read is in the middle gives the same frames, and so do four threads with a source each.

    A long source is checked on 200 of its frames in a row, or on as many as fit in 128 MB. It is closed at the end.

    >>> import tempfile, cinefeed
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "cine.npy")
    ...     np.save(path, np.arange(24, dtype=np.uint8).reshape(6, 2, 2))
    ...     source = cinefeed.open_source(path)
    ...     check_source(source, reopen=lambda: cinefeed.open_source(path, facts=kept_facts(source.facts)))
    """
    facts = source.facts
    must(len(source) == facts.times.count > 0, f"len() is {len(source)}, facts.times.count {facts.times.count}")
    rng = np.random.Generator(np.random.Philox(key=seed))
    count = min(len(source), _FRAMES, max(_BYTES // (facts.height * facts.width * 3), 1))
    start = int(rng.integers(0, len(source) - count + 1))
    whole = source.read(range(start, start + count))
    must(len(whole) == count, f"read gives {len(whole)} frames, {count} were asked for")
    _check_layout(source, whole, start=start)
    requests = _requests(count, rng)
    for name, numbers in requests:
        _check_frames(source, whole, numbers, start=start, name=name)
    array = np.array([count - 1, 0], np.int64)
    _must_equal(source.read(array + start), whole[array], "asked by an array: a frame differs from the one by a list")
    _check_refusals(source)
    _check_frames(source, whole, [0, count - 1], start=start, name="after what was refused")
    _check_closing(source, whole, start=start)
    _check_facts(facts)
    if reopen is not None:
        _check_reopening(reopen, whole, start=start)
        _check_threads(reopen, whole, [numbers for _, numbers in requests[:8]], start=start, seed=seed)


def kept_facts(facts: Facts) -> Facts:
    """Return a file's facts as they come back from a manifest: through JSON, then the columns of a table.

    What makes them plain is what keeps a data set free of pickles. Raises AssertionError where a value is not plain.
    """
    try:
        row = json.loads(json.dumps(facts_to_row(facts)))
        columns = fact_columns(pa.Table.from_pylist([row], pa.schema(FACTS)))
    except (TypeError, pa.ArrowException) as error:
        raise AssertionError(f"the facts are no plain values, and cannot be kept in a manifest: {error}") from error
    kept = row_to_facts(columns or {}, 0)
    if kept is None:
        raise AssertionError("the facts do not come back from the columns of a manifest: they name no frame")
    return kept


def must(holds: bool, message: str) -> None:
    """Raise AssertionError with the message unless the condition holds."""
    if not holds:
        raise AssertionError(message)


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
        ("first again", [0]),
    ]


def _check_frames(source: Source, whole: NDArray[Any], numbers: list[int], *, start: int, name: str) -> None:
    got = source.read([start + number for number in numbers])
    must(got.shape == (len(numbers), *whole.shape[1:]), f"{name}: {len(numbers)} frames asked, {got.shape} given")
    for place, number in enumerate(numbers):
        _must_equal(got[place], whole[number], f"{name}: frame {start + number} differs from the one read in order")


def _check_layout(source: Source, whole: NDArray[Any], *, start: int) -> None:
    facts, some = source.facts, whole[:2]
    must(
        whole.shape[1:-1] == (facts.height, facts.width) and whole.shape[-1] in (1, 3),
        f"read gives {whole.shape}, the facts say {facts.height} x {facts.width}",
    )
    must(whole.dtype in (np.uint8, np.uint16, np.float32), f"read gives {whole.dtype}")
    planes = source.planes(range(start, start + len(some)))
    colour = planes.colour
    must(len(planes.frames) == len(some), "planes gives another number of frames than asked")
    for name in ("rotation", "mirrored", "aspect", "window"):
        said, known = getattr(colour, name), getattr(facts, name)
        must(said == known, f"{name} is {said} with the planes, {known} in the facts")
    stored = (facts.width, facts.height) if facts.rotation % 180 else (facts.height, facts.width)
    for parts in planes.frames:
        expected = _PARTS[colour.model]
        must(len(parts) == expected, f"a {colour.model} frame has {len(parts)} planes, not {expected}")
        if facts.aspect == 1:  # what is shown has square pixels, and may be rounded
            must(parts[0].shape[:2] == stored, f"the first plane is {parts[0].shape}, the facts say {stored} as stored")
        dtype = np.dtype(np.uint8 if colour.bits == 8 else np.float32 if colour.bits == 32 else np.uint16)
        types = {part.dtype for part in parts}
        must(types == {dtype}, f"planes of {colour.bits} bits are {types}, not {dtype}")
    pixels = planes_to_array(planes, channels=whole.shape[-1], height=facts.height, width=facts.width)
    if pixels.dtype == whole.dtype:  # else more bits were asked for than are stored
        _must_equal(pixels, some, "planes and read disagree")


def _check_refusals(source: Source) -> None:
    for wrong in ([len(source)], [-1], [0, len(source) + 5]):
        for name in ("read", "planes"):
            must(
                _refuses(getattr(source, name), wrong),
                f"{name}: index {wrong} of {len(source)} frames does not raise SourceError",
            )


def _check_closing(source: Source, whole: NDArray[Any], *, start: int) -> None:
    """Hold planes while others are read and the source is closed: they must keep what they showed."""
    count = len(whole)
    held = source.planes([start, start + count // 2])
    before = _copied(held)
    source.planes([start + count - 1, start])
    must(_unchanged(held, before), "planes already handed out changed when others were read")
    source.close()
    try:
        source.close()
    except Exception as error:
        raise AssertionError(f"closing twice raises {error!r}") from error
    must(_unchanged(held, before), "planes already handed out changed when the source was closed")
    must(_refuses(source.read, [0]) and _refuses(source.planes, [0]), "a closed source does not raise SourceError")


def _check_facts(facts: Facts) -> None:
    kept = kept_facts(facts)
    for field in fields(Facts):
        if field.name == "tags":  # columns of the row, which no source reads
            continue
        before, after = getattr(facts, field.name), getattr(kept, field.name)
        must(_alike(before, after), f"facts.{field.name} is {before!r}, and {after!r} after a manifest kept it")


def _check_reopening(reopen: Callable[[], Source], whole: NDArray[Any], *, start: int) -> None:
    last = len(whole) - 1
    for number in (last, last // 2):
        with reopen() as again:
            frame = again.read([start + number])[0]
            _must_equal(
                frame, whole[number], f"frame {start + number} differs when it is the first after opening again"
            )
        must(_refuses(again.read, [start]), "leaving `with` does not close the source")


def _check_threads(
    reopen: Callable[[], Source], whole: NDArray[Any], requests: list[list[int]], *, start: int, seed: int
) -> None:
    def read(thread: int) -> list[str]:
        order = np.random.Generator(np.random.Philox(key=seed + thread)).permutation(len(requests))
        with reopen() as each:
            given = [(requests[i], each.read([start + number for number in requests[i]])) for i in order]
        return [
            f"frame {start + number} differs where {_THREADS} threads read, each with a source of its own"
            for numbers, frames in given
            for place, number in enumerate(numbers)
            if len(frames) != len(numbers) or not _equal(frames[place], whole[number])
        ]

    with ThreadPoolExecutor(_THREADS) as pool:
        for faults in pool.map(read, range(_THREADS)):
            must(not faults, next(iter(faults), ""))


def _refuses(read: Callable[[Sequence[int]], object], indices: list[int]) -> bool:
    try:
        read(indices)
    except SourceError:
        return True
    return False


def _copied(planes: Planes) -> list[list[NDArray[Any]]]:
    return [[part.copy() for part in parts] for parts in planes.frames]


def _unchanged(planes: Planes, before: list[list[NDArray[Any]]]) -> bool:
    pairs = zip(planes.frames, before, strict=True)
    return all(_equal(now, then) for parts, copies in pairs for now, then in zip(parts, copies, strict=True))


def _alike(before: Any, after: Any) -> bool:
    """Return whether two values of a fact say the same: times by their seconds, NaN as NaN."""
    if isinstance(before, Times):
        if before.listed is None and np.isnan(before.step_seconds):  # an array knows no rate
            return bool(before.count == after.count and np.isnan(after.step_seconds))
        return bool(before.count == after.count and _equal(before.seconds(), after.seconds()))
    if isinstance(before, tuple):
        same = isinstance(after, tuple) and len(before) == len(after)
        return same and all(map(_alike, before, after))
    if isinstance(before, np.ndarray | float):
        return after is not None and bool(np.array_equal(before, after, equal_nan=True))
    return bool(before == after)


def _equal(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def _must_equal(one: NDArray[Any], other: NDArray[Any], message: str) -> None:
    must(_equal(one, other), message)
