import json

import numpy as np
import pyarrow as pa
import pytest
from made_videos import codes, moving, save, scanned

from cinefeed.core.errors import ColumnError, SettingError, TableError
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.manifest.rows import Rows
from cinefeed.data.quality import check_manifest
from cinefeed.data.quality.findings import MAX_ROWS, finding, sort_by_severity
from cinefeed.data.quality.frame_summaries import summarize_frames
from cinefeed.video.clips import Clip


@pytest.fixture
def folder(tmp_path):
    """Eight videos: the last is nearly the first, the one before it is cut off."""
    for number in range(6):
        save(tmp_path, f"v{number}.npy", moving(number))
    save(tmp_path, "v6.npy", moving(6))
    path = tmp_path / "v6.npy"
    path.write_bytes(path.read_bytes()[:-40_000])
    save(tmp_path, "v7.npy", np.clip(moving(0).astype(int) + 6, 0, 255).astype(np.uint8))
    return tmp_path


COLUMNS = {
    "kind": ["a", "b", "a", "b", "a", "b", None, "b"],
    "patient": ["p0", "p1", "p2", "p3", "p0", "p5", "p6", "p7"],
    "split": ["train", "train", "val", "test", "test", "val", "train", "val"],
}


def test_a_report_is_worst_first_and_ends_with_what_to_do(folder):
    report = check_manifest(scanned(folder, **COLUMNS), target="kind", clip=Clip(frames=10), progress=False)
    severities = [each.severity for each in report.findings]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)
    assert {"groups_across_splits", "near_duplicates_across_splits", "broken_files"} <= codes(report).keys()
    assert report.group == "patient"
    assert not report.ok
    lines = str(report).splitlines()
    start = lines.index("What to do, worst first:")
    assert lines[start + 1].startswith("1. ")
    assert len(lines) - start - 1 == report.number("error") + report.number("warning")
    assert json.loads(json.dumps(report.as_dict())) == report.as_dict()
    assert report.as_dict()["errors"] == report.number("error")


def test_the_same_on_any_number_of_threads_and_every_time(folder):
    manifest = scanned(folder, **COLUMNS)
    reports = [
        check_manifest(manifest, target="kind", clip=Clip(frames=10), workers=workers, progress=False)
        for workers in (1, 3, 3)
    ]
    assert reports[0] == reports[1] == reports[2]


def test_a_private_report_names_no_path(folder):
    table = scanned(folder, **COLUMNS).table
    table = table.set_column(0, "id", pa.array([f"row{i}" for i in range(8)]))
    manifest = Manifest(table, root=folder)
    report = check_manifest(manifest, target="kind", private=True, progress=False)
    for text in (str(report), json.dumps(report.as_dict())):
        assert "row6" in text
        assert ".npy" not in text
    assert check_manifest(manifest.as_private(), target="kind", progress=False) == report
    assert "v6.npy (row6)" in str(check_manifest(manifest, target="kind", progress=False))


def test_each_video_is_opened_once(folder, monkeypatch):
    opened = []
    manifest = scanned(folder)
    real = Rows.open
    monkeypatch.setattr(Rows, "open", lambda self, row, **more: opened.append(row) or real(self, row, **more))
    progress_calls = []
    check_manifest(manifest, progress=lambda done, total: progress_calls.append((done, total)))
    assert sorted(opened) == list(range(8))
    assert progress_calls == [(done, 8) for done in range(1, 9)]


def test_what_cannot_be_checked_is_refused(folder):
    manifest = scanned(folder, **COLUMNS)
    with pytest.raises(TableError, match="cinefeed scan"):
        check_manifest(Manifest.from_table(manifest.table.select(["path"]), root=folder))
    for wrong in ({"target": "kimd"}, {"nuisance": ["kimd"]}):
        with pytest.raises(ColumnError, match="did you mean 'kind'"):
            check_manifest(manifest, **wrong)
    with pytest.raises(TableError, match="key_frames"):
        check_manifest(manifest, target="key_frames")
    with pytest.raises(SettingError, match="workers=0"):
        check_manifest(manifest, workers=0)


def test_unreadable_rows_alone(tmp_path):
    for number in range(3):
        (tmp_path / f"v{number}.npy").write_bytes(b"")
    report = check_manifest(scanned(tmp_path, kind=["a", "b", "a"]), target="kind", progress=False)
    assert report.rows_read == 0
    assert codes(report)["unreadable_files"].count == 3


def test_findings_keep_the_first_rows_and_count_all():
    many = finding("note", "x", "", detail="", advice="", rows=range(100), remarks=[str(i) for i in range(100)])
    assert (many.count, len(many.rows), many.remarks[-1]) == (100, MAX_ROWS, str(MAX_ROWS - 1))
    error = finding("error", "y", "", detail="", advice="")
    assert [each.code for each in sort_by_severity([many, error, many])] == ["y", "x", "x"]


def test_brightness_and_contrast_have_one_scale(tmp_path):
    frames = moving(3)
    save(tmp_path, "a.npy", frames)
    save(tmp_path, "b.npy", frames.astype(np.uint16) * 257)
    summaries = summarize_frames(scanned(tmp_path), clip=None, workers=1, progress=lambda done, total: None)
    expected_frames = frames[[1, 3, 6, 8, 10]]
    assert summaries.brightness == pytest.approx([expected_frames.mean()] * 2, abs=1e-9)
    assert summaries.contrast == pytest.approx([expected_frames.std()] * 2, abs=1e-9)


def test_real_data_has_the_one_pair_that_is_known(data):
    labels = data / "pocus" / "labels.csv"
    manifest = Manifest.scan(data / "pocus", labels=labels, verify="packets", progress=False)
    report = check_manifest(manifest, target="label", group="patient_group", progress=False)
    (pair,) = report.pairs
    paths = [name["path"] for name in pair.names]
    assert paths == ["linear/Vir_prospective_file1.mp4", "linear/label_uncertain/Vir_or_Pneu_prospective_file4.mp4"]
    assert pair.distance == pytest.approx(0.031, abs=0.003)
    findings = codes(report)
    assert findings["labels_of_near_duplicates_differ"].count == 2
    assert (
        "recordings of one person or scene can look the same and correctly have different labels"
        in findings["labels_of_near_duplicates_differ"].detail
    )
    assert findings["groups_of_two_labels"].title.startswith("1 of 62")
    assert "uncertain" in findings["classes_rare"].detail


def test_mouths_of_one_speaker_are_no_copies(data):
    manifest = Manifest.scan(data / "lips", verify="packets", progress=False)
    assert check_manifest(manifest, progress=False).pairs == ()
