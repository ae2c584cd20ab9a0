"""Planes to pixels, against FFmpeg's own conversion and against the standards' arithmetic."""

from fractions import Fraction

import av
import numpy as np
import pytest

from cinefeed.core.errors import SourceError
from cinefeed.video.color import Colour, to_pixels
from cinefeed.video.ffmpeg.pixel_formats import colour_of, plane_layout, planes_of
from cinefeed.video.planes import Planes, planes_to_array

SPACES = {"bt601": "ITU601", "bt709": "ITU709"}


def patches(count=500) -> np.ndarray:
    """Return colours as flat 8 x 8 patches, so that chroma's resolution does not matter: uint8 (8, count * 8, 3)."""
    colours = np.random.Generator(np.random.Philox(key=1)).integers(0, 256, (1, count, 3), dtype=np.uint8)
    return np.repeat(np.repeat(colours, 8, axis=0), 8, axis=1)


def as_ffmpeg_does(pixels, *, pixel_format, matrix, full_range):
    """Return a yuv frame of these pixels, and what FFmpeg's `scale` filter makes of it.

    Its default flags take a short cut of their own that is up to 4 levels off the standard: they are not used.
    """
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
        format=pixel_format, dst_colorspace=SPACES[matrix], dst_color_range="JPEG" if full_range else "MPEG"
    )
    frame.pts, tick = 0, Fraction(1, 25)
    graph = av.filter.Graph()
    buffer = graph.add_buffer(width=frame.width, height=frame.height, format=pixel_format, time_base=tick)
    span = "full" if full_range else "limited"
    exact = "flags=bicubic+accurate_rnd+full_chroma_int"
    scale = graph.add("scale", f"in_color_matrix={matrix}:in_range={span}:{exact}")
    form, sink = graph.add("format", "rgb24"), graph.add("buffersink")
    buffer.link_to(scale)
    scale.link_to(form)
    form.link_to(sink)
    graph.configure()
    graph.push(frame)
    return frame, graph.pull().to_ndarray()


def our_rgb(frame, colour) -> np.ndarray:
    planes = planes_of(frame, plane_layout(frame.format.name), grey=False)
    return planes_to_array(Planes([planes], colour), channels=3, height=frame.height, width=frame.width)[0]


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", SPACES)
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv444p12le"])
def test_rgb_is_within_two_levels_of_ffmpeg(pixel_format, matrix, full_range):
    frame, expected = as_ffmpeg_does(patches(), pixel_format=pixel_format, matrix=matrix, full_range=full_range)
    bits = plane_layout(pixel_format).bits
    colour = Colour(model="yuv", bits=bits, full_range=full_range, matrix=matrix)
    ours = our_rgb(frame, colour).astype(float) / (1 if bits == 8 else 257)
    middle = (slice(3, 5), slice(3, None, 8))  # the middle of each patch, where chroma is its own
    assert np.abs(ours - expected)[middle].max() <= 2


def test_another_matrix_is_more_than_two_levels_off():
    frame, expected = as_ffmpeg_does(patches(), pixel_format="yuv444p", matrix="bt709", full_range=False)
    ours = our_rgb(frame, Colour(model="yuv", full_range=False, matrix="bt601"))
    assert np.abs(ours.astype(int) - expected).max() > 20


def exact_rgb(luma, blue, red, *, bits, full_range, weights):
    """Return RGB from 0 to 1 by the standards' formula (BT.601-7, BT.709-6, BT.2020-2), in float64."""
    kr, kb = weights
    scale = 2.0 ** (bits - 8)
    top = 2**bits - 1
    y = luma / top if full_range else (luma - 16 * scale) / (219 * scale)
    span = top if full_range else 224 * scale
    u, v = (blue - 2.0 ** (bits - 1)) / span, (red - 2.0 ** (bits - 1)) / span
    r, b = y + 2 * (1 - kr) * v, y + 2 * (1 - kb) * u
    g = (y - kr * r - kb * b) / (1 - kr - kb)
    return np.clip(np.stack([r, g, b], axis=-1), 0, 1)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("bits", [8, 10, 16])
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize(
    ("matrix", "weights"),
    [
        ("bt601", (0.299, 0.114)),
        ("bt709", (0.2126, 0.0722)),
        ("smpte240m", (0.212, 0.087)),
        ("bt2020", (0.2627, 0.0593)),
    ],
)
def test_rgb_is_the_standards_to_one_step(matrix, weights, full_range, bits, dtype):
    rng = np.random.Generator(np.random.Philox(key=2))
    stored = np.uint8 if bits == 8 else np.uint16
    planes = [rng.integers(0, 2**bits, (2, 20, 30)).astype(stored) for _ in range(3)]
    out = np.empty((2, 20, 30, 3), dtype)
    colour = Colour(model="yuv", bits=bits, full_range=full_range, matrix=matrix)
    to_pixels(planes, colour, channels=3, out=out)
    peak = {"uint8": 255, "uint16": 65535}.get(dtype, 65535 if bits == 16 else 255)
    expected = exact_rgb(*(p.astype(float) for p in planes), bits=bits, full_range=full_range, weights=weights) * peak
    step = 0.51 if dtype != "float32" else 1e-5 * peak
    assert np.abs(out - expected).max() <= step + (0.02 * peak / 255 if dtype == "uint16" else 0.02)


