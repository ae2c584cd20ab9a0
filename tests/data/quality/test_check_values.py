"""Numbers that a feed would spoil: found by a check, with the rows, before any training."""

import numpy as np
import pytest
from made_videos import codes, moving, save, scanned

from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.quality import check_manifest
from cinefeed.video.clips import Frame


def checked(folder, *, window=None, dtype="uint8", **columns):
    frame = Frame(height=64, width=64, channels=1, window=window, dtype=dtype)
    return check_manifest(scanned(folder, **columns), frame=frame, progress=False)


@pytest.fixture
def dark(tmp_path):
    """Three videos of 16 bits with values to 1,020, and one that is brighter by far."""
    for number in range(3):
        save(tmp_path, f"v{number}.npy", moving(number).astype(np.uint16) * 4)
    save(tmp_path, "v3.npy", moving(3).astype(np.uint16) * 200)
    return tmp_path


def test_numbers_without_black_and_white_are_found_with_a_window_that_serves(dark):
    report = check_manifest(scanned(dark), progress=False)
    findings = codes(report)["window_missing"]
    assert (findings.severity, findings.rows) == ("warning", (0, 1, 2, 3))  # nobody said how they will be fed
    assert findings.remarks[0].startswith("uint16, ")
    assert "[frame] window = [" in findings.advice
    assert checked(dark).number("error") == 1
    assert "window_missing" not in codes(checked(dark, window=(0, 51_000)))
    assert "window_missing" not in codes(checked(dark, dtype="uint16"))


def test_a_feed_with_less_than_a_tenth_of_its_levels_is_found_with_its_rows(dark):
    finding = codes(checked(dark, window=(0, 51_000)))["few_levels"]
    assert (finding.severity, finding.rows) == ("warning", (0, 1, 2))
    assert finding.remarks[0].endswith("of 256 levels")
    assert codes(checked(dark, dtype="uint16"))["few_levels"].rows == (0, 1, 2)  # as they are stored: 4 of 256
    assert "few_levels" not in codes(checked(dark, dtype="float32"))


def test_a_window_that_clips_is_found_with_its_rows(dark):
    report = checked(dark, window=(0, 1020))
    assert (codes(report)["clipped"].rows, codes(report)["clipped"].severity) == ((3,), "warning")
    assert codes(report)["clipped"].remarks[0].endswith("of the pixels lie outside 0 to 1020")
    assert codes(report)["few_levels"].rows == (3,)  # nearly all of it is white


def test_eight_bits_of_few_levels_are_a_note(tmp_path):
    save(tmp_path, "a.npy", moving(0))
    save(tmp_path, "b.npy", (moving(1) > 128).astype(np.uint8))
    report = checked(tmp_path)
    assert (codes(report)["few_levels_stored"].rows, report.number("warning")) == ((1,), 0)
    assert codes(report)["few_levels_stored"].remarks == ("2 of 256 levels",)


def test_nan_and_infinity_are_an_error_and_no_black(tmp_path):
    for number in range(4):
        video = moving(number).astype(np.float32) / 255
        if number == 1:
            video[:, 4:20, 5:20] = np.nan
        if number == 2:
            video[0, 0, 0] = np.inf  # the scan's frames have it, those of the check do not
        save(tmp_path, f"v{number}.npy", video)
    report = checked(tmp_path, dtype="float32")
    finding = codes(report)["pixels_not_finite"]
    assert (finding.severity, finding.rows, report.ok) == ("error", (1, 2), False)
    assert finding.remarks == (f"{12 * 16 * 15:,} pixels are NaN", "1 pixel is infinite")
    assert "v1.npy: 2,880 pixels are NaN" in str(report)
    unmeasured = Manifest.scan(tmp_path, progress=False)
    columns = ["nan_count", "inf_count", "value_min", "value_max", "value_low", "value_high"]
    table = unmeasured.table.drop_columns(columns)
    report = check_manifest(Manifest(table, root=tmp_path, history=unmeasured.history), progress=False)
    assert codes(report)["pixels_not_finite"].rows == (1,)
    assert codes(report)["pixels_not_finite"].remarks == (f"{5 * 240:,} of {5 * 64 * 80:,} pixels are NaN or infinite",)


def test_labels_that_are_all_missing_or_all_the_same_are_errors(tmp_path):
    for number in range(3):
        save(tmp_path, f"v{number}.npy", moving(number))
    manifest = scanned(tmp_path, age=[45.0, 45.0, 45.0], weight=[None, None, None])
    assert codes(check_manifest(manifest, target="age", progress=False))["label_constant"].severity == "error"
    assert codes(check_manifest(manifest, target="weight", progress=False))["labels_missing"].severity == "error"
