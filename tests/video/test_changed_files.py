"""A file that is not the scanned one any more is refused, a copy is not, whatever reads it."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import cinefeed as cf
from cinefeed.core.errors import ChangedFileError
from cinefeed.data.manifest import rows as rows_module
from cinefeed.testing import numbered_frames, write_video

cv2 = pytest.importorskip("cv2")
SHAPE = (12, 24, 32)


def grey(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, SHAPE, np.uint8)


def write_hdf5(path: Path, seed: int) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file["cine"] = grey(seed)


def write_nifti(path: Path, seed: int) -> None:
    nibabel = pytest.importorskip("nibabel")
    nibabel.save(nibabel.Nifti1Image(grey(seed).transpose(2, 1, 0)[:, :, None], np.eye(4)), path)


def write_cine(path: Path, seed: int) -> None:
    pytest.importorskip("pydicom")
    from made_dicom import write_dicom

    write_dicom(path, grey(seed))


def write_series(path: Path, seed: int, numbers=range(4)) -> None:
    pytest.importorskip("pydicom")
    from made_dicom import write_slice

    for number in numbers:
        write_slice(path / f"{number}.dcm", value=10 * seed + number, uid=f"1.2.3.{number}", InstanceNumber=number + 1)


def write_images(path: Path, seed: int, numbers=range(4)) -> None:
    path.mkdir(exist_ok=True)
    for number in numbers:
        cv2.imwrite(str(path / f"f{number}.bmp"), grey(seed)[number])


def write_pages(path: Path, seed: int) -> None:
    cv2.imwritemulti(str(path), [*grey(seed)], [cv2.IMWRITE_TIFF_COMPRESSION, 1])


def write_encoded(path: Path, seed: int) -> None:
    write_video(path, numbered_frames(12)[:: 1 if seed == 1 else -1], rate_hz=10)


KINDS = {
    "v.mp4": write_encoded,  # by the compiled decoder
    "v.avi": write_encoded,  # by PyAV
    "v.npy": lambda path, seed: np.save(path, grey(seed)),
    "v.npz": lambda path, seed: np.savez(path, x=grey(seed)),
    "v.h5": write_hdf5,
    "v.nii": write_nifti,
    "v.dcm": write_cine,
    "series": write_series,
    "images": write_images,
    "v.tif": write_pages,
}


def make(tmp_path: Path, name: str) -> tuple[cf.Manifest, list[Path]]:
    """Write one sample, and return its manifest as read back, and its files."""
    data = tmp_path / "data"
    data.mkdir()
    KINDS[name](data / name, 1)
    cf.Manifest.scan(data, progress=False, out=tmp_path / "m.parquet", reading=cf.ReadOptions(salt=""))
    manifest = cf.Manifest.read(tmp_path / "m.parquet")
    assert len(manifest) == 1 and manifest.column("error").to_pylist() == [None]
    return manifest, sorted(each for each in data.rglob("*") if each.is_file())


def feed_of(manifest: cf.Manifest, **options) -> cf.Feed:
    frame = cf.Frame(height=16, width=16, channels=1, window=(0, 255))  # of the series, of 16 bits
    settings = {"target": "clip", "clip": cf.Clip(frames=2), "batch_size": 1, "workers": 0} | options
    return cf.Feed(manifest, frame=frame, **settings)


@pytest.mark.parametrize("name", KINDS)
def test_another_file_of_the_same_name_is_refused(tmp_path, name):
    manifest, files = make(tmp_path, name)
    feed_of(manifest).batch(0)
    sizes = [each.stat().st_size for each in files]
    KINDS[name](tmp_path / "data" / name, 2)
    for file, size in zip(files, sizes, strict=True):
        if file.suffix in (".mp4", ".avi"):  # as long as before: what follows the end is ignored
            data = file.read_bytes()[:size]
            file.write_bytes(data + bytes(size - len(data)))
        os.utime(file, (1, 1))
    assert [each.stat().st_size for each in files] == sizes
    fresh = cf.Manifest.read(tmp_path / "m.parquet")
    for each in (manifest, fresh):  # the first has read the file as it was
        with pytest.raises(ChangedFileError, match=rf"row 0, .*{Path(name).name}.*other content.*cinefeed scan"):
            feed_of(each).batch(0)
    again = cf.Manifest.scan(tmp_path / "data", progress=False, out=tmp_path / "m.parquet")
    feed_of(again).batch(0)


@pytest.mark.parametrize("name", KINDS)
def test_another_size_is_refused_at_any_time(tmp_path, name):
    manifest, files = make(tmp_path, name)
    before = files[0].stat()
    files[0].write_bytes(files[0].read_bytes() + b"\0")
    os.utime(files[0], ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ChangedFileError, match=r"bytes when scanned, [\d,]+ now"):
        manifest.open(0)


@pytest.mark.parametrize("name", KINDS)
def test_a_copy_is_read_and_hashed_once(tmp_path, name, monkeypatch):
    manifest, _ = make(tmp_path, name)
    shutil.copytree(tmp_path / "data", tmp_path / "copy", copy_function=shutil.copyfile)
    copy = cf.Manifest.read(tmp_path / "m.parquet", root=tmp_path / "copy")
    calls = []
    real = rows_module.change_of
    monkeypatch.setattr(rows_module, "change_of", lambda *a, **b: calls.append(a) or real(*a, **b))
    for _ in range(3):
        with copy.open(0) as copied, manifest.open(0) as original:
            np.testing.assert_array_equal(copied.read([0, 1]), original.read([0, 1]))
    assert len(calls) == 1
    assert copy.fingerprint == manifest.fingerprint


@pytest.mark.parametrize("name", ["series", "images"])
def test_one_older_file_of_many_or_two_that_change_places(tmp_path, name):
    manifest, files = make(tmp_path, name)
    newest = max(each.stat().st_mtime_ns for each in files)
    os.utime(files[-1], ns=(newest + 10**9, newest + 10**9))
    os.utime(files[0], (5, 5))
    cf.Manifest.scan(tmp_path / "data", progress=False, out=tmp_path / "m.parquet", reading=cf.ReadOptions(salt=""))
    manifest = cf.Manifest.read(tmp_path / "m.parquet")
    manifest.open(0).close()
    KINDS[name](tmp_path / "data" / name, 2, numbers=[1])  # neither the sum of sizes nor the newest time tells
    os.utime(files[1], (7, 7))
    with pytest.raises(ChangedFileError, match="other content"):
        manifest.open(0)
    KINDS[name](tmp_path / "data" / name, 1, numbers=[1])
    manifest.open(0).close()
    files[0].rename(tmp_path / "kept")
    with pytest.raises(ChangedFileError, match="one of its files is missing"):
        manifest.open(0)
    files[1].rename(files[0])
    (tmp_path / "kept").rename(files[1])
    with pytest.raises(ChangedFileError, match="other content"):
        manifest.open(0)


def test_a_folder_of_many_images_is_checked_once_per_process(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(70):
        cv2.imwrite(str(folder / f"{number}.bmp"), grey(number)[0])
    manifest = cf.Manifest.scan(tmp_path, progress=False)
    manifest.open(0).close()
    cv2.imwrite(str(folder / "3.bmp"), grey(99)[0])
    manifest.open(0).close()
    with pytest.raises(ChangedFileError, match="other content"):
        cf.Manifest(manifest.table, root=tmp_path).open(0)


def test_a_scan_sees_that_an_older_file_of_many_was_exchanged(tmp_path):
    _, files = make(tmp_path, "images")
    newest = max(each.stat().st_mtime_ns for each in files)
    os.utime(files[-1], ns=(newest + 10**9, newest + 10**9))
    scan = {"progress": False, "out": tmp_path / "m.parquet"}
    before = cf.Manifest.scan(tmp_path / "data", **scan).column("content_hash")[0].as_py()
    write_images(tmp_path / "data" / "images", 2, numbers=[1])
    os.utime(files[1], (7, 7))
    assert cf.Manifest.scan(tmp_path / "data", **scan).column("content_hash")[0].as_py() != before


def test_a_series_that_breaks_is_fed_as_far_as_it_goes(tmp_path):
    data = tmp_path / "data"
    write_series(data / "series", 1)
    broken = data / "series" / "3.dcm"
    broken.write_bytes(broken.read_bytes()[:-20])
    manifest = cf.Manifest.scan(data, progress=False)
    assert manifest.column("num_frames").to_pylist() == [3]
    with manifest.open(0) as source:
        assert source.read([0, 2])[:, 0, 0, 0].tolist() == [10, 12]


def test_views_are_compared_each(tmp_path):
    for study in "ab":
        for view in ("2ch", "4ch"):
            (tmp_path / study).mkdir(exist_ok=True)
            np.save(tmp_path / study / f"{view}.npy", grey(1))
    scanned = cf.Manifest.scan(tmp_path, progress=False, path_columns="{study}/{view}")
    manifest = scanned.pivot(by="view", within="study")
    feed_of(manifest, target="study", task="multiclass").batch(0)
    np.save(tmp_path / "a" / "4ch.npy", grey(2))
    with pytest.raises(ChangedFileError, match=r"row 0, .*4ch"):
        feed_of(manifest, target="study", task="multiclass").batch(0)
    manifest.rows.open(1, view="4ch").close()


def test_a_changed_file_is_replaced_like_any_that_cannot_be_read(tmp_path):
    for number in range(4):
        np.save(tmp_path / f"{number}.npy", grey(number))
    manifest = cf.Manifest.scan(tmp_path, progress=False)
    np.save(tmp_path / "2.npy", grey(9))
    feed = feed_of(manifest, batch_size=4, on_error="replace", max_bad=0.25)
    assert "2.npy" not in feed.batch(0).ids.tolist()
    assert "other content" in str(feed.stats().skipped)


def test_a_worker_process_raises_it_too(tmp_path):
    manifest, files = make(tmp_path, "v.npy")
    np.save(files[0], grey(2))
    feed = feed_of(manifest, workers=cf.Workers(count=1, backend="process"))
    with pytest.raises(ChangedFileError, match=r"row 0, .*v\.npy.*other content"):
        feed.batch(0)
    feed.close()


def test_a_table_that_was_not_scanned_has_nothing_to_compare(tmp_path):
    np.save(tmp_path / "a.npy", grey(1))
    manifest = cf.Manifest.from_table({"path": ["a.npy"], "size_bytes": [1], "mtime_ns": [1]}, root=tmp_path)
    manifest.open(0).close()


def test_a_missing_hash_is_not_a_match(tmp_path):
    manifest, files = make(tmp_path, "v.npy")
    bare = cf.Manifest.from_table(manifest.table.drop_columns("content_hash"), root=manifest.root)
    bare.open(0).close()
    os.utime(files[0], (1, 1))
    with pytest.raises(ChangedFileError, match="no content_hash"):
        bare.open(0)
