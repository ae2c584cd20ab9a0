"""DICOM cine: multi-frame files, and series with one frame per file; frames are read one by one (extra `dicom`)."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.errors import SourceError
from cinefeed.video.arrays.array_frames import percentile_window
from cinefeed.video.color import Colour
from cinefeed.video.dicom.geometry import GEOMETRY, frames_of_part
from cinefeed.video.dicom.header import Header, Scopes, scopes_of, syntax_name
from cinefeed.video.dicom.lookup_tables import TABLES, Table, table_of
from cinefeed.video.dicom.metadata import (
    METADATA_COLUMNS,
    RESCALE,
    aspect_of,
    header_tags,
    regions_of,
    rescale_of,
    shared_window,
    spacing_of,
    times_of,
    window_of,
)
from cinefeed.video.dicom.pixels import DicomFile, Image, why
from cinefeed.video.ffmpeg.probe import Verify
from cinefeed.video.limits import DEFAULT_LIMITS, ReadLimits
from cinefeed.video.metadata import VideoMetadata
from cinefeed.video.orientation import shown_size, stored_size
from cinefeed.video.read_options import DEFAULT_READ_OPTIONS, ReadOptions
from cinefeed.video.source import FrameSource
from cinefeed.video.value_range import decode_through, has_open_scale

_PLAIN = (1.0, 0.0)  # slope and intercept of the identity


class DicomSource(FrameSource):
    """A DICOM clip: a multi-frame file, one plane of it (`part`), or a folder whose frames are `metadata.files`.

    Grey frames are uint8 or uint16 as stored, or float32 if numbers are signed, have more than 16 bits, or are rescaled
    by slope and intercept or by a table (Modality LUT). YBR and palette colours become RGB. Overlays are not drawn. The
    window is in `metadata`.
    """

    def __init__(
        self, path: str | Path, *, channels: int | None = None, part: str | None = None, metadata: VideoMetadata
    ) -> None:
        super().__init__(path, metadata=metadata, channels=channels)
        self._keywords = [*TABLES, *(RESCALE if metadata.bits == 32 else [])]
        self._file: DicomFile | None = None
        self._table: Table | None = None
        self._limits = DEFAULT_LIMITS.covering(height=metadata.height, width=metadata.width, count=metadata.times.count)
        if metadata.files:
            return
        keywords = [*self._keywords, *(GEOMETRY if part else [])]
        self._file = DicomFile(self.path, keywords=keywords, limits=self._limits)
        try:
            numbers = frames_of_part(self._file.header, self._file.promised, part=part, path=self.path)
            self._numbers = numbers[: metadata.times.count]
            if len(self._numbers) < metadata.times.count or max(self._numbers) >= len(self._file):
                raise SourceError(
                    f"{self.path}: its metadata has {metadata.times.count} frames, the file has {len(self._file)}; "
                    f"scan it again"
                )
        except BaseException:
            self._file.close()
            raise

    @property
    def colour(self) -> Colour:
        """How the planes are converted to pixels."""
        metadata = self.metadata
        grey = metadata.channels == 1
        return Colour(
            model="grey" if grey else "rgb",
            bits=metadata.bits,
            window=metadata.window,
            window_assumed=metadata.window_assumed,
            open_scale=has_open_scale(metadata),
            aspect=metadata.aspect,
        )

    def close(self) -> None:
        """Close the file."""
        super().close()
        if self._file is not None:
            self._file.close()

    def _frame(self, number: int) -> tuple[NDArray[Any], ...]:
        if self._file is not None:
            return (self._plane(self._file, self._numbers[number]),)
        path = self.path / self.metadata.files[number]
        with closing(DicomFile(path, keywords=self._keywords, limits=self._limits)) as file:
            self._table = None
            return (self._plane(file, 0),)

    def _plane(self, file: DicomFile, number: int) -> NDArray[Any]:
        metadata, image = self.metadata, file.image
        height, width = stored_size(metadata.height, metadata.width, aspect=metadata.aspect, rotation=0)
        if (image.rows, image.columns, _pixel_format(image)) != (height, width, metadata.pixel_format):
            raise SourceError(
                f"{file.path}: has frames of {image.rows} x {image.columns}, {_pixel_format(image)}; the scan "
                f"found {height} x {width}, {metadata.pixel_format}; scan it again"
            )
        pixels = file.frame(number)
        self._table = self._table or table_of(file.header, image, path=file.path)
        if self._table is not None:
            return self._table.look_up(pixels)
        if metadata.bits < 32:
            return np.ascontiguousarray(pixels, np.uint8 if metadata.bits == 8 else np.uint16)
        slope, intercept = rescale_of(scopes_of(file.header, number)) if image.samples == 1 else _PLAIN
        if (slope, intercept) == _PLAIN:
            return np.ascontiguousarray(pixels, np.float32)
        return (pixels.astype(np.float64) * slope + intercept).astype(np.float32)


class _Clip(NamedTuple):
    """The headers of a clip."""

    path: Path
    files: tuple[str, ...]
    part: str | None
    header: Header  # of the first file
    image: Image
    frames: list[Scopes]  # only those present
    promised: int  # number of frames in the header, or of files
    compressed: bool
    fault: str | None


def probe_dicom(
    path: Path,
    *,
    part: str | None = None,
    files: Sequence[str] = (),
    verify: Verify = "decode",
    reading: ReadOptions = DEFAULT_READ_OPTIONS,
) -> VideoMetadata:
    """Return the metadata of a DICOM file, of one plane of it, or of a folder whose frames are `files`, in order.

    With verify="decode" all compressed frames are decoded, since only that shows whether they are whole; uncompressed
    frames are checked by the size of the file.

    window="file":         the first window in the file; if frames have different ones, the medians of their bounds are
                           used for all frames, so that a clip does not flicker. Without one, the full range of the
                           stored bits
    window="none":         numbers without a window, but rescaled; MONOCHROME1 is not inverted: small numbers are bright
    window="percentiles":  the 1st and 99th percentile of grey images; for colour, as "file"

    MONOCHROME1 is displayed inverted. Raises SourceError if there is no image, or not one whole frame.
    """
    clip = _series(Path(path), files, reading.limits) if files else _file(Path(path), part, reading.limits)
    metadata = _metadata(clip, reading)
    percentiles = reading.window == "percentiles" and metadata.channels == 1
    with DicomSource(path, part=part, metadata=metadata) as source:
        if clip.compressed and (percentiles or verify == "decode"):
            whole, error, values = decode_through(source, deadline=reading.limits.deadline(path))
            if error is not None:
                if whole == 0:
                    raise error
                fault = f"breaks after {whole} of {clip.promised} frames: {why(error)}"
                source.metadata = _metadata(clip._replace(frames=clip.frames[:whole], fault=fault), reading)
            source.metadata = replace(source.metadata, values=values)
        if not percentiles:
            return source.metadata
        window = percentile_window(source, deadline=reading.limits.deadline(path))
        if window is not None and clip.image.photometric == "MONOCHROME1":
            window = window[::-1]
        return replace(source.metadata, window=window, window_assumed=False)


def _file(path: Path, part: str | None, limits: ReadLimits) -> _Clip:
    keywords = [*METADATA_COLUMNS, *TABLES, *(GEOMETRY if part else [])]
    with closing(DicomFile(path, keywords=keywords, limits=limits)) as file:
        header, promised, available = file.header, file.promised, len(file)
        limits.check_frames(promised, where=path)
        numbers = frames_of_part(header, promised, part=part, path=path)
        # Frames after the first that is cut off are missing too.
        whole = list(takewhile(lambda number: number < available, numbers))
        fault = None if len(whole) == len(numbers) else "the file is cut off"
        if not whole:
            raise SourceError(f"{path}: {available} of {promised} frames are whole; the file is cut off")
        if fault:
            fault = f"breaks after {len(whole)} of {len(numbers)} frames: {fault}"
        frames = [scopes_of(header, number) for number in whole]
        return _Clip(path, (), part, header, file.image, frames, len(numbers), file.compressed, fault)


def _series(path: Path, files: Sequence[str], limits: ReadLimits) -> _Clip:
    clip: _Clip | None = None
    for number, name in enumerate(files):
        try:
            with closing(DicomFile(path / name, keywords=[*METADATA_COLUMNS, *TABLES], limits=limits)) as file:
                if len(file) == 0:
                    raise SourceError(f"{path / name}: its frame is cut off")
                frames = [scopes_of(file.header)]
                if clip is None:
                    clip = _Clip(
                        path, (*files,), None, file.header, file.image, frames, len(files), file.compressed, None
                    )
                    continue
                if _kind_of(file.header, file.image) != _kind_of(clip.header, clip.image):
                    raise SourceError(f"{path / name}: differs from the frames before in size or kind of pixels")
                clip.frames.append(frames[0])
                clip = clip._replace(compressed=clip.compressed or file.compressed)
        except SourceError as error:
            if clip is None:
                raise
            reason = str(error).removeprefix(f"{path / name}: ")
            return clip._replace(fault=f"breaks after {number} of {len(files)} frames: {reason}")
    assert clip is not None, "a series has files"
    return clip


def _metadata(clip: _Clip, reading: ReadOptions) -> VideoMetadata:
    image, head, scopes = clip.image, clip.header, clip.frames[0]
    table = table_of(head, image, path=clip.path)
    bits = _bits(clip, table)
    file_window = shared_window([window_of(scopes) for scopes in clip.frames]) if image.samples == 1 else None
    window = _window(clip, bits, table, file_window) if reading.window != "none" else None
    assumed = window is not None and file_window is None and (table.bits if table else image.bits_stored) > 8
    if reading.window == "none" and 8 < bits < 32:
        bits = 16  # else fewer bits would be scaled to the full range
    times, aspect = times_of(clip.frames), aspect_of(scopes)
    height, width = shown_size(image.rows, image.columns, aspect=aspect, rotation=0)
    return VideoMetadata(
        height=height,
        width=width,
        channels=1 if image.photometric.startswith("MONOCHROME") else 3,
        bits=bits,
        times=times,
        rate_hz=1 / times.step_seconds if times.step_seconds > 0 else float("nan"),
        container="dicom",
        codec=syntax_name(head.syntax),
        pixel_format=_pixel_format(image),
        header_frames=clip.promised,
        error=clip.fault,
        aspect=aspect,
        window=window,
        window_assumed=assumed,
        spacing_mm=spacing_of(scopes),
        regions=regions_of(scopes, rows=image.rows, columns=image.columns),
        files=clip.files,
        tags=header_tags(scopes),
    )


def _bits(clip: _Clip, table: Table | None) -> int:
    """Return 8, 9 to 16, or 32 for float32."""
    image = clip.image
    if table is not None:
        return 8 * table.values.itemsize
    if image.signed or image.is_float or image.bits_stored > 16:
        return 32
    if image.samples == 1 and any(rescale_of(scopes) != _PLAIN for scopes in clip.frames):
        return 32
    return max(image.bits_stored, 8)


def _window(
    clip: _Clip, bits: int, table: Table | None, file_window: tuple[float, float] | None
) -> tuple[float, float] | None:
    """Return the values that become black and white, None if they follow from the bits or are undefined."""
    image = clip.image
    if image.photometric == "PALETTE COLOR":
        return None
    window: tuple[float, float] | None = None
    if table is not None:
        window = 0.0, float((1 << table.bits) - 1)
    elif not image.is_float:
        low = -float(1 << image.bits_stored - 1) if image.signed else 0.0
        slope, intercept = rescale_of(clip.frames[0]) if image.samples == 1 else _PLAIN
        window = low * slope + intercept, (low + (1 << image.bits_stored) - 1) * slope + intercept
    window = file_window or window
    if window is not None and image.photometric == "MONOCHROME1":
        window = window[::-1]
    unnamed = file_window is None or bits == 8
    return None if unnamed and bits < 32 and window == (0.0, float((1 << bits) - 1)) else window


def _kind_of(header: Header, image: Image) -> tuple[object, ...]:
    """Return the properties that all files of a series must share."""
    return _pixel_format(image), image.rows, image.columns, header.first("ModalityLUTSequence") is None


def _pixel_format(image: Image) -> str:
    bits = f"float{image.bits_allocated}" if image.is_float else f"{image.bits_stored}"
    return f"{image.photometric} {bits}{' signed' if image.signed and not image.is_float else ''}"
