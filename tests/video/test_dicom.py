"""DICOM cine: pixels as pydicom has them, and what headers say of times, windows, spacing and regions."""

import builtins
import io
import subprocess
import sys

import numpy as np
import pydicom
import pytest
from made_dicom import AXIAL, numbered, write_dicom, write_slice
from made_jpeg import coded
from PIL import Image
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, convert_color_space
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
)

from cinefeed.core.errors import DecodeError, MissingExtraError, SourceError
from cinefeed.testing import check_source
from cinefeed.video.clips import Clip
from cinefeed.video.dicom import header as dicom_header
from cinefeed.video.dicom import pixels as dicom_pixels
from cinefeed.video.dicom.source import DicomSource, probe_dicom
from cinefeed.video.metadata import Region
from cinefeed.video.read_options import ReadOptions
from cinefeed.video.registry import open_video

NAMES = """
    CT0012.explicit_little_endian CT0012.fragmented_no_bot_jpeg_lossless.70 CT0012.not_fragmented_bot_jpeg_ls.80
    CT0012.not_fragmented_no_bot_rle IM00001.fragmented_no_bot_jpeg_baseline.50 IM00001.implicit_little_endian
    MR-MONO2-8-16x-heart OBXXXX1A_2frame OBXXXX1A_expb_2frame OBXXXX1A_rle_2frame SC_rgb_16bit_2frame SC_rgb_2frame
    SC_rgb_32bit_2frame SC_rgb_expb_2frame SC_rgb_rle_2frame emri_small emri_small_RLE emri_small_jpeg_2k_lossless
    emri_small_jpeg_ls_lossless examples_jpeg2k examples_palette examples_ybr_color
""".split()


def probed(path, *, part=None, files=(), **reading):
    return probe_dicom(path, part=part, files=files, reading=ReadOptions(**reading))


def opened(path, *, part=None, files=(), **reading):
    return DicomSource(path, part=part, metadata=probed(path, part=part, files=files, **reading))


def stored(path, **options):
    """Return the numbers of every frame, as the planes hold them."""
    with opened(path, **options) as source:
        return np.stack([frame[0] for frame in source.planes(range(len(source))).frames])


def displayed(path, **options):
    """Return every frame as pixels."""
    with opened(path, **options) as source:
        return source.read(range(len(source)))


def by_pydicom(path):
    """Return the numbers by pydicom alone: palettes and slopes applied, YBR as RGB."""
    ds = pydicom.dcmread(path)
    if path.name.endswith(".70.dcm"):  # lossless, for which pydicom has no decoder here; the same image as it was
        path = path.with_name("CT0012.explicit_little_endian.dcm")
    pixels = pydicom.dcmread(path).pixel_array
    if int(ds.get("NumberOfFrames", 1)) == 1:
        pixels = pixels[None]
    if ds.PhotometricInterpretation == "PALETTE COLOR":
        if ds.file_meta.TransferSyntaxUID == ExplicitVRBigEndian:  # which apply_color_lut does not mind
            for colour in ("Red", "Green", "Blue"):
                table = ds[f"{colour}PaletteColorLookupTableData"]
                table.value = np.frombuffer(table.value, ">u2").astype("<u2").tobytes()
        return apply_color_lut(pixels, ds)
    shared = list(ds.get("SharedFunctionalGroupsSequence", []))
    places = [[group, *shared] for group in ds.get("PerFrameFunctionalGroupsSequence", [])]
    name = "PixelValueTransformationSequence"
    scales = [place[name][0] for groups in places for place in groups if name in place]
    return np.stack([apply_modality_lut(*each) for each in zip(pixels, scales, strict=True)]) if scales else pixels


def must_equal_pydicom(frames, path):
    expected = by_pydicom(path)
    np.testing.assert_array_equal(frames, expected.astype(frames.dtype))
    if frames.dtype != np.float32:
        np.testing.assert_array_equal(frames, expected)  # nothing was lost by the type


def test_every_file_is_listed(data):
    assert sorted(path.stem for path in (data / "dicom").iterdir()) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # of values that pydicom reads for the comparison
