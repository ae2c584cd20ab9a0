"""Packed videos whose frames a plug-in encodes one by one: an index of offsets, then the frames, plane by plane.

bytes 0 to 7            "CFPLANES"
then 8 (planes + 1)     where each plane begins, and where the last one ends, counted from the end of the index
then                    the encoded planes
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.errors import DecodeError, PluginError, SourceError
from cinefeed.core.plugins import invalid_plugin, load_plugin, plugins
from cinefeed.video.color import Colour
from cinefeed.video.metadata import VideoMetadata
from cinefeed.video.packed.arrays import frame_layout, map_member, packed_colour
from cinefeed.video.source import FrameSource

CONTAINER = "planes"
BUILTIN_CODECS = ("copy", "raw", "ffv1", "jpeg", "h264")
_MAGIC = b"CFPLANES"
_OFFSET = np.dtype("<u8")


@runtime_checkable
class FrameCodec(Protocol):
    """A codec of a plug-in for packed data sets: any object with these three, such as a module.

    `is_lossless` states that `decode` returns the numbers that `encode` received. A lossless codec receives planes as
    they are stored, (height, width) or (height, width, 3), of uint8, uint16 or float32; any other receives pixels of
    uint8, or uint16 if the source has more than 8 bits.
    """

    is_lossless: bool

    def encode(self, plane: NDArray[Any], /) -> bytes:
        """Return a plane as bytes, the same on every machine."""
        ...

    def decode(self, data: memoryview, shape: tuple[int, ...], dtype: np.dtype[Any], /) -> NDArray[Any]:
        """Return the plane of `encode`."""
        ...


def load_codec(name: str) -> FrameCodec | None:
    """Return the codec of a plug-in, None if no plug-in has this name. Raises PluginError."""
    plugin = plugins("codecs", builtin=(*BUILTIN_CODECS, "auto")).get(name)
    if plugin is None:
        return None
    codec = load_plugin(plugin)
    if not isinstance(codec, FrameCodec) or isinstance(codec, type):
        raise invalid_plugin(plugin, "an object with is_lossless, encode and decode")
    return codec


def write_planes(path: Path, frames: Iterable[Sequence[NDArray[Any]]], codec: FrameCodec, *, planes: int) -> int:
    """Write frames, of which there are `planes` planes in total; return how many were written."""
    offsets, count = np.zeros(planes + 1, _OFFSET), 0
    with path.open("wb") as file:
        file.write(_MAGIC + offsets.tobytes())
        for frame in frames:
            for plane in frame:
                data = codec.encode(np.ascontiguousarray(plane))
                file.write(data)
                count += 1
                if count <= planes:
                    offsets[count] = offsets[count - 1] + len(data)
        file.seek(len(_MAGIC))
        file.write(offsets.tobytes())
    return count


class PackedPlanes(FrameSource):
    """A video in a shard whose frames a plug-in decodes. Raises SourceError without it, or if the shard is damaged."""

    def __init__(self, path: Path, *, channels: int | None = None, metadata: VideoMetadata) -> None:
        super().__init__(path, metadata=metadata, channels=channels)
        assert metadata.member is not None
        codec = load_codec(metadata.codec)
        if codec is None:
            raise SourceError(
                f"{path}: is packed with the codec {metadata.codec!r} of a plug-in that is not installed; install the "
                "package that it was packed with"
            )
        self._codec = codec
        self._shapes, self._dtype = frame_layout(metadata)
        count = len(self) * len(self._shapes)
        index_bytes = len(_MAGIC) + (count + 1) * _OFFSET.itemsize
        data = map_member(path, metadata.member.offset, metadata.member.size)
        is_whole = data is not None and len(data) >= index_bytes and data[: len(_MAGIC)].tobytes() == _MAGIC
        offsets = (
            data[len(_MAGIC) : index_bytes].view(_OFFSET).astype(np.int64) if is_whole and data is not None else None
        )
        if data is None or offsets is None or offsets[-1] != len(data) - index_bytes or (np.diff(offsets) < 0).any():
            raise SourceError(
                f"{path}: has no index of {len(self)} frames at byte {metadata.member.offset}; the shard is cut off or "
                "damaged: run 'cinefeed pack --verify'"
            )
        self._offsets, self._data = offsets, data[index_bytes:]

    @property
    def colour(self) -> Colour:
        """How the planes are converted to pixels."""
        return packed_colour(self.metadata, planes=len(self._shapes), channels=self.channels)

    def _frame(self, number: int) -> tuple[NDArray[Any], ...]:
        planes = []
        for place, shape in enumerate(self._shapes):
            start, end = self._offsets[number * len(self._shapes) + place :][:2]
            try:
                plane = np.asarray(self._codec.decode(self._data[start:end].data, shape, self._dtype))
            except PluginError:
                raise
            except Exception as error:
                raise DecodeError(
                    f"{self.path}: the codec {self.metadata.codec!r} cannot decode frame {number}: "
                    f"{type(error).__name__}: {error}"
                ) from error
            if plane.shape != shape or plane.dtype != self._dtype:
                raise DecodeError(
                    f"{self.path}: the codec {self.metadata.codec!r} decoded frame {number} as {plane.dtype} "
                    f"{plane.shape}; {self._dtype} {shape} is needed"
                )
            planes.append(plane)
            if self.channels == 1 and len(self._shapes) > 1:  # luma only
                break
        return tuple(planes)
