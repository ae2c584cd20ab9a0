"""DICOM numbers that are not what their bytes seem to be: signs, tables, segments, 12-bit JPEG, single bits."""

import sys
import warnings

import numpy as np
import pydicom
import pytest
from made_dicom import numbered, write_dicom, write_slice
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGExtended12Bit,
    RLELossless,
)

from cinefeed import Manifest
from cinefeed.core.errors import DecodeError, MissingExtraError, SourceError
from cinefeed.testing import check_source, stored_metadata
from cinefeed.video.dicom.source import DicomSource, probe_dicom
from cinefeed.video.read_options import ReadOptions

NATIVE = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
BOTH_ORDERS = [ExplicitVRLittleEndian, ExplicitVRBigEndian]


def stored(path, **reading):
    """Return the numbers of every frame, as the planes hold them."""
    metadata = probe_dicom(path, reading=ReadOptions(**reading))
    with DicomSource(path, metadata=metadata) as source:
        return np.stack([frame[0] for frame in source.planes(range(len(source))).frames])


def in_order(values, syntax):
    """Return values with the bytes in the order of a transfer syntax."""
    return values.astype(values.dtype.newbyteorder(">" if syntax == ExplicitVRBigEndian else "<"))


def words(data, syntax):
    """Return bytes as they lie in a file whose elements are words."""
    data = bytes(data) + bytes(len(data) % 2)
    return np.frombuffer(data, "<u2").astype(">u2").tobytes() if syntax == ExplicitVRBigEndian else data


# signs and bits that are not used


@pytest.mark.parametrize("syntax", [*NATIVE, RLELossless], ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize(
    ("dtype", "bits"), [("i1", 8), ("i1", 7), ("i2", 16), ("i2", 12), ("i4", 20), ("u1", 6), ("u2", 12)]
)
@pytest.mark.parametrize("place", ["low", "low, others set", "high"])
def test_numbers_keep_sign_and_value_wherever_their_bits_are(tmp_path, syntax, dtype, bits, place):
    allocated, signed = 8 * np.dtype(dtype).itemsize, dtype[0] == "i"
    low = -(1 << bits - 1) if signed else 0
    values = np.random.default_rng(0).integers(low, low + (1 << bits), (2, 9, 11)).astype(dtype)
    values[:, 0, :2] = low, low + (1 << bits) - 1
    shift = allocated - bits if place == "high" else 0
    laid = values << shift
    if place == "low, others set" and bits < allocated:
        laid = (laid.astype("i8") & (1 << bits) - 1 | 1 << allocated - 1).astype(f"u{allocated // 8}").view(dtype)
    if syntax == RLELossless and allocated < 32:  # pydicom encodes no wider ones
        native = write_dicom(tmp_path / "native.dcm", laid)
        ds = pydicom.dcmread(native)
        ds.compress(RLELossless, generate_instance_uid=False)
        ds.BitsStored, ds.HighBit = bits, bits - 1 + shift
        path = tmp_path / "a.dcm"
        ds.save_as(path)
    else:
        syntax = ExplicitVRLittleEndian if syntax == RLELossless else syntax
        path = write_dicom(
            tmp_path / "a.dcm", in_order(laid, syntax), syntax=syntax, BitsStored=bits, HighBit=bits - 1 + shift
        )
    pixels = stored(path, window="none")
    np.testing.assert_array_equal(pixels, values)
    assert (pixels.dtype == np.float32) is signed


def test_signed_numbers_keep_their_order_and_name_no_window(tmp_path):
    values = np.array([[[-32768, -1, 0, 32767]]], "i2")
    path = write_dicom(tmp_path / "a.dcm", values)
    with DicomSource(path, metadata=probe_dicom(path)) as source:
        scaled = (values.ravel() + 32768.0) / 65535 * 255  # the range that 16 bits can hold, as float32
        np.testing.assert_allclose(source.read([0]).ravel(), scaled, atol=1e-3)
        source.dtype = "uint8"
        with pytest.raises(SourceError, match="do not define black and white"):
            source.read([0])


# Modality LUT


def lut(count, first, bits, data):
    return {"LUTDescriptor": [count, first, bits], "LUTData": data, "ModalityLUTType": "OD"}


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian], ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize(("dtype", "first"), [("u2", 100), ("i2", -100), ("u1", 3)])
def test_a_modality_lut_is_applied_as_pydicom_does(tmp_path, syntax, dtype, first):
    values = (
        np.random.default_rng(0).integers(max(first - 50, np.iinfo(dtype).min), first + 99, (3, 8, 10)).astype(dtype)
    )
    table = np.random.default_rng(1).integers(0, 65536, 80).astype("<u2")
    path = write_dicom(
        tmp_path / "a.dcm",
        values,
        syntax=syntax,
        Modality="CR",
        ModalityLUTSequence=lut(80, first, 16, table.tobytes()),
    )
    ds = pydicom.dcmread(path)
    expected = apply_modality_lut(ds.pixel_array, ds)
    assert len(np.unique(expected)) > 50
    pixels = stored(path)
    np.testing.assert_array_equal(pixels, expected)
    assert pixels.dtype == np.float32 and probe_dicom(path).window == (0.0, 65535.0)
    metadata = probe_dicom(path)
    check_source(
        DicomSource(path, metadata=metadata), reopen=lambda: DicomSource(path, metadata=stored_metadata(metadata))
    )


