"""Conformance check for sources, built-in or custom."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cinefeed.core.errors import SourceError
from cinefeed.data.manifest.columns import METADATA_COLUMNS, metadata_columns, metadata_to_row, row_to_metadata
from cinefeed.video.metadata import VideoMetadata
from cinefeed.video.planes import Planes, planes_to_array
from cinefeed.video.source import Source
from cinefeed.video.timestamps import FrameTimes

_FRAMES, _BYTES = 200, 2**27  # limit of the bytes that are read from a source: 128 MB are 41 frames of 1024 x 1024 RGB
_THREADS = 4
_PARTS = {"grey": 1, "yuv": 3, "rgb": 1}  # planes per frame


def check_source(source: Source, *, reopen: Callable[[], Source] | None = None, seed: int = 0) -> None:
    """Check that a source has all documented properties, else raise AssertionError that names the failed check.

    length:    len() equals the number of frames of the metadata
    frames:    frames read in any order, repeated, reversed, by list or array, equal those of one read in order
    history:   earlier reads and errors change neither later frames nor planes that were already returned
    errors:    an index out of range raises SourceError, and so does a closed source
    layout:    shape and dtype are those of the metadata; planes and pixels agree
    closing:   closing twice has no effect; planes that were already returned stay valid
    reopening: the metadata can be stored in the columns of a manifest, so that a file is opened again without probing

    `reopen` returns the same file, opened again, best with `stored_metadata(source.metadata)` as in a feed. With it
    these properties are checked too: a source gives the same frames if its first read is in the middle, and in four
    threads with one source each.

    A long source is checked on 200 consecutive frames, or on as many as fit into 128 MB. It is closed at the end.

    >>> import tempfile, cinefeed
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "cine.npy")
    ...     np.save(path, np.arange(24, dtype=np.uint8).reshape(6, 2, 2))
    ...     source = cinefeed.open_video(path)
    ...     check_source(source, reopen=lambda: cinefeed.open_video(path, metadata=stored_metadata(source.metadata)))
    """
    metadata = source.metadata
    must(
        len(source) == metadata.times.count > 0, f"len() is {len(source)}, metadata.times.count {metadata.times.count}"
    )
    rng = np.random.Generator(np.random.Philox(key=seed))
    count = min(len(source), _FRAMES, max(_BYTES // (metadata.height * metadata.width * 3), 1))
    start = int(rng.integers(0, len(source) - count + 1))
    reference_frames = source.read(range(start, start + count))
    must(len(reference_frames) == count, f"read returns {len(reference_frames)} frames, {count} were requested")
    _check_layout(source, reference_frames, start=start)
    requests = _requests(count, rng)
    for name, numbers in requests:
        _check_frames(source, reference_frames, numbers, start=start, name=name)
    array = np.array([count - 1, 0], np.int64)
    _must_equal(
        source.read(array + start),
        reference_frames[array],
        "a frame read by an array of indices differs from that by a list",
    )
    _check_errors(source)
    _check_frames(source, reference_frames, [0, count - 1], start=start, name="after errors")
    _check_closing(source, reference_frames, start=start)
    _check_metadata(metadata)
    if reopen is not None:
        _check_reopening(reopen, reference_frames, start=start)
        _check_threads(reopen, reference_frames, [numbers for _, numbers in requests[:8]], start=start, seed=seed)


def stored_metadata(metadata: VideoMetadata) -> VideoMetadata:
    """Return metadata after storing them in a manifest: written as JSON, then as columns of a table, and read again.

    This ensures that no data set contains pickles. Raises AssertionError if a value is not plain data.
    """
    try:
        row = json.loads(json.dumps(metadata_to_row(metadata)))
        columns = metadata_columns(pa.Table.from_pylist([row], pa.schema(METADATA_COLUMNS)))
    except (TypeError, pa.ArrowException) as error:
        raise AssertionError(f"the metadata are not plain data and cannot be stored in a manifest: {error}") from error
    metadata_read = row_to_metadata(columns or {}, 0)
    if metadata_read is None:
        raise AssertionError("the metadata cannot be read from the columns of a manifest: they have no frames")
    return metadata_read


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


def _check_frames(source: Source, reference_frames: NDArray[Any], numbers: list[int], *, start: int, name: str) -> None:
    frames = source.read([start + number for number in numbers])
    shape = (len(numbers), *reference_frames.shape[1:])
    must(frames.shape == shape, f"{name}: {len(numbers)} frames were requested, the shape is {frames.shape}")
    for place, number in enumerate(numbers):
        _must_equal(
            frames[place],
            reference_frames[number],
            f"{name}: frame {start + number} differs from the one read in order",
        )


def _check_layout(source: Source, reference_frames: NDArray[Any], *, start: int) -> None:
    metadata, some = source.metadata, reference_frames[:2]
    must(
        reference_frames.shape[1:-1] == (metadata.height, metadata.width) and reference_frames.shape[-1] in (1, 3),
        f"read returns {reference_frames.shape}, the metadata have {metadata.height} x {metadata.width}",
    )
    must(reference_frames.dtype in (np.uint8, np.uint16, np.float32), f"read returns {reference_frames.dtype}")
    planes = source.planes(range(start, start + len(some)))
    colour = planes.colour
    must(len(planes.frames) == len(some), "planes returns another number of frames than requested")
    for name in ("rotation", "mirrored", "aspect", "window"):
        actual, expected_value = getattr(colour, name), getattr(metadata, name)
        must(actual == expected_value, f"{name} is {actual} in the planes, {expected_value} in the metadata")
    stored_size = (metadata.width, metadata.height) if metadata.rotation % 180 else (metadata.height, metadata.width)
    for parts in planes.frames:
        expected = _PARTS[colour.model]
        must(len(parts) == expected, f"a {colour.model} frame has {len(parts)} planes, not {expected}")
        if metadata.aspect == 1:  # otherwise the displayed size, with square pixels, may be rounded
            message = f"the first plane is {parts[0].shape}, the stored size in the metadata is {stored_size}"
            must(parts[0].shape[:2] == stored_size, message)
        dtype = np.dtype(np.uint8 if colour.bits == 8 else np.float32 if colour.bits == 32 else np.uint16)
        types = {part.dtype for part in parts}
        must(types == {dtype}, f"planes of {colour.bits} bits are {types}, not {dtype}")
    pixels = planes_to_array(planes, channels=reference_frames.shape[-1], height=metadata.height, width=metadata.width)
    if pixels.dtype == reference_frames.dtype:  # otherwise the requested bit depth differs from the stored one
        _must_equal(pixels, some, "planes and read differ")


def _check_errors(source: Source) -> None:
    for indices in ([len(source)], [-1], [0, len(source) + 5]):
        for name in ("read", "planes"):
            must(
                _raises(getattr(source, name), indices),
                f"{name}: index {indices} of {len(source)} frames does not raise SourceError",
            )


def _check_closing(source: Source, reference_frames: NDArray[Any], *, start: int) -> None:
    """Check that planes do not change while others are read and the source is closed."""
    count = len(reference_frames)
    held = source.planes([start, start + count // 2])
    before = _copy(held)
    source.planes([start + count - 1, start])
    must(_are_equal(held, before), "planes that were already returned changed when others were read")
    source.close()
    try:
        source.close()
    except Exception as error:
        raise AssertionError(f"closing twice raises {error!r}") from error
    must(_are_equal(held, before), "planes that were already returned changed when the source was closed")
    must(_raises(source.read, [0]) and _raises(source.planes, [0]), "a closed source does not raise SourceError")


def _check_metadata(metadata: VideoMetadata) -> None:
    metadata_read = stored_metadata(metadata)
    for field in fields(VideoMetadata):
        if field.name == "tags":  # columns of the row, not used by sources
            continue
        before, after = getattr(metadata, field.name), getattr(metadata_read, field.name)
        must(_same_value(before, after), f"metadata.{field.name} is {before!r}, and {after!r} after storing it")


def _check_reopening(reopen: Callable[[], Source], reference_frames: NDArray[Any], *, start: int) -> None:
    last = len(reference_frames) - 1
    for number in (last, last // 2):
        with reopen() as again:
            frame = again.read([start + number])[0]
            _must_equal(
                frame,
                reference_frames[number],
                f"frame {start + number} differs when it is the first after opening again",
            )
        must(_raises(again.read, [start]), "the end of `with` does not close the source")


def _check_threads(
    reopen: Callable[[], Source], reference_frames: NDArray[Any], requests: list[list[int]], *, start: int, seed: int
) -> None:
    def read(thread: int) -> list[str]:
        order = np.random.Generator(np.random.Philox(key=seed + thread)).permutation(len(requests))
        with reopen() as each:
            results = [(requests[i], each.read([start + number for number in requests[i]])) for i in order]
        return [
            f"frame {start + number} differs if {_THREADS} threads read, each from its own source"
            for numbers, frames in results
            for place, number in enumerate(numbers)
            if len(frames) != len(numbers) or not _equal(frames[place], reference_frames[number])
        ]

    with ThreadPoolExecutor(_THREADS) as pool:
        for faults in pool.map(read, range(_THREADS)):
            must(not faults, next(iter(faults), ""))


def _raises(read: Callable[[Sequence[int]], object], indices: list[int]) -> bool:
    try:
        read(indices)
    except SourceError:
        return True
    return False


def _copy(planes: Planes) -> list[list[NDArray[Any]]]:
    return [[part.copy() for part in parts] for parts in planes.frames]


def _are_equal(planes: Planes, before: list[list[NDArray[Any]]]) -> bool:
    pairs = zip(planes.frames, before, strict=True)
    return all(_equal(now, then) for parts, copies in pairs for now, then in zip(parts, copies, strict=True))


def _same_value(before: Any, after: Any) -> bool:
    """Return whether two values of a metadata field are equal: times by their seconds, NaN equal to NaN."""
    if isinstance(before, FrameTimes):
        if before.listed is None and np.isnan(before.step_seconds):  # an array has no rate
            return bool(before.count == after.count and np.isnan(after.step_seconds))
        return bool(before.count == after.count and _equal(before.seconds(), after.seconds()))
    if isinstance(before, tuple):
        same = isinstance(after, tuple) and len(before) == len(after)
        return same and all(map(_same_value, before, after))
    if isinstance(before, np.ndarray | float):
        return after is not None and bool(np.array_equal(before, after, equal_nan=True))
    return bool(before == after)


def _equal(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def _must_equal(one: NDArray[Any], other: NDArray[Any], message: str) -> None:
    must(_equal(one, other), message)
