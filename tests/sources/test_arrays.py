"""Videos in `.npy` files."""

import io
import pickle

import numpy as np
import pytest

from cinefeed import open_source, probe
from cinefeed.errors import SourceError
from cinefeed.testing import check_source, numbered_frames, read_number


def save(folder, array, name="cine.npy"):
    np.save(folder / name, array)
    return folder / name


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("tail", [(), (1,), (3,)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_values_stay_as_they_are(tmp_path, dtype, tail, order):
    values = (np.arange(10 * 6 * 4 * int(np.prod(tail))) % 251).astype(dtype).reshape(10, 6, 4, *tail)
    path = save(tmp_path, np.asarray(values, order=order))
    with open_source(path) as source:
        assert (source.facts.channels, source.facts.height, source.facts.width) == (tail[0] if tail else 1, 6, 4)
        frames = source.read([9, 0, 9])
        assert frames.dtype == dtype
        np.testing.assert_array_equal(frames, values.reshape(10, 6, 4, -1)[[9, 0, 9]])
        check_source(source, reopen=lambda: open_source(path, facts=source.facts))


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint32", "float16", "float64", ">f4", ">i2"])
def test_other_numbers_become_float32(tmp_path, dtype):
    values = (np.arange(48) - (0 if dtype[0] == "u" else 20)).astype(dtype).reshape(3, 4, 4)
    with open_source(save(tmp_path, values)) as source:
        frames = source.read(range(3))
        assert frames.dtype == np.float32
        np.testing.assert_array_equal(frames[..., 0], values)


def test_bool_and_big_endian(tmp_path):
    with open_source(save(tmp_path, np.eye(4, dtype=bool)[None], "mask.npy")) as source:
        assert source.read([0])[0, :, :, 0].tolist() == (np.eye(4) * 255).tolist()
    with open_source(save(tmp_path, np.full((1, 2, 2), 513, ">u2"))) as source:
        frames = source.read([0])
        assert (frames.dtype, int(frames.max())) == (np.uint16, 513)


def test_channels_can_be_asked_for(tmp_path):
    path = save(tmp_path, numbered_frames(5))
    with open_source(path, channels=1) as source:
        assert source.read([4]).shape == (1, 64, 64, 1)
        assert read_number(source.read([4])[0]) == 4
    grey = save(tmp_path, numbered_frames(5)[..., 0], "grey.npy")
    with open_source(grey, channels=3) as source:
        assert source.read([4]).shape == (1, 64, 64, 3)
        assert read_number(source.read([3])[0]) == 3


def test_only_the_frames_asked_for_are_touched(tmp_path):
    path = save(tmp_path, np.zeros((4, 8, 8), np.uint8))
    with open_source(path) as source:
        first = source.planes([0]).frames[0][0]
        base = first
        while isinstance(base.base, np.ndarray):
            base = base.base
        assert isinstance(base, np.memmap)
    assert first.sum() == 0  # the planes outlive the source


def test_no_pickle_is_read(tmp_path):
    class Trap:
        def __reduce__(self):
            return (print, ("a pickle was opened",))

    path = tmp_path / "trap.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": (2, 2, 2)})
        file.write(pickle.dumps(Trap()))
    with pytest.raises(SourceError, match="objects are never unpickled"):
        probe(path)


@pytest.mark.parametrize("shape", [(5,), (5, 4), (5, 4, 4, 2), (2, 5, 4, 4, 3), (5, 0, 4), (0, 4, 4)])
def test_other_shapes_are_refused(tmp_path, shape):
    with pytest.raises(SourceError, match=r"has shape|no whole frame"):
        probe(save(tmp_path, np.zeros(shape, np.uint8)))


@pytest.mark.parametrize("values", [np.array(["a"] * 8).reshape(2, 2, 2), np.zeros((2, 2, 2), complex)])
def test_other_types_are_refused(tmp_path, values):
    with pytest.raises(SourceError, match="integers or floats are needed"):
        probe(save(tmp_path, values))


def test_a_file_that_is_cut_off_keeps_its_whole_frames(tmp_path):
    path = save(tmp_path, np.arange(10 * 16, dtype=np.uint8).reshape(10, 4, 4))
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    facts = probe(path)
    assert (facts.times.count, facts.header_frames) == (7, 10)
    assert facts.error == "breaks after 7 of 10 frames: the file is cut off"
    with open_source(path, facts=facts) as source:
        assert source.read([6])[0, 0, 0, 0] == 96
    path.write_bytes(whole[:100])
    with pytest.raises(SourceError, match=r"cine\.npy"):
        probe(path)


def test_a_file_that_has_shrunk_since_the_scan_says_so(tmp_path):
    path = save(tmp_path, np.zeros((10, 4, 4), np.uint8))
    facts = probe(path)
    save(tmp_path, np.zeros((6, 4, 4), np.uint8))
    with pytest.raises(SourceError, match="10 frames are known of it, it holds 6; scan it again"):
        open_source(path, facts=facts)


def test_a_header_of_rubbish_is_refused(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((2, 2, 2)))
    path = tmp_path / "rubbish.npy"
    path.write_bytes(buffer.getvalue().replace(b"{", b"?", 1))
    with pytest.raises(SourceError, match=r"rubbish\.npy"):
        probe(path)
