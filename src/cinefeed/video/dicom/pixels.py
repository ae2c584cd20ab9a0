"""Pixels of one DICOM file, frame by frame: position and decoding by pydicom and its plugins.

Supported are uncompressed and deflated files (of 1, 8, 16 or 32 bits), RLE, JPEG baseline, extended and lossless,
JPEG-LS, JPEG 2000 and HTJ2K. Not supported are JPEG extended with 12 bits in colour, retired kinds of JPEG, JPIP, SMPTE
ST 2110 and JPEG XL. MPEG-2, H.264 and HEVC are read by `encapsulated`.
"""

import io
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.errors import DecodeError, EncapsulatedVideoError, MissingExtraError, SourceError
from cinefeed.video.dicom.fragments import END_OF_IMAGE, ITEM, find_frames
from cinefeed.video.dicom.header import UNCOMPRESSED, Header, Pixels, frames_of, holds_video, load_pydicom, read_header
from cinefeed.video.dicom.jpeg_lossless import decode_lossless
from cinefeed.video.images.image_size import decoded_bytes
from cinefeed.video.limits import DEFAULT_LIMITS, ReadLimits, require_regular

IMAGE = """
    Rows Columns SamplesPerPixel PhotometricInterpretation PlanarConfiguration NumberOfFrames BitsAllocated BitsStored
    HighBit PixelRepresentation ExtendedOffsetTable ExtendedOffsetTableLengths
""".split()
_GREY = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_BITS = {"PixelData": (1, 8, 16, 32), "FloatPixelData": (32,), "DoubleFloatPixelData": (64,)}
_BROKEN = "cannot be decoded: "
_RLE = "1.2.840.10008.1.2.5"
_LOSSLESS = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
_JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
# The first plugin that decodes a frame is used; on 45 files all gave the same pixels. pylibjpeg is not used for JPEG
# itself, because its decoder is under the GPL; gdcm is not used, because it crashes the process on 1 in 300 damaged
# files.
_OF_JPEG_2000, _OF_OTHERS = ("pylibjpeg", "pillow"), ("pyjpegls", "pillow", "pydicom")


