"""Fused passes give, to the byte, what one transform after the other gives."""

import json
from dataclasses import dataclass

import numpy as np
import pytest

from cinefeed.core.errors import ClipError, SettingError
from cinefeed.transforms import fuse
from cinefeed.transforms.base import ClipInfo
from cinefeed.transforms.choice import OneOf, RandomOrder, Sometimes
from cinefeed.transforms.compose import Compose
from cinefeed.transforms.elastic import Elastic
from cinefeed.transforms.framing import Pad
from cinefeed.transforms.geometry import Flip, Rotate, Scale, Shift
from cinefeed.transforms.intensity_curves import ClipPercentiles, Equalize, Gamma, Window
from cinefeed.transforms.intensity_linear import Brightness, Contrast, Normalize
from cinefeed.transforms.masks import CutOut
from cinefeed.transforms.temporal import FrameDrop, PhaseShift, Reverse, Speed
from cinefeed.transforms.texture import Blur, Noise, Saturation
from cinefeed.video.clips import Frame
from cinefeed.video.color import Colour
from cinefeed.video.pixel_levels import PixelLevels, TableLevels
from cinefeed.video.planes import Planes

RGB = Colour(model="rgb")
CHAINS = [
    [Brightness(factor=0.4), Contrast(factor=0.4)],
    [Contrast(factor=0.4), Gamma(gamma=0.5), Brightness(factor=(0.5, 2.0))],
    [Window(level=110, width=90), Equalize(limit=3), Normalize()],
    [ClipPercentiles(low=2, high=95), Normalize(mode="percentiles", low=5, high=90)],
    [Equalize(limit=2), ClipPercentiles(), Normalize(mode="standard")],
    [Brightness(factor=0.4), Normalize(mode="clip_max")],
    [Gamma(gamma=0.5), Normalize(mode="standard", mean=(90.0, 100.0, 110.0), std=(20.0, 30.0, 40.0))],
    [Contrast(factor=(0.0, 0.0)), Normalize()],
    [Contrast(factor=0.9), Brightness(factor=0.9), Gamma(gamma=0.9), Normalize(dtype="float16")],
    [Brightness(factor=0.2), Normalize(mode="range", high=255), Gamma(gamma=0.3), Brightness(factor=0.3)],
]


def clip_of(dtype, *, frames=6, height=40, width=44, seed=0):
    rng = np.random.default_rng(seed)
    dark = rng.random((frames, 1, 1, 1)) * 0.7 + 0.3
    top = {"uint8": 255, "uint16": 65535, "float32": 255.0}[dtype]
    return (rng.random((frames, height, width, 3)) ** 2 * dark * top).astype(dtype)


def render(compose, clip, parameters, **options):
    out = np.empty((*clip.shape[:3], compose.frame.channels), compose.dtype)
    compose.render(Planes([(frame,) for frame in clip], RGB), out, parameters, **options)
    return out


def one_after_the_other(transforms, clip, parameters):
    for transform, own_parameters in zip(transforms, parameters, strict=True):
        clip = transform.apply(clip, own_parameters)
    return clip


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("transforms", CHAINS, ids=lambda each: fuse.compact_repr(tuple(each))[:60])
def test_a_table_is_what_the_transforms_are_one_after_the_other(transforms, dtype):
    size = 150 if dtype == "uint16" else 40  # a table of 65,536 entries is for clips that have more pixels than that
    clip = clip_of(dtype, height=size)
    compose = Compose(transforms, frame=Frame(height=size, width=44, channels=3, dtype=dtype))
    for seed in range(3):
        parameters = compose.sample(np.random.default_rng(seed), frames=6)
        expected = one_after_the_other(transforms, clip, parameters)
        fused = fuse.apply_pointwise(list(zip(transforms, parameters, strict=True)), clip, None)
        assert fused.dtype == expected.dtype == compose.dtype
        assert fused.tobytes() == expected.tobytes()
        if dtype == "uint8":
            assert render(compose, clip, parameters).tobytes() == expected.tobytes()


