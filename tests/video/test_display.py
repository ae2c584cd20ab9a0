"""From frames as stored to frames as shown: mirrored, square pixels, upright."""

import struct
from fractions import Fraction
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest

from cinefeed import open_video, probe
from cinefeed.testing import check_source, numbered_frames, read_number, write_video
from cinefeed.transforms.compose import Compose
from cinefeed.video.clips import Frame
from cinefeed.video.color import Colour
from cinefeed.video.orientation import orientation, shown_size, square_or, square_size, stored_size, upright
from cinefeed.video.planes import Planes


@pytest.mark.parametrize(
    ("ratio", "aspect"),
    [
        (Fraction(4, 3), 4 / 3),
        (Fraction(1, 2), 0.5),
        (Fraction(4), 4.0),
        (Fraction(224, 225), 1.0),
        (Fraction(640, 639), 1.0),
        (Fraction(0), 1.0),
        (None, 1.0),
        (Fraction(5), 1.0),
        (Fraction(1, 12345), 1.0),
    ],
)
def test_an_implausible_pixel_aspect_counts_as_square(ratio, aspect):
    assert square_or(ratio) == aspect


def test_the_axis_that_must_grow_is_scaled_and_the_stored_size_can_be_told():
    for aspect in (0.25, 0.5, 0.91, 1.0, 1.067, 128 / 117, 4 / 3, 64 / 45, 2.0, 4.0):
        for size in [(height, width) for height in range(1, 40) for width in (1, 2, 119, 352, 353, 720)]:
            square = square_size(*size, aspect=aspect)
            assert square[0] >= size[0]
            assert square[1] >= size[1]
            assert square[0] == size[0] or square[1] == size[1]
            for rotation in (0, 90, 180, 270):
                displayed = shown_size(*size, aspect=aspect, rotation=rotation)
                assert displayed == (square if rotation % 180 == 0 else square[::-1])
                assert stored_size(*displayed, aspect=aspect, rotation=rotation) == size


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_all_eight_orientations(tmp_path, rotation, mirrored):
    displayed = numbered_frames(3, height=96, width=128, first=700)
    stored = np.rot90(displayed, -rotation // 90, axes=(1, 2))
    stored = stored[:, :, ::-1] if mirrored else stored
    path = write_video(tmp_path / "turned.mp4", stored, rotation=rotation, mirrored=mirrored)
    for verify in ("decode", "packets"):
        metadata = probe(path, verify=verify)
        assert (metadata.rotation, metadata.mirrored, metadata.height, metadata.width) == (rotation, mirrored, 96, 128)
    with open_video(path, metadata=metadata) as source:
        assert [read_number(frame) for frame in source.read([2, 0])] == [702, 700]
        colour = source.planes([0]).colour
        assert (colour.rotation, colour.mirrored) == (rotation, mirrored)
        check_source(source)


def packed(*, degrees: float, hflip: bool = False, scale: float = 1.0) -> bytes:
    """Return a display matrix: turned counter-clockwise, then mirrored, as FFmpeg writes it."""
    turn = np.radians(degrees)
    a, b, c, d = np.cos(turn), -np.sin(turn), np.sin(turn), np.cos(turn)
    values = [-a if hflip else a, b, 0, -c if hflip else c, d, 0, 0, 0]
    return struct.pack("=9i", *(int(value * 65536 * scale) for value in values), 1 << 30)


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(("degrees", "turn"), [(0, 0), (3, 0), (88.5, 90), (-90, 270), (179, 180), (-178, 180)])
def test_angles_count_as_the_nearest_quarter_turn(degrees, turn, scale):
    for hflip in (False, True):
        carried = {av.sidedata.sidedata.Type.DISPLAYMATRIX: packed(degrees=degrees, hflip=hflip, scale=scale)}
        frame = SimpleNamespace(side_data=carried, rotation=0)
        assert orientation(frame) == ((-turn % 360 if hflip else turn), hflip)
    assert orientation(SimpleNamespace(side_data={}, rotation=0)) == (0, False)


def test_side_data_without_a_name_leaves_the_angle():
    class Unnamed:
        rotation = -90

        @property
        def side_data(self):
            raise ValueError("31 is not a valid Type")

    assert orientation(Unnamed()) == (270, False)


@pytest.mark.parametrize("rotation", [0, 90])
@pytest.mark.parametrize(("aspect", "size"), [(Fraction(4, 3), (96, 171)), (Fraction(1, 2), (192, 128))])
def test_pixels_are_made_square(tmp_path, aspect, size, rotation):
    frames = numbered_frames(4, height=96, width=128, first=300)
    path = write_video(tmp_path / "wide.mp4", frames, aspect=aspect, rotation=rotation)
    metadata = probe(path)
    assert metadata.aspect == pytest.approx(float(aspect))
    assert (metadata.height, metadata.width) == (size[::-1] if rotation else size)
    with open_video(path, channels=1, metadata=metadata) as source:
        planes = source.planes([3])
        assert planes.frames[0][0].shape == (96, 128)
        assert planes.colour.aspect == metadata.aspect
        read = source.read([3])
        assert read.shape == (1, metadata.height, metadata.width, 1)
        assert read_number(np.rot90(read[0], -rotation // 90)) == 303
        check_source(source)


@pytest.mark.parametrize("aspect", [Fraction(0), Fraction(100, 1), Fraction(224, 225)])
def test_an_absurd_shape_of_pixels_is_passed_over(tmp_path, aspect):
    path = write_video(tmp_path / "odd.mkv", numbered_frames(2), codec="mpeg4", aspect=aspect)
    metadata = probe(path)
    assert (metadata.aspect, metadata.height, metadata.width) == (1.0, 64, 64)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("aspect", [1.0, 1.5, 0.6])
def test_display_equals_a_chain_of_plain_steps(aspect, rotation, mirrored):
    stored = np.random.default_rng(3).integers(0, 256, (20, 34, 3), np.uint8)
    height, width = square_size(20, 34, aspect=aspect)
    plain = cv2.resize(stored[:, ::-1] if mirrored else stored, (width, height))
    plain = np.rot90(plain, rotation // 90)
    colour = Colour(model="rgb", rotation=rotation, mirrored=mirrored, aspect=aspect)
    result = upright(stored, colour, height=plain.shape[0], width=plain.shape[1])
    assert np.abs(result.astype(int) - plain).max() <= 1  # which of the two pixels is left is rounded otherwise
    if aspect == 1:
        np.testing.assert_array_equal(result, plain)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("aspect", [1.0, 1.5, 0.6])
def test_one_matrix_shows_the_same_as_reading(aspect, rotation, mirrored):
    """Compose fuses all of it with the fit: with a target of the shown size, it is `read`."""
    stored = np.random.default_rng(3).integers(0, 256, (20, 34), np.uint8)
    colour = Colour(model="grey", rotation=rotation, mirrored=mirrored, aspect=aspect)
    height, width = shown_size(20, 34, aspect=aspect, rotation=rotation)
    read = upright(stored[..., None], colour, height=height, width=width)
    out = np.empty((1, height, width, 1), np.uint8)
    compose = Compose([], frame=Frame(height=height, width=width, channels=1, fit="stretch"))
    compose.render(Planes([(stored,)], colour), out, [])
    assert np.abs(out[0].astype(int) - read).max() <= (0 if aspect == 1 else 1)
