import numpy as np
import pytest
from scipy import ndimage

from cinefeed.core.errors import SettingError, SourceError
from cinefeed.transforms import resample as module
from cinefeed.transforms.geometry import Flip, Rotate, Scale, Shift
from cinefeed.transforms.resample import invert, resample, shrink_factors

TYPES = ["uint8", "uint16", "float32"]


def smooth(height, width, *, seed=0, top=255.0, sigma=6.0):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random((height, width)), sigma, mode="wrap")
    return (noise - noise.min()) / np.ptp(noise) * top


def warp(frames, inverse, height, width, **options):
    channels = frames[0].shape[2] if frames[0].ndim == 3 else 1
    out = np.empty((len(frames), height, width, channels), frames[0].dtype)
    resample(frames, np.asarray(inverse, np.float64), out=out, **options)
    return out


def by_scipy(image, inverse, shape):
    """The same map in float64, on (row, column) indices, whose origin is the first pixel's centre."""
    swap = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1.0]])
    centre = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    matrix = swap @ np.linalg.inv(centre) @ inverse @ centre @ swap
    return ndimage.affine_transform(image, matrix, output_shape=shape, order=1, mode="constant")


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("channels", [None, 1, 3])
def test_identity_is_exact(dtype, channels):
    rng = np.random.default_rng(0)
    shape = (23, 31) if channels is None else (23, 31, channels)
    frames = [(rng.random(shape) * 60000).astype(dtype) for _ in range(5)]
    result = warp(frames, np.eye(3), 23, 31)
    assert np.array_equal(result, np.stack(frames).reshape(result.shape))


@pytest.mark.parametrize("dtype", TYPES)
def test_whole_pixel_shift_is_exact_and_leaves_the_fill(dtype):
    frame = (np.random.default_rng(1).random((20, 30)) * 255).astype(dtype)
    moved = warp([frame], [[1, 0, 4], [0, 1, -3], [0, 0, 1]], 20, 30, fill=7)[0, :, :, 0]
    assert np.array_equal(moved[3:, :26], frame[:17, 4:])
    assert (moved[:3] == 7).all() and (moved[:, 26:] == 7).all()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("frames", [1, 3, 9, 25])
def test_agrees_with_scipy_on_smooth_images(dtype, frames):
    clip = [smooth(90, 120, seed=seed).astype(dtype) for seed in range(frames)]
    info_matrix = (
        Shift(pixels=9).matrix({"right": 3.3, "down": -7.6}, height=90, width=120)
        @ Rotate(degrees=25).matrix({"degrees": 17.0}, height=90, width=120)
        @ Scale(factor=0.1).matrix({"factor": 1.08}, height=90, width=120)
    )
    inverse = np.linalg.inv(info_matrix)
    result = warp(clip, inverse, 90, 120)
    for frame, image in zip(result, clip, strict=True):
        expected = by_scipy(image.astype(np.float64), inverse, (90, 120))
        inside = by_scipy(np.ones((90, 120)), inverse, (90, 120)) > 0.999
        error = np.abs(frame[..., 0].astype(np.float64) - expected)[inside]
        assert error.mean() < 0.5 and error.max() <= 1.0


def test_shrinking_agrees_with_scipy_on_smooth_images():
    image = smooth(516, 500, sigma=25)
    inverse = np.linalg.inv(Rotate(degrees=25).matrix({"degrees": -11.0}, height=112, width=112)) * 1.0
    inverse = np.diag([4.6, 4.4, 1.0]) @ inverse
    result = warp([image.astype(np.uint8)], inverse, 112, 112)[0, :, :, 0]
    expected = by_scipy(image.astype(np.uint8).astype(np.float64), inverse, (112, 112))
    inside = by_scipy(np.ones(image.shape), inverse, (112, 112)) > 0.999
    assert np.abs(result - expected)[inside].mean() < 0.5


@pytest.mark.parametrize("size", [28, 40, 56, 97, 112, 150, 224])
def test_scaling_moves_no_centroid(size):
    rows, columns = np.mgrid[:112, :112]
    blob = 200 * np.exp(-((rows + 0.5 - 40.0) ** 2 + (columns + 0.5 - 70.0) ** 2) / 2 / 8.0**2)
    result = warp([blob.astype(np.float32)], np.diag([112 / size, 112 / size, 1.0]), size, size)[0, :, :, 0]
    down, across = (np.mgrid[:size, :size] + 0.5) * 112 / size
    assert abs((result * down).sum() / result.sum() - 40.0) < 0.03
    assert abs((result * across).sum() / result.sum() - 70.0) < 0.03


