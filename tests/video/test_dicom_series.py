"""DICOM files become samples: by series and plane, in the order of time; what people wrote stays where it is."""

import logging
import random
import re
import warnings

import pydicom
import pytest
from made_dicom import AXIAL, CORONAL, SAGITTAL, marked_file, numbered, write_dicom, write_slice
from pydicom.datadict import dictionary_VR, tag_for_keyword

from cinefeed import Manifest, probe
from cinefeed.core.errors import SettingError, SourceError
from cinefeed.video.dicom.series import ATTRIBUTES, group_series
from cinefeed.video.dicom.source import DicomSource, probe_dicom
from cinefeed.video.kinds import kind_by_content, read_start
from cinefeed.video.read_options import DEFAULT_READ_OPTIONS, ReadOptions

TILTED = (0.70710678, 0.70710678, 0, 0, 0, -1)


def shuffled(folder, *, seed=0):
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    random.Random(seed).shuffle(names)
    return names


def grouped(folder, *, seed=0, **reading):
    return group_series(folder, shuffled(folder, seed=seed), reading=ReadOptions(**reading))


def values_of(folder, sample):
    """Return the value of every frame of a sample."""
    path = folder / sample.path
    metadata = probe_dicom(path, part=sample.part, files=sample.files)
    with DicomSource(path, part=sample.part, metadata=metadata) as source:
        return source.read(range(len(source)))[:, 5, 5, 0].tolist()


def notes(samples):
    return [sample.tags.get("series_note") for sample in samples]


def write_stack(folder, *, planes=3, phases=5, left_out=(), times=True, value=0, numbers=True, **elements):
    """Write a short-axis stack, one file an image, named so that the order of names says nothing."""
    count = 0
    for plane in range(planes):
        for phase in range(phases):
            count += 1
            if (plane, phase) in left_out:
                continue
            name = f"im{(count * 7919) % 1009:04}.dcm"
            write_slice(
                folder / name,
                value=value + 100 * plane + phase,
                position=(5, -3, 8.0 * plane + 0.01 * phase),
                uid=f"1.2.{value}.{count}",
                InstanceNumber=value + count if numbers else None,
                TriggerTime=31.5 * phase if times else None,
                **elements,
            )


def test_a_short_axis_stack_is_split_by_plane_and_ordered_by_time(tmp_path):
    write_stack(tmp_path / "study" / "sax")
    samples = grouped(tmp_path)
    assert [values_of(tmp_path, each) for each in samples] == [[100 * p + t for t in range(5)] for p in range(3)]
    assert {each.path for each in samples} == {"study/sax"}
    assert [each.tags["plane"] for each in samples] == [1, 2, 3]
    assert notes(samples) == [None] * 3
    assert all(re.fullmatch(r"[0-9a-f]{8}/plane-0[123]", each.part) for each in samples)
    metadata = probe_dicom(tmp_path / samples[0].path, part=samples[0].part, files=samples[0].files)
    assert metadata.times.step_seconds == pytest.approx(0.0315)


def test_parts_do_not_depend_on_the_order_or_the_names_of_files(tmp_path):
    write_stack(tmp_path / "a")
    first = grouped(tmp_path)
    assert grouped(tmp_path, seed=1) == first
    for i, path in enumerate(sorted((tmp_path / "a").iterdir())):
        path.rename(tmp_path / "a" / f"{(i * 31) % 97}")
    again = grouped(tmp_path)
    assert [each.part for each in again] == [each.part for each in first]
    assert [values_of(tmp_path, each) for each in again] == [[100 * p + t for t in range(5)] for p in range(3)]


