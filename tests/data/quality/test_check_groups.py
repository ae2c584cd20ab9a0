import numpy as np
import pyarrow as pa
import pytest
from made_videos import codes, moving, save, scanned

from cinefeed.core.errors import ColumnError, TableError
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.quality import check_manifest
from cinefeed.data.quality.groups import groups_of, joined_groups

PARTS = ["train", "train", "val", "test"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("groups")
    for number in range(4):
        save(folder, f"v{number}.npy", moving(number))
    return folder


def checked(folder, *, group=None, **columns):
    return codes(check_manifest(scanned(folder, **columns), group=group, progress=False))


def test_a_group_in_two_parts(folder):
    finding = checked(folder, group="owner", split=PARTS, owner=["a", "b", "a", "c"])["groups_across_splits"]
    assert finding.severity == "error"
    assert finding.title.startswith("1 of 3 values of owner")
    assert finding.remarks == ("a: train", "a: val")
    assert "groups_across_splits" not in checked(folder, group="owner", split=PARTS, owner=["a", "a", "b", "c"])


def test_ids_from_headers_count_as_groups_beside_the_one_named(folder):
    columns = {"split": PARTS, "owner": ["a", "b", "c", "d"], "patient": ["p", "q", "q", "r"]}
    findings = checked(folder, group="owner", **columns)["groups_across_splits"]
    assert "of patient" in findings.title
    assert "groups_across_splits" not in checked(folder, group="owner", split=PARTS, owner=["a", "b", "c", "d"])


def test_a_row_counts_for_its_patient_and_where_there_is_none_for_its_study(folder):
    manifest = scanned(folder, patient=["p", None, None, "q"], study=["1", "2", "2", "1"])
    groups = groups_of(manifest, None)
    assert groups.values.to_pylist() == ["patient p", "study 2", "study 2", "patient q"]
    assert groups.codes.tolist() == [0, 2, 2, 1]
    assert groups_of(scanned(folder), None) is None


def test_rows_without_a_group_stand_for_themselves(folder):
    groups = groups_of(scanned(folder, owner=["a", None, None, "a"]), "owner")
    assert groups.codes.tolist() == [0, 1, 2, 0]
    finding = checked(folder, group="owner", owner=["a", None, None, "a"])["rows_without_group"]
    assert (finding.severity, finding.count) == ("warning", 2)


def test_rows_without_a_part(folder):
    findings = checked(folder, split=["train", None, "val", "test"])
    assert [name["path"] for name in findings["rows_without_split"].names] == ["v1.npy"]
    assert "not_split" not in findings
    assert "not_split" in checked(folder)


def test_stretches_of_one_video_in_two_parts(folder):
    path = ["v0.npy", "v0.npy", "v1.npy"]
    table = scanned(folder).table.take([0, 0, 1]).drop_columns(["id"]).append_column("id", [["a", "b", "c"]])
    split = Manifest(table.append_column("split", pa.array(["train", "val", "val"])), root=folder)
    findings = codes(check_manifest(split, progress=False))["files_across_splits"]
    assert [name["path"] for name in findings.names] == path[:2]
    parts = Manifest(split.table.append_column("part", pa.array(["x", "y", None])), root=folder)
    assert "files_across_splits" not in {each.code for each in check_files(parts)}


def check_files(manifest):
    from cinefeed.data.quality.groups import group_findings

    return group_findings(manifest, group=None)


def test_an_unknown_group_names_the_nearest(folder):
    with pytest.raises(ColumnError, match="did you mean 'owner'"):
        check_manifest(scanned(folder, owner=["a"] * 4), group="owmer", progress=False)


def test_groups_that_would_cure_it_keep_patients_copies_look_alikes_and_stretches_together(tmp_path):
    for number in range(6):
        save(tmp_path, f"v{number}.npy", moving(number))
    save(tmp_path, "v5.npy", moving(0))  # a copy of the first
    save(tmp_path, "v4.npy", np.clip(moving(2).astype(int) + 6, 0, 255).astype(np.uint8))  # looks as the third
    owner = ["a", "a", "b", None, "c", "d"]
    manifest = scanned(tmp_path, owner=owner, split=["train", "train", "train", "val", "test", "test"])
    report = check_manifest(manifest, group="owner", progress=False)
    assert report.groups == ("a + d", "a + d", "b + c", "row v3.npy", "b + c", "a + d")
    assert {"copies_across_splits", "near_duplicates_across_splits"} <= codes(report).keys()
    table = pa.table({"id": manifest.column("id"), "check_group": list(report.groups)})
    for seed in range(5):
        again = manifest.with_groups(table).split(val=0.2, test=0.2, group="check_group", seed=seed).all
        left = codes(check_manifest(again, group="owner", progress=False))
        assert not {"copies_across_splits", "near_duplicates_across_splits", "groups_across_splits"} & left.keys()


def test_stretches_of_one_video_are_one_group(folder):
    table = scanned(folder).table.select(["path"]).take([0, 0, 1, 2])
    table = table.append_column("start_seconds", pa.array([0.0, 0.2, 0.0, 0.0]))
    manifest = Manifest.from_table(table, root=folder)
    assert joined_groups(manifest, group=None, sets=[[2, 3]]) == (
        "row v0.npy@0 + row v0.npy@0.2",
        "row v0.npy@0 + row v0.npy@0.2",
        "row v1.npy@0 + row v2.npy@0",
        "row v1.npy@0 + row v2.npy@0",
    )


def test_a_table_of_groups_names_every_row_once(folder):
    manifest = scanned(folder)
    ids = manifest.column("id").to_pylist()
    with pytest.raises(ColumnError, match="needs a column 'check_group'"):
        manifest.with_groups({"id": ids, "patient": ids})
    with pytest.raises(TableError, match=r"1 of 4 rows has no group in the table \(first: v3.npy\)"):
        manifest.with_groups({"id": ids[:3], "check_group": ids[:3]})
    with pytest.raises(TableError, match="1 ids more than once"):
        manifest.with_groups({"id": [*ids, ids[0]], "check_group": [*ids, "x"]})
    more = manifest.with_groups({"id": [*ids, "gone"], "check_group": [1, 1, 2, 3, 4]})
    assert more.column("check_group").to_pylist() == ["1", "1", "2", "3"]
