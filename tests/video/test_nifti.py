"""Slices of NIfTI series."""

import builtins
import gzip
import tracemalloc
from dataclasses import asdict

import numpy as np
import pytest

from cinefeed.core.errors import DecodeError, MissingExtraError, SourceError
from cinefeed.testing import check_source, stored_metadata
from cinefeed.video.arrays import frame_offsets as stored
from cinefeed.video.arrays.nifti import NiftiSource, nifti_parts, probe_nifti
from cinefeed.video.read_options import ReadOptions

nibabel = pytest.importorskip("nibabel")
NAMES = ("cine.nii", "cine.nii.gz")


def volume(*shape, dtype="uint8"):
    return (np.arange(int(np.prod(shape))) % 251).astype(dtype).reshape(shape)


def save(path, array, *, kind=nibabel.Nifti1Image, **fields):
    """Write an array as it is: what `fields` say of it stands in the header, and is not applied."""
    image = kind(array, np.diag([2.0, 3.0, 4.0, 1.0]))
    for name, value in fields.items():
        image.header[name] = value
    image.to_filename(path)
    return path


def conforms(path, metadata, part=None):
    check_source(
        NiftiSource(path, part=part, metadata=metadata),
        reopen=lambda: NiftiSource(path, part=part, metadata=stored_metadata(metadata)),
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "int16", "float64", ">u2", ">f4"])
def test_width_runs_along_the_first_axis(tmp_path, name, dtype):
    array = volume(7, 5, 3, 11, dtype=dtype)
    path = save(tmp_path / name, array)
    metadata = probe_nifti(path, part="slice=2")
    assert (metadata.width, metadata.height, metadata.times.count, metadata.axes) == (7, 5, 11, "WHzT")
    assert (metadata.container, metadata.codec) == ("nifti", "gzip" if name.endswith("gz") else "raw")
    with NiftiSource(path, part="slice=2", metadata=metadata) as source:
        frames = source.read([10, 0, 10])
    assert frames.dtype == {"uint8": "uint8", "uint16": "uint16", ">u2": "uint16"}.get(dtype, "float32")
    np.testing.assert_array_equal(frames[..., 0], array[:, :, 2, [10, 0, 10]].transpose(2, 1, 0))
    conforms(path, metadata, part="slice=2")


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("name", NAMES)
def test_both_versions_and_byte_orders(tmp_path, name, kind):
    array = volume(7, 5, 3, 11, dtype="int16")
    image = kind(array, np.eye(4), kind.header_class(endianness=">"))
    image.set_data_dtype(np.int16)
    image.to_filename(tmp_path / name)
    metadata = probe_nifti(tmp_path / name)
    with NiftiSource(tmp_path / name, metadata=metadata) as source:
        np.testing.assert_array_equal(source.read([4])[0, ..., 0], array[:, :, 1, 4].T)


@pytest.mark.parametrize(
    ("choice", "parts"),
    [("middle", ["slice=2"]), ("each", ["slice=0", "slice=1", "slice=2", "slice=3"]), (3, ["slice=3"])],
)
def test_slices_are_chosen(tmp_path, choice, parts):
    path = save(tmp_path / "cine.nii", volume(7, 5, 4, 6))
    assert nifti_parts(path, ReadOptions(slice=choice)) == parts


def test_without_a_part_it_is_the_middle_slice(tmp_path):
    array = volume(7, 5, 3, 6)
    path = save(tmp_path / "cine.nii", array)
    with NiftiSource(path, metadata=probe_nifti(path)) as source:
        np.testing.assert_array_equal(source.read([5])[0, ..., 0], array[:, :, 1, 5].T)
    for choice in ("each", 2):
        with pytest.raises(SourceError, match=r"selects parts; give one, as in cine\.nii::slice=4"):
            probe_nifti(path, reading=ReadOptions(slice=choice))


@pytest.mark.parametrize("part", ["slice=4", "slice=-1", "/x", "slice=1e9", f"slice={10**30}"])
def test_a_slice_that_is_not_there(tmp_path, part):
    path = save(tmp_path / "cine.nii", volume(7, 5, 4, 6))
    with pytest.raises(SourceError, match="was asked for, it has 4 slices, 'slice=0' to 'slice=3'"):
        probe_nifti(path, part=part)


