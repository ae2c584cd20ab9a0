import base64
import io

import numpy as np
import pytest
from made_runs import blobs

from cinefeed.core.moving import animated_webp
from cinefeed.reports.animation import with_saliency


def frames_of(uri):
    from PIL import Image, ImageSequence

    kind, data = uri.split(",", 1)
    assert kind == "data:image/webp;base64"
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    assert picture.n_frames == 1 or picture.info["loop"] == 0
    return np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(picture)])


@pytest.mark.parametrize("channels", [1, 3, 2])
def test_a_clip_moves_as_it_did(channels):
    clip = blobs(1, channels=channels)[0]
    frames = frames_of(animated_webp(clip))
    assert frames.shape == (16, 64, 64, 3)
    assert np.abs(frames.astype(int) - clip[..., :1].astype(int)).mean() < 12  # lossy, but each frame its own
    assert np.abs(frames[0].astype(int) - frames[8].astype(int)).mean() > 12


def test_one_frame_is_a_picture():
    assert frames_of(animated_webp(blobs(1)[0, :1])).shape == (1, 64, 64, 3)


def test_the_map_lies_where_it_peaks_and_the_mark_runs():
    clip = np.full((4, 60, 60, 1), 120, np.uint8)
    space, time = np.zeros((6, 6), np.float32), np.zeros(4, np.float32)
    space[4, 1], time[2] = -3.0, 0.5  # what counts is the size
    canvas = with_saliency(clip, space=space, time=time)
    assert (canvas[:, :60, :60] == 120).all()
    overlay = canvas[0, :60, 63:].astype(int)
    red = overlay[..., 0] - overlay[..., 2]
    assert np.unravel_index(red.argmax(), red.shape)[0] in range(40, 50)
    assert np.unravel_index(red.argmax(), red.shape)[1] in range(10, 20)
    strip = canvas[0, 66].astype(int)
    hot = np.flatnonzero(strip[:, 0] - strip[:, 2] > 150)
    assert len(hot) > 20 and hot.min() * 4 // canvas.shape[2] == hot.max() * 4 // canvas.shape[2] == 2
    marks = [np.flatnonzero(frame[61].max(axis=-1) < 60).mean() for frame in canvas]
    assert marks == sorted(marks) and marks[0] < 3 and marks[-1] > 118
    assert (canvas[:, 63:71] == canvas[0, 63:71]).all()  # the mark hides nothing of the strip


def test_a_map_without_any_change_colours_nothing():
    canvas = with_saliency(blobs(1)[0], space=np.zeros((6, 6), np.float32), time=np.zeros(8, np.float32))
    overlay = canvas[:, :64, 67:].astype(int)
    assert (overlay[..., 0] == overlay[..., 2]).all()
