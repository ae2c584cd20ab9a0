"""Raw videos in packed shards: `.npy` members, memory-mapped in place.

The array has one row per frame: pixels, (frames, height, width) or (frames, height, width, 3), or the planes of a YUV
frame one after the other, (frames, samples), which are converted to pixels exactly as those of the source are.
"""

import mmap
import os
from collections.abc import Sequence
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.errors import SourceError
from cinefeed.video.color import Colour, ColourModel, Matrix
from cinefeed.video.ffmpeg.pixel_formats import plane_layout, plane_shapes, samples_of
from cinefeed.video.metadata import VideoMetadata
from cinefeed.video.orientation import stored_size
from cinefeed.video.planes import ContiguousPlanes, Planes
from cinefeed.video.source import FrameSource, frame_indices
from cinefeed.video.value_range import has_open_scale

_MAGIC, _LONGEST_HEADER = b"\x93NUMPY", 10_000  # of a .npy file


class PackedArray(FrameSource):
    """A raw video in a shard, whose position and layout are in `metadata`. Planes are views into the file.

    Raises SourceError if the shard ends before the array does, or the member is not the array of its metadata.
    """

    def __init__(self, path: Path, *, channels: int | None = None, metadata: VideoMetadata) -> None:
        super().__init__(path, metadata=metadata, channels=channels)
        assert metadata.member is not None
        self._shapes, dtype = frame_layout(metadata)
        self._sizes = [prod(shape) for shape in self._shapes]
        count, samples = len(self), sum(self._sizes)
        header = metadata.member.size - count * samples * dtype.itemsize
        data = map_member(path, metadata.member.offset, metadata.member.size)
        if data is None or not len(_MAGIC) < header < _LONGEST_HEADER or data[: len(_MAGIC)].tobytes() != _MAGIC:
            raise SourceError(
                f"{path}: has no array of {count} frames at byte {metadata.member.offset}; the shard is cut off or "
                "damaged: run 'cinefeed pack --verify'"
            )
        self._frames: NDArray[Any] | None = data[header:].view(dtype).reshape(count, samples)

    @property
    def colour(self) -> Colour:
        """How the planes are converted to pixels."""
        return packed_colour(self.metadata, planes=len(self._shapes), channels=self.channels)

    def planes(self, indices: Sequence[int] | NDArray[np.int64]) -> Planes:
        """Return the frames of `indices`, as stored; frames of pixels at equal distances are one view into the file."""
        if len(self._shapes) > 1 or self._frames is None:
            return super().planes(indices)
        numbers = frame_indices(indices, count=len(self), path=self.path)
        steps = np.diff(numbers)
        if not len(steps) or steps[0] < 1 or (steps != steps[0]).any():
            return super().planes(numbers)
        block = self._frames[numbers[0] : numbers[-1] + 1 : steps[0]]
        return Planes(ContiguousPlanes([block.reshape(len(numbers), *self._shapes[0])]), self.colour)

    def _frame(self, number: int) -> tuple[NDArray[Any], ...]:
        assert self._frames is not None
        row, planes, first = self._frames[number], [], 0
        for shape, size in zip(self._shapes, self._sizes, strict=True):
            planes.append(row[first : first + size].reshape(shape))
            first += size
            if self.channels == 1 and len(self._shapes) > 1:  # luma only
                break
        return tuple(planes)

    def close(self) -> None:
        """Close the file; planes that were returned remain valid."""
        super().close()
        self._frames = None


def packed_colour(metadata: VideoMetadata, *, planes: int, channels: int) -> Colour:
    """Return how the planes of a packed frame are converted to pixels; without the chroma planes if `channels` is 1."""
    assert metadata.member is not None
    scale, matrix, *_ = [*metadata.member.traits.split(), "full", "bt601"]
    model: ColourModel = "grey" if metadata.channels == 1 else "rgb"
    if planes > 1:
        model = "grey" if channels == 1 else "yuv"
    return Colour(
        model=model,
        bits=metadata.bits,
        full_range=scale == "full",
        matrix=cast(Matrix, matrix),
        rotation=metadata.rotation,
        mirrored=metadata.mirrored,
        aspect=metadata.aspect,
        window=metadata.window,
        window_assumed=metadata.window_assumed,
        open_scale=has_open_scale(metadata),
    )


def frame_layout(metadata: VideoMetadata) -> tuple[list[tuple[int, ...]], np.dtype[Any]]:
    """Return the shapes of the planes of a raw frame, in the order of storage, and the dtype of their samples."""
    size = stored_size(metadata.height, metadata.width, aspect=metadata.aspect, rotation=metadata.rotation)
    if metadata.pixel_format in np.sctypeDict:
        channels = () if metadata.channels == 1 else (metadata.channels,)
        return [(*size, *channels)], np.dtype(metadata.pixel_format).newbyteorder("<")
    return list(plane_shapes(metadata.pixel_format, *size)), samples_of(plane_layout(metadata.pixel_format).bits)


def map_member(path: Path, offset: int, size: int) -> NDArray[np.uint8] | None:
    """Return bytes of a file as a memory map, None if the file ends before."""
    try:
        state = os.stat(path)  # noqa: PTH116  # half the time of Path.stat
        if state.st_size < offset + size:
            return None
        identity = state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns
        # A file of its own comes from the cache of remote files, whose disk space a map would keep after its deletion.
        mapped = _shard(os.fspath(path), identity) if offset else _map_file(path)
        return np.frombuffer(mapped, np.uint8, size, offset)
    except ValueError:  # it was cut off or replaced since
        return None
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error})") from error


# A map of the whole shard is kept, because a new map costs a tenth of a millisecond of page faults per clip (16 frames
# of 128 x 170, RGB), and all threads wait while it is removed. It takes an open file, and 2 MB of page tables per GB.
@lru_cache(maxsize=64)
def _shard(path: str, _identity: tuple[int, ...]) -> mmap.mmap:
    return _map_file(path)


def _map_file(path: str | Path) -> mmap.mmap:
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123  # half the time of Path.open
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
