import numpy as np
import pytest

from cinefeed.transforms.kernels import blend, fold


def test_no_fastmath_and_no_lock():
    assert fold.targetoptions["nogil"] and not fold.targetoptions.get("fastmath")


def fold_one(frame, *, down, across, top=0, left=0, rows=None, columns=None, dtype=np.float32):
    height, width, channels = frame.shape
    rows = -(-height // down) - top if rows is None else rows
    columns = -(-width // across) - left if columns is None else columns
    out = np.empty((1, rows, columns, channels), dtype)
    address, pitch = np.array([frame.ctypes.data]), np.array([width * channels])
    fold(address, pitch, np.empty(1, frame.dtype), height, width, down, across, top, left, out)
    return out[0]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("down", "across"), [(1, 1), (1, 3), (2, 2), (3, 1), (4, 4), (5, 6), (2, 7), (16, 16)])
def test_fold_sums_blocks(down, across, channels):
    frame = np.random.default_rng(0).integers(0, 256, (6 * down, 5 * across, channels)).astype(np.uint8)
    blocks = frame.reshape(6, down, 5, across, channels).astype(np.int64).sum(axis=(1, 3))
    for dtype in (np.uint16, np.float32):
        assert np.array_equal(fold_one(frame, down=down, across=across, dtype=dtype), blocks)
    part = fold_one(frame, down=down, across=across, top=2, left=1, rows=3, columns=2)
    assert np.array_equal(part, blocks[2:5, 1:3])


@pytest.mark.parametrize("channels", [1, 3])
def test_fold_weighs_a_cut_block_as_a_whole_one(channels):
    frame = np.full((7, 11, channels), 9, np.uint8)
    assert (fold_one(frame, down=4, across=3) == 9 * 12).all()


def test_blend_takes_the_four_neighbours():
    lanes = np.array([0, 100, 200, 40], np.uint8).reshape(4, 1)  # two rows of two
    inverse = np.array([[1.0, 0, 0], [0, 1, 0]])
    out = np.empty((1, 1), np.uint8)
    for point, expected in (((0.5, 0.5), 0), ((1.0, 1.0), 85), ((0.75, 1.5), 160), ((0.0, 0.0), 0), ((2.0, 2.0), 40)):
        inverse[:, 2] = np.array(point) - 0.5
        blend(lanes, 2, inverse, np.empty((2, 0)), 0, 0, 2.0, 2.0, 1.0, 7.0, 1, out)
        assert out[0, 0] == expected
    inverse[:, 2] = [1.6, 0.0]
    blend(lanes, 2, inverse, np.empty((2, 0)), 0, 0, 2.0, 2.0, 1.0, 7.0, 1, out)
    assert out[0, 0] == 7
