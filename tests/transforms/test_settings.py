import numpy as np
import pytest

from cinefeed.core.errors import SettingError
from cinefeed.transforms.base import ClipInfo, Geometric, Transform
from cinefeed.transforms.drawing import ParameterRange, interval
from cinefeed.transforms.geometry import Flip, Rotate, Scale, Shift
from cinefeed.transforms.intensity_linear import Brightness, Contrast, Normalize

INFO = ClipInfo(16, 100, 200, 1)


def draws(transform, name, count=400):
    rng = np.random.default_rng(0)
    return np.array([transform.sample(rng, INFO)[name] for _ in range(count)])


@pytest.mark.parametrize(
    ("transform", "name", "low", "high"),
    [
        (Rotate(degrees=25), "degrees", -25, 25),
        (Rotate(degrees=(5, 10)), "degrees", 5, 10),
        (Shift(pixels=15), "right", -15, 15),
        (Shift(pixels=15), "down", -15, 15),
        (Shift(fraction=0.1), "right", -20, 20),
        (Shift(fraction=0.1), "down", -10, 10),
        (Scale(factor=0.1), "factor", 0.9, 1.1),
        (Scale(factor=[0.5, 2.0]), "factor", 0.5, 2.0),
        (Brightness(factor=0.2), "factor", 0.8, 1.2),
        (Contrast(factor=(0.0, 3.0)), "factor", 0.0, 3.0),
    ],
    ids=repr,
)
def test_draws_fill_the_interval(transform, name, low, high):
    values = draws(transform, name)
    assert low <= values.min() < low + 0.05 * (high - low)
    assert high - 0.05 * (high - low) < values.max() <= high
    assert abs(values.mean() - (low + high) / 2) < 0.1 * (high - low)


def test_shift_draws_its_axes_apart():
    shift = Shift(pixels=5).sample(np.random.default_rng(0), INFO)
    assert shift["right"] != shift["down"]


def test_flip_obeys_its_axis_and_probability():
    assert 0.4 < draws(Flip(), "horizontal").mean() < 0.6
    assert not draws(Flip(), "vertical").any()
    assert not draws(Flip(axis="vertical", probability=1.0), "horizontal").any()
    both = Flip(axis="both", probability=1.0).sample(np.random.default_rng(0), INFO)
    assert both == {"horizontal": True, "vertical": True}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rotate(degrees=-5), "negative"),
        (lambda: Rotate(degrees=(10, 5)), "wrong order"),
        (lambda: Rotate(degrees=float("nan")), "must be a number"),
        (lambda: Rotate(degrees="25"), "must be a number"),
        (lambda: Rotate(degrees=True), "must be a number"),
        (lambda: Rotate(degrees=(1,)), "pair"),
        (lambda: Shift(), "exactly one of pixels, fraction"),
        (lambda: Shift(pixels=1, fraction=0.1), "exactly one of pixels, fraction"),
        (lambda: Shift(fraction=15), "larger than the frame"),
        (lambda: Scale(factor=1.0), "above 0"),
        (lambda: Scale(factor=(0.0, 1.0)), "above 0"),
        (lambda: Flip(axis="horisontal"), "did you mean 'horizontal'"),
        (lambda: Flip(probability=2), "from 0 to 1"),
        (lambda: Brightness(factor=1.5), "at least 0"),
        (lambda: Contrast(factor=(-1, 1)), "at least 0"),
        (lambda: Normalize(mode="max"), "there are|did you mean"),
        (lambda: Normalize(mean=1.0, std=2.0), "is for mode='standard'"),
        (lambda: Normalize(mode="standard", mean=1.0), "together"),
        (lambda: Normalize(mode="standard", mean=1.0, std=0.0), "above 0"),
        (lambda: Normalize(mode="standard", mean="a", std=1.0), "must be one number"),
        (lambda: Normalize(mode="range"), "high above low"),
        (lambda: Normalize(mode="range", low=5, high=5), "high above low"),
        (lambda: Normalize(mode="range", high=float("inf")), "finite"),
    ],
)
def test_settings_are_checked_at_birth(make, message):
    with pytest.raises(SettingError, match=message):
        make()


def test_settings_are_frozen_and_by_keyword():
    with pytest.raises(AttributeError):
        Rotate(degrees=5).degrees = 6
    with pytest.raises(TypeError):
        Rotate(5)


def test_constants_for_other_channels_are_refused():
    normalize = Normalize(mode="standard", mean=(1.0, 2.0, 3.0), std=(1.0, 1.0, 1.0))
    normalize.sample(np.random.default_rng(0), INFO._replace(channels=3))
    with pytest.raises(SettingError, match=r"3 numbers for 1 channel"):
        normalize.sample(np.random.default_rng(0), INFO)


@pytest.mark.parametrize("choice", [(0, 90, 180), [0, 90, 180], {0, 90, 180}, frozenset({180, 90, 0})])
def test_three_or_more_are_a_choice_and_so_is_a_set(choice):
    values = draws(Rotate(degrees=choice), "degrees")
    assert set(values) == {0.0, 90.0, 180.0}
    assert all(100 < count < 170 for count in np.unique(values, return_counts=True)[1])
    assert set(draws(Rotate(degrees={-5, 5}), "degrees")) == {-5.0, 5.0}
    assert set(draws(Rotate(degrees={7}), "degrees")) == {7.0}
    assert (draws(Rotate(degrees=(0, 0, 0, 9)), "degrees") == 9).mean() < 0.35  # named thrice, drawn thrice as often


def test_a_set_is_drawn_from_alike_whatever_its_order():
    one, other = {0.0, 8.0}, {8.0, 0.0}
    assert list(one) != list(other)
    assert draws(Rotate(degrees=one), "degrees").tolist() == draws(Rotate(degrees=other), "degrees").tolist()


def test_what_has_no_less_than_nothing_is_drawn_to_one_side():
    amount = ParameterRange("x", lowest=0.0, one_sided=True)
    values = np.array([amount.draw(np.random.default_rng(seed), 2) for seed in range(200)])
    assert 0 <= values.min() < 0.1 and 1.9 < values.max() <= 2
    assert ParameterRange("x", neutral=None).draw(np.random.default_rng(0), -7) == -7.0


@pytest.mark.parametrize(
    ("limits", "spread", "message"),
    [
        (ParameterRange("x"), set(), "must be a number"),
        (ParameterRange("x"), {1, "a"}, "must be a number"),
        (ParameterRange("x"), (1, 2, float("inf")), "must be a number"),
        (ParameterRange("x", lowest=0.0), (1, 2, -3), "reaches down to -3"),
        (ParameterRange("x", highest=5.0), {9}, "reaches up to 9"),
        (ParameterRange("x", neutral=None), (), "must be a number"),
    ],
)
def test_choices_are_checked_too(limits, spread, message):
    with pytest.raises(SettingError, match=message):
        limits.check(spread)


def test_interval_keeps_ends_that_touch():
    assert interval("x", 0) == (0.0, 0.0)
    assert interval("x", (3, 3)) == (3.0, 3.0)


def test_protocols():
    assert isinstance(Rotate(degrees=1), Geometric)
    assert isinstance(Normalize(), Transform) and not isinstance(Normalize(), Geometric)
