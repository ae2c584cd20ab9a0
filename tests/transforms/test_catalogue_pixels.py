"""Curves, colour, noise, blur and masks: that each does what its words say."""

import numpy as np
import pytest
from scipy import ndimage

from cinefeed.core.errors import SettingError
from cinefeed.transforms.base import ClipInfo
from cinefeed.transforms.fuse import apply_pointwise
from cinefeed.transforms.intensity_curves import ClipPercentiles, Equalize, Gamma, Window
from cinefeed.transforms.intensity_linear import Brightness, Contrast, Normalize
from cinefeed.transforms.masks import CutOut, SectorMask
from cinefeed.transforms.texture import Blur, Noise, Saturation, Speckle

TYPES = ["uint8", "uint16", "float32"]
TOPS = {"uint8": 255, "uint16": 65535, "float32": 1000.0}
INFO = ClipInfo(8, 60, 80, 1)


def clip(dtype="uint8", *, frames=4, channels=1, seed=0, power=2.0):
    values = np.random.default_rng(seed).random((frames, 30, 40, channels)) ** power
    return (values * TOPS[dtype]).astype(dtype)


def steps_of(dtype):
    """One rounding, of the largest value that is compared."""
    return 0.501 if dtype != "float32" else 1e-3


@pytest.mark.parametrize("dtype", TYPES)
def test_gamma_keeps_black_and_white(dtype):
    frames = clip(dtype)
    frames[0, 0, 0], frames[0, 0, 1] = 0, TOPS[dtype]
    for power in (0.4, 1.7):
        result = Gamma(gamma=0.2).apply(frames, {"gamma": power})
        expected = TOPS[dtype] * (frames / np.float64(TOPS[dtype])) ** power
        assert np.abs(result - expected).max() <= steps_of(dtype)
        assert result[0, 0, 0] == 0 and result[0, 0, 1] == TOPS[dtype]


@pytest.mark.parametrize("dtype", TYPES)
def test_a_window_shows_its_range_and_cuts_the_rest(dtype):
    frames = clip(dtype)
    level, width = 0.4 * TOPS[dtype], 0.3 * TOPS[dtype]
    result = Window(level=level, width=width).apply(frames, {"level": level, "width": width})
    white = {"uint8": 255, "uint16": 65535, "float32": 1.0}[dtype]
    expected = np.clip((frames - (level - width / 2)) / width, 0, 1) * white
    assert np.abs(result - expected).max() <= (0.501 if dtype != "float32" else 1e-5)
    assert (result == 0).any() and (result == white).any()


def test_a_fixed_window_takes_no_draw_and_a_range_does():
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    assert Window(level=40, width=400).sample(rng, INFO) == {"level": 40.0, "width": 400.0}
    assert rng.bit_generator.state == before
    parameters = [Window(level=(30, 50), width={100, 400}).sample(rng, INFO) for _ in range(200)]
    assert {each["width"] for each in parameters} == {100.0, 400.0}
    assert 30 <= min(each["level"] for each in parameters) < 31 and 49 < max(each["level"] for each in parameters) <= 50


@pytest.mark.parametrize("dtype", TYPES)
def test_percentiles_cut_both_ends(dtype):
    frames = clip(dtype)
    low, high = np.percentile(frames, [5, 90])
    result = ClipPercentiles(low=5, high=90).apply(frames, {})
    assert np.abs(result - np.clip(frames, low, high)).max() <= steps_of(dtype)
    whole = ClipPercentiles(low=0, high=100).apply(frames, {})
    assert np.array_equal(whole, frames)


@pytest.mark.parametrize("dtype", TYPES)
def test_normalising_by_percentiles(dtype):
    frames = clip(dtype)
    low, high = np.percentile(frames, [2, 75])
    result = Normalize(mode="percentiles", low=2, high=75).apply(frames, {})
    np.testing.assert_allclose(result, (frames - low) / (high - low), rtol=1e-4, atol=1e-5)
    assert (Normalize(mode="percentiles").apply(np.full((2, 4, 4, 1), 7, dtype), {}) == 0).all()


@pytest.mark.parametrize("dtype", TYPES)
def test_equalising_spreads_the_histogram_as_far_as_its_limit(dtype):
    frames = clip(dtype)
    top = frames.max()
    plain = Equalize(limit=1e9).apply(frames, {})
    levels = np.sort(plain.ravel().astype(np.float64)) / top
    even = np.linspace(0, 1, levels.size)
    assert np.abs(levels - even).max() < 0.08  # 0.063 of all bytes are one value, black
    assert np.abs(np.sort(frames.ravel() / top) - even).max() > 0.2
    mild = Equalize(limit=2).apply(frames, {})
    assert frames.mean() * 1.05 < mild.mean() < plain.mean() * 0.98
    order = np.argsort(frames.ravel(), kind="stable")
    assert (np.diff(mild.ravel()[order].astype(np.float64)) >= 0).all()  # brighter stays brighter
    assert mild.max() == top
    assert np.array_equal(Equalize(limit=1).apply(frames, {}), frames)
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    assert np.array_equal(Equalize(limit=8).apply(ramp, {}), ramp)


