"""Videos that are arrays in memory."""

import numpy as np
import pytest

from cinefeed.core.errors import SourceError
from cinefeed.testing import check_source, stored_metadata
from cinefeed.video.arrays.in_memory import MemorySource, array_metadata


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((9, 6, 5), None), ((9, 6, 5, 1), None), ((9, 6, 5, 3), None), ((6, 5, 9), "HWT"), ((3, 9, 6, 5), "CTHW")],
)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "int16", "bool"])
def test_frames(shape, axes, dtype):
    array = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 200, shape).astype(dtype)
    metadata = array_metadata(array, axes=axes)
    assert (metadata.times.count, metadata.height, metadata.width, metadata.container) == (9, 6, 5, "memory")
    letters = axes or "THWC"[: array.ndim]
    usual = np.moveaxis(array, [letters.index(axis) for axis in "THWC" if axis in letters], range(array.ndim))
    with MemorySource(array, metadata=metadata) as source:
        frames = source.read([8, 0, 3])
    np.testing.assert_array_equal(frames, usual[[8, 0, 3]].reshape(3, 6, 5, -1) * (255 if dtype == "bool" else 1))
    check_source(
        MemorySource(array, metadata=metadata),
        reopen=lambda: MemorySource(array, metadata=stored_metadata(metadata), channels=None),
    )


def test_nothing_is_copied():
    array = np.zeros((4, 8, 8), np.uint8)
    with MemorySource(array) as source:
        plane = source.planes([2]).frames[0][0]
    assert np.shares_memory(plane, array)
    array[2] = 7
    assert plane.max() == 7


def test_one_row_of_a_set_is_a_view():
    array = np.zeros((3, 4, 8, 8), np.uint8)
    with MemorySource(array[1]) as source:
        assert np.shares_memory(source.planes([2]).frames[0][0], array)


def test_channels_can_be_requested():
    with MemorySource(np.full((4, 8, 8), 9, np.uint8), channels=3) as source:
        assert source.read([0]).shape == (1, 8, 8, 3)


@pytest.mark.parametrize(
    ("array", "axes", "message"),
    [
        (np.zeros((4, 9, 6, 5)), None, "read as NTHW, a set of samples"),
        (np.zeros((0, 9, 6)), None, "it has no frames"),
        (np.zeros((9, 6)), None, r"has shape \(9, 6\); a video is"),
        (np.zeros((9, 6, 5), complex), None, "integers or floats are needed"),
        (np.zeros((9, 6, 5)), "HWTC", "has 4"),
    ],
)
def test_what_is_no_video_is_refused(array, axes, message):
    with pytest.raises(SourceError, match=message):
        array_metadata(array, axes=axes)


def test_errors_carry_the_name():
    with (
        MemorySource(np.zeros((4, 8, 8)), name="clips[3]") as source,
        pytest.raises(SourceError, match=r"clips\[3\]: frame 4 was asked for"),
    ):
        source.read([4])
