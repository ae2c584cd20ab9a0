"""Videos in HDF5 files."""

import builtins
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from cinefeed.core.errors import DecodeError, MissingExtraError, SourceError
from cinefeed.testing import check_source, stored_metadata
from cinefeed.video.arrays.hdf5 import Hdf5Source, hdf5_parts, probe_hdf5
from cinefeed.video.read_options import ReadOptions

h5py = pytest.importorskip("h5py")


def cine(*shape):
    return (np.arange(int(np.prod(shape))) % 251).astype(np.uint8).reshape(shape)


def conforms(path, metadata, part=None):
    check_source(
        Hdf5Source(path, part=part, metadata=metadata),
        reopen=lambda: Hdf5Source(path, part=part, metadata=stored_metadata(metadata)),
    )


@pytest.fixture
def path(tmp_path):
    """A file of several data sets, of which five are videos."""
    path = tmp_path / "set.h5"
    with h5py.File(path, "w") as file:
        file["rest/cine"] = cine(9, 6, 5)
        file["rest/colour"] = cine(9, 6, 5, 3)
        file.create_dataset("x", data=cine(4, 9, 6, 5), chunks=(1, 4, 6, 5), compression="gzip")
        file["wide"] = cine(9, 6, 5).astype(">i2") - 20
        file["mask"] = cine(9, 6, 5) > 100
        file["labels"] = np.arange(4)
        file["names"] = np.array([b"a"] * 8).reshape(2, 2, 2)
        file["note"] = "free text"
        file["nothing"] = h5py.Empty("f")
        file["elsewhere"] = h5py.ExternalLink("other.h5", "/x")
        file["alias"] = h5py.SoftLink("/rest/cine")
    return path


def test_parts_are_the_numeric_sets(path):
    rows = [f"/x[{row}]" for row in range(4)]
    assert hdf5_parts(path) == ["/mask", "/rest/cine", "/rest/colour", "/wide", *rows]
    assert hdf5_parts(path, ReadOptions(axes="THWC")) == ["/rest/colour"]


@pytest.mark.parametrize("part", ["/rest/cine", "/rest/colour", "/x[0]", "/x[3]", "/wide", "/mask", "rest/cine"])
def test_frames(path, part):
    metadata = probe_hdf5(path, part=part)
    assert (metadata.container, metadata.times.count, metadata.error) == ("hdf5", 9, None)
    with h5py.File(path) as file:
        name, row = (part[:-3], int(part[-2])) if part.endswith("]") else (part, slice(None))
        expected = file[name][row] * np.uint8(255) if part == "/mask" else file[name][row]
    with Hdf5Source(path, part=part, metadata=metadata) as source:
        for numbers in ([8, 0, 8], range(9), [3]):
            np.testing.assert_array_equal(source.read(numbers), expected[numbers].reshape(len(numbers), 6, 5, -1))
    conforms(path, metadata, part=part)


@pytest.mark.parametrize(("axes", "shape"), [("HWT", (6, 5, 9)), ("TWH", (9, 5, 6)), ("CTHW", (3, 9, 6, 5))])
@pytest.mark.parametrize("chunks", [None, True])
def test_another_order_is_declared(tmp_path, axes, shape, chunks):
    values = cine(*shape)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=values, chunks=chunks)
    metadata = probe_hdf5(tmp_path / "a.h5", reading=ReadOptions(axes=axes))
    assert metadata.axes == axes
    usual = np.moveaxis(values, [axes.index(axis) for axis in "THWC" if axis in axes], range(values.ndim))
    with Hdf5Source(tmp_path / "a.h5", metadata=metadata) as source:
        np.testing.assert_array_equal(source.read(range(9)), usual.reshape(9, 6, 5, -1))


