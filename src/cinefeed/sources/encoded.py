"""Encoded video: any frames of a file, exact to the frame, with the least decoding.

Compiled code reads what it can (`native`); where it finds a frame missing, or the file is nothing for it, PyAV reads
(`ladder`), which gives the same bytes.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import av
import numpy as np
from numpy.typing import NDArray

from cinefeed.clips import PixelType
from cinefeed.errors import DecodeError, SourceError
from cinefeed.sources.base import Facts, Planes, frame_numbers, planes_to_array
from cinefeed.sources.colour import Colour
from cinefeed.sources.damage import damage_error, damaged_among
from cinefeed.sources.display import stored_size
from cinefeed.sources.embedded import EmbeddedVideo
from cinefeed.sources.index import probe_encoded, refuse_part
from cinefeed.sources.ladder import Ladder
from cinefeed.sources.layout import Layout, colour_of, layout_of, planes_of
from cinefeed.sources.native import open_native
from cinefeed.sources.runs import in_order, runs_of

# Decoders that leave out non-reference frames and give the others bit for bit. Never AV1: libdav1d drops wanted ones.
_SKIPPING = frozenset({"h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4"})
_KEEPING_STAMPS = frozenset({"h264", "hevc"})  # ... and give each frame its stamp even where stamps are out of order


class EncodedSource:
    """One open video file. Its frames are found by the index in `facts`, made in one pass over the packets if absent.

    `channels=1` hands over luma alone; `dtype` is what `read` returns, by default the stored depth. Raises SourceError
    where the file holds no video, DecodeError where it breaks before a frame that is asked for, or where that is
    damaged; it never returns fewer frames than asked.
    """

    def __init__(
        self,
        path: str | Path | EmbeddedVideo,
        *,
        channels: int | None = None,
        part: str | None = None,
        facts: Facts | None = None,
        dtype: PixelType | None = None,
    ) -> None:
        self.path = Path(path) if isinstance(path, str) else path
        refuse_part(self.path, part)
        self.facts = facts = facts if facts is not None else probe_encoded(self.path, verify="packets")
        self.channels = channels or facts.channels
        self.dtype = dtype
        self._size = stored_size(facts.height, facts.width, aspect=facts.aspect, rotation=facts.rotation)
        self._layout: Layout = layout_of(facts.pixel_format)
        self._colour: Colour | None = None
        self._skips = facts.codec in _SKIPPING and (in_order(facts.ticks) or facts.codec in _KEEPING_STAMPS)
        self._closed = False
        self._native = (
            None
            if isinstance(self.path, EmbeddedVideo)
            else open_native(self.path, facts, self._layout, size=self._size, skips=self._skips)
        )
        self._ladder = None if self._native is not None else self._by_pyav()

    def __len__(self) -> int:
        return self.facts.times.count

    @property
    def decoder(self) -> Literal["compiled", "PyAV"]:
        """Which decoder reads this file; compiled code may hand over to PyAV at any frame."""
        return "PyAV" if self._native is None else "compiled"

    def planes(self, indices: Sequence[int] | NDArray[np.int64]) -> Planes:
        """Return the frames of `indices`, as stored."""
        numbers = frame_numbers(indices, count=len(self), path=self.path)
        if self._closed:
            raise SourceError(f"{self.path}: the source is closed; open it again with open_source")
        frames = self._frames(numbers) if numbers.size else ()
        return Planes(frames, self._colour or Colour(model=self._layout.model, bits=self._layout.bits))

    def read(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[Any]:
        """Return the frames of `indices`, as shown and converted, (n, height, width, channels)."""
        facts, planes = self.facts, self.planes(indices)
        return planes_to_array(planes, channels=self.channels, height=facts.height, width=facts.width, dtype=self.dtype)

    def close(self) -> None:
        """Let go of the file; planes already handed over stay valid."""
        self._closed = True
        for way in (self._native, self._ladder):
            if way is not None:
                way.close()
        self._native = self._ladder = None
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
        grey, damaged = self.channels == 1, self.facts.damaged
        if damaged.size and (hit := damaged_among(numbers, damaged)).any():
            if not self.facts.conceals_damage:
                raise damage_error(self.path, int(numbers[hit][0]))
            return self._concealed(numbers, hit, grey=grey)
        if self._native is not None:
            given = self._native.find(numbers, grey=grey)
            if given is not None:
                self._set_colour(*self._native.tags)
                return given
            self._native.close()
            self._native = None
        if self._ladder is None:
            self._ladder = self._by_pyav()
        unique = np.unique(numbers)
        ticks = self.facts.ticks
        found = self._ladder.count(unique.tolist()) if ticks is None else self._ladder.find(runs_of(unique, self.facts))
        ready = {number: self._hand_over(found[number], number, grey=grey) for number in unique.tolist()}
        return [ready[number] for number in numbers.tolist()]

    def _concealed(
        self, numbers: NDArray[np.int64], hit: NDArray[np.bool_], *, grey: bool
    ) -> list[tuple[NDArray[Any], ...]]:
        """Return the planes of these frames, of which some (`hit`) are damaged."""
        planes = dict(zip(numbers[~hit].tolist(), self._frames(numbers[~hit]), strict=True)) if not hit.all() else {}
        if self._ladder is None:
            self._ladder = self._by_pyav()
        for number, frame in self._ladder.conceal(np.unique(numbers[hit]).tolist()).items():
            planes[number] = self._hand_over(frame, number, grey=grey)
        return [planes[number] for number in numbers.tolist()]

    def _by_pyav(self) -> Ladder:
        facts = replace(self.facts, container=self.facts.container.rpartition("/")[2])  # FFmpeg knows no "dicom/mov"
        return Ladder(self.path, facts, skips=self._skips)

    def _hand_over(self, frame: av.VideoFrame, number: int, *, grey: bool) -> tuple[NDArray[Any], ...]:
        facts, size = self.facts, (frame.height, frame.width)
        if size != self._size:
            raise DecodeError(
                f"{self.path}: frame {number} is {size[1]} x {size[0]}, the file is known as {self._size[1]} x "
                f"{self._size[0]}; scan it again with verify='decode', which keeps the frames before a change of size, "
                f"or encode it in one size"
            )
        if frame.format.name != facts.pixel_format:
            frame = frame.reformat(self._size[1], self._size[0], facts.pixel_format)  # it changes on the way
        self._set_colour(int(frame.color_range), int(frame.colorspace))
        return planes_of(frame, self._layout, grey=grey)

    def _set_colour(self, tagged_range: int, tagged_space: int) -> None:
        """Take the colour of the file from its first frame that is read."""
        if self._colour is None:
            facts = self.facts
            self._colour = colour_of(
                tagged_range,
                tagged_space,
                facts.pixel_format,
                grey=self.channels == 1,
                rotation=facts.rotation,
                mirrored=facts.mirrored,
                aspect=facts.aspect,
            )
