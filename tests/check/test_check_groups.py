import pyarrow as pa
import pytest
from made_videos import codes, moving, save, scanned

from cinefeed.check import check_manifest
from cinefeed.check.groups import groups_of
from cinefeed.errors import ColumnError
from cinefeed.manifest.table import Manifest

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
    found = checked(folder, group="owner", split=PARTS, owner=["a", "b", "a", "c"])["groups_across_splits"]
    assert found.severity == "error"
    assert found.title.startswith("1 of 3 values of owner")
    assert found.remarks == ("a: train", "a: val")
    assert "groups_across_splits" not in checked(folder, group="owner", split=PARTS, owner=["a", "a", "b", "c"])


def test_ids_from_headers_count_as_groups_beside_the_one_named(folder):
    columns = {"split": PARTS, "owner": ["a", "b", "c", "d"], "patient": ["p", "q", "q", "r"]}
    found = checked(folder, group="owner", **columns)["groups_across_splits"]
    assert "of patient" in found.title
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
    found = checked(folder, group="owner", owner=["a", None, None, "a"])["rows_without_group"]
    assert (found.severity, found.count) == ("warning", 2)


def test_rows_without_a_part(folder):
    found = checked(folder, split=["train", None, "val", "test"])
    assert [name["path"] for name in found["rows_without_split"].names] == ["v1.npy"]
    assert "not_split" not in found
    assert "not_split" in checked(folder)


def test_stretches_of_one_video_in_two_parts(folder):
    path = ["v0.npy", "v0.npy", "v1.npy"]
    table = scanned(folder).table.take([0, 0, 1]).drop_columns(["id"]).append_column("id", [["a", "b", "c"]])
    split = Manifest(table.append_column("split", pa.array(["train", "val", "val"])), root=folder)
    found = codes(check_manifest(split, progress=False))["files_across_splits"]
    assert [name["path"] for name in found.names] == path[:2]
    parts = Manifest(split.table.append_column("part", pa.array(["x", "y", None])), root=folder)
    assert "files_across_splits" not in {each.code for each in check_files(parts)}


def check_files(manifest):
    from cinefeed.check.groups import group_findings

    return group_findings(manifest, group=None)


def test_an_unknown_group_names_the_nearest(folder):
    with pytest.raises(ColumnError, match="did you mean 'owner'"):
        check_manifest(scanned(folder, owner=["a"] * 4), group="owmer", progress=False)
