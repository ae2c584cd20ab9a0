"""DICOM cine: multi-frame files, and series of a file a frame; each frame is read for itself (extra `dicom`)."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cinefeed.errors import DecodeError, SourceError
from cinefeed.sources.base import DEFAULT_READING, Facts, Reading, StoredFrames
from cinefeed.sources.colour import Colour
from cinefeed.sources.dicom_facts import (
    FACTS,
    RESCALE,
    aspect_of,
    heart_rate_of,
    regions_of,
    rescale_of,
    shared_window,
    spacing_of,
    times_of,
    window_of,
)
from cinefeed.sources.dicom_header import Header, Places, places_of, syntax_name
from cinefeed.sources.dicom_pixels import DicomFile, Image, why
from cinefeed.sources.dicom_planes import GEOMETRY, frames_of_part
from cinefeed.sources.display import shown_size, stored_size
from cinefeed.sources.index import Verify
from cinefeed.sources.limits import DEFAULT_LIMITS, Deadline, ReadLimits
from cinefeed.sources.plain import percentile_window

_PALETTE = [
    f"{colour}PaletteColorLookupTable{what}" for what in ("Descriptor", "Data") for colour in ("Red", "Green", "Blue")
]
_PLAIN = (1.0, 0.0)  # slope and intercept that change nothing

Palette = tuple[int, NDArray[Any]]


class DicomSource(StoredFrames):
    """A DICOM clip: a multi-frame file, one plane of it (`part`), or a folder whose `facts.files` are the frames.

    Grey frames are uint8 or uint16 as stored, or float32 where numbers are signed, of more than 16 bits, or rescaled
    by slope and intercept; YBR and palette colours become RGB. Overlays are not drawn. The window is in `facts`.
    """

    def __init__(self, path: str | Path, *, channels: int | None = None, part: str | None = None, facts: Facts) -> None:
        super().__init__(path, facts=facts, channels=channels)
        self._keywords = [*_PALETTE, *(RESCALE if facts.bits == 32 else [])]
        self._file: DicomFile | None = None
        self._limits = DEFAULT_LIMITS.covering(height=facts.height, width=facts.width, count=facts.times.count)
        self._palette: Palette | None = None
        if facts.files:
            return
        keywords = [*self._keywords, *(GEOMETRY if part else [])]
        self._file = DicomFile(self.path, keywords=keywords, limits=self._limits)
        try:
            numbers = frames_of_part(self._file.header, self._file.promised, part=part, path=self.path)
            self._numbers = numbers[: facts.times.count]
            if len(self._numbers) < facts.times.count or max(self._numbers) >= len(self._file):
                raise SourceError(
                    f"{self.path}: {facts.times.count} frames are known of it, it holds {len(self._file)}; "
                    f"scan it again"
                )
        except BaseException:
            self._file.close()
            raise

    @property
    def colour(self) -> Colour:
        """How the planes become pixels."""
        facts = self.facts
        grey = facts.channels == 1
        return Colour(model="grey" if grey else "rgb", bits=facts.bits, window=facts.window, aspect=facts.aspect)

    def close(self) -> None:
        """Let go of the file."""
        super().close()
        if self._file is not None:
            self._file.close()

    def _frame(self, number: int) -> tuple[NDArray[Any], ...]:
        if self._file is not None:
            return (self._plane(self._file, self._numbers[number]),)
        path = self.path / self.facts.files[number]
        with closing(DicomFile(path, keywords=self._keywords, limits=self._limits)) as file:
            self._palette = None
            return (self._plane(file, 0),)

    def _plane(self, file: DicomFile, number: int) -> NDArray[Any]:
        facts, image = self.facts, file.image
        height, width = stored_size(facts.height, facts.width, aspect=facts.aspect, rotation=0)
        if (image.rows, image.columns, _pixel_format(image)) != (height, width, facts.pixel_format):
            raise SourceError(
                f"{file.path}: has frames of {image.rows} x {image.columns}, {_pixel_format(image)}, where the scan "
                f"found {height} x {width}, {facts.pixel_format}; scan it again"
            )
        stored = file.frame(number)
        if image.photometric == "PALETTE COLOR":
            self._palette = self._palette or _palette_of(file.header, image, path=file.path)
            first, table = self._palette
            return table[np.clip(stored.astype(np.int64) - first, 0, len(table) - 1)]
        if facts.bits < 32:
            return np.ascontiguousarray(stored, np.uint8 if facts.bits == 8 else np.uint16)
        slope, intercept = rescale_of(places_of(file.header, number)) if image.samples == 1 else _PLAIN
        if (slope, intercept) == _PLAIN:
            return np.ascontiguousarray(stored, np.float32)
        return (stored.astype(np.float64) * slope + intercept).astype(np.float32)


class _Clip(NamedTuple):
    """What the headers of a clip say."""

    path: Path
    files: tuple[str, ...]
    part: str | None
    header: Header  # of the first file
    image: Image
    frames: list[Places]  # that are there
    promised: int  # frames in the header, or files
    compressed: bool
    broken: str | None


def probe_dicom(
    path: Path,
    *,
    part: str | None = None,
    files: Sequence[str] = (),
    verify: Verify = "decode",
    reading: Reading = DEFAULT_READING,
) -> Facts:
    """Return the facts of a DICOM file, of one plane of it, or of a folder of which `files` are the frames in order.

    With verify="decode" compressed frames are all decoded, since only that shows whether they are whole; of others the
    file's size tells.

    window="file":         the first that the file names; where frames name different ones, the medians of their bounds
                           serve all, so that a clip does not flicker. Where none is named, the whole range that the
                           stored bits can hold
    window="none":         numbers as they are, though rescaled; MONOCHROME1 stays as it is too, its small ones bright
    window="percentiles":  the 1st and 99th of grey images; of colour, as "file"

    MONOCHROME1 is shown inverted. Raises SourceError where there is no image, or not one whole frame.
    """
    clip = _series(Path(path), files, reading.limits) if files else _file(Path(path), part, reading.limits)
    facts = _facts(clip, reading)
    percentiles = reading.window == "percentiles" and facts.channels == 1
    with DicomSource(path, part=part, facts=facts) as source:
        if clip.compressed and (percentiles or verify == "decode"):
            whole, reason = _decodable(source, reading.limits.deadline())
            if whole < len(source):
                broken = f"breaks after {whole} of {clip.promised} frames: {reason}"
                source.facts = _facts(clip._replace(frames=clip.frames[:whole], broken=broken), reading)
        if not percentiles:
            return source.facts
        window = percentile_window(source)
        if window is not None and clip.image.photometric == "MONOCHROME1":
            window = window[::-1]
        return replace(source.facts, window=window)


def _decodable(source: DicomSource, deadline: Deadline) -> tuple[int, str]:
    """Return how many frames decode before one that does not, and why that does not."""
    for number in range(len(source)):
        deadline.check(source.path)
        try:
            source.planes([number])
        except DecodeError as error:
            if number == 0:
                raise
            return number, why(error)
    return len(source), ""


def _file(path: Path, part: str | None, limits: ReadLimits) -> _Clip:
    keywords = [*FACTS, *_PALETTE, *(GEOMETRY if part else [])]
    with closing(DicomFile(path, keywords=keywords, limits=limits)) as file:
        header, promised, there = file.header, file.promised, len(file)
        limits.check_frames(promised, where=path)
        numbers = frames_of_part(header, promised, part=part, path=path)
        # What follows the first frame that is cut off is not there either.
        whole = list(takewhile(lambda number: number < there, numbers))
        broken = None if len(whole) == len(numbers) else "the file is cut off"
        if not whole:
            raise SourceError(f"{path}: no whole frame is there: {there} of {promised}; the file is cut off")
        if broken:
            broken = f"breaks after {len(whole)} of {len(numbers)} frames: {broken}"
        frames = [places_of(header, number) for number in whole]
        return _Clip(path, (), part, header, file.image, frames, len(numbers), file.compressed, broken)


def _series(path: Path, files: Sequence[str], limits: ReadLimits) -> _Clip:
    clip: _Clip | None = None
    for number, name in enumerate(files):
        try:
            with closing(DicomFile(path / name, keywords=[*FACTS, *_PALETTE], limits=limits)) as file:
                if len(file) == 0:
                    raise SourceError(f"{path / name}: its frame is cut off")
                frames = [places_of(file.header)]
                if clip is None:
                    clip = _Clip(
                        path, (*files,), None, file.header, file.image, frames, len(files), file.compressed, None
                    )
                    continue
                alike = _pixel_format(file.image), file.image.rows, file.image.columns
                if alike != (_pixel_format(clip.image), clip.image.rows, clip.image.columns):
                    raise SourceError(f"{path / name}: differs from the frames before in size or kind of pixels")
                clip.frames.append(frames[0])
                clip = clip._replace(compressed=clip.compressed or file.compressed)
        except SourceError as error:
            if clip is None:
                raise
            reason = str(error).removeprefix(f"{path / name}: ")
            return clip._replace(broken=f"breaks after {number} of {len(files)} frames: {reason}")
    assert clip is not None, "a series has files"
    return clip


def _facts(clip: _Clip, reading: Reading) -> Facts:
    image, head, places = clip.image, clip.header, clip.frames[0]
    if places[-1].first("ModalityLUTSequence") and head.text("Modality") not in ("XA", "RF"):
        # X-ray angiography keeps a table there that leads back to exposure, and is not for showing (PS3.3 C.11.1).
        raise SourceError(f"{clip.path}: its numbers stand for others by a table (Modality LUT), which cannot be read")
    bits = _bits(clip)
    window = _window(clip, bits) if reading.window != "none" else None
    if reading.window == "none" and 8 < bits < 32:
        bits = 16  # or fewer bits would be brought to the full scale
    times, aspect = times_of(clip.frames), aspect_of(places)
    height, width = shown_size(image.rows, image.columns, aspect=aspect, rotation=0)
    tags: dict[str, str | float | None] = {}
    if beats := heart_rate_of(places):
        tags["heart_rate_bpm"] = beats
    if (burned := head.text("BurnedInAnnotation")) in ("YES", "NO"):
        tags["burned_in"] = burned
    return Facts(
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
        error=clip.broken,
        aspect=aspect,
        window=window,
        spacing_mm=spacing_of(places),
        regions=regions_of(places, rows=image.rows, columns=image.columns),
        files=clip.files[: len(clip.frames)],
        tags=tags,
    )


def _bits(clip: _Clip) -> int:
    """Return 8, 9 to 16, or 32 for float32."""
    image = clip.image
    if image.photometric == "PALETTE COLOR":
        return 8 * _palette_of(clip.header, image, path=clip.path)[1].itemsize
    if image.signed or image.is_float or image.bits_stored > 16:
        return 32
    if image.samples == 1 and any(rescale_of(places) != _PLAIN for places in clip.frames):
        return 32
    return max(image.bits_stored, 8)


def _window(clip: _Clip, bits: int) -> tuple[float, float] | None:
    """Return what becomes black and white, None where the bits say the same or there is nothing to say."""
    image = clip.image
    if image.photometric == "PALETTE COLOR":
        return None
    window: tuple[float, float] | None = None
    if not image.is_float:
        low = -float(1 << image.bits_stored - 1) if image.signed else 0.0
        slope, intercept = rescale_of(clip.frames[0]) if image.samples == 1 else _PLAIN
        window = low * slope + intercept, (low + (1 << image.bits_stored) - 1) * slope + intercept
    if image.samples == 1:
        window = shared_window([window_of(places) for places in clip.frames]) or window
    if window is not None and image.photometric == "MONOCHROME1":
        window = window[::-1]
    return None if bits < 32 and window == (0.0, float((1 << bits) - 1)) else window


def _pixel_format(image: Image) -> str:
    bits = f"float{image.bits_allocated}" if image.is_float else f"{image.bits_stored}"
    return f"{image.photometric} {bits}{' signed' if image.signed and not image.is_float else ''}"


def _palette_of(header: Header, image: Image, *, path: Path) -> Palette:
    """Return the first number that a palette stands for, and its colours, (entries, 3) uint8 or uint16."""
    described = header.numbers(_PALETTE[0])
    if len(described) != 3:
        raise SourceError(f"{path}: has palette colours and no palette that can be read")
    count, first = int(described[0]) or 1 << 16, int(described[1])
    if image.signed and first >= 1 << 15:
        first -= 1 << 16
    columns = []
    for keyword in _PALETTE[3:]:
        data = header.values.get(keyword, ("", b""))[1]
        wide = len(data) >= 2 * count
        if len(data) < count:
            raise SourceError(f"{path}: its palette has {len(data)} bytes for {count} colours, or is cut into segments")
        columns.append(np.frombuffer(data, header.order + "u2" if wide else "u1", count=count))
    return first, np.stack(columns, axis=-1).astype(np.uint16 if columns[0].itemsize == 2 else np.uint8)