@pytest.mark.parametrize("scale", [4.0, 3.7, 2.5, 1.9])
def test_shrinking_a_fine_grating_does_not_alias(scale):
    size = int(400 / scale)
    grating = (127.5 + 127.5 * np.sin(2 * np.pi * np.arange(400) / 2.6)).astype(np.uint8)
    image = np.broadcast_to(grating, (400, 400)).copy()
    result = warp([image], np.diag([scale, scale, 1.0]), size, size)[0, 4:-4, 4:-4, 0]
    assert result.astype(float).var() < 0.1 * image.var()
    bare = image[:: round(scale), :: round(scale)]
    assert bare.astype(float).var() > 0.9 * image.var()  # the same without averaging


def test_shrinking_by_a_whole_factor_is_the_mean_of_blocks():
    for dtype in TYPES:
        image = (np.random.default_rng(3).random((60, 45)) * 255).astype(dtype)
        result = warp([image], np.diag([3.0, 5.0, 1.0]), 12, 15)[0, :, :, 0]
        expected = image.astype(np.float64).reshape(12, 5, 15, 3).mean(axis=(1, 3))
        assert np.abs(result - expected).max() <= (0.5 + 1e-4 if dtype != "float32" else 1e-3)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("factor", [2, 3, 4, 5, 7, 20])
def test_blocks_cut_by_the_edge_keep_a_flat_image_flat(channels, factor):
    for value, dtype in ((255, "uint8"), (65535, "uint16"), (7, "float32")):
        image = np.full((83, 101, channels), value, dtype)
        result = warp([image], np.diag([factor, factor, 1.0]), 83 // factor, 101 // factor)
        assert (result == value).all()
        result = warp([image], np.diag([101 / 13, 83 / 11, 1.0]), 11, 13)
        assert np.abs(result - float(value)).max() < 1e-5


def test_enlarging_makes_no_dark_rim():
    result = warp([np.full((8, 8), 200, np.uint8)], np.diag([0.25, 0.25, 1.0]), 32, 32)
    assert (result == 200).all()


def test_flips_are_exact():
    frame = np.random.default_rng(0).integers(0, 255, (1, 11, 17, 3), np.uint8)
    both = {"horizontal": True, "vertical": True}
    assert np.array_equal(Flip().apply(frame, both), frame[:, ::-1, ::-1])
    assert np.array_equal(Flip().apply(frame, both | {"vertical": False}), frame[:, :, ::-1])


def test_positive_angles_turn_counter_clockwise():
    frame = np.zeros((1, 21, 21, 1), np.uint8)
    frame[0, 10, 18] = 255  # to the right of the centre
    turned = Rotate(degrees=90).apply(frame, {"degrees": 90.0})
    assert np.unravel_index(turned.argmax(), turned.shape)[1:3] == (2, 10)  # above it
    assert np.array_equal(turned[0], np.rot90(frame[0]))


@pytest.mark.parametrize("dtype", TYPES)
def test_rows_with_padding_steps_and_read_only_memory(dtype):
    whole = (np.random.default_rng(5).random((40, 64)) * 255).astype(dtype)
    plain = whole[:36, :50].copy()
    inverse = np.linalg.inv(Rotate(degrees=9).matrix({"degrees": 9.0}, height=36, width=50))
    expected = warp([plain], inverse, 36, 50)
    read_only = plain.copy()
    read_only.flags.writeable = False
    odd = [
        whole[:36, :50],
        np.asfortranarray(plain),
        plain[::-1].copy()[::-1],
        np.repeat(plain, 2, 1)[:, ::2],
        read_only,
    ]
    for frame in odd:
        assert np.array_equal(warp([frame], inverse, 36, 50), expected)
    assert np.array_equal(warp(odd, inverse, 36, 50), np.repeat(expected, len(odd), 0))


def test_a_frame_does_not_depend_on_its_neighbours():
    clip = [smooth(60, 50, seed=seed).astype(np.uint8) for seed in range(27)]
    inverse = np.diag([1.3, 1.1, 1.0])
    together = warp(clip, inverse, 40, 40)
    for number in (0, 15, 26):
        assert np.array_equal(warp(clip[number : number + 1], inverse, 40, 40)[0], together[number])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("channels", [1, 3])
def test_frames_that_follow_each_other_in_memory(dtype, channels):
    block = (np.random.default_rng(2).random((6, 30, 40, channels)) * 255).astype(dtype)
    block.flags.writeable = False
    inverse = np.linalg.inv(Rotate(degrees=9).matrix({"degrees": 9.0}, height=30, width=40))
    lists = list(block), list(block[::2]), list(block[::-1]), [block[0], block[0]]
    for frames in (*lists, block, block[::2], block[::-1], block[::2, :20, 4:]):
        apart = [np.array(frame) for frame in frames]
        height, width = apart[0].shape[:2]
        assert np.array_equal(warp(frames, inverse, height, width), warp(apart, inverse, height, width))


def test_frames_that_lie_gigabytes_apart(tmp_path):
    """OpenCV's 32-bit offsets read the first frame twice, or ended the program."""
    file = np.memmap(tmp_path / "sparse", np.uint8, "w+", shape=2**32 + 1200)
    block = np.ndarray((2, 30, 40), np.uint8, file, strides=(2**32, 40, 1))
    block[:] = (np.random.default_rng(2).random((2, 30, 40)) * 255).astype(np.uint8)
    inverse = np.linalg.inv(Rotate(degrees=9).matrix({"degrees": 9.0}, height=30, width=40))
    for frames in (block, list(block)):
        assert np.array_equal(warp(frames, inverse, 30, 40), warp(block.copy(), inverse, 30, 40))


def test_frames_that_differ_are_refused():
    with pytest.raises(SourceError, match="split the video"):
        warp([np.zeros((4, 4), np.uint8), np.zeros((5, 4), np.uint8)], np.eye(3), 4, 4)
    with pytest.raises(SourceError, match="uint16"):
        warp([np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint16)], np.eye(3), 4, 4)


