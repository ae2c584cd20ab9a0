"""Numbers that do not say what is black and white: what a scan measures, what a window makes of them, or refusal."""

import cv2
import numpy as np
import pyarrow as pa
import pytest
from made_dicom import write_dicom

import cinefeed as cf
from cinefeed.core.errors import SettingError, SourceError
from cinefeed.data.manifest.columns import VALUES
from cinefeed.testing import write_video
from cinefeed.video.read_options import ReadOptions
from cinefeed.video.value_range import spread_frames, suggest_window

FRAMES, HEIGHT, WIDTH = 20, 24, 32


def numbers(dtype, *, seed=0, low=0, high=1017):
    """A video of numbers of a type, (FRAMES, HEIGHT, WIDTH)."""
    array = np.random.default_rng(seed).uniform(low, high, (FRAMES, HEIGHT, WIDTH))
    return array.astype(dtype)


def hdf5(path, array, **how):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=array, chunks=(1, HEIGHT, WIDTH) if how else None, **how)


def nifti(path, array, *, slope=1.0, intercept=0.0):
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(array, np.diag([1.0, 1.0, 1.0, 1.0]))
    image.header.set_slope_inter(slope, intercept)
    nibabel.save(image, path)


def images(folder, array):
    folder.mkdir()
    for number, frame in enumerate(array):
        cv2.imwrite(str(folder / f"{number:02d}.png"), frame)


def as_npy(folder, array):
    np.save(folder / "a.npy", array)


def as_tiff(folder, array):
    cv2.imwritemulti(str(folder / "a.tif"), list(array), [cv2.IMWRITE_TIFF_COMPRESSION, 5])


STORED = {
    "npy, uint16": (as_npy, "uint16"),
    "npy, int16": (as_npy, "int16"),
    "npy, float64": (as_npy, "float64"),
    "npz": (lambda folder, array: np.savez(folder / "a.npz", x=array), "float32"),
    "npz, packed": (lambda folder, array: np.savez_compressed(folder / "a.npz", x=array), "float32"),
    "HDF5": (lambda folder, array: hdf5(folder / "a.h5", array), "int32"),
    "HDF5, packed": (lambda folder, array: hdf5(folder / "a.h5", array, compression="gzip"), "uint16"),
    "TIFF": (as_tiff, "uint16"),
    "DICOM": (lambda folder, array: write_dicom(folder / "a.dcm", array), "int16"),
}


def measured(manifest, row=0):
    return [manifest.table.column(name)[row].as_py() for name in VALUES]


def by_numpy(array, *, first=0):
    some = np.asarray(array, np.float32)[spread_frames(len(array), first=first)]
    low, high = np.percentile(some, [0.5, 99.5])
    return [some.min(), some.max(), low, high, 0, 0]


@pytest.mark.parametrize("kind", STORED)
def test_a_scan_measures_what_numpy_does(kind, tmp_path):
    write, dtype = STORED[kind]
    array = numbers(dtype, low=-500 if np.dtype(dtype).kind != "u" else 3)
    write(tmp_path, array)
    manifest = cf.Manifest.scan(tmp_path, progress=False)
    assert measured(manifest) == pytest.approx(by_numpy(array, first=kind == "TIFF"), rel=1e-6)  # from page 1 on
    assert "values" in str(manifest)
    without = cf.Manifest(manifest.table.drop_columns(list(VALUES)), root=tmp_path, history=manifest.history)
    assert without.fingerprint == manifest.fingerprint


def test_a_folder_of_images_is_measured_from_its_second_on(tmp_path):
    array = numbers("uint16")
    images(tmp_path / "a", array)
    manifest = cf.Manifest.scan(tmp_path, progress=False)
    assert measured(manifest) == pytest.approx(by_numpy(array, first=1))
    quick = cf.Manifest.scan(tmp_path, verify="packets", progress=False)
    assert measured(quick) == pytest.approx(by_numpy(array))


