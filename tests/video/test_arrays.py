"""Videos in `.npy` and `.npz` files."""

import io
import pickle
import tracemalloc

import numpy as np
import pytest

from cinefeed import open_video, probe
from cinefeed.core.errors import DecodeError, SourceError
from cinefeed.testing import check_source, numbered_frames, read_number, stored_metadata
from cinefeed.video.arrays import frame_offsets as stored
from cinefeed.video.arrays.npy import ArraySource, NpzSource, npy_parts, npz_parts, probe_npy, probe_npz
from cinefeed.video.read_options import ReadOptions


def save(folder, array, name="cine.npy"):
    np.save(folder / name, array)
    return folder / name


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("tail", [(), (1,), (3,)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_values_stay_as_they_are(tmp_path, dtype, tail, order):
    values = (np.arange(10 * 6 * 4 * int(np.prod(tail))) % 251).astype(dtype).reshape(10, 6, 4, *tail)
    path = save(tmp_path, np.asarray(values, order=order))
    with open_video(path) as source:
        assert (source.metadata.channels, source.metadata.height, source.metadata.width) == (
            tail[0] if tail else 1,
            6,
            4,
        )
        frames = source.read([9, 0, 9])
        assert frames.dtype == dtype
        np.testing.assert_array_equal(frames, values.reshape(10, 6, 4, -1)[[9, 0, 9]])
        check_source(source, reopen=lambda: open_video(path, metadata=source.metadata))


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint32", "float16", "float64", ">f4", ">i2"])
def test_other_numbers_become_float32(tmp_path, dtype):
    values = (np.arange(48) - (0 if dtype[0] == "u" else 20)).astype(dtype).reshape(3, 4, 4)
    with open_video(save(tmp_path, values)) as source:
        frames = source.read(range(3))
        assert frames.dtype == np.float32
        np.testing.assert_array_equal(frames[..., 0], values)


def test_bool_and_big_endian(tmp_path):
    with open_video(save(tmp_path, np.eye(4, dtype=bool)[None], "mask.npy")) as source:
        assert source.read([0])[0, :, :, 0].tolist() == (np.eye(4) * 255).tolist()
    with open_video(save(tmp_path, np.full((1, 2, 2), 513, ">u2"))) as source:
        frames = source.read([0])
        assert (frames.dtype, int(frames.max())) == (np.uint16, 513)


def test_channels_can_be_requested(tmp_path):
    path = save(tmp_path, numbered_frames(5))
    with open_video(path, channels=1) as source:
        assert source.read([4]).shape == (1, 64, 64, 1)
        assert read_number(source.read([4])[0]) == 4
    grey = save(tmp_path, numbered_frames(5)[..., 0], "grey.npy")
    with open_video(grey, channels=3) as source:
        assert source.read([4]).shape == (1, 64, 64, 3)
        assert read_number(source.read([3])[0]) == 3


def test_only_requested_frames_are_accessed(tmp_path):
    path = save(tmp_path, np.zeros((4, 8, 8), np.uint8))
    with open_video(path) as source:
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
    with pytest.raises(SourceError, match=r"has shape|frames are whole"):
        probe(save(tmp_path, np.zeros(shape, np.uint8)))


@pytest.mark.parametrize("values", [np.array(["a"] * 8).reshape(2, 2, 2), np.zeros((2, 2, 2), complex)])
def test_other_types_are_refused(tmp_path, values):
    with pytest.raises(SourceError, match="integers or floats are needed"):
        probe(save(tmp_path, values))


def test_a_file_that_is_cut_off_keeps_its_whole_frames(tmp_path):
    path = save(tmp_path, np.arange(10 * 16, dtype=np.uint8).reshape(10, 4, 4))
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    metadata = probe(path)
    assert (metadata.times.count, metadata.header_frames) == (7, 10)
    assert metadata.error == "breaks after 7 of 10 frames: the file is cut off"
    with open_video(path, metadata=metadata) as source:
        assert source.read([6])[0, 0, 0, 0] == 96
    path.write_bytes(whole[:100])
    with pytest.raises(SourceError, match=r"cine\.npy"):
        probe(path)


def test_a_file_that_has_shrunk_since_the_scan_raises(tmp_path):
    path = save(tmp_path, np.zeros((10, 4, 4), np.uint8))
    metadata = probe(path)
    save(tmp_path, np.zeros((6, 4, 4), np.uint8))
    with pytest.raises(SourceError, match="its metadata has 10 frames, the file has 6; scan it again"):
        open_video(path, metadata=metadata)


def test_a_header_of_rubbish_is_refused(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((2, 2, 2)))
    path = tmp_path / "rubbish.npy"
    path.write_bytes(buffer.getvalue().replace(b"{", b"?", 1))
    with pytest.raises(SourceError, match=r"rubbish\.npy"):
        probe(path)


def conforms(kind, path, metadata, part=None):
    check_source(
        kind(path, part=part, metadata=metadata),
        reopen=lambda: kind(path, part=part, metadata=stored_metadata(metadata)),
    )


def cine(*shape):
    return (np.arange(int(np.prod(shape))) % 251).astype(np.uint8).reshape(shape)


@pytest.mark.parametrize(
    ("axes", "shape"),
    [("HWT", (6, 4, 9)), ("TWH", (9, 4, 6)), ("CTHW", (3, 9, 6, 4)), ("HWCT", (6, 4, 1, 9)), ("THWC", (9, 6, 4, 3))],
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_another_order_is_declared(tmp_path, axes, shape, order):
    values = cine(*shape)
    path = save(tmp_path, np.asarray(values, order=order))
    metadata = probe_npy(path, reading=ReadOptions(axes=axes))
    assert (metadata.times.count, metadata.height, metadata.width) == (9, 6, 4)
    assert metadata.axes == ("" if axes == "THWC" else axes)
    expected = np.einsum(f"{axes.lower()}->{''.join(axis for axis in 'thwc' if axis in axes.lower())}", values)
    with ArraySource(path, metadata=metadata) as source:
        np.testing.assert_array_equal(source.read(range(9)), expected.reshape(9, 6, 4, -1))
    conforms(ArraySource, path, metadata)


@pytest.mark.parametrize("tail", [(), (3,)])
def test_each_row_of_a_set_is_a_sample(tmp_path, tail):
    values = cine(4, 9, 6, 5, *tail)
    path = save(tmp_path, values)
    assert npy_parts(path) == ["[0]", "[1]", "[2]", "[3]"]
    metadata = probe_npy(path, part="[2]")
    assert metadata.axes == ("nTHWC" if tail else "nTHW")
    with ArraySource(path, part="[2]", metadata=metadata) as source:
        np.testing.assert_array_equal(source.read(range(9)), values[2].reshape(9, 6, 5, -1))
    conforms(ArraySource, path, metadata, part="[3]")
    assert npy_parts(save(tmp_path, values[0], "one.npy")) == []


def test_rows_may_lie_along_another_axis(tmp_path):
    values = cine(9, 4, 6, 5)
    path, reading = save(tmp_path, values), ReadOptions(axes="TNHW")
    assert npy_parts(path, reading) == ["[0]", "[1]", "[2]", "[3]"]
    metadata = probe_npy(path, part="[1]", reading=reading)
    with ArraySource(path, part="[1]", metadata=metadata) as source:
        np.testing.assert_array_equal(source.read(range(9))[..., 0], values[:, 1])


def test_a_set_of_one_needs_no_part(tmp_path):
    path = save(tmp_path, cine(1, 9, 6, 5))
    with ArraySource(path, metadata=probe_npy(path)) as source:
        assert len(source) == 9


@pytest.mark.parametrize(
    ("part", "axes", "message"),
    [
        (None, None, r"\(4, 9, 6, 5\), read as NTHW: 4 samples; choose one by a part that ends in \[0\] to \[3\]"),
        ("[4]", None, r"row 4 was asked for, it has rows 0 to 3"),
        ("/x", None, r"part '/x' was asked for, but the array of a \.npy file has no name"),
        ("[0]", "HWT", r"has 4 axes, but axes='HWT' has 3"),
        (
            "[0]",
            "THWC",
            r"read as THWC: 5 channels; 1 \(grey\) or 3 \(RGB\) can be read; declare another order with axes=",
        ),
        ("[0]", "ZTHW", r"has an axis Z, which only NIfTI files have"),
        ("[0]", "THCW", r"6 channels"),
    ],
)
def test_errors_of_wrong_parts_and_axes(tmp_path, part, axes, message):
    path = save(tmp_path, cine(4, 9, 6, 5))
    with pytest.raises(SourceError, match=message):
        probe_npy(path, part=part, reading=ReadOptions(axes=axes))


def test_a_row_of_a_single_video_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"read as one sample, THW; leave out \[1\]"):
        probe_npy(save(tmp_path, cine(9, 6, 5)), part="[1]")


@pytest.mark.parametrize("other", [cine(9, 6, 5), cine(4, 9, 6, 6), cine(4, 9, 6, 5).astype(np.uint16)])
def test_a_file_that_has_changed_since_the_scan_raises(tmp_path, other):
    metadata = probe_npy(save(tmp_path, cine(4, 9, 6, 5)), part="[0]")
    with pytest.raises(SourceError, match="its metadata gives uint8, NTHW, of 6 x 5; scan it again"):
        ArraySource(save(tmp_path, other), part="[0]", metadata=metadata)


def test_a_set_that_is_cut_off_keeps_the_rows_before(tmp_path):
    path = save(tmp_path, cine(4, 10, 2, 8))
    path.write_bytes(path.read_bytes()[: -(160 + 40)])
    assert probe_npy(path, part="[1]").error is None
    assert probe_npy(path, part="[2]").error == "breaks after 7 of 10 frames: the file is cut off"
    with pytest.raises(SourceError, match="0 of 10 frames are whole: the file is cut off"):
        probe_npy(path, part="[3]")


@pytest.mark.parametrize(("cut", "whole"), [(3, 7), (40, 0)])
def test_fortran_order_that_is_cut_off_keeps_little(tmp_path, cut, whole):
    path = save(tmp_path, np.asfortranarray(cine(10, 4, 4)))
    path.write_bytes(path.read_bytes()[:-cut])
    if whole:
        assert probe_npy(path).times.count == whole
        conforms(ArraySource, path, probe_npy(path))
    else:
        with pytest.raises(SourceError, match="frames are whole"):
            probe_npy(path)


def peak_bytes(read) -> int:
    """Return the most memory that NumPy and Python held at once while reading."""
    tracemalloc.start()
    try:
        read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def sparse(path, shape, order="C"):
    """Write a .npy of zeros that takes no room, and no time."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": order == "F", "shape": shape})
        file.truncate(file.tell() + int(np.prod(shape, dtype=np.int64)))
    return path


@pytest.mark.parametrize(
    ("shape", "axes", "part"), [((64_000, 1000, 1000), None, None), ((40, 1600, 1000, 1000), None, "[39]")]
)
def test_only_requested_frames_of_a_large_file_are_read(tmp_path, shape, axes, part):
    path = sparse(tmp_path / "large.npy", shape)

    def read():
        metadata = probe_npy(path, part=part, reading=ReadOptions(window="percentiles"))
        with ArraySource(path, part=part, metadata=metadata) as source:
            assert source.planes([5, 1500, 0]).frames[1][0].shape == (1000, 1000)

    assert peak_bytes(read) < 40e6  # of 64 GB; the samples of 32 frames for the window are 4 MB as float64 32


def test_a_reader_of_all_would_be_found_out(tmp_path):
    path = sparse(tmp_path / "large.npy", (200, 1000, 1000))
    assert peak_bytes(lambda: np.load(path).sum()) > 190e6


def test_percentiles_become_the_window(tmp_path):
    values = np.zeros((40, 10, 10), np.uint8) + np.arange(100, dtype=np.uint8).reshape(10, 10)
    path = save(tmp_path, values)
    metadata = probe_npy(path, reading=ReadOptions(window="percentiles"))
    assert metadata.window == pytest.approx((1, 98), abs=0.1)
    with ArraySource(path, metadata=metadata) as source:
        assert source.planes([0]).colour.window == metadata.window
    assert probe_npy(path).window is None
    conforms(ArraySource, path, metadata)


def test_a_window_ignores_values_that_are_not_finite(tmp_path):
    values = np.full((4, 8, 8), np.nan, np.float32)
    path, reading = save(tmp_path, values), ReadOptions(window="percentiles")
    assert probe_npy(path, reading=reading).window is None
    values[1:] = 5
    assert probe_npy(save(tmp_path, values), reading=reading).window == (5, 5)


class TestNpz:
    """Archives of several arrays."""

    @pytest.fixture(params=[np.savez, np.savez_compressed], ids=["stored", "compressed"])
    def archive(self, request, tmp_path):
        path = tmp_path / "set.npz"
        request.param(
            path,
            x=cine(4, 9, 6, 5),
            colour=cine(9, 6, 5, 3),
            turned=np.asfortranarray(cine(9, 6, 5)).astype(np.int16),
            labels=np.arange(4),
            names=np.array(["a", "b"]),
        )
        return path

    def test_parts_are_the_videos(self, archive):
        assert npz_parts(archive) == ["/x[0]", "/x[1]", "/x[2]", "/x[3]", "/colour", "/turned"]
        assert npz_parts(archive, ReadOptions(axes="THWC")) == ["/colour"]

    @pytest.mark.parametrize("part", ["/x[0]", "/x[3]", "/colour", "/turned"])
    def test_frames(self, archive, part):
        metadata = probe_npz(archive, part=part)
        assert (metadata.container, metadata.times.count, metadata.error) == ("npz", 9, None)
        name, row = (part[1:-3], int(part[-2])) if part.endswith("]") else (part[1:], None)
        expected = np.load(archive)[name] if row is None else np.load(archive)[name][row]
        with NpzSource(archive, part=part, metadata=metadata) as source:
            for numbers in ([8, 0, 8], range(9), [3], [2]):
                np.testing.assert_array_equal(source.read(numbers), expected[numbers].reshape(len(numbers), 6, 5, -1))
        conforms(NpzSource, archive, metadata, part=part)

    def test_another_order(self, archive):
        metadata = probe_npz(archive, part="/turned", reading=ReadOptions(axes="HTW"))
        with NpzSource(archive, part="turned", metadata=metadata) as source:
            np.testing.assert_array_equal(source.read([5])[0, ..., 0], np.load(archive)["turned"][:, 5])

    def test_errors_name_what_is_missing(self, archive):
        with pytest.raises(SourceError, match="has no array '/colours'; did you mean '/colour'"):
            probe_npz(archive, part="/colours")
        with pytest.raises(SourceError, match=r"has 3 arrays that could be a video; select one by its part"):
            probe_npz(archive)
        with pytest.raises(SourceError, match=r"labels: has shape \(4,\)"):
            probe_npz(archive, part="/labels")
        with pytest.raises(SourceError, match="row 4 was asked for, it has rows 0 to 3"):
            probe_npz(archive, part="/x[4]")

    def test_one_video_needs_no_part(self, tmp_path):
        np.savez(tmp_path / "one.npz", x=cine(9, 6, 5), y=np.arange(9))
        assert probe_npz(tmp_path / "one.npz").times.count == 9

    def test_files_without_a_video(self, tmp_path):
        np.savez(tmp_path / "labels.npz", y=np.arange(9), objects=np.array([{}], object))
        with pytest.raises(SourceError, match=r"none of its 2 arrays is a video; .*labels\.npz::/y: has shape \(9,\)"):
            npz_parts(tmp_path / "labels.npz")
        np.savez(tmp_path / "empty.npz")
        with pytest.raises(SourceError, match="none of its 0 arrays"):
            npz_parts(tmp_path / "empty.npz")

    @pytest.mark.parametrize("share", [0.02, 0.5, 0.999])
    def test_an_archive_that_is_cut_off_is_refused(self, archive, share):
        whole = archive.read_bytes()
        archive.write_bytes(whole[: int(len(whole) * share)])
        for ask in (npz_parts, probe_npz):
            with pytest.raises(SourceError, match=r"set\.npz: is not a \.npz file, or it is cut off"):
                ask(archive)

    def test_objects_are_never_unpickled(self, tmp_path):
        np.savez(tmp_path / "trap.npz", x=np.array([[[{}]]], object))
        with pytest.raises(SourceError, match="objects are never unpickled"):
            probe_npz(tmp_path / "trap.npz", part="/x")

    def test_uncompressed_arrays_are_memory_mapped(self, tmp_path):
        np.savez(tmp_path / "one.npz", x=cine(9, 6, 5))
        metadata = probe_npz(tmp_path / "one.npz")
        with NpzSource(tmp_path / "one.npz", metadata=metadata) as source:
            plane = source.planes([4]).frames[0][0]
            assert not plane.flags.owndata
            assert not plane.flags.writeable

    def test_only_the_frames_of_compressed_arrays_are_kept(self, tmp_path):
        path = tmp_path / "large.npz"
        np.savez_compressed(path, x=np.zeros((200, 500, 500), np.uint8))
        metadata = probe_npz(path)

        def read():
            with NpzSource(path, metadata=metadata) as source:
                source.planes([199, 3, 100])

        assert peak_bytes(read) < 10e6  # of 50 MB

    def test_a_compressed_array_with_damage_keeps_the_frames_before(self, tmp_path):
        path = tmp_path / "noise.npz"
        noise = np.random.default_rng(0).integers(0, 60, (100, 64, 64), np.uint8)
        np.savez_compressed(path, x=noise)
        whole = path.read_bytes()
        middle = len(whole) // 2  # of frame 49 or 50
        path.write_bytes(whole[:middle] + b"\xff" * 20_000 + whole[middle + 20_000 :])
        metadata = probe_npz(path)
        assert 48 < metadata.times.count < 70
        assert metadata.error.startswith(
            f"breaks after {metadata.times.count} of 100 frames: it cannot be decompressed"
        )
        assert str(tmp_path) not in metadata.error
        with NpzSource(path, metadata=metadata) as source:
            assert source.read(range(len(source))).shape == (len(source), 64, 64, 1)
            np.testing.assert_array_equal(source.read(range(48))[..., 0], noise[:48])  # damage shows a little late
        trusted = probe_npz(path, verify="packets")
        assert (trusted.times.count, trusted.error) == (100, None)
        with NpzSource(path, metadata=trusted) as source:
            with pytest.raises(DecodeError, match=r"noise\.npz: frame 99 cannot be decompressed"):
                source.read([99])
            np.testing.assert_array_equal(source.read([0])[0, ..., 0], noise[0])  # it goes on after a fault

    def test_a_wrong_checksum_may_mean_any_frame(self, tmp_path):
        path = tmp_path / "cine.npz"
        np.savez_compressed(path, x=np.random.default_rng(0).integers(0, 60, (4, 25, 64, 64), np.uint8))
        whole = bytearray(path.read_bytes())
        whole[whole.rfind(b"PK\x01\x02") + 16] ^= 1
        path.write_bytes(whole)
        checksum_error = "its checksum does not match"
        assert probe_npz(path, part="/x[0]").error.startswith(
            f"all 25 frames can be read, but any may be wrong: {checksum_error}"
        )
        metadata = probe_npz(path, part="/x[3]")
        assert metadata.error.startswith(f"breaks after {metadata.times.count} of 25 frames: {checksum_error}")
        assert "CRC" in metadata.error
        conforms(NpzSource, path, metadata, part="/x[3]")

    def test_one_pass_tells_for_all_rows(self, tmp_path, monkeypatch):
        path = tmp_path / "set.npz"
        np.savez_compressed(path, x=cine(40, 9, 6, 5))
        opened = []
        honest = stored.open_packed
        monkeypatch.setattr(stored, "open_packed", lambda *which: opened.append(which) or honest(*which))
        for part in npz_parts(path):
            probe_npz(path, part=part)
        assert len(opened) == 1


@pytest.mark.parametrize("name", ["missing.npy", "missing.npz"])
def test_a_missing_file_raises(tmp_path, name):
    for ask in (probe_npy, npy_parts) if name.endswith("npy") else (probe_npz, npz_parts):
        with pytest.raises(SourceError, match=f"{name}: cannot be read"):
            ask(tmp_path / name)