def test_every_file_equals_pydicom(data, name):
    path = data / "dicom" / f"{name}.dcm"
    frames = stored(path)
    assert frames.dtype in (np.uint8, np.uint16, np.float32)
    must_equal_pydicom(frames, path)
    check_source(opened(path), reopen=lambda: opened(path))


@pytest.mark.parametrize("name", ["CT0012.explicit_little_endian", "examples_palette", "examples_ybr_color"])
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_a_difference_of_one_is_detected(data, name):
    path = data / "dicom" / f"{name}.dcm"
    frames = stored(path)
    frames[-1, 7, 9] += 1
    with pytest.raises(AssertionError):
        must_equal_pydicom(frames, path)


@pytest.mark.parametrize(("name", "count", "rate_hz"), [("IM00001", 8, 20.0), ("MR-MONO2", 16, 14.39)])
def test_the_doppler_and_the_heart_play_as_clips(data, name, count, rate_hz):
    with opened(next((data / "dicom").glob(f"{name}*"))) as source:
        assert (len(source), source.metadata.error) == (count, None)
        assert source.metadata.rate_hz == pytest.approx(rate_hz, abs=0.01)
        numbers, _ = Clip(frames=4, rate_hz=10, position="start").select(source.metadata.times)
        clip = source.read(numbers)
        assert clip.dtype == np.uint8
        assert all((clip[i] != clip[0]).any() for i in range(1, 4))  # it moves


def test_metadata_of_the_doppler_file(data):
    metadata = probed(data / "dicom" / "IM00001.fragmented_no_bot_jpeg_baseline.50.dcm")
    vector = [50.000, 33.333, 50.000, 50.000, 33.333, 43.333]
    np.testing.assert_allclose(np.diff(metadata.times.seconds())[:1] * 1000, vector[:1])
    assert metadata.tags == {"heart_rate_bpm": 150.0}
    assert metadata.regions == (Region(0, 16, 320, 232, "other"), Region(0, 16, 320, 218, "2d"))
    assert metadata.spacing_mm == pytest.approx((2.29375, 2.29375))
    assert (metadata.container, metadata.codec, metadata.pixel_format) == ("dicom", "JPEGBaseline8Bit", "YBR_FULL 8")


def test_a_region_ends_where_the_frame_does(data):
    metadata = probed(data / "dicom" / "examples_ybr_color.dcm")  # was made smaller, its regions were not
    assert metadata.regions == (Region(84, 31, metadata.width, metadata.height, "2d"),)
    assert metadata.tags == {}  # a heart rate of 0 is none


def test_uncompressed_frames_are_read_one_by_one(tmp_path):
    path = write_dicom(tmp_path / "cine.dcm", numbered(50, height=100, width=100))

    class Counting(io.FileIO):
        count = 0

        def read(self, size=-1):
            data = super().read(size)
            self.count += len(data)
            return data

    with opened(path) as source:
        source._file._file.close()
        source._file._file = Counting(path)
        assert source.read([41])[0, 5, 5, 0] == 41
        assert source._file._file.count == 100 * 100 * 2


# compressed files


def jpeg(frame):
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=95)
    return buffer.getvalue() + b"\0" * (buffer.tell() % 2)