def test_every_slice_and_every_row_of_a_packed_file_has_its_own_values(tmp_path):
    volume = np.stack([numbers("int16", seed=slice, high=100 * (slice + 1)) for slice in range(4)])
    nifti(tmp_path / "a.nii.gz", volume.transpose(3, 2, 0, 1), slope=-2.0, intercept=5.0)
    np.savez_compressed(tmp_path / "b.npz", x=volume)
    manifest = cf.Manifest.scan(tmp_path, reading=ReadOptions(slice="each"), progress=False)
    rows = {(path, part): row for row, (path, part) in enumerate(zip(*_names(manifest), strict=True))}
    for slice in range(4):
        assert measured(manifest, rows["a.nii.gz", f"slice={slice}"]) == pytest.approx(
            by_numpy(volume[slice] * -2.0 + 5.0), rel=1e-4
        )
        assert measured(manifest, rows["b.npz", f"/x[{slice}]"]) == pytest.approx(by_numpy(volume[slice]))
    middle = cf.Manifest.scan(tmp_path, progress=False)
    row = _names(middle)[0].index("a.nii.gz")
    assert measured(middle, row) == pytest.approx(by_numpy(volume[2] * -2.0 + 5.0), rel=1e-4)


def _names(manifest):
    return [manifest.column(name).to_pylist() for name in ("path", "part")]


def test_interleaved_rows_of_a_packed_file(tmp_path):
    stack = np.stack([numbers("uint16", seed=row, high=100 * (row + 1)) for row in range(3)])
    np.savez_compressed(tmp_path / "a.npz", x=stack.transpose(1, 2, 3, 0))
    manifest = cf.Manifest.scan(tmp_path, reading=ReadOptions(axes="THWN"), progress=False)
    for row in range(3):
        assert measured(manifest, row) == pytest.approx(by_numpy(stack[row]))


def test_eight_bits_and_colour_video_are_not_measured(tmp_path):
    np.save(tmp_path / "a.npy", numbers("uint8", high=255))
    frames = np.repeat(numbers("uint8", high=255)[..., None], 3, axis=-1)
    write_video(tmp_path / "b.mp4", frames)
    write_video(tmp_path / "c.mkv", frames, codec="ffv1", pixel_format="yuv420p10le")
    write_video(tmp_path / "d.mkv", frames, codec="ffv1", pixel_format="gray16le")
    manifest = cf.Manifest.scan(tmp_path, progress=False)
    assert [measured(manifest, row)[4] for row in range(4)] == [None, None, None, 0]
    frame = cf.Frame(height=HEIGHT, width=WIDTH, channels=1)
    cf.Feed(manifest.take([0, 1, 2]), target=None, clip=cf.Clip(frames=4), frame=frame)
    with pytest.raises(SettingError, match=r"1 of 4 rows hold .*row 3, d\.mkv \(gray16le"):
        cf.Feed(manifest, target=None, clip=cf.Clip(frames=4), frame=frame)


def test_what_is_no_number_is_counted_and_leaves_the_rest(tmp_path):
    array = numbers("float32")
    array[:, 2:4, 3] = np.nan
    array[0, 0, 0], array[19, 0, 1] = np.inf, -np.inf
    np.save(tmp_path / "a.npy", array)
    np.save(tmp_path / "b.npy", np.full((4, 8, 8), np.nan))
    manifest = cf.Manifest.scan(tmp_path, progress=False)
    finite = array[spread_frames(FRAMES)]
    least, most, _, _, nan, inf = measured(manifest)
    assert (least, most) == (np.nanmin(finite[np.isfinite(finite)]), finite[np.isfinite(finite)].max())
    assert (nan, inf) == (2 * 16, 2)
    assert measured(manifest, 1) == [None, None, None, None, 4 * 64, 0]
    assert "NaN or infinite in 2 rows" in str(manifest)
    measured_facts = manifest.take([0]).metadata(0)
    assert measured_facts is not None and measured_facts.values is None  # no feed reads them


