"""Commands that use a run on remote videos: the results of local files, from the cache that the command line names."""

import os
import sys
from pathlib import Path

import pytest
from servers import file_server

import cinefeed as cf
from cinefeed.cli import main
from cinefeed.core.errors import SettingError
from cinefeed.core.remote.cache import CACHE, CACHE_BYTES, cache_settings, default_folder
from cinefeed.training.run import write_json

sys.path.append(str(Path(__file__).parents[1] / "training"))
from made_run import make_manifest, make_run, settings_for


def test_each_command_has_a_cache_of_its_own(tmp_path, capsys):
    path = make_manifest(tmp_path / "videos")
    labels = cf.Manifest.read(path).table.drop_columns("id")
    cf.Manifest.scan(tmp_path / "videos", labels=labels, progress=False).write(path)
    of_run = tmp_path / "cache of the run"
    with file_server(tmp_path / "videos") as address:
        cf.Manifest.read(path, root=address).write(tmp_path / "remote.parquet")
        settings = settings_for(
            tmp_path / "remote.parquet",
            feed={"workers": {"count": 0, "cache": str(of_run)}},
            train={"out": str(tmp_path / "run")},
        )
        make_run(settings)
        ended = {
            "epochs": 1,
            "best_epoch": 1,
            "stopped": "made",
            "seconds": 0,
            "monitor": "val_loss",
        }  # for the model card
        write_json(tmp_path / "run" / "run.json", ended)
        before = {*(of_run / "members").iterdir()}
        assert before and not default_folder().exists()
        for number, command in enumerate(
            [
                f"predict {tmp_path}/run --out {tmp_path}/remote.csv --manifest {tmp_path}/remote.parquet",
                f"evaluate {tmp_path}/run",
                f"encode {tmp_path}/run {tmp_path}/remote.parquet --out {tmp_path}/features",
                f"export {tmp_path}/run --format keras",
                f"check {tmp_path}/remote.parquet",
                f"pack {tmp_path}/remote.parquet --codec copy --workers 1 --out {tmp_path}/packed",
                f"inspect {tmp_path}/remote.parquet --target age --group patient --out {tmp_path}/page.html",
            ]
        ):
            cache = tmp_path / f"cache {number}"
            words = [*command.split(), "--cache", str(cache), "--cache-bytes", "1MB", "--json"]
            assert main(words) == 0, capsys.readouterr().err
            assert [*(cache / "members").iterdir()], command
            assert not default_folder().exists() and CACHE not in os.environ and CACHE_BYTES not in os.environ
        assert {*(of_run / "members").iterdir()} == before
    words = f"predict {tmp_path}/run --out {tmp_path}/local.csv --manifest {path}".split()
    assert main(words) == 0
    assert (tmp_path / "local.csv").read_bytes() == (tmp_path / "remote.csv").read_bytes()


def test_a_wrong_limit_is_an_error_of_its_option(tmp_path, capsys):
    path = make_manifest(tmp_path / "videos", rows=2)
    assert main(["check", str(path), "--cache-bytes", "many"]) == 2
    assert "--cache-bytes many must be a number of bytes" in capsys.readouterr().err


def test_the_environment_replaces_settings(monkeypatch, tmp_path):
    assert cache_settings(tmp_path / "a", 7) == (tmp_path / "a", 7)
    assert cache_settings() == (default_folder(), None)
    monkeypatch.setenv(CACHE, str(tmp_path / "b"))
    monkeypatch.setenv(CACHE_BYTES, "2kB")
    assert cache_settings(tmp_path / "a", 7) == cache_settings() == (tmp_path / "b", 2000)
    monkeypatch.setenv(CACHE_BYTES, "2 cats")
    with pytest.raises(SettingError, match="CINEFEED_CACHE_BYTES='2 cats' must be a number of bytes"):
        cache_settings()
