"""NIfTI files (extra `nifti`), `.nii` and `.nii.gz`: slices of a 4-D series as videos."""

import gzip
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.errors import MissingExtraError, SourceError
from cinefeed.video.arrays.array_frames import ArrayFile, broken_after, known_axes, sample_metadata, windowed
from cinefeed.video.arrays.axes import checked_axes
from cinefeed.video.arrays.frame_offsets import (
    BROKEN,
    FrameLayout,
    FrameReader,
    MappedFrames,
    Samples,
    UnpackedFrames,
    check_unpacked,
    first_frames,
    frame_layout,
    unpacked_metadata,
)
from cinefeed.video.ffmpeg.probe import Verify
from cinefeed.video.metadata import VideoMetadata
from cinefeed.video.read_options import DEFAULT_READ_OPTIONS, ReadOptions
from cinefeed.video.timestamps import FrameTimes

_HEADER_BYTES = 540  # of NIfTI-2; NIfTI-1 has 348
_GZIP = b"\x1f\x8b"
_MILLIMETRES = {"meter": 1000.0, "mm": 1.0, "micron": 0.001}
_SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}
_PART = re.compile(r"slice=([0-9]{1,18})")
_LEAST_WINDOW = 1e-30  # a narrower window is damage: scaling it to full range overflows float32
_TIME = 3  # index of the time axis in the standard; its step has its own units


class _Volume(NamedTuple):
    """The header of a volume, without its text fields."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scale: tuple[float, float] | None  # slope and intercept
    offset: int  # of the first number in the unpacked file
    size: int | None  # of the file, None if it is compressed
    header: Any

    def layout(self, axes: str, number: int | None) -> FrameLayout:
        fixed = {} if number is None else {"Z": number}
        return frame_layout(self.shape, axes, self.dtype, fortran=True, offset=self.offset, fixed=fixed)

    def samples(self, axes: str) -> Samples:
        count, first = self.shape[axes.index("Z")], self.layout(axes, 0)
        return Samples(first, self.layout(axes, 1).first - first.first if count > 1 else 0, count)

    @property
    def end(self) -> int:
        """Number of available bytes, or of promised bytes if the file is compressed."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize if self.size is None else self.size


class NiftiSource(ArrayFile):
    """A slice of a NIfTI series, given by the part: "slice=4"; by default the middle slice.

    A frame is displayed as stored, transposed: its width is the file's first axis, its height the second. Frames are
    not rotated or mirrored; the tag `orientation` has the directions of the axes ("LAS": the first runs to the left).
    Numbers with a slope or intercept in the header become float32, others are read as those of a `.npy` file.

    A `.nii` is memory-mapped. A `.nii.gz` is decompressed from the beginning up to the last requested frame, in one
    pass if frames are requested together, and again by every source that opens it: unpack files that are read often.
    """

    @staticmethod
    def _probe(path: Path, part: str | None) -> VideoMetadata:
        return probe_nifti(path, part=part)

    def _open(self, part: str | None) -> None:
        path = self.path
        volume = _volume(path, axes=len(self.metadata.axes))
        self._scale = volume.scale
        axes = known_axes(self.metadata, volume.shape, volume.dtype, where=path)
        layout = volume.layout(axes, _slice_of(part, axes, volume.shape, path))
        layout = first_frames(layout, len(self), end=volume.end, where=path)
        self._reader: FrameReader = (
            UnpackedFrames(path, None, layout) if volume.size is None else MappedFrames(path, layout)
        )

    def _numbers(self, number: int) -> NDArray[Any]:
        frame = self._reader.read(number)
        if self._scale is None:
            return frame
        slope, intercept = self._scale
        return (frame * np.float64(slope) + intercept).astype(np.float32)

    def close(self) -> None:
        """Close the file; planes that were returned remain valid."""
        super().close()
        self._reader.close()