def in_fragments(data, count):
    step = -(-len(data) // count // 2) * 2
    return [data[begin : begin + step] for begin in range(0, len(data), step)]


@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize("fragments", [1, 3])
def test_compressed_frames_without_a_table_of_offsets(tmp_path, table, fragments):
    frames = numbered(6, height=32, width=32, dtype="uint8", start=100)
    encoded = [in_fragments(jpeg(frame), fragments) for frame in frames]
    path = write_dicom(tmp_path / "cine.dcm", frames, syntax=JPEGBaseline8Bit, encoded=encoded, table=table)
    with opened(path) as source:
        assert source.read([5, 0, 3])[:, 20, 20, 0].tolist() == [105, 100, 103]
        assert source.metadata.error is None and len(source) == 6


def test_a_compressed_file_that_is_cut_off_keeps_its_whole_frames(tmp_path):
    frames = numbered(6, height=32, width=32, dtype="uint8", start=100)
    path = write_dicom(tmp_path / "cine.dcm", frames, syntax=JPEGBaseline8Bit, encoded=[[jpeg(f)] for f in frames])
    whole = path.read_bytes()
    path.write_bytes(whole[:-700])
    metadata = probed(path)
    assert 0 < metadata.times.count < 6 and metadata.header_frames == 6
    assert metadata.error == f"breaks after {metadata.times.count} of 6 frames: the file is cut off"
    with DicomSource(path, metadata=metadata) as source:
        assert source.read([len(source) - 1])[0, 20, 20, 0] == 99 + len(source)
    path.write_bytes(whole[: whole.index(b"\xff\xd8") + 20])
    with pytest.raises(SourceError, match=r"cine\.dcm: 0 of 6 frames are whole"):
        probed(path)


def test_a_frame_that_does_not_decode_ends_the_clip(tmp_path):
    frames = numbered(5, height=32, width=32, dtype="uint8", start=100)
    encoded = [[jpeg(frame)] for frame in frames]
    rubbish = [b"\xff\xd8" + bytes(100) + b"\xff\xd9"]
    encoded[3] = rubbish
    path = write_dicom(tmp_path / "cine.dcm", frames, syntax=JPEGBaseline8Bit, encoded=encoded)
    metadata = probed(path)
    assert metadata.times.count == 3
    assert metadata.error.startswith("breaks after 3 of 5 frames: ") and "cine.dcm" not in metadata.error
    write_dicom(path, frames, syntax=JPEGBaseline8Bit, encoded=[rubbish] * 5)
    with pytest.raises(DecodeError, match=r"cine\.dcm: frame 0 of 5 cannot be decoded"):
        probed(path)


def test_lossless_jpeg_is_read_as_the_header_has_it(tmp_path):
    values = np.random.default_rng(0).integers(-2048, 2048, (2, 12, 16), np.int16)
    encoded = [[coded(frame[..., None].astype(np.uint16) & 0xFFF, bits=12, predictor=6)] for frame in values]
    path = write_dicom(
        tmp_path / "a.dcm", values, syntax=JPEGLossless, encoded=encoded, BitsStored=12, HighBit=11, RescaleSlope=1
    )
    frames = stored(path)
    assert frames.dtype == np.float32
    np.testing.assert_array_equal(frames, values)
    colours = np.random.default_rng(0).integers(0, 256, (1, 12, 16, 3), np.uint8)
    encoded = [[coded(colours[0].astype(np.uint16), bits=8, interleaved=False)]]
    path = write_dicom(tmp_path / "b.dcm", colours, syntax=JPEGLosslessSV1, encoded=encoded)
    np.testing.assert_array_equal(stored(path), colours)
    write_dicom(path, colours, syntax=JPEGLosslessSV1, encoded=encoded, PhotometricInterpretation="YBR_FULL")
    np.testing.assert_array_equal(stored(path)[0], convert_color_space(colours[0], "YBR_FULL", "RGB"))
    write_dicom(path, colours[:, :5], syntax=JPEGLosslessSV1, encoded=encoded)
    with pytest.raises(DecodeError, match="differs from the header"):
        probed(path)


def test_jpeg_ls_that_breaks_off_is_not_waited_for(data, tmp_path):
    whole = (data / "dicom" / "emri_small_jpeg_ls_lossless.dcm").read_bytes()
    path = tmp_path / "cut.dcm"
    path.write_bytes(bytes(whole[: whole.rindex(b"\xff\xd9")] + bytes(len(whole) - whole.rindex(b"\xff\xd9"))))
    assert probed(path).error == "breaks after 9 of 10 frames: EOFError: the image breaks off"


def test_an_unsupported_syntax_raises(tmp_path):
    path = write_dicom(
        tmp_path / "cine.dcm", numbered(2), syntax="1.2.840.10008.1.2.4.52", encoded=[[b"abcd"], [b"efgh"]]
    )
    with pytest.raises(SourceError, match=r"cine\.dcm: its pixels are JPEG Extended.*; convert the file"):
        probed(path)
    colour = np.zeros((2, 8, 8, 3), np.uint16)
    write_dicom(path, colour, syntax=JPEGExtended12Bit, encoded=[[b"abcd"]] * 2, BitsStored=12, HighBit=11)
    with pytest.raises(SourceError, match=r"JPEG Extended .* of 12 bits, which cannot be read"):
        probed(path)


def test_a_missing_package_raises(data, tmp_path, monkeypatch):
    path = data / "dicom" / "emri_small_RLE.dcm"
    monkeypatch.setattr(dicom_pixels, "_OF_OTHERS", ())
    with pytest.raises(MissingExtraError, match=r"a decoder of RLE Lossless .*cinefeed\[dicom\]"):
        probed(path)
    dicom_header._tags_of.cache_clear()
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(MissingExtraError, match=r"pydicom is not installed; run: pip install 'cinefeed\[dicom\]'"):
        probed(path)


# uncompressed files


def test_an_uncompressed_file_that_is_cut_off_keeps_its_whole_frames(tmp_path):
    path = write_dicom(tmp_path / "cine.dcm", numbered(10))
    whole = path.read_bytes()
    path.write_bytes(whole[: -12 * 16 * 2 * 3 + 7])
    metadata = probed(path)
    assert (metadata.times.count, metadata.header_frames) == (7, 10)
    assert metadata.error == "breaks after 7 of 10 frames: the file is cut off"
    check_source(DicomSource(path, metadata=metadata), reopen=lambda: DicomSource(path, metadata=metadata))
    path.write_bytes(whole[: -12 * 16 * 2 * 10 + 3])
    with pytest.raises(SourceError, match="0 of 10 frames are whole"):
        probed(path)


def test_a_file_that_has_changed_since_the_scan_raises(tmp_path):
    path = write_dicom(tmp_path / "cine.dcm", numbered(10))
    metadata = probed(path)
    write_dicom(path, numbered(6))
    with pytest.raises(SourceError, match="its metadata has 10 frames, the file has 6; scan it again"):
        DicomSource(path, metadata=metadata)
    write_dicom(path, numbered(10, dtype="uint8"))
    with DicomSource(path, metadata=metadata) as source, pytest.raises(SourceError, match="MONOCHROME2 8; the scan"):
        source.read([0])


def test_a_deflated_file(tmp_path):
    path = write_dicom(tmp_path / "cine.dcm", numbered(10), syntax=DeflatedExplicitVRLittleEndian)
    assert stored(path)[:, 5, 5].tolist() == list(range(10))


def test_a_header_that_counts_no_frames(tmp_path):
    path = write_dicom(tmp_path / "cine.dcm", numbered(10), NumberOfFrames=None)
    assert probed(path).times.count == len(pydicom_frames(path)) == 10


@pytest.mark.filterwarnings("ignore:The number of bytes of pixel data is sufficient")
def pydicom_frames(path):
    with pytest.warns(UserWarning, match="sufficient to contain 10 frames"):
        return pydicom.dcmread(path).pixel_array


def test_planes_of_colour_one_after_the_other(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (3, 8, 10, 3), np.uint8)
    apart = np.ascontiguousarray(frames.transpose(0, 3, 1, 2)).reshape(frames.shape)
    path = write_dicom(tmp_path / "cine.dcm", apart, PlanarConfiguration=1)
    np.testing.assert_array_equal(stored(path), frames)


def test_fewer_bits_than_a_byte_holds(tmp_path):
    path = write_dicom(tmp_path / "six.dcm", numbered(10, dtype="uint8"), BitsStored=6, HighBit=5)
    metadata = probed(path)
    assert (metadata.bits, metadata.window) == (8, (0.0, 63.0))
    path = write_dicom(tmp_path / "eight.dcm", numbered(10), BitsStored=8, HighBit=7)
    assert stored(path).dtype == np.uint8 and displayed(path)[9, 5, 5, 0] == 9


def test_twelve_bits_fill_the_scale_unless_no_window_is_wanted(tmp_path):
    path = write_dicom(tmp_path / "cine.dcm", numbered(3, start=4093), BitsStored=12, HighBit=11)
    assert displayed(path)[2, 5, 5, 0] == 65535
    assert displayed(path, window="none")[2, 5, 5, 0] == 4095
    for window, white in (("file", 65535), ("none", 4095)):
        with open_video(path, reading=ReadOptions(window=window)) as video:
            frames = video.read([2])
        assert (frames.dtype, frames[0, 5, 5, 0]) == (np.uint16, white)


# windows and scales


@pytest.mark.parametrize(
    ("function", "centre", "width", "expected"),
    [
        (None, 40, 400, (-160, 239)),
        ("LINEAR", 2048, 4096, (0, 4095)),
        ("LINEAR_EXACT", 40, 400, (-160, 240)),
        ("SIGMOID", 40, 400, (-160, 240)),
        (None, 100, 1, (99, 100)),
        (None, [40, 300], [400, 2000], (-160, 239)),
    ],
)
def test_the_window_is_that_of_the_standard(tmp_path, function, centre, width, expected):
    path = write_dicom(
        tmp_path / "cine.dcm", numbered(2), WindowCenter=centre, WindowWidth=width, VOILUTFunction=function
    )
    assert probed(path).window == expected
    assert probed(path, window="none").window is None


def test_the_window_maps_as_pydicom_applies_it(tmp_path):
    values = np.arange(256, dtype=np.uint16).reshape(1, 16, 16) * 16
    path = write_dicom(tmp_path / "cine.dcm", values, WindowCenter=1000, WindowWidth=1500, BitsStored=12, HighBit=11)
    ds = pydicom.dcmread(path)
    expected = pydicom.pixels.apply_voi_lut(ds.pixel_array, ds) / 4095 * 65535
    np.testing.assert_allclose(displayed(path)[0, :, :, 0], expected, atol=1)


def test_signed_ct_with_a_window(tmp_path):
    values = numbered(5, dtype="int16", start=-3) * 100
    path = write_dicom(
        tmp_path / "ct.dcm",
        values,
        Modality="CT",
        RescaleSlope=2,
        RescaleIntercept=-1024,
        WindowCenter=-1000,
        WindowWidth=1001,
    )
    frames = stored(path)
    assert frames.dtype == np.float32
    np.testing.assert_array_equal(frames, values * 2.0 - 1024)
    assert probed(path).window == (-1500.5, -500.5)
    assert probed(path).pixel_format == "MONOCHROME2 16 signed"
    pixels = displayed(path)[:, 5, 5, 0]
    np.testing.assert_allclose(pixels, np.clip((frames[:, 5, 5] + 1500.5) / 1000 * 255, 0, 255), rtol=1e-5)
    np.testing.assert_array_equal(displayed(path, window="none")[..., 0], frames)


def test_without_a_window_the_full_range_of_the_bits_is_displayed(tmp_path):
    path = write_dicom(
        tmp_path / "ct.dcm", numbered(2, dtype="int16"), BitsStored=12, HighBit=11, RescaleIntercept=-1000
    )
    assert probed(path).window == (-2048 - 1000, 2047 - 1000)
    path = write_dicom(tmp_path / "mr.dcm", numbered(2))
    assert probed(path).window is None


def test_monochrome1_is_displayed_inverted(tmp_path):
    frames = numbered(3, dtype="uint8", start=10)
    path = write_dicom(tmp_path / "a.dcm", frames, PhotometricInterpretation="MONOCHROME1")
    assert displayed(path)[:, 5, 5, 0].tolist() == [245, 244, 243]
    assert displayed(path, window="none")[:, 5, 5, 0].tolist() == [10, 11, 12]
    assert probed(path, window="percentiles").window == (12.0, 10.0)
    path = write_dicom(
        tmp_path / "b.dcm", frames, PhotometricInterpretation="MONOCHROME1", WindowCenter=50.5, WindowWidth=101
    )
    assert probed(path).window == (100.0, 0.0)


def test_percentiles_are_of_all_frames(tmp_path):
    frames = np.arange(100, dtype=np.uint16).repeat(12 * 16).reshape(100, 12, 16)
    path = write_dicom(tmp_path / "cine.dcm", frames, WindowCenter=5, WindowWidth=3)
    black, white = probed(path, window="percentiles").window
    assert 0 <= black < 5 and 94 < white <= 99
    rgb = write_dicom(tmp_path / "rgb.dcm", np.zeros((2, 4, 4, 3), np.uint8))
    assert probed(rgb, window="percentiles").window is None


def test_a_table_of_display_values_becomes_a_line(tmp_path):
    table = {"LUTDescriptor": [1024, 100, 16], "LUTData": bytes(2048)}
    path = write_dicom(tmp_path / "voi.dcm", numbered(2), VOILUTSequence=table)
    assert probed(path).window == (100.0, 1123.0)
    path = write_dicom(tmp_path / "xa.dcm", numbered(2), ModalityLUTSequence=table, Modality="XA")
    assert probed(path).window is None


# enhanced multi-frame files


def group(*, delay=None, position=None, directions=AXIAL, centre=None, slope=None):
    items = {"PlaneOrientationSequence": {"ImageOrientationPatient": list(directions)}}
    if delay is not None:
        items["CardiacSynchronizationSequence"] = {
            "NominalCardiacTriggerDelayTime": delay,
            "RRIntervalTimeNominal": 800.0,
        }
    if position is not None:
        items["PlanePositionSequence"] = {"ImagePositionPatient": [0, 0, position]}
    if centre is not None:
        items["FrameVOILUTSequence"] = {"WindowCenter": centre, "WindowWidth": 101}
    if slope is not None:
        items["PixelValueTransformationSequence"] = {"RescaleSlope": slope, "RescaleIntercept": 1}
    return items


def test_enhanced_mr_has_slopes_windows_and_delays_of_each_frame(tmp_path):
    groups = [group(delay=40.0 * i, centre=50 + i, slope=i + 1) for i in range(5)]
    shared = {"PixelMeasuresSequence": {"PixelSpacing": [1.5, 1.25]}}
    path = write_dicom(
        tmp_path / "mr.dcm",
        numbered(5, start=10),
        PerFrameFunctionalGroupsSequence=groups,
        SharedFunctionalGroupsSequence=shared,
    )
    metadata = probed(path)
    assert stored(path)[:, 5, 5].tolist() == [(10 + i) * (i + 1) + 1 for i in range(5)]
    assert metadata.window == (52 - 0.5 - 50, 52 - 0.5 + 50)  # of the third, in the middle
    assert metadata.spacing_mm == (1.5, 1.25)
    assert metadata.tags == {"heart_rate_bpm": 75.0}
    assert (metadata.times.step_seconds, metadata.rate_hz) == (pytest.approx(0.04), pytest.approx(25))
    check_source(opened(path), reopen=lambda: opened(path))


def test_a_plane_of_a_file_with_several(tmp_path):
    groups = [group(delay=30.0 * phase, position=8.0 * plane) for plane in range(3) for phase in (1, 0, 2)]
    path = write_dicom(tmp_path / "mr.dcm", numbered(9), PerFrameFunctionalGroupsSequence=groups)
    assert stored(path)[:, 5, 5].tolist() == list(range(9))
    assert stored(path, part="plane-02")[:, 5, 5].tolist() == [4, 3, 5]
    metadata = probed(path, part="plane-02")
    np.testing.assert_allclose(metadata.times.seconds(), [0, 0.03, 0.06])
    with pytest.raises(SourceError, match=r"mr\.dcm: has no part 'plane-04'; did you mean 'plane-0"):
        probed(path, part="plane-04")
    path.write_bytes(path.read_bytes()[: -12 * 16 * 2 * 5])  # frames 4 to 8
    assert probed(path, part="plane-01").error is None
    with pytest.raises(SourceError, match="frames are whole"):
        probed(path, part="plane-02")


# times, spacing, tags


@pytest.mark.parametrize(
    ("elements", "step"),
    [
        ({"FrameTime": 40}, 0.04),
        ({"FrameTimeVector": [0, 50, 50, 50, 50]}, 0.05),
        ({"FrameTimeVector": [0, 50], "CineRate": 25}, 0.04),  # a vector of other frames
        ({"RecommendedDisplayFrameRate": 50}, 0.02),
        ({"ActualFrameDuration": 25}, 0.025),
        ({"EffectiveDuration": 2.0}, 0.4),
        ({"FrameTime": 0, "CineRate": 10}, 0.1),
        ({}, float("nan")),
    ],
)
def test_frame_times(tmp_path, elements, step):
    times = probed(write_dicom(tmp_path / "cine.dcm", numbered(5), **elements)).times
    assert times.step_seconds == pytest.approx(step, nan_ok=True)
    assert times.listed is None and times.count == 5


def test_irregular_frame_times(tmp_path):
    metadata = probed(write_dicom(tmp_path / "cine.dcm", numbered(4), FrameTimeVector=[99, 10, 20, 30]))
    np.testing.assert_allclose(metadata.times.seconds(), [0, 0.01, 0.03, 0.06])
    assert metadata.rate_hz == pytest.approx(50)


def test_date_times_of_frames(tmp_path):
    stamps = ["20240101235959.900000", "20240102000000.000000", "20240102000000.100000"]
    groups = [{"FrameContentSequence": {"FrameReferenceDateTime": stamp}} for stamp in stamps]
    metadata = probed(write_dicom(tmp_path / "cine.dcm", numbered(3), PerFrameFunctionalGroupsSequence=groups))
    np.testing.assert_allclose(metadata.times.seconds(), [0, 0.1, 0.2], atol=1e-5)


def test_spacing_pixel_shape_and_tags(tmp_path):
    metadata = probed(write_dicom(tmp_path / "a.dcm", numbered(2), PixelSpacing=[1.5, 1.25], BurnedInAnnotation="YES"))
    assert (metadata.spacing_mm, metadata.tags) == ((1.5, 1.25), {"burned_in": "YES"})
    metadata = probed(write_dicom(tmp_path / "b.dcm", numbered(2), ImagerPixelSpacing=[0.2, 0.3], HeartRate=61))
    assert (metadata.spacing_mm, metadata.tags) == ((0.2, 0.3), {"heart_rate_bpm": 61.0})
    path = write_dicom(tmp_path / "c.dcm", numbered(2), PixelAspectRatio=[1, 2], NominalInterval=750)
    metadata = probed(path)
    assert (metadata.aspect, metadata.height, metadata.width) == (2.0, 12, 32)
    assert metadata.tags == {"heart_rate_bpm": 80.0}
    check_source(opened(path), reopen=lambda: opened(path))


def test_ultrasound_regions_have_kinds(tmp_path):
    kinds = {(1, 1): "2d", (1, 2): "colour", (2, 1): "m-mode", (3, 3): "pw", (3, 4): "cw", (4, 10): "other"}
    regions = [
        {
            "RegionSpatialFormat": form,
            "RegionDataType": data,
            "RegionLocationMinX0": i,
            "RegionLocationMinY0": 2,
            "RegionLocationMaxX1": i + 3,
            "RegionLocationMaxY1": 7,
        }
        for i, (form, data) in enumerate(kinds)
    ]
    metadata = probed(write_dicom(tmp_path / "us.dcm", numbered(2), SequenceOfUltrasoundRegions=regions))
    assert metadata.regions == tuple(Region(i, 2, i + 4, 8, kind) for i, kind in enumerate(kinds.values()))


# a file a frame


def a_series(folder, *, count=5, **elements):
    names = [f"{'cbade'[i]}.dcm" for i in range(count)]
    for i, name in enumerate(names):
        write_slice(
            folder / name, value=100 + i, uid=f"1.2.{i}", InstanceNumber=i + 1, TriggerTime=30.5 * i, **elements
        )
    return names


def test_a_series_is_read_file_by_file(tmp_path):
    names = a_series(tmp_path, HeartRate=70, PixelSpacing=[2, 2], WindowCenter=100, WindowWidth=51)
    metadata = probed(tmp_path, files=names)
    assert metadata.files == tuple(names) and metadata.window == (74.5, 124.5)
    np.testing.assert_allclose(metadata.times.seconds(), np.arange(5) * 0.0305)
    assert metadata.tags == {"heart_rate_bpm": 70.0}
    with DicomSource(tmp_path, part="8digits/plane-01", metadata=metadata) as source:
        assert [frame[0][0, 0] for frame in source.planes([4, 0, 2]).frames] == [104, 100, 102]
    check_source(DicomSource(tmp_path, metadata=metadata), reopen=lambda: DicomSource(tmp_path, metadata=metadata))
    (tmp_path / names[2]).unlink()
    with (
        DicomSource(tmp_path, metadata=metadata) as source,
        pytest.raises(SourceError, match=r"a\.dcm: cannot be read"),
    ):
        source.read([0, 1, 2])


def test_a_series_breaks_where_a_file_does(tmp_path):
    names = a_series(tmp_path)
    broken = tmp_path / names[3]
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-50])
    metadata = probed(tmp_path, files=names)
    assert (metadata.times.count, metadata.header_frames, len(metadata.files)) == (3, 5, 5)
    assert metadata.error == "breaks after 3 of 5 frames: its frame is cut off"
    write_dicom(broken, numbered(1, height=14))
    assert probed(tmp_path, files=names).error.endswith("differs from the frames before in size or kind of pixels")
    broken.write_bytes(b"nothing")
    assert "does not begin like a DICOM file" in probed(tmp_path, files=names).error
    with pytest.raises(SourceError, match=r"\.dcm: cannot be read as DICOM"):
        probed(tmp_path, files=names[3:])