def test_a_number_out_of_range_names_the_count(tmp_path):
    path = save(tmp_path / "cine.nii", volume(7, 5, 4, 6))
    with pytest.raises(SourceError, match="'slice=9' was asked for, it has 4 slices"):
        nifti_parts(path, ReadOptions(slice=9))


@pytest.mark.parametrize(
    ("axes", "shape", "parts"),
    [
        ("WHT", (7, 5, 6), []),
        ("TWHZ", (6, 7, 5, 3), ["slice=1"]),
        ("TZHW", (6, 3, 5, 7), ["slice=1"]),
        ("WHZTC", (7, 5, 3, 6, 3), ["slice=1"]),
        ("WHZCT", (7, 5, 3, 1, 6), ["slice=1"]),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_other_axes_are_declared(tmp_path, name, axes, shape, parts):
    array, reading = volume(*shape), ReadOptions(axes=axes)
    path = save(tmp_path / name, array)
    assert nifti_parts(path, reading) == parts
    part = parts[0] if parts else None
    metadata = probe_nifti(path, part=part, reading=reading)
    assert metadata.axes == axes.replace("Z", "z")
    cut = array.take(1, axes.index("Z")) if "Z" in axes else array
    left = axes.replace("Z", "")
    usual = np.moveaxis(cut, [left.index(axis) for axis in "THWC" if axis in left], range(cut.ndim))
    with NiftiSource(path, part=part, metadata=metadata) as source:
        np.testing.assert_array_equal(source.read(range(6)), usual.reshape(6, 5, 7, -1))
    conforms(path, metadata, part=part)


def test_axes_of_length_one_at_the_end_are_left_out(tmp_path):
    array = volume(7, 5, 3, 6, 1)
    path = save(tmp_path / "cine.nii", array)
    metadata = probe_nifti(path, part="slice=0")
    assert metadata.times.count == 6
    conforms(path, metadata, part="slice=0")


@pytest.mark.parametrize(
    ("shape", "axes", "message"),
    [
        ((7, 5, 6), None, r"\(7, 5, 6\), in which no axis is defined as time; declare .* axes='WHT'"),
        ((7, 5, 3, 1, 6), None, "has 5 axes, but axes='WHZT' has 4"),
        ((7, 5), None, r"has shape \(7, 5\)"),
        ((7, 5, 3, 6), "WHT", "has 4 axes, but axes='WHT' has 3"),
        ((7, 5, 3, 6), "WHCT", None),
        ((7, 5, 4, 6), "WHCT", "4 channels"),
        ((7, 5, 4, 6), "WHNT", "has an axis N, which NIfTI files do not have"),
    ],
)
def test_shapes_that_say_what_to_declare(tmp_path, shape, axes, message):
    path = save(tmp_path / "cine.nii", volume(*shape))
    reading = ReadOptions(axes=axes)
    if message is None:
        assert probe_nifti(path, reading=reading).channels == 3
        return
    for ask in (probe_nifti, nifti_parts):
        with pytest.raises(SourceError, match=message):
            ask(path, reading=reading)


def test_a_part_of_what_has_no_slices(tmp_path):
    path = save(tmp_path / "cine.nii", volume(7, 5, 6))
    with pytest.raises(SourceError, match="has no slices"):
        probe_nifti(path, part="slice=0", reading=ReadOptions(axes="WHT"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("slope", "intercept"), [(2.0, 0.0), (0.5, -100.0), (1.0, 7.0)])
def test_numbers_are_scaled(tmp_path, name, slope, intercept):
    image = nibabel.Nifti1Image(volume(7, 5, 3, 6, dtype="int16"), np.eye(4))
    image.header.set_slope_inter(slope, intercept)
    image.to_filename(tmp_path / name)
    metadata = probe_nifti(tmp_path / name)
    assert metadata.bits == 32
    with NiftiSource(tmp_path / name, metadata=metadata) as source:
        frame = source.read([5])[0, ..., 0]
    expected = nibabel.load(tmp_path / name).get_fdata(dtype=np.float32)[:, :, 1, 5].T
    assert frame.dtype == np.float32
    np.testing.assert_allclose(frame, expected, rtol=1e-6)
    conforms(tmp_path / name, metadata)


def test_a_slope_of_one_leaves_integers(tmp_path):
    path = tmp_path / "cine.nii"
    image = nibabel.Nifti1Image(volume(7, 5, 3, 6, dtype="uint16"), np.eye(4))
    image.header.set_slope_inter(1, 0)
    image.to_filename(path)
    assert probe_nifti(path).bits == 16


@pytest.mark.parametrize(
    ("units", "spacing", "rate"),
    [
        (("mm", "sec"), (3.0, 2.0), 20),
        (("mm", "msec"), (3.0, 2.0), 20_000),
        (("meter", "usec"), (3000.0, 2000.0), 20_000_000),
        (("micron", "hz"), (0.003, 0.002), None),
        (("unknown", "unknown"), None, None),
    ],
)
def test_spacing_and_times_have_the_units_of_the_header(tmp_path, units, spacing, rate):
    image = nibabel.Nifti1Image(volume(7, 5, 3, 6), np.diag([2.0, 3.0, 4.0, 1.0]))
    image.header.set_zooms((2.0, 3.0, 4.0, 0.05))
    image.header.set_xyzt_units(*units)
    image.to_filename(tmp_path / "cine.nii")
    metadata = probe_nifti(tmp_path / "cine.nii")
    assert metadata.spacing_mm == (None if spacing is None else pytest.approx(spacing))
    if rate is None:
        assert np.isnan(metadata.rate_hz)
        assert np.isnan(metadata.times.step_seconds)
    else:
        assert metadata.rate_hz == pytest.approx(rate)
        assert metadata.times.seconds()[5] == pytest.approx(5 / rate)


def test_time_that_is_not_the_fourth_axis_has_no_known_step(tmp_path):
    image = nibabel.Nifti1Image(volume(7, 5, 6), np.eye(4))
    image.header.set_xyzt_units("mm", "sec")
    image.to_filename(tmp_path / "cine.nii")
    assert np.isnan(probe_nifti(tmp_path / "cine.nii", reading=ReadOptions(axes="WHT")).rate_hz)


@pytest.mark.parametrize(("window", "expected"), [("file", (10, 200)), ("none", None), ("percentiles", (2, 247))])
def test_windows(tmp_path, window, expected):
    path = save(tmp_path / "cine.nii", volume(7, 5, 3, 60), cal_min=10, cal_max=200)
    metadata = probe_nifti(path, reading=ReadOptions(window=window))
    assert metadata.window == (None if expected is None else pytest.approx(expected, abs=1))
    with NiftiSource(path, metadata=metadata) as source:
        assert source.planes([0]).colour.window == metadata.window


@pytest.mark.parametrize(("low", "high"), [(0, 0), (5, 5), (9, 3), (np.nan, 4), (0, np.inf), (0, 1e-44)])
def test_a_calibration_that_says_nothing_is_no_window(tmp_path, low, high):
    assert probe_nifti(save(tmp_path / "cine.nii", volume(7, 5, 3, 6), cal_min=low, cal_max=high)).window is None


def test_texts_of_the_header_go_nowhere(tmp_path):
    secret = b"DOE^JANE 1970"
    path = save(
        tmp_path / "cine.nii", volume(7, 5, 3, 6), descrip=secret, aux_file=secret, db_name=secret, intent_name=secret
    )
    metadata = probe_nifti(path)
    assert "DOE" not in repr(asdict(metadata))
    assert metadata.tags == {"orientation": "RAS"}


def test_an_orientation_that_nobody_wrote_is_not_told(tmp_path):
    image = nibabel.Nifti1Image(volume(7, 5, 3, 6), None)
    image.to_filename(tmp_path / "cine.nii")
    assert probe_nifti(tmp_path / "cine.nii").tags == {}


def test_a_file_that_is_cut_off_keeps_its_whole_frames(tmp_path):
    array = volume(7, 5, 3, 6)
    path = save(tmp_path / "cine.nii", array)
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])  # slice 1 of the last frame lacks its last 5 bytes
    assert probe_nifti(path, part="slice=0").error is None
    metadata = probe_nifti(path, part="slice=1")
    assert metadata.error == "breaks after 5 of 6 frames: the file is cut off"
    conforms(path, metadata, part="slice=1")
    path.write_bytes(whole[:380])
    with pytest.raises(SourceError, match=r"cine\.nii: 0 of 6 frames are whole"):
        probe_nifti(path)
    path.write_bytes(whole[:200])
    with pytest.raises(SourceError, match="is not a NIfTI file"):
        probe_nifti(path)


def noisy(path):
    array = np.random.default_rng(0).integers(0, 60, (64, 64, 2, 50), np.uint8)
    return save(path, array), array


def test_a_compressed_file_that_is_cut_off(tmp_path):
    path, array = noisy(tmp_path / "cine.nii.gz")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    metadata = probe_nifti(path, part="slice=1")
    assert 20 < metadata.times.count < 26
    assert metadata.error.startswith(f"breaks after {metadata.times.count} of 50 frames: it cannot be decompressed")
    conforms(path, metadata, part="slice=1")
    with NiftiSource(path, part="slice=1", metadata=metadata) as source:
        np.testing.assert_array_equal(source.read([19])[0, ..., 0], array[:, :, 1, 19].T)
    trusted = probe_nifti(path, part="slice=1", verify="packets")
    assert trusted.error is None
    with NiftiSource(path, part="slice=1", metadata=trusted) as source:
        with pytest.raises(DecodeError, match=r"cine\.nii\.gz: frame 40 cannot be decompressed"):
            source.read([3, 40])
        np.testing.assert_array_equal(source.read([3])[0, ..., 0], array[:, :, 1, 3].T)
    path.write_bytes(whole[:8])
    with pytest.raises(SourceError, match="its header cannot be read"):
        probe_nifti(path)


def test_frames_that_interleave_in_a_compressed_file_that_is_cut_off(tmp_path):
    array = np.random.default_rng(0).integers(0, 60, (5000, 3, 2, 2), np.uint8)
    path = save(tmp_path / "cine.nii.gz", array)
    path.write_bytes(path.read_bytes()[:-30])
    metadata = probe_nifti(path, part="slice=1", reading=ReadOptions(axes="TWHZ"))
    assert 4900 < metadata.times.count < 5000
    with NiftiSource(path, part="slice=1", metadata=metadata) as source:
        last = len(source) - 1
        np.testing.assert_array_equal(source.read([last, 0])[..., 0], array[[last, 0], :, :, 1].transpose(0, 2, 1))


def test_a_compressed_file_with_damage(tmp_path):
    path, _ = noisy(tmp_path / "cine.nii.gz")
    whole = path.read_bytes()
    path.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
    metadata = probe_nifti(path)
    assert metadata.times.count == 50
    assert metadata.error.startswith(
        "all 50 frames can be read, but any may be wrong: its checksum does not match (CRC"
    )
    conforms(path, metadata)
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + b"\xff" * middle)  # decodes to more than there should be
    assert probe_nifti(path).error.startswith("all 50 frames can be read, but any may be wrong: it cannot be decomp")
    assert str(tmp_path) not in probe_nifti(path).error