def test_limited_grey_is_expanded_and_full_grey_is_unchanged():
    luma = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    out = np.empty((1, 16, 16, 1), np.uint8)
    to_pixels([luma], Colour(model="grey", full_range=False), channels=1, out=out)
    expected = np.clip(np.floor((luma - 16.0) * 255 / 219 + 0.5), 0, 255)
    np.testing.assert_array_equal(out[..., 0], expected)
    to_pixels([luma], Colour(model="grey"), channels=1, out=out)
    np.testing.assert_array_equal(out[..., 0], luma)


@pytest.mark.parametrize(
    ("bits", "stored", "dtype", "expected"),
    [
        (8, 255, "uint16", 65535),
        (8, 255, "float32", 255),
        (10, 1023, "uint8", 255),
        (10, 1023, "uint16", 65535),
        (10, 1023, "float32", 255),
        (16, 65535, "uint8", 255),
        (16, 4000, "uint16", 4000),
        (16, 4000, "float32", 4000),
        (32, -3.25, "float32", -3.25),
        (32, 7.5, "uint8", 8),
        (32, -3.0, "uint8", 0),
        (32, 1e6, "uint16", 65535),
    ],
)
def test_scales(bits, stored, dtype, expected):
    kind = {8: np.uint8, 32: np.float32}.get(bits, np.uint16)
    for channels in (1, 3):
        out = np.empty((2, 2, channels), dtype)
        to_pixels([np.full((2, 2), stored, kind)], Colour(model="grey", bits=bits), channels=channels, out=out)
        assert (out == expected).all()


PEAKS = {"uint8": 255, "uint16": 65535, "float32": 255}
WINDOWS = [(100.0, 180.0), (180.0, 100.0), (-50.0, 300.0), (300.0, -50.0), (0.25, 0.75), (120.5, 120.5), (0.0, 255.0)]


