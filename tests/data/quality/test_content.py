import shutil

import numpy as np
import pytest
from made_videos import codes, moving, save, scanned

from cinefeed.data.manifest import identity
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.quality import check_manifest


@pytest.fixture
def folder(tmp_path):
    for number in range(5):
        save(tmp_path, f"v{number}.npy", moving(number))
    return tmp_path


def test_a_copy_is_found_by_its_bytes(folder):
    shutil.copy(folder / "v1.npy", folder / "w.npy")
    report = check_manifest(scanned(folder), progress=False)
    (pair,) = report.pairs
    assert (pair.kind, pair.distance, pair.first, pair.second) == ("copy", 0.0, 1, 5)
    assert [name["path"] for name in codes(report)["copies"].names] == ["v1.npy", "w.npy"]
    assert "near_duplicates" not in codes(report)


def test_files_of_one_size_are_no_copies(folder):
    report = check_manifest(scanned(folder), progress=False)
    assert report.pairs == ()


def test_files_that_differ_in_the_middle_alone_are_no_copies(tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "_EDGE_BYTES", 64)
    frames = moving(0)
    save(tmp_path, "a.npy", frames)
    frames = frames.copy()
    frames[6, 30, 30] ^= 1
    save(tmp_path, "b.npy", frames)
    report = check_manifest(scanned(tmp_path), progress=False)
    assert [pair.kind for pair in report.pairs] == ["near_duplicate"]


def test_stretches_of_one_file_are_no_copies_and_one_file_twice_is(folder):
    table = scanned(folder).table.take([0, 0, 0])
    names = table.schema.names
    table = table.set_column(names.index("id"), "id", [["a", "b", "c"]])
    table = table.drop_columns([name for name in ("start_seconds", "end_seconds") if name in names])
    twice = Manifest(table, root=folder)
    assert codes(check_manifest(twice, progress=False))["copies"].count == 3
    rates = table.set_column(names.index("step_seconds"), "step_seconds", [[0.1] * 3])
    cut = rates.append_column("start_seconds", [[0.0, 0.3, 0.6]]).append_column("end_seconds", [[0.3, 0.6, 0.9]])
    assert "copies" not in codes(check_manifest(Manifest(cut, root=folder), progress=False))


def test_copies_across_the_split_are_an_error_and_labels_that_differ_too(folder):
    shutil.copy(folder / "v1.npy", folder / "w.npy")
    manifest = scanned(
        folder,
        split=["train", "train", "val", "test", "train", "test"],
        kind=["a", "a", "b", "b", "a", "b"],
    )
    findings = codes(check_manifest(manifest, target="kind", progress=False))
    assert findings["copies_across_splits"].severity == "error"
    assert "have the same bytes. They are in two parts: train and test." in findings["copies_across_splits"].detail
    assert findings["copies_across_splits"].remarks == ("set 1: train, a", "set 1: test, b")
    assert findings["labels_of_copies_differ"].severity == "error"
    assert (
        "the bytes are the same, so at most one label of each set can be right"
        in findings["labels_of_copies_differ"].detail
    )
    assert "copies" not in findings
    same = scanned(
        folder, split=["train", "train", "val", "test", "train", "train"], kind=["a", "a", "b", "b", "a", "a"]
    )
    findings = codes(check_manifest(same, target="kind", progress=False))
    assert findings["copies"].severity == "warning"
    assert not {"copies_across_splits", "labels_of_copies_differ"} & findings.keys()


def test_near_duplicates_are_no_doubt_where_all_videos_look_alike(tmp_path):
    """Ten videos of one texture, each with another age, against ten of which all have a twin of the same age."""
    noise = np.random.default_rng(0).integers(0, 9, (10, 12, 64, 80), np.uint8)
    for number in range(10):
        save(tmp_path / "alike", f"{number}.npy", moving(1) // 2 + noise[number])
        save(tmp_path / "twins", f"{number}.npy", moving(number // 2) // 2 + noise[number])
    split = ["train", "test"] * 5
    alike = codes(
        check_manifest(scanned(tmp_path / "alike", split=split, age=list(range(10))), target="age", progress=False)
    )
    assert alike["videos_look_alike"].severity == "note"
    assert not {"near_duplicates_across_splits", "labels_of_near_duplicates_differ"} & alike.keys()
    ages = [number // 2 for number in range(10)]
    twins = codes(check_manifest(scanned(tmp_path / "twins", split=split, age=ages), target="age", progress=False))
    assert twins["near_duplicates_across_splits"].severity == "error" and "videos_look_alike" not in twins


def test_look_alikes_of_one_group_are_a_note_and_across_the_split_an_error(folder):
    noise = np.random.default_rng(0).integers(0, 9, (12, 64, 80), np.uint8)
    save(folder, "w.npy", moving(1) // 2 + noise)
    together = scanned(folder, patient=["p0", "p1", "p2", "p3", "p4", "p1"])
    findings = codes(check_manifest(together, group="patient", progress=False))
    assert findings["near_duplicates_of_one_group"].severity == "note"
    apart = scanned(folder, patient=["p0", "p1", "p2", "p3", "p4", "p5"])
    findings = codes(check_manifest(apart, group="patient", progress=False))
    assert findings["near_duplicates"].severity == "warning"
    assert findings["near_duplicates"].title == "2 videos with nearly the same frames as another"
    assert "1 set of 2 videos in all, each of more than one group" in findings["near_duplicates"].detail
    nobody = scanned(folder, patient=["p0", None, "p2", "p3", "p4", None])
    detail = codes(check_manifest(nobody, group="patient", progress=False))["near_duplicates"].detail
    assert "in all, without a group. A split may" in detail and "two names" not in detail
    split = scanned(folder, split=["train", "test", "val", "test", "train", "val"])
    report = check_manifest(split, progress=False)
    entry = codes(report)["near_duplicates_across_splits"]
    assert entry.severity == "error" and entry.remarks == ("set 1: val", "set 1: test")
    assert "One video may be in two parts: val and test." in entry.detail and "train" not in entry.detail
    assert report.pairs[0].across
    assert not report.ok
