"""Bad input: one clear line on stderr, the right exit code, nothing half-written."""

import sys

import numpy as np
import pytest

FLOW = "--target kind --group patient --frame 16x16x1 --frames 3 --workers 0 --epochs 1".split()
NO_TARGET = FLOW[2:]  # --target once more would be a second target


def refused(done, *, code, words):
    """Check exit code and message: one line, which begins with the command's name and holds the words."""
    assert done.code == code, done
    lines = done.err.strip().splitlines()
    assert lines[-1].startswith("cinefeed: "), done.err
    for word in words:
        assert word in lines[-1]
    assert done.out == ""


def test_a_folder_without_videos(cinefeed, tmp_path):
    (tmp_path / "notes.txt").write_text("no video")
    out = tmp_path / "m.parquet"
    refused(cinefeed("scan", tmp_path, "--out", out), code=1, words=["no videos", "1 .txt", ".mp4", "docs/formats.md"])
    refused(cinefeed("scan", tmp_path / "absent", "--out", out), code=2, words=["absent does not exist"])
    assert [each.name for each in tmp_path.iterdir()] == ["notes.txt"]


def test_an_empty_label_table(cinefeed, videos, tmp_path):
    labels = tmp_path / "empty.csv"
    labels.write_text("path,kind\n")
    out = tmp_path / "m.parquet"
    refused(cinefeed("scan", videos, "--labels", labels, "--out", out), code=1, words=["empty.csv has no rows"])
    assert not list(tmp_path.glob("m.parquet*"))


def test_a_table_of_one_row(cinefeed, tmp_path):
    folder = tmp_path / "one"
    folder.mkdir()
    np.save(folder / "a.npy", np.zeros((6, 12, 12), np.uint8))
    (tmp_path / "labels.csv").write_text("path,patient,kind\na.npy,p0,a\n")
    out, run = tmp_path / "m.parquet", tmp_path / "run"
    assert cinefeed("scan", folder, "--labels", tmp_path / "labels.csv", "--out", out).code == 0
    refused(cinefeed("train", out, *FLOW, "--out", run), code=1, words=["1 ", "patient"])
    assert not run.exists()


def test_a_missing_column_is_named_with_the_nearest(cinefeed, manifest, tmp_path):
    run = tmp_path / "run"
    wrong = ["--target", "kidn"]
    refused(cinefeed("train", manifest, *NO_TARGET, *wrong, "--out", run), code=2, words=["'kidn'", "'kind'"])
    wrong = ["--group", "patent"]
    refused(cinefeed("train", manifest, *FLOW, *wrong, "--out", run), code=2, words=["'patent'", "'patient'"])
    wrong = ["--where", "kimd=a"]
    refused(cinefeed("train", manifest, *FLOW, *wrong, "--out", run), code=2, words=["'kimd'", "'kind'"])
    wrong = ["--where", "kind=c"]
    refused(cinefeed("train", manifest, *FLOW, *wrong, "--out", run), code=1, words=["kind='c'"])
    assert not run.exists()


def test_labels_that_are_missing(cinefeed, videos, tmp_path):
    labels = (tmp_path / "labels.csv").read_text().replace(",31.5", ",NaN").replace(",20.5", ",")
    (tmp_path / "holes.csv").write_text(labels)
    out, run = tmp_path / "h.parquet", tmp_path / "run"
    assert cinefeed("scan", videos, "--labels", tmp_path / "holes.csv", "--out", out).code == 0
    done = cinefeed("train", out, *NO_TARGET, "--target", "age", "--out", run)
    refused(done, code=1, words=["have no 'age' label", ".npy"])
    assert not run.exists()
    parts = ["--val", 0.2, "--test", 0.3]
    done = cinefeed("train", out, *NO_TARGET, "--target", "age", "--out", run, "--drop-missing", *parts)
    assert done.code == 0, done.err
    assert "with a 'age' label" in (run / "flow.json").read_text()


def test_a_class_with_one_patient(cinefeed, videos, tmp_path):
    labels = (tmp_path / "labels.csv").read_text().replace("p5,b", "p5,rare")
    (tmp_path / "rare.csv").write_text(labels)
    out, run = tmp_path / "r.parquet", tmp_path / "run"
    assert cinefeed("scan", videos, "--labels", tmp_path / "rare.csv", "--out", out).code == 0
    done = cinefeed("train", out, *FLOW, "--stratify", "kind", "--out", run)
    refused(done, code=1, words=["rare", "patient"])
    done = cinefeed("split", out, "--group", "patient", "--stratify", "kind", "--out", tmp_path / "s.parquet")
    refused(done, code=1, words=["rare", "patient"])
    assert not run.exists()
    assert not (tmp_path / "s.parquet").exists()