def test_a_window_suggested_clips_one_pixel_of_a_hundred_at_most():
    assert suggest_window([(-1.25, 3.0), (0.5, 3.0001)]) == (-1.25, 3.001)
    assert suggest_window([(1.5, 33_333.0)]) == (0.0, 33_340.0)
    assert suggest_window([(7.0, 7.0)]) == (7.0, 8.0)
    assert suggest_window([(np.nan, np.nan)]) is None


# what a feed makes of them


def fed(folder, *, window=None, dtype="uint8", reading=None, **settings):
    """The clip of the only video of a folder, scanned as a user does it: (FRAMES, HEIGHT, WIDTH)."""
    manifest = cf.Manifest.scan(folder, progress=False, **({} if reading is None else {"reading": reading}))
    frame = cf.Frame(height=HEIGHT, width=WIDTH, channels=1, fit="none", dtype=dtype, window=window)
    clip = cf.Clip(frames=FRAMES, position="start")
    feed = cf.Feed(manifest, target=None, clip=clip, frame=frame, workers=0, batch_size=1, **settings)
    return feed.batch(0).clips[0, ..., 0]


def scaled(array, low, high, top=255):
    return np.clip((array.astype(np.float64) - low) / (high - low), 0, 1) * top


@pytest.mark.parametrize("kind", STORED)
def test_without_a_window_a_feed_says_what_would_be_lost(kind, tmp_path):
    write, dtype = STORED[kind]
    array = numbers(dtype, low=-500 if np.dtype(dtype).kind != "u" else 12)
    write(tmp_path, array)
    low, high = suggest_window([tuple(by_numpy(array, first=kind == "TIFF")[2:4])])
    with pytest.raises(SettingError, match=r"1 of 1 rows hold floats, signed integers or more than 8 bits") as caught:
        fed(tmp_path)
    assert f"Frame(window=({low:.10g}, {high:.10g}))" in str(caught.value)
    pixels = fed(tmp_path, window=(low, high))
    np.testing.assert_allclose(pixels, scaled(array, low, high), atol=0.51)
    assert len(np.unique(pixels)) > 250
    deep = fed(tmp_path, window=(low, high), dtype="uint16")
    np.testing.assert_allclose(deep, scaled(array, low, high, 65535), atol=1.0)
    with_fractions = fed(tmp_path, window=(low, high), dtype="float32")
    np.testing.assert_allclose(with_fractions, scaled(array, low, high), atol=1e-3)
    if kind == "DICOM":  # signed by 16 bits, all of which it is shown by
        np.testing.assert_allclose(fed(tmp_path, dtype="uint16"), array.astype(float) + 2**15)
    elif dtype == "uint16":
        np.testing.assert_array_equal(fed(tmp_path, dtype="uint16"), array)
    else:
        with pytest.raises(SettingError, match="frames as uint16 were asked for"):
            fed(tmp_path, dtype="uint16")
    if kind != "DICOM":
        np.testing.assert_array_equal(fed(tmp_path, dtype="float32"), array.astype(np.float32))


def test_eight_bits_pass_as_they_are_whatever_the_window(tmp_path):
    array = numbers("uint8", high=255)
    np.save(tmp_path / "a.npy", array)
    for window in (None, (100.0, 900.0)):
        np.testing.assert_array_equal(fed(tmp_path, window=window), array)


def test_colour_video_of_ten_bits_has_a_scale(tmp_path):
    frames = np.repeat(numbers("uint8", high=255)[..., None], 3, axis=-1)
    write_video(tmp_path / "a.mkv", frames, codec="ffv1", pixel_format="yuv420p10le")
    np.testing.assert_array_equal(fed(tmp_path), fed(tmp_path, window=(0.0, 100.0)))
    assert np.abs(fed(tmp_path).astype(int) - frames[..., 0]).max() <= 2