def test_rows_may_lie_along_another_axis(tmp_path):
    values = cine(9, 4, 6, 5)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = values
    reading = ReadOptions(axes="TNHW")
    assert hdf5_parts(tmp_path / "a.h5", reading) == [f"/x[{row}]" for row in range(4)]
    metadata = probe_hdf5(tmp_path / "a.h5", part="/x[1]", reading=reading)
    with Hdf5Source(tmp_path / "a.h5", part="/x[1]", metadata=metadata) as source:
        np.testing.assert_array_equal(source.read(range(9))[..., 0], values[:, 1])


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("/rest/cina", "has no data set '/rest/cina'; did you mean '/rest/cine'"),
        ("/rest", "has no data set '/rest'"),
        ("/rest/cine/deeper", "has no data set"),
        (None, "has 5 data sets that could be a video; select one by its part"),
        ("/x", r"read as NTHW: 4 samples; choose one by a part that ends in \[0\] to \[3\]"),
        ("/x[4]", "row 4 was asked for, it has rows 0 to 3"),
        ("/rest/cine[0]", "read as one sample, THW"),
        ("/labels", r"has shape \(4,\)"),
        ("/names", "has dtype |S1; integers or floats are needed"),
        ("/note", "has dtype object"),
        ("/nothing", "is empty"),
        ("/elsewhere", "'/elsewhere' is a link, and links are not followed"),
        ("/elsewhere/deeper", "'/elsewhere' is a link"),
        ("/alias", "'/alias' is a link"),
    ],
)
def test_unreadable_data_raises(path, part, message):
    with pytest.raises(SourceError, match=message):
        probe_hdf5(path, part=part)


def test_one_video_needs_no_part(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["deep/down"] = cine(9, 6, 5)
        file["y"] = np.arange(9)
    metadata = probe_hdf5(tmp_path / "a.h5")
    conforms(tmp_path / "a.h5", metadata)


def test_numbers_in_other_files_are_refused(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["x"] = cine(9, 6, 5)
        file.create_dataset("raw", (9, 6, 5), "u1", external=[(tmp_path / "secret", 0, 270)])
        for name, source in (("virtual", str(tmp_path / "b.h5")), ("own", ".")):
            layout = h5py.VirtualLayout((9, 6, 5), "u1")
            layout[:] = h5py.VirtualSource(source, "x", (9, 6, 5))
            file.create_virtual_dataset(name, layout)
    for part in ("/raw", "/virtual"):
        with pytest.raises(SourceError, match=f"{part}: its numbers are in other files"):
            probe_hdf5(path, part=part)
    assert hdf5_parts(path) == ["/own", "/x"]
    with Hdf5Source(path, part="/own", metadata=probe_hdf5(path, part="/own")) as source:
        np.testing.assert_array_equal(source.read(range(9))[..., 0], cine(9, 6, 5))


def virtual(file, name, source, dataset, shape=(9, 6, 5), maxshape=None):
    layout = h5py.VirtualLayout(shape, "u1", maxshape=maxshape)
    layout[:] = h5py.VirtualSource(source, dataset, shape, maxshape=maxshape)
    file.create_virtual_dataset(name, layout)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("external", "source '/raw' are in other files"),
        ("external link", "'/raw' is a link"),
        ("soft link", "'/raw' is a link"),
        ("link to a group", "'/deep' is a link"),
        ("another file", "are in other files"),
        ("virtual", "'/raw', which is virtual itself"),
        ("itself", "'/video', which is virtual itself"),
        ("itself, without end", "'/video', which is virtual itself"),
        ("absent", "does not exist"),
        ("a group", "does not exist"),
        ("pattern", "pattern of names"),
    ],
)
def test_a_virtual_set_is_read_if_each_source_is_an_ordinary_set_of_the_file(tmp_path, kind, message):
    path = tmp_path / "a.h5"
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = cine(9, 6, 5)
        file["deep/raw"] = cine(9, 6, 5)
    (tmp_path / "secret").write_bytes(b"s" * 270)
    with h5py.File(path, "w", libver="latest") as file:
        file["x"] = cine(9, 6, 5)
        source, shape, maxshape = "raw", (9, 6, 5), None
        match kind:
            case "external":
                file.create_dataset("raw", (9, 6, 5), "u1", external=[(tmp_path / "secret", 0, 270)])
            case "external link":
                file["raw"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "x")
            case "soft link":
                file["raw"] = h5py.SoftLink("/x")
            case "link to a group":
                file["deep"], source = h5py.ExternalLink(str(tmp_path / "other.h5"), "/deep"), "deep/raw"
            case "another file":
                virtual(file, "raw", str(tmp_path / "other.h5"), "x")
            case "virtual":
                virtual(file, "raw", ".", "x")
            case "itself":
                source = "video"
            case "itself, without end":
                source, maxshape = "video", (None, 6, 5)
            case "a group":
                file.create_group("raw")
            case "pattern":
                source = "x%%"
        if kind == "another file":
            virtual(file, "video", str(tmp_path / "other.h5"), "x")
        else:
            virtual(file, "video", ".", source, shape, maxshape)
    with pytest.raises(SourceError, match=message) as refused:
        probe_hdf5(path, part="/video")
    assert str(path) in str(refused.value)
    assert "/video" not in hdf5_parts(path)