def test_a_modality_lut_with_its_words_the_other_way_round_and_with_bytes(tmp_path):
    values, table = numbered(5, dtype="u2"), np.array([9, 7, 5, 3000, 1], ">u2")
    path = write_dicom(
        tmp_path / "a.dcm",
        in_order(values, ExplicitVRBigEndian),
        syntax=ExplicitVRBigEndian,
        Modality="CR",
        ModalityLUTSequence=lut(5, 0, 12, table.tobytes()),
    )
    assert stored(path)[:, 5, 5].tolist() == [9, 7, 5, 3000, 1]
    assert probe_dicom(path).window == (0.0, 4095.0)
    path = write_dicom(
        tmp_path / "b.dcm", values, Modality="CR", ModalityLUTSequence=lut(5, 0, 8, bytes([9, 7, 5, 200, 1, 0]))
    )
    assert stored(path)[:, 5, 5].tolist() == [9, 7, 5, 200, 1]
    write_dicom(path, values, Modality="CR", ModalityLUTSequence=lut(5, 0, 8, bytes(2)))
    with pytest.raises(
        SourceError, match=r"b\.dcm: the lookup table of its pixels cannot be read.*2 bytes for 5 entries"
    ):
        probe_dicom(path)


def test_each_file_of_a_series_has_its_own_table(tmp_path):
    for number in range(3):
        table = np.arange(10, dtype="<u2") * (number + 1)
        own = {"ModalityLUTSequence": lut(10, 0, 16, table.tobytes()), "Modality": "CR"}
        write_slice(tmp_path / f"{number}.dcm", value=4, uid=f"1.2.3.{number}", InstanceNumber=number + 1, **own)
    manifest = Manifest.scan(tmp_path, progress=False)
    with manifest.open(0) as source:
        assert [frame[0][5, 5] for frame in source.planes([0, 1, 2]).frames] == [4, 8, 12]
    write_slice(tmp_path / "2.dcm", value=4, uid="1.2.3.2", InstanceNumber=3, Modality="CR")
    assert "differs" in Manifest.scan(tmp_path, progress=False).column("error")[0].as_py()


# palettes


def palette(count, first, bits, columns, *, segmented=False):
    elements = {}
    for colour, data in zip(("Red", "Green", "Blue"), columns, strict=True):
        name = f"{colour}PaletteColorLookupTable"
        elements[f"{name}Descriptor"] = [count, first, bits]
        elements[f"{'Segmented' * segmented}{name}Data"] = data
    return {"PhotometricInterpretation": "PALETTE COLOR", **elements}


@pytest.mark.parametrize("syntax", NATIVE[:3], ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("dtype", "first"), [("u1", 0), ("u1", 5), ("u2", 300), ("i2", -20)])
def test_a_palette_in_either_order_of_bytes(tmp_path, syntax, bits, dtype, first):
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 1 << bits, (38, 3)).astype(f"u{bits // 8}")
    values = rng.integers(max(first - 9, np.iinfo(dtype).min), first + 50, (2, 8, 10)).astype(dtype)
    columns = [
        words(column.tobytes(), syntax) if bits == 8 else in_order(column, syntax).tobytes() for column in colours.T
    ]
    path = write_dicom(tmp_path / "a.dcm", in_order(values, syntax), syntax=syntax, **palette(38, first, bits, columns))
    pixels = stored(path)
    np.testing.assert_array_equal(pixels, colours[np.clip(values.astype(int) - first, 0, 37)])
    assert pixels.dtype == colours.dtype
    if syntax != ExplicitVRBigEndian:
        ds = pydicom.dcmread(path)
        np.testing.assert_array_equal(pixels, apply_color_lut(ds.pixel_array, ds))


