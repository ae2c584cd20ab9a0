"""The reader of DICOM headers against pydicom's, on the files that pydicom brings along, and on broken ones."""

import io
import warnings
from pathlib import Path

import pydicom
import pytest
from made_dicom import numbered, write_dicom
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from cinefeed.core.errors import SourceError
from cinefeed.video.dicom.header import Elements, read_header

KEYWORDS = """
    Rows Columns BitsAllocated NumberOfFrames PhotometricInterpretation SOPInstanceUID SeriesInstanceUID PatientID
    WindowCenter WindowWidth PixelSpacing SeriesDescription SequenceOfUltrasoundRegions RegionLocationMinX0 Modality
    PhysicalDeltaX
    PerFrameFunctionalGroupsSequence SharedFunctionalGroupsSequence FrameVOILUTSequence PlanePositionSequence
    ImagePositionPatient PixelMeasuresSequence RequestAttributesSequence ReferencedSeriesSequence ReferencedSOPSequence
    ReferencedSOPInstanceUID BeamSequence ControlPointSequence GantryAngle
""".split()
FILES = Path(pydicom.__file__).parent / "data" / "test_files"


def read(path, keywords=KEYWORDS):
    with path.open("rb") as file:
        return read_header(file, path=path, keywords=keywords)[0]


def numbers_of(values) -> list[float]:
    try:
        return [float(value) for value in values]
    except ValueError:  # one file has "1A" where a number should be
        return []


def differences(ours: Elements, theirs: pydicom.Dataset) -> list[str]:
    """Return the keywords of which the two say different things, at any depth."""
    differing = []
    for keyword in KEYWORDS:
        if keyword not in theirs:
            differing += [keyword] if keyword in ours.values or keyword in ours.sequences else []
            continue
        element = theirs[keyword]
        values = [] if element.value in (None, "") else element.value if element.VM > 1 else [element.value]
        if element.VR == "SQ":
            items = ours.sequences.get(keyword, [])
            differing += [keyword] if len(items) != len(element.value) else []
            for pair in zip(items, element.value, strict=False):
                differing += differences(*pair)
        elif element.VR in ("DS", "IS", "US", "UL", "FD"):
            differing += [keyword] if ours.numbers(keyword) != numbers_of(values) else []
        elif ours.text(keyword) != "\\".join(map(str, values)):
            differing.append(keyword)
    return differing


def test_it_reads_what_pydicom_reads():
    compared, faults, unread = 0, {}, []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in sorted(each for each in FILES.rglob("*") if each.is_file()):
            try:
                theirs = pydicom.dcmread(path)
            except Exception:
                continue  # no DICOM file, or read by force only
            try:
                ours = read(path)
            except SourceError:
                unread.append(path.name)
                continue
            compared += 1
            if differing := differences(ours, theirs):
                faults[path.name] = differing
            assert (ours.pixels is not None) == ("PixelData" in theirs), path
            assert ours.syntax == theirs.file_meta.get("TransferSyntaxUID", ours.syntax), path
    assert (faults, unread) == ({}, ["rtplan_truncated.dcm"])
    assert compared > 100


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # the file's character set is misspelt
def test_a_difference_is_detected(data):
    path = data / "dicom" / "IM00001.implicit_little_endian.dcm"
    theirs = pydicom.dcmread(path)
    theirs.SequenceOfUltrasoundRegions[1].PhysicalDeltaX = 1.0
    theirs.Rows = 7
    assert differences(read(path), theirs) == ["Rows", "PhysicalDeltaX"]


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_file_without_preamble_and_transfer_syntax(tmp_path, syntax):
    path = write_dicom(tmp_path / "a.dcm", numbered(3), syntax=syntax)
    whole = path.read_bytes()
    first = b"\0\x08\0\x16" if syntax == ExplicitVRBigEndian else b"\x08\0\x16\0"  # the SOP class, the first element
    path.write_bytes(whole[whole.index(first) :])
    header = read(path)
    assert (header.syntax, header.integer("Rows"), header.text("PatientID")) == (syntax, 12, "P7")
    assert header.pixels.length == 3 * 12 * 16 * 2


def test_a_file_declared_implicit_that_is_explicit(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", numbered(3))
    whole = path.read_bytes()
    explicit, implicit = b"UI\x14\x001.2.840.10008.1.2.1\0", b"UI\x14\x001.2.840.10008.1.2\0\0\0"
    assert explicit in whole
    path.write_bytes(whole.replace(explicit, implicit))
    assert (read(path).syntax, read(path).integer("Rows")) == ("1.2.840.10008.1.2.1", 12)


def test_elements_not_requested_are_not_read(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", numbered(3), ImageComments="SECRET " * 900)

    class Noting(io.FileIO):
        bytes_read = b""

        def read(self, size=-1):
            data = super().read(size)
            Noting.bytes_read += data
            return data

    with Noting(path) as file:
        header, _ = read_header(file, path=path, keywords=["Rows"])
    assert header.integer("Rows") == 12 and len(Noting.bytes_read) < 2000
    assert b"SECRET" not in Noting.bytes_read


@pytest.mark.parametrize("keep", [0, 3, 100, 131, 140, 200, 400])
def test_a_header_that_breaks_off(tmp_path, keep):
    path = write_dicom(tmp_path / "broken.dcm", numbered(3), SeriesDescription="x" * 60)
    path.write_bytes(path.read_bytes()[:keep])
    try:
        header = read(path)
    except SourceError as error:
        assert str(error).startswith(f"{path}: cannot be read as DICOM: ")
    else:
        assert header.pixels is None


def test_sequences_without_end(tmp_path):
    deep = b"\x08\0\x15\x11\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"  # a sequence and an item, both open
    path = tmp_path / "deep.dcm"
    path.write_bytes(deep * 5000)
    with pytest.raises(SourceError, match="more than 32 deep"):
        read(path)
    path.write_bytes(deep * 3)
    with pytest.raises(SourceError, match="breaks off"):
        read(path)


def test_numbers_that_are_none():
    elements = Elements(
        "<", {"A": ("DS", b"1.5\\-2 \\3e2"), "B": ("DS", b"1\\x"), "C": ("IS", b" "), "D": ("DS", b"inf")}
    )
    assert [elements.numbers(name) for name in "ABCDE"] == [[1.5, -2, 300], [], [], [], []]
    assert (elements.number("B"), elements.integer("E", 7), elements.text("E")) == (None, 7, "")
