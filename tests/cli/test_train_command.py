"""`cinefeed train`: folds, and a run that was asked to leave."""

import itertools
import json

import pytest

from cinefeed.cli.train import finish
from cinefeed.training.run import RunResult

FLOW = "--target age --group patient --frame 16x16x1 --frames 3 --batch-size 3 --workers 0 --epochs 1".split()


def test_folds_train_a_run_each(cinefeed, manifest, tmp_path):
    out = tmp_path / "folds"
    done = cinefeed("train", manifest, *FLOW, "--val", 0.3, "--folds", 2, "--out", out, "--json")
    assert done.code == 0, done.err
    assert "fold1 of 2\n" in done.err and "fold2 of 2\n" in done.err
    assert {"rmse", "mae"} <= set(done.json["metrics"]) and done.json["folds"]["rmse"]["folds"] == 2
    assert done.json["report"] == str(out / "report.html")
    for folder, name in itertools.product((out, out / "fold1", out / "fold2"), ("report.html", "methods.md")):
        assert (folder / name).is_file()
    assert (out / "fold1" / "run.json").exists() and (out / "fold2" / "run.json").exists()
    done = cinefeed("train", manifest, *FLOW, "--val", 0.3, "--folds", 2, "--out", out)
    assert "fold1 of 2" not in done.err  # it is finished
    assert "out of fold:" in done.out and "rmse, mean of 2 folds: " in done.out
    assert "threshold" not in done.out and done.out.endswith(f"-> {out / 'report.html'}\n")


def test_folds_and_torchrun_exclude_each_other(cinefeed, manifest, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = cinefeed("train", manifest, *FLOW, "--folds", 2, "--out", tmp_path / "folds")
    assert done.code == 2
    assert "start it without torchrun" in done.err


def test_precision_loss_and_tensorboard(cinefeed, manifest, tmp_path):
    words = ["--loss", "mae", "--precision", "mixed_bfloat16", "--tensorboard", "--schedule", "constant"]
    words += ["--no-baselines", "--threshold", "youden"]
    done = cinefeed("train", manifest, *FLOW, "--val", 0.2, "--test", 0.3, *words, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert not (tmp_path / "run" / "baselines.parquet").exists()
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    settings = (tmp_path / "run" / "settings.toml").read_text()
    assert 'loss = "mae"' in settings and 'precision = "mixed_bfloat16"' in settings
    assert "baselines = false" in settings and 'threshold = "youden"' in settings


def test_ctrl_c_tells_how_to_resume(cinefeed, manifest, tmp_path, monkeypatch):
    def interrupted(settings, **_):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "checkpoint.npz").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr("cinefeed.training.fit.train", interrupted)
    done = cinefeed("train", manifest, *FLOW, "--val", 0.2, "--test", 0.3, "--out", tmp_path / "run")
    assert done.code == 130 and "run the same command again to resume from the checkpoint in" in done.err


@pytest.mark.parametrize("as_json", [True, False])
def test_a_run_that_left_says_so(tmp_path, capsys, as_json):
    summary = {
        "epochs": 2,
        "best_epoch": 1,
        "monitor": "val_loss",
        "stopped": "asked to leave",
        "seconds": 1.0,
        "feed_verdict": "",
    }
    finish(RunResult(folder=tmp_path, metrics={}, complete=False, **summary), as_json=as_json)
    output = capsys.readouterr().out
    if as_json:
        assert json.loads(output) == {"run": str(tmp_path), "complete": False, "epochs": 2, "stopped": "asked to leave"}
    assert "asked to leave" in output
    assert not list(tmp_path.iterdir())
