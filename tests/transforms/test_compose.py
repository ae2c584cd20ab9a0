import json
from dataclasses import dataclass

import numpy as np
import pytest
from scipy import ndimage

from cinefeed.core.errors import SettingError, SourceError
from cinefeed.transforms.compose import Compose
from cinefeed.transforms.fit import quarter_turns
from cinefeed.transforms.geometry import Flip, Rotate, Scale, Shift
from cinefeed.transforms.intensity_linear import Brightness, Contrast, Normalize
from cinefeed.video.clips import Frame
from cinefeed.video.color import Colour, to_pixels
from cinefeed.video.planes import Planes

GREY = Colour(model="grey")


def noise(*shape, seed=0, dtype=np.uint8, top=256):
    return np.random.default_rng(seed).integers(0, top, shape).astype(dtype)


def smooth(height, width, *, seed=0, sigma=8.0):
    image = ndimage.gaussian_filter(np.random.default_rng(seed).random((height, width)), sigma, mode="wrap")
    return ((image - image.min()) / np.ptp(image) * 255).astype(np.uint8)


def render(compose, frames, colour=GREY, *, parameters=None, seed=0):
    frames = [frame if isinstance(frame, tuple) else (frame,) for frame in frames]
    shape = (len(frames), compose.frame.height, compose.frame.width, compose.frame.channels)
    out = np.full(shape, 99, compose.dtype)
    if parameters is None:
        parameters = compose.sample(np.random.default_rng(seed), frames=len(frames))
    compose.render(Planes(frames, colour), out, parameters)
    return out


