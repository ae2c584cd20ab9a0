"""NumPy files, through a memory map: only the frames asked for are read, and no pickle ever is."""

import threading
from collections.abc import Sequence
from pathlib import Path
from tokenize import TokenError
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from cinefeed.clips import Times
from cinefeed.errors import SourceError
from cinefeed.sources.base import Facts, Planes, frame_numbers, planes_to_array
from cinefeed.sources.colour import Colour

# NumPy parses a header with ast, which in CPython 3.11 counts its depth for all threads at once: two of them at work
# have raised "SystemError: AST constructor recursion depth mismatch" in a test run.
_ONE_HEADER_AT_A_TIME = threading.Lock()
_BITS = {np.dtype(np.uint8): 8, np.dtype(np.uint16): 16, np.dtype(np.float32): 32}


class ArraySource:
    """A `.npy` video of shape (time, height, width), or with 1 (grey) or 3 (RGB) channels at its end.

    uint8, uint16 and float32 stay as they are; bool becomes 0 and 255; every other integer or float type is read as
    float32, whole numbers beyond 2**24 rounded. Raises SourceError for any other type or shape.
    """

    def __init__(self, path: str | Path, *, channels: int | None = None, facts: Facts | None = None) -> None:
        self.path = Path(path)
        self._array: NDArray[Any] | None
        self._array, found = _map(self.path)
        self.facts = facts if facts is not None else found
        if len(self) > found.times.count:
            self.close()
            raise SourceError(
                f"{self.path}: {len(self)} frames are known of it, it holds {found.times.count}; scan it again"
            )
        self.channels = channels or self.facts.channels

    def __len__(self) -> int:
        return self.facts.times.count

    def planes(self, indices: Sequence[int] | NDArray[np.int64]) -> Planes:
        """Return the frames of `indices`: views into the file where its type and order allow."""
        if self._array is None:
            raise SourceError(f"{self.path}: the source is closed; open it again with open_source")
        numbers = frame_numbers(indices, count=len(self), path=self.path)
        ready = {number: (self._frame(self._array[number]),) for number in set(numbers.tolist())}
        colour = Colour(model="grey" if self.facts.channels == 1 else "rgb", bits=self.facts.bits)
        return Planes([ready[number] for number in numbers.tolist()], colour)

    def read(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[Any]:
        """Return the frames of `indices`, (n, height, width, channels)."""
        return planes_to_array(
            self.planes(indices), channels=self.channels, height=self.facts.height, width=self.facts.width
        )

    def close(self) -> None:
        """Let go of the file; planes already handed over stay valid, and hold it until they are gone."""
        self._array = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _frame(self, stored: NDArray[Any]) -> NDArray[Any]:
        frame = stored[..., 0] if self.facts.channels == 1 and stored.ndim == 3 else stored
        if frame.dtype in _BITS:
            return np.ascontiguousarray(frame)
        if frame.dtype == np.bool_:
            return frame.astype(np.uint8) * np.uint8(255)
        return np.ascontiguousarray(frame, np.uint16 if frame.dtype == np.dtype(">u2") else np.float32)


def probe_array(path: Path) -> Facts:
    """Return the facts of a `.npy` video. Raises SourceError where it is none."""
    return _map(path)[1]


def _map(path: Path) -> tuple[NDArray[Any], Facts]:
    """Map a file into memory, and say what it holds; a file that is cut off keeps its whole frames."""
    try:
        with path.open("rb") as file:
            shape, fortran, dtype = _header(file)
            offset = file.tell()
            size = file.seek(0, 2)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, SyntaxError, TokenError) as error:
        raise SourceError(f"{path}: is no NumPy file that cinefeed reads ({error})") from error
    if dtype.kind not in "buif":
        raise SourceError(f"{path}: holds {dtype}, where integers or floats are needed (objects are never unpickled)")
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)) or 0 in shape[1:]:
        raise SourceError(
            f"{path}: has shape {shape}; a video is (time, height, width) or (time, height, width, 1 or 3)"
        )
    frame_bytes = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
    whole = min(shape[0], max(size - offset, 0) // frame_bytes)
    broken = None if whole == shape[0] else f"breaks after {whole} of {shape[0]} frames: the file is cut off"
    if whole == 0 or (fortran and broken):  # Fortran order spreads each frame over the whole file
        raise SourceError(f"{path}: no whole frame is there: {size} bytes hold {whole} of {shape[0]} frames")
    order: Literal["C", "F"] = "F" if fortran else "C"
    array = np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=(whole, *shape[1:]), order=order)
    plain = 8 if dtype == np.bool_ else 16 if dtype == np.dtype(">u2") else _BITS.get(dtype, 32)
    facts = Facts(
        height=shape[1],
        width=shape[2],
        channels=3 if len(shape) == 4 and shape[3] == 3 else 1,
        bits=plain,
        times=Times(0.0, float("nan"), whole),
        container="npy",
        codec="raw",
        pixel_format=str(dtype),
        header_frames=shape[0],
        error=broken,
    )
    return np.asarray(array), facts


def _header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"format version {version} has named fields, which no video has")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    with _ONE_HEADER_AT_A_TIME:
        shape, fortran, dtype = read(file)
    return shape, fortran, dtype