@pytest.mark.parametrize("content", ["empty", "text", "truncated"])
def test_a_file_that_is_no_whole_video(cinefeed, videos, manifest, content, tmp_path, data):
    whole = (data / "lips" / "00139.mp4").read_bytes()
    bad = {"empty": b"", "text": b"this is no video", "truncated": whole[: len(whole) // 3]}[content]
    (videos / "p0" / "bad.mp4").write_bytes(bad)
    out = tmp_path / "bad.parquet"
    options = ["--labels", tmp_path / "labels.csv", "--out", out]
    refused(cinefeed("scan", videos, *options), code=1, words=["bad.mp4", "unmatched"])
    labels = (tmp_path / "labels.csv").read_text() + "p0/bad.mp4,p0,a,50\n"
    (tmp_path / "labels.csv").write_text(labels)
    done = cinefeed("scan", videos, *options)
    assert done.code == 0
    assert "damaged    1" in done.out
    run = tmp_path / "run"
    words = [*FLOW, "--val", 0.2, "--test", 0.3, "--out", run, "--json"]
    done = cinefeed("train", out, *words)
    assert done.code == 0, done.err
    assert "bad.mp4" in (run / "failures.json").read_text()
    done = cinefeed("predict", run, videos / "p0" / "bad.mp4", "--out", tmp_path / "p.parquet")
    refused(done, code=1, words=["bad.mp4", "none of 1 rows has a readable frame"])
    assert not (tmp_path / "p.parquet").exists()


def test_an_unwritable_output_folder(cinefeed, manifest, videos, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    done = cinefeed("train", manifest, *FLOW, "--out", blocked / "run")
    refused(done, code=2, words=["run cannot be written", "Not a directory"])
    refused(cinefeed("scan", videos, "--out", blocked / "m.parquet"), code=1, words=["file", "m.parquet"])
    done = cinefeed("inspect", manifest, "--out", blocked / "page.html")
    refused(done, code=2, words=["page.html cannot be written"])
    assert blocked.read_text() == "in the way"


def test_unknown_settings_in_toml(cinefeed, manifest, tmp_path):
    toml = tmp_path / "settings.toml"
    run = tmp_path / "run"
    words = ["train", manifest, *FLOW, "--out", run, "--config", toml]
    toml.write_text("[feed]\nbatch_sise = 8\n")
    refused(cinefeed(*words), code=2, words=["[feed] batch_sise is not a setting; did you mean 'batch_size'?"])
    toml.write_text("[fead]\nbatch_size = 8\n")
    refused(cinefeed(*words), code=2, words=["fead is not a section; did you mean 'feed'?"])
    toml.write_text("[model]\nunit = 8\n")
    refused(cinefeed(*words), code=2, words=["[model: cnn_rnn] unit is not a setting", "'units'"])
    toml.write_text("[feed\n")
    refused(cinefeed(*words), code=2, words=["settings.toml is not TOML"])
    assert not run.exists()


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--frame", "8by8"], "HEIGHTxWIDTHxCHANNELS"),
        (["--where", "kind"], "COLUMN=VALUE"),
        (["--no-group"], "exclude each other"),
        (["--epochs", "0"], "--epochs 0 must be"),
        (["--frames", "0"], "--frames 0 must be"),
        (["--task", "ranking"], "--task 'ranking'"),
    ],
)
def test_options_out_of_range(cinefeed, manifest, tmp_path, words, hint):
    refused(cinefeed("train", manifest, *FLOW, *words, "--out", tmp_path / "run"), code=2, words=[hint])


def test_what_is_missing_is_asked_for(cinefeed, manifest, tmp_path):
    out = ["--out", tmp_path / "run"]
    done = cinefeed("train", manifest, *out, "--target", "kind")
    refused(done, code=2, words=["missing: --group COLUMN (or --no-group", "--frame HEIGHTx", "'cinefeed init'"])
    everything = ["the manifest, --target COLUMN, --group COLUMN", "--frame", "--out FOLDER"]
    refused(cinefeed("train"), code=2, words=everything)
    refused(cinefeed("split", manifest, "--out", tmp_path / "s.parquet"), code=2, words=["--group", "--no-group"])


def test_an_unknown_command_or_option_is_usage(cinefeed, manifest):
    assert cinefeed("trian", manifest).code == 2
    done = cinefeed("train", manifest, "--epoch", 3)
    assert done.code == 2
    assert "--epoch" in done.err


def test_no_run_folder(cinefeed, tmp_path):
    for words in (
        ["evaluate", tmp_path],
        ["report", tmp_path],
        ["predict", tmp_path, "--out", "p.csv"],
        ["export", tmp_path],
    ):
        refused(cinefeed(*words), code=2, words=["run folder"])


def test_no_run_folder_is_known_before_keras_is_loaded(cinefeed, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "absent")  # Keras cannot be loaded so
    monkeypatch.setitem(sys.modules, "cinefeed.training.trained", None)
    refused(cinefeed("predict", tmp_path, "--out", "p.csv"), code=2, words=["is not a run folder"])