def test_the_window_of_a_file_serves_unless_the_frame_has_one(tmp_path):
    array = numbers("uint16")
    write_dicom(tmp_path / "a.dcm", array, WindowCenter=500, WindowWidth=400, VOILUTFunction="LINEAR_EXACT")
    np.testing.assert_allclose(fed(tmp_path), scaled(array, 300, 700), atol=0.51)
    np.testing.assert_allclose(fed(tmp_path, window=(0, 1016)), scaled(array, 0, 1016), atol=0.51)
    np.testing.assert_allclose(
        fed(tmp_path, reading=ReadOptions(window="percentiles")),
        scaled(array, *np.percentile(array, [1, 99])),
        atol=0.6,
    )
    with pytest.raises(SettingError, match="window"):
        fed(tmp_path, reading=ReadOptions(window="none"))


def test_a_window_that_names_all_bits_is_one(tmp_path):
    array = numbers("uint16", high=4095)
    exact = {"WindowCenter": 2047.5, "WindowWidth": 4095, "VOILUTFunction": "LINEAR_EXACT"}
    write_dicom(tmp_path / "a.dcm", array, BitsStored=12, HighBit=11, **exact)
    np.testing.assert_allclose(fed(tmp_path), scaled(array, 0, 4095), atol=0.51)


def test_what_is_shown_inverted_stays_so(tmp_path):
    array = numbers("uint16")
    write_dicom(tmp_path / "a.dcm", array, PhotometricInterpretation="MONOCHROME1")
    with pytest.raises(SettingError, match="MONOCHROME1 16"):
        fed(tmp_path)
    np.testing.assert_allclose(fed(tmp_path, window=(0, 1016)), 255 - scaled(array, 0, 1016), atol=0.51)


def test_rescaled_numbers_have_their_window_after_the_rescale(tmp_path):
    array = numbers("uint16")
    write_dicom(tmp_path / "a.dcm", array, RescaleSlope=2, RescaleIntercept=-100)
    with pytest.raises(SettingError, match=r"MONOCHROME2 16, -100 to 19\d\d"):
        fed(tmp_path)
    np.testing.assert_allclose(fed(tmp_path, window=(-100, 1932)), scaled(array, 0, 1016), atol=0.51)


def test_what_was_not_scanned_is_refused_at_the_first_clip(tmp_path):
    np.save(tmp_path / "a.npy", numbers("uint8", high=255))
    np.save(tmp_path / "b.npy", numbers("float32", high=1.0))
    manifest = cf.Manifest.from_table(pa.table({"path": ["a.npy", "b.npy"]}), root=tmp_path)
    frame = cf.Frame(height=HEIGHT, width=WIDTH, channels=1)
    for on_error in ("raise", "replace"):  # a setting is missing, no file is bad
        feed = cf.Feed(
            manifest, target=None, clip=cf.Clip(frames=4), frame=frame, workers=0, on_error=on_error, max_bad=1.0
        )
        with pytest.raises(
            SettingError, match=r"row 1, b\.npy: frames as uint8 .* from 0\S* to 0\.\d+.*window=\(0"
        ) as _:
            feed.batch(0)


def test_arrays_in_memory_are_measured_for_the_hint():
    arrays = [numbers("float32", seed=seed, high=1.0) for seed in range(3)]
    frame = cf.Frame(height=HEIGHT, width=WIDTH, channels=1)
    with pytest.raises(SettingError, match=r"Frame\(window=\(0\.00\d+, 0\.99\d+\)\)"):
        cf.Feed(cf.Manifest.from_arrays(arrays), target=None, clip=cf.Clip(frames=4), frame=frame)


