import json
import os
import re
import subprocess
import sys

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import typer
from rich.text import Text

import cinefeed as package
from cinefeed.cli.app import make_app
from cinefeed.cli.options import Flow
from cinefeed.cli.show import choose_backend
from cinefeed.config import read_settings
from cinefeed.core.errors import KerasBackendError

SMALL = "--frame 16x16x1 --frames 3 --batch-size 3 --workers 0 --val 0.2 --test 0.3".split()


def test_scan_split_train_evaluate_predict_report(cinefeed, manifest, tmp_path):
    rows = pq.read_table(manifest)
    assert rows.num_rows == 12
    assert {"kind", "age", "num_frames"} <= set(rows.column_names)

    split = tmp_path / "split.parquet"
    done = cinefeed("split", manifest, "--out", split, "--group", "patient", "--val", 0.2, "--test", 0.3, "--json")
    assert done.code == 0
    assert sum(done.json[name] for name in ("train", "val", "test")) == 12
    assert "split" in pq.read_table(split).column_names

    run = tmp_path / "runs" / "x"
    options = ["--frame", "16x16x1", "--frames", 3, "--batch-size", 3, "--workers", 0, "--split-column", "split"]
    done = cinefeed("train", split, "--target", "age", "--out", run, "--epochs", 1, "--balance", *options, "--json")
    assert done.code == 0, done.err
    assert set(done.json["metrics"]) == {"val", "test"}
    assert "Keras on " in done.err
    assert "epoch 1/1" in done.err
    assert (run / "report.html").exists()
    assert read_settings(run / "settings.toml").data.split.column == "split"
    trained = done.json

    done = cinefeed("evaluate", run, "--json")
    assert done.code == 0
    assert done.json["metrics"]["rmse"] == pytest.approx(trained["metrics"]["test"]["rmse"], rel=1e-6)

    out = tmp_path / "predictions.parquet"
    done = cinefeed("predict", run, tmp_path / "videos", "--out", out)
    assert done.code == 0
    assert pq.read_table(out).num_rows == 12

    page = tmp_path / "page.html"
    done = cinefeed("report", run, "--out", page, "--json")
    assert (done.code, done.json) == (0, {"page": str(page)})
    assert page.read_text().lstrip().lower().startswith("<!doctype html>")


def test_scan_names_what_it_does_not_read_and_has_frames_chosen(cinefeed, tmp_path):
    folder, out = tmp_path / "data", tmp_path / "m.parquet"
    (folder / "case").mkdir(parents=True)
    for number in range(3):
        for suffix, value in ((".jpg", 60 * number), (".png", 255)):
            assert cv2.imwrite(str(folder / "case" / f"{number}{suffix}"), np.full((16, 16), value, np.uint8))
    (folder / "script.avs").write_text("AVISource()")
    refused = cinefeed("scan", folder, "--out", out)
    assert refused.code == 1 and "may be frames and masks; select the frames with --frames '*.jpg'" in refused.err
    done = cinefeed("scan", folder, "--out", out, "--frames", "*.jpg", "--json").json
    left_out = {"files": 3, "first": ["case/0.png", "case/1.png", "case/2.png"]}
    assert done["rows"] == 1 and done["not_read"] == {
        "image that frames='*.jpg' leaves out": left_out,
        ".avs": {"files": 1, "first": ["script.avs"]},
    }
    assert "not read   3 image" in cinefeed("scan", folder, "--out", out, "--frames", "*.jpg").out
    private = cinefeed("scan", folder, "--out", tmp_path / "p.parquet", "--frames", "*.jpg", "--private")
    assert "1 .avs" in private.out and "script.avs" not in private.out and "0.png" not in private.out


def test_a_config_file_says_the_same_and_options_win(cinefeed, manifest, tmp_path):
    by_options = tmp_path / "options"
    words = ["--target", "kind", "--group", "patient", "--stratify", "kind", "--where", "kind=a,b", "--classes", "b,a"]
    words += ["--rotate", 5, "--shift", 1, "--balance", "--seed", 3, "--epochs", 1, *SMALL]
    assert cinefeed("train", manifest, *words, "--out", by_options).code == 0
    toml = tmp_path / "config.toml"
    toml.write_text((by_options / "settings.toml").read_text())
    by_file = tmp_path / "file"
    assert cinefeed("train", "--config", toml, "--out", by_file).code == 0
    for name in ("metrics.json", "history.csv", "labels.json", "spec.json"):
        assert (by_file / name).read_bytes() == (by_options / name).read_bytes()
    again = tmp_path / "again"
    assert cinefeed("train", "--config", toml, "--out", again, "--seed", 4, "--rotate", 9).code == 0
    settings = read_settings(again / "settings.toml")
    assert (settings.feed.seed, settings.data.split.seed) == (4, 4)
    assert [type(each).__name__ for each in settings.transforms] == ["Rotate", "Shift"]
    assert settings.transforms[0].degrees == 9
    assert type(settings.sampler).__name__ == "BalancedClasses"
    assert settings.data.classes == ("b", "a")


