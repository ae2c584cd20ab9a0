import json
import tomllib

import numpy as np
import pyarrow as pa
import pytest
import typer

from cinefeed.cli.encode import encode
from cinefeed.cli.prepare import export, init
from cinefeed.cli.train import train
from cinefeed.config import read_settings
from cinefeed.core.errors import CinefeedError
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.training.fit import train as run_training
from cinefeed.training.run import read_run


@pytest.fixture
def command(capsys):
    """Runs a command line of the commands tried here; returns what it printed, or the error it ended with."""
    app = typer.Typer(pretty_exceptions_enable=False)
    for each in (init, encode, export, train):
        app.command()(each)

    def run(*words):
        capsys.readouterr()
        try:
            app([str(word) for word in words], standalone_mode=False)
        except CinefeedError as error:
            return str(error)
        return capsys.readouterr().out

    return run


@pytest.fixture
def manifest(tmp_path):
    """24 videos of 12 patients, brighter with age, as a scan indexes them."""
    folder = tmp_path / "videos"
    rng = np.random.default_rng(0)
    for number in range(24):
        frames = np.clip(rng.normal(60 + 6 * number, 20, (8 + number % 6, 20, 20)), 0, 255)
        (folder / f"p{number // 2}").mkdir(parents=True, exist_ok=True)
        np.save(folder / f"p{number // 2}" / f"v{number}.npy", frames.astype(np.uint8))
    labels = pa.table(
        {
            "path": [f"p{number // 2}/v{number}.npy" for number in range(24)],
            "patient": [f"p{number // 2}" for number in range(24)],
            "age": [20.0 + number for number in range(24)],
        }
    )
    out = tmp_path / "m.parquet"
    Manifest.scan(folder, labels=labels, out=out, progress=False)
    return out


def once(path, out):
    """Change settings to one epoch of a single run in another folder, and nothing else."""
    lines = path.read_text().splitlines()
    changed = {"epochs": "epochs = 1", "folds": "folds = 0", "out": f"out = {json.dumps(str(out))}"}
    path.write_text("\n".join(changed.get(line.partition(" = ")[0], line) for line in lines))
    return path


def test_init_writes_settings_that_train_as_they_are_and_again_alike(command, manifest, tmp_path):
    settings = tmp_path / "run.toml"
    output = command("init", manifest, "--target", "age", "--group", "patient", "--out", settings)
    assert settings.read_text() in output
    command("train", "--config", once(settings, tmp_path / "a"))
    run_training(read_settings(once(settings, tmp_path / "b")))
    metrics = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in "ab"]
    assert metrics[0] == metrics[1]
    assert np.isfinite(metrics[0]["test"]["rmse"])
    settings_of_a, _, rows = read_run(tmp_path / "a")
    assert settings_of_a.data.split.group == "patient"
    assert len(rows) == 24


def test_init_asks_for_the_group_and_overwrites_nothing(command, manifest, tmp_path, capsys):
    settings = tmp_path / "run.toml"
    assert "candidates: patient (12 values" in command("init", manifest, "--target", "age", "--out", settings)
    assert not settings.exists()
    command("init", manifest, "--target", "age", "--no-group", "--out", settings)
    assert tomllib.loads(settings.read_text())["data"]["split"]["group"] is False
    output = command("init", manifest, "--target", "age", "--no-group", "--out", settings)
    assert "exists already" in output
    output = command("init", manifest, "--target", "age", "--no-group", "--group", "patient", "--out", tmp_path / "n")
    assert "exclude each other" in output


def test_both_halves_and_the_export(command, manifest, tmp_path):
    settings = tmp_path / "run.toml"
    command("init", manifest, "--target", "age", "--group", "patient", "--out", settings)
    settings.write_text(settings.read_text().replace('"cnn3d"', '"cnn_rnn"'))  # which has an encoder of frames
    run_training(read_settings(once(settings, tmp_path / "whole")))
    result = json.loads(command("encode", tmp_path / "whole", manifest, "--out", tmp_path / "f", "--json"))
    assert (result["computed"], result["kept"], result["failures"]) == (24, 0, [])
    again = command("encode", tmp_path / "whole", manifest, "--out", tmp_path / "f")
    assert again.startswith("0 videos encoded by cnn_rnn of a run, weights ")
    half = tmp_path / "half.toml"
    command("init", tmp_path / "f" / "features.parquet", "--target", "age", "--group", "patient", "--out", half)
    assert tomllib.loads(half.read_text())["model"]["name"] in ("ordered", "attentive")
    run_training(read_settings(once(half, tmp_path / "half")))
    parts = [read_run(tmp_path / name)[2] for name in ("whole", "half")]
    ids = [dict(zip(*(each.column(name).to_pylist() for name in ("id", "split")), strict=True)) for each in parts]
    assert ids[0] == ids[1]
    output = json.loads(
        command("export", tmp_path / "half", "--format", "keras", "--out", tmp_path / "h.keras", "--json")
    )
    assert (tmp_path / "h.keras").stat().st_size > 0
    assert output["difference"] < 1e-3
    assert output["card"] == str(tmp_path / "README.md")
    card = (tmp_path / "README.md").read_text()
    assert "library_name: keras" in card and "features of" in card and "**To fill in:**" in card


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["runs/a"], "a manifest alone; found runs/a"),
        (["m.parquet", "--encoder", "keras:MobileNetV2"], "takes frames of any size; give one"),
        (["m.parquet", "--encoder", "timm:vit_tiny"], "none is downloaded"),
        (["m.parquet", "--encoder", "tim:vit_tiny"], "did you mean 'timm'?"),
        (["m.parquet", "--encoder", "timm:a", "--hop", "4"], "need --frames"),
        (["runs/a", "m.parquet", "--precision", "bfloat16"], "--precision need --encoder"),
        (["runs/a", "m.parquet", "--frame", "8x8x1"], "a run has its own"),
        (["runs/a", "m.parquet", "--dtype", "int8"], "use float16 or float32"),
    ],
)
def test_encode_says_what_it_lacks(command, words, message, tmp_path):
    assert message in command("encode", *words, "--out", tmp_path / "f")