def test_one_file_with_a_slope_makes_all_float(tmp_path):
    names = a_series(tmp_path)
    write_slice(tmp_path / names[1], value=7, uid="1.2.9", RescaleSlope=0.5, RescaleIntercept=3)
    frames = stored(tmp_path, files=names)
    assert frames.dtype == np.float32
    assert frames[:, 0, 0].tolist() == [100, 6.5, 102, 103, 104]


@pytest.mark.parametrize(
    ("elements", "step"),
    [
        ({"TriggerTime": None, "NominalInterval": 800, "CardiacNumberOfImages": 5}, 0.16),
        ({"TriggerTime": None, "TemporalResolution": 45}, 0.045),
        ({"TriggerTime": None}, float("nan")),
    ],
)
def test_a_series_without_trigger_times(tmp_path, elements, step):
    names = [f"{i}.dcm" for i in range(5)]
    for i, name in enumerate(names):
        write_slice(tmp_path / name, value=i, uid=f"1.2.{i}", **elements)
    assert probed(tmp_path, files=names).times.step_seconds == pytest.approx(step, nan_ok=True)


# what cannot be read


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"PhotometricInterpretation": "YBR_PARTIAL_420"}, "in colours that cannot be read"),
        ({"SamplesPerPixel": 3}, "in colours that cannot be read"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "no palette"),
        ({"BitsAllocated": 12, "BitsStored": 12, "HighBit": 11}, "has 12 bits per sample"),
        ({"BitsAllocated": 1, "PhotometricInterpretation": "PALETTE COLOR"}, "has 1 bit per sample"),
        ({"Rows": 0}, "without an image"),
        ({"Rows": 65535, "Columns": 65535}, "beyond max_frame_bytes"),
        ({"Rows": None}, "without an image"),
    ],
)
def test_unreadable_files_raise(tmp_path, elements, message):
    path = write_dicom(tmp_path / "odd.dcm", numbered(2), **elements)
    with pytest.raises(SourceError, match=rf"odd\.dcm: .*{message}"):
        probed(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(SourceError, match=r"gone\.dcm: cannot be read \(No such file"):
        probed(tmp_path / "gone.dcm")


IMPORTS = """
import sys, threading
sys.setswitchinterval(1e-6)
from cinefeed.video.dicom import header, pixels
start, errors = threading.Barrier(4), []

def run(function, *arguments):
    start.wait()
    try:
        function(*arguments)
    except Exception as error:
        errors.append(repr(error))

uses = [
    (header.syntax_name, "1.2.840.10008.1.2"),
    (header._tags_of, frozenset({"Rows"})),
    (header.Header().in_words, "PatientName"),
    (lambda: header.load_pydicom().pixels.get_decoder("1.2.840.10008.1.2"),),
]
threads = [threading.Thread(target=run, args=each) for each in uses]
for each in threads:
    each.start()
for each in threads:
    each.join()
print(errors)
"""


@pytest.mark.parametrize("number", range(3))
def test_threads_may_use_pydicom_for_the_first_time_at_once(number):
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_an_import_that_fails_for_another_reason_is_not_called_missing(monkeypatch):
    honest = builtins.__import__

    def fail(name, *rest):
        if name == "pydicom":
            raise ImportError("cannot import name 'UID' from partially initialized module 'pydicom.uid'")
        return honest(name, *rest)

    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(ImportError, match="partially initialized") as caught:
        dicom_header.load_pydicom()
    assert not isinstance(caught.value, MissingExtraError)
