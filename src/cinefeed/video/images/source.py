"""Images: a folder with one file per frame, and TIFF files with one page per frame. Frames are decoded on request."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cinefeed.core.errors import DecodeError, SourceError
from cinefeed.video.arrays.array_frames import ArrayFile, ArrayFrames, as_plane, broken_after, windowed
from cinefeed.video.ffmpeg.probe import Verify
from cinefeed.video.images.groups import group_images, missing_numbers
from cinefeed.video.images.image_size import decoded_bytes
from cinefeed.video.images.tiff import Pages
from cinefeed.video.kinds import IMAGE_SUFFIXES, START_BYTES, is_animated, misnamed_image
from cinefeed.video.limits import DEFAULT_LIMITS, ReadLimits, require_regular
from cinefeed.video.metadata import VideoMetadata
from cinefeed.video.read_options import DEFAULT_READ_OPTIONS, ReadOptions
from cinefeed.video.timestamps import FrameTimes
from cinefeed.video.value_range import decode_through

# Depth and channels as stored, without alpha, with palettes looked up and the EXIF orientation applied.
_FLAGS = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH
_NO_IMAGE = "cannot be decoded: OpenCV does not support this image, or it is cut off"
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_COLOUR_TYPE, _GREY_WITH_ALPHA = 25, 4  # position of the colour type; OpenCV makes three channels of this type


class ImagesSource(ArrayFile):
    """A folder of images, one per frame, in the order of `metadata.files`.

    Grey, RGB and palette images of 8 or 16 bits or floats, through OpenCV. An alpha channel is dropped; an EXIF
    orientation is applied. Other integers and floats become float32.
    """

    @staticmethod
    def _probe(path: Path, part: str | None) -> VideoMetadata:
        return probe_images(path)

    def _open(self, part: str | None) -> None:
        self._limits = _limits_of(self.metadata)
        if len(self.metadata.files) < len(self):
            raise SourceError(
                f"{self.path}: its metadata has {len(self)} frames and {len(self.metadata.files)} files; scan it again"
            )

    def _numbers(self, number: int) -> NDArray[Any]:
        file = self.path / self.metadata.files[number]
        try:
            return _matching(_image(file, self._limits), self.metadata)
        except DecodeError as error:
            raise DecodeError(f"{file}: frame {number} {error}") from error


class TiffSource(ArrayFile):
    """A TIFF file of several pages, one per frame; see ImagesSource for the supported images.

    The file is memory-mapped, and a page is decoded from its position, without the pages before it: page 2000 of 64 x
    64 takes 0.05 ms, and 350 ms through OpenCV's own interface, which is used for files of 2 GB and more. Pages of 16
    bits in which white is 0 are not inverted; those of 8 bits are.
    """

    @staticmethod
    def _probe(path: Path, part: str | None) -> VideoMetadata:
        return probe_tiff(path)

    def _open(self, part: str | None) -> None:
        self._pages = Pages(self.path)
        self._limits = _limits_of(self.metadata)

    def _numbers(self, number: int) -> NDArray[Any]:
        try:
            return _matching(_page(self._pages, number, self._limits), self.metadata)
        except DecodeError as error:
            raise DecodeError(f"{self.path}: frame {number} {error}") from error

    def close(self) -> None:
        """Close the file; planes that were returned remain valid."""
        super().close()
        self._pages.close()


def probe_images(
    path: str | Path,
    *,
    part: str | None = None,
    files: Sequence[str] = (),
    verify: Verify = "decode",
    reading: ReadOptions = DEFAULT_READ_OPTIONS,
) -> VideoMetadata:
    """Return the metadata of a folder of images; `files` are its frames, by default those of `group_images`.

    With verify="decode" every image is decoded, else only the first. Images before one that is missing, broken, or of
    another size or format than the first can be read. If the numbers in the names have gaps, the tag `missing_frames`
    has their number. Raises SourceError if the first cannot be read.
    """
    path = Path(path)
    files = tuple(files) or _files_of(path, reading.frames)
    try:
        first = _image(path / files[0], reading.limits)
    except DecodeError as error:
        other = misnamed_image(path / files[0])
        reason = f"is a {other}: give the files their own suffix" if other else error
        raise SourceError(f"{path}: its first frame, {files[0]}, {reason}") from error
    metadata = _metadata(first, len(files), container="images", codec=PurePosixPath(files[0]).suffix[1:].lower())
    missing = missing_numbers(files)
    metadata = replace(metadata, files=files, tags={"missing_frames": missing} if missing else {})
    return _checked(ImagesSource(path, metadata=metadata), verify, reading)


def probe_tiff(
    path: str | Path,
    *,
    part: str | None = None,
    files: Sequence[str] = (),
    verify: Verify = "decode",
    reading: ReadOptions = DEFAULT_READ_OPTIONS,
) -> VideoMetadata:
    """Return the metadata of a TIFF file, whose pages are frames.

    With verify="decode" every page is decoded, else only the first. Pages before one that is broken, or of another size
    or format than the first, can be read. Raises SourceError if the first cannot be read.
    """
    path = Path(path)
    pages = Pages(path)
    try:
        count, fault = pages.count()
        reading.limits.check_frames(count, where=path)
        metadata = _metadata(_page(pages, 0, reading.limits), count, container="tiff", codec="tiff")
    except DecodeError as error:
        raise SourceError(f"{path}: its first page {error}") from error
    finally:
        pages.close()
    if fault is not None:
        metadata = replace(metadata, error=f"breaks after {count} frames: page {count} {fault}")
    return _checked(TiffSource(path, metadata=metadata), verify, reading)


def _files_of(path: Path, frames: str | None) -> tuple[str, ...]:
    try:
        names = [each.name for each in path.iterdir() if each.suffix.lower() in IMAGE_SUFFIXES]
    except OSError as error:
        raise SourceError(f"{path}: cannot be read as a folder of images ({error.strerror or error})") from error
    groups = group_images(names, frames=frames)
    if groups.ambiguous:
        patterns = " or ".join(f"frames={pattern!r}" for pattern in groups.ambiguous["."])
        raise SourceError(
            f"{path}: holds images of several kinds; select those that are frames: ReadOptions({patterns})"
        )
    if not groups.samples:
        raise SourceError(f"{path}: holds {len(names)} images; a video is a folder of two or more, all of one format")
    return groups.samples[0].files


def _limits_of(metadata: VideoMetadata) -> ReadLimits:
    """Return the limits of a frame after a scan: a file that was replaced since may be larger."""
    return DEFAULT_LIMITS.covering(height=metadata.height, width=metadata.width, count=1)


def _metadata(image: NDArray[Any], count: int, *, container: str, codec: str) -> VideoMetadata:
    height, width = image.shape[:2]
    return VideoMetadata(
        height=height,
        width=width,
        channels=1 if image.ndim == 2 else 3,
        bits=8 * image.dtype.itemsize,
        times=FrameTimes(0.0, float("nan"), count),
        container=container,
        codec=codec,
        pixel_format=_kind_of(image),
        header_frames=count,
    )


def _kind_of(image: NDArray[Any]) -> str:
    return f"{'grey' if image.ndim == 2 else 'rgb'} {image.dtype}"


def _matching(image: NDArray[Any], metadata: VideoMetadata) -> NDArray[Any]:
    """Return an image that has the format of the first of its video. Raises DecodeError otherwise."""
    kind = _kind_of(image)
    if image.shape[:2] != (metadata.height, metadata.width) or kind != metadata.pixel_format:
        raise DecodeError(
            f"is {image.shape[1]} x {image.shape[0]}, {kind}; the first is {metadata.width} x {metadata.height}, "
            f"{metadata.pixel_format}"
        )
    return image


def _checked(source: ArrayFrames, verify: Verify, reading: ReadOptions) -> VideoMetadata:
    """Close a source and return its metadata, limited to readable frames, with a window if requested."""
    with source:
        if verify == "decode":
            # The first image is already decoded.
            whole, error, values = decode_through(source, deadline=reading.limits.deadline(source.path), first=1)
            source.metadata = replace(source.metadata, values=values)
            if error is not None:  # its cause has no file name, so that the manifest has none
                source.metadata = broken_after(source.metadata, whole, f"the next {error.__cause__}", where=source.path)
        return windowed(source, reading)


def _page(pages: Pages, number: int, limits: ReadLimits) -> NDArray[Any]:
    limits.check_frame(pages.decoded_bytes(number), where=pages.path)
    data = pages.starting_at(number)
    if data is not None:
        return _decode(data)
    try:
        _, images = cv2.imreadmulti(str(pages.path), number, 1, None, _FLAGS)
    except cv2.error as error:
        raise DecodeError(f"cannot be decoded ({error.err})") from error
    if not images:
        raise DecodeError("cannot be decoded, or is cut off")
    return _as_shown(images[0])


def _image(file: Path, limits: ReadLimits) -> NDArray[Any]:
    try:
        require_regular(file)
        data = np.fromfile(file, np.uint8)
    except OSError as error:
        raise DecodeError(f"cannot be read ({error.strerror or error})") from error
    if is_animated(data[:START_BYTES].tobytes()):
        raise DecodeError("is animated, so it is a separate video; move it to a folder without frames of its format")
    size = _bytes_of_page(file, data) if data[:2].tobytes() in (b"II", b"MM") else decoded_bytes(data)
    if size is None:
        raise DecodeError(_NO_IMAGE)
    limits.check_frame(size, where=file)
    image = _decode(data)
    if image.ndim == 3 and data[: len(_PNG)].tobytes() == _PNG and data[_PNG_COLOUR_TYPE] == _GREY_WITH_ALPHA:
        return np.ascontiguousarray(image[..., 0])
    return image


def _bytes_of_page(file: Path, data: NDArray[np.uint8]) -> int | None:
    try:
        return Pages(file, data).decoded_bytes(0)
    except SourceError:
        return None


def _decode(data: NDArray[np.uint8]) -> NDArray[Any]:
    """Return an image as a plane. Raises DecodeError, without a file name, if it cannot be decoded."""
    try:
        image = cv2.imdecode(data, _FLAGS) if data.size else None
    except cv2.error as error:
        raise DecodeError(f"cannot be decoded ({error.err})") from error
    if image is None:
        raise DecodeError(_NO_IMAGE)
    return _as_shown(image)


def _as_shown(image: NDArray[Any]) -> NDArray[Any]:
    plane = as_plane(image)
    return plane if plane.ndim == 2 else cv2.cvtColor(plane, cv2.COLOR_BGR2RGB)
