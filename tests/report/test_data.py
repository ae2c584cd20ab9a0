import json

import pyarrow as pa
import pytest
from made_runs import write_run

from cinefeed.manifest.table import Manifest
from cinefeed.report import run_page
from cinefeed.report.folder import run_data
from cinefeed.report.page import render

FILES = {
    "labels": "labels.json",
    "clips": "clips.npz",
    "pixels": "pixels.json",
    "history": "history.csv",
    "feed_stats": "feed_stats.json",
    "predictions": "predictions.parquet",
    "failures": "failures.json",
    "flow": "flow.json",
    "versions": "versions.json",
}


@pytest.mark.parametrize("section", FILES)
def test_a_missing_or_damaged_file_is_named(tmp_path, section):
    folder = write_run(tmp_path / "run", task="regression")
    whole = run_data(folder)
    assert FILES[section] not in " ".join(whole.missing.values())
    (folder / FILES[section]).write_bytes(b"\xff{]")
    assert f"{FILES[section]} cannot be read" in run_data(folder).missing[section]
    (folder / FILES[section]).unlink()
    found = run_data(folder)
    assert found.missing[section] == f"{FILES[section]} is not in the run folder"
    left = getattr(found, section)
    assert left is None or len(left) == 0


@pytest.mark.parametrize("text", [b"[data\nx=", b"data = 5", b"[data]\nsplit = 1", b"\xff"])
@pytest.mark.parametrize("manifest", [True, False])
def test_without_settings_only_the_manifest_says_what_may_be_shown(tmp_path, text, manifest):
    folder = write_run(tmp_path / "run", task="regression")
    (folder / "settings.toml").write_bytes(text)
    if not manifest:
        (folder / "manifest.parquet").unlink()
    found = run_data(folder)
    assert found.settings == "" and "settings.toml cannot be read" in found.missing["settings"]
    assert (found.clips is not None) == manifest and not found.private
    assert found.missing.get("clips") == (None if manifest else "nothing says whether the data are private")


def test_methods_are_not_guessed_without_settings(tmp_path):
    (tmp_path / "settings.toml").write_text("[data\nx=")
    assert "settings.toml cannot be read" in run_page(tmp_path).read_text()
    assert not (tmp_path / "methods.md").exists()


def test_metrics_are_measured_again_where_their_file_is_missing(tmp_path):
    folder = write_run(tmp_path / "run", task="binary")
    assert "metrics" not in run_data(folder).missing
    (folder / "predictions.parquet").unlink()
    assert "metrics" in run_data(folder).missing


def test_an_epoch_without_a_metric_is_a_gap(tmp_path):
    folder = write_run(tmp_path / "run", task="regression")
    (folder / "history.csv").write_text("epoch,loss,val_r2\n0,2.5,NA\n1,2.0,0.5\n")
    history = run_data(folder).history
    assert history["loss"] == [2.5, 2.0] and history["val_r2"][1] == 0.5
    assert history["val_r2"][0] != history["val_r2"][0]


def test_labels_of_several_targets(tmp_path):
    folder = write_run(tmp_path / "run", task="regression")
    one = json.loads((folder / "labels.json").read_text())
    sick = {"raw": ["no", "yes", "no"], "fed": ["yes", "no"], "classes": ["no", "yes"]}
    (folder / "labels.json").write_text(json.dumps({**one, "targets": {"ef": one, "sick": sick}}))
    found = run_data(folder)
    assert list(found.others) == ["sick"] and found.labels.edges is not None
    html = render(found)
    assert 'download="labels_ef.svg"' in html and 'download="labels_sick.svg"' in html


def test_an_autoencoder_has_no_labels_and_no_scores(tmp_path):
    folder = write_run(tmp_path / "run", task="regression")
    (folder / "labels.json").unlink()
    (folder / "spec.json").write_text('{"target": "clip", "task": "clip", "classes": []}')
    error = {"mse": {"value": 12.5, "low": 11.0, "high": 14.0, "reason": None}}
    measured = {"task": "clip", "classes": [], "clips": 9, "videos": 9, "units": 9, "clusters": 3, "missing": 0,
                "metrics": error, "corrected": None, "subgroups": {}}  # fmt: skip
    told = {"unit": None, "cluster": "patient", "level": 0.95, "resamples": 50, "parts": {"test": {"clip": measured}}}
    (folder / "assessment.json").write_text(json.dumps(told))
    found = run_data(folder)
    assert set(found.missing) == {"worst", "saliency"}
    assert "12.5 <small>(11 to 14)<" in (html := render(found)) and "left out: " not in html


def test_a_run_on_features_says_of_which_network(tmp_path):
    run = write_run(tmp_path / "run", task="regression")
    assert "features" not in run_data(run).summary
    told = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(told | {"encoded_from": "cnn_rnn of a run, weights 1f2e"}))
    assert "It read features of cnn_rnn of a run, weights 1f2e, not frames." in run_data(run).summary


@pytest.mark.parametrize(
    ("verify", "words"),
    [
        ("decode", "None: every file decodes to its end."),
        ("packets", "The scan did not decode the frames, so a file may still break."),
        (None, "Not known: nothing says that the files were decoded when they were scanned."),
    ],
)
def test_no_failure_is_one_only_if_files_were_decoded(tmp_path, verify, words):
    folder = write_run(tmp_path / "run", task="regression")
    (folder / "failures.json").write_text("[]")
    rows = Manifest.read(folder / "manifest.parquet")
    table = rows.table if "error" in rows.table.column_names else rows.table.append_column("error", pa.nulls(len(rows)))
    notes = {} if verify is None else {"verify": verify}
    Manifest(table, root=rows.root, notes=notes).write(folder / "manifest.parquet")
    html = render(run_data(folder))
    assert words in html
    assert html.count("None: every file decodes to its end.") == (verify == "decode")