def test_without_trigger_times_the_temporal_position_counts_then_the_instance_number(tmp_path):
    write_stack(tmp_path / "number", times=False)
    assert [values_of(tmp_path, each) for each in grouped(tmp_path)] == [
        [100 * p + t for t in range(5)] for p in range(3)
    ]
    for i in range(4):
        write_slice(
            tmp_path / "position" / f"{i}.dcm",
            value=900 + i,
            uid=f"1.3.{i}",
            SeriesInstanceUID="1.9",
            InstanceNumber=10 - i,
            TemporalPositionIdentifier=i + 1,
        )
    by_position = grouped(tmp_path)[-1]
    assert values_of(tmp_path, by_position) == [900, 901, 902, 903]


def test_one_trigger_time_for_all_is_none(tmp_path):
    for i in range(6):
        write_slice(tmp_path / f"{9 - i}.dcm", value=i, uid=f"1.3.{i}", InstanceNumber=i + 1, TriggerTime=0)
    (sample,) = grouped(tmp_path)
    assert values_of(tmp_path, sample) == list(range(6))


def test_long_axis_views_in_one_series(tmp_path):
    for view, directions in enumerate((CORONAL, SAGITTAL, TILTED)):
        for phase in range(4):
            wobble = tuple(each + 1e-4 * phase for each in directions)
            write_slice(
                tmp_path / f"{phase}{view}.dcm",
                value=10 * view + phase,
                directions=wobble,
                uid=f"1.2.{view}.{phase}",
                InstanceNumber=10 * view + phase,
                TriggerTime=40 * phase,
            )
    samples = grouped(tmp_path)
    assert [values_of(tmp_path, each) for each in samples] == [[10 * v + p for p in range(4)] for v in range(3)]


def test_a_slice_acquired_twice_is_two_samples_with_a_note(tmp_path):
    write_stack(tmp_path)
    for phase in range(5):
        write_slice(
            tmp_path / f"again{phase}.dcm",
            value=500 + phase,
            position=(5, -3, 8.0),
            uid=f"1.7.{phase}",
            InstanceNumber=50 + phase,
            TriggerTime=31.5 * phase,
        )
    samples = grouped(tmp_path)
    assert [values_of(tmp_path, each)[0] for each in samples] == [0, 100, 500, 200]
    assert [each.part.partition("/")[2] for each in samples] == [
        "plane-01",
        "plane-02",
        "plane-02-repeat-2",
        "plane-03",
    ]
    assert notes(samples) == [
        None,
        "plane 2 of 3 was acquired 2 times, this is number 1",
        "plane 2 of 3 was acquired 2 times, this is number 2",
        None,
    ]


def test_a_missing_phase_is_reported(tmp_path):
    write_stack(tmp_path, left_out=[(1, 3)])
    assert notes(grouped(tmp_path)) == [None, "plane 2 of 3 has 4 phases, most have 5", None]


def test_a_copy_is_omitted_and_reported_but_not_an_image_with_the_same_uid(tmp_path):
    write_stack(tmp_path, planes=1)
    first = sorted(tmp_path.iterdir())[0]
    (tmp_path / "copy.dcm").write_bytes(first.read_bytes())
    (sample,) = grouped(tmp_path)
    assert values_of(tmp_path, sample) == list(range(5))
    assert notes([sample]) == ["1 of 6 files are copies of others, and omitted"]
    for i in range(4):  # an anonymiser that gives one UID to all
        write_slice(tmp_path / "b" / f"{i}.dcm", value=i, uid="1.5", SeriesInstanceUID="1.6", TriggerTime=30 * i)
    assert values_of(tmp_path, grouped(tmp_path)[-1]) == [0, 1, 2, 3]


def test_magnitude_and_velocity_are_apart(tmp_path):
    for kind, name in enumerate("MP"):
        for phase in range(3):
            write_slice(
                tmp_path / f"{phase}{name}.dcm",
                value=10 * kind + phase,
                uid=f"1.2.{kind}.{phase}",
                TriggerTime=30 * phase,
                InstanceNumber=2 * phase + kind,
                ImageType=["ORIGINAL", "PRIMARY", name],
            )
    assert [values_of(tmp_path, each) for each in grouped(tmp_path)] == [[0, 1, 2], [10, 11, 12]]