def test_entries_of_8_bits_in_words_keep_their_brightness(tmp_path):
    for scale in (1, 256):
        columns = [(np.array([0, 100, 255], "<u2") * scale).astype("<u2").tobytes()] * 3
        path = write_dicom(tmp_path / "a.dcm", numbered(3, dtype="u1"), **palette(3, 0, 8, columns))
        pixels = stored(path)
        assert pixels.dtype == np.uint8 and pixels[:, 5, 5, 0].tolist() == [0, 100, 255]


# 3 as they are, a line of 4 up to 50, the first of these once more, a line of 3 down to 1
SEGMENTS = [0, 3, 7, 0, 10, 1, 4, 50, 2, 1, 0, 0, 1, 3, 1]
EXPANDED = [7, 0, 10, 20, 30, 40, 50, 7, 0, 10, 7, 4, 1]


@pytest.mark.parametrize("syntax", BOTH_ORDERS, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette_in_segments(tmp_path, syntax, bits):
    codes = SEGMENTS if bits == 16 else [*SEGMENTS[:10], 0, 0, *SEGMENTS[10:]]  # an offset takes 4 bytes
    scale = 256 if bits == 16 else 1
    if bits == 16:
        codes = [each * scale if at in (2, 3, 4, 7, 14) else each for at, each in enumerate(codes)]
        data = in_order(np.array(codes, "u2"), syntax).tobytes()
    else:
        data = words(codes, syntax)
    path = write_dicom(
        tmp_path / "a.dcm", numbered(13, dtype="u1"), syntax=syntax, **palette(13, 0, bits, [data] * 3, segmented=True)
    )
    pixels = stored(path)
    assert pixels.dtype == f"u{bits // 8}"
    assert pixels[:, 5, 5, 1].tolist() == [each * scale for each in EXPANDED]
    if syntax == ExplicitVRLittleEndian:
        ds = pydicom.dcmread(path)
        np.testing.assert_array_equal(pixels, apply_color_lut(ds.pixel_array, ds))


def test_an_indirect_segment_counts_bytes(tmp_path):
    codes = np.array([0, 2, 1, 2, 0, 1, 9, 2, 1, 8, 0], "<u2")  # the second segment begins at byte 8
    path = write_dicom(
        tmp_path / "a.dcm", numbered(4, dtype="u1"), **palette(4, 0, 16, [codes.tobytes()] * 3, segmented=True)
    )
    assert stored(path)[:, 5, 5, 0].tolist() == [1, 2, 9, 9]


# One entry, 255 empty segments from byte 3 on, 255 that lead to those, 255 that lead to these (byte 513), and so on.
INDIRECT = [[2, 255, *offset.to_bytes(4, "little")] for offset in (3, 513, 513 + 6 * 255, 513 + 12 * 255)]
NESTED = [0, 1, 7, *[0, 0] * 255, *(code for each in INDIRECT for code in each * 255)]


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ([0, 3, 7, 0], "breaks off"),
        ([1, 4, 50, 0], "kind 1 with 4 entries is not valid there"),
        ([0, 2, 7, 0, 3, 1], "kind 3"),
        ([0, 2, 7, 0], "have 2 of 13 entries"),
        ([0, 2, 7, 0, 1, 200, 9, 0], "more than 13 entries"),
        ([0, 1, 7, 2, 255, 0, 0, 0, 0, 0], "more than 13 entries|more than 4 times"),
        ([0, 1, 7, 2, 1, 3, 0, 0, 0, 0], "segments are nested"),
        (NESTED, "an empty segment of kind 0"),
    ],
)
def test_broken_segments_raise(tmp_path, codes, message):
    elements = palette(13, 0, 8, [bytes(codes)] * 3, segmented=True)
    path = write_dicom(tmp_path / "a.dcm", numbered(2, dtype="u1"), **elements)
    with pytest.raises(SourceError, match=rf"a\.dcm: .*{message}"):
        probe_dicom(path)


# JPEG of 12 bits


def blocks(count, *, signed=False):
    """Return frames of 12 bits, flat in each block of 8 x 8, which JPEG keeps to the number."""
    small = np.random.default_rng(0).integers(-2048 if signed else 0, 2048 if signed else 4096, (count, 3, 4))
    return np.kron(small, np.ones((1, 8, 8), np.int64)).astype("i2" if signed else "u2")


