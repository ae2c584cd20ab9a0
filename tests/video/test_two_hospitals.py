"""External validation on the manifest of another hospital, with one patient who was treated in both."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from made_dicom import write_dicom

import cinefeed as cf
from cinefeed.cli import main
from cinefeed.config import parse
from cinefeed.core.errors import SplitError, TableError
from cinefeed.reports.page import table_page
from cinefeed.training.evaluate import evaluate
from cinefeed.training.fit import train

UNCHECKED = "overlap of patients cannot be checked"


def hospital(folder, patients):
    """Write a cine of each patient, and labels by the number of the patient; return the folder."""
    for place, patient in enumerate(patients):
        frames = np.full((4, 16, 16), 10 * place, np.uint8)
        uids = {"StudyInstanceUID": f"1.2.{patient}", "SeriesInstanceUID": f"1.2.{patient}.1"}
        write_dicom(folder / f"studies/{place}.dcm", frames, PatientID=f"P{patient}", **uids)
    rows = "".join(f"P{patient},{30.5 + patient}\n" for patient in patients)
    (folder / "labels.csv").write_text("PatientID,age\n" + rows)
    return folder


def scan(folder, *, salt=None, name="m.parquet"):
    out = folder / name
    reading = cf.ReadOptions(salt=salt)
    cf.Manifest.scan(
        folder / "studies",
        labels=folder / "labels.csv",
        on="PatientID=patient",
        out=out,
        reading=reading,
        progress=False,
    )
    return out


def run_of(manifest, out):
    """Train on a manifest by patient: all of its rows are in training or validation, or in a test part of one."""
    table = {
        "data": {"manifest": str(manifest), "target": "age", "split": {"group": "patient", "val": 0.3, "test": 0.2}},
        "clip": {"frames": 2},
        "frame": {"height": 8, "width": 8, "channels": 1},
        "feed": {"batch_size": 4, "workers": 0},
        "model": {"filters": [4], "units": 4, "dense": 0},
        "train": {"out": str(out), "epochs": 1},
        "evaluate": {"resamples": 20},
    }
    train(parse(table))
    return out


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hospitals")
    first, second = hospital(folder / "a", range(10)), hospital(folder / "b", [*range(100, 106)])
    own = cf.Manifest.read(run_of(scan(first, salt="secret"), folder / "run") / "manifest.parquet")
    # one that the run has learnt from is the seventh of the other hospital
    ages = own.where("split", ["train"]).column("age").to_pylist()
    return folder, first, hospital(second, [*range(100, 106), int(ages[0] - 30.5)])


def test_a_common_salt_refuses_the_patient_of_both(hospitals):
    folder, _, second = hospitals
    with pytest.raises(SplitError, match=r"1 of 7 values of 'patient' .* are in the run's training or validation"):
        evaluate(folder / "run", manifest=scan(second, salt="secret", name="common.parquet"))


def test_different_salts_are_told_on_terminal_and_page(hospitals, tmp_path, capsys):
    folder, _, second = hospitals
    other, out = scan(second, name="own.parquet"), tmp_path / "external.parquet"
    assert main(["evaluate", *map(str, [folder / "run", "--manifest", other, "--out", out]), "--json"]) == 0
    done = capsys.readouterr()
    assert f"warning: {UNCHECKED}" in done.err and "--salt" in done.err
    assert UNCHECKED in json.loads(done.out)["assessment"]["warnings"][0]
    page = table_page(out).read_text()
    head = page[page.index("<header>") : page.index("</header>")]
    assert UNCHECKED in head and "the same --salt" in head
    assert main(["evaluate", str(out)]) == 0
    assert UNCHECKED in capsys.readouterr().err


@pytest.mark.parametrize("by", ["ids as they are in one", "a table without notes"])
def test_what_is_hashed_in_one_alone_or_of_unknown_salt_is_told_too(hospitals, tmp_path, by):
    folder, _, second = hospitals
    path = scan(second, salt="" if by.startswith("ids") else None, name="other.parquet")
    if not by.startswith("ids"):
        table = cf.Manifest.read(path).table
        cf.Manifest.from_table(table, root=second / "studies").write(path)
    assert UNCHECKED in evaluate(folder / "run", manifest=path).assessment["warnings"][0]


def test_other_patients_of_one_salt_need_no_word(hospitals, tmp_path):
    folder, _, _ = hospitals
    third = hospital(tmp_path / "c", [*range(200, 206)])
    assert "warnings" not in evaluate(folder / "run", manifest=scan(third, salt="secret")).assessment


def test_the_salt_is_kept_as_a_fingerprint_alone_by_files_filters_and_runs(hospitals, tmp_path):
    folder, _, second = hospitals
    one = cf.Manifest.read(scan(second, salt="secret", name="common.parquet"))
    fingerprint = one.salt_fingerprint("patient")
    assert fingerprint and len(fingerprint) == 32 and one.salt_fingerprint("age") == ""
    assert cf.Manifest.read(folder / "run/manifest.parquet").salt_fingerprint("patient") == fingerprint
    assert one.take([0]).as_private().salt_fingerprint("patient") == fingerprint
    assert cf.Manifest.read(scan(second, name="own.parquet")).salt_fingerprint("patient") not in (fingerprint, "", None)
    notes = pq.read_schema(second / "common.parquet").metadata[b"cinefeed"]
    assert b"secret" not in notes


def test_a_private_split_is_not_lost_to_another_salt(hospitals, tmp_path):
    _, first, _ = hospitals
    out = tmp_path / "m.parquet"
    options = {"out": out, "private": True, "progress": False}
    manifest = cf.Manifest.scan(first / "studies", reading=cf.ReadOptions(salt="one"), **options)
    manifest.split(val=0.2, test=0.2, group="patient").all.write(out)
    again = cf.Manifest.scan(first / "studies", reading=cf.ReadOptions(salt="one"), **options)
    assert again.column("split").null_count == 0
    with pytest.raises(TableError, match="hashed with another salt"):
        cf.Manifest.scan(first / "studies", reading=cf.ReadOptions(salt="two"), **options)