def test_a_run_is_looked_up_once(monkeypatch):
    lookups = []
    monkeypatch.setattr(fuse, "look_up", lambda pixels, table, out: lookups.append(table.shape))
    transforms = [Brightness(factor=0.4), Gamma(gamma=0.4), Contrast(factor=0.4), Normalize()]
    compose = Compose(transforms, frame=Frame(height=40, width=44, channels=3))
    render(compose, clip_of("uint8"), compose.sample(np.random.default_rng(0), frames=6))
    assert lookups == [(6, 1, 256)]  # a curve a frame, for each has its own maximum
    lookups.clear()
    deep = Compose(transforms, frame=Frame(height=150, width=44, channels=3, dtype="uint16"))
    parameters = deep.sample(np.random.default_rng(0), frames=6)
    fuse.apply_pointwise(list(zip(transforms, parameters, strict=True)), clip_of("uint16", height=150), None)
    assert lookups == [(1, 1, 65536)]  # and not 6 x 65,536: the maximum of each frame is taken afterwards
    lookups.clear()
    constants = Normalize(mode="standard", mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0))
    compose = Compose([Gamma(gamma=0.4), constants], frame=Frame(height=40, width=44, channels=3))
    render(compose, clip_of("uint8"), compose.sample(np.random.default_rng(0), frames=6))
    assert lookups == [(1, 3, 256)]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_levels_of_a_table_are_those_of_the_frames_it_makes(dtype):
    clip = clip_of(dtype)
    size = 256 if dtype == "uint8" else 65536
    rng = np.random.default_rng(1)
    tables = [
        np.sort(rng.integers(0, size, (1, 1, size))),  # brighter stays brighter
        rng.integers(0, size, (1, 1, size)),
        rng.integers(0, size, (1, 3, size)),
        *([rng.integers(0, size, (6, 1, size)), rng.integers(0, size, (6, 3, size))] if dtype == "uint8" else []),
    ]
    for number, table in enumerate(each.astype(dtype) for each in tables):
        frames, channels = np.arange(6).reshape(-1, 1, 1, 1), np.arange(3)
        made = np.broadcast_to(table, (6, 3, size))[frames, channels, clip]
        expected, table_levels = PixelLevels(made), TableLevels(PixelLevels(clip), table)
        if not (dtype == "uint16" and number):  # of which the counts are of the clip, not of each frame
            assert table_levels.frame_max().tolist() == made.max(axis=(1, 2, 3)).tolist()
        assert table_levels.mean_and_std() == expected.mean_and_std()
        np.testing.assert_allclose(expected.mean_and_std(), [made.mean(), made.std()], rtol=1e-9)
        percents = [0, 1, 37.3, 50, 99, 100]
        assert table_levels.percentiles(percents) == expected.percentiles(percents)
        np.testing.assert_allclose(table_levels.percentiles(percents), np.percentile(made, percents), rtol=1e-12)
        assert table_levels.histogram(float(size - 1)).tolist() == expected.histogram(float(size - 1)).tolist()
        assert table_levels.histogram(float(size - 1)).sum() == made.size


def test_levels_of_nothing():
    for dtype in ("uint8", "float32"):
        levels = PixelLevels(np.empty((2, 0, 3, 1), dtype))
        assert levels.frame_max().tolist() == [0, 0] and levels.mean_and_std() == (0.0, 0.0)
        assert levels.percentiles([5, 50]) == [0.0, 0.0] and levels.histogram(255.0).sum() == 0


def test_choices_are_fused_once_they_are_chosen():
    choices = [
        Sometimes(transform=Rotate(degrees=25), probability=0.5),
        OneOf(transforms=(Shift(pixels=5), Elastic(pixels=3), Scale(factor=0.2))),
        RandomOrder(transforms=(Flip(), Pad(pixels=4))),
        RandomOrder(transforms=(Gamma(gamma=0.3), Brightness(factor=0.3))),
        Sometimes(transform=OneOf(transforms=(Contrast(factor=0.3), Equalize()))),
        Normalize(),
    ]
    compose = Compose(choices, frame=Frame(height=40, width=44, channels=3))
    outcomes = set()
    for seed in range(12):
        parameters = compose.sample(np.random.default_rng(seed), frames=6)
        assert json.loads(json.dumps(parameters)) == parameters
        parts = list(fuse.select_parts(choices, parameters))
        outcomes.add(tuple(type(each).__name__ for each, _ in parts))
        kinds = [step.kind for step in fuse.group_steps(iter(parts))]
        assert kinds == ["geometry", "pointwise"]
        plain = Compose([each for each, _ in parts], frame=compose.frame)
        clip = clip_of("uint8", seed=seed)
        assert np.array_equal(render(compose, clip, parameters), render(plain, clip, [each for _, each in parts]))
    assert len(outcomes) > 6
    assert compose.explain().count("one interpolation") == 1 and compose.explain().count("look-up table") == 1


def test_a_choice_alone_applies_what_it_chose():
    order = RandomOrder(transforms=(Shift(pixels=(3, 3)), Flip(probability=1.0)))
    clip = clip_of("uint8")
    own_parameters = {"parameters": [{"right": 3.0, "down": 0.0}, {"horizontal": True, "vertical": False}]}
    shifted_first = order.apply(clip, own_parameters | {"order": [0, 1]})
    assert np.array_equal(shifted_first[:, :, :-3], clip[:, :, ::-1][:, :, 3:])
    assert np.array_equal(order.apply(clip, own_parameters | {"order": [1, 0]})[:, :, 3:], clip[:, :, ::-1][:, :, :-3])
    assert np.array_equal(Sometimes(transform=Blur(sigma=3)).apply(clip, {"applied": False, "parameters": {}}), clip)


