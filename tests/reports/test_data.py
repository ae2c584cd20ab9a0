import json

import pyarrow as pa
import pytest
from made_runs import write_run

from cinefeed.data.manifest.manifest import Manifest
from cinefeed.reports import run_page
from cinefeed.reports.folder import run_data
from cinefeed.reports.page import render

FILES = {
    "labels": "labels.json",
    "clips": "clips.npz",
    "pixels": "pixels.json",
    "history": "history.csv",
    "feed_stats": "feed_stats.json",
    "predictions": "predictions.parquet",
    "assessment": "assessment.json",
    "worst": "worst.npz",
    "failures": "failures.json",
    "flow": "flow.json",
    "versions": "versions.json",
}


@pytest.mark.parametrize("section", FILES)
def test_a_missing_or_damaged_file_is_named(tmp_path, section):
    folder = write_run(tmp_path / "run", tasks={"ef": "regression"})
    whole = run_data(folder)
    assert FILES[section] not in " ".join(whole.missing.values())
    (folder / FILES[section]).write_bytes(b"\xff{]")
    assert f"{FILES[section]} cannot be read" in run_data(folder).missing[section]
    (folder / FILES[section]).unlink()
    page = run_data(folder)
    assert page.missing[section] == f"{FILES[section]} is not in the run folder"
    assert not getattr(page, section)


@pytest.mark.parametrize("text", [b"[data\nx=", b"data = 5", b"[data]\nsplit = 1", b"\xff"])
@pytest.mark.parametrize("manifest", [True, False])
def test_without_settings_only_the_manifest_says_what_may_be_shown(tmp_path, text, manifest):
    folder = write_run(tmp_path / "run", tasks={"ef": "regression"})
    (folder / "settings.toml").write_bytes(text)
    if not manifest:
        (folder / "manifest.parquet").unlink()
    page = run_data(folder)
    assert page.settings == "" and "settings.toml cannot be read" in page.missing["settings"]
    assert (page.clips is not None) == manifest and not page.private
    assert page.missing.get("clips") == (None if manifest else "it is unknown whether the data are private")


def test_methods_are_not_guessed_without_settings(tmp_path):
    (tmp_path / "settings.toml").write_text("[data\nx=")
    assert "settings.toml cannot be read" in run_page(tmp_path).read_text()
    assert not (tmp_path / "methods.md").exists()


def test_an_epoch_without_a_metric_is_a_gap(tmp_path):
    folder = write_run(tmp_path / "run", tasks={"ef": "regression"})
    (folder / "history.csv").write_text("epoch,loss,val_r2\n0,2.5,NA\n1,2.0,0.5\n")
    history = run_data(folder).history
    assert history["loss"] == [2.5, 2.0] and history["val_r2"][1] == 0.5
    assert history["val_r2"][0] != history["val_r2"][0]


def test_labels_of_several_targets(tmp_path):
    folder = write_run(tmp_path / "run", tasks={"ef": "regression"})
    one = json.loads((folder / "labels.json").read_text())
    sick = {"raw": ["no", "yes", "no"], "fed": ["yes", "no"], "classes": ["no", "yes"]}
    (folder / "labels.json").write_text(json.dumps({**one, "targets": {"ef": one, "sick": sick}}))
    page = run_data(folder)
    assert list(page.other_labels) == ["sick"] and page.labels.edges is not None
    html = render(page)
    assert 'download="labels_ef.svg"' in html and 'download="labels_sick.svg"' in html


def test_an_autoencoder_has_no_labels_and_no_scores(tmp_path):
    folder = write_run(tmp_path / "run", tasks={"ef": "regression"})
    (folder / "labels.json").unlink()
    (folder / "spec.json").write_text('{"target": "clip", "task": "clip", "classes": []}')
    error = {"mse": {"value": 12.5, "low": 11.0, "high": 14.0, "reason": None}}
    result = {"task": "clip", "classes": [], "clips": 9, "videos": 9, "units": 9, "clusters": 3, "missing": 0,
                "metrics": error, "corrected": None, "subgroups": {}}  # fmt: skip
    assessment = {
        "unit": None,
        "cluster": "patient",
        "level": 0.95,
        "resamples": 50,
        "parts": {"test": {"clip": result}},
    }
    (folder / "assessment.json").write_text(json.dumps(assessment))
    page = run_data(folder)
    assert page.missing == {}
    assert "12.5 <small>(11 to 14)<" in (html := render(page)) and "left out: " not in html


def test_a_run_on_features_says_of_which_network(tmp_path):
    run = write_run(tmp_path / "run", tasks={"ef": "regression"})
    assert "features" not in run_data(run).summary
    content = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(content | {"encoded_from": "cnn_rnn of a run, weights 1f2e"}))
    assert "Its inputs are features of cnn_rnn of a run, weights 1f2e, not frames." in run_data(run).summary


@pytest.mark.parametrize(
    ("verify", "words"),
    [
        ("decode", "None: every file decodes to the end."),
        ("packets", "The scan did not decode the frames, so a file may still be damaged."),
        (None, "Unknown: the manifest does not state that the scan decoded the files."),
    ],
)
def test_no_failure_is_one_only_if_files_were_decoded(tmp_path, verify, words):
    folder = write_run(tmp_path / "run", tasks={"ef": "regression"})
    (folder / "failures.json").write_text("[]")
    rows = Manifest.read(folder / "manifest.parquet")
    table = rows.table if "error" in rows.table.column_names else rows.table.append_column("error", pa.nulls(len(rows)))
    notes = {} if verify is None else {"verify": verify}
    Manifest(table, root=rows.root, notes=notes).write(folder / "manifest.parquet")
    html = render(run_data(folder))
    assert words in html
    assert html.count("None: every file decodes to the end.") == (verify == "decode")
