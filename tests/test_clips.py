import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinefeed.core.errors import ClipError, SettingError
from cinefeed.core.rng import Stage, rng_for
from cinefeed.video.clips import Clip, Frame
from cinefeed.video.timestamps import FrameTimes


def video(count, rate=25.0):
    return FrameTimes(0.0, 1 / rate, count)


def picks(clip, times, **window):
    indices, valid = clip.select(times, rng=rng_for(3, stage=Stage.CLIP), **window)
    return indices.tolist(), valid.tolist()


@pytest.mark.parametrize(("position", "expected"), [("start", [0, 2, 4]), ("center", [1, 3, 5]), ("spread", [0, 2, 5])])
def test_positions(position, expected):
    stride = 1 if position == "spread" else 2
    assert picks(Clip(frames=3, stride=stride, position=position), video(8))[0] == expected


@pytest.mark.parametrize("phases", [20, 25, 30])
def test_spread_makes_25_phases_of_any_number(phases):
    indices = picks(Clip(frames=25, position="spread"), video(phases))[0]
    assert indices == [i * phases // 25 for i in range(25)]


@pytest.mark.parametrize(
    ("short", "expected", "valid"),
    [
        ("repeat_last", [0, 1, 2, 2, 2], [True] * 5),
        ("loop", [0, 1, 2, 0, 1], [True] * 5),
        ("pad", [0, 1, 2, 2, 2], [True] * 3 + [False] * 2),
    ],
)
@pytest.mark.parametrize("position", ["start", "center", "random"])
def test_short_videos(short, expected, valid, position):
    assert picks(Clip(frames=5, short=short, position=position), video(3)) == (expected, valid)


def test_a_short_video_keeps_its_stride():
    assert picks(Clip(frames=4, stride=2), video(4))[0] == [0, 2, 2, 2]


@pytest.mark.parametrize("clip", [Clip(frames=5, short="error"), Clip(frames=5, position="spread", short="error")])
def test_short_can_be_an_error(clip):
    with pytest.raises(ClipError, match="spans 5 frames, the video has 3"):
        picks(clip, video(3))


@given(
    frames=st.integers(1, 40),
    stride=st.integers(1, 5),
    count=st.integers(1, 200),
    position=st.sampled_from(["random", "center", "start"]),
    short=st.sampled_from(["repeat_last", "loop", "pad"]),
    address=st.integers(0, 1000),
)
def test_indices_are_always_within_the_video(frames, stride, count, position, short, address):
    clip = Clip(frames=frames, stride=stride, position=position, short=short)
    indices, valid = clip.select(video(count), rng=rng_for(0, stage=Stage.CLIP, position=address))
    assert len(indices) == len(valid) == frames and valid[0]
    assert indices.min() >= 0 and indices.max() < count
    if (frames - 1) * stride < count:
        assert (np.diff(indices) == stride).all() and valid.all()


def test_every_start_is_drawn_alike():
    clip = Clip(frames=3)
    starts = [clip.select(video(7), rng=rng_for(0, stage=Stage.CLIP, position=i))[0][0] for i in range(2000)]
    counts = np.bincount(starts, minlength=5)
    assert len(counts) == 5 and counts.min() > 320  # 400 expected, standard deviation 18


def test_rate_picks_frames_by_time():
    assert picks(Clip(frames=4, rate_hz=10, position="start"), video(20, rate=30))[0] == [0, 3, 6, 9]
    assert picks(Clip(frames=4, rate_hz=50, position="start"), video(20, rate=25))[0] == [0, 0, 1, 1]


def test_rate_on_irregular_time_stamps():
    times = FrameTimes(0.0, 0.0, 5, np.array([0.0, 0.1, 0.5, 0.6, 1.0]))
    assert picks(Clip(frames=3, rate_hz=2, position="start"), times)[0] == [0, 2, 4]
    assert picks(Clip(frames=5, rate_hz=4, position="start"), times)[0] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("short", "expected"), [("repeat_last", [0, 5, 5, 5]), ("loop", [0, 5, 0, 5])])