def test_pixels_that_are_no_numbers_reach_no_batch(tmp_path):
    for number in range(4):
        array = numbers("float32", seed=number)
        if number == 2:
            array[:, 3, 4] = np.nan
        if number == 3:
            array[7, 0, 0] = np.inf  # in none of the frames that the scan measured
        np.save(tmp_path / f"v{number}.npy", array)
    assert 7 not in spread_frames(FRAMES)
    manifest = cf.Manifest.scan(tmp_path, progress=False)
    frame = cf.Frame(height=HEIGHT, width=WIDTH, channels=1, dtype="float32")
    how = {"target": None, "clip": cf.Clip(frames=FRAMES), "frame": frame, "workers": 0}
    with pytest.raises(SourceError, match=r"1 of 4 rows hold pixels that are NaN.*row 2, v2\.npy: 16 pixels are NaN"):
        cf.Feed(manifest, **how)
    finite = manifest.where("nan_count", [0])
    with pytest.raises(SourceError, match=r"row 2, v3\.npy: 1 of the 15,360 pixels of a clip are NaN or infinite"):
        cf.Feed(finite, **how).batch(0)
    feed = cf.Feed(manifest, on_error="replace", max_bad=0.5, **how)
    assert np.isfinite(feed.batch(0).clips).all()
    assert len(feed.stats().skipped) == 2


def test_numbers_too_large_to_add_up_are_numbers(tmp_path):
    np.save(tmp_path / "a.npy", np.full((FRAMES, HEIGHT, WIDTH), 3e38, np.float32))
    assert (fed(tmp_path, dtype="float32") == np.float32(3e38)).all()


def test_each_view_is_looked_at(tmp_path):
    for view, dtype in (("a", "uint8"), ("b", "uint16")):
        for study in "xy":
            np.save(tmp_path / f"{study}_{view}.npy", numbers(dtype, high=250))
    table = pa.table(
        {"path": [f"{s}_{v}.npy" for s in "xy" for v in "ab"], "study": list("xxyy"), "view": list("abab")}
    )
    manifest = cf.Manifest.scan(tmp_path, labels=table, progress=False).pivot(by="view", within="study")
    how = {"target": None, "clip": cf.Clip(frames=4), "frame": cf.Frame(height=8, width=8, channels=1)}
    with pytest.raises(SettingError, match=r"row 0, x_b\.npy \(view b\)"):
        cf.Feed(manifest, **how)
    cf.Feed(manifest, inputs=cf.Inputs(views=["a"]), **how)


def test_a_window_must_be_two_numbers_in_order():
    for wrong in ((1.0, 1.0), (2.0, 1.0), (0.0, np.inf), (np.nan, 1.0), (0.0,), 5.0, ("a", "b"), (True, 2.0)):
        with pytest.raises(SettingError, match=r"Frame\(window=.*two finite numbers, the smaller one first"):
            cf.Frame(height=8, width=8, window=wrong)
    assert cf.Frame(height=8, width=8, window=[12, 1016]).window == (12.0, 1016.0)


@pytest.mark.parametrize("dtype", ["float32", "uint16"])
def test_dicom_files_of_several_ranges_of_bits_are_refused(tmp_path, dtype):
    """The same numbers, 0 to 1014, came as 1014, 63.1 and 131.4."""
    array = (np.arange(64).reshape(1, 8, 8) * 16 + np.zeros((4, 1, 1), int)).astype(np.uint16)
    write_dicom(tmp_path / "a.dcm", array)
    one = {"target": "clip", "clip": cf.Clip(frames=2), "workers": 0}
    frame = cf.Frame(height=8, width=8, channels=1, dtype=dtype)
    cf.Feed(cf.Manifest.scan(tmp_path), frame=frame, **one).batch(0)
    write_dicom(tmp_path / "b.dcm", array, BitsStored=12, HighBit=11, SOPInstanceUID="1.2.4")
    manifest = cf.Manifest.scan(tmp_path)
    with pytest.raises(
        SettingError,
        match=r"2 ranges here \(0 to 65535 in row 0, a.dcm; 0 to 4095 in row 1, b.dcm\).*window=\(0, 1008\)",
    ):
        cf.Feed(manifest, frame=frame, **one)
    frame = cf.Frame(height=8, width=8, channels=1, dtype=dtype, window=(0, 1008))
    first, second = cf.Feed(manifest, frame=frame, **one | {"batch_size": 2}).batch(0).clips
    assert np.array_equal(first, second)