def test_a_virtual_set_of_another_shape_is_not_a_video(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = cine(9, 6, 5)
        file["y"] = np.arange(9)
        virtual(file, "flat", ".", "y", (9,))
    assert probe_hdf5(tmp_path / "a.h5").times.count == 9


@pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_refused(path, share):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    for ask in (hdf5_parts, probe_hdf5):
        with pytest.raises(SourceError, match=r"set\.h5: cannot be opened as HDF5 \(the file is cut off\)"):
            ask(path)


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"no HDF5")
    with pytest.raises(SourceError, match="cannot be opened as HDF5"):
        probe_hdf5(tmp_path / "a.h5")
    with pytest.raises(SourceError, match="cannot be opened as HDF5"):
        probe_hdf5(tmp_path / "missing.h5")


def test_files_without_a_video(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["y"] = np.arange(9)
        file["flat"] = cine(9, 6, 0)
    with pytest.raises(SourceError, match=r"has no data set that is a video; .*flat: has shape"):
        hdf5_parts(tmp_path / "a.h5")


def damaged(path, chunk, **settings):
    """Write 20 noisy frames in chunks of 4, and spoil one chunk."""
    noise = np.random.default_rng(0).integers(0, 255, (20, 32, 32), np.uint8)
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=noise, chunks=(4, 32, 32), **settings)
    with h5py.File(path) as file:
        place = file["x"].id.get_chunk_info_by_coord((4 * chunk, 0, 0)).byte_offset
    with path.open("r+b") as file:
        file.seek(place)
        file.write(bytes(64))
    return noise


@pytest.mark.parametrize("settings", [{"compression": "gzip"}, {"fletcher32": True}])
def test_a_damaged_chunk_keeps_the_frames_before(tmp_path, settings):
    path = tmp_path / "a.h5"
    noise = damaged(path, 3, **settings)
    metadata = probe_hdf5(path)
    assert metadata.times.count == 12
    assert metadata.error.startswith("breaks after 12 of 20 frames: ")
    assert str(tmp_path) not in metadata.error
    with Hdf5Source(path, metadata=metadata) as source:
        np.testing.assert_array_equal(source.read(range(12))[..., 0], noise[:12])
    trusted = probe_hdf5(path, verify="packets")
    with Hdf5Source(path, metadata=trusted) as source, pytest.raises(DecodeError, match=r"a\.h5::/x: frame 13 cannot"):
        source.read([13])
    damaged(path, 0, **settings)
    with pytest.raises(SourceError, match="0 of 20 frames are whole"):
        probe_hdf5(path)