def probe_nifti(
    path: str | Path,
    *,
    part: str | None = None,
    files: Sequence[str] = (),
    verify: Verify = "decode",
    reading: ReadOptions = DEFAULT_READ_OPTIONS,
) -> VideoMetadata:
    """Return the metadata of one slice of a NIfTI series; a file that is cut off keeps its whole frames.

    Pixel spacing and frame time are read from the header if it states their units; the window is its calibration
    (`cal_min`, `cal_max`). With verify="decode" a `.nii.gz` is decompressed once, for all its slices, to find where it
    breaks. Raises SourceError if there is no series.
    """
    path = Path(path)
    volume, axes = _declared(path, reading)
    if part is None and reading.slice != "middle" and "Z" in axes:
        raise SourceError(f"{path}: slice={reading.slice!r} selects parts; give one, as in {path.name}::slice=4")
    number = _slice_of(part, axes, volume.shape, path)
    layout = volume.layout(axes, number)
    codec, scaled, limits = "gzip" if volume.size is None else "raw", volume.scale is not None, reading.limits
    metadata = sample_metadata(
        volume.shape, axes, volume.dtype, container="nifti", codec=codec, scaled=scaled, where=path, limits=limits
    )
    metadata = replace(
        metadata, window=_calibration(volume.header, reading), **_measures(volume.header, axes, layout.count)
    )
    if volume.size is None:
        check_unpacked(layout, limits, where=path)
    if volume.size is None and verify == "decode":
        every = reading.slice == "each" and number is not None  # else one pass measures only the requested slice
        metadata = unpacked_metadata(
            metadata,
            layout,
            path,
            None,
            promised=volume.end,
            limits=limits,
            where=path,
            samples=volume.samples(axes) if every else Samples(layout, 0, 1),
            number=number if every and number is not None else 0,
            scale=volume.scale or (1.0, 0.0),
        )
    else:
        metadata = broken_after(metadata, layout.whole(volume.end), "the file is cut off", where=path)
    if reading.window != "percentiles":
        return metadata
    with NiftiSource(path, part=part, metadata=metadata) as source:
        return windowed(source, reading)


def nifti_parts(path: str | Path, reading: ReadOptions = DEFAULT_READ_OPTIONS) -> list[str]:
    """Return the parts of a NIfTI file that `reading.slice` selects, or an empty list if the file has no slices.

    Raises SourceError if there is no series, or no such slice.
    """
    path = Path(path)
    volume, axes = _declared(path, reading)
    if "Z" not in axes:
        return []
    if reading.slice == "each":
        reading.limits.check_samples(volume.shape[axes.index("Z")], where=path)
        return [f"slice={number}" for number in range(volume.shape[axes.index("Z")])]
    part = None if reading.slice == "middle" else f"slice={reading.slice}"
    return [f"slice={_slice_of(part, axes, volume.shape, path)}"]


def _slice_of(part: str | None, axes: str, shape: tuple[int, ...], path: Path) -> int | None:
    """Return the number of the slice given by a part, None if the file has no slices."""
    if "Z" not in axes:
        if part is not None:
            raise SourceError(f"{path}: part {part!r} was asked for, but shape {shape}, read as {axes}, has no slices")
        return None
    count = shape[axes.index("Z")]
    if part is None:
        return count // 2
    match = _PART.fullmatch(part)
    if match is None or int(match[1]) >= count:
        last = f"slice={count - 1}"
        raise SourceError(f"{path}: part {part!r} was asked for, it has {count} slices, 'slice=0' to {last!r}")
    return int(match[1])


def _declared(path: Path, reading: ReadOptions) -> tuple[_Volume, str]:
    """Return the volume and the letters of its axes, by the standard or as declared."""
    axes = reading.axes or "WHZT"
    if "N" in axes:
        raise SourceError(
            f"{path}: axes={axes!r} has an axis N, which NIfTI files do not have; slices are Z, and each is a sample"
        )
    volume = _volume(path, axes=len(axes))
    if reading.axes is None and len(volume.shape) == 3:
        raise SourceError(
            f"{path}: has shape {volume.shape}, in which no axis is defined as time; declare the axes, as in "
            f"axes='WHT' if the third is time"
        )
    return volume, checked_axes(axes, volume.shape, where=path)