def test_equalising_keeps_frames_to_each_other():
    frames = clip(frames=2)
    frames[1] = frames[0] // 2
    result = Equalize(limit=3).apply(frames, {})
    same = np.flatnonzero((frames[0] == 60).ravel()), np.flatnonzero((frames[1] == 60).ravel())
    assert set(result[0].ravel()[same[0]]) == set(result[1].ravel()[same[1]]) and len(same[0])


@pytest.mark.parametrize("dtype", TYPES)
def test_saturation_moves_colour_and_keeps_grey(dtype):
    frames = clip(dtype, channels=4)
    weights = np.array([0.299, 0.587, 0.114])
    grey = (frames[..., :3].astype(np.float64) @ weights)[..., None]
    for factor in (0.0, 0.5, 1.6):
        result = Saturation(factor=0.5).apply(frames, {"factor": factor})
        top = TOPS[dtype] if dtype != "float32" else np.inf
        expected = np.clip(grey + factor * (frames[..., :3] - grey), 0, top)
        assert np.abs(result[..., :3] - expected).max() <= (0.51 if dtype != "float32" else 1e-3)
        assert np.array_equal(result[..., 3], frames[..., 3])
    pale = np.repeat(clip(dtype), 3, axis=3)
    assert np.abs(Saturation(factor=0.5).apply(pale, {"factor": 1.9}) - pale.astype(np.float64)).max() <= 1e-3
    assert np.array_equal(Saturation(factor=0.5).apply(clip(dtype), {"factor": 0.0}), clip(dtype))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("fresh", ["frame", "clip"])
