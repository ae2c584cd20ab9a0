"""A private data set: no path, name or raw id is shown, from the scan to the report."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from made_dicom import write_dicom

import cinefeed as cf
from cinefeed.config import parse
from cinefeed.core.errors import SourceError, TableError
from cinefeed.reports.page import run_page
from cinefeed.training.evaluate import evaluate
from cinefeed.training.fit import train

SECRETS = ("SMITH", "MRN0", "1.2.99")


@pytest.fixture
def studies(tmp_path):
    """A folder of twelve cine, named after their patients, and a table of labels by the number of the patient."""
    for number in range(12):
        frames = np.full((6, 16, 16), 10 * number, np.uint8)
        write_dicom(
            tmp_path / f"studies/SMITH_{number}/cine.dcm",
            frames,
            PatientID=f"MRN0{number}",
            PatientName=f"SMITH^{number}",
            StudyInstanceUID=f"1.2.99.{number}",
            SeriesInstanceUID=f"1.2.99.{number}.1",
            SeriesDescription="4ch cine",
        )
    rows = "".join(f"MRN0{number},{30 + number}\n" for number in range(12))
    (tmp_path / "labels.csv").write_text("patient,age\n" + rows)
    return tmp_path


def scan(studies, **changes):
    settings = {"labels": studies / "labels.csv", "on": "patient", "out": studies / "m.parquet", "private": True}
    return cf.Manifest.scan(studies / "studies", **settings | changes)


def names_in(text):
    return [secret for secret in SECRETS if secret in text]


def test_ids_are_hashed_after_the_labels_are_joined_and_the_same_in_a_later_scan(studies):
    manifest = scan(studies, reading=cf.ReadOptions(keep=("SeriesDescription",)))
    assert sorted(manifest.column("age").to_pylist()) == list(range(30, 42))
    assert manifest.column("series_description").to_pylist() == ["4ch cine"] * 12
    for name in ("id", "patient", "study", "series"):
        values = manifest.column(name).to_pylist()
        assert len(set(values)) == 12 and all(len(value) == 16 for value in values)
    again = scan(studies)
    assert again.column("patient") == manifest.column("patient") and again.column("id") == manifest.column("id")
    assert (studies / "m.parquet.salt").stat().st_mode & 0o777 == 0o600
    (studies / "m.parquet.salt").unlink()
    assert scan(studies).column("patient") != manifest.column("patient")
    assert scan(studies, reading=cf.ReadOptions(salt="")).column("patient")[0].as_py() == "MRN00"


def test_a_manifest_shows_no_path(studies):
    (studies / "studies/SMITH_3/cine.dcm").write_bytes(b"no DICOM at all" * 20)
    manifest = scan(studies, unmatched="ignore", labels=None, on=None)
    assert (
        not names_in(str(manifest))
        and not names_in(repr(manifest))
        and not names_in(str(manifest.display_names().to_pylist()))
    )
    others = manifest.table.drop_columns(["path"]).to_pylist()
    assert not names_in(str(others)) and any(row["error"] for row in others)
    stored = cf.Manifest.read(studies / "m.parquet")
    assert stored.private and not names_in(str(stored))
    assert not names_in(str(stored.where("modality", ["MR"])))


def test_errors_name_ids(studies):
    with pytest.raises(TableError) as caught:
        scan(studies, labels={"patient": ["MRN099"], "age": [1]})
    assert "none of 1 rows matches any of 12 videos (rows: private; videos: private)" in str(caught.value)
    manifest = scan(studies)
    (studies / "studies/SMITH_3/cine.dcm").write_bytes(b"no DICOM at all" * 20)
    feed = cf.Feed(manifest, target="age", clip=cf.Clip(frames=4), frame=cf.Frame(height=8, width=8, channels=1))
    with pytest.raises(SourceError) as caught:
        list(feed)
    assert not names_in(str(caught.value)) and f"row 5, {manifest.column('id')[5]}" in str(caught.value)


def test_a_run_and_its_report_show_ids_and_no_picture(studies):
    scan(studies)
    table = {
        "data": {"manifest": str(studies / "m.parquet"), "target": "age", "split": {"group": "patient", "seed": 1}},
        "clip": {"frames": 4},
        "frame": {"height": 8, "width": 8, "channels": 1},
        "feed": {"batch_size": 3, "seed": 7, "workers": 1},
        "model": {"filters": [4, 4], "units": 4, "dense": 0},
        "train": {"out": str(studies / "run"), "epochs": 1},
    }
    folder = train(parse(table)).folder
    page = run_page(folder)
    evaluate(folder, part="test", out=studies / "predictions.parquet")
    for path in [*folder.rglob("*"), studies / "predictions.parquet", page]:
        if path.suffix == ".parquet":
            columns = pq.read_table(path)
            if path.name == "manifest.parquet":  # it has to find the files
                columns = columns.drop_columns(["path"])
            assert not names_in(str(columns.to_pylist())), path
        elif path.is_file():
            assert not names_in(path.read_bytes().decode("latin-1")), path
    assert np.load(folder / "clips.npz")["clips"].shape[0] == 0
    assert json.loads((folder / "failures.json").read_text()) == []
    assert "data:image/png" not in page.read_text()


def test_a_plain_scan_is_made_private_afterwards(studies):
    (studies / "studies/SMITH_3/cine.dcm").write_bytes(b"no DICOM at all" * 20)
    plain = scan(studies, private=False, labels=None, on=None)
    assert names_in(str(plain.column("id").to_pylist())) and names_in(str(plain.column("error").to_pylist()))
    private = plain.as_private()
    assert not names_in(str(private)) and not names_in(str(private.table.drop_columns(["path"]).to_pylist()))
    assert len(set(private.column("id").to_pylist())) == 12
    assert private.as_private().column("id") == private.column("id")
    assert private.take([2]).column("id") == plain.take([2]).as_private().column("id")
    assert [private.path_of(row) for row in range(12)] == [plain.path_of(row) for row in range(12)]
    named = cf.Manifest.from_table({"path": ["SMITH_1/a.npy"], "id": ["seven"]}).as_private()
    assert named.column("id").to_pylist() == ["seven"]


def test_windows_of_a_file_keep_ids_of_their_own(studies):
    table = {"path": ["SMITH/a.npy"] * 2, "start_seconds": [0.0, 1.0], "end_seconds": [1.0, 2.0]}
    ids = cf.Manifest.from_table(table).as_private().column("id").to_pylist()
    assert len(set(ids)) == 2 and not names_in(str(ids))
    features = {"path": ["a/SMITH.1.npy.5f.npy"] * 2, "id": ["a/SMITH.1.npy@0-1", "a/SMITH.1.npy@1-2"]}
    assert not names_in(str(cf.Manifest.from_table(features).as_private().column("id").to_pylist()))


def test_what_is_not_private_is_found(studies):
    assert names_in(str(scan(studies, private=False).display_names().to_pylist())) == ["SMITH"]
