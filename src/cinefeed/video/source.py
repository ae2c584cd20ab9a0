"""Base types of all sources: metadata of a file, requests for frames, and frames as planes or arrays."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.errors import SourceError
from cinefeed.video.clips import PixelType
from cinefeed.video.color import Colour
from cinefeed.video.metadata import VideoMetadata
from cinefeed.video.planes import Planes, planes_to_array


class DiscoveredSample(NamedTuple):
    """A sample found by a scan: a file, a part of a file (`part`), or a folder whose frames are `files`."""

    path: str  # relative to the scanned folder, with /
    part: str | None = None
    files: tuple[str, ...] = ()  # relative to `path`, in the order of their frames
    tags: Mapping[str, str | float | None] = {}  # columns of the row: patient, study, series, ...


class Folder(Protocol):
    """A local folder, a Path, or a remote one: `folder / name` is the path of a local file."""

    def __truediv__(self, name: str, /) -> Path: ...


class Source(Protocol):
    """An open video file. It reads frames in any order; use it from one thread at a time."""

    @property
    def metadata(self) -> VideoMetadata:
        """Metadata of the file."""
        ...

    def __len__(self) -> int: ...

    def planes(self, indices: Sequence[int] | NDArray[np.int64]) -> Planes:
        """Return the frames of `indices` as planes. Raises DecodeError, or SourceError (index out of range)."""
        ...

    def read(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.generic]:
        """Return the frames of `indices`, upright, (n, height, width, channels)."""
        ...

    def close(self) -> None:
        """Close the file. Closing twice is allowed."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class FrameSource(ABC):
    """Base class of sources that read each frame on its own. Subclasses implement `_frame`."""

    def __init__(self, path: str | Path, *, metadata: VideoMetadata, channels: int | None = None) -> None:
        self.path = path if isinstance(path, Path) else Path(path)  # a copy takes 8 us
        self.metadata = metadata
        self.channels = channels or metadata.channels
        self.dtype: PixelType | None = None  # dtype that `read` returns; None: as stored
        self._closed = False

    @property
    @abstractmethod
    def colour(self) -> Colour:
        """How the planes of `_frame` are converted to pixels."""

    @abstractmethod
    def _frame(self, number: int) -> tuple[NDArray[Any], ...]:
        """Return the planes of a frame, each uint8, uint16 or float32."""

    def __len__(self) -> int:
        return self.metadata.times.count

    def planes(self, indices: Sequence[int] | NDArray[np.int64]) -> Planes:
        """Return the frames of `indices`, as stored; repeated frames share memory."""
        if self._closed:
            raise SourceError(f"{self.path}: the source is closed; open it again with open_video")
        numbers = frame_indices(indices, count=len(self), path=self.path).tolist()
        ready = {number: self._frame(number) for number in sorted(set(numbers))}
        return Planes([ready[number] for number in numbers], self.colour)

    def read(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[Any]:
        """Return the frames of `indices`, upright and converted, (n, height, width, channels)."""
        height, width = self.metadata.height, self.metadata.width
        return planes_to_array(
            self.planes(indices), channels=self.channels, height=height, width=width, dtype=self.dtype
        )

    def close(self) -> None:
        """Close the file; planes that were returned remain valid."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def frame_indices(indices: Sequence[int] | NDArray[np.int64], *, count: int, path: object) -> NDArray[np.int64]:
    """Return the indices as int64 (n,). Raises SourceError if one is not in 0 ... count - 1."""
    numbers = np.asarray(indices)
    if numbers.size == 0:
        numbers = numbers.astype(np.int64).reshape(-1)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        raise SourceError(f"{path}: frames are asked for by a list of whole numbers, not {indices!r}")
    numbers = numbers.astype(np.int64)
    if numbers.size and (numbers.min() < 0 or numbers.max() >= count):
        first_invalid = int(numbers[(numbers < 0) | (numbers >= count)][0])
        raise SourceError(f"{path}: frame {first_invalid} was asked for, the file has frames 0 to {count - 1}")
    return numbers
