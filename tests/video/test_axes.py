"""Shapes that have one reading, shapes that have several, and labels that would be copied over the rows of one file."""

import numpy as np
import pyarrow as pa
import pytest

import cinefeed as cf
from cinefeed.core.errors import SourceError, TableError
from cinefeed.video.arrays.axes import axes_of
from cinefeed.video.arrays.in_memory import MemorySource
from cinefeed.video.read_options import ReadOptions

T, H, W = 16, 20, 24


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((T, H, W), "THW"),
        ((T, H, W, 1), "THWC"),
        ((T, H, W, 3), "THWC"),
        ((T, 3, W, 3), "THWC"),  # the last axis comes first
        ((T, 1, 8, 1), "THWC"),
        ((5, T, H, W), "NTHW"),
        ((3, T, H, W), "NTHW"),
        ((5, 2, H, W), "NTHW"),
        ((T, 2, 2), "THW"),
        ((T, H, 4), "THW"),
        ((5, T, H, W, 3), "NTHWC"),
        ((5, T, H, W, 1), "NTHWC"),
    ],
)
def test_one_reading(shape, axes):
    assert axes_of(shape, declared=None, where="a.npy") == axes


@pytest.mark.parametrize(
    ("shape", "readings"),
    [
        ((T, 1, H, W), [r"axes='TCHW': 16 frames of 20 x 24 with 1 channel,", "axes='NTHW': 16 videos of 1 frame of"]),
        ((T, 3, H, W), ["axes='TCHW': 16 frames of 20 x 24 with 3 channels", "axes='NTHW': 16 videos of 3 frames"]),
        ((T, 4, H, W), ["16 frames of 20 x 24 with 4 channels: store 3", "axes='NTHW': 16 videos of 4 frames"]),
        (
            (T, H, W, 4),
            ["16 frames of 20 x 24 with 4 channels: store 3", "axes='NTHW': 16 videos of 20 frames of 24 x 4"],
        ),
        (
            (T, H, W, 2),
            ["16 frames of 20 x 24 with 2 channels: store 1", "axes='NTHW': 16 videos of 20 frames of 24 x 2"],
        ),
        ((5, T, H, W, 2), ["5 videos of 16 frames of 20 x 24 with 2 channels: store 1"]),
        ((H, W, 3), ["axes='THW': 20 frames of 24 x 3", "one image of 20 x 24 with 3 channels, which is not a video"]),
        ((H, W, 1), ["axes='THW': 20 frames of 24 x 1", "one image of 20 x 24 with 1 channel,"]),
        ((H, W, 2), ["axes='THW': 20 frames of 24 x 2"]),
        ((5, T, H, W, 4), ["5 videos of 16 frames of 20 x 24 with 4 channels: store 3"]),
        ((5, T, 3, H, W), ["axes='NTCHW': 5 videos of 16 frames of 20 x 24 with 3 channels"]),
        ((5, 3, T, H, W), ["axes='NCTHW': 5 videos of 16 frames of 20 x 24 with 3 channels"]),
        ((5, 1, T, H, W), ["axes='NCTHW'"]),
    ],
)
def test_several_readings_are_refused_with_each_and_the_remedy(shape, readings):
    with pytest.raises(SourceError) as caught:
        axes_of(shape, declared=None, where="a.npy")
    for text in (*readings, "--axes", r"ReadOptions\(axes", "a.npy"):
        assert caught.match(text)


def write(path, array):
    if path.suffix == ".h5":
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            file["x"], file["sound"] = array, array[:, 0]
    elif path.suffix == ".npz":
        np.savez(path, x=array, sound=array[:, 0])
    else:
        np.save(path, array)


@pytest.mark.parametrize("name", ["v.npy", "v.npz", "v.h5"])
def test_channels_first_is_one_row_with_an_error_until_declared(tmp_path, name):
    array = np.random.default_rng(0).integers(0, 255, (T, 3, H, W), np.uint8)
    write(tmp_path / name, array)
    rows = cf.Manifest.scan(tmp_path, progress=False).table.to_pylist()
    (bad,) = [row for row in rows if row["error"]]
    assert "axes='TCHW'" in bad["error"] and bad["num_frames"] == 0
    assert len(rows) == (1 if name == "v.npy" else 2)  # what is clear beside it is read
    manifest = cf.Manifest.scan(tmp_path, progress=False, reading=ReadOptions(axes="TCHW")).readable()
    assert (len(manifest), manifest.column("channels").to_pylist()) == (1, [3])
    with manifest.open(0) as source:
        np.testing.assert_array_equal(source.read([0, 9]), array[[0, 9]].transpose(0, 2, 3, 1))