def test_noise_is_as_strong_as_it_says(dtype, fresh):
    white = TOPS[dtype]
    frames = np.full((6, 40, 50, 3), white // 2, dtype)
    frames[:, 0, 0] = white
    parameters = {"std": 0.04, "seed": 11}
    for kind, expected in ((Noise, 0.04 * white), (Speckle, 0.04 * (white // 2))):
        result = kind(std=0.04, fresh=fresh).apply(frames, parameters).astype(np.float64)
        inner = result[:, 1:] - white // 2
        assert abs(inner.mean()) < 0.03 * expected + 0.05 and abs(inner.std() / expected - 1) < 0.05
        frames_are_equal = (result == result[:1]).all()
        assert frames_are_equal == (fresh == "clip")
        assert abs(np.corrcoef(inner[..., 0].ravel(), inner[..., 1].ravel())[0, 1]) < 0.05
        assert abs(np.corrcoef(inner[:, :, 1:].ravel(), inner[:, :, :-1].ravel())[0, 1]) < 0.05
        if fresh == "frame":
            assert abs(np.corrcoef(inner[1:].ravel(), inner[:-1].ravel())[0, 1]) < 0.05
        assert abs(np.mean(((inner - inner.mean()) / inner.std()) ** 4) - 3) < 0.3  # as wide in its tails as a normal
        other = kind(std=0.04, fresh=fresh).apply(frames, parameters | {"seed": 12})
        assert not np.array_equal(other, result)


def test_speckle_leaves_black_black_and_noise_does_not():
    black = np.zeros((2, 20, 20, 1), np.uint8)
    parameters = {"std": 0.2, "seed": 1}
    assert (Speckle(std=0.2).apply(black, parameters) == 0).all()
    assert (Noise(std=0.2).apply(black, parameters) > 0).any()


@pytest.mark.parametrize("dtype", TYPES)
def test_blur_agrees_with_scipy(dtype):
    frames = clip(dtype, channels=3)
    result = Blur(sigma=3).apply(frames, {"sigma": 1.7})
    expected = ndimage.gaussian_filter(frames.astype(np.float64), (0, 1.7, 1.7, 0), mode="mirror", truncate=3.3)
    assert np.abs(result - expected).max() < 0.005 * TOPS[dtype] + 0.5
    assert np.abs(result - expected).mean() < 0.0005 * TOPS[dtype] + 0.3
    assert result.std() < 0.5 * frames.std()


def test_boxes_lie_within_the_frame_and_are_black():
    cut = CutOut(size=(0.2, 0.5), count=2)
    for seed in range(50):
        parameters = cut.sample(np.random.default_rng(seed), INFO)
        for top, left, bottom, right in parameters["boxes"]:
            assert 0 <= top < bottom <= 60 and 0 <= left < right <= 80
            assert 12 <= bottom - top <= 30 and 16 <= right - left <= 40
    frames = np.full((3, 60, 80, 2), 9, np.uint8)
    result = cut.apply(frames, parameters)
    black = np.zeros((60, 80), bool)
    for top, left, bottom, right in parameters["boxes"]:
        black[top:bottom, left:right] = True
    assert (result[:, black] == 0).all() and (result[:, ~black] == 9).all()
    whole = CutOut(size=(1.0, 1.0)).sample(np.random.default_rng(0), INFO)
    assert whole == {"boxes": [[0, 0, 60, 80]]}


def test_a_sector_is_a_fan_below_its_apex():
    frames = np.full((2, 100, 120, 3), 9, np.uint8)
    mask = SectorMask(degrees=80, apex=(0.5, -0.1), near=0.2, far=1.0)
    inside = mask.apply(frames, {})[0, ..., 0] > 0
    area = np.pi * (100.0**2 - 20.0**2) * 80 / 360 - _above(100)
    assert abs(inside.sum() - area) < 0.02 * area
    assert np.array_equal(inside, inside[:, ::-1])  # even, about the apex
    assert inside[50, 60] and not inside[5, 60] and not inside[95, 60] and not inside[50, 2]
    assert SectorMask(degrees=360, far=3).apply(frames, {}).min() == 9


def _above(height):
    """Return the area of that fan that lies above the frame: none, for it begins 20 below its apex at -10."""
    rows, columns = np.mgrid[-100:0, -200:200] / 2 + 0.25
    far = np.hypot(rows + 10, columns)
    fan = (np.abs(np.degrees(np.arctan2(columns, rows + 10))) < 40) & (far > 20) & (far < height)
    return fan.sum() / 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gamma(gamma=1.0), "above 0"),
        (lambda: Window(level=3, width=0), "above 0"),
        (lambda: Window(level="a", width=3), "must be a number"),
        (lambda: ClipPercentiles(low=50, high=50), "low < high"),
        (lambda: ClipPercentiles(low=True), "must be a number"),
        (lambda: Equalize(limit=0.5), "at least 1"),
        (lambda: Equalize(limit=float("nan")), "at least 1"),
        (lambda: Saturation(factor=1.5), "at least 0"),
        (lambda: Noise(std=-0.1), "negative"),
        (lambda: Noise(std=0.1, fresh="frames"), "did you mean 'frame'"),
        (lambda: Speckle(std=(0.2, 0.1)), "wrong order"),
        (lambda: Blur(sigma=65), "at most 64"),
        (lambda: CutOut(size=1.2), "at most 1"),
        (lambda: CutOut(size=0.2, count=0), "at least 1"),
        (lambda: SectorMask(degrees=0), "above 0"),
        (lambda: SectorMask(degrees=90, near=1.0, far=0.5), "near < far"),
        (lambda: SectorMask(degrees=90, apex=(0.5,)), "apex"),
        (lambda: SectorMask(degrees=float("inf")), "finite"),
        (lambda: Normalize(mode="percentiles", low=90, high=10), "low .1. < high"),
        (lambda: Normalize(mode="frame_max", low=1), "is for mode='range'"),
        (lambda: Normalize(dtype="bfloat61"), "did you mean 'bfloat16'"),
    ],
)
def test_settings_of_the_pixels(make, message):
    with pytest.raises(SettingError, match=message):
        make()


def hounsfield(channels=3):
    return np.random.default_rng(1).normal(-300, 400, (3, 20, 30, channels)).astype(np.float32)


@pytest.mark.parametrize(
    ("transform", "still"),
    [
        (Brightness(factor=0.2), {"factor": 1.0}),
        (Contrast(factor=0.2), {"factor": 1.0}),
        (Saturation(factor=0.2), {"factor": 1.0 + 1e-6}),
        (Noise(std=0.1), {"std": 0.0, "seed": 1}),
        (Speckle(std=0.1), {"std": 0.0, "seed": 1}),
    ],
)
def test_negative_values_are_not_clipped(transform, still):
    frames = hounsfield()
    assert np.allclose(transform.apply(frames, still), frames, rtol=1e-4, atol=1e-2)
    above_zero = np.abs(frames)
    changed = transform.apply(above_zero, transform.sample(np.random.default_rng(0), INFO))
    assert changed.min() >= 0


def test_values_after_normalize_are_not_clipped():
    frames = clip()
    steps = [Normalize(mode="standard"), Brightness(factor=(1.5, 1.5)), Contrast(factor=(0.5, 0.5))]
    fused = apply_pointwise([(each, each.sample(np.random.default_rng(0), INFO)) for each in steps], frames, None)
    expected = (frames - frames.mean()) / frames.std() * 1.5
    assert fused.min() < -0.3 and np.allclose(fused, expected * 0.5 + expected.mean() * 0.5, atol=1e-4)


@pytest.mark.parametrize("transform", [Gamma(gamma=0.2), Equalize()])
def test_a_curve_of_positive_values_refuses_negative_ones(transform):
    parameters = transform.sample(np.random.default_rng(0), INFO)
    with pytest.raises(SettingError, match=r"defined for values from 0, and a clip has values down to -.*window="):
        transform.apply(hounsfield(), parameters)
    with pytest.raises(SettingError, match="put the transform before Normalize"):
        apply_pointwise([(Normalize(mode="standard"), {}), (transform, parameters)], clip(), None)
