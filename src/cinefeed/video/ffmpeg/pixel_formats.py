"""Planes of a decoded frame as NumPy views, for every pixel format of FFmpeg."""

import re
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from cinefeed.video.color import Colour, ColourModel, Matrix

Packing = Literal["planar", "semiplanar", "packed", "gbr"]

# Interleaved formats that OpenCV reorders; alpha is dropped, as in FFmpeg's own conversion.
_REORDER = {
    "bgr24": (3, cv2.COLOR_BGR2RGB),
    "rgba": (4, cv2.COLOR_RGBA2RGB),
    "rgb0": (4, cv2.COLOR_RGBA2RGB),
    "bgra": (4, cv2.COLOR_BGRA2RGB),
    "bgr0": (4, cv2.COLOR_BGRA2RGB),
}
_TAGGED_LIMITED, _TAGGED_FULL = 1, 2  # AVColorRange
# AVColorSpace; all others are BT.601 or close to it
_MATRICES: dict[int, Matrix] = {1: "bt709", 7: "smpte240m", 9: "bt2020", 10: "bt2020"}


class PlaneLayout(NamedTuple):
    """How to extract the planes of one pixel format from a frame.

    `via` is the format to which swscale converts a frame first, "" if no conversion is needed.
    """

    model: ColourModel
    bits: int
    packing: Packing
    order: tuple[int, ...] = (0,)
    via: str = ""
    reorder: tuple[int, int] | None = None  # samples per pixel, and OpenCV's conversion code to RGB

    @property
    def channels(self) -> int:
        """1 for grey, else 3."""
        return 1 if self.model == "grey" else 3

    @property
    def samples(self) -> int:
        """Samples per pixel of a packed format, those that are not used among them."""
        return self.reorder[0] if self.reorder else 3


@lru_cache(maxsize=256)
def plane_layout(pixel_format: str) -> PlaneLayout:
    """Return how to read a pixel format, given FFmpeg's name of it.

    >>> plane_layout("yuv420p10le")
    PlaneLayout(model='yuv', bits=10, packing='planar', order=(0, 1, 2), via='', reorder=None)
    >>> plane_layout("pal8").via
    'rgb24'
    """
    if match := re.fullmatch(r"yuv[aj]?4\d\dp(?:(9|10|12|14|16)le)?", pixel_format):
        return PlaneLayout("yuv", int(match[1] or 8), "planar", (0, 1, 2))
    if match := re.fullmatch(r"gray(?:(9|10|12|14|16)le)?", pixel_format):
        return PlaneLayout("grey", int(match[1] or 8), "planar")
    if pixel_format == "grayf32le":
        return PlaneLayout("grey", 32, "planar")
    if match := re.fullmatch(r"gbra?p(?:(9|10|12|14|16)le)?", pixel_format):
        return PlaneLayout("rgb", int(match[1] or 8), "gbr", (2, 0, 1))
    if pixel_format in {"nv12", "nv16", "nv24"}:
        return PlaneLayout("yuv", 8, "semiplanar", (0, 1))
    if pixel_format in {"nv21", "nv42"}:
        return PlaneLayout("yuv", 8, "semiplanar", (1, 0))
    if pixel_format in {"rgb24", "rgb48le"}:
        return PlaneLayout("rgb", 8 if pixel_format == "rgb24" else 16, "packed")
    if pixel_format in _REORDER:
        return PlaneLayout("rgb", 8, "packed", reorder=_REORDER[pixel_format])
    form = av.VideoFormat(pixel_format)
    deep = any(part.bits > 8 for part in form.components)
    if form.is_rgb or form.has_palette or form.is_bayer:
        via = "rgb48le" if deep else "rgb24"
    elif len(form.components) <= 2:  # grey, or grey and alpha
        via = "gray16le" if deep else "gray"
    else:
        via = "yuv444p16le" if deep else "yuv444p"
    return plane_layout(via)._replace(via=via)


