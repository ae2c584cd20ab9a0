"""Each move against SciPy in float64, through Compose, from the decoded frame to the target."""

import numpy as np
import pytest
from scipy import ndimage

from cinefeed.core.errors import ClipError, SettingError
from cinefeed.transforms.base import ClipInfo
from cinefeed.transforms.compose import Compose
from cinefeed.transforms.elastic import Elastic
from cinefeed.transforms.field import map_points, pixel_centres, resample_at
from cinefeed.transforms.framing import Pad, RandomResizedCrop, Resize
from cinefeed.transforms.geometry import Flip, Rotate, Scale, Shear, Shift
from cinefeed.transforms.resample import resample
from cinefeed.video.clips import Frame
from cinefeed.video.color import Colour
from cinefeed.video.planes import Planes

GREY = Colour(model="grey")
SIZE = (90, 120)


def smooth(height, width, *, seed=0, sigma=8.0):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random((height, width)), sigma, mode="wrap")
    return (noise - noise.min()) / np.ptp(noise) * 255


def render(transforms, frames, parameters, *, frame, colour=GREY, **options):
    compose = Compose(transforms, frame=frame)
    out = np.empty((len(frames), frame.height, frame.width, frame.channels), compose.dtype)
    planes = [each if isinstance(each, tuple) else (each,) for each in frames]
    compose.render(Planes(planes, colour), out, parameters, **options)
    return out


def sampled(image, x, y, *, mode="constant"):
    """Return an image's values at points, corner-origin, by SciPy."""
    return ndimage.map_coordinates(image.astype(np.float64), [y - 0.5, x - 0.5], order=1, mode=mode)


MOVES = [
    (Rotate(degrees=25), {"degrees": 17.0}),
    (Shift(pixels=9), {"right": 3.3, "down": -7.6}),
    (Scale(factor=0.3), {"factor": 1.2}),
    (Shear(degrees=30, axis="both"), {"across": 14.0, "down": -5.0}),
    (Flip(axis="both"), {"horizontal": True, "vertical": True}),
    (RandomResizedCrop(), {"left": 11.3, "top": 20.1, "width": 80.4, "height": 50.5}),
    (Pad(pixels=9), {"margin": 8.6}),
    (Resize(height=75, width=131), {}),
]


@pytest.mark.parametrize(("transform", "parameters"), MOVES, ids=lambda each: repr(each)[:30])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_moves_agree_with_scipy(transform, parameters, dtype):
    clip = [smooth(*SIZE, seed=seed).astype(dtype) for seed in range(3)]
    inverse = np.linalg.inv(transform.matrix(parameters, height=SIZE[0], width=SIZE[1]))
    x, y = map_points(pixel_centres(*SIZE), inverse)
    result = transform.apply(np.stack(clip)[..., None], parameters)[..., 0].astype(np.float64)
    inside = sampled(np.ones(SIZE), x, y) > 0.999
    assert inside.mean() > 0.3
    for frame, image in zip(result, clip, strict=True):
        error = np.abs(frame - sampled(image, x, y))[inside]
        assert error.mean() < 0.5 and error.max() <= 1.0