def test_what_is_appended_to_a_compressed_file_does_no_harm(tmp_path):
    path, _ = noisy(tmp_path / "cine.nii.gz")
    path.write_bytes(path.read_bytes() + b"appended")
    assert probe_nifti(path).error is None


def test_frames_of_one_request_are_one_pass(tmp_path, monkeypatch):
    path, _ = noisy(tmp_path / "cine.nii.gz")
    metadata = probe_nifti(path)
    rewinds = []
    honest = gzip._GzipReader._rewind
    monkeypatch.setattr(gzip._GzipReader, "_rewind", lambda reader: rewinds.append(1) or honest(reader))
    with NiftiSource(path, metadata=metadata) as source:
        source.read([49, 3, 20, 3, 0])
        assert rewinds == []
        source.read([0])
        assert rewinds == [1]


def test_one_pass_tells_for_all_slices(tmp_path, monkeypatch):
    path, _ = noisy(tmp_path / "cine.nii.gz")
    opened = []
    honest = stored.open_packed
    monkeypatch.setattr(stored, "open_packed", lambda *which: opened.append(which) or honest(*which))
    for part in nifti_parts(path, ReadOptions(slice="each")):
        probe_nifti(path, part=part)
    assert len(opened) == 1


def peak_bytes(read) -> int:
    tracemalloc.start()
    try:
        read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_only_requested_frames_of_a_large_file_are_read(tmp_path):
    header = nibabel.Nifti1Header()
    header.set_data_shape((1000, 1000, 40, 1600))
    header.set_data_dtype(np.uint8)
    header.set_data_offset(352)
    header["magic"] = b"n+1"
    path = tmp_path / "large.nii"
    with path.open("wb") as file:
        file.write(header.binaryblock)
        file.truncate(352 + 64 * 10**9)
    nifti_parts(path)  # nibabel is imported

    def read():
        with NiftiSource(path, metadata=probe_nifti(path)) as source:
            assert source.read([5, 1500, 0]).shape == (3, 1000, 1000, 1)

    assert peak_bytes(read) < 10e6  # of 64 GB