class Image(NamedTuple):
    """Format of a stored frame."""

    rows: int
    columns: int
    samples: int
    photometric: str
    planar: int
    bits_allocated: int
    bits_stored: int
    high_bit: int  # the highest bit of a number; bits_stored - 1 except in old files
    signed: bool
    frames: int  # according to the header

    @property
    def is_float(self) -> bool:
        """Whether the samples are floating-point numbers."""
        return self.bits_stored == 0

    @property
    def frame_bits(self) -> int:
        """Bits of an uncompressed frame; 4:2:2 has two samples per pixel."""
        samples = 2 if self.photometric == "YBR_FULL_422" else self.samples
        return self.rows * self.columns * samples * self.bits_allocated

    @property
    def decoded_bytes(self) -> int:
        """Bytes of a decoded frame: at least one byte per sample."""
        return self.rows * self.columns * self.samples * max(self.bits_allocated // 8, 1)


class DicomFile:
    """An open DICOM file: its header, and any frame, decoded.

    `keywords` are read in addition to those of the pixels. Raises SourceError if the file has no readable image, or one
    that expands beyond the limits.
    """

    def __init__(self, path: Path, *, keywords: Iterable[str] = (), limits: ReadLimits = DEFAULT_LIMITS) -> None:
        self.path, self._limits = path, limits
        require_regular(path)
        try:
            file = path.open("rb")
        except OSError as error:
            raise SourceError(f"{path}: cannot be read ({error.strerror or error})") from error
        try:
            self.header, self._file = read_header(file, path=path, keywords=[*IMAGE, *keywords], limits=limits)
            self._size = self._file.seek(0, io.SEEK_END)
            self.image = image_of(self.header, file_bytes=self._size, path=path)
            limits.check_frame(self.image.decoded_bytes, where=path)
        except BaseException:
            file.close()
            raise
        assert self.header.pixels is not None
        self._pixels: Pixels = self.header.pixels
        self._frames: list[list[tuple[int, int]]] | None = None
        self._decoder: Any = None
        self._plugins: list[str] = []

    @property
    def compressed(self) -> bool:
        """Whether a frame must be decoded to know that it is whole."""
        return self._pixels.length is None

    def __len__(self) -> int:
        """Return the number of whole frames, as far as the file's size shows."""
        if self.compressed:
            return sum(offset + length <= self._size for *_, (offset, length) in self._spans())
        available_bytes = max(min(self._pixels.length or 0, self._size - self._pixels.offset), 0)
        return 8 * available_bytes // self.image.frame_bits

    @property
    def promised(self) -> int:
        """Number of frames according to the header, or to the length of the pixel data if that is larger."""
        if self.compressed:
            return max(self.image.frames, len(self._spans()))
        if self.image.bits_allocated == 1:  # frames share bytes; padding in the last byte is not a frame
            return self.image.frames
        return max(self.image.frames, 8 * (self._pixels.length or 0) // self.image.frame_bits)

    def frame(self, number: int) -> NDArray[Any]:
        """Return a frame, (rows, columns) or (rows, columns, 3) in RGB, otherwise as stored. Raises DecodeError."""
        of_jpeg = self._jpeg_decoder()
        decoder: Any = None if of_jpeg else self._decoder or self._find_decoder()
        try:
            if of_jpeg is not None:
                return _as_stored(of_jpeg(self._compressed(number)), self.image)
            if self.image.bits_allocated == 1:
                return self._of_single_bits(number)
            if self.compressed:
                return _in_place(self._decompressed(decoder, self._compressed(number)), self._shift, self.image)
            self._file.seek(self._pixels.offset)
            frames = max(self.promised, number + 1)
            array: NDArray[Any] = decoder.as_array(self._file, index=number, **self._options(frames))[0]
            return _in_place(array, self._shift, self.image)
        except Exception as error:  # the decoders raise errors of many kinds
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise DecodeError(
                f"{self.path}: frame {number} of {self.promised} {_BROKEN}{reason}; the file has changed or "
                f"is damaged: scan it again"
            ) from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _options(self, frames: int) -> dict[str, Any]:
        """Return the options of pydicom's decoders; none of them is free text."""
        image = self.image
        options: dict[str, Any] = {
            "rows": image.rows,
            "columns": image.columns,
            "samples_per_pixel": image.samples,
            "photometric_interpretation": image.photometric,
            "bits_allocated": image.bits_allocated,
            "pixel_keyword": self._pixels.keyword,
            "number_of_frames": frames,
        }
        if self._pixels.vr:
            options["pixel_vr"] = self._pixels.vr
        if not image.is_float:
            bits = image.bits_allocated if self._shift else image.bits_stored
            options |= {"bits_stored": bits, "pixel_representation": int(image.signed)}
        if image.samples > 1:
            options["planar_configuration"] = image.planar
        return options

    @property
    def _shift(self) -> int:
        """Number of unused low bits of a number, in old files; codecs other than RLE do not store them."""
        image = self.image
        as_stored = self.header.syntax in (*UNCOMPRESSED, _RLE) and not image.is_float
        return image.high_bit + 1 - image.bits_stored if as_stored else 0

    def _jpeg_decoder(self) -> Callable[[bytes], NDArray[np.uint16]] | None:
        """Return a decoder for formats without a usable pydicom plugin, None for all others."""
        image = self.image
        if self.header.syntax in _LOSSLESS:
            return decode_lossless
        if self.header.syntax != _JPEG_EXTENDED or image.bits_stored <= 8 or image.samples > 1:
            return None
        try:
            from imagecodecs import jpeg8_decode
        except ModuleNotFoundError as error:
            raise MissingExtraError(f"imagecodecs, for JPEG of 12 bits ({self.path})", extra="dicom") from error

        def decode_extended(data: bytes) -> NDArray[np.uint16]:
            if END_OF_IMAGE not in data[-10:]:
                raise EOFError("the image breaks off")  # libjpeg fills the missing part with grey
            samples = np.empty((image.rows, image.columns), np.uint16)  # an image of another size raises an error
            jpeg8_decode(data, out=samples)
            return samples[..., None]

        return decode_extended

    def _of_single_bits(self, number: int) -> NDArray[np.uint8]:
        """Return a frame of 0 and 1, eight pixels per byte; frames share bytes if their size is not a multiple of 8."""
        image, bits = self.image, self.image.frame_bits
        in_words = self.header.order == ">" and self._pixels.vr == "OW"
        begin, end = number * bits // 8, -(-(number + 1) * bits // 8)
        if in_words:
            begin, end = begin // 2 * 2, -(-end // 2) * 2
        self._file.seek(self._pixels.offset + begin)
        octets = np.frombuffer(self._file.read(end - begin), np.uint8)
        octets = octets.reshape(-1, 2)[:, ::-1].reshape(-1) if in_words else octets
        first = number * bits - 8 * begin
        pixels = np.unpackbits(octets, bitorder="little")[first : first + bits]
        return pixels.reshape(image.rows, image.columns)

    def _compressed(self, number: int) -> bytes:
        parts = []
        for offset, length in self._spans()[number]:
            self._file.seek(offset)
            parts.append(self._file.read(length))
            if len(parts[-1]) < length:
                raise EOFError("the file is cut off")
        data = b"".join(parts)
        self._limits.check_frame(decoded_bytes(data) or 0, where="its image")  # independent of the DICOM header
        if self.header.syntax in _JPEG_LS and END_OF_IMAGE not in data[-10:]:
            raise EOFError("the image breaks off")  # CharLS raises the same, after up to 20 seconds
        return data

    def _decompressed(self, decoder: Any, data: bytes) -> NDArray[Any]:
        alone = ITEM + bytes(4) + ITEM + struct.pack("<I", len(data)) + data  # an empty offset table, one item
        options = self._options(1)
        for plugin in self._plugins:
            try:
                array: NDArray[Any] = decoder.as_array(alone, index=0, decoding_plugin=plugin, **options)[0]
            except Exception:
                if plugin == self._plugins[-1]:
                    raise
            else:
                return array
        raise AssertionError("_find_decoder returns at least one plugin")

    def _find_decoder(self) -> Any:
        pydicom = load_pydicom()
        syntax = pydicom.uid.UID(self.header.syntax)
        try:
            if syntax == _JPEG_EXTENDED and self.image.bits_stored > 8:  # of colour
                raise NotImplementedError
            self._decoder = pydicom.pixels.get_decoder(syntax)
        except NotImplementedError:
            name = syntax.name if syntax.name != str(syntax) else f"transfer syntax {syntax}"
            raise SourceError(
                f"{self.path}: its pixels are {name} of {self.image.bits_stored} bits, which cannot be read; convert "
                f"the file to another transfer syntax"
            ) from None
        if not self.compressed:
            return self._decoder
        plugins = _OF_JPEG_2000 if "J2K" in syntax.keyword or "2000" in syntax.keyword else _OF_OTHERS
        self._plugins = [name for name in plugins if name in self._decoder.available_plugins]
        if not self._plugins:
            raise MissingExtraError(f"a decoder of {syntax.name} ({self.path})", extra="dicom")
        return self._decoder

    def _spans(self) -> list[list[tuple[int, int]]]:
        """Return offset and length of the fragments of each frame."""
        if self._frames is None:
            self._frames = find_frames(self._file, self.header, frames=self.image.frames)
        return self._frames


def why(error: DecodeError) -> str:
    """Return only the reason from an error of `frame`."""
    return str(error).partition(_BROKEN)[2].rpartition("; the file has")[0]


def _as_stored(samples: NDArray[np.uint16], image: Image) -> NDArray[Any]:
    """Return a decoded lossless JPEG image in the dtype of the header; YBR becomes RGB."""
    if samples.shape != (image.rows, image.columns, image.samples) or image.bits_allocated > 16:
        raise ValueError(f"the JPEG image has shape {samples.shape}, which differs from the header")
    size = image.bits_allocated // 8
    pixels: NDArray[Any] = samples if image.samples == 3 else samples[..., 0]
    pixels = pixels.astype(f"u{size}").view(f"{'ui'[image.signed]}{size}")
    if spare := image.bits_allocated - image.bits_stored:
        pixels = pixels << spare >> spare
    if image.photometric.startswith("YBR"):
        return np.asarray(load_pydicom().pixels.convert_color_space(pixels, "YBR_FULL", "RGB"))
    return pixels


def _in_place(pixels: NDArray[Any], shift: int, image: Image) -> NDArray[Any]:
    """Return numbers shifted to their lowest bits, with other bits removed."""
    if not shift:
        return pixels
    return pixels << (image.bits_allocated - 1 - image.high_bit) >> (image.bits_allocated - image.bits_stored)


def image_of(header: Header, *, file_bytes: int, path: object) -> Image:
    """Return the format of the frames of a file. Raises SourceError if they cannot be read."""
    rows, columns = header.integer("Rows"), header.integer("Columns")
    photometric = header.text("PhotometricInterpretation")
    samples = header.integer("SamplesPerPixel", 1)
    allocated = header.integer("BitsAllocated")
    if header.pixels is None or not (rows and columns):
        raise SourceError(f"{path}: is a DICOM file without an image")
    if holds_video(header):
        raise EncapsulatedVideoError(f"{path}: holds an encoded video, which is read as a separate sample")
    if photometric not in (_GREY if samples == 1 else _COLOUR if samples == 3 else ()):
        raise SourceError(
            f"{path}: has {samples} samples per pixel in colours that cannot be read; supported are "
            f"{', '.join(_GREY)}, or with 3 samples {', '.join(_COLOUR)}"
        )
    keyword = header.pixels.keyword
    if allocated not in _BITS[keyword]:
        raise SourceError(f"{path}: has {allocated} bits per sample; 1, 8, 16 or 32 can be read")
    if allocated == 1 and not (header.syntax in UNCOMPRESSED and photometric.startswith("MONOCHROME")):
        raise SourceError(f"{path}: has 1 bit per sample, which can be read only in uncompressed grey images")
    bits_stored = header.integer("BitsStored", allocated)
    bits_stored = bits_stored if 0 < bits_stored <= allocated else allocated
    high = header.integer("HighBit", bits_stored - 1)
    image = Image(
        rows=rows,
        columns=columns,
        samples=samples,
        photometric=photometric,
        planar=min(header.integer("PlanarConfiguration"), 1),
        bits_allocated=allocated,
        bits_stored=bits_stored if keyword == "PixelData" else 0,
        high_bit=high if bits_stored <= high + 1 <= allocated else bits_stored - 1,
        signed=header.integer("PixelRepresentation") == 1,
        frames=frames_of(header, file_bytes=file_bytes, path=path),
    )
    if (header.pixels.length is None) is (header.syntax in UNCOMPRESSED):
        raise SourceError(f"{path}: the transfer syntax and the pixel data length disagree about compression")
    return image