@pytest.mark.parametrize("channels", [1, 3])
def test_an_elastic_field_between_moves_is_one_interpolation(channels):
    """Rotate, deform, shift, deform, flip: from a larger frame, at once, as SciPy does it with the composed points."""
    elastic = Elastic(pixels=4)
    info = ClipInfo(3, *SIZE, channels)
    fields = [elastic.sample(np.random.default_rng(seed), info) for seed in (1, 2)]
    chain = [
        (Rotate(degrees=9), {"degrees": 8.0}),
        (elastic, fields[0]),
        (Shift(pixels=9), {"right": 5.5, "down": -2.0}),
        (elastic, fields[1]),
        (Flip(probability=1.0), {"horizontal": True, "vertical": False}),
    ]
    frame = Frame(height=SIZE[0], width=SIZE[1], channels=channels)
    shape = (200, 240) if channels == 1 else (200, 240, 3)
    image = np.stack([smooth(200, 240, seed=seed, sigma=20) for seed in range(3)], axis=-1)[..., : shape[-1]]
    image = (image[..., 0] if channels == 1 else image).astype(np.uint8)
    compose = Compose([each for each, _ in chain], frame=frame)
    assert compose.explain().count("one interpolation") == 1
    parameters = [each for _, each in chain]
    colour = GREY if channels == 1 else Colour(model="rgb")
    result = render(compose.transforms, [image] * 2, parameters, frame=frame, colour=colour)
    points = pixel_centres(*SIZE)
    for transform, parameters in reversed(chain):
        if isinstance(transform, Elastic):
            points = transform.source_points(points, parameters, height=SIZE[0], width=SIZE[1])
        else:
            inverse = np.linalg.inv(transform.matrix(parameters, height=SIZE[0], width=SIZE[1]))
            points = map_points(points, inverse)
    inverse = np.linalg.inv(frame.matrix(200, 240))
    x, y = map_points(points, inverse)
    inside = sampled(np.ones((200, 240)), x, y) > 0.999
    assert inside.mean() > 0.8
    for channel in range(channels):
        plane = image if channels == 1 else image[..., channel]
        error = np.abs(result[0, :, :, channel] - sampled(plane, x, y))[inside]
        assert error.mean() < 0.5 and error.max() < 2.5
    assert (result[0] == result[1]).all()