def _volume(path: Path, *, axes: int) -> _Volume:
    """Read the header; trailing axes of length 1 are removed down to the number of declared axes."""
    nibabel = _nibabel()
    try:
        with path.open("rb") as file:
            packed = file.read(2) == _GZIP
            size = file.seek(0, 2)
        with gzip.open(path) if packed else path.open("rb") as file:
            raw = file.read(_HEADER_BYTES)
    except BROKEN as error:
        raise SourceError(f"{path}: its header cannot be read ({error})") from error
    kind: Any = None
    if raw[344:347] == b"n+1":
        kind = nibabel.Nifti1Header
    elif raw[4:7] == b"n+2":
        kind = nibabel.Nifti2Header
    if kind is None:
        raise SourceError(f"{path}: is not a NIfTI file (.nii or .nii.gz) that contains its numbers")
    try:
        header = kind(raw[: kind.template_dtype.itemsize], check=False)
        shape = tuple(int(size) for size in header.get_data_shape())
        dtype, offset = header.get_data_dtype(), int(header.get_data_offset())
        slope, intercept = header.get_slope_inter()
    except (ValueError, KeyError, OverflowError, nibabel.spatialimages.HeaderDataError) as error:
        raise SourceError(f"{path}: its header is invalid ({error})") from error
    if offset < kind.template_dtype.itemsize:
        raise SourceError(f"{path}: its header is invalid: the numbers begin at byte {offset}, within the header")
    while len(shape) > axes and shape[-1] == 1:
        shape = shape[:-1]
    plain = slope is None or (slope, intercept) == (1.0, 0.0)
    scale = None if plain else (float(slope), float(intercept))
    return _Volume(shape, dtype, scale, offset, None if packed else size, header)


def _measures(header: Any, axes: str, count: int) -> dict[str, Any]:
    """Return spacing, times and orientation as fields of VideoMetadata, as far as the header has them."""
    measures: dict[str, Any] = {}
    steps = [float(step) for step in header["pixdim"][1:]]
    try:
        space, time = header.get_xyzt_units()
    except KeyError:  # a code that is not in the standard
        space = time = "unknown"
    down, across = axes.index("H"), axes.index("W")
    spacing = [steps[axis] * _MILLIMETRES.get(space, math.nan) for axis in (down, across) if axis < _TIME]
    if len(spacing) == 2 and all(math.isfinite(size) and size > 0 for size in spacing):
        measures["spacing_mm"] = tuple(spacing)
    step = steps[_TIME] * _SECONDS.get(time, math.nan) if axes.index("T") == _TIME else math.nan
    if math.isfinite(step) and step > 0:
        measures |= {"times": FrameTimes(0.0, step, count), "rate_hz": 1 / step}
    if int(header["qform_code"]) > 0 or int(header["sform_code"]) > 0:
        measures["tags"] = _orientation(header)
    return measures


def _orientation(header: Any) -> dict[str, str]:
    nibabel = _nibabel()
    try:
        with np.errstate(all="ignore"):
            codes = nibabel.aff2axcodes(header.get_best_affine())
    except (ValueError, np.linalg.LinAlgError, nibabel.spatialimages.HeaderDataError):
        return {}
    return {"orientation": "".join(codes)} if all(codes) else {}


def _calibration(header: Any, reading: ReadOptions) -> tuple[float, float] | None:
    """Return the window in the header, if it has one and it is requested."""
    black, white = float(header["cal_min"]), float(header["cal_max"])
    sensible = math.isfinite(black) and math.isfinite(white) and white - black > _LEAST_WINDOW
    return (black, white) if reading.window == "file" and sensible else None


def _nibabel() -> Any:
    try:
        import nibabel
    except ModuleNotFoundError as error:
        raise MissingExtraError("nibabel", extra="nifti") from error
    return nibabel