def test_two_patients_are_never_one_clip(tmp_path):
    for patient in range(2):  # whose UIDs a careless anonymiser made the same
        for phase in range(3):
            write_slice(
                tmp_path / f"{patient}{phase}.dcm",
                value=10 * patient + phase,
                uid=f"1.2.{patient}.{phase}",
                TriggerTime=30 * phase,
                PatientID=f"P{patient}",
            )
    assert sorted(values_of(tmp_path, each) for each in grouped(tmp_path)) == [[0, 1, 2], [10, 11, 12]]


def test_stills_are_samples_of_one_frame(tmp_path):
    for i in range(3):  # an echo study: one series, the stills of many views, each with a trigger time
        write_dicom(
            tmp_path / f"still{i}.dcm", numbered(1), Modality="US", SOPInstanceUID=f"1.2.{i}", TriggerTime=10 * i
        )
    write_dicom(tmp_path / "cine.dcm", numbered(8), Modality="US", SOPInstanceUID="1.2.8")
    samples = grouped(tmp_path)
    assert [(each.path, each.part, each.files) for each in samples] == [
        (name, None, ()) for name in ("cine.dcm", "still0.dcm", "still1.dcm", "still2.dcm")
    ]
    assert notes(samples) == [None, *["a single image"] * 3]
    assert "plane" not in samples[1].tags


def test_images_without_a_plane_are_a_clip_if_time_distinguishes_them(tmp_path):
    for i in range(4):
        write_dicom(
            tmp_path / f"{9 - i}.dcm", numbered(1, start=i), Modality="XA", SOPInstanceUID=f"1.2.{i}", TriggerTime=i * 5
        )
        write_dicom(
            tmp_path / "stills" / f"{i}.dcm",
            numbered(1, start=i),
            Modality="XA",
            SOPInstanceUID=f"1.3.{i}",
            SeriesInstanceUID="1.9",
        )
    samples = grouped(tmp_path)
    assert values_of(tmp_path, samples[0]) == [0, 1, 2, 3]
    assert [each.path for each in samples[1:]] == [f"stills/{i}.dcm" for i in range(4)]


def test_a_series_over_several_folders_is_read_from_the_folder_above(tmp_path):
    for i in range(4):
        write_slice(tmp_path / "study" / f"{i % 2}" / f"{i}.dcm", value=i, uid=f"1.2.{i}", TriggerTime=20 * i)
    (sample,) = grouped(tmp_path)
    assert (sample.path, sample.files) == ("study", ("0/0.dcm", "1/1.dcm", "0/2.dcm", "1/3.dcm"))
    assert values_of(tmp_path, sample) == [0, 1, 2, 3]
    (sample,) = grouped(tmp_path / "study")
    assert sample.path == "."


def frame_groups(planes, phases):
    return [
        {
            "PlaneOrientationSequence": {"ImageOrientationPatient": list(AXIAL)},
            "PlanePositionSequence": {"ImagePositionPatient": [0, 0, 8.0 * plane]},
            "CardiacSynchronizationSequence": {"NominalCardiacTriggerDelayTime": 30.0 * phase},
        }
        for phase in range(phases)
        for plane in range(planes)
    ]


def test_a_file_with_several_planes_is_a_sample_for_each(tmp_path):
    write_dicom(tmp_path / "a.dcm", numbered(12), PerFrameFunctionalGroupsSequence=frame_groups(3, 4))
    samples = grouped(tmp_path)
    assert [each.part for each in samples] == ["plane-01", "plane-02", "plane-03"]
    assert [values_of(tmp_path, each) for each in samples] == [[p, p + 3, p + 6, p + 9] for p in range(3)]
    write_dicom(tmp_path / "a.dcm", numbered(4), PerFrameFunctionalGroupsSequence=frame_groups(1, 4))
    assert [(each.part, notes([each])) for each in grouped(tmp_path)] == [(None, [None])]
    write_dicom(tmp_path / "a.dcm", numbered(4), PerFrameFunctionalGroupsSequence=frame_groups(4, 1))
    assert [(each.part, notes([each])) for each in grouped(tmp_path)] == [(None, ["4 planes of one image each"])]


