import numpy as np
import pytest

from cinefeed.core.errors import SettingError
from cinefeed.encoders import Preprocessing
from cinefeed.encoders.windows import Windows
from cinefeed.video.timestamps import FrameTimes

TIMES = FrameTimes(0.0, 0.04, 33)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 15, 16, 17, 40])
@pytest.mark.parametrize("windows", [Windows(frames=8), Windows(frames=4, stride=2), Windows(frames=8, hop=3)])
def test_windows_cover_every_frame_within_their_span_and_stay_inside(windows, count):
    indices, centres = windows.of(FrameTimes(0.0, 0.04, count))
    assert indices.shape == (len(centres), windows.frames)
    assert indices.min() == 0 and indices.max() < count
    assert (np.diff(indices[:, 0]) > 0).all() and (np.diff(indices, axis=1) >= 0).all()
    spans = [range(first, last + windows.stride) for first, *_, last in indices.tolist()]
    assert {*range(count)} <= {frame for span in spans for frame in span}
    assert all(
        first <= centre <= last for centre, first, last in zip(centres, indices[:, 0], indices[:, -1], strict=True)
    )


def test_a_short_video_has_one_window_whose_last_frame_is_repeated():
    indices, centres = Windows(frames=4).of(FrameTimes(0.0, 0.04, 2))
    assert indices.tolist() == [[0, 1, 1, 1]] and centres.tolist() == [0]


def test_a_rate_selects_frames_by_time():
    listed = np.array([0.0, 0.04, 0.08, 0.5, 0.54, 1.0, 1.04, 1.5])
    indices, _ = Windows(frames=2, rate_hz=2.0).of(FrameTimes(0.0, float("nan"), 8, listed))
    assert indices.tolist() == [[0, 3], [4, 6], [5, 7]]
    short = FrameTimes(0.0, 0.1, 3)
    assert Windows(frames=4, rate_hz=5.0).of(short)[0].tolist() == [[0, 2, 2, 2]]


def test_the_times_of_windows_are_those_of_their_central_frames():
    windows = Windows(frames=16, hop=8)
    times = windows.times_of(TIMES)
    assert np.allclose(times.seconds(), TIMES.seconds()[windows.of(TIMES)[1]])
    untimed = windows.times_of(FrameTimes(0.0, float("nan"), 33))
    assert untimed.count == times.count and untimed.listed is None


@pytest.mark.parametrize(
    "setting", [{"frames": 0}, {"frames": 4, "hop": 0}, {"frames": 4, "stride": 2, "rate_hz": 5.0}]
)
def test_impossible_windows_raise(setting):
    with pytest.raises(SettingError):
        Windows(**setting)


@pytest.mark.parametrize(
    "setting",
    [{"std": (0.0, 1.0, 1.0)}, {"mean": (0.5,)}, {"order": "gbr"}, {"height": 0}, {"frames": 0}, {"rescale": np.nan}],
)
def test_impossible_preprocessing_raises(setting):
    with pytest.raises(SettingError, match="Preprocessing"):
        Preprocessing(**{"height": 8, "width": 8} | setting)
