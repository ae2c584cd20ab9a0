"""Memory that is used again holds one thing at a time, in one thread."""

import threading

import numpy as np

from cinefeed.core.scratch import _MOST_BYTES, scratch
from cinefeed.transforms import Blur, Brightness, Normalize, Rotate
from cinefeed.transforms.compose import Compose
from cinefeed.video.clips import Frame
from cinefeed.video.color import Colour
from cinefeed.video.planes import Planes


def test_a_use_takes_its_block_back_and_no_other_does():
    first = scratch("a", (3, 4), np.uint16)
    assert first.shape == (3, 4) and first.dtype == np.uint16 and first.flags.c_contiguous
    assert np.shares_memory(first, scratch("a", (24,), np.uint8))
    assert not np.shares_memory(first, scratch("b", (3, 4), np.uint16))
    assert not np.shares_memory(first, scratch("a", (300, 4), np.uint16))
    assert scratch("a", (0, 4), np.float32).size == 0


def test_each_thread_has_its_own():
    addresses = []
    worker = threading.Thread(target=lambda: addresses.append(scratch("mine", (8,), np.uint8)))
    worker.start()
    worker.join()
    assert not np.shares_memory(addresses[0], scratch("mine", (8,), np.uint8))


def test_what_is_large_is_not_kept():
    size = _MOST_BYTES + 1
    assert not np.shares_memory(scratch("c", (size,), np.uint8), scratch("c", (size,), np.uint8))


def test_clips_of_any_size_one_after_the_other_are_as_if_each_were_alone():
    rng = np.random.default_rng(0)
    compose = Compose(
        [Rotate(degrees=20), Brightness(factor=0.2), Blur(sigma=(1, 1)), Rotate(degrees=5), Normalize()],
        frame=Frame(height=24, width=30),
    )
    clips = [rng.integers(0, 256, (frames, height, 40, 3), np.uint8) for frames, height in ((5, 90), (2, 30), (7, 31))]
    parameters = compose.sample(np.random.default_rng(1), frames=7)

    def made(clip):
        out = np.empty((len(clip), 24, 30, 3), np.float32)
        compose.render(Planes([(frame,) for frame in clip], Colour(model="rgb")), out, parameters)
        return out

    def alone(clip):
        rendered_clips = []
        thread = threading.Thread(target=lambda: rendered_clips.append(made(clip)))
        thread.start()
        thread.join()
        return rendered_clips[0]

    one_by_one = [alone(clip) for clip in clips]
    together = [made(clip) for clip in clips]
    assert all((a == b).all() for a, b in zip(together, one_by_one, strict=True))
    assert not np.shares_memory(together[0], together[2])