def test_a_feed_of_such_files_raises_the_reason(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((T, 3, H, W), np.uint8))
    manifest = cf.Manifest.scan(tmp_path, progress=False)
    with pytest.raises(SourceError, match=r"1 of 1 files .*a.npy\); .*axes='TCHW'.*--axes"):
        cf.Feed(manifest, target=None, clip=cf.Clip(frames=2), frame=cf.Frame(height=8, width=8))
    with pytest.raises(SourceError, match=r"; the file: has shape"):
        cf.Feed(manifest.as_private(), target=None, clip=cf.Clip(frames=2), frame=cf.Frame(height=8, width=8))


def test_arrays_in_memory():
    with pytest.raises(SourceError, match=r"axes='TCHW'.*axes='NTHW'.*; choose with Manifest.from_arrays\(x, axes"):
        cf.Manifest.from_arrays(np.zeros((T, 3, H, W), np.uint8))
    with pytest.raises(SourceError, match=r"one video, THWC.*put it in a list"):
        cf.Manifest.from_arrays(np.zeros((T, H, W, 3), np.uint8))
    with pytest.raises(SourceError, match="4 channels: store 3"):
        cf.Manifest.from_arrays([np.zeros((T, H, W, 4), np.uint8)])
    with pytest.raises(SourceError, match="axes='TCHW'"):
        MemorySource(np.zeros((T, 3, H, W), np.uint8))
    assert len(cf.Manifest.from_arrays(np.zeros((T, 3, H, W), np.uint8), axes="NTHW")) == T
    assert len(cf.Manifest.from_arrays([np.zeros((T, H, W, 3), np.uint8)])) == 1
    manifest = cf.Manifest.from_arrays(np.zeros((5, T, 3, H, W), np.uint8), axes="NTCHW")
    assert manifest.column("num_frames").to_pylist() == [T] * 5


@pytest.fixture
def stacked(tmp_path):
    """Two stacked sets: each pixel of row r of file f is 10 f + r."""
    folder = tmp_path / "data"
    folder.mkdir()
    for number, name in enumerate("ab"):
        rows = np.arange(12)[:, None, None, None] + 10 * number
        np.save(folder / f"{name}.npy", np.broadcast_to(rows, (12, 5, H, W)).astype(np.uint8))
    return folder


@pytest.mark.parametrize("key", ["path", "stem"])
def test_a_label_row_applies_to_all_samples_of_a_file_only_if_declared(stacked, key):
    labels = {key: ["a.npy", "b.npy"] if key == "path" else ["a", "b"], "age": [31.0, 45.0]}
    with pytest.raises(
        TableError, match=r"2 files hold several samples.*a.npy, b.npy, 12 samples.*--axes.*--share-labels"
    ):
        cf.Manifest.scan(stacked, labels=labels, progress=False)
    manifest = cf.Manifest.scan(stacked, labels=labels, progress=False, share_labels=True)
    assert manifest.column("age").to_pylist() == [31.0] * 12 + [45.0] * 12


@pytest.mark.parametrize("written", [str, int, "[{}]".format])
def test_a_label_row_names_its_sample_by_path_and_part(stacked, written):
    order = np.random.default_rng(0).permutation(24)
    labels = {
        "file": ["ab"[each // 12] for each in order],
        "part": [written(each % 12) for each in order],
        "value": [10 * (each // 12) + each % 12 for each in order],
    }
    manifest = cf.Manifest.scan(stacked, labels=labels, progress=False)
    assert len(manifest) == 24
    for row in range(24):
        with manifest.open(row) as source:
            assert source.read([0])[0, 0, 0, 0] == manifest.column("value")[row].as_py()
    with pytest.raises(TableError, match=r"a \+ \[99\]"):
        cf.Manifest.scan(stacked, labels={"file": ["a"], "part": [99]}, progress=False)


def test_a_patient_and_a_split_may_be_shared(stacked):
    (stacked / "p1").mkdir()
    (stacked / "a.npy").rename(stacked / "p1" / "a.npy")
    (stacked / "b.npy").unlink()
    by_patient = {"patient": ["p1"], "age": [31.0]}
    manifest = cf.Manifest.scan(stacked, labels=by_patient, on="patient", path_columns="{patient}/{_}", progress=False)
    assert manifest.column("age").to_pylist() == [31.0] * 12
    split = manifest.with_split({"train": pa.table({"path": ["p1/a.npy"]})})
    assert split.column("split").to_pylist() == ["train"] * 12