def test_how_often_a_choice_is_made():
    info = ClipInfo(6, 40, 44, 3)
    rng = np.random.default_rng(0)
    from_one = OneOf(transforms=(Flip(), Blur(sigma=1), Gamma(gamma=0.1)), weights=(0, 3, 1))
    counts = np.bincount([from_one.sample(rng, info)["choice"] for _ in range(2000)], minlength=3)
    assert counts[0] == 0 and 1400 < counts[1] < 1600
    sometimes = Sometimes(transform=Flip(), probability=0.2)
    assert 320 < sum(sometimes.sample(rng, info)["applied"] for _ in range(2000)) < 480
    orders = {tuple(RandomOrder(transforms=(Flip(),) * 3).sample(rng, info)["order"]) for _ in range(200)}
    assert len(orders) == 6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sometimes(transform=Normalize()), "turns uint8 into float32"),
        (lambda: OneOf(transforms=(Flip(), Normalize())), "move it after the OneOf"),
        (lambda: OneOf(transforms=()), "one or more transforms"),
        (lambda: OneOf(transforms=Flip()), "one or more transforms"),
        (lambda: RandomOrder(transforms=(Flip,)), "such as Rotate"),
        (lambda: Sometimes(transform=Flip(), probability=1.5), "from 0 to 1"),
        (lambda: OneOf(transforms=(Flip(), Flip()), weights=(1,)), "2 numbers"),
        (lambda: OneOf(transforms=(Flip(), Flip()), weights=(0, 0)), "not all 0"),
        (
            lambda: Compose([Normalize(dtype="float16"), Shift(pixels=1)], frame=Frame(height=8, width=8)),
            "to the end",
        ),
    ],
)
def test_what_cannot_be_chosen(make, message):
    with pytest.raises(SettingError, match=message):
        make()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_the_rounded_single(dtype):
    transforms = [Brightness(factor=0.3), Normalize(mode="standard", mean=100.0, std=60.0)]
    single = Compose(transforms, frame=Frame(height=40, width=44))
    half = Compose(
        [transforms[0], Normalize(mode="standard", mean=100.0, std=60.0, dtype=dtype)],
        frame=Frame(height=40, width=44),
    )
    parameters = single.sample(np.random.default_rng(0), frames=6)
    whole = render(single, clip_of("uint8"), parameters)
    assert half.dtype == np.dtype(dtype) and half.dtype.itemsize == 2
    assert np.array_equal(render(half, clip_of("uint8"), parameters), whole.astype(dtype))


def test_float16_ends_before_infinity():
    bright = Normalize(mode="range", high=1e-3, dtype="float16").apply(np.full((1, 2, 2, 1), 255, np.uint8), {})
    assert np.isfinite(bright).all() and bright.max() == 65504


def test_explain_says_what_is_one_pass():
    transforms = [
        Speed(factor=0.3),
        Rotate(degrees=25),
        Elastic(pixels=4),
        Brightness(factor=0.2),
        Gamma(gamma=0.2),
        Noise(std=0.05),
        Shift(pixels=3),
        Contrast(factor=0.1),
        Normalize(),
    ]
    assert Compose(transforms, frame=Frame(height=40, width=44, channels=1)).explain().splitlines() == [
        "1. Speed(factor=0.3): frames selected before they are read",
        "2. fit (crop to 40 x 44), Rotate(degrees=25), Elastic(pixels=4): one interpolation",
        "3. 1 channel, uint8",
        "4. Brightness(factor=0.2), Gamma(gamma=0.2): one look-up table",
        "5. Noise(std=0.05)",
        "6. Shift(pixels=3): one interpolation",
        "7. Contrast(factor=0.1), Normalize(): one look-up table, to float32",
    ]
    explained = Compose(transforms[3:5], frame=Frame(height=40, width=44, dtype="float32", spacing_mm=1.5)).explain()
    assert "fit (1.5 mm per pixel, 40 x 44): one interpolation" in explained and "one after the other" in explained