@lru_cache(maxsize=256)
def colour_of(
    tagged_range: int,
    tagged_space: int,
    pixel_format: str,
    *,
    grey: bool = False,
    rotation: int = 0,
    mirrored: bool = False,
    aspect: float = 1.0,
) -> Colour:
    """Return the colour conversion of a frame from its tags; without tags BT.601 limited, for grey full range.

    `grey` means that only the luma of a yuv format is returned. Rotation, mirroring and aspect are passed on.
    """
    layout = plane_layout(pixel_format)
    if layout.model == "rgb":
        full = True
    elif layout.model == "grey":
        full = tagged_range != _TAGGED_LIMITED
    else:
        full = tagged_range == _TAGGED_FULL or pixel_format.startswith("yuvj")
    return Colour(
        model="grey" if grey and layout.model == "yuv" else layout.model,
        bits=layout.bits,
        full_range=full,
        matrix=_MATRICES.get(tagged_space, "bt601"),
        rotation=rotation,
        mirrored=mirrored,
        aspect=aspect,
        open_scale=layout.model == "grey" and layout.bits > 8,
    )


def planes_of(frame: av.VideoFrame, layout: PlaneLayout, *, grey: bool) -> tuple[NDArray[Any], ...]:
    """Return the planes of a frame; `grey` returns luma only from a yuv format.

    Planes are views into FFmpeg's buffers, which remain valid as long as a view exists; formats whose interleaving
    differs from that of the result are copied.
    """
    if layout.via:
        frame = frame.reformat(format=layout.via)
    parts = frame.planes
    if layout.packing == "packed":
        return (rgb_of(_view(parts[0], layout.bits, layout.samples), layout),)
    if layout.packing == "gbr":
        return (np.stack([_view(parts[i], layout.bits) for i in layout.order], axis=-1),)
    if grey or layout.model == "grey":
        return (_view(parts[0], layout.bits),)
    if layout.packing == "semiplanar":
        both = _view(parts[1], 8, samples=2)
        return (_view(parts[0], 8), *(np.ascontiguousarray(both[:, :, i]) for i in layout.order))
    return tuple(_view(parts[i], layout.bits) for i in layout.order)


@lru_cache(maxsize=256)
def plane_shapes(name: str, height: int, width: int) -> tuple[tuple[int, int], ...]:
    """Return the rows of each plane of a planar or packed pixel format, and the samples in a row.

    >>> plane_shapes("yuv420p", 141, 148)
    ((141, 148), (71, 74), (71, 74))
    >>> plane_shapes("bgr0", 141, 148)
    ((141, 592),)
    """
    layout = plane_layout(name)
    if layout.packing == "packed":
        return ((height, width * layout.samples),)
    return tuple((part.height, part.width) for part in av.VideoFormat(name, width, height).components)


_TWO_BYTES: np.dtype[Any] = np.dtype("<u2")
_SAMPLES: dict[int, np.dtype[Any]] = {8: np.dtype("u1"), 32: np.dtype("<f4")}  # by depth; all others are two bytes


def samples_of(bits: int) -> np.dtype[Any]:
    """Return the dtype of the samples of a plane."""
    return _SAMPLES.get(bits, _TWO_BYTES)


def _view(plane: Any, bits: int, samples: int = 1) -> NDArray[Any]:
    dtype, line = samples_of(bits), plane.line_size
    size = dtype.itemsize
    shape: tuple[int, ...] = (plane.height, plane.width)
    strides: tuple[int, ...] = (abs(line), size * samples)
    if samples > 1:
        shape, strides = (*shape, samples), (*strides, size)
    view: NDArray[Any] = np.ndarray(shape, dtype, plane, 0, strides)
    return view if line > 0 else view[::-1]  # some decoders store bottom-up


def rgb_of(pixels: NDArray[Any], layout: PlaneLayout) -> NDArray[Any]:
    """Return the RGB pixels of a packed format, (rows, columns, 3), given all its samples."""
    return pixels if layout.reorder is None else cv2.cvtColor(pixels, layout.reorder[1])
