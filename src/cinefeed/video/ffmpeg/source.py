"""Random access to the frames of encoded video, exact to the frame, with as little decoding as possible.

`FastDecoder` (compiled code) reads the files that it supports. `SeekDecoder` (PyAV) reads the others, and those in
which `FastDecoder` does not find a frame. Both return the same bytes.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import av
import numpy as np
from numpy.typing import NDArray

from cinefeed.core.errors import DecodeError, SourceError
from cinefeed.video.clips import PixelType
from cinefeed.video.color import Colour
from cinefeed.video.embedded import EmbeddedVideo, PackedVideo
from cinefeed.video.ffmpeg.damage import damage_error, damaged_among
from cinefeed.video.ffmpeg.decode_range import in_order, runs_of
from cinefeed.video.ffmpeg.fast_decoder import open_fast_decoder
from cinefeed.video.ffmpeg.packets import SKIPPING
from cinefeed.video.ffmpeg.pixel_formats import PlaneLayout, colour_of, plane_layout, planes_of
from cinefeed.video.ffmpeg.probe import probe_encoded, refuse_part
from cinefeed.video.ffmpeg.seek_decoder import SeekDecoder
from cinefeed.video.metadata import VideoMetadata
from cinefeed.video.orientation import stored_size
from cinefeed.video.planes import Planes, planes_to_array
from cinefeed.video.source import frame_indices

_KEEPING_STAMPS = frozenset({"h264", "hevc"})  # ... and keep each frame's timestamp even if timestamps are out of order


class EncodedSource:
    """An open video file. Frames are located by the index in `metadata`; by default one pass over the packets makes it.

    `channels=1` returns luma only; `dtype` is what `read` returns, by default the stored depth. Raises SourceError if
    the file holds no video, DecodeError if it breaks before a requested frame or that frame is damaged. It never
    returns fewer frames than requested.
    """

    def __init__(
        self,
        path: str | Path | EmbeddedVideo,
        *,
        channels: int | None = None,
        part: str | None = None,
        metadata: VideoMetadata | None = None,
        dtype: PixelType | None = None,
    ) -> None:
        self.path = Path(path) if isinstance(path, str) else path
        refuse_part(self.path, part)
        self.metadata = metadata = metadata if metadata is not None else probe_encoded(self.path, verify="packets")
        self.channels = channels or metadata.channels
        self.dtype = dtype
        self._size = stored_size(metadata.height, metadata.width, aspect=metadata.aspect, rotation=metadata.rotation)
        self._layout: PlaneLayout = plane_layout(metadata.pixel_format)
        self._colour: Colour | None = None
        self._skips = metadata.codec in SKIPPING and (in_order(metadata.ticks) or metadata.codec in _KEEPING_STAMPS)
        self._closed = False
        self._fast_decoder = (
            None
            if isinstance(self.path, EmbeddedVideo) and not isinstance(self.path, PackedVideo)
            else open_fast_decoder(self.path, metadata, self._layout, size=self._size, skips=self._skips)
        )
        self._seek_decoder = None if self._fast_decoder is not None else self._by_pyav()

    def __len__(self) -> int:
        return self.metadata.times.count

    @property
    def decoder(self) -> Literal["compiled", "PyAV"]:
        """The decoder of this file; compiled code may switch to PyAV at any frame."""
        return "PyAV" if self._fast_decoder is None else "compiled"

    def planes(self, indices: Sequence[int] | NDArray[np.int64]) -> Planes:
        """Return the frames of `indices`, as stored."""
        numbers = frame_indices(indices, count=len(self), path=self.path)
        if self._closed:
            raise SourceError(f"{self.path}: the source is closed; open it again with open_video")
        frames = self._frames(numbers) if numbers.size else ()
        return Planes(frames, self._colour or Colour(model=self._layout.model, bits=self._layout.bits))

    def read(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[Any]:
        """Return the frames of `indices`, as displayed and converted, (n, height, width, channels)."""
        metadata, planes = self.metadata, self.planes(indices)
        return planes_to_array(
            planes, channels=self.channels, height=metadata.height, width=metadata.width, dtype=self.dtype
        )

    def close(self) -> None:
        """Close the file; planes that were returned remain valid."""
        self._closed = True
        for decoder in (self._fast_decoder, self._seek_decoder):
            if decoder is not None:
                decoder.close()
        self._fast_decoder = self._seek_decoder = None
        if isinstance(self.path, EmbeddedVideo):
            self.path.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _frames(self, numbers: NDArray[np.int64]) -> Sequence[tuple[NDArray[Any], ...]]:
        """Return the planes of these frames."""
        grey, damaged_ranges = self.channels == 1, self.metadata.damaged
        if damaged_ranges.size and (mask := damaged_among(numbers, damaged_ranges)).any():
            if not self.metadata.conceals_damage:
                raise damage_error(self.path, int(numbers[mask][0]))
            return self._concealed(numbers, mask, grey=grey)
        if self._fast_decoder is not None:
            planes = self._fast_decoder.find(numbers, grey=grey)
            if planes is not None:
                self._set_colour(*self._fast_decoder.tags)
                return planes
            self._fast_decoder.close()
            self._fast_decoder = None
        if self._seek_decoder is None:
            self._seek_decoder = self._by_pyav()
        unique = np.unique(numbers)
        ticks = self.metadata.ticks
        decoded_frames = (
            self._seek_decoder.count(unique.tolist())
            if ticks is None
            else self._seek_decoder.find(runs_of(unique, self.metadata))
        )
        planes_of_frames = {
            number: self._hand_over(decoded_frames[number], number, grey=grey) for number in unique.tolist()
        }
        return [planes_of_frames[number] for number in numbers.tolist()]

    def _concealed(
        self, numbers: NDArray[np.int64], mask: NDArray[np.bool_], *, grey: bool
    ) -> list[tuple[NDArray[Any], ...]]:
        """Return the planes of these frames; those in `mask` are damaged."""
        planes = dict(zip(numbers[~mask].tolist(), self._frames(numbers[~mask]), strict=True)) if not mask.all() else {}
        if self._seek_decoder is None:
            self._seek_decoder = self._by_pyav()
        for number, frame in self._seek_decoder.conceal(np.unique(numbers[mask]).tolist()).items():
            planes[number] = self._hand_over(frame, number, grey=grey)
        return [planes[number] for number in numbers.tolist()]

    def _by_pyav(self) -> SeekDecoder:
        metadata = replace(
            self.metadata, container=self.metadata.container.rpartition("/")[2]
        )  # FFmpeg has no "dicom/mov"
        return SeekDecoder(self.path, metadata, skips=self._skips)

    def _hand_over(self, frame: av.VideoFrame, number: int, *, grey: bool) -> tuple[NDArray[Any], ...]:
        metadata, size = self.metadata, (frame.height, frame.width)
        if size != self._size:
            raise DecodeError(
                f"{self.path}: frame {number} is {size[1]} x {size[0]}, its metadata gives {self._size[1]} x "
                f"{self._size[0]}; scan it again with verify='decode', which keeps the frames before a change of size, "
                f"or encode it in one size"
            )
        if frame.format.name != metadata.pixel_format:
            frame = frame.reformat(
                self._size[1], self._size[0], metadata.pixel_format
            )  # the pixel format changes within the file
        self._set_colour(int(frame.color_range), int(frame.colorspace))
        return planes_of(frame, self._layout, grey=grey)

    def _set_colour(self, tagged_range: int, tagged_space: int) -> None:
        """Set the colour conversion from the first frame that is read."""
        if self._colour is None:
            metadata = self.metadata
            self._colour = colour_of(
                tagged_range,
                tagged_space,
                metadata.pixel_format,
                grey=self.channels == 1,
                rotation=metadata.rotation,
                mirrored=metadata.mirrored,
                aspect=metadata.aspect,
            )
            if metadata.member is not None and metadata.member.traits:  # FFV1 of numbers that a codec does not define
                self._colour = replace(
                    self._colour,
                    bits=metadata.bits,
                    window=metadata.window,
                    window_assumed=metadata.window_assumed,
                    open_scale=metadata.member.has_open_scale,
                )