def test_files_without_an_image_are_in_no_sample(tmp_path):
    write_dicom(tmp_path / "cine.dcm", numbered(3))
    report = pydicom.dcmread(tmp_path / "cine.dcm")
    for name in ("PixelData", "Rows", "Columns"):
        del report[name]
    report.save_as(tmp_path / "report.dcm")
    assert [each.path for each in grouped(tmp_path)] == ["cine.dcm"]


def test_a_broken_file_is_a_sample_whose_probe_raises(tmp_path):
    path = write_dicom(tmp_path / "cine.dcm", numbered(3))
    (tmp_path / "headless.dcm").write_bytes(path.read_bytes()[:300])
    (tmp_path / "rubbish.dcm").write_bytes(b"nothing of the kind")
    pixelless = pydicom.dcmread(path)
    del pixelless["PixelData"]
    pixelless.save_as(tmp_path / "pixelless.dcm")
    samples = [each for each in grouped(tmp_path) if each.path != "cine.dcm"]
    assert [(each.path, dict(each.tags)) for each in samples] == [
        ("headless.dcm", {}),
        ("pixelless.dcm", {}),
        ("rubbish.dcm", {}),
    ]
    for each in samples:
        with pytest.raises(SourceError, match=re.escape(each.path)):
            probe_dicom(tmp_path / each.path)


def test_ids_and_requested_attributes_are_tags(tmp_path):
    write_dicom(
        tmp_path / "cine.dcm",
        numbered(3),
        PatientID="Müller 7",
        SpecificCharacterSet="ISO_IR 192",
        SeriesDescription="Kurzachse größer",
        MagneticFieldStrength=1.5,
        PatientAge="018M",
        StudyDescription="of Mr Smith",
    )
    (sample,) = grouped(tmp_path, keep=("SeriesDescription", "MagneticFieldStrength", "PatientAge", "ViewPosition"))
    assert sample.tags == {
        "patient": "Müller 7",
        "study": "1.2.4",
        "series": "1.2.5",
        "modality": "MR",
        "series_description": "Kurzachse größer",
        "magnetic_field_strength": 1.5,
        "patient_age": 1.5,
        "view_position": None,
    }


@pytest.mark.parametrize(
    "keyword", ["PatientName", "StudyDescription", "PatientBirthDate", "ImageComments", "Nonsense"]
)
def test_attributes_that_may_identify_a_person_cannot_be_kept(tmp_path, keyword):
    with pytest.raises(SettingError, match=f"keep='{keyword}' is not an attribute that can be kept"):
        group_series(tmp_path, [], reading=ReadOptions(keep=(keyword,)))


def test_a_near_miss_is_named(tmp_path):
    with pytest.raises(SettingError, match="did you mean 'SeriesDescription'"):
        group_series(tmp_path, [], reading=ReadOptions(keep=("SeriesDescripton",)))


def test_a_file_without_preamble_is_read_by_its_suffix(tmp_path):
    path = write_dicom(tmp_path / "1.2.840.5", numbered(2))
    bare = tmp_path / "bare.dcm"
    bare.write_bytes(path.read_bytes()[132:])
    assert probe(bare).container == probe(path).container == "dicom"
    for name in ("text.dcm", "gone.dcm"):
        (tmp_path / "text.dcm").write_text("This is not DICOM, whatever its name says.")
        with pytest.raises(SourceError, match=name):
            probe(tmp_path / name)


# privacy

