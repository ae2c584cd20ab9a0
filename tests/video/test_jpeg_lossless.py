"""Lossless JPEG: every predictor, depth and way to lay out scans comes back as it was coded."""

import numpy as np
import pytest
from made_jpeg import coded

from cinefeed.video.dicom.jpeg_lossless import decode_lossless

RNG = np.random.default_rng(7)


def noise(bits, *, rows=11, columns=9, components=1):
    return RNG.integers(0, 1 << bits, (rows, columns, components), dtype=np.uint16)


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize("bits", [2, 8, 12, 16])
def test_every_predictor_and_depth(predictor, bits):
    image = noise(bits)
    np.testing.assert_array_equal(decode_lossless(coded(image, bits=bits, predictor=predictor)), image)


@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize("restart_rows", [0, 1, 4])
def test_colour_scans_and_restarts(interleaved, restart_rows):
    image = noise(8, components=3)
    data = coded(image, bits=8, predictor=4, interleaved=interleaved, restart_rows=restart_rows, fill=b"\xff\xff")
    np.testing.assert_array_equal(decode_lossless(data), image)


def test_a_point_transform_leaves_low_bits_out():
    image = noise(12)
    np.testing.assert_array_equal(decode_lossless(coded(image, bits=12, shift=3)), image >> 3 << 3)


def test_a_difference_of_32768_has_no_more_bits():
    image = np.zeros((4, 5, 1), np.uint16)  # 16 bits predict 32768 for the first
    image[2, 2:] = 32768
    np.testing.assert_array_equal(decode_lossless(coded(image, bits=16)), image)


def test_other_pixels_are_detected():
    image = noise(8)
    data = coded(image, bits=8)
    image[5, 5] ^= 1
    assert (decode_lossless(data) != image).sum() == 1


def test_a_truncated_image_raises():
    data = coded(noise(12, components=3), bits=12, restart_rows=3, interleaved=False)
    for end in range(0, len(data) - 2, 7):
        with pytest.raises(ValueError, match=r"breaks off|not there"):
            decode_lossless(data[:end])


def test_damage_is_an_error_or_other_pixels_and_never_more():
    data = coded(noise(12), bits=12, predictor=7, restart_rows=3)
    for i in range(3000):
        damaged = bytearray(data)
        for place in RNG.integers(2, len(data), 1 + i % 5):
            damaged[place] = RNG.integers(0, 256)
        try:
            samples = decode_lossless(bytes(damaged))
        except ValueError:
            continue
        assert samples.dtype == np.uint16 and samples.ndim == 3


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (b"\xff\xc3", b"\xff\xc0", "not a lossless image"),
        (b"\x01\x11\x00", b"\x01\x21\x00", "different sizes"),
        (b"\xff\xc3\x00\x0b\x08", b"\xff\xc3\x00\x0b\x11", "17 bits"),
        (b"\x01\x00\x01\x00\x00", b"\x01\x00\x08\x00\x00", "refers to a missing component or table"),
        (b"\x01\x01\x00\x01\x00\x00", b"\x01\x01\x10\x01\x00\x00", "refers to a missing component or table"),
    ],
)
def test_an_undecodable_image_raises(place, value, message):
    data = coded(noise(8), bits=8)
    assert place in data
    with pytest.raises(ValueError, match=message):
        decode_lossless(data.replace(place, value, 1))