def test_rate_on_a_short_video(short, expected):
    clip = Clip(frames=4, rate_hz=2, short=short, position="start")
    indices, _ = picks(clip, video(10, rate=10))
    assert indices == expected


def test_rate_padding_and_error():
    assert picks(Clip(frames=3, rate_hz=1, short="pad"), video(15, rate=10))[1] == [True, True, False]
    with pytest.raises(ClipError, match="lasts"):
        picks(Clip(frames=3, rate_hz=1, short="error"), video(15, rate=10))


def test_a_clip_stays_between_start_and_end():
    indices, _ = picks(Clip(frames=5, stride=2), video(100), start_seconds=1.0, end_seconds=1.4)
    assert indices[0] >= 25 and indices[-1] < 35
    assert picks(Clip(frames=3, position="start"), video(10), start_seconds=0.2)[0] == [5, 6, 7]


def test_an_empty_window_says_what_there_is():
    with pytest.raises(ClipError, match=r"between 9 and 10 s: the video has 10 frames, from 0.000 to 0.360 s"):
        picks(Clip(frames=3), video(10), start_seconds=9, end_seconds=10)
    with pytest.raises(ClipError, match="0 frames"):
        picks(Clip(frames=3), video(0))


def test_a_video_without_rate_has_no_seconds():
    times = FrameTimes(0.0, float("nan"), 9)
    assert picks(Clip(frames=3, position="start"), times)[0] == [0, 1, 2]
    with pytest.raises(ClipError, match="no frame rate"):
        picks(Clip(frames=3, rate_hz=5), times)


def test_random_needs_a_generator():
    with pytest.raises(SettingError, match="rng="):
        Clip(frames=3).select(video(9))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frames": 0}, "frames"),
        ({"frames": 2.5}, "frames"),
        ({"stride": -1}, "stride"),
        ({"position": "centre"}, "did you mean 'center'"),
        ({"short": "repeat"}, "did you mean 'repeat_last'"),
        ({"rate_hz": 0.0}, "rate_hz"),
        ({"rate_hz": 10.0, "stride": 2}, "not both"),
        ({"position": "spread", "stride": 2}, "whole video"),
    ],
)
def test_clip_settings_are_checked(settings, message):
    with pytest.raises(SettingError, match=message):
        Clip(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"height": 0}, "height"),
        ({"channels": 2}, "channels"),
        ({"fit": "croop"}, "crop"),
        ({"dtype": "int8"}, "uint8"),
    ],
)
def test_frame_settings_are_checked(settings, message):
    with pytest.raises(SettingError, match=message):
        Frame(**{"height": 8, "width": 8, **settings})


@pytest.mark.parametrize(
    ("fit", "corners"),
    [
        ("crop", [(-5, 0), (15, 10)]),
        ("pad", [(0, 2.5), (10, 7.5)]),
        ("stretch", [(0, 0), (10, 10)]),
        ("none", [(-15, -5), (25, 15)]),
    ],
)
def test_fit_maps_the_corners_of_a_frame_of_20_x_40(fit, corners):
    matrix = Frame(height=10, width=10, fit=fit).matrix(20, 40)
    for source, target in zip([(0, 0), (40, 20)], corners, strict=True):
        assert (matrix @ [*source, 1])[:2].tolist() == list(target)


def test_none_never_lands_between_pixels():
    matrix = Frame(height=10, width=10, fit="none").matrix(21, 13)
    assert (matrix == matrix.round()).all()


@pytest.mark.parametrize("region", ["2d", "colour", "pw", "cw", "m-mode", "other", 0, 3, None])
def test_a_region_is_a_kind_or_a_number(region):
    assert Frame(height=8, width=8, region=region).region == region


@pytest.mark.parametrize(
    ("region", "message"),
    [("color", "did you mean 'colour'"), (-1, "at least 0"), (True, "whole number"), (1.5, "whole number")],
)
def test_other_regions_are_refused(region, message):
    with pytest.raises(SettingError, match=message):
        Frame(height=8, width=8, region=region)
