"""Decoding of video files by compiled code, for containers that state when each frame is displayed."""

import os
from functools import lru_cache
from operator import lt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cinefeed.video.embedded import PackedVideo
from cinefeed.video.ffmpeg.abi import TESTED_VERSIONS, library, version
from cinefeed.video.ffmpeg.compiled_loops import (
    ALL,
    DECODED,
    FILE_AT,
    NOT_FRESH,
    RANGE,
    SKIP_ALL,
    SKIP_NONREF,
    SPACE,
    SUBFILE_AT,
    TEXTS,
    close_stream,
    find_frames,
    new_state,
    open_stream,
)
from cinefeed.video.ffmpeg.decode_range import in_order
from cinefeed.video.ffmpeg.decoder import decoder_choice
from cinefeed.video.ffmpeg.pixel_formats import PlaneLayout, plane_shapes, rgb_of, samples_of
from cinefeed.video.ffmpeg.probe import states_its_stamps
from cinefeed.video.metadata import VideoMetadata
from cinefeed.video.planes import ContiguousPlanes

# Each frame is coded without the others, so a packet that is not requested is not decoded. FFV1 only as it is packed.
_INTRA = frozenset({"mjpeg"})
_PACKINGS = frozenset({"planar", "packed"})
_NO_PLANES, _NO_PLACES = np.empty((0, 0, 0), np.uint8), np.empty(0, np.int64)


class FastDecoder:
    """An open video file. `find` returns all requested frames, or None; then PyAV reads them or raises the error.

    `skippable` is what the decoder may leave out if it is not requested, as in compiled_loops. Use
    `open_fast_decoder`, which checks the file.
    """

    def __init__(
        self,
        path: Path | PackedVideo,
        metadata: VideoMetadata,
        *,
        layout: PlaneLayout,
        size: tuple[int, int],
        skippable: int,
    ) -> None:
        self._path, self._metadata, self._layout, self._skippable = path, metadata, layout, skippable
        self._shape = (size[1], size[0], _format_number(metadata.pixel_format))
        self._planes, self._dtype = plane_shapes(metadata.pixel_format, *size), samples_of(layout.bits)
        self._state = new_state(TESTED_VERSIONS[version()])

    @property
    def tags(self) -> tuple[int, int]:
        """The colour range and the colour space of the first frame of the last `find`."""
        return int(self._state[RANGE]), int(self._state[SPACE])

    @property
    def decoded_count(self) -> int:
        """Number of frames decoded so far."""
        return int(self._state[DECODED])

    def open(self) -> bool:
        """Open the file, or reopen it at its start; return whether that succeeded."""
        self.close()
        name = self._metadata.container.encode() + b"\0"
        is_packed = isinstance(self._path, PackedVideo)
        url = self._path.url if isinstance(self._path, PackedVideo) else b"file:" + os.fsencode(self._path)
        texts = np.frombuffer(TEXTS + name + url + b"\0", np.uint8)
        positions = SUBFILE_AT if is_packed else FILE_AT, len(TEXTS), len(TEXTS) + len(name)
        return bool(open_stream(texts, *positions, self._metadata.stream, self._state))

    def find(self, numbers: NDArray[np.int64], *, grey: bool) -> ContiguousPlanes | None:
        """Return the planes of these frames, in order; `grey` returns luma only."""
        count, places, selection = len(numbers), _NO_PLACES, None
        requested = numbers.tolist()
        if not all(map(lt, requested, requested[1:])):
            numbers, inverse = np.unique(numbers, return_inverse=True)
            places, selection = (inverse, None) if requested == sorted(requested) else (_NO_PLACES, inverse)
        luma, *chroma = self._planes
        groups = [np.empty((count, *luma), self._dtype)]
        if chroma and not grey:
            groups.append(np.empty((2 * count, *chroma[0]), self._dtype))
        lumas, both = (*(group.view(np.uint8) for group in groups), _NO_PLANES)[:2]
        self._state[RANGE] = -1
        ticks, key_frames = self._metadata.ticks, self._metadata.key_frames
        assert ticks is not None
        first, last = key_frames.searchsorted(numbers[[0, -1]], side="right")
        keys = key_frames[max(first - 1, 0) : last].astype(np.int64)
        frame_arguments = numbers, ticks.of_frames(numbers), places, keys, ticks.of_frames(keys)
        status = find_frames(self._state, *frame_arguments, self._skippable, self._shape, lumas, both)
        if status == NOT_FRESH and self.open():
            status = find_frames(self._state, *frame_arguments, self._skippable, self._shape, lumas, both)
        if status != ALL:
            return None
        if self._layout.packing == "packed":
            rows = groups[0].reshape(-1, self._shape[0], self._layout.samples)
            groups = [rgb_of(rows, self._layout).reshape(count, *luma[:1], self._shape[0], 3)]
        stacked = ContiguousPlanes(groups)
        return stacked if selection is None else stacked.select(selection)

    def close(self) -> None:
        """Close the file; frames that were returned remain valid."""
        close_stream(self._state)

    def __del__(self) -> None:
        close_stream(self._state)


def open_fast_decoder(
    path: Path | PackedVideo, metadata: VideoMetadata, layout: PlaneLayout, *, size: tuple[int, int], skips: bool
) -> FastDecoder | None:
    """Open a video whose stored frames are `size`, (height, width); None if compiled code does not support it."""
    has_ordered_stamps = states_its_stamps(metadata) and in_order(metadata.ticks)
    if not has_ordered_stamps or layout.packing not in _PACKINGS or layout.via or decoder_choice().name != "compiled":
        return None
    is_intra = metadata.codec in _INTRA or (metadata.codec == "ffv1" and isinstance(path, PackedVideo))
    skippable = SKIP_ALL if is_intra else SKIP_NONREF if skips else 0
    video = FastDecoder(path, metadata, layout=layout, size=size, skippable=skippable)
    return video if video.open() else None


@lru_cache(maxsize=256)
def _format_number(name: str) -> int:
    """Return FFmpeg's number of a pixel format."""
    return int(library().av_get_pix_fmt(name.encode()))