SECRET = "SECRET^NAME"
IMAGE = {
    0x00100020: ("LO", b"ID-1"),
    0x0020000D: ("UI", b"1.2\0"),
    0x0020000E: ("UI", b"1.3\0"),
    0x00280002: ("US", b"\1\0"),
    0x00280004: ("CS", b"MONOCHROME2 "),
    0x00280008: ("IS", b"3 "),
    0x00280010: ("US", b"\4\0"),
    0x00280011: ("US", b"\4\0"),
    0x00280100: ("US", b"\x08\0"),
    0x00280101: ("US", b"\x08\0"),
    0x00280102: ("US", b"\7\0"),
    0x00280103: ("US", b"\0\0"),
    0x7FE00010: ("OB", bytes(48)),
}


def all_messages(path, caplog):
    """Return all texts about a file: metadata, samples, errors, warnings and log."""
    messages = []
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for window in ("file", "none", "percentiles"):
            try:
                metadata = probe_dicom(path, reading=ReadOptions(window=window))
                with DicomSource(path, metadata=metadata) as source:
                    source.read([0])
                messages.append(repr(metadata))
            except SourceError as error:
                messages += [repr(error), repr(error.__cause__), repr(error.__context__)]
        messages.append(repr(group_series(path.parent, [path.name], reading=DEFAULT_READ_OPTIONS)))
        messages.append(repr(kind_by_content(read_start(path))))
    return "\n".join([*messages, *(str(each.message) for each in caught), caplog.text])


def test_no_free_text_in_messages(tmp_path, caplog):
    path = marked_file(tmp_path / "a.dcm", SECRET, keep=IMAGE)
    messages = all_messages(path, caplog)
    assert "VideoMetadata(height=4, width=4" in messages and "ID-1" in messages
    assert "SECRET" not in messages and "NAME" not in messages


@pytest.mark.parametrize("tag", [0x00280004, 0x00280008, 0x00280100])
def test_no_free_text_in_errors_of_a_broken_file(tmp_path, caplog, tag):
    path = marked_file(tmp_path / "a.dcm", SECRET, keep={key: IMAGE[key] for key in IMAGE if key != tag})
    assert "SECRET" not in all_messages(path, caplog)
    path.write_bytes(path.read_bytes()[:-40])
    assert "SECRET" not in all_messages(path, caplog)
    path.write_bytes(path.read_bytes()[:3000])
    assert "SECRET" not in all_messages(path, caplog)


def test_pydicom_quotes_free_text(tmp_path):
    path = marked_file(tmp_path / "a.dcm", SECRET, keep=IMAGE)
    with pytest.warns(UserWarning) as caught:
        pydicom.dcmread(path, stop_before_pixels=True)
    assert any(SECRET in str(each.message) for each in caught)


def test_allowed_attributes_exist_and_none_describes_a_person():
    assert all(tag_for_keyword(keyword) is not None for keyword in ATTRIBUTES)
    written = re.compile("Date|Comment|Birth|Physician|Operator|Institution|Address|Serial|Station|Study|History")
    assert [keyword for keyword in ATTRIBUTES if written.search(keyword)] == []
    assert {dictionary_VR(tag_for_keyword(keyword)) for keyword in ATTRIBUTES} <= {
        "AS",
        "CS",
        "DS",
        "IS",
        "LO",
        "SH",
        "UL",
    }


@pytest.mark.parametrize("labels", [{}, {"labels": {"patient": ["p1"], "age": [61]}, "on": "patient"}])
def test_path_columns_with_the_name_of_a_header_column_are_refused(tmp_path, labels):
    write_dicom(tmp_path / "p1" / "cine.dcm", numbered(2), PatientID="p1")
    with pytest.raises(SettingError, match=r"the DICOM headers both have a column 'patient'; .* \{folder_patient\}"):
        Manifest.scan(tmp_path, path_columns="{patient}", **labels)
    manifest = Manifest.scan(tmp_path, path_columns="{folder_patient}", **labels)
    assert manifest.column("folder_patient").to_pylist() == ["p1"]