def test_of_a_compressed_file_only_the_frames_asked_for_are_kept(tmp_path):
    path = save(tmp_path / "cine.nii.gz", np.zeros((500, 500, 2, 100), np.uint8))
    metadata = probe_nifti(path)

    def read():
        with NiftiSource(path, metadata=metadata) as source:
            source.read([99, 3, 50])

    assert peak_bytes(read) < 6e6  # of 50 MB


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("datatype", 9999),
        ("vox_offset", np.nan),
        ("vox_offset", 12),
        ("dim", [-3] * 8),
        ("datatype", 32),
        ("datatype", 128),
    ],
)
def test_headers_that_make_no_sense(tmp_path, field, value):
    path = save(tmp_path / "cine.nii", volume(7, 5, 3, 6))
    raw = path.read_bytes()
    header = nibabel.Nifti1Header(raw[:348], check=False)
    header[field] = value
    path.write_bytes(header.binaryblock + raw[348:])
    with pytest.raises(SourceError, match=r"cine\.nii: "):
        probe_nifti(path)


def test_what_is_no_nifti_file(tmp_path):
    path = tmp_path / "cine.nii"
    path.write_bytes(b"no NIfTI" * 100)
    with pytest.raises(SourceError, match="is not a NIfTI file"):
        probe_nifti(path)
    with pytest.raises(SourceError, match="its header cannot be read"):
        probe_nifti(tmp_path / "missing.nii")
    nibabel.Nifti1Pair(volume(7, 5, 3, 6), np.eye(4)).to_filename(tmp_path / "pair.hdr")
    with pytest.raises(SourceError, match="that contains its numbers"):
        probe_nifti(tmp_path / "pair.hdr")