def test_an_elastic_field_moves_chroma_with_luma():
    image = np.stack([smooth(96, 96, seed=seed, sigma=10) for seed in range(3)], axis=-1) * 0.5 + 60
    red, green, blue = np.moveaxis(image, -1, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    chroma = [128 + (blue - luma) / 1.772, 128 + (red - luma) / 1.402]
    small = [each.reshape(48, 2, 48, 2).mean(axis=(1, 3)) for each in chroma]
    planes = tuple(np.rint(each).astype(np.uint8) for each in (luma, *small))
    elastic = Elastic(pixels=6)
    parameters = [elastic.sample(np.random.default_rng(3), ClipInfo(1, 64, 64, 3))]
    frame = Frame(height=64, width=64)
    rgb = render([elastic], [np.rint(image).astype(np.uint8)], parameters, frame=frame, colour=Colour(model="rgb"))
    yuv = render([elastic], [planes], parameters, frame=frame, colour=Colour(model="yuv", full_range=True))
    inside = rgb.min(axis=-1) > 0
    assert inside.mean() > 0.8
    assert np.abs(rgb.astype(int) - yuv)[inside].mean() < 1.0


def test_an_elastic_field_keeps_the_centroid_where_it_is_even():
    """All points moved alike are a shift, by as much, and not half a pixel more."""
    rows, columns = np.mgrid[:64, :80] + 0.5
    blob = (200 * np.exp(-((rows - 30) ** 2 + (columns - 40) ** 2) / 2 / 6.0**2)).astype(np.float32)
    even = {"across": [[3.25] * 4] * 4, "down": [[-2.5] * 4] * 4}
    result = Elastic(pixels=4).apply(blob[None, :, :, None], even)[0, ..., 0]
    assert abs((result * columns).sum() / result.sum() - 36.75) < 0.01
    assert abs((result * rows).sum() / result.sum() - 32.5) < 0.01


def test_an_elastic_field_is_smooth_and_as_strong_as_it_says():
    elastic = Elastic(pixels=(5, 5), points=4)
    info = ClipInfo(1, 100, 100, 1)
    for seed in range(5):
        parameters = elastic.sample(np.random.default_rng(seed), info)
        moves = elastic.source_points(pixel_centres(100, 100), parameters, height=100, width=100) - pixel_centres(
            100, 100
        )
        assert np.abs(moves).max() < 5 * 1.5  # a curve through points overshoots by a little
        assert np.abs(np.diff(moves, axis=1)).max() < 1.0 and np.abs(np.diff(moves, axis=2)).max() < 1.0
        np.testing.assert_allclose(moves[:, 0, 0], [parameters["across"][0][0], parameters["down"][0][0]], atol=0.2)


def test_points_of_an_affine_map_are_the_affine_map():
    clip = [smooth(60, 70, seed=seed).astype(np.uint8) for seed in range(3)]
    for scale in (0.7, 1.0, 2.0, 4.3):
        inverse = np.diag([scale, scale, 1.0]) @ np.linalg.inv(
            Rotate(degrees=9).matrix({"degrees": 9.0}, height=30, width=33)
        )
        by_matrix, by_points = (np.empty((3, 30, 33, 1), np.uint8) for _ in range(2))
        resample(clip, inverse, out=by_matrix, fill=7)
        resample_at(clip, np.eye(3), map_points(pixel_centres(30, 33), inverse), out=by_points, fill=7)
        assert np.abs(by_matrix.astype(int) - by_points).max() <= 1
        assert (by_matrix != by_points).mean() < 0.01


@pytest.mark.parametrize("transforms", [[], [Elastic(pixels=3)], [Scale(factor=0.3)], [RandomResizedCrop()]])
def test_shrinking_a_fine_grating_by_4_does_not_alias(transforms):
    """Its power goes to grey. Sampled without averaging, most of it stays, as a pattern that is not there."""
    grating = (127.5 + 127.5 * np.sin(2 * np.pi * np.arange(480) / 2.6)).astype(np.uint8)
    image = np.broadcast_to(grating, (480, 480)).copy()
    frame = Frame(height=120, width=120, channels=1)
    compose = Compose(transforms, frame=frame)
    parameters = compose.sample(np.random.default_rng(1), frames=1)
    if transforms and isinstance(transforms[0], RandomResizedCrop):
        parameters = [{"left": 0.0, "top": 0.0, "width": 110.0, "height": 110.0}]
    result = render(transforms, [image], parameters, frame=frame)[0, 8:-8, 8:-8, 0].astype(float)
    bare = image[::4, ::4].astype(float)
    assert bare.var() > 0.9 * image.var()
    assert result.var() < 0.1 * image.var()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize(
    ("transform", "parameters"), [MOVES[2], MOVES[5], MOVES[6], MOVES[7]], ids=["scale", "crop", "pad", "resize"]
)
def test_a_known_centroid_lands_where_the_matrix_says(transform, parameters, dtype):
    rows, columns = np.mgrid[:90, :120] + 0.5
    blob = (200 * np.exp(-((rows - 45.3) ** 2 + (columns - 61.8) ** 2) / 2 / 4.0**2)).astype(dtype)
    result = transform.apply(blob[None, :, :, None], parameters)[0, ..., 0].astype(np.float64)
    across, down, _ = transform.matrix(parameters, height=90, width=120) @ [61.8, 45.3, 1]
    assert abs((result * columns).sum() / result.sum() - across) < 0.06
    assert abs((result * rows).sum() / result.sum() - down) < 0.06


def test_millimetres_become_pixels_of_the_target():
    info = ClipInfo(4, 100, 200, 1, spacing_mm=(0.5, 2.0))
    parameters = [Shift(mm=10).sample(np.random.default_rng(seed), info) for seed in range(300)]
    right, down = (np.array([each[name] for each in parameters]) for name in ("right", "down"))
    assert 4.5 < np.abs(right).max() <= 5 and 18 < np.abs(down).max() <= 20
    pixels = Shift(pixels=10).sample(np.random.default_rng(3), info)
    mm = Shift(mm=10).sample(np.random.default_rng(3), info)
    assert mm == {"right": pixels["right"] / 2.0, "down": pixels["down"] / 0.5}
    for transform in (Shift(mm=10), Pad(mm=3), Elastic(mm=2)):
        with pytest.raises(ClipError, match=r"spacing_down_mm"):
            transform.sample(np.random.default_rng(0), info._replace(spacing_mm=None))


def test_a_crop_keeps_the_share_and_the_shape_it_was_told():
    info = ClipInfo(4, 100, 200, 1)
    crop = RandomResizedCrop(area=(0.25, 0.5), aspect=(0.5, 2.0))
    parameters = [crop.sample(np.random.default_rng(seed), info) for seed in range(400)]
    width, height = (np.array([each[name] for each in parameters]) for name in ("width", "height"))
    left, top = (np.array([each[name] for each in parameters]) for name in ("left", "top"))
    area, aspect = width * height / 20000, (width / 200) / (height / 100)
    assert 0.25 <= area.min() < 0.26 and 0.48 < area.max() <= 0.5
    assert 0.5 <= aspect.min() < 0.52 and 1.9 < aspect.max() <= 2.0
    assert abs(np.log(aspect).mean()) < 0.06  # wide as often as high
    assert left.min() >= 0 and top.min() >= 0 and (left + width).max() <= 200 and (top + height).max() <= 100
    for each in parameters[:20]:
        corners = np.array(
            [[each["left"], each["top"], 1], [each["left"] + each["width"], each["top"] + each["height"], 1]]
        )
        mapped_corners = crop.matrix(each, height=100, width=200) @ corners.T
        np.testing.assert_allclose(mapped_corners[:2].T, [[0, 0], [200, 100]], atol=1e-9)
    whole = RandomResizedCrop(area=1.0, aspect=1.0).sample(np.random.default_rng(0), info)
    assert whole == {"left": 0.0, "top": 0.0, "width": 200.0, "height": 100.0}


def test_a_margin_is_black_and_the_picture_whole():
    padded = Pad(pixels=(4, 4)).apply(np.full((1, 24, 32, 1), 200, np.uint8), {"margin": 4.0})[0, ..., 0]
    assert (padded[:4] == 0).all() and (padded[-4:] == 0).all() and (padded[4:20, 6:26] == 200).all()
    with pytest.raises(SettingError, match="leaves no image"):
        Pad(pixels=(12, 12)).sample(np.random.default_rng(0), ClipInfo(1, 24, 32, 1))


def test_a_shear_moves_rows_alone_or_columns_alone():
    image = np.zeros((1, 41, 41, 1), np.uint8)
    image[0, :, 20] = 255
    slanted = Shear(degrees=45 - 1).apply(image, {"across": 26.565051177, "down": 0.0})[0, ..., 0]
    assert slanted[20, 20] == 255 and slanted[30].argmax() == 25 and slanted[10].argmax() == 15
    rng = np.random.default_rng(0)
    assert Shear(degrees=9).sample(rng, ClipInfo(1, 9, 9, 1))["down"] == 0.0
    assert Shear(degrees=9, axis="vertical").sample(rng, ClipInfo(1, 9, 9, 1))["across"] == 0.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Shear(degrees=45), "at least -44"),
        (lambda: Shear(degrees=(0, 50)), "at most 44"),
        (lambda: Shear(degrees=5, axis="up"), "not a choice"),
        (lambda: RandomResizedCrop(area=1.5), "at most 1"),
        (lambda: RandomResizedCrop(area=(0, 1)), "above 0"),
        (lambda: RandomResizedCrop(aspect=0.0), "above 0"),
        (lambda: Pad(), "exactly one of"),
        (lambda: Pad(pixels=-3), "negative"),
        (lambda: Pad(fraction=0.5), "below 0.5"),
        (lambda: Resize(height=0, width=3), "at least 1"),
        (lambda: Resize(height=2.5, width=3), "whole number"),
        (lambda: Elastic(pixels=3, mm=3), "exactly one of"),
        (lambda: Elastic(pixels=(-1, 3)), "at least 0"),
        (lambda: Elastic(pixels=3, points=1), "from 2 to 32"),
        (lambda: Shift(mm="x"), "must be a number"),
    ],
)
def test_settings_of_the_moves(make, message):
    with pytest.raises(SettingError, match=message):
        make()