def test_frames_never_written_are_excluded(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        once = file.create_dataset("x", (3, 10**9, 6, 5), "u1", chunks=(1, 4, 6, 5), compression="gzip")
        once[0, :3], once[2, 4:8] = 1, 1
    assert probe_hdf5(path, part="/x[0]").error == f"breaks after 4 of {10**9} frames: the rest was never written"
    assert probe_hdf5(path, part="/x[2]").times.count == 8
    with pytest.raises(SourceError, match="frames are whole"):
        probe_hdf5(path, part="/x[1]")


def test_a_set_that_has_shrunk_since_the_scan_raises(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["x"] = cine(10, 4, 4)
    metadata = probe_hdf5(path)
    with h5py.File(path, "w") as file:
        file["x"] = cine(6, 4, 4)
    with pytest.raises(SourceError, match="its metadata has 10 frames, the file has 6; scan it again"):
        Hdf5Source(path, metadata=metadata)


def peak_bytes(read) -> int:
    tracemalloc.start()
    try:
        read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("settings", [{}, {"chunks": (1, 1000, 1000)}])
def test_only_requested_frames_of_a_large_file_are_read(tmp_path, settings):
    path = tmp_path / "large.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (64_000, 1000, 1000), "u1", **settings)

    def read():
        with Hdf5Source(path, metadata=probe_hdf5(path)) as source:
            assert source.planes([5, 1500, 0]).frames[1][0].shape == (1000, 1000)

    assert peak_bytes(read) < 5e6  # of 64 GB
    with h5py.File(path) as file:
        assert peak_bytes(lambda: file["x"][:100]) > 90e6  # it would be found out


def test_frames_of_one_chunk_are_unpacked_once(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.zeros((32, 512, 1024), np.uint8), chunks=(32, 256, 1024), compression="gzip")
        file.create_dataset("single", data=np.zeros((8, 512, 512), np.uint8), chunks=(1, 512, 512))
        file.create_dataset("vast", (128, 1024, 1024), "u1", chunks=(128, 512, 512))
    metadata = {part: probe_hdf5(path, part=part, verify="packets") for part in ("/x", "/single", "/vast")}
    sizes = {}
    for part, each in metadata.items():
        with Hdf5Source(path, part=part, metadata=each) as source:
            sizes[part] = source._set.id.get_access_plist().get_chunk_cache()[1]
    assert sizes["/x"] == 2 * 32 * 256 * 1024
    assert sizes["/single"] == sizes["/vast"]  # HDF5's own: no chunk is shared, or they would take 128 MB


def test_a_window_of_percentiles(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.zeros((40, 10, 10), np.float32) + np.arange(100).reshape(10, 10)
    metadata = probe_hdf5(tmp_path / "a.h5", reading=ReadOptions(window="percentiles"))
    assert metadata.window == pytest.approx((1, 98), abs=0.1)
    conforms(tmp_path / "a.h5", metadata)


def test_a_file_that_is_only_readable_is_opened_by_many(path):
    path.chmod(0o400)
    first, second = probe_hdf5(path, part="/rest/cine"), probe_hdf5(path, part="/x[1]")
    with (
        Hdf5Source(path, part="/rest/cine", metadata=first) as one,
        Hdf5Source(path, part="/x[1]", metadata=second) as two,
    ):
        np.testing.assert_array_equal(one.read([3])[0, ..., 0], cine(9, 6, 5)[3])
        np.testing.assert_array_equal(two.read([3])[0, ..., 0], cine(4, 9, 6, 5)[1, 3])


@pytest.mark.parametrize("mode", ["r", "r+"])
@pytest.mark.parametrize("locking", [None, False, True, "best-effort"])
def test_a_file_that_the_user_has_open_is_read(path, locking, mode):
    with h5py.File(path, mode, locking=locking):
        metadata = probe_hdf5(path, part="/rest/cine")
        with Hdf5Source(path, part="/rest/cine", metadata=metadata) as source:
            np.testing.assert_array_equal(source.read([3])[0, ..., 0], cine(9, 6, 5)[3])


@pytest.mark.parametrize("mode", ["r", "r+", "a"])
@pytest.mark.parametrize("locking", [None, False, True, "best-effort"])
def test_the_user_opens_a_file_that_is_read(path, locking, mode):
    with Hdf5Source(path, part="/rest/cine") as source:
        with h5py.File(path, mode, locking=locking) as file:
            np.testing.assert_array_equal(source.read([3])[0, ..., 0], file["rest/cine"][3])
            if mode != "r":
                file["added"] = np.arange(3)
        np.testing.assert_array_equal(source.read([4])[0, ..., 0], cine(9, 6, 5)[4])


def test_a_file_that_the_user_is_still_making_is_read(tmp_path):
    with h5py.File(tmp_path / "new.h5", "w") as file:
        file["x"] = cine(9, 6, 5)
        assert probe_hdf5(tmp_path / "new.h5").times.count == 9


def test_a_file_that_another_process_writes_is_read(path):
    code = f"import h5py; f = h5py.File({str(path)!r}, 'r+', locking=True); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        with Hdf5Source(path, part="/rest/cine") as source:
            np.testing.assert_array_equal(source.read([3])[0, ..., 0], cine(9, 6, 5)[3])
        writer.communicate(b"\n")


def test_without_h5py_the_extra_is_named(path, monkeypatch):
    honest = builtins.__import__

    def refuse(name, *rest):
        if name == "h5py":
            raise ModuleNotFoundError(name)
        return honest(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=r"pip install 'cinefeed\[hdf5\]'"):
        probe_hdf5(path)
