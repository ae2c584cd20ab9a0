import os

import numpy as np
import pytest
from made_videos import codes, moving, save, scanned

from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.quality import check_manifest
from cinefeed.testing import numbered_frames, write_video
from cinefeed.video.clips import Clip


@pytest.fixture
def folder(tmp_path):
    for number in range(4):
        save(tmp_path, f"v{number}.npy", moving(number))
    return tmp_path


def test_a_sound_folder_has_no_fault_of_files(folder):
    report = check_manifest(scanned(folder), progress=False)
    assert report.ok
    assert (report.rows, report.files, report.rows_read) == (4, 4, 4)
    assert [each.severity for each in report.findings] == ["note", "note"]  # not split, no group


def test_broken_and_unreadable_files_say_where(folder):
    whole = (folder / "v1.npy").read_bytes()
    (folder / "v1.npy").write_bytes(whole[: len(whole) // 2])
    (folder / "v2.npy").write_bytes(whole[:20])
    report = check_manifest(scanned(folder), progress=False)
    findings = codes(report)
    assert findings["broken_files"].names == ({"id": "v1.npy", "path": "v1.npy"},)
    assert findings["broken_files"].remarks[0].startswith("breaks after 5 of 12 frames")
    assert [name["path"] for name in findings["unreadable_files"].names] == ["v2.npy"]
    assert str(folder) not in str(report)
    assert not report.ok
    assert report.rows_read == 3 and "in 4 files, 1 without a readable frame" in report.summary()


def test_files_that_are_gone_or_changed_after_the_scan(folder):
    manifest = scanned(folder)
    (folder / "v0.npy").unlink()
    save(folder, "v1.npy", moving(1, frames=20))
    os.utime(folder / "v2.npy", ns=(1, 1))
    save(folder, "v3.npy", moving(7))
    findings = codes(check_manifest(manifest, progress=False))
    assert [name["path"] for name in findings["missing_files"].names] == ["v0.npy"]
    assert [name["path"] for name in findings["changed_files"].names] == ["v1.npy", "v3.npy"]
    assert "bytes when scanned" in findings["changed_files"].remarks[0]
    assert "other content" in findings["changed_files"].remarks[1]


def test_frames_that_were_known_and_do_not_come(folder):
    manifest = scanned(folder)
    stat = (folder / "v3.npy").stat()
    (folder / "v3.npy").write_bytes(b"\x93NUMPY" + b"x" * (stat.st_size - 6))
    os.utime(folder / "v3.npy", ns=(stat.st_mtime_ns, stat.st_mtime_ns))
    findings = codes(check_manifest(manifest, progress=False))
    assert [name["path"] for name in findings["unread_frames"].names] == ["v3.npy"]
    assert findings["unread_frames"].remarks[0]


def with_column(manifest, name, values):
    table = manifest.table
    return Manifest(table.set_column(table.schema.names.index(name), name, [values]), root=manifest.root)


def test_headers_that_count_other_frames(folder):
    manifest = scanned(folder)
    assert "header_counts" not in codes(check_manifest(manifest, progress=False))
    by_one = with_column(manifest, "header_frames", np.array([12, 13, 0, 12], np.int32))
    finding = codes(check_manifest(by_one, progress=False))["header_counts"]
    assert (finding.severity, finding.count, finding.remarks) == ("note", 1, ("header: 13 frames, file: 12",))
    by_many = with_column(manifest, "header_frames", np.array([12, 13, 0, 30], np.int32))
    finding = codes(check_manifest(by_many, progress=False))["header_counts"]
    assert (finding.severity, finding.count) == ("warning", 2)
    assert finding.names[0]["path"] == "v3.npy"


def test_videos_shorter_than_the_clip(tmp_path):
    for frames in (8, 12, 16):
        write_video(tmp_path / f"v{frames:02}.mp4", numbered_frames(frames), rate_hz=10)
    manifest = scanned(tmp_path)
    findings = codes(check_manifest(manifest, clip=Clip(frames=6, stride=2), progress=False))
    assert [name["path"] for name in findings["short_videos"].names] == ["v08.mp4"]
    assert "spans 11 frames, the video has 8" in findings["short_videos"].remarks[0]
    findings = codes(check_manifest(manifest, clip=Clip(frames=6, rate_hz=4), progress=False))
    assert [name["path"] for name in findings["short_videos"].names] == ["v08.mp4", "v12.mp4"]
    assert "no_rate" not in codes(check_manifest(manifest, clip=Clip(frames=6, rate_hz=4), progress=False))
    assert "short_videos" not in codes(check_manifest(manifest, clip=Clip(frames=8), progress=False))
    assert "short_videos" not in codes(check_manifest(manifest, progress=False))


def test_arrays_have_no_rate(folder):
    findings = codes(check_manifest(scanned(folder), clip=Clip(frames=3, rate_hz=5), progress=False))
    assert (findings["no_rate"].count, findings["no_rate"].severity) == (4, "warning")
    assert "short_videos" not in findings
    assert "no_rate" not in codes(check_manifest(scanned(folder), clip=Clip(frames=3), progress=False))


def test_the_broken_file_among_real_ones(data):
    manifest = Manifest.scan(data / "formats", progress=False)
    findings = codes(check_manifest(manifest, progress=False))
    assert any("28 of 50" in remark for remark in findings["broken_files"].remarks)
    assert findings["header_counts"].count >= 1


@pytest.mark.parametrize(
    ("lacks", "severity", "detail"),
    [
        (["error"], "warning", "where files break"),
        (["size_bytes"], "note", "whether files changed after the scan, and which are copies"),
        (["header_tags", "spacing_down_mm"], "note", "whether headers declare burned-in text"),
        (
            "mtime_ns header_frames rate_hz bits channels pixel_format rotation".split(),
            "note",
            "whether rates differ",
        ),
    ],
)
def test_a_column_that_an_older_manifest_lacks_is_reported_as_not_checked(folder, lacks, severity, detail):
    scanned(folder).write(folder / "m.parquet")
    whole = Manifest.read(folder / "m.parquet")
    manifest_settings = {"root": whole.root, "history": whole.history, "notes": whole.notes}
    older = Manifest(whole.table.drop_columns(lacks), **manifest_settings)
    findings = codes(check_manifest(older, progress=False))["not_checked"]
    assert findings.severity == severity and detail in findings.detail
    assert "scan again" in findings.advice
    assert "not_checked" not in codes(check_manifest(whole, progress=False))


def test_frames_that_were_not_decoded_are_not_called_fine(folder):
    manifest = Manifest.scan(folder, verify="packets", progress=False)
    assert manifest.verified == "packets"
    findings = codes(check_manifest(manifest, progress=False))["not_checked"]
    assert findings.severity == "note" and "their packets were counted, their frames not decoded" in findings.detail
    table = manifest.table.drop_columns(["error", "header_frames", "header_tags"])
    own = Manifest.from_table(table, root=folder)  # a user's table with a number of frames
    assert own.verified is None and "error" not in own.table.column_names
    report = check_manifest(own, progress=False)
    assert codes(report)["not_checked"].severity == "warning" and "broken_files" not in codes(report)