def test_a_map_that_misses_the_frame_gives_the_fill():
    for offset in (1000.0, -1000.0):
        assert (warp([np.ones((5, 5), np.uint8)], [[1, 0, offset], [0, 1, 0], [0, 0, 1]], 4, 4, fill=9) == 9).all()


def test_nan_stays_where_it_is():
    frame = np.zeros((6, 6), np.float32)
    frame[2, 3] = np.nan
    assert np.isnan(warp([frame], np.eye(3), 6, 6)).sum() == 1


def test_one_pixel_frames():
    assert warp([np.full((1, 1), 5, np.uint8)], np.diag([0.5, 0.5, 1.0]), 2, 2).ravel().tolist() == [5, 5, 5, 5]


def test_no_frames_is_no_work():
    out = np.empty((0, 4, 4, 1), np.uint8)
    resample([], np.eye(3), out=out)


def test_other_types_are_refused():
    with pytest.raises(SourceError, match="float64"):
        warp([np.zeros((4, 4))], np.eye(3), 4, 4)
    with pytest.raises(SourceError, match=">u2"):
        warp([np.zeros((4, 4), ">u2")], np.eye(3), 4, 4)


@pytest.mark.parametrize(
    ("step", "factor"), [(0.5, 1), (1.0, 1), (1.49, 1), (1.5, 2), (2.0, 2), (2.9, 2), (4 - 1e-9, 4), (4.6, 4), (10, 10)]
)
def test_factors(step, factor):
    assert shrink_factors(np.diag([step, step, 1.0]), height=999, width=999) == (factor, factor)
    turn = np.linalg.inv(Rotate(degrees=25).matrix({"degrees": 25.0}, height=9, width=9))
    assert shrink_factors(np.diag([step, step, 1.0]) @ turn, height=999, width=999) == (factor, factor)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_crop_by_whole_pixels_is_a_copy_that_equals_the_interpolation(dtype, channels, monkeypatch):
    rng = np.random.default_rng(3)
    frames = list((rng.random((4, 20, 31, channels)) * 255).astype(dtype))
    for y, x, size in ((0, 0, (20, 31)), (3, 5, (10, 12)), (10, 19, (10, 12)), (-1, 0, (10, 12)), (11, 20, (10, 12))):
        inverse = np.array([[1.0, 0, x], [0, 1, y], [0, 0, 1]])
        for extent in (None, (19.5, 30.5)):
            copied, sampled = (np.empty((4, *size, channels), dtype) for _ in range(2))
            resample(frames, inverse, out=copied, fill=7, extent=extent)
            with monkeypatch.context() as patched:
                patched.setattr(module, "whole_pixel_shift", lambda inverse: None)
                resample(frames, inverse, out=sampled, fill=7, extent=extent)
            np.testing.assert_array_equal(copied, sampled)


def test_which_maps_only_move_by_whole_pixels():
    def whole_move(across, down, x, y):
        return module.whole_pixel_shift(np.array([[across, 0.0, x], [0, down, y], [0, 0, 1]]))

    assert whole_move(1, 1, 4, -2) == (-2, 4)
    for wrong in ((0.5, 0.5, 0, 0), (1, 1, 0.5, 0), (1.0001, 1, 0, 0), (-1, 1, 0, 0), (2, 2, 0, 0), (1e-9, 1, 0, 0)):
        assert whole_move(*wrong) is None
    assert module.whole_pixel_shift(np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]])) is None
    assert module.whole_pixel_shift(np.array([[1.0, 0.01, 0], [0, 1, 0], [0, 0, 1]])) is None


def test_inverted_is_the_inverse():
    rng = np.random.default_rng(3)
    for _ in range(50):
        forward = np.vstack([rng.normal(size=(2, 3)) * [1, 1, 80], [0, 0, 1]])
        np.testing.assert_allclose(invert(forward), np.linalg.inv(forward), rtol=1e-9, atol=1e-12)


def test_a_map_without_inverse_is_named():
    with pytest.raises(SettingError, match="has no inverse"):
        invert(np.array([[1.0, 2.0, 0.0], [2.0, 4.0, 0.0], [0.0, 0.0, 1.0]]))
