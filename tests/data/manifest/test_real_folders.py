"""A verified scan of real videos finds what a full decode found (facts.csv)."""

import pyarrow.csv
import pytest

from cinefeed.data.manifest.manifest import Manifest
from cinefeed.video.registry import probe


def expected(data, folder):
    rows = pyarrow.csv.read_csv(data / "facts.csv").to_pylist()
    return {row["path"].removeprefix(f"{folder}/"): row for row in rows if row["path"].startswith(f"{folder}/")}


def faults(manifest, metadata):
    """Return the differences from a full decode."""
    columns = {
        "codec": "codec",
        "pixel_format": "pix_fmt",
        "width": "width",
        "height": "height",
        "num_frames": "frames_decoded",
        "header_frames": "frames_in_header",
    }
    differences = []
    for row in manifest.table.to_pylist():
        reference = dict(metadata[row["path"]])
        reference["width"] = round(reference["width"] * (row["aspect"] or 1))  # stored; a manifest says what is shown
        if row["rotation"] in (90, 270):  # a full decode tells the size as stored
            reference["width"], reference["height"] = reference["height"], reference["width"]
        differences += [(row["path"], ours) for ours, theirs in columns.items() if row[ours] != reference[theirs]]
        differences += [(row["path"], "key_frames")] * (len(row["key_frames"]) != reference["key_frames"])
        differences += [(row["path"], "error")] * ((row["error"] is not None) != bool(reference["error"]))
        differences += [(row["path"], "ticks")] * (row["ticks"] is None and reference["variable_rate"])
        if reference["fps"]:
            differences += [(row["path"], "rate")] * (abs(row["rate_hz"] - reference["fps"]) > 0.01)
    return differences


@pytest.mark.parametrize(
    ("folder", "count", "labelled"),
    [
        ("formats", 25, False),
        ("grid", 5, False),
        ("lips", 566, True),
        pytest.param("pocus", 77, True, marks=pytest.mark.slow),
    ],
)
def test_a_verified_scan_agrees_with_a_full_decode(data, folder, count, labelled):
    labels = data / folder / "labels.csv" if labelled else None
    manifest = Manifest.scan(data / folder, labels=labels)
    metadata = expected(data, folder)
    assert len(manifest) == count == len(metadata)
    assert faults(manifest, metadata) == []
    metadata[manifest.column("path")[0].as_py()]["frames_decoded"] += 1
    assert len(faults(manifest, metadata)) == 1


def test_a_file_that_breaks_keeps_its_good_frames(data):
    manifest = Manifest.scan(data / "formats" / "decord")
    row = manifest.column("path").to_pylist().index("corrupted.mp4")
    assert manifest.metadata(row).times.count == 28
    assert "28 of 50" in manifest.column("error")[row].as_py()
    assert "corrupted.mp4: 28 frames can be read" in str(manifest)


def test_labels_of_real_videos(data):
    manifest = Manifest.scan(data / "pocus", labels=data / "pocus" / "labels.csv", verify="packets")
    assert manifest.history == [("videos found", 77), ("with a row of labels (joined on path)", 77)]
    selection = manifest.where("label", ["regular", "pneumonia"])
    parts = selection.split(val=0.15, test=0.2, group="patient_group", stratify="label", seed=7)
    groups = [set(part.column("patient_group").to_pylist()) for part in parts]
    assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])
    for part, share in zip(parts, (0.65, 0.15, 0.2), strict=True):
        counts = [part.column("label").to_pylist().count(name) for name in ("regular", "pneumonia")]
        assert abs(counts[0] - share * 28) <= 3
        assert abs(counts[1] - share * 35) <= 3


def test_facts_of_a_manifest_are_those_of_the_file(data):
    manifest = Manifest.scan(data / "formats" / "torchcodec", verify="packets")
    for row in range(len(manifest)):
        ours, theirs = manifest.metadata(row), probe(manifest.path_of(row), verify="packets")
        assert (ours.height, ours.width, ours.rotation, ours.codec) == (
            theirs.height,
            theirs.width,
            theirs.rotation,
            theirs.codec,
        )
        assert ours.times.seconds().tolist() == theirs.times.seconds().tolist()
        assert ours.ticks.stamps().tolist() == theirs.ticks.stamps().tolist()
        assert ours.key_frames.tolist() == theirs.key_frames.tolist()


def test_files_that_hold_no_video_are_named(tmp_path, data):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video at all" * 100)
    whole = (data / "lips" / "00139.mp4").read_bytes()
    (tmp_path / "whole.mp4").write_bytes(whole)
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    manifest = Manifest.scan(tmp_path, out=tmp_path / "m.parquet")
    errors = dict(zip(manifest.column("path").to_pylist(), manifest.column("error").to_pylist(), strict=True))
    assert errors.pop("whole.mp4") is None
    assert sorted(errors) == ["cut.mp4", "empty.mp4", "text.mp4"]
    assert all(errors.values())


def test_a_scanned_table_survives_pandas(data):
    manifest = Manifest.scan(data / "formats" / "torchcodec", verify="packets")
    again = Manifest.from_table(manifest.table.to_pandas(), root=manifest.root)
    assert again.table.equals(manifest.table)
    assert again.fingerprint == manifest.fingerprint