def test_a_file_that_has_shrunk_since_the_scan_raises(tmp_path):
    path = save(tmp_path / "cine.nii", volume(7, 5, 3, 6))
    metadata = probe_nifti(path)
    save(path, volume(7, 5, 3, 4))
    with pytest.raises(SourceError, match="its metadata has 6 frames, the file has 4; scan it again"):
        NiftiSource(path, metadata=metadata)


@pytest.mark.parametrize("name", ["example4d.nii.gz", "functional.nii"])
def test_real_files(data, name):
    path = data / "nifti" / name
    expected = nibabel.load(path).get_fdata(dtype=np.float32)
    for part in nifti_parts(path, ReadOptions(slice="each")):
        metadata = probe_nifti(path, part=part)
        assert metadata.error is None
        assert metadata.tags == {"orientation": "".join(nibabel.aff2axcodes(nibabel.load(path).affine))}
        with NiftiSource(path, part=part, metadata=metadata) as source:
            planes = source.planes(range(len(source))).frames
        number = int(part.removeprefix("slice="))
        np.testing.assert_array_equal([parts[0] for parts in planes], expected[:, :, number].transpose(2, 1, 0))
    conforms(path, probe_nifti(path))


def test_without_nibabel_the_extra_is_named(tmp_path, monkeypatch):
    path = save(tmp_path / "cine.nii", volume(7, 5, 3, 6))
    honest = builtins.__import__

    def refuse(name, *rest):
        if name == "nibabel":
            raise ModuleNotFoundError(name)
        return honest(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=r"pip install 'cinefeed\[nifti\]'"):
        probe_nifti(path)
