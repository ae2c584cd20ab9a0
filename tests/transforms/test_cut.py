"""YUV that is only cropped becomes RGB in one pass: the same bytes as the interpolation and the conversion give."""

import numpy as np
import pytest

import cinefeed.transforms.compose as module
from cinefeed.transforms.compose import Compose
from cinefeed.video.clips import Frame
from cinefeed.video.color import Colour
from cinefeed.video.planes import Planes


def planes(height, width, *, halved, bits=8, full_range=False, flipped=False):
    rng = np.random.default_rng(height * width)
    down, across = halved

    def plane(rows, columns):
        values = rng.integers(0, 2**bits, (rows, columns + 7)).astype(np.uint8 if bits == 8 else np.uint16)
        return (values[::-1] if flipped else values)[:, :columns]

    sizes = [(height, width), *[(-(-height // down), -(-width // across))] * 2]
    frames = [tuple(plane(*size) for size in sizes) for _ in range(3)]
    return Planes(frames, Colour(model="yuv", bits=bits, full_range=full_range))


def rendered(source_planes, *, size, dtype, monkeypatch, cut):
    calls = []
    compose = Compose([], frame=Frame(height=size[0], width=size[1], channels=3, fit="crop", dtype=dtype))
    out = np.empty((len(source_planes.frames), *size, 3), dtype)
    with monkeypatch.context() as patched:
        original = module.cut_to_rgb
        patched.setattr(module, "cut_to_rgb", lambda *args, **named: (calls.append(1), original(*args, **named)))
        if not cut:
            patched.setattr(module, "_is_croppable", lambda planes: False)
        compose.render(source_planes, out, [])
    assert bool(calls) == cut
    return out


@pytest.mark.parametrize("halved", [(1, 1), (2, 2), (1, 2), (2, 1)])
@pytest.mark.parametrize("bits", [8, 10, 16])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_cut_equals_the_long_way(halved, bits, dtype, monkeypatch):
    for size, target in (((40, 40), (40, 40)), ((41, 33), (17, 33)), ((20, 31), (20, 9)), ((1, 2), (1, 2))):
        for full_range, flipped in ((False, False), (True, True)):
            source_planes = planes(*size, halved=halved, bits=bits, full_range=full_range, flipped=flipped)
            short, long = (
                rendered(source_planes, size=target, dtype=dtype, monkeypatch=monkeypatch, cut=cut)
                for cut in (True, False)
            )
            np.testing.assert_array_equal(short, long)


def test_what_cannot_be_cut_goes_the_long_way(monkeypatch):
    quartered = planes(40, 40, halved=(4, 4))
    scattered = planes(40, 40, halved=(2, 2))
    scattered.frames[0] = (np.asfortranarray(scattered.frames[0][0]), *scattered.frames[0][1:])
    for source_planes in (quartered, scattered):
        rendered(source_planes, size=(40, 40), dtype="uint8", monkeypatch=monkeypatch, cut=False)
        assert not module._is_croppable(source_planes)
    assert not module._is_croppable(Planes([(np.zeros((4, 4), np.uint8),)], Colour(model="grey")))