def test_inspect_needs_only_a_manifest(cinefeed, manifest, tmp_path):
    page = tmp_path / "inspect.html"
    done = cinefeed("inspect", manifest, "--out", page)
    assert done.code == 0, done.err
    assert page.exists()
    done = cinefeed("inspect", manifest, "--out", page, "--target", "kind", "--balance", "--group", "patient", "--json")
    assert done.code == 0, done.err
    assert done.json["rows"] < 12
    assert "kind" in done.json["summary"]


@pytest.mark.slow
def test_the_demo_runs_from_end_to_end(cinefeed, tmp_path):
    done = cinefeed("demo", "--out", tmp_path / "demo", "--videos", 40, "--epochs", 1, "--json")
    assert done.code == 0, done.err
    assert {"r2", "rmse"} <= set(done.json["metrics"]["test"])
    assert (tmp_path / "demo" / "run" / "report.html").exists()


def test_real_video(cinefeed, data, tmp_path):
    out = tmp_path / "grid.parquet"
    done = cinefeed("scan", data / "grid", "--out", out, "--json")
    assert done.code == 0
    assert (done.json["rows"], pq.read_table(out).num_rows) == (5, 5)


def test_version_and_help(cinefeed):
    assert cinefeed("--version").out.strip() == package.__version__
    done = cinefeed("train", "--help")
    assert done.code == 0
    for option in ("--rotate", "--where", "--no-group", "--config"):
        assert option in done.out


def test_help_has_no_types_of_python(cinefeed):
    for name in typer.main.get_command(make_app()).commands:
        done = cinefeed(name, "--help")
        assert done.code == 0 and not re.search(r"<(bool|list)|list\[|None\b", done.out), name


def test_rich_hides_no_part_of_a_help_text():
    for name, command in typer.main.get_command(make_app()).commands.items():
        for text in (command.help, *(getattr(each, "help", None) for each in command.params)):
            assert text is None or Text.from_markup(text).plain == text, name  # [[section]] would be markup


def run_python(code, **environment):
    variables = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env={**variables, **environment}, check=True).stdout


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "cinefeed", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == package.__version__


def test_the_command_is_light_until_it_runs():
    code = "import sys, cinefeed.cli; print(*sorted({'typer', 'rich', 'keras'} & set(sys.modules)))"
    assert run_python(code).split() == []
    assert run_python("import typer, cinefeed.cli, sys; print(*({'typer'} & set(sys.modules)))").split() == ["typer"]


@pytest.mark.parametrize(
    ("configured", "backend"), [(None, "torch"), ("jax", "jax"), ("tensorflow", "torch"), ("not json", "torch")]
)
def test_an_installed_backend_is_taken_unless_the_user_chose_one(tmp_path, monkeypatch, configured, backend):
    monkeypatch.delenv("KERAS_BACKEND")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    if configured is not None:
        text = configured if configured == "not json" else json.dumps({"backend": configured})
        (tmp_path / "keras.json").write_text(text)
    monkeypatch.setattr("cinefeed.core.keras_backend.find_spec", lambda name: None if name == "tensorflow" else name)
    assert choose_backend() == backend
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert choose_backend() == "jax"


def test_a_backend_that_is_set_and_not_installed_is_named(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    monkeypatch.setattr("cinefeed.core.errors.find_spec", lambda name: name if name == "jax" else None)
    monkeypatch.setattr("cinefeed.cli.show.find_spec", lambda name: name if name == "keras" else None)
    with pytest.raises(KerasBackendError, match="tensorflow is not installed, jax is; set KERAS_BACKEND=jax"):
        choose_backend()


def test_balance_keeps_the_samplers_own_settings(tmp_path, manifest):
    config = tmp_path / "own.toml"
    config.write_text('[sampler]\nname = "BalancedClasses"\nproportion = 0.25\n')
    table = Flow(manifest=manifest, config=config, target=["kind"], group="patient", balance=True).table()
    assert table["sampler"] == {"name": "BalancedClasses", "proportion": 0.25}


def test_share_labels(cinefeed, tmp_path):
    (tmp_path / "data").mkdir()
    np.save(tmp_path / "data" / "a.npy", np.zeros((6, 5, 12, 16), np.uint8))
    (tmp_path / "l.csv").write_text("path,age\na.npy,31.5\n")
    words = ["scan", tmp_path / "data", "--labels", tmp_path / "l.csv", "--out", tmp_path / "m.parquet"]
    refused = cinefeed(*words)
    assert refused.code != 0 and "--share-labels" in refused.err
    assert cinefeed(*words, "--share-labels").code == 0
    assert pq.read_table(tmp_path / "m.parquet").column("age").to_pylist() == [31.5] * 6