def windowed(samples, window, *, dtype):
    """Return samples through a window, by its definition, in float64."""
    black, white = window
    width = white - black if white != black else 1.0
    return np.clip((samples.astype(np.float64) - black) / width, 0, 1) * PEAKS[dtype]


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("stored", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("dtype", PEAKS)
def test_a_window_is_stretched_to_the_full_scale(dtype, stored, window):
    rng = np.random.Generator(np.random.Philox(key=6))
    samples = (rng.random((2, 20, 30)) * {"uint8": 255, "uint16": 400, "float32": 300}[stored]).astype(stored)
    samples[0, 0] = np.arange(30) * 8  # flat parts too, and what lies outside
    bits = {"uint8": 8, "uint16": 12, "float32": 32}[stored]
    for full_range in (True, False):  # a window is in stored numbers, so that a range says no more
        colour = Colour(model="grey", bits=bits, full_range=full_range, window=window)
        grey, rgb = np.empty((2, 20, 30, 1), dtype), np.empty((2, 20, 30, 3), dtype)
        to_pixels([samples], colour, channels=1, out=grey)
        to_pixels([samples], colour, channels=3, out=rgb)
        expected = windowed(samples, window, dtype=dtype)
        step = 0.501 if dtype != "float32" else 1e-3
        assert np.abs(grey[..., 0] - expected).max() <= step * (1.1 if dtype == "uint16" else 1)
        assert (rgb == grey).all()


def test_a_window_of_colour_is_channel_by_channel():
    colours = np.random.Generator(np.random.Philox(key=8)).integers(0, 1024, (2, 5, 7, 3)).astype(np.uint16)
    colour = Colour(model="rgb", bits=10, window=(200.0, 700.0))
    rgb, grey = np.empty((2, 5, 7, 3), np.uint8), np.empty((2, 5, 7, 1), np.uint8)
    to_pixels([colours], colour, channels=3, out=rgb)
    assert np.abs(rgb - windowed(colours, (200.0, 700.0), dtype="uint8")).max() <= 0.501
    to_pixels([colours], colour, channels=1, out=grey)
    assert np.abs(grey[..., 0] - rgb @ np.array([0.299, 0.587, 0.114])).max() <= 0.51  # of what is shown


def test_a_window_leaves_nothing_beyond_it():
    samples = np.array([[-1e9, -3.0, 300.0, 1e9]], np.float32)
    out = np.empty((1, 4, 1), np.float32)
    to_pixels([samples], Colour(model="grey", bits=32, window=(0.0, 255.0)), channels=1, out=out)
    assert out.ravel().tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize("bits", [8, 10, 16, 32])
@pytest.mark.parametrize("dtype", [None, *PEAKS])
def test_the_requested_dtype(dtype, bits):
    stored = {8: np.uint8, 32: np.float32}.get(bits, np.uint16)
    plane = (np.linspace(0, 255 if bits == 32 else 2**bits - 1, 48)).reshape(6, 8).astype(stored)
    natural = {8: "uint8", 32: "float32"}.get(bits, "uint16")
    for window in (None, (10.0, 200.0)):
        planes = Planes([(plane,)] * 2, Colour(model="grey", bits=bits, window=window, rotation=90, mirrored=True))
        array = planes_to_array(planes, channels=1, height=8, width=6, dtype=dtype)
        assert (array.dtype, array.shape) == (dtype or natural, (2, 8, 6, 1))
        expected = np.empty((6, 8, 1), array.dtype)
        to_pixels([plane], planes.colour, channels=1, out=expected)
        np.testing.assert_array_equal(array[1], np.rot90(expected[:, ::-1]))


def test_rgb_to_grey_weighs_as_bt601():
    colours = np.random.Generator(np.random.Philox(key=4)).integers(0, 256, (3, 5, 7, 3), dtype=np.uint8)
    out = np.empty((3, 5, 7, 1), np.uint8)
    to_pixels([colours], Colour(model="rgb"), channels=1, out=out)
    assert np.abs(out[..., 0] - colours @ np.array([0.299, 0.587, 0.114])).max() <= 0.51
    same = np.empty_like(colours)
    to_pixels([colours], Colour(model="rgb"), channels=3, out=same)
    np.testing.assert_array_equal(same, colours)


def test_an_array_that_cannot_be_written_in_one_go_is_refused():
    out = np.empty((4, 4, 2), np.uint8)[..., :1]
    with pytest.raises(SourceError, match="C-contiguous"):
        to_pixels([np.zeros((4, 4), np.uint8)], Colour(model="grey"), channels=1, out=out)


def test_odd_sizes_keep_chroma_in_place():
    luma = np.full((5, 7), 128, np.uint8)
    blue, red = np.full((3, 4), 128, np.uint8), np.full((3, 4), 200, np.uint8)
    array = planes_to_array(Planes([(luma, blue, red)], Colour(model="yuv")), channels=3, height=5, width=7)
    assert array.shape == (1, 5, 7, 3)
    assert (array == array[0, 0, 0]).all()


def test_tags_decide_and_none_is_bt601_limited():
    assert colour_of(0, 2, "yuv420p") == Colour(model="yuv", full_range=False, matrix="bt601")
    assert colour_of(2, 1, "yuv420p", rotation=90) == Colour(model="yuv", full_range=True, matrix="bt709", rotation=90)
    turned = colour_of(2, 1, "yuv420p", mirrored=True, aspect=1.5)
    assert (turned.rotation, turned.mirrored, turned.aspect) == (0, True, 1.5)
    for tag, matrix in ((0, "bt601"), (2, "bt601"), (5, "bt601"), (6, "bt601"), (7, "smpte240m"), (9, "bt2020")):
        assert colour_of(0, tag, "yuv420p").matrix == matrix
    assert colour_of(0, 2, "yuvj420p").full_range
    assert colour_of(0, 2, "gray").full_range
    assert not colour_of(1, 2, "gray").full_range
    assert colour_of(0, 2, "yuv420p", grey=True) == Colour(model="grey", full_range=False)