def to_yuv(rgb):
    """BT.601 limited, chroma as the mean of 2 x 2 pixels."""
    red, green, blue = np.moveaxis(rgb.astype(np.float64), -1, 0)
    luma = 16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255
    cb = 128 + (-37.797 * red - 74.203 * green + 112 * blue) / 255
    cr = 128 + (112 * red - 93.786 * green - 18.214 * blue) / 255
    height, width = luma.shape
    padded = [np.pad(each, ((0, height % 2), (0, width % 2)), mode="edge") for each in (cb, cr)]
    small = [each.reshape(-(-height // 2), 2, -(-width // 2), 2).mean(axis=(1, 3)) for each in padded]
    return tuple(np.rint(each).astype(np.uint8) for each in (luma, *small))


def test_frames_of_the_target_size_come_back_as_they_are():
    for channels, colour in ((1, GREY), (3, Colour(model="rgb"))):
        shape = (40, 30) if channels == 1 else (40, 30, 3)
        clip = [noise(*shape, seed=seed) for seed in range(4)]
        for fit in ("crop", "pad", "stretch", "none"):
            compose = Compose([], frame=Frame(height=40, width=30, channels=channels, fit=fit))
            assert np.array_equal(render(compose, clip, colour), np.stack(clip).reshape(4, 40, 30, channels))


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_rotation_metadata_is_rot90(rotation):
    clip = [noise(20, 34, seed=seed) for seed in range(3)]
    upright = np.stack([np.rot90(frame, rotation // 90) for frame in clip])[..., None]
    compose = Compose([], frame=Frame(height=upright.shape[1], width=upright.shape[2], channels=1))
    assert np.array_equal(render(compose, clip, Colour(model="grey", rotation=rotation)), upright)


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_metadata_before_the_fit_and_for_chroma(rotation):
    rgb = np.stack([smooth(60, 100, seed=seed) for seed in range(3)], axis=-1)
    compose = Compose([Rotate(degrees=20)], frame=Frame(height=48, width=40, channels=3))
    turned = render(compose, [to_yuv(rgb)], Colour(model="yuv", full_range=False, rotation=rotation))
    plain = render(compose, [to_yuv(np.rot90(rgb, rotation // 90))], Colour(model="yuv", full_range=False))
    assert np.abs(turned.astype(int) - plain).max() <= 2


def test_quarter_turns_name_the_pixel():
    frame = noise(3, 5)
    for rotation in (0, 90, 180, 270):
        upright = np.rot90(frame, rotation // 90)
        for row, column in np.ndindex(frame.shape):
            x, y, _ = quarter_turns(rotation, height=3, width=5) @ [column + 0.5, row + 0.5, 1]
            assert upright[int(y), int(x)] == frame[row, column]


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_a_mirrored_file_is_flipped_before_it_is_turned(rotation):
    clip = [noise(20, 34, seed=seed) for seed in range(3)]
    upright = np.stack([np.rot90(frame[:, ::-1], rotation // 90) for frame in clip])[..., None]
    compose = Compose([], frame=Frame(height=upright.shape[1], width=upright.shape[2], channels=1))
    assert np.array_equal(render(compose, clip, Colour(model="grey", rotation=rotation, mirrored=True)), upright)


@pytest.mark.parametrize("rotation", [0, 90])
@pytest.mark.parametrize("aspect", [2.0, 0.5])
def test_the_fit_is_of_what_is_shown(aspect, rotation):
    """A circle that is stored as an ellipse comes out round, and is cropped as a square."""
    rows, columns = np.mgrid[:80, :80] + 0.5
    wide, high = (aspect, 1.0) if aspect > 1 else (1.0, 1 / aspect)
    stored = np.uint8(250 * (((columns - 40) * wide) ** 2 + ((rows - 40) * high) ** 2 < 30**2))
    colour = Colour(model="grey", aspect=aspect, rotation=rotation)
    for fit, size in (("crop", 40), ("pad", 40), ("none", 80)):
        compose = Compose([], frame=Frame(height=size, width=size, channels=1, fit=fit))
        rendered = render(compose, [stored], colour)[0, ..., 0] > 125
        down, across = np.flatnonzero(rendered.any(1)), np.flatnonzero(rendered.any(0))
        radius = 30 * {"crop": 0.5, "pad": 0.25, "none": 1.0}[fit]
        assert abs(len(down) - 2 * radius) <= 1 and abs(len(across) - 2 * radius) <= 1
        assert abs(down.mean() - (size - 1) / 2) <= 0.5 and abs(across.mean() - (size - 1) / 2) <= 0.5


def test_square_pixels_for_chroma_too():
    rgb = np.stack([smooth(60, 100, seed=seed) for seed in range(3)], axis=-1)
    compose = Compose([Rotate(degrees=20)], frame=Frame(height=48, width=40, channels=3))
    how = {"rotation": 90, "mirrored": True, "aspect": 1.5}
    planes = render(compose, [to_yuv(rgb)], Colour(model="yuv", full_range=False, **how))
    assert np.abs(planes.astype(int) - render(compose, [rgb], Colour(model="rgb", **how))).max() <= 3


WINDOWS = [(30.0, 200.0), (200.0, 30.0), (-40.0, 200.0), (400.0, 10.0), (30.5, 31.0)]


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("stored", ["uint8", "uint16", "float32"])
def test_what_a_windowed_frame_leaves_is_black(stored, window):
    """Black may be a number that the planes cannot hold."""
    colour = Colour(model="grey", bits={"uint8": 8, "uint16": 12, "float32": 32}[stored], window=window)
    clip = [noise(20, 30, seed=seed, dtype=stored) for seed in range(3)]
    for dtype in ("uint8", "uint16", "float32"):
        compose = Compose([Shift(pixels=50)], frame=Frame(height=20, width=30, channels=1, dtype=dtype))
        result = render(compose, clip, colour, parameters=[{"right": 12.0, "down": -5.0}])
        expected = np.empty((3, 20, 30, 1), dtype)
        to_pixels([np.stack(clip)], colour, channels=1, out=expected)
        assert np.array_equal(result[:, :15, 12:], expected[:, 5:, :18])
        assert (result[:, 15:] == 0).all() and (result[:, :, :12] == 0).all()


def test_a_window_of_colour():
    clip = [noise(20, 30, 3, seed=seed, dtype=np.uint16, top=4096) for seed in range(2)]
    colour = Colour(model="rgb", bits=12, window=(-100.0, 3000.0))
    compose = Compose([], frame=Frame(height=20, width=30, channels=3, fit="none"))
    expected = np.empty((2, 20, 30, 3), np.uint8)
    to_pixels([np.stack(clip)], colour, channels=3, out=expected)
    assert np.array_equal(render(compose, clip, colour), expected)


@pytest.mark.parametrize("size", [(64, 80), (63, 79)])
def test_chroma_follows_luma(size):
    rgb = np.stack([smooth(*size, seed=seed) for seed in range(3)], axis=-1)
    rgb = (rgb * 0.5 + 60).astype(np.uint8)
    transforms = [Rotate(degrees=20), Shift(pixels=4)]
    compose = Compose(transforms, frame=Frame(height=48, width=56, channels=3))
    parameters = compose.sample(np.random.default_rng(4), frames=1)
    direct = render(compose, [rgb], Colour(model="rgb"), parameters=parameters).astype(int)
    planes = render(compose, [to_yuv(rgb)], Colour(model="yuv", full_range=False), parameters=parameters).astype(int)
    inside = direct.min(axis=-1) > 0
    assert np.abs(direct - planes)[inside].mean() < 1.0
    assert np.abs(direct - planes)[inside].max() <= 4
    assert (planes[~inside] <= 1).all()


def test_what_the_frame_leaves_is_black_whatever_the_range():
    shifted = [{"right": 500.0, "down": 0.0}]
    for channels in (1, 3):
        compose = Compose([Shift(pixels=500)], frame=Frame(height=16, width=16, channels=channels))
        luma, chroma = np.full((16, 16), 180, np.uint8), np.full((8, 8), 90, np.uint8)
        for full_range in (True, False):
            grey = Colour(model="grey", full_range=full_range)
            assert (render(compose, [luma], grey, parameters=shifted) == 0).all()
        if channels == 3:
            yuv = Colour(model="yuv", full_range=False)
            assert (render(compose, [(luma, chroma, chroma)], yuv, parameters=shifted) == 0).all()
            deep = Colour(model="yuv", full_range=False, bits=10)
            planes = tuple(np.full(plane.shape, 700, np.uint16) for plane in (luma, chroma, chroma))
            assert (render(compose, [planes], deep, parameters=shifted) == 0).all()


def test_padding_of_the_fit_is_black_and_the_picture_is_not():
    compose = Compose([], frame=Frame(height=40, width=40, channels=1, fit="pad"))
    clip = render(compose, [np.full((20, 40), 126, np.uint8)], Colour(model="grey", full_range=False))[0, :, :, 0]
    assert (clip[:10] == 0).all() and (clip[30:] == 0).all() and (clip[10:30] == 128).all()


def test_neighbours_are_one_interpolation():
    clip = [smooth(80, 90, seed=seed) for seed in range(3)]
    frame = Frame(height=50, width=50, channels=1)
    transforms = [Rotate(degrees=30), Shift(pixels=5), Scale(factor=0.2), Flip(probability=1.0)]
    compose = Compose(transforms, frame=frame)
    parameters = compose.sample(np.random.default_rng(3), frames=3)
    fused = render(compose, clip, parameters=parameters)
    stepwise = render(Compose([], frame=frame), clip)
    for transform, own_parameters in zip(transforms, parameters, strict=True):
        stepwise = transform.apply(stepwise, own_parameters)
    # Step by step, what the crop cut off is lost and blackens the rim; inside it both must agree.
    both = (fused > 0) & (stepwise > 0)
    inside = ndimage.binary_erosion(both, structure=np.ones((1, 7, 7, 1)))
    assert inside.mean() > 0.5
    assert np.abs(fused.astype(int) - stepwise)[inside].mean() < 1.0


def test_opposite_moves_cancel_without_a_trace():
    clip = [noise(50, 50, seed=seed) for seed in range(2)]
    compose = Compose([Rotate(degrees=30), Rotate(degrees=30)], frame=Frame(height=50, width=50, channels=1))
    result = render(compose, clip, parameters=[{"degrees": 21.7}, {"degrees": -21.7}])
    assert np.array_equal(result[..., 0], np.stack(clip))


def test_geometry_after_intensity_is_one_more_interpolation():
    clip = [smooth(40, 40, seed=seed) for seed in range(2)]
    frame = Frame(height=40, width=40, channels=1)
    compose = Compose([Shift(pixels=1), Normalize(), Shift(pixels=1), Flip(probability=1.0)], frame=frame)
    parameters = [
        {"right": 2.0, "down": 0.0},
        {},
        {"right": -1.0, "down": 3.0},
        {"horizontal": True, "vertical": False},
    ]
    result = render(compose, clip, parameters=parameters)[..., 0]
    expected = np.zeros((2, 40, 40), np.float32)
    expected[:, :, 2:] = np.stack(clip)[:, :, :-2]
    expected /= expected.max(axis=(1, 2), keepdims=True)
    moved = np.zeros_like(expected)
    moved[:, 3:, :-1] = expected[:, :-3, 1:]
    assert np.allclose(result, moved[:, :, ::-1], atol=1e-6)
    assert compose.explain().count("one interpolation") == 2


def test_intensity_steps_run_in_order():
    clip = [np.full((8, 8), 100, np.uint8)]
    frame = Frame(height=8, width=8, channels=1)
    for transforms, parameters, expected in (
        ([Brightness(factor=0.5), Normalize(mode="range", high=255)], [{"factor": 1.5}, {}], 150 / 255),
        ([Normalize(mode="range", high=255), Brightness(factor=0.5)], [{}, {"factor": 1.5}], 150 / 255),
        ([Brightness(factor=0.5)], [{"factor": 3.0}], 255),
        ([Contrast(factor=0.5), Brightness(factor=0.5)], [{"factor": 3.0}, {"factor": 0.5}], 50),
    ):
        assert np.allclose(render(Compose(transforms, frame=frame), clip, parameters=parameters), expected)


def test_dtype_of_what_comes_out():
    for dtype in ("uint8", "uint16", "float32"):
        frame = Frame(height=8, width=8, channels=1, dtype=dtype)
        assert Compose([], frame=frame).dtype == dtype
        assert Compose([Rotate(degrees=3), Brightness(factor=0.1)], frame=frame).dtype == dtype
        assert Compose([Normalize(), Rotate(degrees=3)], frame=frame).dtype == np.float32
        assert render(Compose([], frame=frame), [noise(16, 16)]).dtype == dtype


def test_deep_grey_keeps_its_depth():
    clip = [noise(8, 8, dtype=np.uint16, top=65536)]
    compose = Compose([], frame=Frame(height=8, width=8, channels=1, dtype="uint16"))
    assert np.array_equal(render(compose, clip, Colour(model="grey", bits=16))[0, ..., 0], clip[0])


@pytest.mark.parametrize("frames", [0, 1, 16, 17])
def test_clips_of_any_length(frames):
    compose = Compose([Rotate(degrees=9), Normalize()], frame=Frame(height=12, width=12, channels=1))
    result = render(compose, [noise(20, 20, seed=seed) for seed in range(frames)])
    assert result.shape == (frames, 12, 12, 1)
    assert frames == 0 or result.max() == 1.0


def test_equal_frames_stay_equal_and_inputs_unchanged():
    frame = noise(33, 47)
    before = frame.copy()
    compose = Compose(
        [Rotate(degrees=20), Scale(factor=0.3), Contrast(factor=0.3)], frame=Frame(height=16, width=16, channels=1)
    )
    result = render(compose, [frame] * 9)
    assert (result == result[:1]).all()
    assert np.array_equal(frame, before)


def test_the_same_address_gives_the_same_bytes():
    compose = Compose(
        [Rotate(degrees=25), Shift(fraction=0.1), Brightness(factor=0.2)], frame=Frame(height=20, width=20)
    )
    planes = (noise(50, 41), noise(25, 21, seed=1), noise(25, 21, seed=2))
    colour = Colour(model="yuv", full_range=False)
    first, again, other = (render(compose, [planes] * 5, colour, seed=seed) for seed in (1, 1, 2))
    assert first.tobytes() == again.tobytes() != other.tobytes()


def test_parameters_are_plain_data():
    compose = Compose([Rotate(degrees=25), Flip(), Normalize(), Shift(fraction=0.1)], frame=Frame(height=8, width=8))
    parameters = compose.sample(np.random.default_rng(0), frames=4)
    assert json.loads(json.dumps(parameters)) == parameters
    assert len(parameters) == 4


def test_buffers_that_are_not_contiguous_are_filled_too():
    compose = Compose([Rotate(degrees=5)], frame=Frame(height=8, width=8, channels=1))
    frames = [(noise(8, 8),)] * 3
    parameters = compose.sample(np.random.default_rng(0), frames=3)
    apart = np.zeros((6, 8, 8, 1), np.uint8)
    compose.render(Planes(frames, GREY), apart[::2], parameters)
    assert np.array_equal(apart[::2], render(compose, [noise(8, 8)] * 3, parameters=parameters))
    assert (apart[1::2] == 0).all()


@dataclass(frozen=True)
class Halve:
    """A user's own transform, which names no type and takes no out=."""

    grow: bool = False

    def sample(self, rng, info):
        return {"by": 2}

    def apply(self, frames, parameters):
        return frames.astype(np.float64) if self.grow else frames // parameters["by"]


def test_a_users_own_transform():
    compose = Compose([Halve(), Shift(pixels=0)], frame=Frame(height=8, width=8, channels=1))
    assert np.array_equal(render(compose, [noise(8, 8)])[0, ..., 0], noise(8, 8) // 2)
    with pytest.raises(SettingError, match=r"float64.*output_dtype"):
        render(Compose([Halve(grow=True)], frame=Frame(height=8, width=8, channels=1)), [noise(8, 8)])


def test_errors_say_what_to_do():
    frame = Frame(height=8, width=8, channels=1)
    with pytest.raises(SettingError, match=r"transforms\[1\].*Rotate"):
        Compose([Flip(), Rotate], frame=frame)
    with pytest.raises(SettingError, match="0 sets of parameters for 1"):
        render(Compose([Flip()], frame=frame), [noise(8, 8)], parameters=[])
    with pytest.raises(SourceError, match=r"differ: 10 x 8 \(uint8\), 8 x 8 \(uint8\)"):
        render(Compose([], frame=frame), [noise(8, 8), noise(8, 10)])
