import numpy as np
import pytest

from cinefeed.transforms.intensity_linear import Brightness, Contrast, Normalize


def clip(dtype="uint8", channels=1, frames=5, seed=0, top=200):
    return (np.random.default_rng(seed).random((frames, 14, 18, channels)) * top).astype(dtype)


def test_frame_max_is_that_of_the_2020_system():
    frames = clip()
    frames[2] = 0
    expected = np.stack([frame / frame.max() if frame.max() else frame for frame in frames])
    result = Normalize().apply(frames, {})
    assert result.dtype == np.float32
    assert np.allclose(result, expected, atol=1e-7)
    assert (result[2] == 0).all()


def test_clip_max_keeps_frames_to_each_other():
    frames = clip()
    frames[1] //= 2
    assert np.allclose(Normalize(mode="clip_max").apply(frames, {}), frames / frames.max(), atol=1e-7)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_standard(dtype):
    frames = clip(dtype, channels=3)
    own = Normalize(mode="standard").apply(frames, {}).astype(np.float64)
    assert abs(own.mean()) < 1e-5 and abs(own.std() - 1) < 1e-5
    mean, std = (10.0, 20.0, 30.0), (1.0, 2.0, 4.0)
    explicit = Normalize(mode="standard", mean=mean, std=std).apply(frames, {})
    assert np.allclose(explicit, (frames - np.array(mean)) / np.array(std), rtol=1e-5, atol=1e-4)
    one = Normalize(mode="standard", mean=10.0, std=4.0).apply(frames, {})
    assert np.allclose(one, (frames - 10.0) / 4.0, rtol=1e-5, atol=1e-4)


def test_standard_of_a_flat_clip_is_zero():
    assert (Normalize(mode="standard").apply(np.full((2, 4, 4, 1), 7, np.uint8), {}) == 0).all()


def test_range_is_not_cut_off():
    frames = np.array([0, 10, 20, 40], np.uint8).reshape(1, 2, 2, 1)
    assert Normalize(mode="range", low=10, high=20).apply(frames, {}).ravel().tolist() == [-1.0, 0.0, 1.0, 3.0]


@pytest.mark.parametrize(("dtype", "top"), [("uint8", 255), ("uint16", 65535), ("float32", np.inf)])
@pytest.mark.parametrize("channels", [1, 3])
def test_brightness_rounds_and_clips(dtype, top, channels):
    frames = clip(dtype, channels, top=60000 if dtype == "uint16" else 250)
    result = Brightness(factor=0.5).apply(frames, {"factor": 1.3})
    exact = np.minimum(frames * np.float64(1.3), top)
    assert np.abs(result - exact).max() <= (0.501 if dtype != "float32" else 1e-4)
    assert np.array_equal(Brightness(factor=0.5).apply(frames, {"factor": 1.0}), frames)


def test_contrast_keeps_the_mean():
    frames = clip(top=100) + np.uint8(80)
    result = Contrast(factor=0.5).apply(frames, {"factor": 1.2})
    assert abs(result.mean() - frames.mean()) < 0.1
    assert abs(result.std() / frames.std() - 1.2) < 0.01
    assert np.array_equal(Contrast(factor=0.5).apply(frames, {"factor": 1.0}), frames)
    grey = Contrast(factor=1.0).apply(frames, {"factor": 0.0})
    assert np.unique(grey).size == 1


def test_frames_that_are_not_contiguous():
    wide = clip(channels=3)[:, ::2, ::-1]
    assert np.array_equal(Normalize().apply(wide, {}), Normalize().apply(wide.copy(), {}))