@pytest.mark.parametrize("signed", [False, True])
def test_jpeg_extended_of_12_bits(tmp_path, signed):
    imagecodecs = pytest.importorskip("imagecodecs")
    frames = blocks(3, signed=signed)
    encoded = [
        [imagecodecs.jpeg8_encode(frame.view("u2") & 0xFFF, level=100, bitspersample=12, optimize=True)]
        for frame in frames
    ]
    assert all(b"\xff\xc1" in frame[0] for frame in encoded), "extended, not baseline"
    path = write_dicom(tmp_path / "a.dcm", frames, syntax=JPEGExtended12Bit, encoded=encoded, BitsStored=12, HighBit=11)
    np.testing.assert_allclose(stored(path, window="none"), frames, atol=1)
    metadata = probe_dicom(path)
    assert (metadata.codec, metadata.bits, metadata.error) == ("JPEGExtended12Bit", 32 if signed else 12, None)
    check_source(
        DicomSource(path, metadata=metadata), reopen=lambda: DicomSource(path, metadata=stored_metadata(metadata))
    )


def test_jpeg_of_12_bits_that_breaks_off_or_has_another_size(tmp_path, monkeypatch):
    imagecodecs = pytest.importorskip("imagecodecs")
    frames = blocks(2)
    encoded = [[imagecodecs.jpeg8_encode(frame, level=100, bitspersample=12)] for frame in frames]
    encoded[1] = [encoded[1][0][:-40]]
    kind = {"syntax": JPEGExtended12Bit, "BitsStored": 12, "HighBit": 11}
    path = write_dicom(tmp_path / "a.dcm", frames, encoded=encoded, **kind)
    assert probe_dicom(path).error == "breaks after 1 of 2 frames: EOFError: the image breaks off"
    write_dicom(path, frames[:, :16], encoded=encoded, **kind)
    with pytest.raises(DecodeError, match="shape"):
        probe_dicom(path)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(MissingExtraError, match=r"imagecodecs, for JPEG of 12 bits .*cinefeed\[dicom\]"):
        probe_dicom(path)


# single bits


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("size", [(8, 16), (5, 7), (3, 3), (1, 1), (17, 31)])
def test_single_bits(tmp_path, syntax, size):
    frames = np.random.default_rng(0).integers(0, 2, (9, *size)).astype("u1")
    packed = np.packbits(frames.reshape(-1), bitorder="little").tobytes()
    path = write_dicom(
        tmp_path / "a.dcm",
        frames,
        syntax=syntax,
        data=packed + bytes(len(packed) % 2),
        BitsAllocated=1,
        BitsStored=1,
        HighBit=0,
        Modality="SEG",
    )
    metadata = probe_dicom(path)
    assert (metadata.times.count, metadata.bits, metadata.window) == (9, 8, (0.0, 1.0))
    np.testing.assert_array_equal(stored(path), frames)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_array_equal(stored(path), pydicom.dcmread(path).pixel_array)
    with DicomSource(path, metadata=metadata) as source:
        np.testing.assert_array_equal(source.read([8, 0])[..., 0], 255 * frames[[8, 0]])
    check_source(
        DicomSource(path, metadata=metadata), reopen=lambda: DicomSource(path, metadata=stored_metadata(metadata))
    )


def test_single_bits_in_words_the_other_way_round(tmp_path):
    frames = np.random.default_rng(0).integers(0, 2, (5, 5, 7)).astype("u1")
    packed = np.packbits(frames.reshape(-1), bitorder="little").tobytes()
    bits = {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}
    path = write_dicom(
        tmp_path / "a.dcm", frames, syntax=ExplicitVRBigEndian, data=words(packed, ExplicitVRBigEndian), vr="OW", **bits
    )
    np.testing.assert_array_equal(stored(path), frames)


def test_single_bits_that_are_cut_off_keep_whole_frames(tmp_path):
    frames = np.ones((9, 5, 7), "u1")
    packed = np.packbits(frames.reshape(-1), bitorder="little").tobytes()
    bits = {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}
    path = write_dicom(tmp_path / "a.dcm", frames, data=packed, **bits)
    path.write_bytes(path.read_bytes()[:-5])
    assert probe_dicom(path).error == "breaks after 8 of 9 frames: the file is cut off"
    np.testing.assert_array_equal(stored(path), frames[:8])