def test_transforms_of_time_choose_frames_and_are_not_applied_again():
    transforms = [Rotate(degrees=0), Reverse(probability=1.0), Sometimes(transform=PhaseShift(fraction=0.5))]
    compose = Compose(transforms, frame=Frame(height=40, width=44))
    parameters = [{"degrees": 0.0}, {"reversed": True}, {"applied": True, "parameters": {"fraction": 0.5}}]
    indices = np.array([10, 11, 12, 13])
    # back to front, then on by 3 of the 5 frames from 10 to 14: half of 5, rounded up
    assert compose.indices(indices, parameters, count=5, first=10).tolist() == [11, 10, 14, 13]
    assert compose.indices(indices[:0], parameters, count=5).tolist() == []
    clip = clip_of("uint8")
    assert np.array_equal(render(compose, clip, parameters), clip)
    assert Compose([Flip(), FrameDrop(share=0.3)], frame=compose.frame).explain().startswith("1. FrameDrop")


def test_steps_of_several_kinds_keep_their_order():
    transforms = [Brightness(factor=0.4), Saturation(factor=0.5), CutOut(size=0.4), Gamma(gamma=0.3), Blur(sigma=1)]
    compose = Compose(transforms, frame=Frame(height=40, width=44))
    parameters = compose.sample(np.random.default_rng(2), frames=6)
    clip = clip_of("uint8")
    assert np.array_equal(render(compose, clip, parameters), one_after_the_other(transforms, clip, parameters))


def test_a_pixel_size_is_brought_to_the_frame():
    """A disc of 30 mm is 20 pixels of 1.5 mm across, whatever the pixels that it was stored in."""
    for spacing in ((0.5, 0.5), (1.0, 0.25), (1.5, 1.5), (3.0, 2.0)):
        rows, columns = np.mgrid[:201, :301] + 0.5
        disc = ((rows - 100.5) * spacing[0]) ** 2 + ((columns - 150.5) * spacing[1]) ** 2 < 15**2
        frame = Frame(height=40, width=44, channels=1, spacing_mm=1.5)
        out = np.empty((1, 40, 44, 1), np.uint8)
        planes = Planes([(np.uint8(disc * 250),)], Colour(model="grey"))
        for transforms, parameters in (([], []), ([Scale(factor=0.1)], [{"factor": 1.0}])):
            Compose(transforms, frame=frame).render(planes, out, parameters, spacing_mm=spacing)
            across, down = (np.flatnonzero((out[0, ..., 0] > 125).any(axis)) for axis in (0, 1))
            assert abs(len(across) - 20) <= 2 and abs(len(down) - 20) <= 2
            stored = disc.sum() * spacing[0] * spacing[1]  # square millimetres
            assert abs(out.sum() / 250 * 1.5**2 - stored) < 0.02 * stored
            assert abs(across.mean() - 21.5) <= 0.6 and abs(down.mean() - 19.5) <= 0.6


def test_a_pixel_size_that_fits_is_an_exact_copy():
    image = np.random.default_rng(0).integers(0, 255, (41, 45), np.uint8)
    frame = Frame(height=40, width=44, channels=1, spacing_mm=1.5)
    out = np.empty((1, 40, 44, 1), np.uint8)
    Compose([], frame=frame).render(Planes([(image,)], Colour(model="grey")), out, [], spacing_mm=(1.5, 1.5))
    assert np.array_equal(out[0, ..., 0], image[1:, 1:])


def test_pixel_sizes_that_are_wrong_or_missing():
    for wrong in (0, -1.0, float("inf"), float("nan"), "1", True):
        with pytest.raises(SettingError, match=r"spacing_mm=.* must be a (positive )?number"):
            Frame(height=8, width=8, spacing_mm=wrong)
    for fit in ("pad", "stretch"):
        with pytest.raises(SettingError, match="leave one out"):
            Frame(height=8, width=8, spacing_mm=1.5, fit=fit)
    compose = Compose([], frame=Frame(height=8, width=8, spacing_mm=1.5))
    with pytest.raises(ClipError, match=r"unknown.*spacing_down_mm"):
        render(compose, clip_of("uint8")[:, :8, :8], [])
    frame = Frame(height=112, width=112, spacing_mm=1.5)
    assert frame.target_spacing(9, 9, spacing_mm=None) == (1.5, 1.5)
    assert Frame(height=112, width=112).target_spacing(9, 9, spacing_mm=None) is None
    assert Frame(height=10, width=10, fit="stretch").target_spacing(20, 40, spacing_mm=(1.0, 1.0)) == (2.0, 4.0)


@dataclass(frozen=True)
class Liar:
    """A curve that names another type than it gives."""

    def sample(self, rng, info):
        return {}

    def curve(self, values, parameters, levels):
        return values.astype(np.float32)

    def apply(self, frames, parameters):
        return frames.astype(np.float32)


def test_a_curve_that_lies_about_its_type_is_found():
    compose = Compose([Gamma(gamma=0.1), Liar()], frame=Frame(height=40, width=44))
    with pytest.raises(SettingError, match="float32 from curve"):
        render(compose, clip_of("uint8"), compose.sample(np.random.default_rng(0), frames=6))
