from dataclasses import dataclass

import numpy as np
import pytest

from cinefeed.core.errors import SettingError
from cinefeed.transforms.base import ClipInfo
from cinefeed.transforms.choice import OneOf, Sometimes
from cinefeed.transforms.compose import Compose
from cinefeed.transforms.geometry import Flip
from cinefeed.transforms.temporal import FrameDrop, Jitter, PhaseShift, Reverse, Speed
from cinefeed.video.clips import Frame

INFO = ClipInfo(8, 4, 4, 1)


@dataclass(frozen=True)
class Named:
    """A transform whose setting bears the name that a choice has for what it chooses from."""

    members: int

    def sample(self, rng, info):
        return {}

    def apply(self, frames, parameters):
        return frames


def mapped(transform, indices, parameters, count):
    return transform.indices(np.array(indices, np.int64), parameters, count).tolist()


@pytest.mark.parametrize(
    ("indices", "factor", "count", "expected"),
    [
        ([0, 2, 4, 6, 8], 0.5, 9, [2, 3, 4, 5, 6]),
        ([4, 5, 6], 2.0, 20, [3, 5, 7]),
        ([4, 5, 6], 2.0, 7, [2, 4, 6]),  # moved back, for it would leave the video
        ([0, 1, 2], 2.0, 20, [0, 2, 4]),  # moved on
        ([0, 1, 2, 3], 9.0, 7, [0, 2, 4, 6]),  # no faster than the video allows
        ([0, 3, 6], 1.5, 7, [0, 3, 6]),
        ([5, 5, 5], 3.0, 9, [5, 5, 5]),
        ([6, 4, 2], 0.5, 9, [5, 4, 3]),  # a clip that runs backwards still does
        ([0, 1, 2, 0, 1], 0.5, 3, [1, 1, 2, 1, 1]),
    ],
)
def test_speed_moves_frames_about_the_middle(indices, factor, count, expected):
    assert mapped(Speed(factor=0.5), indices, {"factor": factor}, count) == expected


def test_speed_keeps_even_steps():
    for factor in np.linspace(0.3, 3.0, 28):
        indices = Speed(factor=0.5).indices(np.arange(20, 40), {"factor": float(factor)}, 100)
        steps = np.diff(indices)
        assert steps.max() - steps.min() <= 1
        assert abs((indices[-1] - indices[0]) / 19 - factor) < 0.06 and abs(indices.mean() - 29.5) < 1


def test_reverse_is_as_often_as_its_probability():
    rng = np.random.default_rng(0)
    assert 700 < sum(Reverse(probability=0.4).sample(rng, INFO)["reversed"] for _ in range(2000)) < 900
    assert mapped(Reverse(), [4, 6, 8], {"reversed": True}, 9) == [8, 6, 4]
    assert mapped(Reverse(), [4, 6, 8], {"reversed": False}, 9) == [4, 6, 8]


def test_jitter_keeps_the_order_of_time():
    jitter = Jitter(frames=3)
    moves = set()
    for seed in range(40):
        parameters = jitter.sample(np.random.default_rng(seed), INFO)
        moves |= set(parameters["moves"])
        result = mapped(jitter, range(10, 18), parameters, 30)
        assert result == sorted(result) and all(abs(a - b) <= 3 + 3 for a, b in zip(result, range(10, 18), strict=True))
    assert moves == {-3, -2, -1, 0, 1, 2, 3}
    assert mapped(jitter, [0, 8], {"moves": [-3, 3]}, 9) == [0, 8]
    assert mapped(jitter, [6, 4, 2], {"moves": [0, 3, 0]}, 9) == [
        6,
        7,
        2,
    ]  # a clip that runs backwards has its own order
    assert mapped(jitter, [5, 6], {"moves": [1, 0, 0, 0]}, 9) == [6, 6]  # frames that are padding were left out


def test_lost_frames_show_the_one_before():
    parameters = {"lost": [True, False, True, True, False]}
    assert mapped(FrameDrop(share=0.5), [3, 5, 7, 9, 11], parameters, 20) == [3, 5, 5, 5, 11]
    rng = np.random.default_rng(0)
    lost = [sum(FrameDrop(share=(0.3, 0.3)).sample(rng, INFO)["lost"]) for _ in range(500)]
    assert abs(np.mean(lost) / 8 - 0.3) < 0.03
    assert not any(FrameDrop(share=(0.0, 0.0)).sample(rng, INFO)["lost"])


def test_a_cycle_goes_on_from_its_start():
    shift = PhaseShift(fraction=0.5)
    assert mapped(shift, [0, 1, 2, 3], {"fraction": 0.25}, 4) == [1, 2, 3, 0]
    assert mapped(shift, [0, 1, 2, 3], {"fraction": -0.25}, 4) == [3, 0, 1, 2]
    assert mapped(shift, [0, 1, 2, 3], {"fraction": 1.0}, 4) == [0, 1, 2, 3]
    fractions = [
        PhaseShift(fraction=(0, 1)).sample(np.random.default_rng(seed), INFO)["fraction"] for seed in range(200)
    ]
    starts = {mapped(shift, [0], {"fraction": each}, 25)[0] for each in fractions}
    assert starts == set(range(25))


def test_a_clip_alone_is_its_own_video():
    frames = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1)
    assert Reverse().apply(frames, {"reversed": True}).ravel().tolist() == [4, 3, 2, 1, 0]
    assert Speed(factor=0.5).apply(frames, {"factor": 0.5}).ravel().tolist() == [1, 2, 2, 3, 3]
    assert FrameDrop(share=0.5).apply(frames[:0], {"lost": []}).shape == (0, 1, 1, 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Speed(factor=1.0), "above 0"),
        (lambda: Reverse(probability=-0.1), "from 0 to 1"),
        (lambda: Jitter(frames=1.5), "whole number"),
        (lambda: Jitter(frames=-1), "at least 0"),
        (lambda: FrameDrop(share=1.5), "at most 1"),
        (lambda: PhaseShift(fraction=(0, 2)), "at most 1"),
    ],
)
def test_settings_of_time(make, message):
    with pytest.raises(SettingError, match=message):
        make()


@pytest.mark.parametrize(
    ("transforms", "expected"),
    [
        ([], False),
        ([Flip()], False),
        ([Flip(), Reverse()], True),
        (
            [Sometimes(transform=OneOf(transforms=(Flip(), Reverse())))],
            True,
        ),  # of no one kind, and of time all the same
        ([OneOf(transforms=(Flip(), Flip(axis="vertical")))], False),
        ([Named(members=3)], False),
    ],
)
def test_what_may_change_the_frames_is_known(transforms, expected):
    assert Compose(transforms, frame=Frame(height=4, width=4)).retimes == expected
